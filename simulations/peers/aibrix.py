"""AIBrix's pod autoscaler with its APA strategy on the KV cache in use.

Follows ``pkg/controller/podautoscaler`` (vllm-project/aibrix, August 2026): ``algorithm/apa.go``,
``stabilizeRecommendation`` in ``podautoscaler_controller.go`` and, for the corrected variant,
``applyPendingReplicaGuard`` in ``autoscaler.go``.  As shipped, the stabiliser takes the *lowest*
answer of the last 300 s for a step down, where the HPA takes the highest, and replicas that still
start are counted as if they worked.
"""

import math
from collections import deque
from dataclasses import dataclass

from simulations.controller import Context, Controller, View
from simulations.peers.peer import CORRECTED, Group, Peer, Setting
from simulations.peers.ticking import TickingController
from simulations.scenario import SHIPPED

TICK_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApaSettings:
    """``target_ratio`` of the KV cache; windows in seconds, rates as factors on the count."""

    target_ratio: float = 0.5
    window_s: float = 180.0
    tolerance_ratio: float = 0.1
    up_max_factor: float = 2.0
    down_max_factor: float = 2.0
    up_window_s: float = 0.0
    down_window_s: float = 300.0
    corrected: bool = False


def apa_count(settings: ApaSettings, *, usage_ratio: float, current: int) -> int:
    """ceil(current * usage / target) outside the tolerance, at most doubled or halved."""
    ratio = usage_ratio / settings.target_ratio
    wanted = math.ceil(current * ratio)
    if ratio > 1.0 + settings.tolerance_ratio:
        return min(wanted, math.ceil(settings.up_max_factor * current))
    if ratio < 1.0 - settings.tolerance_ratio:
        return max(wanted, math.floor(current / settings.down_max_factor))
    return current


def guarded(
    settings: ApaSettings, *, usage_ratio: float, current: int, ready: int, wanted: int
) -> int:
    """``wanted`` with replicas that start taken as idle on the way up, at target on the way down.

    Never past the count on the other side, and never a larger step than ``wanted``.
    """
    pending = current - min(ready, current)
    if pending == 0 or wanted == current:
        return wanted
    busy = usage_ratio * (current - pending)
    if wanted > current:
        return min(max(math.ceil(busy / settings.target_ratio), current), wanted)
    at_target = math.ceil((busy + settings.target_ratio * pending) / settings.target_ratio)
    return max(min(at_target, current), wanted)


class ApaLaw:
    """The mean KV use of the pods that answer, over a window; then count, guard, stabiliser."""

    def __init__(self, settings: ApaSettings) -> None:
        self._settings = settings
        self._samples: deque[tuple[float, float]] = deque()
        self._wanted: deque[tuple[float, int]] = deque()

    def desired(self, view: View) -> int | None:
        """Ask every ready pod; without an answer the count stays."""
        counters = view.live()
        serving = ~counters.draining
        if not serving.any():
            return None
        used = counters.values["blocks_used"][serving].mean() / counters.kv_blocks_usable
        return self.answer(
            float(used), current=view.wanted, ready=len(view.ready), now_s=view.now_s
        )

    def answer(self, usage_ratio: float, *, current: int, ready: int, now_s: float) -> int:
        """The count after one more sample."""
        settings = self._settings
        self._samples.append((now_s, usage_ratio))
        while self._samples[0][0] <= now_s - settings.window_s:
            self._samples.popleft()
        mean = sum(value for _, value in self._samples) / len(self._samples)
        wanted = apa_count(settings, usage_ratio=mean, current=current)
        if settings.corrected:
            wanted = guarded(
                settings, usage_ratio=mean, current=current, ready=ready, wanted=wanted
            )
        return self._stabilised(wanted, current=current, now_s=now_s)

    def _stabilised(self, wanted: int, *, current: int, now_s: float) -> int:
        settings = self._settings
        self._wanted.append((now_s, wanted))
        longest_s = max(settings.up_window_s, settings.down_window_s)
        while self._wanted[0][0] < now_s - longest_s:
            self._wanted.popleft()
        if wanted == current:
            return current
        up = wanted > current
        after_s = now_s - (settings.up_window_s if up else settings.down_window_s)
        recent = [count for at_s, count in self._wanted if at_s >= after_s]
        if settings.corrected:
            return max(min(recent), current) if up else min(max(recent), current)
        return max(recent) if up else min(recent)


def _build(setting: Setting, context: Context) -> Controller:
    corrected = setting.variant == CORRECTED
    law = ApaLaw(ApaSettings(target_ratio=setting.knob, corrected=corrected))
    return TickingController(law, context, every_s=TICK_S)


PEERS = (
    Peer(
        name="aibrix-apa",
        group=Group.METRIC,
        knob="target share of the KV cache in use",
        knob_default=0.5,
        knob_values=(0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        build=_build,
        variants=(SHIPPED, CORRECTED),
    ),
)
