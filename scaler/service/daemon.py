"""The daemon: its parts put together, started, reloaded and stopped in order."""

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from scaler.config import ScalerConfig, config_hash, load
from scaler.core.policy import PolicyState
from scaler.errors import ConfigError
from scaler.service import checkpoint
from scaler.service.board import Board
from scaler.service.build import (
    addresses,
    build_client,
    build_long_history,
    build_sources,
    build_view,
    host_and_port,
    own_identity,
    own_namespace,
    peer_of,
)
from scaler.service.clock import Clock, SystemClock
from scaler.service.cluster import KubeCluster
from scaler.service.events import EventWriter
from scaler.service.external_scaler import ExternalScaler
from scaler.service.history import History
from scaler.service.identity import key_parser
from scaler.service.lease import LeaseElector, LeaseTimes
from scaler.service.loop import Loop, Sink, TickReport
from scaler.service.moments import Moments
from scaler.service.news import News
from scaler.service.past_file import PastFile
from scaler.service.records import DecisionLog
from scaler.service.registry import Registry
from scaler.service.replication import Follower, Publisher
from scaler.service.server import ScalerServer
from scaler.service.telemetry import Telemetry
from scaler.service.web.app import Parts, make_app

log = structlog.get_logger(__name__)

# Measured with 1,000 targets of 10 pods: a worker thread hands the interpreter's lock over in time;
# gRPC's cycles go in many collections of 1 ms, not few of 100; the old are visited twice an hour.
SWITCH_INTERVAL_S = 0.0005
GC_THRESHOLDS = (2_000, 50_000, 10)
RELOAD_EVERY_S = 5.0
FIRST_SYNC_S = 8.0  # how long the first tick waits for the first lists of Kubernetes
READY_EVERY_S = 0.25
WRITE_MAX_S = 5.0  # for the last checkpoint, within a pod's usual 30 s of termination grace
_RELOADABLE = ("policy", "profiles", "targets")


