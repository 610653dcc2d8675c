"""Scraped pages, their sums over replicas, and histograms over a window."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaler.core.model import Latency, make_latency
from simulations.engine_layout import (
    COUNTERS,
    ITL_BOUNDS_S,
    METRIC_WORDS,
    TTFT_BOUNDS_S,
    Floats,
    Ints,
)
from simulations.fleet_counters import FleetCounters

WINDOW_S = 60.0  # of latency histograms, the daemon's default
PLACE = {name: place for place, name in enumerate(COUNTERS.names or ())}
"""Where a counter stands in the sums of ``Pages``."""

COUNTED = slice(0, METRIC_WORDS["counters"])
_TTFTS, _ITLS = METRIC_WORDS["ttft_buckets"], METRIC_WORDS["itl_buckets"]
BUCKETS = slice(COUNTED.stop, COUNTED.stop + _TTFTS + _ITLS)
MOST_BLOCKS = -1
"""Where counters, buckets and the most blocks in use stand in the sums of ``Pages``."""


class Pages:
    """One scrape.  Sums are as ``engine.sum_metrics`` makes them."""

    __slots__ = ("_counters", "_rows", "at_s", "uids", "whole")

    def __init__(self, counters: FleetCounters) -> None:
        self._counters = counters
        self.at_s = counters.at_s
        self.uids = counters.serving.names
        self.whole: Ints = counters.sums(counters.serving.slots)
        self._rows: dict[int, int] | None = None

    @property
    def rows(self) -> dict[int, int]:
        """The row of a replica by its uid."""
        if self._rows is None:
            self._rows = {uid: row for row, uid in enumerate(self.uids)}
        return self._rows

    def sums(self, uids: Sequence[int]) -> Ints:
        """Over these replicas."""
        if uids == self.uids:
            return self.whole
        rows = np.array([self.rows[uid] for uid in uids], dtype=np.int64)
        return self._counters.sums(self._counters.serving.slots[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Both histograms of a window."""

    ttft: Latency
    itl: Latency


class Window:
    """The histograms over the last ``WINDOW_S``: what was added, less what has left."""

    def __init__(self) -> None:
        self._total: Floats = np.zeros(_TTFTS + _ITLS)
        self._added: deque[tuple[float, Ints]] = deque()

    def add(self, counts: Ints, now_s: float) -> None:
        """What one more round has counted: the ``BUCKETS`` of sums."""
        self._added.append((now_s, counts))
        self._total += counts

    def latencies(self, *, seen_at_s: float, coverage_ratio: float, now_s: float) -> Latencies:
        """The histograms at ``now_s``; times ascend."""
        while self._added and self._added[0][0] <= now_s - WINDOW_S:
            self._total -= self._added.popleft()[1]
        counts = self._total.tolist()
        return Latencies(
            ttft=make_latency(
                seen_at_s=seen_at_s,
                coverage_ratio=coverage_ratio,
                window_s=WINDOW_S,
                bounds_s=TTFT_BOUNDS_S,
                counts=tuple(counts[:_TTFTS]),
            ),
            itl=make_latency(
                seen_at_s=seen_at_s,
                coverage_ratio=coverage_ratio,
                window_s=WINDOW_S,
                bounds_s=ITL_BOUNDS_S,
                counts=tuple(counts[_TTFTS:]),
            ),
        )
