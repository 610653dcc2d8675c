"""The daemon put together in one process: started, reloaded, stopped, and refusing to start."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
import yaml

from scaler.config import from_tree, load
from scaler.errors import ConfigError
from scaler.service import checkpoint
from scaler.service.board import NoAnswer, Published
from scaler.service.daemon import Daemon
from scaler.service.registry import Registry
from tests.e2e.harness import Cluster
from tests.service.fakes import HandClock, key

LOOPBACK = {"address": "127.0.0.1:0"}
BASE: dict[str, Any] = {"grpc": LOOPBACK, "http": LOOPBACK, "kubernetes": {"use": "never"}}
TARGET = {"namespace": "llm", "target": "deployment/chat", "mode": "active"}
CHAT = key("deployment.chat", target="deployment/chat")


def written(folder: Path, **settings: Any) -> Path:
    path = folder / "scaler.yaml"
    path.write_text(yaml.safe_dump({**BASE, **settings}), encoding="utf-8")
    return path


class Rig:
    """A daemon on a clock that the test moves; its loop ticks only when told."""

    def __init__(self, path: Path) -> None:
        self.clock = HandClock()
        self.wakes = asyncio.Event()
        self.daemon = Daemon(
            load(path, environ={}), config_path=path, clock=self.clock, sleep=self._sleep
        )

    async def _sleep(self, _seconds: float) -> None:
        await self.wakes.wait()

    async def tick(self, every_s: float = 15.0) -> None:
        self.clock.at_s += every_s
        await self.daemon.loop.tick()

    async def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.daemon.http_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def running(path: Path, at_s: float | None = None) -> AsyncIterator[Rig]:
    rig = Rig(path)
    rig.clock.at_s = rig.clock.at_s if at_s is None else at_s
    await rig.daemon.start()
    try:
        while not rig.daemon.ready():  # noqa: ASYNC110 - the daemon tells nobody but its ports
            await asyncio.sleep(0)
        yield rig
    finally:
        await rig.daemon.stop()


@contextlib.asynccontextmanager
async def engines(number: int = 2) -> AsyncIterator[dict[str, Any]]:
    """A target of the configuration with so many pages of engines."""
    cluster = Cluster()
    for place in range(number):
        await cluster.add_pod("chat", place)
    cluster.load("chat", requests_per_s=1.0, running=5.0)
    pods = [
        {"name": name, "host": "127.0.0.1", "port": port} for name, port in cluster.ports.items()
    ]
    try:
        yield {**TARGET, "pods": pods}
    finally:
        for runner in cluster._runners.values():
            await runner.cleanup()


async def test_a_daemon_scrapes_decides_answers_and_ends(tmp_path: Path) -> None:
    records = tmp_path / "log"
    async with engines() as target:
        path = written(tmp_path, targets=[target], records={"directory": str(records)})
        async with running(path) as rig:
            await rig.tick()
            found = rig.daemon.board.look_up(CHAT, rig.clock.at_s)
            assert isinstance(found, Published), found
            assert found.integer == 2
            assert (await rig.get("/readyz"))[0] == (await rig.get("/healthz"))[0] == 200
            text = (await rig.get("/metrics"))[1]
            assert "vllm_scaler_leader 1.0" in text
            assert 'vllm_scaler_source_collections_total{source="scrape"} 2.0' in text
            assert "vllm_scaler_record_failures_total 0.0" in text
            assert '"deployment.chat"' in (await rig.get("/api/targets"))[1]
    assert len((records / "decisions.jsonl").read_bytes().splitlines()) == 3  # a state, two ticks


async def test_a_reload_takes_settings_and_keeps_what_was_learned(tmp_path: Path) -> None:
    async with engines() as target:
        path = written(tmp_path, targets=[target])
        async with running(path) as rig:
            await rig.tick()
            entry = rig.daemon.registry.entries[CHAT]
            state, tracker = entry.state, entry.tracker
            written(tmp_path, targets=[target], policy={"slo": {"ttft_s": 9}, "tick_s": 30})
            assert rig.daemon.reload()
            assert entry.policy.slo.ttft_s == 9.0
            assert entry.state is state
            assert entry.tracker is tracker
            rig.clock.at_s += 80.0  # three ticks of 30 s now
            assert isinstance(rig.daemon.board.look_up(CHAT, rig.clock.at_s), Published)
            text = (await rig.get("/metrics"))[1]
            assert 'vllm_scaler_config_reloads_total{outcome="taken"} 1.0' in text


async def test_shorter_ticks_expire_nothing_before_the_first_of_them(tmp_path: Path) -> None:
    async with engines() as target:
        path = written(tmp_path, targets=[target], policy={"tick_s": 300})
        async with running(path) as rig:
            await rig.tick()
            written(tmp_path, targets=[target], policy={"tick_s": 15})
            assert rig.daemon.reload()
            rig.clock.at_s += 290.0  # the loop rests for what is left of its 300 s
            assert isinstance(rig.daemon.board.look_up(CHAT, rig.clock.at_s), Published)
            await rig.tick()
            rig.clock.at_s += 46.0  # more than three ticks of 15 s
            assert isinstance(rig.daemon.board.look_up(CHAT, rig.clock.at_s), NoAnswer)


@pytest.mark.parametrize(
    "text", ["policy: {slo: {ttft_s: -1}, tick: 3}", "policy: [", "\x00", None]
)
async def test_a_faulty_file_is_refused_loudly_and_the_old_settings_stay(
    tmp_path: Path, text: str | None
) -> None:
    path = written(tmp_path, targets=[TARGET], policy={"slo": {"ttft_s": 4}})
    rig = Rig(path)
    before = rig.daemon.config
    path.unlink()
    if text is not None:
        path.write_text(text)
    with structlog.testing.capture_logs() as lines:
        assert not rig.daemon.reload()
    assert rig.daemon.config is before
    faults = [line["fault"] for line in lines if line["event"] == "configuration not reloaded"]
    assert len(faults) == (2 if text and "tick" in text else 1)
    assert all(line["log_level"] == "warning" for line in lines)
    counter = rig.daemon.telemetry.counter("config_reloads_total").labels("refused")
    assert counter._value.get() == 1.0
    await rig.daemon.stop()


async def test_what_needs_a_restart_is_said_and_not_taken(tmp_path: Path) -> None:
    path = written(tmp_path)
    rig = Rig(path)
    written(tmp_path, state={"checkpoint_file": "/x"}, policy={"slo": {"ttft_s": 3}})
    with structlog.testing.capture_logs() as lines:
        assert rig.daemon.reload()
    assert [line["setting"] for line in lines if "restart" in line["event"]] == ["state"]
    assert rig.daemon.config.state.checkpoint_file == ""
    assert rig.daemon.config.policy.slo.ttft_s == 3.0
    await rig.daemon.stop()


@pytest.mark.parametrize("which", ["grpc", "http"])
async def test_a_port_in_use_is_a_fault_that_names_it_and_leaves_nothing_open(
    tmp_path: Path, which: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = Daemon(load(written(tmp_path, **{which: {"address": address}}), environ={}))
        with pytest.raises(ConfigError, match=f"{which}.address = '{address}'"):
            await daemon.start()
        await daemon.stop()
    assert not daemon._tasks


async def test_a_checkpoint_is_written_as_due_and_at_the_end_and_read_at_the_start(
    tmp_path: Path,
) -> None:
    file = tmp_path / "state.json"
    state = {"checkpoint_file": str(file), "checkpoint_every_s": 30.0}
    async with engines() as target:
        path = written(tmp_path, targets=[target], state=state)
        async with running(path) as rig:
            await rig.tick()
            assert rig.daemon._saving is None
            await rig.tick()
            assert rig.daemon._saving is not None
            await asyncio.wrap_future(rig.daemon._saving)
            assert file.exists()
            await rig.tick()
            last = rig.daemon.registry.states()
        found = checkpoint.restore(file)
        assert found is not None
        assert found.states == last
        async with running(path) as again:
            entry = again.daemon.registry.entries[CHAT]
            assert entry.state.good_at_s is not None
            assert entry.state.last_count == 2


async def test_the_past_of_the_page_outlives_the_daemon(tmp_path: Path) -> None:
    state = {"checkpoint_file": str(tmp_path / "checkpoint.json")}
    path = written(tmp_path, targets=[TARGET], state=state)
    async with running(path) as rig:
        await rig.tick()
        await rig.tick()
        page = json.loads((await rig.get("/api/targets/llm/deployment.chat"))[1])
        before, ended_s = page["history"]["rows"], rig.clock.at_s
    async with running(path, ended_s + 60.0) as rig:
        await rig.tick()
        page = json.loads((await rig.get("/api/targets/llm/deployment.chat"))[1])
        assert page["history"]["rows"][: len(before)] == before
        assert len(page["history"]["rows"]) > len(before)
        status, told = await rig.get(f"/api/targets/llm/deployment.chat?at={ended_s - 15.0}")
        assert (status, json.loads(told)["at_s"]) == (200, ended_s - 15.0)


async def test_a_checkpoint_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    state = {"checkpoint_file": str(tmp_path / "no" / "folder"), "checkpoint_every_s": 1.0}
    path = written(tmp_path, targets=[TARGET], state=state)
    async with running(path) as rig:
        await rig.tick()
        assert rig.daemon._saving is not None
        await asyncio.wrap_future(rig.daemon._saving)
        await rig.tick()
        assert (await rig.get("/healthz"))[0] == 200


async def test_a_loop_that_hangs_is_unhealthy(tmp_path: Path) -> None:
    async with running(written(tmp_path)) as rig:
        assert (await rig.get("/healthz"))[0] == 200
        rig.clock.at_s += 10_000.0  # the loop waits for its wake and turns no more
        status, text = await rig.get("/healthz")
        assert status == 503
        assert "no progress" in text


async def test_a_part_that_fails_for_good_is_said_and_unhealthy(tmp_path: Path) -> None:
    async with running(written(tmp_path)) as rig:

        async def failing() -> None:
            raise RuntimeError("a defect")

        with structlog.testing.capture_logs() as lines:
            rig.daemon._spawn(failing(), "follower")
            await asyncio.sleep(0.001)
        assert [line["part"] for line in lines] == ["follower"]
        assert (await rig.get("/healthz"))[0] == 503


async def test_not_ready_before_the_first_tick_and_unknown_targets_are_404(tmp_path: Path) -> None:
    rig = Rig(written(tmp_path))
    rig.daemon.loop.leads = lambda: False  # no tick is made
    await rig.daemon.start()
    assert (await rig.get("/readyz"))[0] == 503
    assert (await rig.get("/api/targets/llm/absent"))[0] == 404
    assert (await rig.get("/absent"))[0] == 404
    await rig.daemon.stop()


async def test_a_lease_needs_an_api(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"state\.lease_name needs a Kubernetes API"):
        Daemon(from_tree({**BASE, "state": {"lease_name": "x"}}))


async def test_every_fault_of_every_source_is_told_at_once() -> None:
    sources = [
        {"url": "http://p", "engine": "gpt"},
        {"url": "http://p", "name": "a", "cert_file": "c"},
        {"url": "http://q", "name": "a"},
    ]
    with pytest.raises(ConfigError) as caught:
        Daemon(from_tree({**BASE, "sources": sources}))
    text = "\n".join(caught.value.faults)
    assert "sources.0.engine = 'gpt', must be one of" in text
    assert "sources.1." in text


def test_states_of_a_registry_are_named_as_in_a_checkpoint() -> None:
    registry = Registry(from_tree({"targets": [TARGET]}), None)
    registry.refresh(0.0)
    (name,) = registry.states()
    assert name.startswith("llm/deployment.chat/")
