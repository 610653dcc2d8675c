"""Long work in turns: others come between, results and faults come through."""

import asyncio
from collections.abc import Generator

import pytest

from scaler.signals import turns
from scaler.signals.turns import Turns, at_once, in_turns


def steps(done: list[str]) -> Generator[None, None, int]:
    for number in range(3):
        yield
        done.append(str(number))
    return 7


async def test_others_have_their_turn_once_the_work_has_kept_the_loop_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
    done: list[str] = []
    work = Turns()
    asyncio.get_running_loop().call_soon(done.append, "other")
    now_s += 0.9 * turns.TURN_S
    await work.rest()
    assert done == []  # not yet
    now_s += 0.2 * turns.TURN_S
    await work.rest()
    assert done == ["other"]
    asyncio.get_running_loop().call_soon(done.append, "next")
    await work.rest()
    assert done == ["other"]  # counted anew since the rest


async def test_a_generator_runs_to_its_end_in_turns_or_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)
    done: list[str] = []
    asyncio.get_running_loop().call_soon(done.append, "other")
    assert await in_turns(steps(done)) == 7
    assert done == ["other", "0", "1", "2"]
    assert at_once(steps(done)) == 7
    assert done == ["other", "0", "1", "2", "0", "1", "2"]
