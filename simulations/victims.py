"""Which replicas a scale-down takes.

A ReplicaSet sorts its pods with ``ActivePodsWithRanks.Less`` of Kubernetes'
``pkg/controller/controller_utils.go`` and deletes from the front; a StatefulSet and a
LeaderWorkerSet delete their highest ordinals first.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cmp_to_key

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
    for a shorter time; more restarts; younger.  Two different ages are compared by the whole part
    of their binary logarithm in nanoseconds (LogarithmicScaleDown, on since 1.22): where it is the
    same the uid decides, so a scale-down is close to random among pods of like age.  The rule
    between deletion cost and age, more replicas of the set on one node first, is left out: nodes
    are not modelled.  Pods alike in everything go by uid, where Kubernetes leaves it open.
    """

    def compare(one: PodRank, other: PodRank) -> int:
        return _compare(one, other, now_s=now_s)

    return tuple(sorted(pods, key=cmp_to_key(compare))[:count])


def ordinal_victims(ordinals: Iterable[int], *, count: int) -> tuple[int, ...]:
    """The ``count`` ordinals a StatefulSet or LeaderWorkerSet deletes first: the highest."""
    return tuple(sorted(ordinals, reverse=True)[:count])


def _compare(one: PodRank, other: PodRank, *, now_s: float) -> int:
    """Negative if ``one`` goes first, as ``Less`` would say."""
    mine = (one.phase, one.ready, one.deletion_cost)
    theirs = (other.phase, other.ready, other.deletion_cost)
    if mine != theirs:
        return -1 if mine < theirs else 1
    if one.ready and one.ready_at_s != other.ready_at_s:
        return _compare_ages(one, other, now_s - one.ready_at_s, now_s - other.ready_at_s)
    if one.restarts != other.restarts:
        return other.restarts - one.restarts
    return _compare_ages(one, other, now_s - one.created_at_s, now_s - other.created_at_s)


def _compare_ages(one: PodRank, other: PodRank, age_s: float, other_age_s: float) -> int:
    difference = _age_rank(age_s) - _age_rank(other_age_s)
    return difference if difference != 0 else (one.uid > other.uid) - (one.uid < other.uid)


def _age_rank(age_s: float) -> int:
    """``logarithmicRankDiff``: -1 for an age that is not positive, else int(log2(nanoseconds))."""
    return int(math.log2(age_s * NANOSECONDS_PER_S)) if age_s > 0.0 else -1
