"""The error budget and the price of a miss: the one dial, made into a control loop.

``attainment_target_ratio`` allows a share of misses.  What was spent of it over the last day sets
the price of a miss, in multiples of the replica time one request costs:

    spent = missed / (requests * allowed)
    price = price_factor * (0.01 / (1 - target)) * exp(gain * (spent - 1))

Where a tenth as many may miss, a miss is ten times as dear before any is seen: the dial feeds
forward, and what is spent corrects it.  The gain is small, because the misses of a service come in
a few events that nobody can foresee: cheap misses while none is spent let one event spend it all,
and dear ones afterwards cannot undo it.

A replica short of the load lets every request of the moment miss, because queues are first come,
first served.  A replica more costs one replica.  With ``load`` in replicas' worth, a moment of
overload costs ``price * load`` replicas, so the smallest expected cost is at the count whose
probability of overload is

    probability = 1 / (price * load)

This is the newsvendor's critical ratio (Arrow, Harris and Marschak 1951); setting the multiplier of
a budget by what is left of it is adaptive pacing (Balseiro and Gur 2019).  Misses on replicas that
have room to spare are not the count's fault: their share is taken out of the target.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from statistics import NormalDist

from scaler.core.config import BudgetConfig, SloConfig
from scaler.core.made import maker
from scaler.core.model import Latency, NoData, Observation
from scaler.core.window import decay, within

_NORMAL = NormalDist()
_PROBABILITY_MIN = 0.001
_PROBABILITY_MAX = 0.45  # the mean itself must be carried, or the queue grows without end
_HALF = 0.5  # observations that an empty tail may hide
_ROOMY_LOAD_RATIO = 0.5  # busy share up to which a miss cannot be the count's fault
_ROOMY_WAITING_RATIO = 0.5  # requests waiting per replica up to which nobody waits for room
_ROOMY_SETTLED_WINDOWS = 3.0  # histogram windows without a queue or newcomers before misses count
_ROOMY_WEIGHT = 500.0  # requests on roomy replicas before their misses are believed
_ALLOWED_REFERENCE = 0.01  # the share of misses that ``price_factor`` is meant for


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """Fading sums of requests and of misses; ``roomy_*`` of those on replicas with room to spare.

    ``crowded_at_s`` is when there was last no such room.
    """

    seen_at_s: float | None = None
    crowded_at_s: float | None = None
    requests: float = 0.0
    missed: float = 0.0
    roomy_requests: float = 0.0
    roomy_missed: float = 0.0


make_budget_state = maker(BudgetState)


def update_budget(
    observation: Observation,
    state: BudgetState,
    slo: SloConfig,
    config: BudgetConfig,
    *,
    busy_ratio: float,
) -> BudgetState:
    """The state after one observation; ``busy_ratio`` is the load over the ready replicas.

    Every request that finished or was rejected in the interval counts once; the share that missed
    is that of the window of the TTFT histogram.
    """
    work, ttft = observation.work, observation.ttft
    if isinstance(work, NoData) or isinstance(ttft, NoData):
        return state
    if state.seen_at_s is not None and work.seen_at_s <= state.seen_at_s:
        return state
    kept = decay(work.interval_s, config.memory_s)
    late = missed_ratio(ttft, slo.ttft_s)
    now_s = observation.seen_at_s
    crowded_at_s = now_s if state.crowded_at_s is None else state.crowded_at_s
    if busy_ratio > _ROOMY_LOAD_RATIO or _crowded(observation):
        crowded_at_s = now_s
    roomy = float(now_s - crowded_at_s >= _ROOMY_SETTLED_WINDOWS * ttft.window_s)
    requests = work.requests_finished + work.requests_rejected
    missed = late * work.requests_finished + work.requests_rejected
    return make_budget_state(
        seen_at_s=min(work.seen_at_s, now_s),
        crowded_at_s=crowded_at_s,
        requests=kept * state.requests + requests,
        missed=kept * state.missed + missed,
        roomy_requests=kept * state.roomy_requests + roomy * requests,
        roomy_missed=kept * state.roomy_missed + roomy * missed,
    )


def _crowded(observation: Observation) -> bool:
    """Whether requests wait, or replicas have just come, which a router floods."""
    queue, replicas = observation.queue, observation.replicas
    if isinstance(queue, NoData) or isinstance(replicas, NoData):
        return True
    waits = queue.requests_waiting > _ROOMY_WAITING_RATIO * replicas.ready
    return waits or len(replicas.start_up_s) > 0


def missed_ratio(latency: Latency, objective_s: float) -> float:
    """Share of a histogram above ``objective_s``; inside a bucket the tail falls geometrically.

    Between the shares above a bucket's two bounds an exponential tail is a straight line in the
    logarithm.  Linear interpolation, as ``histogram_quantile`` does it, would count a third of a
    bucket from 1 s to 2.5 s above 2 s, where a tail leaves a tenth.
    """
    bounds_s, counts = latency.bounds_s, latency.counts
    below = bisect_right(bounds_s, objective_s)
    lower_s = bounds_s[below - 1] if below else 0.0
    above = sum(counts[below:])
    if above <= 0.0:
        return 0.0
    if below >= len(bounds_s) or lower_s == objective_s:
        return above / latency.total
    beyond = min(max(above - counts[below], _HALF), above)
    part = (objective_s - lower_s) / (bounds_s[below] - lower_s)
    return above * math.pow(beyond / above, part) / latency.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be missed, what was, and the price that follows.

    ``spent_ratio`` is missed over allowed, 1 when all of it is spent; ``unavoidable_ratio`` the
    share that misses on replicas with room to spare.
    """

    allowed_ratio: float
    unavoidable_ratio: float
    spent_ratio: float
    price_factor: float


make_budget = maker(Budget)


def budget_of(
    state: BudgetState, slo: SloConfig, config: BudgetConfig, *, requests_per_s: float
) -> Budget:
    """The budget now.  A prior, as if some hours at this rate had spent their part, steadies it."""
    unavoidable = min(state.roomy_missed / (state.roomy_requests + _ROOMY_WEIGHT), 0.5)
    target = slo.attainment_target_ratio * (1.0 - unavoidable)
    allowed = 1.0 - target
    prior = config.prior_s * requests_per_s + _HALF
    missed = state.missed + prior * allowed * config.prior_spent_ratio
    spent = missed / ((state.requests + prior) * allowed)
    over = within(spent - 1.0, -1.0, config.overspent_max_ratio)
    dial = _ALLOWED_REFERENCE / (1.0 - slo.attainment_target_ratio)
    return make_budget(
        allowed_ratio=allowed,
        unavoidable_ratio=unavoidable,
        spent_ratio=spent,
        price_factor=config.price_factor * dial * math.exp(config.gain_factor * over),
    )


def sigmas(price_factor: float, load: float) -> float:
    """Standard deviations of margin that ``price_factor`` is worth at ``load``, at least 0.

    The normal quantile of the newsvendor's critical ratio.
    """
    probability = 1.0 / max(price_factor * max(load, 1.0), 1.0)
    probability = within(probability, _PROBABILITY_MIN, _PROBABILITY_MAX)
    return -_NORMAL.inv_cdf(probability)
