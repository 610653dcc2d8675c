"""Scraped pages as arrays, their sums over replicas, and histograms over a window."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaler.core.model import Latency
from simulations.engine_layout import COUNTERS, Floats, Ints
from simulations.fleet_counters import FleetCounters

WINDOW_S = 60.0  # of latency histograms, the daemon's default
_NAMES = COUNTERS.names or ()
PLACE = {name: place for place, name in enumerate(_NAMES)}
"""Where a counter stands in a row of ``Pages.words``."""

assert COUNTERS.itemsize == 8 * len(_NAMES), "every counter is a word, so that rows are a matrix"


class Pages:
    """One scrape.  Fields that are no integers have no meaning in ``words`` and its sums."""

    def __init__(self, counters: FleetCounters) -> None:
        self.at_s = counters.at_s
        self.uids: tuple[int, ...] = tuple(counters.uids.tolist())
        self.words: Ints = counters.values.view(np.int64).reshape(-1, len(_NAMES))
        self.ttft = counters.ttft_buckets
        self.itl = counters.itl_buckets
        self.whole = Sums(
            words=self.words.sum(axis=0), ttft=self.ttft.sum(axis=0), itl=self.itl.sum(axis=0)
        )
        self._rows: dict[int, int] | None = None

    @property
    def rows(self) -> dict[int, int]:
        """The row of a replica by its uid."""
        if self._rows is None:
            self._rows = {uid: row for row, uid in enumerate(self.uids)}
        return self._rows

    def sums(self, uids: Sequence[int]) -> "Sums":
        """Over these replicas."""
        if uids == self.uids:
            return self.whole
        rows = [self.rows[uid] for uid in uids]
        return Sums(
            words=self.words[rows].sum(axis=0),
            ttft=self.ttft[rows].sum(axis=0),
            itl=self.itl[rows].sum(axis=0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Counters and histograms of several replicas added up."""

    words: Ints
    ttft: Ints
    itl: Ints


class Window:
    """A histogram over the last ``WINDOW_S``: what was added, less what has left."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self._total: Floats = np.zeros(len(bounds_s) + 1)
        self._added: deque[tuple[float, Ints]] = deque()

    def add(self, counts: Ints, now_s: float) -> None:
        """What one more round has counted."""
        self._added.append((now_s, counts))
        self._total += counts

    def latency(self, *, seen_at_s: float, coverage_ratio: float, now_s: float) -> Latency:
        """The histogram at ``now_s``; times ascend."""
        while self._added and self._added[0][0] <= now_s - WINDOW_S:
            self._total -= self._added.popleft()[1]
        return Latency(
            seen_at_s=seen_at_s,
            coverage_ratio=coverage_ratio,
            window_s=WINDOW_S,
            bounds_s=self._bounds_s,
            counts=tuple(self._total.tolist()),
        )
