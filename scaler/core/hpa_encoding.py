"""Which value to publish so that the HPA lands on the count we want.

With target 1 and AverageValue the HPA proposes status.replicas where ``value / status`` lies inside
the tolerance, else ``ceil(value)``.  So every value in ``(desired - 1, desired]`` says *desired*,
and which one is sent decides only whether it is heard:

- From a status below ``desired`` the largest is heard best: ``desired`` itself.  At tolerance 0.1
  nothing reaches +1 from 10 replicas on, +2 from 20 on: inside the band all values are swallowed.
- From a status above ``desired`` the smallest is heard best: ``desired - 0.99``, that is
  ``desired - 1`` and a hundredth, which KEDA up to 2.19 cannot truncate to ``desired - 1``.  It is
  sent where the plain count is not heard from ``desired + 1`` (from 9 on at tolerance 0.1).
- At ``desired`` every one of them keeps the count: each is its fixed point.

What holds for any status the HPA may meet, also one that we have not seen yet: the HPA proposes
``desired`` or keeps that status, never a third count.  On the side of ``desired`` where the known
status lies, it lands whenever any value would.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from scaler.core.hpa import average_value_proposal
from scaler.core.hpa_spec import Tolerances, Version

MILLI = 1000
FRACTION_MILLI = 10  # above desired - 1; 1 would be lost to truncation for some counts

_KEDA_FLOATS = (2, 17, 0)  # the double fields of externalscaler.proto
_KEDA_ROUNDS = (2, 20, 0)  # %.3f instead of truncation
_KEDA_CLIPS = (2, 20, 2)  # negative integers become 0


class Encoding(StrEnum):
    """How the double was chosen."""

    WHOLE = "whole"  # the count itself
    FRACTION = "fraction"  # just above one less, to leave the tolerance downwards
    BETWEEN = "between"  # heard from a status below and a spec above the count
    SWALLOWED = "swallowed"  # no value is heard from this status
    REPLICAS_UNKNOWN = "replicas_unknown"  # the count itself, whatever becomes of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The two fields of a MetricValue, and what the HPA will propose on reading them.

    ``lands_on`` is before the HPA's bounds, stabilisation and rates.
    """

    integer: int
    double: float
    lands_on: int
    reachable: bool
    encoding: Encoding


def encode(
    *,
    desired: int,
    status_replicas: int | None,
    spec_replicas: int | None,
    tolerances: Tolerances,
) -> Encoded:
    """Encode ``desired`` for an HPA that finds ``status_replicas``.

    ``spec_replicas`` is where the status is going: while the two differ (a start, a drain, a
    rollout's surge), the next sync may meet either, and a value that is heard from both is
    preferred.  None for either: not known, the plain count is sent in both fields.
    """
    assert desired >= 0, desired
    if status_replicas is None or spec_replicas is None:
        return _encoded(desired, MILLI * desired, desired, encoding=Encoding.REPLICAS_UNKNOWN)
    milli = _value_milli(desired, status_replicas, spec_replicas, tolerances)
    lands_on = _lands_on(milli, status_replicas, tolerances)
    encoding = _name(milli, desired=desired) if lands_on == desired else Encoding.SWALLOWED
    return _encoded(desired, milli, lands_on, encoding=encoding)


def reachable(*, desired: int, status_replicas: int, tolerances: Tolerances) -> bool:
    """Whether any value makes an HPA that finds ``status_replicas`` propose ``desired``."""
    return _lands_on(_best_milli(desired, status_replicas), status_replicas, tolerances) == desired


def next_reachable_up(*, desired: int, status_replicas: int, tolerances: Tolerances) -> int:
    """Smallest count not under ``desired`` that some value makes the HPA propose.

    At tolerance 0.1 from 10: 11 becomes 12; from 20: 21 and 22 become 23.  Where ``desired`` is a
    step down that is swallowed, all counts on the way are, and this is the status itself.
    """
    if reachable(desired=desired, status_replicas=status_replicas, tolerances=tolerances):
        return desired
    if status_replicas > desired:
        return status_replicas
    count = max(desired, math.floor((1.0 + tolerances.up) * status_replicas))
    while not reachable(desired=count, status_replicas=status_replicas, tolerances=tolerances):
        count += 1  # one or two steps: the edge of the band, in binary64
    return count


