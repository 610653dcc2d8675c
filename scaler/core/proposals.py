"""What each signal alone would ask for.

A proposal is a replica count with the numbers it came from.  Work and forecast count tokens, and
leave the margin that the price of a miss is worth; queue, KV cache, TTFT and ITL are symptoms that
reveal what tokens did not; GPU utilisation speaks only when asked to, or when the engines' own
signals are blind.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass

from scaler.core.budget import Budget, missed_ratio
from scaler.core.capacity import replicas_for
from scaler.core.config import PolicyConfig
from scaler.core.made import gatherer, maker
from scaler.core.model import (
    Capacity,
    Demand,
    Forecast,
    Gpu,
    Latency,
    NoData,
    Observation,
    Proposal,
    Role,
    Signal,
    make_proposal,
)
from scaler.core.sizing import Margins, count_for, drain_extra, make_margins

_RELIEF_LOAD_FACTOR = 2.0  # half busy
_UNLIMITED = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything a proposal may look at, with the replica counts made definite.

    ``coming`` counts starting replicas that have not expired, ``stuck`` those that cannot be
    scheduled or crash-loop; ``load`` is the demand in replicas' worth of busy time and ``level``
    the same over some minutes, ``peak`` what is left of the highest level, ``settled`` the highest
    peak since the count was set; ``ease`` is the part of the margins and the release of the way
    down that the budget leaves; ``before`` is the count the policy wanted last;
    ``sought`` is the same where fewer are sought than are there, else what is there;
    ``latency_step_at_s`` is when a latency signal last added replicas, ``ready_rose_at_s`` when
    replicas last became ready.
    """

    now_s: float
    observation: Observation
    demand: Demand
    capacity: Capacity
    forecast: Forecast
    margins: Margins
    budget: Budget
    config: PolicyConfig
    load: float
    level: float
    peak: float
    settled: float
    ease: float
    before: int
    sought: int
    wanted: int
    ready: int
    coming: int
    stuck: int
    latency_step_at_s: float | None
    ready_rose_at_s: float | None


make_situation = gatherer(
    Situation,
    ("demand", "capacity", "forecast", "margins", "load", "now_s"),
    ("latency_step_at_s",),
)
"""From the ``Estimates`` and the state before, and the other fields as keywords."""


def propose(situation: Situation) -> tuple[Proposal, ...]:
    """Every signal's proposal, in a fixed order; signals without data make none."""
    made = (
        _work(situation),
        _forecast(situation),
        _queue(situation),
        _kv_cache(situation),
        _latency(situation, Signal.TTFT),
        _latency(situation, Signal.ITL),
        _gpu(situation),
    )
    return tuple(filter(None, made))


def _work(at: Situation) -> Proposal | None:
    """The load of the moment, with the slack of queueing."""
    if isinstance(at.observation.work, NoData):
        return None
    now, load, capacity = at.margins, at.load, at.capacity
    margins = make_margins(sigmas=now.sigmas, forecast=0.0, capacity_ratio=now.capacity_ratio)
    return make_proposal(
        signal=Signal.WORK,
        replicas=sized(at, load, margins),
        terms=(
            ("requests_per_s", at.demand.requests_per_s),
            ("request_cost_s", capacity.request_cost_s),
            ("load", load),
            ("load_max_ratio", capacity.load_max_ratio),
            ("sigmas", now.sigmas),
        ),
    )


def _forecast(at: Situation) -> Proposal | None:
    """The load expected when a replica asked for now would be ready, with all margins."""
    if isinstance(at.observation.work, NoData):
        return None
    forecast, margins, budget = at.forecast, at.margins, at.budget
    return make_proposal(
        signal=Signal.FORECAST,
        replicas=sized(at, forecast.load_mean, margins),
        terms=(
            ("lead_s", forecast.lead_s),
            ("load_mean", forecast.load_mean),
            ("load_upper", forecast.load_upper),
            ("skill", forecast.skill),
            ("sigmas", margins.sigmas),
            ("miss_price_factor", budget.price_factor),
            ("budget_spent_ratio", budget.spent_ratio),
        ),
    )


