"""Which replicas a scale-down takes.

A ReplicaSet sorts its pods with ``ActivePodsWithRanks.Less`` of Kubernetes'
``pkg/controller/controller_utils.go`` and deletes from the front; a StatefulSet and a
LeaderWorkerSet delete their highest ordinals first.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

NANOSECONDS_PER_S = 1e9


class Phase(IntEnum):
    """Where a pod is in its life, in the order in which it is given up."""

    UNASSIGNED = 0  # no node yet: waits for a GPU
    PENDING = 1  # on a node: pulls the image, waits for a volume
    RUNNING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRank:
    """What a ReplicaSet looks at in one pod.

    ``uid`` decides between pods of like age, so it should have no meaning (a random name).
    ``ready_at_s`` counts only while ``ready``.
    """

    uid: str
    phase: Phase
    ready: bool
    created_at_s: float
    ready_at_s: float = 0.0
    deletion_cost: int = 0  # annotation controller.kubernetes.io/pod-deletion-cost
    restarts: int = 0


def replicaset_victims(pods: Iterable[PodRank], *, count: int, now_s: float) -> tuple[PodRank, ...]:
    """The ``count`` pods a ReplicaSet deletes first, in order.

    Unassigned before pending before running; not ready before ready; lower deletion cost; ready
    for a shorter time; more restarts; younger.  Both ages are compared by the whole part of their
    binary logarithm in nanoseconds (LogarithmicScaleDown, on since 1.22): among pods whose ages
    are within a factor of two the uid decides, so a scale-down is close to random there.  The rule
    between deletion cost and age, more replicas of the set on one node first, is left out: nodes
    are not modelled.
    """
    return tuple(sorted(pods, key=lambda pod: _rank(pod, now_s=now_s))[:count])


def ordinal_victims(ordinals: Iterable[int], *, count: int) -> tuple[int, ...]:
    """The ``count`` ordinals a StatefulSet or LeaderWorkerSet deletes first: the highest."""
    return tuple(sorted(ordinals, reverse=True)[:count])


def _rank(pod: PodRank, *, now_s: float) -> tuple[int, bool, int, int, int, int, str]:
    ready_age = _age_rank(now_s - pod.ready_at_s) if pod.ready else 0
    # Ready pods whose ready ages rank alike are told apart by uid at once: restarts and creation
    # are reached only by pods that are not ready (or became ready in the same second).
    restarts = 0 if pod.ready else -pod.restarts
    created_age = 0 if pod.ready else _age_rank(now_s - pod.created_at_s)
    return (pod.phase, pod.ready, pod.deletion_cost, ready_age, restarts, created_age, pod.uid)


def _age_rank(age_s: float) -> int:
    """``logarithmicRankDiff``: -1 for an age that is not positive, else int(log2(nanoseconds))."""
    return int(math.log2(age_s * NANOSECONDS_PER_S)) if age_s > 0.0 else -1
