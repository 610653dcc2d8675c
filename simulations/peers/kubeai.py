"""KubeAI's autoscaler: a ten-minute mean of the requests in flight.

Follows ``internal/modelautoscaler/autoscaler.go``, ``internal/movingaverage`` and
``internal/modelclient/scale.go`` (kubeai-project/kubeai, October 2025).
"""

import math

from simulations.controller import Context, Controller, View
from simulations.peers.peer import Group, Peer, Setting
from simulations.peers.ticking import TickingController, in_flight

TICK_S = 10.0
SAMPLES = 60  # ten minutes, zeros at first sight of a model
DOWN_TICKS = 3  # ceil(scaleDownDelay 30 s / 10 s) lower answers in a row come first


class KubeAiLaw:
    """ceil(mean of the last 60 samples / target); lower only after three lower answers in a row."""

    def __init__(self, target: float, *, replicas_min: int, replicas_max: int) -> None:
        self._target = target
        self._low = replicas_min
        self._high = replicas_max
        self._samples = [0.0] * SAMPLES
        self._next = 0
        self._lower = 0

    def desired(self, view: View) -> int | None:
        """Sample, average, and confirm a step down."""
        return self.answer(in_flight(view.live()), current=view.wanted)

    def answer(self, requests_in_flight: float, *, current: int) -> int:
        """The count after one more sample."""
        self._samples[self._next] = requests_in_flight
        self._next = (self._next + 1) % SAMPLES
        mean = sum(self._samples) / SAMPLES
        wanted = min(max(math.ceil(mean / self._target), self._low), self._high)
        if wanted >= current:
            self._lower = 0
            return wanted
        if self._lower < DOWN_TICKS:
            self._lower += 1
            return current
        return wanted


def _build(setting: Setting, context: Context) -> Controller:
    law = KubeAiLaw(
        setting.knob, replicas_min=context.replicas_min, replicas_max=context.replicas_max
    )
    return TickingController(law, context, every_s=TICK_S)


PEERS = (
    Peer(
        name="kubeai",
        group=Group.METRIC,
        knob="targetRequests in flight a replica",
        knob_default=100.0,
        knob_values=(2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 150),
        build=_build,
    ),
)
