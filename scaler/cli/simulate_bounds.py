"""What bounds a run: what was attainable, and the best clairvoyant schedule."""

from typing import Any

import numpy as np

from scaler.cli.progress import Progress
from scaler.errors import ScenarioError
from simulations.attainable import attainable_flags
from simulations.oracle import oracle
from simulations.run import Result
from simulations.scenario import Scenario
from simulations.scoreboard_policies import oracle_scenario
from simulations.sweep import deployment_of
from simulations.trace_chunks import Requests, join
from simulations.traces import scale

REQUESTS_UNASKED_MAX = 100_000
REQUESTS_REPLAYED_UNASKED = 8_000_000  # some five seconds
REPLAYS_UNASKED_MAX = 200
SEARCHING = "looking for the best clairvoyant schedule"


class Attainable:
    """Counts the requests that would meet the objectives alone on a warm replica."""

    def __init__(self, scenario: Scenario) -> None:
        self._deployment = deployment_of(scenario)
        self._good = self._count = 0

    def add(self, requests: Requests) -> None:
        """Take in a chunk of the run."""
        deployment = self._deployment
        flags = attainable_flags(requests, deployment.model, deployment.objectives)
        self._good += int(np.count_nonzero(flags))
        self._count += len(requests)

    @property
    def ratio(self) -> float | None:
        """Their share; None without requests."""
        return self._good / self._count if self._count else None


def clairvoyant(scenario: Scenario, progress: Progress) -> Scenario:
    """``scenario`` under the best schedule found for the share of the attainable it asks for."""
    if (why := _unknown(scenario)) is not None:
        raise ScenarioError(f"policy = oracle: {why}")
    progress.say(SEARCHING)
    found = oracle(_whole(scenario), deployment_of(scenario))
    return oracle_scenario(scenario, [list(step) for step in found.schedule])


def bounds_of(
    scenario: Scenario,
    result: Result,
    progress: Progress,
    *,
    asked: bool | None,
    attainable_ratio: float | None,
) -> dict[str, Any]:
    """The oracle's entries of summary.json, for the attainment that the run reached.

    Unasked, only a small trace is searched, and not for long.
    """
    if asked is False:
        return _entries("left out (--no-oracle)")
    if not attainable_ratio:
        return _entries("not searched: no request can meet the objectives")
    small = result.score.requests <= REQUESTS_UNASKED_MAX
    if not (small if asked is None else asked):
        return _entries("not searched: --oracle does, in some minutes")
    if (why := _unknown(scenario)) is not None:
        return _entries(why)
    progress.say(SEARCHING)
    brief = min(REQUESTS_REPLAYED_UNASKED // result.score.requests, REPLAYS_UNASKED_MAX)
    found = oracle(
        _whole(scenario),
        deployment_of(scenario),
        attainment_ratio=result.score.slo_attainment_ratio,
        replays_max=None if asked else brief,
        known=[(change.at_s, change.after) for change in result.changes],
    )
    if not found.reached:
        return _entries("no schedule found attains what the run did", bound=found.bound_gpu_hours)
    return _entries(
        "a short search: --oracle looks longer" if asked is None else "",
        hours=found.gpu_hours,
        bound=found.bound_gpu_hours,
        over=result.score.gpu_hours / found.gpu_hours if found.gpu_hours > 0.0 else None,
    )


def _entries(
    note: str,
    *,
    hours: float | None = None,
    bound: float | None = None,
    over: float | None = None,
) -> dict[str, Any]:
    return {
        "oracle_gpu_hours": hours,
        "oracle_bound_gpu_hours": bound,
        "gpu_hours_over_oracle": over,
        "oracle_note": note,
    }


def _unknown(scenario: Scenario) -> str | None:
    """Why a search would be of another fleet than the run; None where it would not."""
    if scenario.faults:
        return "not known of a run with faults"
    if scenario.sessions is not None:
        return "not known of a run with conversations"
    if scenario.scaled_object.replicas_min == 0:
        return "not known where a gateway wakes the target: a schedule cannot tell when"
    return None


def _whole(scenario: Scenario) -> Requests:
    """The trace as it was played."""
    chunks = scale(scenario.requests, load_factor=scenario.load_factor, seed=scenario.seed)
    whole = join(list(chunks))
    until_s = scenario.until_s
    return whole if until_s is None else whole.pick(whole.arrival_s < until_s)
