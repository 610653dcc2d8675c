"""Everything builds, everything is used, nothing is left unset, names agree with one another."""

import pytest
import yaml

from tests.manifests.built import (
    MANIFESTS,
    UNSET,
    build,
    components,
    kustomizations,
    label,
    of_kind,
    overlay,
    overlays,
    pod_templates,
    strings,
)

pytestmark = pytest.mark.external


@pytest.mark.parametrize("folder", kustomizations())
def test_builds(folder: str) -> None:
    assert build(folder)


@pytest.mark.parametrize("name", overlays())
def test_nothing_is_left_unset(name: str) -> None:
    for document in overlay(name):
        assert UNSET not in set(strings(document)), label(document)


@pytest.mark.parametrize("name", overlays())
def test_objects_are_named_once(name: str) -> None:
    names = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
        for one in overlay(name)
    ]
    assert len(names) == len(set(names))


def test_every_component_is_used_by_an_overlay() -> None:
    used = set()
    for name in overlays():
        folder = MANIFESTS / "overlays" / name
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        for component in listed.get("components", ()):
            used.add(str((folder / component).resolve().relative_to(MANIFESTS)))
    assert set(components()) - used == set()


@pytest.mark.parametrize("name", overlays())
def test_claims_config_maps_and_accounts_exist_in_the_same_build(name: str) -> None:
    documents = overlay(name)
    names = {(one["kind"], one["metadata"]["name"]) for one in documents}
    for document in documents:
        for where, template in pod_templates(document):
            spec = template["spec"]
            for volume in spec.get("volumes", ()):
                claim = volume.get("persistentVolumeClaim", {}).get("claimName")
                config = volume.get("configMap", {}).get("name")
                assert claim is None or ("PersistentVolumeClaim", claim) in names, (where, claim)
                assert config is None or ("ConfigMap", config) in names, (where, config)
            account = spec.get("serviceAccountName")
            assert account is None or ("ServiceAccount", account) in names, (where, account)


@pytest.mark.parametrize("name", overlays())
def test_scalers_point_at_workloads_of_the_build_and_alone(name: str) -> None:
    documents = overlay(name)
    workloads = {(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in documents}
    owned = []
    for scaler in of_kind(documents, "ScaledObject", "HorizontalPodAutoscaler"):
        ref = scaler["spec"]["scaleTargetRef"]
        key = (ref["apiVersion"], ref["kind"], ref["name"])
        assert key in workloads, (label(scaler), key)
        owned.append(key)
    assert len(owned) == len(set(owned)), "two autoscalers own one workload"
    for document in documents:
        key = (document["apiVersion"], document["kind"], document["metadata"]["name"])
        if key in owned:
            assert "replicas" not in document["spec"], f"{label(document)} fixes its replicas"


@pytest.mark.parametrize("name", overlays())
def test_selectors_find_their_pods(name: str) -> None:
    documents = overlay(name)
    pods = [
        template["metadata"]["labels"]
        for document in documents
        for _, template in pod_templates(document)
        if "labels" in template.get("metadata", {})
    ]
    for document in of_kind(documents, "Service", "PodDisruptionBudget"):
        spec = document["spec"]["selector"]
        wanted = spec.get("matchLabels", spec) if spec else {}
        wanted = {key: value for key, value in wanted.items() if "leaderworkerset" not in key}
        found = [labels for labels in pods if wanted.items() <= labels.items()]
        assert found, f"{label(document)} selects no pod of the build: {wanted}"
