"""A follower serves what the leader decided, and continues from it."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from scaler.config import ScalerConfig
from scaler.service.board import Board, NoAnswer, Published, Silence
from scaler.service.history import History
from scaler.service.loop import TickReport
from scaler.service.moments import Moments
from scaler.service.registry import Registry
from scaler.service.replication import SNAPSHOT_PATH, TICK_HEADER, Follower, Publisher
from scaler.service.telemetry import Telemetry
from scaler.service.web.app import Parts, make_app
from tests.service.fakes import HandClock, World, counted, key, scaled, world


class Pair:
    """A leader with its HTTP port, and a follower on a clock of its own."""

    def __init__(self, *names: str, ahead_s: float = 0.0) -> None:
        self.leader = world(*names)
        self.publisher = Publisher(self.leader.registry, self.leader.board, self.leader.clock)
        self.leader.loop.sinks = (self.publisher,)
        self.leads = True
        self.clock = HandClock(self.leader.clock.at_s + ahead_s)
        self.registry = Registry(ScalerConfig(), None)
        self.board = Board(admit=self.registry.admit, expiry_s=45.0)
        self.address = ""
        self.follower = Follower(
            self.registry, self.board, self.clock, leader_address=lambda: self.address
        )

    def parts(self) -> Parts:
        return Parts(
            registry=self.leader.registry, telemetry=Telemetry(self.leader.clock),
            history=History(), moments=Moments(), publisher=self.publisher, clock=self.leader.clock,
            ready=lambda: True, alive_at_s=self.leader.clock.now_s,
            leader_address=lambda: "" if self.leads else "127.0.0.1:1",
        )  # fmt: skip

    async def pull(self) -> bool:
        async with aiohttp.ClientSession() as session:
            return await self.follower.pull(session, self.address)


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@contextlib.asynccontextmanager
async def pair(*names: str, ahead_s: float = 0.0) -> AsyncIterator[Pair]:
    made = Pair(*names, ahead_s=ahead_s)
    async with serving(make_app(made.parts())) as made.address:
        yield made


async def test_a_follower_answers_as_the_leader() -> None:
    async with pair("chat", "other") as made:
        await made.leader.tick(3)
        made.clock.at_s = made.leader.clock.at_s
        assert not made.follower.serving
        assert await made.pull()
        assert made.follower.serving
        assert made.board.entries == made.leader.board.entries


async def test_a_snapshot_of_many_targets_is_read_whole() -> None:
    """It comes in many parts: a megabyte does not fit any buffer on the way."""
    async with pair(*(f"chat-{number}" for number in range(1000))) as made:
        await made.leader.tick(2)
        assert len(made.publisher.snapshot()) > 1_000_000
        assert await made.pull()
        assert len(made.board.entries) == 1000


async def test_what_is_known_is_not_pulled_again() -> None:
    async with pair() as made:
        await made.leader.tick(1)
        assert await made.pull()
        assert not await made.pull()
        await made.leader.tick(1)
        assert await made.pull()


async def test_ages_hold_on_any_clock() -> None:
    # The follower's clock is ten minutes ahead, and the decision ten seconds old when it is pulled.
    async with pair(ahead_s=600.0) as made:
        await made.leader.tick(1)
        made.leader.clock.at_s += 10.0
        made.clock.at_s = made.leader.clock.at_s + 600.0
        await made.pull()
        assert made.board.entries[key()].at_s == made.clock.at_s - 10.0
        made.clock.at_s += 35.0
        assert isinstance(made.board.look_up(key(), made.clock.at_s), Published)
        made.clock.at_s += 0.5
        found = made.board.look_up(key(), made.clock.at_s)
        assert isinstance(found, NoAnswer)
        assert found.silence is Silence.EXPIRED


async def test_targets_that_the_leader_dropped_leave_the_followers_board() -> None:
    async with pair("chat", "other") as made:
        await made.leader.tick(1)
        await made.pull()
        made.leader.cluster.facts[:] = [scaled("chat")]
        await made.leader.tick(1, every_s=601.0)
        made.clock.at_s = made.leader.clock.at_s
        await made.pull()
        assert set(made.board.entries) == {key("chat")}


async def taken_over(made: Pair) -> World:
    """The follower leads from now on, over the same cluster and fleet."""
    successor = world()
    successor.clock.at_s = made.clock.at_s
    successor.cluster, successor.source = made.leader.cluster, made.leader.source
    successor.registry = made.registry
    successor.registry.cluster = made.leader.cluster
    successor.board = made.board
    successor.loop.registry, successor.loop.board = made.registry, made.board
    successor.loop.cluster, successor.loop.source = made.leader.cluster, made.leader.source
    return successor


@pytest.mark.parametrize("ahead_s", [0.0, 5.0, -5.0, 90.0, -90.0])
async def test_a_successor_continues_from_the_last_state_and_lowers_nothing(
    ahead_s: float,
) -> None:
    async with pair(ahead_s=ahead_s) as made:
        chat = made.leader.source
        await made.leader.tick(2)
        chat.fleets["chat"].requests_per_s = 60.0
        await made.leader.tick(6)
        peak = made.leader.board.entries[key()].integer
        assert peak > 2
        made.leader.cluster.replicas["chat"] = counted(peak)
        chat.fleets["chat"].requests_per_s = 0.1
        await made.leader.tick(1)
        before = made.leader.board.entries[key()].integer
        assert before == peak  # held
        made.clock.at_s = made.leader.clock.at_s + ahead_s
        await made.pull()
        successor = await taken_over(made)
        for _ in range(8):
            await successor.tick(1)
            found = successor.board.look_up(key(), successor.clock.at_s)
            assert isinstance(found, Published), found
            assert found.integer >= before


async def test_a_daemon_that_follows_gives_no_snapshot() -> None:
    async with pair() as made:
        await made.leader.tick(1)
        made.leads = False
        with pytest.raises(aiohttp.ClientResponseError) as refused:
            await made.pull()
        assert refused.value.status == 503
        assert made.board.entries == {}


OTHER_SCHEMA = b'{"schema":99,"tick":0,"at_s":0,"served_at_s":0,"answers":[],"states":{}}'


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"schema": 1}', b"\xff", OTHER_SCHEMA])
async def test_what_is_no_snapshot_changes_nothing(body: bytes) -> None:
    async with pair() as made:
        await made.leader.tick(1)
        await made.pull()
        before = dict(made.board.entries)

        async def broken(_request: web.Request) -> web.Response:
            return web.Response(body=body, headers={TICK_HEADER: "9@9"})

        app = web.Application()
        app.router.add_get(SNAPSHOT_PATH, broken)
        async with serving(app) as address, aiohttp.ClientSession() as session:
            await made.follower._guarded_pull(session, address)
        assert made.board.entries == before
        assert made.follower.failures == int(body != OTHER_SCHEMA)  # which is said, and no fault


async def test_a_leader_that_is_gone_is_a_failure_that_is_counted() -> None:
    async with pair() as made, aiohttp.ClientSession() as session:
        await made.follower._guarded_pull(session, "127.0.0.1:1")
        assert made.follower.failures == 1
        assert not made.follower.serving


async def test_a_leader_pulls_from_nobody() -> None:
    made = Pair()
    turns = 0

    class Enough(Exception):  # noqa: N818 - ends an endless loop
        pass

    async def pause(_seconds: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 3:
            raise Enough

    made.follower._sleep = pause
    with pytest.raises(Enough):
        await made.follower.run()
    assert made.follower.pulls == 0


def test_the_identity_of_a_snapshot_changes_with_every_tick() -> None:
    made = Pair()
    seen = set()
    report = None
    for number in range(3):
        report = TickReport(
            at_s=float(number), tick=number, duration_s=0, decide_s=0, entries=(), changed=(),
            dropped=(),
        )  # fmt: skip
        made.publisher.take(report)
        seen.add(made.publisher.tick)
    assert report is not None
    made.publisher.take(replace(report, at_s=9.0))  # the same number, of another leader
    assert len(seen | {made.publisher.tick}) == 4
