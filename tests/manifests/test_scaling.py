"""Triggers and the daemon's configuration, read by the daemon's own code; the rights it has."""

import re

import pytest
import yaml

from scaler.config import ScalerConfig, from_tree
from scaler.core.hpa_spec import parse_behavior
from scaler.trigger import parse
from tests.manifests.built import (
    Document,
    build,
    label,
    of_kind,
    overlay,
    overlays_with,
    vllm_templates,
)

pytestmark = pytest.mark.external
ADDRESS = "vllm-scaler.vllm-scaler.svc:9090"
KEYS = {
    "scalerAddress", "target", "modelName", "ttftSloSeconds", "tpotSloSeconds",
    "sloAttainmentTarget", "role", "profile",
}  # fmt: skip
OURS = ("external", "external-push")


def configuration(name: str = "scaler") -> ScalerConfig:
    """The daemon's configuration as the ConfigMap holds it."""
    (config,) = of_kind(overlay(name), "ConfigMap")
    return from_tree(yaml.safe_load(config["data"]["config.yaml"]))


OURS_SCALE = sorted(overlays_with("scaled-object") + overlays_with("scaled-object-lws"))
every_scaled = pytest.mark.parametrize("name", OURS_SCALE)


def scaled_object(name: str) -> Document:
    """The ScaledObject of an overlay that has one of our triggers."""
    (scaled,) = of_kind(overlay(name), "ScaledObject")
    return scaled


def our_metadata(scaled: Document) -> dict[str, str]:
    (metadata,) = [one["metadata"] for one in scaled["spec"]["triggers"] if one["type"] in OURS]
    return dict(metadata)


def test_the_shipped_configuration_is_accepted_by_the_daemon() -> None:
    config = configuration()
    assert config.state.lease_name == "vllm-scaler"
    assert ADDRESS.partition(".")[0] in config.kubernetes.service_names
    ports = {config.grpc.address.rpartition(":")[2], config.http.address.rpartition(":")[2]}
    (service,) = of_kind(overlay("scaler"), "Service")
    assert {str(port["port"]) for port in service["spec"]["ports"]} == ports


@pytest.mark.parametrize("name", ["scaler", "scaler-namespaced", "scaler-mtls"])
def test_the_environment_of_the_daemon_is_accepted(name: str) -> None:
    from scaler.config import load  # noqa: PLC0415  beside the environment it reads

    (deployment,) = of_kind(overlay(name), "Deployment")
    environ = {
        one["name"]: one["value"].replace("$(POD_IP)", "10.1.2.3")
        for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        if "value" in one
    }
    config = load(environ=environ)
    assert config.state.peer_address == "10.1.2.3:8080"
    if name == "scaler-namespaced":
        assert config.kubernetes.namespaces == ("llm-serving",)
    if name == "scaler-mtls":
        assert config.grpc.tls.client_ca_file.endswith("ca.crt")


@every_scaled
def test_triggers_are_accepted_by_the_daemon(name: str) -> None:
    scaled = scaled_object(name)
    metadata = our_metadata(scaled)
    assert set(metadata) <= KEYS, name
    assert metadata["scalerAddress"] == ADDRESS
    trigger = parse(metadata, configuration())
    assert trigger.model_name, "a model name survives a target at zero"
    assert trigger.policy.slo.ttft_s == float(metadata["ttftSloSeconds"])


@every_scaled
def test_the_model_name_is_the_one_the_servers_report(name: str) -> None:
    scaled = scaled_object(name)
    served = {
        one["value"]
        for _, _, container in vllm_templates(overlay(name))
        for one in container.get("env", ())
        if one["name"] == "SERVED_MODEL_NAME"
    }
    assert served == {our_metadata(scaled)["modelName"]}


