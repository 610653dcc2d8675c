"""What one replica carries: the formula, its limits, and what may move the estimate."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.capacity import (
    CapacityState,
    capacity_of,
    carried,
    replicas_for,
    unlearned_cost_s,
    update_capacity,
)
from scaler.core.capacity_seen import Context, Gauges, Limits, busy_ratio, see_sample
from scaler.core.capacity_steps import Filter
from scaler.core.config import CapacityConfig, PolicyConfig, SloConfig
from scaler.core.model import (
    Capacity,
    Cause,
    Demand,
    Gpu,
    Latency,
    NoData,
    Observation,
    Queue,
    Replicas,
    Role,
    Work,
)
from tests.core.play import observation

# A request of DEMAND costs half a second: 1000 * 0.4 ms, and 200 steps of 50 ms shared by 100.
CONFIG = PolicyConfig(
    capacity=CapacityConfig(
        overhead_s=0.05,
        per_sequence_s=0.0,
        per_kv_token_s=0.0,
        per_prefill_token_s=4e-4,
        sequences_max=100.0,
        kv_capacity_tokens=1e9,
        load_max_ratio=0.8,
    )
)

DEMAND = Demand(
    requests_per_s=4.0,
    prompt_tokens_per_s=4000.0,
    cached_tokens_per_s=0.0,
    output_tokens_per_s=800.0,
    prompt_tokens_per_request=1000.0,
    output_tokens_per_request=200.0,
    cached_ratio=0.0,
    requests_in_flight=0.0,
    backlog_requests=0.0,
)
FRESH = CapacityState()


def cost_s(policy: PolicyConfig = CONFIG, demand: Demand = DEMAND, **state: Any) -> float:
    return capacity_of(demand, replace(FRESH, **state), policy).request_cost_s


# -- the cost of a request -----------------------------------------------------------------------


def test_the_cost_is_prefill_and_decode_and_a_share_of_every_step() -> None:
    """1000 * 0.4 ms + 200 * (0.1 ms + 10 ns * 1100) + 200 * 50 ms / 100."""
    policy = replace(
        CONFIG, capacity=replace(CONFIG.capacity, per_sequence_s=1e-4, per_kv_token_s=1e-8)
    )
    assert cost_s(policy) == pytest.approx(0.4 + 200 * (1e-4 + 1.1e-5) + 0.1)


def test_cached_prompts_are_not_computed() -> None:
    assert cost_s(demand=replace(DEMAND, cached_ratio=0.75)) == pytest.approx(0.1 + 0.1)


def test_the_kv_cache_bounds_the_sequences_that_share_a_step() -> None:
    """1100 tokens a sequence, 12100 in the cache: 11, of which a long prompt needs one free.

    So 10 sequences share the 200 * 50 ms.
    """
    assert cost_s(kv_capacity_tokens=12100.0) == pytest.approx(0.4 + 1.0)
    assert cost_s(kv_capacity_tokens=100.0) == pytest.approx(0.4 + 10.0)  # never below one


def test_the_tokens_of_a_step_bound_it_as_well() -> None:
    """1200 tokens at 100 a step: 12 of 50 ms instead of two."""
    policy = replace(CONFIG, capacity=replace(CONFIG.capacity, step_tokens_max=100.0))
    assert cost_s(policy) == pytest.approx(0.4 + 12 * 0.05)
    seen = Limits(step_tokens=300.0)
    assert cost_s(policy, limits=seen) == pytest.approx(0.4 + 4 * 0.05)


def test_sequences_that_were_seen_overrule_the_setting() -> None:
    assert cost_s(limits=Limits(sequences=50.0)) == pytest.approx(0.4 + 200 * 0.05 / 50)


def test_long_requests_run_longer_so_contexts_are_longer_than_the_mean_request() -> None:
    """1.5 * 1100 tokens at 1 us of each of the 200 output tokens: 0.33 s."""
    policy = replace(CONFIG, capacity=replace(CONFIG.capacity, per_kv_token_s=1e-6))
    assert cost_s(policy, context=Context(factor=1.5)) == pytest.approx(0.5 + 0.33)


def test_a_decode_replica_computes_no_prompts() -> None:
    assert cost_s(replace(CONFIG, role=Role.DECODE)) == pytest.approx(0.1)


def test_the_inter_token_objective_bounds_the_sequences_too() -> None:
    """0.07 s a step leaves 0.02 s for sequences of 1 ms: 20 of them."""
    policy = replace(
        CONFIG,
        slo=SloConfig(tpot_s=0.07),
        capacity=replace(CONFIG.capacity, per_sequence_s=1e-3),
    )
    assert cost_s(policy) == pytest.approx(0.4 + 0.2 + 200 * 0.05 / 20)
    prefill_s = cost_s(replace(policy, role=Role.PREFILL))  # 1001 tokens of a step's 2048
    assert prefill_s == pytest.approx(0.4 + 0.001 + 0.05 * 1001 / 2048)


def test_an_objective_below_an_empty_step_does_not_multiply_the_demand() -> None:
    """No count of replicas makes a step of 50 ms one of 20 ms: sized as for 8 sequences."""
    policy = replace(
        CONFIG,
        slo=SloConfig(tpot_s=0.02),
        capacity=replace(CONFIG.capacity, per_sequence_s=1e-3),
    )
    assert cost_s(policy) == pytest.approx(0.4 + 0.2 + 200 * 0.05 / 8)


def test_every_coefficient_is_learned_by_itself() -> None:
    """Overhead half as much, prompts one and a half: 0.6 + 0.05."""
    assert cost_s(multiples=(0.5, 1.0, 1.0, 1.5)) == pytest.approx(0.65)


def test_the_interval_narrows_with_evidence_and_never_closes() -> None:
    """The prior's factor at no evidence; then 1.645 sigma, with 3 % for the form.

    Of the cost of 0.5 s, 0.1 belong to the overhead and 0.4 to the prompt: deviations of 30 % and
    10 % that do not go together make hypot(0.03, 0.04) / 0.5 = 10 %.
    """
    doubt = (0.09, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.01)
    spreads = [
        capacity_of(DEMAND, replace(FRESH, steps=Filter(doubt=of)), CONFIG)
        for of in ((), doubt, (0.0,) * 10)
    ]
    factors = [item.request_cost_high_s / item.request_cost_s for item in spreads]
    narrow = math.exp(1.645 * math.hypot(0.1, 0.03))
    assert factors == pytest.approx([3.0, narrow, math.exp(1.645 * 0.03)])
    for item, factor in zip(spreads, factors, strict=True):
        assert item.request_cost_low_s == pytest.approx(item.request_cost_s / factor)
        assert item.requests_per_s == pytest.approx(0.8 / 0.5)


@pytest.mark.parametrize(
    ("attainment", "expected"),
    [(0.99, 0.8), (0.5, 1.0), (0.9, 1.0 - 0.2 * 1.2816 / 2.3263), (0.9999, 0.6803)],
)
def test_a_stricter_attainment_leaves_more_slack(attainment: float, expected: float) -> None:
    policy = replace(CONFIG, slo=SloConfig(attainment_target_ratio=attainment))
    assert capacity_of(DEMAND, FRESH, policy).load_max_ratio == pytest.approx(expected, abs=1e-3)


# -- from load to replicas -----------------------------------------------------------------------


def capacity(load_max_ratio: float) -> Capacity:
    return Capacity(
        request_cost_s=0.5,
        request_cost_low_s=0.5,
        request_cost_high_s=0.5,
        load_max_ratio=load_max_ratio,
        evidence_s=0.0,
    )


@given(
    load=st.floats(0.0, 1e4),
    load_max_ratio=st.floats(0.05, 1.0),
    gain=st.floats(0.0, 2.0),
)
def test_the_count_is_the_smallest_that_carries_the_load(
    load: float, load_max_ratio: float, gain: float
) -> None:
    config = CapacityConfig(load_max_gain=gain)
    count = replicas_for(load, capacity(load_max_ratio), config)
    assert carried(count, capacity(load_max_ratio), config) >= load * (1.0 - 1e-9)
    if count > 0:
        assert carried(count - 1, capacity(load_max_ratio), config) < load


@given(load=st.floats(0.0, 1e6), more=st.floats(0.0, 1e6))
def test_more_load_never_needs_fewer(load: float, more: float) -> None:
    config = CapacityConfig()
    assert replicas_for(load + more, capacity(0.8), config) >= replicas_for(
        load, capacity(0.8), config
    )


def test_pooling_lets_many_run_busier_than_one() -> None:
    """Slack 0.2: one carries 0.8, sixteen 16 * (1 - 0.2 / 4) = 15.2 with a gain of 0.5."""
    config = CapacityConfig(load_max_gain=0.5)
    assert carried(1, capacity(0.8), config) == pytest.approx(0.8)
    assert carried(16, capacity(0.8), config) == pytest.approx(15.2)
    assert replicas_for(15.1, capacity(0.8), config) == 16
    assert carried(0, capacity(0.8), config) == 0.0


@pytest.mark.parametrize("load", [1e12, 1e300, math.inf])
def test_an_absurd_load_is_a_large_count_and_no_error(load: float) -> None:
    assert replicas_for(load, capacity(0.05), CapacityConfig()) >= 10**6


# -- learning ------------------------------------------------------------------------------------

TRUE = (0.1, 0.0, 0.0, 8e-4)  # twice the prior of CONFIG: overhead, sequence, context, prompt


def busy(at_s: float, *, steps: float = 150.0, **changes: Any) -> Observation:
    """4 replicas, 40 sequences, 15 s: 60 s of steps and prompts with the coefficients of TRUE."""
    seen = observation({"at_s": str(at_s), "ready": "4", "running": "40", "rate": "4"})
    assert isinstance(seen.work, Work)
    made: dict[str, Any] = {
        "engine_steps": steps,
        "output_tokens": 10.0 * steps,
        "prompt_tokens": (60.0 - steps * TRUE[0]) / TRUE[3],
        "requests_finished": 15.0,
    }
    return replace(seen, work=replace(seen.work, **{**made, **changes}))


STARTED = update_capacity(busy(0.0, engine_steps=0.0, output_tokens=0.0, prompt_tokens=0.0),
                          FRESH, CONFIG.capacity)  # fmt: skip


def after(seen: Observation, state: CapacityState = STARTED) -> CapacityState:
    return update_capacity(seen, state, CONFIG.capacity)


def slower(state: CapacityState, *, steps: float, prompt: float | None = None) -> float:
    """The time of such an interval as learned, over the prior's."""
    if prompt is None:
        prompt = (60.0 - steps * TRUE[0]) / TRUE[3]
    terms = steps * CONFIG.capacity.overhead_s, prompt * CONFIG.capacity.per_prefill_token_s
    return (terms[0] * state.multiples[0] + terms[1] * state.multiples[3]) / sum(terms)


