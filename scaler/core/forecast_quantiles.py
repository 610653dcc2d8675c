"""Quantiles of a forecast's error that hold their nominal coverage, learned while it runs.

Errors are divided by the spread that the arrivals' own randomness gives at the forecast level, so
that what was learned at one load serves at another: margins grow with the square root of the load.
The scaled errors are counted in a fading histogram whose bins widen with the error (asinh), so any
quantile can be read from it, and a few hours' memory is 48 numbers.  What fading counts cannot know
is how wrong they are today; therefore the asked level is shifted by adaptive conformal inference
(Gibbs and Candes 2021): every miss raises it, every hit lowers it a little, in such
proportion that the long-run share of misses is the nominal one whatever the series does.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from math import asinh, exp, floor, log, sinh

from scaler.core.config import ForecastConfig
from scaler.core.forecast_levels import brief
from scaler.core.made import maker
from scaler.core.window import within

BINS = 48
STEP = 0.3  # in asinh of the scaled error: 0.3 wide at zero, errors up to 670 spreads
PRIOR_COUNTS = 8.0  # a standard normal error weighs as much as so many seen ones
SHIFT_MAX = 3.0  # in log odds: 0.9 becomes at most 0.994, at least 0.31
WEIGHT_MAX = 1e9
MEMORY_MIN_S = 1800.0
YOUNG_SHARE = 0.5  # of its age a young record remembers: the first errors are those of learning
MEMORIES_MAX = 20.0  # nothing is left of what is older than so many memories
# Half of a standard normal distribution by bin: the steps of its function between sinh(STEP * k).
_HALF_NORMAL = (0.1196, 0.1182, 0.1099, 0.0867, 0.049, 0.015, 0.0016)


def _prior() -> tuple[float, ...]:
    """A standard normal error, seen ``PRIOR_COUNTS`` times."""
    empty = (0.0,) * (BINS // 2 - len(_HALF_NORMAL))
    half = tuple(PRIOR_COUNTS * share for share in _HALF_NORMAL)
    return (*empty, *reversed(half), *half, *empty)


_PRIOR = _prior()


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """A fading histogram of scaled errors.

    Instead of letting every count fade, the weight of the next one grows; ``total`` is the sum of
    the counts.  ``shift`` is added to the log odds of any asked quantile.
    """

    counts: tuple[float, ...] = _PRIOR
    weight: float = 1.0
    total: float = PRIOR_COUNTS
    shift: float = 0.0
    age_s: float = 0.0

    def quantile(self, ratio: float) -> float:
        """The ``ratio`` quantile of the scaled error, shifted as coverage asks for."""
        odds = log(ratio / (1.0 - ratio)) + self.shift
        wanted = self.total / (1.0 + exp(-odds))
        below = list(accumulate(self.counts))
        place = min(bisect_left(below, wanted), BINS - 1)
        count = self.counts[place]
        inside = (wanted - below[place] + count) / count if count > 0.0 else 1.0
        return sinh((place - BINS // 2 + min(inside, 1.0)) * STEP)


make_residuals = maker(Residuals)


def learned(
    residuals: Residuals,
    error: float,
    *,
    missed: bool,
    elapsed_s: float,
    config: ForecastConfig,
) -> Residuals:
    """``residuals`` with a scaled ``error`` counted, and the shift moved by whether it was missed.

    ``missed`` says that the value came out above the configured quantile.
    """
    place = min(max(floor(asinh(error) / STEP) + BINS // 2, 0), BINS - 1)
    age_s = residuals.age_s + elapsed_s
    memory_s = min(config.error_time_constant_s, max(MEMORY_MIN_S, YOUNG_SHARE * age_s))
    weight = residuals.weight * exp(min(elapsed_s / memory_s, MEMORIES_MAX))
    counts = residuals.counts
    if weight > WEIGHT_MAX:
        counts, weight = tuple(brief(count / weight) for count in counts), 1.0
    counts = (*counts[:place], brief(counts[place] + weight), *counts[place + 1 :])
    ratio = config.quantile_ratio
    off = (1.0 if missed else 0.0) - (1.0 - ratio)
    shift = residuals.shift + config.coverage_step_ratio * off / (ratio * (1.0 - ratio))
    return make_residuals(
        counts=counts,
        weight=weight,
        total=sum(counts),
        shift=within(shift, -SHIFT_MAX, SHIFT_MAX),
        age_s=age_s,
    )
