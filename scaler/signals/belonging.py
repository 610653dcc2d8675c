"""Which pod belongs to which target, and whether it serves the model that was asked for."""

import re
from collections.abc import Iterable, Sequence

from scaler.core.model import Cause, NoData
from scaler.signals.promql import DEPLOYMENT_POD, ORDINAL_POD
from scaler.signals.samples import PodRef, PodSample, TargetRef

_FORMS = (re.compile(DEPLOYMENT_POD), re.compile(ORDINAL_POD))
_NAMES_SHOWN = 3


def workload_of(pod: str) -> str:
    """The workload a pod's name points to; empty where the name has neither form.

    The same as the shipped recording rules: the form of a Deployment's pod first, then an ordinal.
    """
    for form in _FORMS:
        if found := form.fullmatch(pod):
            return found[1]
    return ""


class Membership:
    """Finds the targets of a pod: by the lists of Kubernetes, else by the pod's name."""

    def __init__(self, targets: Sequence[TargetRef]) -> None:
        self._by_pod: dict[tuple[str, str], list[str]] = {}
        self._by_workload: dict[tuple[str, str], list[str]] = {}
        for target in targets:
            if target.pods is None:
                named = (target.namespace, target.name)
                self._by_workload.setdefault(named, []).append(target.key)
            for pod in target.pods or ():
                self._by_pod.setdefault((target.namespace, pod.name), []).append(target.key)

    def keys_of(self, namespace: str, pod: str) -> list[str]:
        """Keys of the targets that the pod belongs to; usually one or none."""
        keys = self._by_pod.get((namespace, pod), [])
        if not self._by_workload:
            return keys
        return [*keys, *self._by_workload.get((namespace, workload_of(pod)), [])]


def expected(target: TargetRef) -> Iterable[PodRef]:
    """The pods of a target that should have metrics: workers of a group export none."""
    return (pod for pod in target.pods or () if pod.leader)


def of_model(sample: PodSample, target: TargetRef) -> PodSample | NoData:
    """The sample, or NO_MATCH where the pod reports another model than the target names.

    A pod that names no model (an engine without that label) is taken as it is.
    """
    wanted = target.model_name
    if not wanted or not sample.model_names or wanted in sample.model_names:
        return sample
    return wrong_model(wanted, sample.model_names)


def wrong_model(wanted: str, seen: Iterable[str]) -> NoData:
    """NO_MATCH that names what was asked for and what is there."""
    names = sorted(set(seen))
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return NoData(
        cause=Cause.NO_MATCH,
        detail=f"modelName = {wanted!r}, but the pods report {shown}{more}; "
        "it must equal the first --served-model-name",
    )
