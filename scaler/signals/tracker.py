"""Samples of a target's pods -> Observation: deltas, freshness, coverage.

One tracker per target keeps the previous sample of every pod.  Each signal has its own freshness
and coverage: the share of the ready replicas whose samples have it.  A signal that too few of them
have is NoData and says how many of how many.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from scaler.core.model import (
    Cause,
    Gateway,
    Gpu,
    KvCache,
    Latency,
    NoData,
    Observation,
    Queue,
    Replicas,
    Signal,
    Work,
)
from scaler.signals.deltas import Deltas, PodHistory, work_of
from scaler.signals.latencies import HistogramWindow
from scaler.signals.roster import Attendance, Entry, Roster
from scaler.signals.samples import GpuSample, PodSample, TargetSamples


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerSettings:
    """When a sample is too old, and how many replicas must have one.

    ``stale_after_s`` is three scrapes of 15 s; ``gpu_stale_after_s`` allows for DCGM's own interval
    of 30 s on top.  ``window_s`` is that of latency histograms built from pages.  A pod that
    stopped answering is followed for ``remembered_s``, and expected for as long where no Kubernetes
    API says which pods there are.
    """

    stale_after_s: float = 45.0
    gpu_stale_after_s: float = 90.0
    coverage_min_ratio: float = 0.8
    window_s: float = 60.0
    remembered_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The fresh samples of one collection, of ``expected`` replicas that are awake.

    ``due`` leaves out those that have just become ready and were not scraped yet: they lower the
    coverage, so that nothing is scaled down on what the others show, but do not make it partial.
    """

    samples: tuple[PodSample, ...]
    expected: int
    due: int
    entered: Mapping[str, Entry]
    seen_at_s: float
    missing: NoData | None  # why there are too few
    fault: str  # what became of the first replica without a sample


