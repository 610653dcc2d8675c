"""The board: the last published decision of every trigger.

One task writes it; gRPC calls only read it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

METRIC_NAME = "vllm-desired-replicas"
TARGET_SIZE = 1  # the published value is a replica count; anything else only loses resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerKey:
    """Identity of a trigger: two triggers of one ScaledObject are told apart by their metadata alone."""

    namespace: str
    name: str
    metadata: tuple[tuple[str, str], ...]  # the relevant keys, sorted


class AnswerState(StrEnum):
    """Whether an entry may be answered from."""

    PENDING = "pending"  # known, not decided yet
    GOOD = "good"
    UNKNOWN = "unknown"  # nothing may be said (blind at zero, no good observation yet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the servicer answers for one trigger: one snapshot for GetMetrics and IsActive.

    ``integer`` is the desired count, ``double`` its encoding for the HPA (equal where nothing is
    known of the HPA).
    ``at_s`` is the decision's time; an entry older than the board's ``expiry_s`` answers
    UNAVAILABLE.
    """

    at_s: float
    state: AnswerState
    integer: int
    double: float
    active: bool
    reason: str


@dataclass(slots=True)
class Board:
    """Published entries by trigger, and the hook that makes a new trigger known.

    ``admit`` is called once for a trigger that is not on the board (it must not block or do I/O):
    the loop starts
    collecting for it.  Listeners are called after a publish with the keys whose activity turned
    true.
    """

    admit: Callable[[TriggerKey], None]
    expiry_s: float
    entries: dict[TriggerKey, Published] = field(default_factory=dict)
    _listeners: list[Callable[[Mapping[TriggerKey, Published]], None]] = field(default_factory=list)

    def look_up(self, key: TriggerKey, now_s: float) -> Published | None:
        """The entry of ``key``; None when it is unknown (then it is admitted), pending or too old."""
        entry = self.entries.get(key)
        if entry is None:
            self.admit(key)
            return None
        if entry.state is not AnswerState.GOOD or now_s - entry.at_s > self.expiry_s:
            return None
        return entry

    def publish(self, entries: Mapping[TriggerKey, Published]) -> None:
        """Replace the entries given, in one step, and tell the listeners."""
        self.entries.update(entries)
        for listener in tuple(self._listeners):
            listener(entries)

    def drop(self, key: TriggerKey) -> None:
        """Forget a trigger whose object is gone."""
        self.entries.pop(key, None)

    def listen(
        self, listener: Callable[[Mapping[TriggerKey, Published]], None]
    ) -> Callable[[], None]:
        """Call ``listener`` after each publish; the result takes it off again."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
