"""Autoscalers that look at the wrong thing, or fight (mistakes 9 to 12, 21)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from scaler.ops.lint import metric_names
from scaler.ops.lint.bundle import GPU, Autoscaler, Bundle, same_namespace
from scaler.ops.lint.model import Finding, Place, Rule, Severity, found
from scaler.ops.lint.nodes import at, items, mapping, number, text
from scaler.ops.lint.promql import names, selectors
from scaler.ops.lint.queries import Purpose, Query

NO_RESOURCE = Rule(
    id="hpa-resource-unknown",
    mistake=9,
    severity=Severity.ERROR,
    says="an HPA knows the resources cpu and memory alone",
    fix="an External or Pods metric: the queue, through KEDA or prometheus-adapter",
)
ON_CPU = Rule(
    id="scale-on-cpu",
    mistake=9,
    severity=Severity.ERROR,
    says="vLLM polls busily and allocates ahead: CPU and memory stay the same under any load",
    fix="scale on waiting requests, or with the scaler",
)
TWO = Rule(
    id="two-autoscalers",
    mistake=10,
    severity=Severity.ERROR,
    says="two autoscalers write the same count",
    fix="one ScaledObject with several triggers; KEDA makes the HPA itself",
)
FIXED_COUNT = Rule(
    id="replicas-beside-autoscaler",
    mistake=10,
    severity=Severity.WARNING,
    says="every apply resets the count that the autoscaler has set",
    fix="leave spec.replicas out",
)
ON_GPU_UTIL = Rule(
    id="scale-on-gpu-util",
    mistake=11,
    severity=Severity.ERROR,
    says="near 100 % from the first request to saturation: it says busy or idle, not how busy",
    fix="scale on waiting requests; DCGM corroborates",
)
ON_GPU_MEMORY = Rule(
    id="scale-on-gpu-memory",
    mistake=11,
    severity=Severity.ERROR,
    says="vLLM takes its memory at start: it is constant",
    fix="scale on waiting requests; vllm:kv_cache_usage_perc is what fills up",
)
ON_RUNNING = Rule(
    id="scale-on-running",
    mistake=12,
    severity=Severity.WARNING,
    says="capped by --max-num-seqs, so under overload it cannot say by how much",
    fix="scale on running plus waiting requests, or on waiting ones",
)
ON_TTFT = Rule(
    id="scale-on-ttft-alone",
    mistake=12,
    severity=Severity.WARNING,
    says="nothing is observed in a stall and NaN when idle: the worst moments are silent",
    fix="add a trigger on waiting requests",
)
NULL_IS_ZERO = Rule(
    id="null-becomes-zero",
    mistake=12,
    severity=Severity.WARNING,
    says="no data counts as no load, and replicas are taken away while Prometheus is out",
    fix='ignoreNullValues: "false" and no "or vector(0)"',
)
SHORT_HOLD = Rule(
    id="hold-shorter-than-start",
    mistake=21,
    severity=Severity.WARNING,
    says="replicas are given up sooner than a new one could be there",
    fix="a window longer than a cold start, 300 s or more",
    heuristic=True,
)
ABOVE_GPUS = Rule(
    id="max-above-gpus",
    mistake=21,
    severity=Severity.ERROR,
    says="more replicas than GPUs exist: Pending pods count as capacity",
    fix="a maximum of at most the GPUs over the GPUs of a replica",
)
RULES = (
    NO_RESOURCE, ON_CPU, TWO, FIXED_COUNT, ON_GPU_UTIL, ON_GPU_MEMORY, ON_RUNNING, ON_TTFT,
    NULL_IS_ZERO, SHORT_HOLD, ABOVE_GPUS,
)  # fmt: skip
START_S = 300.0
"""What a cold start is taken to last where nothing says it: image there, weights on a volume."""
OURS = ("external", "external-push")
_GPU_UTIL = re.compile(r"(?i)gpu_util|gpu_engine_active|DCGM_FI_PROF_GR_ENGINE_ACTIVE")
_GPU_MEMORY = re.compile(r"(?i)DCGM_FI_DEV_FB_\w+|gpu_mem|fb_used")
_RUNNING = re.compile(r"num_requests_running")
_WAITING = re.compile(r"num_requests_waiting")
_TTFT = re.compile(r"(?i)time_to_first_token|ttft")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signal:
    """What one metric or trigger of an autoscaler reads."""

    place: Place
    names: tuple[str, ...]

    def reads(self, pattern: re.Pattern[str]) -> bool:
        return any(pattern.search(name) for name in self.names)


def check(bundle: Bundle, asked: list[Query]) -> Iterator[Finding]:
    """Findings on every autoscaler."""
    for scaler in bundle.autoscalers:
        if bundle.serves_vllm(scaler) or _reads_vllm(scaler, asked):
            yield from _signals(scaler, asked)
            yield from _on_cpu(scaler)
            yield from _holds(scaler)
        yield from _resources(scaler)
        yield from _gpus(bundle, scaler)
    yield from _several(bundle)
    yield from _fixed(bundle)
    for query in asked:
        yield from _nulls(query)


def _resources(scaler: Autoscaler) -> Iterator[Finding]:
    for place, metric in enumerate(items(scaler.document.body, "spec", "metrics")):
        for key in ("resource", "containerResource"):
            name = text(metric, key, "name")
            if name and name not in ("cpu", "memory"):
                path = f"spec.metrics.{place}.{key}.name"
                yield found(NO_RESOURCE, scaler.document.place.below(path), name)


def _on_cpu(scaler: Autoscaler) -> Iterator[Finding]:
    body = scaler.document.body
    for place, metric in enumerate(items(body, "spec", "metrics")):
        name = text(metric, "resource", "name") or text(metric, "containerResource", "name")
        if name in ("cpu", "memory"):
            yield found(ON_CPU, scaler.document.place.below(f"spec.metrics.{place}"), name)
    for place, trigger in enumerate(items(body, "spec", "triggers")):
        if text(trigger, "type") in ("cpu", "memory"):
            path = f"spec.triggers.{place}.type"
            yield found(ON_CPU, scaler.document.place.below(path), text(trigger, "type"))
    if at(body, "spec", "targetCPUUtilizationPercentage") is not None:
        path = "spec.targetCPUUtilizationPercentage"
        yield found(ON_CPU, scaler.document.place.below(path), text(body, *path.split(".")))


def _read_by(scaler: Autoscaler, asked: list[Query]) -> list[_Signal]:
    """What an autoscaler reads from metrics; a trigger of an external scaler says it of itself."""
    signals = []
    for place, metric in enumerate(items(scaler.document.body, "spec", "metrics")):
        for kind in ("pods", "external", "object"):
            name = text(metric, kind, "metric", "name")
            if name:
                path = f"spec.metrics.{place}.{kind}.metric.name"
                signals.append(_Signal(place=scaler.document.place.below(path), names=(name,)))
    for query in asked:
        if query.document is scaler.document and query.purpose is Purpose.TRIGGER:
            read = tuple(name for one in selectors(query.tree) for name in names(one))
            signals.append(_Signal(place=query.place, names=read))
    return signals


def _reads_vllm(scaler: Autoscaler, asked: list[Query]) -> bool:
    return any(
        metric_names.with_colon(name).startswith(metric_names.PREFIX)
        for signal in _read_by(scaler, asked)
        for name in signal.names
    )


def _signals(scaler: Autoscaler, asked: list[Query]) -> Iterator[Finding]:
    signals = _read_by(scaler, asked)
    for signal in signals:
        evidence = ", ".join(signal.names)
        if signal.reads(_GPU_UTIL):
            yield found(ON_GPU_UTIL, signal.place, evidence)
        if signal.reads(_GPU_MEMORY):
            yield found(ON_GPU_MEMORY, signal.place, evidence)
        if signal.reads(_RUNNING) and not signal.reads(_WAITING):
            yield found(ON_RUNNING, signal.place, evidence)
    others = [
        one
        for one in items(scaler.document.body, "spec", "triggers")
        if text(one, "type") not in ("prometheus", "cron", "cpu", "memory")
    ]
    if signals and not others and all(signal.reads(_TTFT) for signal in signals):
        yield found(ON_TTFT, signals[0].place, ", ".join(signals[0].names))


def _nulls(query: Query) -> Iterator[Finding]:
    if query.purpose is not Purpose.TRIGGER:
        return
    read = {name for one in selectors(query.tree) for name in names(one)}
    if not any(name.startswith((metric_names.PREFIX, "vllm_", "DCGM_")) for name in read):
        return
    said = text(query.held_by, "metadata", "ignoreNullValues")
    if re.search(r"\bor\b[^\"]*\bvector\s*\(\s*0", query.source):
        yield found(NULL_IS_ZERO, query.place, query.source)
    elif said.lower() != "false":
        evidence = f"ignoreNullValues: {said}" if said else "ignoreNullValues is missing: true"
        yield found(NULL_IS_ZERO, query.place, evidence)


def _holds(scaler: Autoscaler) -> Iterator[Finding]:
    """Our own trigger holds by itself: the HPA's window may be short there."""
    body = scaler.document.body
    external = any(text(one, "type") in OURS for one in items(body, "spec", "triggers"))
    inner = ("advanced", "horizontalPodAutoscalerConfig") if scaler.is_keda else ()
    key = (*inner, "behavior", "scaleDown", "stabilizationWindowSeconds")
    window_s = number(body, "spec", *key)
    if not external and window_s is not None and window_s < START_S:
        path = ".".join(("spec", *key))
        yield found(SHORT_HOLD, scaler.document.place.below(path), f"{window_s:g} s")
    cooldown_s = number(body, "spec", "cooldownPeriod")
    to_zero = scaler.replicas_min == 0 or at(body, "spec", "idleReplicaCount") is not None
    if scaler.is_keda and to_zero and cooldown_s is not None and cooldown_s < START_S:
        place = scaler.document.place.below("spec.cooldownPeriod")
        yield found(
            SHORT_HOLD, place, f"{cooldown_s:g} s, and minReplicaCount {scaler.replicas_min}"
        )


