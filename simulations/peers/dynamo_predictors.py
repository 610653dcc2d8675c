"""The load predictors of Dynamo's planner: last value, Kalman filter, ARIMA.

Follows ``components/src/dynamo/planner/core/load/predictors.py`` (ai-dynamo/dynamo, August 2026),
whose Prophet is left out.  All skip the zeros before the first load and predict one interval ahead.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from simulations.trace_chunks import Floats

POINTS_MIN = 5
POINTS_MAX = 240  # of the past that ARIMA is fitted to: half a day of 180 s
REORDER_EVERY = 20
KPSS_CRITICAL = 0.463  # level stationarity, 5 %


class Predictor(Protocol):
    """One value in an interval, one prediction for the next."""

    def add(self, value: float) -> None:
        """The value of the interval that has ended."""

    def predict(self) -> float:
        """The value of the next interval; 0 before the first load."""


class ConstantPredictor:
    """The last value."""

    def __init__(self) -> None:
        self._last = 0.0

    def add(self, value: float) -> None:
        """Remember it."""
        self._last = value

    def predict(self) -> float:
        """What came last."""
        return self._last


@dataclass(frozen=True, slots=True, kw_only=True)
class Kalman:
    """Level and trend, and their covariance [[pll, plt], [plt, ptt]]."""

    level: float
    trend: float = 0.0
    pll: float = 1000.0
    plt: float = 0.0
    ptt: float = 1000.0


Q_LEVEL = 1.0
Q_TREND = 0.1
R_NOISE = 10.0


def kalman_predict(state: Kalman) -> Kalman:
    """State on to the next interval: x = F x, P = F P F' + Q with F = [[1, 1], [0, 1]]."""
    return Kalman(
        level=state.level + state.trend,
        trend=state.trend,
        pll=state.pll + 2.0 * state.plt + state.ptt + Q_LEVEL,
        plt=state.plt + state.ptt,
        ptt=state.ptt + Q_TREND,
    )


def kalman_update(state: Kalman, value: float) -> Kalman:
    """K = P H' / (H P H' + R); x = x + K (value - level), P = (I - K H) P."""
    scale = state.pll + R_NOISE
    on_level, on_trend = state.pll / scale, state.plt / scale
    missed = value - state.level
    return Kalman(
        level=state.level + on_level * missed,
        trend=state.trend + on_trend * missed,
        pll=(1.0 - on_level) * state.pll,
        plt=(1.0 - on_level) * state.plt,
        ptt=state.ptt - on_trend * state.plt,
    )


class KalmanPredictor:
    """Local linear trend; the first value only sets the level."""

    def __init__(self) -> None:
        self._state: Kalman | None = None

    def add(self, value: float) -> None:
        """One step of the filter."""
        if self._state is None:
            self._state = Kalman(level=value) if value > 0.0 else None
            return
        self._state = kalman_update(kalman_predict(self._state), value)

    def predict(self) -> float:
        """The level one interval on."""
        return 0.0 if self._state is None else kalman_predict(self._state).level


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """ARIMA(p, d, q) of the values or, with ``log``, of log(1 + value)."""

    p: int
    d: int
    q: int
    log: bool = False


class ArimaPredictor:
    """ARIMA whose order is chosen by AIC, of log(1 + value) where neither p nor q is wanted.

    The planner lets pmdarima choose the order once, from the first five points, and keeps it; here
    it is chosen anew every ``REORDER_EVERY`` points, which can only help.  Differencing is decided
    by the KPSS test, as pmdarima does; coefficients are by Hannan and Rissanen's regressions (1982)
    instead of maximum likelihood.
    """

    def __init__(self) -> None:
        self._values: list[float] = []
        self._order: Order | None = None
        self._since_order = 0

    def add(self, value: float) -> None:
        """One more point."""
        if value > 0.0 or self._values:
            self._values = [*self._values[-POINTS_MAX + 1 :], max(value, 0.0)]
            self._since_order += 1

    def predict(self) -> float:
        """The next point, the last one while there are fewer than five."""
        values = self._values
        if len(values) < POINTS_MIN:
            return values[-1] if values else 0.0
        if len(set(values)) == 1:
            return values[0]
        if self._order is None or self._since_order >= REORDER_EVERY:
            self._order, self._since_order = choose_order(values), 0
        return max(arima_forecast(values, self._order), 0.0)


