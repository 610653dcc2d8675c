"""Every built document against the schemas of Kubernetes 1.28 to the newest, and of the CRDs."""

import json
from collections.abc import Iterator

import kubernetes_validate
import pytest
from kubernetes_validate.utils import all_versions

from tests.manifests.built import OUTSIDE_DATA, Document, build, kustomizations, label
from tests.manifests.schemas import validators

OLDEST = "1.28"
CRDS = OUTSIDE_DATA / "crds"
BUILTIN_GROUPS = {
    "", "apps", "batch", "policy", "autoscaling", "networking.k8s.io", "rbac.authorization.k8s.io",
    "scheduling.k8s.io", "storage.k8s.io", "coordination.k8s.io",
}  # fmt: skip
# Kinds whose CRD is not in the data folder: built, but not validated. manifests/README.md says so.
WITHOUT_SCHEMA = {
    ("cert-manager.io/v1", "ClusterIssuer"),
    ("cert-manager.io/v1", "Certificate"),
    ("keda.sh/v1alpha1", "ClusterTriggerAuthentication"),
}


def versions() -> list[str]:
    """Oldest, newest, and every one between."""
    supported = [tuple(map(int, one.split(".")[:2])) for one in all_versions()]
    oldest = tuple(map(int, OLDEST.split(".")))
    return [f"{major}.{minor}" for major, minor in supported if (major, minor) >= oldest]


def distinct(*, builtin: bool) -> Iterator[Document]:
    """Each distinct document of all builds, either of Kubernetes' own kinds or custom ones."""
    seen = set()
    for folder in kustomizations():
        for document in build(folder):
            text = json.dumps(document, sort_keys=True, default=str)
            if text not in seen:
                seen.add(text)
                if is_builtin(document) is builtin:
                    yield document


def is_builtin(document: Document) -> bool:
    """Whether the kind is Kubernetes' own: a group without a dot, or one of those with."""
    return document["apiVersion"].rpartition("/")[0] in BUILTIN_GROUPS


def test_the_validator_knows_a_range_of_versions() -> None:
    assert versions()[0] == OLDEST
    assert len(versions()) >= 9, versions()


@pytest.mark.parametrize("version", versions())
def test_documents_are_valid_in(version: str) -> None:
    documents = list(distinct(builtin=True))
    assert len(documents) > 20
    for document in documents:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as fault:
            path = ".".join(str(part) for part in fault.path)
            pytest.fail(f"{label(document)} in {version}: {path}: {fault.message}")


def test_custom_resources_are_valid() -> None:
    if not CRDS.is_dir():
        pytest.skip(f"{CRDS} is missing: CRDs are read from the data folder")
    known = validators(CRDS)
    unknown = set()
    for document in distinct(builtin=False):
        key = (document["apiVersion"], document["kind"])
        if key not in known:
            unknown.add(key)
            continue
        fault = next(iter(known[key].iter_errors(document)), None)
        assert fault is None, f"{label(document)}: {list(fault.path)}: {fault.message}"
    assert unknown == WITHOUT_SCHEMA


def test_strictness_is_real() -> None:
    deployment = next(one for one in build("vllm/base") if one["kind"] == "Deployment")
    broken = json.loads(json.dumps(deployment))
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, OLDEST, strict=True)
    if CRDS.is_dir():
        scaled = next(one for one in build("overlays/qwen2.5-7b") if one["kind"] == "ScaledObject")
        assert _faults({**scaled, "spec": {**scaled["spec"], "maxReplicas": 3}})
        assert not _faults(scaled)


def _faults(document: Document) -> list[str]:
    key = (document["apiVersion"], document["kind"])
    return [fault.message for fault in validators(CRDS)[key].iter_errors(document)]
