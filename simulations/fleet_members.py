"""One replica of a fleet, the events of its life, and what the phases of all come to."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from scaler.core.model import Replicas, make_replicas
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
            serving=Serving.of(
                [r.slot for r in serving],
                [r.uid for r in serving],
                [r.phase == Phase.DRAINING for r in serving],
            ),
        )


def shown(
    seen: FleetStatus,
    start_ups: Sequence[tuple[float, float]],
    since_s: float,
    *,
    now_s: float,
    wanted: int,
    gpus_per_replica: int,
    gpus_allocatable: int | None,
    bounds: tuple[int | None, int | None],
) -> Replicas:
    """What the Kubernetes API shows at ``now_s``.

    ``start_ups`` are (ready_at_s, duration_s), ascending; told are those after ``since_s``.
    """
    return make_replicas(
        seen_at_s=now_s,
        wanted=wanted,
        current=seen.current,
        ready=len(seen.ready),
        starting_age_s=tuple([now_s - created_s for created_s in seen.starting_since_s]),
        unschedulable=seen.unschedulable,
        crash_looping=seen.crash_looping,
        terminating=seen.terminating,
        start_up_s=_between(start_ups, since_s, now_s),
        replicas_min=bounds[0],
        replicas_max=bounds[1],
        gpus_per_replica=gpus_per_replica,
        gpus_allocatable=gpus_allocatable,
    )


def _between(
    start_ups: Sequence[tuple[float, float]], since_s: float, until_s: float
) -> tuple[float, ...]:
    if not start_ups or start_ups[-1][0] <= since_s:
        return ()
    recent = itertools.takewhile(lambda start: start[0] > since_s, reversed(start_ups))
    return tuple(reversed([took_s for at_s, took_s in recent if at_s <= until_s]))


class Event(IntEnum):
    """What is due in a replica's life."""

    STARTED = 0  # the start-up is over: ready, or crashed
    RESTART = 1  # the back-off is over
    GRACE_OVER = 2
    NODE_READY = 3
