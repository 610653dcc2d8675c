"""The error budget: what was spent of it, and what a miss costs because of that."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.budget import BudgetState, budget_of, missed_ratio, sigmas, update_budget
from scaler.core.config import BudgetConfig, SloConfig
from scaler.core.model import Cause, Latency, NoData, Observation, Replicas, Work
from tests.core.play import observation

SLO = SloConfig(ttft_s=2.0, attainment_target_ratio=0.99)
CONFIG = BudgetConfig(
    price_factor=1.0,
    gain_factor=4.0,
    memory_s=86400.0,
    prior_s=7200.0,
    prior_spent_ratio=0.5,
    overspent_max_ratio=0.7,
)
WINDOW_S = 60.0  # of the TTFT histogram of a script
LATE = "90:0:0:10:0"  # ten of a hundred above 2.5 s


def seen(at_s: float, **cells: str) -> Observation:
    return observation({"at_s": str(at_s), "ready": "4", "rate": "10", "ttft": LATE, **cells})


def spent(*observed: Observation, busy_ratio: float = 0.8) -> BudgetState:
    state = BudgetState()
    for item in observed:
        state = update_budget(item, state, SLO, CONFIG, busy_ratio=busy_ratio)
    return state


# -- what is counted -------------------------------------------------------------------------------


def test_every_request_that_ended_counts_once_and_the_histogram_says_who_was_late() -> None:
    """10 requests/s for 15 s are 150; a tenth of them missed; a day forgets exp(-15 / 86400)."""
    one = spent(seen(0.0))
    assert (one.requests, one.missed) == pytest.approx((150.0, 15.0))
    two = spent(seen(0.0), seen(15.0))
    kept = math.exp(-15.0 / 86400.0)
    assert (two.requests, two.missed) == pytest.approx((150.0 * (1 + kept), 15.0 * (1 + kept)))


def test_a_rejected_request_missed_whatever_the_histogram_says() -> None:
    item = seen(0.0, ttft="100:0:0:0:0")
    assert isinstance(item.work, Work)
    state = spent(replace(item, work=replace(item.work, requests_rejected=50.0)))
    assert (state.requests, state.missed) == pytest.approx((200.0, 50.0))


@pytest.mark.parametrize("name", ["work", "ttft"])
def test_without_data_nothing_is_counted(name: str) -> None:
    before = spent(seen(0.0))
    changes = {name: NoData(cause=Cause.STALE)}
    hurt = replace(seen(15.0), **changes)  # type: ignore[arg-type]  # either is a field
    assert update_budget(hurt, before, SLO, CONFIG, busy_ratio=0.8) is before


def test_a_sample_counts_once() -> None:
    before = spent(seen(15.0))
    assert update_budget(seen(15.0), before, SLO, CONFIG, busy_ratio=0.8) is before


def test_an_empty_histogram_has_no_misses() -> None:
    state = spent(seen(0.0, ttft="0:0:0:0:0"))
    assert (state.requests, state.missed) == (150.0, 0.0)


# -- misses that no count avoids -------------------------------------------------------------------


def roomy(busy_ratio: float = 0.4, **cells: str) -> BudgetState:
    """20 minutes of late requests on four replicas."""
    return spent(*(seen(15.0 * tick, **cells) for tick in range(80)), busy_ratio=busy_ratio)


def test_misses_on_replicas_with_room_are_told_apart_after_three_windows() -> None:
    """The first 180 s are not believed, nor the tick that ends them: 80 - 12 ticks of 150."""
    state = roomy()
    assert state.roomy_requests == pytest.approx(68 * 150.0, rel=0.02)
    assert state.roomy_missed == pytest.approx(0.1 * state.roomy_requests)
    budget = budget_of(state, SLO, CONFIG, requests_per_s=10.0)
    share = state.roomy_missed / (state.roomy_requests + 500.0)
    assert budget.unavoidable_ratio == pytest.approx(share)
    assert budget.allowed_ratio == pytest.approx(1.0 - 0.99 * (1.0 - share))


@pytest.mark.parametrize(
    ("busy_ratio", "cells"),
    [
        (0.51, {}),  # the count may be at fault
        (0.4, {"waiting": "3"}),  # four replicas: more than two requests wait
        (0.4, {"waiting": "-"}),  # nobody knows whether they wait
        (0.4, {"wanted": "-"}),  # nobody knows whether replicas have just come
    ],
)
def test_no_miss_is_excused_where_the_count_may_be_at_fault(
    busy_ratio: float, cells: dict[str, str]
) -> None:
    state = roomy(busy_ratio, **cells)
    assert (state.roomy_requests, state.roomy_missed) == (0.0, 0.0)
    assert budget_of(state, SLO, CONFIG, requests_per_s=10.0).allowed_ratio == pytest.approx(0.01)


def test_a_newcomer_is_flooded_and_its_misses_are_not_excused() -> None:
    """What a router sends to a replica that has just come says nothing for three windows."""
    before = roomy()
    item = seen(1200.0)
    assert isinstance(item.replicas, Replicas)
    came = replace(item, replicas=replace(item.replicas, start_up_s=(100.0,)))
    after = update_budget(came, before, SLO, CONFIG, busy_ratio=0.4)
    later = update_budget(seen(1215.0), after, SLO, CONFIG, busy_ratio=0.4)
    assert later.crowded_at_s == 1200.0
    assert later.roomy_requests < before.roomy_requests < later.requests
    settled = update_budget(seen(1380.0), later, SLO, CONFIG, busy_ratio=0.4)
    assert settled.roomy_requests > later.roomy_requests


def test_not_more_than_half_is_ever_called_unavoidable() -> None:
    budget = budget_of(roomy(ttft="0:0:0:0:99"), SLO, CONFIG, requests_per_s=10.0)
    assert budget.unavoidable_ratio == 0.5
    assert budget.allowed_ratio == pytest.approx(1.0 - 0.99 / 2)


# -- the price -------------------------------------------------------------------------------------


def test_the_prior_is_what_it_says_before_anything_was_seen() -> None:
    budget = budget_of(BudgetState(), SLO, CONFIG, requests_per_s=10.0)
    assert budget.spent_ratio == pytest.approx(0.5)
    assert budget.price_factor == pytest.approx(math.exp(4.0 * (0.5 - 1.0)))


def test_a_first_bad_minute_does_not_set_the_price() -> None:
    """600 requests, 60 of them late, against two hours of 10/s with half of their part spent.

    missed = 60 + 72000.5 * 0.01 * 0.5 = 420; allowed of 72600.5 are 726.
    """
    state = BudgetState(requests=600.0, missed=60.0)
    steadied = budget_of(state, SLO, CONFIG, requests_per_s=10.0)
    assert steadied.spent_ratio == pytest.approx(420.0025 / 726.005)
    hasty = budget_of(state, SLO, replace(CONFIG, prior_s=0.0), requests_per_s=10.0)
    assert hasty.spent_ratio == pytest.approx((60.0 + 0.0025) / 6.005)


def test_the_dial_sets_the_price_before_anything_was_missed() -> None:
    """A tenth of the misses allowed: ten times the price, at the same share spent."""
    thrifty, safe = (
        budget_of(
            BudgetState(),
            replace(SLO, attainment_target_ratio=target),
            CONFIG,
            requests_per_s=10.0,
        )
        for target in (0.99, 0.999)
    )
    assert safe.spent_ratio == pytest.approx(thrifty.spent_ratio)
    assert safe.price_factor == pytest.approx(10.0 * thrifty.price_factor)


def test_what_is_overspent_costs_no_more_than_the_cap() -> None:
    lost = BudgetState(requests=1e6, missed=9e5)
    assert budget_of(lost, SLO, CONFIG, requests_per_s=0.0).price_factor == pytest.approx(
        math.exp(4.0 * 0.7)
    )
    spotless = BudgetState(requests=1e9)
    assert budget_of(spotless, SLO, CONFIG, requests_per_s=0.0).price_factor == pytest.approx(
        math.exp(-4.0), rel=1e-3
    )


@given(
    requests=st.floats(0.0, 1e7),
    share=st.floats(0.0, 1.0),
    more=st.floats(0.0, 1.0),
    rate=st.floats(0.0, 1e3),
)
def test_more_misses_never_make_a_miss_cheaper(
    requests: float, share: float, more: float, rate: float
) -> None:
    few = BudgetState(requests=requests, missed=share * more * requests)
    many = replace(few, missed=share * requests)
    cheap, dear = (budget_of(item, SLO, CONFIG, requests_per_s=rate) for item in (few, many))
    assert dear.price_factor >= cheap.price_factor
    assert sigmas(dear.price_factor, 5.0) >= sigmas(cheap.price_factor, 5.0)


@pytest.mark.parametrize(
    ("price", "load", "expected"),
    [
        (10.0, 1.0, 1.2816),  # one in 10
        (10.0, 10.0, 2.3263),  # one in 100
        (5.0, 0.1, 0.8416),  # a load below one replica counts as one: one in 5
        (1e6, 1e3, 3.0902),  # never rarer than one in 1000
        (0.01, 1.0, 0.1257),  # the mean is carried however cheap a miss: 0.45
    ],
)
def test_the_margin_is_the_quantile_of_the_critical_ratio(
    price: float, load: float, expected: float
) -> None:
    """Quantiles of the standard normal distribution from its table."""
    assert sigmas(price, load) == pytest.approx(expected, abs=1e-4)


# -- the share above an objective ------------------------------------------------------------------


def histogram(cell: str) -> Latency:
    latency = seen(0.0, ttft=cell).ttft
    assert isinstance(latency, Latency)
    return latency


@pytest.mark.parametrize(
    ("cell", "objective_s", "expected"),
    [
        ("70:10:15:5:0", 1.0, 0.2),  # on a bound nothing is interpolated
        ("70:10:15:5:0", 2.0, 0.2 * (5 / 20) ** (2 / 3)),  # 1 s 0.2, 2.5 s 0.05: two thirds
        ("70:10:20:0:0", 2.0, 0.2 * (0.5 / 20) ** (2 / 3)),  # an empty tail may hide half a request
        ("70:10:0:0:20", 2.0, 0.2),  # nobody inside the bucket
        ("70:10:10:5:5", 9.0, 0.05),  # beyond the last bound all may be late
        ("100:0:0:0:0", 2.0, 0.0),
    ],
)
def test_the_tail_falls_geometrically_inside_a_bucket(
    cell: str, objective_s: float, expected: float
) -> None:
    assert missed_ratio(histogram(cell), objective_s) == pytest.approx(expected)


@given(
    counts=st.tuples(*[st.integers(0, 100)] * 5).filter(any),
    objective_s=st.floats(0.01, 20.0),
    more_s=st.floats(0.0, 5.0),
)
def test_fewer_miss_a_wider_objective(
    counts: tuple[int, ...], objective_s: float, more_s: float
) -> None:
    latency = histogram(":".join(map(str, counts)))
    narrow, wide = missed_ratio(latency, objective_s), missed_ratio(latency, objective_s + more_s)
    assert 0.0 <= wide <= narrow + 1e-12
    assert narrow <= 1.0
