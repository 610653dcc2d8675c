"""Proposal of the HPA for a metric of type Pods.

Follows ``calcPlainMetricReplicas`` of Kubernetes' ``replica_calculator.go`` (v1.25 to v1.36).  A
terminating pod is ignored, a pod that waits for its node is unready, and every other pod without a
sample, such as one that loads its model, is missing: on the way down it counts as if at the target,
on the way up as idle.
"""

import math
from collections.abc import Mapping

from scaler.core.hpa import GivenProposal, Metric, MetricFailed, Tolerances
from scaler.core.model import Replicas

MILLI = 1000


def pods_metric(
    by_pod: Mapping[int, float], *, target: float, replicas: Replicas, tolerances: Tolerances
) -> Metric:
    """The proposal for ``by_pod``, a value for every pod that has one, in the unit of ``target``.

    It fails without any value.
    """
    if not by_pod:
        return MetricFailed()
    values = [int(value * MILLI) for value in by_pod.values()]
    target_milli = round(target * MILLI)
    missing = max(replicas.current - replicas.unschedulable - len(values), 0)
    ratio = _ratio(values, target_milli)
    waiting = replicas.unschedulable if ratio > 1.0 else 0
    if not missing and not waiting:
        if tolerances.holds(ratio):
            return GivenProposal(replicas=replicas.wanted)
        return GivenProposal(replicas=math.ceil(ratio * len(values)))
    values += [target_milli if ratio < 1.0 else 0] * missing + [0] * waiting
    return GivenProposal(
        replicas=_cautious(ratio, values, target_milli, replicas.wanted, tolerances)
    )


def _cautious(
    before: float, values: list[int], target_milli: int, current: int, tolerances: Tolerances
) -> int:
    """The proposal with the pods without a sample counted in, never in the other direction."""
    ratio = _ratio(values, target_milli)
    turned = (before < 1.0 < ratio) or (ratio < 1.0 < before)
    if tolerances.holds(ratio) or turned:
        return current
    proposal = math.ceil(ratio * len(values))
    if (ratio < 1.0 and proposal > current) or (ratio > 1.0 and proposal < current):
        return current
    return proposal


def _ratio(values: list[int], target_milli: int) -> float:
    return (sum(values) // len(values)) / target_milli
