"""What the metrics pages of a fleet's replicas would show."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulations import engine
from simulations.engine_layout import (
    CLOCK,
    COUNTERS,
    METRIC_WORDS,
    Ints,
    Records,
    State,
    metric_part,
)

Flags = npt.NDArray[np.bool_]

_PLACE = {name: place for place, name in enumerate(CLOCK.names or ())}
_BUSY = (COUNTERS.names or ()).index("busy_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Which slots serve, and whose they are: ``rows`` picks them from an array by slot."""

    uids: Ints
    names: tuple[int, ...]  # the same as ``uids``
    draining: Flags
    slots: Ints
    rows: Ints | slice

    @classmethod
    def of(cls, slots: list[int], uids: list[int], draining: list[bool]) -> "Serving":
        """Slots in a row are taken at once instead of one by one."""
        places = np.array(slots, dtype=np.int64)
        in_a_row = slots == list(range(len(slots)))
        return cls(
            uids=np.array(uids, dtype=np.int64),
            names=tuple(uids),
            draining=np.array(draining, dtype=np.bool_),
            slots=places,
            rows=slice(0, len(slots)) if in_a_row else places,
        )


class FleetCounters:
    """The metrics of every replica that serves (ready or draining), one row each.

    ``values`` has the fields of ``engine_layout.COUNTERS``; the bucket arrays are per bucket, not
    cumulative, one column more than the bounds of ``engine_layout``.  ``gateway_requests`` counts
    every request that has arrived in front of the fleet.

    It is one copy of the fleet's memory; each array is picked from it when it is asked for, since
    a run reads its fleet some ten thousand times and few look at all of it.
    """

    __slots__ = ("at_s", "kv_blocks_usable", "metrics", "serving")

    def __init__(
        self,
        *,
        at_s: float,
        uids: Ints,
        draining: Flags,
        values: Records,
        ttft_buckets: Ints,
        itl_buckets: Ints,
        e2e_buckets: Ints,
        queue_buckets: Ints,
        iteration_buckets: Ints,
        kv_blocks_usable: int,
        gateway_waiting: int,
        gateway_rejections: int,
        gateway_requests: int = 0,
    ) -> None:
        """Counters of a fleet that is not simulated."""
        clock = np.zeros(1, dtype=CLOCK)
        clock["gateway_waiting"] = gateway_waiting
        clock["gateway_rejections"] = gateway_rejections
        clock["arrivals_routed"] = gateway_requests
        words = np.ascontiguousarray(values).view(np.int64)
        buckets = (ttft_buckets, itl_buckets, e2e_buckets, queue_buckets, iteration_buckets)
        self.at_s = at_s
        self.kv_blocks_usable = kv_blocks_usable
        self.serving = Serving.of(list(range(len(uids))), uids.tolist(), draining.tolist())
        self.metrics: Ints = np.concatenate(
            [clock.view(np.int64), words, *(part.reshape(-1) for part in buckets)]
        )

    @classmethod
    def read(
        cls, state: State, *, at_s: float, serving: Serving, kv_blocks_usable: int
    ) -> "FleetCounters":
        """Those of the simulated replicas that serve."""
        made = cls.__new__(cls)
        made.at_s = at_s
        made.serving = serving
        made.kv_blocks_usable = kv_blocks_usable
        made.metrics = state.metrics.copy()
        return made

    @property
    def uids(self) -> Ints:
        """Whose rows they are."""
        return self.serving.uids

    @property
    def draining(self) -> Flags:
        """Which replicas get no further requests."""
        return self.serving.draining

    @property
    def values(self) -> Records:
        """Gauges and counters."""
        whole = metric_part(self.metrics, "counters").reshape(-1).view(COUNTERS)
        rows: Records = whole[self.serving.rows]
        return rows

    @property
    def busy_s(self) -> list[float]:
        """The counter of that name alone, which is cheaper than a column of ``values``."""
        whole = metric_part(self.metrics, "counters")[:, _BUSY].view(np.float64)
        rows: list[float] = whole[self.serving.rows].tolist()
        return rows

    @property
    def ttft_buckets(self) -> Ints:
        """Time to first token."""
        return self._part("ttft_buckets")

    @property
    def itl_buckets(self) -> Ints:
        """Time between tokens."""
        return self._part("itl_buckets")

    @property
    def e2e_buckets(self) -> Ints:
        """Time of a whole request."""
        return self._part("e2e_buckets")

    @property
    def queue_buckets(self) -> Ints:
        """Time in the queue."""
        return self._part("queue_buckets")

    @property
    def iteration_buckets(self) -> Ints:
        """Tokens of an engine step."""
        return self._part("iteration_buckets")

    @property
    def gateway_waiting(self) -> int:
        """Requests held for want of a ready replica."""
        return int(self.metrics[_PLACE["gateway_waiting"]])

    @property
    def gateway_rejections(self) -> int:
        """Requests refused for want of a ready replica."""
        return int(self.metrics[_PLACE["gateway_rejections"]])

    @property
    def gateway_requests(self) -> int:
        """Every request that has arrived in front of the fleet."""
        return int(self.metrics[_PLACE["arrivals_routed"]])

    def sums(self, slots: Ints) -> Ints:
        """Over these places of ``serving.slots``: see ``engine.sum_metrics``."""
        found: Ints = np.empty(engine.SUMS, dtype=np.int64)
        engine.sum_metrics(self.metrics, slots, found)
        return found

    def only(self, which: Flags) -> "FleetCounters":
        """The rows of the replicas that a mask picks."""
        return FleetCounters(
            at_s=self.at_s,
            uids=self.uids[which],
            draining=self.draining[which],
            values=self.values[which],
            **{name: self._part(name)[which] for name in METRIC_WORDS if name != "counters"},
            kv_blocks_usable=self.kv_blocks_usable,
            gateway_waiting=self.gateway_waiting,
            gateway_rejections=self.gateway_rejections,
            gateway_requests=self.gateway_requests,
        )

    def _part(self, name: str) -> Ints:
        part: Ints = metric_part(self.metrics, name)[self.serving.rows]
        return part
