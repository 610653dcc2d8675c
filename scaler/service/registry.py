"""Which triggers there are, what target each has, and what was learned for it.

Triggers come from a watch of ScaledObjects, from the configuration, and from calls.  One task (the
loop) owns the registry; gRPC calls only ``admit`` a key they have not seen.
"""

import dataclasses
import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import structlog

from scaler.config import ScalerConfig, TargetConfig, config_hash
from scaler.core.config import FreshnessConfig, HpaConfig, PolicyConfig
from scaler.core.model import Decision, Mode
from scaler.core.policy import PolicyState
from scaler.errors import ConfigError
from scaler.service.board import TriggerKey
from scaler.service.cluster import Cluster, TriggerFacts
from scaler.signals.samples import PodRef, TargetRef
from scaler.signals.tracker import TargetTracker, TrackerSettings
from scaler.signals.turns import at_once
from scaler.trigger import Trigger, parse, relevant

log = structlog.get_logger(__name__)

ENTRIES_MAX = 20_000  # triggers kept at a time; a caller cannot make us grow beyond it
CALL_ENTRIES_MAX = 2_000  # of these, triggers known from calls alone
NO_TARGET = "target is not given and the ScaledObject is not known: set target: KIND/NAME"


class Origin(StrEnum):
    """How a trigger became known."""

    WATCH = "watch"
    CONFIG = "config"
    CALL = "call"


