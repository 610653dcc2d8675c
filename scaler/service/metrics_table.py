"""The table of our own metrics: documentation and code at once.  ``telemetry`` exports it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scaler.core.capacity import unlearned_cost_s
from scaler.core.config import PolicyConfig
from scaler.core.model import Decision, Demand, Mode, NoData, Replicas, Signal, Verdict
from scaler.service.registry import Entry

PREFIX = "vllm_scaler_"
REFERENCE_WORK = "demand_reference_work"
TARGET_LABELS = ("target_namespace", "target", "trigger")
SHIPPED = PolicyConfig()
Values = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetMetric:
    """A gauge per target: ``read`` yields (further label values, value) from an entry."""

    name: str
    meaning: str
    read: Callable[[Entry, float], Values]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMetric:
    """A metric of the daemon itself."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


def _decided(pick: Callable[[Decision], float | None]) -> Callable[[Entry, float], Values]:
    def read(entry: Entry, _now_s: float) -> Values:
        decision = entry.decision  # read once: metrics are rendered while the loop decides
        value = pick(decision) if decision is not None else None
        return [] if value is None else [((), value)]

    return read


def _replicas(pick: Callable[[Replicas], float | None]) -> Callable[[Entry, float], Values]:
    def read(decision: Decision) -> float | None:
        replicas = decision.observation.replicas
        return None if isinstance(replicas, NoData) else pick(replicas)

    return _decided(read)


def _proposals(entry: Entry, _now_s: float) -> Values:
    decision = entry.decision
    proposals = decision.proposals if decision else ()
    return [((item.signal.value,), float(item.replicas)) for item in proposals]


def _capacity(entry: Entry, _now_s: float) -> Values:
    decision = entry.decision
    capacity = decision.capacity if decision else None
    if capacity is None:
        return []
    costs = {
        "mean": capacity.request_cost_s,
        "low": capacity.request_cost_high_s,
        "high": capacity.request_cost_low_s,
    }
    return [((bound,), capacity.load_max_ratio / cost_s) for bound, cost_s in costs.items()]


def reference_cost_s(demand: Demand) -> float:
    """Replica time of one request with the shipped step times, whatever is configured or learned.

    A series at these prices means the same before and after a reload, and after a restart.
    """
    return unlearned_cost_s(demand, SHIPPED)


def _reference_work(entry: Entry, _now_s: float) -> Values:
    """What a forecaster is fed, at the shipped prices; nothing where no arrivals were counted."""
    decision = entry.decision
    demand = decision.demand if decision else None
    if decision is None or demand is None:
        return []
    if isinstance(decision.observation.work, NoData):
        return []
    return [((), demand.arrived_per_s * reference_cost_s(demand))]


def _forecast(entry: Entry, _now_s: float) -> Values:
    decision = entry.decision
    forecast = decision.forecast if decision else None
    if forecast is None:
        return []
    return [(("mean",), forecast.load_mean), (("upper",), forecast.load_upper)]


def _signals(decision: Decision) -> tuple[tuple[Signal, object], ...]:
    seen = decision.observation
    return (
        (Signal.WORK, seen.work),
        (Signal.QUEUE, seen.queue),
        (Signal.KV_CACHE, seen.kv_cache),
        (Signal.TTFT, seen.ttft),
        (Signal.ITL, seen.itl),
        (Signal.GPU, seen.gpu),
    )


def _ages(entry: Entry, now_s: float) -> Values:
    decision = entry.decision
    if decision is None:
        return []
    return [
        ((signal.value,), now_s - value.seen_at_s)  # type: ignore[attr-defined]
        for signal, value in _signals(decision)
        if not isinstance(value, NoData)
    ]


def _blind_signals(entry: Entry, _now_s: float) -> Values:
    decision = entry.decision
    blind = decision.blind if decision else ()
    return [((item.signal.value, item.cause.value), 1.0) for item in blind]


def _decided_by(entry: Entry, _now_s: float) -> Values:
    decision = entry.decision
    return [((decision.decided_by.value,), 1.0)] if decision else []


def _mode(entry: Entry, _now_s: float) -> Values:
    return [((mode.value,), float(entry.policy.mode is mode)) for mode in Mode]


def _hash(entry: Entry, _now_s: float) -> Values:
    return [((entry.hash,), 1.0)] if entry.hash else []


