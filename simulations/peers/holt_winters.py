"""Additive Holt-Winters with given smoothing, as statsmodels' ExponentialSmoothing computes it.

The states of the beginning are those of its heuristic (Hyndman et al. 2008, section 2.6): a centred
moving average of the first cycles gives the seasonal effects, a line through its first ten values
level and slope, taken to the time before the first point.  statsmodels then refines them by least
squares, which is left out: with a smoothing of 0.9 a tenth of them is left after a season.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulations.engine_layout import Floats

LINE_POINTS = 10
CYCLES_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """Of level, slope and season, 0 to 1 each."""

    level: float = 0.9
    slope: float = 0.9
    season: float = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class _States:
    level: float
    slope: float
    season: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """``level`` at 0, ``slope`` a unit."""

    level: float
    slope: float

    def at(self, place: float) -> float:
        """Its value there."""
        return self.level + self.slope * place


def fit_line(places: Sequence[float], values: Sequence[float]) -> Line:
    """The least-squares line through at least two points."""
    middle = sum(places) / len(places)
    spread = sum((place - middle) ** 2 for place in places)
    tilted = sum((place - middle) * value for place, value in zip(places, values, strict=True))
    slope = tilted / spread
    return Line(level=sum(values) / len(values) - slope * middle, slope=slope)


def points_min(period: int) -> int:
    """How many points a forecast needs: two seasons, and ten values of the moving average."""
    return max(2 * period, LINE_POINTS + 2 * (period // 2))


def holt_winters(values: Sequence[float], *, period: int, smoothing: Smoothing) -> float:
    """The forecast of the next value.

    level  l = a (y - s[t-m]) + (1 - a)(l' + b');  slope  b = c (l - l') + (1 - c) b';
    season s = g (y - l' - b') + (1 - g) s[t-m];   forecast  l + b + s[t+1-m].
    """
    assert len(values) >= points_min(period), "too few points"
    first = _initial(np.asarray(values, dtype=np.float64), period)
    level, slope, season = first.level, first.slope, first.season.tolist()
    for at, value in enumerate(values):
        effect = season[at % period]
        foreseen = level + slope
        after = smoothing.level * (value - effect) + (1.0 - smoothing.level) * foreseen
        slope = smoothing.slope * (after - level) + (1.0 - smoothing.slope) * slope
        season[at % period] = (
            smoothing.season * (value - foreseen) + (1.0 - smoothing.season) * effect
        )
        level = after
    return float(level + slope + season[len(values) % period])


def _initial(values: Floats, period: int) -> _States:
    cycles = max(min(CYCLES_MAX, len(values) // period), -(-points_min(period) // period))
    used = values[: period * cycles]
    half = period // 2
    weights = np.full(period + 1 - period % 2, 1.0 / period)
    if period % 2 == 0:
        weights[0] = weights[-1] = 0.5 / period
    trend = np.convolve(used, weights, mode="valid")
    apart = np.full(period * cycles, np.nan)
    apart[half : half + len(trend)] = used[half : half + len(trend)] - trend
    season = np.nanmean(apart.reshape(cycles, period), axis=0)
    line = fit_line(range(half, half + LINE_POINTS), trend[:LINE_POINTS].tolist())
    return _States(level=line.at(-1.0), slope=line.slope, season=season - season.mean())