def _several(bundle: Bundle) -> Iterator[Finding]:
    for place, one in enumerate(bundle.autoscalers):
        for other in bundle.autoscalers[:place]:
            same = one.target == other.target and same_namespace(one.document, other.document)
            if same and (one.document.kind, one.document.name) != (
                other.document.kind, other.document.name,
            ):  # fmt: skip
                evidence = (
                    f"{other.document.kind}/{other.document.name} in {other.document.file} "
                    f"has {'/'.join(one.target)} as well"
                )
                yield found(TWO, one.document.place.below("spec.scaleTargetRef"), evidence)


def _fixed(bundle: Bundle) -> Iterator[Finding]:
    for document in bundle.documents:
        count = number(document.body, "spec", "replicas")
        scalers = bundle.scalers_of(document) if count is not None else []
        if scalers:
            by = scalers[0].document
            evidence = f"replicas: {count:g}, scaled by {by.kind}/{by.name}"
            yield found(FIXED_COUNT, document.place.below("spec.replicas"), evidence)


def _gpus(bundle: Bundle, scaler: Autoscaler) -> Iterator[Finding]:
    """Against the number that is given, or a ResourceQuota of the namespace."""
    each = sum(
        one.gpus
        for one in bundle.servers
        if (one.template.document.kind, one.template.document.name) == scaler.target
        and one.template.document.kind != "LeaderWorkerSet"
    )
    limits = [
        (float(bundle.gpus_total), "--gpus-total") if bundle.gpus_total is not None else None,
        *(
            (quota, f"ResourceQuota/{document.name}")
            for document in bundle.of_kind("ResourceQuota")
            if same_namespace(document, scaler.document)
            and (quota := number(mapping(document.body, "spec", "hard"), f"requests.{GPU}"))
            is not None
        ),
    ]
    for limit in filter(None, limits):
        if each and scaler.replicas_max * each > limit[0]:
            key = "maxReplicaCount" if scaler.is_keda else "maxReplicas"
            evidence = f"{scaler.replicas_max} x {each} GPUs, {limit[1]} has {limit[0]:g}"
            yield found(ABOVE_GPUS, scaler.document.place.below(f"spec.{key}"), evidence)
