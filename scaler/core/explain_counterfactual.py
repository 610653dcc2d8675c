"""Why not fewer, and what would have to change: found by deciding again with one thing different.

Each answer is a decision of ``decide()`` itself from changed inputs, never a guess in words.  A
``Basis`` is all that a decision was made from; what is supposed of it is one of the enum's cases,
or a scale on the traffic or on the misses of the budget, searched for the point at which the count
turns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from scaler.core.config import ForecasterName, PolicyConfig
from scaler.core.memory import PolicyState, watch_broken
from scaler.core.model import (
    Cause,
    Decision,
    NoData,
    Observation,
    Proposal,
    Signal,
    Stage,
    Verdict,
)
from scaler.core.policy import decide

_LONG_AGO_S = 1e9
_SCALE_MAX = 64.0  # traffic beyond is no longer the same question
_HALVINGS = 24  # a scale to one part in ten million
_UNASKED = NoData(cause=Cause.UNSUPPORTED, detail="left out to see what it changes")


class Supposition(StrEnum):
    """One thing that is different."""

    NO_HOLD = "without the hold-down"
    NO_FORECAST = "without the forecast: the load of the moment for the future"
    NO_MARGIN = "without the margin for going down"
    NO_QUEUE = "if no request waited"
    NO_LATENCY = "without the latency histograms"
    NO_GPU = "without GPU utilisation"
    ALL_SEEN = "if no signal were missing that used to be there"
    GRACE_OVER = "once the data has been missing for longer than the grace"
    NO_BOUNDS = "without the minimum and the maximum"
    NO_TOLERANCE = "if the HPA had no tolerance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a decision was made from: the arguments of ``decide()``."""

    observation: Observation
    state: PolicyState
    config: PolicyConfig
    now_s: float

    def decide(self) -> Decision:
        """The decision."""
        return decide(self.observation, self.state, self.config, self.now_s)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Supposed:
    """What would have been wanted, had one thing been different."""

    supposition: Supposition
    replicas: int
    decided_by: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The point at which the count turns: ``value`` of what is scaled, and the count there.

    ``factor`` is on what it is now.
    """

    value: float
    factor: float
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Where the count rises, and where it falls; None where it does not within the search.

    ``falls_unheld`` is where it falls once the hold-down is over.
    """

    now: float
    rises: Turn | None
    falls: Turn | None
    falls_unheld: Turn | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterfactuals:
    """What would have to change.

    ``load`` is in replicas' worth of busy time and None for a decision that knew of no load;
    ``budget`` the share of the allowed misses that is spent, None where no price was asked for.
    ``hold_left_s`` is None while nothing is held.
    """

    replicas: int
    supposed: tuple[Supposed, ...]
    load: Turns | None
    budget: Turns | None
    hold_left_s: float | None


def counterfactuals(basis: Basis) -> Counterfactuals:
    """What would have to change for the decision of ``basis`` to be another."""
    decision = basis.decide()
    load = budget = None
    if decision.demand is not None and decision.demand.requests_per_s > 0.0:
        load = _turns(basis, _with_traffic, load_of, scale_max=_SCALE_MAX)
    if _spent_of(decision) > 0.0:
        budget = _turns(basis, _with_misses, _spent_of, scale_max=_misses_max(basis))
    return Counterfactuals(
        replicas=decision.would_be,
        supposed=tuple(_supposed(basis, decision)),
        load=load,
        budget=budget,
        hold_left_s=_hold_left_s(decision),
    )


def _supposed(basis: Basis, decision: Decision) -> list[Supposed]:
    """Every supposition that makes another count."""
    found = []
    for supposition, changed in _CHANGES.items():
        again = changed(basis).decide()
        if again.would_be != decision.would_be:
            found.append(
                Supposed(
                    supposition=supposition,
                    replicas=again.would_be,
                    decided_by=_decider(again),
                )
            )
    return found


def _decider(decision: Decision) -> Stage:
    """What fixed the count that an active target would publish."""
    steps = [step for step in decision.steps if step.stage is not Stage.FROZEN]
    return steps[-1].stage


def _without_hold(basis: Basis) -> Basis:
    """As if the count had risen long ago; a watch that just began counts as an old one."""
    state, config, now_s = basis.state, basis.config, basis.now_s
    state = replace(
        state,
        raised_at_s=now_s - _LONG_AGO_S,
        good_at_s=now_s if watch_broken(state, config, now_s) else state.good_at_s,
    )
    return replace(basis, state=state)


def _without_forecast(basis: Basis) -> Basis:
    forecast = replace(basis.config.forecast, quantile_ratio=0.5)
    config = replace(basis.config, forecaster=ForecasterName.LAST, forecast=forecast)
    return replace(basis, config=config)


