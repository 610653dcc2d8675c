"""Decisions found again in logs, with what they were made from; and those of a running daemon."""

import asyncio
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from scaler.core.explain import headline
from scaler.errors import ConfigError, SignalError
from scaler.ops.explain import Moment, moment, named, window
from scaler.ops.explain_daemon import fetched, latest, target_detail
from scaler.ops.explain_history import history_window
from scaler.ops.replay import read_logs
from scaler.service.codec import DecisionRecord, encode
from tests.ops.decision_logs import SIMULATED, daemon_log, simulated_log
from tests.service.fakes import START_S
from tests.service.test_web import site


def decisions(path: Path) -> list[DecisionRecord]:
    return [one for one in read_logs(path) if isinstance(one, DecisionRecord)]


def same(found: Moment) -> bool:
    assert found.basis is not None
    return found.basis.decide() == found.decision


@pytest.mark.parametrize("place", [0, 1, 30, -1])
def test_the_decision_that_stood_then_can_be_made_again(tmp_path: Path, place: int) -> None:
    path = simulated_log(tmp_path)
    wanted = decisions(path)[place].decision
    whose = named(path, SIMULATED)
    assert (whose.begin_s, whose.end_s) == (decisions(path)[0].decision.at_s,
                                            decisions(path)[-1].decision.at_s)  # fmt: skip
    for at_s in (wanted.at_s, wanted.at_s + 14.0):
        found = moment(path, whose, min(at_s, whose.end_s))
        assert found.decision == wanted
        assert same(found)


async def test_a_daemons_folder_begins_anew_with_every_file(tmp_path: Path) -> None:
    await daemon_log(tmp_path, "chat", "other", file_bytes_max=40_000)
    whose = named(tmp_path, "llm/chat")
    chat = [one for one in decisions(tmp_path) if one.name == "chat"]
    for record in chat[::4]:
        found = moment(tmp_path, whose, record.decision.at_s)
        assert found.decision == record.decision
        assert same(found)


def test_a_log_without_a_state_tells_what_it_has(tmp_path: Path) -> None:
    path = simulated_log(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    (tmp_path / "tail.jsonl").write_bytes(b"".join(lines[5:]))
    whose = named(tmp_path / "tail.jsonl", None)
    found = moment(tmp_path / "tail.jsonl", whose, whose.end_s)
    assert found.basis is None
    assert found.decision == decisions(path)[-1].decision


def test_a_window_has_every_change_with_its_reason(tmp_path: Path) -> None:
    path = simulated_log(tmp_path)
    made = [one.decision for one in decisions(path)]
    from_at_s, to_at_s = made[10].at_s, made[60].at_s
    found = window(path, named(path, None), from_at_s=from_at_s, to_at_s=to_at_s)
    inside = made[10:61]
    expected = [
        (after.at_s, before.would_be, after.would_be, headline(after))
        for before, after in itertools.pairwise(inside)
        if before.would_be != after.would_be
    ]
    assert len(expected) > 2
    told = [(one.at_s, one.before, one.after, one.headline) for one in found.changes]
    assert told == expected
    assert found.decisions == 51
    assert found.replicas_first == made[10].would_be
    assert found.replicas_max == max(one.would_be for one in inside)
    assert found.replicas_min == min(one.would_be for one in inside)
    with pytest.raises(SignalError, match="no decision of simulated/simulated in that time"):
        window(path, named(path, None), from_at_s=from_at_s + 1.0, to_at_s=from_at_s + 2.0)


async def test_which_target_is_asked_for(tmp_path: Path) -> None:
    await daemon_log(tmp_path, "chat", "other")
    with pytest.raises(ConfigError, match="must be given, one of: llm/chat, llm/other"):
        named(tmp_path, None)
    with pytest.raises(ConfigError, match="no target llm/none, must be one of: llm/chat"):
        named(tmp_path, "llm/none")
    path = tmp_path / "several.jsonl"
    record = decisions(tmp_path)[0]
    many = [replace(record, name=f"n{place:02d}") for place in range(12)]
    path.write_bytes(b"".join(encode(one) + b"\n" for one in many))
    with pytest.raises(ConfigError, match="llm/n09 and 2 more"):
        named(path, None)
    twice = [record, replace(record, id="second")]
    path.write_bytes(b"".join(encode(one) + b"\n" for one in twice))
    with pytest.raises(ConfigError, match="several triggers, --trigger must be one of: "):
        named(path, "llm/chat")
    assert named(path, "llm/chat", "second").id == "second"
    path.write_bytes(b"")
    with pytest.raises(SignalError, match="has no decision"):
        named(path, None)


async def test_a_daemon_tells_what_it_decided_from() -> None:
    async with site("chat") as made:
        await made.world.tick(2)
        url = f"http://{made.address}"
        detail = await asyncio.to_thread(target_detail, url, "llm/chat")
        found = latest(detail)
        assert found.decision == made.world.entry("chat").decision
        assert same(found)
        plain = await asyncio.to_thread(fetched, url, "/api/targets/llm/chat")
        assert "basis" not in plain
        assert latest(plain).basis is None


async def test_a_daemons_day_is_told_by_its_changes() -> None:
    async with site("chat") as made:
        chat = made.world.source.fleets["chat"]
        chat.requests_per_s, chat.waiting = 40.0, 30.0
        await made.world.tick(8)
        detail = await asyncio.to_thread(target_detail, f"http://{made.address}", "llm/chat")
    counts = [int(row[1]) for row in detail["history"]["rows"]]
    found = history_window(detail, None, None)
    assert found.decisions == len(counts) == 11
    pairs = [(a, b) for a, b in itertools.pairwise(counts) if a != b]
    assert pairs
    assert [(one.before, one.after) for one in found.changes] == pairs
    assert found.changes[0].headline.startswith(f"{found.changes[0].decided_by} (load ")
    later = history_window(detail, str(START_S + 30.0), None)
    assert later.decisions < found.decisions
    with pytest.raises(ConfigError, match="--to = 1, must be in"):
        history_window(detail, None, "1")
    rows = detail["history"]["rows"]
    holed = {"history": {**detail["history"], "rows": [rows[0], rows[-1]]}}
    with pytest.raises(SignalError, match="of that time"):
        history_window(holed, str(rows[3][0]), str(rows[4][0]))
    with pytest.raises(SignalError, match="remembers no decision"):
        history_window({"history": {**detail["history"], "rows": []}}, None, None)


async def test_what_a_daemon_cannot_answer_is_said() -> None:
    async with site("chat") as made:
        url = f"http://{made.address}"
        with pytest.raises(ConfigError, match="no target llm/none"):
            await asyncio.to_thread(target_detail, url, "llm/none")
        with pytest.raises(SignalError, match="does not answer"):
            await asyncio.to_thread(fetched, url, "/metrics")
        with pytest.raises(ConfigError, match="must be NAMESPACE/NAME"):
            target_detail(url, "chat")
    with pytest.raises(SignalError, match="does not answer"):
        target_detail(url, "llm/chat")
    with pytest.raises(ConfigError, match="--url = ftp://x, must be http"):
        fetched("ftp://x", "/")
    with pytest.raises(SignalError, match="not decided"):
        latest(json.loads('{"decision": null}'))


async def test_an_answer_of_somebody_else_is_told_from_ours() -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/down"):
            return web.Response(status=503, text="not now")
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        with pytest.raises(SignalError, match="not as the daemon does"):
            await asyncio.to_thread(target_detail, url, "llm/chat")
        with pytest.raises(SignalError, match="answered 503: not now"):
            await asyncio.to_thread(target_detail, url, "llm/down")
    finally:
        await runner.cleanup()
