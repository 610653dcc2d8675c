"""What one replica carries within the objectives, learned; demand -> replicas.

Three estimators, each with its own doubt, feed one formula:

- step times (``capacity_steps``): a balance of replica time over counted work, from every interval
  in which the replicas were busy enough to say something;
- limits: the largest batch, the tokens of a step and the KV cache, from what was seen to be held;
- the TTFT tail (``capacity_share``): how far a replica can be loaded before the asked-for share of
  first tokens comes late, with one learned multiplier.

``capacity_of`` gives ``request_cost_s``, one over the rate that a replica carries among very many
(they pool their queues), and ``load_max_ratio``, the share of that which a replica carries alone.
``load = rate * request_cost_s`` is therefore in replicas' worth; it does not depend on the count.

A series of loads jumps whenever the estimate moves.  ``unlearned_cost_s`` is the cost of the same
mix with the prior's step times and nothing learned: ``rate * unlearned_cost_s(demand, policy)`` is
a series of work that only the traffic moves (prompt and output tokens with fixed weights), and
times ``request_cost_s / unlearned_cost_s`` it is load again.
"""

import math
from dataclasses import dataclass, replace

from scaler.core.capacity_share import Batch, Objective, carried_per_s
from scaler.core.capacity_steps import (
    Doubt,
    Four,
    Sample,
    StepTimes,
    first_doubt,
    follow,
    interval_factor,
    learn,
    step_times,
    sum_sigma,
)
from scaler.core.config import CapacityConfig, PolicyConfig, SloConfig
from scaler.core.model import Capacity, Demand, Gpu, KvCache, Latency, NoData, Observation, Queue, Role, Work
from scaler.core.window import decay, normal_quantile