class Daemon:
    """All parts of one daemon.  ``config_path`` is watched for changes.

    ``clock`` and ``sleep`` are the loop's time, which need not be the machine's; ``sinks`` take in
    every tick beside the daemon's own.
    """

    def __init__(
        self,
        config: ScalerConfig,
        *,
        config_path: Path | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.grpc_port = 0
        self.http_port = 0
        self._config_path = config_path
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="records")
        self._client = build_client(config.kubernetes)
        self._view = (
            build_view(self._client, config.kubernetes, self.clock) if self._client else None
        )
        self.sources = build_sources(config)
        self.registry = Registry(config, KubeCluster(self._view) if self._view else None)
        self.board = Board(admit=self.registry.admit, expiry_s=_expiry_s(config))
        self.telemetry = Telemetry(self.clock, leads=self.leads)
        self.history = History()
        self._packer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="moments")
        self.moments = Moments(executor=self._packer)
        self._past = PastFile(config.state, self.history, self.moments, self._executor)
        self._records = (
            DecisionLog(config.records, self._executor) if config.records.directory else None
        )
        self.publisher = Publisher(self.registry, self.board, self.clock)
        self.long_history = build_long_history(config, self.clock, leads=self.leads)
        self._events = self._make_events()
        self._elector = self._make_elector()
        self.loop = Loop(
            registry=self.registry,
            source=self.sources,
            cluster=self.registry.cluster,
            board=self.board,
            clock=self.clock,
            sinks=(*self._sinks(), *sinks),
            leads=self.leads,
            sleep=sleep,
        )
        self._follower = Follower(
            self.registry, self.board, self.clock, leader_address=self.leader_address
        )
        self.servicer = self._make_servicer()
        self._server = ScalerServer(self.servicer, config.grpc, on_fault=self._tell_fault)
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._began_at_s = self._saved_at_s = self.clock.now_s()
        self._saving: Future[None] | None = None
        self._ticked = False
        self._records_failed = 0
        self._open = False
        self._dead = ""  # a part that has ended without being told to

    def _make_servicer(self) -> ExternalScaler:
        return ExternalScaler(
            board=self.board,
            parse=key_parser(lambda: self.config),
            clock=self.clock,
            observe=lambda method, code, took_s: self.telemetry.observe_call(
                method, code.name, took_s
            ),
        )

    def _make_events(self) -> EventWriter | None:
        if self._client is None or not self.config.kubernetes.events:
            return None
        return EventWriter(self._client, self.clock, instance=socket.gethostname())

    def _make_elector(self) -> LeaseElector | None:
        state = self.config.state
        if not state.lease_name:
            return None
        if self._client is None:
            raise ConfigError("state.lease_name needs a Kubernetes API: see kubernetes.use")
        duration_s = state.lease_duration_s
        times = LeaseTimes(
            duration_s=duration_s, renew_s=duration_s / 3.0, retry_s=duration_s / 7.5
        )
        return LeaseElector(
            self._client,
            self.clock,
            namespace=state.lease_namespace or own_namespace(),
            name=state.lease_name,
            identity=own_identity(state.peer_address),
            times=times,
        )

    def _sinks(self) -> tuple[Sink, ...]:
        sinks: list[Sink] = [self.telemetry, self.history, self.moments, self._past]
        sinks += [News(self._events), self.publisher, self]
        if self._records is not None:
            sinks.append(self._records)
        return (*sinks, self.long_history)

    def leads(self) -> bool:
        """Whether this daemon decides: it holds the Lease, or there is none."""
        return self._elector is None or self._elector.is_leader

    def leader_address(self) -> str:
        """Where the deciding daemon's HTTP port is; empty while it is this one or nobody."""
        if self._elector is None or self._elector.is_leader:
            return ""
        holder = self._elector.holder
        return "" if holder == self._elector.identity else peer_of(holder)

    def ready(self) -> bool:
        """Whether answers are real: a tick was made, or a snapshot pulled."""
        if self.leads():
            return self._ticked
        return self._follower.serving

    def alive_at_s(self) -> float:
        """When the loop last turned; never, once a part has failed for good."""
        return float("-inf") if self._dead else max(self.loop.turned_at_s, self._began_at_s)

    def take(self, report: TickReport) -> None:
        """As the last sink: note progress, sources and the checkpoint."""
        self._ticked = True
        self.board.expiry_s = _expiry_s(self.config)
        self.telemetry.observe_sources(self.sources.outcomes)
        if self._records is not None:
            failed = self.telemetry.counter("record_failures_total")
            failed.inc(self._records.failures - self._records_failed)
            self._records_failed = self._records.failures
        due_s = self._saved_at_s + self.config.state.checkpoint_every_s
        saving = self._saving is not None and not self._saving.done()
        if self.config.state.checkpoint_file and report.at_s >= due_s and not saving:
            self._saving = self._save()

    def _save(self) -> "Future[None]":
        """Write the checkpoint beside the event loop: a slow disk must not keep answers waiting."""
        self._saved_at_s = self.clock.now_s()
        path = Path(self.config.state.checkpoint_file)
        return self._executor.submit(_save, path, self.registry.states(), self._saved_at_s)

    async def start(self) -> None:
        """Open the ports and begin.

        Raises:
            ConfigError: when a port is taken or a file named in the configuration is unusable.
        """
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._restore()
        self.grpc_port = await self._server.start()
        try:
            await self._start_http()
        except BaseException:  # cancelled too: the open gRPC port must not outlive a failed start
            await self._server.stop()
            raise
        self._open = True
        if self._view is not None:
            await self._view.start()
        self._spawn(self._run_loop(), "loop")
        self._spawn(self._run_reload(), "reload")
        self._spawn(self._run_readiness(), "readiness")
        self._spawn(self.long_history.run(), "long history")
        if self._events is not None:
            self._spawn(self._events.run(), "events")
        if self._elector is not None:
            self._spawn(self._elector.run(), "election")
            self._spawn(self._follower.run(), "follower")
        log.info(
            "started",
            grpc=self.grpc_port,
            http=self.http_port,
            sources=addresses(self.config.sources),
            kubernetes=self._view is not None,
            config=config_hash(self.config),
        )

    def _restore(self) -> None:
        if not self.config.state.checkpoint_file:
            return
        found = checkpoint.restore(Path(self.config.state.checkpoint_file))
        if found is not None:
            self.registry.adopt(found.states)
            age_s = self.clock.now_s() - found.at_s
            log.info("continues from checkpoint", targets=len(found.states), age_s=round(age_s))
        if past := self._past.restore():
            log.info("the past of the page is back", targets=past)

    async def _start_http(self) -> None:
        parts = Parts(
            registry=self.registry,
            telemetry=self.telemetry,
            history=self.history,
            moments=self.moments,
            publisher=self.publisher,
            clock=self.clock,
            ready=self.ready,
            alive_at_s=self.alive_at_s,
            leader_address=self.leader_address,
        )
        host, port = host_and_port(self.config.http.address, "http.address")
        self._runner = web.AppRunner(make_app(parts), access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, host, port, reuse_port=False)
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"http.address = {self.config.http.address!r}, cannot be listened on: "
                f"{error.strerror}"
            ) from error
        self.http_port = self._runner.addresses[0][1]

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._note_end)
        self._tasks.append(task)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """A part that fails for good is said, and makes the process unhealthy: it is restarted."""
        if task.cancelled() or task.exception() is None:
            return
        self._dead = task.get_name()
        log.error("a part has failed", part=self._dead, exc_info=task.exception())

    async def _run_loop(self) -> None:
        """The loop, once Kubernetes has been listed or has failed to be."""
        if self._view is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_SYNC_S):
                    await self._view.wait_tried()
        await self.loop.run()

    async def _run_readiness(self) -> None:
        """Tell the health service."""
        serving = False
        while True:
            if self.ready() is not serving:
                serving = not serving
                await self._server.set_serving(serving=serving)
            await asyncio.sleep(READY_EVERY_S)

    async def _run_reload(self) -> None:
        """Take in a changed configuration file; a faulty one is said and left alone."""
        if self._config_path is None:
            return
        stamp = _stamp(self._config_path)
        while True:
            await asyncio.sleep(RELOAD_EVERY_S)
            if (now := _stamp(self._config_path)) != stamp:
                stamp = now
                self.reload()

    def reload(self) -> bool:
        """Read the file again; policy, profiles and targets change, what was learned stays."""
        outcome = self.telemetry.counter("config_reloads_total")
        try:
            fresh = load(self._config_path)
        except ConfigError as error:
            outcome.labels("refused").inc()
            for fault in error.faults:
                log.warning("configuration not reloaded", fault=fault)
            return False
        for name in (field for field in fresh.__slots__ if field not in _RELOADABLE):
            if getattr(fresh, name) != getattr(self.config, name):
                log.warning("a restart is needed for this change", setting=name)
        taken = {name: getattr(fresh, name) for name in _RELOADABLE}
        self.config = replace(self.config, **taken)
        # The loop may still rest for an old, longer tick: what it said last holds until the next.
        resting_s = self.board.expiry_s if self.leads() else 0.0
        self.board.expiry_s = max(_expiry_s(self.config), resting_s)
        self.registry.reconfigure(self.config)
        self.servicer.forget_parsed()
        outcome.labels("taken").inc()
        log.info("configuration reloaded", config=config_hash(self.config))
        return True

    def _tell_fault(self, fault: str) -> None:
        log.warning("server", fault=fault)

    async def stop(self) -> None:
        """End in order: no more calls, no more ticks, the Lease released, the state written."""
        self.loop.stop()
        await self._server.stop()
        if self._open and self._events is not None:
            await self._events.drain(1.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._open and self._elector is not None:
            await self._elector.release()
        if self._open and self._view is not None:
            await self._view.stop()
        await asyncio.gather(self.sources.close(), self.long_history.close())
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()
        await self._finish_writing()

    async def _finish_writing(self) -> None:
        """Write the last state; a disk that hangs is not waited for."""
        if self.config.state.checkpoint_file and self._ticked:
            last = [asyncio.wrap_future(one) for one in (self._save(), self._past.save())]
            await asyncio.wait(last, timeout=WRITE_MAX_S)
        self._executor.shutdown(wait=False)
        self._packer.shutdown(wait=False)


def _save(path: Path, states: Mapping[str, PolicyState], now_s: float) -> None:
    """Write the checkpoint; a full disk is said and tried again next time."""
    try:
        checkpoint.save(path, states, now_s)
    except OSError as error:
        log.warning("checkpoint not written", path=str(path), reason=error.strerror)


def _expiry_s(config: ScalerConfig) -> float:
    """How long a decision is answered from."""
    return config.policy.freshness.decision_expiry_ticks * config.policy.tick_s


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written or, as ConfigMaps do, its link is moved."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
