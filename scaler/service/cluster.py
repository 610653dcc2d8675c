"""What the service needs to know of the cluster, and the adapter that reads it from the watch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from scaler.core.model import NoData
from scaler.signals.kube.records import TargetState
from scaler.signals.samples import TargetRef


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerFacts:
    """One trigger of ours as the cluster has it; tolerances are None where the cluster decides."""

    namespace: str
    name: str
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

    def target(self, target: TargetRef) -> TargetState | NoData:
        """Replicas and pods of a target, or why they are not known."""
        ...
