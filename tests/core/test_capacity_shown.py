"""A fleet that serves its load within the objective is enough, whatever the prior believes."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from scaler.core.capacity import unlearned_cost_s
from scaler.core.capacity_shown import Shown, dearest_s
from scaler.core.config import HoldDownConfig, PolicyConfig, SloConfig
from scaler.core.model import Decision, Observation, Queue, Work
from scaler.core.policy import PolicyState, decide
from tests.core.play import ABSENT, TICK_S, observation

# Nine replicas with 16 requests/s each, of 1000 prompt and 200 output tokens: about four times what
# the prior believes a replica carries.
READY, RATE, PROMPT, OUTPUT = 9, 144.0, 1000.0, 200.0
# Steps in which a replica of that speed would do it: 4 ms for 40 sequences.
STEPS_PER_S = 80.0

Change = Callable[[Observation], Observation]


def fleet(at_s: float, *, ready: int = READY, rate: float = RATE) -> Observation:
    """Healthy: nothing waits, every first token within a second."""
    row = {
        "at_s": str(at_s), "ready": str(ready), "rate": str(rate), "running": str(40 * ready),
        "kv": "0.3", "ttft": "8000:600:0:0:0",
    }  # fmt: skip
    made = observation(row)
    assert isinstance(made.work, Work)
    work = replace(
        made.work,
        prompt_tokens=PROMPT * rate * TICK_S,
        output_tokens=OUTPUT * rate * TICK_S,
        engine_steps=STEPS_PER_S * ready * TICK_S,
        finished_prompt_tokens=PROMPT * rate * TICK_S,
        finished_output_tokens=OUTPUT * rate * TICK_S,
    )
    return replace(made, work=work)


def played(
    ticks: int, change: Change = lambda seen: seen, config: PolicyConfig | None = None
) -> tuple[list[Decision], PolicyState]:
    """The decisions of so many ticks from nothing."""
    state, decisions = PolicyState(), []
    for tick in range(ticks):
        seen = change(fleet(TICK_S * tick))
        decision, state = decide(seen, state, config or PolicyConfig(), TICK_S * tick)
        decisions.append(decision)
    return decisions, state


def load(decision: Decision) -> float:
    """In replicas' worth."""
    assert decision.demand is not None
    assert decision.capacity is not None
    return decision.demand.requests_per_s * decision.capacity.request_cost_s


def test_a_fleet_that_serves_well_is_not_multiplied_at_first_sight() -> None:
    decisions, _ = played(60)
    assert max(decision.would_be for decision in decisions) <= READY + 2
    assert min(load(decision) for decision in decisions) > 0.0


@pytest.mark.parametrize(
    "change",
    [
        lambda seen: replace(seen, queue=replace(seen.queue, requests_waiting=5.0 * READY)),
        lambda seen: replace(seen, ttft=replace(seen.ttft, counts=(8000.0, 0.0, 0.0, 600.0, 0.0))),
        lambda seen: replace(seen, ttft=replace(seen.ttft, counts=(10.0, 0.0, 0.0, 0.0, 0.0))),
        lambda seen: replace(seen, ttft=ABSENT),
        lambda seen: replace(seen, queue=ABSENT),
        lambda seen: replace(seen, work=replace(seen.work, preemptions=3.0)),
        lambda seen: replace(seen, replicas=replace(seen.replicas, start_up_s=(90.0,))),
    ],
    ids=["queue", "late", "hardly any", "no ttft", "no queue", "preempted", "just started"],
)
def test_only_a_healthy_fleet_shows_anything(change: Change) -> None:
    decisions, state = played(3, change)
    assert state.shown.output_per_s == 0.0
    assert load(decisions[-1]) > 1.5 * READY


def test_a_gap_between_tokens_is_an_objective_too() -> None:
    config = PolicyConfig(slo=SloConfig(tpot_s=0.04))
    good = "0:1000:0:0"
    slow = "0:0:1000:0"

    def with_itl(counts: str) -> Change:
        row = {"at_s": "0", "itl": counts}
        return lambda seen: replace(
            seen, itl=replace(observation(row).itl, seen_at_s=seen.seen_at_s)
        )

    assert played(3, with_itl(good), config)[1].shown.output_per_s > 0.0
    assert played(3, with_itl(slow), config)[1].shown.output_per_s == 0.0
    assert played(3, config=config)[1].shown.output_per_s == 0.0  # not known is not met


def test_a_moment_of_queueing_takes_nothing_back() -> None:
    def change(seen: Observation) -> Observation:
        waiting = 2.0 * READY if seen.seen_at_s == 3 * TICK_S else 0.0
        return replace(seen, queue=replace(seen.queue, requests_waiting=waiting))

    decisions, _ = played(6, change)
    assert load(decisions[3]) < 1.1 * load(decisions[2])


