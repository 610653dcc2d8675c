"""Start-up times of replicas, each counted once.

Only what was seen to happen counts: a replica that was ready before the view began, or that lost
its readiness and found it again, would report an age as a start-up time and spoil the lead time.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from scaler.signals.kube.replicas import Group, start_up_s

KEPT_PER_TARGET = 64


class StartUps:
    """Start-ups by target.  ``began_at_s``: when watching began."""

    def __init__(self, began_at_s: float) -> None:
        self._began_at_s = began_at_s
        # Leader name -> creation time, of replicas whose start-up is behind them; by target.
        self._counted: dict[str, dict[str, float]] = {}
        self._seen: dict[str, deque[tuple[float, float]]] = {}  # (seen_at_s, start_up_s)

    def observe(self, target_key: str, groups: Sequence[Group], now_s: float) -> None:
        """Take the present replicas of a target; those newly ready are counted."""
        before = self._counted.get(target_key, {})
        counted: dict[str, float] = {}
        for group in groups:
            leader = group.leader
            known = before.get(leader.name) == leader.created_at_s
            took_s = start_up_s(group)
            if known or took_s is not None or any(pod.lost_ready for pod in group.pods):
                counted[leader.name] = leader.created_at_s
            if not known and took_s is not None and self._was_watched(group):
                seen = self._seen.setdefault(target_key, deque(maxlen=KEPT_PER_TARGET))
                seen.append((now_s, took_s))
        self._counted[target_key] = counted

    def since(self, target_key: str, since_s: float) -> tuple[float, ...]:
        """Start-up times of replicas seen to become ready after ``since_s``, in that order."""
        return tuple(
            took_s for seen_at_s, took_s in self._seen.get(target_key, ()) if seen_at_s > since_s
        )

    def keep(self, target_keys: Iterable[str]) -> None:
        """Forget all other targets."""
        kept = frozenset(target_keys)
        self._counted = {key: value for key, value in self._counted.items() if key in kept}
        self._seen = {key: value for key, value in self._seen.items() if key in kept}

    def _was_watched(self, group: Group) -> bool:
        """Whether the replica became ready under our eyes (to the second of Kubernetes' times)."""
        ready_at_s = max(pod.ready_at_s or 0.0 for pod in group.pods)
        return ready_at_s >= int(self._began_at_s)
