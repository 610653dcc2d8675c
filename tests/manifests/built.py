"""What ``kubectl kustomize`` makes of the manifests, built once per test process."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = REPOSITORY / "manifests"
DATA = Path(__file__).resolve().parent / "data"
OUTSIDE_DATA = Path(os.environ.get("VLLM_SCALER_DATA", REPOSITORY.parent / "shared"))
UNSET = "set-by-settings"  # what vllm/components/settings replaces

Document = Mapping[str, Any]


def required(program: str) -> str:
    """The path of a program; without it the test is skipped, or fails where REQUIRE_EXTERNALS=1."""
    found = os.environ.get(program.upper()) or shutil.which(program)
    if found is None:
        reason = f"{program} is not installed"
        if os.environ.get("REQUIRE_EXTERNALS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def overlays() -> list[str]:
    """Every overlay, by its path under ``manifests/overlays``."""
    root = MANIFESTS / "overlays"
    return sorted(str(path.parent.relative_to(root)) for path in root.rglob("kustomization.yaml"))


def overlays_with(component: str) -> list[str]:
    """Overlays that list a component, from their files alone."""
    found = []
    for name in overlays():
        path = MANIFESTS / "overlays" / name / "kustomization.yaml"
        listed = yaml.safe_load(path.read_text(encoding="utf-8")).get("components", ())
        if any(Path(one).name == component for one in listed):
            found.append(name)
    return found


def serving() -> list[str]:
    """Overlays that start vLLM by its own command line: those that wait for it to be warm."""
    return sorted(overlays_with("warm-up") + overlays_with("warm-up-lws"))


def kustomizations() -> list[str]:
    """Every directory that can be built by itself, by its path under ``manifests``."""
    return sorted(folder for folder in _folders() if _kind(folder) == "Kustomization")


def roots() -> list[str]:
    """Kustomizations that no other one includes: together they hold every document."""
    included = set()
    for folder in _folders():
        listed = yaml.safe_load((MANIFESTS / folder / "kustomization.yaml").read_text("utf-8"))
        for resource in listed.get("resources", ()):
            path = (MANIFESTS / folder / resource).resolve()
            included.add(str(path.relative_to(MANIFESTS)))
    return [folder for folder in kustomizations() if folder not in included]


def components() -> list[str]:
    """Every component, by its path under ``manifests``."""
    return sorted(folder for folder in _folders() if _kind(folder) == "Component")


@cache
def build(folder: str) -> tuple[Document, ...]:
    """The documents of one directory under ``manifests``."""
    program = required("kubectl")
    done = subprocess.run(
        [program, "kustomize", str(MANIFESTS / folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    assert "deprecated" not in done.stderr.lower(), f"{folder}: {done.stderr}"
    return tuple(one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one)


def overlay(name: str) -> tuple[Document, ...]:
    """The documents of one overlay."""
    return build(f"overlays/{name}")


def of_kind(documents: tuple[Document, ...], *kinds: str) -> list[Document]:
    """Those of certain kinds."""
    return [one for one in documents if one["kind"] in kinds]


def label(document: Document) -> str:
    """``Kind/name``, for messages."""
    return f"{document['kind']}/{document['metadata']['name']}"


def pod_templates(document: Document) -> Iterator[tuple[str, Document]]:
    """Every pod template of a document, with a name for messages."""
    for path, node in _walk(document, label(document)):
        if isinstance(node, dict) and isinstance(node.get("spec"), dict):
            spec = node["spec"]
            if "containers" in spec and "template" not in spec:
                yield path, node


def vllm_templates(documents: tuple[Document, ...]) -> Iterator[tuple[str, Document, Document]]:
    """Name, template and container of every pod that runs a vLLM server."""
    for document in documents:
        for name, template in pod_templates(document):
            for container in template["spec"]["containers"]:
                if container["name"] == "vllm":
                    yield name, template, container


def strings(node: Any) -> Iterator[str]:
    """Every string value of a document."""
    for _, value in _walk(node, ""):
        if isinstance(value, str):
            yield value


def bytes_of(quantity: str) -> float:
    """A Kubernetes quantity of memory or storage."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "": 1}
    number = quantity.rstrip("KMGTi")
    return float(number) * units[quantity[len(number) :]]


def _walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from _walk(value, f"{path}[{place}]")


@cache
def _folders() -> tuple[str, ...]:
    found = MANIFESTS.rglob("kustomization.yaml")
    return tuple(str(path.parent.relative_to(MANIFESTS)) for path in found)


def _kind(folder: str) -> str:
    text = (MANIFESTS / folder / "kustomization.yaml").read_text(encoding="utf-8")
    kind: str = yaml.safe_load(text)["kind"]
    return kind
