"""Demand: arrivals smoothed, lengths from what finished, cache hits apart."""

import math
from dataclasses import replace

import pytest

from scaler.core.config import DemandConfig
from scaler.core.demand import DemandState, demand_of, update_demand
from scaler.core.model import Cause, NoData, Observation, Work
from tests.core.play import observation

CONFIG = DemandConfig(rate_time_constant_s=60.0)


def seen(at_s: float, rate: float, **changes: float) -> Observation:
    made = observation({"at_s": str(at_s), "rate": str(rate), "running": "6", "waiting": "2"})
    assert isinstance(made.work, Work)
    return replace(made, work=replace(made.work, **changes))


def test_the_first_rate_is_taken_whole_and_the_next_are_smoothed() -> None:
    """Also at time 0: kept share of the first rate is exp(-15 / 60)."""
    state = update_demand(seen(0.0, 4.0), DemandState(), CONFIG)
    assert state.requests_per_s == pytest.approx(4.0)
    state = update_demand(seen(15.0, 8.0), state, CONFIG)
    assert state.requests_per_s == pytest.approx(8.0 - 4.0 * math.exp(-0.25))


def test_a_sample_counts_once() -> None:
    state = update_demand(seen(15.0, 4.0), DemandState(), CONFIG)
    assert update_demand(seen(15.0, 9.0), state, CONFIG) is state
    missing = replace(seen(30.0, 9.0), work=NoData(cause=Cause.STALE))
    assert update_demand(missing, state, CONFIG) is state


def test_a_sample_stamped_in_the_future_does_not_keep_out_those_that_follow() -> None:
    state = update_demand(seen(15.0, 4.0, seen_at_s=9000.0), DemandState(), CONFIG)
    assert state.seen_at_s == 15.0
    assert update_demand(seen(30.0, 8.0), state, CONFIG).requests_per_s > 4.0


def test_lengths_are_the_priors_until_requests_have_finished() -> None:
    """The prior weighs as 10 requests; 30 finished with 400 prompt and 80 output tokens each."""
    demand = demand_of(seen(0.0, 2.0), update_demand(seen(0.0, 2.0), DemandState(), CONFIG), CONFIG)
    assert demand.prompt_tokens_per_request == 1000.0
    assert demand.output_tokens_per_request == 200.0
    assert (demand.requests_in_flight, demand.backlog_requests) == (8.0, 2.0)
    lengths = seen(
        0.0, 2.0, requests_finished=30.0, finished_prompt_tokens=12e3, finished_output_tokens=2400.0
    )
    demand = demand_of(lengths, update_demand(lengths, DemandState(), CONFIG), CONFIG)
    assert demand.prompt_tokens_per_request == pytest.approx((10 * 1000 + 12000) / 40)
    assert demand.output_tokens_per_request == pytest.approx((10 * 200 + 2400) / 40)


@pytest.mark.parametrize(
    "changes",
    [
        {"requests_finished": 30.0},  # an engine without length histograms
        {"requests_finished": 0.0, "finished_prompt_tokens": 9e9},  # lengths of nobody
    ],
)
def test_lengths_without_requests_or_requests_without_lengths_leave_the_mix(
    changes: dict[str, float],
) -> None:
    state = update_demand(seen(0.0, 2.0, **changes), DemandState(), CONFIG)
    demand = demand_of(seen(0.0, 2.0), state, CONFIG)
    assert demand.prompt_tokens_per_request == 1000.0


def test_cached_prompt_tokens_are_demand_apart() -> None:
    """3000 of 4000 prompt tokens were cached: 2 requests/s of 1000 tokens compute 500/s."""
    hits = seen(0.0, 2.0, prompt_tokens=1000.0, cached_tokens=3000.0)
    demand = demand_of(hits, update_demand(hits, DemandState(), CONFIG), CONFIG)
    assert demand.cached_ratio == pytest.approx(0.75)
    assert demand.prompt_tokens_per_s == pytest.approx(500.0)
    assert demand.cached_tokens_per_s == pytest.approx(1500.0)
    assert demand.output_tokens_per_s == pytest.approx(400.0)


def test_a_negative_balance_is_no_demand() -> None:
    state = update_demand(seen(0.0, -3.0), DemandState(), CONFIG)
    assert demand_of(seen(0.0, -3.0), state, CONFIG).requests_per_s == 0.0


def test_without_gauges_nothing_is_in_flight() -> None:
    dark = replace(seen(0.0, 2.0), queue=NoData(cause=Cause.ABSENT))
    demand = demand_of(dark, update_demand(dark, DemandState(), CONFIG), CONFIG)
    assert (demand.requests_in_flight, demand.backlog_requests) == (0.0, 0.0)
