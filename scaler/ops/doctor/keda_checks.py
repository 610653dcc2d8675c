"""ScaledObjects and the HPAs that KEDA made of them; what stands between a decision and a pod.

Sources: KEDA 2.20.2 and Kubernetes 1.36 as observed (see ``scaler.core.hpa`` for the arithmetic).
"""

from collections.abc import Iterator

from scaler.core.model import Mode
from scaler.ops.doctor.evidence import (
    Cluster,
    Evidence,
    Hpa,
    Rules,
    ScaledObject,
    Target,
    Unseen,
)
from scaler.ops.doctor.findings import at, rule, unchecked
from scaler.ops.lint.model import Finding, Place, Severity, found
from scaler.service.board import METRIC_NAME

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
PAUSED = rule(
    "scaling-paused", _W, "KEDA deletes the HPA and asks nothing while paused",
    "kubectl annotate scaledobject NAME autoscaling.keda.sh/paused-",
)  # fmt: skip
METRIC_TYPE = rule(
    "metric-type", _E, "the HPA multiplies the count by itself at each sync",
    "metricType: AverageValue",
)  # fmt: skip
SLOW_POLL = rule(
    "polling-slow", _W, "a target at zero wakes only at a poll", "pollingInterval: 15",
)  # fmt: skip
FALLBACK_ZERO = rule(
    "fallback-to-zero", _E, "an outage of the scaler takes the target to zero",
    "fallback: {failureThreshold: 3, replicas: 1, behavior: currentReplicasIfHigher}",
)  # fmt: skip
FALLBACK_STATIC = rule(
    "fallback-static", _W, "an outage of the scaler sets this count whatever the load is",
    "fallback.behavior: currentReplicasIfHigher (KEDA 2.17 or newer)",
)  # fmt: skip
OTHER_TRIGGERS = rule(
    "other-triggers", _W, "the HPA takes the highest of all triggers: ours cannot lower it",
    "remove the other triggers, or accept that they hold the count up",
)  # fmt: skip
ADVISORY_BESIDE = rule(
    "advisory-beside-others", _E, "an advisory trigger answers the current count, so it holds up "
    "what the others would lower",
    "remove our trigger; advisory targets are listed in the configuration or annotated",
)  # fmt: skip
TWO_SCALERS = rule(
    "two-autoscalers", _E, "two autoscalers write the replicas of one workload in turn",
    "delete one of them",
)  # fmt: skip
NOT_READY = rule(
    "scaledobject-not-ready", _E, "KEDA does not scale this object",
    "kubectl describe scaledobject NAME: the events say why",
)  # fmt: skip
IN_FALLBACK = rule(
    "in-fallback", _E, "KEDA answers from fallback, not from the scaler", "mend the scaler first",
)  # fmt: skip
NO_HPA = rule(
    "hpa-absent", _E, "KEDA made no HPA: nothing scales beyond one replica",
    "kubectl describe scaledobject NAME; delete and apply it once the scaler answers",
)  # fmt: skip
NOT_OUR_METRIC = rule(
    "hpa-without-our-metric", _E, "the HPA scales by something else (CPU 80 % where KEDA found the "
    "scaler down at creation)",
    "kubectl delete hpa NAME; KEDA makes it anew",
)  # fmt: skip
NOT_SCALING = rule(
    "hpa-not-scaling", _E, "the HPA cannot read its metric or write the scale",
    "mend what the message names; a scaler that answers is read at the next sync",
)  # fmt: skip
LIMITED = rule(
    "hpa-limited", _W, "the HPA may not go where the metric asks",
    "raise maxReplicaCount or add GPUs, or accept the limit",
)  # fmt: skip
DROPPED = rule(
    "behaviour-dropped", _E, "the HPA does not have the behaviour that was written",
    "upgrade Kubernetes or KEDA, or edit the ScaledObject's spec so that KEDA writes it again",
)  # fmt: skip
NO_TOLERANCE = rule(
    "tolerance-dropped", _W, "from 10 replicas on steps of up to 10 % are not made",
    "Kubernetes 1.35 or newer with KEDA 2.18 or newer keeps tolerance; "
    "in 1.33 and 1.34 switch on the gate HPAConfigurableTolerance",
)  # fmt: skip
LIMITS_DIFFER = rule(
    "limits-differ", _W, "the HPA has other limits than the ScaledObject",
    "edit the ScaledObject's spec so that KEDA writes the HPA again",
)  # fmt: skip


