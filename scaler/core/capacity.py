"""What one replica serves within the objectives; demand -> replicas.

With continuous batching one engine step of n decoding sequences takes

    step_s = overhead_s + n * (per_sequence_s + per_kv_token_s * context) + per_prefill_token_s * p

where p is the number of prompt tokens prefilled in the step.  At r requests per second of
``prompt`` computed and ``output`` tokens, Little's law gives n = r * output * step_s and p = r *
prompt * step_s.
Solving for the step:

    step_s = overhead_s / (1 - r * busy_s),
    busy_s = prompt * per_prefill_token_s + output * (per_sequence_s + per_kv_token_s * context)

A replica holds at most n_max sequences (--max-num-seqs, KV blocks, or the inter-token objective),
which bounds r at
1 / request_cost_s with

    request_cost_s = busy_s + output * overhead_s / n_max

so load = r * request_cost_s is the share of one replica that the demand takes.
"""

import math
from dataclasses import dataclass

from scaler.core.config import CapacityConfig, PolicyConfig, SloConfig
from scaler.core.model import Capacity, Demand, KvCache, NoData, Observation, Queue, Role, Work
from scaler.core.window import decay, normal_quantile

_UNCERTAINTY_FLOOR = 0.05  # relative; no amount of evidence makes the model's form exact
_KEY_CHANGE_KEEPS = 0.1  # share of the evidence that a new pod template or GPU product inherits
_RUNNING_PER_REPLICA_MIN = 1.0  # below this a replica is idle part of the time
_GAUGE_AGE_INTERVALS = 2.0  # an older reading of the gauge says nothing of this interval
_TOKENS_PER_REQUEST_MIN = 8.0  # below it decode is not what a request spends its time on
_LOAD_MAX = 1e9  # replicas' worth; counts beyond are all the same after the bounds
_SEQUENCES_MIN = 8.0  # an objective that allows fewer is met by no count of replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityState:
    """What was learned: one multiplier on the prior's step time, and the evidence behind it."""

    key: str = ""
    seen_at_s: float | None = None
    running: float = 0.0  # at the last sample, to integrate the gauge between two
    log_scale: float = 0.0
    evidence_s: float = 0.0
    kv_capacity_tokens: float = 0.0


def update_capacity(
    observation: Observation, state: CapacityState, config: CapacityConfig
) -> CapacityState:
    """The state after one observation: the multiplier moves towards observed over predicted.

    One observation moves it by at most ``correction_max_ratio``.  Samples are ignored while
    replicas start
    (cold caches, compilation), while requests are preempted, and when the replicas are mostly idle.
    """
    state = _same_key(observation, state)
    work, queue = observation.work, observation.queue
    if isinstance(work, NoData) or isinstance(queue, NoData):
        return state
    if state.seen_at_s is not None and work.seen_at_s <= state.seen_at_s:
        return state
    surprise = _surprise(observation, work, queue, state, config)
    faded = state.evidence_s * decay(work.interval_s, config.memory_s)
    kv = observation.kv_cache
    known_kv = kv.capacity_tokens if not isinstance(kv, NoData) else 0.0
    log_scale = state.log_scale
    if surprise is not None:
        gain = work.replica_s / (config.prior_weight_s + faded + work.replica_s)
        limit = math.log1p(config.correction_max_ratio)
        log_scale += max(-limit, min(limit, gain * surprise))
        faded += work.replica_s
    bound = math.log(config.prior_uncertainty_factor) * 2.0
    return CapacityState(
        key=state.key,
        seen_at_s=min(work.seen_at_s, observation.seen_at_s),
        running=queue.requests_running,
        log_scale=max(-bound, min(bound, log_scale)),
        evidence_s=faded,
        kv_capacity_tokens=known_kv or state.kv_capacity_tokens,
    )


def _same_key(observation: Observation, state: CapacityState) -> CapacityState:
    """The state for the observation's key: a new key starts from the old estimate, widened."""
    if not observation.capacity_key or observation.capacity_key == state.key:
        return state
    kept = _KEY_CHANGE_KEEPS if state.key else 1.0
    return CapacityState(
        key=observation.capacity_key,
        seen_at_s=state.seen_at_s,
        running=state.running,
        log_scale=state.log_scale,
        evidence_s=state.evidence_s * kept,
        kv_capacity_tokens=state.kv_capacity_tokens if kept == 1.0 else 0.0,
    )


def _surprise(
    observation: Observation,
    work: Work,
    queue: Queue,
    state: CapacityState,
    config: CapacityConfig,
) -> float | None:
    """log(observed step / predicted step), or None when the sample says nothing.

    Observed: running sequences over time, divided by the tokens they made, because each makes one
    token a step (Little's law on the decode phase).
    """
    if not _informative(observation, work, state):
        return None
    running = 0.5 * (state.running + queue.requests_running)
    per_replica = running * work.interval_s / work.replica_s
    if per_replica < _RUNNING_PER_REPLICA_MIN:
        return None
    observed_s = running * work.interval_s / work.output_tokens
    scale = math.exp(state.log_scale)
    kv_tokens = _kv_tokens(observation.kv_cache, state, config)
    decode_s = config.overhead_s + config.per_sequence_s * per_replica
    decode_s = scale * (decode_s + config.per_kv_token_s * kv_tokens)
    prefill_share = scale * config.per_prefill_token_s * work.prompt_tokens / work.replica_s
    if prefill_share >= 0.9:
        return None  # the replicas do little else than prefill: decode is not what is measured
    return math.log(observed_s * (1.0 - prefill_share) / decode_s)


