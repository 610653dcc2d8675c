"""What moves spec.replicas in a run: our daemon through KEDA, a peer, or a schedule.

A run knows nothing of policies.  It tells its controller what Prometheus and DCGM have read, asks
when it wants to act next, and sets the count that it answers.  A controller sees only what its
counterpart in a cluster would see: the last scrape, Kubernetes' view of the replicas, or, where the
real one asks pods or a proxy of its own, the counters of this instant.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from scaler.core.model import Decision, Replicas
from simulations.fleet_counters import FleetCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What can be seen at ``now_s``.

    ``replicas`` is what the Kubernetes API shows (``wanted`` is spec.replicas, ``current``
    status.replicas); ``ready`` are the uids of the replicas that are ready.  ``scrape`` is the last
    one by Prometheus, None before the first; ``gpu_ratio`` the DCGM utilisation in it, by uid, None
    before the exporter has a value.  ``live`` reads the counters of this instant, for a controller
    that asks pods itself or counts requests in a proxy.
    """

    now_s: float
    replicas: Replicas
    ready: Sequence[int]
    scrape: FleetCounters | None
    gpu_ratio: Mapping[int, float] | None
    live: Callable[[], FleetCounters]


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