_KEY_CHANGE_KEEPS = 0.1  # share of the evidence that a new pod template or GPU product inherits
_GAUGE_AGE_INTERVALS = 2.0  # an older reading of the gauge says nothing of this interval
_TOKENS_PER_REQUEST_MIN = 8.0  # below it decode is not what a request spends its time on
_LOAD_MAX = 1e9  # replicas' worth; counts beyond are all the same after the bounds
_SEQUENCES_MIN = 8.0  # an objective that allows fewer is met by no count of replicas
_TOKENS_MIN = 20.0  # of output in one interval
_SIGMA_MAX = 2.0  # a sample with more doubt than this teaches nothing
_GAUGE_SIGMA = 0.15  # of steps that are reckoned from the running gauge
_IDLE_SIGMA = 1.5  # relative to the idle share, which is an estimate
_SPARSE_SIGMA = 0.15  # of a replica that has few sequences, however busy it seems
_BUSY_MIN = 0.05
_ALWAYS_BUSY = 8.0  # sequences a step: exp(-8) of the time idle
_FORM_SIGMA = 0.03  # no amount of evidence makes the model's form exact
_CONTEXT_FACTOR = 4.0
_KV_FULL = 0.9
_STILL = 0.02  # relative: finished sequences are replaced a step later
_STILL_SAMPLES = 4
_CONTEXT_SPREAD = 2.5  # variance of KV use over that of the number of sequences: lengths differ
_CONTEXT_LARGEST = 1.0  # contexts that must be free before a long prompt is admitted
_MIX_S = 120.0  # of the mean context
_LIMITS_PART = 0.4  # of the correction limit, for limits and contexts; the rest is for step times


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """KV tokens of a running sequence, recent means.

    ``seen`` in the KV cache, ``named`` by the lengths of what finished (prompt and half the
    output), 0 while unknown.  ``factor`` is the first over the second, and follows it by a bounded
    share: long requests run longer, so it is above 1.
    """

    seen: float = 0.0
    named: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a step of one replica was seen to hold; 0 while nothing was."""

    sequences: float = 0.0
    step_tokens: float = 0.0
    step_tokens_mean: float = 0.0
    still_samples: int = 0  # in a row in which the batch stood still under a queue


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityState:
    """What was learned.

    ``multiples`` are the step-time coefficients over the prior's, which follow the filter's
    ``estimate`` by a bounded share a sample; ``doubt`` is the covariance of the latter (empty until
    there is evidence), ``log_scale`` the logarithm of the last sample's time over the prior's.
    ``stretch_log`` corrects the TTFT tail.
    """

    key: str = ""
    seen_at_s: float | None = None
    running: float = 0.0  # at the last sample, to integrate the gauge between two
    waiting: float = 0.0
    ready: int = 0
    log_scale: float = 0.0
    evidence_s: float = 0.0
    kv_capacity_tokens: float = 0.0
    multiples: Four = (1.0, 1.0, 1.0, 1.0)
    estimate: Four = (1.0, 1.0, 1.0, 1.0)
    doubt: Doubt = ()
    context: Context = Context()
    limits: Limits = Limits()
    stretch_log: float = 0.0
    stretch_weight: float = 0.0


def update_capacity(
    observation: Observation, state: CapacityState, config: CapacityConfig
) -> CapacityState:
    """The state after one observation; it changes no request's cost beyond the correction limit.

    Intervals in which replicas have just begun to serve, or in which requests were preempted, count
    for less in proportion, down to nothing.
    """
    state = _same_key(observation, state)
    work, queue = observation.work, observation.queue
    if isinstance(work, NoData) or isinstance(queue, NoData):
        return state
    if state.seen_at_s is not None and work.seen_at_s <= state.seen_at_s:
        return state
    most = 1.0 + config.correction_max_ratio
    replicas, kv = observation.replicas, observation.kv_cache
    context = _context(kv, queue, work, state, config)
    limits = _limits(kv, queue, work, state, config, most=most**_LIMITS_PART)
    multiples, estimate, doubt = state.multiples, state.estimate, state.doubt
    evidence_s, scale = state.evidence_s * decay(work.interval_s, config.memory_s), state.log_scale
    sample = _sample(observation, work, queue, state, context=context.seen or context.named)
    if sample is not None:
        estimate, doubt = learn(sample, estimate, doubt or first_doubt(config), config)
        multiples = follow(multiples, estimate, most=most ** (1.0 - _LIMITS_PART))
        scale = _log_scale(sample, multiples, config)
        evidence_s += work.replica_s
    return CapacityState(
        key=state.key,
        seen_at_s=min(work.seen_at_s, observation.seen_at_s),
        running=queue.requests_running,
        waiting=queue.requests_waiting,
        ready=state.ready if isinstance(replicas, NoData) else replicas.ready,
        log_scale=scale,
        evidence_s=evidence_s,
        kv_capacity_tokens=(0.0 if isinstance(kv, NoData) else kv.capacity_tokens)
        or state.kv_capacity_tokens,
        multiples=multiples,
        estimate=estimate,
        doubt=doubt,
        context=context,
        limits=limits,
        stretch_log=state.stretch_log,
        stretch_weight=state.stretch_weight,
    )


def _same_key(observation: Observation, state: CapacityState) -> CapacityState:
    """The state for the observation's key: a new key starts from the old estimate, widened."""
    if not observation.capacity_key or observation.capacity_key == state.key:
        return state
    if not state.key:
        return replace(state, key=observation.capacity_key)
    return replace(
        state,
        key=observation.capacity_key,
        evidence_s=_KEY_CHANGE_KEEPS * state.evidence_s,
        stretch_weight=_KEY_CHANGE_KEEPS * state.stretch_weight,
        doubt=(),
        kv_capacity_tokens=0.0,
        limits=Limits(),
    )


def _context(
    kv: KvCache | NoData, queue: Queue, work: Work, state: CapacityState, config: CapacityConfig
) -> Context:
    """The contexts of running sequences, as the KV cache shows them and as lengths name them."""
    before = state.context
    fresh = 1.0 - decay(work.interval_s, _MIX_S)
    named, seen, factor = before.named, before.seen, before.factor
    lengths = work.finished_prompt_tokens + 0.5 * work.finished_output_tokens
    if work.requests_finished > 0.0 and lengths > 0.0:
        mean = lengths / work.requests_finished
        named += (fresh if named > 0.0 else 1.0) * (mean - named)
    count = work.replica_s / work.interval_s
    if not isinstance(kv, NoData) and queue.requests_running >= max(count, 1.0):
        capacity = kv.capacity_tokens or state.kv_capacity_tokens or config.kv_capacity_tokens
        mean = kv.usage_mean_ratio * capacity * count / queue.requests_running
        seen += (fresh if seen > 0.0 else 1.0) * (mean - seen)
        if named > 0.0 and seen > 0.0:
            most = (1.0 + config.correction_max_ratio) ** _LIMITS_PART
            target = min(max(seen / named, 1.0 / _CONTEXT_FACTOR), _CONTEXT_FACTOR)
            factor = min(max(target, factor / most), factor * most)
    return Context(seen=seen, named=named, factor=factor)


