"""One contract for every forecaster, and the score that decides whether one is used."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.config import ForecastConfig, ForecasterName
from scaler.core.forecast import (
    FORECASTERS,
    GAP_MAX_S,
    PENDING_MAX,
    Forecaster,
    ForecastState,
    Level,
    Outlook,
    look_ahead,
)

CONFIG = ForecastConfig()
EVERY = pytest.mark.parametrize("forecaster", list(FORECASTERS.values()), ids=list(FORECASTERS))
SERIES = st.lists(st.tuples(st.floats(0.0, 600.0), st.floats(0.0, 1e6)), min_size=1, max_size=30)


def learned(
    forecaster: Forecaster[Level],
    series: list[tuple[float, float]],
    config: ForecastConfig = CONFIG,
) -> Level:
    (at_s, first), *rest = series
    state = forecaster.init(first, at_s)
    for elapsed_s, value in rest:
        at_s += elapsed_s
        state = forecaster.update(state, value, at_s, config)
    return state


def steps(values: list[float], tick_s: float = 15.0) -> list[tuple[float, float]]:
    return [(tick_s if i else 0.0, value) for i, value in enumerate(values)]


# -- the contract ----------------------------------------------------------------------------------


def test_every_name_has_a_forecaster() -> None:
    assert set(FORECASTERS) == set(ForecasterName)


@EVERY
@given(series=SERIES, lead_s=st.floats(0.0, 3600.0))
def test_predictions_are_finite_and_never_negative(
    forecaster: Forecaster[Level], series: list[tuple[float, float]], lead_s: float
) -> None:
    predicted = forecaster.predict(learned(forecaster, series), lead_s, CONFIG)
    assert math.isfinite(predicted)
    assert predicted >= 0.0


@EVERY
@given(series=SERIES)
def test_learning_is_pure(forecaster: Forecaster[Level], series: list[tuple[float, float]]) -> None:
    assert learned(forecaster, series) == learned(forecaster, series)


@EVERY
def test_a_constant_series_is_forecast_as_itself(forecaster: Forecaster[Level]) -> None:
    state = learned(forecaster, steps([5.0] * 40))
    assert forecaster.predict(state, 195.0, CONFIG) == pytest.approx(5.0)


@EVERY
@given(first=st.floats(0.0, 1e6))
def test_one_value_is_all_that_is_known(forecaster: Forecaster[Level], first: float) -> None:
    assert forecaster.predict(forecaster.init(first, 7.0), 195.0, CONFIG) == pytest.approx(first)


@EVERY
@given(series=SERIES, more=st.floats(0.0, 1e3))
def test_a_larger_last_value_is_never_forecast_lower(
    forecaster: Forecaster[Level], series: list[tuple[float, float]], more: float
) -> None:
    *before, (elapsed_s, last) = [*series, (15.0, 3.0)]
    low = forecaster.predict(learned(forecaster, [*before, (elapsed_s, last)]), 195.0, CONFIG)
    high = forecaster.predict(
        learned(forecaster, [*before, (elapsed_s, last + more)]), 195.0, CONFIG
    )
    assert high >= low - 1e-6 * max(low, 1.0)


@EVERY
def test_a_value_of_the_same_instant_breaks_nothing(forecaster: Forecaster[Level]) -> None:
    state = forecaster.update(forecaster.init(3.0, 0.0), 4.0, 0.0, CONFIG)
    assert 3.0 <= forecaster.predict(state, 195.0, CONFIG) <= 4.0


# -- level and trend -------------------------------------------------------------------------------


def test_a_trend_is_followed_and_damped() -> None:
    """A ramp of 0.01/s: over a lead L the damped trend covers tau * (1 - exp(-L / tau)) seconds."""
    config = ForecastConfig(
        level_time_constant_s=10.0, trend_time_constant_s=30.0, trend_damping_s=36000.0
    )
    trend = FORECASTERS[ForecasterName.TREND]
    state = learned(trend, steps([0.15 * i for i in range(200)]), config)
    assert state.trend_per_s == pytest.approx(0.01, rel=0.02)
    reach_s = 36000.0 * (1.0 - math.exp(-195.0 / 36000.0))
    expected = state.level + state.trend_per_s * reach_s
    assert trend.predict(state, 195.0, config) == pytest.approx(expected)
    assert expected == pytest.approx(0.15 * 199 + 1.95, rel=0.03)
    damped = ForecastConfig(trend_damping_s=60.0)
    assert trend.predict(state, 1e9, damped) == pytest.approx(
        state.level + state.trend_per_s * 60.0
    )


# -- the score -------------------------------------------------------------------------------------


def follow(
    values: list[float],
    *,
    tick_s: float = 15.0,
    lead_s: float = 60.0,
    name: ForecasterName = ForecasterName.TREND,
    state: ForecastState | None = None,
    begin_s: float = 0.0,
) -> tuple[list[Outlook], ForecastState]:
    now, outlooks = state or ForecastState(), []
    for i, value in enumerate(values):
        outlook, now = look_ahead(
            value,
            now,
            CONFIG,
            forecaster=FORECASTERS[name],
            lead_s=lead_s,
            now_s=begin_s + tick_s * i,
        )
        outlooks.append(outlook)
    return outlooks, now


def test_a_forecast_is_not_used_before_one_has_come_due() -> None:
    outlooks, _ = follow([0.5 * i for i in range(80)], lead_s=195.0)
    assert [item.used for item in outlooks[:13]] == [False] * 13  # a lead of 13 ticks
    assert outlooks[-1].used
    assert outlooks[-1].skill > 0.0


def test_while_it_is_no_better_the_last_value_stands_with_its_own_spread() -> None:
    """Alternating 2 and 6, due every odd tick: persistence is off by 4 each time.

    upper = last value + z(0.9) * sqrt(mean of 16) = 6 + 1.2816 * 4.
    """
    outlooks, _ = follow([2.0, 6.0] * 10, lead_s=15.0, name=ForecasterName.LAST)
    assert outlooks[-1].skill == 0.0
    assert not outlooks[-1].used
    assert outlooks[-1].mean == 6.0
    assert outlooks[-1].upper == pytest.approx(6.0 + 1.2816 * 4.0, rel=1e-3)


def test_a_series_without_error_has_no_skill_and_no_spread() -> None:
    outlooks, _ = follow([3.0] * 20)
    assert outlooks[-1] == Outlook(mean=3.0, upper=3.0, skill=0.0, used=False)


def test_scores_fade_so_that_a_forecaster_can_come_back() -> None:
    _, bad = follow([2.0, 2.0, 2.0, 9.0, 9.0, 9.0] * 30)
    outlooks, _ = follow([0.5 * i for i in range(1500)], state=bad, begin_s=15.0 * 180)
    assert outlooks[-1].used


def test_what_came_due_while_nothing_was_seen_is_not_scored() -> None:
    _, before = follow([1.0, 2.0, 3.0])
    assert len(before.pending) == 3
    for gap_s, weight in ((GAP_MAX_S, 3.0), (GAP_MAX_S + 1.0, 0.0)):
        _, after = follow([50.0], state=before, begin_s=30.0 + gap_s)
        assert after.weight == pytest.approx(weight)
        assert len(after.pending) == 1


def test_waiting_forecasts_are_bounded_and_still_come_due_with_a_very_long_lead() -> None:
    outlooks, state = follow([0.1 * i for i in range(900)], tick_s=5.0, lead_s=1800.0)
    assert len(state.pending) <= PENDING_MAX
    assert state.weight > 0.0
    assert outlooks[-1].used
