"""Schedules on a grid of time, and the controller that commands one.

The oracle works with counts of replicas commanded, one for each ``GRID_S``.  From the replicas that
must serve in each cell, ``commanded`` makes the counts that have them ready in time.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from scaler.core.model import Decision
from simulations.controller import View
from simulations.fleet_counters import FleetCounters
from simulations.oracle_replay import Step
from simulations.trace_chunks import Floats

GRID_S = 15.0

Counts = npt.NDArray[np.int64]


class ScheduleController:
    """Sets the counts of a schedule at their times and looks at nothing."""

    def __init__(self, schedule: Sequence[Step]) -> None:
        """``schedule`` holds (at_s, count) in order of time."""
        times = [at_s for at_s, _ in schedule]
        assert times == sorted(times), "a schedule is in order of time"
        self._schedule = tuple(schedule)
        self._next = 0

    @property
    def next_at_s(self) -> float:
        """When the next count is due; infinity after the last."""
        return self._schedule[self._next][0] if self._next < len(self._schedule) else math.inf

    def scraped(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None) -> None:
        """Nothing that is seen changes a schedule."""

    def act(self, view: View) -> int | None:
        """The last count that is due."""
        count: int | None = None
        while self.next_at_s <= view.now_s:
            count = self._schedule[self._next][1]
            self._next += 1
        return count

    @property
    def decision(self) -> Decision | None:
        """A schedule decides nothing."""
        return None


def steps_of(counts: Counts, *, first: int) -> tuple[Step, ...]:
    """The changes in a row of counts, from ``first`` on."""
    before = np.concatenate(([first], counts[:-1]))
    cells = np.flatnonzero(counts != before)
    return tuple((float(cell) * GRID_S, int(counts[cell])) for cell in cells)


def commanded(ready: Counts, *, lead_cells: int, valley_cells: int) -> Counts:
    """The counts to command so that ``ready`` replicas are ready in each cell.

    Who must be ready is commanded ``lead_cells`` earlier, and who will be needed again within that
    time is kept; so is who would be gone for fewer than ``valley_cells``.
    """
    held = _highest(ready, before=0, after=lead_cells)
    if valley_cells <= 1:
        return held
    swollen = _highest(held, before=valley_cells - 1, after=0)
    return -_highest(-swollen, before=0, after=valley_cells - 1)


def _highest(counts: Counts, *, before: int, after: int) -> Counts:
    """The highest of each cell, the ``before`` ones before it and the ``after`` ones after it."""
    padded = np.concatenate(
        (np.full(before, counts[0]), counts, np.full(after, counts[-1], dtype=np.int64))
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, before + after + 1)
    highest: Counts = windows.max(axis=1)
    return highest


def spread(starts_s: Floats, lengths_s: Floats, amounts: Floats, *, cells: int) -> Floats:
    """Amounts spread evenly over spans of time, summed by cell; what is beyond the last is lost."""
    edges = np.zeros(cells + 2)
    slope = np.zeros(cells + 2)
    rate = amounts / np.maximum(lengths_s, GRID_S)
    for at_s, sign in ((starts_s, 1.0), (starts_s + np.maximum(lengths_s, GRID_S), -1.0)):
        cell = np.minimum((at_s / GRID_S).astype(np.int64), cells)
        inside = np.clip((cell + 1) * GRID_S - at_s, 0.0, GRID_S)
        edges += np.bincount(cell, weights=sign * rate * inside, minlength=cells + 2)
        slope += np.bincount(cell + 1, weights=sign * rate * GRID_S, minlength=cells + 2)
    summed: Floats = (edges + np.cumsum(slope))[:cells]
    return summed
