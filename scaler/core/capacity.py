"""What one replica carries within the objectives, learned; demand -> replicas.

Three estimators, each with its own doubt, feed one formula:

- step times (``capacity_steps``): a balance of replica time over counted work, from every interval
  in which the replicas were busy enough to say something;
- limits (``capacity_seen``): the largest batch, the tokens of a step, the contexts in the KV cache;
- the TTFT tail (``capacity_share``): how far a replica can be loaded before the asked-for share of
  first tokens comes late, with one learned multiplier.

``capacity_of`` gives ``request_cost_s``, one over the rate that a replica carries among very many
(they pool their queues), and ``load_max_ratio``, the share of that which a replica carries alone.
``load = rate * request_cost_s`` is therefore in replicas' worth; it does not depend on the count.

A series of loads jumps whenever the estimate moves.  ``unit_cost_s`` is the cost of the same mix
with the step times of the prior that the series began with and nothing learned: ``rate *
unit_cost_s`` is a series of work that only the traffic moves (prompt and output tokens with fixed
weights), and times ``request_cost_s / unit_cost_s`` it is load again.
"""

import math
from dataclasses import dataclass, replace

from scaler.core.capacity_seen import (
    LIMITS_PART,
    SEQUENCES_MIN,
    TAIL_SAMPLES,
    Context,
    Flow,
    Gauges,
    Limits,
    Stretch,
    is_calm,
    make_gauges,
    see_context,
    see_flow,
    see_limits,
    see_sample,
    see_stretch,
)
from scaler.core.capacity_share import Batch, carried_per_s, make_batch, make_objective
from scaler.core.capacity_steps import (
    Filter,
    Four,
    Prior,
    follow,
    interval_factor,
    learn,
    make_filter,
    step_times,
    sum_sigma,
)
from scaler.core.capacity_tail import Tail, see_tail, tightened, tightness
from scaler.core.config import CapacityConfig, PolicyConfig, SloConfig
from scaler.core.made import maker
from scaler.core.model import Capacity, Demand, NoData, Observation, Role, make_capacity
from scaler.core.window import decay, normal_quantile, within

_KEY_CHANGE_KEEPS = 0.1  # share of the evidence that a new pod template or GPU product inherits
_LOAD_MAX = 1e9  # replicas' worth; counts beyond are all the same after the bounds
_FORM_SIGMA = 0.03  # no amount of evidence makes the model's form exact
_POOLED_SIGMA, _ALONE_SIGMA = 0.3, 0.1  # relative to what the queueing law takes off
_TAIL_ELASTICITY = 5.0  # of what is carried to the shape, over the square of what the law takes
_CONTEXT_SPREAD = 2.5  # variance of KV use over that of the number of sequences: lengths differ
_CONTEXT_LARGEST = 1.0  # contexts that must be free before a long prompt is admitted


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityState:
    """What was learned.

    ``multiples`` are the step-time coefficients over the prior's, which follow the estimate of
    ``steps`` by a bounded share a sample.  ``prior`` is the one they are multiples of
    (``capacity_prior``), None before the first decision; ``unit`` times the cost of a request at
    its prices is what the series of work count in.
    """

    key: str = ""
    prior: Prior | None = None
    unit: float = 1.0
    gauges: Gauges = Gauges()
    evidence_s: float = 0.0
    kv_capacity_tokens: float = 0.0
    multiples: Four = (1.0, 1.0, 1.0, 1.0)
    steps: Filter = Filter()
    context: Context = Context()
    limits: Limits = Limits()
    flow: Flow = Flow()
    stretch: Stretch = Stretch()
    tail: Tail = Tail()


make_capacity_state = maker(CapacityState)


