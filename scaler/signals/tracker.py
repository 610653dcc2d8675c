"""Samples of a target's pods -> Observation: deltas, freshness, coverage.

One tracker per target keeps the previous sample of every pod.  Counter resets, new pods, vanished
pods and samples seen twice are handled here and nowhere else.
"""

from dataclasses import dataclass

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
from scaler.signals.deltas import Deltas, PodHistory
from scaler.signals.latencies import HistogramWindow
from scaler.signals.samples import GpuSample, PodRef, PodSample, TargetSamples


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerSettings:
    """When a sample is too old, and how many replicas must have one.

    ``stale_after_s`` is three scrapes of 15 s; ``gpu_stale_after_s`` allows for DCGM's own 30 s
    interval on
    top.  ``window_s`` is that of latency histograms built from pages.
    """

    stale_after_s: float = 45.0
    gpu_stale_after_s: float = 90.0
    coverage_min_ratio: float = 0.8
    window_s: float = 60.0
    remembered_s: float = 300.0  # how long a pod that stopped answering is still expected


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The fresh samples of one collection, and how complete they are."""

    samples: tuple[PodSample, ...]
    coverage_ratio: float
    seen_at_s: float
    missing: NoData | None  # why there are too few


class TargetTracker:
    """Turns collections into observations for one target."""

    def __init__(self, settings: TrackerSettings) -> None:
        self.settings = settings
        self._pods = PodHistory()
        self._ttft = HistogramWindow(settings.window_s)
        self._itl = HistogramWindow(settings.window_s)
        self._gateway: tuple[float, float] | None = None
        self._last_seen_s: dict[str, float] = {}
        self._last_work: Work | None = None

    def observe(
        self, samples: TargetSamples, replicas: Replicas | NoData, now_s: float
    ) -> Observation:
        """The observation of one collection; every missing signal says why it is missing."""
        expected = self._expected(samples, now_s)
        group = self._engines(samples, expected, now_s)
        deltas = self._pods.step(group.samples)
        self._ttft.add(deltas.ttft, now_s)
        self._itl.add(deltas.itl, now_s)
        return Observation(
            seen_at_s=now_s,
            replicas=replicas,
            queue=samples.faults.get(Signal.QUEUE) or group.missing or _queue(group),
            kv_cache=samples.faults.get(Signal.KV_CACHE) or group.missing or _kv_cache(group),
            ttft=self._latency(samples, group, Signal.TTFT),
            itl=self._latency(samples, group, Signal.ITL),
            work=self._work(samples, group, deltas, now_s),
            gpu=self._gpu(samples, now_s),
            gateway=self._front(samples, now_s),
        )

    def _expected(self, samples: TargetSamples, now_s: float) -> tuple[str, ...]:
        """Names of the pods that should have samples: ready leaders, or those seen lately."""
        pods = samples.target.pods
        if pods is not None:
            return tuple(pod.name for pod in pods if _serves(pod))
        for name, sample in samples.pods.items():
            if isinstance(sample, PodSample):
                self._last_seen_s[name] = now_s
        horizon_s = now_s - self.settings.remembered_s
        self._last_seen_s = {
            name: at_s for name, at_s in self._last_seen_s.items() if at_s >= horizon_s
        }
        return tuple(self._last_seen_s)

    def _engines(self, samples: TargetSamples, expected: tuple[str, ...], now_s: float) -> _Group:
        """Fresh samples of expected pods; too few of them are named with their causes."""
        fresh: list[PodSample] = []
        faults: list[NoData] = []
        for name in expected:
            sample = samples.pods.get(name)
            if isinstance(sample, PodSample) and sample.asleep:
                continue  # cannot serve: neither load nor capacity
            if isinstance(sample, PodSample):
                age_s = now_s - sample.at_s
                if age_s <= self.settings.stale_after_s:
                    fresh.append(sample)
                else:
                    faults.append(NoData(cause=Cause.STALE, detail=f"{name}: {age_s:.0f} s old"))
            else:
                faults.append(sample or _no_series(name))
        coverage = len(fresh) / len(expected) if expected else 0.0
        return _Group(
            samples=tuple(fresh),
            coverage_ratio=coverage,
            seen_at_s=min((sample.at_s for sample in fresh), default=now_s),
            missing=self._missing(samples, fresh, faults, coverage, expected),
        )

    def _missing(
        self,
        samples: TargetSamples,
        fresh: list[PodSample],
        faults: list[NoData],
        coverage: float,
        expected: tuple[str, ...],
    ) -> NoData | None:
        """Why the engines' numbers cannot be used; None when they can."""
        if samples.failure is not None:
            return samples.failure
        if not expected:
            return _nothing_expected(samples)
        if not fresh:
            return faults[0] if faults else NoData(cause=Cause.ABSENT, detail="all replicas sleep")
        if coverage < self.settings.coverage_min_ratio:
            detail = f"{len(fresh)} of {len(expected)} ready replicas answered; {faults[0].detail}"
            return NoData(cause=Cause.PARTIAL, detail=detail)
        return None

    def _work(
        self, samples: TargetSamples, group: _Group, deltas: Deltas, now_s: float
    ) -> Work | NoData:
        """What came and was done since the last collection with news."""
        missing = samples.faults.get(Signal.WORK) or group.missing
        if missing is not None:
            self._last_work = None
            return missing
        if deltas.pods == 0:
            return self._unchanged_work(now_s)
        if "finished" not in deltas.counters:
            return _absent("no counter of finished requests: arrivals cannot be balanced")
        count = deltas.counters.get
        cached = min(count("cached_tokens", 0.0), count("prompt_tokens", 0.0))
        self._last_work = Work(
            seen_at_s=group.seen_at_s,
            coverage_ratio=group.coverage_ratio,
            interval_s=deltas.interval_s,
            replica_s=deltas.replica_s,
            requests_arrived=deltas.arrived,
            requests_finished=count("finished", 0.0),
            requests_rejected=count("rejected", 0.0),
            prompt_tokens=count("prompt_tokens", 0.0) - cached,
            cached_tokens=cached,
            output_tokens=count("output_tokens", 0.0),
            preemptions=count("preemptions", 0.0),
            engine_steps=count("engine_steps", 0.0),
            finished_prompt_tokens=count("finished_prompt_tokens", 0.0),
            finished_output_tokens=count("finished_output_tokens", 0.0),
        )
        return self._last_work

    def _unchanged_work(self, now_s: float) -> Work | NoData:
        """The same samples were collected again: the last rates hold until they are stale."""
        last = self._last_work
        if last is None:
            return NoData(cause=Cause.NEVER, detail="two samples are needed for a rate")
        age_s = now_s - last.seen_at_s
        if age_s > self.settings.stale_after_s:
            return NoData(cause=Cause.STALE, detail=f"no new sample for {age_s:.0f} s")
        return last

    def _latency(self, samples: TargetSamples, group: _Group, signal: Signal) -> Latency | NoData:
        """A histogram the source has summed, or the window of our own."""
        summed = samples.ttft if signal is Signal.TTFT else samples.itl
        missing = samples.faults.get(signal)
        if missing is not None:
            return missing
        if summed is not None:
            return summed
        if group.missing is not None:
            return group.missing
        window = self._ttft if signal is Signal.TTFT else self._itl
        found = window.read()
        if found is None:
            return _absent("no histogram on the pages")
        return Latency(
            seen_at_s=group.seen_at_s,
            coverage_ratio=group.coverage_ratio,
            window_s=window.window_s,
            bounds_s=found.bounds_s[:-1],
            counts=found.counts,
        )

    def _gpu(self, samples: TargetSamples, now_s: float) -> Gpu | NoData:
        """The highest use of each replica's pods; mean and maximum over replicas."""
        missing = samples.faults.get(Signal.GPU) or samples.failure
        if missing is not None:
            return missing
        pods = samples.target.pods
        workers = {pod.name for pod in pods or () if not pod.leader}
        members = {pod.name for pod in pods} if pods is not None else samples.gpus.keys()
        uses: dict[str, float] = {}
        seen_at_s = now_s
        stale_s = 0.0
        for name, sample in samples.gpus.items():
            if not isinstance(sample, GpuSample) or name not in members:
                continue
            age_s = now_s - sample.at_s
            if age_s > self.settings.gpu_stale_after_s:
                stale_s = max(stale_s, age_s)
                continue
            replica = name.rsplit("-", 1)[0] if name in workers else name
            uses[replica] = max(sample.utilisation_ratio, uses.get(replica, 0.0))
            seen_at_s = min(seen_at_s, sample.at_s)
        if not uses:
            return _no_gpu(samples, stale_s)
        replicas = max(len(members) - len(workers), 1)
        return Gpu(
            seen_at_s=seen_at_s,
            coverage_ratio=min(len(uses) / replicas, 1.0),
            utilisation_mean_ratio=sum(uses.values()) / len(uses),
            utilisation_max_ratio=max(uses.values()),
        )

    def _front(self, samples: TargetSamples, now_s: float) -> Gateway | NoData:
        """Requests at the gateway since the last collection.

        A counter that was absent and appears above zero has counted requests; the first value we
        ever see is only where counting begins.
        """
        if not samples.target.gateway_query:
            return NoData(cause=Cause.UNSUPPORTED, detail="no gateway query in the profile")
        if samples.failure is not None:
            return samples.failure
        value = samples.gateway_requests or 0.0
        before, self._gateway = self._gateway, (value, now_s)
        if before is None:
            return Gateway(seen_at_s=now_s, interval_s=0.0, requests_arrived=0.0)
        rise = value - before[0] if value >= before[0] else value
        return Gateway(seen_at_s=now_s, interval_s=now_s - before[1], requests_arrived=rise)


