"""What an HPA is configured with: bounds, ``behavior``, tolerances, and the cluster's version.

The arithmetic that uses these is in ``hpa``.  Sources: Kubernetes ``pkg/apis/autoscaling/v2``
(defaults) and ``pkg/apis/autoscaling/validation`` (ranges), v1.25 to v1.36.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import TypeAlias, TypeVar

from scaler.errors import ConfigError

TOLERANCE_DEFAULT = 0.1  # --horizontal-pod-autoscaler-tolerance
DOWNSCALE_STABILISATION_S = 300.0  # --horizontal-pod-autoscaler-downscale-stabilization
STABILISATION_MAX_S = 3600
PERIOD_MAX_S = 1800


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A release of Kubernetes or KEDA, ordered."""

    major: int
    minor: int
    patch: int = 0


BAND_SINCE = Version(1, 33)
TOLERANCE_FIELD_SINCE = Version(1, 33)  # alpha, gate HPAConfigurableTolerance off
TOLERANCE_FIELD_ON_SINCE = Version(1, 35)  # beta, gate on


def parse_version(text: str) -> Version:
    """Read ``v1.33.2``, ``1.33`` or ``1.33.2-gke.1``; a patch left out is 0.

    Raises:
        ConfigError: the text does not begin with ``major.minor``.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text.strip())
    if found is None:
        raise ConfigError(f"version = {text!r}, must look like 1.33 or v1.33.2")
    return Version(int(found[1]), int(found[2]), int(found[3] or 0))


class ToleranceRule(StrEnum):
    """How the controller compares the usage ratio with the tolerance."""

    ABSOLUTE = "absolute"  # <= 1.32: abs(1.0 - ratio) <= tolerance
    BAND = "band"  # >= 1.33: 1.0 - down <= ratio <= 1.0 + up


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """Which usage ratios leave the count alone.

    The two rules differ at the exact edge: in binary64 ``1.0 - 1.1`` is -0.10000000000000009, so
    that 10 -> 11 happens up to Kubernetes 1.32 and is swallowed from 1.33 on.
    """

    down: float = TOLERANCE_DEFAULT
    up: float = TOLERANCE_DEFAULT
    rule: ToleranceRule = ToleranceRule.BAND

    def __post_init__(self) -> None:
        assert self.down >= 0.0, self.down
        assert self.up >= 0.0, self.up
        same = self.down == self.up
        assert same or self.rule is ToleranceRule.BAND, "one tolerance for both ways before 1.33"

    def holds(self, ratio: float) -> bool:
        """Whether the controller leaves the count alone; NaN and infinity never hold."""
        if self.rule is ToleranceRule.ABSOLUTE:
            return abs(1.0 - ratio) <= self.up
        return 1.0 - self.down <= ratio <= 1.0 + self.up


class SelectPolicy(StrEnum):
    """Which of several rate policies counts."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


