"""Decisions found again in a log, with all that they were made from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scaler.core.explain import headline
from scaler.core.explain_counterfactual import Basis
from scaler.core.model import Decision, Stage
from scaler.errors import ConfigError, SignalError
from scaler.ops.replay import Head, read_heads, read_logs, replay
from scaler.service.codec import DecisionRecord

NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A trigger of a log, and the times of its first and last decision."""

    namespace: str
    name: str
    id: str
    begin_s: float
    end_s: float

    @property
    def target(self) -> str:
        """As it is asked for."""
        return f"{self.namespace}/{self.name}"

    def has(self, head: Head) -> bool:
        """Whether a record is its own."""
        return (head.namespace, head.name, head.id) == (self.namespace, self.name, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A decision and what it was made from; None where the log has no state in front of it."""

    decision: Decision
    basis: Basis | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountChange:
    """A decision that wanted another count than the one before it."""

    at_s: float
    before: int
    after: int
    decided_by: Stage
    headline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What became of a count over some time: every change, with its reason."""

    from_at_s: float
    to_at_s: float
    decisions: int
    replicas_first: int
    replicas_min: int
    replicas_max: int
    changes: tuple[CountChange, ...]


def named(path: Path, target: str | None, trigger: str | None = None) -> Named:
    """The trigger of the log at ``path`` that is asked for; the only one where none is.

    Raises:
        SignalError: the log cannot be read, or has no decision.
        ConfigError: there is none, or there are several.
    """
    spans: dict[tuple[str, str, str], list[float]] = {}
    for head in read_heads(path):
        if head.at_s is not None:
            key = (head.namespace, head.name, head.id)
            span = spans.setdefault(key, [head.at_s, head.at_s])
            span[1] = head.at_s
    if not spans:
        raise SignalError(f"{path} has no decision")
    known = [
        Named(namespace=key[0], name=key[1], id=key[2], begin_s=span[0], end_s=span[1])
        for key, span in spans.items()
    ]
    found = [one for one in known if target in (None, one.target) and trigger in (None, "", one.id)]
    if len(found) != 1:
        raise ConfigError(_which(path, known, found, target))
    return found[0]


def _which(path: Path, known: list[Named], found: list[Named], target: str | None) -> str:
    if found and len({one.target for one in found}) == 1:
        ids = ", ".join(one.id for one in found)
        return f"{found[0].target} has several triggers, --trigger must be one of: {ids}"
    names = sorted({one.target for one in known})
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    listed = ", ".join(names[:NAMES_SHOWN]) + more
    if target is None:
        return f"NAMESPACE/NAME must be given, one of: {listed}"
    return f"{path} has no target {target}, must be one of: {listed}"


def moment(path: Path, whose: Named, at_s: float) -> Moment:
    """The decision that stood at ``at_s``: the last that is not after it.

    Raises:
        SignalError: the log cannot be read.
    """
    place = _Place(path, whose, at_s)
    records = read_logs(path, place.wanted)
    last = None
    for one in replay(records):
        last = one
    assert last is not None, "the time is within the log"
    decision = last.record.decision
    if last.before is None or last.policy is None:
        return Moment(decision=decision, basis=None)
    basis = Basis(
        observation=decision.observation,
        state=last.before,
        config=last.policy,
        now_s=decision.at_s,
    )
    return Moment(decision=decision, basis=basis)


class _Place:
    """Which records lead to a decision: from the last state in front of it on."""

    def __init__(self, path: Path, whose: Named, at_s: float) -> None:
        self._whose = whose
        self._at = -1
        state = self._first = 0
        self._last = 0
        for place, head in enumerate(head for head in read_heads(path) if whose.has(head)):
            if head.at_s is None:
                state = place
            elif head.at_s <= at_s:
                self._first, self._last = state, place

    def wanted(self, head: Head) -> bool:
        """Whether the next record is one of them; asked of every record, in order."""
        if not self._whose.has(head):
            return False
        self._at += 1
        return self._first <= self._at <= self._last


def window(path: Path, whose: Named, *, from_at_s: float, to_at_s: float) -> Window:
    """Every change of the wanted count in ``[from_at_s, to_at_s]``, with its reason.

    Raises:
        SignalError: the log cannot be read, or has no decision in that time.
    """
    made: list[Decision] = []
    changes: list[CountChange] = []
    counts: list[int] = []
    for decision in _decisions(path, whose, from_at_s, to_at_s):
        if made and decision.would_be != made[-1].would_be:
            changes.append(
                CountChange(
                    at_s=decision.at_s,
                    before=made[-1].would_be,
                    after=decision.would_be,
                    decided_by=decision.decided_by,
                    headline=headline(decision),
                )
            )
        made[:] = [decision]
        counts.append(decision.would_be)
    if not counts:
        raise SignalError(f"{path} has no decision of {whose.target} in that time")
    return Window(
        from_at_s=from_at_s,
        to_at_s=to_at_s,
        decisions=len(counts),
        replicas_first=counts[0],
        replicas_min=min(counts),
        replicas_max=max(counts),
        changes=tuple(changes),
    )


def _decisions(path: Path, whose: Named, from_at_s: float, to_at_s: float) -> Iterator[Decision]:
    def within(head: Head) -> bool:
        return whose.has(head) and head.at_s is not None and from_at_s <= head.at_s <= to_at_s

    for record in read_logs(path, within):
        assert isinstance(record, DecisionRecord)
        yield record.decision
