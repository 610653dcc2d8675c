"""look_ahead: the scored blend, its quantiles, regime changes, and what a long history is for."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.core.config import ForecastConfig, ForecasterName
from scaler.core.forecast import (
    FORECASTERS,
    GAP_MAX_S,
    ForecastState,
    Outlook,
    look_ahead,
    prime,
)
from scaler.core.forecast_candidates import EVERY, Candidate
from scaler.core.forecast_record import ROWS_MAX
from scaler.service.codec import decode, encode

CONFIG = ForecastConfig()
TICK_S = 15.0
NAMES = pytest.mark.parametrize("name", list(ForecasterName))
SERIES = st.lists(st.tuples(st.floats(0.0, 700.0), st.floats(0.0, 1e6)), min_size=1, max_size=30)


def follow(
    values: list[float],
    *,
    lead_s: float = 60.0,
    name: ForecasterName = ForecasterName.BLEND,
    state: ForecastState | None = None,
    begin_s: float = 0.0,
    config: ForecastConfig = CONFIG,
    tick_s: float = TICK_S,
) -> tuple[list[Outlook], ForecastState]:
    now, outlooks = state or ForecastState(), []
    for place, value in enumerate(values):
        outlook, now = look_ahead(
            value,
            now,
            config,
            forecaster=FORECASTERS[name],
            lead_s=lead_s,
            now_s=begin_s + tick_s * place,
        )
        outlooks.append(outlook)
    return outlooks, now


def arrivals(rates: np.ndarray, seed: int = 1, cost_s: float = 0.25) -> list[float]:
    """Work of Poisson arrivals by tick: ``rates`` requests per second that cost ``cost_s`` each."""
    counts = np.random.default_rng(seed).poisson(rates * TICK_S)
    return [float(count) * cost_s / TICK_S for count in counts]


def coverage(outlooks: list[Outlook], values: list[float], lead_s: float, warm: int) -> float:
    """Share of minutes, ending a lead later, that the upper quantile held."""
    ahead = round(lead_s / TICK_S)
    minutes = np.convolve(values, np.ones(4) / 4.0)[: len(values)]
    upper = np.array([outlook.upper for outlook in outlooks])
    return float(np.mean(minutes[warm + ahead :] <= upper[warm : len(values) - ahead]))


# -- what always holds -----------------------------------------------------------------------------


def test_every_name_has_its_candidates_and_persistence_among_them() -> None:
    assert set(FORECASTERS) == set(ForecasterName)
    assert all(Candidate.LAST in candidates for candidates in FORECASTERS.values())
    assert set(FORECASTERS[ForecasterName.BLEND]) == set(EVERY)


@NAMES
@settings(deadline=None)
@given(series=SERIES, lead_s=st.floats(0.0, 3600.0))
def test_whatever_comes_the_outlook_is_finite_repeatable_and_survives_json(
    name: ForecasterName, series: list[tuple[float, float]], lead_s: float
) -> None:
    def run() -> tuple[list[Outlook], ForecastState]:
        at_s, state, made = 0.0, ForecastState(), []
        for elapsed_s, value in series:
            at_s += elapsed_s
            outlook, state = look_ahead(
                value, state, CONFIG, forecaster=FORECASTERS[name], lead_s=lead_s, now_s=at_s
            )
            made.append(outlook)
        return made, state

    outlooks, state = run()
    assert run() == (outlooks, state)
    assert decode(ForecastState, encode(state)) == state
    for outlook in outlooks:
        numbers = (outlook.mean, outlook.upper, outlook.quantile(0.99), outlook.peak(0.99))
        assert all(math.isfinite(number) and number >= 0.0 for number in numbers)
        assert outlook.mean <= outlook.upper <= outlook.horizon_upper + 1e-9 * outlook.upper or (
            outlook.horizon_mean >= outlook.mean
        )
        assert sum(outlook.weights) == pytest.approx(1.0)


@settings(deadline=None)
@given(
    series=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=60),
    last=st.floats(0.0, 100.0),
    more=st.floats(0.0, 1e3),
)
def test_a_larger_value_is_never_forecast_lower(
    series: list[float], last: float, more: float
) -> None:
    _, state = follow(series, lead_s=45.0)
    at_s = TICK_S * len(series)
    (low,), _ = follow([last], state=state, begin_s=at_s, lead_s=45.0)
    (high,), _ = follow([last + more], state=state, begin_s=at_s, lead_s=45.0)
    slack = 1e-9 * (1.0 + low.horizon_upper)
    assert high.mean >= low.mean - slack
    assert high.upper >= low.upper - slack
    assert high.horizon_upper >= low.horizon_upper - slack


def test_a_call_at_the_same_instant_learns_nothing() -> None:
    outlooks, state = follow([3.0, 4.0])
    (again,), after = follow([9.0], state=state, begin_s=TICK_S)
    assert after.known == state.known
    assert again.mean == outlooks[-1].mean


def test_the_last_value_alone_is_given_back_as_it_came_without_a_margin_for_the_median() -> None:
    config = replace(CONFIG, quantile_ratio=0.5)
    outlooks, _ = follow([2.0, 6.0] * 30, name=ForecasterName.LAST, config=config)
    assert [outlook.mean for outlook in outlooks] == [2.0, 6.0] * 30
    assert all(outlook.upper == outlook.mean for outlook in outlooks)
    assert not any(outlook.used for outlook in outlooks)


def test_the_state_stays_small_however_long_the_lead_and_the_run() -> None:
    """360 minutes, 216 slots and 96 bins are fixed; the rest is forecasts that wait."""
    values = arrivals(np.full(4 * 60 * 8, 20.0))
    for lead_s, limit in ((195.0, 850), (1800.0, 1100)):
        _, state = follow(values, lead_s=lead_s)
        assert floats(state) <= limit
        assert len(state.record.pending) <= 2 * ROWS_MAX


def floats(value: object) -> int:
    if isinstance(value, float):
        return 1
    if isinstance(value, tuple):
        return sum(floats(item) for item in value)
    names = getattr(value, "__dataclass_fields__", ())
    return sum(floats(getattr(value, name)) for name in names)


# -- the blend against persistence -----------------------------------------------------------------


def test_nothing_is_used_before_a_forecast_has_come_due() -> None:
    outlooks, _ = follow([0.5 * tick for tick in range(200)], lead_s=195.0)
    assert not any(outlook.used for outlook in outlooks[:14])  # a lead of 13 ticks, then the score
    assert outlooks[-1].used
    assert outlooks[-1].skill > 0.4


def test_a_ramp_is_led_by_a_trend_and_noise_by_a_slow_level() -> None:
    ramp, _ = follow(arrivals(np.linspace(10.0, 60.0, 400)), lead_s=195.0)
    flat, _ = follow(arrivals(np.full(1000, 20.0)), lead_s=195.0)
    place = EVERY.index
    trends = (
        ramp[-1].weights[place(Candidate.TREND)] + ramp[-1].weights[place(Candidate.TREND_FAST)]
    )
    assert trends > 0.8
    assert flat[-1].weights[place(Candidate.LEVEL_SLOW)] > 0.5
    assert flat[-1].weights[place(Candidate.LAST)] == 0.0
    assert flat[-1].skill > 0.1


def test_while_the_blend_is_dropped_persistence_stands() -> None:
    """The same state with the leader in use and dropped: on a ramp the two forecasts are apart."""
    _, state = follow([0.1 * tick for tick in range(240)], lead_s=195.0)
    assert state.record.scores.used
    scores = replace(state.record.scores, used=False, error=2.0, error_last=1.0)
    dropped = replace(state, record=replace(state.record, scores=scores))
    (led,), _ = follow([24.0], state=state, begin_s=3600.0, lead_s=195.0)
    (stands,), after = follow([24.0], state=dropped, begin_s=3600.0, lead_s=195.0)
    assert 24.5 < led.mean < 25.5  # 195 s are 13 ticks: 25.3, less the damping
    assert after.known is not None
    assert stands.mean == after.known.last < 24.0
    assert not stands.used
    assert stands.skill == -1.0


def test_what_came_due_while_nothing_was_seen_is_not_scored() -> None:
    _, before = follow([1.0, 2.0, 3.0] * 4, lead_s=600.0)
    assert before.record.pending
    last_s = 11 * TICK_S
    for gap_s, kept in ((GAP_MAX_S, True), (GAP_MAX_S + 1.0, False)):
        (outlook,), after = follow([50.0], state=before, begin_s=last_s + gap_s, lead_s=600.0)
        assert (after.record.scores.rows > 0.0) is kept
        assert (outlook.mean == 50.0) is not kept


# -- quantiles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead_s", [60.0, 315.0])
@pytest.mark.parametrize("rate", [2.0, 40.0])
def test_nine_in_ten_stay_below_the_upper_quantile(rate: float, lead_s: float) -> None:
    """Eight hours of Poisson arrivals: 1800 minutes-ends scored, so 3 % is about three sigma."""
    values = arrivals(np.full(4 * 60 * 8, rate))
    outlooks, _ = follow(values, lead_s=lead_s)
    assert coverage(outlooks, values, lead_s, warm=240) == pytest.approx(0.9, abs=0.03)


def test_coverage_holds_through_a_day_that_moves() -> None:
    ticks = np.arange(4 * 60 * 16)
    rates = 30.0 - 20.0 * np.cos(2.0 * np.pi * ticks * TICK_S / 43200.0)
    values = arrivals(rates)
    outlooks, _ = follow(values, lead_s=195.0)
    assert coverage(outlooks, values, 195.0, warm=240) == pytest.approx(0.9, abs=0.03)


def test_any_quantile_may_be_asked_for_and_a_larger_one_lies_higher() -> None:
    values = arrivals(np.full(3000, 20.0))
    outlooks, _ = follow(values, lead_s=60.0)
    last = outlooks[-1]
    asked = [last.quantile(ratio) for ratio in (0.5, 0.8, 0.9, 0.95, 0.99)]
    assert asked == sorted(asked)
    assert last.upper == pytest.approx(last.quantile(0.9))
    # A minute of 1200 requests of 0.25 s: 5 +- 0.144, and the level's own error beside it.
    assert 1.28 * 0.144 * 0.9 < asked[2] - last.mean < 2.6 * 0.144
    spread = asked[4] - asked[0]
    assert 2.33 * 0.144 * 0.8 < spread < 2.33 * 0.144 * 1.8


def test_after_a_flash_crowd_the_margin_is_that_of_the_quiet_load_again() -> None:
    """Ten times the load for ten minutes: a quarter of an hour later the margin is small again."""
    rates = np.full(2400, 5.0)
    rates[1200:1240] = 50.0
    values = arrivals(rates)
    outlooks, _ = follow(values, lead_s=150.0)
    before = outlooks[1190].upper - outlooks[1190].mean
    later = outlooks[1240 + 60]
    assert later.mean == pytest.approx(1.25, rel=0.25)
    assert later.upper - later.mean < 3.0 * before
    assert later.upper < 2.5


def test_the_peak_of_the_horizon_is_covered_as_promised() -> None:
    values = arrivals(np.full(4 * 60 * 10, 20.0))
    lead_s = 150.0
    outlooks, _ = follow(values, lead_s=lead_s)
    minutes = np.reshape(values, (-1, 4)).mean(axis=1)
    span = round(3 * lead_s / 60.0)
    hits = [
        minutes[minute : minute + span].max() <= outlooks[4 * minute].horizon_upper
        for minute in range(60, len(minutes) - span)
    ]
    assert np.mean(hits) == pytest.approx(0.9, abs=0.06)
    last = outlooks[-1]
    assert last.peak(0.9) == pytest.approx(last.horizon_upper)
    assert last.peak(0.5) < last.peak(0.9) < last.peak(0.99)


# -- regime changes, cycles, seasons ---------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(10.0, 40.0), (40.0, 10.0), (0.0, 20.0)])
def test_a_step_is_followed_within_four_ticks(before: float, after: float) -> None:
    rates = np.concatenate((np.full(1200, before), np.full(8, after)))
    outlooks, _ = follow(arrivals(rates), lead_s=195.0)
    assert outlooks[1203].mean == pytest.approx(0.25 * after, rel=0.25)


def test_a_pattern_that_recurs_every_hour_is_found_and_foreseen() -> None:
    """On for a quarter of each hour: after five hours the switch is foreseen a lead ahead."""
    ticks = np.arange(240 * 7)
    values = arrivals(np.where(ticks % 240 < 60, 40.0, 8.0))
    outlooks, state = follow(values, lead_s=150.0)
    assert state.known is not None
    assert state.known.cycle.period_s == pytest.approx(3600.0, abs=30.0)
    switch = 240 * 6
    assert outlooks[switch - 6].mean > 8.0  # 90 s before: 40 * 0.25 = 10 is expected 60 s after
    assert outlooks[switch - 16].mean < 3.0  # 240 s before: 90 s before the switch it is still 2
    assert outlooks[-1].weights[EVERY.index(Candidate.CYCLE)] > 0.5


def hourly_jumps(days: int, *, shuffled: bool) -> np.ndarray:
    """A level for every half hour of the day: the same every day, or another one every day."""
    random = np.random.default_rng(5)
    shape = random.uniform(10.0, 60.0, 48)
    rows = [random.permutation(shape) if shuffled else shape for _ in range(days)]
    knots = np.concatenate(rows)
    places = np.arange(knots.size) * 120.0 + 60.0
    return np.asarray(np.interp(np.arange(days * 5760), places, knots))


def test_a_day_is_believed_only_where_days_repeat() -> None:
    place = EVERY.index(Candidate.DAY)
    weights = {}
    for shuffled in (False, True):
        ticks = arrivals(hourly_jumps(3, shuffled=shuffled))
        minutes = np.reshape(ticks, (-1, 4)).mean(axis=1).tolist()
        outlooks, _ = follow(minutes, lead_s=615.0, tick_s=60.0)
        third_day = outlooks[2 * 1440 + 120 :]
        weights[shuffled] = np.mean([outlook.weights[place] for outlook in third_day])
    assert weights[False] > 0.5
    assert weights[True] < 0.1


# -- long history ----------------------------------------------------------------------------------


def minutes_of(days: int) -> list[tuple[float, float]]:
    values = np.reshape(arrivals(hourly_jumps(days, shuffled=False)), (-1, 4)).mean(axis=1)
    return [(60.0 * place, value) for place, value in enumerate(values.tolist())]


def test_a_primed_state_knows_the_day_from_its_first_tick() -> None:
    history = minutes_of(9)[: 8 * 1440]
    state = prime(history, CONFIG, lead_s=615.0)
    known = state.known
    assert known is not None
    assert min(known.day.slots) > 0.0
    assert min(known.week.slots) > 0.0
    assert state.record.scores.weights[EVERY.index(Candidate.DAY)] > 0.3
    assert state.record.scores.used
    at_s = history[-1][0]
    (outlook,), _ = follow([history[-1][1]], state=state, begin_s=at_s + TICK_S, lead_s=615.0)
    then = hourly_jumps(9, shuffled=False)[8 * 5760 + 38]  # 15 + 615 s after 23:59
    assert outlook.mean == pytest.approx(0.25 * then, rel=0.25)


def test_priming_takes_any_order_and_leaves_out_what_is_no_demand() -> None:
    history = minutes_of(1)[:200]
    dirty = [*reversed(history), (50.0, math.nan), (70.0, -3.0), (math.inf, 1.0)]
    assert prime(dirty, CONFIG) == prime(history, CONFIG)
    assert prime([], CONFIG) == ForecastState()