def _without_margin(basis: Basis) -> Basis:
    hold = replace(basis.config.hold_down, margin_ratio=0.0, sigma_min_factor=0.0)
    hold = replace(hold, scatter_factor=0.0, drift_ratio=0.0)
    return replace(basis, config=replace(basis.config, hold_down=hold))


def _without_queue(basis: Basis) -> Basis:
    queue = basis.observation.queue
    if isinstance(queue, NoData):
        return basis
    seen = replace(basis.observation, queue=replace(queue, requests_waiting=0.0))
    return replace(basis, observation=seen)


def _without_latency(basis: Basis) -> Basis:
    seen = replace(basis.observation, ttft=_UNASKED, itl=_UNASKED)
    return _forgetting(replace(basis, observation=seen), (Signal.TTFT, Signal.ITL))


def _without_gpu(basis: Basis) -> Basis:
    seen = replace(basis.observation, gpu=_UNASKED)
    return _forgetting(replace(basis, observation=seen), (Signal.GPU,))


def _with_all_seen(basis: Basis) -> Basis:
    return _forgetting(basis, tuple(Signal))


def _forgetting(basis: Basis, signals: tuple[Signal, ...]) -> Basis:
    """Signals that never were there are not missed."""
    seen = tuple(item for item in basis.state.seen if item[0] not in signals)
    return replace(basis, state=replace(basis.state, seen=seen))


def _after_grace(basis: Basis) -> Basis:
    """The same blindness, some time later."""
    good_at_s = basis.state.good_at_s
    if good_at_s is None:
        return basis
    later_s = good_at_s + basis.config.freshness.grace_s + basis.config.tick_s
    if basis.decide().verdict is not Verdict.HELD or later_s <= basis.now_s:
        return basis
    return replace(basis, now_s=later_s)


def _without_bounds(basis: Basis) -> Basis:
    bounds = replace(basis.config.bounds, replicas_min=0, replicas_max=10**6)
    replicas = basis.observation.replicas
    if not isinstance(replicas, NoData):
        replicas = replace(replicas, replicas_min=None, replicas_max=None)
    seen = replace(basis.observation, replicas=replicas)
    return replace(basis, observation=seen, config=replace(basis.config, bounds=bounds))


def _without_tolerance(basis: Basis) -> Basis:
    hpa = replace(basis.config.hpa, tolerance_up_ratio=0.0, tolerance_down_ratio=0.0)
    return replace(basis, config=replace(basis.config, hpa=hpa))


_CHANGES: dict[Supposition, Callable[[Basis], Basis]] = {
    Supposition.NO_HOLD: _without_hold,
    Supposition.NO_FORECAST: _without_forecast,
    Supposition.NO_MARGIN: _without_margin,
    Supposition.NO_QUEUE: _without_queue,
    Supposition.NO_LATENCY: _without_latency,
    Supposition.NO_GPU: _without_gpu,
    Supposition.ALL_SEEN: _with_all_seen,
    Supposition.GRACE_OVER: _after_grace,
    Supposition.NO_BOUNDS: _without_bounds,
    Supposition.NO_TOLERANCE: _without_tolerance,
}


def _with_traffic(basis: Basis, factor: float) -> Basis:
    """As if so many times the requests had arrived in the last minutes.

    The smoothed rate, the load and its level are scaled exactly; what the forecaster knows of the
    hours before stays, so a forecast follows as it would follow a sudden change.
    """
    state, work = basis.state, basis.observation.work
    demand = replace(
        state.demand,
        requests_per_s=factor * state.demand.requests_per_s,
        arrived_per_s=factor * state.demand.arrived_per_s,
    )
    level = None if state.work_level is None else factor * state.work_level
    state = replace(state, work_level=level, work_peak=factor * state.work_peak)
    state = replace(state, demand=demand, load=factor * state.load)
    observation = basis.observation
    if not isinstance(work, NoData):
        work = replace(work, requests_arrived=factor * work.requests_arrived)
        observation = replace(observation, work=work)
    return replace(basis, observation=observation, state=state)


def _with_misses(basis: Basis, factor: float) -> Basis:
    """As if so many times the requests of the budget's memory had missed; 1 where none has."""
    budget = basis.state.budget
    missed = factor * (budget.missed if budget.missed > 0.0 else 1.0)
    if factor == 1.0:
        missed = budget.missed
    return replace(basis, state=replace(basis.state, budget=replace(budget, missed=missed)))


def _misses_max(basis: Basis) -> float:
    """The scale at which every request of the budget's memory has missed."""
    budget = basis.state.budget
    return max(budget.requests / (budget.missed if budget.missed > 0.0 else 1.0), 1.0)