def test_one_interval_moves_each_coefficient_by_no_more_than_its_part_of_the_limit() -> None:
    """Six tenths of the 10 % are for step times: 1.1 ** 0.6."""
    state = after(busy(15.0))
    assert state.multiples[0] == pytest.approx(1.1**0.6)
    assert state.multiples[3] == pytest.approx(1.1**0.6)
    assert state.steps.estimate[0] > state.multiples[0]
    assert state.evidence_s == pytest.approx(60.0)


def test_coefficients_are_told_apart_by_intervals_that_differ() -> None:
    state = STARTED
    for tick in range(1, 60):
        state = after(busy(15.0 * tick, steps=150.0 if tick % 2 else 450.0), state)
    assert state.multiples[0] == pytest.approx(2.0, rel=0.02)
    assert state.multiples[3] == pytest.approx(2.0, rel=0.02)
    assert 1.0 < min(state.multiples[1:3]) < 2.0  # not seen here; moved by their correlation
    assert slower(state, steps=150.0) == pytest.approx(2.0, rel=0.02)
    assert cost_s(multiples=state.multiples) == pytest.approx(1.0, rel=0.02)


def test_what_a_steady_load_cannot_tell_apart_stays_in_doubt() -> None:
    """Always the same interval: the sum is known, its parts are not."""
    state = STARTED
    for tick in range(1, 60):
        state = after(busy(15.0 * tick), state)
    made = capacity_of(DEMAND, state, CONFIG)
    other = capacity_of(replace(DEMAND, prompt_tokens_per_request=50.0), state, CONFIG)
    assert made.request_cost_s == pytest.approx(1.0, rel=0.1)
    assert made.request_cost_high_s / made.request_cost_s < 1.3
    assert other.request_cost_high_s / other.request_cost_s > 1.3


