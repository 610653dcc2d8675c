"""Accelerated time: it waits for work, wakes one at a time and in order, and says who hangs."""

import asyncio
import math

import pytest

from scaler.demo import clock as clock_module
from scaler.demo.clock import VirtualClock
from scaler.errors import ScalerError


def made(speed: float = math.inf) -> VirtualClock:
    return VirtualClock(start_at_s=1000.0, speed=speed)


async def playing(clock: VirtualClock, end_at_s: float, *sleepers: "asyncio.Task[None]") -> None:
    await clock.run_until(end_at_s)
    for task in sleepers:
        task.cancel()
    await asyncio.gather(*sleepers, return_exceptions=True)


async def test_sleepers_wake_in_order_of_time_and_then_of_falling_asleep() -> None:
    clock, seen = made(), list[tuple[float, str]]()

    async def ticking(name: str, every_s: float) -> None:
        sleeper = clock.sleeper(name)
        while True:
            await sleeper.sleep(every_s)
            seen.append((clock.now_s(), name))

    tasks = [asyncio.create_task(ticking(n, e)) for n, e in (("a", 2.0), ("b", 3.0))]
    await asyncio.sleep(0)
    await playing(clock, 1006.0, *tasks)
    # At 1006 both are due; b fell asleep first, at 1003, and a at 1004.
    assert seen == [(1002.0, "a"), (1003.0, "b"), (1004.0, "a"), (1006.0, "b"), (1006.0, "a")]
    assert clock.now_s() == 1006.0


async def test_time_stands_still_while_one_of_them_works() -> None:
    clock = made()
    worker, other = clock.sleeper("worker"), clock.sleeper("other")
    seen: list[float] = []

    async def working() -> None:
        await worker.sleep(10.0)
        for _ in range(50):  # turns of the event loop, as I/O takes
            await asyncio.sleep(0)
        seen.append(clock.now_s())
        worker.leave()

    async def ticking() -> None:
        while True:
            await other.sleep(1.0)

    tasks = [asyncio.create_task(working()), asyncio.create_task(ticking())]
    await playing(clock, 1020.0, *tasks)
    assert seen == [1010.0]


async def test_a_participant_that_has_left_or_was_cancelled_is_not_waited_for() -> None:
    clock = made()
    leaver, sleeper = clock.sleeper("leaver"), clock.sleeper("sleeper")
    task = asyncio.create_task(sleeper.sleep(5.0))
    await asyncio.sleep(0)
    task.cancel()
    leaver.leave()
    await clock.run_until(1010.0)
    assert clock.now_s() == 1010.0


async def test_one_that_never_rests_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "STUCK_S", 0.01)
    clock = made()
    clock.sleeper("daemon")
    with pytest.raises(ScalerError, match="daemon is still busy"):
        await clock.run_until(1010.0)
    assert clock.now_s() == 1000.0


async def test_speed_is_how_much_faster_than_life_it_goes() -> None:
    pauses: list[float] = []

    async def pause(duration_s: float) -> None:
        pauses.append(duration_s)

    clock = VirtualClock(start_at_s=1000.0, speed=1000.0, pause=pause)
    await clock.run_until(1020.0)
    assert pauses == [pytest.approx(0.02)]  # 20 s at 1000 times
    assert clock.now_s() == 1020.0


async def test_a_busy_moment_is_made_up_for_only_up_to_a_limit() -> None:
    """After 100 s of standing still, half a second's worth of time takes none of the machine's."""
    loop, pauses = asyncio.get_running_loop(), list[float]()
    machine_s = [loop.time()]

    async def pause(duration_s: float) -> None:
        pauses.append(duration_s)
        machine_s[0] += duration_s

    clock = VirtualClock(start_at_s=1000.0, speed=10.0, pause=pause)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", lambda: machine_s[0])
        await clock.run_until(1001.0)
        machine_s[0] += 100.0
        for second in range(2, 9):
            await clock.run_until(1000.0 + second)
    # 0.1 s each: behind by 0.5 s at most, so five seconds are free.
    assert pauses == pytest.approx([0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1], abs=1e-9)


async def test_sleeping_until_a_time_that_has_passed_is_a_turn_and_no_more() -> None:
    clock = made()
    sleeper = clock.sleeper("one")

    async def late() -> None:
        await sleeper.sleep_until(990.0)
        assert clock.now_s() == 1000.0
        sleeper.leave()

    task = asyncio.create_task(late())
    await clock.run_until(1001.0)
    await task