_RANK = {Origin.CALL: 0, Origin.CONFIG: 1, Origin.WATCH: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a decision was made from beside its observation, and what it left behind.

    Kept together with the decision, because settings and state may change before it is recorded.
    """

    before: PolicyState
    after: PolicyState
    policy: PolicyConfig
    hash: str


@dataclass(slots=True, kw_only=True)
class Entry:
    """One trigger: its settings, its target, and the state that its decisions pass on.

    ``faults`` holds what is wrong with the trigger (then it has neither target nor decision),
    ``seen_at_s`` when its origin had it last, ``basis`` what ``decision`` was made from.
    """

    key: TriggerKey
    id: str
    origin: Origin
    seen_at_s: float
    trigger: Trigger | None = None
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    hash: str = ""
    target: TargetRef | None = None
    facts: TriggerFacts | None = None
    tracker: TargetTracker = field(default_factory=lambda: TargetTracker(TrackerSettings()))
    state: PolicyState = field(default_factory=PolicyState)
    decision: Decision | None = None
    basis: Basis | None = None
    faults: tuple[str, ...] = ()
    pods: tuple[PodRef, ...] | None = None  # as the cluster last had them

    @property
    def label(self) -> str:
        """``kind/name`` of the target, for people and metrics."""
        return f"{self.target.kind}/{self.target.name}" if self.target else "unknown"

    @property
    def state_name(self) -> str:
        """``namespace/name/id``, as ``state_name`` makes it of a key alone."""
        return f"{self.key.namespace}/{self.key.name}/{self.id}"


def entry_id(key: TriggerKey) -> str:
    """Eight hexadecimal digits that tell two triggers of one object apart."""
    return hashlib.sha256(repr(key.metadata).encode()).hexdigest()[:8]


class Registry:
    """All triggers by key.  ``cluster`` is None where no Kubernetes API is used."""

    def __init__(self, config: ScalerConfig, cluster: Cluster | None) -> None:
        self.config = config
        self.cluster = cluster
        self.entries: dict[TriggerKey, Entry] = {}
        self._configured = _by_key(config)
        self._waiting: dict[TriggerKey, None] = {}
        self._saved: dict[str, PolicyState] = {}
        self._saved_until_s: float | None = None
        self._now_s = 0.0
        self._crowded = False

    def admit(self, key: TriggerKey) -> None:
        """Remember a key that a call asked for; the next ``refresh`` takes it in.  No I/O."""
        if key not in self.entries and len(self._waiting) < CALL_ENTRIES_MAX:
            self._waiting[key] = None

    def reconfigure(self, config: ScalerConfig) -> None:
        """Take new settings; what was learned is kept."""
        self.config, self._configured = config, _by_key(config)
        for entry in self.entries.values():
            self._settle(entry)

    def refresh(self, now_s: float) -> tuple[TriggerKey, ...]:
        """Bring the entries in line with the watch, the configuration and the calls.

        Returns:
            The keys that expired and were dropped.
        """
        return at_once(self.refreshing(now_s))

    def refreshing(self, now_s: float) -> Generator[None, None, tuple[TriggerKey, ...]]:
        """``refresh``, a trigger at a time: a new one costs a millisecond."""
        self._now_s = now_s
        crowded = False
        for seen in (self._see_own(now_s), self._see_calls(now_s)):
            for taken in seen:
                crowded = crowded or not taken
                yield
        if crowded and not self._crowded:
            log.warning(
                "more triggers than are kept",
                kept=len(self.entries),
                limit=ENTRIES_MAX,
                limit_of_calls_alone=CALL_ENTRIES_MAX,
            )
        self._crowded = crowded
        dropped = self._expire(now_s)
        if self.cluster is not None:
            known = self.entries.values()
            self.cluster.follow(entry.target for entry in known if entry.target is not None)
        return dropped

    def asked(self, keys: Iterable[TriggerKey], now_s: float) -> None:
        """Note that calls for these keys arrived: keeps triggers alive that only calls know.

        A key may be answered from the board and unknown here, where another daemon decided so far.
        """
        for key in keys:
            entry = self.entries.get(key)
            if entry is None:
                self.admit(key)
            elif entry.origin is Origin.CALL:
                entry.seen_at_s = now_s

    def adopt(self, states: Mapping[str, PolicyState]) -> None:
        """Continue from saved states by ``namespace/name/id``; later entries find theirs too.

        A state that nobody claims is forgotten like that of a deleted target, counted from the next
        ``refresh``.
        """
        self._saved, self._saved_until_s = dict(states), None
        for entry in self.entries.values():
            self._restore(entry)

    def states(self) -> dict[str, PolicyState]:
        """What was learned, by ``namespace/name/id``, for a checkpoint or a follower.

        States that are not claimed yet are among them: a daemon that ends before it has seen its
        targets must not forget them.
        """
        own = {entry.state_name: entry.state for entry in self.entries.values()}
        return {**self._saved, **own}

    def _see_own(self, now_s: float) -> Iterator[bool]:
        """Take in the configuration's targets and the watched triggers; False where one is not."""
        for key in self._configured:
            yield self._see(key, Origin.CONFIG, now_s) is not None
        for facts in self.cluster.triggers() if self.cluster is not None else ():
            entry = self._see(watched_key(facts), Origin.WATCH, now_s)
            if entry is not None:
                self._learn(entry, facts)
            yield entry is not None

    def _see_calls(self, now_s: float) -> Iterator[bool]:
        """Take in what calls asked for, as long as there is room for it."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        known = sum(entry.origin is Origin.CALL for entry in self.entries.values())
        for key in waiting:
            if key in self.entries:
                continue
            room = known < CALL_ENTRIES_MAX
            known += 1
            yield room and self._see(key, Origin.CALL, now_s) is not None

    def _see(self, key: TriggerKey, origin: Origin, now_s: float) -> Entry | None:
        """The entry of ``key``, made where it is new; None where there are too many."""
        entry = self.entries.get(key)
        if entry is None:
            if len(self.entries) >= ENTRIES_MAX:
                return None
            entry = Entry(key=key, id=entry_id(key), origin=origin, seen_at_s=now_s)
            self.entries[key] = entry
            self._settle(entry)
            self._restore(entry)
        if _RANK[origin] > _RANK[entry.origin]:
            entry.origin = origin
            self._settle(entry)
        if entry.origin is origin:
            entry.seen_at_s = now_s
        return entry

    def _restore(self, entry: Entry) -> None:
        saved = self._saved.pop(entry.state_name, None)
        if saved is not None:
            entry.state = saved

    def _learn(self, entry: Entry, facts: TriggerFacts) -> None:
        """Take in what the ScaledObject says; settings are derived anew only when it changed."""
        if entry.facts != facts:
            entry.facts = facts
            self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """Derive trigger, target, policy and their hash from metadata, facts and configuration."""
        entry.trigger, entry.target, entry.faults = None, None, ()
        try:
            entry.trigger = parse(dict(entry.key.metadata), self.config)
            entry.target = self._target(entry, entry.trigger)
        except ConfigError as error:
            entry.faults = error.faults
        if entry.trigger is None or entry.target is None:
            entry.decision = entry.basis = None
            entry.faults = entry.faults or (NO_TARGET,)
            return
        self._decide_by(entry, self._policy(entry, entry.trigger, entry.target))

    def _decide_by(self, entry: Entry, policy: PolicyConfig) -> None:
        """Use these settings from the next decision on; samples taken before still count."""
        entry.policy, entry.hash = policy, config_hash(policy)
        entry.tracker.settings = _tracker_settings(policy.freshness)

    def _target(self, entry: Entry, trigger: Trigger) -> TargetRef | None:
        pods = self._static_pods(entry)
        if trigger.name:
            kind, name = trigger.kind, trigger.name
        elif entry.facts is not None:
            kind, name = entry.facts.target_kind, entry.facts.target_name
        else:
            return None
        return TargetRef(
            namespace=entry.key.namespace,
            kind=kind,
            name=name,
            model_name=trigger.model_name,
            pods=pods,
            gateway_query=self._gateway_query(trigger),
        )

    def _gateway_query(self, trigger: Trigger) -> str:
        """The operator's query of the chosen profile; a trigger cannot give one."""
        profile = self.config.profiles.get(trigger.profile)
        return profile.gateway_query if profile is not None else ""

    def _static_pods(self, entry: Entry) -> tuple[PodRef, ...] | None:
        target = self._configured.get(entry.key)
        if target is None or not target.pods:
            return None
        return tuple(PodRef(name=pod.name, address=pod.host, port=pod.port) for pod in target.pods)

    def _policy(self, entry: Entry, trigger: Trigger, target: TargetRef) -> PolicyConfig:
        policy = trigger.policy
        if entry.origin is Origin.CONFIG:
            own = self._configured.get(entry.key)
            mode = own.mode if own is not None else entry.policy.mode  # taken out lately: as before
            policy = dataclasses.replace(policy, mode=Mode.ACTIVE if mode is Mode.FROZEN else mode)
        if entry.facts is not None:
            policy = dataclasses.replace(policy, hpa=_hpa(entry.facts, policy.hpa))
            if entry.facts.advisory:
                policy = dataclasses.replace(policy, mode=Mode.ADVISORY)
        if self._is_frozen(target):
            policy = dataclasses.replace(policy, mode=Mode.FROZEN)
        return policy

    def _is_frozen(self, target: TargetRef) -> bool:
        """Whether the configuration freezes a target now, whoever asks for it."""
        place = f"{target.kind}/{target.name}"
        return any(
            one.mode is Mode.FROZEN
            and (one.namespace, one.target.lower()) == (target.namespace, place)
            and not (one.frozen_until and _moment_s(one.frozen_until) <= self._now_s)
            for one in self.config.targets
        )

    def thaw(self, now_s: float) -> None:
        """End freezes whose time has come."""
        self._now_s = now_s
        for entry in self.entries.values():
            if entry.policy.mode is Mode.FROZEN and entry.trigger and entry.target:
                policy = self._policy(entry, entry.trigger, entry.target)
                if policy != entry.policy:
                    self._decide_by(entry, policy)

    def _expire(self, now_s: float) -> tuple[TriggerKey, ...]:
        limit_s = self.config.state.forget_after_s
        gone = [key for key, entry in self.entries.items() if now_s - entry.seen_at_s > limit_s]
        for key in gone:
            del self.entries[key]
        if self._saved_until_s is None:
            self._saved_until_s = now_s + limit_s
        elif now_s > self._saved_until_s:
            self._saved.clear()
        return tuple(gone)


def _moment_s(text: str) -> float:
    """A time of the configuration, which was checked when it was loaded."""
    return datetime.fromisoformat(text).timestamp()


def _tracker_settings(freshness: FreshnessConfig) -> TrackerSettings:
    return TrackerSettings(
        stale_after_s=freshness.stale_after_s,
        gpu_stale_after_s=freshness.gpu_stale_after_s,
        coverage_min_ratio=freshness.coverage_min_ratio,
    )


def watched_key(facts: TriggerFacts) -> TriggerKey:
    """The key of a watched trigger: the same as that of KEDA's calls for it."""
    return TriggerKey(
        namespace=facts.namespace, name=facts.name, metadata=relevant(dict(facts.metadata))
    )


def _by_key(config: ScalerConfig) -> dict[TriggerKey, TargetConfig]:
    """The configured targets by their keys; the first of equal ones."""
    found: dict[TriggerKey, TargetConfig] = {}
    for target in config.targets:
        found.setdefault(_configured_key(target), target)
    return found


def _configured_key(target: TargetConfig) -> TriggerKey:
    """Targets of the configuration are named after their target, which no ScaledObject can be."""
    metadata = {**target.metadata, "target": target.target}
    name = target.target.replace("/", ".")
    return TriggerKey(namespace=target.namespace, name=name, metadata=relevant(metadata))


def _hpa(facts: TriggerFacts, known: HpaConfig) -> HpaConfig:
    """Tolerances as the cluster applies them: the field is dropped below 1.35 (gate off)."""
    minor = facts.kubernetes_minor or known.kubernetes_minor
    applied = minor >= 35
    up, down = facts.tolerance_up_ratio, facts.tolerance_down_ratio
    return dataclasses.replace(
        known,
        kubernetes_minor=minor,
        tolerance_up_ratio=up if applied and up is not None else known.tolerance_up_ratio,
        tolerance_down_ratio=down if applied and down is not None else known.tolerance_down_ratio,
    )


def state_name(key: TriggerKey) -> str:
    """``namespace/name/id``: the name of a trigger's state in checkpoints and snapshots."""
    return f"{key.namespace}/{key.name}/{entry_id(key)}"