def update_capacity(
    observation: Observation,
    state: CapacityState,
    config: CapacityConfig,
    *,
    ttft_s: float = math.inf,
) -> CapacityState:
    """The state after one observation; no step time, limit or context moves beyond the limit set.

    ``ttft_s`` is the objective: the tail of the prompts is learned where it matters.

    Intervals in which replicas have just begun to serve, or in which requests were preempted, count
    for less in proportion, down to nothing.
    """
    state = _same_key(observation, state)
    work, queue = observation.work, observation.queue
    if isinstance(work, NoData) or isinstance(queue, NoData):
        return state
    seen_at_s = state.gauges.seen_at_s
    if seen_at_s is not None and work.seen_at_s <= seen_at_s:
        return state
    replicas, kv = observation.replicas, observation.kv_cache
    known_kv = 0.0 if isinstance(kv, NoData) else kv.capacity_tokens
    known_kv = known_kv or state.kv_capacity_tokens
    context = see_context(
        work,
        queue,
        kv,
        state.context,
        config,
        kv_capacity_tokens=known_kv or config.kv_capacity_tokens,
    )
    learned = _learned(observation, state, config, context=context.seen or context.named)
    limits = see_limits(work, queue, kv, state.limits, config, gauges=state.gauges)
    calm, stretch, tail = False, state.stretch, state.tail
    if state.flow.requests_per_s > 0.0 and state.flow.output_per_s > 0.0:
        batch = _flowing(state.flow, context, limits, learned.multiples, config)
        settled = (
            learned.multiples == learned.steps.estimate
        )  # while they move, the law is not to blame
        calm = settled and is_calm(work, queue, batch, state.flow)
        gain = config.load_max_gain
        stretch = see_stretch(observation, batch, state.flow, stretch, gain=gain)
        if state.flow.calm_samples in TAIL_SAMPLES:
            rate = state.flow.requests_per_s
            tail = see_tail(observation, batch, tail, rate=rate, gain=gain, ttft_s=ttft_s)
    return make_capacity_state(
        key=state.key,
        prior=state.prior,
        unit=state.unit,
        gauges=make_gauges(
            seen_at_s=min(work.seen_at_s, observation.seen_at_s),
            running=queue.requests_running,
            waiting=queue.requests_waiting,
            ready=state.gauges.ready if isinstance(replicas, NoData) else replicas.ready,
        ),
        evidence_s=learned.evidence_s,
        kv_capacity_tokens=known_kv,
        multiples=learned.multiples,
        steps=learned.steps,
        context=context,
        limits=limits,
        flow=see_flow(work, state.flow, calm=calm),
        stretch=stretch,
        tail=tail,
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
        steps=make_filter(estimate=state.multiples),
        kv_capacity_tokens=0.0,
        limits=Limits(),
        stretch=Stretch(log=state.stretch.log, weight=_KEY_CHANGE_KEEPS * state.stretch.weight),
        tail=replace(state.tail, information=_KEY_CHANGE_KEEPS * state.tail.information),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """The step times' part of the state."""

    multiples: Four
    steps: Filter
    evidence_s: float


_make_learned = maker(_Learned)


def _learned(
    observation: Observation, state: CapacityState, config: CapacityConfig, *, context: float
) -> _Learned:
    """Step times after one observation."""
    work = observation.work
    assert not isinstance(work, NoData)
    evidence_s = state.evidence_s * decay(work.interval_s, config.memory_s)
    sample = see_sample(observation, state.gauges, context=context)
    if sample is None:
        return _make_learned(
            multiples=state.multiples,
            steps=state.steps,
            evidence_s=evidence_s,
        )
    steps = learn(sample, state.steps, config)
    most = (1.0 + config.correction_max_ratio) ** (1.0 - LIMITS_PART)
    multiples = follow(state.multiples, steps.estimate, most=most)
    return _make_learned(
        multiples=multiples,
        steps=steps,
        evidence_s=evidence_s + work.replica_s,
    )


def _flowing(
    flow: Flow, context: Context, limits: Limits, multiples: Four, config: CapacityConfig
) -> Batch:
    """One replica's work on the requests that flow through it now."""
    overhead_s, sequence_s, kv_token_s, prefill_s = step_times(multiples, config)
    prompt, output = (
        flow.prompt_per_s / flow.requests_per_s,
        flow.output_per_s / flow.requests_per_s,
    )
    sequence_s += kv_token_s * (context.seen or context.named)
    return make_batch(
        prompt=prompt,
        output=output,
        overhead_s=overhead_s,
        sequence_s=sequence_s,
        prefill_s=prefill_s,
        busy_s=prompt * prefill_s + output * sequence_s,
        sequences_max=limits.sequences or config.sequences_max,
        step_tokens_max=max(config.step_tokens_max, limits.step_tokens),
    )


def capacity_of(demand: Demand, state: CapacityState, policy: PolicyConfig) -> Capacity:
    """What one replica carries of this mix, with its interval."""
    config, slo = policy.capacity, policy.slo
    times = step_times(state.multiples, config)
    batch = _batch(demand, state, policy, times)
    cost_s = batch.saturated_cost_s
    sigma = 0.0
    if state.steps.doubt:
        terms = _terms(batch, times=times, multiples=state.multiples, cost_s=cost_s)
        sigma = sum_sigma(terms, state.steps.doubt) / cost_s
    law = tail = 0.0
    if config.load_max_ratio > 0.0:
        share = _pinned_share(config, slo)
    else:
        objective = make_objective(ttft_s=slo.ttft_s, attained_ratio=slo.attainment_target_ratio)
        rates = carried_per_s(batch, objective)
        weight = tightness(batch, slo.ttft_s) * state.tail.known
        if weight > 0.0:
            shape = state.tail.shape
            rates = tightened(rates, batch, objective, shape=shape, weight=weight)
            taken = 1.0 - rates.alone_per_s * cost_s
            tail = weight * _TAIL_ELASTICITY * taken * taken * state.tail.sigma
        law = _POOLED_SIGMA * (1.0 - rates.pooled_per_s * cost_s)
        law += _ALONE_SIGMA * (1.0 - rates.alone_per_s * cost_s)
        share = rates.alone_per_s / rates.pooled_per_s
        cost_s = 1.0 / rates.pooled_per_s
    spread = config.prior_uncertainty_factor
    if state.steps.doubt:
        spread = interval_factor(math.hypot(sigma, law, tail, _FORM_SIGMA))
    return make_capacity(
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


def unit_cost_s(demand: Demand, state: CapacityState, policy: PolicyConfig) -> float:
    """Replica time of one request in the unit of the series of work: the first prior's prices."""
    return unlearned_cost_s(demand, policy) * state.unit


def _batch(demand: Demand, state: CapacityState, policy: PolicyConfig, times: Four) -> Batch:
    """One replica's work on this mix, with its limits: flags, KV cache, inter-token objective."""
    config, role, limits = policy.capacity, policy.role, state.limits
    overhead_s, sequence_s, kv_token_s, prefill_s = times
    output = max(demand.output_tokens_per_request, 1.0)
    computed = demand.prompt_tokens_per_request * (1.0 - demand.cached_ratio)
    context = state.context.factor * (demand.prompt_tokens_per_request + 0.5 * output)
    if role is Role.PREFILL:
        output = 1.0
    elif role is Role.DECODE:
        computed = 0.0
    sequence_s += kv_token_s * context
    in_cache = (state.kv_capacity_tokens or config.kv_capacity_tokens) / context
    sequences = limits.sequences or config.sequences_max
    by_cache = in_cache - _CONTEXT_LARGEST < sequences
    if by_cache:
        sequences = max(in_cache - _CONTEXT_LARGEST, 1.0)
    tpot_s = policy.slo.tpot_s
    if tpot_s > 0.0 and sequence_s > 0.0 and role is not Role.PREFILL:
        room_s = tpot_s - overhead_s
        sequences = min(sequences, max(room_s / sequence_s, SEQUENCES_MIN))
    return make_batch(
        prompt=computed,
        output=output,
        overhead_s=overhead_s,
        sequence_s=sequence_s,
        prefill_s=prefill_s,
        busy_s=computed * prefill_s + output * sequence_s,
        sequences_max=sequences,
        step_tokens_max=max(config.step_tokens_max, limits.step_tokens),
        clumsiness=_CONTEXT_SPREAD if by_cache else 1.0,
        stretch=math.exp(state.stretch.log),
    )


def _terms(batch: Batch, *, times: Four, multiples: Four, cost_s: float) -> Four:
    """What each prior coefficient adds to a request's cost at saturation."""
    sequence_s = batch.output * times[1]
    context_s = batch.output * batch.sequence_s - sequence_s
    overhead, sequence, context, prompt = multiples
    return (
        (cost_s - batch.busy_s) / overhead,
        sequence_s / sequence,
        context_s / context,
        batch.prompt * batch.prefill_s / prompt,
    )


def _pinned_share(config: CapacityConfig, slo: SloConfig) -> float:
    """The share set by hand: it holds for 0.99, and its slack scales with the normal quantile."""
    slack = 1.0 - config.load_max_ratio
    stretch = normal_quantile(slo.attainment_target_ratio) / normal_quantile(0.99)
    return within(1.0 - slack * stretch, 0.05, 1.0)


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
