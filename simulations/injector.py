"""Makes the faults of a scenario happen, and says what can still be seen."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from scaler.core.model import Cause, NoData
from simulations.cluster import Fleet
from simulations.faults import Fault, FaultKind
from simulations.fleet_counters import FleetCounters
from simulations.streams import generator


class Injector:
    """Makes the faults of one run happen."""

    def __init__(self, faults: Sequence[Fault], fleet: Fleet, *, seed: int) -> None:
        """``fleet`` is changed at the times of the faults."""
        self._faults = tuple(faults)
        self._fleet = fleet
        self._seed = seed
        self._sick: dict[int, int] = {}  # the replica of a fault, by the fault's place
        edges = {edge for fault in faults for edge in (fault.from_s, fault.to_s)}
        self._edges = sorted(edges, reverse=True)
        self.next_at_s = self._next_s()  # when ``act`` is to be called next; infinity for never
        self._mislabelled = False  # as of the last scrape

    def act(self, now_s: float) -> None:
        """Let begin and end what is due."""
        self._edges.pop()
        self.next_at_s = self._next_s()
        crash = [f.amount for f in self._of(FaultKind.CRASH_LOOP, now_s)]
        limits = [int(f.amount) for f in self._of(FaultKind.GPU_LIMIT, now_s)]
        self._fleet.inject_crashes(max(crash, default=None))
        self._fleet.limit_gpus(min(limits, default=None), now_s=now_s)
        for place, fault in enumerate(self._faults):
            if fault.kind is not FaultKind.SICK_REPLICA:
                continue
            ready = self._fleet.ready
            if fault.from_s == now_s and ready:
                self._sick[place] = ready[0]
                self._fleet.slow_down(ready[0], fault.amount)
            elif fault.to_s == now_s and (uid := self._sick.pop(place, -1)) in ready:
                self._fleet.slow_down(uid, 1.0)

    def _next_s(self) -> float:
        return self._edges[-1] if self._edges else math.inf

    def scraped(self, counters: FleetCounters) -> FleetCounters | None:
        """What Prometheus has of the engines after a scrape; None while it is down."""
        now_s = counters.at_s
        if not self._faults:
            return counters
        if self._of(FaultKind.PROMETHEUS_OUTAGE, now_s):
            return None
        self._mislabelled = bool(self._of(FaultKind.BLIND_LABEL, now_s))
        if self._mislabelled:
            return counters.only(np.zeros(len(counters.uids), dtype=np.bool_))
        for gap in self._of(FaultKind.SCRAPE_GAP, now_s):
            counters = counters.only(self._reached(counters, gap))
        return counters

    def _reached(self, counters: FleetCounters, gap: Fault) -> npt.NDArray[np.bool_]:
        """Which replicas answer a scrape; the same ones for as long as the gap lasts."""
        if gap.amount >= 1.0:
            return np.zeros(len(counters.uids), dtype=np.bool_)
        place = self._faults.index(gap)
        drawn = [generator(self._seed, "scrape_gap", place, uid).random() for uid in counters.uids]
        return np.array(drawn) >= gap.amount

    def failure(self, now_s: float) -> NoData | None:
        """What a query of the daemon comes to where it finds nothing; None where it may find."""
        if not self._faults:
            return None
        if self._of(FaultKind.PROMETHEUS_OUTAGE, now_s):
            return NoData(cause=Cause.UNREACHABLE, detail="Prometheus does not answer")
        if self._mislabelled:
            return NoData(cause=Cause.NO_MATCH, detail="series exist under another model_name")
        return None

    def names(self, now_s: float) -> str:
        """The kinds of the faults that are there, for a row of the timeline."""
        if not self._faults:
            return ""
        return "+".join(sorted({fault.kind.value for fault in self._faults if fault.holds(now_s)}))

    def _of(self, kind: FaultKind, now_s: float) -> list[Fault]:
        return [f for f in self._faults if f.kind is kind and f.holds(now_s)]