def _limits(
    kv: KvCache | NoData,
    queue: Queue,
    work: Work,
    state: CapacityState,
    config: CapacityConfig,
    *,
    most: float,
) -> Limits:
    """What a step was seen to hold.

    A batch that stands still while requests wait and the KV cache has room is at its limit; one
    that is larger than the limit believed in shows that it is none.  Tokens of a step can only be
    seen to be more.
    """
    before = state.limits
    believed = before.sequences or config.sequences_max
    held = queue.requests_running * work.interval_s / max(work.replica_s, work.interval_s)
    still = (
        held >= _SEQUENCES_MIN
        and min(queue.requests_waiting, state.waiting) * held > queue.requests_running
        and abs(queue.requests_running - state.running) <= _STILL * queue.requests_running
        and (isinstance(kv, NoData) or kv.usage_mean_ratio < _KV_FULL)
    )
    samples = min(before.still_samples + 1, _STILL_SAMPLES) if still else 0
    sequences = before.sequences
    if held > believed or samples >= _STILL_SAMPLES:
        sequences = min(max(held, believed / most), believed * most)
    tokens = before.step_tokens
    if work.engine_steps > 0.0 and work.output_tokens > 2.0 * work.engine_steps:
        seen = (work.prompt_tokens + work.output_tokens) / work.engine_steps
        known = max(tokens, config.step_tokens_max)
        mean = before.step_tokens_mean
        mean += (1.0 - decay(work.interval_s, _MIX_S)) * (seen - mean)
        if mean > known:
            tokens = min(mean, known * most)
        return Limits(
            sequences=sequences, step_tokens=tokens, step_tokens_mean=mean, still_samples=samples
        )
    return Limits(
        sequences=sequences,
        step_tokens=tokens,
        step_tokens_mean=before.step_tokens_mean,
        still_samples=samples,
    )


def _sample(
    observation: Observation,
    work: Work,
    queue: Queue,
    state: CapacityState,
    *,
    context: float,
) -> Sample | None:
    """The interval's balance, per second of one replica; None when it says nothing."""
    replicas = observation.replicas
    if isinstance(replicas, NoData) or work.replica_s < 1.0:
        return None
    fresh = max(replicas.ready - state.ready, len(replicas.start_up_s), 0)
    sigma = fresh / max(replicas.ready, 1) + work.preemptions / max(work.requests_finished, 1.0)
    running = 0.5 * (state.running + queue.requests_running) * work.interval_s / work.replica_s
    steps = work.engine_steps
    decodes = work.output_tokens >= max(
        _TOKENS_PER_REQUEST_MIN * work.requests_finished, _TOKENS_MIN
    )
    if decodes and steps > 0.0:
        busy, doubt = _busy(work, observation.itl, observation.gpu)
        sigma += doubt
    elif decodes:
        if not _gauge_is_recent(work, state) or running <= 0.0:
            return None
        busy = 1.0 - math.exp(-running)
        steps = work.output_tokens * busy / running
        sigma += _GAUGE_SIGMA + _IDLE_SIGMA * (1.0 - busy)
    elif work.prompt_tokens > 0.0:
        gpu = observation.gpu
        busy = min(running, 1.0) if isinstance(gpu, NoData) else gpu.utilisation_mean_ratio
        steps = steps or work.output_tokens
        sigma += _GAUGE_SIGMA
    else:
        return None
    if busy < _BUSY_MIN or sigma > _SIGMA_MAX:
        return None
    return Sample(
        busy_ratio=min(busy, 1.0),
        steps_per_s=steps / work.replica_s,
        output_per_s=work.output_tokens / work.replica_s,
        context_per_s=work.output_tokens * context / work.replica_s,
        prompt_per_s=work.prompt_tokens / work.replica_s,
        interval_s=work.interval_s,
        sigma=sigma,
    )


