"""A small installation on loopback: the API stand-in, a Prometheus's answers, a real daemon."""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from scaler.config import ScalerConfig, from_tree
from scaler.demo.kube_api import KubeApi
from scaler.demo.kube_objects import PodTimes, deployment, node, pod, scaled_object
from scaler.demo.kube_store import RESOURCE_TYPES, Object, ResourceType, Store
from scaler.ops.doctor.gather import Request
from scaler.service.daemon import Daemon
from tests.signals.fake_prometheus import Canned, FakePrometheus, Seen, vector
from tests.signals.kube_fixture import until

NAMESPACE, MODEL = "llm", "llama-3.1-8b"
ADDRESS = "vllm-scaler.vllm-scaler.svc:9090"
PODS = ("chat-5d8f7c9b6-bcdfg", "chat-5d8f7c9b6-hjklm")
BOUNDS = ("1.0", "2.5", "5.0", "+Inf")
BEHAVIOUR: Object = {
    "scaleUp": {"stabilizationWindowSeconds": 0, "tolerance": 0},
    "scaleDown": {"stabilizationWindowSeconds": 60, "tolerance": 0},
}
_REVIEW = "selfsubjectaccessreviews"
_TYPES = (
    *RESOURCE_TYPES,
    ResourceType(api_version="v1", kind="Service", plural="services"),
    ResourceType(
        api_version="autoscaling/v2",
        kind="HorizontalPodAutoscaler",
        plural="horizontalpodautoscalers",
    ),
    ResourceType(
        api_version="authorization.k8s.io/v1",
        kind="SelfSubjectAccessReview",
        plural=_REVIEW,
        namespaced=False,
    ),
)


class ReviewingApi(KubeApi):
    """The API stand-in that also answers which permissions one has: all but ``denied``."""

    denied: frozenset[tuple[str, str]] = frozenset()  # verb, resource

    async def _create(self, request: web.Request, type_: ResourceType) -> web.StreamResponse:
        if type_.plural != _REVIEW:
            return await super()._create(request, type_)
        asked = (await request.json())["spec"]["resourceAttributes"]
        allowed = (asked["verb"], asked["resource"]) not in self.denied
        return web.json_response({"status": {"allowed": allowed}}, status=201)


@dataclass
class Metrics:
    """What the Prometheus has; read at each query."""

    model: str = MODEL
    namespace: str = NAMESPACE
    running: float = 4.0
    scrapes_in_5m: float = 20.0  # every 15 s
    age_s: float = 5.0
    finished: float = 1000.0
    began_s: float = field(default_factory=time.time)

    def answer(self, seen: Seen) -> Canned:
        """Rows for the query, told by what it asks for."""
        now_s, query = time.time(), seen.query
        spaced = {"namespace": self.namespace}
        pods = [{**spaced, "pod": name} for name in PODS]
        if query == "time()":
            rows: list[tuple[Mapping[str, str], Any]] = [({}, now_s)]
        elif "DCGM" in query:
            value = now_s - self.age_s if "timestamp(" in query else 50.0
            name = {} if "timestamp(" in query else {"__name__": "DCGM_FI_DEV_GPU_UTIL"}
            rows = [
                ({**name, "exported_namespace": NAMESPACE, "exported_pod": one["pod"]}, value)
                for one in pods
            ]
        elif "vllm_scaler:" in query:
            rules = "vllm_scaler:ttft_bucket:increase1m", "vllm_scaler:itl_bucket:increase1m"
            rows = [({"__name__": rule, **spaced}, 1.0) for rule in rules if "group by" in query]
            if "group by" not in query:
                rows = self._buckets()
        elif 'pod=""' in query:
            rows = []
        elif query.startswith("count by"):
            rows = [(spaced, 2.0)]
        elif "count_over_time" in query:
            rows = [(one, self.scrapes_in_5m) for one in pods]
        elif "timestamp(" in query:
            rows = [(one, now_s - self.age_s) for one in pods]
        elif "_bucket" in query:
            rows = self._buckets()
        else:
            rows = [
                ({**one, "__name__": name, "model_name": self.model, "engine": "0"}, value)
                for one in pods
                for name, value in self._numbers(now_s).items()
                if name in query
            ]
        return vector(rows, at_s=now_s)

    def _buckets(self) -> list[tuple[Mapping[str, str], Any]]:
        labels = {"namespace": self.namespace, "workload": "chat", "model_name": self.model}
        return [({**labels, "family": "0", "le": bound}, 10.0) for bound in BOUNDS]

    def _numbers(self, now_s: float) -> dict[str, float]:
        done = self.finished + (now_s - self.began_s)
        return {
            "vllm:num_requests_running": self.running,
            "vllm:num_requests_waiting": 0.0,
            "vllm:kv_cache_usage_perc": 0.2,
            "vllm:request_success_total": done,
            "vllm:prompt_tokens_total": done * 500.0,
            "vllm:generation_tokens_total": done * 100.0,
        }


