"""What the HPA's memory and rates make of a proposal: windows, policies, bounds.

``normalizeDesiredReplicas`` and ``normalizeDesiredReplicasWithBehaviors`` of Kubernetes'
``pkg/controller/podautoscaler/horizontal.go``, v1.25 to v1.36, as pure functions.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from scaler.core.hpa_spec import (
    Behavior,
    HpaSpec,
    PolicyType,
    ScalingPolicy,
    ScalingRules,
    SelectPolicy,
)
from scaler.core.made import changer, maker

_Entry = TypeVar("_Entry", bound="Recommendation | ScaleEvent")
LEGACY_UP_FACTOR = 2  # scaleUpLimitFactor
LEGACY_UP_MINIMUM = 4  # scaleUpLimitMinimum


class Reason(StrEnum):
    """Why a sync ended as it did: reason of the condition ScalingLimited, or of the early exit."""

    DESIRED_WITHIN_RANGE = "DesiredWithinRange"
    TOO_FEW_REPLICAS = "TooFewReplicas"
    TOO_MANY_REPLICAS = "TooManyReplicas"
    SCALE_UP_LIMIT = "ScaleUpLimit"
    SCALE_DOWN_LIMIT = "ScaleDownLimit"
    SCALING_DISABLED = "ScalingDisabled"  # spec.replicas is 0
    BELOW_MIN = "BelowMin"  # metrics are not read
    ABOVE_MAX = "AboveMax"  # metrics are not read
    FAILED_GET_EXTERNAL_METRIC = "FailedGetExternalMetric"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A proposal before stabilisation, kept for the windows."""

    at_s: float
    replicas: int


make_recommendation = maker(Recommendation)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleEvent:
    """A change that was made; ``replicas`` is its size, positive in both directions."""

    at_s: float
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HpaState:
    """The controller's memory of one HPA, lost when it restarts.

    ``recommendations`` is None before the first sync, which then records the size it finds.
    """

    recommendations: tuple[Recommendation, ...] | None = None
    scale_ups: tuple[ScaleEvent, ...] = ()
    scale_downs: tuple[ScaleEvent, ...] = ()


change_hpa_state = changer(HpaState)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """A count after limits, and the limit that bound it."""

    replicas: int
    reason: Reason


make_limited = maker(Limited)


def stabilise(spec: HpaSpec, state: HpaState, *, current: int, proposal: int, now_s: float) -> int:
    """The proposal after the recommendations of the windows have had their say."""
    records = state.recommendations or ()
    if spec.behavior is None:
        return stabilise_legacy(
            records, proposal=proposal, window_s=spec.stabilisation_s, now_s=now_s
        )
    return stabilise_with_behavior(
        records, behavior=spec.behavior, current=current, proposal=proposal, now_s=now_s
    )


def stabilise_legacy(
    records: Iterable[Recommendation], *, proposal: int, window_s: float, now_s: float
) -> int:
    """Highest of the proposal and every recommendation not older than the window.

    This path can also *raise* the count above what is asked now (``stabilizeRecommendation``).
    """
    recent = (record.replicas for record in records if now_s - record.at_s <= window_s)
    return max((proposal, *recent))


def stabilise_with_behavior(
    records: Sequence[Recommendation],
    *,
    behavior: Behavior,
    current: int,
    proposal: int,
    now_s: float,
) -> int:
    """``current`` moved no further than all recommendations younger than each window agree on.

    ``stabilizeRecommendationWithBehaviors``; a record exactly as old as the window is out.
    """
    up_s, down_s = behavior.up.stabilisation_s, behavior.down.stabilisation_s
    up = down = proposal
    for record in records:
        age_s, replicas = now_s - record.at_s, record.replicas
        if replicas < up and age_s < up_s:
            up = replicas
        elif replicas > down and age_s < down_s:
            down = replicas
    return min(max(current, up), down)


def limit(spec: HpaSpec, state: HpaState, *, current: int, desired: int, now_s: float) -> Limited:
    """``desired`` within rate limits and bounds, with the limit that bound it."""
    if spec.behavior is None:
        return limit_legacy(
            current=current,
            desired=desired,
            replicas_min=spec.replicas_min,
            replicas_max=spec.replicas_max,
        )
    return limit_with_behavior(spec, state, current=current, desired=desired, now_s=now_s)


def limit_legacy(*, current: int, desired: int, replicas_min: int, replicas_max: int) -> Limited:
    """Bounds, and upwards at most ``max(2 * current, 4)`` (``convertDesiredReplicasWithRules``)."""
    rate_limit = max(LEGACY_UP_FACTOR * current, LEGACY_UP_MINIMUM)
    if desired < replicas_min:
        return make_limited(replicas=replicas_min, reason=Reason.TOO_FEW_REPLICAS)
    if desired > min(rate_limit, replicas_max):
        if replicas_max > rate_limit:
            return make_limited(replicas=rate_limit, reason=Reason.SCALE_UP_LIMIT)
        return make_limited(replicas=replicas_max, reason=Reason.TOO_MANY_REPLICAS)
    return make_limited(replicas=desired, reason=Reason.DESIRED_WITHIN_RANGE)


