"""Requests per second that one replica carries within the objectives, from its step times.

Three things end it, each with its own formula; a request computes ``prompt`` tokens, makes
``output`` and takes ``busy_s`` of a replica beside the overhead of the steps it shares.

**Saturation.**  A step holds at most ``sequences_max`` sequences and ``step_tokens_max`` tokens, so
a request pays at least for its share of so many steps:

    1 / saturation = busy_s + overhead_s * max(output / sequences_max,
                                               (prompt + output) / step_tokens_max)

**Sequences.**  Sequences share a replica as jobs share a processor, beside the fixed overhead: with
r requests a second they come at rate r, and n of them end at the rate n / (output * (overhead_s + n
* busy_s / output)).  This birth and death process has a negative binomial equilibrium with mean m =
r * output * overhead_s / (1 - r * busy_s) and variance m / (1 - r * busy_s), whatever the
distribution of lengths (processor sharing is insensitive: Kelly 1979, chapter 3).  Its quantile
must fit the limit and what comes within the TTFT objective, because so long a request may wait.

**Prefill.**  Prompts are served in order of arrival, ``step_tokens_max`` less the decoding
sequences at a step.  With prompt lengths about as spread as an exponential distribution (in the
public traces their coefficient of variation is 0.8 to 2) this is an M/M/1 queue, whose sojourn time
has the tail exp(-(1 - rho) * eta * t) (Kleinrock 1975, section 5.3): eta is prompts per second of a
replica that does only full steps, rho = r / eta, and t the objective less one step under way.
With n replicas a request waits only where all do, so rho ** m takes the place of rho, m = n **
gain; m without bound leaves a request its own prefill.  ``stretch`` corrects the tail from
observed latencies.

Requests that miss the objective on an idle replica are not counted against it: no count of
replicas helps them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from scaler.core.made import maker
from scaler.core.model import Latency
from scaler.core.window import normal_quantile

_TINY = 1e-9
_SHARE_MIN = 0.1  # of saturation: an objective out of reach is not chased beyond ten replicas
_SOLVE_STEPS = 8
_SLACK_MAX = 2.0
_SLACK_GOOD = 2e-3
_SHARE_LIKELY = 0.7
_STRETCH_REQUESTS_MIN = 1.0  # above a bound, to say something of the tail
_STRETCH_TAIL_MIN, _STRETCH_TAIL_MAX = 0.0025, 0.3  # of all requests
_STRETCH_RAMP = math.log(4.0)  # from saying something of the tail to being all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One replica's work on one mix of requests, in seconds and tokens.

    ``sequence_s`` is what a decoding sequence adds to a step; ``clumsiness`` how many times more
    the use of the limit varies than the number of sequences does (contexts differ in length).
    ``busy_s`` is the replica time of one request beside the overhead of its steps.
    """

    prompt: float
    output: float
    overhead_s: float
    sequence_s: float
    prefill_s: float  # of one token
    busy_s: float
    sequences_max: float
    step_tokens_max: float
    clumsiness: float = 1.0
    stretch: float = 1.0

    @property
    def saturated_cost_s(self) -> float:
        """Replica time of one request when every step is as full as it may be."""
        output = self.output
        steps = max(output / self.sequences_max, (self.prompt + output) / self.step_tokens_max)
        return self.busy_s + self.overhead_s * steps


