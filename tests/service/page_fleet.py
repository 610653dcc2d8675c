"""A daemon's HTTP port over targets decided here: the page's own server, without the loop."""

import dataclasses
import itertools
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from scaler.config import ScalerConfig
from scaler.core.model import Mode
from scaler.core.policy import decide
from scaler.service.board import Board, TriggerKey
from scaler.service.history import History
from scaler.service.loop import TickReport
from scaler.service.moments import Moments
from scaler.service.registry import Entry, Registry
from scaler.service.replication import Publisher
from scaler.service.telemetry import Telemetry
from scaler.service.web.app import Parts, make_app
from scaler.signals.samples import TargetRef
from tests.core.play import CONFIG, TICK_S, observation

BEGAN_AT_S = 1_900_000_000.0


@dataclass(slots=True)
class HandClock:
    """A clock that is moved by hand."""

    at_s: float = BEGAN_AT_S

    def now_s(self) -> float:
        return self.at_s


class Fleet:
    """Targets whose observations are given as the cells of a time script."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.leader = ""  # address of the daemon that leads; empty while this one does
        self.history, self.moments = History(), Moments()
        self.registry = Registry(ScalerConfig(policy=CONFIG), None)
        self._ticks = itertools.count(1)
        telemetry = Telemetry(self.clock)
        publisher = Publisher(
            self.registry, Board(admit=self.registry.admit, expiry_s=45.0), self.clock
        )
        self.app = make_app(
            Parts(
                registry=self.registry, telemetry=telemetry, history=self.history,
                moments=self.moments,
                publisher=publisher, clock=self.clock, ready=lambda: True,
                alive_at_s=self.clock.now_s, leader_address=lambda: self.leader,
            )
        )  # fmt: skip

    def add(
        self,
        name: str,
        *,
        namespace: str = "llm",
        mode: Mode = Mode.ACTIVE,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """A target without a decision yet, as a call of KEDA makes one known."""
        sent = {"target": "deployment/vllm", **(metadata or {})}
        key = TriggerKey(namespace=namespace, name=name, metadata=tuple(sorted(sent.items())))
        self.registry.asked(self.registry.entries, self.clock.now_s())  # none of them expires
        self.registry.admit(key)
        self.registry.refresh(self.clock.now_s())
        entry = self.registry.entries[key]
        if not entry.faults:
            entry.policy = dataclasses.replace(CONFIG, mode=mode)
            entry.target = TargetRef(namespace=namespace, kind="deployment", name="vllm")
        return entry

    def tick(self, cells: Mapping[TriggerKey, Mapping[str, str]]) -> None:
        """Decide every target that has cells; the clock goes on by a tick."""
        self.clock.at_s += TICK_S
        for key, seen in cells.items():
            entry = self.registry.entries[key]
            made = observation({"at_s": str(self.clock.at_s), **seen})
            entry.decision, entry.state = decide(made, entry.state, entry.policy, self.clock.at_s)
        entries = tuple(self.registry.entries.values())
        report = TickReport(
            at_s=self.clock.at_s, tick=next(self._ticks), duration_s=0.1, decide_s=0.1,
            entries=entries, changed=(), dropped=(),
        )  # fmt: skip
        self.history.take(report)
        self.moments.take(report)

    @asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[int]:
        """The HTTP port while the block runs."""
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        try:
            yield int(runner.addresses[0][1])
        finally:
            await runner.cleanup()


def day(ticks: int) -> Iterator[dict[str, str]]:
    """A rise, a burst and a lull; replicas follow a minute late, so that a reader sees a queue."""
    needed = [5] * 24
    for place in range(ticks):
        share = place / ticks
        rate = 6.0 + 3.0 * math.sin(share * 2.0 * math.pi) + 0.3 * math.sin(place * 0.9)
        rate += 8.0 if 0.6 < share < 0.66 else 0.0
        load = rate / 2.0  # a request costs half a second of a replica
        needed.append(math.ceil(load / 0.7))
        wanted, ready = max(needed[-20:]), min(max(needed[-24:-4]), max(needed[-20:]))
        late = max(0.0, load - 0.8 * ready)
        slow = min(60.0, 25.0 * late)
        yield {
            "ready": str(ready), "starting": str(wanted - ready), "rate": f"{rate:.2f}",
            "running": f"{rate * 6.0:.1f}", "waiting": f"{late * 12.0:.1f}",
            "kv": f"{min(0.95, rate / ready * 0.2):.3f}",
            "gpu": f"{min(1.0, rate / ready * 0.35):.3f}",
            "ttft": f"{100.0 - slow - load:.1f}:{load:.1f}:{slow:.1f}:0:0",
            "min": "1", "max": "20",
        }  # fmt: skip
