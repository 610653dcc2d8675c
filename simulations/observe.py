"""What the daemon would see of the simulated fleet: pages as scraped -> Observation.

The meaning of every field is that of the daemon's own signals (a test holds the two together):
deltas between two scrapes of a replica, all counts of a replica that has just begun to serve as
news, its first latencies left out, draining replicas not looked at.  Counters never reset here,
because a replica that crashes does so before it serves.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from scaler.core.config import FreshnessConfig
from scaler.core.model import (
    Cause,
    Gpu,
    KvCache,
    Latency,
    NoData,
    Observation,
    Queue,
    Replicas,
    Work,
)
from simulations.engine_layout import ITL_BOUNDS_S, TTFT_BOUNDS_S, Floats, Ints
from simulations.fleet_counters import FleetCounters
from simulations.replica import ReplicaModel

WINDOW_S = 60.0  # of latency histograms, the daemon's default
_INTERVAL_MIN_S = 1e-3
_FIELDS = (
    "requests_running", "requests_waiting", "finished_stop", "finished_abort",
    "admission_rejections", "prompt_tokens", "prompt_tokens_cached", "generation_tokens",
    "preemptions", "iterations", "finished_prompt_tokens", "finished_output_tokens", "blocks_used",
)  # fmt: skip
_PLACE = {name: place for place, name in enumerate(_FIELDS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pages:
    """One scrape: ``rows`` finds a replica's row in the arrays by its uid."""

    at_s: float
    rows: dict[int, int]
    numbers: Floats  # [replica, field of _FIELDS]
    ttft: Ints
    itl: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """What happened between two scrapes, summed over the replicas seen in the later one."""

    replicas: int
    interval_s: float
    replica_s: float
    arrived: float
    grown: Floats  # in the order of _FIELDS