def sized(at: Situation, load: float, margins: Margins) -> int:
    """The count for ``load`` with ``margins``."""
    config = at.config
    ratio = config.slo.attainment_target_ratio
    return count_for(load, margins, at.capacity, config.capacity, attainment_ratio=ratio)


def _queue(at: Situation) -> Proposal | None:
    """Replicas that drain the backlog at least cost; none beyond those coming if they will do it.

    A replica asked for now helps one lead time from now.  What waits then is today's backlog plus
    what the present replicas fall behind meanwhile; if the replicas on their way clear it sooner
    than a new one would be ready, a new one is not worth its start.
    """
    queue = at.observation.queue
    if isinstance(queue, NoData):
        return None
    backlog_s = queue.requests_waiting * at.capacity.request_cost_s
    serving = at.ready + at.coming
    spare = serving - at.load
    pressed = backlog_s > at.config.signals.ttft_pressure_ratio * at.config.slo.ttft_s * at.ready
    replicas = math.ceil(at.load)
    if pressed:
        replicas = max(replicas, min(serving, at.wanted))
    if pressed and (spare <= 0.0 or backlog_s / spare > at.forecast.lead_s):
        behind = backlog_s + max(-spare, 0.0) * at.forecast.lead_s
        kept_s = at.forecast.lead_s + at.config.hold_down.window_s
        price = max(at.budget.price_factor, at.config.budget.backlog_price_factor)
        replicas = max(
            replicas, math.ceil(at.load + drain_extra(behind, at.load, price, kept_s=kept_s))
        )
    return make_proposal(
        signal=Signal.QUEUE,
        replicas=replicas,
        terms=(
            ("requests_waiting", queue.requests_waiting),
            ("backlog_s", backlog_s),
            ("spare_replicas", spare),
        ),
    )


def _kv_cache(at: Situation) -> Proposal | None:
    """Replicas that bring KV use to its target; more than now only if requests feel it.

    A full cache without waiting requests or preemptions is a healthy full batch.
    """
    kv = at.observation.kv_cache
    if isinstance(kv, NoData) or at.ready == 0:
        return None
    target = at.config.signals.kv_usage_target_ratio
    used = kv.usage_mean_ratio * at.ready
    replicas = math.ceil(used / target)
    felt = _felt(at)
    if not felt or at.coming > 0:
        replicas = min(replicas, max(at.wanted, 1))
    return make_proposal(
        signal=Signal.KV_CACHE,
        replicas=replicas,
        terms=(
            ("usage_mean_ratio", kv.usage_mean_ratio),
            ("usage_target_ratio", target),
            ("felt", float(felt)),
        ),
    )


def _felt(at: Situation) -> bool:
    """Whether requests suffer from a full cache: they wait, or were preempted."""
    queue, work = at.observation.queue, at.observation.work
    if not isinstance(queue, NoData) and queue.requests_waiting > 0.0:
        return True
    return not isinstance(work, NoData) and work.preemptions > 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attainment:
    """Share of requests within an objective: an interval, because a bucket may straddle it.

    ``low`` and ``high`` are certain; ``likely`` takes an exponential tail inside the bucket.
    """

    low: float
    likely: float
    high: float


make_attainment = maker(Attainment)


def attainment(latency: Latency, objective_s: float) -> Attainment:
    """The share of ``latency`` within ``objective_s``; the histogram must not be empty."""
    total = latency.total
    assert total > 0.0, "an empty histogram has no attainment"
    bounds_s, counts = latency.bounds_s, latency.counts
    below = bisect_right(bounds_s, objective_s)  # bounds at or below the objective
    within = sum(counts[:below])
    low = within / total
    lower_s = bounds_s[below - 1] if below else 0.0
    if lower_s == objective_s:  # an objective on a bound splits no bucket
        return make_attainment(low=low, likely=low, high=low)
    return make_attainment(
        low=low,
        likely=1.0 - missed_ratio(latency, objective_s),
        high=(within + counts[below]) / total,
    )