def load_of(decision: Decision) -> float:
    """The load of the moment, in replicas' worth of busy time; 0 where it is not known."""
    if decision.demand is None or decision.capacity is None:
        return 0.0
    return decision.demand.requests_per_s * decision.capacity.request_cost_s


def _spent_of(decision: Decision) -> float:
    """The share of the budget that is spent, as the forecast's proposal tells it."""
    return _term(decision.proposals, Signal.FORECAST, "budget_spent_ratio")


def _term(proposals: tuple[Proposal, ...], signal: Signal, name: str) -> float:
    terms = [item.terms for item in proposals if item.signal is signal]
    return dict(terms[0]).get(name, 0.0) if terms else 0.0


Scaled = Callable[[Basis, float], Basis]
Value = Callable[[Decision], float]


def _turns(basis: Basis, scaled: Scaled, value: Value, *, scale_max: float) -> Turns:
    decision = basis.decide()
    return Turns(
        now=value(decision),
        rises=_turn(basis, scaled, value, to=scale_max),
        falls=_turn(basis, scaled, value, to=0.0),
        falls_unheld=_turn_unheld(basis, scaled, value),
    )


def _turn_unheld(basis: Basis, scaled: Scaled, value: Value) -> Turn | None:
    """Where the count falls once the hold-down is over: at once, where nothing else keeps it."""
    count = basis.decide().would_be
    unheld = _without_hold(basis)
    decision = unheld.decide()
    if decision.would_be != count:
        return Turn(value=value(decision), factor=1.0, replicas=decision.would_be)
    return _turn(unheld, scaled, value, to=0.0)


def _turn(basis: Basis, scaled: Scaled, value: Value, *, to: float) -> Turn | None:
    """The scale nearest to 1, on the way ``to`` another, at which the count is another.

    Bisection: the count rises with the traffic, and with what was missed.
    """
    count = basis.decide().would_be
    if scaled(basis, to).decide().would_be == count:
        return None
    same, other = 1.0, to
    for _ in range(_HALVINGS):
        middle = 0.5 * (same + other)
        if scaled(basis, middle).decide().would_be == count:
            same = middle
        else:
            other = middle
    found = scaled(basis, other).decide()
    return Turn(value=value(found), factor=other, replicas=found.would_be)


def _hold_left_s(decision: Decision) -> float | None:
    """Seconds until the hold-down lets go; None where it does not hold."""
    for step in decision.steps:
        if step.stage is Stage.HOLD_DOWN:
            terms = dict(step.terms)
            return max(terms["span_s"] - terms["since_s"], 0.0)
    return None


def counterfactual_lines(found: Counterfactuals) -> tuple[str, ...]:
    """What would have to change, a sentence a line."""
    lines: list[str] = []
    if found.hold_left_s is not None:
        lines.append(f"the hold-down lets go in {found.hold_left_s:.0f} s")
    lines += [
        f"{item.supposition}: {item.replicas} (by {item.decided_by})" for item in found.supposed
    ]
    if found.load is not None:
        lines += _load_lines(found.load, found.replicas)
    if found.budget is not None:
        lines += _budget_lines(found.budget)
    return tuple(lines)


def _load_lines(load: Turns, replicas: int) -> list[str]:
    lines = []
    if load.rises is not None:
        turn = load.rises
        lines.append(
            f"{turn.replicas} from a load of {turn.value:.2f} on, {turn.factor:.2f} times the"
            f" {load.now:.2f} of now"
        )
    else:
        lines.append(f"no load up to {_SCALE_MAX:.0f} times that of now makes it more")
    if load.falls is not None:
        turn = load.falls
        lines.append(f"{turn.replicas} at a load of {turn.value:.2f}, {turn.factor:.2f} times")
    elif load.falls_unheld is not None:
        turn = load.falls_unheld
        lines.append(
            "no load of the moment makes it fewer now; when the hold-down is over"
            f" {turn.replicas} at a load of {turn.value:.2f}, {turn.factor:.2f} times"
        )
    else:
        lines.append(f"no load of the moment makes it fewer than {replicas}, held or not")
    return lines


def _budget_lines(budget: Turns) -> list[str]:
    lines = [f"{budget.now:.0%} of the allowed misses are spent"]
    if budget.rises is not None:
        lines.append(f"{budget.rises.replicas} with {budget.rises.value:.0%} of them spent")
    falls = budget.falls or budget.falls_unheld
    if falls is not None and falls.factor != 1.0:
        after = "" if budget.falls is not None else ", when the hold-down is over"
        lines.append(f"{falls.replicas} with {falls.value:.0%} of them spent{after}")
    if budget.rises is None and budget.falls is None:
        lines.append("no other share of them changes the count now")
    return lines