def check(evidence: Evidence) -> Iterator[Finding]:
    """Findings of every ScaledObject with one of our triggers."""
    cluster = evidence.cluster
    if isinstance(cluster, Unseen):
        yield unchecked(at("cluster", "Kubernetes API"), "KEDA objects, HPAs", cluster)
        return
    for what, seen in (("ScaledObjects", cluster.scaled_objects), ("HPAs", cluster.hpas)):
        if isinstance(seen, Unseen):
            yield unchecked(at("cluster", what), what, seen)
    done: set[tuple[str, str]] = set()
    for target in evidence.targets:
        scaled = target.scaled_object
        if scaled is None or (scaled.namespace, scaled.name) in done:
            continue
        done.add((scaled.namespace, scaled.name))
        place = at("cluster", f"ScaledObject {scaled.namespace}/{scaled.name}")
        yield from _object(scaled, place)
        yield from _beside(target, scaled, place)
        yield from _others(cluster, scaled, place)
        if not isinstance(cluster.hpas, Unseen):
            yield from _its_hpa(cluster, cluster.hpas, scaled, place)


def _object(scaled: ScaledObject, place: Place) -> Iterator[Finding]:
    if scaled.paused:
        yield found(PAUSED, place, "annotated as paused")
    for one in scaled.triggers:
        if one.ours and one.metric_type != "AverageValue":
            where = place.below(f"triggers[{one.index}].metricType")
            yield found(METRIC_TYPE, where, f"metricType: {one.metric_type}")
    if scaled.replicas_min == 0 and scaled.polling_interval_s > 30.0:
        text = f"pollingInterval: {scaled.polling_interval_s:g}, minReplicaCount: 0"
        yield found(SLOW_POLL, place, text)
    yield from _fallback(scaled, place)
    for condition in scaled.conditions:
        said = f"{condition.type}={condition.status} {condition.reason}: {condition.message}"
        if condition.type == "Ready" and condition.status == "False":
            yield found(NOT_READY, place, said)
        if condition.type == "Fallback" and condition.status == "True":
            yield found(IN_FALLBACK, place, said)


def _fallback(scaled: ScaledObject, place: Place) -> Iterator[Finding]:
    if scaled.fallback is None:
        return
    replicas = scaled.fallback.get("replicas")
    behaviour = scaled.fallback.get("behavior") or "static"
    text = f"fallback: replicas {replicas}, behavior {behaviour}"
    if replicas == 0:
        yield found(FALLBACK_ZERO, place.below("fallback"), text)
    elif behaviour == "static":
        yield found(FALLBACK_STATIC, place.below("fallback"), text)


def _beside(target: Target, scaled: ScaledObject, place: Place) -> Iterator[Finding]:
    """Further triggers of the same object."""
    if len(scaled.triggers) < 2 or target.trigger is None:
        return
    others = [
        f"{one.index}: {one.type}{' (ours)' if one.ours else ''}"
        for one in scaled.triggers
        if one.index != target.trigger.index
    ]
    advisory = target.policy.mode is Mode.ADVISORY
    text = f"{len(scaled.triggers)} triggers; beside {target.trigger.index}: {', '.join(others)}"
    yield found(ADVISORY_BESIDE if advisory else OTHER_TRIGGERS, place.below("triggers"), text)


def _others(cluster: Cluster, scaled: ScaledObject, place: Place) -> Iterator[Finding]:
    """Other ScaledObjects and HPAs of the same workload."""
    mine = scaled.namespace, scaled.target.casefold()
    objects = () if isinstance(cluster.scaled_objects, Unseen) else cluster.scaled_objects
    hpas = () if isinstance(cluster.hpas, Unseen) else cluster.hpas
    names = {one.hpa_name for one in objects if one.namespace == scaled.namespace}
    rivals = [
        *(
            f"ScaledObject {one.name}"
            for one in objects
            if (one.namespace, one.target.casefold()) == mine and one.name != scaled.name
        ),
        *(
            f"HPA {one.name}"
            for one in hpas
            if (one.namespace, one.target.casefold()) == mine
            and not one.owner
            and one.name not in names
        ),
    ]
    if rivals:
        yield found(TWO_SCALERS, place, f"{scaled.target} also has {', '.join(rivals)}")


