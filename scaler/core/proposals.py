"""What each signal alone would ask for.

A proposal is a replica count with the numbers it came from.  Work and forecast count tokens; queue,
KV cache, TTFT and ITL are symptoms that reveal what tokens did not; GPU utilisation speaks only
when asked to, or when the
engines' own signals are blind.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass

from scaler.core.capacity import replicas_for
from scaler.core.config import PolicyConfig
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
)

_RELIEF_LOAD_FACTOR = 2.0  # half busy
_UNLIMITED = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything a proposal may look at, with the replica counts made definite.

    ``coming`` counts starting replicas that have not expired, ``stuck`` those that cannot be
    scheduled or crash-loop; ``load`` is the demand in replicas' worth of busy time;
    ``latency_step_at_s`` is when a latency signal last added replicas.
    """

    now_s: float
    observation: Observation
    demand: Demand
    capacity: Capacity
    forecast: Forecast
    config: PolicyConfig
    load: float
    wanted: int
    ready: int
    coming: int
    stuck: int
    latency_step_at_s: float | None


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
    return tuple(proposal for proposal in made if proposal is not None)


def _work(at: Situation) -> Proposal | None:
    if isinstance(at.observation.work, NoData):
        return None
    return Proposal(
        signal=Signal.WORK,
        replicas=replicas_for(at.load, at.capacity, at.config.capacity),
        terms=(
            ("requests_per_s", at.demand.requests_per_s),
            ("request_cost_s", at.capacity.request_cost_s),
            ("load", at.load),
            ("load_max_ratio", at.capacity.load_max_ratio),
        ),
    )


def _forecast(at: Situation) -> Proposal | None:
    if isinstance(at.observation.work, NoData):
        return None
    return Proposal(
        signal=Signal.FORECAST,
        replicas=replicas_for(at.forecast.load_upper, at.capacity, at.config.capacity),
        terms=(
            ("lead_s", at.forecast.lead_s),
            ("load_mean", at.forecast.load_mean),
            ("load_upper", at.forecast.load_upper),
            ("skill", at.forecast.skill),
        ),
    )


def _queue(at: Situation) -> Proposal | None:
    """Replicas that drain the backlog in time; none beyond those coming if they will do it.

    A replica asked for now helps one lead time from now.  What waits then is today's backlog plus
    what the present replicas fall behind meanwhile; if the replicas on their way clear it sooner
    than a new one
    would be ready, a new one is not worth its start.
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
        behind = max(-spare, 0.0) * at.forecast.lead_s
        drain = (backlog_s + behind) / at.config.signals.queue_drain_s
        replicas = max(replicas, math.ceil(at.load + drain))
    return Proposal(
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
    return Proposal(
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
    waiting = not isinstance(queue, NoData) and queue.requests_waiting > 0.0
    preempted = not isinstance(work, NoData) and work.preemptions > 0.0
    return waiting or preempted


@dataclass(frozen=True, slots=True, kw_only=True)
class Attainment:
    """Share of requests within an objective: an interval, because a bucket may straddle it.

    ``low`` and ``high`` are certain; ``likely`` interpolates inside the bucket.
    """

    low: float
    likely: float
    high: float


def attainment(latency: Latency, objective_s: float) -> Attainment:
    """The share of ``latency`` within ``objective_s``; the histogram must not be empty."""
    total = latency.total
    assert total > 0.0, "an empty histogram has no attainment"
    bounds_s, counts = latency.bounds_s, latency.counts
    below = bisect_right(bounds_s, objective_s)  # bounds at or below the objective
    within = sum(counts[:below])
    lower_s = bounds_s[below - 1] if below else 0.0
    if lower_s == objective_s:  # an objective on a bound splits no bucket
        return Attainment(low=within / total, likely=within / total, high=within / total)
    inside = counts[below]
    share = 0.0  # of the last bucket, which has no upper bound, nothing is likely
    if below < len(bounds_s):
        share = (objective_s - lower_s) / (bounds_s[below] - lower_s)
    return Attainment(
        low=within / total,
        likely=(within + share * inside) / total,
        high=(within + inside) / total,
    )


def objective(at: Situation, signal: Signal) -> tuple[Latency, float] | None:
    """The latency signal and its objective, when both exist and say something."""
    config = at.config
    latency = at.observation.ttft if signal is Signal.TTFT else at.observation.itl
    objective_s = config.slo.ttft_s if signal is Signal.TTFT else config.slo.tpot_s
    silent = (config.role is Role.DECODE) if signal is Signal.TTFT else False
    if isinstance(latency, NoData) or objective_s <= 0.0 or silent:
        return None
    if latency.total < config.signals.latency_requests_min:
        return None
    return latency, objective_s


def _latency(at: Situation, signal: Signal) -> Proposal | None:
    """More replicas while the objective is missed, one step per lead time.

    Near the objective the pessimistic end counts: with ``high`` below the target the miss is sure;
    with only ``low``
    below it, the interpolated value decides.  While replicas are on their way, or the last step has
    not had time to show in the window, the answer is the present count.  Replicas that are
    stuck were asked for already, and no count beyond ``relief`` is asked for.
    """
    found = objective(at, signal)
    if found is None:
        return None
    latency, objective_s = found
    share = attainment(latency, objective_s)
    target = at.config.slo.attainment_target_ratio
    missed = share.high < target or (share.low < target and share.likely < target)
    replicas = 0
    if missed:
        replicas = min(at.wanted, relief(at))
        settled_s = at.forecast.lead_s + latency.window_s
        last_s = at.latency_step_at_s
        if at.coming == 0 and (last_s is None or at.now_s - last_s >= settled_s):
            step = math.ceil(at.config.signals.latency_step_ratio * max(at.ready, 1))
            replicas = max(replicas, min(at.wanted - at.stuck + step, relief(at)))
    return Proposal(
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
    return Proposal(
        signal=Signal.GPU,
        replicas=math.ceil(ready * gpu.utilisation_mean_ratio / target_ratio),
        terms=(
            ("utilisation_mean_ratio", gpu.utilisation_mean_ratio),
            ("target_ratio", target_ratio),
        ),
    )
