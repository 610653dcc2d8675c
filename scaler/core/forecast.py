"""Forecasters as frozen triples of pure functions (init, update, predict), and their scoring.

The series is demand weighted in tokens per second.  A forecaster never sees replica counts.  Every
forecast is kept until its time has come, then scored against what came and against persistence (the
last value);
while it is no better than persistence it is not used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from scaler.core.config import ForecastConfig, ForecasterName
from scaler.core.window import decay, normal_quantile

State = TypeVar("State")
GAP_MAX_S = 600.0  # after a longer silence what came due is forgotten, not scored
PENDING_MAX = 256  # forecasts waiting for their time: 64 minutes of 15 s ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecaster(Generic[State]):
    """A way to look ahead: explicit state in, explicit state out.

    ``init(value, at_s)`` starts from a first value, ``update(state, value, at_s, config)`` learns
    one more, and
    ``predict(state, lead_s, config)`` is the expected value ``lead_s`` after the last update, never
    negative.
    """

    init: Callable[[float, float], State]
    update: Callable[[State, float, float, ForecastConfig], State]
    predict: Callable[[State, float, ForecastConfig], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """State of the forecasters below: level and trend at a time."""

    at_s: float
    level: float
    trend_per_s: float = 0.0


def _start(value: float, at_s: float) -> Level:
    return Level(at_s=at_s, level=value)


def _last_update(_state: Level, value: float, at_s: float, _config: ForecastConfig) -> Level:
    return Level(at_s=at_s, level=value)


def _last_predict(state: Level, _lead_s: float, _config: ForecastConfig) -> float:
    return max(state.level, 0.0)


def _trend_update(state: Level, value: float, at_s: float, config: ForecastConfig) -> Level:
    """Holt's two smoothed values for irregular steps (Wright 1986), with a damped trend."""
    elapsed_s = at_s - state.at_s
    if elapsed_s <= 0.0:
        return state
    kept = decay(elapsed_s, config.level_time_constant_s)
    expected = state.level + state.trend_per_s * _reach(elapsed_s, config)
    level = kept * expected + (1.0 - kept) * value
    steady = decay(elapsed_s, config.trend_time_constant_s)
    slope = (level - state.level) / elapsed_s
    damped = state.trend_per_s * decay(elapsed_s, config.trend_damping_s)
    return Level(at_s=at_s, level=level, trend_per_s=steady * damped + (1.0 - steady) * slope)


def _trend_predict(state: Level, lead_s: float, config: ForecastConfig) -> float:
    return max(state.level + state.trend_per_s * _reach(lead_s, config), 0.0)


def _reach(lead_s: float, config: ForecastConfig) -> float:
    """Seconds of undamped trend that a damped one covers: tau * (1 - exp(-lead / tau)).

    The continuous form of the damped trend of Gardner and McKenzie (1985).
    """
    return config.trend_damping_s * (1.0 - math.exp(-lead_s / config.trend_damping_s))


FORECASTERS: dict[ForecasterName, Forecaster[Level]] = {
    ForecasterName.LAST: Forecaster(init=_start, update=_last_update, predict=_last_predict),
    ForecasterName.TREND: Forecaster(init=_start, update=_trend_update, predict=_trend_predict),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A forecast whose time has not come."""

    due_at_s: float
    predicted: float
    last: float  # what persistence said


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastState:
    """The forecaster's state and its record against persistence, both as fading sums."""

    level: Level | None = None
    pending: tuple[Pending, ...] = ()
    weight: float = 0.0
    error: float = 0.0  # absolute
    error_last: float = 0.0
    error_squared: float = 0.0
    error_last_squared: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A prediction of the series at the lead time."""

    mean: float
    upper: float
    skill: float
    used: bool


def look_ahead(
    value: float,
    state: ForecastState,
    config: ForecastConfig,
    *,
    forecaster: Forecaster[Level],
    lead_s: float,
    now_s: float,
) -> tuple[Outlook, ForecastState]:
    """Score what has come due, learn ``value``, predict the value at ``now_s + lead_s``.

    Forecast first, learn after: a forecast is scored only by values it had not seen.
    """
    if state.level is None:
        level = forecaster.init(value, now_s)
    else:
        level = forecaster.update(state.level, value, now_s, config)
    scored = _score(value, state, config, now_s)
    predicted = forecaster.predict(level, lead_s, config)
    pending = Pending(due_at_s=now_s + lead_s, predicted=predicted, last=value)
    skill = 1.0 - scored.error / scored.error_last if scored.error_last > 0.0 else 0.0
    used = skill > 0.0
    squared = scored.error_squared if used else scored.error_last_squared
    spread = math.sqrt(squared / scored.weight) if scored.weight > 0.0 else 0.0
    mean = predicted if used else value
    outlook = Outlook(
        mean=mean,
        upper=mean + normal_quantile(config.quantile_ratio) * spread,
        skill=skill,
        used=used,
    )
    return outlook, ForecastState(
        level=level,
        pending=(*scored.pending, pending)[:PENDING_MAX],  # the oldest: their time comes first
        weight=scored.weight,
        error=scored.error,
        error_last=scored.error_last,
        error_squared=scored.error_squared,
        error_last_squared=scored.error_last_squared,
    )


def _score(
    value: float, state: ForecastState, config: ForecastConfig, now_s: float
) -> ForecastState:
    """``state`` with the errors of every forecast that has come due."""
    if not state.pending or state.pending[0].due_at_s > now_s:
        return state
    due = [item for item in state.pending if item.due_at_s <= now_s]
    elapsed_s = now_s - state.level.at_s if state.level else 0.0
    fade = decay(elapsed_s, config.score_time_constant_s)
    scored = due if elapsed_s <= GAP_MAX_S else []  # their time came while nothing was seen
    errors = [abs(value - item.predicted) for item in scored]
    lasts = [abs(value - item.last) for item in scored]
    return ForecastState(
        level=state.level,
        pending=tuple(item for item in state.pending if item.due_at_s > now_s),
        weight=fade * state.weight + len(scored),
        error=fade * state.error + sum(errors),
        error_last=fade * state.error_last + sum(lasts),
        error_squared=fade * state.error_squared + sum(error * error for error in errors),
        error_last_squared=fade * state.error_last_squared + sum(last * last for last in lasts),
    )
