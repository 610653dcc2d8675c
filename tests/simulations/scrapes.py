"""Scrapes and views of a fleet that never was, for laws that are reckoned by hand."""

from collections.abc import Mapping, Sequence

import numpy as np

from scaler.core.hpa import HpaInput, Metric, Tolerances, propose
from scaler.core.model import NoData, Replicas
from simulations.controller import View
from simulations.engine_layout import (
    COUNTERS,
    ITERATION_BOUNDS_TOKENS,
    ITL_BOUNDS_S,
    REQUEST_BOUNDS_S,
    TTFT_BOUNDS_S,
)
from simulations.fleet_counters import FleetCounters
from simulations.peers.hpa_controller import Seen
from simulations.scrape_history import ScrapeHistory

BLOCKS = 100


def scrape(
    at_s: float,
    pages: Mapping[int, Mapping[str, float]],
    *,
    draining: Sequence[int] = (),
    ttft: Mapping[int, Mapping[float, int]] | None = None,
    queue_counts: Mapping[int, int] | None = None,
) -> FleetCounters:
    """``pages``: by replica, the fields of its page that are not 0.

    ``ttft`` has the count in the bucket with that upper bound, ``queue_counts`` all requests of the
    queue histogram.
    """
    uids = list(pages)
    values = np.zeros(len(uids), dtype=COUNTERS)
    ttft_buckets = np.zeros((len(uids), len(TTFT_BOUNDS_S) + 1), dtype=np.int64)
    queue_buckets = np.zeros((len(uids), len(REQUEST_BOUNDS_S) + 1), dtype=np.int64)
    for row, uid in enumerate(uids):
        for field, value in pages[uid].items():
            values[field][row] = value
        for bound_s, count in (ttft or {}).get(uid, {}).items():
            ttft_buckets[row, TTFT_BOUNDS_S.index(bound_s)] = count
        queue_buckets[row, 0] = (queue_counts or {}).get(uid, 0)
    return FleetCounters(
        at_s=at_s,
        uids=np.array(uids, dtype=np.int64),
        draining=np.array([uid in draining for uid in uids], dtype=np.bool_),
        values=values,
        ttft_buckets=ttft_buckets,
        itl_buckets=np.zeros((len(uids), len(ITL_BOUNDS_S) + 1), dtype=np.int64),
        e2e_buckets=np.zeros((len(uids), len(REQUEST_BOUNDS_S) + 1), dtype=np.int64),
        queue_buckets=queue_buckets,
        iteration_buckets=np.zeros((len(uids), len(ITERATION_BOUNDS_TOKENS) + 1), dtype=np.int64),
        kv_blocks_usable=BLOCKS,
        gateway_waiting=0,
        gateway_rejections=0,
    )


def history(*scrapes: FleetCounters) -> ScrapeHistory:
    made = ScrapeHistory()
    for one in scrapes:
        made.add(one)
    return made


def replicas(current: int, *, ready: int | None = None, unschedulable: int = 0) -> Replicas:
    return Replicas(
        seen_at_s=0.0,
        wanted=current,
        current=current,
        ready=current - unschedulable if ready is None else ready,
        unschedulable=unschedulable,
    )


def view(now_s: float, of: Replicas, failure: NoData | None = None) -> View:
    """The ready replicas have the uids 0, 1, 2, ..."""
    return View(
        now_s=now_s,
        acted_at_s=0.0,
        wanted=of.wanted,
        current=of.current,
        status=lambda since_s: of,
        ready=list(range(of.ready)),
        scrape=None,
        gpu_ratio=None,
        live=lambda: scrape(now_s, {}),
        failure=failure,
    )


def seen(
    of: Replicas,
    past: ScrapeHistory,
    *,
    now_s: float = 0.0,
    tolerances: Tolerances | None = None,
) -> Seen:
    return Seen(
        now_s=now_s, view=view(now_s, of), history=past, tolerances=tolerances or Tolerances()
    )


def proposal(
    metrics: Sequence[Metric], of: Replicas, *, tolerances: Tolerances | None = None
) -> int | None:
    """What the HPA makes of metrics, before its windows and limits."""
    read = HpaInput(
        spec_replicas=of.wanted,
        status_replicas=of.current,
        ready_pods=of.ready,
        metrics=tuple(metrics),
    )
    return propose(read, tolerances=tolerances or Tolerances())
