"""One contract for every forecaster, then what is particular to each."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.config import ForecastConfig
from scaler.core.forecast_candidates import (
    DAY,
    EVERY,
    WEEK,
    Candidate,
    Known,
    available,
    first_known,
    learn,
    predict,
    predict_each,
    resumed,
)
from scaler.core.forecast_cycle import CYCLE, MINUTES, Cycle, find_period_s
from scaler.core.forecast_levels import LEVELS, Forecaster, Levels, brief, reach_s, restarted
from scaler.core.forecast_regime import Regime, first_regime, spread_of, watch
from scaler.core.forecast_season import (
    DAY_S,
    DAY_SLOTS,
    UNKNOWN,
    WEEK_S,
    WEEK_SLOTS,
    knows,
    profile_of,
    releveled,
    shape,
)

CONFIG = ForecastConfig()
TICK_S = 15.0
FORECASTERS: dict[str, Forecaster[Any]] = {
    "levels": LEVELS, "day": DAY, "week": WEEK, "cycle": CYCLE
}  # fmt: skip
EACH = pytest.mark.parametrize("forecaster", list(FORECASTERS.values()), ids=list(FORECASTERS))
SERIES = st.lists(st.tuples(st.floats(0.0, 5000.0), st.floats(0.0, 1e6)), min_size=1, max_size=30)
Series = list[tuple[float, float]]


def learned(forecaster: Forecaster[Any], series: Series, config: ForecastConfig = CONFIG) -> Any:
    (at_s, first), *rest = series
    state = forecaster.init(first, at_s)
    for elapsed_s, value in rest:
        at_s += elapsed_s
        state = forecaster.update(state, value, at_s, config)
    return state


def steps(values: list[float], tick_s: float = TICK_S) -> Series:
    return [(tick_s if place else 0.0, value) for place, value in enumerate(values)]


# -- the contract ----------------------------------------------------------------------------------


@EACH
@given(series=SERIES, lead_s=st.floats(0.0, 36000.0))
def test_predictions_are_finite_and_never_negative(
    forecaster: Forecaster[Any], series: Series, lead_s: float
) -> None:
    for predicted in forecaster.predict(learned(forecaster, series), lead_s, CONFIG):
        assert math.isfinite(predicted)
        assert predicted >= 0.0


@EACH
@given(series=SERIES)
def test_learning_is_pure(forecaster: Forecaster[Any], series: Series) -> None:
    assert learned(forecaster, series) == learned(forecaster, series)


@EACH
def test_a_constant_series_is_forecast_as_itself(forecaster: Forecaster[Any]) -> None:
    state = learned(forecaster, steps([5.0] * 400, tick_s=60.0))
    for lead_s in (60.0, 615.0, 3600.0):
        assert forecaster.predict(state, lead_s, CONFIG) == pytest.approx(
            (5.0,) * len(forecaster.predict(state, lead_s, CONFIG))
        )


@EACH
@given(first=st.floats(0.0, 1e6))
def test_one_value_is_all_that_is_known(forecaster: Forecaster[Any], first: float) -> None:
    for predicted in forecaster.predict(forecaster.init(first, 7.0), 195.0, CONFIG):
        assert predicted == pytest.approx(first)


@EACH
def test_a_value_of_the_same_instant_changes_nothing(forecaster: Forecaster[Any]) -> None:
    state = forecaster.init(3.0, 60.0)
    assert forecaster.update(state, 4.0, 60.0, CONFIG) == state
    assert forecaster.update(state, 4.0, 30.0, CONFIG) == state


@EACH
@given(series=SERIES, more=st.floats(0.0, 1e3))
def test_a_larger_last_value_is_never_forecast_lower(
    forecaster: Forecaster[Any], series: Series, more: float
) -> None:
    before = learned(forecaster, series)
    at_s = before.at_s + 60.0
    low = forecaster.predict(forecaster.update(before, 3.0, at_s, CONFIG), 195.0, CONFIG)
    high = forecaster.predict(forecaster.update(before, 3.0 + more, at_s, CONFIG), 195.0, CONFIG)
    for one, other in zip(low, high, strict=True):
        assert other >= one - 1e-6 * max(one, 1.0)


# -- levels and trends -----------------------------------------------------------------------------


def test_a_level_forgets_with_its_time_constant() -> None:
    """From 0 to 10 after long: a tick moves a level of time constant T by 10 (1 - exp(-15 / T))."""
    state = learned(LEVELS, steps([0.0] * 400))
    after = LEVELS.update(state, 10.0, state.at_s + TICK_S, CONFIG)
    for level, time_constant_s in zip(after.levels, (30.0, 90.0, 240.0, 180.0, 60.0), strict=True):
        assert level == pytest.approx(10.0 * (1.0 - math.exp(-TICK_S / time_constant_s)))


def test_while_young_a_level_is_a_plain_mean() -> None:
    """Three values 15 s apart: weights 1/2 of two, then 1/3 of three; persistence keeps its own."""
    state = learned(LEVELS, steps([0.0, 6.0, 12.0]))
    assert state.levels[2] == pytest.approx(6.0)
    kept = math.exp(-0.5)
    assert state.levels[0] == pytest.approx((1.0 - kept) * 6.0 * kept + (1.0 - kept) * 12.0)


def test_a_ramp_is_followed_and_its_trend_damped() -> None:
    """0.15 a tick is 0.01/s; a damped trend reaches tau * (1 - exp(-lead / tau)) seconds far."""
    config = replace(CONFIG, trend_damping_s=36000.0, trend_time_constant_s=600.0)
    state = learned(LEVELS, steps([0.15 * tick for tick in range(1200)]), config)
    for trend in state.trends:
        assert trend == pytest.approx(0.01, rel=0.03)
    predicted = LEVELS.predict(state, 600.0, config)
    assert predicted[3] == pytest.approx(0.15 * 1199 + 0.01 * 600.0, rel=0.01)
    endless = LEVELS.predict(state, 1e9, config)
    assert endless[3] == pytest.approx(state.levels[3] + state.trends[0] * 36000.0)
    assert reach_s(1e9, 36000.0) == pytest.approx(36000.0)


def test_no_trend_is_taken_from_the_first_values() -> None:
    state = learned(LEVELS, steps([0.0, 10.0, 20.0]))
    assert state.trends == (0.0, 0.0)


@pytest.mark.parametrize("rising", [True, False])
def test_a_restart_moves_only_the_way_the_series_moved(*, rising: bool) -> None:
    state = Levels(at_s=0.0, age_s=900.0, levels=(1.0, 2.0, 3.0, 8.0, 9.0), trends=(0.1, -0.1))
    after = restarted(state, 5.0, rising=rising)
    assert after.age_s == 0.0
    if rising:
        assert after.levels == (1.0, 5.0, 5.0, 8.0, 9.0)  # persistence restarts by itself
        assert after.trends == (0.1, 0.0)
    else:
        assert after.levels == (1.0, 2.0, 3.0, 5.0, 5.0)
        assert after.trends == (0.0, -0.1)


def test_what_is_kept_long_is_kept_with_four_digits() -> None:
    assert brief(1234.5678) == 1235.0
    assert brief(0.000123456) == 0.0001235


# -- noise and regime changes ----------------------------------------------------------------------


def watched(values: list[float], expected: float, regime: Regime) -> tuple[Regime, list[Any]]:
    changes = []
    for value in values:
        regime, change = watch(regime, value, expected, TICK_S, CONFIG)
        changes.append(change)
    return regime, changes


def test_noise_is_the_variance_of_a_second_per_unit_of_level() -> None:
    """Requests of 0.25 s at 40 a second: variance of a tick 0.25^2 * 40 / 15, level 10: 0.25 s."""
    counts = np.random.default_rng(1).poisson(40.0 * TICK_S, 2000)
    regime, _ = watched((counts * 0.25 / TICK_S).tolist(), 10.0, first_regime(10.0, TICK_S))
    assert regime.noise_s == pytest.approx(0.25, rel=0.25)
    assert spread_of(10.0, 0.25, TICK_S) == pytest.approx(math.sqrt(0.25 * 10.0 / TICK_S + 0.1**2))
    assert spread_of(0.0, 0.25, TICK_S) == pytest.approx(0.25 / TICK_S)  # one request of 0.25 s


def test_one_value_far_off_is_no_change_and_two_are() -> None:
    quiet = Regime(noise_s=0.25, age_s=9000.0)
    _, (first, second) = watched([30.0, 30.0], 10.0, quiet)
    assert first is None
    assert second is not None
    assert second.level == pytest.approx(30.0)
    assert second.rising
    _, (first, second) = watched([1.0, 1.4], 10.0, quiet)
    assert first is None
    assert second.level == pytest.approx(1.2)
    assert not second.rising


def test_a_low_limit_still_wants_two_values() -> None:
    eager = replace(CONFIG, change_limit_factor=3.0)
    regime, change = watch(Regime(noise_s=0.25, age_s=9000.0), 30.0, 10.0, TICK_S, eager)
    assert change is None
    assert watch(regime, 30.0, 10.0, TICK_S, eager)[1] is not None
    regime, change = watch(Regime(noise_s=0.25, age_s=9000.0), 1.0, 10.0, TICK_S, eager)
    assert change is None
    assert watch(regime, 1.0, 10.0, TICK_S, eager)[1] is not None


def test_ten_hours_of_noise_bring_hardly_a_false_alarm() -> None:
    counts = np.random.default_rng(2).poisson(40.0 * TICK_S, 2400)
    _, changes = watched((counts * 0.25 / TICK_S).tolist(), 10.0, first_regime(10.0, TICK_S))
    assert sum(change is not None for change in changes) <= 2


def test_noise_learned_near_zero_is_not_believed_of_a_level_far_above() -> None:
    regime, changes = watched([20.0, 20.0], 0.0, Regime(noise_s=0.0, age_s=9000.0))
    assert changes[-1] is not None
    assert regime.noise_s == pytest.approx(0.1**2 * 20.0 * TICK_S)
    still, changes = watched([0.0, 0.0], 0.0, Regime(noise_s=0.0))
    assert changes == [None, None]
    assert still.up == still.down == 0.0


# -- day and week ----------------------------------------------------------------------------------


def half_hours(day: int, slot: int) -> float:
    return 10.0 + slot + 0.0 * day


def test_a_day_is_known_after_it_was_seen_and_scaled_by_todays_level() -> None:
    """Yesterday 10 + slot; today all is double: at slot 20.5 the forecast is 2 * 30.5."""
    minutes = [10.0 + (minute // 30) for minute in range(1440)]
    series = [(60.0 if minute else 0.0, value) for minute, value in enumerate(minutes)]
    state = learned(DAY, series)
    assert not knows(state)  # the last half hour has not ended
    for minute in range(20 * 30):
        at_s = DAY_S + 60.0 * minute
        state = DAY.update(state, 2.0 * (10.0 + minute // 30), at_s, CONFIG)
    assert knows(state)
    (predicted,) = DAY.predict(state, 3600.0, CONFIG)
    then = (state.at_s + 3600.0) % DAY_S / 1800.0
    assert predicted == pytest.approx(2.0 * (10.0 + then - 0.5), rel=0.05)


def test_a_profile_is_linear_between_the_middles_of_slots_and_goes_round() -> None:
    slots = (1.0, 3.0, 5.0)
    assert shape(slots, 0.5) == 1.0
    assert shape(slots, 1.0) == 2.0
    assert shape(slots, 0.0) == 3.0  # half way from the last, 5, to the first, 1
    assert shape(slots, 4.5) == 3.0
    assert shape((1.0, UNKNOWN, 5.0), 1.0) == UNKNOWN


def test_a_slot_hardly_seen_teaches_nothing_and_a_new_day_weighs_its_gain() -> None:
    state = DAY.init(8.0, 0.0)
    for minute in range(1, 32):
        state = DAY.update(state, 8.0, 60.0 * minute, CONFIG)
    assert state.slots[0] == 8.0
    for minute in range(32, 40):
        state = DAY.update(state, 99.0, 60.0 * minute, CONFIG)
    state = DAY.update(state, 8.0, 60.0 * 1440, CONFIG)  # of the second slot few minutes were seen
    assert state.slots[1] == UNKNOWN
    for minute in range(1440, 1440 + 32):
        state = DAY.update(state, 18.0, 60.0 * minute, CONFIG)
    assert state.slots[0] == pytest.approx(8.0 + 0.3 * 10.0, rel=0.02)


def test_a_new_regime_keeps_the_shape_and_a_zero_profile_says_nothing() -> None:
    state = learned(DAY, steps([4.0] * 1500, tick_s=60.0))
    assert knows(state)
    again = releveled(state, 9.0)
    assert again.slots == state.slots
    assert not knows(again)
    assert DAY.predict(again, 600.0, CONFIG) == (9.0,)
    relearned = DAY.update(again, 9.0, again.at_s + 60.0, CONFIG)
    assert DAY.predict(relearned, 600.0, CONFIG) == pytest.approx((9.0,))
    idle = learned(DAY, steps([0.0] * 1500, tick_s=60.0))
    assert not knows(idle)
    assert DAY.predict(idle, 600.0, CONFIG) == (0.0,)


def test_a_profile_read_from_a_series_is_the_one_learned_minute_by_minute() -> None:
    random = np.random.default_rng(4)
    values = random.uniform(1.0, 9.0, 3 * 1440)
    times = 60.0 * np.arange(1.0, values.size + 1.0)
    state = DAY.init(float(values[0]), 0.0)
    for at_s, value in zip(times.tolist(), values.tolist(), strict=True):
        state = DAY.update(state, value, at_s, CONFIG)
    state = DAY.update(state, 5.0, times[-1] + 60.0, CONFIG)  # ends the last slot
    read = profile_of(times - 30.0, values, DAY_S, DAY_SLOTS, CONFIG)
    assert state.slots == pytest.approx(read, rel=2e-3)
    hours = profile_of(times[:50] - 30.0, values[:50], WEEK_S, WEEK_SLOTS, CONFIG)
    assert sum(slot >= 0.0 for slot in hours) == 1


def test_a_slot_with_few_values_is_left_out_of_a_profile() -> None:
    times = np.concatenate((np.arange(0.0, 5400.0, 60.0), [5430.0]))
    values = np.full(times.size, 2.0)
    slots = profile_of(times, values, DAY_S, DAY_SLOTS, CONFIG)
    assert slots[:4] == (2.0, 2.0, 2.0, UNKNOWN)


# -- cycles ----------------------------------------------------------------------------------------


def pulses(period: int, on: int, count: int = MINUTES) -> tuple[float, ...]:
    return tuple(10.0 if minute % period < on else 2.0 for minute in range(count))


@pytest.mark.parametrize(("period", "on"), [(10, 5), (60, 15), (90, 10), (180, 60)])
def test_the_shortest_period_is_found(period: int, on: int) -> None:
    assert find_period_s(pulses(period, on)) == pytest.approx(60.0 * period, abs=15.0)


def test_a_period_between_whole_minutes_is_found_by_the_parabola() -> None:
    """7.5 minutes: the wave repeats exactly every 15 minutes and, in between, after 7.5."""
    wave = tuple(5.0 + 4.0 * math.sin(2.0 * math.pi * minute / 7.5) for minute in range(MINUTES))
    assert find_period_s(wave) == pytest.approx(450.0, abs=10.0)


@pytest.mark.parametrize(
    "minutes",
    [
        (3.0,) * MINUTES,
        (0.0,) * MINUTES,
        tuple(float(minute) for minute in range(MINUTES)),
        tuple(np.random.default_rng(1).normal(10.0, 1.0, MINUTES).tolist()),
        pulses(10, 5, count=20),
        tuple(math.cos(math.pi * minute / 200.0) for minute in range(200)),
    ],
    ids=["constant", "zero", "line", "noise", "short", "half-a-wave"],
)
def test_where_nothing_recurs_no_period_is_found(minutes: tuple[float, ...]) -> None:
    assert find_period_s(minutes) == 0.0


def test_a_cycle_repeats_the_mean_of_its_last_two_rounds() -> None:
    minutes = tuple(float(minute % 10) + (1.0 if minute >= 350 else 0.0) for minute in range(360))
    state = Cycle(minutes=minutes, at_s=0.0, level=1.0, period_s=600.0)
    # 3 minutes ahead is minute 2 of its round: 3 in the last round, 2 in the one before.
    assert CYCLE.predict(state, 180.0, CONFIG) == (2.5,)
    assert CYCLE.predict(state, 210.0, CONFIG) == (3.0,)
    assert CYCLE.predict(state, 780.0, CONFIG) == (2.5,)  # 13 minutes ahead: two rounds back
    assert CYCLE.predict(state, 600.0, CONFIG) == (9.5,)  # minute 9, with 1 more in the last
    assert CYCLE.predict(state, 0.0, CONFIG) == (9.0,)  # a whole round ago, and two
    short = Cycle(minutes=minutes[-4:], at_s=0.0, level=1.0, period_s=600.0)
    assert CYCLE.predict(short, 60.0, CONFIG) == (minutes[-4],)  # before all that is kept


# -- all together ----------------------------------------------------------------------------------


def told(values: list[float], at_s: float = 0.0) -> Known:
    known = first_known(values[0], at_s)
    for place, value in enumerate(values[1:], 1):
        known = learn(known, value, at_s + TICK_S * place, CONFIG)
    return known


def test_minutes_are_the_means_of_their_ticks_wherever_ticks_fall() -> None:
    known = told([4.0, 1.0, 2.0, 3.0, 6.0, 10.0])
    # ticks at 15, 30, 45 and 60 s bring 1, 2, 3 and 6: the first minute ends with the last of them
    assert known.cycle.minutes == (3.0,)
    assert known.cycle.at_s == 60.0
    odd = told([4.0, 1.0, 2.0, 3.0, 6.0, 10.0], at_s=5.0)
    # the minute from 0 to 60 was seen from 5 on; 6 counts for its last 10 s
    mean = (1.0 * 15.0 + 2.0 * 15.0 + 3.0 * 15.0 + 6.0 * 10.0) / 55.0
    assert odd.cycle.minutes == (brief(mean),)
    assert odd.minute_sum == pytest.approx(6.0 * 5.0 + 10.0 * 15.0)
    assert odd.minute_s == pytest.approx(20.0)


def test_one_value_stands_for_every_minute_it_covers() -> None:
    known = learn(first_known(2.0, 0.0), 7.0, 300.0, CONFIG)
    assert known.cycle.minutes == (7.0,) * 5
    assert known.minute_s == 0.0
    begun = learn(learn(first_known(2.0, 0.0), 1.0, 15.0, CONFIG), 5.0, 180.0, CONFIG)
    assert begun.cycle.minutes == (4.0, 5.0, 5.0)  # (15 * 1 + 45 * 5) / 60


def test_forecasts_are_judged_by_the_mean_of_the_last_minute() -> None:
    known = told([50.0, 1.0, 2.0, 3.0, 6.0])
    assert known.recent == (1.0, 2.0, 3.0, 6.0)
    assert known.came == 3.0
    assert learn(known, 9.0, known.at_s + 300.0, CONFIG).came == 9.0  # one value covers it all
    assert learn(known, 9.0, known.at_s + 0.5, CONFIG).recent == (1.0, 2.0, 3.0, 6.0, 9.0)


def test_a_change_restarts_levels_and_keeps_what_was_gathered() -> None:
    known = told([2.0] * 400)
    sudden = learn(learn(known, 20.0, known.at_s + 15.0, CONFIG), 20.0, known.at_s + 30.0, CONFIG)
    assert sudden.levels.levels[1:] == (20.0,) * 4
    assert sudden.levels.age_s == 0.0
    assert sudden.day.level == 20.0
    assert len(sudden.cycle.minutes) >= len(known.cycle.minutes)
    between = told([2.0] * 398)  # two ticks later no minute has ended
    sudden = learn(between, 20.0, between.at_s + 15.0, CONFIG)
    sudden = learn(sudden, 20.0, between.at_s + 30.0, CONFIG)
    assert sudden.levels.levels[1:] == (20.0,) * 4


def test_after_a_silence_only_the_shapes_and_the_noise_are_left() -> None:
    known = told([2.0, 3.0] * 300)
    after = resumed(known, 9.0, known.at_s + 5000.0)
    assert after.levels.levels == (9.0,) * 5
    assert after.cycle.minutes == ()
    assert after.day.slots == known.day.slots
    assert after.regime == Regime(noise_s=known.regime.noise_s)


def test_a_blend_is_the_weighted_mean_of_what_each_says() -> None:
    known = told([5.0 + (tick % 7) for tick in range(400)])
    wave = pulses(60, 15)
    known = replace(
        known,
        day=replace(known.day, slots=(4.0,) * DAY_SLOTS, ratio=2.0),
        week=replace(known.week, slots=(3.0,) * WEEK_SLOTS, ratio=4.0),
        cycle=replace(known.cycle, minutes=wave, period_s=3600.0),
    )
    assert available(known) == (True,) * len(EVERY)
    each = predict_each(known, 195.0, CONFIG)
    assert each[5:7] == (8.0, 12.0)
    for place in range(len(EVERY)):
        alone = tuple(float(other == place) for other in range(len(EVERY)))
        assert predict(known, alone, 195.0, CONFIG) == pytest.approx(each[place])
    even = (1.0 / len(EVERY),) * len(EVERY)
    assert predict(known, even, 195.0, CONFIG) == pytest.approx(sum(each) / len(EVERY))


def test_a_candidate_without_anything_to_say_repeats_persistence() -> None:
    known = told([5.0, 7.0, 6.0])
    place = EVERY.index(Candidate.DAY)
    assert available(known)[place:] == (False, False, False)
    assert predict_each(known, 195.0, CONFIG)[place:] == (known.last,) * 3
