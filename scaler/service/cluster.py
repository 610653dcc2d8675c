"""What the service needs to know of the cluster, and the adapter that reads it from the watch."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from scaler.core.model import NoData
from scaler.signals.kube.records import ScaledTrigger, TargetState
from scaler.signals.kube.view import KubernetesView
from scaler.signals.samples import TargetRef


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerFacts:
    """One trigger of ours as the cluster has it; tolerances are None where the cluster decides."""

    namespace: str
    name: str
    uid: str
    metadata: tuple[tuple[str, str], ...]
    target_kind: str
    target_name: str
    replicas_min: int | None
    replicas_max: int | None
    tolerance_up_ratio: float | None
    tolerance_down_ratio: float | None
    kubernetes_minor: int | None
    advisory: bool  # known from an annotation, not from a trigger


class Cluster(Protocol):
    """The cluster, read from memory: no method does I/O."""

    def triggers(self) -> Iterable[TriggerFacts]:
        """Every trigger of ours and every advisory target."""
        ...

    def target(self, target: TargetRef, *, since_s: float) -> TargetState | NoData:
        """Replicas and pods of a target, with the starts seen after ``since_s``."""
        ...

    def follow(self, targets: Iterable[TargetRef]) -> None:
        """Watch these targets too, beside those of ScaledObjects."""
        ...


class KubeCluster:
    """The cluster as ``KubernetesView`` has it in memory."""

    def __init__(self, view: KubernetesView) -> None:
        self._view = view
        self._followed: list[TargetRef] = []

    def triggers(self) -> Iterator[TriggerFacts]:
        """Triggers first, then annotated targets that have none."""
        scaled = set()
        for trigger in self._view.scaled_objects().values():
            scaled.add(_plain(trigger.scale_target).key)
            yield self._facts(trigger)
        for target in self._view.advisory_targets():
            if target.key not in scaled:
                yield self._advisory(target)

    def target(self, target: TargetRef, *, since_s: float) -> TargetState | NoData:
        """The view knows targets without their model."""
        return self._view.target(_plain(target), since_s=since_s)

    def follow(self, targets: Iterable[TargetRef]) -> None:
        """Replaces the targets of the last call; equal ones, in every tick, cost nothing."""
        wanted = list(targets)
        if wanted != self._followed:
            self._followed = wanted
            self._view.want([_plain(target) for target in wanted])

    def _facts(self, trigger: ScaledTrigger) -> TriggerFacts:
        return TriggerFacts(
            namespace=trigger.id.namespace,
            name=trigger.id.name,
            uid=trigger.uid,
            metadata=trigger.metadata,
            target_kind=trigger.target.kind,
            target_name=trigger.target.name,
            replicas_min=trigger.replicas_min,
            replicas_max=trigger.replicas_max,
            tolerance_up_ratio=trigger.tolerance_up_ratio,
            tolerance_down_ratio=trigger.tolerance_down_ratio,
            kubernetes_minor=self._view.kubernetes_minor,
            advisory=False,
        )

    def _advisory(self, target: TargetRef) -> TriggerFacts:
        return TriggerFacts(
            namespace=target.namespace,
            name=f"{target.kind}.{target.name}",
            uid="",
            metadata=(("target", f"{target.kind}/{target.name}"),),
            target_kind=target.kind,
            target_name=target.name,
            replicas_min=None,
            replicas_max=None,
            tolerance_up_ratio=None,
            tolerance_down_ratio=None,
            kubernetes_minor=self._view.kubernetes_minor,
            advisory=True,
        )


def _plain(target: TargetRef) -> TargetRef:
    """The target as the cluster knows it: without model, pods and query."""
    return dataclasses.replace(target, model_name="", pods=None, gateway_query="")