def test_without_a_count_of_steps_the_gauge_tells_it() -> None:
    """10 sequences on each replica make 1500 tokens in 150 steps."""
    state = STARTED
    for tick in range(1, 100):
        state = after(busy(15.0 * tick, engine_steps=0.0), state)
    assert slower(state, steps=150.0) == pytest.approx(2.0, rel=0.05)


def _cold(seen: Observation, **changes: Any) -> Observation:
    assert isinstance(seen.replicas, Replicas)
    return replace(seen, replicas=replace(seen.replicas, **changes))


def _idle(seen: Observation) -> Observation:
    """50 steps of one sequence on each replica, and DCGM says 2 % busy."""
    gpu = Gpu(
        seen_at_s=15.0, coverage_ratio=1.0, utilisation_mean_ratio=0.02, utilisation_max_ratio=0.02
    )
    return replace(seen, gpu=gpu)


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(_cold(busy(15.0), start_up_s=(90.0,) * 4), id="all have just begun to serve"),
        pytest.param(replace(busy(15.0), replicas=NoData(cause=Cause.UNREACHABLE)), id="uncounted"),
        pytest.param(busy(15.0, preemptions=15.0), id="preempted requests are computed twice"),
        pytest.param(busy(15.0, output_tokens=0.0, prompt_tokens=0.0), id="nothing was done"),
        pytest.param(busy(15.0, replica_s=0.0), id="nobody was there"),
        pytest.param(_idle(busy(15.0, output_tokens=152.0)), id="idle nearly all of the time"),
        pytest.param(
            busy(60.0, engine_steps=0.0), id="no steps, and the gauge was read four intervals ago"
        ),
        pytest.param(busy(0.0), id="the same sample again"),
        pytest.param(replace(busy(15.0), work=NoData(cause=Cause.STALE)), id="no counters"),
        pytest.param(replace(busy(15.0), queue=NoData(cause=Cause.STALE)), id="no gauges"),
    ],
)
def test_what_says_nothing_of_a_step_teaches_nothing(seen: Observation) -> None:
    state = after(seen)
    assert (state.multiples, state.evidence_s) == (STARTED.multiples, 0.0)


