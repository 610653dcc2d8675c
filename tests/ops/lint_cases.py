"""For every rule the smallest manifests that have its mistake, and the same put right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

Objects = Sequence[Any]

ARGS = (
    "/models/Qwen2.5-7B-Instruct",
    "--max-model-len=8192",
    "--shutdown-timeout=300",
    "--gpu-memory-utilization=0.9",
)
PROBE = {"httpGet": {"path": "/health", "port": 8000}, "timeoutSeconds": 5}
SHM = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}


def container(**changes: Any) -> dict[str, Any]:
    """A vLLM container without a mistake; None takes a key out."""
    made = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.32.0",
        "command": ["vllm", "serve"],
        "args": list(ARGS),
        "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "32Gi"}},
        "startupProbe": {**PROBE, "periodSeconds": 10, "failureThreshold": 90},
        "readinessProbe": {**PROBE, "periodSeconds": 5},
        "livenessProbe": {**PROBE, "timeoutSeconds": 10, "failureThreshold": 10},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "15"]}}},
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}


def deployment(
    *containers: Mapping[str, Any],
    pod: Mapping[str, Any] | None = None,
    name: str = "vllm-a",
    **spec: Any,
) -> dict[str, Any]:
    """A Deployment of one container without a mistake, or of those given."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "llm"},
        "spec": {
            **spec,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 330,
                    "containers": list(containers) or [container()],
                    **(pod or {}),
                },
            },
        },
    }


def server(*args: str, **changes: Any) -> list[dict[str, Any]]:
    """A Deployment whose server has further arguments and changed keys."""
    return [deployment(container(**{"args": [*ARGS, *args], **changes}))]


def shell(script: str) -> list[dict[str, Any]]:
    """A Deployment whose server is started by a script."""
    return [deployment(container(command=["/bin/sh", "-c"], args=[script]))]


def alert(expression: str, hold: str | None = "5m", **document: Any) -> list[dict[str, Any]]:
    """A plain rule file with one alert."""
    rule = {"alert": "A", "expr": expression, **({"for": hold} if hold else {})}
    return [{"groups": [{"name": "g", "rules": [rule]}], **document}]


def hpa(*metrics: Any, name: str = "vllm-a", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "llm"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "vllm-a"},
            "minReplicas": 1,
            "maxReplicas": 4,
            "metrics": list(metrics),
            **spec,
        },
    }


def pods_metric(name: str) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": "5"}
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}


def resource_metric(name: str) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization"}}}


def keda(*triggers: Any, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "vllm-a", "namespace": "llm"},
        "spec": {
            "scaleTargetRef": {"name": "vllm-a"},
            "minReplicaCount": 1,
            "maxReplicaCount": 4,
            "triggers": list(triggers),
            **spec,
        },
    }


WAITING = "sum(vllm:num_requests_waiting)"


def trigger(query: str = WAITING, kind: str = "AverageValue", **metadata: str) -> dict[str, Any]:
    return {
        "type": "prometheus",
        "metricType": kind,
        "metadata": {"query": query, "threshold": "5", "ignoreNullValues": "false", **metadata},
    }


def ours(**metadata: str) -> dict[str, Any]:
    address = "vllm-scaler.vllm-scaler.svc:9090"
    return {"type": "external", "metadata": {"scalerAddress": address, **metadata}}


def behind(window_s: int) -> dict[str, Any]:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": window_s}}
    return {"horizontalPodAutoscalerConfig": {"behavior": behavior}}


def service(name: str = "vllm-a", labels: bool = True, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name, "namespace": "llm", **({"labels": {"app": "vllm-a"}} if labels else {}),
        },
        "spec": {"selector": {"app": "vllm-a"}, "ports": [{"name": "http", "port": 8000}], **spec},
    }  # fmt: skip


