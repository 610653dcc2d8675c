"""How long an engine step takes, learned from what the engines did in each interval.

The time that the replicas of a target were busy is spent on the steps themselves, on the sequences
that decode in them, on the context these attend to, and on the prompts:

    busy_s = steps * overhead_s + output * per_sequence_s + kv_token_steps * per_kv_token_s
             + prompt * per_prefill_token_s

All the amounts are counters (the third is ``output`` times the mean context), so one interval gives
one equation, linear in the four coefficients.  They are estimated as multiples of their prior by a
Kalman filter without dynamics, which is recursive least squares with the prior as its ridge
(Ljung 1999, section 11.2), in relative error: a coefficient that is not seen keeps its prior and
its doubt, and what cannot be told apart (a steady load says one thing only) stays correlated.

Added to the textbook: an outlier beyond three standard deviations counts for little; a multiple
that would fall below its floor is projected onto it, and takes the others along by their
correlation; and what is published follows the filter by a bounded share for each observation.
"""

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias

from scaler.core.config import CapacityConfig
from scaler.core.made import maker
from scaler.core.window import within

Four: TypeAlias = tuple[float, float, float, float]
"""One number each for overhead, sequence, context and prompt."""

Doubt: TypeAlias = tuple[float, ...]
"""Covariance of the multiples, its upper triangle by rows: 00 01 02 03 11 12 13 22 23 33."""

Prior: TypeAlias = tuple[float, float, float, float, float, float]
"""The settings of a prior, in the order of ``PRIOR_NAMES``."""

PRIOR_NAMES = (
    "overhead_s", "per_sequence_s", "per_kv_token_s", "per_prefill_token_s", "sequences_max",
    "prior_uncertainty_factor",
)  # fmt: skip

_PRIOR_SETTINGS = attrgetter(*PRIOR_NAMES)
_INTERVAL_SIGMAS = 1.645  # of a normal distribution that holds 90 % of it
_PRIOR_SIGMAS = 1.3  # the prior's factor is this many: one at its very limit is still believed in
_PRIOR_CORRELATION = 0.7
_OUTLIER_SIGMAS = 3.0
_OUTLIER_POWER = 3.0
_OUTLIERS_MAX = 40  # in a row: ten minutes of ticks
MULTIPLE_MIN = 0.02
MULTIPLE_MAX = 100.0
_BALANCE_SIGMA = 0.015  # relative: tokens in flight at either end, and fluctuations of the context


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One interval of one replica: amounts per second, and the share of it that it was busy.

    ``sigma`` is the relative doubt of the balance beside that of the formula.
    """

    busy_ratio: float
    steps_per_s: float
    output_per_s: float
    context_per_s: float  # KV tokens attended to, summed over sequences and steps
    prompt_per_s: float
    interval_s: float
    sigma: float


make_sample = maker(Sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The estimated multiples, their covariance (empty before any sample), outliers in a row."""

    estimate: Four = (1.0, 1.0, 1.0, 1.0)
    doubt: Doubt = ()
    outliers: int = 0


make_filter = maker(Filter)


def first_doubt(config: CapacityConfig) -> Doubt:
    """The prior's covariance: each multiple is within the factor four times in five.

    Most of it is common to all, because a faster GPU does everything faster.
    """
    each = _prior_variance(config)
    both = _PRIOR_CORRELATION * each
    return (each, both, both, both, each, both, both, each, both, each)


def _prior_variance(config: CapacityConfig) -> float:
    return (math.log(config.prior_uncertainty_factor) / _PRIOR_SIGMAS) ** 2


def prior_of(config: CapacityConfig) -> Prior:
    """The prior that the multiples are of."""
    found: Prior = _PRIOR_SETTINGS(config)
    return found


def within_prior(doubt: Doubt, config: CapacityConfig) -> Doubt:
    """``doubt``, with no multiple in more of it than at first; all shrink alike where one would be.

    What is known of their sum hangs on their correlations: a limit on each alone would leave a
    covariance that makes less than nothing of some sums.  ``learn`` only ever widens within it.
    """
    most, largest = _prior_variance(config), max(doubt[0], doubt[4], doubt[7], doubt[9])
    if largest <= most:
        return doubt
    return tuple([most / largest * one for one in doubt])


def step_times(multiples: Four, config: CapacityConfig) -> Four:
    """The coefficients of the balance that are these multiples of the prior, in seconds."""
    overhead, sequence, context, prompt = multiples
    return (
        config.overhead_s * overhead,
        config.per_sequence_s * sequence,
        config.per_kv_token_s * context,
        config.per_prefill_token_s * prompt,
    )


def sum_sigma(terms: Four, doubt: Doubt) -> float:
    """Standard deviation of a sum over multiples; ``terms`` are the summands at multiples of 1."""
    a, b, c, d = terms
    p00, p01, p02, p03, p11, p12, p13, p22, p23, p33 = doubt
    variance = (
        a * (a * p00 + 2.0 * (b * p01 + c * p02 + d * p03))
        + b * (b * p11 + 2.0 * (c * p12 + d * p13))
        + c * (c * p22 + 2.0 * d * p23)
        + d * d * p33
    )
    return math.sqrt(max(variance, 0.0))


