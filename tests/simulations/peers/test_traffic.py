"""Totals through replicas that come and go, reckoned by hand."""

from collections.abc import Mapping

import numpy as np

from simulations.engine_layout import COUNTERS, TTFT_BOUNDS_S
from simulations.fleet_counters import FleetCounters
from simulations.peers.ticking import in_flight
from simulations.peers.traffic import Traffic, TrafficMeter, since


def _counters(rows: Mapping[int, tuple[int, int, int]], *, gateway: int = 0) -> FleetCounters:
    """By replica: running, finished, waiting; 100 prompt and 10 output tokens per finished one."""
    values = np.zeros(len(rows), dtype=COUNTERS)
    buckets = np.zeros((len(rows), len(TTFT_BOUNDS_S) + 1), dtype=np.int64)
    for row, (running, finished, waiting) in enumerate(rows.values()):
        values["requests_running"][row] = running
        values["finished_stop"][row] = finished
        values["requests_waiting"][row] = waiting
        values["prompt_tokens"][row] = 100 * finished
        values["generation_tokens"][row] = 10 * finished
        buckets[row, 3] = finished
    return FleetCounters(
        at_s=0.0,
        uids=np.array(list(rows), dtype=np.int64),
        draining=np.zeros(len(rows), dtype=np.bool_),
        values=values,
        ttft_buckets=buckets,
        itl_buckets=buckets,
        e2e_buckets=buckets,
        queue_buckets=buckets,
        iteration_buckets=buckets,
        kv_blocks_usable=1000,
        gateway_waiting=gateway,
        gateway_rejections=0,
    )


def test_what_was_there_before_the_first_look_does_not_count() -> None:
    meter = TrafficMeter()
    assert meter.look(_counters({0: (3, 50, 2)})) == Traffic()
    # 4 + 58 + 1 + 2 at the gateway = 65, 55 before
    assert meter.look(_counters({0: (4, 58, 1)}, gateway=2)) == Traffic(
        arrived=10.0, first_tokens=8.0, prompt_tokens=800.0, output_tokens=80.0
    )


def test_a_replica_that_is_gone_keeps_what_it_served() -> None:
    meter = TrafficMeter()
    meter.look(_counters({0: (0, 0, 0), 1: (0, 0, 0)}))
    before = meter.look(_counters({0: (1, 5, 0), 1: (0, 7, 0)}))
    after = meter.look(_counters({0: (1, 6, 0), 2: (2, 0, 0)}))
    assert before.arrived == 13.0
    assert after.arrived == 16.0, "7 of replica 1 stay, replica 0 has 7, the new one 2"
    assert since(before, after).first_tokens == 1.0


def test_a_proxy_counts_what_runs_waits_and_is_held() -> None:
    assert in_flight(_counters({0: (3, 50, 2), 1: (1, 0, 0)}, gateway=4)) == 10.0
