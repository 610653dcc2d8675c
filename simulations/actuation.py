"""KEDA around the HPA: polls, activation, cooldown, fallback, pauses, and the HPA's syncs.

Virtual time comes in as ``now_s``, state goes in and comes out.  The caller asks the scaler when
``next_poll_at_s`` or ``next_sync_at_s`` is due (and, for a sync, if ``asks``), hands the answer to
``poll`` or ``hpa_sync``, and sets the count that comes back.  Two KEDA calls seconds apart may see
different answers, as in a cluster.

Sources: KEDA ``pkg/scaling/executor/scale_scaledobjects.go``, ``pkg/scaling/scale_handler.go``,
``pkg/fallback/fallback.go`` (v2.20), and runs of KEDA 2.20.2 with Kubernetes 1.36.2 recorded second
by second (``tests/data/keda``).
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from scaler.core.hpa import (
    ExternalMetric,
    HpaSpec,
    HpaState,
    Metric,
    MetricFailed,
    SyncResult,
    TargetType,
    Version,
    make_external_metric,
    make_hpa_input,
    sync,
)
from scaler.core.hpa_encoding import keda_milli
from scaler.core.made import changer, maker
from simulations.scaled_object import ClusterSpec, FallbackBehavior, ScaledObjectSpec, hpa_spec

_POLLS_COUNT = Version(2, 19)  # failed polls count for the fallback, which also lifts from zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the scaler answered: the two fields of its one MetricValue, and IsActive."""

    integer: int
    double: float
    active: bool


make_answer = maker(Answer)


class Failure(StrEnum):
    """How a read of the scaler failed.  Status codes make no difference."""

    METRICS = "metrics"  # GetMetrics or IsActive: counts for the fallback
    SPEC = "spec"  # GetMetricSpec, also an address that refuses: counts for nothing