def interval_factor(sigma: float) -> float:
    """Factor either way of an interval that holds nine cases in ten, of a relative deviation."""
    return math.exp(_INTERVAL_SIGMAS * sigma)


def learn(sample: Sample, before: Filter, config: CapacityConfig) -> Filter:
    """The filter after one interval.

    The doubt grows by as much in ``memory_s`` as the prior's was, so that old evidence fades.  An
    outlier counts less the further off it is (a redescending influence: Huber 1981, section 4.8),
    so that a sick replica teaches little; when nothing but outliers has come for ten minutes, it is
    the estimate that is wrong, and the doubt is the prior's again.
    """
    busy = sample.busy_ratio
    a = sample.steps_per_s * config.overhead_s / busy
    b = sample.output_per_s * config.per_sequence_s / busy
    c = sample.context_per_s * config.per_kv_token_s / busy
    d = sample.prompt_per_s * config.per_prefill_token_s / busy
    x0, x1, x2, x3 = before.estimate
    p00, p01, p02, p03, p11, p12, p13, p22, p23, p33 = before.doubt or first_doubt(config)
    w0 = a * p00 + b * p01 + c * p02 + d * p03
    w1 = a * p01 + b * p11 + c * p12 + d * p13
    w2 = a * p02 + b * p12 + c * p22 + d * p23
    w3 = a * p03 + b * p13 + c * p23 + d * p33
    noise = _BALANCE_SIGMA * _BALANCE_SIGMA + sample.sigma * sample.sigma
    variance = a * w0 + b * w1 + c * w2 + d * w3 + noise
    surprise = 1.0 - (a * x0 + b * x1 + c * x2 + d * x3)
    outlier = _OUTLIER_SIGMAS * math.sqrt(variance)
    far = abs(surprise) > outlier
    kept = (outlier / abs(surprise)) ** _OUTLIER_POWER if far else 1.0
    gain = kept * surprise / variance
    known = kept * (2.0 - kept) / variance
    most = _prior_variance(config)
    fresh = most * min(sample.interval_s / config.memory_s, 1.0)
    k0, k1, k2, k3 = known * w0, known * w1, known * w2, known * w3
    less = (
        min(p00 - k0 * w0 + fresh, most),
        p01 - k0 * w1,
        p02 - k0 * w2,
        p03 - k0 * w3,
        min(p11 - k1 * w1 + fresh, most),
        p12 - k1 * w2,
        p13 - k1 * w3,
        min(p22 - k2 * w2 + fresh, most),
        p23 - k2 * w3,
        min(p33 - k3 * w3 + fresh, most),
    )
    moved = (x0 + gain * w0, x1 + gain * w1, x2 + gain * w2, x3 + gain * w3)
    if min(moved) < MULTIPLE_MIN or max(moved) > MULTIPLE_MAX:
        moved = _projected(moved, less)
    outliers = before.outliers + 1 if far else 0
    if outliers >= _OUTLIERS_MAX:
        return make_filter(estimate=moved, doubt=first_doubt(config))
    return make_filter(estimate=moved, doubt=less, outliers=outliers)


_ROWS = ((0, 1, 2, 3), (1, 4, 5, 6), (2, 5, 7, 8), (3, 6, 8, 9))  # places of a row in the triangle


def _projected(multiples: Four, doubt: Doubt) -> Four:
    """The nearest multiples within the limits, by the doubt's own measure, one after the other."""
    values = multiples
    for place, row in enumerate(_ROWS):
        value, own = values[place], doubt[row[place]]
        if not MULTIPLE_MIN <= value <= MULTIPLE_MAX and own > 0.0:
            short = within(value, MULTIPLE_MIN, MULTIPLE_MAX) - value
            x0, x1, x2, x3 = values
            p0, p1, p2, p3 = row
            values = (
                x0 + short * doubt[p0] / own,
                x1 + short * doubt[p1] / own,
                x2 + short * doubt[p2] / own,
                x3 + short * doubt[p3] / own,
            )
    return within_limits(values)


def within_limits(multiples: Four) -> Four:
    """Each of them, or the limit that it is beyond."""
    x0, x1, x2, x3 = multiples
    return (
        within(x0, MULTIPLE_MIN, MULTIPLE_MAX),
        within(x1, MULTIPLE_MIN, MULTIPLE_MAX),
        within(x2, MULTIPLE_MIN, MULTIPLE_MAX),
        within(x3, MULTIPLE_MIN, MULTIPLE_MAX),
    )


def follow(published: Four, target: Four, *, most: float) -> Four:
    """``published``, moved towards ``target``, each number by at most the factor ``most``."""
    p0, p1, p2, p3 = published
    t0, t1, t2, t3 = target
    least = 1.0 / most
    return (
        within(t0, p0 * least, p0 * most),
        within(t1, p1 * least, p1 * most),
        within(t2, p2 * least, p2 * most),
        within(t3, p3 * least, p3 * most),
    )
