"""The arithmetic of past decisions: every change, within one room for all targets."""

import math
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from scaler.core.explain import narrative
from scaler.core.model import Decision
from scaler.service.loop import TickReport
from scaler.service.moments import BLOCK, OVERHEAD_BYTES, Moments
from tests.service.fakes import START_S, World, key, world
from tests.service.page_fleet import TICK_S, Fleet, day


class Log:
    """Every decision as it was made, by target."""

    def __init__(self) -> None:
        self.made: dict[str, list[Decision]] = {}

    def take(self, report: TickReport) -> None:
        for entry in report.entries:
            if entry.decision is not None:
                self.made.setdefault(entry.key.name, []).append(entry.decision)


def played(ticks: int, moments: Moments, *names: str) -> tuple[Fleet, Log]:
    """A day of these targets, remembered by ``moments`` and whole in the log."""
    fleet, log = Fleet(), Log()
    fleet.moments = moments
    keys = [fleet.add(name).key for name in names or ("chat",)]
    for cells in day(ticks):
        fleet.tick(dict.fromkeys(keys, cells))
        for one in keys:
            decision = fleet.registry.entries[one].decision
            assert decision is not None
            log.made.setdefault(one.name, []).append(decision)
    return fleet, log


def words(decision: Decision) -> list[str]:
    """The account without its numbers: digits beyond the fourth are not kept."""
    return ["".join(c for c in line if c.isalpha()) for line in narrative(decision)]


def test_with_room_every_decision_is_told_as_it_was() -> None:
    fleet, log = played(100, Moments())
    (chat,) = fleet.registry.entries
    for place, decision in enumerate(log.made["chat"]):
        for asked_s in (decision.at_s, decision.at_s + TICK_S - 0.01):
            kept = fleet.moments.find(chat, asked_s)
            assert kept is not None
            assert kept.decision.at_s == decision.at_s
            assert (kept.decision.would_be, kept.decision.decided_by) == (
                decision.would_be, decision.decided_by,
            )  # fmt: skip
            assert words(kept.decision) == words(decision)
            for mine, theirs in zip(kept.decision.steps, decision.steps, strict=True):
                for (name, value), (_, exact) in zip(mine.terms, theirs.terms, strict=True):
                    assert value == pytest.approx(exact, rel=6e-4), name  # four digits
            following = log.made["chat"][place + 1].at_s if place < 99 else None
            assert kept.next_at_s == following
            assert kept.begin_s == log.made["chat"][0].at_s
    assert fleet.moments.find(chat, log.made["chat"][0].at_s - 0.01) is None
    assert fleet.moments.begin_s(chat) == log.made["chat"][0].at_s


def test_without_room_every_change_and_now_and_then_one() -> None:
    room = 12_000  # some sixty records: a day needs one every 25 minutes
    fleet, log = played(1200, Moments(room_bytes=room))
    (chat,) = fleet.registry.entries
    kept_at_s = set()
    for decision in log.made["chat"]:
        kept = fleet.moments.find(chat, decision.at_s)
        if kept is None:
            continue
        kept_at_s.add(kept.decision.at_s)
        # Between two that are kept the count did not change.
        assert kept.decision.would_be == decision.would_be
    assert fleet.moments.size <= room
    assert 20 < len(kept_at_s) < 200
    gaps_s = [b - a for a, b in zip(sorted(kept_at_s), sorted(kept_at_s)[1:], strict=False)]
    assert max(gaps_s) <= 86400.0 / (room / 190.0) + 2 * TICK_S


def test_many_targets_share_the_room_and_take_turns() -> None:
    names = [f"t{number}" for number in range(40)]
    fleet, log = played(60, Moments(room_bytes=40_000), *names)
    first_s = log.made["t0"][0].at_s
    assert fleet.moments.size <= 40_000 + 40 * BLOCK * (OVERHEAD_BYTES + 400)
    assert all(fleet.moments.begin_s(one) is not None for one in fleet.registry.entries)
    kept = [fleet.moments.find(one, math.inf) for one in fleet.registry.entries]
    assert {one.decision.at_s for one in kept if one} != {first_s}


async def test_what_is_dropped_is_forgotten_and_nobody_is_remembered_who_never_was() -> None:
    moments = Moments()
    made = world(sinks=(moments,))
    await made.tick(3)
    assert moments.find(key("chat"), START_S + 1e6) is not None
    assert moments.find(key("none"), START_S + 1e6) is None
    assert moments.begin_s(key("none")) is None
    report = TickReport(
        at_s=START_S, tick=9, duration_s=0.1, decide_s=0.1, entries=(), changed=(),
        dropped=(key("chat"),),
    )  # fmt: skip
    moments.take(report)
    assert moments.find(key("chat"), START_S + 1e6) is None
    assert moments.size == 0


async def test_packing_beside_the_loop_loses_nothing() -> None:
    with ThreadPoolExecutor(max_workers=1) as executor:
        moments, log = Moments(executor=executor), Log()
        made: World = world(sinks=(moments, log))
        await made.tick(3)
        executor.submit(lambda: None).result()
        kept = moments.find(key("chat"), math.inf)
        assert kept is not None
        assert kept.decision.at_s == log.made["chat"][-1].at_s


def test_a_packer_that_hangs_bounds_what_waits_for_it() -> None:
    class Hanging(ThreadPoolExecutor):
        submitted = 0

        def submit(self, *_args: object, **_named: object) -> object:  # type: ignore[override]
            type(self).submitted += 1
            return super().submit(zlib.crc32, b"").__class__()  # never done

    moments = Moments(executor=Hanging(max_workers=1))
    played(30, moments)
    assert Hanging.submitted == 4
