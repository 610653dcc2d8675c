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
    update_capacity,
)
from scaler.core.config import CapacityConfig, PolicyConfig, SloConfig
from scaler.core.model import Capacity, Cause, Demand, NoData, Observation, Replicas, Role, Work
from tests.core.play import CONFIG, observation

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
    """1100 tokens a sequence, 11000 in the cache: 10 sequences share the 200 * 50 ms."""
    assert cost_s(kv_capacity_tokens=11000.0) == pytest.approx(0.4 + 1.0)
    assert cost_s(kv_capacity_tokens=100.0) == pytest.approx(0.4 + 10.0)  # never below one


def test_the_inter_token_objective_bounds_the_sequences_too() -> None:
    """0.07 s a step leaves 0.02 s for sequences of 1 ms: 20 of them."""
    policy = replace(
        CONFIG,
        slo=SloConfig(tpot_s=0.07),
        capacity=replace(CONFIG.capacity, per_sequence_s=1e-3),
    )
    assert cost_s(policy) == pytest.approx(0.4 + 0.2 + 200 * 0.05 / 20)
    assert cost_s(replace(policy, role=Role.PREFILL)) == pytest.approx(0.4 + 0.001 + 0.05 / 100)


def test_an_objective_below_an_empty_step_does_not_multiply_the_demand() -> None:
    """No count of replicas makes a step of 50 ms one of 20 ms: sized as for 8 sequences."""
    policy = replace(
        CONFIG,
        slo=SloConfig(tpot_s=0.02),
        capacity=replace(CONFIG.capacity, per_sequence_s=1e-3),
    )
    assert cost_s(policy) == pytest.approx(0.4 + 0.2 + 200 * 0.05 / 8)


def test_the_learned_scale_stretches_every_step() -> None:
    assert cost_s(log_scale=math.log(1.5)) == pytest.approx(0.75)


def test_the_interval_narrows_with_evidence_and_never_closes() -> None:
    """Factor 3 at none; at three times the prior's weight the log spread halves; floor 5 %."""
    spreads = [
        capacity_of(DEMAND, replace(FRESH, evidence_s=evidence_s), CONFIG)
        for evidence_s in (0.0, 900.0, 1e9)
    ]
    factors = [item.request_cost_high_s / item.request_cost_s for item in spreads]
    assert factors == pytest.approx([3.0, math.sqrt(3.0), math.exp(0.05)])
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


def busy(at_s: float, **changes: Any) -> Observation:
    """4 replicas, 40 running: a step of 0.05 s makes 40 * 15 / 0.05 = 12000 tokens in 15 s."""
    seen = observation({"at_s": str(at_s), "ready": "4", "running": "40", "rate": "4"})
    assert isinstance(seen.work, Work)
    work = replace(seen.work, **{"output_tokens": 6000.0, "requests_finished": 30.0, **changes})
    return replace(seen, work=work)


STARTED = update_capacity(busy(0.0), FRESH, CONFIG.capacity)


def moved(seen: Observation, state: CapacityState = STARTED) -> float:
    return update_capacity(seen, state, CONFIG.capacity).log_scale


def test_a_sample_moves_the_estimate_by_its_share_of_the_evidence() -> None:
    """Twice the step time of the prior; 60 replica-seconds against 300 + 60: log 2 / 6."""
    state = update_capacity(busy(15.0), STARTED, CONFIG.capacity)
    gain = 60.0 / (300.0 + 60.0)
    assert gain * math.log(2.0) > math.log1p(0.1)  # so the limit of 10 % holds it back
    assert state.log_scale == pytest.approx(math.log1p(0.1))
    assert state.evidence_s == pytest.approx(60.0)
    small = update_capacity(busy(15.0, output_tokens=11000.0), STARTED, CONFIG.capacity)
    assert small.log_scale == pytest.approx(gain * math.log(12 / 11))


def test_prefill_takes_its_share_of_the_time() -> None:
    """60000 prompt tokens at 0.4 ms are 24 of 60 replica-seconds: 0.6 of each step is decode."""
    seen = busy(15.0, output_tokens=7200.0, prompt_tokens=60000.0)
    assert moved(seen) == pytest.approx(0.0, abs=1e-9)
    assert moved(busy(15.0, prompt_tokens=140000.0)) == 0.0  # 93 % prefill: decode is not seen