def _busy(work: Work, itl: Latency | NoData, gpu: Gpu | NoData) -> tuple[float, float]:
    """Share of time in which a replica steps, and the relative doubt of it.

    Plain where a step has many sequences.  Else steps times the mean gap between tokens, which is a
    step's length up to the width of a bucket, and what DCGM shows, which is right on average but of
    another interval: their geometric mean, or either.  The doubt is larger than the scatter,
    because the same error comes again and again.
    """
    batch = work.output_tokens / work.engine_steps
    if batch >= _ALWAYS_BUSY:
        return 1.0, 0.0
    step_s = 0.0 if isinstance(itl, NoData) else _mean_s(itl)
    busy = min(work.engine_steps * step_s / work.replica_s, 1.0) or busy_ratio(batch)
    apart = 0.0
    if not isinstance(gpu, NoData) and gpu.utilisation_mean_ratio > 0.0:
        seen = min(gpu.utilisation_mean_ratio, 1.0)
        apart = abs(math.log(seen / max(busy, _BUSY_MIN)))
        busy = math.sqrt(seen * busy)
    unsure = _SPARSE_SIGMA * (1.0 - batch / _ALWAYS_BUSY)
    return busy, _IDLE_SIGMA * (1.0 - busy) + 0.5 * apart + unsure


def _mean_s(latency: Latency) -> float:
    """Mean of a histogram, each bucket at the geometric mean of its bounds."""
    total = latency.total
    if total <= 0.0:
        return 0.0
    bounds_s, counts = latency.bounds_s, latency.counts
    sum_s = 0.5 * counts[0] * bounds_s[0] + counts[-1] * bounds_s[-1] if bounds_s else 0.0
    for place in range(1, len(bounds_s)):
        if counts[place] > 0.0:
            sum_s += counts[place] * math.sqrt(bounds_s[place - 1] * bounds_s[place])
    return sum_s / total


def _gauge_is_recent(work: Work, state: CapacityState) -> bool:
    if state.seen_at_s is None:
        return False
    return work.seen_at_s - state.seen_at_s <= _GAUGE_AGE_INTERVALS * work.interval_s


def busy_ratio(sequences_per_step: float) -> float:
    """Share of time in which a replica steps, from the mean batch of its steps.

    With requests coming at random and few of them, their number is Poisson with some mean m (an
    M/G/infinity queue), the replica idles with exp(-m), and the mean batch of its steps is m / (1 -
    exp(-m)).  One Newton step from a start that is good to a few percent.
    """
    if sequences_per_step >= _ALWAYS_BUSY:
        return 1.0
    batch = max(sequences_per_step, 1.0)
    busy = 1.0 - math.exp(-1.8 * (batch - 1.0))
    idle = math.exp(-batch * busy)
    return busy + (1.0 - idle - busy) / max(1.0 - batch * idle, 0.1)


def _log_scale(sample: Sample, multiples: Four, config: CapacityConfig) -> float:
    terms = (
        sample.steps_per_s * config.overhead_s,
        sample.output_per_s * config.per_sequence_s,
        sample.context_per_s * config.per_kv_token_s,
        sample.prompt_per_s * config.per_prefill_token_s,
    )
    learned = sum(term * multiple for term, multiple in zip(terms, multiples, strict=True))
    total = sum(terms)
    return math.log(learned / total) if total > 0.0 else 0.0


def capacity_of(demand: Demand, state: CapacityState, policy: PolicyConfig) -> Capacity:
    """What one replica carries of this mix, with its interval."""
    config, slo = policy.capacity, policy.slo
    times = step_times(state.multiples, config)
    batch = _batch(demand, state, policy, times)
    cost_s = batch.saturated_cost_s
    terms = _terms(batch, times, state.multiples)
    spread = config.prior_uncertainty_factor
    if state.doubt:
        sigma = sum_sigma(terms, state.doubt) / cost_s
        spread = interval_factor(math.hypot(sigma, _FORM_SIGMA))
    if config.load_max_ratio > 0.0:
        share = _pinned_share(config, slo)
    else:
        rates = carried_per_s(
            batch,
            Objective(ttft_s=slo.ttft_s, attained_ratio=slo.attainment_target_ratio),
        )
        share = rates.alone_per_s / rates.pooled_per_s
        cost_s = 1.0 / rates.pooled_per_s
    return Capacity(
        request_cost_s=cost_s,
        request_cost_low_s=cost_s / spread,
        request_cost_high_s=cost_s * spread,
        load_max_ratio=share,
        evidence_s=state.evidence_s,
    )


