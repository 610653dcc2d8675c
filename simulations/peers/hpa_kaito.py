"""KAITO's external scaler: one replica more or less every five minutes.

Each metric is compared with two thresholds; a composite of 2.0, 0.5 or 1.0 goes to an HPA with a
target of type Value, whose behavior allows one replica in 300 s.  The scaler reads the replicas'
pages itself, every 15 s as the run's scrapes do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaler.core.hpa import Behavior, Metric, MetricFailed, TargetType, Version, parse_behavior
from simulations.controller import Context
from simulations.engine_layout import Floats
from simulations.fleet_counters import FleetCounters
from simulations.peers.hpa_controller import BOTH, Law, Seen, external, hpa_driven
from simulations.peers.hpa_plain import WAITING
from simulations.peers.peer import Group, Peer, Setting
from simulations.scrape_history import ScrapeHistory, metric

QUEUE_WINDOW_S = 300.0
COVERAGE_MIN_RATIO = 0.8
UP_WAITING, UP_QUEUE_S = 10.0, 30.0
DOWN_WAITING, DOWN_QUEUE_S = 1.0, 1.0
QUEUE_SUM = metric("queue_sum_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Requests waiting on a replica, and mean seconds in the queue."""

    waiting: float
    queue_s: float

    def above(self, waiting: float, queue_s: float) -> bool:
        """Whether both values are above."""
        return waiting > self.waiting and queue_s > self.queue_s

    def below(self, waiting: float, queue_s: float) -> bool:
        """Whether both values are below."""
        return waiting < self.waiting and queue_s < self.queue_s


def mean_queue_s(history: ScrapeHistory, now_s: float) -> float | None:
    """Mean queue time of the last 300 s: growth of the sum over growth of the count.

    0 without a request; None while the scrapes cover less than 80 % of the window, which is asked
    of the service as a whole.
    """
    if history.span_s(window_s=QUEUE_WINDOW_S, now_s=now_s) < COVERAGE_MIN_RATIO * QUEUE_WINDOW_S:
        return None
    spent = history.growth(QUEUE_SUM, window_s=QUEUE_WINDOW_S, now_s=now_s).total
    served = history.growth(_scheduled, window_s=QUEUE_WINDOW_S, now_s=now_s).total
    return spent / served if served > 0.0 else 0.0


def kaito_law(seen: Seen, *, up: Thresholds, down: Thresholds, keda: Version) -> Sequence[Metric]:
    """2.0 if every replica is ready and both metrics are above ``up``, 0.5 if below ``down``."""
    queue_s = mean_queue_s(seen.history, seen.now_s)
    waiting = seen.history.now(WAITING, seen.now_s)
    if queue_s is None or not len(waiting.uids):
        return (MetricFailed(),)
    factor = 1.0
    if seen.ready >= seen.current and up.above(waiting.mean, queue_s):
        factor = 2.0
    elif down.below(waiting.mean, queue_s):
        factor = 0.5
    return (external(factor, 1.0, keda, target_type=TargetType.VALUE),)


def _scheduled(counters: FleetCounters) -> Floats:
    """Requests that have left the queue: the count of its histogram."""
    counts: Floats = counters.queue_buckets.sum(axis=1, dtype=np.float64)
    return counts


def _kaito(setting: Setting, context: Context) -> Law:
    """The knob moves both upper thresholds in proportion; the lower ones stay below them."""
    scale = setting.knob / UP_WAITING
    up = Thresholds(waiting=UP_WAITING * scale, queue_s=UP_QUEUE_S * scale)
    down = Thresholds(
        waiting=min(DOWN_WAITING, up.waiting / 2.0), queue_s=min(DOWN_QUEUE_S, up.queue_s / 2.0)
    )

    def law(seen: Seen) -> Sequence[Metric]:
        return kaito_law(seen, up=up, down=down, keda=context.cluster.keda)

    return law


KAITO_BEHAVIOR: Behavior | None = parse_behavior(
    {
        "scaleUp": {
            "stabilizationWindowSeconds": 60,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}],
        },
    }
)

PEERS = (
    Peer(
        name="kaito",
        group=Group.METRIC,
        knob="waiting requests a replica above which one is added (and 3 s of queue for each)",
        knob_default=UP_WAITING,
        knob_values=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        build=hpa_driven(_kaito, own=KAITO_BEHAVIOR),
        behaviours=BOTH,
    ),
)
