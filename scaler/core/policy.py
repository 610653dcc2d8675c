"""decide(): the only place where the flow of a decision is written.

observation -> demand -> forecast -> capacity -> proposals -> stages -> Decision.  A pure function:
equal arguments, equal result.
"""

from dataclasses import replace

from scaler.core.budget import Budget, BudgetState, budget_of, sigmas, update_budget
from scaler.core.config import PolicyConfig
from scaler.core.estimates import Estimates, Learned, estimate, make_ahead, make_learned
from scaler.core.idle import idle_proven, is_asked, is_idle
from scaler.core.memory import (
    PolicyState,
    count_before,
    ease_of,
    level_of,
    make_policy_state,
    peak_of,
    raised_at_s,
    ready_rose_at_s,
    watch_broken,
)
from scaler.core.model import (
    Decision,
    Mode,
    NoData,
    Observation,
    Proposal,
    Replicas,
    Signal,
    Stage,
    Terms,
    Verdict,
    make_step,
)
from scaler.core.proposals import Situation, gpu_proposal, make_situation, propose
from scaler.core.publish import make_draft, publish
from scaler.core.sight import Sight, look
from scaler.core.sound import sound
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
from scaler.core.start_up import start_up_s, update_start_up

__all__ = ["PolicyState", "decide"]


def decide(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float
) -> tuple[Decision, PolicyState]:
    """Decide the replica count of one target.

    ``now_s`` must not be before the observation.  The result's count is within the bounds whatever
    the observation holds, and is never lowered by missing data.
    """
    assert observation.seen_at_s <= now_s, "an observation from the future: clocks differ"
    observation = sound(observation)
    sight = look(observation, state.seen, config.freshness)
    start_up = update_start_up(observation, state.start_up, config.start_up)
    if start_up is not state.start_up:
        state = replace(state, start_up=start_up)
    replicas = observation.replicas
    if not isinstance(replicas, NoData) and replicas.wanted == 0:
        return _from_zero(observation, state, config, now_s, sight)
    unknown_count = isinstance(replicas, NoData) and state.last_count is None
    if not sight.engines or unknown_count:  # a count from load alone might lower a fleet unseen
        return _blind(observation, state, config, now_s, sight)
    return _fresh(observation, state, config, now_s, sight)


def _fresh(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float, sight: Sight
) -> tuple[Decision, PolicyState]:
    """Decide from good data."""
    budget = budget_of(
        state.budget, config.slo, config.budget, requests_per_s=state.demand.requests_per_s
    )
    start_s = start_up_s(state.start_up, config.start_up)
    ahead = make_ahead(
        lead_s=start_s + config.tick_s,
        hold_s=hold_span_s(config.hold_down, start_s),
        sigmas=sigmas(budget.price_factor, state.load),
    )
    made, learned = estimate(observation, _learned(state), config, ahead=ahead, now_s=now_s)
    at = _situation(observation, state, config, made, budget)
    proposals = propose(at)
    rose_at_s = raised_at_s(state, config, now_s)
    steps = _staged(proposals, at, sight, rose_at_s=rose_at_s, span_s=ahead.hold_s)
    idle_since_s = _idle_since(observation, state, config, now_s, sight)
    idle = idle_proven(idle_since_s, observation, config, now_s)
    if idle:  # said also where the count is 0 already: without the proof it would be 1
        proof = (("idle_proof_s", config.zero.idle_proof_s),)
        steps = (*steps, make_step(stage=Stage.IDLE, replicas=0, terms=proof))
    verdict = Verdict.LOAD_ONLY if isinstance(observation.replicas, NoData) else Verdict.FRESH
    draft = make_draft(
        observation=observation,
        config=config,
        now_s=now_s,
        verdict=_answerable(verdict, observation, config),
        steps=_bounded(steps, observation, config, zero=idle),
        active=_active(observation, config, wanted=not idle),
        proposals=proposals,
        blind=sight.blind,
        demand=made.demand,
        capacity=made.capacity,
        forecast=made.forecast,
    )
    decision = publish(draft)
    return decision, make_policy_state(
        learned,
        at,
        state,
        budget=_budget_after(observation, state, config, at),
        work_level=at.level / made.scale,
        level_at_s=now_s,
        work_peak=at.peak / made.scale,
        work_settled=_settled(at, decision, state) / made.scale,
        raised_at_s=now_s if decision.would_be > at.before else rose_at_s,
        seen=sight.seen,
        good_at_s=now_s,
        last_count=decision.would_be,
        last_ready=at.ready,
        last_active=decision.active,
        idle_since_s=idle_since_s,
        latency_step_at_s=_latency_step_at(at, proposals, state),
    )


def _settled(at: Situation, decision: Decision, state: PolicyState) -> float:
    """The highest peak since the count was set."""
    return at.settled if decision.would_be == state.last_count else at.peak


