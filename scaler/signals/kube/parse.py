"""JSON of the API to records.  Units and Kubernetes' own spellings end here.

Every function raises msgspec.DecodeError or ValueError for an object that is not of its type; the
caller drops that object, says so, and goes on with the others.
"""

import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

import msgspec

from scaler.signals.kube import wire
from scaler.signals.kube.records import NodeRecord, Pairs, PodRecord, Selector, Workload
from scaler.signals.kube.selectors import parse_selector, selector_of
from scaler.signals.samples import TargetRef

GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
ADVISORY_ANNOTATION = "vllm-scaler.io/advisory"
LWS_NAME_LABEL = "leaderworkerset.sigs.k8s.io/name"
LWS_GROUP_LABEL = "leaderworkerset.sigs.k8s.io/group-index"
LWS_WORKER_LABEL = "leaderworkerset.sigs.k8s.io/worker-index"
# In order of preference: of a LeaderWorkerSet, a Deployment, a StatefulSet.
TEMPLATE_HASH_LABELS = (
    "leaderworkerset.sigs.k8s.io/template-revision-hash",
    "pod-template-hash",
    "controller-revision-hash",
)
# Waiting reasons that do not end by waiting: someone must change something.
STUCK_REASONS = frozenset(
    {
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
STUCK_RESTARTS = 2
# Pods of these owners are never what /scale counts.
FOREIGN_OWNERS = frozenset({"DaemonSet", "Job", "Node"})
ENDED_PHASES = frozenset({"Succeeded", "Failed"})

_pod = msgspec.json.Decoder(wire.Pod)
_workload = msgspec.json.Decoder(wire.Workload)
_node = msgspec.json.Decoder(wire.Node)
_scale = msgspec.json.Decoder(wire.Scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodConventions:
    """How pods of vLLM are written in this cluster.

    ``gpu_resources`` may hold shell patterns; their quantities are added.  GPUs claimed through
    dynamic resource allocation are not counted.
    """

    port_names: tuple[str, ...] = ("http", "metrics")
    port_default: int = 8000
    gpu_resources: tuple[str, ...] = ("nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-*")


def pod_record(raw: bytes | msgspec.Raw, conventions: PodConventions) -> PodRecord | None:
    """A pod; None where it has ended or belongs to a DaemonSet, Job or node."""
    pod = _pod.decode(raw)
    meta, status = pod.metadata, pod.status
    if status.phase in ENDED_PHASES or _is_foreign(meta):
        return None
    conditions = {one.type: one for one in status.conditions or ()}
    scheduled, ready = conditions.get("PodScheduled"), conditions.get("Ready")
    waits = scheduled is not None and scheduled.status == "False"
    labels = meta.labels or {}
    return PodRecord(
        namespace=sys.intern(meta.namespace),
        name=meta.name,
        labels=_shared(tuple(sorted(labels.items()))),
        address=status.pod_ip,
        port=_port(pod.spec.containers, conventions),
        node=sys.intern(pod.spec.node_name),
        template_hash=sys.intern(_template_hash(labels)),
        created_at_s=seconds(meta.creation_timestamp),
        scheduled_at_s=_since(scheduled, "True") if pod.spec.node_name else None,
        ready_at_s=_since(ready, "True"),
        lost_ready=_lost_ready(status, ready),
        unschedulable_at_s=_since(scheduled, "False") if waits else None,
        unschedulable_message=sys.intern(scheduled.message) if scheduled and waits else "",
        stuck=_is_stuck(status, ready),
        deleting=meta.deletion_timestamp is not None,
        restarts=max((one.restart_count for one in status.container_statuses or ()), default=0),
        gpus=_gpus(pod.spec, conventions),
    )


def workload_record(
    raw: bytes | msgspec.Raw, kind: str, conventions: PodConventions
) -> Workload | None:
    """A Deployment, StatefulSet or LeaderWorkerSet; ``kind`` in lower case."""
    found = _workload.decode(raw)
    group = found.spec.leader_worker_template
    if group is None:
        size, gpus = 1, _gpus(found.spec.template.spec, conventions)
        leader = found.spec.template
        selector = selector_of(found.spec.selector)
    else:
        size, leader = group.size, group.leader_template or group.worker_template
        workers = group.size - 1
        gpus = _gpus(leader.spec, conventions) + workers * _gpus(
            group.worker_template.spec, conventions
        )
        selector = Selector(equal=((LWS_NAME_LABEL, found.metadata.name),))
    annotations = found.metadata.annotations or {}
    return Workload(
        namespace=sys.intern(found.metadata.namespace),
        kind=kind,
        name=found.metadata.name,
        uid=found.metadata.uid,
        wanted=1 if found.spec.replicas is None else found.spec.replicas,
        current=found.status.replicas,
        selector=selector,
        gpus_per_replica=gpus,
        group_size=size,
        node_gpu_product=(leader.spec.node_selector or {}).get(GPU_PRODUCT_LABEL, ""),
        advisory=annotations.get(ADVISORY_ANNOTATION) == "true",
    )


def scale_record(raw: bytes, target: TargetRef) -> Workload:
    """Another kind, from its scale subresource; GPUs are then counted from its pods."""
    found = _scale.decode(raw)
    return Workload(
        namespace=target.namespace,
        kind=target.kind,
        name=target.name,
        uid=found.metadata.uid,
        wanted=found.spec.replicas,
        current=found.status.replicas,
        selector=parse_selector(found.status.selector),
        gpus_per_replica=None,
        group_size=1,
        node_gpu_product="",
        advisory=False,
    )


def node_record(raw: bytes | msgspec.Raw, conventions: PodConventions) -> NodeRecord:
    """A node; without a GPU it is kept, because it may get its device plugin later."""
    node = _node.decode(raw)
    ready = any(
        one.type == "Ready" and one.status == "True" for one in node.status.conditions or ()
    )
    return NodeRecord(
        name=node.metadata.name,
        gpu_product=sys.intern((node.metadata.labels or {}).get(GPU_PRODUCT_LABEL, "")),
        gpus_allocatable=_gpu_quantity(node.status.allocatable, conventions),
        schedulable=ready and not node.spec.unschedulable,
    )


def seconds(timestamp: str | None) -> float:
    """RFC 3339 to seconds since the epoch.  Raises ValueError when it is missing or malformed."""
    if not timestamp:
        raise ValueError("a timestamp is missing")
    return datetime.fromisoformat(timestamp).timestamp()


def quantity(value: str | float) -> float:
    """A Kubernetes quantity of a plain number: ``"0.05"``, ``"50m"``, ``3``.  Raises ValueError."""
    if isinstance(value, str) and value.endswith("m"):
        return float(value[:-1]) / 1000.0
    return float(value)


def _is_foreign(meta: wire.Meta) -> bool:
    return any(one.controller and one.kind in FOREIGN_OWNERS for one in meta.owner_references)


@functools.lru_cache(maxsize=4096)
def _shared(labels: Pairs) -> Pairs:
    """One tuple for equal label sets: the pods of a ReplicaSet all have the same."""
    return tuple((sys.intern(key), sys.intern(value)) for key, value in labels)


def _template_hash(labels: Mapping[str, str]) -> str:
    return next((labels[key] for key in TEMPLATE_HASH_LABELS if key in labels), "")


def _since(condition: wire.Condition | None, status: str) -> float | None:
    """When the condition took this status; None while it has another one."""
    if condition is None or condition.status != status:
        return None
    return seconds(condition.last_transition_time)


def _is_stuck(status: wire.PodStatus, ready: wire.Condition | None) -> bool:
    """Whether a container cannot start.

    Restarts count only if the pod has not been ready since the last one: a pod that restarted twice
    long ago and fails one readiness probe today is not in a crash loop.
    """
    containers = [*(status.container_statuses or ()), *(status.init_container_statuses or ())]
    if any(one.state.waiting and one.state.waiting.reason in STUCK_REASONS for one in containers):
        return True
    if ready is not None and ready.status == "True":
        return False
    restarted = any(one.restart_count >= STUCK_RESTARTS for one in containers)
    return restarted and not _lost_ready(status, ready)


def _lost_ready(status: wire.PodStatus, ready: wire.Condition | None) -> bool:
    """Whether the pod was ready after the last start of its containers and is not now.

    Until a pod is ready for the first time its Ready condition keeps the time of the pod's
    admission, which is before the start of its containers.
    """
    unready_at_s = _since(ready, "False")
    running = [one.state.running for one in status.container_statuses or ()]
    if unready_at_s is None or not running:
        return False
    return all(
        one is not None and one.started_at is not None and unready_at_s > seconds(one.started_at)
        for one in running
    )


def _port(containers: Iterable[wire.Container], conventions: PodConventions) -> int:
    """The port of the first container with GPUs that names one of ours; then of any container."""
    by_gpus = sorted(
        containers, key=lambda one: _container_gpus(one, conventions) > 0, reverse=True
    )
    for container in by_gpus:
        named = {port.name: port.container_port for port in container.ports or ()}
        for name in conventions.port_names:
            if name in named:
                return named[name]
        if conventions.port_default in named.values():
            return conventions.port_default
    return conventions.port_default


def _gpus(spec: wire.PodSpec, conventions: PodConventions) -> int:
    return sum(_container_gpus(one, conventions) for one in spec.containers)


def _container_gpus(container: wire.Container, conventions: PodConventions) -> int:
    """Limits, because extended resources must have them; requests where only those are shown."""
    resources = container.resources
    return _gpu_quantity(resources.limits, conventions) or _gpu_quantity(
        resources.requests, conventions
    )


def _gpu_quantity(amounts: Mapping[str, str | int] | None, conventions: PodConventions) -> int:
    return sum(
        int(quantity(amount))
        for name, amount in (amounts or {}).items()
        if "/" in name and any(fnmatchcase(name, one) for one in conventions.gpu_resources)
    )