def unlearned_cost_s(demand: Demand, policy: PolicyConfig) -> float:
    """Replica time of one request with the prior's step times: fixed weights of tokens."""
    config = policy.capacity
    output = max(demand.output_tokens_per_request, 1.0)
    context = demand.prompt_tokens_per_request + 0.5 * output
    computed = demand.prompt_tokens_per_request * (1.0 - demand.cached_ratio)
    step_s = config.overhead_s / config.sequences_max + config.per_sequence_s
    return computed * config.per_prefill_token_s + output * (
        step_s + context * config.per_kv_token_s
    )


def _batch(demand: Demand, state: CapacityState, policy: PolicyConfig, times: StepTimes) -> Batch:
    """One replica's work on this mix, with its limits: flags, KV cache, inter-token objective."""
    config = policy.capacity
    output = max(demand.output_tokens_per_request, 1.0)
    computed = demand.prompt_tokens_per_request * (1.0 - demand.cached_ratio)
    context = state.context.factor * (demand.prompt_tokens_per_request + 0.5 * output)
    if policy.role is Role.PREFILL:
        output = 1.0
    elif policy.role is Role.DECODE:
        computed = 0.0
    sequence_s = times.per_sequence_s + times.per_kv_token_s * context
    in_cache = (state.kv_capacity_tokens or config.kv_capacity_tokens) / context
    sequences = state.limits.sequences or config.sequences_max
    by_cache = in_cache - _CONTEXT_LARGEST < sequences
    if by_cache:
        sequences = max(in_cache - _CONTEXT_LARGEST, 1.0)
    tpot_s = policy.slo.tpot_s
    if tpot_s > 0.0 and sequence_s > 0.0 and policy.role is not Role.PREFILL:
        room_s = tpot_s - times.overhead_s
        sequences = min(sequences, max(room_s / sequence_s, _SEQUENCES_MIN))
    return Batch(
        prompt=computed,
        output=output,
        overhead_s=times.overhead_s,
        sequence_s=sequence_s,
        prefill_s=times.per_prefill_token_s,
        busy_s=computed * times.per_prefill_token_s + output * sequence_s,
        sequences_max=sequences,
        step_tokens_max=max(config.step_tokens_max, state.limits.step_tokens),
        clumsiness=_CONTEXT_SPREAD if by_cache else 1.0,
        stretch=math.exp(state.stretch_log),
    )


def _terms(batch: Batch, times: StepTimes, multiples: Four) -> Four:
    """What each prior coefficient adds to a request's cost at saturation."""
    sequence_s = batch.output * times.per_sequence_s
    context_s = batch.output * batch.sequence_s - sequence_s
    overhead, sequence, context, prompt = multiples
    return (
        (batch.saturated_cost_s - batch.busy_s) / overhead,
        sequence_s / sequence,
        context_s / context,
        batch.prompt * batch.prefill_s / prompt,
    )


def _pinned_share(config: CapacityConfig, slo: SloConfig) -> float:
    """The share set by hand: it holds for 0.99, and its slack scales with the normal quantile."""
    slack = 1.0 - config.load_max_ratio
    stretch = normal_quantile(slo.attainment_target_ratio) / normal_quantile(0.99)
    return min(max(1.0 - slack * stretch, 0.05), 1.0)


def carried(count: int, capacity: Capacity, config: CapacityConfig) -> float:
    """Load that ``count`` replicas carry within the objectives: n * (1 - slack * n ** -gain).

    Pooling: the queueing slack of n replicas shrinks with n (square-root staffing has gain 0.5,
    Halfin and Whitt 1981; routing to the replica with the fewest requests comes near it).
    Strictly increasing in ``count`` for every slack below 1.
    """
    slack = 1.0 - capacity.load_max_ratio
    return count * (1.0 - slack * count**-config.load_max_gain) if count > 0 else 0.0


def replicas_for(load: float, capacity: Capacity, config: CapacityConfig) -> int:
    """Smallest count that carries ``load`` (replicas' worth of busy time)."""
    if load <= 0.0:
        return 0
    load = min(load, _LOAD_MAX)
    high = math.ceil(load / capacity.load_max_ratio)  # share(n) >= share(1) = load_max_ratio
    low = math.ceil(load) - 1  # share(n) < 1 carries less than n; may be 0
    while high - low > 1:
        middle = (low + high) // 2
        if carried(middle, capacity, config) >= load:
            high = middle
        else:
            low = middle
    return high
