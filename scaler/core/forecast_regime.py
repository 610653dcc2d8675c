"""The noise of a demand series, and when its level has changed for good.

Requests arrive at random, so the variance of a mean over t seconds is level * noise / t: a Poisson
count weighted by what a request costs (Campbell's theorem).  ``noise_s`` is learned, because
real arrivals are burstier.  Against it a two-sided cumulative sum (Page 1954) tells a change of the
level from chance: it catches a step of five standard deviations in two ticks, and one of two
standard deviations in about seven.
"""

from dataclasses import dataclass
from math import exp, sqrt

from scaler.core.config import ForecastConfig
from scaler.core.made import maker
from scaler.core.window import within

NOISE_MEMORY_S = 750.0
DEVIATION_MAX = 6.0  # one value alone proves nothing, however far off it is
OUTLIER = 3.0  # beyond, a deviation counts as so many standard deviations of noise
UNKNOWN_RATIO = 0.1  # standard deviation of a tick's value, taken where nothing is known yet
FLOOR_RATIO = 0.01  # rounding and clock jitter


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """Noise per unit of level, and the two sums with the values that made them.

    ``up`` and ``down`` are in standard deviations; ``*_s`` is the time since a sum left zero,
    ``*_mean`` the mean value since then.
    """

    noise_s: float
    age_s: float = 0.0
    up: float = 0.0
    up_s: float = 0.0
    up_mean: float = 0.0
    down: float = 0.0
    down_s: float = 0.0
    down_mean: float = 0.0


make_regime = maker(Regime)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A regime change: the mean since it began, and its direction."""

    level: float
    rising: bool


def first_regime(value: float, tick_s: float) -> Regime:
    """What is assumed of a series of which one value is known."""
    return make_regime(noise_s=UNKNOWN_RATIO**2 * value * tick_s)


def spread_of(level: float, noise_s: float, over_s: float) -> float:
    """Standard deviation of a mean over ``over_s`` seconds, of one request in them at least."""
    variance = noise_s * max(level, noise_s / over_s) / over_s
    return sqrt(variance + (FLOOR_RATIO * level) ** 2)


def watch(
    regime: Regime, value: float, expected: float, elapsed_s: float, config: ForecastConfig
) -> tuple[Regime, Change | None]:
    """``regime`` after a value that was expected to be ``expected``, and the change it reveals."""
    spread = spread_of(expected, regime.noise_s, elapsed_s)
    score = (value - expected) / spread if spread > 0.0 else DEVIATION_MAX * (value > expected)
    score = within(score, -DEVIATION_MAX, DEVIATION_MAX)
    drift, limit = config.change_drift_factor, config.change_limit_factor
    up, down = regime.up + score - drift, regime.down - score - drift
    age_s = regime.age_s + elapsed_s
    gain = max(1.0 - exp(-elapsed_s / NOISE_MEMORY_S), elapsed_s / (age_s + 10.0 * elapsed_s))
    noise_s = regime.noise_s * (1.0 + gain * (min(score * score, OUTLIER * OUTLIER) - 1.0))
    up_s = up_mean = down_s = down_mean = 0.0
    if up > 0.0:
        up_s = regime.up_s + elapsed_s
        up_mean = regime.up_mean + (value - regime.up_mean) * elapsed_s / up_s
    else:
        up = 0.0
    if down > 0.0:
        down_s = regime.down_s + elapsed_s
        down_mean = regime.down_mean + (value - regime.down_mean) * elapsed_s / down_s
    else:
        down = 0.0
    if up > limit and up_s > elapsed_s:
        return _after(noise_s, up_mean, elapsed_s), Change(level=up_mean, rising=True)
    if down > limit and down_s > elapsed_s:
        return _after(noise_s, down_mean, elapsed_s), Change(level=down_mean, rising=False)
    return make_regime(
        noise_s=noise_s,
        age_s=age_s,
        up=up,
        up_s=up_s,
        up_mean=up_mean,
        down=down,
        down_s=down_s,
        down_mean=down_mean,
    ), None


def _after(noise_s: float, level: float, elapsed_s: float) -> Regime:
    """A new regime; noise learned near zero says nothing of a level far above it."""
    least_s = (0.1 * UNKNOWN_RATIO) ** 2 * level * elapsed_s
    if noise_s < least_s:
        noise_s = UNKNOWN_RATIO**2 * level * elapsed_s
    return make_regime(noise_s=noise_s)
