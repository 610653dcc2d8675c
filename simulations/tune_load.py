"""What a trace holds, before it is searched."""

from dataclasses import dataclass

import numpy as np

from scaler.errors import ScenarioError
from simulations.attainable import Objectives, attainable_flags
from simulations.scenario import Scenario
from simulations.tune_parts import Role, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A trace as far as it is played; superposing changes none of the shares."""

    duration_s: float
    requests: int
    good: int


def loaded(scenario: Scenario) -> Loaded:
    """Read a trace as far as it is played.

    Raises:
        ScenarioError: it has a fault, or no request in that time.
    """
    slo = scenario.policy.config.slo
    objectives = Objectives(ttft_s=slo.ttft_s, tpot_s=slo.tpot_s)
    until_s = np.inf if scenario.until_s is None else scenario.until_s
    last_s, requests, good = 0.0, 0, 0
    for chunk in scenario.requests:
        played = chunk.pick(chunk.arrival_s < until_s)
        if len(played):
            last_s = float(played.arrival_s[-1])
        requests += len(played)
        good += int(np.count_nonzero(attainable_flags(played, scenario.model, objectives)))
    if not requests:
        raise ScenarioError("a trace has no request in the time that is played")
    return Loaded(duration_s=last_s, requests=requests, good=good)


def searched_per_s(scenario: Scenario, part: Split) -> float:
    """Mean rate of the searched part of a trace, as it is played."""
    until_s = min(part.until_s(Role.TRAIN), scenario.until_s or np.inf)
    counts = np.zeros(len(part.roles), dtype=np.int64)
    for chunk in scenario.requests:
        arrival_s = chunk.arrival_s[chunk.arrival_s < until_s]
        places = np.minimum(arrival_s // part.block_s, len(counts) - 1).astype(np.int64)
        counts += np.bincount(places, minlength=len(counts))
    searched = int(counts[list(part.blocks(Role.TRAIN))].sum())
    return scenario.load_factor * searched / part.seconds(Role.TRAIN)