def test_a_few_fresh_replicas_or_preemptions_teach_less_and_not_nothing() -> None:
    clean = after(busy(15.0)).steps.estimate[0]
    fresh = after(_cold(busy(15.0), ready=5)).steps.estimate[0]  # four were ready before
    preempted = after(busy(15.0, preemptions=3.0)).steps.estimate[0]
    assert 1.0 < fresh < clean
    assert 1.0 < preempted < clean


def test_the_first_reading_of_the_gauge_only_begins() -> None:
    assert (STARTED.multiples, STARTED.gauges.running, STARTED.gauges.seen_at_s) == (
        (1.0,) * 4,
        40.0,
        0.0,
    )
    first = update_capacity(busy(0.0, engine_steps=0.0), FRESH, CONFIG.capacity)
    assert first.evidence_s == 0.0


def _learned() -> CapacityState:
    state = STARTED
    for tick in range(1, 60):
        state = after(busy(15.0 * tick, steps=150.0 if tick % 2 else 450.0), state)
    return state


def test_an_outlier_teaches_little_once_there_is_evidence() -> None:
    state = _learned()
    wild = after(busy(900.0, prompt_tokens=1.0), state)
    assert wild.steps.outliers == 1
    assert wild.multiples[0] == pytest.approx(state.multiples[0], rel=0.01)
    assert wild.multiples[3] == pytest.approx(state.multiples[3], rel=0.01)
    assert after(busy(915.0), wild).steps.outliers == 0