def limit_with_behavior(
    spec: HpaSpec, state: HpaState, *, current: int, desired: int, now_s: float
) -> Limited:
    """Bounds and rate policies (``convertDesiredReplicasWithBehaviorRate``)."""
    assert spec.behavior is not None
    if desired > current:
        ceiling = rate_limit_up(spec.behavior.up, state, current=current, now_s=now_s)
        if desired > min(ceiling, spec.replicas_max):
            if spec.replicas_max > ceiling:
                return make_limited(replicas=ceiling, reason=Reason.SCALE_UP_LIMIT)
            return make_limited(replicas=spec.replicas_max, reason=Reason.TOO_MANY_REPLICAS)
    elif desired < current:
        floor = rate_limit_down(spec.behavior.down, state, current=current, now_s=now_s)
        if desired < max(floor, spec.replicas_min):
            if spec.replicas_min < floor:
                return make_limited(replicas=floor, reason=Reason.SCALE_DOWN_LIMIT)
            return make_limited(replicas=spec.replicas_min, reason=Reason.TOO_FEW_REPLICAS)
    return make_limited(replicas=desired, reason=Reason.DESIRED_WITHIN_RANGE)


def rate_limit_up(rules: ScalingRules, state: HpaState, *, current: int, now_s: float) -> int:
    """Highest count the policies allow now, never under ``current``.

    With ``start`` the count at the beginning of a policy's period: ``start + value`` pods, or
    ``ceil(start * (1 + value / 100))``, rounded up so that 1 pod can grow at all.
    """
    if rules.select is SelectPolicy.DISABLED:
        return current
    limits = []
    for policy in rules.policies:
        start = _period_start(policy, state, current=current, now_s=now_s)
        if policy.type is PolicyType.PODS:
            limits.append(start + policy.value)
        else:
            limits.append(math.ceil(float(start) * (1.0 + float(policy.value) / 100.0)))
    chosen = min(limits) if rules.select is SelectPolicy.MIN else max(limits)
    return max(chosen, current)


def rate_limit_down(rules: ScalingRules, state: HpaState, *, current: int, now_s: float) -> int:
    """Lowest count the policies allow now, never above ``current``.

    ``start - value`` pods, or ``int(start * (1 - value / 100))``; Max is the largest change, so
    the lowest of the limits.
    """
    if rules.select is SelectPolicy.DISABLED:
        return current
    limits = []
    for policy in rules.policies:
        start = _period_start(policy, state, current=current, now_s=now_s)
        if policy.type is PolicyType.PODS:
            limits.append(start - policy.value)
        else:
            limits.append(int(float(start) * (1.0 - float(policy.value) / 100.0)))
    chosen = max(limits) if rules.select is SelectPolicy.MIN else min(limits)
    return min(chosen, current)


def _period_start(policy: ScalingPolicy, state: HpaState, *, current: int, now_s: float) -> int:
    """Count at the start of the policy's period, from the events younger than it."""
    cutoff_s = now_s - policy.period_s
    added = sum(event.replicas for event in state.scale_ups if event.at_s > cutoff_s)
    removed = sum(event.replicas for event in state.scale_downs if event.at_s > cutoff_s)
    return current - added + removed


def remember_proposal(spec: HpaSpec, state: HpaState, *, proposal: int, now_s: float) -> HpaState:
    """Memory with the proposal added, as the controller adds it (see ``_placed``)."""
    window_s = spec.stabilisation_s
    if spec.behavior is not None:
        window_s = max(spec.behavior.up.stabilisation_s, spec.behavior.down.stabilisation_s)
    added = make_recommendation(at_s=now_s, replicas=proposal)
    records = _placed(state.recommendations or (), added, forget_after_s=window_s)
    return change_hpa_state(state, recommendations=records)


def remember_change(
    spec: HpaSpec, state: HpaState, *, current: int, replicas: int, now_s: float
) -> HpaState:
    """Memory with the change as a scale event; the older path stores none (``storeScaleEvent``).

    What may be forgotten depends on the longest period of the event's own direction, although
    the other direction's policies count these events too.
    """
    change = replicas - current
    if spec.behavior is None or change == 0:
        return state
    event = ScaleEvent(at_s=now_s, replicas=abs(change))
    if change > 0:
        longest_s = max(policy.period_s for policy in spec.behavior.up.policies)
        return change_hpa_state(
            state, scale_ups=_placed(state.scale_ups, event, forget_after_s=longest_s)
        )
    longest_s = max(policy.period_s for policy in spec.behavior.down.policies)
    scale_downs = _placed(state.scale_downs, event, forget_after_s=longest_s)
    return change_hpa_state(state, scale_downs=scale_downs)


def _placed(
    entries: tuple[_Entry, ...], new: _Entry, *, forget_after_s: float
) -> tuple[_Entry, ...]:
    """``new`` in place of the last entry older than ``forget_after_s``, or at the end.

    The controller reuses one slot at a time and clears none, so entries that no window needs now
    can come back into sight when a setting grows.
    """
    now_s = new.at_s
    for at in range(len(entries) - 1, -1, -1):
        if now_s - entries[at].at_s > forget_after_s:
            return (*entries[:at], new, *entries[at + 1 :])
    return (*entries, new)
