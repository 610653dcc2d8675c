"""A ScaledObject's settings, and the cluster's, as far as they decide replica counts.

Defaults are KEDA's (``apis/keda/v1alpha1/scaledobject_types.go``) and Kubernetes' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from scaler.core.hpa import (
    Behavior,
    HpaSpec,
    SelectPolicy,
    TargetType,
    Version,
    parse_behavior,
    tolerances_for,
)
from scaler.core.hpa_spec import DOWNSCALE_STABILISATION_S, TOLERANCE_DEFAULT, Json
from scaler.errors import ConfigError, ScenarioError

ANNOTATION = "autoscaling.keda.sh/"


class FallbackBehavior(StrEnum):
    """What count KEDA serves in place of a failing metric."""

    STATIC = "static"
    CURRENT_REPLICAS = "currentReplicas"
    CURRENT_REPLICAS_IF_HIGHER = "currentReplicasIfHigher"
    CURRENT_REPLICAS_IF_LOWER = "currentReplicasIfLower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Acts when the reads that failed in a row exceed ``failure_threshold``."""

    failure_threshold: int
    replicas: int
    behavior: FallbackBehavior = FallbackBehavior.STATIC


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledObjectSpec:
    """One ScaledObject with one external trigger.

    ``target_milli`` is what the scaler answers to GetMetricSpec, in thousandths.  The last five
    fields are annotations.
    """

    polling_interval_s: float = 30.0
    cooldown_s: float = 300.0
    initial_cooldown_s: float = 0.0
    replicas_min: int = 0
    replicas_max: int = 100
    replicas_idle: int | None = None
    fallback: Fallback | None = None
    behavior: Behavior | None = None
    target_type: TargetType = TargetType.AVERAGE_VALUE
    target_milli: int = 1000
    use_cached_metrics: bool = False
    paused: bool = False
    paused_replicas: int | None = None
    scale_in_paused: bool = False
    scale_out_paused: bool = False
    activation_forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """Versions and controller flags; ``gate`` is HPAConfigurableTolerance, None its default."""

    kubernetes: Version = Version(1, 36, 2)
    keda: Version = Version(2, 20, 2)
    hpa_sync_s: float = 15.0
    tolerance: float = TOLERANCE_DEFAULT
    downscale_stabilisation_s: float = DOWNSCALE_STABILISATION_S
    gate: bool | None = None


def hpa_spec(scaled_object: ScaledObjectSpec, cluster: ClusterSpec) -> HpaSpec:
    """The HPA that KEDA writes: minimum at least 1, a paused direction as policy Disabled.

    A pause of one direction makes ``behavior`` present, and so changes the HPA's path.
    """
    behavior = scaled_object.behavior
    if scaled_object.scale_in_paused:
        behavior = behavior or Behavior()
        behavior = replace(behavior, down=replace(behavior.down, select=SelectPolicy.DISABLED))
    if scaled_object.scale_out_paused:
        behavior = behavior or Behavior()
        behavior = replace(behavior, up=replace(behavior.up, select=SelectPolicy.DISABLED))
    return HpaSpec(
        replicas_min=max(1, scaled_object.replicas_min),
        replicas_max=scaled_object.replicas_max,
        behavior=behavior,
        tolerances=tolerances_for(
            cluster.kubernetes, behavior, cluster_default=cluster.tolerance, gate=cluster.gate
        ),
        stabilisation_s=cluster.downscale_stabilisation_s,
    )


