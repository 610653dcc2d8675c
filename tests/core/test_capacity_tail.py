"""The tail of the prompts' lengths, learned from how many first tokens are late."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from scaler.core.capacity import CapacityState, capacity_of
from scaler.core.capacity_share import Batch, Carried, Objective, carried_per_s
from scaler.core.capacity_steps import Filter
from scaler.core.capacity_tail import Tail, late_share, see_tail, tightened, tightness
from scaler.core.config import PolicyConfig, SloConfig
from scaler.core.model import Capacity, Cause, Demand, Latency, NoData, Observation, Work

BOUNDS_S = (0.1, 0.25, 0.5, 0.75, 1.0, 2.5)
# A full step has 2,000 tokens of prompt and takes a quarter of a second.
BATCH = Batch(
    prompt=500.0,
    output=200.0,
    overhead_s=0.03,
    sequence_s=4e-4,
    prefill_s=1e-4,
    busy_s=0.13,
    sequences_max=256.0,
    step_tokens_max=2048.0,
)
RATE_PER_S = 3.0


def seen(shape: float, *, total: float = 2000.0, rate: float = RATE_PER_S) -> Observation:
    """One replica's first tokens as the law has them for prompts of this shape."""
    above = [
        1.0,
        *(late_share(BATCH, rate, bound_s, shape=shape, alone=1.0) for bound_s in BOUNDS_S),
        0.0,
    ]
    counts = tuple(total * (more - less) for more, less in pairwise(above))
    nothing = NoData(cause=Cause.NEVER)
    return Observation(
        seen_at_s=60.0, replicas=nothing, queue=nothing, kv_cache=nothing, itl=nothing, gpu=nothing,
        ttft=Latency(
            seen_at_s=60.0, coverage_ratio=1.0, window_s=60.0, bounds_s=BOUNDS_S, counts=counts
        ),
        work=Work(
            seen_at_s=60.0, coverage_ratio=1.0, interval_s=15.0, replica_s=15.0,
            requests_arrived=45.0, requests_finished=45.0, requests_rejected=0.0,
            prompt_tokens=22500.0, cached_tokens=0.0, output_tokens=9000.0, preemptions=0.0,
            engine_steps=300.0,
        ),
    )  # fmt: skip


def look(
    observation: Observation, tail: Tail, *, ttft_s: float = 0.5, rate: float = RATE_PER_S
) -> Tail:
    return see_tail(observation, BATCH, tail, rate=rate, gain=0.6, ttft_s=ttft_s)


@pytest.mark.parametrize("shape", [0.45, 0.9])
@pytest.mark.parametrize("ttft_s", [0.5, 0.6])
def test_the_shape_is_found_again_step_by_step(shape: float, ttft_s: float) -> None:
    """Also where the objective lies between bounds: the one below it serves."""
    tail, observation = Tail(), seen(shape)
    for _ in range(40):
        before, tail = tail, look(observation, tail, ttft_s=ttft_s)
        assert abs(math.log(tail.shape / before.shape)) <= 0.0801
        assert tail.information >= before.information
    assert tail.shape == pytest.approx(shape, rel=0.03)


def test_nobody_late_is_news_too() -> None:
    """Where the belief has two requests a minute late, none of them in an hour says: not so."""
    observation = seen(3.0, total=200.0)
    assert isinstance(observation.ttft, Latency)
    assert sum(observation.ttft.counts[3:]) < 0.1
    tail = Tail()
    for _ in range(60):
        tail = look(observation, tail)
    assert tail.shape > 1.15 * Tail().shape


def test_few_requests_move_it_little() -> None:
    few, many = (look(seen(0.5, total=total), Tail()) for total in (2.0, 2000.0))
    assert abs(few.shape - Tail().shape) < 0.3 * abs(many.shape - Tail().shape)


def test_the_tail_that_matters_is_that_at_the_objective() -> None:
    """Lengths that no Weibull distribution has: light at 0.25 s, heavy above 0.5 s."""
    light = seen(1.0)
    assert isinstance(light.ttft, Latency)
    counts = (*light.ttft.counts[:3], 60.0, 20.0, 5.0, 0.0)
    mixed = replace(light, ttft=replace(light.ttft, counts=counts))
    assert look(mixed, Tail(), ttft_s=0.5).shape < Tail().shape
    assert look(mixed, Tail(), ttft_s=0.3).shape > Tail().shape


