"""What the demonstration's cluster begins with: nodes, the Deployment, its ScaledObject."""

from scaler.demo.kube_objects import deployment, node, scaled_object
from scaler.demo.kube_store import Object, Store
from scaler.demo.scenario import GPUS_PER_NODE, Scenario

SCALER_ADDRESS = "vllm-scaler.vllm-scaler.svc:9090"
PRODUCT_LABEL = "NVIDIA-H100-80GB-HBM3"

# The shipped defaults, as in manifests/vllm/components/scaled-object.
SHIPPED_SPEC: Object = {
    "minReplicaCount": 1,
    "maxReplicaCount": 8,
    "pollingInterval": 15,
    "cooldownPeriod": 300,
    "fallback": {"failureThreshold": 3, "replicas": 1, "behavior": "currentReplicasIfHigher"},
    "advanced": {
        "restoreToOriginalReplicaCount": False,
        "horizontalPodAutoscalerConfig": {
            "behavior": {
                "scaleUp": {
                    "stabilizationWindowSeconds": 0,
                    "tolerance": 0,
                    "policies": [
                        {"type": "Percent", "value": 100, "periodSeconds": 15},
                        {"type": "Pods", "value": 4, "periodSeconds": 15},
                    ],
                    "selectPolicy": "Max",
                },
                "scaleDown": {
                    "stabilizationWindowSeconds": 60,
                    "tolerance": 0,
                    "policies": [
                        {"type": "Percent", "value": 25, "periodSeconds": 60},
                        {"type": "Pods", "value": 1, "periodSeconds": 60},
                    ],
                    "selectPolicy": "Max",
                },
            }
        },
    },
}


def node_names(scenario: Scenario) -> tuple[str, ...]:
    """The GPU nodes."""
    return tuple(f"gpu-{number + 1}" for number in range(scenario.nodes))


def set_up(store: Store, scenario: Scenario) -> None:
    """Put nodes, Deployment and ScaledObject into an empty cluster."""
    for name in node_names(scenario):
        store.apply(node(name, gpus=GPUS_PER_NODE, product=PRODUCT_LABEL))
    store.apply(
        deployment(
            scenario.namespace,
            scenario.target,
            replicas=scenario.replicas_first,
            gpus=scenario.model.gpus_per_replica,
        )
    )
    trigger = {
        "type": "external",
        "metricType": "AverageValue",
        "metadata": {
            "scalerAddress": SCALER_ADDRESS,
            "modelName": scenario.model_name,
            "ttftSloSeconds": f"{scenario.ttft_slo_s:g}",
            "sloAttainmentTarget": "0.99",
        },
    }
    spec = {**SHIPPED_SPEC, "maxReplicaCount": scenario.replicas_max}
    store.apply(
        scaled_object(
            scenario.namespace,
            scenario.target,
            target=scenario.target,
            triggers=[trigger],
            spec=spec,
        )
    )