def parse_scaled_object(
    document: Mapping[str, Json], *, target_milli: int = 1000, trigger: int = 0
) -> ScaledObjectSpec:
    """Read a ScaledObject as Kubernetes serves it; ``trigger`` is the index of the external one.

    Raises:
        ScenarioError: a value cannot be read or contradicts another; every fault is named.
    """
    reader = _Reader(faults=[])
    spec = reader.mapping(document.get("spec"), "spec")
    annotations = reader.mapping(
        reader.mapping(document.get("metadata"), "metadata").get("annotations"), "annotations"
    )
    advanced = reader.mapping(spec.get("advanced"), "spec.advanced")
    config = reader.mapping(
        advanced.get("horizontalPodAutoscalerConfig"), "horizontalPodAutoscalerConfig"
    )
    ours = reader.trigger(spec.get("triggers"), trigger)
    read = ScaledObjectSpec(
        polling_interval_s=reader.whole(spec, "pollingInterval", default=30, low=1),
        cooldown_s=reader.whole(spec, "cooldownPeriod", default=300),
        initial_cooldown_s=reader.whole(spec, "initialCooldownPeriod", default=0),
        replicas_min=reader.whole(spec, "minReplicaCount", default=0),
        replicas_max=reader.whole(spec, "maxReplicaCount", default=100, low=1),
        replicas_idle=reader.optional(spec, "idleReplicaCount"),
        fallback=reader.fallback(spec.get("fallback")),
        behavior=reader.behavior(config.get("behavior")),
        target_type=reader.target_type(ours.get("metricType")),
        target_milli=target_milli,
        use_cached_metrics=ours.get("useCachedMetrics") is True,
        paused=annotations.get(ANNOTATION + "paused") == "true",
        paused_replicas=reader.annotated(annotations, "paused-replicas"),
        scale_in_paused=annotations.get(ANNOTATION + "paused-scale-in") == "true",
        scale_out_paused=annotations.get(ANNOTATION + "paused-scale-out") == "true",
        activation_forced=annotations.get(ANNOTATION + "force-activation") == "true",
    )
    reader.check(read)
    if reader.faults:
        raise ScenarioError("; ".join(reader.faults))
    return read


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads parts of a document and collects what is wrong with them."""

    faults: list[str]

    def mapping(self, value: Json, key: str) -> Mapping[str, Json]:
        if value is None:
            return {}
        if isinstance(value, Mapping):
            return value
        self.faults.append(f"{key} = {value!r}, must be a mapping")
        return {}

    def trigger(self, value: Json, index: int) -> Mapping[str, Json]:
        if value is None:
            return {}
        if isinstance(value, str) or not isinstance(value, Sequence) or index >= len(value):
            self.faults.append(f"spec.triggers = {value!r}, must be a list with an item {index}")
            return {}
        return self.mapping(value[index], f"spec.triggers[{index}]")

    def whole(self, block: Mapping[str, Json], key: str, *, default: int, low: int = 0) -> int:
        value = block.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            self.faults.append(f"{key} = {value!r}, must be a whole number >= {low}")
            return default
        return value

    def optional(self, block: Mapping[str, Json], key: str) -> int | None:
        return None if block.get(key) is None else self.whole(block, key, default=0)

    def annotated(self, annotations: Mapping[str, Json], key: str) -> int | None:
        value = annotations.get(ANNOTATION + key)
        if value is None:
            return None
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        self.faults.append(f"{ANNOTATION}{key} = {value!r}, must be a whole number >= 0 in quotes")
        return None

    def fallback(self, value: Json) -> Fallback | None:
        if value is None:
            return None
        block = self.mapping(value, "spec.fallback")
        behavior = block.get("behavior") or FallbackBehavior.STATIC
        if behavior not in list(FallbackBehavior):
            allowed = ", ".join(FallbackBehavior)
            self.faults.append(f"spec.fallback.behavior = {behavior!r}, must be one of {allowed}")
            behavior = FallbackBehavior.STATIC
        return Fallback(
            failure_threshold=self.whole(block, "failureThreshold", default=0),
            replicas=self.whole(block, "replicas", default=0),
            behavior=FallbackBehavior(str(behavior)),
        )

    def behavior(self, value: Json) -> Behavior | None:
        if value is None:
            return None
        try:
            return parse_behavior(self.mapping(value, "behavior"))
        except ConfigError as error:
            self.faults.extend(error.faults)
            return None

    def target_type(self, value: Json) -> TargetType:
        if value in {None, ""}:
            return TargetType.AVERAGE_VALUE
        if value in list(TargetType):
            return TargetType(str(value))
        self.faults.append(f"metricType = {value!r}, must be AverageValue or Value")
        return TargetType.AVERAGE_VALUE

    def check(self, read: ScaledObjectSpec) -> None:
        if read.replicas_min > read.replicas_max:
            self.faults.append(
                f"minReplicaCount = {read.replicas_min}, must be <= {read.replicas_max}"
            )
        if read.replicas_idle is not None and read.replicas_idle >= read.replicas_min:
            self.faults.append(
                f"idleReplicaCount = {read.replicas_idle}, must be < {read.replicas_min}"
            )
