"""What can look ahead: every candidate, what each remembers, and learning one value with all.

The first is persistence, the smoothed last value: the others have to beat it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from operator import mul
from typing import TypeAlias, TypeVar

from scaler.core.config import ForecastConfig
from scaler.core.forecast_cycle import CYCLE, Cycle
from scaler.core.forecast_levels import LEVELS, Forecaster, Levels, reach_s, restarted
from scaler.core.forecast_regime import Change, Regime, first_regime, make_regime, watch
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
from scaler.core.made import maker

FIRST_TICK_S = 15.0  # assumed of the only value there is
MINUTE_S = 60.0
RECENT_LEAST_S = 1.0  # a faster tick keeps less than a minute of values
MISSED_MAX = 360  # minutes that one value may stand for: all that a cycle keeps


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


EVERY = tuple(Candidate)
COUNT = len(EVERY)
SHORT = EVERY[:5]  # those of ``LEVELS``
DAY: Forecaster[Profile] = seasonal(DAY_S, DAY_SLOTS)
WEEK: Forecaster[Profile] = seasonal(WEEK_S, WEEK_SLOTS)
Weights: TypeAlias = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the candidates remember of the series.

    ``recent`` are the values of the last minute, by which forecasts are judged.  ``minute_sum`` and
    ``minute_s`` gather the minute under way: day, week and cycle learn whole minutes, which is as
    fine as they need, and a tick is cheaper for it.
    """

    at_s: float
    recent: tuple[float, ...]
    levels: Levels
    regime: Regime
    minute_sum: float
    minute_s: float
    day: Profile
    week: Profile
    cycle: Cycle

    @property
    def last(self) -> float:
        """Persistence's forecast, whatever the lead."""
        return self.levels.levels[0]

    @property
    def came(self) -> float:
        """What came: the mean of the last minute."""
        return sum(self.recent) / len(self.recent)


make_known = maker(Known)


def first_known(value: float, at_s: float) -> Known:
    """All that one value tells."""
    minute_at_s = at_s - at_s % MINUTE_S
    return make_known(
        at_s=at_s,
        recent=(value,),
        levels=LEVELS.init(value, at_s),
        regime=first_regime(value, FIRST_TICK_S),
        minute_sum=0.0,
        minute_s=0.0,
        day=DAY.init(value, minute_at_s),
        week=WEEK.init(value, minute_at_s),
        cycle=CYCLE.init(value, minute_at_s),
    )


def learn(known: Known, value: float, at_s: float, config: ForecastConfig) -> Known:
    """``known`` with ``value``, the mean since the last one; ``at_s`` must be later."""
    elapsed_s = at_s - known.at_s
    before = known.levels
    steady, lasting = before.levels[3], before.trends[0]
    expected = steady + lasting * reach_s(elapsed_s, config.trend_damping_s)
    expected = 0.0 if expected < 0.0 else expected
    regime, change = watch(known.regime, value, expected, elapsed_s, config)
    levels = LEVELS.update(before, value, at_s, config)
    ticks = round(MINUTE_S / max(elapsed_s, RECENT_LEAST_S)) or 1
    recent = (*known.recent, value)[-ticks:]
    minute_at_s = at_s - at_s % MINUTE_S
    after = make_known(
        at_s=at_s,
        recent=recent,
        levels=levels,
        regime=regime,
        minute_sum=known.minute_sum + value * elapsed_s,
        minute_s=known.minute_s + elapsed_s,
        day=known.day,
        week=known.week,
        cycle=known.cycle,
    )
    if change is None and minute_at_s == known.cycle.at_s:
        return after
    after = _minutes_learned(known, after, value, minute_at_s, config)
    return after if change is None else _changed(after, change)


