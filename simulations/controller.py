"""What moves spec.replicas in a run: our daemon through KEDA, a peer, or a schedule.

A run knows nothing of policies.  It tells its controller what Prometheus and DCGM have read, asks
when it wants to act next, and sets the count that it answers.  A controller sees only what its
counterpart in a cluster would see: the last scrape, Kubernetes' view of the replicas, or, where the
real one asks pods or a proxy of its own, the counters of this instant.

A controller is built anew for every run from a ``Context``, by a factory that is given in the
scenario's ``Policy`` or found by the policy's name in ``simulations.peers``.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from scaler.core.config import PolicyConfig
from scaler.core.made import maker
from scaler.core.model import Decision, NoData, Replicas
from simulations.fleet_counters import FleetCounters
from simulations.replica import ReplicaModel, Routing
from simulations.scaled_object import ClusterSpec, ScaledObjectSpec
from simulations.timing import Timing
from simulations.trace_chunks import Requests

NEVER_S = math.inf

Clock: TypeAlias = Callable[[], float]
"""Seconds of the machine, given by the caller: nothing here reads a clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What can be seen at ``now_s``.

    ``wanted`` is spec.replicas, ``current`` status.replicas, ``ready`` the uids of the replicas
    that are ready.  ``status`` reads all that the Kubernetes API shows at this instant, with the
    start-ups since the time it is given; ``acted_at_s`` is when the controller acted last.
    ``scrape`` is the last one by Prometheus, None before the
    first; ``gpu_ratio`` the DCGM utilisation in it, by uid, None before the exporter has a value.
    ``live`` reads the counters of this instant, for a controller that asks pods itself or counts
    requests in a proxy.  ``failure`` is why a query about the engines comes to nothing: Prometheus
    is down (``scrape`` and ``gpu_ratio`` are then None), or no series matches (``scrape`` then has
    no rows); None where queries are answered.
    """

    now_s: float
    acted_at_s: float
    wanted: int
    current: int
    ready: Sequence[int]
    status: Callable[[float], Replicas]
    scrape: FleetCounters | None
    gpu_ratio: Mapping[int, float] | None
    live: Callable[[], FleetCounters]
    failure: NoData | None = None

    @property
    def replicas(self) -> Replicas:
        """What the Kubernetes API shows; its start-ups are those since the controller acted."""
        return self.status(self.acted_at_s)


make_view = maker(View)


class Controller(Protocol):
    """Decides on a count at times of its own choice."""

    @property
    def next_at_s(self) -> float:
        """When ``act`` is to be called next; infinity for never."""

    def scraped(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None) -> None:
        """Prometheus has read every replica that serves; called at every scrape."""

    def act(self, view: View) -> int | None:
        """The count for spec.replicas from now on, or None to leave it; moves ``next_at_s`` on."""

    @property
    def decision(self) -> Decision | None:
        """The newest decision of the daemon's own policy; None for every other controller."""


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """What a run spends in ``decide``: seconds of ``clock``."""

    clock: Clock = field(default=lambda: 0.0)
    spent_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """All that a controller may know of a run before it begins.

    ``model`` is the true replica model: profile-driven peers derive their capacity from it, others
    read limits that an operator knows, such as max_num_seqs.  ``config`` has the objectives and
    what the daemon learns from the watched objects; ``scaled_object`` the bounds and the behaviour
    that we ship.  ``requests`` before ``until_s`` and ``routing`` are for benchmarks that are run
    before (``simulations.profile_capacity``): lengths may be taken from them, arrivals may not.
    """

    model: ReplicaModel
    config: PolicyConfig
    scaled_object: ScaledObjectSpec
    cluster: ClusterSpec
    timing: Timing
    seed: int
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    requests: Iterable[Requests] = ()
    until_s: float | None = None
    routing: Routing = Routing.LEAST_REQUESTS

    @property
    def replicas_min(self) -> int:
        """The lowest count that may be asked for."""
        return self.scaled_object.replicas_min

    @property
    def replicas_max(self) -> int:
        """The highest count that may be asked for."""
        return self.scaled_object.replicas_max


ControllerFactory: TypeAlias = Callable[[Context], Controller]


class StillController:
    """Never acts: a fixed count."""

    next_at_s = NEVER_S
    decision = None

    def scraped(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None) -> None:
        """Nobody looks."""

    def act(self, view: View) -> int | None:
        """Nothing."""
        return None