def test_a_batch_that_still_fills_shows_no_more_than_it_serves() -> None:
    """Requests have come, few of their tokens have been made."""

    def filling(seen: Observation) -> Observation:
        work = seen.work
        assert isinstance(work, Work)
        return replace(seen, work=replace(work, output_tokens=0.2 * work.output_tokens))

    _, full = played(3)
    _, begun = played(3, filling)
    assert 0.0 < begun.shown.output_per_s < 0.8 * full.shown.output_per_s


def test_a_quieter_fleet_shows_no_less_than_it_has_shown() -> None:
    """Half of the requests, served as well: what was carried before is still the better proof."""

    def halved(seen: Observation) -> Observation:
        return seen if seen.seen_at_s < 6 * TICK_S else fleet(seen.seen_at_s, rate=0.5 * RATE)

    _, before = played(6, halved)
    _, after = played(10, halved)  # and fades slowly
    assert after.shown.output_now < 0.6 * before.shown.output_now
    assert after.shown.output_per_s > 0.9 * before.shown.output_per_s


def test_an_estimate_that_is_sure_is_not_argued_with() -> None:
    """Traffic whose mix varies tells the step times apart; the interval closes."""

    prior = PolicyConfig().capacity

    def varied(seen: Observation) -> Observation:
        work, turn = seen.work, int(seen.seen_at_s / TICK_S)
        assert isinstance(work, Work)
        prompt = (0.4, 1.0, 1.6)[turn % 3] * work.prompt_tokens
        output = (0.6, 1.0, 1.4, 0.8)[turn % 4] * work.output_tokens
        # What a replica four times as fast as the prior has left for the steps themselves.
        decode_s = output * (prior.per_sequence_s + 1100.0 * prior.per_kv_token_s)
        left_s = READY * TICK_S - 0.25 * (prompt * prior.per_prefill_token_s + decode_s)
        steps = left_s / (0.25 * prior.overhead_s)
        work = replace(work, prompt_tokens=prompt, output_tokens=output, engine_steps=steps)
        return replace(seen, work=work)

    decisions, state = played(240, varied)
    assert state.capacity.multiples == state.capacity.steps.estimate
    assert decisions[-1].capacity is not None
    assert decisions[-1].capacity.request_cost_high_s < 0.05
    assert state.shown == Shown()


def test_what_is_kept_of_a_load_is_not_of_its_first_belief() -> None:
    """An hour after a wrong prior's load of 36 replicas, the steady load of six keeps no more."""
    config = PolicyConfig(hold_down=HoldDownConfig(window_s=60.0, release_s=36_000.0))

    def unseen(seen: Observation) -> Observation:  # so that nothing bounds the first belief
        return replace(seen, ttft=ABSENT)

    decisions, _ = played(240, unseen, config)
    assert load(decisions[1]) > 2.0 * load(decisions[-1])
    alone = {str(one.signal): one.replicas for one in decisions[-1].proposals}
    assert decisions[-1].would_be <= alone["work"] + 2


def costs(change: Callable[[Observation, int], Observation], ticks: int = 8) -> list[float]:
    """The published cost of a request at each tick."""
    state, found = PolicyState(), []
    for tick in range(ticks):
        seen = change(fleet(TICK_S * tick), tick)
        decision, state = decide(seen, state, PolicyConfig(), TICK_S * tick)
        assert decision.capacity is not None
        found.append(decision.capacity.request_cost_s)
    return found


@pytest.mark.parametrize("name", ["output_tokens", "prompt_tokens", "replica_s", "interval_s"])
def test_one_impossible_interval_shows_nothing(name: str) -> None:
    """A thousand times the tokens, or the tokens of all in the time of one."""
    poisons = {"output_tokens": 3e8, "prompt_tokens": 3e9, "replica_s": TICK_S, "interval_s": 1.0}

    def poisoned(seen: Observation, tick: int) -> Observation:
        assert isinstance(seen.work, Work)
        changed = {name: poisons[name]}
        return replace(seen, work=replace(seen.work, **changed)) if tick == 3 else seen

    plain, hurt = costs(lambda seen, tick: seen), costs(poisoned)
    assert min(hurt[3:]) >= 0.9 * min(plain[3:])