def _gpus_desired(decision: Decision) -> float | None:
    replicas = decision.observation.replicas
    if isinstance(replicas, NoData) or replicas.gpus_per_replica == 0:
        return None
    return float(decision.would_be * replicas.gpus_per_replica)


def _blind(decision: Decision) -> float:
    return float(decision.verdict in (Verdict.HELD, Verdict.FLOORED, Verdict.UNKNOWN))


def _at_max(decision: Decision) -> float | None:
    replicas = decision.observation.replicas
    if isinstance(replicas, NoData) or replicas.replicas_max is None:
        return None
    return float(decision.would_be >= replicas.replicas_max)


TARGET_METRICS: tuple[TargetMetric, ...] = (
    TargetMetric(
        name="desired_replicas",
        meaning="Replicas wanted (in advisory mode: that would be wanted)",
        read=_decided(lambda decision: decision.would_be),
    ),
    TargetMetric(
        name="published_replicas",
        meaning="Replicas answered to KEDA",
        read=_decided(lambda decision: decision.replicas_desired),
    ),
    TargetMetric(
        name="wanted_replicas",
        meaning="spec.replicas of the target",
        read=_replicas(lambda replicas: replicas.wanted),
    ),
    TargetMetric(
        name="ready_replicas",
        meaning="Ready replicas of the target",
        read=_replicas(lambda replicas: replicas.ready),
    ),
    TargetMetric(
        name="starting_replicas",
        meaning="Scheduled replicas that are not ready yet",
        read=_replicas(lambda replicas: replicas.starting),
    ),
    TargetMetric(
        name="unschedulable_replicas",
        meaning="Replicas that no node can take",
        read=_replicas(lambda replicas: replicas.unschedulable),
    ),
    TargetMetric(
        name="crash_looping_replicas",
        meaning="Replicas whose container cannot start",
        read=_replicas(lambda replicas: replicas.crash_looping),
    ),
    TargetMetric(
        name="proposal_replicas",
        meaning="Replicas each signal alone would ask for",
        labels=("signal",),
        read=_proposals,
    ),
    TargetMetric(
        name="demand_requests_per_second",
        meaning="Requests arriving (finished + running + waiting + rejected, change of)",
        read=_decided(lambda made: made.demand.requests_per_s if made.demand else None),
    ),
    TargetMetric(
        name="demand_prompt_tokens_per_second",
        meaning="Prompt tokens arriving that must be computed",
        read=_decided(lambda made: made.demand.prompt_tokens_per_s if made.demand else None),
    ),
    TargetMetric(
        name="demand_output_tokens_per_second",
        meaning="Output tokens that the arriving requests will make",
        read=_decided(lambda made: made.demand.output_tokens_per_s if made.demand else None),
    ),
    TargetMetric(
        name="demand_work",
        meaning="Arriving work in replicas' worth of busy time",
        read=_decided(
            lambda made: (
                made.demand.requests_per_s * made.capacity.request_cost_s
                if made.demand and made.capacity
                else None
            )
        ),
    ),
    TargetMetric(
        name=REFERENCE_WORK,
        meaning="Arriving work in replicas' worth by the shipped step times, whatever is "
        "configured or learned: what the forecast learns from, and reads back after a restart",
        read=_reference_work,
    ),
    TargetMetric(
        name="forecast_work",
        meaning="Work expected one start-up time ahead, in replicas' worth of busy time",
        labels=("bound",),
        read=_forecast,
    ),
    TargetMetric(
        name="forecast_skill",
        meaning="1 - error of the forecast / error of the last value; not used at or below 0",
        read=_decided(lambda made: made.forecast.skill if made.forecast else None),
    ),
    TargetMetric(
        name="forecast_dropped",
        meaning="1 while the forecast is no better than the last value and not used",
        read=_decided(lambda made: float(not made.forecast.used) if made.forecast else None),
    ),
    TargetMetric(
        name="capacity_requests_per_second",
        meaning="Requests per second one replica carries within the objectives",
        labels=("bound",),
        read=_capacity,
    ),
    TargetMetric(
        name="lead_time_seconds",
        meaning="How far the forecast looks ahead: a high quantile of start-up times plus a tick",
        read=_decided(lambda made: made.forecast.lead_s if made.forecast else None),
    ),
    TargetMetric(
        name="signal_age_seconds",
        meaning="Age of the newest sample of a signal",
        labels=("signal",),
        read=_ages,
    ),
    TargetMetric(
        name="signal_blind",
        meaning="1 for each signal that cannot be used, with the cause",
        labels=("signal", "cause"),
        read=_blind_signals,
    ),
    TargetMetric(
        name="blind",
        meaning="1 while nothing is known of the load",
        read=_decided(_blind),
    ),
    TargetMetric(
        name="decided_by",
        meaning="1 for the stage that fixed the count",
        labels=("stage",),
        read=_decided_by,
    ),
    TargetMetric(
        name="at_max",
        meaning="1 while the count wanted is at maxReplicaCount",
        read=_decided(_at_max),
    ),
    TargetMetric(
        name="gpus_desired",
        meaning="GPUs of the replicas wanted",
        read=_decided(_gpus_desired),
    ),
    TargetMetric(
        name="gpus_allocatable",
        meaning="GPUs of the product on schedulable nodes",
        read=_replicas(lambda replicas: replicas.gpus_allocatable),
    ),
    TargetMetric(
        name="last_decision_timestamp_seconds",
        meaning="Unix time of the latest decision",
        read=_decided(lambda decision: decision.at_s),
    ),
    TargetMetric(
        name="mode_info", meaning="1 for the mode of the target", labels=("mode",), read=_mode
    ),
    TargetMetric(
        name="config_hash_info",
        meaning="Hash of the settings that decide",
        labels=("hash",),
        read=_hash,
    ),
)