class Resolution(StrEnum):
    """What was done about a count that the HPA cannot be brought to."""

    AS_ASKED = "as_asked"
    ROUNDED_UP = "rounded_up"  # to the next count that can be reached
    HELD = "held"  # the step is left undone for now


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The count the HPA will propose, the value that makes it, and why it is not another."""

    replicas: int
    encoded: Encoded
    resolution: Resolution


def resolve_unreachable(
    *,
    desired: int,
    status_replicas: int | None,
    spec_replicas: int | None,
    tolerances: Tolerances,
    cost_over: float,
    cost_under: float,
    replicas_max: int | None = None,
) -> Resolved:
    """Encode ``desired``, or what costs least in its place.

    ``cost_over`` is the cost of one replica too many, ``cost_under`` of one too few, in any unit.
    A step up is rounded up or held, whichever costs less; equal costs hold.  Nothing ends under
    both ``desired`` and ``spec_replicas``: a step down is never overdone, and while the status lags
    behind the spec, where a swallowed value would write the status into the spec, the count is
    rounded up whatever it costs.  With ``replicas_max`` known, a value that asks for more than it
    lands on it, because the HPA cuts the proposal there.
    """
    assert min(cost_over, cost_under) >= 0.0, (cost_over, cost_under)
    asked = encode(
        desired=desired,
        status_replicas=status_replicas,
        spec_replicas=spec_replicas,
        tolerances=tolerances,
    )
    if asked.reachable or status_replicas is None or spec_replicas is None:
        return Resolved(replicas=desired, encoded=asked, resolution=Resolution.AS_ASKED)
    up = next_reachable_up(desired=desired, status_replicas=status_replicas, tolerances=tolerances)
    raised = up if replicas_max is None else max(desired, min(up, replicas_max))
    may_hold = asked.lands_on >= min(desired, spec_replicas)
    held_cost = _cost(asked.lands_on, desired, cost_over=cost_over, cost_under=cost_under)
    if may_hold and held_cost <= _cost(raised, desired, cost_over=cost_over, cost_under=cost_under):
        return Resolved(replicas=asked.lands_on, encoded=asked, resolution=Resolution.HELD)
    encoded = encode(
        desired=up,
        status_replicas=status_replicas,
        spec_replicas=spec_replicas,
        tolerances=tolerances,
    )
    return Resolved(replicas=raised, encoded=encoded, resolution=Resolution.ROUNDED_UP)


def keda_milli(*, integer: int, double: float, keda: Version) -> int:
    """Thousandths that KEDA hands to the HPA for the two value fields of an external scaler.

    The double counts only if it is greater than 0 (and known to the version), else the integer.
    Up to 2.19 the double is truncated, from 2.20 rounded as ``%.3f``.  Infinity becomes 0 from
    2.20 on; before, its conversion is left to the machine, and 0 stands for it here.
    """
    release = (keda.major, keda.minor, keda.patch)  # compared as one, at a tenth of the price
    if double > 0.0 and release >= _KEDA_FLOATS:
        if math.isinf(double):
            return 0
        if release >= _KEDA_ROUNDS:
            return int(f"{double:.3f}".replace(".", ""))
        return int(double * MILLI)
    if integer < 0 and release >= _KEDA_CLIPS:
        return 0
    return integer * MILLI


def _cost(replicas: int, desired: int, *, cost_over: float, cost_under: float) -> float:
    distance = replicas - desired
    return cost_over * distance if distance >= 0 else -cost_under * distance


def _encoded(desired: int, milli: int, lands_on: int, *, encoding: Encoding) -> Encoded:
    return Encoded(
        integer=desired,
        double=milli / MILLI,
        lands_on=lands_on,
        reachable=lands_on == desired,
        encoding=encoding,
    )


def _name(milli: int, *, desired: int) -> Encoding:
    if milli == _whole_milli(desired):
        return Encoding.WHOLE
    return Encoding.FRACTION if milli == _fraction_milli(desired) else Encoding.BETWEEN


def _whole_milli(desired: int) -> int:
    return MILLI * desired


def _fraction_milli(desired: int) -> int:
    return max(0, MILLI * (desired - 1) + FRACTION_MILLI)  # no fraction lies under 0


def _best_milli(desired: int, status_replicas: int) -> int:
    """The value that is heard from this status if any value is."""
    return _fraction_milli(desired) if status_replicas > desired else _whole_milli(desired)


def _value_milli(desired: int, status: int, spec: int, tolerances: Tolerances) -> int:
    """Thousandths to publish: heard from the status if possible, and from the spec as well."""
    low, high = min(status, spec), max(status, spec)
    if low < desired < high:
        return _straddling_milli(desired, status, spec, tolerances)
    one_above = _lands_on(_whole_milli(desired), desired + 1, tolerances)
    if high > desired and one_above != desired:
        return _fraction_milli(desired)  # a rate limit may stop the HPA anywhere on the way down
    return _whole_milli(desired)


def _straddling_milli(desired: int, status: int, spec: int, tolerances: Tolerances) -> int:
    """Status and spec lie on either side: a value heard from both, else from the status."""
    low, high = min(status, spec), max(status, spec)
    above = max((1.0 + tolerances.up) * low * MILLI, _fraction_milli(desired))
    below = min((1.0 - tolerances.down) * high * MILLI, _whole_milli(desired))
    middle = 10 * round((above + below) / 20.0)  # a whole hundredth, like the fraction
    for milli in (_whole_milli(desired), _fraction_milli(desired), middle):
        if all(_lands_on(milli, replicas, tolerances) == desired for replicas in (low, high)):
            return milli
    return _best_milli(desired, status)


def _lands_on(milli: int, status_replicas: int, tolerances: Tolerances) -> int:
    return average_value_proposal(
        usage_milli=milli,
        target_milli=MILLI,
        status_replicas=status_replicas,
        tolerances=tolerances,
    )
