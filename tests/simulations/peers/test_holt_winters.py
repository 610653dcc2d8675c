"""Holt-Winters and the line, against closed forms and values of statsmodels' recursion by hand."""

import math

import pytest

from simulations.peers.holt_winters import Smoothing, fit_line, holt_winters, points_min


def test_a_line_through_points_on_a_line() -> None:
    line = fit_line([-2.0, -1.0, 0.0], [1.0, 3.0, 5.0])
    assert (line.level, line.slope) == (5.0, 2.0)
    assert line.at(3.0) == 11.0
    # 0, 0, 3 at 0, 1, 2: mean 1 at 1, slope (-1 * -1 + 1 * 2) / 2 = 1.5
    line = fit_line([0.0, 1.0, 2.0], [0.0, 0.0, 3.0])
    assert line.level == pytest.approx(-0.5)
    assert line.slope == pytest.approx(1.5)


def test_how_many_points_are_needed() -> None:
    assert points_min(6) == 16  # 10 + 2 * 3
    assert points_min(12) == 24  # two seasons


@pytest.mark.parametrize("period", [4, 5, 6])
@pytest.mark.parametrize("smoothing", [Smoothing(), Smoothing(level=0.2, slope=0.1, season=0.3)])
def test_a_trend_with_a_season_goes_on(period: int, smoothing: Smoothing) -> None:
    """What level, slope and season describe exactly is forecast exactly, whatever the smoothing."""
    season = [math.sin(2.0 * math.pi * k / period) for k in range(period)]
    values = [3.0 + 0.5 * at + season[at % period] for at in range(4 * period + 1)]
    expected = 3.0 + 0.5 * len(values) + season[len(values) % period]
    assert holt_winters(values, period=period, smoothing=smoothing) == pytest.approx(expected)


def test_one_step_of_the_recursion() -> None:
    """Constant 5 for 30 points, from which it starts, then 7, with 0.9 for all.

    Level 5 + 0.9 * 2 = 6.8, slope 0.9 * 1.8 = 1.62; the season that comes next is still 0.
    """
    values = [5.0] * 30 + [7.0]
    assert holt_winters(values, period=6, smoothing=Smoothing()) == pytest.approx(6.8 + 1.62)


def test_the_season_learns_what_was_not_foreseen() -> None:
    """As above, and five points later the season of the 7 comes again: 0.9 * 2 = 1.8 on top."""
    still = Smoothing(level=0.0, slope=0.0, season=0.9)
    values = [5.0] * 30 + [7.0] + [5.0] * 5
    assert holt_winters(values, period=6, smoothing=still) == pytest.approx(5.0 + 1.8)


def test_a_season_is_told_by_the_level_before() -> None:
    """Half for level and season: 7 makes the level 6 and its season 0.5 * (7 - 5) = 1.

    Five points of 5 halve the level's distance each time, to 5 + 1 / 32.
    """
    half = Smoothing(level=0.5, slope=0.0, season=0.5)
    values = [5.0] * 30 + [7.0] + [5.0] * 5
    assert holt_winters(values, period=6, smoothing=half) == pytest.approx(5.0 + 1.0 / 32.0 + 1.0)


def test_too_few_points_are_a_mistake() -> None:
    with pytest.raises(AssertionError, match="too few points"):
        holt_winters([1.0] * 15, period=6, smoothing=Smoothing())