def choose_order(values: list[float]) -> Order:
    """Order by KPSS and AIC; the logarithm's where that of the values has no p and no q."""
    plain = _best_order(np.array(values))
    if plain.p or plain.q:
        return plain
    return replace(_best_order(np.log1p(values)), log=True)


def _best_order(values: Floats) -> Order:
    series, d = values, 0
    while d < 2 and len(series) >= POINTS_MIN and kpss(series) > KPSS_CRITICAL:
        series, d = np.diff(series), d + 1
    scored = [
        (_fit(series, p=p, q=q).aic, p, q)
        for p in range(3)
        for q in range(2)
        if _fits(series, p, q)
    ]
    _, p, q = min(scored, default=(0.0, 0, 0))
    return Order(p=p, d=d, q=q)


def _fits(series: Floats, p: int, q: int) -> bool:
    """Whether there are twice as many rows as coefficients."""
    return len(series) - max(p, 3 * q) >= 2 * (p + q + 1)


def kpss(series: Floats) -> float:
    """Level statistic with Bartlett weights over 4 (n / 100)^(1/4) lags (Kwiatkowski et al. 1992).

    eta = sum(S_t^2) / (n^2 s^2), S the partial sums of the residuals, s^2 their long-run variance.
    """
    n = len(series)
    rest = series - series.mean()
    lags = int(4.0 * (n / 100.0) ** 0.25)
    long_run = float(rest @ rest)
    for lag in range(1, lags + 1):
        long_run += 2.0 * (1.0 - lag / (lags + 1.0)) * float(rest[lag:] @ rest[:-lag])
    if long_run <= 0.0:
        return 0.0
    sums = np.cumsum(rest)
    return float(sums @ sums) / (n * long_run)


def arima_forecast(values: list[float], order: Order) -> float:
    """One step ahead: ARMA of the differences, added up again."""
    series = np.log1p(values) if order.log else np.array(values)
    lasts = []
    for _ in range(order.d):
        lasts.append(float(series[-1]))
        series = np.diff(series)
    fits = _fits(series, order.p, order.q)
    ahead = _fit(series, p=order.p, q=order.q).ahead if fits else float(series.mean())
    forecast = ahead + sum(lasts)
    return math.expm1(min(forecast, 700.0)) if order.log else forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    aic: float
    ahead: float


def _fit(series: Floats, *, p: int, q: int) -> _Fit:
    """ARMA by two regressions: residuals of a long AR, then on past values and residuals."""
    errors = _long_residuals(series) if q else np.zeros(len(series))
    begin = max(p, 3 * q)
    columns = [np.ones(len(series) - begin)]
    columns += [series[begin - lag : len(series) - lag] for lag in range(1, p + 1)]
    columns += [errors[begin - lag : len(series) - lag] for lag in range(1, q + 1)]
    design = np.stack(columns, axis=1)
    wanted = series[begin:]
    solved = np.linalg.lstsq(design, wanted, rcond=None)[0]
    missed = wanted - design @ solved
    squares = max(float(missed @ missed), 1e-12)
    aic = len(wanted) * math.log(squares / len(wanted)) + 2.0 * (p + q + 2)
    past = [1.0, *series[::-1][:p].tolist()]
    past += [float(missed[-lag]) for lag in range(1, q + 1)]
    return _Fit(aic=aic, ahead=float(np.array(past) @ solved))


def _long_residuals(series: Floats) -> Floats:
    """Residuals of an AR(2) with a constant; zeros before there are any."""
    design = np.stack([np.ones(len(series) - 2), series[1:-1], series[:-2]], axis=1)
    solved = np.linalg.lstsq(design, series[2:], rcond=None)[0]
    return np.concatenate([np.zeros(2), series[2:] - design @ solved])


PREDICTORS: Mapping[str, Callable[[], Predictor]] = {
    "arima": ArimaPredictor,
    "kalman": KalmanPredictor,
    "constant": ConstantPredictor,
}
