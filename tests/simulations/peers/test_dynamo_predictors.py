"""Dynamo's predictors: hand-computed filter steps, and series whose next value is known."""

import math

import numpy as np
import pytest

from simulations.peers.dynamo_predictors import (
    PREDICTORS,
    ArimaPredictor,
    Kalman,
    KalmanPredictor,
    Order,
    arima_forecast,
    choose_order,
    kalman_predict,
    kalman_update,
    kpss,
)


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_every_predictor_begins_at_zero_and_follows_a_constant(name: str) -> None:
    predictor = PREDICTORS[name]()
    assert predictor.predict() == 0.0
    for _ in range(30):
        predictor.add(40.0)
    assert predictor.predict() == pytest.approx(40.0)


@pytest.mark.parametrize("make", [KalmanPredictor, ArimaPredictor])
def test_zeros_before_the_first_load_are_skipped(
    make: type[KalmanPredictor] | type[ArimaPredictor],
) -> None:
    one, other = make(), make()
    for value in (0.0, 0.0, 5.0, 6.0):
        one.add(value)
    for value in (5.0, 6.0):
        other.add(value)
    assert one.predict() == other.predict() > 0.0


def test_kalman_steps_by_hand() -> None:
    ahead = kalman_predict(Kalman(level=10.0))
    # P = F diag(1000, 1000) F' + diag(1, 0.1) = [[2001, 1000], [1000, 1000.1]]
    assert ahead == Kalman(level=10.0, trend=0.0, pll=2001.0, plt=1000.0, ptt=1000.1)
    after = kalman_update(ahead, 30.0)
    # K = (2001, 1000) / 2011; level 10 + 20 * 2001 / 2011, trend 20 * 1000 / 2011
    assert after.level == pytest.approx(10.0 + 20.0 * 2001.0 / 2011.0)
    assert after.trend == pytest.approx(20.0 * 1000.0 / 2011.0)
    # (1 - K H) P: 10 / 2011 * 2001, 10 / 2011 * 1000, 1000.1 - 1000 * 1000 / 2011
    assert after.pll == pytest.approx(20010.0 / 2011.0)
    assert after.plt == pytest.approx(10000.0 / 2011.0)
    assert after.ptt == pytest.approx(1000.1 - 1e6 / 2011.0)


def test_kalman_follows_a_ramp() -> None:
    predictor = KalmanPredictor()
    for value in range(100, 400, 10):
        predictor.add(float(value))
    assert predictor.predict() == pytest.approx(400.0, abs=1.0)


def test_kalman_may_predict_less_often_than_it_is_told() -> None:
    asked, quiet = KalmanPredictor(), KalmanPredictor()
    for value in (10.0, 14.0, 13.0):
        asked.add(value)
        asked.predict()
        quiet.add(value)
    assert asked.predict() == quiet.predict()


def test_arima_holds_the_last_value_until_five_points() -> None:
    predictor = ArimaPredictor()
    for value in (3.0, 9.0, 4.0, 8.0):
        predictor.add(value)
    assert predictor.predict() == 8.0


def test_a_trending_series_is_differenced_and_a_stationary_one_is_not() -> None:
    # one lag (4 (4 / 100)^(1/4) = 1.8): sums 1, 0, 1, 0; 2 / (4 (4 + 2 (1/2) (-3)))
    assert kpss(np.array([1.0, -1.0, 1.0, -1.0])) == pytest.approx(0.5)
    assert kpss(np.zeros(10)) == 0.0
    random = np.random.default_rng(7)
    noise = random.normal(size=200)
    assert kpss(noise) < 0.463 < kpss(np.cumsum(noise))
    assert choose_order((1000.0 + 10.0 * np.cumsum(noise)).tolist()).d == 1


def test_an_autoregression_is_found_and_continued() -> None:
    random = np.random.default_rng(6)
    values = [100.0]
    for _ in range(239):  # y = 100 + 0.8 (y - 100) + noise
        values.append(100.0 + 0.8 * (values[-1] - 100.0) + float(random.normal()))
    predictor = ArimaPredictor()
    for value in values:
        predictor.add(value)
    expected = 100.0 + 0.8 * (values[-1] - 100.0)
    assert predictor.predict() == pytest.approx(expected, abs=0.5)  # half the noise's deviation


def test_orders_without_terms_are_means_of_the_differences() -> None:
    values = [10.0, 12.0, 14.0, 19.0, 20.0]
    # mean 15; mean difference 2.5; of the logarithms' the same, through expm1
    assert arima_forecast(values, Order(p=0, d=0, q=0)) == pytest.approx(15.0)
    assert arima_forecast(values, Order(p=0, d=1, q=0)) == pytest.approx(22.5)
    growth = (math.log(21.0) - math.log(11.0)) / 4.0
    ahead = math.expm1(math.log(21.0) + growth)
    assert arima_forecast(values, Order(p=0, d=1, q=0, log=True)) == pytest.approx(ahead)


def test_arima_never_predicts_less_than_nothing() -> None:
    predictor = ArimaPredictor()
    for value in (90.0, 70.0, 50.0, 30.0, 10.0, 1.0):
        predictor.add(value)
        assert predictor.predict() >= 0.0


def test_a_moving_average_is_continued_from_the_last_surprise() -> None:
    surprises = np.random.default_rng(8).normal(size=240)
    values = (100.0 + surprises[1:] + 0.8 * surprises[:-1]).tolist()
    # the last surprise is far from 0, so that a forecast without it would miss by 0.8 of it
    last = int(np.argmax(np.abs(surprises[100:]))) + 100
    ahead = arima_forecast(values[:last], Order(p=0, d=0, q=1))
    assert abs(surprises[last]) > 2.0
    assert ahead == pytest.approx(100.0 + 0.8 * surprises[last], abs=0.5 * abs(surprises[last]))
