"""The loop on virtual time: what is answered in each state, and what a fault may touch."""

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from scaler.config import ProfileConfig
from scaler.core.model import Cause, NoData, Verdict
from scaler.service.board import AnswerState, NoAnswer, Published, Silence
from scaler.service.loop import TickReport, as_published
from scaler.signals import turns
from tests.service.fakes import Fleet, World, counted, key, scaled, world

DOWN = NoData(cause=Cause.UNREACHABLE, detail="connection refused")
GRACE_S = 120.0


def answer(made: World, name: str = "chat") -> Published:
    found = made.board.look_up(key(name), made.clock.at_s)
    assert isinstance(found, Published), found
    return found


def silence(made: World, name: str = "chat") -> NoAnswer:
    found = made.board.look_up(key(name), made.clock.at_s)
    assert isinstance(found, NoAnswer), found
    return found


def verdict(made: World, name: str = "chat") -> Verdict:
    decision = made.entry(name).decision
    assert decision is not None
    return decision.verdict


async def after_good_ticks(**settings: Any) -> World:
    """Three replicas at work, seen well for some ticks."""
    made = world(settings=settings or None, replicas=3)
    made.source.fleets["chat"] = Fleet(pods=3, requests_per_s=1.0, running=4.0)
    await made.tick(4)
    assert verdict(made) is Verdict.FRESH
    return made


# The table of answers.


async def test_before_the_first_good_observation_there_are_errors_and_never_zeros() -> None:
    made = world()
    assert silence(made).silence is Silence.UNKNOWN_TRIGGER
    made.source.fleets["chat"] = Fleet(fault=DOWN)
    await made.tick(3)
    found = silence(made)
    assert found.silence is Silence.UNKNOWN
    assert "connection refused" in found.reason
    made.source.fleets["chat"] = Fleet()
    await made.tick(1)
    assert answer(made).integer >= 1


async def test_a_fresh_observation_is_answered_by_the_decision() -> None:
    made = await after_good_ticks()
    found = answer(made)
    decision = made.entry().decision
    assert decision is not None
    assert (found.integer, found.double) == (decision.replicas_desired, decision.encoded)
    assert found.integer == 3  # held: the daemon has just begun to watch 3 replicas
    assert found.active
    assert found.reason == decision.decided_by.value


async def test_an_unknown_trigger_is_silent_and_collection_starts() -> None:
    made = await after_good_ticks()
    made.cluster.replicas["new"] = counted(1)
    asked = key("new", target="deployment/new")
    assert made.board.look_up(asked, made.clock.at_s) == NoAnswer(silence=Silence.UNKNOWN_TRIGGER)
    await made.tick(1)
    assert "llm/deployment/new" in {target.key for target in made.source.asked[-1]}
    assert isinstance(made.board.look_up(asked, made.clock.at_s), Published)


