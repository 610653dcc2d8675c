"""Past scrapes, and the PromQL functions over them that autoscaling rules are written in.

The series are those of replicas that are ready: a terminating pod leaves the endpoints that a
ServiceMonitor reads, and the daemon does not look at it either.  A series therefore ends when its
replica begins to drain, and an instant vector forgets it at the next scrape, as Prometheus does by
a staleness marker.  A range keeps the samples of such a replica until they have left it.

Sources: Prometheus v3 ``promql/functions.go`` (``extrapolatedRate``, ``histogramQuantile``) and
``promql/engine.go`` (ranges are open on the left, the lookback is 5 minutes).  Evaluation is at the
instant that is asked for, without a recording rule's own period.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from simulations.engine_layout import ITL_BOUNDS_S, TTFT_BOUNDS_S, Floats, Ints
from simulations.fleet_counters import FleetCounters

LOOKBACK_S = 300.0  # query.lookback-delta
_EXTRAPOLATE_BELOW = 1.1  # of the mean distance between samples

Series: TypeAlias = Callable[[FleetCounters], npt.NDArray[np.float64]]
"""One metric: a row for every replica of a scrape, a column for every bucket of a histogram."""


def metric(field: str) -> Series:
    """The gauge or counter ``field`` of ``engine_layout.COUNTERS``."""
    return lambda counters: counters.values[field].astype(np.float64)


def kv_cache_usage(counters: FleetCounters) -> Floats:
    """``vllm:kv_cache_usage_perc``: the share of the blocks in use, 0 to 1."""
    return counters.values["blocks_used"] / float(counters.kv_blocks_usable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A histogram: its cumulative buckets, and their bounds without infinity."""

    buckets: Series
    bounds_s: Sequence[float]


