"""Pods of a target to its replicas: ready, starting, stuck, and where to collect from.

A replica is what /scale counts.  Of a Deployment or StatefulSet that is a pod; of a LeaderWorkerSet
a group: ready when all its pods are, in trouble when one is, with metrics on its leader only.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scaler.core.model import Replicas
from scaler.signals.kube.parse import LWS_GROUP_LABEL, LWS_WORKER_LABEL
from scaler.signals.kube.records import NodeRecord, PodRecord, TargetState, Workload
from scaler.signals.samples import PodRef, TargetRef

UNSCHEDULABLE_AFTER_S = 30.0  # a terminating neighbour or a new node frees a GPU within seconds
SCHEDULING_WAIT_MAX_S = 900.0  # beyond it the wait says something of the cluster, not of start-ups
MESSAGES_MAX = 5


class Phase(StrEnum):
    """What a replica is doing."""

    READY = "ready"
    STARTING = "starting"
    UNSCHEDULABLE = "unschedulable"
    STUCK = "stuck"
    TERMINATING = "terminating"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One replica: a pod, or the pods of a group with the leader first."""

    pods: tuple[PodRecord, ...]
    size: int  # pods it should have

    @property
    def leader(self) -> PodRecord:
        """The pod that serves requests and metrics."""
        return self.pods[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """What is needed of the nodes, added up once for all targets."""

    products: Mapping[str, str]  # GPU product by node name, of nodes that have one
    gpus_allocatable: Mapping[str, int]  # by product, on schedulable nodes, used and free


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a state needs beside the workload and its pods."""

    nodes: Nodes | None  # None: may not be read
    start_up_s: tuple[float, ...] = ()
    replicas_min: int | None = None
    replicas_max: int | None = None
    key_before: str = ""  # the capacity key while there are no pods


def state_of(
    target: TargetRef,
    workload: Workload,
    pods: Iterable[PodRecord],
    around: Surroundings,
    *,
    seen_at_s: float,
    now_s: float,
) -> TargetState:
    """All there is to say of a target.

    Ages are at ``now_s``; ``seen_at_s`` is when workload and pods were last known to be right.
    """
    groups = groups_of(workload, pods)
    phases = [phase_of(group, now_s) for group in groups]
    product = _product(workload, groups, around.nodes)
    count = Counter(phases)
    replicas = Replicas(
        seen_at_s=seen_at_s,
        wanted=workload.wanted,
        current=workload.current,
        ready=count[Phase.READY],
        starting_age_s=tuple(
            max(0.0, now_s - group.leader.created_at_s)
            for group, phase in zip(groups, phases, strict=True)
            if phase is Phase.STARTING
        ),
        unschedulable=count[Phase.UNSCHEDULABLE],
        crash_looping=count[Phase.STUCK],
        terminating=count[Phase.TERMINATING],
        start_up_s=around.start_up_s,
        replicas_min=around.replicas_min,
        replicas_max=around.replicas_max,
        gpus_per_replica=_gpus_per_replica(workload, groups),
        gpus_allocatable=_gpus_allocatable(around.nodes, product),
    )
    waiting = [pod for group in groups for pod in group.pods if _is_unschedulable(pod, now_s)]
    return TargetState(
        target=dataclasses.replace(target, pods=tuple(_refs(groups))),
        uid=workload.uid,
        replicas=replicas,
        capacity_key=_capacity_key(groups, product) or around.key_before,
        gpu_product=product,
        unschedulable_age_s=tuple(max(0.0, now_s - pod.created_at_s) for pod in waiting),
        unschedulable_messages=tuple(
            sorted({pod.unschedulable_message for pod in waiting if pod.unschedulable_message})
        )[:MESSAGES_MAX],
    )


def groups_of(workload: Workload, pods: Iterable[PodRecord]) -> list[Group]:
    """Replicas in the order of their names; without a group label a pod is a replica by itself."""
    ordered = sorted(pods, key=lambda pod: pod.name)
    if workload.kind != "leaderworkerset":
        return [Group(pods=(pod,), size=1) for pod in ordered]
    by_index: dict[str, list[tuple[int, PodRecord]]] = defaultdict(list)
    for pod in ordered:
        labels = dict(pod.labels)
        worker = labels.get(LWS_WORKER_LABEL, "")
        by_index[labels.get(LWS_GROUP_LABEL, pod.name)].append(
            (int(worker) if worker.isdecimal() else 0, pod)
        )
    return [
        Group(pods=tuple(pod for _, pod in sorted(members, key=_rank)), size=workload.group_size)
        for _, members in sorted(by_index.items())
    ]


def phase_of(group: Group, now_s: float) -> Phase:
    """What a replica is doing; the first of these that holds for it."""
    pods = group.pods
    if any(pod.deleting for pod in pods):
        return Phase.TERMINATING
    if len(pods) >= group.size and all(pod.ready_at_s is not None for pod in pods):
        return Phase.READY
    if any(pod.stuck for pod in pods):
        return Phase.STUCK
    if any(_is_unschedulable(pod, now_s) for pod in pods):
        return Phase.UNSCHEDULABLE
    return Phase.STARTING


def start_up_s(group: Group) -> float | None:
    """From creation to ready of a replica that is ready and has never restarted; else None.

    Creation, because that is when the HPA's order was carried out: the time a replica waits for a
    node that an autoscaler brings is part of the lead time.  A wait of more than
    ``SCHEDULING_WAIT_MAX_S`` for a GPU is not: then only the time since scheduling counts.
    """
    pods = group.pods
    ready_at_s = [pod.ready_at_s for pod in pods if pod.ready_at_s is not None]
    scheduled_at_s = [pod.scheduled_at_s for pod in pods if pod.scheduled_at_s is not None]
    if len(pods) < group.size or len(ready_at_s) < len(pods) or any(pod.restarts for pod in pods):
        return None
    began_at_s = min(pod.created_at_s for pod in pods)
    if scheduled_at_s and max(scheduled_at_s) - began_at_s > SCHEDULING_WAIT_MAX_S:
        began_at_s = max(scheduled_at_s)
    return max(0.0, max(ready_at_s) - began_at_s)


def nodes_of(records: Iterable[NodeRecord]) -> Nodes:
    """Products by node, and allocatable GPUs by product."""
    records = tuple(records)
    allocatable: Counter[str] = Counter()
    for node in records:
        if node.schedulable:
            allocatable[node.gpu_product] += node.gpus_allocatable
    return Nodes(
        products={node.name: node.gpu_product for node in records if node.gpu_product},
        gpus_allocatable=dict(allocatable),
    )


def _gpus_allocatable(nodes: Nodes | None, product: str) -> int | None:
    """GPUs of the product, or of all where the product is not known."""
    if nodes is None:
        return None
    by_product = nodes.gpus_allocatable
    return by_product.get(product, 0) if product else sum(by_product.values())


def _is_unschedulable(pod: PodRecord, now_s: float) -> bool:
    return (
        pod.unschedulable_at_s is not None
        and not pod.deleting
        and now_s - pod.unschedulable_at_s >= UNSCHEDULABLE_AFTER_S
    )


def _rank(member: tuple[int, PodRecord]) -> tuple[int, str]:
    return member[0], member[1].name


def _product(workload: Workload, groups: Sequence[Group], nodes: Nodes | None) -> str:
    """The GPU product most replicas run on; that of the template's nodeSelector without any."""
    products = nodes.products if nodes is not None else {}
    seen = Counter(products[group.leader.node] for group in groups if group.leader.node in products)
    if not seen:
        return workload.node_gpu_product
    return max(seen, key=lambda product: (seen[product], product))


def _capacity_key(groups: Sequence[Group], product: str) -> str:
    """``hash/product`` of the template that most ready replicas have, the newer of equals."""
    ready = [group for group in groups if group.leader.ready_at_s is not None]
    leaders = [group.leader for group in ready or groups]
    if not leaders:
        return ""
    count = Counter(pod.template_hash for pod in leaders)
    newest_at_s = {
        pod.template_hash: pod.created_at_s
        for pod in sorted(leaders, key=lambda pod: pod.created_at_s)
    }
    chosen = max(count, key=lambda hash_: (count[hash_], newest_at_s[hash_], hash_))
    return f"{chosen}/{product}"


def _gpus_per_replica(workload: Workload, groups: Sequence[Group]) -> int:
    """Of the template; of another kind, whose template is not read, of its largest replica."""
    if workload.gpus_per_replica is not None:
        return workload.gpus_per_replica
    return max((sum(pod.gpus for pod in group.pods) for group in groups), default=0)


def _refs(groups: Iterable[Group]) -> Iterable[PodRef]:
    """Pods to collect from; a terminating one still finishes requests, but is not ready."""
    for group in groups:
        for pod in group.pods:
            yield PodRef(
                name=pod.name,
                address=pod.address,
                port=pod.port,
                ready=pod.ready_at_s is not None and not pod.deleting,
                leader=pod is group.leader,
            )
