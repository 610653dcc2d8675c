"""decide(): the only place where the flow of a decision is written.

observation -> demand -> forecast -> capacity -> proposals -> stages -> Decision.  A pure function:
equal arguments, equal result.
"""

import math
from dataclasses import dataclass, field, replace

from scaler.core.capacity import CapacityState, capacity_of, update_capacity
from scaler.core.config import PolicyConfig
from scaler.core.demand import DemandState, demand_of, update_demand
from scaler.core.forecast import FORECASTERS, ForecastState, Outlook, look_ahead
from scaler.core.model import (
    Capacity,
    Decision,
    Demand,
    Forecast,
    NoData,
    Observation,
    Stage,
    Step,
    Verdict,
)
from scaler.core.proposals import Situation, gpu_proposal, propose
from scaler.core.publish import Draft, publish
from scaler.core.sight import Seen, Sight, look
from scaler.core.stages import (
    Steps,
    binding,
    bound,
    count_of,
    hold_down,
    hold_span_s,
    keep,
    limits,
    lost_signal,
    no_api,
    then,
    veto,
)
from scaler.core.start_up import StartUpState, start_up_s, update_start_up
from scaler.core.window import Peaks


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """All that a decision remembers.  Goes in, comes out, survives a restart as JSON.

    ``good_at_s`` is the last decision from good data, ``last_count`` what it wanted,
    ``last_ready`` the ready replicas it saw.  ``idle_since_s`` is when an unbroken idleness began.
    """

    demand: DemandState = field(default_factory=DemandState)
    capacity: CapacityState = field(default_factory=CapacityState)
    forecast: ForecastState = field(default_factory=ForecastState)
    start_up: StartUpState = field(default_factory=StartUpState)
    peaks: Peaks = ()
    seen: Seen = ()
    good_at_s: float | None = None
    last_count: int | None = None
    last_ready: int = 0
    last_active: bool = True
    idle_since_s: float | None = None
    latency_step_at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """What was derived from an observation before any signal proposes."""

    demand: Demand
    capacity: Capacity
    forecast: Forecast
    load: float
    now_s: float


def decide(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float
) -> tuple[Decision, PolicyState]:
    """Decide the replica count of one target.

    ``now_s`` must not be before the observation.  The result's count is within the bounds whatever
    the observation holds, and is never lowered by missing data.
    """
    assert observation.seen_at_s <= now_s, "an observation from the future: clocks differ"
    sight = look(observation, state.seen, config.freshness)
    start_up = update_start_up(observation, state.start_up, config.start_up)
    state = replace(state, seen=sight.seen, start_up=start_up)
    replicas = observation.replicas
    if not isinstance(replicas, NoData) and replicas.wanted == 0 and replicas.current == 0:
        return _from_zero(observation, state, config, now_s, sight)
    if not sight.engines:
        return _blind(observation, state, config, now_s, sight)
    return _fresh(observation, state, config, now_s, sight)


def _fresh(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float, sight: Sight
) -> tuple[Decision, PolicyState]:
    """Decide from good data."""
    demand_state = update_demand(observation, state.demand, config.demand)
    capacity_state = update_capacity(observation, state.capacity, config.capacity)
    demand = demand_of(observation, demand_state, config.demand)
    capacity = capacity_of(demand, capacity_state, config)
    start_s = start_up_s(state.start_up, config.start_up)
    lead_s = start_s + config.tick_s
    load = demand.requests_per_s * capacity.request_cost_s
    scale = math.exp(capacity_state.log_scale)
    outlook, forecast_state = look_ahead(
        load / scale,  # the series must not jump when the learned scale moves
        state.forecast,
        config.forecast,
        forecaster=FORECASTERS[config.forecaster],
        lead_s=lead_s,
        now_s=now_s,
    )
    at = _situation(
        observation,
        state,
        config,
        Estimates(
            demand=demand,
            capacity=capacity,
            forecast=_forecast(outlook, scale=scale, lead_s=lead_s),
            load=load,
            now_s=now_s,
        ),
    )
    proposals = propose(at)
    span_s = hold_span_s(config.hold_down, start_s)
    steps = keep(binding(proposals), at)
    peaks = _peaks(state, at, config)
    steps, peaks = hold_down(steps, peaks, now_s=now_s, span_s=span_s)
    steps = no_api(lost_signal(veto(steps, at), at, sight.lost), at)
    idle_since_s = _idle_since(observation, state, config, now_s)
    idle = _idle_proven(idle_since_s, observation, config, now_s)
    draft = Draft(
        observation=observation,
        config=config,
        now_s=now_s,
        verdict=Verdict.LOAD_ONLY if isinstance(observation.replicas, NoData) else Verdict.FRESH,
        steps=_bounded(steps, observation, config, idle=idle),
        active=not idle,
        proposals=proposals,
        blind=sight.blind,
        demand=demand,
        capacity=capacity,
        forecast=at.forecast,
    )
    decision = publish(draft)
    return decision, replace(
        state,
        demand=demand_state,
        capacity=capacity_state,
        forecast=forecast_state,
        peaks=peaks,
        good_at_s=now_s,
        last_count=decision.would_be,
        last_ready=at.ready,
        last_active=decision.active,
        idle_since_s=idle_since_s,
        latency_step_at_s=_latency_step_at(at, steps, state),
    )


