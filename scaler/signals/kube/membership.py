"""Which pods belong to which target, kept up to date as either changes.

A pod finds its targets by its labels, targets do not search the pods: with 1,000 targets and 10,000
pods a full pass costs 50,000 dictionary look-ups instead of ten million comparisons.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from scaler.signals.kube.records import PodRecord, Selector
from scaler.signals.kube.selectors import matches


class Membership:
    """Pods by target key, within namespaces."""

    def __init__(self) -> None:
        self._selectors: dict[str, tuple[str, Selector]] = {}  # target key -> namespace, selector
        # The targets that require a label pair; one pair of each selector is enough to find it.
        self._by_pair: dict[tuple[str, str, str], list[str]] = {}
        self._by_namespace: dict[str, list[str]] = {}  # selectors without any pair
        self._members: dict[str, dict[str, PodRecord]] = {}

    def pods(self, target_key: str) -> Mapping[str, PodRecord]:
        """The pods of a target by name."""
        return self._members.get(target_key, {})

    def select(
        self, selectors: Mapping[str, tuple[str, Selector]], pods: Iterable[PodRecord]
    ) -> None:
        """Start over with these selectors (target key to namespace and selector) and these pods."""
        self._selectors = dict(selectors)
        by_pair: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        by_namespace: dict[str, list[str]] = defaultdict(list)
        for key, (namespace, selector) in self._selectors.items():
            if selector.equal:
                by_pair[(namespace, *selector.equal[0])].append(key)
            else:
                by_namespace[namespace].append(key)
        self._by_pair, self._by_namespace = dict(by_pair), dict(by_namespace)
        self._members = {key: {} for key in self._selectors}
        for pod in pods:
            self.replace(None, pod)

    def replace(self, old: PodRecord | None, new: PodRecord | None) -> frozenset[str]:
        """Take over a change of one pod; the keys of the targets that had or have it."""
        before = self._owners(old) if old is not None else []
        after = self._owners(new) if new is not None else []
        if old is not None:
            for key in before:
                self._members[key].pop(old.name, None)
        if new is not None:
            for key in after:
                self._members[key][new.name] = new
        return frozenset(before) | frozenset(after)

    def _owners(self, pod: PodRecord) -> list[str]:
        labels = dict(pod.labels)
        candidates = list(self._by_namespace.get(pod.namespace, ()))
        for key, value in pod.labels:
            candidates.extend(self._by_pair.get((pod.namespace, key, value), ()))
        return [key for key in candidates if matches(self._selectors[key][1], labels)]