def _queue(group: _Group) -> Queue | NoData:
    if any(sample.running is None for sample in group.samples):
        return _absent("no gauge of running requests")
    return Queue(
        seen_at_s=group.seen_at_s,
        coverage_ratio=group.coverage_ratio,
        requests_running=sum(sample.running or 0.0 for sample in group.samples),
        requests_waiting=sum(sample.waiting or 0.0 for sample in group.samples),
        requests_deferred=sum(sample.deferred or 0.0 for sample in group.samples),
    )


def _kv_cache(group: _Group) -> KvCache | NoData:
    means = [sample.kv_mean_ratio for sample in group.samples if sample.kv_mean_ratio is not None]
    peaks = [sample.kv_max_ratio for sample in group.samples if sample.kv_max_ratio is not None]
    if not means or not peaks:
        return _absent("no gauge of KV-cache use")
    sizes = [sample.kv_capacity_tokens for sample in group.samples if sample.kv_capacity_tokens]
    return KvCache(
        seen_at_s=group.seen_at_s,
        coverage_ratio=group.coverage_ratio,
        usage_mean_ratio=sum(means) / len(means),
        usage_max_ratio=max(peaks),
        capacity_tokens=sum(sizes) / len(sizes) if sizes else 0.0,
    )


def _serves(pod: PodRef) -> bool:
    return pod.ready and pod.leader


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


def _absent(detail: str) -> NoData:
    return NoData(cause=Cause.ABSENT, detail=detail)


def _no_gpu(samples: TargetSamples, stale_s: float) -> NoData:
    if stale_s > 0.0:
        return NoData(cause=Cause.STALE, detail=f"DCGM samples are {stale_s:.0f} s old")
    for found in samples.gpus.values():
        if isinstance(found, NoData):
            return found
    return _absent("no DCGM series of the target's pods")
