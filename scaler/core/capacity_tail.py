"""What a replica carries within an objective of a few steps, where prompts differ in length.

The law of ``capacity_share`` takes prompts for exponential in length and lets many replicas pool
their queues.  Within an objective of a few full steps neither is good enough: a long prompt's own
chunks take much of it, and a router does not see who computes one.

The first token comes when the step under way has ended, the prompts before have been
computed, and the prompt itself, ``step_tokens_max`` less the decoding sequences at a step, each
step taking as long as its sequences decode beside it.  Prompt lengths are taken for Weibull (1951)
distributed with the mean that is seen and a ``shape`` that is learned, the smaller the longer the
tail (0.45 to 1 in the public traces).  A prompt of p tokens alone takes ``step + p * token_s``:
that makes the share that is late by itself.  Others wait behind prompts with the probability rho =
rate * prompt * token_s, exponentially with the mean of Kingman's formula (1961),

    prompt * token_s * (arrivals + lengths) / 2 / (1 - rho)

in squared coefficients of variation: that of the lengths follows from the shape, that of the
arrivals is 1 for a replica alone and less for one of many, because a router that looks for the
fewest requests deals them out evenly.  It does not see who computes a long prompt, so to be one of
many helps no more than that.  A replica alone has more and fewer sequences by chance as well.

What is late on an idle replica is not counted against it: no count of replicas helps it.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from scaler.core.capacity_share import Batch, Carried, Objective, carried_per_s, solve
from scaler.core.model import NoData, Observation
from scaler.core.window import within

_TINY = 1e-9
_LATE_MIN = 1e-12
_SHARE_MIN = 0.1  # of saturation: an objective out of reach is not chased beyond ten replicas
_TIGHT_STEPS, _LOOSE_STEPS = 3.0, 5.0  # objectives, in full steps: this law, and the other
_POOLED_ARRIVALS = 0.3  # squared coefficient of variation, of what a router deals to one of many
_QUANTILES = (0.2, 0.5, 0.8)  # of the lengths that stand for all in what waiting takes
_SHAPE_FIRST = 0.65
_SHAPE_MIN, _SHAPE_MAX = 0.35, 1.5
_SHAPE_STEP = 0.08  # of its logarithm, at one look
_SHAPE_PROBE = 0.05  # of its logarithm, for the slope
_TAIL_PRIOR = 8.0  # information of the first shape: a standard deviation of a third
_TAIL_INFORMATION_MAX = 3000.0  # so that a change of the traffic is followed, within an hour or so
_TAIL_BURSTS = 2.0  # variance of a number of late requests over its mean: they come together
_TAIL_MIN = 2e-4  # of all requests expected above a bound, to learn from it
_LOOK_WEIGHT = 0.5  # of a window, that is news at a look: windows overlap by half


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The shape of the prompts' lengths, and how much is known of it beyond the first belief.

    ``information`` is Fisher's, of the shape's logarithm: one over a variance.
    """

    shape: float = _SHAPE_FIRST
    information: float = 0.0

    @property
    def sigma(self) -> float:
        """Standard deviation of the shape, relative."""
        return 1.0 / math.sqrt(_TAIL_PRIOR + self.information)

    @property
    def known(self) -> float:
        """How much of what is known of the shape was seen: 0 before any evidence, then up to 1."""
        return self.information / (_TAIL_PRIOR + self.information)


def tightness(batch: Batch, ttft_s: float) -> float:
    """How far this law holds, 0 to 1: objectives of many steps are the queue's alone."""
    if batch.prompt <= 0.0:
        return 0.0
    step_s = batch.overhead_s + batch.step_tokens_max * batch.prefill_s
    loose = (_LOOSE_STEPS - ttft_s / step_s) / (_LOOSE_STEPS - _TIGHT_STEPS)
    return within(loose, 0.0, 1.0)


def tightened(
    rates: Carried, batch: Batch, objective: Objective, *, shape: float, weight: float
) -> Carried:
    """``rates`` of the other law, with this one at its ``weight``."""
    low, high = _SHARE_MIN / batch.saturated_cost_s, 1.0 / batch.saturated_cost_s
    idle = late_share(batch, 0.0, objective.ttft_s, shape=shape, alone=0.0)
    need = -math.log(min(1.0 - objective.attained_ratio * (1.0 - idle), 0.999))

    def where(alone: float, high: float) -> float:
        late = _late(batch, objective.ttft_s, shape=shape, alone=alone)
        return solve(lambda rate: -math.log(late(rate)) / need - 1.0, low, high)

    pooled = where(0.0, high)
    fits = carried_per_s(replace(batch, prompt=0.0), objective).alone_per_s
    alone = max(min(where(1.0, pooled), fits), low)
    return Carried(
        alone_per_s=rates.alone_per_s ** (1.0 - weight) * alone**weight,
        pooled_per_s=rates.pooled_per_s ** (1.0 - weight) * pooled**weight,
    )