@every_scaled
def test_scaled_objects_have_the_shipped_defaults(name: str) -> None:
    scaled = scaled_object(name)
    spec = scaled["spec"]
    assert (spec["pollingInterval"], spec["cooldownPeriod"]) == (15, 300), name
    assert spec["minReplicaCount"] in (0, 1)
    assert spec["maxReplicaCount"] >= 1
    if spec["minReplicaCount"] == 0:
        assert "fallback" not in spec, "it would lift every target at zero when a source fails"
    else:
        assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
        assert spec["fallback"]["replicas"] >= 1, "0 lets an outage take a target to zero"
    behavior = parse_behavior(spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"])
    assert behavior is not None
    assert behavior.up.stabilisation_s == 0.0
    assert 0.0 <= behavior.down.stabilisation_s <= 60.0
    assert (behavior.up.tolerance, behavior.down.tolerance) == (0.0, 0.0)
    assert {(one.type.value, one.value, one.period_s) for one in behavior.up.policies} == {
        ("Percent", 100, 15.0),
        ("Pods", 4, 15.0),
    }


def rights(documents: tuple[Document, ...], kind: str, name: str) -> set[tuple[str, str, str]]:
    """(apiGroup, resource, verb) of a role."""
    (role,) = [one for one in of_kind(documents, kind) if one["metadata"]["name"] == name]
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_daemon_writes_nothing_but_events_and_its_lease() -> None:
    granted = rights(overlay("scaler"), "ClusterRole", "vllm-scaler")
    writing = {right for right in granted if right[2] not in ("get", "list", "watch")}
    assert {right[1] for right in writing} == {"events"}
    lease = rights(overlay("scaler"), "Role", "vllm-scaler-leader")
    assert {right[1] for right in lease} == {"leases"}
    assert {right[2] for right in lease} == {"create", "get", "update"}


def test_namespaced_rights_are_the_cluster_wide_ones_without_nodes() -> None:
    cluster = rights(overlay("scaler"), "ClusterRole", "vllm-scaler")
    namespaced = rights(overlay("scaler-namespaced"), "Role", "vllm-scaler")
    assert {right for right in cluster if right[1] != "nodes"} == namespaced
    assert not of_kind(overlay("scaler-namespaced"), "ClusterRole", "ClusterRoleBinding")


def test_the_rights_are_those_the_daemon_says_it_needs() -> None:
    from scaler.signals.kube import view  # noqa: PLC0415  its docstring is the source

    assert view.__doc__ is not None
    rows = re.findall(
        r"^(keda\.sh|apps|leaderworkerset\S+|\(core\))\S*\s+(?:cluster-wide\s+)?"
        r"([a-z]+(?:, [a-z]+)?)\s{2,}list, watch",
        view.__doc__.replace("(core), cluster-wide", "(core)"),
        re.MULTILINE,
    )
    needed = {
        ("" if group == "(core)" else group, resource, verb)
        for group, resources in rows
        for resource in resources.split(", ")
        for verb in ("list", "watch")
    }
    assert {resource for _, resource, _ in needed} == {
        "scaledobjects", "deployments", "statefulsets", "leaderworkersets", "pods", "nodes",
    }  # fmt: skip
    assert needed <= rights(overlay("scaler"), "ClusterRole", "vllm-scaler")


def test_both_names_of_the_subject_agree() -> None:
    for document in of_kind(overlay("scaler-namespaced"), "RoleBinding"):
        (subject,) = document["subjects"]
        assert (subject["name"], subject["namespace"]) == ("vllm-scaler", "vllm-scaler"), label(
            document
        )


def test_service_links_do_not_become_settings() -> None:
    # A Service "vllm-scaler" with an address would inject VLLM_SCALER_PORT into pods beside it.
    (deployment,) = of_kind(build("scaler/base"), "Deployment")
    assert deployment["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_certificates_of_keda_are_those_the_daemon_asks_for() -> None:
    documents = overlay("scaler-mtls")
    (authentication,) = of_kind(documents, "ClusterTriggerAuthentication")
    given = {one["parameter"]: one["name"] for one in authentication["spec"]["secretTargetRef"]}
    assert set(given) == {"caCert", "tlsClientCert", "tlsClientKey"}
    certificates = {one["metadata"]["name"]: one for one in of_kind(documents, "Certificate")}
    client = certificates["vllm-scaler-keda-client"]
    assert set(given.values()) == {client["spec"]["secretName"]}
    assert client["metadata"]["namespace"] == "keda", "where a ClusterTriggerAuthentication reads"
    server = certificates["vllm-scaler-server"]
    assert ADDRESS.partition(":")[0] in server["spec"]["dnsNames"], "the name KEDA checks"
    assert client["spec"]["issuerRef"] == server["spec"]["issuerRef"]
    (scaled,) = of_kind(overlay("qwen2.5-7b-tls"), "ScaledObject")
    reference = scaled["spec"]["triggers"][0]["authenticationRef"]
    assert reference == {"kind": authentication["kind"], "name": authentication["metadata"]["name"]}
    (deployment,) = of_kind(documents, "Deployment")
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    secrets = [one["secret"]["secretName"] for one in volumes if "secret" in one]
    assert secrets == [server["spec"]["secretName"]]


def test_records_are_kept_by_pod_and_pruned() -> None:
    documents = overlay("scaler-mtls")
    (claim,) = of_kind(documents, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"], "two pods on two nodes"
    (deployment,) = of_kind(documents, "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    (records,) = [one for one in spec["volumes"] if one["name"] == "records"]
    assert records == {
        "name": "records",
        "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]},
    }
    mounts = {one["name"]: one for one in spec["containers"][0]["volumeMounts"]}
    assert mounts["records"]["subPathExpr"] == "$(POD_NAME)"
    for path in (configuration().records.directory, configuration().state.checkpoint_file):
        assert path.startswith(mounts["records"]["mountPath"] + "/")
    (prune,) = of_kind(documents, "CronJob")
    pod = prune["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"] == records["persistentVolumeClaim"]
    assert pod["containers"][0]["image"] == spec["containers"][0]["image"]
