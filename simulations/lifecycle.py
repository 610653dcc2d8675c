"""The life of one replica as others see it: phases, views, victims, GPUs, usage."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from simulations.replica import Distribution
from simulations.victims import Phase as PodPhase
from simulations.victims import PodRank, replicaset_victims

BACK_OFF_FIRST_S = 10.0  # the kubelet's, doubling at every restart
BACK_OFF_MAX_S = 300.0


def back_off_s(restarts: int) -> float:
    """How long the kubelet waits before it starts a container again that has failed."""
    return min(BACK_OFF_FIRST_S * 2.0 ** min(restarts, 16), BACK_OFF_MAX_S)


class Phase(StrEnum):
    """Where a replica is in its life."""

    PENDING = "pending"  # no GPU free
    STARTING = "starting"
    CRASH_LOOPING = "crash_looping"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """What a controller that picks victims sees of one replica."""

    uid: int
    phase: Phase
    created_at_s: float
    ready_at_s: float | None
    restarts: int


VictimChoice: TypeAlias = Callable[[Sequence[ReplicaView], int, float], Sequence[int]]
"""Of the replicas that are not draining, the uids of those to end, given how many and the time."""


def replicaset_choice(replicas: Sequence[ReplicaView], count: int, now_s: float) -> tuple[int, ...]:
    """What a ReplicaSet would delete (``victims.replicaset_victims``)."""
    uids = {_pod_uid(r.uid): r.uid for r in replicas}
    ranks = [
        PodRank(
            uid=_pod_uid(r.uid),
            phase=_POD_PHASE[r.phase],
            ready=r.phase == Phase.READY,
            created_at_s=r.created_at_s,
            ready_at_s=r.ready_at_s or 0.0,
            restarts=r.restarts,
        )
        for r in replicas
    ]
    return tuple(uids[v.uid] for v in replicaset_victims(ranks, count=count, now_s=now_s))


def ordinal_choice(replicas: Sequence[ReplicaView], count: int, _now_s: float) -> tuple[int, ...]:
    """The highest ordinals, as a LeaderWorkerSet or StatefulSet would: those created last."""
    return tuple(sorted((r.uid for r in replicas), reverse=True)[:count])


class VictimOrder(StrEnum):
    """Whose rule says which replicas a scale-down ends."""

    REPLICASET = "replicaset"  # of a Deployment: not ready first, then the younger
    ORDINAL = "ordinal"  # of a StatefulSet or LeaderWorkerSet: the last group first

    @property
    def choice(self) -> VictimChoice:
        """The rule."""
        return replicaset_choice if self is VictimOrder.REPLICASET else ordinal_choice


_POD_PHASE = {
    Phase.PENDING: PodPhase.UNASSIGNED,
    Phase.STARTING: PodPhase.RUNNING,  # its container runs, it is not ready
    Phase.CRASH_LOOPING: PodPhase.RUNNING,
    Phase.READY: PodPhase.RUNNING,
}


def _pod_uid(uid: int) -> str:
    """A name without meaning, as Kubernetes gives them, and always the same for a replica."""
    return hashlib.sha256(str(uid).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPool:
    """GPUs the fleet may use: those there, and those that new nodes may bring.

    ``total`` None is no limit.  A pending replica asks for nodes of ``gpus_per_node`` GPUs while
    the pool, nodes on their way included, is below ``provisioned_max``; each takes a draw of
    ``node_provisioning``.
    """

    total: int | None = None
    provisioned_max: int = 0
    gpus_per_node: int = 8
    node_provisioning: Distribution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """GPU time up to now: scheduled until gone, times GPUs a replica; pending apart."""

    gpu_hours: float
    pending_gpu_hours: float
    replica_hours: float
