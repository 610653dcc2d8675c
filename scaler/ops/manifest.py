"""The ScaledObject that puts a workload under the scaler, and the alerts on that workload.

What is printed here and what ``manifests/`` ships are the same: a test compares the two.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scaler.config_tree import ScalerConfig
from scaler.core.hpa_spec import TOLERANCE_FIELD_ON_SINCE, Version
from scaler.errors import ConfigError
from scaler.ops import commented_yaml
from scaler.ops.target_alerts import prometheus_rule
from scaler.trigger import KEDA_KEYS, NAME_CHARS_MAX, parse

API_VERSIONS: Mapping[str, tuple[str, str]] = {
    "deployment": ("apps/v1", "Deployment"),
    "statefulset": ("apps/v1", "StatefulSet"),
    "leaderworkerset": ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
}
SCALER_ADDRESS = "vllm-scaler.vllm-scaler.svc:9090"
REPLICAS_MAX = 10000
FALLBACK_THRESHOLD = 3
COOLDOWN_S = 300
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?:(\d{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRequest:
    """What the ScaledObject is for.

    ``metadata`` holds keys of our trigger with their texts, as KEDA would send them.
    ``kubernetes`` None means that the version is not known.
    """

    target: str
    namespace: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    scaler_address: str = SCALER_ADDRESS
    replicas_min: int = 1
    replicas_max: int = 8
    kubernetes: Version | None = None
    push: bool = False
    scale_to_zero: bool = False
    authentication: str = ""  # [KIND/]NAME of a TriggerAuthentication


def text(request: ManifestRequest, config: ScalerConfig | None, *, with_alerts: bool) -> str:
    """The YAML of the ScaledObject, and of a PrometheusRule after it where asked for.

    ``config`` is the daemon's; None leaves the profile unchecked, and a comment says so.

    Raises:
        ConfigError: with every fault, each naming the key, the value and what is allowed.
    """
    check(request, config)
    made = commented_yaml.dump(scaled_object(request, config), comments(request, config))
    if with_alerts:
        rule = prometheus_rule(
            namespace=request.namespace,
            target=_target(request, config or ScalerConfig()),
            policy=parse(_checked(request, config), config or ScalerConfig()).policy,
        )
        made += "---\n" + commented_yaml.dump(rule, {})
    return made


def check(request: ManifestRequest, config: ScalerConfig | None) -> None:
    """Refuse what the daemon or Kubernetes would refuse, all of it at once.

    Raises:
        ConfigError: with every fault found.
    """
    faults = [*_object_faults(request), *_count_faults(request), *_zero_faults(request, config)]
    faults += [
        f"{key} = {request.metadata[key]!r}, must not be among the metadata"
        for key in sorted((KEDA_KEYS | {"target"}) & set(request.metadata))
    ]
    try:
        parse(_checked(request, config), config or ScalerConfig())
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(*faults)


def scaled_object(request: ManifestRequest, config: ScalerConfig | None = None) -> dict[str, Any]:
    """The ScaledObject of a request without faults, with the shipped defaults."""
    kind, _, name = _target(request, config or ScalerConfig()).partition("/")
    api_version, kind = _kinds(config or ScalerConfig())[kind]
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": api_version, "kind": kind, "name": name},
        "minReplicaCount": 0 if request.scale_to_zero else request.replicas_min,
        "maxReplicaCount": request.replicas_max,
        "pollingInterval": 15,
        "cooldownPeriod": COOLDOWN_S,
        **({"initialCooldownPeriod": COOLDOWN_S} if request.scale_to_zero else {}),
        **_fallback(request),
        "advanced": {
            "restoreToOriginalReplicaCount": False,
            "horizontalPodAutoscalerConfig": {"behavior": _behavior(request.kubernetes)},
        },
        "triggers": [_trigger(request)],
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {
            "name": name,
            "namespace": request.namespace,
            "labels": {"app.kubernetes.io/name": "vllm"},
        },
        "spec": spec,
    }


def _fallback(request: ManifestRequest) -> dict[str, Any]:
    """None where the target may be at zero: from KEDA 2.19 on it lifts the target out of it."""
    if request.scale_to_zero:
        return {}
    return {
        "fallback": {
            "failureThreshold": FALLBACK_THRESHOLD,
            "replicas": request.replicas_min,
            "behavior": "currentReplicasIfHigher",
        }
    }


def comments(request: ManifestRequest, config: ScalerConfig | None) -> dict[str, str]:
    """What a reader of the ScaledObject must know, by the path of the line it concerns."""
    behavior = "spec.advanced.horizontalPodAutoscalerConfig.behavior"
    said = {
        "spec.maxReplicaCount": "not more than the GPUs that exist, over the GPUs of a replica",
        "spec.cooldownPeriod": "only for the step to zero, which minReplicaCount 1 excludes",
        "spec.fallback": "when the scaler cannot answer: never fewer than now or than this floor",
        "spec.fallback.behavior": "KEDA 2.17 or newer",
        f"{behavior}.scaleDown.stabilizationWindowSeconds": (
            "the scaler's own hold decides; this only smooths"
        ),
    }
    version = request.kubernetes
    if version is None:
        said[f"{behavior}.scaleUp.tolerance"] = (
            "Kubernetes 1.35 or newer with KEDA 2.18 or newer; older API servers drop it"
        )
    elif _has_tolerance(version):
        said[f"{behavior}.scaleUp.tolerance"] = "KEDA 2.18 or newer"
    else:
        said[f"{behavior}.scaleUp"] = (
            f"tolerance 0 is left out: Kubernetes {version.major}.{version.minor} drops it, 1.35 "
            "has it; from 10 replicas on steps of up to 10 % are rounded up or held"
        )
    if request.scale_to_zero:
        del said["spec.fallback"], said["spec.fallback.behavior"]
        said["spec.minReplicaCount"] = (
            "to zero once the daemon has proven idleness; woken by the profile's gateway_query"
        )
        said["spec.cooldownPeriod"] = "counted from the last moment that was not proven idle"
        said["spec.advanced"] = "no fallback: from KEDA 2.19 on it would lift an idle target"
    if request.metadata.get("profile") and config is None:
        wanted = " has a gateway_query" if request.scale_to_zero else " exists"
        said["spec.triggers.0.metadata.profile"] = (
            f"not checked: give --config with the daemon's settings, where it{wanted}"
        )
    return said


def _has_tolerance(kubernetes: Version | None) -> bool:
    return kubernetes is None or kubernetes >= TOLERANCE_FIELD_ON_SINCE


def _behavior(kubernetes: Version | None) -> dict[str, Any]:
    """Up as fast as the cluster starts pods, down slowly; no step is too small where 1.35 is."""
    tolerance = {"tolerance": 0} if _has_tolerance(kubernetes) else {}
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            **tolerance,
            "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15},
                {"type": "Pods", "value": 4, "periodSeconds": 15},
            ],
            "selectPolicy": "Max",
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 60,
            **tolerance,
            "policies": [
                {"type": "Percent", "value": 25, "periodSeconds": 60},
                {"type": "Pods", "value": 1, "periodSeconds": 60},
            ],
            "selectPolicy": "Max",
        },
    }


def _trigger(request: ManifestRequest) -> dict[str, Any]:
    trigger: dict[str, Any] = {
        "type": "external-push" if request.push else "external",
        "metricType": "AverageValue",
        "metadata": {"scalerAddress": request.scaler_address, **request.metadata},
    }
    if request.authentication:
        kind, _, name = request.authentication.rpartition("/")
        trigger["authenticationRef"] = {"kind": kind or "TriggerAuthentication", "name": name}
    return trigger


def _kinds(config: ScalerConfig) -> dict[str, tuple[str, str]]:
    """(apiVersion, kind) by the kind in small letters, those of the configuration included."""
    extra = {kind.kind.lower(): (kind.api_version, kind.kind) for kind in config.kubernetes.kinds}
    return {**API_VERSIONS, **extra}


def _target(request: ManifestRequest, config: ScalerConfig) -> str:
    """``kind/name`` with the kind in small letters; a name alone is a Deployment's."""
    given = request.target if "/" in request.target else f"deployment/{request.target}"
    trigger = parse({"target": given}, config)
    return f"{trigger.kind}/{trigger.name}"


