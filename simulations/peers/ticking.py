"""A controller of its own: a law that is asked every so many seconds and sets the count itself."""

from collections.abc import Mapping
from typing import Protocol

from simulations.controller import Context, View
from simulations.fleet_counters import FleetCounters
from simulations.streams import generator


class Law(Protocol):
    """Says what count it wants; sees what the view shows at that instant."""

    def desired(self, view: View) -> int | None:
        """The count wanted, or None for no opinion."""


class TickingController:
    """Asks ``law`` every ``every_s`` and sets what it says, within the bounds of the run.

    The first tick is at a phase drawn from the run's seed, so that no peer is lucky in the order of
    what happens.
    """

    decision = None

    def __init__(self, law: Law, context: Context, *, every_s: float) -> None:
        self._law = law
        self._every_s = every_s
        self._low = context.replicas_min
        self._high = context.replicas_max
        self.next_at_s = float(generator(context.seed, "peer_phase").random()) * every_s

    def scraped(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None) -> None:
        """Nothing: such a controller asks the replicas or a proxy of its own."""

    def act(self, view: View) -> int | None:
        """What the law wants, within the bounds."""
        self.next_at_s += self._every_s
        wanted = self._law.desired(view)
        return None if wanted is None else min(max(wanted, self._low), self._high)


def in_flight(counters: FleetCounters) -> float:
    """Requests that a proxy in front has passed on, or holds, and that have not ended."""
    values = counters.values
    served = values["requests_running"].sum() + values["requests_waiting"].sum()
    return float(served) + counters.gateway_waiting