def _situation(
    observation: Observation, state: PolicyState, config: PolicyConfig, made: Estimates
) -> Situation:
    """The replica counts made definite: from Kubernetes, or from the last decision."""
    replicas = observation.replicas
    if isinstance(replicas, NoData):
        wanted = ready = state.last_count or 0
        ready = min(state.last_ready, wanted)
        coming = 0
    else:
        wanted, ready = replicas.wanted, replicas.ready
        expiry_s = config.start_up.expiry_s
        coming = sum(age_s <= expiry_s for age_s in replicas.starting_age_s)
    return Situation(
        now_s=made.now_s,
        observation=observation,
        demand=made.demand,
        capacity=made.capacity,
        forecast=made.forecast,
        config=config,
        load=made.load,
        wanted=wanted,
        ready=ready,
        coming=coming,
        latency_step_at_s=state.latency_step_at_s,
    )


def _peaks(state: PolicyState, at: Situation, config: PolicyConfig) -> Peaks:
    """The window of recent counts; it begins with the present count after a start or a blindness.

    Without history the present count is the best evidence of what was needed, and a restarted
    daemon must not shrink a fleet it has not watched (Knative starts in panic for the same reason).
    """
    gap_s = config.freshness.grace_s
    if state.good_at_s is None or at.now_s - state.good_at_s > gap_s:
        return ((at.now_s, at.wanted),)
    return state.peaks


def _forecast(outlook: Outlook, *, scale: float, lead_s: float) -> Forecast:
    """The outlook in replicas' worth of busy time."""
    return Forecast(
        lead_s=lead_s,
        load_mean=outlook.mean * scale,
        load_upper=outlook.upper * scale,
        skill=outlook.skill,
        used=outlook.used,
    )


def _bounded(steps: Steps, observation: Observation, config: PolicyConfig, *, idle: bool) -> Steps:
    """Within the bounds; zero only after proven idleness."""
    replicas = observation.replicas
    if isinstance(replicas, NoData):
        allowed = limits(config, None, None)
    else:
        allowed = limits(config, replicas.replicas_min, replicas.replicas_max)
    if idle:
        steps = then(steps, Stage.IDLE, 0, (("idle_proof_s", config.zero.idle_proof_s),))
    low = allowed.low if idle else max(allowed.low, 1)
    return bound(steps, low=low, high=allowed.high)


def _idle_since(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float
) -> float | None:
    """When the present idleness began; None while anything moves or cannot be seen."""
    queue, work, gpu = observation.queue, observation.work, observation.gpu
    if isinstance(queue, NoData) or isinstance(work, NoData):
        return None
    busy = queue.requests_running + queue.requests_waiting + queue.requests_deferred > 0.0
    came = work.requests_arrived + work.requests_finished + work.requests_rejected > 0.0
    hot = not isinstance(gpu, NoData) and gpu.utilisation_max_ratio >= config.signals.gpu_busy_ratio
    if busy or came or hot:
        return None
    return now_s if state.idle_since_s is None else state.idle_since_s


