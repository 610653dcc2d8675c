"""What can look ahead: every candidate, what each remembers, and learning one value with all.

The first is persistence, the smoothed last value: the others have to beat it.
"""

from dataclasses import dataclass
from enum import StrEnum

from scaler.core.config import ForecastConfig
from scaler.core.forecast_cycle import CYCLE, Cycle
from scaler.core.forecast_levels import (
    Forecaster,
    Level,
    Pace,
    begin,
    damped_trend,
    restarted,
    smoothed,
)
from scaler.core.forecast_regime import Regime, first_regime, watch
from scaler.core.forecast_season import (
    DAY_S,
    DAY_SLOTS,
    WEEK_S,
    WEEK_SLOTS,
    Profile,
    knows,
    releveled,
    seasonal,
)

FIRST_TICK_S = 15.0  # assumed of the only value there is


class Candidate(StrEnum):
    """The candidates, in the order of every tuple of weights or predictions."""

    LAST = "last"  # persistence: the last value, smoothed over two ticks
    LEVEL = "level"
    LEVEL_SLOW = "level_slow"
    TREND = "trend"
    TREND_FAST = "trend_fast"
    DAY = "day"
    WEEK = "week"
    CYCLE = "cycle"


LEVELS: tuple[Forecaster[Level], ...] = (
    smoothed(Pace(level_factor=1.0 / 3.0)),  # 30 s
    smoothed(Pace(level_factor=1.0)),  # 90 s
    smoothed(Pace(level_factor=8.0 / 3.0)),  # 240 s
    damped_trend(Pace(level_factor=2.0)),  # 180 s, trend of 30 minutes
    damped_trend(Pace(level_factor=2.0 / 3.0, trend_factor=1.0 / 6.0, damping_factor=1.0 / 3.0)),
)
EXPECTING = 3  # the level whose forecast of the next value a regime change is told by
DAY: Forecaster[Profile] = seasonal(DAY_S, DAY_SLOTS)
WEEK: Forecaster[Profile] = seasonal(WEEK_S, WEEK_SLOTS)
SHORT = tuple(Candidate)[: len(LEVELS)]
EVERY = tuple(Candidate)
COUNT = len(EVERY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the candidates remember of the series; levels in the order of ``LEVELS``."""

    at_s: float
    levels: tuple[Level, ...]
    day: Profile
    week: Profile
    cycle: Cycle
    regime: Regime

    @property
    def last(self) -> float:
        """Persistence's forecast, whatever the lead."""
        return max(self.levels[0].level, 0.0)


def first_known(value: float, at_s: float) -> Known:
    """All that one value tells."""
    return Known(
        at_s=at_s,
        levels=tuple(forecaster.init(value, at_s) for forecaster in LEVELS),
        day=DAY.init(value, at_s),
        week=WEEK.init(value, at_s),
        cycle=CYCLE.init(value, at_s),
        regime=first_regime(value, FIRST_TICK_S),
    )


def learn(known: Known, value: float, at_s: float, config: ForecastConfig) -> Known:
    """``known`` with ``value``, the mean since the last one; ``at_s`` must be later.

    Profiles learn whole minutes: a day needs no finer grain, and a tick is cheaper for it.
    """
    elapsed_s = at_s - known.at_s
    expecting = known.levels[EXPECTING]
    expected = LEVELS[EXPECTING].predict(expecting, elapsed_s, config)
    regime, change = watch(known.regime, value, expected, elapsed_s, config)
    levels = [
        forecaster.update(level, value, at_s, config)
        for forecaster, level in zip(LEVELS, known.levels, strict=True)
    ]
    cycle = CYCLE.update(known.cycle, value, at_s, config)
    day, week = known.day, known.week
    if cycle.ended_at_s > known.cycle.ended_at_s:
        day = DAY.update(day, cycle.minutes[-1], cycle.ended_at_s, config)
        week = WEEK.update(week, cycle.minutes[-1], cycle.ended_at_s, config)
    if change is not None:  # persistence needs no help: it has forgotten the past by itself
        levels[1:] = [restarted(item, change.level, rising=change.rising) for item in levels[1:]]
        day, week = releveled(day, change.level), releveled(week, change.level)
    return Known(at_s=at_s, levels=tuple(levels), day=day, week=week, cycle=cycle, regime=regime)


def resumed(known: Known, value: float, at_s: float) -> Known:
    """``known`` after a long silence: the shapes of day and week stay, all else begins anew."""
    return Known(
        at_s=at_s,
        levels=tuple(begin(value, at_s) for _ in LEVELS),
        day=releveled(known.day, value),
        week=releveled(known.week, value),
        cycle=CYCLE.init(value, at_s),
        regime=Regime(noise_s=known.regime.noise_s),
    )


def available(known: Known) -> tuple[bool, ...]:
    """Which candidates have something of their own to say."""
    return (
        *(True,) * len(LEVELS),
        knows(known.day),
        knows(known.week),
        known.cycle.period_s > 0.0,
    )


def predict(
    known: Known, weights: tuple[float, ...], lead_s: float, config: ForecastConfig
) -> float:
    """The weighted mean of the candidates that have a weight; weights sum to one."""
    mean = 0.0
    for forecaster, level, weight in zip(LEVELS, known.levels, weights, strict=False):
        if weight > 0.0:
            mean += weight * forecaster.predict(level, lead_s, config)
    if weights[5] > 0.0:
        mean += weights[5] * _profiled(DAY, known.day, known.at_s + lead_s, config)
    if weights[6] > 0.0:
        mean += weights[6] * _profiled(WEEK, known.week, known.at_s + lead_s, config)
    if weights[7] > 0.0:
        mean += weights[7] * CYCLE.predict(known.cycle, lead_s, config)
    return mean


def predict_each(known: Known, lead_s: float, config: ForecastConfig) -> tuple[float, ...]:
    """What every candidate says; one that has nothing to say repeats persistence."""
    last = known.last
    then_s = known.at_s + lead_s
    return (
        *(
            forecaster.predict(level, lead_s, config)
            for forecaster, level in zip(LEVELS, known.levels, strict=True)
        ),
        _profiled(DAY, known.day, then_s, config) if knows(known.day) else last,
        _profiled(WEEK, known.week, then_s, config) if knows(known.week) else last,
        CYCLE.predict(known.cycle, lead_s, config) if known.cycle.period_s > 0.0 else last,
    )


def _profiled(
    forecaster: Forecaster[Profile], state: Profile, then_s: float, config: ForecastConfig
) -> float:
    """A profile's forecast of the time ``then_s``; it learned up to the last whole minute."""
    return forecaster.predict(state, then_s - state.at_s, config)