def likely_ratio(latency: Latency, objective_s: float) -> float:
    """``attainment(...).likely`` alone."""
    if objective_s in latency.bounds_s:
        return attainment(latency, objective_s).likely
    return 1.0 - missed_ratio(latency, objective_s)


def objective(at: Situation, signal: Signal) -> tuple[Latency, float] | None:
    """The latency signal and its objective, when both exist and say something."""
    config = at.config
    if signal is Signal.TTFT:
        latency, objective_s = at.observation.ttft, config.slo.ttft_s
        silent = config.role is Role.DECODE
    else:
        latency, objective_s, silent = at.observation.itl, config.slo.tpot_s, False
    if objective_s <= 0.0 or silent or isinstance(latency, NoData):
        return None
    if latency.total < config.signals.latency_requests_min:
        return None
    return latency, objective_s


def _latency(at: Situation, signal: Signal) -> Proposal | None:
    """More replicas while far more than the allowed share is missed, one step per lead time.

    A few misses are the business of the budget, which moves every margin.  Many say that load and
    capacity are not what they are believed to be.  While replicas are on their way, or the last
    step has not had time to show in the window, the answer is the present count.  Replicas that are
    stuck were asked for already, and no count beyond ``relief`` is asked for.
    """
    found = objective(at, signal)
    if found is None:
        return None
    latency, objective_s = found
    share = attainment(latency, objective_s)
    target = at.config.slo.attainment_target_ratio
    allowed = at.budget.allowed_ratio * at.config.signals.latency_burn_factor
    replicas = 0
    if 1.0 - share.likely > min(allowed, 0.5):
        replicas = min(at.wanted, relief(at))
        if at.coming == 0 and _settled(at, latency.window_s):
            step = math.ceil(at.config.signals.latency_step_ratio * max(at.ready, 1))
            replicas = max(replicas, min(at.wanted - at.stuck + step, relief(at)))
    return make_proposal(
        signal=signal,
        replicas=replicas,
        terms=(
            ("objective_s", objective_s),
            ("attainment_low_ratio", share.low),
            ("attainment_likely_ratio", share.likely),
            ("attainment_high_ratio", share.high),
            ("attainment_target_ratio", target),
        ),
    )


def _settled(at: Situation, window_s: float) -> bool:
    """Whether what the window shows is the work of the replicas that are there now.

    The last step has had time to show; and a replica that has just become ready is flooded by a
    router that looks for the fewest requests, so its first windows say nothing.
    """
    stepped_s, rose_s = at.latency_step_at_s, at.ready_rose_at_s
    if stepped_s is not None and at.now_s - stepped_s < at.forecast.lead_s + window_s:
        return False
    return rose_s is None or at.now_s - rose_s >= 2.0 * (window_s + at.config.tick_s)


def relief(at: Situation) -> int:
    """The count beyond which more replicas do not shorten latency, so far as is known.

    There the replicas are at most half busy even at the dear end of the capacity's interval, and no
    request waits or was preempted: what remains is the length of the prompts and of a step.  An
    objective that these exceed would otherwise drive the count to its maximum and keep it there.
    """
    if _felt(at):
        return _UNLIMITED
    dear = at.capacity.request_cost_high_s / at.capacity.request_cost_s
    busy = _RELIEF_LOAD_FACTOR * at.load * dear
    return max(replicas_for(busy, at.capacity, at.config.capacity), 1)


def _gpu(at: Situation) -> Proposal | None:
    target = at.config.signals.gpu_util_target_ratio
    if target <= 0.0:
        return None
    return gpu_proposal(at.observation.gpu, ready=at.ready, target_ratio=target)


def gpu_proposal(gpu: Gpu | NoData, *, ready: int, target_ratio: float) -> Proposal | None:
    """Replicas that bring mean GPU utilisation to ``target_ratio``."""
    if isinstance(gpu, NoData) or ready == 0:
        return None
    return make_proposal(
        signal=Signal.GPU,
        replicas=math.ceil(ready * gpu.utilisation_mean_ratio / target_ratio),
        terms=(
            ("utilisation_mean_ratio", gpu.utilisation_mean_ratio),
            ("target_ratio", target_ratio),
        ),
    )