def test_what_prompts_showed_says_nothing_of_outputs() -> None:
    """The prior may be wrong about one kind of token alone."""
    decision = played(1)[0][0]
    assert decision.demand is not None
    demand = replace(
        decision.demand, prompt_tokens_per_request=400.0, output_tokens_per_request=100.0
    )
    assert dearest_s(demand, (4000.0, 100.0)) == 1.0
    assert dearest_s(demand, (400.0, 1000.0)) == 1.0
    assert dearest_s(demand, (400.0, 0.0)) == math.inf
    assert dearest_s(replace(demand, cached_ratio=1.0), (0.0, 1000.0)) == 0.1  # nothing to compute
    without = replace(demand, output_tokens_per_request=0.0)
    assert dearest_s(without, (4000.0, 0.0)) == 0.1  # nothing to decode


def test_other_replicas_are_not_bound_by_what_was_shown() -> None:
    def rolled(seen: Observation) -> Observation:
        old = seen.seen_at_s < 5 * TICK_S
        waiting = 0.0 if old else 5.0 * READY  # the new ones cannot keep up
        assert isinstance(seen.queue, Queue)
        queue = replace(seen.queue, requests_waiting=waiting)
        return replace(seen, queue=queue, capacity_key="old" if old else "new")

    assert played(5, rolled)[1].shown.output_per_s > 0.0
    assert played(6, rolled)[1].shown.output_per_s == 0.0


def test_what_was_shown_fades_with_the_clock_and_not_with_the_intervals() -> None:
    state = played(5)[1]
    later_s = 5 * TICK_S + 6 * 3600.0
    _, after = decide(fleet(later_s, rate=0.2 * RATE), state, PolicyConfig(), later_s)
    assert after.shown.output_per_s < 0.3 * state.shown.output_per_s


def test_a_stamp_of_the_future_keeps_nothing_out() -> None:
    def ahead(seen: Observation) -> Observation:
        assert isinstance(seen.work, Work)
        if seen.seen_at_s != 3 * TICK_S:
            return seen
        return replace(seen, work=replace(seen.work, seen_at_s=seen.seen_at_s + 86_400.0))

    assert played(6, ahead)[1].shown.seen_at_s == 5 * TICK_S


def test_replicas_that_are_not_counted_show_no_more_than_twice_what_they_serve() -> None:
    """All tokens, in the replica time of one of the nine, for minutes on end."""

    def one_counted(seen: Observation) -> Observation:
        assert isinstance(seen.work, Work)
        return replace(seen, work=replace(seen.work, replica_s=TICK_S))

    whole, few = played(8)[1].shown, played(8, one_counted)[1].shown
    assert 0.0 < whole.output_per_s <= few.output_per_s <= 2.1 * whole.output_per_s
    assert few.prompt_per_s <= 2.1 * whole.prompt_per_s


def test_what_one_replica_shows_of_many_is_at_most_doubled() -> None:
    """One that may be loaded to a tenth alone is not proof of ten times its load among many."""

    def alone(seen: Observation) -> Observation:
        return fleet(seen.seen_at_s, ready=1, rate=RATE / READY)

    capacity = replace(PolicyConfig().capacity, load_max_ratio=0.1)
    shown = played(8, alone, PolicyConfig(capacity=capacity))[1].shown
    served_per_s = OUTPUT * RATE / READY
    assert 1.9 * served_per_s < shown.output_per_s < 2.01 * served_per_s


def test_what_was_settled_is_not_priced_anew_at_each_tick() -> None:
    """It is remembered at the prior's prices, four times those that are learned meanwhile."""
    state, highest = PolicyState(), 0.0
    for tick in range(60):
        decision, state = decide(fleet(TICK_S * tick), state, PolicyConfig(), TICK_S * tick)
        highest = max(highest, state.work_peak)
    assert decision.demand is not None
    assert load(decision) < 0.5 * decision.demand.requests_per_s * unlearned_cost_s(
        decision.demand, PolicyConfig()
    )
    assert 0.0 < state.work_settled <= 1.01 * highest


def test_a_sample_that_is_seen_twice_is_one() -> None:
    """As where scrapes come less often than ticks: no single sample proves anything."""

    def held(seen: Observation, *, factor: float = 1.0) -> Observation:
        assert isinstance(seen.work, Work)
        before_s = seen.seen_at_s - seen.seen_at_s % (2.0 * TICK_S)
        times = factor if before_s == 4.0 * TICK_S else 1.0
        prompt, output = times * seen.work.prompt_tokens, times * seen.work.output_tokens
        work = replace(seen.work, prompt_tokens=prompt, output_tokens=output)
        return replace(seen, work=replace(work, seen_at_s=before_s))

    plain, poisoned = played(6, held)[1].shown, played(6, partial(held, factor=10.0))[1].shown
    assert plain.seen_at_s == poisoned.seen_at_s == 4.0 * TICK_S
    assert 0.0 < poisoned.output_per_s < 1.1 * plain.output_per_s
