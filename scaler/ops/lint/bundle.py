"""Documents that are applied together, and what the rules ask of them.

Without kustomize all files of the directory belong together.  Where a ``kustomization.yaml``
stands, each folder is taken for itself: what several folders hold may be variants of one object.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scaler.ops.lint.command_line import CommandLine, command_line, image_version
from scaler.ops.lint.known_flags import Release
from scaler.ops.lint.model import Place
from scaler.ops.lint.nodes import at, items, mapping, number, text, walk
from scaler.ops.lint.reading import Document

KUSTOMIZE = frozenset({"Kustomization", "Component"})
MONITORS = frozenset({"ServiceMonitor", "PodMonitor"})
ONE_AT_A_TIME = frozenset({"Job", "CronJob", "Pod"})
GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTemplate:
    """A pod template, or a Pod, wherever it stands in an object."""

    document: Document
    path: str
    body: Mapping[str, Any]

    @property
    def labels(self) -> Mapping[str, Any]:
        """Labels of its pods."""
        return mapping(self.body, "metadata", "labels")

    @property
    def place(self) -> Place:
        """Where its spec stands."""
        return self.document.place.below(f"{self.path}.spec" if self.path else "spec")

    def containers(self) -> Iterator[tuple[Place, Mapping[str, Any]]]:
        """Every container with its place, those that run first included."""
        for key in ("initContainers", "containers"):
            for number_, container in enumerate(items(self.body, "spec", key)):
                if isinstance(container, Mapping):
                    yield self.place.below(f"{key}.{number_}"), container

    def volume(self, name: str) -> Mapping[str, Any]:
        """A volume by its name."""
        for volume in items(self.body, "spec", "volumes"):
            if text(volume, "name") == name:
                return mapping(volume)
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A container that runs vLLM."""

    template: PodTemplate
    place: Place
    container: Mapping[str, Any]
    line: CommandLine

    @property
    def image(self) -> str:
        """Its image, empty in a patch."""
        return text(self.container, "image")

    @property
    def release(self) -> Release | None:
        """The version of vLLM, None where the image does not tell."""
        return image_version(self.image)

    @property
    def whole(self) -> bool:
        """Whether this is the whole container and not a patch of one."""
        return bool(self.image)

    @property
    def answers(self) -> bool:
        """Whether it serves HTTP: workers over several nodes do not."""
        rank = self.line.whole("--node-rank") or 0
        return self.whole and not self.line.has("--headless") and rank == 0

    @property
    def gpus(self) -> int:
        """GPUs of the container, 0 where it asks for none."""
        resources = mapping(self.container, "resources")
        count = number(resources, "limits", GPU) or number(resources, "requests", GPU)
        return int(count or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaler:
    """An HPA or a ScaledObject."""

    document: Document
    target: tuple[str, str]  # kind, name
    replicas_min: int
    replicas_max: int

    @property
    def is_keda(self) -> bool:
        """Whether it is a ScaledObject."""
        return self.document.kind == "ScaledObject"


class Bundle:
    """Documents that are applied together."""

    def __init__(self, documents: Sequence[Document], *, gpus_total: int | None = None) -> None:
        self.documents = tuple(documents)
        self.gpus_total = gpus_total

    def of_kind(self, *kinds: str) -> list[Document]:
        """Objects of certain kinds."""
        return [one for one in self.documents if one.kind in kinds]

    @property
    def is_component(self) -> bool:
        """Whether it is a part that others complete."""
        return any(one.kind == "Component" for one in self.documents)

    @cached_property
    def templates(self) -> tuple[PodTemplate, ...]:
        """Every pod template."""
        return tuple(
            PodTemplate(document=document, path=path, body=node)
            for document in self.documents
            if document.kind not in KUSTOMIZE
            for path, node in walk(document.body)
            if isinstance(at(node, "spec", "containers"), list)
        )

    @cached_property
    def servers(self) -> tuple[Server, ...]:
        """Every container that runs vLLM, patches of such included."""
        return tuple(
            Server(template=template, place=place, container=container, line=line)
            for template in self.templates
            for place, container in template.containers()
            if (line := command_line(container)) is not None
        )

    @cached_property
    def autoscalers(self) -> tuple[Autoscaler, ...]:
        """Every HPA and ScaledObject with a target."""
        return tuple(
            made
            for document in self.of_kind("HorizontalPodAutoscaler", "ScaledObject")
            if (made := _autoscaler(document)) is not None
        )

    def scalers_of(self, document: Document) -> list[Autoscaler]:
        """What scales an object."""
        return [
            one
            for one in self.autoscalers
            if one.target == (document.kind, document.name)
            and same_namespace(one.document, document)
        ]

    def serves_vllm(self, scaler: Autoscaler) -> bool:
        """Whether the target of an autoscaler runs vLLM: seen in its pods, or by its name."""
        targets = [
            one.template.document
            for one in self.servers
            if (one.template.document.kind, one.template.document.name) == scaler.target
        ]
        return bool(targets) or "vllm" in scaler.target[1].lower()

    def services_over(self, template: PodTemplate) -> list[Document]:
        """Services that select the pods of a template."""
        return [
            service
            for service in self.of_kind("Service")
            if (selector := mapping(service.body, "spec", "selector"))
            and selector.items() <= template.labels.items()
            and same_namespace(service, template.document)
        ]

    @cached_property
    def recorded(self) -> frozenset[str]:
        """Series that recording rules make, and names that an adapter gives."""
        made = set()
        for document in self.documents:
            for _, node in walk(document.body):
                if isinstance(node, Mapping):
                    made.add(text(node, "record"))
                    made.add(text(node, "name", "as"))
        return frozenset(made - {""})

    @cached_property
    def scrape_interval_s(self) -> float:
        """The longest interval of the monitors here, 15 s where none says one."""
        written = [
            _seconds(text(endpoint, "interval"))
            for document in self.of_kind(*MONITORS)
            for key in ("endpoints", "podMetricsEndpoints")
            for endpoint in items(document.body, "spec", key)
        ]
        return max([one for one in written if one > 0], default=15.0)


def bundles(documents: Sequence[Document], *, gpus_total: int | None) -> list[Bundle]:
    """Documents by what is applied together."""
    if not any(document.kind in KUSTOMIZE for document in documents):
        return [Bundle(documents, gpus_total=gpus_total)]
    folders: dict[str, list[Document]] = {}
    for document in documents:
        folders.setdefault(document.folder, []).append(document)
    return [Bundle(held, gpus_total=gpus_total) for held in folders.values()]


def same_namespace(one: Document, other: Document) -> bool:
    """Whether two objects may be in one namespace: one that says none may be anywhere."""
    return not one.namespace or not other.namespace or one.namespace == other.namespace


def _autoscaler(document: Document) -> Autoscaler | None:
    spec = mapping(document.body, "spec")
    name = text(spec, "scaleTargetRef", "name")
    if not name:
        return None
    keda = document.kind == "ScaledObject"
    low, high = ("minReplicaCount", "maxReplicaCount") if keda else ("minReplicas", "maxReplicas")
    least, most = number(spec, low), number(spec, high)
    unsaid = (0, 100) if keda else (1, 1)
    return Autoscaler(
        document=document,
        target=(text(spec, "scaleTargetRef", "kind") or "Deployment", name),
        replicas_min=unsaid[0] if least is None else int(least),
        replicas_max=unsaid[1] if most is None else int(most),
    )


def _seconds(text_: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(count) * units[unit] for count, unit in re.findall(r"(\d+)(ms|[smh])", text_))
