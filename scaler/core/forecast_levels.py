"""Level and damped trend: forecasters that know the last minutes only.

Each is a triple of pure functions over one ``Level``.  A regime change restarts them all from the
mean since it began, so that even the slowest follows a step within a few ticks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from typing import Generic, TypeVar

from scaler.core.config import ForecastConfig

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecaster(Generic[State]):
    """A way to look ahead: explicit state in, explicit state out.

    ``init(value, at_s)`` starts from a first value, ``update(state, value, at_s, config)`` learns
    one more (a time that is not later changes nothing), and ``predict(state, lead_s, config)`` is
    the expected value ``lead_s`` after the last update, never negative and, for equal states, never
    lower for a larger last value.
    """

    init: Callable[[float, float], State]
    update: Callable[[State, float, float, ForecastConfig], State]
    predict: Callable[[State, float, ForecastConfig], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Level and trend at a time; ``age_s`` is how long the values behind them go back."""

    at_s: float
    level: float
    trend_per_s: float = 0.0
    age_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a level forgets, a trend forgets, and a trend fades into the future.

    Multiples of the settings, so that a candidate and its slower partner keep their distance.
    """

    level_factor: float
    trend_factor: float = 1.0
    damping_factor: float = 1.0


def smoothed(pace: Pace) -> Forecaster[Level]:
    """An exponentially weighted mean; its forecast is flat (Brown 1959)."""

    def update(state: Level, value: float, at_s: float, config: ForecastConfig) -> Level:
        elapsed_s = at_s - state.at_s
        if elapsed_s <= 0.0:
            return state
        age_s = state.age_s + elapsed_s
        gain = _gain(elapsed_s, age_s, pace.level_factor * config.level_time_constant_s)
        level = state.level + gain * (value - state.level)
        return Level(at_s=at_s, level=level, age_s=age_s)

    return Forecaster(init=begin, update=update, predict=_flat)


def damped_trend(pace: Pace) -> Forecaster[Level]:
    """Holt's two smoothed values for irregular steps (Wright 1986), with a damped trend.

    The trend is learned once the level is older than its time constant: before, the level's own
    approach to the data would be taken for one.
    """

    def update(state: Level, value: float, at_s: float, config: ForecastConfig) -> Level:
        elapsed_s = at_s - state.at_s
        if elapsed_s <= 0.0:
            return state
        level_s = pace.level_factor * config.level_time_constant_s
        trend_s = pace.trend_factor * config.trend_time_constant_s
        damping_s = pace.damping_factor * config.trend_damping_s
        age_s = state.age_s + elapsed_s
        kept = exp(-elapsed_s / damping_s)
        expected = state.level + state.trend_per_s * damping_s * (1.0 - kept)
        level = expected + _gain(elapsed_s, age_s, level_s) * (value - expected)
        trend = state.trend_per_s * kept
        if age_s > level_s:
            steady = exp(-elapsed_s / trend_s)
            trend = steady * trend + (1.0 - steady) * (level - state.level) / elapsed_s
        return Level(at_s=at_s, level=level, trend_per_s=trend, age_s=age_s)

    def predict(state: Level, lead_s: float, config: ForecastConfig) -> float:
        damping_s = pace.damping_factor * config.trend_damping_s
        return max(state.level + state.trend_per_s * reach_s(lead_s, damping_s), 0.0)

    return Forecaster(init=begin, update=update, predict=predict)


def begin(value: float, at_s: float) -> Level:
    """A level that knows one value."""
    return Level(at_s=at_s, level=value)


def restarted(state: Level, level: float, *, rising: bool) -> Level:
    """``state`` at the ``level`` of a new regime, with a short memory.

    It only moves the way the series moved, and keeps a trend of that direction: a larger value that
    reveals a rise is never forecast lower than one that does not.
    """
    if rising:
        level, trend = max(level, state.level), max(state.trend_per_s, 0.0)
    else:
        level, trend = min(level, state.level), min(state.trend_per_s, 0.0)
    return Level(at_s=state.at_s, level=level, trend_per_s=trend)


def reach_s(lead_s: float, damping_s: float) -> float:
    """Seconds of undamped trend that a damped one covers: tau * (1 - exp(-lead / tau)).

    The continuous form of the damped trend of Gardner and McKenzie (1985).
    """
    return damping_s * (1.0 - exp(-lead_s / damping_s))


def _gain(elapsed_s: float, age_s: float, time_constant_s: float) -> float:
    """Weight of the newest value; while young, that of a plain mean of all since the beginning."""
    return max(1.0 - exp(-elapsed_s / time_constant_s), elapsed_s / (age_s + elapsed_s))


def _flat(state: Level, _lead_s: float, _config: ForecastConfig) -> float:
    return max(state.level, 0.0)
