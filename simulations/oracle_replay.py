"""A schedule replayed: the fleet and the commands alone, with all that a run pays.

Victims, start-ups, routing and drains are those of a run; nothing is scraped and nobody decides, so
that a replay costs hardly more than the kernel.  What it reports is cut into blocks of time, since
a change of the schedule acts on its neighbourhood: many changes far apart are tried in one replay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scaler.errors import ScenarioError
from simulations.attainable import Objectives, good_outcomes
from simulations.cluster import Fleet
from simulations.lifecycle import GpuPool, Usage, VictimChoice, replicaset_choice
from simulations.replica import ReplicaModel, Routing
from simulations.score import last_ended_s
from simulations.trace_chunks import Floats, Requests

SLOTS_FIRST = 64
END_EVERY_S = 15.0  # how often a fleet is looked at after the last arrival
OVERTIME_MAX_S = 30 * 86400.0

Step = tuple[float, int]  # from at_s on, this many replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a schedule commands: the fleet of a scenario without what decides."""

    model: ReplicaModel
    objectives: Objectives
    replicas_first: int = 1
    replicas_min: int = 1
    replicas_max: int = 64
    gpus: GpuPool = field(default_factory=GpuPool)
    routing: Routing = Routing.LEAST_REQUESTS
    victims: VictimChoice = replicaset_choice
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a schedule came to: by block of ``block_s`` and as a whole.

    ``misses`` counts requests by the block they arrived in, ``replica_s`` is the time replicas held
    their GPUs by the block it fell into, its last entry all after the last block.  ``waiting`` and
    ``running`` requests and ``ready`` replicas are those at the end of each block.
    """

    misses: Floats
    replica_s: Floats
    waiting: Floats
    running: Floats
    ready: Floats
    requests: int
    gpu_hours: float

    @property
    def attainment_ratio(self) -> float:
        """Share of all requests that were good."""
        return 1.0 - float(self.misses.sum()) / self.requests


def replay(
    requests: Requests, deployment: Deployment, schedule: Sequence[Step], *, block_s: float
) -> Replay:
    """Play ``schedule`` until the last request has ended.

    Raises:
        ScenarioError: requests never end.
    """
    return _Replay(requests, deployment, block_s).play(schedule)


class _Replay:
    """One fleet, its requests loaded block by block."""

    def __init__(self, requests: Requests, deployment: Deployment, block_s: float) -> None:
        self._requests = requests
        self._deployment = deployment
        self._block_s = block_s
        self._last_s = float(requests.arrival_s[-1])
        self._blocks = int(self._last_s // block_s) + 1
        self._misses = np.zeros(self._blocks)
        self._held_s = np.zeros(self._blocks + 1)
        self._waiting = np.zeros(self._blocks)
        self._running = np.zeros(self._blocks)
        self._ready = np.zeros(self._blocks)
        self._loaded = 0
        self._last_ended_s = 0.0
        self._fleet = Fleet(
            model=deployment.model,
            seed=deployment.seed,
            routing=deployment.routing,
            gpus=deployment.gpus,
            max_slots=min(deployment.replicas_max, SLOTS_FIRST),
        )
        self._fleet.start_warm(deployment.replicas_first)

    def play(self, schedule: Sequence[Step]) -> Replay:
        changes = iter([*schedule, (np.inf, 0)])
        at_s, count = next(changes)
        for block in range(self._blocks):
            end_s = (block + 1) * self._block_s
            self._load_until(end_s)
            while at_s < end_s:
                self._set(at_s, count)
                at_s, count = next(changes)
            self._fleet.advance(end_s)
            self._note(block)
            self._note_backlog(block)
        while not self._fleet.idle:
            next_s = self._fleet.now_s + END_EVERY_S
            while at_s <= next_s:
                self._set(at_s, count)
                at_s, count = next(changes)
            self._fleet.advance(next_s)
            self._check_end()
        self._note(self._blocks)
        # As in a run, time counts until the last request has ended.
        usage = self._fleet.usage(until_s=self._last_ended_s)
        self._held_s[self._blocks] = usage.replica_hours * 3600.0
        return self._result(usage)

    def _load_until(self, at_s: float) -> None:
        end = int(np.searchsorted(self._requests.arrival_s, at_s, side="right"))
        part = self._requests.pick(slice(self._loaded, end))
        self._loaded = end
        self._fleet.load(
            arrival_at_s=part.arrival_s,
            prompt_tokens=part.prompt_tokens,
            output_tokens=part.output_tokens,
        )

    def _set(self, at_s: float, count: int) -> None:
        self._fleet.advance(max(at_s, self._fleet.now_s))
        victims = self._deployment.victims
        self._fleet.set_replicas(count, now_s=self._fleet.now_s, victims=victims)

    def _note(self, block: int) -> None:
        ended = self._fleet.take_outcomes()
        missed = ended[~good_outcomes(ended, self._deployment.objectives)]
        arrived_in = (missed["arrival_at_s"] // self._block_s).astype(np.int64)
        self._misses += np.bincount(arrived_in, minlength=self._blocks)
        self._last_ended_s = max(self._last_ended_s, last_ended_s(ended))
        self._held_s[block] = self._fleet.usage().replica_hours * 3600.0

    def _note_backlog(self, block: int) -> None:
        seen = self._fleet.counters()
        self._waiting[block] = seen.gateway_waiting + seen.values["requests_waiting"].sum()
        self._ready[block] = np.count_nonzero(~seen.draining)
        self._running[block] = seen.values["requests_running"].sum()

    def _check_end(self) -> None:
        if self._fleet.now_s - self._last_s > OVERTIME_MAX_S:
            raise ScenarioError(
                f"requests still wait {OVERTIME_MAX_S / 86400.0:.0f} days after the last arrival"
                " under the oracle's schedule"
            )

    def _result(self, usage: Usage) -> Replay:
        return Replay(
            misses=self._misses,
            replica_s=np.diff(self._held_s, prepend=0.0),
            waiting=self._waiting,
            running=self._running,
            ready=self._ready,
            requests=len(self._requests),
            gpu_hours=usage.gpu_hours,
        )