def hpa(*, owner: str = "chat", tolerance: bool = True, **spec: Any) -> Object:
    """The HPA that KEDA 2.20 makes of the ScaledObject below."""
    behaviour = {
        side: {k: v for k, v in rules.items() if tolerance or k != "tolerance"}
        for side, rules in BEHAVIOUR.items()
    }
    external = {"metric": {"name": "s0-vllm-desired-replicas"}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "namespace": NAMESPACE,
            "name": f"keda-hpa-{owner}" if owner else "by-hand",
            "ownerReferences": [{"kind": "ScaledObject", "name": owner}] if owner else [],
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"},
            "minReplicas": 1,
            "maxReplicas": 8,
            "metrics": [
                {
                    "type": "External",
                    "external": {**external, "target": {"type": "AverageValue"}},
                }
            ],
            "behavior": behaviour,
            **spec,
        },
        "status": {
            "currentReplicas": 2,
            "desiredReplicas": 2,
            "currentMetrics": [
                {"type": "External", "external": {**external, "current": {"averageValue": "1"}}}
            ],
            "conditions": [
                {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale"},
                {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"},
            ],
        },
    }


def chat(*, triggers: int = 1, service_port: str = "9090", **metadata: str) -> Object:
    """The ScaledObject as shipped, with our trigger and maybe one of CPU."""
    address = ADDRESS.replace("9090", service_port)
    sent = {"scalerAddress": address, "modelName": MODEL, "ttftSloSeconds": "2.5", **metadata}
    listed: list[Object] = [{"type": "external", "metadata": sent}]
    listed += [{"type": "cpu", "metadata": {"value": "80"}}] * (triggers - 1)
    return scaled_object(
        NAMESPACE,
        "chat",
        target="chat",
        triggers=listed,
        spec={
            "minReplicaCount": 1,
            "maxReplicaCount": 8,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": BEHAVIOUR}},
        },
    )


@dataclass
class Installation:
    """What a test may spoil, and how the doctor reaches it."""

    store: Store
    api: ReviewingApi
    metrics: Metrics
    prometheus: FakePrometheus
    daemon: Daemon
    config: ScalerConfig

    def request(self, **changes: Any) -> Request:
        """The doctor's errand."""
        asked: dict[str, Any] = {
            "config": self.config,
            "urls": (f"http://127.0.0.1:{self.daemon.http_port}",),
            "scaler_address": f"127.0.0.1:{self.daemon.grpc_port}",
            "timeout_s": 5.0,
        }
        return Request(**{**asked, **changes})


@contextlib.asynccontextmanager
async def installation(
    scaled: Object | None = None,
    metrics: Metrics | None = None,
    tls: Mapping[str, str] | None = None,
) -> AsyncIterator[Installation]:
    """Two ready replicas under load, a ScaledObject, its HPA, a daemon that has decided."""
    store = Store(time.time, types=_TYPES)
    api = ReviewingApi(store)
    await api.start()
    _fill(store, scaled or chat())
    seen = metrics or Metrics()
    with FakePrometheus(seen.answer) as prometheus:
        config = from_tree(
            {
                "grpc": {"address": "127.0.0.1:0", "tls": dict(tls or {})},
                "http": {"address": "127.0.0.1:0"},
                "kubernetes": {"use": "always", "server": api.url},
                "sources": [{"name": "main", "url": prometheus.url, "timeout_s": 3}],
                "policy": {"tick_s": 1.0},
            }
        )
        daemon = Daemon(config)
        await daemon.start()
        try:
            await until(lambda: _decided(daemon))
            yield Installation(
                store=store,
                api=api,
                metrics=seen,
                prometheus=prometheus,
                daemon=daemon,
                config=config,
            )
        finally:
            await daemon.stop()
            await api.stop()


def _decided(daemon: Daemon) -> bool:
    """Whether every trigger has a decision that calls are answered from."""
    entries = daemon.registry.entries
    return bool(entries) and all(
        entry.decision is not None and key in daemon.board.entries for key, entry in entries.items()
    )


def _fill(store: Store, scaled: Object) -> None:
    store.apply(node("gpu-1"))
    store.apply(deployment(NAMESPACE, "chat", replicas=2))
    for name in PODS:
        times = PodTimes(created_at_s=time.time() - 3600.0)
        store.apply(pod(NAMESPACE, name, app="chat", times=times))
    store.apply(scaled)
    store.apply(hpa())
    service = {"namespace": "vllm-scaler", "name": "vllm-scaler"}
    ports = {"ports": [{"name": "grpc", "port": 9090}, {"name": "http", "port": 8080}]}
    store.apply({"apiVersion": "v1", "kind": "Service", "metadata": service, "spec": ports})
