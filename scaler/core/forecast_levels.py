"""Level and damped trend: candidates that know the last minutes only.

They share one state, because they share time, age and restarts: a regime change restarts all but
the first from the mean since it began, so that even the slowest follows a step within a few ticks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from typing import Generic, TypeVar

from scaler.core.config import ForecastConfig
from scaler.core.made import maker

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecaster(Generic[State]):
    """A way to look ahead: explicit state in, explicit state out.

    ``init(value, at_s)`` starts from a first value, ``update(state, value, at_s, config)`` learns
    one more (a time that is not later changes nothing), and ``predict(state, lead_s, config)`` is
    what each of its candidates expects ``lead_s`` after the last update: never negative and, for
    equal states before it, never lower for a larger last value.
    """

    init: Callable[[float, float], State]
    update: Callable[[State, float, float, ForecastConfig], State]
    predict: Callable[[State, float, ForecastConfig], tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Three levels and two levels with trends; ``age_s`` is how far back the values behind go.

    In order: the last value smoothed over two ticks, a level, a slow level, a level with a lasting
    trend, a fast one with a passing trend.  ``trends`` are those of the last two, per second.
    """

    at_s: float
    age_s: float
    levels: tuple[float, float, float, float, float]
    trends: tuple[float, float] = (0.0, 0.0)


make_levels = maker(Levels)


# Multiples of the settings: level time constants of 30, 90, 240, 180 and 60 s, trends of 30 and 5
# minutes, damped in 60 and 20 minutes.
LAST, SLOW, STEADY, FAST = 1.0 / 3.0, 8.0 / 3.0, 2.0, 2.0 / 3.0
FAST_TREND, FAST_DAMPING = 1.0 / 6.0, 1.0 / 3.0


def _init(value: float, at_s: float) -> Levels:
    return make_levels(at_s=at_s, age_s=0.0, levels=(value,) * 5)


def _update(state: Levels, value: float, at_s: float, config: ForecastConfig) -> Levels:
    """Exponentially weighted means (Brown 1959), and Holt's two values for irregular steps.

    While young, the weight of the newest value is that of a plain mean of all since the beginning;
    persistence keeps its own: it has forgotten the past by itself.
    """
    elapsed_s = at_s - state.at_s
    if elapsed_s <= 0.0:
        return state
    age_s = state.age_s + elapsed_s
    young = elapsed_s / (age_s + elapsed_s)
    level_s = config.level_time_constant_s
    back = -elapsed_s / level_s
    last, level, slow, steady, fast = state.levels
    lasting, passing = state.trends
    damping_s, trend_s = config.trend_damping_s, config.trend_time_constant_s
    steady, lasting = _holt(
        steady,
        lasting,
        value,
        elapsed_s=elapsed_s,
        gain=max(1.0 - exp(back / STEADY), young),
        trend_s=trend_s if age_s > STEADY * level_s else 0.0,
        damping_s=damping_s,
    )
    fast, passing = _holt(
        fast,
        passing,
        value,
        elapsed_s=elapsed_s,
        gain=max(1.0 - exp(back / FAST), young),
        trend_s=FAST_TREND * trend_s if age_s > FAST * level_s else 0.0,
        damping_s=FAST_DAMPING * damping_s,
    )
    return make_levels(
        at_s=at_s,
        age_s=age_s,
        levels=(
            last + (1.0 - exp(back / LAST)) * (value - last),
            level + max(1.0 - exp(back), young) * (value - level),
            slow + max(1.0 - exp(back / SLOW), young) * (value - slow),
            steady,
            fast,
        ),
        trends=(lasting, passing),
    )


def _holt(
    level: float,
    trend: float,
    value: float,
    *,
    elapsed_s: float,
    gain: float,
    trend_s: float,
    damping_s: float,
) -> tuple[float, float]:
    """Level and damped trend after ``value`` (Holt 1957; irregular steps: Wright 1986).

    With a ``trend_s`` of 0 no trend is learned: while the level is younger than its time constant,
    its own approach to the data would be taken for one.
    """
    kept = exp(-elapsed_s / damping_s)
    expected = level + trend * damping_s * (1.0 - kept)
    after = expected + gain * (value - expected)
    trend *= kept
    if trend_s > 0.0:
        trend += (1.0 - exp(-elapsed_s / trend_s)) * ((after - level) / elapsed_s - trend)
    return after, trend


def _predict(state: Levels, lead_s: float, config: ForecastConfig) -> tuple[float, ...]:
    last, level, slow, steady, fast = state.levels
    lasting, passing = state.trends
    damping_s = config.trend_damping_s
    steady += lasting * reach_s(lead_s, damping_s)
    fast += passing * reach_s(lead_s, FAST_DAMPING * damping_s)
    return last, level, slow, 0.0 if steady < 0.0 else steady, 0.0 if fast < 0.0 else fast


LEVELS: Forecaster[Levels] = Forecaster(init=_init, update=_update, predict=_predict)


def restarted(state: Levels, level: float, *, rising: bool) -> Levels:
    """``state`` at the ``level`` of a new regime, with a short memory.

    It only moves the way the series moved, and keeps a trend of that direction: a larger value that
    reveals a rise is never forecast lower than one that does not.
    """
    further = max if rising else min
    last, *others = state.levels
    fast, slow, steady, quick = (further(level, other) for other in others)
    lasting, passing = state.trends
    return make_levels(
        at_s=state.at_s,
        age_s=0.0,
        levels=(last, fast, slow, steady, quick),
        trends=(further(lasting, 0.0), further(passing, 0.0)),
    )


def brief(value: float) -> float:
    """``value`` with four digits: what long memories keep, a third of the JSON of all digits."""
    return float(f"{value:.4g}")


def reach_s(lead_s: float, damping_s: float) -> float:
    """Seconds of undamped trend that a damped one covers: tau * (1 - exp(-lead / tau)).

    The continuous form of the damped trend of Gardner and McKenzie (1985).
    """
    return damping_s * (1.0 - exp(-lead_s / damping_s))
