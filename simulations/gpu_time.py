"""The GPU time of a fleet: what its replicas have held, and what they waited for."""

from collections import deque
from collections.abc import Iterable

from simulations.fleet_members import Member
from simulations.lifecycle import Phase, Usage

ENDS_MAX = 1 << 14  # more spans than end between the last request and the next look at the fleet


class GpuTime:
    """Sums of the spans that are over; the newest are remembered, so that a sum can end before."""

    def __init__(self) -> None:
        self._held_s = self._pending_s = 0.0
        self._ends: deque[tuple[float, float, bool]] = deque(maxlen=ENDS_MAX)

    def held(self, began_s: float, ended_s: float) -> None:
        """A replica held its GPUs."""
        self._held_s += ended_s - began_s
        self._ends.append((ended_s, began_s, False))

    def pended(self, began_s: float, ended_s: float) -> None:
        """A replica waited for GPUs."""
        self._pending_s += ended_s - began_s
        self._ends.append((ended_s, began_s, True))

    def usage(self, members: Iterable[Member], *, gpus: int, end_s: float) -> Usage:
        """Up to ``end_s``, ``gpus`` a replica; ``members`` are the replicas that are there."""
        held_s, pending_s = self._held_s, self._pending_s
        for ended_s, began_s, pending in reversed(self._ends):
            if ended_s <= end_s:
                break
            over_s = ended_s - max(began_s, end_s)
            if pending:
                pending_s -= over_s
            else:
                held_s -= over_s
        for member in members:
            if member.phase == Phase.PENDING:
                pending_s += max(end_s - member.created_at_s, 0.0)
            else:
                held_s += max(end_s - member.scheduled_at_s, 0.0)
        return Usage(
            gpu_hours=gpus * held_s / 3600.0,
            pending_gpu_hours=gpus * pending_s / 3600.0,
            replica_hours=held_s / 3600.0,
        )
