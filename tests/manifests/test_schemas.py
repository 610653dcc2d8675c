"""Every built document against the schemas of Kubernetes 1.28 to the newest, and of the CRDs."""

import json
import re
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no stubs installed
from kubernetes_validate.utils import all_versions, schema_contents
from referencing import Registry, Resource

from tests.manifests.built import OUTSIDE_DATA, Document, build, label, of_kind, roots
from tests.manifests.schemas import validators

pytestmark = pytest.mark.external
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
    supported = {tuple(map(int, one.split(".")[:2])) for one in all_versions()}
    oldest = tuple(map(int, OLDEST.split(".")))
    return [f"{major}.{minor}" for major, minor in sorted(supported) if (major, minor) >= oldest]


@cache
def registry(version: str) -> Registry[Any]:
    """The definitions that the schemas of a version refer to, read once."""
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    definitions = schema_contents(f"{folder}/_definitions.json", version)
    return (Resource.from_contents(definitions) @ Registry()).crawl()


@cache
def strict_validator(version: str, api_version: str, kind: str) -> Draft202012Validator:
    """What ``kubernetes_validate.validate(.., strict=True)`` makes for every call anew."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    schema = schema_contents(f"{folder}/{kind.lower()}-{group}.json", version)
    return Draft202012Validator(schema, registry=registry(version))


@cache
def distinct() -> tuple[Document, ...]:
    """Each distinct document of the builds that no other build includes."""
    found = {}
    for folder in roots():
        for document in build(folder):
            found[json.dumps(document, sort_keys=True, default=str)] = document
    return tuple(found.values())


def is_builtin(document: Document) -> bool:
    """Whether the kind is Kubernetes' own: a group without a dot, or one of those with."""
    return document["apiVersion"].rpartition("/")[0] in BUILTIN_GROUPS


def test_the_validator_knows_a_range_of_versions() -> None:
    assert versions()[0] == OLDEST
    assert len(versions()) >= 9, versions()


@pytest.mark.parametrize("version", versions())
def test_documents_are_valid_in(version: str) -> None:
    documents = [one for one in distinct() if is_builtin(one)]
    assert len(documents) > 100
    for document in documents:
        validator = strict_validator(version, document["apiVersion"], document["kind"])
        for fault in validator.iter_errors(document):
            path = ".".join(str(part) for part in fault.path)
            pytest.fail(f"{label(document)} in {version}: {path}: {fault.message}")


@pytest.mark.parametrize("version", [versions()[0], versions()[-1]])
def test_the_cached_validator_is_that_of_kubernetes_validate(version: str) -> None:
    deployment = json.loads(json.dumps(of_kind(build("vllm/base"), "Deployment")[0]))
    validator = strict_validator(version, deployment["apiVersion"], deployment["kind"])
    kubernetes_validate.validate(deployment, version, strict=True)
    assert validator.is_valid(deployment)
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, version, strict=True)
    assert not validator.is_valid(deployment)


def test_custom_resources_are_valid() -> None:
    if not CRDS.is_dir():
        pytest.skip(f"{CRDS} is missing: CRDs are read from the data folder")
    known = validators(CRDS)
    unknown = set()
    for document in distinct():
        if is_builtin(document):
            continue
        key = (document["apiVersion"], document["kind"])
        if key not in known:
            unknown.add(key)
            continue
        fault = next(iter(known[key].iter_errors(document)), None)
        assert fault is None, f"{label(document)}: {list(fault.path)}: {fault.message}"
    assert unknown == WITHOUT_SCHEMA


def test_schemas_of_custom_resources_are_strict() -> None:
    if not CRDS.is_dir():
        pytest.skip(f"{CRDS} is missing: CRDs are read from the data folder")
    (scaled,) = of_kind(build("overlays/qwen2.5-7b"), "ScaledObject")
    assert not _faults(scaled)
    assert _faults({**scaled, "spec": {**scaled["spec"], "maxReplicas": 3}})
    (group,) = of_kind(build("overlays/deepseek-v3"), "LeaderWorkerSet")
    broken = json.loads(json.dumps(group))
    worker = broken["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]
    worker["containers"][0]["resource"] = {}
    assert not _faults(group)
    assert _faults(broken)


def _faults(document: Document) -> list[str]:
    key = (document["apiVersion"], document["kind"])
    return [fault.message for fault in validators(CRDS)[key].iter_errors(document)]
