"""Small real stand-ins: a source and a cluster in memory, numbers of a fleet, time by hand."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scaler.config import ScalerConfig, from_tree
from scaler.core.model import Cause, NoData, Replicas
from scaler.service.board import Board, TriggerKey
from scaler.service.cluster import TriggerFacts
from scaler.service.loop import Loop
from scaler.service.registry import Entry, Registry
from scaler.signals.kube.records import TargetState
from scaler.signals.samples import PodRef, PodSample, TargetRef, TargetSamples
from scaler.trigger import relevant

START_S = 1_800_000_000.0
NAMESPACE = "llm"
MODEL = "m"


@dataclass(slots=True)
class HandClock:
    """Stands still until a test, or a sleep, moves it."""

    at_s: float = START_S

    def now_s(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        """Time passes at once, and others get their turn."""
        self.at_s += seconds
        await asyncio.sleep(0)


@dataclass(slots=True)
class Fleet:
    """What the pods of one target report; ``fault`` is set while nothing can be read of it."""

    pods: int = 2
    requests_per_s: float = 1.0
    running: float = 4.0
    waiting: float = 0.0
    finished: float = 0.0
    fault: NoData | None = None
    gateway: float | None = None

    def samples(self, target: TargetRef, now_s: float, elapsed_s: float) -> TargetSamples:
        self.finished += self.requests_per_s * elapsed_s / max(self.pods, 1)
        if self.fault is not None:
            return TargetSamples(target=target, at_s=now_s, failure=self.fault)
        pods = {f"{target.name}-{place}": self._pod(place, now_s) for place in range(self.pods)}
        named = {name: replace(pod, pod=name) for name, pod in pods.items()}
        return TargetSamples(target=target, at_s=now_s, pods=named, gateway_requests=self.gateway)

    def _pod(self, place: int, now_s: float) -> PodSample:
        return PodSample(
            pod=str(place), at_s=now_s, model_names=(MODEL,), running=self.running,
            waiting=self.waiting, kv_mean_ratio=0.1, kv_max_ratio=0.2, finished=self.finished,
            rejected=0.0, prompt_tokens=500.0 * self.finished, cached_tokens=0.0,
            output_tokens=100.0 * self.finished, preemptions=0.0,
            finished_prompt_tokens=500.0 * self.finished,
            finished_output_tokens=100.0 * self.finished,
        )  # fmt: skip


@dataclass(slots=True)
class MemorySource:
    """Serves fleets by target name; ``before`` runs while a collection is under way."""

    fleets: dict[str, Fleet] = field(default_factory=dict)
    asked: list[tuple[TargetRef, ...]] = field(default_factory=list)
    before: Callable[[], Any] = lambda: None
    hangs: bool = False
    name: str = "memory"
    _at_s: float | None = None

    async def collect(
        self, targets: Sequence[TargetRef], now_s: float
    ) -> Mapping[str, TargetSamples]:
        self.asked.append(tuple(targets))
        self.before()
        if self.hangs:
            await asyncio.Event().wait()
        elapsed_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        return {
            target.key: self.fleets.setdefault(target.name, Fleet()).samples(
                target, now_s, elapsed_s
            )
            for target in targets
        }

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class MemoryCluster:
    """ScaledObjects and their targets in memory; ``down`` is set while the API is away."""

    facts: list[TriggerFacts] = field(default_factory=list)
    replicas: dict[str, Replicas] = field(default_factory=dict)
    down: NoData | None = None
    followed: tuple[TargetRef, ...] = ()
    since: dict[str, float] = field(default_factory=dict)

    def triggers(self) -> Iterable[TriggerFacts]:
        return tuple(self.facts)

    def target(self, target: TargetRef, *, since_s: float) -> TargetState | NoData:
        self.since[target.name] = since_s
        if self.down is not None:
            return self.down
        replicas = self.replicas.get(target.name)
        if replicas is None:
            return NoData(cause=Cause.EMPTY, detail="no such workload")
        pods = tuple(PodRef(name=f"{target.name}-{n}") for n in range(replicas.ready))
        return TargetState(
            target=replace(target, pods=pods), uid=target.name, replicas=replicas,
            capacity_key="t1/H100", gpu_product="H100",
        )  # fmt: skip

    def follow(self, targets: Iterable[TargetRef]) -> None:
        self.followed = tuple(targets)


def scaled(name: str = "chat", **changes: Any) -> TriggerFacts:
    """A trigger of a ScaledObject, as the watch has it; ``metadata`` is a mapping."""
    metadata = relevant(changes.pop("metadata", {}))
    made = TriggerFacts(
        namespace=NAMESPACE, name=name, uid=f"uid-{name}", metadata=metadata,
        target_kind="deployment", target_name=name, replicas_min=1, replicas_max=20,
        tolerance_up_ratio=None, tolerance_down_ratio=None, kubernetes_minor=35, advisory=False,
    )  # fmt: skip
    return replace(made, **changes)


def counted(number: int, now_s: float = START_S, **changes: Any) -> Replicas:
    """So many replicas, all ready."""
    made = Replicas(seen_at_s=now_s, wanted=number, current=number, ready=number)
    return replace(made, **changes)


def key(name: str = "chat", **metadata: str) -> TriggerKey:
    return TriggerKey(namespace=NAMESPACE, name=name, metadata=relevant(metadata))


@dataclass(slots=True, kw_only=True)
class World:
    """A loop over memory: cluster, source, board, clock."""

    clock: HandClock
    cluster: MemoryCluster
    source: MemorySource
    registry: Registry
    board: Board
    loop: Loop

    async def tick(self, times: int = 1, every_s: float = 15.0) -> None:
        """So many ticks, one after each interval."""
        for _ in range(times):
            self.clock.at_s += every_s
            await self.loop.tick()

    def entry(self, name: str = "chat") -> Entry:
        (found,) = [entry for known, entry in self.registry.entries.items() if known.name == name]
        return found


def world(
    *names: str, settings: Mapping[str, Any] | None = None, replicas: int = 2, **changes: Any
) -> World:
    """A world of ScaledObjects of these names (``chat`` where none is given)."""
    clock, source = HandClock(), MemorySource()
    cluster = MemoryCluster(
        facts=[scaled(name) for name in names or ("chat",)],
        replicas={name: counted(replicas) for name in names or ("chat",)},
    )
    config = from_tree(settings) if settings else ScalerConfig()
    registry = Registry(config, cluster)
    board = Board(admit=registry.admit, expiry_s=45.0)
    loop = Loop(
        registry=registry, source=source, cluster=cluster, board=board, clock=clock,
        sleep=clock.sleep, **changes,
    )  # fmt: skip
    return World(
        clock=clock, cluster=cluster, source=source, registry=registry, board=board, loop=loop
    )
