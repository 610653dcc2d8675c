"""llm-d's Workload Variant Autoscaler with its saturation analyser (V1), one variant.

Every 60 s it looks at the highest KV-cache usage and queue of each replica in the last minute, and
publishes a desired count one higher or lower, which an HPA with a target of 1 applies.  Source:
``internal/saturation/analyzer.go`` and the chart's HPA of llm-d-workload-variant-autoscaler,
February 2026.  The hop of its result through Prometheus is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scaler.core.hpa import Behavior, Metric, MetricFailed, parse_behavior
from simulations.controller import Context, Controller
from simulations.peers.hpa_controller import BOTH, HpaController, Seen, external, peer_hpa
from simulations.peers.hpa_plain import WAITING
from simulations.peers.peer import CORRECTED, Group, Peer, Setting
from simulations.scenario import SHIPPED
from simulations.scrape_history import kv_cache_usage

TICK_S = 60.0
PEAK_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """Where a replica is saturated, and how much must be spare below that."""

    kv_ratio: float = 0.80
    waiting: float = 5.0
    kv_spare_ratio: float = 0.10
    waiting_spare: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The highest values of one replica in the last minute."""

    kv_ratio: float
    waiting: float


def saturation_step(peaks: Sequence[Peak], limits: Saturation) -> int:
    """+1, -1 or 0 replicas.

    Of the replicas that are not saturated the mean distance to both limits must be at least the
    spare (none left counts as no distance), else one is added.  One is removed if two or more are
    left and their mean load, times N / (N - 1), still leaves the spare.
    """
    free = [
        peak for peak in peaks if peak.kv_ratio < limits.kv_ratio and peak.waiting < limits.waiting
    ]
    count = len(free)
    if not count:
        return 1
    kv = sum(peak.kv_ratio for peak in free) / count
    waiting = sum(peak.waiting for peak in free) / count
    if _short(kv, waiting, limits):
        return 1
    grown = count / (count - 1.0) if count > 1 else 0.0
    if count > 1 and not _short(kv * grown, waiting * grown, limits):
        return -1
    return 0


def _short(kv_ratio: float, waiting: float, limits: Saturation) -> bool:
    return (
        limits.kv_ratio - kv_ratio < limits.kv_spare_ratio
        or limits.waiting - waiting < limits.waiting_spare
    )


class SaturationLoop:
    """The operator's loop; ``desired`` is what it publishes, None before its first result.

    As shipped nothing is decided while the desired count is not the current one: a step that the
    HPA's tolerance swallows, from 10 replicas on, freezes the operator for good.  ``corrected``
    waits only for replicas that do not report yet, and makes a step as large as the HPA acts on.
    """

    def __init__(self, limits: Saturation, *, corrected: bool, context: Context) -> None:
        self.next_at_s = context.timing.poll_phase_s  # nothing else of it is polled
        self.desired: int | None = None
        self._limits = limits
        self._corrected = corrected
        self._low, self._high = context.replicas_min, context.replicas_max

    def run(self, seen: Seen) -> None:
        """Decide, unless something is in transition."""
        self.next_at_s += TICK_S
        peaks = [] if seen.unanswered else _peaks(seen)
        if not peaks:
            return
        if self.desired is None:
            self.desired = seen.current
        settled = self._corrected or self.desired == seen.current
        if settled and len(peaks) == seen.current:
            step = saturation_step(peaks, self._limits)
            desired = seen.current + step
            while self._corrected and step and seen.tolerances.holds(desired / seen.current):
                desired += step
            self.desired = min(max(desired, self._low), self._high)


def _peaks(seen: Seen) -> list[Peak]:
    """Of the replicas that are still there."""
    now_s, ready = seen.now_s, set(seen.view.ready)
    kv = seen.history.max_over_time(kv_cache_usage, window_s=PEAK_WINDOW_S, now_s=now_s).by_uid()
    waiting = seen.history.max_over_time(WAITING, window_s=PEAK_WINDOW_S, now_s=now_s).by_uid()
    return [Peak(kv_ratio=kv[uid], waiting=waiting[uid]) for uid in sorted(kv) if uid in ready]


WVA_BEHAVIOR: Behavior | None = parse_behavior(
    {
        direction: {
            "stabilizationWindowSeconds": 240,
            "policies": [{"type": "Pods", "value": 10, "periodSeconds": 150}],
        }
        for direction in ("scaleUp", "scaleDown")
    }
)


def limits_at(kv_ratio: float) -> Saturation:
    """The shipped limits in proportion, so that one knob moves all four."""
    plain = Saturation()
    scale = kv_ratio / plain.kv_ratio
    return Saturation(
        kv_ratio=kv_ratio,
        waiting=plain.waiting * scale,
        kv_spare_ratio=plain.kv_spare_ratio * scale,
        waiting_spare=plain.waiting_spare * scale,
    )


def _build(setting: Setting, context: Context) -> Controller:
    loop = SaturationLoop(
        limits_at(setting.knob), corrected=setting.variant == CORRECTED, context=context
    )

    def law(_seen: Seen) -> Sequence[Metric]:
        if loop.desired is None:
            return (MetricFailed(),)
        return (external(float(loop.desired), 1.0, context.cluster.keda),)

    hpa = peer_hpa(WVA_BEHAVIOR, setting.behaviour, context)
    return HpaController(law, hpa=hpa, context=context, loop=loop)


PEERS = (
    Peer(
        name="wva-saturation",
        group=Group.METRIC,
        knob="KV-cache usage at which a replica is saturated (5 waiting and spares in proportion)",
        knob_default=0.80,
        knob_values=(0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        build=_build,
        variants=(SHIPPED, CORRECTED),
        behaviours=BOTH,
    ),
)
