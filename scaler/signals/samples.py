"""What every source hands on: cumulative numbers of one pod at one instant, in base units.

A source (direct scraping, Prometheus) produces ``PodSample``; ``tracker`` turns two of them into
rates and an ``Observation``.  So that counter resets, new pods and vanished pods are handled once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scaler.core.model import Latency, NoData, Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A cumulative histogram as scraped: ``counts[i]`` observations at or below ``bounds_s[i]``.

    The last bound is infinity, so ``counts[-1]`` is the number of all observations.
    """

    bounds_s: tuple[float, ...]
    counts: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSample:
    """One pod's engine numbers, summed over its engines; counters since the process started.

    ``None`` means that the page does not carry the metric (another version, or a feature that is
    off), which is
    never the same as zero.  ``at_s`` is when the sample was taken (the scrape, not the query).
    ``started_at_s`` changes when the process restarts, where the page says so.

    ``prompt_tokens`` are all prompt tokens the engine took in, those found in the prefix cache
    (``cached_tokens``) included; what was computed is the difference of the two, formed over an
    interval by the tracker.  ``waiting`` is the part of the queue that more replicas can help.
    """

    pod: str
    at_s: float
    model_names: tuple[str, ...]
    running: float | None = None
    waiting: float | None = None
    deferred: float | None = None
    kv_mean_ratio: float | None = None
    kv_max_ratio: float | None = None
    kv_capacity_tokens: float | None = None
    finished: float | None = None
    rejected: float | None = None
    prompt_tokens: float | None = None
    cached_tokens: float | None = None
    output_tokens: float | None = None
    preemptions: float | None = None
    engine_steps: float | None = None
    finished_prompt_tokens: float | None = None
    finished_output_tokens: float | None = None
    started_at_s: float | None = None
    asleep: bool = False
    ttft: Histogram | None = None
    itl: Histogram | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """Utilisation of one pod's GPUs: the highest of them.

    ``utilisation_ratio`` is the share of time in which a kernel ran; ``field`` is where it comes
    from.
    """

    pod: str
    at_s: float
    utilisation_ratio: float
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRef:
    """A pod of a target as Kubernetes (or a static list) knows it."""

    name: str
    address: str = ""  # host or IP; empty where the source needs none
    port: int = 8000
    ready: bool = True
    leader: bool = True  # False for a worker of a group: it exports no metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRef:
    """A target to collect for.  ``pods`` is None where no Kubernetes API says which pods it has."""

    namespace: str
    kind: str  # lower case: deployment, statefulset, leaderworkerset, ...
    name: str
    model_name: str = ""  # empty: whatever the target's pods report
    pods: tuple[PodRef, ...] | None = None
    gateway_query: str = ""  # the operator's PromQL of the target's profile; never from metadata

    @property
    def key(self) -> str:
        """``namespace/kind/name``, with ``#model`` where one is asked for: the key of samples."""
        model = f"#{self.model_name}" if self.model_name else ""
        return f"{self.namespace}/{self.kind}/{self.name}{model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSamples:
    """What one collection brought for one target.

    ``pods`` maps pod names to a sample or the reason there is none.  ``ttft`` and ``itl`` are set
    by sources that sum
    histograms before we see them (Prometheus); others leave them None and fill the histograms of
    the pods.
    """

    target: TargetRef
    at_s: float
    pods: Mapping[str, PodSample | NoData] = field(default_factory=dict)
    gpus: Mapping[str, GpuSample | NoData] = field(default_factory=dict)
    ttft: Latency | NoData | None = None
    itl: Latency | NoData | None = None
    gateway_requests: float | None = (
        None  # a gateway's counter, cumulative; None where there is none
    )
    warnings: tuple[str, ...] = ()
    failure: NoData | None = None  # set when the whole source failed for this target
    # Signals whose own query failed (their fields in the samples are None without being absent),
    # or whose answer the source itself called incomplete (PARTIAL: pods may be missing).
    faults: Mapping[Signal, NoData] = field(default_factory=dict)


class Source(Protocol):
    """Where samples come from.

    A call never raises for a fault of the world: the fault is in the result.
    """

    name: str

    async def collect(
        self, targets: Sequence[TargetRef], now_s: float
    ) -> Mapping[str, TargetSamples]:
        """Samples by ``TargetRef.key`` for every target, within the source's own time limit."""
        ...

    async def close(self) -> None:
        """Release connections and threads."""
        ...
