"""The nouns of the policy.  Read this file first.

An ``Observation`` is what was measured of one target at one instant.  A ``Decision`` is what was
made of it: the
replica count, every ``Step`` on the way to it, and all the numbers that went in.  Nothing here
computes more than
a ratio of its own fields.  Times are seconds on the caller's clock; ratios run from 0 to 1.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from scaler.core.made import maker


class Cause(StrEnum):
    """Why there is no data: the reasons an operator would mend in different ways."""

    NEVER = "never"  # nothing was asked yet
    ABSENT = "absent"  # the pages are there, the metric is not on them
    EMPTY = "empty"  # the query answered, with no series at all
    NO_MATCH = "no_match"  # series exist, under another model name or label
    STALE = "stale"  # the newest sample is too old
    PARTIAL = "partial"  # too few of the ready replicas answered, or the source said so
    NOT_A_NUMBER = "not_a_number"  # NaN or infinity where a number belongs
    REFUSED = "refused"  # connection refused: the replicas are loading
    UNREACHABLE = "unreachable"  # the source did not answer
    MALFORMED = "malformed"  # the source answered something that cannot be read
    UNSUPPORTED = "unsupported"  # this engine version or source never has it


@dataclass(frozen=True, slots=True, kw_only=True)
class NoData:
    """A signal without a value, and why.  Never the same thing as zero."""

    cause: Cause
    detail: str = ""


class Signal(StrEnum):
    """What can propose a replica count."""

    WORK = "work"  # tokens arriving now, over what a replica carries
    FORECAST = "forecast"  # tokens expected when a replica started now would be ready
    QUEUE = "queue"  # requests waiting
    KV_CACHE = "kv_cache"  # share of KV blocks in use
    TTFT = "ttft"  # time to first token against its objective
    ITL = "itl"  # inter-token latency against its objective
    GPU = "gpu"  # DCGM utilisation


class Stage(StrEnum):
    """Which part of the flow fixed a number."""

    WORK = "work"
    FORECAST = "forecast"
    QUEUE = "queue"
    KV_CACHE = "kv_cache"
    TTFT = "ttft"
    ITL = "itl"
    GPU = "gpu"
    IDLE = "idle"  # idleness was proven: nothing is needed
    WAKE = "wake"  # requests wait in front of a target without a ready replica
    HOLD_DOWN = "hold_down"  # a recent higher count is kept
    KEEP = "keep"  # fewer replicas would not carry the load: N/(N-1)
    VETO = "veto"  # GPU busy or latency near the objective: not fewer than now
    NO_API = "no_api"  # the Kubernetes API is down: not fewer than before
    BLIND = "blind"  # no good data: the last decision
    FLOOR = "floor"  # no good data for too long: current count or the floor
    BOUNDS = "bounds"  # minimum or maximum
    UNREACHABLE_STEP = "unreachable_step"  # the HPA's tolerance would swallow the step
    FROZEN = "frozen"  # an operator froze the target


class Role(StrEnum):
    """What the replicas of a target do."""

    MIXED = "mixed"
    PREFILL = "prefill"
    DECODE = "decode"


class Mode(StrEnum):
    """What becomes of the decision."""

    ACTIVE = "active"
    ADVISORY = "advisory"
    FROZEN = "frozen"


class Verdict(StrEnum):
    """What may be answered from a decision (the table in product.md, Decision 7)."""

    FRESH = "fresh"  # decided from good data
    HELD = "held"  # blind, within the grace: the last decision
    FLOORED = "floored"  # blind, beyond the grace: max(current, floor)
    LOAD_ONLY = "load_only"  # Kubernetes API down: absolute count from load
    UNKNOWN = "unknown"  # nothing may be said: UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Requests in the engines, summed over engines and replicas."""

    seen_at_s: float
    coverage_ratio: float
    requests_running: float
    requests_waiting: float  # those that more replicas can help
    requests_deferred: float = 0.0  # held by LoRA budget, KV transfer or a blocked status