def late_share(batch: Batch, rate: float, limit_s: float, *, shape: float, alone: float) -> float:
    """Share of first tokens that come after ``limit_s`` at ``rate``.

    ``alone`` is 1 for a replica that shares its requests with nobody, 0 for one of very many.
    """
    return _late(batch, limit_s, shape=shape, alone=alone)(rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lengths:
    """Prompt lengths of one shape, in means: scale, variance, three quantiles."""

    scale: float
    variance: float
    quantiles: tuple[float, float, float]


@lru_cache(maxsize=4096)
def _lengths(shape: float) -> _Lengths:
    scale = 1.0 / math.gamma(1.0 + 1.0 / shape)
    low, middle, high = (scale * (-math.log(1.0 - part)) ** (1.0 / shape) for part in _QUANTILES)
    return _Lengths(
        scale=scale,
        variance=math.gamma(1.0 + 2.0 / shape) * scale * scale - 1.0,
        quantiles=(low, middle, high),
    )


def _late(batch: Batch, limit_s: float, *, shape: float, alone: float) -> Callable[[float], float]:
    """Of a rate: the share of first tokens that come after ``limit_s``, above 0 and at most 1.

    The searches ask for many rates of one batch.  Limits are therefore comparisons: a call of min()
    or max() takes longer than all the arithmetic.
    """
    prompt, output, prefill_s = batch.prompt, batch.output, batch.prefill_s
    overhead_s, sequence_s, busy_s = batch.overhead_s, batch.sequence_s, batch.busy_s
    sequences_max, tokens_max = batch.sequences_max, batch.step_tokens_max
    lengths = _lengths(shape)
    scale = prompt * lengths.scale
    low, middle, high = (prompt * each for each in lengths.quantiles)
    behind = prompt * 0.5 * (lengths.variance + alone + (1.0 - alone) * _POOLED_ARRIVALS)
    exp = math.exp

    def among(rate: float, running: float) -> float:
        """The share beside ``running`` sequences."""
        running = sequences_max if running > sequences_max else running
        room = tokens_max - running
        room = 1.0 if room < 1.0 else room
        step_s = overhead_s + running * sequence_s
        token_s = prefill_s + step_s / room
        left = (limit_s - step_s) / token_s
        rho = rate * prompt * token_s
        if left <= 0.0 or rho >= 1.0:
            return 1.0
        late = exp(-((left / scale) ** shape))
        less = (1.0 - rho) / behind  # a token of waiting, in the mean wait
        some = exp(((low if low < left else left) - left) * less)
        some += exp(((middle if middle < left else left) - left) * less)
        some += exp(((high if high < left else left) - left) * less)
        late += (1.0 - late) * rho * some / 3.0
        return _LATE_MIN if late < _LATE_MIN else late

    def at(rate: float) -> float:
        share = 1.0 - rate * busy_s
        share = _TINY if share < _TINY else share
        running = rate * output * overhead_s / share
        if alone <= 0.0:
            return among(rate, running)
        apart = alone * math.sqrt((sequences_max if running > sequences_max else running) / share)
        low = running - apart
        return 0.5 * (among(rate, low if low > 0.0 else 0.0) + among(rate, running + apart))

    return at


def see_tail(
    observation: Observation,
    batch: Batch,
    before: Tail,
    *,
    rate: float,
    gain: float,
    ttft_s: float,
) -> Tail:
    """The tail after one histogram of replicas that have room to spare, at ``rate`` each.

    A step of recursive maximum likelihood (Titterington 1984) for a number of late requests with
    the law's mean, above the bound at the objective, or the next below it that enough exceed.
    """
    work, ttft = observation.work, observation.ttft
    assert not isinstance(work, NoData)
    if isinstance(ttft, NoData) or tightness(batch, ttft_s) <= 0.0:
        return before
    total = ttft.total
    alone = max(work.replica_s / work.interval_s, 1.0) ** -gain
    place = bisect_right(ttft.bounds_s, ttft_s) - 1
    share = 0.0
    while place >= 0:
        share = late_share(batch, rate, ttft.bounds_s[place], shape=before.shape, alone=alone)
        if share >= _TAIL_MIN:
            break
        place -= 1
    if place < 0 or total <= 0.0 or share >= 0.5:  # overloaded, or all within the first bound
        return before
    other = before.shape * math.exp(_SHAPE_PROBE)
    probed = late_share(batch, rate, ttft.bounds_s[place], shape=other, alone=alone)
    slope = math.log(probed / share) / _SHAPE_PROBE
    late = sum(ttft.counts[place + 1 :])
    weight = _LOOK_WEIGHT * slope / _TAIL_BURSTS
    score = weight * (late - total * share)
    information = before.information + weight * slope * total * share
    step = within(score / (_TAIL_PRIOR + information), -_SHAPE_STEP, _SHAPE_STEP)
    return Tail(
        shape=within(before.shape * math.exp(step), _SHAPE_MIN, _SHAPE_MAX),
        information=min(information, _TAIL_INFORMATION_MAX),
    )