make_batch = maker(Batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Share ``attained`` of the requests within ``ttft_s``."""

    ttft_s: float
    attained_ratio: float


make_objective = maker(Objective)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Requests per second of one replica: alone, and as one of very many."""

    alone_per_s: float
    pooled_per_s: float


make_carried = maker(Carried)


def carried_per_s(batch: Batch, objective: Objective) -> Carried:
    """What one replica carries within ``objective``."""
    cost_s = batch.saturated_cost_s
    need = _tail_exponent(batch, objective)
    prefill = _prefill(batch, objective.ttft_s) if batch.prompt > 0.0 else None
    pooled = 1.0 / cost_s if prefill is None else _pooled_per_s(prefill, 1.0 / cost_s, need=need)
    floor = min(_SHARE_MIN / cost_s, pooled)
    alone = _alone_per_s(batch, objective, prefill, need=need, low=floor, high=pooled)
    return make_carried(alone_per_s=alone, pooled_per_s=pooled)


def _tail_exponent(batch: Batch, objective: Objective) -> float:
    """The exponent the tail needs: -log of the miss allowed, over those an idle replica misses."""
    missed = 1.0 - objective.attained_ratio
    if batch.prompt > 0.0:
        token_s = batch.prefill_s + batch.overhead_s / batch.step_tokens_max
        first_s = batch.overhead_s + min(batch.prompt, batch.step_tokens_max) * batch.prefill_s
        own = (objective.ttft_s - first_s) / (batch.prompt * token_s * batch.stretch)
        missed += objective.attained_ratio * math.exp(-max(own, 0.0))
    return -math.log(min(missed, 0.999)) * batch.stretch


Prefill: TypeAlias = Callable[[float], tuple[float, float]]
"""Of a rate: prompts per second of full steps, and what a step leaves of the objective."""


def _pooled_per_s(prefill: Prefill, saturation: float, *, need: float) -> float:
    """Where a request's own prefill takes the objective: nothing else waits in a large fleet."""

    def slack(rate: float) -> float:
        eta, left_s = prefill(rate)
        return min(eta * left_s / need, eta / rate) - 1.0

    return solve(slack, _SHARE_MIN * saturation, saturation)


def _alone_per_s(
    batch: Batch,
    objective: Objective,
    prefill: Prefill | None,
    *,
    need: float,
    low: float,
    high: float,
) -> float:
    """Where the first of prefill and sequences takes the objective, from ``low`` to ``high``."""
    busy_s, limit, ttft_s = batch.busy_s, batch.sequences_max, objective.ttft_s
    shared_s, clumsiness = batch.output * batch.overhead_s, batch.clumsiness
    sigmas = normal_quantile(objective.attained_ratio)
    sqrt = math.sqrt

    def slack(rate: float) -> float:
        share = 1.0 - rate * busy_s
        share = _TINY if share < _TINY else share
        mean = rate * shared_s / share
        many = mean + sigmas * sqrt(mean * clumsiness / share)
        fits = (limit + rate * ttft_s) / (_TINY if many < _TINY else many) - 1.0
        if prefill is None:
            return fits
        eta, left_s = prefill(rate)
        waits = (eta - rate) * (left_s if left_s > 0.0 else 0.0) / need - 1.0
        return waits if waits < fits else fits

    return solve(slack, low, high)


def solve(slack: Callable[[float], float], low: float, high: float) -> float:
    """The rate between ``low`` and ``high`` at which the slack is used up, by Illinois' rule.

    Dowell and Jarratt 1971: regula falsi that halves the value at the end that stays.  It begins
    with the upper third, where the answer mostly is.
    """
    at_high = slack(high)
    if at_high >= 0.0:
        return high
    start = max(_SHARE_LIKELY * high, low)
    at_low = slack(start)
    if at_low < 0.0:
        high, at_high = start, at_low
        start = low
        at_low = slack(start)
        if at_low <= 0.0:
            return low
    return _between(slack, start, high, at_low=at_low, at_high=at_high)


def _between(
    slack: Callable[[float], float], low: float, high: float, *, at_low: float, at_high: float
) -> float:
    """The root between ``low`` and ``high``, whose slacks have different signs."""
    at_low = min(at_low, _SLACK_MAX)  # a flat end would pull the secant
    side = 0
    for _ in range(_SOLVE_STEPS):
        rate = (low * at_high - high * at_low) / (at_high - at_low)
        at_rate = slack(rate)
        if -_SLACK_GOOD < at_rate < _SLACK_GOOD:
            return rate
        if at_rate > 0.0:
            low, at_low = rate, at_rate
            if side > 0:
                at_high *= 0.5
            side = 1
        else:
            high, at_high = rate, at_rate
            if side < 0:
                at_low *= 0.5
            side = -1
    return low


def _prefill(batch: Batch, limit_s: float) -> Prefill:
    """The prefill of ``batch`` within ``limit_s``.

    The searches ask for many rates of one batch.  Limits are therefore comparisons: a call of min()
    or max() takes longer than all the arithmetic.
    """
    prompt, output, prefill_s = batch.prompt, batch.output, batch.prefill_s
    overhead_s, sequence_s, busy_s = batch.overhead_s, batch.sequence_s, batch.busy_s
    sequences_max, tokens_max = batch.sequences_max, batch.step_tokens_max

    def at(rate: float) -> tuple[float, float]:
        share = 1.0 - rate * busy_s
        running = rate * output * overhead_s / (_TINY if share < _TINY else share)
        running = sequences_max if running > sequences_max else running
        room = tokens_max - running
        room = 1.0 if room < 1.0 else room
        decode_s = overhead_s + running * sequence_s
        eta = room / ((decode_s + room * prefill_s) * prompt)
        return eta, limit_s - decode_s - (prompt if prompt < room else room) * prefill_s

    return at


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenStretch:
    """By how much observed latencies are longer than the law's, and how many requests say so."""

    stretch: float
    late: float


make_seen_stretch = maker(SeenStretch)


def seen_stretch(
    batch: Batch, rate: float, latency: Latency, *, waiting_replicas: float
) -> SeenStretch | None:
    """The stretch that a histogram of first-token latencies shows at this rate.

    Solved from the highest bucket bound with enough requests above it; ``waiting_replicas`` is the
    m of rho ** m.  None where the histogram says nothing: too few are late, or too many.
    """
    if batch.prompt <= 0.0:
        return None
    total = latency.total
    least = max(_STRETCH_REQUESTS_MIN, _STRETCH_TAIL_MIN * total)
    above, left, log, late = 0.0, 1.0, 0.0, 0.0
    for bound_s, count in zip(reversed(latency.bounds_s), reversed(latency.counts), strict=False):
        above += count
        if above > _STRETCH_TAIL_MAX * total:
            break
        if above <= least:
            continue  # nothing of it is believed in yet
        eta, left_s = _prefill(batch, bound_s)(rate)
        part = left * _belief(above, least)
        if part > 0.0 and rate < eta and left_s > 0.0:
            waits = 1.0 - (rate / eta) ** waiting_replicas
            stretch = waits * eta * left_s / math.log(total / above)
            log += part * math.log(max(stretch, _TINY))
            late += part * above
            left -= part
        if left <= 0.0:
            break
    known = 1.0 - left
    if known <= 0.0:
        return None
    return make_seen_stretch(stretch=math.exp(log / known), late=late / known)


def _belief(above: float, least: float) -> float:
    """How far the tail above a bound is believed in, 0 to 1; the rest goes to the bound below.

    ``above`` requests are more than the ``least`` that say anything.  A threshold instead would let
    chance decide between two bounds from one window to the next, and a tail that is no exponential
    tells each something else.
    """
    return min(math.log(above / least) / _STRETCH_RAMP, 1.0)