def _staged(
    proposals: tuple[Proposal, ...], at: Situation, sight: Sight, *, rose_at_s: float, span_s: float
) -> Steps:
    """What the stages make of the proposals, short of zero and the bounds."""
    since_s = at.now_s - rose_at_s
    steps = keep(binding(proposals), at, since_s=since_s)
    steps = hold_down(steps, at, since_s=since_s, span_s=span_s)
    return no_api(lost_signal(veto(steps, at), at, sight.lost), at)


def _learned(state: PolicyState) -> Learned:
    return make_learned(
        demand=state.demand, capacity=state.capacity, forecast=state.forecast, shown=state.shown
    )


def _answerable(verdict: Verdict, observation: Observation, config: PolicyConfig) -> Verdict:
    """``verdict``, or UNKNOWN where the mode asks for the current count and nobody has counted.

    No answer leaves the HPA where it is; the count from load would move a frozen target.
    """
    replicas = observation.replicas
    counted = not isinstance(replicas, NoData) and not replicas.inferred
    return verdict if counted or config.mode is Mode.ACTIVE else Verdict.UNKNOWN


def _active(observation: Observation, config: PolicyConfig, *, wanted: bool) -> bool:
    """IsActive: what is wanted, or in a mode that only looks on, what is already so."""
    replicas = observation.replicas
    if config.mode is Mode.ACTIVE or isinstance(replicas, NoData):
        return wanted
    return replicas.wanted > 0


def _situation(
    observation: Observation,
    state: PolicyState,
    config: PolicyConfig,
    made: Estimates,
    budget: Budget,
) -> Situation:
    """The replica counts made definite: from Kubernetes, or from the last decision."""
    replicas = observation.replicas
    if isinstance(replicas, NoData):
        assert state.last_count is not None, "decide() does not size a fleet it never counted"
        wanted = state.last_count
        ready = min(state.last_ready, wanted)
        coming, stuck = wanted - ready, 0
    else:
        wanted, ready = replicas.wanted, replicas.ready
        if replicas.inferred:  # counted by those that answer: one that is silent is still there
            wanted = max(wanted, state.last_count or 0)
        stuck = replicas.unschedulable + replicas.crash_looping
        expiry_s = config.start_up.expiry_s
        coming = sum([age_s <= expiry_s for age_s in replicas.starting_age_s])
        # Asked for a moment ago, no pod scheduled yet: they come, and asking twice is overshoot.
        coming += max(wanted - ready - replicas.starting - stuck, 0)
    level = level_of(made.load / made.scale, state, config, made.now_s)
    ease = ease_of(budget, config.hold_down)
    peak = peak_of(level, state, config, made.now_s, ease=ease) * made.scale
    return make_situation(
        made,
        state,
        observation=observation,
        budget=budget,
        config=config,
        level=level * made.scale,
        peak=peak,
        settled=max(state.work_settled * made.scale, peak),
        ease=ease,
        before=count_before(state, config, wanted, made.now_s),
        sought=wanted if state.last_count is None else min(state.last_count, wanted),
        wanted=wanted,
        ready=ready,
        coming=coming,
        stuck=stuck,
        ready_rose_at_s=ready_rose_at_s(state, ready, made.now_s),
    )


def _budget_after(
    observation: Observation, state: PolicyState, config: PolicyConfig, at: Situation
) -> BudgetState:
    """The budget with this observation: it sets the price of the next decision, not of this one.

    So a larger demand is never sized to fewer replicas for what it does to the budget.
    """
    busy_ratio = at.load / at.ready if at.ready > 0 else 1.0
    return update_budget(
        observation, state.budget, config.slo, config.budget, busy_ratio=busy_ratio
    )


def _bounded(steps: Steps, observation: Observation, config: PolicyConfig, *, zero: bool) -> Steps:
    """Within the bounds; zero only where ``zero`` says that idleness is proven."""
    replicas = observation.replicas
    if isinstance(replicas, NoData):
        allowed = limits(config, None, None)
    else:
        allowed = limits(config, replicas.replicas_min, replicas.replicas_max)
    low = allowed.low if zero else max(allowed.low, 1)
    return bound(steps, low=low, high=allowed.high)


def _idle_since(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float, sight: Sight
) -> float | None:
    """When the present idleness began; None while anything moves or cannot be seen."""
    if sight.lost > 0 or not is_idle(observation, config):
        return None
    if state.idle_since_s is None or watch_broken(state, config, now_s):
        return now_s
    return state.idle_since_s


def _latency_step_at(
    at: Situation, proposals: tuple[Proposal, ...], state: PolicyState
) -> float | None:
    """Remember when a missed objective asked for replicas, so that they are given time to show.

    Also where another signal asked for more: its replicas bring what the objective asked for.
    """
    for proposal in proposals:
        if proposal.replicas > at.wanted and proposal.signal in _LATENCIES:
            return at.now_s
    return state.latency_step_at_s


