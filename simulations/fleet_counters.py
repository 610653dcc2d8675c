"""What the metrics pages of a fleet's replicas would show."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulations.engine_layout import COUNTERS, Ints, Records, State, raw


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCounters:
    """The metrics of every replica that serves (ready or draining), one row each.

    ``values`` has the fields of ``engine_layout.COUNTERS``; the bucket arrays are per bucket, not
    cumulative, one column more than the bounds of ``engine_layout``.
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


def read_counters(state: State, *, at_s: float, slots: Ints, uids: Ints) -> FleetCounters:
    """Copies of the counters of the replicas in ``slots``, whose ids are ``uids``."""
    return FleetCounters(
        at_s=at_s,
        uids=uids,
        draining=state.replicas["draining"][slots].astype(np.bool_),
        values=raw(state.counters)[slots].view(COUNTERS),
        ttft_buckets=state.ttft_buckets[slots],
        itl_buckets=state.itl_buckets[slots],
        e2e_buckets=state.e2e_buckets[slots],
        queue_buckets=state.queue_buckets[slots],
        iteration_buckets=state.iteration_buckets[slots],
        kv_blocks_usable=int(state.params["blocks_total"][0]),
        gateway_waiting=int(state.clock["gateway_waiting"][0]),
        gateway_rejections=int(state.clock["gateway_rejections"][0]),
    )