class PolicyType(StrEnum):
    """Unit of a rate policy."""

    PODS = "Pods"
    PERCENT = "Percent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """At most ``value`` pods or percent of change within ``period_s`` seconds."""

    type: PolicyType
    value: int
    period_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRules:
    """One direction of ``behavior``, with nothing left out.

    ``tolerance`` is None where the block does not set it: the cluster's default applies.
    """

    select: SelectPolicy
    stabilisation_s: float
    policies: tuple[ScalingPolicy, ...]
    tolerance: float | None = None


UP_DEFAULT = ScalingRules(
    select=SelectPolicy.MAX,
    stabilisation_s=0.0,
    policies=(
        ScalingPolicy(type=PolicyType.PODS, value=4, period_s=15.0),
        ScalingPolicy(type=PolicyType.PERCENT, value=100, period_s=15.0),
    ),
)
DOWN_DEFAULT = ScalingRules(
    select=SelectPolicy.MAX,
    stabilisation_s=DOWNSCALE_STABILISATION_S,
    policies=(ScalingPolicy(type=PolicyType.PERCENT, value=100, period_s=15.0),),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """``spec.behavior`` of an HPA after Kubernetes has filled in its defaults."""

    up: ScalingRules = UP_DEFAULT
    down: ScalingRules = DOWN_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class HpaSpec:
    """One HPA.  ``behavior`` None selects the controller's older path, KEDA's default.

    KEDA writes ``replicas_min = max(1, minReplicaCount)``; ``stabilisation_s`` is the older path's
    window (a flag of the controller).
    """

    replicas_min: int = 1
    replicas_max: int = 100
    behavior: Behavior | None = None
    tolerances: Tolerances = Tolerances()
    stabilisation_s: float = DOWNSCALE_STABILISATION_S


def tolerances_for(
    kubernetes: Version,
    behavior: Behavior | None = None,
    *,
    cluster_default: float = TOLERANCE_DEFAULT,
    gate: bool | None = None,
) -> Tolerances:
    """Tolerances in force for an HPA on a cluster of this version.

    ``gate`` is the feature gate HPAConfigurableTolerance where it is known to be set; None takes
    the version's default.  With the gate off the API server drops the fields in silence.
    """
    if kubernetes < BAND_SINCE:
        return Tolerances(down=cluster_default, up=cluster_default, rule=ToleranceRule.ABSOLUTE)
    enabled = kubernetes >= TOLERANCE_FIELD_ON_SINCE if gate is None else gate
    up = behavior.up.tolerance if enabled and behavior else None
    down = behavior.down.tolerance if enabled and behavior else None
    return Tolerances(
        down=cluster_default if down is None else down,
        up=cluster_default if up is None else up,
    )


_Choice = TypeVar("_Choice", bound=StrEnum)
Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"


def parse_behavior(
    block: Mapping[str, Json] | None,
    *,
    downscale_stabilisation_s: float = DOWNSCALE_STABILISATION_S,
) -> Behavior | None:
    """Read a Kubernetes ``behavior`` block (as in a ScaledObject's or an HPA's JSON).

    None stays None: the HPA then takes the controller's older path.  Parts left out get the
    defaults of Kubernetes; a ``policies`` list that is given replaces the default list.

    Raises:
        ConfigError: with every fault, each naming key, value and allowed range.
    """
    if block is None:
        return None
    faults: list[str] = []
    down_default = ScalingRules(
        select=DOWN_DEFAULT.select,
        stabilisation_s=downscale_stabilisation_s,
        policies=DOWN_DEFAULT.policies,
    )
    behavior = Behavior(
        up=_rules(block.get("scaleUp"), default=UP_DEFAULT, key="scaleUp", faults=faults),
        down=_rules(block.get("scaleDown"), default=down_default, key="scaleDown", faults=faults),
    )
    if faults:
        raise ConfigError(*faults)
    return behavior


def _rules(block: Json, *, default: ScalingRules, key: str, faults: list[str]) -> ScalingRules:
    if block is None:
        return default
    if not isinstance(block, Mapping):
        faults.append(f"behavior.{key} = {block!r}, must be a mapping")
        return default
    select = _choice(
        block.get("selectPolicy"), SelectPolicy, f"behavior.{key}.selectPolicy", faults
    )
    window_s = _whole(
        block.get("stabilizationWindowSeconds"),
        key=f"behavior.{key}.stabilizationWindowSeconds",
        low=0,
        high=STABILISATION_MAX_S,
        faults=faults,
    )
    return ScalingRules(
        select=default.select if select is None else select,
        stabilisation_s=default.stabilisation_s if window_s is None else float(window_s),
        policies=_policies(block.get("policies"), key=key, faults=faults) or default.policies,
        tolerance=_tolerance(block.get("tolerance"), key=key, faults=faults),
    )


def _policies(block: Json, *, key: str, faults: list[str]) -> tuple[ScalingPolicy, ...]:
    if block is None:
        return ()
    if isinstance(block, str) or not isinstance(block, Sequence):
        faults.append(f"behavior.{key}.policies = {block!r}, must be a list")
        return ()
    read = (
        _policy(item, key=f"behavior.{key}.policies[{at}]", faults=faults)
        for at, item in enumerate(block)
    )
    return tuple(policy for policy in read if policy is not None)


def _policy(item: Json, *, key: str, faults: list[str]) -> ScalingPolicy | None:
    if not isinstance(item, Mapping):
        faults.append(f"{key} = {item!r}, must be a mapping")
        return None
    kind = _choice(item.get("type"), PolicyType, f"{key}.type", faults)
    value = _whole(item.get("value"), key=f"{key}.value", low=1, high=2**31 - 1, faults=faults)
    period_s = _whole(
        item.get("periodSeconds"),
        key=f"{key}.periodSeconds",
        low=1,
        high=PERIOD_MAX_S,
        faults=faults,
    )
    if kind is None or value is None or period_s is None:
        absent = [name for name in ("type", "value", "periodSeconds") if item.get(name) is None]
        faults.extend(f"{key}.{name} is missing, must be set" for name in absent)
        return None
    return ScalingPolicy(type=kind, value=value, period_s=float(period_s))


def _choice(value: Json, kind: type[_Choice], key: str, faults: list[str]) -> _Choice | None:
    if value is None:
        return None
    if value not in list(kind):
        faults.append(f"{key} = {value!r}, must be one of {', '.join(kind)}")
        return None
    return kind(str(value))


def _whole(value: Json, *, key: str, low: int, high: int, faults: list[str]) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        faults.append(f"{key} = {value!r}, must be a whole number in [{low}, {high}]")
        return None
    return value


def _tolerance(value: Json, *, key: str, faults: list[str]) -> float | None:
    if value is None:
        return None
    try:
        tolerance = parse_quantity(str(value))
    except ConfigError:
        tolerance = -1.0
    if tolerance < 0.0:
        faults.append(f"behavior.{key}.tolerance = {value!r}, must be a quantity >= 0")
        return None
    return tolerance


_SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_SUFFIXES = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([numkMGTPE]|[KMGTPE]i)?")


def parse_quantity(text: str) -> float:
    """Value of a Kubernetes quantity (``0.05``, ``50m``, ``5e-2``, ``1Ki``).

    The controller reads it back from canonical form, a whole number of units, milli, micro or
    nano, as ``float(mantissa) * 10**-scale``; what is finer than nano is rounded up.

    Raises:
        ConfigError: the text is not a quantity.
    """
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"quantity = {text!r}, must be a Kubernetes quantity such as 0.05 or 50m")
    number, suffix = Decimal(found[1]), found[2] or ""
    exact = (
        number * 2 ** _BINARY_SUFFIXES[suffix]
        if suffix in _BINARY_SUFFIXES
        else number.scaleb(_SUFFIXES[suffix])
    )
    for scale in (0, 3, 6):
        if exact.scaleb(scale) == exact.scaleb(scale).to_integral_value():
            return float(int(exact.scaleb(scale))) * 10.0**-scale
    return float(int(exact.scaleb(9).to_integral_value(rounding=ROUND_CEILING))) * 10.0**-9