Read: TypeAlias = Answer | Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The target as its scale subresource and its pods show it."""

    spec_replicas: int
    status_replicas: int
    ready_pods: int


make_scale = maker(Scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class KedaState:
    """Memory of KEDA (in the ScaledObject's status) and of the HPA controller.

    ``failures`` are reads that failed in a row, polls and syncs together; ``cached`` is the last
    polled read, for ``useCachedMetrics``.
    """

    created_at_s: float
    next_poll_at_s: float
    next_sync_at_s: float
    last_active_at_s: float | None = None
    failures: int = 0
    cached: Read | None = None
    hpa: HpaState = HpaState()


_changed = changer(KedaState)


class Outcome(StrEnum):
    """What a poll or a push did."""

    ACTIVATED = "activated"  # from zero, or from idle, to max(1, min)
    ACTIVE = "active"  # nothing to do: the cooldown starts anew
    COOLING_DOWN = "cooling_down"
    DEACTIVATED = "deactivated"  # to zero or idle
    RAISED_TO_MIN = "raised_to_min"
    HELD_ON_ERROR = "held_on_error"
    UNCHANGED = "unchanged"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """Count KEDA's own loop leaves behind, and why."""

    replicas: int
    outcome: Outcome
    state: KedaState


_polled = maker(Polled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """Count one HPA sync leaves behind; ``result`` is None while the HPA is deleted (paused)."""

    replicas: int
    result: SyncResult | None
    state: KedaState


_synced = maker(Synced)


@dataclass(frozen=True, slots=True, kw_only=True)
class KedaActuator:
    """KEDA and the HPA for one ScaledObject: constant; all that changes is in ``KedaState``.

    For a change of the ScaledObject make a new actuator, and pass the state through
    ``reconciled``.
    """

    scaled_object: ScaledObjectSpec
    cluster: ClusterSpec
    hpa: HpaSpec

    @classmethod
    def of(cls, scaled_object: ScaledObjectSpec, cluster: ClusterSpec) -> "KedaActuator":
        """Actuator with the HPA that KEDA would write."""
        hpa = hpa_spec(scaled_object, cluster)
        return cls(scaled_object=scaled_object, cluster=cluster, hpa=hpa)

    def start(self, *, now_s: float) -> KedaState:
        """State of a ScaledObject created now: polled at once, first synced a period later."""
        return KedaState(
            created_at_s=now_s, next_poll_at_s=now_s, next_sync_at_s=now_s + self.cluster.hpa_sync_s
        )

    def asks(self, scale: Scale) -> bool:
        """Whether a sync reads the metric: not while off at 0, outside the bounds, or paused."""
        if self._paused:
            return False
        return self.hpa.replicas_min <= scale.spec_replicas <= self.hpa.replicas_max

    def poll(self, state: KedaState, *, now_s: float, answer: Read, scale: Scale) -> Polled:
        """One pass of KEDA's scale loop (``getScalerState`` and ``RequestScale``)."""
        next_poll_at_s = now_s + self.scaled_object.polling_interval_s
        if isinstance(answer, Answer) and not self._paused:
            state = _changed(state, next_poll_at_s=next_poll_at_s, cached=answer, failures=0)
            return self._request_scale(
                state, now_s=now_s, scale=scale, active=answer.active, failed=False
            )
        state = _changed(state, next_poll_at_s=next_poll_at_s)
        if self._paused:
            return self._paused_poll(state, scale)
        if answer is Failure.SPEC:
            return self._request_scale(state, now_s=now_s, scale=scale, active=False, failed=True)
        state = _changed(state, cached=answer)
        served: int | None = None
        if self.cluster.keda >= _POLLS_COUNT:
            state, served = self._after_failure(state, scale)
        active = served is not None and served > 0
        return self._request_scale(
            state, now_s=now_s, scale=scale, active=active, failed=served is None
        )

    def push(self, state: KedaState, *, now_s: float, scale: Scale) -> Polled:
        """A ``true`` on StreamIsActive; a ``false`` is ignored from KEDA 2.18 on."""
        if self._paused:
            return _polled(replicas=scale.spec_replicas, outcome=Outcome.PAUSED, state=state)
        return self._request_scale(state, now_s=now_s, scale=scale, active=True, failed=False)

    def hpa_sync(self, state: KedaState, *, now_s: float, answer: Read, scale: Scale) -> Synced:
        """One sync of the HPA controller, reading the scaler through KEDA if ``asks``."""
        next_sync_at_s = now_s + self.cluster.hpa_sync_s
        if self._paused:
            state = _changed(state, next_sync_at_s=next_sync_at_s, hpa=HpaState())
            return _synced(replicas=scale.spec_replicas, result=None, state=state)
        metric: Metric = MetricFailed()
        if self.asks(scale):
            state, metric = self._metric(state, answer, scale)
        seen = make_hpa_input(
            spec_replicas=scale.spec_replicas,
            status_replicas=scale.status_replicas,
            ready_pods=scale.ready_pods,
            metrics=(metric,),
        )
        result, hpa = sync(self.hpa, state.hpa, seen, now_s=now_s)
        state = _changed(state, next_sync_at_s=next_sync_at_s, hpa=hpa)
        return _synced(replicas=result.replicas, result=result, state=state)

    def reconciled(self, state: KedaState, *, now_s: float) -> KedaState:
        """After a change of the ScaledObject or an operator restart: polled at once, cache gone."""
        return _changed(state, next_poll_at_s=now_s, cached=None)

    def controller_restarted(self, state: KedaState, *, now_s: float) -> KedaState:
        """After a restart of the HPA controller: its memory is gone.

        The next sync, a period later, records the count it finds, which holds a step down for the
        window.
        """
        next_sync_at_s = now_s + self.cluster.hpa_sync_s
        return _changed(state, next_sync_at_s=next_sync_at_s, hpa=HpaState())

    @property
    def _paused(self) -> bool:
        return self.scaled_object.paused or self.scaled_object.paused_replicas is not None

    def _paused_poll(self, state: KedaState, scale: Scale) -> Polled:
        wanted = self.scaled_object.paused_replicas
        return _polled(
            replicas=scale.spec_replicas if wanted is None else wanted,
            outcome=Outcome.PAUSED,
            state=_changed(state, hpa=HpaState()),
        )

    def _request_scale(
        self, state: KedaState, *, now_s: float, scale: Scale, active: bool, failed: bool
    ) -> Polled:
        """KEDA's own decision (``RequestScale``), the switch of its cases in their order."""
        if active or self.scaled_object.activation_forced:
            return self._when_active(state, now_s=now_s, current=scale.spec_replicas, failed=failed)
        return self._when_inactive(state, now_s=now_s, current=scale.spec_replicas, failed=failed)

    def _when_active(self, state: KedaState, *, now_s: float, current: int, failed: bool) -> Polled:
        spec = self.scaled_object
        idling = spec.replicas_idle is not None and current < spec.replicas_min
        if idling or current == 0:
            if spec.scale_out_paused:
                return _polled(replicas=current, outcome=Outcome.PAUSED, state=state)
            state = _changed(state, last_active_at_s=_kept_time(now_s))
            replicas = max(1, spec.replicas_min)
            return _polled(replicas=replicas, outcome=Outcome.ACTIVATED, state=state)
        if failed:
            return _polled(replicas=current, outcome=Outcome.HELD_ON_ERROR, state=state)
        state = _changed(state, last_active_at_s=_kept_time(now_s))
        return _polled(replicas=current, outcome=Outcome.ACTIVE, state=state)

    def _when_inactive(
        self, state: KedaState, *, now_s: float, current: int, failed: bool
    ) -> Polled:
        spec = self.scaled_object
        if failed and (spec.fallback is None or spec.fallback.replicas != 0):
            return _polled(replicas=current, outcome=Outcome.HELD_ON_ERROR, state=state)
        idle = spec.replicas_idle
        if (idle is not None and current > idle) or (current > 0 and spec.replicas_min == 0):
            return self._deactivate(state, now_s=now_s, current=current)
        if idle is None and current < spec.replicas_min:
            replicas = spec.replicas_min
            return _polled(replicas=replicas, outcome=Outcome.RAISED_TO_MIN, state=state)
        return _polled(replicas=current, outcome=Outcome.UNCHANGED, state=state)

    def _deactivate(self, state: KedaState, *, now_s: float, current: int) -> Polled:
        """To zero or idle, from any count at once, when the cooldown is over."""
        spec = self.scaled_object
        if spec.scale_in_paused:
            return _polled(replicas=current, outcome=Outcome.PAUSED, state=state)
        if state.last_active_at_s is None:
            over_at_s = _kept_time(state.created_at_s) + spec.initial_cooldown_s
        else:
            over_at_s = state.last_active_at_s + spec.cooldown_s
        if now_s < over_at_s:
            return _polled(replicas=current, outcome=Outcome.COOLING_DOWN, state=state)
        replicas = spec.replicas_min if spec.replicas_idle is None else spec.replicas_idle
        return _polled(replicas=replicas, outcome=Outcome.DEACTIVATED, state=state)

    def _metric(self, state: KedaState, answer: Read, scale: Scale) -> tuple[KedaState, Metric]:
        """What the external metrics API answers to the HPA (``GetScaledObjectMetrics``).

        GetMetricSpec is called for every read, also for one that the cache answers.
        """
        if answer is Failure.SPEC:
            return state, MetricFailed()
        cached = state.cached if self.scaled_object.use_cached_metrics else None
        read = answer if cached is None else cached
        if isinstance(read, Answer):
            state = _changed(state, failures=0) if state.failures else state
            return state, _heard(read, self.cluster.keda, self.scaled_object)
        state, served = self._after_failure(state, scale)
        return state, MetricFailed() if served is None else _external(served, self.scaled_object)

    def _after_failure(self, state: KedaState, scale: Scale) -> tuple[KedaState, int | None]:
        """Count a failed read; the fallback's value in thousandths once there are too many."""
        fallback = self.scaled_object.fallback
        if fallback is None:
            return state, None
        state = _changed(state, failures=state.failures + 1)
        if state.failures <= fallback.failure_threshold:
            return state, None
        replicas = float(
            _fallback_replicas(fallback.behavior, fallback.replicas, scale.spec_replicas)
        )
        if self.scaled_object.target_type is TargetType.VALUE:
            if scale.ready_pods == 0:
                return state, None
            replicas /= float(scale.ready_pods)
        return state, int(float(self.scaled_object.target_milli) * replicas)


def _heard(answer: Answer, keda: Version, spec: ScaledObjectSpec) -> ExternalMetric:
    """What the HPA reads where the scaler answered."""
    return _external(keda_milli(integer=answer.integer, double=answer.double, keda=keda), spec)


def _external(milli: int, spec: ScaledObjectSpec) -> ExternalMetric:
    return make_external_metric(
        target_type=spec.target_type, target_milli=spec.target_milli, values_milli=(milli,)
    )


def _fallback_replicas(behavior: FallbackBehavior, replicas: int, current: int) -> int:
    if behavior is FallbackBehavior.CURRENT_REPLICAS:
        return current
    if behavior is FallbackBehavior.CURRENT_REPLICAS_IF_HIGHER:
        return max(current, replicas)
    if behavior is FallbackBehavior.CURRENT_REPLICAS_IF_LOWER:
        return min(current, replicas)
    return replicas


def _kept_time(now_s: float) -> float:
    """Time as Kubernetes stores it, in whole seconds: a cooldown is over up to a second early."""
    return float(math.floor(now_s))