def test_after_ten_minutes_of_nothing_else_the_outliers_are_right() -> None:
    """Everything takes twice as long as it did: four times the prior instead of two."""
    state = _learned()
    for tick in range(60, 60 + 39):
        state = after(_halved(busy(15.0 * tick, steps=150.0 if tick % 2 else 450.0)), state)
    assert state.multiples[0] < 2.3
    for tick in range(99, 160):
        state = after(_halved(busy(15.0 * tick, steps=150.0 if tick % 2 else 450.0)), state)
    assert state.multiples[0] == pytest.approx(4.0, rel=0.05)
    assert state.multiples[3] == pytest.approx(4.0, rel=0.05)


def _halved(seen: Observation) -> Observation:
    """Half of the work in the same time."""
    work = seen.work
    assert isinstance(work, Work)
    slow = replace(
        work,
        engine_steps=0.5 * work.engine_steps,
        output_tokens=0.5 * work.output_tokens,
        prompt_tokens=0.5 * work.prompt_tokens,
    )
    return replace(seen, work=slow)


def test_a_coefficient_that_would_turn_negative_stays_at_its_floor() -> None:
    """Prompts cost nothing here: all the time belongs to steps, however many prompts there are."""
    state = STARTED
    for tick in range(1, 120):
        prompts = 60000.0 if tick % 2 else 0.0
        state = after(busy(15.0 * tick, steps=600.0, prompt_tokens=prompts), state)
    assert 0.0 < state.multiples[3] < 0.1
    assert state.multiples[0] == pytest.approx(2.0, rel=0.1)


def test_evidence_fades() -> None:
    old = replace(STARTED, evidence_s=1000.0)
    memory_s = CONFIG.capacity.memory_s
    state = after(busy(15.0, interval_s=memory_s, replica_s=0.0), old)
    assert state.evidence_s == pytest.approx(1000.0 / math.e)


def test_prefill_replicas_learn_from_their_prompts() -> None:
    """75000 prompt tokens in 60 busy seconds: twice the 0.4 ms of the prior."""
    state = replace(STARTED, gauges=Gauges(seen_at_s=0.0, running=8.0))
    for tick in range(1, 60):
        seen = busy(15.0 * tick, steps=75.0, output_tokens=75.0, prompt_tokens=66000.0,
                    requests_finished=75.0)  # fmt: skip
        assert isinstance(seen.queue, Queue)
        seen = replace(seen, queue=replace(seen.queue, requests_running=8.0))
        state = after(seen, state)
    assert slower(state, steps=75.0, prompt=66000.0) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(
    ("mean", "batch"), [(0.05, 1.0252), (0.5, 1.2707), (1.0, 1.5820), (2.0, 2.3130), (4.0, 4.0746)]
)
def test_a_small_batch_tells_how_much_of_the_time_is_idle(mean: float, batch: float) -> None:
    """Poisson with mean m: busy 1 - exp(-m), mean batch m / (1 - exp(-m))."""
    assert busy_ratio(batch) == pytest.approx(1.0 - math.exp(-mean), rel=0.08)
    assert busy_ratio(20.0) == 1.0


