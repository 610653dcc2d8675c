"""Many policies on many traces: one entry for each policy, form and trace.

An entry is a run's summary.json with ``trace, variant, group, behaviour``, what bounds every policy
(``slo_attainable_ratio, oracle_gpu_hours, oracle_bound_gpu_hours, gpu_hours_over_oracle``), the
``attainment_target`` and whether the run reached it.  Variants:

- ``shipped``, ``corrected``: defaults of the policy, with or without its known defect;
- ``tuned``: the knob chosen on training traces;
- ``frontier``: the knob chosen in hindsight on the trace itself.  The entry is the summary of the
  cheapest run that reached the target, with ``gpu_hours_at_target, knob, knob_values, points``.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scaler.errors import ScenarioError
from simulations.attainable import request_tokens_max
from simulations.controller import Clock
from simulations.frontier import FIRST_MAX, REACHED_FROM, TRIES_MAX
from simulations.peers import SHIPPED, Behaviour, Group
from simulations.run_cache import Json
from simulations.scenario import Scenario
from simulations.scoreboard_policies import (
    ORACLE,
    OURS,
    Contender,
    contenders,
    oracle_scenario,
    scenario_of,
)
from simulations.scoreboard_search import Arena, Hunt, by_policy, cheapest, finish, hunt, promising
from simulations.sweep import (
    Bound,
    Sweep,
    attainable_one,
    deployment_of,
    load_of,
    oracle_one,
)
from simulations.sweep_run import Run, run_one

TUNED, FRONTIER = "tuned", "frontier"
SCREEN_TRIES_MAX = FIRST_MAX + 3  # to know where to begin, no more


class Kind(StrEnum):
    """How the knob of an entry is chosen."""

    SHIPPED = "shipped"
    TUNED = "tuned"
    FRONTIER = "frontier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be compared.

    ``traces`` are evaluated, ``training`` traces serve ``Kind.TUNED`` alone.  Their scenarios have
    stored traces, the objectives, and our own settings; ``attainment_share`` is what is asked for,
    of what is attainable.  With ``screen_until_s`` the frontiers are first searched on the arrivals
    before that time: forms that are far behind there are dropped, and the others begin near.
    ``forms`` are in place of all forms of the policies, ``oracle_replays_max`` bounds the schedules
    that the oracle tries.  ``clock`` measures the runs.
    """

    policies: tuple[str, ...]
    traces: tuple[Scenario, ...]
    training: tuple[Scenario, ...] = ()
    kinds: frozenset[Kind] = frozenset({Kind.SHIPPED})
    attainment_share: float = 0.99
    with_oracle: bool = True
    oracle_replays_max: int | None = None
    screen_until_s: float | None = None
    forms: tuple[Contender, ...] = ()
    clock: Clock | None = None

    def __post_init__(self) -> None:
        """Raise ScenarioError for what cannot be compared."""
        if not 0.5 <= self.attainment_share < 1.0:
            raise ScenarioError(f"attainment = {self.attainment_share}, must be in [0.5, 1)")
        if Kind.TUNED in self.kinds and not self.training:
            raise ScenarioError("variant tuned: needs training traces, --tune-on TRACE")
        if self.screen_until_s is not None and not self.screen_until_s > 0.0:
            raise ScenarioError(f"screen_until_s = {self.screen_until_s}, must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoreboard:
    """``entries`` in the order of traces and policies; ``faults`` are runs that never end."""

    entries: tuple[Json, ...]
    faults: tuple[str, ...]


def scoreboard(plan: Plan, sweep: Sweep) -> Scoreboard:
    """Run everything that ``plan`` asks for.

    Raises:
        ScenarioError: a trace has no request in the time that is played.
        ScalerError: a run failed.
    """
    arenas, bounds = _arenas(plan, plan.traces, sweep, with_oracle=plan.with_oracle)
    training = _arenas(plan, plan.training, sweep, with_oracle=False)[0]
    share = plan.attainment_share
    forms = plan.forms or contenders(plan.policies, attainment_share=share)
    made: list[Json] = []
    if ORACLE in plan.policies and plan.with_oracle:
        made += _oracle_entries(arenas, bounds, plan, sweep)
    if Kind.SHIPPED in plan.kinds:
        made += _shipped(forms, arenas, plan, sweep)
    if Kind.TUNED in plan.kinds:
        made += _tuned(forms, arenas, training, plan, sweep)
    if Kind.FRONTIER in plan.kinds:
        made += _frontiers(forms, arenas, plan, sweep)
    places = {arena.trace: place for place, arena in enumerate(arenas)}
    entries = [
        _bounded(entry, bounds[places[entry["trace"]]]) for entry in made if "fault" not in entry
    ]
    faults = [f"{e['policy']} on {e['trace']}: {e['fault']}" for e in made if "fault" in e]
    ranks = {name: place for place, name in enumerate(plan.policies)}
    entries.sort(key=lambda entry: (places[entry["trace"]], ranks[entry["policy"]]))
    return Scoreboard(entries=tuple(entries), faults=tuple(faults))


# What bounds every policy


def _arenas(
    plan: Plan, bases: Sequence[Scenario], sweep: Sweep, *, with_oracle: bool
) -> tuple[list[Arena], list[Json]]:
    """The arenas of some traces, and what bounds every policy there."""
    plain = [
        Bound(name=f"attainable on {load_of(base).trace.name}", load=load_of(base),
              deployment=deployment_of(base))
        for base in bases
    ]  # fmt: skip
    attainable = sweep.results(attainable_one, plain)
    for bound, known in zip(plain, attainable, strict=True):
        if not known["requests"]:
            raise ScenarioError(f"{bound.load.trace.path}: no request in the time that is played")
        if not known["slo_attainable_ratio"]:
            model = bound.deployment.model
            raise ScenarioError(
                f"{bound.load.trace.path}: none of {known['requests']:,} requests can meet the"
                f" objectives, not even alone on a replica of {model.name}, which takes"
                f" {request_tokens_max(model):,} tokens of prompt and output together"
            )
    oracles = [
        dataclasses.replace(
            bound,
            name=f"oracle on {bound.load.trace.name}",
            attainment_share=plan.attainment_share,
            replays_max=plan.oracle_replays_max,
        )
        for bound in plain
        if with_oracle
    ]
    solved = sweep.results(oracle_one, oracles) if with_oracle else attainable
    arenas = [
        Arena(
            trace=bound.load.trace.name,
            base=base,
            attainable_ratio=known["slo_attainable_ratio"],
            rows_skipped=bound.load.trace.rows_skipped,
        )
        for bound, base, known in zip(plain, bases, attainable, strict=True)
    ]
    return arenas, solved


def _bounded(entry: Json, bound: Mapping[str, Any]) -> Json:
    """``entry`` with the oracle's numbers; null where no schedule found reaches the target.

    Such a schedule is the one that attains most, and its GPU-hours bound nothing.
    """
    hours = entry.get("gpu_hours_at_target", entry["gpu_hours"])
    oracle = bound.get("gpu_hours") if bound.get("reached") else None
    return {
        **entry,
        "oracle_gpu_hours": oracle,
        "oracle_bound_gpu_hours": bound.get("bound_gpu_hours"),
        "gpu_hours_over_oracle": hours / oracle if hours is not None and oracle else None,
    }


# Entries


def _oracle_entries(
    arenas: Sequence[Arena], bounds: Sequence[Json], plan: Plan, sweep: Sweep
) -> list[Json]:
    """The oracle's schedule as a policy of its own, run as everybody is."""
    oracle = Contender(policy=ORACLE, group=Group.BOUND)
    runs = [
        Run(
            name=f"{ORACLE}'s schedule on {arena.trace}",
            scenario=oracle_scenario(arena.base, bound["schedule"]),
            clock=plan.clock,
        )
        for arena, bound in zip(arenas, bounds, strict=True)
    ]
    return [
        _entry(summary, oracle, arena, plan, variant=SHIPPED)
        for summary, arena in zip(sweep.results(run_one, runs), arenas, strict=True)
    ]


def _shipped(
    forms: Sequence[Contender], arenas: Sequence[Arena], plan: Plan, sweep: Sweep
) -> list[Json]:
    """Every form of every policy as it ships."""
    pairs = [(form, arena) for arena in arenas for form in forms]
    runs = [
        Run(
            name=f"{form.name} on {arena.trace}",
            scenario=scenario_of(arena.base, form),
            clock=plan.clock,
        )
        for form, arena in pairs
    ]
    return [
        _entry(summary, form, arena, plan, variant=form.variant)
        for summary, (form, arena) in zip(sweep.results(run_one, runs), pairs, strict=True)
    ]


def _tuned(
    forms: Sequence[Contender],
    arenas: Sequence[Arena],
    training: Sequence[Arena],
    plan: Plan,
    sweep: Sweep,
) -> list[Json]:
    """Each baseline's form and knob that are cheapest on the training traces, evaluated."""
    share = plan.attainment_share
    hunts = [
        hunt(form, training, attainment_share=share)
        for form in forms
        if form.knob is not None and form.policy not in OURS
    ]
    best = [cheapest(one) for one in by_policy(finish(hunts, sweep, clock=plan.clock)).values()]
    pairs = [(one, arena) for arena in arenas for one in best if one.search.points]
    runs = [
        Run(
            name=f"{one.contender.name} tuned on {arena.trace}",
            scenario=scenario_of(arena.base, one.contender, one.search.best.knob),
            clock=plan.clock,
        )
        for one, arena in pairs
    ]
    return [
        {
            **_entry(summary, one.contender, arena, plan, variant=TUNED),
            "knob_value": one.search.best.knob,
            "tuned_on": [trained.trace for trained in training],
        }
        for summary, (one, arena) in zip(sweep.results(run_one, runs), pairs, strict=True)
    ]


def _frontiers(
    forms: Sequence[Contender], arenas: Sequence[Arena], plan: Plan, sweep: Sweep
) -> list[Json]:
    """One entry for each policy with a knob, of the form that is cheapest in hindsight."""
    hunts = _hunts(forms, arenas, plan)
    if plan.screen_until_s is not None:
        hunts = _screened(forms, arenas, plan, sweep)
    chosen = by_policy(finish(hunts, sweep, clock=plan.clock)).values()
    return [_frontier_entry(cheapest(one), plan) for one in chosen]


def _hunts(
    forms: Sequence[Contender], arenas: Sequence[Arena], plan: Plan, *, tries_max: int = TRIES_MAX
) -> list[Hunt]:
    return [
        hunt(form, [arena], attainment_share=plan.attainment_share, tries_max=tries_max)
        for arena in arenas
        for form in forms
        if form.knob is not None
    ]


def _screened(
    forms: Sequence[Contender], arenas: Sequence[Arena], plan: Plan, sweep: Sweep
) -> list[Hunt]:
    """Searches of the promising forms that begin near what the first part of the trace says."""
    screen_s = plan.screen_until_s or math.inf
    bases = [
        dataclasses.replace(arena.base, until_s=min(screen_s, arena.base.until_s or math.inf))
        for arena in arenas
    ]
    parts = _arenas(plan, bases, sweep, with_oracle=False)[0]
    whole = {arena.trace: arena for arena in arenas}
    hunts = _hunts(forms, parts, plan, tries_max=SCREEN_TRIES_MAX)
    found = by_policy(finish(hunts, sweep, clock=plan.clock))
    return [
        hunt(_beginning(one), [whole[trace]], attainment_share=plan.attainment_share)
        for (_, trace), of_policy in found.items()
        for one in promising(of_policy)
    ]


def _beginning(one: Hunt) -> Contender:
    """A contender whose search begins where another one has ended."""
    begin = one.search.best.knob if one.search.points else None
    return dataclasses.replace(one.contender, knob_begin=begin)


def _frontier_entry(one: Hunt, plan: Plan) -> Json:
    """A search's outcome as an entry."""
    (arena,), contender = one.arenas, one.contender
    if not one.search.points:
        fault = next(iter(one.rows.values()))[0]
        return _entry(fault, contender, arena, plan, variant=FRONTIER)
    knob = one.search.best.knob
    points = [
        [point.knob, one.rows[point.knob][0]["slo_attainment_ratio"], point.gpu_hours]
        for point in one.search.points
    ]
    return {
        **_entry(one.rows[knob][0], contender, arena, plan, variant=FRONTIER),
        "form": contender.variant,
        "gpu_hours_at_target": one.search.gpu_hours,
        "knob_value": knob,
        "knob_values": [point[0] for point in points],
        "points": points,
    }


def _entry(summary: Json, contender: Contender, arena: Arena, plan: Plan, *, variant: str) -> Json:
    """A summary as an entry of the scoreboard."""
    if "fault" in summary:
        return {**summary, "policy": contender.name, "trace": arena.trace}
    target = plan.attainment_share * arena.attainable_ratio
    own: Json = {"knob": contender.knob.name} if contender.knob else {}
    if contender.knob_default is not None:
        own["knob_value"] = contender.knob_default
    return {
        "trace": arena.trace,
        **summary,
        "rows_skipped": arena.rows_skipped,
        "variant": variant,
        "group": contender.group.value,
        "behaviour": Behaviour(contender.behaviour).value,
        "slo_attainable_ratio": arena.attainable_ratio,
        "attainment_target": target,
        "target_reached": summary["slo_attainment_ratio"] >= target - REACHED_FROM,
        **own,
    }