def _idle_proven(
    idle_since_s: float | None, observation: Observation, config: PolicyConfig, now_s: float
) -> bool:
    """Whether zero may be published: allowed by the bounds, and idle for the whole proof."""
    replicas = observation.replicas
    if isinstance(replicas, NoData) or idle_since_s is None:
        return False
    low = limits(config, replicas.replicas_min, replicas.replicas_max).low
    return low == 0 and now_s - idle_since_s >= config.zero.idle_proof_s


def _latency_step_at(at: Situation, steps: Steps, state: PolicyState) -> float | None:
    """Remember when a missed objective added replicas, so that it is given time to show."""
    first = steps[0]
    stepped = first.stage in (Stage.TTFT, Stage.ITL) and first.replicas > at.wanted
    return at.now_s if stepped else state.latency_step_at_s


def _blind(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float, sight: Sight
) -> tuple[Decision, PolicyState]:
    """Nothing is known of the load: the last decision, then the current count or the floor.

    GPU utilisation may still ask for more.  The state stays as it is, so that what was learned
    survives.
    """
    replicas = observation.replicas
    current = None if isinstance(replicas, NoData) else replicas.wanted
    age_s = now_s - state.good_at_s if state.good_at_s is not None else None
    if age_s is None or state.last_count is None:
        verdict, steps = Verdict.UNKNOWN, _one(Stage.BLIND, current or 0)
    elif age_s <= config.freshness.grace_s:
        verdict, steps = Verdict.HELD, _one(Stage.BLIND, state.last_count)
    else:
        held = state.last_count if current is None else current
        floor = max(held, config.freshness.floor_replicas)
        verdict, steps = Verdict.FLOORED, _one(Stage.FLOOR, floor)
    proposal = gpu_proposal(
        observation.gpu,
        ready=0 if isinstance(replicas, NoData) else replicas.ready,
        target_ratio=config.signals.gpu_util_target_ratio or config.signals.gpu_blind_target_ratio,
    )
    if proposal is not None and proposal.replicas > count_of(steps):
        steps = then(steps, Stage.GPU, proposal.replicas, proposal.terms)
    draft = Draft(
        observation=observation,
        config=config,
        now_s=now_s,
        verdict=verdict,
        steps=_bounded(steps, observation, config, idle=False),
        active=state.last_active if verdict is Verdict.HELD else True,
        proposals=() if proposal is None else (proposal,),
        blind=sight.blind,
    )
    return publish(draft), replace(state, idle_since_s=None)


def _one(stage: Stage, replicas: int) -> Steps:
    return (Step(stage=stage, replicas=replicas, terms=()),)


def _from_zero(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float, sight: Sight
) -> tuple[Decision, PolicyState]:
    """At zero there is no replica to ask: only a gateway's counter can say that requests came."""
    gateway, replicas = observation.gateway, observation.replicas
    assert not isinstance(replicas, NoData), "zero is only known from the Kubernetes API"
    wake = config.zero.wake_replicas
    low = limits(config, replicas.replicas_min, replicas.replicas_max).low
    if low > 0:  # somebody scaled it by hand: the minimum is wanted whatever is seen
        waking, verdict, steps = True, Verdict.FRESH, _one(Stage.BOUNDS, low)
    elif isinstance(gateway, NoData):
        waking = config.freshness.wake_when_blind
        verdict = Verdict.FLOORED if waking else Verdict.UNKNOWN
        steps = _one(Stage.FLOOR if waking else Stage.BLIND, wake if waking else 0)
    else:
        waking = gateway.requests_arrived > 0.0 or gateway.requests_waiting > 0.0
        verdict = Verdict.FRESH
        steps = _one(Stage.WAKE if waking else Stage.IDLE, wake if waking else 0)
    draft = Draft(
        observation=observation,
        config=config,
        now_s=now_s,
        verdict=verdict,
        steps=_bounded(steps, observation, config, idle=not waking),
        active=waking,
        proposals=(),
        blind=sight.blind,
    )
    decision = publish(draft)
    if verdict is Verdict.UNKNOWN:
        return decision, state
    return decision, replace(
        state,
        good_at_s=now_s,
        last_count=decision.would_be,
        last_ready=0,
        last_active=decision.active,
        peaks=(),
    )
