"""Small changes of a schedule, for the oracle's search."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulations.oracle_replay import Deployment
from simulations.oracle_schedule import Counts

LENGTHS = (1, 1, 1, 2, 2, 3, 4, 6, 8, 12, 20)  # cells; short ones more often, and none reaches far


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Add ``change`` replicas from cell ``begin`` up to cell ``end``; tried for ``block``."""

    block: int
    begin: int
    end: int
    change: int


def moved(counts: Counts, move: Move, deployment: Deployment) -> Counts:
    """``counts`` with the move made, within the deployment's bounds."""
    changed = counts.copy()
    changed[move.begin : move.end] = np.clip(
        changed[move.begin : move.end] + move.change,
        deployment.replicas_min,
        deployment.replicas_max,
    )
    return changed


STRETCH_MIN = 6  # cells
FLAT_MAX = 20
LENGTHS_FAR = (*LENGTHS, 16, 40, 80)  # where the whole trace is the neighbourhood


def drawn_move(
    counts: Counts,
    *,
    block: int,
    cells: range,
    random: np.random.Generator,
    lengths: Sequence[int] = LENGTHS,
) -> Move:
    """A change that begins in ``cells``: mostly a step earlier or later, else a stretch.

    A dip of a cell or two costs a start-up, and a bump of as much is gone before it is ready, so
    steps are shifted and not notched.
    """
    kind = random.random()
    length = int(random.choice(lengths))
    begin = max(cells.start, 1)
    steps = np.flatnonzero(np.diff(counts[begin - 1 : cells.stop])) + begin
    if steps.size == 0 or kind < 0.15:
        start = int(random.integers(cells.start, cells.stop))
        end = min(start + max(length, STRETCH_MIN), counts.size)
        change = -1 if random.random() < 0.5 else 1
        return Move(block=block, begin=start, end=end, change=change)
    step = int(random.choice(steps))
    if kind < 0.35:
        return _flattened(counts, step, block=block)
    up = counts[step] > counts[step - 1]
    if random.random() < 0.5:
        end = min(step + length, counts.size)
        return Move(block=block, begin=step, end=end, change=-1 if up else 1)
    earliest = min(max(step - length, cells.start), step - 1)
    return Move(block=block, begin=earliest, end=step, change=1 if up else -1)


def _flattened(counts: Counts, step: int, *, block: int) -> Move:
    """The stretch of one level behind a step, cut off if the step is up, filled if it is down."""
    level = counts[step]
    up = level > counts[step - 1]
    near = counts[step : step + FLAT_MAX]
    ends = np.flatnonzero(near < level if up else near > level)
    length = int(ends[0]) if ends.size else near.size
    return Move(block=block, begin=step, end=step + length, change=-1 if up else 1)
