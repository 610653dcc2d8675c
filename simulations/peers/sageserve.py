"""The two reactive arbiters in SageServe's simulator: its own, and its approximation of Chiron.

Follows ``arbiter.py``, ``instance.py`` and ``configs/arbiter_repo`` (kjain1810/SageServe, 2025;
arXiv 2502.14617, and for Chiron arXiv 2501.08090).  Both see the replicas themselves, not a
Prometheus, and move the count by one at most.  They are asked with every request that arrives
there, every 5 s here.

SageServe holds for its 155 s of spinning up an instance, here after either step: there a step
down is followed by the next at once, which no fleet in use survives.  Chiron's shipped overheads
are 0, so that it steps whenever it is asked; corrected, it holds too, and for as long as a replica
that it asked for still starts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from simulations.controller import Context, Controller, View
from simulations.fleet_counters import Flags, FleetCounters
from simulations.peers.peer import CORRECTED, Build, Group, Peer, Setting
from simulations.peers.ticking import TickingController
from simulations.scenario import SHIPPED

TICK_S = 5.0
SPIN_UP_S = 155.0  # basic_arbiter.yaml
DOWN_SHARE = 0.5  # 0.25 of the memory under 0.5: the lower threshold stays at half the upper
IBP_RATIO = 0.6

Step: TypeAlias = Callable[[FleetCounters, Flags], int]
"""One up, one down, or 0 to stay, from the replicas that a mask picks, at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """After a change of the count: seconds without another, and whether starts are awaited."""

    after_s: float
    until_ready: bool


class StepLaw:
    """Moves the count by a step within the bounds, then holds; without replicas to ask it stays."""

    def __init__(self, step: Step, holds: Holds, *, replicas_min: int, replicas_max: int) -> None:
        self._step = step
        self._holds = holds
        self._low = replicas_min
        self._high = replicas_max
        self._held_until_s = 0.0

    def desired(self, view: View) -> int | None:
        """The count after a step, or None while it holds or nobody answers."""
        if view.now_s < self._held_until_s:
            return None
        if self._holds.until_ready and len(view.ready) < view.wanted:
            return None
        counters = view.live()
        serving = ~counters.draining
        if not serving.any():
            return None
        wanted = view.wanted + self._step(counters, serving)
        wanted = min(max(wanted, self._low), self._high)
        if wanted != view.wanted:
            self._held_until_s = view.now_s + self._holds.after_s
        return wanted


def memory_step(up_ratio: float) -> Step:
    """Up above a share of the KV cache in use, the weights apart; down below half of that share."""

    def step(counters: FleetCounters, serving: Flags) -> int:
        used_blocks = float(counters.values["blocks_used"][serving].mean())
        used_ratio = used_blocks / counters.kv_blocks_usable
        return int(used_ratio > up_ratio) - int(used_ratio < DOWN_SHARE * up_ratio)

    return step


def pressure_step(busy_from: float) -> Step:
    """Up if the interactive batch pressure is above 0.6, else down.

    IBP = busy replicas / all of them; all traffic is interactive here.  A replica is busy with at
    least ``busy_from`` requests, waiting ones too: with any at all, as shipped.
    """

    def step(counters: FleetCounters, serving: Flags) -> int:
        rows = counters.values[serving]
        busy = rows["requests_running"] + rows["requests_waiting"] >= busy_from
        return 1 if float(np.mean(busy)) > IBP_RATIO else -1

    return step


def _stepping(step: Callable[[float], Step], holds: Callable[[str], Holds]) -> Build:
    def build(setting: Setting, context: Context) -> Controller:
        law = StepLaw(
            step(setting.knob),
            holds(setting.variant),
            replicas_min=context.replicas_min,
            replicas_max=context.replicas_max,
        )
        return TickingController(law, context, every_s=TICK_S)

    return build


def _sageserve_holds(variant: str) -> Holds:
    del variant  # it has one
    return Holds(after_s=SPIN_UP_S, until_ready=False)


def _chiron_holds(variant: str) -> Holds:
    corrected = variant == CORRECTED
    return Holds(after_s=SPIN_UP_S if corrected else 0.0, until_ready=corrected)


PEERS = (
    Peer(
        name="sageserve-reactive",
        group=Group.METRIC,
        knob="share of the KV cache in use above which one is added (below half of it one goes)",
        knob_default=0.5,
        knob_values=(0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        build=_stepping(memory_step, _sageserve_holds),
    ),
    # Where requests are spread evenly, nearly always every replica has one: thresholds of the IBP
    # from 0.1 to 0.999 cost 10.1 to 9.5 GPU-hours on the hour of the tests, at a maximum of 12
    # replicas; from 1 to 48 requests for a busy one, 10.0 to 1.6.
    Peer(
        name="chiron-lite",
        group=Group.METRIC,
        knob="requests that make a replica busy (more than 0.6 of them busy adds one)",
        knob_default=1.0,
        knob_values=(1, 2, 4, 6, 8, 12, 16, 24, 32, 40, 48, 64, 96, 128, 192),
        build=_stepping(pressure_step, _chiron_holds),
        variants=(SHIPPED, CORRECTED),
    ),
)