PROCESS_METRICS: tuple[ProcessMetric, ...] = (
    ProcessMetric(
        name="decisions_total", kind="counter", labels=("stage",), meaning="Decisions by stage"
    ),
    ProcessMetric(
        name="decision_changes_total", kind="counter", meaning="Decisions that brought news"
    ),
    ProcessMetric(
        name="tick_duration_seconds",
        kind="histogram",
        meaning="Collecting and deciding, all targets",
    ),
    ProcessMetric(
        name="decide_duration_seconds", kind="histogram", meaning="Deciding alone, all targets"
    ),
    ProcessMetric(
        name="grpc_requests_total",
        kind="counter",
        labels=("method", "code"),
        meaning="Calls answered",
    ),
    ProcessMetric(
        name="grpc_duration_seconds",
        kind="histogram",
        labels=("method",),
        meaning="Time in the handler",
    ),
    ProcessMetric(
        name="source_requests_total",
        kind="counter",
        labels=("source",),
        meaning="Requests made to a source, repeated ones included",
    ),
    ProcessMetric(
        name="source_collections_total",
        kind="counter",
        labels=("source",),
        meaning="Collections from a source",
    ),
    ProcessMetric(
        name="source_failures_total",
        kind="counter",
        labels=("source",),
        meaning="Collections from a source that brought nothing",
    ),
    ProcessMetric(
        name="source_samples",
        kind="gauge",
        labels=("source",),
        meaning="Samples of the last tick, pods and GPUs",
    ),
    ProcessMetric(
        name="source_duration_seconds",
        kind="gauge",
        labels=("source",),
        meaning="Duration of the last collection",
    ),
    ProcessMetric(name="targets", kind="gauge", meaning="Triggers known"),
    ProcessMetric(name="targets_faulty", kind="gauge", meaning="Triggers that cannot be decided"),
    ProcessMetric(name="leader", kind="gauge", meaning="1 if this daemon decides"),
    ProcessMetric(
        name="record_failures_total", kind="counter", meaning="Failed writes of the decision log"
    ),
    ProcessMetric(
        name="config_reloads_total",
        kind="counter",
        labels=("outcome",),
        meaning="Reloads of the configuration",
    ),
)


def reference() -> str:
    """The table of all metrics, as Markdown."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for target in TARGET_METRICS:
        labels = ", ".join((*TARGET_LABELS, *target.labels))
        rows.append(f"| `{PREFIX}{target.name}` | gauge | {labels} | {target.meaning} |")
    for process in PROCESS_METRICS:
        labels = ", ".join(process.labels)
        rows.append(f"| `{PREFIX}{process.name}` | {process.kind} | {labels} | {process.meaning} |")
    return "\n".join(rows) + "\n"