class TargetTracker:
    """Turns collections into observations for one target."""

    def __init__(self, settings: TrackerSettings) -> None:
        self.settings = settings
        self._pods = PodHistory(settings.remembered_s)
        self._ttft = HistogramWindow(settings.window_s)
        self._itl = HistogramWindow(settings.window_s)
        self._gateway: tuple[float, float] | None = None
        self._roster = Roster(settings.remembered_s)
        self._last_work: Work | None = None
        self._last_work_at_s = 0.0

    def observe(
        self, samples: TargetSamples, replicas: Replicas | NoData, now_s: float
    ) -> Observation:
        """The observation of one collection; every missing signal says why it is missing."""
        attendance = self._roster.update(samples, now_s)
        group = self._engines(samples, attendance, now_s)
        work = self._work(samples, group, now_s)
        return Observation(
            seen_at_s=now_s,
            replicas=replicas,
            queue=samples.faults.get(Signal.QUEUE) or group.missing or self._queue(group),
            kv_cache=samples.faults.get(Signal.KV_CACHE) or group.missing or self._kv_cache(group),
            ttft=self._latency(samples, group, Signal.TTFT, now_s),
            itl=self._latency(samples, group, Signal.ITL, now_s),
            work=work,
            gpu=self._gpu(samples, attendance.expected, now_s),
            gateway=self._front(samples, now_s),
        )

    def _engines(self, samples: TargetSamples, attendance: Attendance, now_s: float) -> _Group:
        """Fresh samples of expected pods; too few of them are named with a cause.

        A sleeping replica answers, but can serve nothing: it is neither load nor capacity.
        """
        fresh: list[PodSample] = []
        faults: list[NoData] = []
        asleep = awaited = 0
        oldest_s = now_s - self.settings.stale_after_s
        expected = attendance.expected
        for name in expected:
            sample = samples.pods.get(name)
            if not isinstance(sample, PodSample):
                faults.append(sample or _no_series(name))
                entry = attendance.entered.get(name)
                awaited += entry is not None and entry.at_s >= oldest_s
            elif sample.at_s < oldest_s:
                faults.append(_stale(name, now_s - sample.at_s, self.settings.stale_after_s))
            elif sample.asleep:
                asleep += 1
            else:
                fresh.append(sample)
        group = _Group(
            samples=tuple(fresh),
            expected=len(expected) - asleep,
            due=len(expected) - asleep - awaited,
            entered=attendance.entered,
            seen_at_s=min(min((sample.at_s for sample in fresh), default=now_s), now_s),
            missing=_missing(samples, fresh, faults, expected),
            fault=faults[0].detail if faults else "",
        )
        few = group.missing or self._too_few(group, len(fresh), "answered")
        return group if few is group.missing else replace(group, missing=few)

    def _too_few(self, group: _Group, having: int, what: str) -> NoData | None:
        """PARTIAL where fewer replicas than the settings ask for have something."""
        if having >= self.settings.coverage_min_ratio * group.due:
            return None
        why = f"; {group.fault}" if group.fault else ""
        detail = f"{having} of {group.expected} ready replicas {what}{why}"
        return NoData(cause=Cause.PARTIAL, detail=detail)

    def _queue(self, group: _Group) -> Queue | NoData:
        having = [
            sample
            for sample in group.samples
            if sample.running is not None and sample.waiting is not None
        ]
        if not having:
            return _absent("no gauges of running and waiting requests")
        return self._too_few(group, len(having), "have the queue's gauges") or Queue(
            seen_at_s=group.seen_at_s,
            coverage_ratio=len(having) / group.expected,
            requests_running=sum(sample.running or 0.0 for sample in having),
            requests_waiting=sum(sample.waiting or 0.0 for sample in having),
            requests_deferred=sum(sample.deferred or 0.0 for sample in having),
        )

    def _kv_cache(self, group: _Group) -> KvCache | NoData:
        means = [s.kv_mean_ratio for s in group.samples if s.kv_mean_ratio is not None]
        peaks = [s.kv_max_ratio for s in group.samples if s.kv_max_ratio is not None]
        if not means or not peaks:
            return _absent("no gauge of KV-cache use")
        sizes = [s.kv_capacity_tokens for s in group.samples if s.kv_capacity_tokens]
        return self._too_few(group, len(means), "have the gauge of KV-cache use") or KvCache(
            seen_at_s=group.seen_at_s,
            coverage_ratio=len(means) / group.expected,
            usage_mean_ratio=sum(means) / len(means),
            usage_max_ratio=max(peaks),
            capacity_tokens=sum(sizes) / len(sizes) if sizes else 0.0,
        )

    def _work(self, samples: TargetSamples, group: _Group, now_s: float) -> Work | NoData:
        """What came and was done in the last round of samples.

        Samples that cannot be used are not taken in, so that the next ones bring what they missed.
        """
        missing = samples.faults.get(Signal.WORK) or group.missing
        if missing is not None:
            return missing
        having = [sample for sample in group.samples if _balances(sample)]
        if not having:
            return _absent("no counter of finished requests: arrivals cannot be balanced")
        few = self._too_few(group, len(having), "have what arrivals are balanced from")
        if few is not None:
            return few
        deltas = self._pods.step(having, group.entered)
        self._ttft.add(deltas.ttft, now_s)
        self._itl.add(deltas.itl, now_s)
        if deltas.pods == 0:
            return self._unchanged_work(now_s)
        few = self._too_few(group, deltas.pods, "have two samples to compare")
        if few is not None:
            return few
        self._last_work_at_s = now_s
        coverage = min(deltas.pods / group.expected, 1.0)
        self._last_work = work_of(deltas, coverage, self._work_seen_at_s(deltas, now_s))
        return self._last_work

    def _work_seen_at_s(self, deltas: Deltas, now_s: float) -> float:
        """The oldest sample of the round; later than the last round's, as new work must be."""
        last = self._last_work
        newer = last is None or deltas.oldest_at_s > last.seen_at_s
        return min(deltas.oldest_at_s if newer else deltas.newest_at_s, now_s)

    def _unchanged_work(self, now_s: float) -> Work | NoData:
        """No round has ended: the last rates hold until they are stale."""
        last = self._last_work
        if last is None:
            return NoData(cause=Cause.NEVER, detail="two samples are needed for a rate")
        age_s = now_s - self._last_work_at_s
        if age_s > self.settings.stale_after_s:
            return _stale("the last rate", age_s, self.settings.stale_after_s)
        return last

    def _latency(
        self, samples: TargetSamples, group: _Group, signal: Signal, now_s: float
    ) -> Latency | NoData:
        """A histogram the source has summed, or the window of our own."""
        summed = samples.ttft if signal is Signal.TTFT else samples.itl
        missing = samples.faults.get(signal) or samples.failure
        if missing is not None:
            return missing
        if summed is not None:
            return summed if isinstance(summed, NoData) else self._checked(summed, now_s)
        if group.missing is not None:
            return group.missing
        window, having = self._ttft, sum(sample.ttft is not None for sample in group.samples)
        if signal is Signal.ITL:
            window, having = self._itl, sum(sample.itl is not None for sample in group.samples)
        if having == 0:
            return _absent(f"no histogram of {signal.value} on the pages")
        few = self._too_few(group, having, f"have a histogram of {signal.value}")
        found = window.read(now_s)
        if few is not None or found is None:
            return few or NoData(cause=Cause.NEVER, detail="two samples are needed for a histogram")
        return Latency(
            seen_at_s=group.seen_at_s,
            coverage_ratio=having / group.expected,
            window_s=window.window_s,
            bounds_s=found.bounds_s[:-1],
            counts=found.counts,
        )

    def _checked(self, latency: Latency, now_s: float) -> Latency | NoData:
        """A source's histogram, if it is fresh and of enough replicas."""
        age_s = now_s - latency.seen_at_s
        if age_s > self.settings.stale_after_s:
            return _stale("the histogram", age_s, self.settings.stale_after_s)
        if latency.coverage_ratio < self.settings.coverage_min_ratio:
            detail = f"the histogram is of {latency.coverage_ratio:.0%} of the ready replicas"
            return NoData(cause=Cause.PARTIAL, detail=detail)
        return latency

    def _gpu(self, samples: TargetSamples, expected: Collection[str], now_s: float) -> Gpu | NoData:
        """The highest use of each ready replica's pods; mean and maximum over replicas.

        Where nothing says which pods there are, every pod with a GPU sample is one.
        """
        if samples.failure is not None:
            return samples.failure
        members = frozenset(expected)
        if not members and samples.target.pods is None:
            members = frozenset(samples.gpus)
        uses: dict[str, float] = {}
        seen_at_s = now_s
        stale_s = 0.0
        for name, sample in samples.gpus.items():
            replica = _replica_of(name, members)
            if not isinstance(sample, GpuSample) or replica is None:
                continue
            age_s = now_s - sample.at_s
            if age_s > self.settings.gpu_stale_after_s:
                stale_s = max(stale_s, age_s)
                continue
            uses[replica] = max(sample.utilisation_ratio, uses.get(replica, 0.0))
            seen_at_s = min(seen_at_s, sample.at_s)
        if len(uses) < max(self.settings.coverage_min_ratio * len(members), 1.0):
            return samples.faults.get(Signal.GPU) or self._no_gpu(
                samples, having=len(uses), replicas=len(members), stale_s=stale_s
            )
        return Gpu(
            seen_at_s=seen_at_s,
            coverage_ratio=len(uses) / len(members),
            utilisation_mean_ratio=sum(uses.values()) / len(uses),
            utilisation_max_ratio=max(uses.values()),
        )

    def _no_gpu(
        self, samples: TargetSamples, *, having: int, replicas: int, stale_s: float
    ) -> NoData:
        if replicas == 0:
            return NoData(
                cause=Cause.EMPTY, detail="no ready replica whose GPUs could be looked at"
            )
        if stale_s > 0.0:
            return _stale("the newest DCGM sample", stale_s, self.settings.gpu_stale_after_s)
        if having > 0:
            detail = f"{having} of {replicas} ready replicas have DCGM samples"
            return NoData(cause=Cause.PARTIAL, detail=detail)
        for found in samples.gpus.values():
            if isinstance(found, NoData):
                return found
        return _absent("no DCGM series of the target's pods")

    def _front(self, samples: TargetSamples, now_s: float) -> Gateway | NoData:
        """Requests at the gateway since the last collection that had an answer.

        A counter that was absent (a zero of the source) and appears has counted requests; the first
        value we ever see is only where counting begins.  A zero is not where counting begins anew:
        a counter that was gone for a while and is back brings no request.
        """
        if not samples.target.gateway_query:
            return NoData(cause=Cause.UNSUPPORTED, detail="no gateway query in the profile")
        value = samples.gateway_requests
        if samples.failure is not None or value is None:
            return samples.failure or _absent("the gateway's query was not answered")
        before = self._gateway
        counted = before[0] if before is not None and value == 0.0 else value
        self._gateway = (counted, now_s)
        if before is None:
            return Gateway(seen_at_s=now_s, interval_s=0.0, requests_arrived=0.0)
        rise = value - before[0] if value >= before[0] else value
        return Gateway(seen_at_s=now_s, interval_s=now_s - before[1], requests_arrived=rise)


