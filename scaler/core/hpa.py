"""One sync of the Horizontal Pod Autoscaler, as a function of its inputs and its memory.

Follows ``pkg/controller/podautoscaler`` (``replica_calculator.go``, ``horizontal.go``) of
Kubernetes v1.25 to v1.36 for External metrics.  ``sync`` is the whole reconcile; its parts are
below it (proposals) and in ``hpa_limits`` (windows, rates, bounds); what it is configured with is
in ``hpa_spec``.  All are reached from here.  The HPA's own words for reasons are kept, so that a
record here and a condition in a cluster can be compared.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from scaler.core.hpa_limits import (
    HpaState,
    Limited,
    Reason,
    Recommendation,
    ScaleEvent,
    change_hpa_state,
    limit,
    make_recommendation,
    remember_change,
    remember_proposal,
    stabilise,
)
from scaler.core.hpa_spec import (
    Behavior,
    HpaSpec,
    PolicyType,
    ScalingPolicy,
    ScalingRules,
    SelectPolicy,
    ToleranceRule,
    Tolerances,
    Version,
    parse_behavior,
    parse_quantity,
    parse_version,
    tolerances_for,
)
from scaler.core.made import maker

__all__ = [
    "Behavior",
    "ExternalMetric",
    "GivenProposal",
    "HpaInput",
    "HpaSpec",
    "HpaState",
    "Limited",
    "Metric",
    "MetricFailed",
    "PolicyType",
    "Reason",
    "Recommendation",
    "ScaleEvent",
    "ScalingPolicy",
    "ScalingRules",
    "SelectPolicy",
    "SyncResult",
    "TargetType",
    "ToleranceRule",
    "Tolerances",
    "Version",
    "average_value_proposal",
    "parse_behavior",
    "parse_quantity",
    "parse_version",
    "propose",
    "sync",
    "tolerances_for",
    "value_proposal",
]

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


class TargetType(StrEnum):
    """``target`` of an External metric."""

    AVERAGE_VALUE = "AverageValue"
    VALUE = "Value"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalMetric:
    """What the metrics API answered for one External metric, in integer thousandths."""

    target_milli: int
    values_milli: tuple[int, ...]
    target_type: TargetType = TargetType.AVERAGE_VALUE


make_external_metric = maker(ExternalMetric)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenProposal:
    """A metric of another kind (CPU, say), of which only the proposal is known."""

    replicas: int


@dataclass(frozen=True, slots=True)
class MetricFailed:
    """The read failed, or the answer held no value."""


Metric: TypeAlias = ExternalMetric | GivenProposal | MetricFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class HpaInput:
    """What the controller reads in one sync: the scale subresource, pods, and each metric."""

    spec_replicas: int
    status_replicas: int
    ready_pods: int
    metrics: tuple[Metric, ...]


make_hpa_input = maker(HpaInput)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """What one sync wrote to spec.replicas and how it came to it.

    ``proposal`` and ``stabilised`` are None where the sync ended before them.
    """

    replicas: int
    reason: Reason
    proposal: int | None = None
    stabilised: int | None = None


make_sync_result = maker(SyncResult)


def sync(
    spec: HpaSpec, state: HpaState, seen: HpaInput, *, now_s: float
) -> tuple[SyncResult, HpaState]:
    """One reconcile of an HPA at ``now_s``: the count it writes, and its memory afterwards.

    The order of the exits is that of ``reconcileAutoscaler``: off at 0, above max, below min
    (these three read no metric), then metrics, stabilisation, limits.
    """
    if state.recommendations is None:
        first = make_recommendation(at_s=now_s, replicas=seen.spec_replicas)
        state = change_hpa_state(state, recommendations=(first,))
    early = _early_exit(spec, seen)
    if early is not None:
        return early, remember_change(
            spec, state, current=seen.spec_replicas, replicas=early.replicas, now_s=now_s
        )
    proposal = propose(seen, tolerances=spec.tolerances)
    if proposal is None:
        failed = SyncResult(replicas=seen.spec_replicas, reason=Reason.FAILED_GET_EXTERNAL_METRIC)
        return failed, state
    stabilised = stabilise(spec, state, current=seen.spec_replicas, proposal=proposal, now_s=now_s)
    limited = limit(spec, state, current=seen.spec_replicas, desired=stabilised, now_s=now_s)
    state = remember_proposal(spec, state, proposal=proposal, now_s=now_s)
    state = remember_change(
        spec, state, current=seen.spec_replicas, replicas=limited.replicas, now_s=now_s
    )
    result = make_sync_result(
        replicas=limited.replicas,
        reason=limited.reason,
        proposal=proposal,
        stabilised=stabilised,
    )
    return result, state


def _early_exit(spec: HpaSpec, seen: HpaInput) -> SyncResult | None:
    if seen.spec_replicas == 0 and spec.replicas_min != 0:
        return SyncResult(replicas=0, reason=Reason.SCALING_DISABLED)
    if seen.spec_replicas > spec.replicas_max:
        return SyncResult(replicas=spec.replicas_max, reason=Reason.ABOVE_MAX)
    if seen.spec_replicas < spec.replicas_min:
        return SyncResult(replicas=spec.replicas_min, reason=Reason.BELOW_MIN)
    return None


def propose(seen: HpaInput, *, tolerances: Tolerances) -> int | None:
    """Largest proposal over the metrics, at least 0; None if the sync must change nothing.

    While any metric fails, the others may raise the count or keep it, never lower it
    (``computeReplicasForMetrics``).
    """
    highest: int | None = None
    failed = False
    for metric in seen.metrics:
        proposal = _proposal(metric, seen, tolerances=tolerances)
        if proposal is None:
            failed = True
        elif highest is None or proposal > highest:
            highest = proposal
    if highest is None or (failed and highest < seen.spec_replicas):
        return None
    return max(0, highest)


def _proposal(metric: Metric, seen: HpaInput, *, tolerances: Tolerances) -> int | None:
    if isinstance(metric, MetricFailed):
        return None
    if isinstance(metric, GivenProposal):
        return metric.replicas
    if not metric.values_milli:
        return None
    usage_milli = min(sum(metric.values_milli), INT64_MAX)
    if metric.target_type is TargetType.AVERAGE_VALUE:
        return average_value_proposal(
            usage_milli=usage_milli,
            target_milli=metric.target_milli,
            status_replicas=seen.status_replicas,
            tolerances=tolerances,
        )
    return value_proposal(
        usage_milli=usage_milli, target_milli=metric.target_milli, seen=seen, tolerances=tolerances
    )


def average_value_proposal(
    *, usage_milli: int, target_milli: int, status_replicas: int, tolerances: Tolerances
) -> int:
    """Replicas for a metric with target AverageValue (``GetExternalPerPodMetricReplicas``).

    ``ratio = usage / (target * status.replicas)``; inside the tolerance status.replicas, else
    ``ceil(usage / target)``, at most 2**31 - 1.  (Before 1.34 that conversion was left to the
    machine; no sensible value comes near it.)  Readiness plays no part.  At status 0 the ratio is
    infinite, or NaN when the usage is 0 too: outside.
    """
    if status_replicas > 0:
        ratio = float(usage_milli) / (float(target_milli) * float(status_replicas))
        if tolerances.holds(ratio):
            return status_replicas
    return min(math.ceil(float(usage_milli) / float(target_milli)), INT32_MAX)


def value_proposal(
    *, usage_milli: int, target_milli: int, seen: HpaInput, tolerances: Tolerances
) -> int | None:
    """Replicas for a metric with target Value (``GetExternalMetricReplicas``).

    It multiplies the pods that are ready, so it collapses while models load.  None: the count is
    outside the tolerance and no pod matches the selector at all, which is an error.
    """
    ratio = float(usage_milli) / float(target_milli)
    if seen.spec_replicas == 0:
        return min(math.ceil(ratio), INT32_MAX)
    if tolerances.holds(ratio):
        return seen.spec_replicas
    if seen.status_replicas == 0:
        return None
    return min(math.ceil(ratio * float(seen.ready_pods)), INT32_MAX)