_LATENCIES = (Signal.TTFT, Signal.ITL)


def _blind(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float, sight: Sight
) -> tuple[Decision, PolicyState]:
    """Nothing is known of the load: the last decision, then the current count or the floor.

    GPU utilisation may still ask for more, once: under vLLM a single request keeps a GPU near
    100 %, so the proposal is measured against the replicas last seen ready, or each one added would
    ask for the next.  The state stays as it is, so that what was learned survives.
    """
    replicas = observation.replicas
    current = None if isinstance(replicas, NoData) else replicas.wanted
    age_s = now_s - state.good_at_s if state.good_at_s is not None else None
    if age_s is None or state.last_count is None:
        verdict, steps = Verdict.UNKNOWN, _one(Stage.BLIND, current or 0)
    elif age_s <= config.freshness.grace_s:
        held_by = Stage.WAKE if _is_waking(replicas, state) else Stage.BLIND
        verdict, steps = Verdict.HELD, _one(held_by, state.last_count)
    else:
        held = state.last_count if current is None else current
        floor = max(held, config.freshness.floor_replicas)
        raised = floor > held or not _is_waking(replicas, state)
        verdict, steps = Verdict.FLOORED, _one(Stage.FLOOR if raised else Stage.WAKE, floor)
    ready = state.last_ready or (0 if isinstance(replicas, NoData) else replicas.ready)
    proposal = gpu_proposal(
        observation.gpu,
        ready=ready,
        target_ratio=config.signals.gpu_util_target_ratio or config.signals.gpu_blind_target_ratio,
    )
    if proposal is not None and proposal.replicas > max(count_of(steps), ready):
        steps = then(steps, Stage.GPU, proposal.replicas, proposal.terms)
    active = state.last_active if verdict is Verdict.HELD else True
    draft = make_draft(
        observation=observation,
        config=config,
        now_s=now_s,
        verdict=_answerable(verdict, observation, config),
        steps=_bounded(steps, observation, config, zero=not active),
        active=_active(observation, config, wanted=active),
        proposals=() if proposal is None else (proposal,),
        blind=sight.blind,
    )
    decision, last = publish(draft), state.last_count
    if last is not None:  # what GPUs raised stays raised until there is sight again
        last = max(last, decision.would_be)
    return decision, replace(state, seen=sight.seen, idle_since_s=None, last_count=last)


def _is_waking(replicas: Replicas | NoData, state: PolicyState) -> bool:
    """Whether the first replicas after zero are on their way: nobody is there yet to be seen."""
    if isinstance(replicas, NoData):
        return False
    return state.last_ready == 0 and replicas.ready == 0 and len(replicas.starting_age_s) > 0


def _one(stage: Stage, replicas: int, terms: Terms = ()) -> Steps:
    return (make_step(stage=stage, replicas=replicas, terms=terms),)


def _from_zero(
    observation: Observation, state: PolicyState, config: PolicyConfig, now_s: float, sight: Sight
) -> tuple[Decision, PolicyState]:
    """At zero there is no replica to ask: only a gateway's counter can say that requests came.

    KEDA polls at its own pace, so a request that came keeps the target wanted for some time.
    """
    gateway, replicas = observation.gateway, observation.replicas
    assert not isinstance(replicas, NoData), "zero is only known from the Kubernetes API"
    wake = config.zero.wake_replicas
    allowed = limits(config, replicas.replicas_min, replicas.replicas_max)
    asked_at_s = state.asked_at_s
    if allowed.low > 0:  # somebody scaled it by hand: the minimum is wanted whatever is seen
        range_ = (("replicas_min", float(allowed.low)), ("replicas_max", float(allowed.high)))
        steps = _one(Stage.BOUNDS, allowed.low, range_)
        waking, verdict = True, Verdict.FRESH
    elif isinstance(gateway, NoData):
        waking = config.freshness.wake_when_blind
        verdict = Verdict.FLOORED if waking else Verdict.UNKNOWN
        steps = _one(Stage.FLOOR if waking else Stage.BLIND, wake if waking else 0)
    else:
        asked_at_s = now_s if is_asked(gateway) else state.asked_at_s
        kept_s = max(config.zero.idle_proof_s, config.freshness.grace_s)
        waking = asked_at_s is not None and now_s - asked_at_s <= kept_s
        verdict = Verdict.FRESH
        steps = _one(Stage.WAKE if waking else Stage.IDLE, wake if waking else 0)
    draft = make_draft(
        observation=observation,
        config=config,
        now_s=now_s,
        verdict=verdict,
        steps=_bounded(steps, observation, config, zero=not waking),
        active=_active(observation, config, wanted=waking),
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
        asked_at_s=asked_at_s,
        seen=sight.seen,
    )