def _missing(
    samples: TargetSamples,
    fresh: list[PodSample],
    faults: list[NoData],
    expected: tuple[str, ...],
) -> NoData | None:
    """Why no engine's numbers can be used at all; None when some can."""
    if samples.failure is not None:
        return samples.failure
    if not expected:
        return _nothing_expected(samples)
    if fresh:
        return None
    if not faults:
        return _absent("every ready replica sleeps (engine_sleep_state)")
    detail = f"none of {len(expected)} ready replicas can be read; {faults[0].detail}"
    return faults[0] if len(expected) == 1 else NoData(cause=faults[0].cause, detail=detail)


def _balances(sample: PodSample) -> bool:
    """Whether arrivals can be balanced from the sample."""
    return not (sample.running is None or sample.waiting is None or sample.finished is None)


def _replica_of(pod: str, replicas: Collection[str]) -> str | None:
    """The leader of a pod's group: ``name-3`` for the worker ``name-3-1`` of a LeaderWorkerSet."""
    if pod in replicas:
        return pod
    leader = pod.rpartition("-")[0]
    return leader if leader in replicas else None


def _no_series(pod: str) -> NoData:
    detail = f"{pod}: no series of a ready pod; is it scraped, with the label pod?"
    return NoData(cause=Cause.EMPTY, detail=detail)


def _nothing_expected(samples: TargetSamples) -> NoData:
    """No replica is ready: they load (their ports refuse), or there are none."""
    for found in samples.pods.values():
        if isinstance(found, NoData):
            return found
    starting = bool(samples.target.pods)
    cause = Cause.REFUSED if starting else Cause.EMPTY
    return NoData(cause=cause, detail="no replica is ready" if starting else "no pod was seen")


def _stale(what: str, age_s: float, limit_s: float) -> NoData:
    detail = f"{what} is {age_s:.0f} s old, must be at most {limit_s:g} s; is it still scraped?"
    return NoData(cause=Cause.STALE, detail=detail)


def _absent(detail: str) -> NoData:
    return NoData(cause=Cause.ABSENT, detail=detail)