async def test_blind_within_the_grace_the_last_decision_is_kept() -> None:
    made = await after_good_ticks()
    made.source.fleets["chat"].fault = DOWN
    await made.tick(int(GRACE_S // 15))
    assert verdict(made) is Verdict.HELD
    assert (answer(made).integer, answer(made).active) == (3, True)


@pytest.mark.parametrize(("floor", "expected"), [(0, 4), (6, 6)])
async def test_blind_beyond_the_grace_the_count_is_at_least_the_present_one(
    floor: int, expected: int
) -> None:
    made = await after_good_ticks(policy={"freshness": {"floor_replicas": floor}})
    made.source.fleets["chat"].fault = DOWN
    made.cluster.replicas["chat"] = counted(4)  # somebody else has added one meanwhile
    await made.tick(int(GRACE_S // 15) + 1)
    assert verdict(made) is Verdict.FLOORED
    assert (answer(made).integer, answer(made).active) == (expected, True)


@pytest.mark.parametrize("wakes", [False, True])
async def test_blind_at_zero_nothing_is_answered_unless_waking_is_chosen(*, wakes: bool) -> None:
    made = world(settings={"policy": {"freshness": {"wake_when_blind": wakes}}}, replicas=0)
    made.cluster.facts[0] = scaled(replicas_min=0)
    await made.tick(3)
    if wakes:
        assert (answer(made).integer, answer(made).active) == (1, True)
    else:
        assert silence(made).silence is Silence.UNKNOWN


async def test_idleness_at_zero_and_a_request_at_the_gateway() -> None:
    made = world(settings={"profiles": {"p": {"gateway_query": "sum(requests)"}}}, replicas=0)
    made.cluster.facts[0] = scaled(replicas_min=0, metadata={"profile": "p"})
    asked = key(profile="p")
    made.source.fleets["chat"] = Fleet(gateway=5.0, pods=0)
    await made.tick(2)
    idle = made.board.look_up(asked, made.clock.at_s)
    assert isinstance(idle, Published)
    assert (idle.integer, idle.double, idle.active) == (0, 0.0, False)
    made.source.fleets["chat"].gateway = 6.0
    await made.tick(1)
    woken = made.board.look_up(asked, made.clock.at_s)
    assert isinstance(woken, Published)
    assert (woken.integer, woken.active) == (1, True)


async def test_a_decision_older_than_three_ticks_is_not_answered() -> None:
    made = await after_good_ticks()
    made.clock.at_s += 45.0
    assert answer(made).integer == 3
    made.clock.at_s += 0.1
    assert silence(made).silence is Silence.EXPIRED


async def test_without_the_kubernetes_api_the_count_follows_the_load_and_never_falls() -> None:
    made = await after_good_ticks()
    made.cluster.down = NoData(cause=Cause.UNREACHABLE, detail="API")
    await made.tick(200)  # 50 minutes: every window is over, and the load is next to nothing
    assert verdict(made) is Verdict.LOAD_ONLY
    found = answer(made)
    assert (found.integer, found.double, found.active) == (3, 3.0, True)  # plain encoding
    # 60 requests/s of some 0.1 s each, at most 80 % busy: far more than three.
    made.source.fleets["chat"].requests_per_s = 60.0
    await made.tick(8)
    assert verdict(made) is Verdict.LOAD_ONLY
    assert answer(made).integer > 3


async def test_two_triggers_of_one_object_are_answered_apart() -> None:
    made = world()
    made.cluster.facts[:] = [
        scaled(metadata={"profile": "frozen"}), scaled(metadata={"role": "mixed"})
    ]  # fmt: skip
    made.registry.reconfigure(
        type(made.registry.config)(profiles={"frozen": ProfileConfig(policy={"mode": "frozen"})})
    )
    made.source.fleets["chat"] = Fleet(requests_per_s=60.0, running=50.0)
    await made.tick(3)
    frozen, active = key(profile="frozen"), key(role="mixed")
    held = made.board.look_up(frozen, made.clock.at_s)
    acted = made.board.look_up(active, made.clock.at_s)
    assert isinstance(held, Published)
    assert isinstance(acted, Published)
    assert held.integer == 2  # the present count
    assert acted.integer > 2
    assert [len(targets) for targets in made.source.asked] == [1, 1, 1]  # collected once for both


@pytest.mark.parametrize("place", [0, 1])
async def test_a_query_of_one_trigger_is_not_lost_to_another_of_the_same_target(
    place: int,
) -> None:
    made = world(settings={"profiles": {"p": {"gateway_query": "sum(requests)"}}})
    made.cluster.facts.insert(place, scaled(metadata={"profile": "p"}))
    await made.tick(1)
    assert [target.gateway_query for target in made.source.asked[-1]] == ["sum(requests)"]


# Faults.


async def test_a_target_that_fails_stops_no_other() -> None:
    made = world("good", "bad")
    await made.tick(2)
    made.entry("bad").tracker = None  # type: ignore[assignment]  # a defect of the program
    await made.tick(1)
    assert silence(made, "bad").silence is Silence.UNKNOWN
    assert "see the daemon's log" in silence(made, "bad").reason
    assert answer(made, "good").at_s == made.clock.at_s


async def test_a_tick_that_fails_is_followed_by_the_next() -> None:
    made = world()
    calls = 0

    def broken() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("a defect of a source")
        if calls == 4:
            made.loop.stop()

    made.source.before = broken
    await made.loop.run()
    assert calls == 4
    assert made.loop.tick_number == 4
    assert answer(made).at_s == made.clock.at_s - 15.0


async def test_a_source_that_hangs_fails_its_tick_and_not_the_loop() -> None:
    made = world(collect_max_s=0.005)
    await made.tick(2)
    before = answer(made)
    made.source.hangs = True
    with pytest.raises(TimeoutError):
        await made.loop.tick()
    made.source.hangs = False
    await made.tick(1)
    assert answer(made).at_s > before.at_s


async def test_answers_and_others_have_their_turn_while_a_source_is_slow() -> None:
    made = await after_good_ticks()
    made.source.hangs = True
    hanging = asyncio.create_task(made.loop.tick())
    await asyncio.sleep(0)
    assert answer(made).integer == 3
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


# Leadership, pace and the end.


async def test_leadership_lost_while_collecting_publishes_nothing() -> None:
    leading = True
    reports: list[TickReport] = []

    class Keep:
        def take(self, report: TickReport) -> None:
            reports.append(report)

    made = world(leads=lambda: leading, sinks=(Keep(),))
    await made.tick(2)
    published = dict(made.board.entries)

    def lose() -> None:
        nonlocal leading
        leading = False

    made.source.before = lose
    await made.tick(1)
    assert made.board.entries == published
    assert len(reports) == 2


async def test_who_does_not_lead_asks_nobody_and_shows_that_it_lives() -> None:
    made = world(leads=lambda: False)
    passed = 0

    async def pause(seconds: float) -> None:
        nonlocal passed
        passed += 1
        made.clock.at_s += seconds
        if passed == 3:
            made.loop.stop()

    made.loop.sleep = pause
    began_s = made.clock.at_s
    await made.loop.run()
    assert made.source.asked == []
    assert made.loop.turned_at_s == began_s + 30.0  # the third turn


async def test_ticks_keep_their_pace_whatever_they_take_and_end_when_told() -> None:
    made = world()
    starts: list[float] = []

    def slow() -> None:
        starts.append(made.clock.at_s)
        made.clock.at_s += 4.0  # collecting takes 4 s of the 15
        if len(starts) == 3:
            made.loop.stop()

    made.source.before = slow
    await made.loop.run()
    assert [start - starts[0] for start in starts] == [0.0, 15.0, 30.0]


async def test_a_tick_longer_than_its_interval_is_followed_at_once() -> None:
    made = world()
    starts: list[float] = []

    def slow() -> None:
        starts.append(made.clock.at_s)
        made.clock.at_s += 20.0
        if len(starts) == 2:
            made.loop.stop()

    made.source.before = slow
    await made.loop.run()
    assert starts[1] - starts[0] == 20.0


async def test_a_thousand_targets_leave_others_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)  # else as many as the machine is slow
    names = [f"chat-{number}" for number in range(1000)]
    made = world(*names)
    taken = 0

    async def other() -> None:
        nonlocal taken
        while True:
            taken += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await made.tick(1)
    beside.cancel()
    assert taken >= 3 * 1000  # a turn for every trigger taken in, every view and every decision
    assert len(made.board.entries) == 1000


async def test_a_slow_sink_takes_a_tick_in_turns_and_ends_before_the_next_sink(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.0)
    seen: list[str] = []

    class Slow:
        def take(self, report: TickReport) -> None:
            raise AssertionError("taken in one go")

        def taking(self, report: TickReport) -> Generator[None]:
            asyncio.get_running_loop().call_soon(seen.append, "another's turn")
            for entry in report.entries:
                yield
                seen.append(entry.key.name)

    class Quick:
        def take(self, report: TickReport) -> None:
            seen.append("next sink")

    made = world("one", "two", sinks=(Slow(), Quick()))
    await made.tick(1)
    assert seen == ["another's turn", "one", "two", "next sink"]


async def test_dropped_triggers_leave_the_board() -> None:
    made = await after_good_ticks()
    made.cluster.facts.clear()
    await made.tick(1, every_s=601.0)
    assert made.board.entries == {}


async def test_starts_are_asked_for_once() -> None:
    made = world()
    await made.tick(1)
    assert made.cluster.since["chat"] == float("-inf")
    await made.tick(1)
    # The replicas' own time of the last observation, which stands still in this cluster.
    assert made.cluster.since["chat"] == made.cluster.replicas["chat"].seen_at_s


async def test_what_a_decision_was_made_from_is_kept_with_it() -> None:
    made = await after_good_ticks()
    entry = made.entry()
    basis = entry.basis
    assert basis is not None
    made.registry.reconfigure(type(made.registry.config)())
    assert (basis.after, basis.hash) == (entry.state, entry.hash)
    await made.tick(1)
    assert entry.basis is not None
    assert entry.basis.before is basis.after


def test_unknown_is_never_an_answer() -> None:
    made = asyncio.run(after_good_ticks())
    decision = made.entry().decision
    assert decision is not None
    assert as_published(decision).state is AnswerState.GOOD
    unknown = type(decision)(
        **{
            **{name: getattr(decision, name) for name in decision.__slots__},
            "verdict": Verdict.UNKNOWN,
        }
    )
    assert as_published(unknown).state is AnswerState.UNKNOWN
