"""Small changes of a schedule, for the oracle's search."""

from dataclasses import dataclass

import numpy as np

from simulations.oracle_replay import Deployment
from simulations.oracle_schedule import Counts

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)


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


def drawn_move(counts: Counts, *, block: int, cells: range, random: np.random.Generator) -> Move:
    """A change in ``cells``: a step shifted, a level's stretch ended, or any stretch changed."""
    kind = random.random()
    length = int(random.choice(LENGTHS))
    change = -1 if random.random() < 0.65 else 1
    steps = np.flatnonzero(np.diff(counts[cells.start : cells.stop])) + cells.start + 1
    if steps.size == 0 or kind < 0.3:
        begin = int(random.integers(cells.start, cells.stop))
        return Move(block=block, begin=begin, end=min(begin + length, counts.size), change=change)
    step = int(random.choice(steps))
    if kind < 0.5:
        return _flattened(counts, step, block=block)
    if random.random() < 0.5:
        return Move(block=block, begin=step, end=min(step + length, counts.size), change=change)
    return Move(block=block, begin=max(step - length, 0), end=step, change=change)


def _flattened(counts: Counts, step: int, *, block: int) -> Move:
    """The stretch of one level behind a step, cut off if the step is up, filled if it is down."""
    level = counts[step]
    up = level > counts[step - 1]
    behind = counts[step:] < level if up else counts[step:] > level
    ends = np.flatnonzero(behind)
    end = step + int(ends[0]) if ends.size else counts.size
    return Move(block=block, begin=step, end=end, change=-1 if up else 1)
