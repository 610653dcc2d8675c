"""Which part is searched, and how sure an outcome is."""

import pytest

from scaler.errors import ScenarioError
from simulations.tune_parts import Outcome, Role, Units, bootstrap, split, total, units
from tests.simulations.tune_cases import outcome

TRAIN, HELD_OUT = Role.TRAIN, Role.HELD_OUT
HOUR_S, DAY_S = 3600.0, 86400.0


def _days(text: str, duration_s: float) -> list[Role]:
    (part,) = split({text: duration_s})
    return [part.roles[day * 24] for day in range(len(part.roles) // 24)]


def test_every_second_day_is_held_out() -> None:
    assert _days("48 h", 2 * DAY_S - 5.0) == [TRAIN, HELD_OUT]
    assert _days("a week", 7 * DAY_S) == [TRAIN, HELD_OUT] * 3 + [TRAIN]
    (part,) = split({"48 h": 2 * DAY_S - 5.0})
    assert (part.seconds(TRAIN), part.seconds(HELD_OUT)) == (DAY_S, DAY_S)
    assert (part.until_s(TRAIN), part.until_s(HELD_OUT)) == (DAY_S, 2 * DAY_S)


def test_a_rest_of_a_day_belongs_to_the_day_before_it() -> None:
    (part,) = split({"two days and five hours": 2 * DAY_S + 5 * HOUR_S})
    assert part.blocks(HELD_OUT) == tuple(range(24, 53))


def test_the_last_third_of_a_short_trace_is_held_out() -> None:
    (part,) = split({"a day": DAY_S})
    assert part.blocks(TRAIN) == tuple(range(16))
    (part,) = split({"twenty minutes": 1200.0})  # twelve blocks of 100 s
    assert (part.block_s, part.seconds(TRAIN), part.until_s(TRAIN)) == (100.0, 800.0, 800.0)


def test_of_several_traces_some_are_held_out_whole() -> None:
    def roles(count: int) -> list[set[Role]]:
        return [set(part.roles) for part in split({str(n): 9 * DAY_S for n in range(count)})]

    assert roles(2) == [{TRAIN}, {HELD_OUT}]
    assert roles(4) == [{TRAIN}, {TRAIN}, {HELD_OUT}, {TRAIN}]
    part = split({"a": DAY_S, "b": DAY_S})[1]
    assert (part.until_s(TRAIN), part.until_s(HELD_OUT)) == (0.0, DAY_S)


def test_the_screening_is_a_third_of_what_is_searched() -> None:
    (part,) = split({"48 h": 2 * DAY_S})
    assert part.screened == 8
    (part,) = split({"a week": 7 * DAY_S})
    # 96 searched hours; the 33rd of them is the 9th of day 3, hour 48 + 8.
    assert part.screened == 56


def test_a_trace_of_one_moment_is_refused() -> None:
    with pytest.raises(ScenarioError, match="too short"):
        split({"moment": 0.0})


def test_days_are_drawn_where_there_are_four_and_hours_otherwise() -> None:
    short = split({"48 h": 2 * DAY_S})
    rows = [[outcome(0.9, float(hour)) for hour in range(48)]]
    hours = units(short, rows, HELD_OUT)
    assert (len(hours.outcomes), hours.days, hours.whole_days) == (24, 1, False)
    long = split({"eight days": 8 * DAY_S})
    rows = [[outcome(0.9, float(hour)) for hour in range(8 * 24)]]
    days = units(long, rows, HELD_OUT)
    assert (len(days.outcomes), days.days, days.whole_days) == (4, 4, True)
    assert days.outcomes[0].gpu_hours == sum(range(24, 48))


def test_totals_and_shares() -> None:
    both = total([Outcome(requests=10, good=9, gpu_hours=1.0), Outcome(requests=30, good=30)])
    assert (both.requests, both.good, both.gpu_hours) == (40, 39, 1.0)
    assert both.attained_ratio == 0.975
    assert Outcome().attained_ratio == 1.0


def days(outcomes: list[Outcome], *, whole: bool = True) -> Units:
    return Units(outcomes=tuple(outcomes), days=len(outcomes), whole_days=whole)


def test_hours_are_drawn_four_at_a_time() -> None:
    # A day of 0.9 and one of 1.0: a quarter as many draws, twice the spread but at the edges.
    halves = [outcome(0.9, 5.0)] * 24 + [outcome(1.0, 15.0)] * 24
    hours = bootstrap(days(halves, whole=False), days(halves), seed=1)
    apart = bootstrap(days(halves), days(halves), seed=1)
    assert hours.attained_high - hours.attained_low > 1.7 * (
        apart.attained_high - apart.attained_low
    )


def test_equal_days_are_sure_and_different_ones_are_not() -> None:
    same = days([outcome(0.99, 10.0)] * 6)
    sure = bootstrap(same, days([outcome(0.98, 12.0)] * 6), seed=1)
    assert (sure.attained_low, sure.attained_high) == pytest.approx((0.99, 0.99))
    assert (sure.gpu_hours_low, sure.gpu_hours_high) == pytest.approx((60.0, 60.0))
    assert sure.attained_more_low == pytest.approx(0.01)
    assert (sure.not_dearer_ratio, sure.drawn) == (1.0, 6)
    mixed = days([outcome(0.9, 5.0), outcome(1.0, 15.0)] * 3)
    sure = bootstrap(mixed, same, seed=1)
    # Half of six draws are the bad day in the mean: 0.95, one draw in twenty below 1 or above 5.
    assert 0.9 <= sure.attained_low < 0.95 < sure.attained_high <= 1.0
    assert sure.gpu_hours_low < 60.0 < sure.gpu_hours_high
    assert 0.3 < sure.not_dearer_ratio < 0.9
    assert bootstrap(mixed, same, seed=1) == sure


def test_the_interval_of_coin_throws_is_the_binomial_one() -> None:
    half = days([outcome(0.0, 0.0, requests=1), outcome(1.0, 0.0, requests=1)] * 50)
    sure = bootstrap(half, half, seed=2)
    # 100 throws: sigma = sqrt(0.25 / 100) = 0.05; 90 % are within 1.645 sigma, 0.418 to 0.582.
    assert sure.attained_low == pytest.approx(0.418, abs=0.015)
    assert sure.attained_high == pytest.approx(0.582, abs=0.015)
