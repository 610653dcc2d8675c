"""Which targets there are: from ScaledObjects, from annotations, from the config and from calls."""

from collections.abc import Iterable, Mapping

from scaler.signals.kube.records import (
    ScaledObject,
    ScaledTrigger,
    Selector,
    TriggerId,
    Workload,
    place_of,
)
from scaler.signals.samples import TargetRef


class Catalogue:
    """Triggers, targets and workloads by their keys.  Rebuilt as a whole, read often."""

    def __init__(self) -> None:
        self.triggers: Mapping[TriggerId, ScaledTrigger] = {}
        self.targets: Mapping[str, TargetRef] = {}  # all that are followed
        self.limits: Mapping[str, ScaledObject] = {}  # the ScaledObject of a target
        self.workloads: dict[str, Workload] = {}

    def put(self, old: Workload | None, new: Workload | None) -> bool:
        """Take a change of a workload; True if the targets or their pods may be others now."""
        if old is not None and new is None:
            self.workloads.pop(key_of(old), None)
        if new is not None:
            self.workloads[key_of(new)] = new
        return old is None or new is None or _selects(old) != _selects(new)

    def advisory(self) -> tuple[TargetRef, ...]:
        """Workloads annotated as advisory targets."""
        return tuple(_ref(one) for one in self.workloads.values() if one.advisory)

    def rebuild(
        self, objects: Iterable[ScaledObject], wanted: Iterable[TargetRef]
    ) -> frozenset[str]:
        """Find all targets anew; the keys of those that came or went."""
        objects = tuple(objects)
        self.triggers = {trigger.id: trigger for one in objects for trigger in one.triggers}
        self.limits = {place_of(one.scale_target): one for one in objects}
        followed = [
            *wanted,
            *self.advisory(),
            *(trigger.target for trigger in self.triggers.values()),
        ]
        before, self.targets = self.targets, {place_of(target): target for target in followed}
        return frozenset(before.keys() ^ self.targets.keys())

    def selectors(self) -> dict[str, tuple[str, Selector]]:
        """Namespace and pod selector of every target whose workload is known."""
        return {
            key: (target.namespace, self.workloads[key].selector)
            for key, target in self.targets.items()
            if key in self.workloads
        }


def key_of(workload: Workload) -> str:
    """The target key of a workload."""
    return place_of(_ref(workload))


def _ref(workload: Workload) -> TargetRef:
    return TargetRef(namespace=workload.namespace, kind=workload.kind, name=workload.name)


def _selects(workload: Workload) -> tuple[Selector, bool]:
    return workload.selector, workload.advisory