# -- limits and contexts -------------------------------------------------------------------------


def queued(at_s: float, *, running: float, waiting: float, kv: float = 0.5) -> Observation:
    return observation({
        "at_s": str(at_s), "ready": "4", "running": str(running), "waiting": str(waiting),
        "kv": str(kv),
    })  # fmt: skip


def limit_after(
    samples: int, *, running: float = 200.0, waiting: float = 40.0, kv: float = 0.5
) -> float:
    state = FRESH
    for tick in range(samples):
        seen = queued(15.0 * tick, running=running, waiting=waiting, kv=kv)
        state = update_capacity(seen, state, CONFIG.capacity)
    return state.limits.sequences


def test_a_batch_that_stands_still_under_a_queue_is_at_its_limit() -> None:
    """50 on each of 4 replicas, of 100 believed; the first reading has no other to compare with."""
    assert limit_after(4) == 0.0
    assert limit_after(5) == pytest.approx(100.0 / 1.1**0.4)
    assert limit_after(60) == pytest.approx(50.0)


def test_a_full_kv_cache_or_a_short_queue_is_another_limit() -> None:
    assert limit_after(60, kv=0.95) == 0.0
    assert limit_after(60, waiting=3.0) == 0.0
    assert limit_after(60, running=20.0) == 0.0  # five on a replica: prompts, not sequences


def test_a_larger_batch_than_believed_raises_the_limit() -> None:
    assert limit_after(1, running=800.0, waiting=0.0) == pytest.approx(100.0 * 1.1**0.4)
    assert limit_after(60, running=800.0, waiting=0.0) == pytest.approx(200.0)


def test_more_tokens_in_a_step_than_believed_are_learned() -> None:
    """8000 tokens a step against 2048 believed."""
    state = STARTED
    for tick in range(1, 80):
        seen = busy(15.0 * tick, steps=150.0, prompt_tokens=150.0 * 7990.0)
        state = after(seen, state)
    assert state.limits.step_tokens == pytest.approx(8000.0, rel=0.02)


def test_contexts_are_learned_from_the_kv_cache() -> None:
    """Requests of 900 + 200 / 2 tokens finish; running ones hold 1500 each."""
    state = STARTED
    for tick in range(1, 60):
        seen = busy(15.0 * tick, finished_prompt_tokens=13500.0, finished_output_tokens=3000.0)
        assert not isinstance(seen.kv_cache, NoData)
        kv = replace(seen.kv_cache, usage_mean_ratio=0.015, capacity_tokens=1e6)
        state = after(replace(seen, kv_cache=kv), state)
    assert state.context.named == pytest.approx(1000.0)
    assert state.context.seen == pytest.approx(1500.0)
    assert state.context.factor == pytest.approx(1.5)
    assert state.kv_capacity_tokens == 1e6
    later = replace(busy(900.0), kv_cache=NoData(cause=Cause.ABSENT))
    assert after(later, state).context.factor == state.context.factor
    assert after(later, state).kv_capacity_tokens == 1e6


def test_a_new_pod_template_starts_from_the_old_estimate_widened() -> None:
    learned = replace(
        STARTED, key="a", multiples=(1.5, 1.0, 1.0, 2.0), steps=Filter(doubt=(0.01,) * 10),
        evidence_s=5000.0, kv_capacity_tokens=9e5, limits=Limits(sequences=64.0),
    )  # fmt: skip
    quiet = replace(busy(15.0, output_tokens=0.0, prompt_tokens=0.0, interval_s=1e-3),
                    capacity_key="b")  # fmt: skip
    state = after(quiet, learned)
    assert (state.key, state.multiples) == ("b", (1.5, 1.0, 1.0, 2.0))
    assert state.evidence_s == pytest.approx(500.0)
    assert (state.kv_capacity_tokens, state.steps.doubt, state.limits.sequences) == (0.0, (), 0.0)
    same = after(replace(quiet, capacity_key="a"), learned)
    assert (same.steps.doubt, same.limits.sequences) == (learned.steps.doubt, 64.0)