def monitor(port: Any = "http", release: str = "prometheus") -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {
            "name": "vllm", "namespace": "llm", "labels": {"release": release} if release else {},
        },
        "spec": {
            "selector": {"matchLabels": {"app": "vllm-a"}},
            "endpoints": [{"port": port, "interval": "15s"}],
        },
    }  # fmt: skip


def claim(*modes: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models", "namespace": "llm"},
        "spec": {"accessModes": list(modes), **spec},
    }


def secret(**content: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, **content}


MODELS = {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
ON_CLAIM = {"volumes": [MODELS]}
SHARED = {"limits": {"nvidia.com/gpu.shared": "1", "memory": "32Gi"}}
AFFINITY = {
    "podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
        ]
    }
}
P95 = "histogram_quantile(0.95, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[5m])))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Manifests with a mistake, what the finding must say of it, and the same without it."""

    rule: str
    bad: Any
    evidence: str
    good: Any


def case(rule: str, bad: Any, evidence: str, good: Any) -> Case:
    return Case(rule=rule, bad=bad, evidence=evidence, good=good)


def text(objects: Any) -> str:
    """YAML of objects; a text is taken as it is."""
    return objects if isinstance(objects, str) else yaml.safe_dump_all(list(objects))


FILES = (
    case("yaml-unreadable", "a: [1\n", "line 2", "a: [1]\n"),
    case("yaml-unreadable", 'a: "b\n', "line", "a: b\n"),
    case("template-not-rendered", "a: {{ .Values.a }}\nb: {{- c }}\n", "line", "a: 1\n"),
    case(
        "indentation-lost",
        "apiVersion: v1\nkind: Service\nmetadata:\nname: a\nspec:\nports: []\n",
        "metadata: None",
        [service()],
    ),
    case("promql-unreadable", alert("sum(a"), "ends too early", alert("sum(a) > 1")),
)
METRICS = (
    case(
        "metric-never-existed",
        alert("vllm:queue_size > 5"),
        "vllm:queue_size",
        alert("vllm:num_requests_waiting > 5"),
    ),
    case(
        "metric-never-existed",
        alert("rate(vllm:request_latency_seconds_sum[5m]) > 5"),
        "vllm:request_latency_seconds_sum",
        alert("rate(vllm:request_queue_time_seconds_sum[5m]) > 5"),
    ),
    case(
        "metric-never-existed",
        [hpa(pods_metric("vllm_queue_size"))],
        "vllm_queue_size",
        [hpa(pods_metric("vllm_num_requests_waiting"))],
    ),
    case(
        "metric-never-existed",
        alert("vllm_tokens_per_second < 5"),
        "vllm_tokens_per_second",
        alert("my_tokens_per_second < 5"),
    ),
    case(
        "metric-unknown",
        alert("vllm:num_requests_waitin > 5"),
        "waitin",
        alert("vllm:num_requests_waiting > 5"),
    ),
    case(
        "metric-unknown",
        alert("vllm:my_rule > 5"),
        "vllm:my_rule",
        [
            *alert("vllm:my_rule > 5"),
            {
                "groups": [
                    {
                        "rules": [
                            {"record": "vllm:my_rule", "expr": "sum(vllm:num_requests_waiting)"}
                        ]
                    }
                ]
            },
        ],
    ),
    case(
        "metric-gone",
        alert("vllm:gpu_cache_usage_perc > 0.9"),
        "gone by 0.12",
        alert("(vllm:kv_cache_usage_perc or vllm:gpu_cache_usage_perc) > 0.9"),
    ),
    case(
        "metric-gone",
        [*server(image="vllm/vllm-openai:v0.6.6"), *alert("vllm:gpu_cache_usage_perc > 0.9")],
        "gone from vLLM 0.12 on",
        alert("vllm:kv_cache_usage_perc > 0.9"),
    ),
    case(
        "metric-underscore",
        alert("vllm_num_requests_waiting > 5"),
        "vllm_num_requests_waiting",
        alert("vllm_workload:requests_waiting:sum > 5"),
    ),
    case(
        "ratio-compared-as-percent",
        alert("vllm:kv_cache_usage_perc > 90"),
        "> 90",
        alert("100 * vllm:kv_cache_usage_perc > 90"),
    ),
    case(
        "ratio-compared-as-percent",
        alert("80 < avg by (pod) (max_over_time(vllm:kv_cache_usage_perc[5m]))"),
        "80",
        alert("avg(vllm:kv_cache_usage_perc) > 0.8"),
    ),
    case(
        "ratio-compared-as-percent",
        [keda(trigger("sum(vllm:kv_cache_usage_perc)", threshold="80"))],
        "80",
        [keda(trigger("sum(vllm:kv_cache_usage_perc)", threshold="0.8"))],
    ),
    case(
        "percent-compared-as-ratio",
        alert("DCGM_FI_DEV_GPU_UTIL > 0.9"),
        "> 0.9",
        alert("DCGM_FI_DEV_GPU_UTIL > 90"),
    ),
    case(
        "quantile-without-rate",
        alert(
            "histogram_quantile(0.95, sum by (le) (vllm:time_to_first_token_seconds_bucket)) > 5"
        ),
        "histogram_quantile",
        alert(f"{P95} > 5"),
    ),
    case(
        "quantile-per-pod",
        alert("histogram_quantile(0.95, rate(vllm:time_to_first_token_seconds_bucket[5m])) > 5"),
        "rate(",
        alert(f"{P95} > 5"),
    ),
    case(
        "quantile-per-pod",
        alert(P95.replace("by (le)", "without (le)") + " > 5"),
        "without",
        alert(P95.replace("by (le)", "without (pod)") + " > 5"),
    ),
    case(
        "mean-of-quantiles",
        alert(f"avg({P95.replace('by (le)', 'by (le, pod)')}) > 5"),
        "avg",
        alert(f"max({P95.replace('by (le)', 'by (le, pod)')}) > 5"),
    ),
    case(
        "mean-over-lifetime",
        alert(
            "sum(vllm:e2e_request_latency_seconds_sum) / "
            "sum(vllm:e2e_request_latency_seconds_count) > 5"
        ),
        "vllm:e2e_request_latency_seconds_sum /",
        alert(
            "sum(rate(vllm:e2e_request_latency_seconds_sum[5m])) / "
            "sum(rate(vllm:e2e_request_latency_seconds_count[5m])) > 5"
        ),
    ),
    case(
        "label-model",
        alert('vllm:num_requests_waiting{model="a"} > 5'),
        'model="a"',
        alert('vllm:num_requests_waiting{model_name="a"} > 5'),
    ),
    case(
        "label-model",
        alert("sum by (model) (vllm:num_requests_waiting) > 5"),
        "by (model)",
        alert("sum without (model) (vllm:num_requests_waiting) > 5"),
    ),
    case(
        "gpu-index-filter",
        alert('max(DCGM_FI_DEV_GPU_TEMP{gpu="0"}) > 85'),
        'gpu="0"',
        alert('max(DCGM_FI_DEV_GPU_TEMP{gpu!=""}) > 85'),
    ),
    case(
        "dcgm-pod-label",
        alert('DCGM_FI_DEV_GPU_TEMP{pod=~"vllm-.*"} > 85'),
        "pod=~",
        alert('DCGM_FI_DEV_GPU_TEMP{exported_pod=~"vllm-.*"} > 85'),
    ),
    case(
        "dcgm-pod-label",
        alert("vllm:num_requests_running and on (pod) DCGM_FI_DEV_GPU_TEMP > 85"),
        "on (pod)",
        [
            *alert("vllm:num_requests_running and on (pod) DCGM_FI_DEV_GPU_TEMP > 85"),
            {
                "kind": "ServiceMonitor",
                "metadata": {"name": "dcgm-exporter"},
                "spec": {"endpoints": [{"port": "metrics", "honorLabels": True}]},
            },
        ],
    ),
    case(
        "for-too-short",
        alert("vllm:num_requests_waiting > 5", "15s"),
        "for 15s",
        alert("vllm:num_requests_waiting > 5", "1m"),
    ),
    case(
        "for-too-short",
        alert("vllm:num_requests_waiting > 5", None),
        "for missing",
        alert("changes(process_start_time_seconds[10m]) > 0", None),
    ),
    case(
        "for-too-short",
        [
            *alert("up == 0", "1m"),
            {**monitor(), "spec": {"endpoints": [{"port": "http", "interval": "60s"}]}},
        ],
        "every 60 s",
        alert("up == 0", "1m"),
    ),
    case(
        "absent-at-zero",
        [*alert("absent(vllm:num_requests_running)"), keda(trigger(), minReplicaCount=0)],
        "may be at zero",
        [*alert("absent(vllm:num_requests_running)"), keda(trigger())],
    ),
    case(
        "absent-at-zero",
        [*alert('absent(up{job="vllm"} == 1)'), keda(trigger(), minReplicaCount=0)],
        "may be at zero",
        [*alert('absent(up{job="vllm-scaler"} == 1)'), keda(trigger(), minReplicaCount=0)],
    ),
)
MONITORS = (
    case("monitor-port-number", [service(), monitor("8000")], "'8000'", [service(), monitor()]),
    case("monitor-port-number", [service(), monitor(8000)], "8000", [service(), monitor()]),
    case(
        "monitor-port-unknown",
        [service(), monitor("metrics")],
        "vllm-a names http",
        [service(), monitor()],
    ),
    case(
        "monitor-selects-no-service",
        [service(labels=False), monitor()],
        "no labels",
        [service(), monitor()],
    ),
    case(
        "monitor-without-release",
        [service(), monitor(release="")],
        "release is missing",
        [service(), monitor()],
    ),
    case(
        "pods-scraped-twice",
        [deployment(), service(), service("b"), monitor()],
        "b, vllm-a",
        [deployment(), service(), service("b", labels=False), monitor()],
    ),
)
SCALING = (
    case(
        "hpa-resource-unknown",
        [hpa(resource_metric("nvidia.com/gpu"))],
        "nvidia.com/gpu",
        [hpa(pods_metric("vllm_num_requests_waiting"))],
    ),
    case(
        "scale-on-cpu",
        [hpa(resource_metric("cpu"))],
        "cpu",
        [
            {
                **hpa(resource_metric("cpu")),
                "spec": {"scaleTargetRef": {"name": "web"}, "metrics": [resource_metric("cpu")]},
            }
        ],
    ),
    case(
        "scale-on-cpu",
        [keda({"type": "memory", "metadata": {"value": "60"}})],
        "memory",
        [keda(trigger())],
    ),
    case(
        "two-autoscalers",
        [hpa(), keda(trigger())],
        "HorizontalPodAutoscaler/vllm-a",
        [{**hpa(), "metadata": {"name": "vllm-a", "namespace": "other"}}, keda(trigger())],
    ),
    case(
        "replicas-beside-autoscaler",
        [deployment(replicas=2), keda(trigger())],
        "replicas: 2",
        [deployment(), keda(trigger())],
    ),
    case(
        "scale-on-gpu-util",
        [keda(trigger("max(DCGM_FI_DEV_GPU_UTIL)"))],
        "DCGM_FI_DEV_GPU_UTIL",
        [keda(trigger("max(DCGM_FI_PROF_DRAM_ACTIVE)", threshold="0.6"))],
    ),
    case(
        "scale-on-gpu-util",
        [hpa(pods_metric("gpu_utilization"))],
        "gpu_utilization",
        [hpa(pods_metric("vllm_num_requests_waiting"))],
    ),
    case(
        "scale-on-gpu-memory",
        [keda(trigger("sum(DCGM_FI_DEV_FB_USED)"))],
        "FB_USED",
        [keda(trigger())],
    ),
    case(
        "scale-on-running",
        [keda(trigger("sum(vllm:num_requests_running)"))],
        "running",
        [keda(trigger("sum(vllm:num_requests_running + vllm:num_requests_waiting)"))],
    ),
    case(
        "scale-on-ttft-alone",
        [keda(trigger(P95))],
        "time_to_first_token",
        [keda(trigger(P95), trigger())],
    ),
    case("null-becomes-zero", [keda(trigger(ignoreNullValues="true"))], "true", [keda(trigger())]),
    case(
        "null-becomes-zero",
        [keda(trigger(f"{WAITING} or vector(0)"))],
        "vector(0)",
        [keda(trigger())],
    ),
    case(
        "hold-shorter-than-start",
        [keda(trigger(), advanced=behind(60))],
        "60 s",
        [keda(trigger(), advanced=behind(300))],
    ),
    case(
        "hold-shorter-than-start",
        [
            hpa(
                pods_metric("vllm_num_requests_waiting"),
                behavior={"scaleDown": {"stabilizationWindowSeconds": 30}},
            )
        ],
        "30 s",
        [keda(ours(), advanced=behind(30))],
    ),
    case(
        "hold-shorter-than-start",
        [keda(trigger(), minReplicaCount=0, cooldownPeriod=60)],
        "60 s, and minReplicaCount 0",
        [keda(trigger(), cooldownPeriod=60)],
    ),
    case(
        "max-above-gpus",
        [
            deployment(),
            keda(trigger(), maxReplicaCount=9),
            {
                "kind": "ResourceQuota",
                "metadata": {"name": "q", "namespace": "llm"},
                "spec": {"hard": {"requests.nvidia.com/gpu": "8"}},
            },
        ],
        "9 x 1 GPUs, ResourceQuota/q has 8",
        [
            deployment(),
            keda(trigger(), maxReplicaCount=8),
            {
                "kind": "ResourceQuota",
                "metadata": {"name": "q", "namespace": "llm"},
                "spec": {"hard": {"requests.nvidia.com/gpu": "8"}},
            },
        ],
    ),
    case(
        "keda-several-series",
        [keda(trigger("vllm:num_requests_waiting"))],
        "vllm:",
        [keda(trigger())],
    ),
    case(
        "keda-several-series",
        [keda(trigger("sum by (pod) (vllm:num_requests_waiting)"))],
        "by (pod)",
        [keda(trigger('sum by (model_name) (vllm:num_requests_waiting{model_name="a"})'))],
    ),
    case(
        "averaged-twice",
        [keda(trigger("avg(vllm:num_requests_waiting)"))],
        "avg",
        [keda(trigger("avg(vllm:num_requests_waiting)", kind="Value"))],
    ),
    case("keda-metric-name", [keda(trigger(metricName="a"))], "a", [keda(trigger())]),
    case("target-type-value", [keda(trigger(kind="Value"))], "Value", [keda(trigger())]),
    case(
        "target-type-value",
        [
            hpa(
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": "a"},
                        "target": {"type": "Value", "value": "1"},
                    },
                }
            )
        ],
        "Value",
        [hpa()],
    ),
    case(
        "fallback-lowers",
        [keda(trigger(), fallback={"failureThreshold": 3, "replicas": 2})],
        "static",
        [
            keda(
                trigger(),
                fallback={
                    "failureThreshold": 3,
                    "replicas": 2,
                    "behavior": "currentReplicasIfHigher",
                },
            )
        ],
    ),
    case(
        "trigger-refused",
        [keda(ours(ttftSlo="2"))],
        "unknown key 'ttftSlo'",
        [keda(ours(ttftSloSeconds="2", profile="anything"))],
    ),
)
