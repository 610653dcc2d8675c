"""How many replicas for a load and its doubts, and how many to clear a backlog."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.budget import sigmas
from scaler.core.capacity import carried
from scaler.core.config import CapacityConfig
from scaler.core.model import Capacity
from scaler.core.sizing import Margins, cost_sigma, count_for, drain_extra, load_sigma

CONFIG = CapacityConfig(load_max_gain=0.5)
CAPACITY = Capacity(
    request_cost_s=0.5,
    request_cost_low_s=0.4,
    request_cost_high_s=0.5 * math.exp(0.1),
    load_max_ratio=0.6,
    evidence_s=1e4,
)
SURE = Margins(sigmas=0.0, forecast=0.0, capacity_ratio=0.0)
Z_99 = 2.326348
LOADS = st.floats(0.0, 500.0)
MARGINS = st.builds(
    Margins,
    sigmas=st.floats(0.0, 3.1),
    forecast=st.floats(0.0, 50.0),
    capacity_ratio=st.floats(0.0, 0.5),
)


def count(load: float, margins: Margins = SURE, *, attainment_ratio: float = 0.99) -> int:
    return count_for(load, margins, CAPACITY, CONFIG, attainment_ratio=attainment_ratio)


def test_without_a_margin_the_load_alone_counts() -> None:
    assert [count(load) for load in (-1.0, 0.0, 0.2, 1.0, 4.0, 4.01)] == [0, 0, 1, 1, 4, 5]


def test_the_slack_of_queueing_is_what_the_price_asks_of_it() -> None:
    """carried(n) = n - 0.4 sqrt(n) leaves the slack of 0.99.  At all of its sigmas 4 carry 3.2."""
    full = replace(SURE, sigmas=Z_99)
    assert count(3.19, full) == 4
    assert count(3.21, full) == 5
    half = replace(SURE, sigmas=Z_99 / 2)  # half the slack: 4 - 0.2 * 2 = 3.6
    assert (count(3.59, half), count(3.61, half)) == (4, 5)


def test_the_slack_is_measured_in_sigmas_of_the_objective_that_it_was_learned_for() -> None:
    """0.9 is 1.2816 sigmas: the same slack is worth more of them, so a price asks for more of it.

    4 - 0.8 * 2.3263 / 1.2816 = 2.548.
    """
    full = replace(SURE, sigmas=Z_99)
    assert count(2.54, full, attainment_ratio=0.9) == 4
    assert count(2.56, full, attainment_ratio=0.9) == 5


def test_doubts_add_as_squares() -> None:
    """A load of 10, forecast 3 above it and 0.1 * 10 * 4 = 4 of doubt in the cost: 5, so 15.

    The slack of 15 at no sigmas is none; one more sigma-free count is enough.
    """
    only_forecast = Margins(sigmas=0.0, forecast=3.0, capacity_ratio=0.4)
    assert count(10.0, only_forecast) == 13  # no sigmas: the capacity's doubt costs nothing
    exact = replace(CAPACITY, load_max_ratio=1.0)  # no slack of queueing
    both = Margins(sigmas=4.0, forecast=3.0, capacity_ratio=0.1)
    assert count_for(10.0, both, exact, CONFIG, attainment_ratio=0.99) == 15


def test_all_three_doubts_by_hand() -> None:
    """n = 12: slack 0.4 * sqrt(12) * 1 / 2.3263 = 0.596; sqrt(0.596 ** 2 + 1 + 0.64) = 1.412.

    12 - 1.412 = 10.588; n = 11: slack 0.570, 11 - 1.402 = 9.598.
    """
    margins = Margins(sigmas=1.0, forecast=1.0, capacity_ratio=0.08)  # 0.08 * 10 = 0.8
    assert count(10.0, margins) == 12


@given(load=LOADS, margins=MARGINS)
def test_the_count_is_the_smallest_that_is_enough(load: float, margins: Margins) -> None:
    found = count(load, margins)
    assert found >= load
    if load <= 0.0:
        return

    def left(n: int) -> float:
        slack = margins.sigmas / Z_99 * (n - carried(n, CAPACITY, CONFIG))
        doubt = margins.sigmas * margins.capacity_ratio * load
        return n - math.sqrt(slack**2 + margins.forecast**2 + doubt**2) - load

    assert left(found) >= -1e-4
    assert found <= 1 or left(found - 1) <= 1e-4


@given(load=LOADS, more=LOADS, margins=MARGINS)
def test_a_larger_load_never_needs_fewer(load: float, more: float, margins: Margins) -> None:
    assert count(load + more, margins) >= count(load, margins)


@given(
    load=LOADS,
    margins=MARGINS,
    more=st.floats(0.0, 2.0),
    far=st.floats(0.0, 20.0),
    vague=st.floats(0.0, 0.5),
)
def test_a_larger_doubt_never_needs_fewer(
    load: float, margins: Margins, more: float, far: float, vague: float
) -> None:
    worse = Margins(
        sigmas=margins.sigmas + more,
        forecast=margins.forecast + far,
        capacity_ratio=margins.capacity_ratio + vague,
    )
    assert count(load, worse) >= count(load, margins)


@given(load=LOADS, price=st.floats(0.01, 1e4), dearer=st.floats(1.0, 1e3))
def test_a_dearer_miss_never_needs_fewer(load: float, price: float, dearer: float) -> None:
    cheap, dear = (
        replace(SURE, sigmas=sigmas(item, load), capacity_ratio=0.1)
        for item in (price, price * dearer)
    )
    assert count(load, dear) >= count(load, cheap)


def test_a_load_beyond_everything_is_still_a_count() -> None:
    assert count(1e300) == 10**9


def test_an_interval_of_nine_in_ten_is_1_64_sigmas_to_either_side() -> None:
    assert cost_sigma(CAPACITY) == pytest.approx(0.1 / 1.644854)


def test_a_drain_is_the_root_of_the_ratio_of_prices() -> None:
    """90 replica-seconds wait, load 4, a miss at 2: sqrt(2 * 4 * 90 / 180) = 2."""
    assert drain_extra(90.0, 4.0, 2.0, kept_s=180.0) == pytest.approx(2.0)
    assert drain_extra(0.0, 4.0, 2.0, kept_s=180.0) == 0.0
    assert drain_extra(90.0, 0.1, 2.0, kept_s=180.0) == pytest.approx(1.0)  # at least one replica
    assert drain_extra(4.0, 1.0, 1.0, kept_s=0.0) == pytest.approx(2.0)  # kept at least a second
    assert drain_extra(-5.0, 1.0, 1.0, kept_s=1.0) == 0.0


@given(backlog=st.floats(1.0, 1e5), load=st.floats(1.0, 100.0), price=st.floats(0.1, 100.0))
def test_no_other_drain_is_cheaper(backlog: float, load: float, price: float) -> None:
    """cost(e) = price * load * backlog / e + e * kept_s, least where its parts are equal."""
    best = drain_extra(backlog, load, price, kept_s=300.0)

    def cost(extra: float) -> float:
        return price * load * backlog / extra + extra * 300.0

    assert cost(best) <= min(cost(0.9 * best), cost(1.1 * best))


def test_a_level_scatters_as_shot_noise_does() -> None:
    """Poisson arrivals of exponential costs, 0.5 s in the mean, and a level that fades with 240 s.

    At a load of 30: sqrt(30 * 0.5 / 240) = 0.25 replicas.  Drawn anew for two days of ticks of 15 s
    it is within 15 % of that.
    """
    sigma = load_sigma(30.0, CAPACITY, over_s=240.0)
    assert sigma == pytest.approx(0.25)
    random = np.random.default_rng(5)
    kept = math.exp(-15.0 / 240.0)
    levels, level = [], 30.0
    for arrived in random.poisson(60.0 * 15.0, size=11520):
        worth = random.gamma(arrived, 0.5) / 15.0
        level = kept * level + (1.0 - kept) * worth
        levels.append(level)
    assert np.std(levels) == pytest.approx(sigma, rel=0.15)
    assert load_sigma(0.0, CAPACITY, over_s=240.0) == 0.0