def test_the_first_key_names_what_was_learned_without_one() -> None:
    learned = replace(
        STARTED, steps=Filter(doubt=(0.01,) * 10), evidence_s=5000.0, kv_capacity_tokens=9e5
    )
    quiet = replace(busy(15.0, output_tokens=0.0, prompt_tokens=0.0, interval_s=1e-3),
                    capacity_key="a")  # fmt: skip
    state = after(quiet, learned)
    assert (state.key, state.kv_capacity_tokens, state.steps.doubt) == ("a", 9e5, (0.01,) * 10)
    assert state.evidence_s == pytest.approx(5000.0)


def test_a_series_in_the_priors_weights_does_not_move_with_what_is_learned() -> None:
    """1000 * 0.4 ms + 200 * 50 ms / 100; cached prompts are not work."""
    assert unlearned_cost_s(DEMAND, CONFIG) == pytest.approx(0.5)
    assert unlearned_cost_s(replace(DEMAND, cached_ratio=0.5), CONFIG) == pytest.approx(0.3)


# -- how busy replicas are that have few sequences -----------------------------------------------


def sparse(itl: Latency | NoData, gpu_ratio: float | None = None) -> Observation:
    """Two sequences a step, 20 steps a second on each of 4 replicas."""
    seen = busy(15.0, steps=1200.0, output_tokens=2400.0, prompt_tokens=0.0, requests_finished=9.0)
    gpu: Gpu | NoData = NoData(cause=Cause.ABSENT)
    if gpu_ratio is not None:
        gpu = Gpu(
            seen_at_s=15.0, coverage_ratio=1.0, utilisation_mean_ratio=gpu_ratio,
            utilisation_max_ratio=gpu_ratio,
        )  # fmt: skip
    return replace(seen, itl=itl, gpu=gpu)


def gaps(*counts: float) -> Latency:
    """Gaps between tokens by bucket: to 10 ms, to 40 ms, above."""
    return Latency(
        seen_at_s=15.0, coverage_ratio=1.0, window_s=60.0, bounds_s=(0.01, 0.04), counts=counts
    )


def busy_of(seen: Observation) -> float:
    sample = see_sample(seen, Gauges(seen_at_s=0.0, running=8.0, ready=4), context=1000.0)
    assert sample is not None
    return sample.busy_ratio


def test_gaps_between_tokens_times_steps_are_the_time_that_was_busy() -> None:
    """Steps of sqrt(10 * 40) = 20 ms fill 0.4 of the time; chance says 0.8 of so small a batch."""
    assert busy_of(sparse(gaps(0.0, 10.0, 0.0))) == pytest.approx(busy_ratio(2.0))
    assert busy_of(sparse(gaps(0.0, 0.0, 10.0))) == pytest.approx(busy_ratio(2.0), abs=0.01)
    long = gaps(0.0, 0.0, 10.0)
    assert busy_of(sparse(replace(long, bounds_s=(0.01, 0.046)))) == pytest.approx(0.92)


def test_dcgm_and_the_gaps_meet_in_the_middle() -> None:
    """0.92 by the gaps, 1 by DCGM: the root of 0.92."""
    long = replace(gaps(0.0, 0.0, 10.0), bounds_s=(0.01, 0.046))
    assert busy_of(sparse(long, gpu_ratio=1.0)) == pytest.approx(math.sqrt(0.92))


@pytest.mark.parametrize(
    "itl",
    [
        NoData(cause=Cause.ABSENT),
        gaps(0.0, 0.0, 0.0),
        replace(gaps(1.0), bounds_s=()),
    ],
    ids=["absent", "empty", "without bounds"],
)
def test_without_gaps_chance_tells(itl: Latency | NoData) -> None:
    assert busy_of(sparse(itl)) == pytest.approx(busy_ratio(2.0))