def _minutes_learned(
    known: Known, after: Known, value: float, minute_at_s: float, config: ForecastConfig
) -> Known:
    """``after`` with every minute closed that ended by ``minute_at_s``; ``value`` fills gaps.

    ``known`` is what was before ``value``.
    """
    inside_s = elapsed_s = after.at_s - known.at_s
    day, week, cycle = known.day, known.week, known.cycle
    total, total_s = known.minute_sum, known.minute_s
    if minute_at_s > cycle.at_s:
        inside_s = max(known.at_s + elapsed_s - minute_at_s, 0.0)
        first_s = min(elapsed_s - inside_s, max(cycle.at_s + MINUTE_S - known.at_s, 0.0))
        whole_s = total_s + first_s
        mean = (total + value * first_s) / whole_s if whole_s > 0.0 else value
        missed = min(round((minute_at_s - cycle.at_s) / MINUTE_S) - 1, MISSED_MAX)
        for back in range(missed, -1, -1):
            end_s = minute_at_s - back * MINUTE_S
            cycle = CYCLE.update(cycle, mean, end_s, config)
            day = DAY.update(day, mean, end_s, config)
            week = WEEK.update(week, mean, end_s, config)
            mean = value
        total = total_s = 0.0
    inside_s = min(inside_s, elapsed_s)
    return make_known(
        at_s=after.at_s,
        recent=after.recent,
        levels=after.levels,
        regime=after.regime,
        minute_sum=total + value * inside_s,
        minute_s=total_s + inside_s,
        day=day,
        week=week,
        cycle=cycle,
    )


def _changed(known: Known, change: Change) -> Known:
    """``known`` in a new regime: levels restart, the shapes of day and week stay."""
    return replace(
        known,
        levels=restarted(known.levels, change.level, rising=change.rising),
        day=releveled(known.day, change.level),
        week=releveled(known.week, change.level),
    )


def resumed(known: Known, value: float, at_s: float) -> Known:
    """``known`` after a long silence: the shapes of day and week stay, all else begins anew."""
    fresh = first_known(value, at_s)
    return replace(
        fresh,
        regime=make_regime(noise_s=known.regime.noise_s),
        day=replace(fresh.day, slots=known.day.slots),
        week=replace(fresh.week, slots=known.week.slots),
    )


def available(known: Known) -> tuple[bool, ...]:
    """Which candidates have something of their own to say."""
    return (
        *(True,) * len(SHORT),
        knows(known.day),
        knows(known.week),
        known.cycle.period_s > 0.0,
    )


def predict(known: Known, weights: Weights, lead_s: float, config: ForecastConfig) -> float:
    """The weighted mean of the candidates; weights sum to one, and most are 0."""
    mean = 0.0
    if any(weights[: len(SHORT)]):
        mean = sum(map(mul, LEVELS.predict(known.levels, lead_s, config), weights))
    day, week, cycle = weights[5:]
    if day > 0.0:
        mean += day * _since_minute(DAY, known.day, known.at_s + lead_s, config)
    if week > 0.0:
        mean += week * _since_minute(WEEK, known.week, known.at_s + lead_s, config)
    if cycle > 0.0:
        mean += cycle * _since_minute(CYCLE, known.cycle, known.at_s + lead_s, config)
    return mean


def predict_each(known: Known, lead_s: float, config: ForecastConfig) -> tuple[float, ...]:
    """What every candidate says; one that has nothing to say repeats persistence."""
    last, then_s = known.last, known.at_s + lead_s
    cycling = known.cycle.period_s > 0.0
    return (
        *LEVELS.predict(known.levels, lead_s, config),
        _since_minute(DAY, known.day, then_s, config) if knows(known.day) else last,
        _since_minute(WEEK, known.week, then_s, config) if knows(known.week) else last,
        _since_minute(CYCLE, known.cycle, then_s, config) if cycling else last,
    )


Minutely = TypeVar("Minutely", Profile, Cycle)


def _since_minute(
    forecaster: Forecaster[Minutely], state: Minutely, then_s: float, config: ForecastConfig
) -> float:
    """The forecast of the time ``then_s`` by one that learned up to the last whole minute."""
    (mean,) = forecaster.predict(state, then_s - state.at_s, config)
    return mean