def test_where_hardly_one_is_expected_beyond_the_objective_the_bound_below_tells() -> None:
    """A shape of 1.5 leaves 7 in a million beyond 0.5 s, and 4 in 1000 beyond 0.25 s."""
    believed = Tail(shape=1.5)
    assert late_share(BATCH, 1.0, 0.5, shape=1.5, alone=1.0) < 1e-5
    longer = look(seen(0.65, rate=1.0), believed, rate=1.0)
    assert longer.shape < 1.5
    assert longer.information > 0.0


def test_what_says_nothing_teaches_nothing() -> None:
    observation, tail = seen(0.4), Tail()
    assert look(replace(observation, ttft=NoData(cause=Cause.ABSENT)), tail) == tail
    assert look(observation, tail, ttft_s=0.05) == tail  # below the lowest bound
    assert look(observation, tail, ttft_s=2.0) == tail  # many steps: the queue's law alone
    assert look(observation, tail, rate=50.0) == tail  # overloaded
    empty = Latency(
        seen_at_s=60.0, coverage_ratio=1.0, window_s=60.0, bounds_s=BOUNDS_S, counts=(0.0,) * 7
    )
    assert look(replace(observation, ttft=empty), tail) == tail


def test_the_law_counts_as_far_as_the_shape_was_seen_and_widens_the_interval() -> None:
    demand = Demand(
        requests_per_s=3.0, prompt_tokens_per_s=3000.0, cached_tokens_per_s=0.0,
        output_tokens_per_s=600.0, prompt_tokens_per_request=1000.0,
        output_tokens_per_request=200.0, cached_ratio=0.0, requests_in_flight=30.0,
        backlog_requests=0.0,
    )  # fmt: skip

    def made(information: float, ttft_s: float) -> Capacity:
        tail = Tail(shape=0.5, information=information)
        state = CapacityState(steps=Filter(doubt=(1e-6,) * 10), tail=tail)
        return capacity_of(demand, state, PolicyConfig(slo=SloConfig(ttft_s=ttft_s)))

    costs = [made(information, 0.5).request_cost_s for information in (0.0, 8.0, 3000.0)]
    assert costs == sorted(costs)
    assert costs[2] > 1.2 * costs[0]
    assert made(0.0, 2.0) == made(3000.0, 2.0)
    little, much = made(20.0, 0.5), made(3000.0, 0.5)
    spreads = [each.request_cost_high_s / each.request_cost_s for each in (little, much)]
    assert spreads[0] > spreads[1]


def carried(shape: float, ttft_s: float = 0.5, weight: float = 1.0) -> Carried:
    objective = Objective(ttft_s=ttft_s, attained_ratio=0.99)
    rates = carried_per_s(BATCH, objective)
    return tightened(rates, BATCH, objective, shape=shape, weight=weight)


def test_only_an_objective_of_a_few_full_steps_is_tight() -> None:
    """A full step takes 0.235 s: within three of them this law holds, from five on the other."""
    assert [tightness(BATCH, ttft_s) for ttft_s in (0.5, 0.7, 1.2, 2.0)] == [1.0, 1.0, 0.0, 0.0]
    assert 0.4 < tightness(BATCH, 0.94) < 0.6
    assert tightness(replace(BATCH, prompt=0.0), 0.5) == 0.0


def test_a_longer_tail_of_lengths_carries_less() -> None:
    rates = [carried(shape).alone_per_s for shape in (1.2, 0.9, 0.7, 0.5)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.8 * rates[0]


def test_what_is_late_on_an_idle_replica_is_not_the_load_s_fault() -> None:
    """More than the allowed 1 % take longer than 0.4 s alone; beside them a load is carried."""
    assert late_share(BATCH, 0.0, 0.4, shape=0.5, alone=0.0) > 0.015
    assert carried(0.5, ttft_s=0.4).pooled_per_s > 0.15 / BATCH.saturated_cost_s


def test_one_of_many_waits_less_but_does_wait() -> None:
    late = [late_share(BATCH, 4.0, 0.5, shape=0.65, alone=alone) for alone in (1.0, 0.5, 0.0)]
    assert late == sorted(late, reverse=True)
    assert late[2] > 1.5 * late_share(BATCH, 0.0, 0.5, shape=0.65, alone=0.0)


def test_an_overloaded_replica_is_late_with_everything() -> None:
    assert late_share(BATCH, 30.0, 0.5, shape=0.65, alone=1.0) == 1.0
    assert late_share(BATCH, 1.0, 0.01, shape=0.65, alone=1.0) == 1.0  # less than a step
