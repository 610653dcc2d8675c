"""One replica of a fleet, the events of its life, and what the phases of all come to."""

from dataclasses import dataclass
from enum import IntEnum

from simulations.fleet_counters import Serving
from simulations.lifecycle import Phase, ReplicaView


@dataclass(slots=True, kw_only=True)
class Member:
    """One pod, or one group of pods that serves as one."""

    uid: int
    created_at_s: float
    phase: Phase = Phase.PENDING
    scheduled_at_s: float = 0.0
    ready_at_s: float | None = None
    restarts: int = 0
    slot: int = -1

    def view(self) -> ReplicaView:
        """What a controller that picks victims sees."""
        return ReplicaView(
            uid=self.uid,
            phase=self.phase,
            created_at_s=self.created_at_s,
            ready_at_s=self.ready_at_s,
            restarts=self.restarts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """What follows from the phases of all replicas, and stays while no phase changes."""

    ready: tuple[int, ...]
    current: int
    starting_since_s: tuple[float, ...]
    unschedulable: int
    crash_looping: int
    terminating: int
    serving: Serving

    @classmethod
    def of(cls, replicas: list[Member]) -> "FleetStatus":
        """What the phases of ``replicas``, in order of creation, come to."""
        phases = [r.phase for r in replicas]
        terminating = phases.count(Phase.DRAINING)
        serving = [r for r in replicas if r.slot >= 0]
        return cls(
            ready=tuple([r.uid for r in replicas if r.phase == Phase.READY]),
            current=len(phases) - terminating,
            starting_since_s=tuple([r.created_at_s for r in replicas if r.phase == Phase.STARTING]),
            unschedulable=phases.count(Phase.PENDING),
            crash_looping=phases.count(Phase.CRASH_LOOPING),
            terminating=terminating,
            serving=Serving.of([r.slot for r in serving], [r.uid for r in serving]),
        )


class Event(IntEnum):
    """What is due in a replica's life."""

    STARTED = 0  # the start-up is over: ready, or crashed
    RESTART = 1  # the back-off is over
    GRACE_OVER = 2
    NODE_READY = 3