def test_the_kv_cache_in_use_makes_steps_longer() -> None:
    """Half of 1000000 tokens at 100 ns: 0.05 s more, just what was seen."""
    config = replace(CONFIG.capacity, per_kv_token_s=1e-7)
    seen = busy(15.0)
    assert not isinstance(seen.kv_cache, NoData)
    half = replace(seen.kv_cache, usage_mean_ratio=0.5, capacity_tokens=1e6)
    seen = replace(seen, kv_cache=half)
    state = update_capacity(seen, STARTED, config)
    assert state.log_scale == pytest.approx(0.0, abs=1e-9)
    assert state.kv_capacity_tokens == 1e6
    later = replace(busy(30.0), kv_cache=NoData(cause=Cause.ABSENT))
    assert update_capacity(later, state, config).kv_capacity_tokens == 1e6


def _cold(seen: Observation) -> Observation:
    assert isinstance(seen.replicas, Replicas)
    return replace(seen, replicas=replace(seen.replicas, starting_age_s=(20.0,)))


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(_cold(busy(15.0)), id="a replica starts: cold caches, compilation"),
        pytest.param(replace(busy(15.0), replicas=NoData(cause=Cause.UNREACHABLE)), id="uncounted"),
        pytest.param(busy(15.0, preemptions=1.0), id="preempted requests are computed twice"),
        pytest.param(busy(15.0, output_tokens=0.0), id="nothing was decoded"),
        pytest.param(busy(15.0, output_tokens=200.0), id="30 requests of 7 tokens: prefill"),
        pytest.param(busy(15.0, replica_s=0.0), id="nobody was there"),
        pytest.param(busy(15.0, replica_s=900.0), id="under one request a replica: mostly idle"),
        pytest.param(busy(60.0), id="the gauge was read four intervals ago"),
        pytest.param(busy(0.0), id="the same sample again"),
        pytest.param(replace(busy(15.0), work=NoData(cause=Cause.STALE)), id="no counters"),
        pytest.param(replace(busy(15.0), queue=NoData(cause=Cause.STALE)), id="no gauges"),
    ],
)
def test_what_says_nothing_of_a_step_teaches_nothing(seen: Observation) -> None:
    state = update_capacity(seen, STARTED, CONFIG.capacity)
    assert (state.log_scale, state.evidence_s) == (0.0, 0.0)


def test_the_first_reading_of_the_gauge_only_begins() -> None:
    assert (STARTED.log_scale, STARTED.running, STARTED.seen_at_s) == (0.0, 40.0, 0.0)


def test_the_estimate_stays_within_twice_the_priors_doubt() -> None:
    """Steps a thousand times too long, for ever: at most 3 * 3."""
    state = STARTED
    for tick in range(1, 200):
        seen = busy(15.0 * tick, output_tokens=12.0, requests_finished=1.0)
        state = update_capacity(seen, state, CONFIG.capacity)
    assert state.log_scale == pytest.approx(2.0 * math.log(3.0))


def test_evidence_fades_in_a_day() -> None:
    old = replace(STARTED, evidence_s=1000.0)
    long = busy(15.0, interval_s=86400.0, replica_s=0.0)
    state = update_capacity(long, old, CONFIG.capacity)
    assert state.evidence_s == pytest.approx(1000.0 / math.e)


def test_a_new_pod_template_starts_from_the_old_estimate_widened() -> None:
    learned = replace(STARTED, key="a", log_scale=0.4, evidence_s=5000.0, kv_capacity_tokens=9e5)
    quiet = replace(busy(15.0, output_tokens=0.0, interval_s=1e-3), capacity_key="b")
    state = update_capacity(quiet, learned, CONFIG.capacity)
    assert (state.key, state.log_scale) == ("b", 0.4)
    assert state.evidence_s == pytest.approx(500.0)
    assert state.kv_capacity_tokens == 0.0
    same = update_capacity(replace(quiet, capacity_key="a"), learned, CONFIG.capacity)
    assert same.evidence_s == pytest.approx(5000.0)


def test_the_first_key_names_what_was_learned_without_one() -> None:
    learned = replace(STARTED, log_scale=0.4, evidence_s=5000.0, kv_capacity_tokens=9e5)
    quiet = replace(busy(15.0, output_tokens=0.0, interval_s=1e-3), capacity_key="a")
    state = update_capacity(quiet, learned, CONFIG.capacity)
    assert (state.key, state.kv_capacity_tokens) == ("a", 9e5)
    assert state.evidence_s == pytest.approx(5000.0)
