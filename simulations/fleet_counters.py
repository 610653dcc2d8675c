"""What the metrics pages of a fleet's replicas would show."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simulations.engine_layout import COUNTERS, Ints, Records, State, raw

_BY_REPLICA = (
    "uids", "draining", "values", "ttft_buckets", "itl_buckets", "e2e_buckets", "queue_buckets",
    "iteration_buckets",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCounters:
    """The metrics of every replica that serves (ready or draining), one row each.

    ``values`` has the fields of ``engine_layout.COUNTERS``; the bucket arrays are per bucket, not
    cumulative, one column more than the bounds of ``engine_layout``.  ``gateway_requests`` counts
    every request that has arrived in front of the fleet.
    """

    at_s: float
    uids: Ints
    draining: npt.NDArray[np.bool_]
    values: Records
    ttft_buckets: Ints
    itl_buckets: Ints
    e2e_buckets: Ints
    queue_buckets: Ints
    iteration_buckets: Ints
    kv_blocks_usable: int
    gateway_waiting: int
    gateway_rejections: int
    gateway_requests: int = 0

    def only(self, which: npt.NDArray[np.bool_]) -> "FleetCounters":
        """The rows of the replicas that a mask picks."""
        picked = {name: getattr(self, name)[which] for name in _BY_REPLICA}
        return replace(self, **picked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Which slots serve, and whose they are: ``rows`` picks them from an array by slot."""

    uids: Ints
    rows: Ints | slice

    @classmethod
    def of(cls, slots: list[int], uids: list[int]) -> "Serving":
        """Slots in a row are copied at once instead of one by one."""
        count = len(slots)
        in_a_row = slots == list(range(count))
        rows = slice(0, count) if in_a_row else np.array(slots, dtype=np.int64)
        return cls(uids=np.array(uids, dtype=np.int64), rows=rows)


def read_counters(state: State, *, at_s: float, serving: Serving) -> FleetCounters:
    """Copies of the counters of the replicas that serve."""
    rows = serving.rows
    return FleetCounters(
        at_s=at_s,
        uids=serving.uids,
        draining=state.replicas["draining"][rows].astype(np.bool_),
        values=raw(state.counters)[rows].copy().view(COUNTERS),
        ttft_buckets=state.ttft_buckets[rows].copy(),
        itl_buckets=state.itl_buckets[rows].copy(),
        e2e_buckets=state.e2e_buckets[rows].copy(),
        queue_buckets=state.queue_buckets[rows].copy(),
        iteration_buckets=state.iteration_buckets[rows].copy(),
        kv_blocks_usable=int(state.params["blocks_total"][0]),
        gateway_requests=int(state.clock["arrivals_routed"][0]),
        gateway_waiting=int(state.clock["gateway_waiting"][0]),
        gateway_rejections=int(state.clock["gateway_rejections"][0]),
    )
