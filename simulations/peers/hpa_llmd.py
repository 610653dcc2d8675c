"""llm-d's KEDA guides: the SLO-aware law and the queue guard.

Both need llm-d's router; here their metrics are taken from the replicas' own pages, queue and
latencies as they are, which is the fallback the SLO-aware guide names itself.  Sources:
``guides/workload-autoscaling/README.slo-aware.md`` and
``keda-epp/.../queue-guard/scaledobject.yaml`` of llm-d/llm-d.
"""

import math
from collections import deque
from collections.abc import Sequence

from scaler.core.hpa import Behavior, Metric, Version, parse_behavior
from simulations.controller import Context, Controller
from simulations.peers.hpa_controller import (
    BOTH,
    HpaController,
    Law,
    Seen,
    external,
    hpa_driven,
    peer_hpa,
)
from simulations.peers.hpa_plain import RUNNING, WAITING
from simulations.peers.peer import Group, Peer, Setting
from simulations.scrape_history import ITL, TTFT, metric

ITL_SUM = metric("itl_sum_s")
RULES_EVERY_S = 15.0
RATE_WINDOW_S = 60.0
SMOOTHED_OVER_S = 45.0
SATURATION_MAX = 2.0
UP_ABOVE, DOWN_BELOW = 0.55, 0.40


class SaturationRule:
    """The recording rules: P90 latencies against their objectives, clamped, averaged over 45 s.

    The guide's objectives of 3 s and 0.1 s stand for the user's own: here they are the run's, and
    without one for the time per output token (0) that term is left out.  A request's mean time per
    output token has no histogram here; the mean gap between tokens stands for its P90, which it is
    closer to than the P90 of single gaps, most of which lie between two steps without a prefill.
    """

    def __init__(self, *, ttft_slo_s: float, tpot_slo_s: float, first_at_s: float) -> None:
        self.next_at_s = first_at_s
        self._ttft_slo_s = ttft_slo_s
        self._tpot_slo_s = tpot_slo_s
        self._recorded: deque[tuple[float, float]] = deque()

    def run(self, seen: Seen) -> None:
        """Record one sample."""
        self.next_at_s += RULES_EVERY_S
        if seen.unanswered:
            return
        raw = ttft_p90_s(seen) / self._ttft_slo_s
        if self._tpot_slo_s > 0.0:
            raw = max(raw, tpot_s(seen) / self._tpot_slo_s)
        self._recorded.append((seen.now_s, min(raw, SATURATION_MAX)))

    def saturation(self, now_s: float) -> float:
        """``avg_over_time`` of what was recorded; 0 before the first sample."""
        while self._recorded and self._recorded[0][0] <= now_s - SMOOTHED_OVER_S:
            self._recorded.popleft()
        values = [value for _, value in self._recorded]
        return sum(values) / len(values) if values else 0.0


def ttft_p90_s(seen: Seen) -> float:
    """Of the last minute; 0 without traffic."""
    found = seen.history.quantile(0.9, TTFT, window_s=RATE_WINDOW_S, now_s=seen.now_s)
    return 0.0 if math.isnan(found) else found


def tpot_s(seen: Seen) -> float:
    """Mean gap between tokens in the last minute; 0 without one."""
    spent, gaps = (
        seen.history.rate(series, window_s=RATE_WINDOW_S, now_s=seen.now_s)
        for series in (ITL_SUM, ITL.buckets)
    )
    count = float(gaps.values[:, -1].sum()) if len(gaps.uids) else 0.0
    return spent.total / count if count > 0.0 else 0.0


def slo_replicas(
    saturation: float, *, provisioned: int, ready: int, up_above: float = UP_ABOVE
) -> int:
    """The guide's control law; the threshold downwards stays in proportion, 0.40 to 0.55.

    Up by the saturation that is left when the replicas that still start are credited (which can
    come out below the present count), down without that credit, none between the thresholds.
    """
    down_below = up_above * DOWN_BELOW / UP_ABOVE
    credit = ready / provisioned if 0 < ready < provisioned else 1.0
    if saturation > up_above:
        return provisioned + math.ceil(provisioned * (saturation * credit / up_above - 1.0))
    if saturation < down_below:
        return provisioned - math.floor(provisioned * (1.0 - saturation / down_below))
    return provisioned


SLO_BEHAVIOR: Behavior | None = parse_behavior(
    {
        "scaleUp": {
            "stabilizationWindowSeconds": 30,
            "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 60},
                {"type": "Pods", "value": 4, "periodSeconds": 60},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 180,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
        },
    }
)


def _slo(setting: Setting, context: Context) -> Controller:
    slo = context.config.slo
    rule = SaturationRule(
        ttft_slo_s=slo.ttft_s,
        tpot_slo_s=slo.tpot_s,
        first_at_s=context.timing.tick_phase_s,
    )

    def law(seen: Seen) -> Sequence[Metric]:
        wanted = slo_replicas(
            rule.saturation(seen.now_s),
            provisioned=seen.current,
            ready=seen.ready,
            up_above=setting.knob,
        )
        return (external(float(wanted), 1.0, context.cluster.keda),)

    hpa = peer_hpa(SLO_BEHAVIOR, setting.behaviour, context)
    return HpaController(law, hpa=hpa, context=context, loop=rule)


# Queue guard


def guarded(demand: float, *, replicas: int, pending: int) -> float:
    """``demand`` less the replicas that still start, but no step down because of them."""
    return demand if demand <= replicas else max(demand - pending, float(replicas))


def queue_guard_law(seen: Seen, *, running_target: float, keda: Version) -> Sequence[Metric]:
    """max(W / 1, R / ``running_target``), guarded, with a target of 1."""
    waiting = seen.history.now(WAITING, seen.now_s).total
    running = seen.history.now(RUNNING, seen.now_s).total
    value = guarded(
        max(waiting, running / running_target),
        replicas=seen.current,
        pending=seen.current - seen.ready,
    )
    return (external(value, 1.0, keda),)


def _queue_guard(setting: Setting, context: Context) -> Law:
    def law(seen: Seen) -> Sequence[Metric]:
        return queue_guard_law(seen, running_target=setting.knob, keda=context.cluster.keda)

    return law


QUEUE_GUARD_BEHAVIOR: Behavior | None = parse_behavior(
    {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
    }
)

PEERS = (
    Peer(
        name="llmd-slo",
        group=Group.METRIC,
        knob="saturation above which replicas are added (0.73 of it: removed)",
        knob_default=UP_ABOVE,
        knob_values=(0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.7, 0.85, 1.0, 1.3),
        build=_slo,
        behaviours=BOTH,
    ),
    Peer(
        name="queue-guard",
        group=Group.METRIC,
        knob="running requests a replica (1 waiting stays)",
        knob_default=16.0,
        knob_values=(
            4.0,
            6.0,
            8.0,
            12.0,
            16.0,
            24.0,
            32.0,
            40.0,
            48.0,
            56.0,
            64.0,
            96.0,
            128.0,
            192.0,
        ),
        build=hpa_driven(_queue_guard, own=QUEUE_GUARD_BEHAVIOR),
        behaviours=BOTH,
    ),
)