make_queue = maker(Queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """KV-cache use over the replicas that answered."""

    seen_at_s: float
    coverage_ratio: float
    usage_mean_ratio: float
    usage_max_ratio: float
    capacity_tokens: float = 0.0  # of one replica, from cache_config_info; 0 where it is not known


make_kv_cache = maker(KvCache)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A histogram of latencies over a window, merged from equal bucket bounds only.

    ``bounds_s`` are the finite upper bounds, ascending; ``counts`` has one more entry, the last for
    what lies above the highest bound.  Counts are per bucket (not cumulative) and may be fractions,
    because Prometheus extrapolates.
    """

    seen_at_s: float
    coverage_ratio: float
    window_s: float
    bounds_s: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def total(self) -> float:
        """Number of observations in the window."""
        return sum(self.counts)


make_latency = maker(Latency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What came and what was done in one interval, summed over replicas.

    ``requests_arrived`` is the balance: change of finished + running + waiting + rejected.
    ``prompt_tokens`` are the computed ones; those found in the prefix cache are ``cached_tokens``.
    ``engine_steps`` counts scheduler steps (0 where the engine does not export them), and
    ``replica_s`` the replica-seconds the counters cover, so that rates per replica can be formed.
    """

    seen_at_s: float
    coverage_ratio: float
    interval_s: float
    replica_s: float
    requests_arrived: float
    requests_finished: float
    requests_rejected: float
    prompt_tokens: float
    cached_tokens: float
    output_tokens: float
    preemptions: float
    engine_steps: float
    finished_prompt_tokens: float = (
        0.0  # whole prompts of the requests that finished, cached part included
    )
    finished_output_tokens: float = 0.0


make_work = maker(Work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """GPU utilisation: the highest of each replica's GPUs, then mean and maximum over replicas."""

    seen_at_s: float
    coverage_ratio: float
    utilisation_mean_ratio: float
    utilisation_max_ratio: float


make_gpu = maker(Gpu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Requests seen in front of the target, for waking it from zero."""

    seen_at_s: float
    interval_s: float
    requests_arrived: float
    requests_waiting: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """What /scale counts, and what its replicas are doing.

    ``wanted`` is spec.replicas, ``current`` status.replicas.  ``starting_age_s`` has the age of
    every replica that is scheduled and not yet ready; a replica that cannot be scheduled or crash-
    loops
    is in its own count and not in ``starting_age_s``.  ``start_up_s`` holds the start-up times of
    replicas
    that became ready since the last observation.
    """

    seen_at_s: float
    wanted: int
    current: int
    ready: int
    starting_age_s: tuple[float, ...] = ()
    unschedulable: int = 0
    crash_looping: int = 0
    terminating: int = 0
    start_up_s: tuple[float, ...] = ()
    replicas_min: int | None = None  # of the ScaledObject, where it is known
    replicas_max: int | None = None
    gpus_per_replica: int = 0
    gpus_allocatable: int | None = None  # free and used GPUs of the product on schedulable nodes
    inferred: bool = False  # counted from the pods seen, without a Kubernetes API

    @property
    def starting(self) -> int:
        """Replicas that are scheduled and on their way to ready."""
        return len(self.starting_age_s)


make_replicas = maker(Replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that was measured of one target at ``seen_at_s``; each signal has its own freshness."""

    seen_at_s: float
    replicas: Replicas | NoData
    queue: Queue | NoData
    kv_cache: KvCache | NoData
    ttft: Latency | NoData
    itl: Latency | NoData
    work: Work | NoData
    gpu: Gpu | NoData
    gateway: Gateway | NoData = NoData(cause=Cause.UNSUPPORTED)
    capacity_key: str = ""  # pod template and GPU product: what a learned capacity belongs to


make_observation = maker(Observation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What arrives, in tokens: the derived quantity that capacity is set against.

    Rates are per second.  ``backlog_*`` describe requests that wait now, weighted by the recent
    mix.
    ``requests_in_flight`` is running plus waiting.
    """

    requests_per_s: float
    prompt_tokens_per_s: float  # to be computed, cache hits apart
    cached_tokens_per_s: float
    output_tokens_per_s: float
    prompt_tokens_per_request: float
    output_tokens_per_request: float
    cached_ratio: float  # share of prompt tokens found in the prefix cache
    requests_in_flight: float
    backlog_requests: float
    arrived_per_s: float = 0.0  # requests, of the newest interval alone: not smoothed


make_demand = maker(Demand)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Work expected at the lead time, in replicas' worth of busy time (dimensionless load)."""

    lead_s: float
    load_mean: float
    load_upper: float  # at the quantile that the price of a miss asks for
    skill: float  # 1 - error / error of persistence; <= 0 means no better than the last value
    used: bool  # False while it is no better than persistence
    load_horizon: float = 0.0  # the highest mean within the time a replica is kept


make_forecast = maker(Forecast)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What one replica carries within the objectives, with its interval.

    ``request_cost_s`` is the replica time one request of the present mix takes; a fleet of n
    replicas serves load
    ``requests_per_s * request_cost_s`` while it stays under ``n * load_max_ratio``.
    """

    request_cost_s: float
    request_cost_low_s: float
    request_cost_high_s: float
    load_max_ratio: float
    evidence_s: float  # replica-seconds of informative samples behind the estimate

    @property
    def requests_per_s(self) -> float:
        """Requests per second one replica carries within the objectives."""
        return self.load_max_ratio / self.request_cost_s


make_capacity = maker(Capacity)


Terms: TypeAlias = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What one signal alone would ask for, and from which numbers."""

    signal: Signal
    replicas: int
    terms: Terms


make_proposal = maker(Proposal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage's contribution: what it made of the count, and from which numbers."""

    stage: Stage
    replicas: int
    terms: Terms


make_step = maker(Step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blindness:
    """A signal that could not be used, for the record."""

    signal: Signal
    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided and everything it was decided from.

    ``steps`` ends in the published count; ``decided_by`` is the last stage that changed it.
    ``would_be`` is the count
    an active target would publish (it differs from ``replicas_desired`` in advisory and frozen
    modes).
    """

    at_s: float
    verdict: Verdict
    replicas_desired: int
    would_be: int
    active: bool
    encoded: float  # what is published so that the HPA lands on replicas_desired
    decided_by: Stage
    steps: tuple[Step, ...]
    proposals: tuple[Proposal, ...]
    blind: tuple[Blindness, ...]
    demand: Demand | None
    capacity: Capacity | None
    forecast: Forecast | None
    observation: Observation
    mode: Mode
    policy_version: str
