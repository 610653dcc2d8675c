"""What an operator must know: a log line when a decision changes, events for the rest."""

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from scaler.core.explain import headline
from scaler.core.model import Decision, Mode, NoData, Verdict
from scaler.service.board import TriggerKey
from scaler.service.events import EventReason, Subject
from scaler.service.loop import TickReport
from scaler.service.registry import Entry
from scaler.signals.turns import at_once

log = structlog.get_logger("scaler.decision")

_BLIND = (Verdict.HELD, Verdict.FLOORED, Verdict.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Condition:
    """What was last said of a trigger, so that only changes are said."""

    blind: bool
    waiting: float  # requests
    at_max: bool  # and the queue has grown there
    unschedulable: bool
    forecast_used: bool | None  # None until a forecast has been used once
    mode: Mode | None  # None before the first decision
    faults: tuple[str, ...]


_NOTHING_SAID = _Condition(
    blind=False, waiting=math.inf, at_max=False, unschedulable=False, forecast_used=None,
    mode=None, faults=(),
)  # fmt: skip


class Emitter(Protocol):
    """Where events go: ``EventWriter``."""

    def emit(self, subject: Subject, reason: EventReason, message: str) -> bool:
        """Say something of an object; never waits and never raises."""
        ...


class News:
    """Compares each tick with the last and says what is new.  ``events`` is None without an API."""

    def __init__(self, events: Emitter | None) -> None:
        self._events = events
        self._last: dict[TriggerKey, _Condition] = {}

    def take(self, report: TickReport) -> None:
        """Say what changed in one tick."""
        at_once(self.taking(report))

    def taking(self, report: TickReport) -> Generator[None]:
        """``take``, a trigger at a time."""
        for entry in report.changed:
            yield
            if entry.decision is not None:
                log.info(
                    headline(entry.decision),
                    namespace=entry.key.namespace,
                    target=entry.label,
                    replicas=entry.decision.would_be,
                    by=entry.decision.decided_by.value,
                    mode=entry.policy.mode.value,
                )
        for entry in report.entries:
            yield
            self._compare(entry)
        for key in report.dropped:
            self._last.pop(key, None)

    def _compare(self, entry: Entry) -> None:
        before = self._last.get(entry.key, _NOTHING_SAID)
        now = self._last[entry.key] = _condition(entry, before)
        if now.faults and before.faults != now.faults:
            log.warning("trigger cannot be used", name=entry.key.name, faults=list(now.faults))
            self._emit(entry, EventReason.BAD_METADATA, "; ".join(now.faults))
        decision = entry.decision
        if decision is None:
            return
        where = {"target": entry.label, "namespace": entry.key.namespace}
        if now.blind and not before.blind:
            causes = _causes(decision)
            log.warning("blind", **where, causes=causes)
            self._emit(entry, EventReason.BLIND, f"No data on the load, count is held: {causes}")
        if before.blind and not now.blind:
            log.info("sees again", **where)
            self._emit(entry, EventReason.RECOVERED, "The load can be seen again")
        self._compare_conditions(entry, before, now)

    def _compare_conditions(self, entry: Entry, before: _Condition, now: _Condition) -> None:
        if now.at_max and not before.at_max:
            message = "At maxReplicaCount while the queue grows: raise the maximum or shed load"
            self._emit(entry, EventReason.AT_MAX, message)
        if now.unschedulable and not before.unschedulable:
            self._emit(entry, EventReason.UNSCHEDULABLE, _shortage(entry))
        if now.forecast_used is not before.forecast_used and before.forecast_used is not None:
            reason = EventReason.FORECAST_RESUMED
            message = "The forecast is better than the last value again"
            if before.forecast_used:
                reason = EventReason.FORECAST_DROPPED
                message = "The forecast is no better than the last value and is not used"
            log.info(message, target=entry.label, namespace=entry.key.namespace)
            self._emit(entry, reason, message)
        if now.mode is not before.mode and before.mode is not None:
            self._emit(entry, EventReason.MODE_CHANGED, f"Mode is now {now.mode}")

    def _emit(self, entry: Entry, reason: EventReason, message: str) -> None:
        """Write an event on the ScaledObject; targets without one have only the log."""
        if self._events is None or entry.facts is None or not entry.facts.uid:
            return
        subject = Subject(
            api_version="keda.sh/v1alpha1",
            kind="ScaledObject",
            namespace=entry.key.namespace,
            name=entry.key.name,
            uid=entry.facts.uid,
        )
        self._events.emit(subject, reason, message)


def _condition(entry: Entry, before: _Condition) -> _Condition:
    """The condition now; what cannot be seen stays as it was."""
    decision = entry.decision
    if decision is None:
        return replace(before, faults=entry.faults)
    seen = decision.observation
    now = replace(
        before,
        blind=decision.verdict in _BLIND,
        forecast_used=_forecast_used(decision, before),
        mode=entry.policy.mode,
        faults=entry.faults,
    )
    if not isinstance(seen.replicas, NoData):
        now = replace(now, unschedulable=seen.replicas.unschedulable > 0)
    if isinstance(seen.replicas, NoData) or isinstance(seen.queue, NoData):
        return now
    waiting, limit = seen.queue.requests_waiting, seen.replicas.replicas_max
    full = limit is not None and decision.would_be >= limit and waiting > 0.0
    return replace(
        now, waiting=waiting, at_max=full and (before.at_max or waiting > before.waiting)
    )


def _forecast_used(decision: Decision, before: _Condition) -> bool | None:
    """Whether the forecast is used; one that has not earned it yet is no news."""
    if decision.forecast is None:
        return before.forecast_used
    return decision.forecast.used or (None if before.forecast_used is None else False)


def _causes(decision: Decision) -> str:
    """Each cause of blindness once, in the words of the source."""
    seen = dict.fromkeys(f"{item.cause}: {item.detail}" for item in decision.blind)
    return "; ".join(list(seen)[:3])


def _shortage(entry: Entry) -> str:
    """GPUs wanted against allocatable, for replicas that cannot be scheduled."""
    decision = entry.decision
    replicas = decision.observation.replicas if decision else None
    if decision is None or replicas is None or isinstance(replicas, NoData):
        return "Replicas cannot be scheduled"
    wanted = decision.would_be * replicas.gpus_per_replica
    allocatable = replicas.gpus_allocatable
    known = "unknown" if allocatable is None else str(allocatable)
    return (
        f"{replicas.unschedulable} replicas cannot be scheduled: "
        f"{wanted} GPUs wanted, {known} allocatable"
    )