def _its_hpa(
    cluster: Cluster, hpas: tuple[Hpa, ...], scaled: ScaledObject, place: Place
) -> Iterator[Finding]:
    mine = [
        one
        for one in hpas
        if one.namespace == scaled.namespace
        and (one.owner == scaled.name or one.name == scaled.hpa_name)
    ]
    if not mine:
        if not scaled.paused:
            yield found(NO_HPA, place, f"no HPA {scaled.hpa_name}")
        return
    made = mine[0]
    where = at("cluster", f"HPA {made.namespace}/{made.name}")
    yield from _metrics(scaled, made, where)
    yield from _conditions(made, where)
    yield from _kept(cluster, scaled, made, where)
    limits = max(1, scaled.replicas_min), scaled.replicas_max
    if (made.replicas_min, made.replicas_max) != limits:
        text = f"HPA {made.replicas_min} to {made.replicas_max}, ScaledObject {limits[0]} to "
        yield found(LIMITS_DIFFER, where, f"{text}{limits[1]}")


def _metrics(scaled: ScaledObject, made: Hpa, where: Place) -> Iterator[Finding]:
    names = {one.name.casefold(): one for one in made.metrics if one.type == "External"}
    if scaled.modifiers:
        return  # KEDA then makes one composite metric of all triggers
    for trigger in (one for one in scaled.triggers if one.ours):
        name = f"s{trigger.index}-{METRIC_NAME}"
        if name not in names:
            has = ", ".join(f"{one.type} {one.name}" for one in made.metrics) or "no metric"
            yield found(NOT_OUR_METRIC, where.below("metrics"), f"no {name}; it has {has}")
        elif names[name].target_type != trigger.metric_type:
            text = f"{name}: {names[name].target_type}, trigger: {trigger.metric_type}"
            yield found(METRIC_TYPE, where.below("metrics"), text)


def _conditions(made: Hpa, where: Place) -> Iterator[Finding]:
    for one in made.conditions:
        said = f"{one.type}={one.status} {one.reason}: {one.message}"
        bad = one.status == "False" and one.type in ("ScalingActive", "AbleToScale")
        if bad and one.reason == "ScalingDisabled":
            yield found(NOT_SCALING, where, said, severity=_I, fix="nothing: the target is at 0")
        elif bad:
            yield found(NOT_SCALING, where, said)
        elif one.type == "ScalingLimited" and one.status == "True":
            severity = _W if one.reason == "TooManyReplicas" else _I
            yield found(LIMITED, where, said, severity=severity)


def _kept(cluster: Cluster, scaled: ScaledObject, made: Hpa, where: Place) -> Iterator[Finding]:
    """Behaviour as written against behaviour as stored."""
    written, stored = scaled.behaviour, made.behaviour
    if written is None:
        return
    for side, asked, has in (
        ("scaleUp", written.up, stored.up if stored else None),
        ("scaleDown", written.down, stored.down if stored else None),
    ):
        place = where.below(f"behavior.{side}")
        if asked is None:
            continue
        if has is None:
            yield found(DROPPED, place, f"{side} is written and not in the HPA")
            continue
        if asked.tolerance_ratio is not None and has.tolerance_ratio != asked.tolerance_ratio:
            minor = cluster.kubernetes_minor
            version = f"Kubernetes 1.{minor}" if minor else "Kubernetes of unknown version"
            kept = "none" if has.tolerance_ratio is None else f"{has.tolerance_ratio:g}"
            text = f"tolerance {asked.tolerance_ratio:g} is written, the HPA has {kept}; {version}"
            yield found(NO_TOLERANCE, place, text)
        if _differs(asked, has):
            text = f"written {_told(asked)}; in the HPA {_told(has)}"
            yield found(DROPPED, place, text)


def _differs(asked: Rules, has: Rules) -> bool:
    """Whether what is written stands otherwise in the HPA; what is not written is defaulted."""
    window = asked.window_s is not None and asked.window_s != has.window_s
    return window or (asked.policies is not None and asked.policies != has.policies)


def _told(rules: Rules) -> str:
    return f"window {rules.window_s} s, {', '.join(rules.policies or ('default policies',))}"
