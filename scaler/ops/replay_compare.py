"""A log decided again, against what it says: where and why the two part."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from scaler.config_models import build, nested
from scaler.config_tree import ScalerConfig
from scaler.core.config import PolicyConfig
from scaler.core.explain import step_line
from scaler.core.model import Decision, Step
from scaler.core.publish import POLICY_VERSION
from scaler.core.settings import declared
from scaler.errors import ConfigError
from scaler.ops.replay import Change, Replayed
from scaler.service.codec import DecisionRecord
from scaler.trigger import overlaid

GAP_TICKS = 3.0  # without a decision for so many ticks the log has a hole
GAPS_SHOWN = 5
# In the order in which a decision is made, so that the first field that differs is the reason.
_FLOW = (
    "observation", "demand", "capacity", "forecast", "proposals", "blind", "steps", "verdict",
    "would_be", "replicas_desired", "decided_by", "active", "encoded", "mode",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where two decisions of one instant part: the first field of the flow that is not the same.

    ``path`` names it (``forecast.load_mean``); ``stage`` is the first step that differs, empty
    where all steps are the same; ``why_*`` are the last steps in words.
    """

    at_s: float
    path: str
    logged: str
    again: str
    stage: str
    replicas_logged: int
    replicas_again: int
    why_logged: str
    why_again: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A time in which the log has no decision of a target."""

    from_at_s: float
    to_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetComparison:
    """One trigger's decisions, logged and made again.

    ``same`` of ``decisions`` are equal bit by bit, ``undecided`` follow no state of the log, and
    ``differ`` ask for another count; ``first`` is the first that is not equal, ``first_count`` the
    first of another count.  Replica-hours are those of the counts asked for; a gap has none.
    """

    namespace: str
    name: str
    id: str
    decisions: int = 0
    same: int = 0
    undecided: int = 0
    differ: int = 0
    largest: int = 0
    replica_hours_more: float = 0.0
    replica_hours_fewer: float = 0.0
    first: Difference | None = None
    first_count: Difference | None = None
    gaps: int = 0
    gap_longest: Gap | None = None
    versions: tuple[str, ...] = ()


class Comparison:
    """Takes a replay in and sums it up, target by target."""

    def __init__(self) -> None:
        self._targets: dict[tuple[str, str, str], _Sum] = {}

    def add(self, one: Replayed) -> None:
        """Take in a decision."""
        record = one.record
        key = (record.namespace, record.name, record.id)
        found = self._targets.get(key)
        if found is None:
            found = self._targets[key] = _Sum(record)
        found.add(one)

    @property
    def targets(self) -> tuple[TargetComparison, ...]:
        """What it came to, in the order in which the targets appear."""
        return tuple(found.made() for found in self._targets.values())


class _Sum:
    """The running sums of one target."""

    def __init__(self, record: DecisionRecord) -> None:
        self._record = record
        self._counts = dict.fromkeys(("decisions", "same", "undecided", "differ", "largest"), 0)
        self._more = self._fewer = 0.0
        self._first: Difference | None = None
        self._first_count: Difference | None = None
        self._gaps = 0
        self._gap: Gap | None = None
        self._last_s: float | None = None
        self._versions: dict[str, None] = {}

    def add(self, one: Replayed) -> None:
        logged = one.record.decision
        tick_s = (one.policy or PolicyConfig()).tick_s
        self._versions[logged.policy_version] = None
        span_s = self._span(logged.at_s, tick_s)
        self._counts["decisions"] += 1
        if one.again is None:
            self._counts["undecided"] += 1
            return
        if one.same:
            self._counts["same"] += 1
            return
        apart = one.again.would_be - logged.would_be
        if self._first is None:
            self._first = difference(logged, one.again)
        if apart == 0:
            return
        self._first_count = self._first_count or difference(logged, one.again)
        self._counts["differ"] += 1
        self._counts["largest"] = max(self._counts["largest"], abs(apart))
        self._more += max(apart, 0) * span_s / 3600.0
        self._fewer += max(-apart, 0) * span_s / 3600.0

    def _span(self, at_s: float, tick_s: float) -> float:
        """How long the decision stands: since the last one, or a tick after a gap."""
        since_s = tick_s if self._last_s is None else at_s - self._last_s
        if since_s > GAP_TICKS * tick_s:
            assert self._last_s is not None
            self._gaps += 1
            if self._gap is None or since_s > self._gap.to_at_s - self._gap.from_at_s:
                self._gap = Gap(from_at_s=self._last_s, to_at_s=at_s)
            since_s = tick_s
        self._last_s = at_s
        return max(since_s, 0.0)

    def made(self) -> TargetComparison:
        return TargetComparison(
            namespace=self._record.namespace,
            name=self._record.name,
            id=self._record.id,
            decisions=self._counts["decisions"],
            same=self._counts["same"],
            undecided=self._counts["undecided"],
            differ=self._counts["differ"],
            largest=self._counts["largest"],
            replica_hours_more=self._more,
            replica_hours_fewer=self._fewer,
            first=self._first,
            first_count=self._first_count,
            gaps=self._gaps,
            gap_longest=self._gap,
            versions=tuple(self._versions),
        )


def difference(logged: Decision, again: Decision) -> Difference:
    """Where two unequal decisions part first, in the order in which a decision is made.

    What is not of the flow (the time, the policy's version) is looked at last.
    """
    order = (*_FLOW, *(item.name for item in fields(Decision) if item.name not in _FLOW))
    for name in order:
        found = _first(getattr(logged, name), getattr(again, name), name)
        if found is not None:
            break
    else:
        raise AssertionError("the decisions are equal")
    path, was, is_ = found
    return Difference(
        at_s=logged.at_s,
        path=path,
        logged=_short(was),
        again=_short(is_),
        stage=_stage(logged.steps, again.steps),
        replicas_logged=logged.would_be,
        replicas_again=again.would_be,
        why_logged=_why(logged),
        why_again=_why(again),
    )


def _why(decision: Decision) -> str:
    return " ".join(step_line(decision.steps[-1]).split()[1:])


def _first(one: Any, other: Any, path: str) -> tuple[str, Any, Any] | None:
    """The path and the two values of the first leaf that differs; None where none does."""
    if one == other:
        return None
    if type(one) is type(other) and is_dataclass(one):
        for item in fields(one):
            inner = getattr(one, item.name), getattr(other, item.name)
            if (found := _first(*inner, f"{path}.{item.name}")) is not None:
                return found
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        for place, inner in enumerate(zip(one, other, strict=True)):
            if (found := _first(*inner, f"{path}{_place(inner[0], place)}")) is not None:
                return found
    return path, one, other


def _place(item: Any, place: int) -> str:
    """What stands at a place is named by what it is: a signal, a stage, a term."""
    name = getattr(item, "signal", getattr(item, "stage", None))
    if name is None and isinstance(item, tuple) and item and isinstance(item[0], str):
        name = item[0]
    return f"[{place if name is None else name}]"


def _stage(logged: Sequence[Step], again: Sequence[Step]) -> str:
    for one, other in zip(logged, again, strict=False):
        if one != other:
            return other.stage.value
    longer = logged if len(logged) > len(again) else again
    return longer[min(len(logged), len(again))].stage.value if len(logged) != len(again) else ""


def _short(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return f"{len(value)} of {type(value[0]).__name__}"
    return str(value)


def settings_change(given: Sequence[str]) -> Change | None:
    """What KEY=VALUE texts make of a policy; None where there are none.

    A key is the setting's path (``hold_down.window_s``) or its key in a trigger's metadata; every
    setting of the policy may be given, also those that only an operator may set.

    Raises:
        ConfigError: with every fault, each naming the key, the value and what is allowed.
    """
    paths = {item.path: item.path for item in declared(PolicyConfig())}
    paths |= {item.metadata_key: item.path for item in declared(PolicyConfig())}
    faults: list[str] = []
    values: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            faults.append(f"--set {text!r}, must be KEY=VALUE")
        elif key not in paths:
            near = difflib.get_close_matches(key, paths, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else "see `scaler serve --print-config`"
            faults.append(f"--set: unknown key {key!r}; {hint}")
        else:
            values[paths[key]] = _typed(key, paths[key], value, faults)
    if faults:
        raise ConfigError(*faults)
    if not values:
        return None
    return lambda policy: overlaid(ScalerConfig(policy=policy), "", values)


def _typed(key: str, path: str, text: str, faults: list[str]) -> Any:
    found: list[str] = []
    made: Any = build(PolicyConfig, nested({path: text.strip()}), found)
    if made is None:
        allowed = found[0].split(", must be ", 1)[-1]
        faults.append(f"{key} = {text!r}, must be {allowed}")
        return None
    for part in path.split("."):
        made = getattr(made, part)
    return made


def other_versions(targets: Iterable[TargetComparison]) -> tuple[str, ...]:
    """Versions of the policy in the log that are not this one."""
    found = {version for target in targets for version in target.versions}
    return tuple(sorted(found - {POLICY_VERSION}))
