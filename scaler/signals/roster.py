"""Which pods should answer, and which of them have only just begun to serve.

An engine's process is minutes old when its pod becomes ready, because it loads the model first.  So
its start time does not tell that all it has counted came since the last collection; that it was not
ready then does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scaler.signals.samples import PodRef, PodSample, TargetSamples

PODS_MAX = 10_000  # expected at most where nothing says which pods there are
_SKEW_S = 5.0  # by which a node's clock may be behind ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """When a pod was last known not to serve, and how many collections it was silent since."""

    at_s: float
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """The pods of one collection; ``entered`` are those without a sample before this one."""

    expected: tuple[str, ...]
    entered: Mapping[str, Entry]


class Roster:
    """Follows the ready pods of one target from collection to collection."""

    def __init__(self, remembered_s: float) -> None:
        self._remembered_s = remembered_s
        self._began_at_s = 0.0
        self._last_at_s: float | None = None
        self._past: set[str] = set()  # listed pods that have, or may have, served before
        self._silent: dict[str, Entry] = {}
        self._seen_at_s: dict[str, float] = {}

    def update(self, samples: TargetSamples, now_s: float) -> Attendance:
        """Take in a collection: ready leaders, or pods seen lately where no list is known."""
        pods = samples.target.pods
        if pods is None:
            return Attendance(expected=self._seen_lately(samples, now_s), entered={})
        expected = tuple(pod.name for pod in pods if pod.ready and pod.leader)
        return Attendance(
            expected=expected, entered=self._entered(samples, pods, frozenset(expected), now_s)
        )

    def _entered(
        self,
        samples: TargetSamples,
        pods: tuple[PodRef, ...],
        ready: frozenset[str],
        now_s: float,
    ) -> Mapping[str, Entry]:
        """Ready pods that had no sample before.

        One that was listed when watching began may have served before that, and one that was ready
        once may have since; neither enters again until it has left the list.  A process that is
        older than our watch belongs to a pod that was given to the workload later.
        """
        listed = {pod.name for pod in pods}
        last_at_s, self._last_at_s = self._last_at_s, now_s
        if last_at_s is None:
            self._past, self._began_at_s = listed, now_s
            return {}
        before = self._silent
        self._past = (self._past | (before.keys() - ready)) & listed
        entered = {
            name: Entry(at_s=before[name].at_s, missed=before[name].missed + 1)
            if name in before
            else Entry(at_s=last_at_s)
            for name in ready - self._past
        }
        answered = {
            name: sample.started_at_s
            for name in entered
            if isinstance(sample := samples.pods.get(name), PodSample)
        }
        self._past |= answered.keys()
        self._silent = {name: entry for name, entry in entered.items() if name not in answered}
        oldest_s = self._began_at_s - _SKEW_S
        older = {name for name, at_s in answered.items() if at_s is not None and at_s < oldest_s}
        return {name: entry for name, entry in entered.items() if name not in older}

    def _seen_lately(self, samples: TargetSamples, now_s: float) -> tuple[str, ...]:
        """Pods with a sample that is not older than ``remembered_s``, whenever it was brought.

        Prometheus answers with the last sample of a pod that is gone for up to five minutes.
        """
        seen = self._seen_at_s
        for name, sample in samples.pods.items():
            if isinstance(sample, PodSample):
                seen[name] = min(max(sample.at_s, seen.get(name, sample.at_s)), now_s)
        horizon_s = now_s - self._remembered_s
        kept = {name: at_s for name, at_s in seen.items() if at_s >= horizon_s}
        if len(kept) > PODS_MAX:
            newest = sorted(kept, key=lambda name: kept[name], reverse=True)[:PODS_MAX]
            kept = {name: kept[name] for name in newest}
        self._seen_at_s = kept
        return tuple(kept)
