"""The parts of Kubernetes objects that are read, as msgspec structs.

Decoding into these skips every other field without allocating it: a pod of 8 KB of JSON becomes a
few hundred bytes in one pass.  Everything is optional, as in the API; nothing here computes.
"""

import msgspec

Raw = msgspec.Raw


class Wire(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base of the structs: camelCase on the wire, immutable, without reference cycles."""


class OwnerReference(Wire, frozen=True):
    """Who made an object."""

    kind: str = ""
    name: str = ""
    controller: bool = False


class Meta(Wire, frozen=True):
    """metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None  # null in the metadata of templates
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] = []


class ListMeta(Wire, frozen=True):
    """metadata of a list."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class ObjectList(Wire, frozen=True):
    """A page of a list; items are decoded one by one, so that one bad object spoils nothing."""

    metadata: ListMeta = ListMeta()
    items: list[Raw] | None = None


class WatchEvent(Wire, frozen=True):
    """One line of a watch."""

    type: str
    object: Raw


class Status(Wire, frozen=True):
    """The object of an ERROR event, and the body of a refusal."""

    code: int = 0
    reason: str = ""
    message: str = ""


class MetaOnly(Wire, frozen=True):
    """Any object, for its metadata."""

    metadata: Meta = Meta()


# Pods


class Condition(Wire, frozen=True):
    """One entry of status.conditions."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class Waiting(Wire, frozen=True):
    """state.waiting."""

    reason: str = ""


class Running(Wire, frozen=True):
    """state.running."""

    started_at: str | None = None


class ContainerState(Wire, frozen=True):
    """state of a container."""

    waiting: Waiting | None = None
    running: Running | None = None


class ContainerStatus(Wire, frozen=True):
    """One entry of status.containerStatuses or status.initContainerStatuses."""

    name: str = ""
    restart_count: int = 0
    state: ContainerState = ContainerState()


class ContainerPort(Wire, frozen=True):
    """One entry of ports."""

    name: str = ""
    container_port: int = 0
    protocol: str = "TCP"


class Resources(Wire, frozen=True):
    """resources; quantities are strings or bare integers."""

    limits: dict[str, str | int] | None = None
    requests: dict[str, str | int] | None = None


class Container(Wire, frozen=True):
    """One entry of containers."""

    name: str = ""
    ports: list[ContainerPort] | None = None
    resources: Resources = Resources()


class PodSpec(Wire, frozen=True):
    """spec of a pod or of a pod template."""

    node_name: str = ""
    node_selector: dict[str, str] | None = None
    containers: list[Container] = []


class PodStatus(Wire, frozen=True):
    """status of a pod."""

    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


class Pod(Wire, frozen=True):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


# Workloads


class Requirement(Wire, frozen=True):
    """One entry of matchExpressions."""

    key: str
    operator: str
    values: list[str] | None = None


class LabelSelector(Wire, frozen=True):
    """spec.selector."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


class PodTemplate(Wire, frozen=True):
    """spec.template."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()


class LeaderWorkerTemplate(Wire, frozen=True):
    """spec.leaderWorkerTemplate; without a leader template the leader is made like a worker."""

    size: int = 1
    leader_template: PodTemplate | None = None
    worker_template: PodTemplate = PodTemplate()


class WorkloadSpec(Wire, frozen=True):
    """spec of a Deployment, StatefulSet or LeaderWorkerSet."""

    replicas: int | None = None
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    leader_worker_template: LeaderWorkerTemplate | None = None


class WorkloadStatus(Wire, frozen=True):
    """status of a Deployment, StatefulSet or LeaderWorkerSet."""

    replicas: int = 0
    ready_replicas: int = 0


class Workload(Wire, frozen=True):
    """A Deployment, StatefulSet or LeaderWorkerSet."""

    metadata: Meta = Meta()
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()


class ScaleSpec(Wire, frozen=True):
    """spec of the scale subresource."""

    replicas: int = 0


class ScaleStatus(Wire, frozen=True):
    """status of the scale subresource."""

    replicas: int = 0
    selector: str = ""


class Scale(Wire, frozen=True):
    """The scale subresource."""

    metadata: Meta = Meta()
    spec: ScaleSpec = ScaleSpec()
    status: ScaleStatus = ScaleStatus()


# Nodes


class NodeSpec(Wire, frozen=True):
    """spec of a node."""

    unschedulable: bool = False


class NodeStatus(Wire, frozen=True):
    """status of a node."""

    allocatable: dict[str, str | int] | None = None
    conditions: list[Condition] | None = None


class Node(Wire, frozen=True):
    """A node."""

    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


# KEDA


class ScaleTargetRef(Wire, frozen=True):
    """spec.scaleTargetRef."""

    name: str = ""
    kind: str = "Deployment"
    api_version: str = "apps/v1"


class Trigger(Wire, frozen=True):
    """One entry of spec.triggers."""

    type: str = ""
    metadata: dict[str, str] | None = None


class FallbackSpec(Wire, frozen=True):
    """spec.fallback."""

    failure_threshold: int = 0
    replicas: int = 0
    behavior: str = "static"


class ScalingRules(Wire, frozen=True):
    """behavior.scaleUp or behavior.scaleDown; tolerance is a quantity."""

    tolerance: str | float | int | None = None


class Behavior(Wire, frozen=True):
    """horizontalPodAutoscalerConfig.behavior."""

    scale_up: ScalingRules | None = None
    scale_down: ScalingRules | None = None


class HpaConfig(Wire, frozen=True):
    """advanced.horizontalPodAutoscalerConfig."""

    behavior: Behavior | None = None


class Advanced(Wire, frozen=True):
    """spec.advanced."""

    horizontal_pod_autoscaler_config: HpaConfig | None = None
    scaling_modifiers: dict[str, Raw] | None = None


class ScaledObjectSpec(Wire, frozen=True):
    """spec of a ScaledObject."""

    scale_target_ref: ScaleTargetRef = ScaleTargetRef()
    min_replica_count: int | None = None
    max_replica_count: int | None = None
    idle_replica_count: int | None = None
    polling_interval: int | None = None
    cooldown_period: int | None = None
    triggers: list[Trigger] = []
    fallback: FallbackSpec | None = None
    advanced: Advanced | None = None


class ScaledObjectStatus(Wire, frozen=True):
    """status of a ScaledObject."""

    hpa_name: str = ""


class ScaledObject(Wire, frozen=True):
    """A ScaledObject of keda.sh/v1alpha1."""

    metadata: Meta = Meta()
    spec: ScaledObjectSpec = ScaledObjectSpec()
    status: ScaledObjectStatus = ScaledObjectStatus()
