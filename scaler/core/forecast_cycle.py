"""Short recurring patterns, found by themselves: batch jobs, cron, clients that switch on and off.

The last hours are kept as means of a minute each.  Every half hour their autocorrelation
(by the fast Fourier transform, Wiener and Khinchin) is searched for the shortest delay at which
the series repeats itself; the forecast is then the mean of the last two repeats.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from scaler.core.config import ForecastConfig
from scaler.core.forecast_levels import Forecaster, brief
from scaler.core.made import maker

MINUTE_S = 60.0
MINUTES = 360  # six hours: a period of up to three
SEARCH_S = 1800.0
MINUTES_MIN = 24
PERIOD_MIN = 3  # minutes; anything shorter is noise to a start-up
STRENGTH_MIN = 0.6  # autocorrelation at the period, below which there is none
SHORTEST_SHARE = 0.9  # a multiple of the period repeats as well as the period: the shortest counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """The means of past minutes up to ``at_s``, and the period found: 0 where nothing recurs."""

    minutes: tuple[float, ...]
    at_s: float
    level: float  # the latest mean, the forecast without a period
    period_s: float = 0.0
    searched_at_s: float = 0.0


make_cycle = maker(Cycle)


def _init(value: float, at_s: float) -> Cycle:
    return make_cycle(minutes=(), at_s=at_s, level=value, searched_at_s=at_s)


def _update(state: Cycle, value: float, at_s: float, _config: ForecastConfig) -> Cycle:
    """``value`` is the mean of the minute that ended at ``at_s``."""
    if at_s <= state.at_s:
        return state
    minutes = (*state.minutes[1 - MINUTES :], brief(value))
    period_s, searched_at_s = state.period_s, state.searched_at_s
    if at_s - searched_at_s >= SEARCH_S:
        period_s, searched_at_s = find_period_s(minutes), at_s
    return make_cycle(
        minutes=minutes, at_s=at_s, level=value, period_s=period_s, searched_at_s=searched_at_s
    )


def _predict(state: Cycle, lead_s: float, _config: ForecastConfig) -> tuple[float, ...]:
    """The mean of the two last repeats of the minute that ends at the time asked for."""
    period_s = state.period_s
    if period_s <= 0.0:
        return (state.level,)
    periods = ceil(lead_s / period_s) if lead_s > period_s else 1
    back_s = lead_s - period_s * periods  # whole periods ago
    once = _minute_at(state.minutes, back_s)
    again = _minute_at(state.minutes, back_s - period_s)
    return (0.5 * (once + again),)


CYCLE: Forecaster[Cycle] = Forecaster(init=_init, update=_update, predict=_predict)


def _minute_at(minutes: tuple[float, ...], back_s: float) -> float:
    """The mean of the minute that ended ``-back_s`` before the end of the last, interpolated.

    Before the first minute there is none: the first is taken.
    """
    last = len(minutes) - 1
    place = last + back_s / MINUTE_S
    below = floor(place)
    if below < 0:
        return minutes[0]
    if below >= last:
        return minutes[-1]
    before = minutes[below]
    return before + (minutes[below + 1] - before) * (place - below)


def find_period_s(minutes: tuple[float, ...]) -> float:
    """The shortest period at which ``minutes`` recur, 0 where there is none.

    A local maximum after the first zero of the autocorrelation of the detrended series counts, up
    to half its length; its place is refined by the parabola through its neighbours.
    """
    size = len(minutes)
    if size < MINUTES_MIN:
        return 0.0
    series = _detrended(np.array(minutes))
    power = np.abs(np.fft.rfft(series, 2 * MINUTES)) ** 2
    delays = size // 2
    products = np.fft.irfft(power)[: delays + 2] / (size - np.arange(delays + 2))
    if products[0] <= 1e-9 * max(np.square(minutes).mean(), 1e-12):
        return 0.0
    repeats = products / products[0]
    inner = np.arange(max(int(np.argmax(repeats < 0.0)), PERIOD_MIN), delays + 1)
    peaks = inner[(repeats[inner] >= repeats[inner - 1]) & (repeats[inner] >= repeats[inner + 1])]
    if peaks.size == 0 or repeats[peaks].max() < STRENGTH_MIN:
        return 0.0
    found = int(peaks[np.flatnonzero(repeats[peaks] >= SHORTEST_SHARE * repeats[peaks].max())[0]])
    left, middle, right = repeats[found - 1 : found + 2].tolist()
    bend = left - 2.0 * middle + right
    aside = 0.5 * (left - right) / bend if bend < 0.0 else 0.0
    return MINUTE_S * (found + aside)


def _detrended(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``values`` less the straight line of least squares through them."""
    times = np.arange(values.size) - 0.5 * (values.size - 1)
    centred = values - values.mean()
    slope = float(times @ centred) / float(times @ times)
    return np.asarray(centred - slope * times)
