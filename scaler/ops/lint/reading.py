"""Files below a directory into documents; what cannot be read becomes a finding."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scaler.errors import ConfigError
from scaler.ops.lint.model import Finding, Place, Rule, Severity, found
from scaler.ops.lint.nodes import items, mapping, text

SUFFIXES = (".yaml", ".yml", ".json")
FILE_BYTES_MAX = 10_000_000
NODES_MAX = 1_000_000
DEPTH_MAX = 100

UNREADABLE = Rule(
    id="yaml-unreadable",
    mistake=0,
    severity=Severity.ERROR,
    says="the file is not YAML that kubectl could read",
    fix="put it right at the place named; nothing in the file was checked",
)
TEMPLATE = Rule(
    id="template-not-rendered",
    mistake=0,
    severity=Severity.WARNING,
    says="the file is a template, not YAML",
    fix="check what it renders to: helm template ... > DIR/rendered.yaml",
)
SHAPELESS = Rule(
    id="indentation-lost",
    mistake=0,
    severity=Severity.ERROR,
    says="an object without a mapping under metadata or spec: the indentation is lost",
    fix="indent what belongs under metadata and spec",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object, or one list of patches; ``inside`` says in which ConfigMap key it stands."""

    file: str
    body: Any
    inside: str = ""

    @property
    def kind(self) -> str:
        """Its kind, empty where it has none."""
        return text(self.body, "kind")

    @property
    def name(self) -> str:
        """Its name, empty where it has none."""
        return text(self.body, "metadata", "name")

    @property
    def namespace(self) -> str:
        """Its namespace, empty where it says none."""
        return text(self.body, "metadata", "namespace")

    @property
    def folder(self) -> str:
        """The directory it stands in."""
        return self.file.rpartition("/")[0]

    @property
    def place(self) -> Place:
        """Where it stands, for findings."""
        own = "/".join(part for part in (self.kind, self.name) if part)
        return Place(file=self.file, object=self.inside or own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All documents below a directory, and what could not be read."""

    documents: tuple[Document, ...]
    findings: tuple[Finding, ...]
    files: int


def read(directory: Path) -> Reading:
    """Every YAML and JSON file below ``directory``, several documents in one file included.

    Raises:
        ConfigError: the directory does not exist, or holds no such file.
    """
    if not directory.is_dir():
        raise ConfigError(f"manifests = {str(directory)!r}, must be a directory")
    paths = sorted(_paths(directory))
    if not paths:
        raise ConfigError(
            f"manifests = {str(directory)!r}, must hold a file that ends in {', '.join(SUFFIXES)}"
        )
    documents: list[Document] = []
    findings: list[Finding] = []
    for path in paths:
        name = path.relative_to(directory).as_posix()
        try:
            documents += _documents(name, _text(path))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            findings.append(_unread(name, path, error))
    findings += [finding for document in documents for finding in _shape(document)]
    return Reading(documents=tuple(documents), findings=tuple(findings), files=len(paths))


def _paths(directory: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(directory):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in names:
            if name.endswith(SUFFIXES):
                yield Path(folder, name)


def _text(path: Path) -> str:
    if path.stat().st_size > FILE_BYTES_MAX:
        raise ValueError(f"larger than {FILE_BYTES_MAX} bytes")
    return path.read_text(encoding="utf-8")


def _documents(name: str, source: str) -> Iterator[Document]:
    for body in _bodies(name, source):
        if text(body, "kind") == "List":
            yield from (Document(file=name, body=item) for item in items(body, "items"))
        else:
            yield Document(file=name, body=body)
            yield from _held(name, body)


def _bodies(name: str, source: str) -> list[Any]:
    if name.endswith(".json"):
        bodies = [json.loads(source)]
    else:
        bodies = [body for body in yaml.load_all(source, yaml.CSafeLoader) if body is not None]
    _bounded(bodies)
    return bodies


def _bounded(bodies: list[Any]) -> None:
    """Refuse what aliases have made endless, or too large to walk through."""
    waiting: list[tuple[Any, int]] = [(bodies, 0)]
    count = 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > DEPTH_MAX or count > NODES_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX} or of more than {NODES_MAX} nodes")
        inner = node.values() if isinstance(node, dict) else node
        if isinstance(node, dict | list):
            waiting.extend((child, depth + 1) for child in inner)


def _held(name: str, body: Any) -> Iterator[Document]:
    """What the keys of a ConfigMap hold: rules, dashboards, configurations of other programs."""
    if text(body, "kind") != "ConfigMap":
        return
    for key, value in mapping(body, "data").items():
        if str(key).endswith(SUFFIXES) and isinstance(value, str):
            inside = f"ConfigMap/{text(body, 'metadata', 'name')}:{key}"
            try:
                bodies = _bodies(str(key), value)
            except (ValueError, RecursionError, yaml.YAMLError):
                continue  # another program's file, and that program's business
            yield from (Document(file=name, body=inner, inside=inside) for inner in bodies)


def _unread(name: str, path: Path, error: Exception) -> Finding:
    place = Place(file=name, object="")
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    evidence = f"line {mark.line + 1}: {problem}" if mark else str(problem)
    return found(TEMPLATE if _is_template(path) else UNREADABLE, place, evidence[:200])


def _is_template(path: Path) -> bool:
    with path.open("rb") as file:
        return b"{{" in file.read(FILE_BYTES_MAX)


def _shape(document: Document) -> Iterator[Finding]:
    body = document.body
    if not isinstance(body, Mapping) or not {"apiVersion", "kind"} <= set(body):
        return
    for key in ("metadata", "spec"):
        if key in body and not isinstance(body[key], Mapping):
            yield found(SHAPELESS, document.place.below(key), f"{key}: {body[key]!r}")
