"""Which triggers there are, what target each has, and what was learned for it.

Triggers come from a watch of ScaledObjects, from the configuration, and from calls.  One task (the
loop) owns the registry; gRPC calls only ``admit`` a key they have not seen.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from scaler.config import ScalerConfig, TargetConfig, config_hash
from scaler.core.config import FreshnessConfig, HpaConfig, PolicyConfig
from scaler.core.model import Decision, Mode
from scaler.core.policy import PolicyState
from scaler.errors import ConfigError
from scaler.service.board import TriggerKey
from scaler.service.cluster import Cluster, TriggerFacts
from scaler.signals.samples import PodRef, TargetRef
from scaler.signals.tracker import TargetTracker, TrackerSettings
from scaler.trigger import Trigger, parse, relevant

ENTRIES_MAX = 20_000  # triggers kept at a time; a caller cannot make us grow beyond it
CALL_ENTRIES_MAX = 2_000  # of these, triggers known from calls alone


class Origin(StrEnum):
    """How a trigger became known."""

    WATCH = "watch"
    CONFIG = "config"
    CALL = "call"


@dataclass(slots=True, kw_only=True)
class Entry:
    """One trigger: its settings, its target, and the state that its decisions pass on.

    ``faults`` holds what is wrong with the trigger (then it has no decision), ``seen_at_s`` when
    its origin had it last.
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
    faults: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """``kind/name`` of the target, for people and metrics."""
        return f"{self.target.kind}/{self.target.name}" if self.target else "unknown"


def entry_id(key: TriggerKey) -> str:
    """Eight hexadecimal digits that tell two triggers of one object apart."""
    return hashlib.sha256(repr(key.metadata).encode()).hexdigest()[:8]


class Registry:
    """All triggers by key.  ``cluster`` is None where no Kubernetes API is used."""

    def __init__(self, config: ScalerConfig, cluster: Cluster | None) -> None:
        self.config = config
        self.cluster = cluster
        self.entries: dict[TriggerKey, Entry] = {}
        self._waiting: dict[TriggerKey, None] = {}
        self._saved: dict[str, PolicyState] = {}

    def admit(self, key: TriggerKey) -> None:
        """Remember a key that a call asked for; the next ``refresh`` takes it in.  No I/O."""
        if key not in self.entries and len(self._waiting) < CALL_ENTRIES_MAX:
            self._waiting[key] = None

    def reconfigure(self, config: ScalerConfig) -> None:
        """Take new settings; what was learned is kept."""
        self.config = config
        for entry in self.entries.values():
            self._settle(entry)

    def refresh(self, now_s: float) -> tuple[TriggerKey, ...]:
        """Bring the entries in line with the watch, the configuration and the calls.

        Returns:
            The keys that expired and were dropped.
        """
        for target in self.config.targets:
            self._see(_configured_key(target), Origin.CONFIG, now_s)
        if self.cluster is not None:
            for facts in self.cluster.triggers():
                key = watched_key(facts)
                self._see(key, Origin.WATCH, now_s)
                self._learn(self.entries[key], facts)
        for key in tuple(self._waiting):
            self._see(key, Origin.CALL, now_s)
        self._waiting.clear()
        dropped = self._expire(now_s)
        if self.cluster is not None:
            known = self.entries.values()
            self.cluster.follow(entry.target for entry in known if entry.target is not None)
        return dropped

    def asked(self, keys: Iterable[TriggerKey], now_s: float) -> None:
        """Note that calls for these keys arrived: keeps triggers alive that only calls know."""
        for key in keys:
            entry = self.entries.get(key)
            if entry is not None and entry.origin is Origin.CALL:
                entry.seen_at_s = now_s

    def adopt(self, states: Mapping[str, PolicyState]) -> None:
        """Continue from saved states by ``namespace/name/id``; later entries find theirs too."""
        self._saved = dict(states)
        for entry in self.entries.values():
            self._restore(entry)

    def states(self) -> dict[str, PolicyState]:
        """What was learned, by ``namespace/name/id``, for a checkpoint or a follower."""
        return {state_name(entry.key): entry.state for entry in self.entries.values()}

    def _see(self, key: TriggerKey, origin: Origin, now_s: float) -> None:
        entry = self.entries.get(key)
        if entry is None:
            if len(self.entries) >= ENTRIES_MAX:
                return
            entry = Entry(key=key, id=entry_id(key), origin=origin, seen_at_s=now_s)
            self.entries[key] = entry
            self._settle(entry)
            self._restore(entry)
        if origin is Origin.WATCH or entry.origin is origin:
            entry.origin, entry.seen_at_s = origin, now_s

    def _restore(self, entry: Entry) -> None:
        saved = self._saved.get(state_name(entry.key))
        if saved is not None:
            entry.state = saved

    def _learn(self, entry: Entry, facts: TriggerFacts) -> None:
        """Take in what the ScaledObject says; settings are derived anew only when it changed."""
        if entry.facts != facts:
            entry.facts = facts
            self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """Derive trigger, target, policy and their hash from metadata, facts and configuration."""
        try:
            entry.trigger = parse(dict(entry.key.metadata), self.config)
        except ConfigError as error:
            entry.trigger, entry.faults = None, error.faults
            return
        entry.faults = ()
        entry.target = self._target(entry, entry.trigger)
        if entry.target is None:
            entry.faults = (
                "target is not given and the ScaledObject is not known: set target: KIND/NAME",
            )
        entry.policy = self._policy(entry, entry.trigger)
        entry.hash = config_hash(entry.policy)
        settings = _tracker_settings(entry.policy.freshness)
        if entry.tracker.settings != settings:
            entry.tracker = TargetTracker(settings)

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
        target = self._configured(entry)
        if target is None or not target.pods:
            return None
        return tuple(PodRef(name=pod.name, address=pod.host, port=pod.port) for pod in target.pods)

    def _configured(self, entry: Entry) -> TargetConfig | None:
        for target in self.config.targets:
            if _configured_key(target) == entry.key:
                return target
        return None

    def _policy(self, entry: Entry, trigger: Trigger) -> PolicyConfig:
        policy = trigger.policy
        target = self._configured(entry)
        if target is not None and entry.origin is Origin.CONFIG:
            policy = dataclasses.replace(policy, mode=target.mode)
        if entry.facts is not None:
            policy = dataclasses.replace(policy, hpa=_hpa(entry.facts, policy.hpa))
            if entry.facts.advisory:
                policy = dataclasses.replace(policy, mode=Mode.ADVISORY)
        return policy

    def thaw(self, now_s: float) -> None:
        """End freezes whose time has come."""
        for entry in self.entries.values():
            target = self._configured(entry) if entry.policy.mode is Mode.FROZEN else None
            if target is None or not target.frozen_until:
                continue
            if datetime.fromisoformat(target.frozen_until).timestamp() <= now_s:
                entry.policy = dataclasses.replace(entry.policy, mode=Mode.ACTIVE)
                entry.hash = config_hash(entry.policy)

    def _expire(self, now_s: float) -> tuple[TriggerKey, ...]:
        limit_s = self.config.state.forget_after_s
        gone = [key for key, entry in self.entries.items() if now_s - entry.seen_at_s > limit_s]
        for key in gone:
            del self.entries[key]
        return tuple(gone)


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
