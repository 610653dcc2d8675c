"""Searches for knob values: of many policies on many traces at once, round by round."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from simulations.controller import Clock
from simulations.frontier import TRIES_MAX, Knob, Point, Search, ask, first_values, near, told
from simulations.run_cache import Json
from simulations.scenario import Scenario
from simulations.scoreboard_policies import Contender, scenario_of
from simulations.sweep import Sweep
from simulations.sweep_run import Run, run_one

PROMISING_FACTOR = 1.1
PROMISING_MAX = 2
HOPELESS_FACTOR = 1.3  # a form that needs so much more than the policy's best is not refined


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """A trace to play: its name, the scenario without a policy of its own, what is attainable."""

    trace: str
    base: Scenario
    attainable_ratio: float
    rows_skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """One contender's search over one or several arenas together.

    A point's attainment is its distance from the target in the arena where it is least, and its
    GPU-hours are the sum: with one arena, that of the run.  ``rows`` are the summaries by knob
    value, one for each arena.
    """

    contender: Contender
    arenas: tuple[Arena, ...]
    attainment_share: float
    search: Search
    rows: Mapping[float, tuple[Json, ...]]

    @property
    def open_values(self) -> tuple[float, ...]:
        """The knob values to try next."""
        return ask(self.search)


def hunt(
    contender: Contender,
    arenas: Sequence[Arena],
    *,
    attainment_share: float,
    tries_max: int = TRIES_MAX,
) -> Hunt:
    """A search that has not begun; the contender has a knob."""
    knob = contender.knob
    assert isinstance(knob, Knob), f"{contender.policy} has no knob"
    return Hunt(
        contender=contender,
        arenas=tuple(arenas),
        attainment_share=attainment_share,
        search=Search(knob=knob, target=0.0, start=_start(contender, knob), tries_max=tries_max),
        rows={},
    )


def _start(contender: Contender, knob: Knob) -> tuple[float, ...]:
    """Where to begin; what ships is among it, as it is run anyway: hindsight is never worse."""
    begin, shipped = contender.knob_begin, contender.knob_default
    values = first_values(knob) if begin is None else near(knob, begin)
    return tuple(sorted({*values, *(() if shipped is None else (shipped,))}))


def finish(hunts: Sequence[Hunt], sweep: Sweep, *, clock: Clock | None) -> list[Hunt]:
    """All searches brought to their end.

    First every form of a policy is swept roughly; then those are refined that are not hopeless
    beside the policy's best form on the same trace.
    """
    found = _round(list(hunts), sweep, clock, lambda _: True)
    while True:
        best = _best_by_policy(found)

        def hopeful(one: Hunt, best: Mapping[object, float] = best) -> bool:
            hours = one.search.gpu_hours
            least = best.get(_subject(one))
            return hours is None or least is None or hours <= HOPELESS_FACTOR * least

        if not any(one.open_values for one in found if hopeful(one)):
            return found
        found = _round(found, sweep, clock, hopeful)


def by_policy(hunts: Sequence[Hunt]) -> dict[tuple[str, str], list[Hunt]]:
    """The searches of all forms of a policy on a trace together."""
    found: dict[tuple[str, str], list[Hunt]] = {}
    for one in hunts:
        found.setdefault((one.contender.policy, one.arenas[0].trace), []).append(one)
    return found


def cheapest(forms: Sequence[Hunt]) -> Hunt:
    """The form that needs least at the target, or else the one that comes nearest to it."""
    return ranked(forms)[0]


def ranked(forms: Sequence[Hunt]) -> list[Hunt]:
    """Forms that reach the target by their GPU-hours, then the others by what they miss."""

    def rank(one: Hunt) -> tuple[bool, float]:
        hours = one.search.gpu_hours
        if hours is not None:
            return False, hours
        return True, -one.search.best.attainment_ratio if one.search.points else math.inf

    return sorted(forms, key=rank)


def promising(forms: Sequence[Hunt]) -> list[Hunt]:
    """Of the forms of a policy, those worth a longer look."""
    best, *others = ranked(forms)
    least = best.search.gpu_hours
    kept = [
        one
        for one in others
        if least is None or (one.search.gpu_hours or math.inf) <= PROMISING_FACTOR * least
    ]
    return [best, *kept][:PROMISING_MAX]


def _round(
    hunts: Sequence[Hunt], sweep: Sweep, clock: Clock | None, go_on: Callable[[Hunt], bool]
) -> list[Hunt]:
    """Every search told what it asks for; all runs of the round go to the executor together."""
    asked = [one.open_values if go_on(one) else () for one in hunts]
    runs = [
        Run(
            name=f"{one.contender.name} at {value:g} on {arena.trace}",
            scenario=scenario_of(arena.base, one.contender, value),
            clock=clock,
        )
        for one, values in zip(hunts, asked, strict=True)
        for value in values
        for arena in one.arenas
    ]
    results = iter(sweep.results(run_one, runs))
    return [
        _told(one, {value: tuple(next(results) for _ in one.arenas) for value in values})
        for one, values in zip(hunts, asked, strict=True)
    ]


def _told(one: Hunt, rows: Mapping[float, tuple[Json, ...]]) -> Hunt:
    if not rows:
        return one
    points = {value: _point(one, value, summaries) for value, summaries in rows.items()}
    return dataclasses.replace(one, search=told(one.search, points), rows={**one.rows, **rows})


def _point(one: Hunt, value: float, summaries: Sequence[Json]) -> Point | None:
    if any("fault" in summary for summary in summaries):
        return None
    distance = min(
        summary["slo_attainment_ratio"] - one.attainment_share * arena.attainable_ratio
        for summary, arena in zip(summaries, one.arenas, strict=True)
    )
    hours = sum(summary["gpu_hours"] for summary in summaries)
    return Point(knob=value, attainment_ratio=distance, gpu_hours=hours)


def _subject(one: Hunt) -> tuple[str, tuple[str, ...]]:
    return one.contender.policy, tuple(arena.trace for arena in one.arenas)


def _best_by_policy(hunts: Sequence[Hunt]) -> dict[object, float]:
    best: dict[object, float] = {}
    for one in hunts:
        hours = one.search.gpu_hours
        if hours is not None:
            best[_subject(one)] = min(hours, best.get(_subject(one), hours))
    return best
