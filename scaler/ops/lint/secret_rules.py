"""Secrets in plain text, and sessions pinned to pods (mistakes 19, 20)."""

import base64
import binascii
import re
from collections.abc import Iterator

from scaler.ops.lint.bundle import Bundle
from scaler.ops.lint.model import Finding, Rule, Severity, found
from scaler.ops.lint.nodes import items, mapping, text, walk
from scaler.ops.lint.reading import Document

PLAIN = Rule(
    id="token-in-plain-text",
    mistake=19,
    severity=Severity.ERROR,
    says="a secret in plain text, for all who can read the manifest or the pod",
    fix="valueFrom.secretKeyRef, with a Secret that is not in the repository",
)
NOT_BASE64 = Rule(
    id="secret-data-not-base64",
    mistake=19,
    severity=Severity.ERROR,
    says="data of a Secret is base64: a plain text is refused, or decoded into something else",
    fix="stringData for plain text, or echo -n ... | base64",
)
IN_REPOSITORY = Rule(
    id="secret-in-repository",
    mistake=19,
    severity=Severity.WARNING,
    says="a Secret's value beside the manifests",
    fix="kubectl create secret, or an external secret store",
)
AFFINITY = Rule(
    id="session-affinity",
    mistake=20,
    severity=Severity.WARNING,
    says="clients are pinned to pods: load does not spread, and new replicas stay empty",
    fix="a router that knows prefixes: Gateway API Inference Extension, llm-d, production-stack",
)
RULES = (PLAIN, NOT_BASE64, IN_REPOSITORY, AFFINITY)
_SECRET_NAME = re.compile(r"(?i)(?:^|_)(?:token|password|passwd|secret|api_?key|master_?key)$")
_TOKEN = re.compile(r"^(?:hf_|sk-|ghp_|AKIA|nvapi-)[\w-]{4,}")
_PLACEHOLDER = re.compile(
    r"(?i)^(?:none|empty|dummy|your[-_ ].*|<.*>|change-?me|xxx+|os\.environ/.*)$"
)
_IN_CONFIG = re.compile(r"(?i)\b(master_key|api_key|token|password)\b\s*:\s*[\"']?([^\s\"'#]+)")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Findings on secrets and on session affinity."""
    for template in bundle.templates:
        for place, container in template.containers():
            for at, variable in enumerate(items(container, "env")):
                name, value = text(variable, "name"), text(variable, "value")
                if value and "$(" not in value and _is_secret(name, value):
                    yield found(PLAIN, place.below(f"env.{at}.value"), f"{name} = {_masked(value)}")
    for server in bundle.servers:
        key = server.line.value("--api-key")
        if key and "$" not in key:
            yield found(PLAIN, server.place.below("args"), f"--api-key {_masked(key)}")
    for document in bundle.of_kind("Secret"):
        yield from _secret(document)
    for document in bundle.of_kind("ConfigMap"):
        yield from _config(document)
    yield from _affinity(bundle)


def _is_secret(name: str, value: str) -> bool:
    return bool(_TOKEN.match(value)) or (
        bool(_SECRET_NAME.search(name)) and not _PLACEHOLDER.match(value)
    )


def _masked(value: str) -> str:
    """Enough of a value to find it, not enough to use it."""
    return f"{value[:3]}... ({len(value)} characters)"


def _secret(document: Document) -> Iterator[Finding]:
    for key, value in mapping(document.body, "data").items():
        place = document.place.below(f"data.{key}")
        if not isinstance(value, str) or not _decodes(value):
            yield found(NOT_BASE64, place, f"{key}: {_masked(str(value))}")
        elif value:
            yield found(IN_REPOSITORY, place, f"{key}: {_masked(value)}")
    for key, value in mapping(document.body, "stringData").items():
        place = document.place.below(f"stringData.{key}")
        placeholder = _PLACEHOLDER.match(str(value))
        yield found(
            IN_REPOSITORY,
            place,
            f"{key}: {'a placeholder' if placeholder else _masked(str(value))}",
            severity=Severity.INFO if placeholder else None,
        )


def _decodes(value: str) -> bool:
    """Whether a value is base64 of something readable: what is not was a plain text by chance."""
    try:
        decoded = base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    printable = sum(32 <= byte < 127 or byte in (9, 10, 13) for byte in decoded)
    return len(decoded) > 64 or printable == len(decoded)


def _config(document: Document) -> Iterator[Finding]:
    for key, value in mapping(document.body, "data").items():
        for name, written in _IN_CONFIG.findall(value if isinstance(value, str) else ""):
            if _TOKEN.match(written):
                place = document.place.below(f"data.{key}")
                yield found(PLAIN, place, f"{name}: {_masked(written)} in a ConfigMap")


def _affinity(bundle: Bundle) -> Iterator[Finding]:
    over = {
        (service.file, service.name)
        for server in bundle.servers
        for service in bundle.services_over(server.template)
    }
    for service in bundle.of_kind("Service"):
        vllm = (service.file, service.name) in over or "vllm" in service.name
        if vllm and text(service.body, "spec", "sessionAffinity") == "ClientIP":
            place = service.place.below("spec.sessionAffinity")
            yield found(AFFINITY, place, "ClientIP")
    for ingress in bundle.of_kind("Ingress"):
        key = "nginx.ingress.kubernetes.io/affinity"
        behind = [
            text(node, "service", "name")
            for path, node in walk(ingress.body)
            if path.endswith("backend")
        ]
        value = text(mapping(ingress.body, "metadata", "annotations"), key)
        if value and any("vllm" in name for name in behind):
            yield found(AFFINITY, ingress.place.below("metadata.annotations"), f"{key}: {value}")
