"""The HTTP port: every route, nothing but reading, and what a follower passes on."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from scaler.config import ProfileConfig, ScalerConfig
from scaler.service.history import COLUMNS, STEP, History
from scaler.service.moments import Moments
from scaler.service.replication import SNAPSHOT_PATH, TICK_HEADER, Publisher
from scaler.service.telemetry import Telemetry
from scaler.service.web.app import Parts, make_app
from tests.service.fakes import World, scaled, world

ROUTES = ("/metrics", "/healthz", "/readyz", "/api/targets", "/api/targets/llm/chat", SNAPSHOT_PATH)


class Site:
    """One daemon's HTTP port; ``leader`` is the address it takes for the leader's."""

    def __init__(self, made: World) -> None:
        self.world = made
        self.leader = ""
        self.ready = True
        self.alive_at_s = made.clock.at_s
        self.port = 0
        history, telemetry = History(), Telemetry(made.clock)
        self.moments = Moments()
        publisher = Publisher(made.registry, made.board, made.clock)
        made.loop.sinks = (history, self.moments, telemetry, publisher)
        self.parts = Parts(
            registry=made.registry, telemetry=telemetry, history=history,
            moments=self.moments, publisher=publisher,
            clock=made.clock, ready=lambda: self.ready, alive_at_s=lambda: self.alive_at_s,
            leader_address=lambda: self.leader,
        )  # fmt: skip

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        url = f"http://{self.address}{path}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, headers=sent) as answer,
        ):
            return answer, await answer.read()

    async def json(self, path: str) -> Any:
        answer, _ = await self.ask(path)
        assert answer.content_type == "application/json"
        return await answer.json()


@contextlib.asynccontextmanager
async def site(*names: str) -> AsyncIterator[Site]:
    made = Site(world(*names))
    runner = web.AppRunner(make_app(made.parts), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    await made.world.tick(3)
    made.alive_at_s = made.world.clock.at_s
    yield made
    await runner.cleanup()


@pytest.mark.parametrize("path", ROUTES)
async def test_every_route_answers(path: str) -> None:
    async with site() as one:
        answer, body = await one.ask(path)
        assert answer.status == 200
        assert body


@pytest.mark.parametrize("path", ["/absent", "/api", "/api/targets/llm", "/page.js/x", "/%00"])
async def test_anything_else_is_not_there(path: str) -> None:
    async with site() as one:
        assert (await one.ask(path))[0].status == 404


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_nothing_but_reading_is_possible(path: str, method: str) -> None:
    async with site() as one:
        assert (await one.ask(path, method))[0].status == 405


async def test_health_follows_the_loop_and_readiness_the_answers() -> None:
    async with site() as one:
        one.world.clock.at_s += 149.0  # ten ticks of 15 s are 150
        assert (await one.ask("/healthz"))[0].status == 200
        one.world.clock.at_s += 2.0
        assert (await one.ask("/healthz"))[0].status == 503
        one.ready = False
        assert (await one.ask("/readyz"))[0].status == 503


async def test_the_list_has_every_target_with_its_state() -> None:
    async with site("chat", "other") as one:
        one.world.cluster.facts.append(scaled("bad", metadata={"ttftSloSeconds": "x"}))
        await one.world.tick(1)
        found = {target["name"]: target for target in (await one.json("/api/targets"))["targets"]}
        assert set(found) == {"chat", "other", "bad"}
        assert (found["chat"]["status"], found["chat"]["desired"]) == ("fresh", 2)
        assert (found["chat"]["wanted"], found["chat"]["ready"]) == (2, 2)
        assert found["bad"]["status"] == "faulty"
        assert found["bad"]["faults"] == ["ttftSloSeconds = 'x', must be a number in [0.01, 600]"]


async def test_one_target_is_explained_with_its_history() -> None:
    async with site() as one:
        found = await one.json("/api/targets/llm/chat")
        assert found["decision"]["would_be"] == 2
        assert found["explanation"][0].startswith("2 replicas wanted, now 2")
        assert tuple(found["history"]["columns"]) == (*COLUMNS, STEP)
        assert len(found["history"]["rows"]) == 3
        answer, body = await one.ask("/api/targets/llm/absent")
        assert answer.status == 404
        assert b"llm/absent" in body


async def test_two_triggers_of_one_object_are_told_apart_by_their_id() -> None:
    async with site() as one:
        one.world.registry.reconfigure(
            ScalerConfig(profiles={"p": ProfileConfig(policy={"slo.ttft_s": 9})})
        )
        one.world.cluster.facts.append(scaled("chat", metadata={"profile": "p"}))
        await one.world.tick(1)
        for entry in one.world.registry.entries.values():
            found = await one.json(f"/api/targets/llm/chat?trigger={entry.id}")
            assert (found["trigger"], found["config_hash"]) == (entry.id, entry.hash)
        answer, _ = await one.ask("/api/targets/llm/chat?trigger=none")
        assert answer.status == 404


@pytest.mark.parametrize("path", ["/api/targets", "/api/targets/llm/chat"])
async def test_no_answer_is_taken_for_another_type_or_kept(path: str) -> None:
    async with site() as one:
        answer, _ = await one.ask(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_snapshot_is_given_once_a_tick_and_by_the_leader_alone() -> None:
    async with site() as one:
        first, _ = await one.ask(SNAPSHOT_PATH)
        tick = first.headers[TICK_HEADER]
        again, body = await one.ask(SNAPSHOT_PATH, **{TICK_HEADER: tick})
        assert (again.status, body) == (304, b"")
        await one.world.tick(1)
        assert (await one.ask(SNAPSHOT_PATH, **{TICK_HEADER: tick}))[0].status == 200
        one.leader = "127.0.0.1:1"
        assert (await one.ask(SNAPSHOT_PATH))[0].status == 503


async def test_a_follower_passes_the_leaders_api_on() -> None:
    async with site("chat", "other") as leader, site() as follower:
        follower.leader = leader.address
        listed = (await follower.json("/api/targets"))["targets"]
        assert {target["name"] for target in listed} == {"chat", "other"}
        (entry,) = [
            entry for known, entry in leader.world.registry.entries.items() if known.name == "other"
        ]
        found = await follower.json(f"/api/targets/llm/other?trigger={entry.id}")
        assert found["name"] == "other"
        answer, _ = await follower.ask("/api/targets/llm/absent")
        assert answer.status == 404


async def test_a_leader_that_is_away_is_said() -> None:
    async with site() as follower:
        follower.leader = "127.0.0.1:1"
        answer, body = await follower.ask("/api/targets")
        assert answer.status == 502
        assert b"does not answer" in body


async def test_two_daemons_that_take_each_other_for_the_leader_ask_once() -> None:
    async with site() as one, site() as other:
        one.leader, other.leader = other.address, one.address
        answer, body = await one.ask("/api/targets")
        assert (answer.status, body) == (503, b'{"error":"no daemon decides at present"}')


async def test_a_past_decision_is_told_with_its_arithmetic() -> None:
    async with site() as one:
        latest = one.world.entry("chat").decision
        assert latest is not None
        before_s = latest.at_s - 15.0
        told = await one.json(f"/api/targets/llm/chat?at={before_s + 1.0}")
        assert (told["at_s"], told["next_at_s"]) == (before_s, latest.at_s)
        assert told["asked_at_s"] == before_s + 1.0
        assert told["desired"] == told["steps"][-1]["replicas"] == told["decision"]["would_be"]
        assert told["headline"] == told["explanation"][0]
        assert "observation" not in told["decision"]
        assert told["ready"] == 2
        whole = await one.json("/api/targets/llm/chat")
        assert whole["remembered_from_s"] == told["remembered_from_s"]


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("0", 404, "remembers what it decided since 20"),
        ("soon", 400, "at = soon, must be seconds"),
        ("nan", 400, "at = nan, must be seconds"),
        ("-inf", 400, "must be seconds"),
    ],
)
async def test_a_time_that_is_none_or_forgotten(text: str, status: int, words: str) -> None:
    async with site() as one:
        answer, _ = await one.ask(f"/api/targets/llm/chat?at={text}")
        assert answer.status == status
        assert words in (await one.json(f"/api/targets/llm/chat?at={text}"))["error"]
        assert "scaler explain --log" in str(await one.json("/api/targets/llm/chat?at=0"))
