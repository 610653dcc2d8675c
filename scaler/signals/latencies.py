"""Latency histograms of the last minute, from the deltas of pods."""

from collections import deque
from collections.abc import Iterable, Sequence
from operator import add

from scaler.signals.samples import Histogram

Bounds = tuple[float, ...]


class HistogramWindow:
    """Buckets of the last ``window_s``, merged from equal bound sets only.

    During a rollout two sets of bounds may be in use; the one with more observations is read.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._added: deque[tuple[float, Histogram]] = deque()
        self._bounds: Bounds | None = None

    def add(self, deltas: Sequence[Histogram], now_s: float) -> None:
        """Add the buckets of one round, a histogram per pod."""
        self._forget(now_s)
        for bounds, counts in _summed(deltas).items():
            self._bounds = bounds
            self._added.append((now_s, Histogram(bounds_s=bounds, counts=counts)))

    def read(self, now_s: float) -> Histogram | None:
        """Buckets over the window; zeros when nothing was observed, None before any histogram."""
        self._forget(now_s)
        if self._bounds is None:
            return None
        sums = _summed(histogram for _, histogram in self._added)
        nothing = (self._bounds, (0.0,) * len(self._bounds))
        bounds, counts = max(sums.items(), key=lambda item: sum(item[1]), default=nothing)
        return Histogram(bounds_s=bounds, counts=counts)

    def _forget(self, now_s: float) -> None:
        while self._added and self._added[0][0] <= now_s - self.window_s:
            self._added.popleft()


def _summed(histograms: Iterable[Histogram]) -> dict[Bounds, tuple[float, ...]]:
    """Sums by bounds."""
    sums: dict[Bounds, tuple[float, ...]] = {}
    for histogram in histograms:
        known = sums.get(histogram.bounds_s)
        counts = histogram.counts
        sums[histogram.bounds_s] = counts if known is None else tuple(map(add, known, counts))
    return sums
