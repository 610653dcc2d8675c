"""One policy on one trace, as a job.

A module of its own, so that a kept run depends on the source that it runs and on nothing else: not
on the oracle, nor on how runs are compared.
"""

from dataclasses import dataclass, field

from scaler.errors import ScenarioError
from simulations.controller import Clock
from simulations.run import simulate
from simulations.run_cache import Json
from simulations.scenario import Scenario
from simulations.summary import summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One policy on one trace; the scenario's requests are a ``StoredTrace``.

    ``clock`` measures the run and changes nothing in it.
    """

    name: str = field(compare=False)
    scenario: Scenario
    clock: Clock | None = field(default=None, compare=False)


def run_one(run: Run) -> Json:
    """The summary of a run, as in summary.json; ``{"fault": why}`` where it never ends."""
    try:
        result = simulate(run.scenario, clock=run.clock)
    except ScenarioError as error:
        return {"fault": str(error)}
    return summary(run.scenario, result)
