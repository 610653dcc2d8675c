"""A cluster for tests: the small API server, a client of it, and time that tests move."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from scaler.demo.kube_api import KubeApi
from scaler.demo.kube_store import Store
from scaler.signals.kube.client import Access, Connection, KubeClient
from scaler.signals.kube.informer import Pace, Pacing
from scaler.signals.kube.view import KubernetesView, Scope

NOW_S = 1_800_000_000.0  # the start of the tests' time
GIVE_UP_S = 10.0  # of waiting for what must happen; only a failing test takes so long


@dataclass
class TestClock:
    """Time that moves when a test says so."""

    __test__ = False
    at_s: float = NOW_S

    def now_s(self) -> float:
        return self.at_s


@dataclass
class Sleeps:
    """Sleeping without time: notes what was asked for, lets others run, and can be held."""

    asked_s: list[float] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def __call__(self, duration_s: float) -> None:
        self.asked_s.append(duration_s)
        await asyncio.sleep(0.001)  # a broken server must not turn retries into a busy loop
        await self.open.wait()


@dataclass
class Cluster:
    """Server, client and clock of one test."""

    store: Store
    api: KubeApi
    client: KubeClient
    clock: TestClock
    sleeps: Sleeps

    @property
    def pacing(self) -> Pacing:
        return Pacing(now_s=self.clock.now_s, sleep=self.sleeps, uniform=lambda low, high: high)

    def view(self, scope: Scope | None = None, pace: Pace | None = None) -> KubernetesView:
        return KubernetesView(self.client, pacing=self.pacing, scope=scope, pace=pace)


@contextlib.asynccontextmanager
async def cluster(
    *,
    request_timeout_s: float = 5.0,
    bookmark_s: float = 60.0,
    token_file: str = "",
    token: str = "",
) -> AsyncIterator[Cluster]:
    clock = TestClock()
    store = Store(clock.now_s)
    api = KubeApi(store, token=token, bookmark_s=bookmark_s)
    await api.start()
    client = KubeClient(
        Connection(
            access=Access.EXPLICIT,
            url=api.url,
            token_file=token_file,
            request_timeout_s=request_timeout_s,
        )
    )
    try:
        yield Cluster(store=store, api=api, client=client, clock=clock, sleeps=Sleeps())
    finally:
        await client.close()
        await api.stop()


@contextlib.asynccontextmanager
async def started(view: KubernetesView) -> AsyncIterator[KubernetesView]:
    await view.start()
    try:
        async with asyncio.timeout(GIVE_UP_S):
            await view.wait_tried()
        yield view
    finally:
        await view.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds and the view has settled; fails the test after GIVE_UP_S."""
    async with asyncio.timeout(GIVE_UP_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.002)
    await asyncio.sleep(0)  # a change is seen at once, what follows from it a turn later
