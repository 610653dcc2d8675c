"""The demonstration put together: cluster, daemon, KEDA's stand-in and the clock they share."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from scaler.config import ScalerConfig, from_tree
from scaler.demo.clock import VirtualClock
from scaler.demo.cluster import DemoCluster
from scaler.demo.keda import KedaStandIn, Place
from scaler.demo.kube_api import KubeApi
from scaler.demo.kube_store import Store
from scaler.demo.rows import Row, Rows
from scaler.demo.scenario import Scenario
from scaler.demo.served_fleet import Score, ServedFleet
from scaler.service.daemon import Daemon

SPEED = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a demonstration came to."""

    played_s: float
    wall_s: float
    score: Score
    replica_changes: int  # writes to /scale
    replicas_highest: int
    gpu_hours_always_max: float
    calls: int  # gRPC calls of KEDA's stand-in
    failed_reads: int


@dataclass(slots=True, kw_only=True)
class Demo:
    """The parts of a running demonstration, for those who look closer."""

    scenario: Scenario
    clock: VirtualClock
    fleet: ServedFleet
    cluster: DemoCluster
    daemon: Daemon
    keda: KedaStandIn
    rows: Rows
    began_s: float  # on the machine's monotonic clock

    @property
    def page_url(self) -> str:
        """The daemon's live page."""
        return f"http://127.0.0.1:{self.daemon.http_port}/"

    async def play(self) -> None:
        """Play the scenario to its end.

        Raises:
            ScalerError: when a part of it fails.
            OSError: when a row cannot be shown.
        """
        playing = self._task(self.clock.run_until(self.fleet.start_at_s + self.scenario.duration_s))
        tasks = {playing, self._task(self.cluster.run()), self._task(self.keda.run())}
        try:
            done, _ = await asyncio.wait(
                {*tasks, self.rows.failed}, return_when=asyncio.FIRST_COMPLETED
            )
            for ended in done:
                ended.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def summary(self) -> Summary:
        """What it came to so far."""
        played_s = self.clock.now_s() - self.fleet.start_at_s
        self.fleet.advance(self.clock.now_s())
        gpus_max = self.scenario.replicas_max * self.scenario.model.gpus_per_replica
        counts = [change.after for change in self.keda.changes]
        return Summary(
            played_s=played_s,
            wall_s=time.monotonic() - self.began_s,
            score=self.fleet.score(),
            replica_changes=len(counts),
            replicas_highest=max((self.scenario.replicas_first, *counts)),
            gpu_hours_always_max=gpus_max * played_s / 3600.0,
            calls=len(self.keda.calls),
            failed_reads=self.keda.failures,
        )

    @staticmethod
    def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(work)


@contextlib.asynccontextmanager
async def running(
    scenario: Scenario,
    *,
    start_at_s: float,
    speed: float = SPEED,
    show: Callable[[Row], None] = lambda _row: None,
) -> AsyncIterator[Demo]:
    """All parts started in order, and stopped at the end; time stands still until ``play``.

    ``show`` is called with every row as it comes.
    """
    began_s = time.monotonic()
    clock = VirtualClock(start_at_s=start_at_s, speed=speed)
    store = Store(clock.now_s)
    fleet = ServedFleet(scenario, start_at_s=start_at_s)
    cluster = DemoCluster(scenario, fleet=fleet, store=store, sleeper=clock.sleeper("cluster"))
    rows = Rows(show, start_at_s=start_at_s, arrivals=fleet.arrivals)
    async with contextlib.AsyncExitStack() as stack:
        api = KubeApi(store)
        await api.start()
        stack.push_async_callback(api.stop)
        stack.push_async_callback(cluster.endpoints.stop)
        await cluster.start()
        config = daemon_config(api_url=api.url, dcgm_url=cluster.dcgm_url)
        sleeper = clock.sleeper("daemon")
        daemon = Daemon(config, clock=clock, sleep=sleeper.sleep, sinks=(rows,))
        await daemon.start()
        stack.push_async_callback(daemon.stop)
        place = Place(
            api_url=api.url,
            scaler_address=f"127.0.0.1:{daemon.grpc_port}",
            namespace=scenario.namespace,
            name=scenario.target,
        )
        keda = KedaStandIn(place, sleeper=clock.sleeper("keda"))
        stack.push_async_callback(keda.close)
        yield Demo(
            scenario=scenario,
            clock=clock,
            fleet=fleet,
            cluster=cluster,
            daemon=daemon,
            keda=keda,
            rows=rows,
            began_s=began_s,
        )


def daemon_config(*, api_url: str, dcgm_url: str) -> ScalerConfig:
    """The daemon's configuration: shipped defaults but for addresses."""
    return from_tree(
        {
            "grpc": {"address": "127.0.0.1:0"},
            "http": {"address": "127.0.0.1:0"},
            "kubernetes": {"use": "always", "server": api_url},
            "sources": [{"type": "scrape", "name": "pods", "dcgm_urls": [dcgm_url]}],
        }
    )
