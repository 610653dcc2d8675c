"""The loop: observe, decide, publish, at its own pace.  One task owns all state.

Calls are answered from the board and never wait for the loop; a fault of one target never stops
another.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import structlog

from scaler.core.model import Cause, Decision, NoData, Observation, Replicas, Verdict
from scaler.core.policy import decide
from scaler.service.board import AnswerState, Board, Published, TriggerKey
from scaler.service.clock import Clock
from scaler.service.cluster import Cluster
from scaler.service.registry import Basis, Entry, Registry
from scaler.signals.kube.records import TargetState
from scaler.signals.samples import PodSample, Source, TargetRef, TargetSamples
from scaler.signals.turns import Turns, age, in_turns

log = structlog.get_logger(__name__)

AGE_EVERY = 8  # targets, whose new states are some 2,000 objects
UNDECIDED = "no good observation yet"
COLLECT_MAX_S = 90.0  # beyond every source's own limit: one that keeps none must not end all ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """One tick, for records, metrics and followers.  ``changed`` lists entries with news."""

    at_s: float
    tick: int
    duration_s: float
    decide_s: float
    entries: tuple[Entry, ...]
    changed: tuple[Entry, ...]
    dropped: tuple[TriggerKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """An entry with its target as the cluster knows it in this tick.

    ``state`` is None where no Kubernetes API is used, ``target`` where the entry has none.
    """

    entry: Entry
    target: TargetRef | None
    state: TargetState | NoData | None


class Sink(Protocol):
    """Something that takes in every tick: metrics, decision log, events, followers."""

    def take(self, report: TickReport) -> None:
        """Take in one tick; must be quick and must not raise."""
        ...


@runtime_checkable
class SlowSink(Sink, Protocol):
    """A sink with something to do for every target."""

    def taking(self, report: TickReport) -> Generator[None]:
        """Take in one tick a step at a time: calls are answered between two of them."""
        ...


@dataclass(slots=True, kw_only=True)
class Loop:
    """Ticks over every entry of the registry while ``leads`` says so.

    ``turned_at_s`` is when it last began or passed over a tick: a loop that hangs is seen by it.
    """

    registry: Registry
    source: Source
    cluster: Cluster | None
    board: Board
    clock: Clock
    sinks: Sequence[Sink] = ()
    leads: Callable[[], bool] = lambda: True
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    tick_number: int = 0
    turned_at_s: float = float("-inf")
    collect_max_s: float = COLLECT_MAX_S
    _stopping: bool = False

    async def run(self) -> None:
        """Tick until stopped.  A tick that fails is logged and the next one tried."""
        while not self._stopping:
            began_s = self.turned_at_s = self.clock.now_s()
            if self.leads():
                await self._guarded_tick()
            rest_s = self.registry.config.policy.tick_s - (self.clock.now_s() - began_s)
            await self.sleep(max(rest_s, 0.0))

    def stop(self) -> None:
        """End after the present tick."""
        self._stopping = True

    async def _guarded_tick(self) -> None:
        """A tick whose failure is logged: entries then expire and answer UNAVAILABLE."""
        try:
            await self.tick()
        except asyncio.CancelledError:
            raise
        except Exception:  # a defect costs this tick, not the loop: the next one may succeed
            log.exception("tick failed")

    async def tick(self) -> TickReport:
        """Observe and decide once for every entry, then publish all in one step."""
        began_s = self.clock.now_s()
        self.tick_number += 1
        self.registry.asked(self.board.take_asked(), began_s)
        dropped = await in_turns(self.registry.refreshing(began_s))
        self.registry.thaw(began_s)
        views = await self._views()
        samples = await self._collect(views, began_s)
        now_s = self.clock.now_s()
        published: dict[TriggerKey, Published] = {}
        changed: list[Entry] = []
        turns = Turns()
        for place, view in enumerate(views):
            await turns.rest()
            before = view.entry.decision
            published[view.entry.key] = self._decide(view, samples, now_s)
            if _differs(before, view.entry.decision):
                changed.append(view.entry)
            if place % AGE_EVERY == 0:
                age()
        decided_s = self.clock.now_s()
        report = TickReport(
            at_s=now_s,
            tick=self.tick_number,
            duration_s=decided_s - began_s,
            decide_s=decided_s - now_s,
            entries=tuple(view.entry for view in views),
            changed=tuple(changed),
            dropped=dropped,
        )
        if self.leads():  # else it was lost while collecting, and another daemon decides
            await self._publish(published, report)
        return report

    async def _collect(self, views: Sequence[View], now_s: float) -> Mapping[str, TargetSamples]:
        """Samples of every target, once where several triggers share one."""
        targets: dict[str, TargetRef] = {}
        for target in (view.target for view in views if view.target is not None):
            if target.gateway_query or target.key not in targets:  # any profile may bring a query
                targets[target.key] = target
        if not targets:
            return {}
        async with asyncio.timeout(self.collect_max_s):
            return await self.source.collect(tuple(targets.values()), now_s)

    async def _views(self) -> list[View]:
        """The view of every entry."""
        turns, views = Turns(), []
        for entry in tuple(self.registry.entries.values()):
            await turns.rest()
            views.append(self._view(entry))
        return views

    async def _publish(self, published: Mapping[TriggerKey, Published], report: TickReport) -> None:
        self.board.publish(published)
        for key in report.dropped:
            self.board.drop(key)
        for sink in self.sinks:
            await asyncio.sleep(0)
            if isinstance(sink, SlowSink):
                await in_turns(sink.taking(report))
            else:
                sink.take(report)

    def _view(self, entry: Entry) -> View:
        """The target of an entry with its pods, as the cluster knows them now."""
        target = entry.target
        if target is None:
            return View(entry=entry, target=None, state=None)
        if self.cluster is None:
            return View(entry=entry, target=target, state=None)
        state = self.cluster.target(target, since_s=_last_seen_s(entry))
        if isinstance(state, TargetState):
            entry.pods = state.target.pods
        if entry.pods is not None:  # the last known ones while the API is away: they still serve
            target = dataclasses.replace(target, pods=entry.pods)
        return View(entry=entry, target=target, state=state)

    def _decide(self, view: View, samples: Mapping[str, TargetSamples], now_s: float) -> Published:
        """Decide for one entry; a fault of the program concerns this entry alone."""
        entry = view.entry
        if view.target is None or view.target.key not in samples:
            return _unknown(now_s, "; ".join(entry.faults) or UNDECIDED)
        try:
            observation = observe(view, samples[view.target.key], now_s)
            decision, after = decide(observation, entry.state, entry.policy, now_s)
            answer = as_published(decision)
        except Exception:  # a defect met here must not keep the other targets undecided
            log.exception("decision failed", target=entry.label, namespace=entry.key.namespace)
            return _unknown(now_s, "the decision failed, see the daemon's log")
        entry.basis = Basis(before=entry.state, after=after, policy=entry.policy, hash=entry.hash)
        entry.decision, entry.state = decision, after
        return answer


def _last_seen_s(entry: Entry) -> float:
    """When the replicas of an entry were last observed, so that each start is learned once."""
    replicas = entry.decision.observation.replicas if entry.decision else None
    return replicas.seen_at_s if isinstance(replicas, Replicas) else float("-inf")


def observe(view: View, samples: TargetSamples, now_s: float) -> Observation:
    """Everything measured of one target, with the limits of its ScaledObject."""
    replicas, key = _replicas(view, samples, now_s), ""
    if isinstance(view.state, TargetState):
        key = view.state.capacity_key
    facts = view.entry.facts
    if facts is not None and isinstance(replicas, Replicas):
        replicas = dataclasses.replace(
            replicas, replicas_min=facts.replicas_min, replicas_max=facts.replicas_max
        )
    observation = view.entry.tracker.observe(samples, replicas, now_s)
    return dataclasses.replace(observation, capacity_key=key) if key else observation


def _replicas(view: View, samples: TargetSamples, now_s: float) -> Replicas | NoData:
    """Replicas from the cluster; counted from the pods seen where no Kubernetes API is used."""
    if isinstance(view.state, TargetState):
        return view.state.replicas
    if view.state is not None:
        return view.state
    seen = sum(isinstance(sample, PodSample) for sample in samples.pods.values())
    if seen == 0:
        return NoData(cause=Cause.EMPTY, detail="no pod answered, and no Kubernetes API is used")
    return Replicas(seen_at_s=now_s, wanted=seen, current=seen, ready=seen, inferred=True)


def _differs(before: Decision | None, after: Decision | None) -> bool:
    """Whether an operator would call it news: count, verdict or activity changed."""
    if before is None or after is None:
        return before is not after
    return (before.would_be, before.replicas_desired, before.verdict, before.active) != (
        after.would_be,
        after.replicas_desired,
        after.verdict,
        after.active,
    )


def as_published(decision: Decision) -> Published:
    """What the board says of a decision.  A count above zero is always active."""
    if decision.verdict is Verdict.UNKNOWN:
        causes = ", ".join(f"{item.signal}: {item.cause} {item.detail}" for item in decision.blind)
        return _unknown(decision.at_s, f"no good observation ({causes})")
    return Published(
        at_s=decision.at_s,
        state=AnswerState.GOOD,
        integer=decision.replicas_desired,
        double=decision.encoded,
        active=decision.active or decision.replicas_desired > 0,
        reason=decision.decided_by.value,
    )


def _unknown(at_s: float, reason: str) -> Published:
    return Published(
        at_s=at_s, state=AnswerState.UNKNOWN, integer=0, double=0.0, active=False, reason=reason
    )