class Observer:
    """Scrapes and collections in, observations out; one for one target."""

    def __init__(self, model: ReplicaModel, freshness: FreshnessConfig) -> None:
        self._model = model
        self._freshness = freshness
        self._scraped: _Pages | None = None
        self._base: _Pages | None = None  # the scrape that ended the last round
        self._base_uids: frozenset[int] = frozenset()
        self._last_tick_s: float | None = None
        self._past: set[int] = set()  # replicas whose counting has begun
        self._entered_at_s: dict[int, float] = {}
        self._last_work: Work | None = None
        self._last_work_at_s = 0.0
        self._ttft: deque[tuple[float, Ints]] = deque()
        self._itl: deque[tuple[float, Ints]] = deque()
        self._histograms = False
        self._gpu_scraped: tuple[float, Mapping[int, float]] | None = None

    def scrape(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None = None) -> None:
        """Prometheus reads the pages of all replicas, and the DCGM exporter's: by uid."""
        values = counters.values
        self._scraped = _Pages(
            at_s=counters.at_s,
            rows={uid: row for row, uid in enumerate(counters.uids.tolist())},
            numbers=np.array([values[name] for name in _FIELDS], dtype=np.float64).T,
            ttft=counters.ttft_buckets,
            itl=counters.itl_buckets,
        )
        if gpu_ratio is not None:
            self._gpu_scraped = (counters.at_s, gpu_ratio)

    def observe(self, replicas: Replicas, ready: Sequence[int], now_s: float) -> Observation:
        """The observation at ``now_s``; ``ready`` are the uids of the replicas that are ready."""
        self._attend(ready, now_s)
        pages = self._scraped
        missing = self._missing(pages, ready, replicas, now_s)
        having: list[int] = []
        if pages is not None and missing is None:
            having = [uid for uid in ready if uid in pages.rows]
            awaited = [uid for uid in ready if uid not in pages.rows]
            due = len(ready) - len([uid for uid in awaited if self._is_awaited(uid, now_s)])
            missing = self._too_few(len(having), due, len(ready))
        self._last_tick_s = now_s
        if pages is None or missing is not None:
            gap = missing or NoData(cause=Cause.NEVER, detail="not scraped yet")
            return self._seen(replicas, ready, now_s, gap)
        return self._of_pages(pages, having, replicas, ready, now_s)

    def _of_pages(
        self,
        pages: _Pages,
        having: list[int],
        replicas: Replicas,
        ready: Sequence[int],
        now_s: float,
    ) -> Observation:
        coverage = len(having) / len(ready)
        work = self._work(pages, having, ready, now_s)
        numbers = pages.numbers[[pages.rows[uid] for uid in having]]
        usage = numbers[:, _PLACE["blocks_used"]] / (self._model.kv_blocks - 1)
        sums = numbers.sum(axis=0)
        return Observation(
            seen_at_s=now_s,
            replicas=replicas,
            queue=Queue(
                seen_at_s=pages.at_s,
                coverage_ratio=coverage,
                requests_running=float(sums[_PLACE["requests_running"]]),
                requests_waiting=float(sums[_PLACE["requests_waiting"]]),
            ),
            kv_cache=KvCache(
                seen_at_s=pages.at_s,
                coverage_ratio=coverage,
                usage_mean_ratio=float(usage.mean()),
                usage_max_ratio=float(usage.max()),
                capacity_tokens=float(self._model.kv_capacity_tokens),
            ),
            ttft=self._latency(self._ttft, TTFT_BOUNDS_S, pages.at_s, coverage, now_s),
            itl=self._latency(self._itl, ITL_BOUNDS_S, pages.at_s, coverage, now_s),
            work=work,
            gpu=self._gpu(ready, now_s),
            capacity_key=self._model.name,
        )

    def _seen(
        self, replicas: Replicas, ready: Sequence[int], now_s: float, gap: NoData
    ) -> Observation:
        """Only what Kubernetes and DCGM show."""
        return Observation(
            seen_at_s=now_s,
            replicas=replicas,
            queue=gap,
            kv_cache=gap,
            ttft=gap,
            itl=gap,
            work=gap,
            gpu=self._gpu(ready, now_s),
            capacity_key=self._model.name,
        )

    # Which replicas should answer

    def _attend(self, ready: Sequence[int], now_s: float) -> None:
        """Remember since when a replica may have served without having been seen."""
        if self._last_tick_s is None:
            self._past = set(ready)  # they may have a past: counting begins with their first page
            return
        for uid in ready:
            if uid not in self._past:
                self._entered_at_s.setdefault(uid, self._last_tick_s)

    def _is_awaited(self, uid: int, now_s: float) -> bool:
        entered_at_s = self._entered_at_s.get(uid)
        return entered_at_s is not None and entered_at_s >= now_s - self._freshness.stale_after_s

    def _missing(
        self, pages: _Pages | None, ready: Sequence[int], replicas: Replicas, now_s: float
    ) -> NoData | None:
        """Why nothing of the engines can be used; None when something can."""
        if not ready:
            cause = Cause.REFUSED if replicas.current else Cause.EMPTY
            return NoData(cause=cause, detail="no replica is ready")
        if pages is None or not any(uid in pages.rows for uid in ready):
            return NoData(cause=Cause.EMPTY, detail="no ready replica was scraped yet")
        age_s = now_s - pages.at_s
        if age_s > self._freshness.stale_after_s:
            return NoData(cause=Cause.STALE, detail=f"the newest sample is {age_s:.0f} s old")
        return None

    def _too_few(self, having: int, due: int, ready: int) -> NoData | None:
        if having >= self._freshness.coverage_min_ratio * due:
            return None
        return NoData(cause=Cause.PARTIAL, detail=f"{having} of {ready} ready replicas answered")

    # Work and latencies: differences between scrapes

    def _work(
        self, pages: _Pages, having: list[int], ready: Sequence[int], now_s: float
    ) -> Work | NoData:
        if self._base is None or pages.at_s > self._base.at_s:
            found = self._round(pages, having, now_s)
            self._base, self._base_uids = pages, frozenset(having)
            if found is not None:
                self._last_work = _work_of(found, min(found.replicas / len(ready), 1.0), pages.at_s)
                self._last_work_at_s = now_s
        last = self._last_work
        if last is None:
            return NoData(cause=Cause.NEVER, detail="two samples are needed for a rate")
        age_s = now_s - self._last_work_at_s
        if age_s > self._freshness.stale_after_s:
            return NoData(cause=Cause.STALE, detail=f"the last rate is {age_s:.0f} s old")
        return last

    def _round(self, pages: _Pages, having: list[int], now_s: float) -> _Round | None:
        """End a round with ``pages``; None if no replica can be compared."""
        base = self._base
        known = [uid for uid in having if uid in self._base_uids]
        fresh = [
            uid
            for uid in having
            if uid not in self._base_uids
            and self._entered_at_s.get(uid, pages.at_s) < pages.at_s
            and uid not in self._past
        ]
        self._past.update(having)
        self._past &= pages.rows.keys() | set(having)
        grown = pages.numbers[[pages.rows[uid] for uid in (*known, *fresh)]].sum(axis=0)
        intervals = [pages.at_s - self._entered_at_s.pop(uid) for uid in fresh]
        if base is not None and known:
            now_rows = [pages.rows[uid] for uid in known]
            rows = [base.rows[uid] for uid in known]
            grown = grown - base.numbers[rows].sum(axis=0)
            intervals += [pages.at_s - base.at_s] * len(known)
            ttft, itl = pages.ttft[now_rows] - base.ttft[rows], pages.itl[now_rows] - base.itl[rows]
            self._ttft.append((now_s, ttft.sum(axis=0)))
            self._itl.append((now_s, itl.sum(axis=0)))
            self._histograms = True
        if not intervals:
            return None
        balance = float(grown[: _PLACE["admission_rejections"] + 1].sum())
        return _Round(
            replicas=len(intervals),
            interval_s=max(median(intervals), _INTERVAL_MIN_S),
            replica_s=sum(intervals),
            arrived=max(balance, 0.0),
            grown=grown,
        )

    def _latency(
        self,
        window: deque[tuple[float, Ints]],
        bounds_s: tuple[float, ...],
        seen_at_s: float,
        coverage_ratio: float,
        now_s: float,
    ) -> Latency | NoData:
        while window and window[0][0] <= now_s - WINDOW_S:
            window.popleft()
        if not self._histograms:
            return NoData(cause=Cause.NEVER, detail="two samples are needed for a histogram")
        counts = sum((added for _, added in window), start=np.zeros(len(bounds_s) + 1))
        return Latency(
            seen_at_s=seen_at_s,
            coverage_ratio=coverage_ratio,
            window_s=WINDOW_S,
            bounds_s=bounds_s,
            counts=tuple(counts.tolist()),
        )

    def _gpu(self, ready: Sequence[int], now_s: float) -> Gpu | NoData:
        """Over the ready replicas; one that DCGM has not seen at work has done none."""
        if not ready or self._gpu_scraped is None:
            return NoData(cause=Cause.EMPTY, detail="no ready replica whose GPUs could be seen")
        at_s, ratios = self._gpu_scraped
        age_s = now_s - at_s
        if age_s > self._freshness.gpu_stale_after_s:
            return NoData(cause=Cause.STALE, detail=f"the newest DCGM sample is {age_s:.0f} s old")
        uses = [ratios.get(uid, 0.0) for uid in ready]
        return Gpu(
            seen_at_s=at_s,
            coverage_ratio=1.0,
            utilisation_mean_ratio=sum(uses) / len(uses),
            utilisation_max_ratio=max(uses),
        )


def _work_of(found: _Round, coverage_ratio: float, seen_at_s: float) -> Work:
    grown = dict(zip(_FIELDS, found.grown.tolist(), strict=True))
    cached = min(grown["prompt_tokens_cached"], grown["prompt_tokens"])
    return Work(
        seen_at_s=seen_at_s,
        coverage_ratio=coverage_ratio,
        interval_s=found.interval_s,
        replica_s=found.replica_s,
        requests_arrived=found.arrived,
        requests_finished=grown["finished_stop"] + grown["finished_abort"],
        requests_rejected=grown["admission_rejections"],
        prompt_tokens=grown["prompt_tokens"] - cached,
        cached_tokens=cached,
        output_tokens=grown["generation_tokens"],
        preemptions=grown["preemptions"],
        engine_steps=grown["iterations"],
        finished_prompt_tokens=grown["finished_prompt_tokens"],
        finished_output_tokens=grown["finished_output_tokens"],
    )
