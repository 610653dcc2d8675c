"""The HPA as a controller: a law turns what Prometheus has read into metrics, the HPA acts on them.

KEDA stands between only as the adapter that answers the HPA's reads: with a minimum of at least 1
its own loop never changes a count, and without ``useCachedMetrics`` its polls answer nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from scaler.core.hpa import (
    Behavior,
    ExternalMetric,
    HpaInput,
    HpaSpec,
    HpaState,
    Metric,
    MetricFailed,
    TargetType,
    Tolerances,
    Version,
    sync,
)
from scaler.core.hpa_encoding import keda_milli
from scaler.core.model import Cause
from simulations.controller import NEVER_S, Context, Controller, View
from simulations.fleet_counters import FleetCounters
from simulations.peers.peer import Build, Setting
from simulations.scaled_object import hpa_spec
from simulations.scenario import Behaviour
from simulations.scrape_history import ScrapeHistory

MILLI = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a law may look at: scrapes, and what Kubernetes shows (or kube-state-metrics of it)."""

    now_s: float
    view: View
    history: ScrapeHistory
    tolerances: Tolerances

    @property
    def wanted(self) -> int:
        """spec.replicas."""
        return self.view.wanted

    @property
    def current(self) -> int:
        """status.replicas: every pod that is not terminating."""
        return self.view.current

    @property
    def ready(self) -> int:
        """Ready pods."""
        return len(self.view.ready)

    @property
    def unanswered(self) -> bool:
        """Whether queries fail: Prometheus is down, or has not scraped for the first time yet.

        A query that is answered with nothing is another matter: KEDA takes that for 0.
        """
        failure = self.view.failure
        return self.history.empty or (failure is not None and failure.cause is Cause.UNREACHABLE)


BOTH = (Behaviour.OWN, Behaviour.OURS)
"""The behaviours of every peer whose count an HPA moves."""

Law: TypeAlias = Callable[[Seen], Sequence[Metric]]
"""The metrics of the HPA at one sync; the largest proposal counts."""


class Loop(Protocol):
    """A part with a clock of its own whose results a law reads: a recording rule, an operator."""

    @property
    def next_at_s(self) -> float:
        """When ``run`` is due."""

    def run(self, seen: Seen) -> None:
        """Do what is due, which is nothing while queries fail, and move ``next_at_s`` on."""


def peer_hpa(own: Behavior | None, behaviour: Behaviour, context: Context) -> HpaSpec:
    """The HPA with the peer's ``own`` behavior (None: none is given) or with that which we ship."""
    spec = context.scaled_object
    if behaviour == Behaviour.OWN:
        spec = replace(spec, behavior=own)
    return hpa_spec(spec, context.cluster)


def external(
    value: float,
    target: float,
    keda: Version,
    *,
    target_type: TargetType = TargetType.AVERAGE_VALUE,
) -> ExternalMetric:
    """A metric as KEDA hands it to the HPA, in whole thousandths; NaN counts as 0."""
    return ExternalMetric(
        target_type=target_type,
        target_milli=round(target * MILLI),
        values_milli=(keda_milli(integer=0, double=value, keda=keda),),
    )


MakeLaw: TypeAlias = Callable[[Setting, Context], Law]


def hpa_driven(make: MakeLaw, *, own: Behavior | None) -> Build:
    """How to build a peer that is a law and an HPA with the behavior ``own``."""

    def build(setting: Setting, context: Context) -> Controller:
        hpa = peer_hpa(own, setting.behaviour, context)
        return HpaController(make(setting, context), hpa=hpa, context=context)

    return build


class HpaController:
    """An HPA that asks ``law`` for its metrics at every sync."""

    decision = None

    def __init__(
        self,
        law: Law,
        *,
        hpa: HpaSpec,
        context: Context,
        loop: Loop | None = None,
        keep_s: float = 600.0,
    ) -> None:
        """``loop`` runs before a sync of the same instant; ``keep_s`` of scrapes are kept."""
        self._law = law
        self._hpa = hpa
        self._loop = loop
        self._history = ScrapeHistory(keep_s=keep_s)
        self._state = HpaState()
        self._sync_every_s = context.cluster.hpa_sync_s
        self._next_sync_s = context.timing.sync_phase_s

    @property
    def next_at_s(self) -> float:
        """The next sync, or what the loop does before it."""
        return min(self._next_sync_s, self._loop.next_at_s if self._loop else NEVER_S)

    def scraped(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None) -> None:
        """Prometheus has read every replica."""
        self._history.add(counters, gpu_ratio)

    def act(self, view: View) -> int | None:
        """Run the loop if it is due, else sync."""
        seen = Seen(
            now_s=view.now_s, view=view, history=self._history, tolerances=self._hpa.tolerances
        )
        if self._loop is not None and self._loop.next_at_s <= view.now_s:
            self._loop.run(seen)
            return None
        self._next_sync_s += self._sync_every_s
        read = HpaInput(
            spec_replicas=seen.wanted,
            status_replicas=seen.current,
            ready_pods=seen.ready,
            metrics=(MetricFailed(),) if seen.unanswered else tuple(self._law(seen)),
        )
        result, self._state = sync(self._hpa, self._state, read, now_s=view.now_s)
        return result.replicas
