"""Kubernetes objects as the API writes them: what tests and the demonstration store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scaler.demo.kube_store import Object, timestamp

GPU = "nvidia.com/gpu"
LWS = "leaderworkerset.sigs.k8s.io"
IMAGE = "vllm/vllm-openai:v0.32.0"


class PodState(StrEnum):
    """Where a pod is in its life."""

    UNSCHEDULABLE = "unschedulable"
    LOADING = "loading"  # its container runs, it is not ready
    READY = "ready"
    CRASH_LOOP = "crash_loop"
    TERMINATING = "terminating"


_SERVING = frozenset({PodState.READY, PodState.TERMINATING})


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTimes:
    """When things happened to a pod; in seconds since the epoch."""

    created_at_s: float
    scheduled_at_s: float | None = None  # default: one second later
    ready_at_s: float | None = None  # default: when it was scheduled


def deployment(
    namespace: str,
    name: str,
    *,
    replicas: int = 1,
    current: int | None = None,
    gpus: int = 1,
    kind: str = "Deployment",
    annotations: Mapping[str, str] | None = None,
    node_selector: Mapping[str, str] | None = None,
) -> Object:
    """A Deployment (or StatefulSet) of vLLM whose pods carry ``app: name``."""
    count = replicas if current is None else current
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name, "annotations": dict(annotations or {})},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"creationTimestamp": None, "labels": {"app": name}},
                "spec": _pod_spec(gpus, node_selector=node_selector),
            },
        },
        "status": {"replicas": count, "readyReplicas": count},
    }


def leader_worker_set(
    namespace: str, name: str, *, replicas: int = 1, size: int = 2, gpus: int = 8
) -> Object:
    """A LeaderWorkerSet: each replica is a group of ``size`` pods."""
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas,
            "leaderWorkerTemplate": {
                "size": size,
                "workerTemplate": {
                    "metadata": {"creationTimestamp": None},
                    "spec": _pod_spec(gpus),
                },
            },
        },
        "status": {
            "replicas": replicas,
            "readyReplicas": replicas,
            "hpaPodSelector": f"{LWS}/name={name},{LWS}/worker-index=0",
        },
    }


def scaled_object(
    namespace: str,
    name: str,
    *,
    target: str,
    target_kind: str = "Deployment",
    target_api_version: str = "apps/v1",
    address: str = "vllm-scaler.vllm-scaler.svc:9090",
    metadata: Mapping[str, str] | None = None,
    triggers: Sequence[Object] | None = None,
    annotations: Mapping[str, str] | None = None,
    spec: Mapping[str, object] | None = None,
) -> Object:
    """A ScaledObject with our trigger; ``triggers`` replaces it, ``spec`` adds fields."""
    ours = {"type": "external", "metadata": {"scalerAddress": address, **(metadata or {})}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"namespace": namespace, "name": name, "annotations": dict(annotations or {})},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": target_api_version,
                "kind": target_kind,
                "name": target,
            },
            "triggers": [ours] if triggers is None else list(triggers),
            **(spec or {}),
        },
        "status": {"hpaName": f"keda-hpa-{name}"},
    }


def pod(
    namespace: str,
    name: str,
    *,
    app: str,
    times: PodTimes,
    state: PodState = PodState.READY,
    template_hash: str = "5d8f7c9b6",
    node: str = "gpu-1",
    address: str = "10.0.0.1",
    port: int = 8000,
    gpus: int = 1,
    restarts: int = 0,
    labels: Mapping[str, str] | None = None,
) -> Object:
    """A pod of a Deployment named ``app``, in one of the states of a start."""
    scheduled = state is not PodState.UNSCHEDULABLE
    meta: Object = {
        "namespace": namespace,
        "name": name,
        "creationTimestamp": timestamp(times.created_at_s),
        "labels": {"app": app, "pod-template-hash": template_hash, **(labels or {})},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": f"{app}-{template_hash}",
                "uid": f"{namespace}-{app}-{template_hash}",
                "controller": True,
            }
        ],
    }
    if state is PodState.TERMINATING:
        meta["deletionTimestamp"] = timestamp(times.created_at_s + 60.0)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": _pod_spec(gpus, port=port) | ({"nodeName": node} if scheduled else {}),
        "status": {
            "phase": "Running" if scheduled else "Pending",
            "podIP": address if scheduled else "",
            "conditions": _conditions(state, times),
            "containerStatuses": _container_statuses(state, times, restarts) if scheduled else [],
        },
    }


def node(
    name: str,
    *,
    gpus: int = 8,
    product: str = "NVIDIA-H100-80GB-HBM3",
    cordoned: bool = False,
    ready: bool = True,
) -> Object:
    """A GPU node as the device plugin and GPU feature discovery leave it."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "allocatable": {"cpu": "63500m", "memory": "500Gi", GPU: str(gpus)},
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
        },
    }


def _pod_spec(
    gpus: int, *, port: int = 8000, node_selector: Mapping[str, str] | None = None
) -> Object:
    spec: Object = {
        "containers": [
            {
                "name": "vllm",
                "image": IMAGE,
                "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
                "resources": {"limits": {GPU: str(gpus)}, "requests": {GPU: str(gpus)}},
            }
        ]
    }
    return spec | ({"nodeSelector": dict(node_selector)} if node_selector else {})


def _conditions(state: PodState, times: PodTimes) -> list[Object]:
    created, scheduled_at_s = timestamp(times.created_at_s), _scheduled_at_s(times)
    if state is PodState.UNSCHEDULABLE:
        return [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/4 nodes are available: 4 Insufficient nvidia.com/gpu.",
                "lastTransitionTime": created,
            }
        ]
    ready = state in _SERVING
    ready_at_s = scheduled_at_s if times.ready_at_s is None or not ready else times.ready_at_s
    return [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(scheduled_at_s)},
        {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastTransitionTime": timestamp(ready_at_s),
        },
    ]


def _container_statuses(state: PodState, times: PodTimes, restarts: int) -> list[Object]:
    started = timestamp(_scheduled_at_s(times) + 2.0)
    running: Object = {"running": {"startedAt": started}}
    waiting: Object = {"waiting": {"reason": "CrashLoopBackOff"}}
    return [
        {
            "name": "vllm",
            "image": IMAGE,
            "imageID": "",
            "ready": state in _SERVING,
            "restartCount": restarts,
            "state": waiting if state is PodState.CRASH_LOOP else running,
        }
    ]


def _scheduled_at_s(times: PodTimes) -> float:
    return times.created_at_s + 1.0 if times.scheduled_at_s is None else times.scheduled_at_s
