"""The board: the last published answer of every trigger.

One task writes it; gRPC calls only read it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

METRIC_NAME = "vllm-desired-replicas"
TARGET_SIZE = 1  # the published value is a replica count; anything else only loses resolution
REPLICAS_MAX = 2**31 - 1  # int32, the type of replica counts in Kubernetes
ASKED_MAX = 50_000  # distinct keys noted between two takings; more is not KEDA calling


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerKey:
    """Identity of a trigger: two triggers of one ScaledObject are told apart by metadata alone."""

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
    known of the HPA).  ``at_s`` is the decision's time; an entry older than the board's
    ``expiry_s`` is not answered from.

    Raises:
        AssertionError: for an answer that some version of KEDA would read as another count.
    """

    at_s: float
    state: AnswerState
    integer: int
    double: float
    active: bool
    reason: str

    def __post_init__(self) -> None:
        """Hold what KEDA's reading of the two fields demands; only good entries are read."""
        if self.state is not AnswerState.GOOD:
            return
        assert 0 <= self.integer <= REPLICAS_MAX, f"integer = {self.integer}, not a replica count"
        assert 0.0 <= self.double <= REPLICAS_MAX, f"double = {self.double}, not a replica count"
        # KEDA reads a double of zero as unset and falls back to the integer.
        assert (self.integer == 0) == (self.double == 0.0), f"{self.integer} beside {self.double}"
        assert self.active or self.integer == 0, (
            "replicas wanted of an inactive target: KEDA says 0"
        )
        # KEDA up to 2.19 cuts to thousandths, later ones round: both must land the HPA alike.
        cut, rounded = int(self.double * 1000), round(self.double * 1000)
        meant = math.ceil(self.double)
        assert math.ceil(cut / 1000) == meant == math.ceil(rounded / 1000), (
            f"double = {self.double}, lands elsewhere in thousandths"
        )


class Silence(StrEnum):
    """Why there is no answer."""

    UNKNOWN_TRIGGER = "unknown_trigger"
    PENDING = "pending"
    UNKNOWN = "unknown"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """Nothing may be answered; ``age_s`` and ``reason`` are those of the entry."""

    silence: Silence
    age_s: float = 0.0
    reason: str = ""


Listener = Callable[[Mapping[TriggerKey, Published]], None]


@dataclass(slots=True)
class Board:
    """Published entries by trigger, and the hook that makes a new trigger known.

    ``admit`` is called at each look-up of a trigger that is not on the board, so it must be cheap,
    free of I/O and harmless when repeated: the loop starts collecting for the trigger.
    Everything happens in the thread of the event loop.
    """

    admit: Callable[[TriggerKey], None]
    expiry_s: float
    entries: dict[TriggerKey, Published] = field(default_factory=dict)
    _listeners: list[Listener] = field(default_factory=list)
    _asked: set[TriggerKey] = field(default_factory=set)

    def look_up(self, key: TriggerKey, now_s: float) -> Published | NoAnswer:
        """The entry of ``key`` where it may be answered from, else why not."""
        self.note(key)
        entry = self.entries.get(key)
        if entry is None:
            return NoAnswer(silence=Silence.UNKNOWN_TRIGGER)
        age_s = now_s - entry.at_s
        if age_s > self.expiry_s:
            return NoAnswer(silence=Silence.EXPIRED, age_s=age_s, reason=entry.reason)
        if entry.state is AnswerState.GOOD:
            return entry
        waiting = entry.state is AnswerState.PENDING
        silence = Silence.PENDING if waiting else Silence.UNKNOWN
        return NoAnswer(silence=silence, age_s=age_s, reason=entry.reason)

    def note(self, key: TriggerKey) -> None:
        """Somebody asks for ``key``: it is admitted where unknown, and kept alive."""
        if len(self._asked) < ASKED_MAX:
            self._asked.add(key)
        if key not in self.entries:
            self.admit(key)

    def take_asked(self) -> frozenset[TriggerKey]:
        """The keys asked for since the last taking: they are in use."""
        asked = frozenset(self._asked)
        self._asked.clear()
        return asked

    def publish(self, entries: Mapping[TriggerKey, Published]) -> None:
        """Replace the entries given, in one step, and hand them to the listeners."""
        self.entries.update(entries)
        for listener in tuple(self._listeners):
            listener(entries)

    def drop(self, key: TriggerKey) -> None:
        """Forget a trigger whose object is gone."""
        self.entries.pop(key, None)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with the entries of each publish; the result takes it off again."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
