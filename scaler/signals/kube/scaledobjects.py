"""ScaledObjects: which of their triggers are ours, and what they say about replicas.

A trigger is ours when its type is ``external`` or ``external-push`` and the host of its
``scalerAddress`` is one of the configured names, or starts with one followed by a dot.  So the
default ``vllm-scaler`` covers ``vllm-scaler:9090``, ``vllm-scaler.any-namespace.svc:9090`` and the
fully qualified form, and two installations in one cluster are told apart by ``vllm-scaler.team-a``
and ``vllm-scaler.team-b``.  The host decides, not the metadata keys: another external scaler may
use a key named ``target`` as well, and KEDA itself goes by the address.  An empty list of names
takes every external trigger.
"""

import math
from collections.abc import Mapping

import msgspec

from scaler.signals.kube import wire
from scaler.signals.kube.parse import quantity
from scaler.signals.kube.records import (
    Fallback,
    FallbackBehavior,
    Paused,
    ScaledObject,
    ScaledTrigger,
    TriggerId,
    TriggerType,
)
from scaler.signals.samples import TargetRef

SCALER_NAMES = ("vllm-scaler",)
PAUSE_PREFIX = "autoscaling.keda.sh/"
# KEDA's defaults for what a ScaledObject leaves out.
REPLICAS_MIN, REPLICAS_MAX = 0, 100
POLLING_INTERVAL_S, COOLDOWN_S = 30.0, 300.0

_scaled_object = msgspec.json.Decoder(wire.ScaledObject)


def scaled_object_record(raw: bytes | msgspec.Raw, scaler_names: tuple[str, ...]) -> ScaledObject:
    """A ScaledObject with our triggers.  Raises msgspec.DecodeError or ValueError."""
    found = _scaled_object.decode(raw)
    spec = found.spec
    return ScaledObject(
        namespace=found.metadata.namespace,
        name=found.metadata.name,
        scale_target=_scale_target(found),
        replicas_min=_or(spec.min_replica_count, REPLICAS_MIN),
        replicas_max=_or(spec.max_replica_count, REPLICAS_MAX),
        triggers=tuple(
            _trigger(found, index)
            for index, trigger in enumerate(spec.triggers)
            if is_ours(trigger.type, trigger.metadata or {}, scaler_names)
        ),
    )


def is_ours(type_: str, metadata: Mapping[str, str], scaler_names: tuple[str, ...]) -> bool:
    """Whether a trigger calls this scaler."""
    if type_ not in frozenset(TriggerType):
        return False
    host = host_of(metadata.get("scalerAddress", ""))
    return not scaler_names or any(
        host == name or host.startswith(f"{name}.") for name in scaler_names
    )


def host_of(address: str) -> str:
    """The host of a gRPC address: ``dns:///a.b:9090`` and ``a.b:9090`` are both ``a.b``."""
    bare = address.rsplit("/", maxsplit=1)[-1]
    if bare.startswith("["):
        return bare[1:].partition("]")[0]
    return bare.partition(":")[0]


def _trigger(found: wire.ScaledObject, index: int) -> ScaledTrigger:
    spec, meta, trigger = found.spec, found.metadata, found.spec.triggers[index]
    metadata = trigger.metadata or {}
    behavior = _behavior(spec)
    return ScaledTrigger(
        id=TriggerId(namespace=meta.namespace, name=meta.name, index=index),
        uid=meta.uid,
        generation=meta.generation,
        type=TriggerType(trigger.type),
        metadata=tuple(sorted(metadata.items())),
        scale_target=_scale_target(found),
        scale_target_api_version=spec.scale_target_ref.api_version,
        target=_target(found, metadata),
        replicas_min=_or(spec.min_replica_count, REPLICAS_MIN),
        replicas_max=_or(spec.max_replica_count, REPLICAS_MAX),
        replicas_idle=spec.idle_replica_count,
        polling_interval_s=float(_or(spec.polling_interval, POLLING_INTERVAL_S)),
        cooldown_s=float(_or(spec.cooldown_period, COOLDOWN_S)),
        has_behavior=behavior is not None,
        has_scaling_modifiers=bool(spec.advanced and spec.advanced.scaling_modifiers),
        tolerance_up_ratio=_tolerance(behavior.scale_up if behavior else None),
        tolerance_down_ratio=_tolerance(behavior.scale_down if behavior else None),
        fallback=_fallback(spec.fallback),
        paused=_paused(meta.annotations or {}),
        hpa_name=found.status.hpa_name,
        other_triggers=len(spec.triggers) - 1,
    )


def _or(value: int | None, default: float) -> int:
    return int(default) if value is None else value


def _scale_target(found: wire.ScaledObject) -> TargetRef:
    ref = found.spec.scale_target_ref
    kind = ref.kind or "Deployment"
    return TargetRef(namespace=found.metadata.namespace, kind=kind.lower(), name=ref.name)


def _target(found: wire.ScaledObject, metadata: Mapping[str, str]) -> TargetRef:
    """``kind/name`` of the metadata; a malformed one is reported where metadata is validated."""
    model_name = metadata.get("modelName", "")
    kind, _, name = metadata.get("target", "").partition("/")
    if not kind or not name:
        default = _scale_target(found)
        kind, name = default.kind, default.name
    return TargetRef(
        namespace=found.metadata.namespace, kind=kind.lower(), name=name, model_name=model_name
    )


def _behavior(spec: wire.ScaledObjectSpec) -> wire.Behavior | None:
    config = spec.advanced.horizontal_pod_autoscaler_config if spec.advanced else None
    return config.behavior if config else None


def _tolerance(rules: wire.ScalingRules | None) -> float | None:
    """None also for what no HPA can be made with: a typing error must not cost us the object."""
    if rules is None or rules.tolerance is None:
        return None
    try:
        found = quantity(rules.tolerance)
    except ValueError:
        return None
    return found if 0.0 <= found < math.inf else None


def _fallback(spec: wire.FallbackSpec | None) -> Fallback | None:
    if spec is None:
        return None
    known = spec.behavior in frozenset(FallbackBehavior)
    return Fallback(
        failure_threshold=spec.failure_threshold,
        replicas=spec.replicas,
        behavior=FallbackBehavior(spec.behavior) if known else FallbackBehavior.OTHER,
    )


def _paused(annotations: Mapping[str, str]) -> Paused:
    at_replicas = annotations.get(f"{PAUSE_PREFIX}paused-replicas", "")
    return Paused(
        fully=bool(at_replicas) or _is_true(annotations, "paused"),
        at_replicas=int(at_replicas) if at_replicas.isdecimal() else None,
        scale_in=_is_true(annotations, "paused-scale-in"),
        scale_out=_is_true(annotations, "paused-scale-out"),
    )


def _is_true(annotations: Mapping[str, str], name: str) -> bool:
    return annotations.get(f"{PAUSE_PREFIX}{name}", "").lower() in {"true", "1", "t"}
