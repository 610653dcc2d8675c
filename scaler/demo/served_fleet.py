"""The simulated fleet on the demonstration's clock, and what became of its requests."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.demo.scenario import GPUS_PER_NODE, Scenario
from simulations.cluster import Fleet
from simulations.engine_layout import Records
from simulations.fleet_counters import FleetCounters
from simulations.lifecycle import GpuPool, ReplicaView
from simulations.request_ring import RequestStatus

Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Requests so far.  Those whose first token may still be in time are not ``answered``."""

    arrived: int
    answered: int  # it is known whether the first token came in time
    within_slo: int
    gpu_hours: float

    @property
    def within_ratio(self) -> float:
        """Share of the answered requests within the objective; 1 where there are none."""
        return self.within_slo / self.answered if self.answered else 1.0


class ServedFleet:
    """A fleet whose requests arrive as the scenario says; times are of the caller's clock."""

    def __init__(self, scenario: Scenario, *, start_at_s: float) -> None:
        self.scenario = scenario
        self.start_at_s = start_at_s
        self._fleet = Fleet(
            model=scenario.model,
            seed=scenario.seed,
            gpus=GpuPool(total=scenario.nodes * GPUS_PER_NODE),
        )
        self._fleet.start_warm(scenario.replicas_first)
        self._fleet.load(
            arrival_at_s=scenario.requests.arrival_s,
            prompt_tokens=scenario.requests.prompt_tokens,
            output_tokens=scenario.requests.output_tokens,
        )

    def advance(self, now_s: float) -> None:
        """Let everything happen up to ``now_s``; a time that has passed changes nothing."""
        at_s = now_s - self.start_at_s
        if at_s > self._fleet.now_s:
            self._fleet.advance(at_s)

    def set_replicas(self, count: int) -> None:
        """Want ``count`` replicas; victims are those a ReplicaSet would choose."""
        self._fleet.set_replicas(count, now_s=self._fleet.now_s)

    def replicas(self) -> list[ReplicaView]:
        """Every replica that is not gone."""
        return self._fleet.replicas()

    def counters(self, now_s: float) -> FleetCounters:
        """What the pages of the replicas show at ``now_s``."""
        self.advance(now_s)
        return self._fleet.counters()

    def arrivals(self, after_s: float, until_s: float) -> int:
        """Requests that arrived after ``after_s``, up to ``until_s``."""
        edges = np.array([after_s, until_s]) - self.start_at_s
        low, high = np.searchsorted(self.scenario.requests.arrival_s, edges, side="right")
        return int(high - low)

    def score(self) -> Score:
        """What became of the requests up to now.

        The fleet keeps all of them: a demonstration has some ten thousands.
        """
        requests = self._fleet.all_outcomes()
        now_s = self._fleet.now_s
        arrived = requests[requests["arrival_at_s"] <= now_s]
        good, missed = judged(arrived, now_s, self.scenario.ttft_slo_s)
        return Score(
            arrived=len(arrived),
            answered=int(good.sum() + missed.sum()),
            within_slo=int(good.sum()),
            gpu_hours=self._fleet.usage().gpu_hours,
        )


def judged(requests: Records, now_s: float, slo_s: float) -> tuple[Bools, Bools]:
    """Masks of the requests that met the objective, and of those that can no longer.

    Rejected and cut ones miss it.  ``now_s`` is on the clock of the arrivals.
    """
    waited_s = requests["first_token_at_s"] - requests["arrival_at_s"]
    waiting = np.isnan(waited_s) | (waited_s < 0.0)
    status = requests["status"]
    lost = (status != RequestStatus.PENDING) & (status != RequestStatus.COMPLETED)
    good = ~lost & ~waiting & (waited_s <= slo_s)
    late = ~waiting & (waited_s > slo_s)
    hopeless = waiting & (now_s - requests["arrival_at_s"] > slo_s)
    return good, lost | late | hopeless
