"""Predictive Horizontal Pod Autoscaler: an HPA on the queue whose own answers are forecast.

At every sync the live number of ``keda-queue`` is remembered; a line and Holt-Winters look ahead in
that series of *replica counts*, and the largest of the three goes through the HPA's behavior, so a
forecast can only add.  Source: jthomperoo/predictive-horizontal-pod-autoscaler and its example
(smoothing 0.9, seasons of 6 syncs, 4 seasons kept; a line through the last 6).
"""

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

from scaler.core.hpa import GivenProposal, HpaInput, Metric, propose
from simulations.controller import Context
from simulations.peers.holt_winters import Smoothing, fit_line, holt_winters, points_min
from simulations.peers.hpa_controller import BOTH, Law, Seen, hpa_driven
from simulations.peers.hpa_plain import queue_law
from simulations.peers.peer import Group, Peer, Setting
from simulations.replica import Distribution, DistributionKind, StartUp

PERIOD = 6
SEASONS = 4
LINE_POINTS = 6


class ReplicaForecasts:
    """The live numbers so far, and what the models make of them."""

    def __init__(self, *, lead_s: float) -> None:
        self._lead_s = lead_s
        self._numbers: deque[tuple[float, int]] = deque(maxlen=PERIOD * SEASONS)

    def add(self, replicas: int, at_s: float) -> None:
        """Remember a live number."""
        self._numbers.append((at_s, replicas))

    def highest(self) -> int:
        """The largest of the newest number and the forecasts."""
        return max(self._numbers[-1][1], self.line(), self.season())

    def line(self) -> int:
        """A least-squares line through the last six numbers, ``lead_s`` ahead; 0 of fewer."""
        last = list(self._numbers)[-LINE_POINTS:]
        if len(last) < LINE_POINTS:
            return 0
        now_s = last[-1][0]
        fitted = fit_line([at_s - now_s for at_s, _ in last], [float(n) for _, n in last])
        return _whole(fitted.at(self._lead_s))

    def season(self) -> int:
        """Holt-Winters one sync ahead; 0 while there are too few numbers."""
        if len(self._numbers) < points_min(PERIOD):
            return 0
        values = [float(number) for _, number in self._numbers]
        return _whole(holt_winters(values, period=PERIOD, smoothing=Smoothing()))


def _whole(replicas: float) -> int:
    """Rounded up, but not for an error in the last bits."""
    return math.ceil(replicas - 1e-9)


def _start_up_s(start: StartUp) -> float:
    """The medians of its phases."""
    phases = (start.scheduling, start.image, start.weights, start.compile)
    return sum(_median_s(phase) for phase in phases)


def _median_s(phase: Distribution) -> float:
    if phase.kind is DistributionKind.EMPIRICAL:
        return median(phase.values_s)
    return phase.values_s[0]


def _phpa(setting: Setting, context: Context) -> Law:
    """The line looks one start-up ahead, which is what whoever sets it up would measure."""
    forecasts = ReplicaForecasts(lead_s=_start_up_s(context.model.start_up))

    def law(seen: Seen) -> Sequence[Metric]:
        live = propose(
            HpaInput(
                spec_replicas=seen.wanted,
                status_replicas=seen.current,
                ready_pods=seen.ready,
                metrics=tuple(queue_law(seen, threshold=setting.knob, keda=context.cluster.keda)),
            ),
            tolerances=seen.tolerances,
        )
        assert live is not None, "an empty queue is a 0, not a failed read"
        forecasts.add(min(max(live, context.replicas_min), context.replicas_max), seen.now_s)
        return (GivenProposal(replicas=forecasts.highest()),)

    return law


PEERS = (
    Peer(
        name="phpa-holt-winters",
        group=Group.METRIC,
        knob="waiting requests a replica",
        knob_default=5.0,
        knob_values=(0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0),
        build=hpa_driven(_phpa, own=None),
        behaviours=BOTH,
    ),
)
