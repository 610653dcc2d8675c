"""Samples of pods made by hand, and a fleet whose true arrivals are known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scaler.core.model import Cause, NoData, Observation, Queue, Replicas, Work
from scaler.signals.samples import GpuSample, PodRef, PodSample, TargetRef, TargetSamples
from scaler.signals.tracker import TargetTracker, TrackerSettings

REPLICAS = Replicas(seen_at_s=0.0, wanted=1, current=1, ready=1)


def pod(name: str, at_s: float, **fields: Any) -> PodSample:
    """An idle engine's sample, other fields as given."""
    numbers: dict[str, Any] = {
        "running": 0.0,
        "waiting": 0.0,
        "kv_mean_ratio": 0.0,
        "kv_max_ratio": 0.0,
        "finished": 0.0,
        "rejected": 0.0,
        "prompt_tokens": 0.0,
        "cached_tokens": 0.0,
        "output_tokens": 0.0,
        "preemptions": 0.0,
    }
    return PodSample(pod=name, at_s=at_s, model_names=("m",), **{**numbers, **fields})


def gpu(name: str, at_s: float, ratio: float) -> GpuSample:
    return GpuSample(pod=name, at_s=at_s, utilisation_ratio=ratio, field="DCGM_FI_DEV_GPU_UTIL")


def target(*names: str, loading: tuple[str, ...] = (), gateway_query: str = "") -> TargetRef:
    """A target with ready pods, and some that are not."""
    ready = tuple(PodRef(name=name) for name in names)
    return TargetRef(
        namespace="llm",
        kind="deployment",
        name="v",
        pods=(*ready, *(PodRef(name=name, ready=False) for name in loading)),
        gateway_query=gateway_query,
    )


ANYWHERE = TargetRef(namespace="llm", kind="deployment", name="v")  # pods are not known


def collected(
    where: TargetRef,
    at_s: float,
    *pods: PodSample,
    missing: Mapping[str, NoData] | None = None,
    **fields: Any,
) -> TargetSamples:
    found: dict[str, PodSample | NoData] = {sample.pod: sample for sample in pods}
    found.update(missing or {})
    return TargetSamples(target=where, at_s=at_s, pods=found, **fields)


def observe(tracker: TargetTracker, samples: TargetSamples) -> Observation:
    return tracker.observe(samples, REPLICAS, samples.at_s)


@dataclass(slots=True, kw_only=True)
class Engine:
    """One pod's process with its true counts."""

    name: str
    started_at_s: float
    tells_start: bool = True
    running: int = 0
    waiting: int = 0
    finished: int = 0
    rejected: int = 0
    tokens: int = 0
    history: list[int] = field(default_factory=list)

    @property
    def arrived(self) -> int:
        """Every request that came to this process."""
        return self.running + self.waiting + self.finished + self.rejected

    def work(self, arrivals: int, ending: int, rejections: int) -> None:
        """Requests come, some are rejected, some of those in flight end, the rest move up."""
        self.waiting += arrivals
        self.rejected += rejections
        moved = min(self.waiting, 8 - self.running) if self.running < 8 else 0
        self.running += moved
        self.waiting -= moved
        ended = min(ending, self.running)
        self.running -= ended
        self.finished += ended
        self.tokens += 10 * ended + self.running

    def restart(self, at_s: float) -> None:
        """Another process: what was in flight is lost, counters begin anew."""
        self.started_at_s = at_s
        self.running = self.waiting = self.finished = self.rejected = self.tokens = 0

    def sample(self, at_s: float) -> PodSample:
        return pod(
            self.name,
            at_s,
            running=float(self.running),
            waiting=float(self.waiting),
            finished=float(self.finished),
            rejected=float(self.rejected),
            output_tokens=float(self.tokens),
            prompt_tokens=3.0 * self.tokens,
            cached_tokens=1.0 * self.tokens,
            started_at_s=self.started_at_s if self.tells_start else None,
        )


REFUSED = NoData(cause=Cause.REFUSED, detail="loading")
UNREACHABLE = NoData(cause=Cause.UNREACHABLE, detail="timed out")
AB = target("a", "b")
A = target("a")


def tracker(**settings: float) -> TargetTracker:
    return TargetTracker(TrackerSettings(**settings))


def work(observation: Observation) -> Work:
    assert isinstance(observation.work, Work), observation.work
    return observation.work


def queue(observation: Observation) -> Queue:
    assert isinstance(observation.queue, Queue), observation.queue
    return observation.queue


def cause(signal: object) -> Cause:
    assert isinstance(signal, NoData), signal
    assert signal.detail
    return signal.cause


def detail(signal: object) -> str:
    assert isinstance(signal, NoData), signal
    return signal.detail