def _informative(observation: Observation, work: Work, state: CapacityState) -> bool:
    """Whether a sample is of warm replicas that decode, between two readings of the gauge."""
    replicas = observation.replicas
    if isinstance(replicas, NoData) or replicas.starting or work.replica_s < 1.0:
        return False
    gauge_age_s = math.inf if state.seen_at_s is None else work.seen_at_s - state.seen_at_s
    if work.preemptions > 0.0 or gauge_age_s > _GAUGE_AGE_INTERVALS * work.interval_s:
        return False
    # The first token of a request comes from its prefill, so a request of few tokens spends its
    # time there (prefill replicas, classification) and says nothing of a decode step.
    return work.output_tokens >= max(_TOKENS_PER_REQUEST_MIN * work.requests_finished, 1.0)


def _kv_tokens(kv: KvCache | NoData, state: CapacityState, config: CapacityConfig) -> float:
    """Tokens in one replica's KV cache now."""
    if isinstance(kv, NoData):
        return 0.0
    capacity = kv.capacity_tokens or state.kv_capacity_tokens or config.kv_capacity_tokens
    return kv.usage_mean_ratio * capacity


def capacity_of(demand: Demand, state: CapacityState, policy: PolicyConfig) -> Capacity:
    """What one replica carries of this mix, with its interval."""
    config, slo = policy.capacity, policy.slo
    scale = math.exp(state.log_scale)
    cost_s = scale * _request_cost_s(demand, state, policy, scale=scale)
    weight = config.prior_weight_s / (config.prior_weight_s + state.evidence_s)
    spread = math.exp(
        max(math.log(config.prior_uncertainty_factor) * math.sqrt(weight), _UNCERTAINTY_FLOOR)
    )
    return Capacity(
        request_cost_s=cost_s,
        request_cost_low_s=cost_s / spread,
        request_cost_high_s=cost_s * spread,
        load_max_ratio=_load_max_ratio(config, slo),
        evidence_s=state.evidence_s,
    )


def _request_cost_s(
    demand: Demand, state: CapacityState, policy: PolicyConfig, *, scale: float
) -> float:
    """Replica time of one request with the prior's coefficients (the formula of the module)."""
    config = policy.capacity
    output = max(demand.output_tokens_per_request, 1.0)
    held = demand.prompt_tokens_per_request + 0.5 * output
    computed = demand.prompt_tokens_per_request * (1.0 - demand.cached_ratio)
    if policy.role is Role.PREFILL:
        output = 1.0
    elif policy.role is Role.DECODE:
        computed = 0.0
    per_token_s = config.per_sequence_s + config.per_kv_token_s * held
    sequences = _sequences_max(state, policy, held=held, per_token_s=per_token_s, scale=scale)
    busy_s = computed * config.per_prefill_token_s + output * per_token_s
    return busy_s + output * config.overhead_s / sequences


def _sequences_max(
    state: CapacityState, policy: PolicyConfig, *, held: float, per_token_s: float, scale: float
) -> float:
    """Sequences one replica may hold: its limit, its KV cache, or the inter-token objective.

    An objective at or below the step of an empty batch cannot be bought with replicas: it may not
    push the cost of a request towards that of a batch of one.
    """
    config = policy.capacity
    kv_capacity = state.kv_capacity_tokens or config.kv_capacity_tokens
    sequences = min(config.sequences_max, kv_capacity / held)
    if policy.slo.tpot_s > 0.0 and per_token_s > 0.0 and policy.role is not Role.PREFILL:
        room_s = policy.slo.tpot_s / scale - config.overhead_s
        sequences = min(sequences, max(room_s / per_token_s, _SEQUENCES_MIN))
    return max(sequences, 1.0)


def _load_max_ratio(config: CapacityConfig, slo: SloConfig) -> float:
    """Busy share of a lone replica at which the tail meets the attainment asked for.

    The slack of ``load_max_ratio`` holds for 0.99 and scales with the normal quantile of the
    attainment.
    """
    slack = 1.0 - config.load_max_ratio
    stretch = normal_quantile(slo.attainment_target_ratio) / normal_quantile(0.99)
    return min(max(1.0 - slack * stretch, 0.05), 1.0)


def carried(count: int, capacity: Capacity, config: CapacityConfig) -> float:
    """Load that ``count`` replicas carry within the objectives: n * (1 - slack * n ** -gain).

    Pooling: the queueing slack of n replicas shrinks with n (square-root staffing has gain 0.5,
    Halfin and Whitt 1981); the default is below it because requests are routed, not pooled.
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
