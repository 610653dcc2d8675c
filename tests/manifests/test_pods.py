"""Pods that load, serve, drain and fit: probes, grace periods, sums of memory and GPUs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import yaml

from tests.manifests.built import (
    DATA,
    Document,
    bytes_of,
    label,
    of_kind,
    overlay,
    overlays,
    overlays_with,
    pod_templates,
    vllm_templates,
)
from tests.manifests.flags import parsed

pytestmark = pytest.mark.external
GB = 1e9
PROCESS_BYTES = 6 * 2**30  # Python, CUDA context and pinned buffers of a server
MEMORY_GB = {  # GPU memory by the product label of GPU feature discovery
    "NVIDIA-L4": 24,
    "NVIDIA-A100-SXM4-40GB": 40,
    "NVIDIA-L40S": 48,
    "NVIDIA-A100-SXM4-80GB": 80,
    "NVIDIA-H100-80GB-HBM3": 80,
    "NVIDIA-H200": 141,
}
SMALLEST_GB = 24  # where an overlay leaves the product open
PRE_STOP_S = 15
LEAVE_S = 15
THE_DAEMON = "Deployment/vllm-scaler"  # the only pod that talks to the Kubernetes API


@dataclass(frozen=True, kw_only=True)
class Server:
    """One vLLM container with its pod and flags."""

    overlay: str
    where: str
    template: Document
    container: Document
    nodes: int  # of one replica

    @property
    def flags(self) -> dict[str, str | None]:
        return parsed(self.container["args"])

    @property
    def serves(self) -> bool:
        return "--headless" not in self.flags

    @property
    def model(self) -> str:
        (name,) = [
            one["value"] for one in self.container["env"] if one["name"] == "MODEL_REPOSITORY"
        ]
        return str(name)

    def number(self, flag: str, default: float) -> float:
        text = self.flags.get(flag)
        return float((text or "").replace("$(LWS_GROUP_SIZE)", str(self.nodes)) or default)

    @property
    def gpus(self) -> int:
        return int(self.container["resources"]["limits"]["nvidia.com/gpu"])

    @property
    def weights_bytes(self) -> float:
        """Of one replica, after quantisation at load time."""
        half = 0.5 if self.flags.get("--quantization") == "fp8" else 1.0
        return float(models()[self.model]["weights_gb"]) * GB * half


@cache
def models() -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load((DATA / "models.yaml").read_text())
    return found


# An overlay and which of its vLLM containers: leader and worker of a group are two.
PLACES = [(name, 0) for name in overlays_with("warm-up")]
PLACES += [(name, place) for name in overlays_with("warm-up-lws") for place in (0, 1)]


def servers(name: str) -> list[Server]:
    documents = overlay(name)
    groups = of_kind(documents, "LeaderWorkerSet")
    nodes = groups[0]["spec"]["leaderWorkerTemplate"]["size"] if groups else 1
    return [
        Server(overlay=name, where=where, template=template, container=container, nodes=nodes)
        for where, template, container in vllm_templates(documents)
    ]


@pytest.fixture(params=PLACES, ids=lambda one: f"{one[0]}-{one[1]}")
def server(request: pytest.FixtureRequest) -> Server:
    chosen: tuple[str, int] = request.param
    return servers(chosen[0])[chosen[1]]


def test_no_server_is_left_out() -> None:
    found = [(name, place) for name in overlays() for place in range(len(servers(name)))]
    assert sorted(found) == sorted(PLACES)
    forms = {(one.gpus, one.nodes) for name, _ in PLACES for one in servers(name)}
    assert {(1, 1), (2, 1), (3, 1), (4, 1), (8, 1), (8, 2)} <= forms


def test_gpus_are_those_the_engine_uses(server: Server) -> None:
    tensor = int(server.number("--tensor-parallel-size", 1))
    pipeline = int(server.number("--pipeline-parallel-size", 1))
    assert tensor * pipeline == server.gpus * server.nodes
    resources = server.container["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"]
    facts = models()[server.model]
    assert facts["heads"] % tensor == 0, "attention heads are split over the tensor group"
    assert pipeline <= facts["layers"]


def test_the_weights_fit_the_gpus(server: Server) -> None:
    expressions = server.template["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"][0]["matchExpressions"]
    products = [one["values"] for one in expressions if one["key"] == "nvidia.com/gpu.product"]
    assert not products or set(products[0]) <= set(MEMORY_GB), "a label that GFD does not write"
    gpu_gb = min((MEMORY_GB[one] for one in products[0]), default=0) if products else SMALLEST_GB
    usable = gpu_gb * GB * server.number("--gpu-memory-utilization", 0.92)
    offloaded = server.number("--cpu-offload-gb", 0) * 2**30
    a_gpu = server.weights_bytes / (server.gpus * server.nodes) - offloaded
    assert a_gpu < 0.9 * usable, "nothing is left for the KV cache"
    counts = [one["values"][0] for one in expressions if one["key"] == "nvidia.com/gpu.count"]
    if server.gpus > 1:  # "Gt": a node of eight will do where four are asked for
        assert counts == [str(server.gpus - 1)]


def test_memory_holds_weights_and_shared_memory(server: Server) -> None:
    resources = server.container["resources"]
    limit = bytes_of(resources["limits"]["memory"])
    shm = sum(
        bytes_of(volume["emptyDir"]["sizeLimit"])
        for volume in server.template["spec"]["volumes"]
        if volume.get("emptyDir", {}).get("medium") == "Memory"
    )
    assert shm > 0, "the default of 64 MiB stops tensor parallel workers"
    # Read at full size, even where they are quantised on their way to the GPU.
    read = float(models()[server.model]["weights_gb"]) * GB / server.nodes
    host = server.number("--cpu-offload-gb", 0) * 2**30
    host += server.number("--kv-offloading-size", 0) * 2**30
    assert limit >= read + shm + host + PROCESS_BYTES * (1 if server.gpus < 8 else 2)
    assert bytes_of(resources["requests"]["memory"]) <= limit


def test_lengths_agree(server: Server) -> None:
    context = models()[server.model]["context"]
    assert server.number("--max-model-len", context) <= context
    batched = server.number("--max-num-batched-tokens", 8192)
    assert batched >= server.number("--max-num-seqs", 256)


def test_nothing_kills_a_pod_that_loads(server: Server) -> None:
    container = server.container
    if not server.serves:
        assert not {"startupProbe", "readinessProbe", "livenessProbe"} & set(container)
        return
    startup = container["startupProbe"]
    budget_s = startup["periodSeconds"] * startup["failureThreshold"]
    # Weights through a network volume at 0.5 GB/s, and five minutes for the engine.
    assert budget_s >= models()[server.model]["weights_gb"] / server.nodes / 0.5 + 300
    assert budget_s >= 900
    assert "initialDelaySeconds" not in {
        **container["livenessProbe"],
        **container["readinessProbe"],
    }
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    live = container["livenessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] >= 100
    assert min(live["timeoutSeconds"], startup["timeoutSeconds"]) >= 5


def test_requests_in_flight_are_finished(server: Server) -> None:
    grace_s = server.template["spec"]["terminationGracePeriodSeconds"]
    command = server.container["lifecycle"]["preStop"]["exec"]["command"]
    if not server.serves:
        assert grace_s >= PRE_STOP_S + 300 + LEAVE_S
        assert "$LWS_LEADER_ADDRESS/8000" in command[2], "a worker stays while its leader serves"
        return
    assert command == ["sleep", str(PRE_STOP_S)]
    assert grace_s >= PRE_STOP_S + server.number("--shutdown-timeout", 0) + LEAVE_S
    assert server.number("--shutdown-timeout", 0) >= 300
    assert "--api-server-count" not in server.flags, "more than one loses requests in a drain"


def test_the_model_is_read_from_a_volume(server: Server) -> None:
    mounts = {one["name"]: one for one in server.container["volumeMounts"]}
    assert mounts["model"]["readOnly"] is True
    env = {one["name"]: one.get("value") for one in server.container["env"]}
    assert env["HF_HUB_OFFLINE"] == "1"
    (claim,) = [
        one
        for one in of_kind(overlay(server.overlay), "PersistentVolumeClaim")
        if one["metadata"]["name"].startswith("model-store")
    ]
    assert claim["spec"]["accessModes"] in (["ReadWriteMany"], ["ReadWriteOnce"])
    if claim["spec"]["accessModes"] == ["ReadWriteOnce"]:
        assert "podAffinity" in server.template["spec"]["affinity"], "one node for all replicas"
    size = bytes_of(claim["spec"]["resources"]["requests"]["storage"])
    assert size > 1.1 * models()[server.model]["weights_gb"] * GB
    (job,) = of_kind(overlay(server.overlay), "Job")
    (download,) = job["spec"]["template"]["spec"]["containers"]
    named = {one["name"]: one.get("value") for one in download["env"]}
    assert named["MODEL_REPOSITORY"] == server.model
    assert "hf download" in download["args"][0]
    assert "huggingface-cli" not in download["args"][0]


@pytest.mark.parametrize("name", overlays())
def test_pods_meet_the_restricted_profile(name: str) -> None:
    for document in overlay(name):
        for where, template in pod_templates(document):
            spec = template["spec"]
            assert spec["enableServiceLinks"] is False, where
            assert spec["securityContext"]["runAsNonRoot"] is True, where
            assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", where
            assert spec["automountServiceAccountToken"] is (label(document) == THE_DAEMON), where
            for container in [*spec["containers"], *spec.get("initContainers", ())]:
                context = container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False, where
                assert context["capabilities"]["drop"] == ["ALL"], where
                assert "memory" in container["resources"]["limits"], where
                assert "memory" in container["resources"]["requests"], where
            for volume in spec.get("volumes", ()):
                assert "hostPath" not in volume, where
                assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], where


@pytest.mark.parametrize("name", overlays())
def test_rollouts_need_no_spare_gpu_and_drains_are_not_blocked(name: str) -> None:
    for document in of_kind(overlay(name), "Deployment"):
        gpus = any(
            "nvidia.com/gpu" in one["resources"]["limits"]
            for one in document["spec"]["template"]["spec"]["containers"]
        )
        if gpus:
            rolling = document["spec"]["strategy"]["rollingUpdate"]
            assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (0, 1)
            (_, template, container), *_ = list(vllm_templates((document,)))
            startup = container["startupProbe"]
            budget_s = startup["periodSeconds"] * startup["failureThreshold"]
            assert document["spec"]["progressDeadlineSeconds"] >= budget_s
            assert template["spec"]["priorityClassName"] == "vllm-serving"
    for document in of_kind(overlay(name), "LeaderWorkerSet"):
        rolling = document["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]
        assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (0, 1)
    for document in of_kind(overlay(name), "PodDisruptionBudget"):
        assert document["spec"]["maxUnavailable"] == 1, label(document)
        assert "minAvailable" not in document["spec"]


@pytest.mark.parametrize("name", overlays())
def test_downscaling_is_slower_than_a_start(name: str) -> None:
    # With the guides' own forms: a window shorter than a cold start flaps.
    for document in of_kind(overlay(name), "HorizontalPodAutoscaler"):
        assert document["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
        for metric in document["spec"]["metrics"]:
            assert metric["type"] == "Pods", "Resource knows cpu and memory only"


def test_peers_of_network_policies_do_not_carry_the_models_label() -> None:
    # kustomize writes a label with includeSelectors into every matchLabels, of peers as well.
    for name in overlays():
        for policy in of_kind(overlay(name), "NetworkPolicy"):
            for rule in policy["spec"].get("ingress", ()):
                for peer in rule.get("from", ()):
                    labels = peer.get("podSelector", {}).get("matchLabels", {})
                    own = policy["spec"]["podSelector"].get("matchLabels", {})
                    assert (
                        "app.kubernetes.io/instance" not in labels or labels.items() <= own.items()
                    )


def test_a_month_of_budget_is_what_the_burn_rate_alert_says() -> None:
    # 14.4 times 1 % of the requests: 30 days / 14.4 = 2.08 days, "two days" in its text.
    assert math.isclose(30 / 14.4, 2.08, abs_tol=0.01)