def _checked(request: ManifestRequest, config: ScalerConfig | None) -> dict[str, str]:
    """The metadata as the daemon would check it; a profile cannot be, without its settings."""
    given = request.target if "/" in request.target else f"deployment/{request.target}"
    metadata = {**request.metadata, "target": given}
    if config is None:
        metadata.pop("profile", None)
    return metadata


def _object_faults(request: ManifestRequest) -> list[str]:
    faults = []
    if not _LABEL.fullmatch(request.namespace):
        faults.append(
            f"namespace = {request.namespace!r}, must be 1 to 63 of a-z, 0-9 and -, "
            "with a letter or digit at both ends"
        )
    address = _ADDRESS.fullmatch(request.scaler_address)
    if address is None or not 1 <= int(address[2]) <= 65535:
        faults.append(
            f"scalerAddress = {request.scaler_address!r}, must be host:port without a scheme, "
            "port in [1, 65535]"
        )
    kind, _, name = request.authentication.rpartition("/")
    named = len(name) <= NAME_CHARS_MAX and all(map(_LABEL.fullmatch, name.split(".")))
    known = kind in ("", "TriggerAuthentication", "ClusterTriggerAuthentication")
    if request.authentication and not (known and named):
        faults.append(
            f"authenticationRef = {request.authentication!r}, must be NAME, "
            "TriggerAuthentication/NAME or ClusterTriggerAuthentication/NAME"
        )
    return faults


def _count_faults(request: ManifestRequest) -> list[str]:
    low, high = request.replicas_min, request.replicas_max
    faults = []
    if not 1 <= high <= REPLICAS_MAX:
        faults.append(f"maxReplicaCount = {high}, must be in [1, {REPLICAS_MAX}]")
    if low == 0 and not request.scale_to_zero:
        faults.append("minReplicaCount = 0, must be at least 1 unless --scale-to-zero is given")
    elif not 0 <= low <= REPLICAS_MAX or low > high:
        faults.append(f"minReplicaCount = {low}, must be in [1, {high}], maxReplicaCount")
    if request.scale_to_zero and low > 1:
        faults.append(f"minReplicaCount = {low}, must not be given with --scale-to-zero")
    return faults


def _zero_faults(request: ManifestRequest, config: ScalerConfig | None) -> list[str]:
    """At zero no pod reports: a name, and a counter in front of the pods, must say who is asked."""
    if not request.scale_to_zero:
        return []
    faults = []
    if not request.metadata.get("modelName"):
        faults.append(
            "modelName is missing, must be set with --scale-to-zero: no pod reports it at zero"
        )
    name = request.metadata.get("profile", "")
    if not name:
        faults.append(
            "profile is missing, must be set with --scale-to-zero: its gateway_query wakes the "
            "target"
        )
    elif config and name in config.profiles and not config.profiles[name].gateway_query:
        faults.append(
            f"profile = {name!r}, must have a gateway_query with --scale-to-zero: "
            "vLLM's own metrics are gone at zero"
        )
    return faults
