"""Losses, weights, and when a blend is used."""

import math
from dataclasses import replace

import pytest

from scaler.core.config import ForecastConfig
from scaler.core.forecast_candidates import COUNT
from scaler.core.forecast_scores import LAST_ONLY, Pending, Scores, pinball, scored, weights_of

CONFIG = ForecastConfig()
ALL = (True,) * COUNT


def row(last: float, *others: float, blend: float | None = None, margin: float = 0.0) -> Pending:
    each = (last, *others, *(last,) * (COUNT - 1 - len(others)))
    return Pending(
        due_at_s=0.0,
        each=each,
        blend=last if blend is None else blend,
        mean=last,
        margin=margin,
        spread=1.0,
    )


def after(scores: Scores, due: Pending, value: float, elapsed_s: float = 0.0) -> Scores:
    return scored(scores, due, value, allowed=ALL, elapsed_s=elapsed_s, config=CONFIG)


def test_too_little_costs_nine_times_too_much_at_the_ninth_decile() -> None:
    assert pinball(2.0, 0.9) == pytest.approx(1.8)
    assert pinball(-2.0, 0.9) == pytest.approx(0.2)


def test_a_loss_is_the_absolute_and_the_pinball_error() -> None:
    """Value 10, forecasts 8 and 11, margin 1: 2 + 0.9 * 1, and 1 + 0.1 * 2."""
    scores = after(Scores(), row(8.0, 11.0, blend=9.0, margin=1.0), 10.0)
    assert scores.losses[:2] == pytest.approx((2.9, 1.2))
    assert (scores.error, scores.error_last) == (1.0, 2.0)
    assert scores.pinball == pytest.approx(0.0)
    assert scores.pinball_last == pytest.approx(0.9)
    assert scores.skill == pytest.approx(0.5)


def test_losses_fade_with_the_score_time_constant() -> None:
    scores = after(Scores(), row(8.0), 10.0)
    later = after(scores, row(10.0), 10.0, elapsed_s=5400.0)
    assert later.losses[0] == pytest.approx(scores.losses[0] * math.exp(-1.0))
    assert later.rows == pytest.approx(1.0 + math.exp(-1.0))


def test_a_weight_is_a_high_power_of_the_relative_loss() -> None:
    """Losses 1 and 1.1: 1.1^-2 = 0.826 of the best one's share; 2: a fourth."""
    losses = (1.0, 1.1, 2.0, *(100.0,) * (COUNT - 3))
    weights = weights_of(losses, ALL, 2.0)
    assert weights[1] / weights[0] == pytest.approx(1.1**-2)
    assert weights[2] / weights[0] == pytest.approx(0.25)
    assert weights[3:] == (0.0,) * (COUNT - 3)  # below a fiftieth of the sum: dropped
    assert sum(weights) == pytest.approx(1.0)


def test_only_the_allowed_share_and_without_any_loss_persistence_has_it_all() -> None:
    losses = (1.0, 0.1, *(1.0,) * (COUNT - 2))
    weights = weights_of(losses, (True, False, *(True,) * (COUNT - 2)), 24.0)
    assert weights[1] == 0.0
    assert sum(weights) == pytest.approx(1.0)
    assert weights_of((0.0,) * COUNT, ALL, 24.0) == LAST_ONLY


def test_a_blend_is_used_once_it_won_three_times_and_until_it_is_clearly_worse() -> None:
    scores = Scores()
    for count in range(1, 4):
        scores = after(scores, row(8.0, blend=9.0), 10.0)
        assert scores.used is (count == 3)
    even = replace(scores, error=1.01, error_last=1.0)
    slightly = after(even, row(10.0, blend=10.0), 10.0)
    assert slightly.used  # 1 % worse: within the slack
    assert slightly.skill == pytest.approx(-0.01)
    clearly = after(replace(even, error=1.03), row(10.0, blend=10.0), 10.0)
    assert not clearly.used
    again = after(replace(clearly, error=1.0), row(10.0, blend=10.0), 10.0)
    assert not again.used  # no better is not enough to come back
    assert after(replace(clearly, error=0.99), row(10.0, blend=10.0), 10.0).used


def test_nothing_known_is_no_skill() -> None:
    assert Scores().skill == 0.0
    assert after(Scores(), row(10.0), 10.0).skill == 0.0
