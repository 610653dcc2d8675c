"""Knative's pod autoscaler (KPA) on concurrency: a stable window, and a panic window for bursts.

Follows ``pkg/autoscaler/scaling/autoscaler.go`` and the defaults of ``pkg/autoscaler/config``
(knative/serving, August 2026).  It moves the count itself, every 2 s, from the requests in flight
that its proxies count.
"""

import dataclasses
import math
from collections import deque
from dataclasses import dataclass

from simulations.controller import Context, Controller, View
from simulations.peers.peer import Group, Peer, Setting
from simulations.peers.ticking import TickingController, in_flight

TICK_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KpaSettings:
    """``target`` requests in flight a pod; rates are factors on the ready pods."""

    target: float = 70.0  # container-concurrency-target-default 100 * 70 % utilisation
    stable_s: float = 60.0
    panic_s: float = 6.0
    panic_threshold: float = 2.0
    up_max_factor: float = 1000.0
    down_max_factor: float = 2.0
    down_delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KpaState:
    """Since when it panics (None if it does not), and the highest count of this panic."""

    panic_at_s: float | None = None
    panic_replicas: int = 0


def kpa_start(ready: int, *, now_s: float) -> KpaState:
    """A fresh autoscaler with more than one ready pod begins in panic: it has no history yet."""
    return KpaState(panic_at_s=now_s if ready > 1 else None, panic_replicas=ready)


def kpa_step(
    settings: KpaSettings, state: KpaState, *, stable: float, panic: float, ready: int, now_s: float
) -> tuple[int, KpaState]:
    """One evaluation; ``stable`` and ``panic`` are the means of the total in flight.

    n = max(1, ready); each window's ceil(mean / target) is held to
    [floor(n / down_max), ceil(n * up_max)].  Panic begins, or is extended, when the panic window's
    own answer is at least ``panic_threshold`` times n, and ends when ``stable_s`` have passed
    without that.  In panic the count only rises.
    """
    pods = max(1, ready)
    low, high = pods // settings.down_max_factor, math.ceil(pods * settings.up_max_factor)
    for_stable = math.ceil(stable / settings.target)
    for_panic = math.ceil(panic / settings.target)
    desired = int(min(max(for_stable, low), high))
    if for_panic / pods >= settings.panic_threshold:
        state = dataclasses.replace(state, panic_at_s=now_s)
    elif state.panic_at_s is not None and state.panic_at_s + settings.stable_s < now_s:
        state = KpaState()
    if state.panic_at_s is None:
        return desired, state
    highest = max(desired, int(min(max(for_panic, low), high)), state.panic_replicas)
    return highest, dataclasses.replace(state, panic_replicas=highest)


class KpaLaw:
    """Windows of samples around ``kpa_step``."""

    def __init__(self, settings: KpaSettings) -> None:
        self._settings = settings
        self._state: KpaState | None = None
        self._samples: deque[tuple[float, float]] = deque()
        self._decided: deque[tuple[float, int]] = deque()

    def desired(self, view: View) -> int | None:
        """Sample what is in flight, evaluate, and delay a step down if a delay is set."""
        settings, now_s = self._settings, view.now_s
        if self._state is None:
            self._state = kpa_start(len(view.ready), now_s=now_s)
        self._samples.append((now_s, in_flight(view.live())))
        while self._samples[0][0] <= now_s - settings.stable_s:
            self._samples.popleft()
        count, self._state = kpa_step(
            settings,
            self._state,
            stable=self._mean(now_s - settings.stable_s),
            panic=self._mean(now_s - settings.panic_s),
            ready=len(view.ready),
            now_s=now_s,
        )
        self._decided.append((now_s, count))
        while self._decided[0][0] < now_s - settings.down_delay_s:
            self._decided.popleft()
        return max(decided for _, decided in self._decided)

    def _mean(self, after_s: float) -> float:
        values = [value for at_s, value in self._samples if at_s > after_s]
        return sum(values) / len(values)


def _build(setting: Setting, context: Context) -> Controller:
    law = KpaLaw(KpaSettings(target=setting.knob))
    return TickingController(law, context, every_s=TICK_S)


PEERS = (
    Peer(
        name="knative-kpa",
        group=Group.METRIC,
        knob="target requests in flight a replica",
        knob_default=70.0,
        knob_values=(4, 8, 12, 16, 24, 32, 48, 70, 96, 128, 179, 224),  # 179 is 0.7 * 256
        build=_build,
    ),
)