TTFT = Histogram(
    buckets=lambda counters: np.cumsum(counters.ttft_buckets, axis=1, dtype=np.float64),
    bounds_s=TTFT_BOUNDS_S,
)
ITL = Histogram(
    buckets=lambda counters: np.cumsum(counters.itl_buckets, axis=1, dtype=np.float64),
    bounds_s=ITL_BOUNDS_S,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """An instant vector: values by replica; the rows of a histogram have a column a bucket."""

    uids: Ints
    values: Floats

    @property
    def total(self) -> float:
        """``sum``; 0 of nothing, where PromQL has no result and KEDA takes that for 0."""
        return float(self.values.sum())

    @property
    def mean(self) -> float:
        """``avg``; NaN of nothing."""
        return float(self.values.mean()) if len(self.uids) else math.nan

    @property
    def highest(self) -> float:
        """``max``; NaN of nothing."""
        return float(self.values.max()) if len(self.uids) else math.nan

    def by_uid(self) -> dict[int, float]:
        """Values by replica."""
        return dict(zip(self.uids.tolist(), self.values.tolist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scrape:
    """One scrape: ``rows`` are those of ``counters`` that count, of the replicas ``uids``."""

    at_s: float
    counters: FleetCounters
    rows: Ints
    uids: Ints
    gpu_ratio: Mapping[int, float] | None

    def of(self, series: Series) -> Floats:
        return series(self.counters)[self.rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """Replicas with samples at the same times: ``values`` is [sample, replica, ...]."""

    uids: Ints
    at_s: Floats
    values: Floats


class ScrapeHistory:
    """The scrapes of the last ``keep_s`` seconds."""

    def __init__(self, *, keep_s: float = 600.0) -> None:
        self._keep_s = keep_s
        self._scrapes: deque[_Scrape] = deque()

    def add(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None = None) -> None:
        """Prometheus has read the replicas' pages and the DCGM exporter's."""
        rows = np.flatnonzero(~counters.draining)
        self._scrapes.append(
            _Scrape(
                at_s=counters.at_s,
                counters=counters,
                rows=rows,
                uids=counters.uids[rows],
                gpu_ratio=gpu_ratio,
            )
        )
        while self._scrapes[0].at_s <= counters.at_s - self._keep_s:
            self._scrapes.popleft()

    @property
    def empty(self) -> bool:
        """Whether nothing was ever scraped."""
        return not self._scrapes

    def now(self, series: Series, now_s: float) -> Vector:
        """The newest value of each replica of the last scrape."""
        last = self._newest(now_s)
        if last is None:
            return _nothing()
        return Vector(uids=last.uids, values=last.of(series))

    def gpu_ratio(self, now_s: float) -> Vector:
        """``DCGM_FI_DEV_GPU_UTIL`` as 0 to 1; without replicas that DCGM has not seen at work."""
        last = self._newest(now_s)
        if last is None or last.gpu_ratio is None:
            return _nothing()
        seen = [uid for uid in last.uids.tolist() if uid in last.gpu_ratio]
        values = [last.gpu_ratio[uid] for uid in seen]
        return Vector(uids=np.array(seen, dtype=np.int64), values=np.array(values))

    def rate(self, series: Series, *, window_s: float, now_s: float) -> Vector:
        """``rate``: growth a second, with counter resets added up and ends extrapolated."""
        return self._over(
            series,
            lambda found: _rate(found.at_s, found.values, start_s=now_s - window_s, end_s=now_s),
            window_s=window_s,
            now_s=now_s,
            samples_min=2,
        )

    def growth(self, series: Series, *, window_s: float, now_s: float) -> Vector:
        """Growth between the first and the last sample, counter resets added up: no promql."""
        return self._over(
            series,
            lambda found: _growth(found.values),
            window_s=window_s,
            now_s=now_s,
            samples_min=2,
        )

    def max_over_time(self, series: Series, *, window_s: float, now_s: float) -> Vector:
        """``max_over_time``."""
        return self._over(
            series, lambda found: found.values.max(axis=0), window_s=window_s, now_s=now_s
        )

    def avg_over_time(self, series: Series, *, window_s: float, now_s: float) -> Vector:
        """``avg_over_time``."""
        return self._over(
            series, lambda found: found.values.mean(axis=0), window_s=window_s, now_s=now_s
        )

    def quantile(
        self, share: float, histogram: Histogram, *, window_s: float, now_s: float
    ) -> float:
        """``histogram_quantile(share, sum by (le) (rate(...)))``; NaN without traffic."""
        rates = self.rate(histogram.buckets, window_s=window_s, now_s=now_s)
        if not len(rates.uids):
            return math.nan
        cumulative = np.maximum.accumulate(rates.values.sum(axis=0))  # as Prometheus repairs it
        return _quantile(share, cumulative, histogram.bounds_s)

    def span_s(self, *, window_s: float, now_s: float) -> float:
        """Time between the oldest and the newest scrape in the window."""
        times = [scrape.at_s for scrape in self._within(window_s, now_s)]
        return times[-1] - times[0] if times else 0.0

    def _newest(self, now_s: float) -> _Scrape | None:
        if not self._scrapes or self._scrapes[-1].at_s <= now_s - LOOKBACK_S:
            return None
        return self._scrapes[-1]

    def _within(self, window_s: float, now_s: float) -> list[_Scrape]:
        assert window_s <= self._keep_s, "the history is shorter than the window"
        return [scrape for scrape in self._scrapes if scrape.at_s > now_s - window_s]

    def _over(
        self,
        series: Series,
        function: Callable[[_Range], Floats],
        *,
        window_s: float,
        now_s: float,
        samples_min: int = 1,
    ) -> Vector:
        ranges = _ranges(self._within(window_s, now_s), series)
        made = [(found.uids, function(found)) for found in ranges if len(found.at_s) >= samples_min]
        if not made:
            return _nothing()
        return Vector(
            uids=np.concatenate([uids for uids, _ in made]),
            values=np.concatenate([values for _, values in made]),
        )


def _nothing() -> Vector:
    return Vector(uids=np.empty(0, dtype=np.int64), values=np.empty(0))


def _ranges(scrapes: Sequence[_Scrape], series: Series) -> Iterator[_Range]:
    """The samples of ``scrapes``, replicas that were there at the same times together."""
    if not scrapes:
        return
    at_s = np.array([scrape.at_s for scrape in scrapes])
    values = [scrape.of(series) for scrape in scrapes]
    first = scrapes[0].uids
    if all(np.array_equal(scrape.uids, first) for scrape in scrapes):
        yield _Range(uids=first, at_s=at_s, values=np.stack(values))
        return
    places: dict[int, list[tuple[int, int]]] = {}
    for index, scrape in enumerate(scrapes):
        for row, uid in enumerate(scrape.uids.tolist()):
            places.setdefault(uid, []).append((index, row))
    together: dict[tuple[int, ...], list[int]] = {}
    for uid, found in places.items():
        together.setdefault(tuple(index for index, _ in found), []).append(uid)
    for indices, uids in together.items():
        samples = [
            values[index][[places[uid][at][1] for uid in uids]] for at, index in enumerate(indices)
        ]
        yield _Range(
            uids=np.array(uids, dtype=np.int64), at_s=at_s[list(indices)], values=np.stack(samples)
        )


def _rate(at_s: Floats, values: Floats, *, start_s: float, end_s: float) -> Floats:
    """``extrapolatedRate`` for counters.

    The growth between the first and the last sample is stretched to the ends of the range where
    they are nearer than 1.1 mean distances between samples, else by half a distance; at the start
    no further than to where the counter would have been 0.
    """
    growth = _growth(values)
    sampled_s = float(at_s[-1] - at_s[0])
    mean_s = sampled_s / (len(at_s) - 1)
    before_s, after_s = float(at_s[0]) - start_s, end_s - float(at_s[-1])
    if before_s >= _EXTRAPOLATE_BELOW * mean_s:
        before_s = mean_s / 2.0
    if after_s >= _EXTRAPOLATE_BELOW * mean_s:
        after_s = mean_s / 2.0
    to_zero_s = np.full(growth.shape, np.inf)
    np.divide(sampled_s * values[0], growth, out=to_zero_s, where=growth > 0.0)
    stretched_s = sampled_s + np.minimum(before_s, to_zero_s) + after_s
    rates: Floats = growth * stretched_s / (sampled_s * (end_s - start_s))
    return rates


def _growth(values: Floats) -> Floats:
    steps = np.diff(values, axis=0)
    grown: Floats = values[-1] - values[0] + np.where(steps < 0.0, values[:-1], 0.0).sum(axis=0)
    return grown


def _quantile(share: float, cumulative: Floats, bounds_s: Sequence[float]) -> float:
    """Linear within its bucket, the first of which begins at 0; above all bounds, the highest."""
    total = float(cumulative[-1])
    if not total > 0.0:
        return math.nan
    rank = share * total
    bucket = int(np.searchsorted(cumulative, rank, side="left"))
    if bucket >= len(bounds_s):
        return bounds_s[-1]
    low_s = bounds_s[bucket - 1] if bucket else 0.0
    below = float(cumulative[bucket - 1]) if bucket else 0.0
    inside = float(cumulative[bucket]) - below
    return low_s + (bounds_s[bucket] - low_s) * (rank - below) / inside
