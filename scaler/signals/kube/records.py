"""Small frozen records of what was read: the vocabulary of this package.

Times are seconds since the epoch on the cluster's clock; the caller's clock is applied when a state
is asked for.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from scaler.core.model import Replicas
from scaler.signals.samples import PodRef, TargetRef

Pairs: TypeAlias = tuple[tuple[str, str], ...]  # labels, metadata: sorted by key


def place_of(target: TargetRef) -> str:
    """``namespace/kind/name``: a workload's identity here, whatever model is asked of it."""
    return f"{target.namespace}/{target.kind}/{target.name}"


class TriggerType(StrEnum):
    """The two trigger types of KEDA that call an external scaler."""

    EXTERNAL = "external"
    PUSH = "external-push"


class FallbackBehavior(StrEnum):
    """What KEDA answers the HPA with after failed reads."""

    STATIC = "static"
    CURRENT = "currentReplicas"
    CURRENT_IF_HIGHER = "currentReplicasIfHigher"
    CURRENT_IF_LOWER = "currentReplicasIfLower"
    OTHER = "other"  # of a KEDA newer than this list


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """spec.fallback of a ScaledObject."""

    failure_threshold: int
    replicas: int
    behavior: FallbackBehavior


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """The autoscaling.keda.sh annotations that stop KEDA from acting on what we answer."""

    fully: bool = False  # paused or paused-replicas: no HPA, no polling
    at_replicas: int | None = None  # paused-replicas
    scale_in: bool = False
    scale_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerId:
    """One of our triggers: a ScaledObject may have several."""

    namespace: str
    name: str
    index: int  # in spec.triggers


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledTrigger:
    """One trigger of ours with what its ScaledObject says; KEDA's defaults are filled in.

    ``tolerance_*_ratio`` is None where the ScaledObject leaves it to the cluster (0.1).
    """

    id: TriggerId
    uid: str
    generation: int
    type: TriggerType
    metadata: Pairs
    scale_target: TargetRef  # spec.scaleTargetRef
    scale_target_api_version: str
    target: TargetRef  # metadata ``target`` where it is given, else scale_target
    replicas_min: int
    replicas_max: int
    replicas_idle: int | None
    polling_interval_s: float
    cooldown_s: float
    has_behavior: bool
    has_scaling_modifiers: bool
    tolerance_up_ratio: float | None
    tolerance_down_ratio: float | None
    fallback: Fallback | None
    paused: Paused
    hpa_name: str
    other_triggers: int  # triggers of this ScaledObject that are not this one


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledObject:
    """A ScaledObject: its replica limits and the triggers of ours it has (maybe none)."""

    namespace: str
    name: str
    scale_target: TargetRef
    replicas_min: int
    replicas_max: int
    triggers: tuple[ScaledTrigger, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One requirement of a label selector.

    ``operator`` in lower case: in, notin, exists, doesnotexist.
    """

    key: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A label selector.  One without requirements selects nothing: it would claim a namespace."""

    equal: Pairs
    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A Deployment, StatefulSet, LeaderWorkerSet, or another kind read through /scale."""

    namespace: str
    kind: str  # lower case
    name: str
    uid: str
    wanted: int  # spec.replicas
    current: int  # status.replicas
    selector: Selector
    gpus_per_replica: int | None  # None: not known from the object (other kinds)
    group_size: int  # pods of one replica
    node_gpu_product: str  # from the template's nodeSelector; empty where it has none
    advisory: bool  # annotated as an advisory target


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRecord:
    """One pod.

    ``stuck`` means that a container cannot start: crash loop, image, configuration.
    ``scheduled_at_s`` is None while the pod has no node.
    """

    namespace: str
    name: str
    labels: Pairs
    address: str
    port: int
    node: str
    template_hash: str
    created_at_s: float
    scheduled_at_s: float | None
    ready_at_s: float | None  # when the Ready condition became true; None while it is not
    lost_ready: bool  # it is not ready, but has been since its containers started
    unschedulable_at_s: float | None
    unschedulable_message: str
    stuck: bool
    deleting: bool
    restarts: int
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """A node: its GPUs that pods may use.  ``schedulable``: ready and not cordoned."""

    name: str
    gpu_product: str
    gpus_allocatable: int
    schedulable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """All that Kubernetes knows of one target at ``replicas.seen_at_s``.

    ``unschedulable_messages`` are the scheduler's own words, each once.
    """

    target: TargetRef  # with the pods to collect from
    uid: str
    replicas: Replicas
    capacity_key: str
    gpu_product: str
    unschedulable_age_s: tuple[float, ...] = ()
    unschedulable_messages: tuple[str, ...] = ()

    @property
    def pods(self) -> tuple[PodRef, ...]:
        """The pods of the target."""
        return self.target.pods or ()
