"""What the daemon's own code collects for a target, held against its pods and its objectives."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scaler.core.model import Cause, Latency, NoData
from scaler.ops.doctor.evidence import Evidence, Target, Unseen
from scaler.ops.doctor.findings import at, of, rule, unchecked
from scaler.ops.lint.model import Finding, Severity, found
from scaler.signals.samples import GpuSample, Histogram, PodRef, PodSample, TargetSamples

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
NO_TARGETS = rule(
    "no-targets", _W, "nothing is scaled by this daemon",
    "apply a ScaledObject (scaler manifest prints one), or list targets in the configuration",
)  # fmt: skip
METADATA = rule(
    "metadata-wrong", _E, "the daemon refuses the trigger, so KEDA holds the count",
    "correct the trigger's metadata: scaler manifest prints it checked",
)  # fmt: skip
NO_WORKLOAD = rule(
    "workload-absent", _E, "there is nothing to scale", "correct scaleTargetRef or target",
)  # fmt: skip
OTHER_TARGET = rule(
    "target-is-not-scaled", _E, "one workload is observed and another one is scaled",
    "leave target out of the metadata, or set it to what scaleTargetRef names",
)  # fmt: skip
WRONG_MODEL = rule(
    "wrong-model", _E, "everything answers and the count never moves: no pod is of this model",
    "set modelName to the first --served-model-name",
)  # fmt: skip
BLIND = rule(
    "blind", _E, "the daemon sees nothing of this target",
    "mend the source that the evidence names",
)  # fmt: skip
COVERAGE = rule(
    "pods-without-samples", _E, "too few of the ready pods have samples to judge the whole",
    "scrape every pod: check the selector and port of the PodMonitor, and network policies",
)  # fmt: skip
STALE = rule(
    "samples-stale", _E, "the newest samples are too old to be used",
    "check the scrape job (up == 0?) or raise policy.freshness.stale_after_s",
)  # fmt: skip
METRIC_ABSENT = rule(
    "metric-absent", _E, "neither the new nor an old name of the metric is exported",
    "update vLLM, or set sources.*.engine to what the pods run",
)  # fmt: skip
PART_FAILED = rule(
    "signal-failed", _W, "this signal proposes nothing", "mend what the evidence names",
)  # fmt: skip
NO_TTFT = rule(
    "no-ttft-histogram", _W, "attainment cannot be judged, the objective steers by model alone",
    "check that vllm:time_to_first_token_seconds_bucket is not dropped by relabelling",
)  # fmt: skip
INSIDE_BUCKET = rule(
    "slo-inside-bucket", _I, "between two bounds the daemon takes the tail to fall geometrically, "
    "and near the objective the pessimistic end",
    "set the objective to a bound",
)  # fmt: skip
ABOVE_BUCKETS = rule(
    "slo-above-buckets", _E, "the histogram cannot tell a met objective from a missed one",
    "set the objective to a bound, or give vLLM higher bounds",
)  # fmt: skip
NO_GPU = rule(
    "no-dcgm", _W, "idleness cannot be proven and a busy GPU without a request is not seen",
    "install dcgm-exporter with --kubernetes, and let Prometheus keep its pod labels",
)  # fmt: skip
ASLEEP = rule(
    "engine-asleep", _W, "a ready pod sleeps: it is counted and cannot serve", "wake the engine",
)  # fmt: skip
_INSIDE = "run it in the cluster: kubectl exec deploy/vllm-scaler -- scaler doctor --config ..."
_NAMES = {
    "running": "num_requests_running",
    "waiting": "num_requests_waiting",
    "finished": "request_success_total",
    "prompt_tokens": "prompt_tokens_total",
    "output_tokens": "generation_tokens_total",
    "kv_max_ratio": "kv_cache_usage_perc or gpu_cache_usage_perc",
}


def check(evidence: Evidence) -> Iterator[Finding]:
    """Findings of every target."""
    if not evidence.targets:
        yield found(NO_TARGETS, at("installation", "targets"), "no target was found")
    for target in evidence.targets:
        for fault in target.faults:
            yield found(METADATA, of(target, "metadata"), fault)
        yield from _identity(target)
        samples = target.samples
        if isinstance(samples, Unseen):
            yield unchecked(of(target), "signals", samples)
        elif samples.failure is not None:
            yield found(BLIND, of(target), f"{samples.failure.cause}: {samples.failure.detail}")
        else:
            yield from _pods(target, samples, evidence)
            yield from _gpus(target, samples, evidence.now_s)
            yield from _objectives(target, samples)
            for signal, fault_ in samples.faults.items():
                yield found(PART_FAILED, of(target, signal), f"{fault_.cause}: {fault_.detail}")


def _identity(target: Target) -> Iterator[Finding]:
    if target.missing:
        if "HTTP 404" in target.missing:
            yield found(NO_WORKLOAD, of(target), target.missing)
        else:
            yield unchecked(of(target), "workload and pods", Unseen(reason=target.missing))
    scaled = target.scaled_object
    if scaled is not None and scaled.target.casefold() != target.label.casefold():
        text = f"target: {target.label}, scaleTargetRef: {scaled.target}"
        yield found(OTHER_TARGET, of(target, "metadata.target"), text)


def _pods(target: Target, samples: TargetSamples, evidence: Evidence) -> Iterator[Finding]:
    ready = _ready(target)
    if ready is None:
        reason = target.missing or "no API says which pods the target has"
        yield unchecked(of(target), "coverage of ready pods", Unseen(reason=reason))
        ready = tuple(PodRef(name=name) for name in samples.pods)
    if not ready:
        yield unchecked(of(target), "signals", Unseen(reason="no pod is ready"), fix="wait")
        return
    seen = {pod.name: samples.pods.get(pod.name) for pod in ready}
    wrong = {
        name: one
        for name, one in seen.items()
        if isinstance(one, NoData) and one.cause is Cause.NO_MATCH
    }
    if wrong:
        one = next(iter(wrong.values()))
        severity = _E if len(wrong) == len(ready) else _W
        text = f"{len(wrong)} of {len(ready)} ready pods: {one.detail}"
        yield found(WRONG_MODEL, of(target, "metadata.modelName"), text, severity=severity)
    rest = {name: one for name, one in seen.items() if name not in wrong}
    if evidence.outside and not evidence.sources and _unreachable(rest.values()):
        reason = "pods are scraped directly, and their network is not reached from here"
        yield unchecked(of(target), "signals", Unseen(reason=reason), fix=_INSIDE)
        return
    yield from _coverage(target, rest, len(ready))
    good = [one for one in rest.values() if isinstance(one, PodSample)]
    yield from _age(target, good, len(ready), evidence.now_s)
    yield from _metrics(target, good)


def _unreachable(seen: Iterable[PodSample | NoData | None]) -> bool:
    """Whether every pod failed for the network's reason."""
    causes = {one.cause if isinstance(one, NoData) else None for one in seen}
    return causes == {Cause.UNREACHABLE}


def _ready(target: Target) -> tuple[PodRef, ...] | None:
    pods = target.ref.pods if target.ref is not None else None
    return None if pods is None else tuple(pod for pod in pods if pod.ready and pod.leader)


def _coverage(
    target: Target, seen: "dict[str, PodSample | NoData | None]", ready: int
) -> Iterator[Finding]:
    dark = {name: one for name, one in seen.items() if not isinstance(one, PodSample)}
    if not dark:
        return
    name, one = next(iter(dark.items()))
    why = f"{one.cause}: {one.detail}" if isinstance(one, NoData) else "no series"
    enough = 1.0 - len(dark) / ready >= target.policy.freshness.coverage_min_ratio
    text = f"{len(dark)} of {ready} ready pods, e.g. {name}: {why}"
    yield found(COVERAGE, of(target), text, severity=_W if enough else _E)


def _age(target: Target, good: Sequence[PodSample], ready: int, now_s: float) -> Iterator[Finding]:
    limit_s = target.policy.freshness.stale_after_s
    old = [one for one in good if now_s - one.at_s > limit_s]
    if not old:
        return
    worst = min(old, key=lambda one: one.at_s)
    fresh_ratio = (len(good) - len(old)) / ready
    severity = _W if fresh_ratio >= target.policy.freshness.coverage_min_ratio else _E
    text = (
        f"{len(old)} of {ready} ready pods, e.g. {worst.pod}: {now_s - worst.at_s:.0f} s old, "
        f"stale_after_s = {limit_s:g}"
    )
    yield found(STALE, of(target), text, severity=severity)


def _metrics(target: Target, good: Sequence[PodSample]) -> Iterator[Finding]:
    for name, said in _NAMES.items():
        without = [one.pod for one in good if getattr(one, name) is None]
        if without:
            text = f"{said}: not of {len(without)} of {len(good)} pods, e.g. {without[0]}"
            severity = _E if len(without) == len(good) and name != "kv_max_ratio" else _W
            yield found(METRIC_ABSENT, of(target, name), text, severity=severity)
    if asleep := [one.pod for one in good if one.asleep]:
        yield found(ASLEEP, of(target), ", ".join(asleep[:3]))


def _gpus(target: Target, samples: TargetSamples, now_s: float) -> Iterator[Finding]:
    ready = _ready(target)
    if not ready:
        return
    good = {name: one for name, one in samples.gpus.items() if isinstance(one, GpuSample)}
    missing = [pod.name for pod in ready if pod.name not in good]
    if missing:
        why = samples.gpus.get(missing[0])
        told = f": {why.detail}" if isinstance(why, NoData) and why.detail else ""
        text = f"no utilisation of {len(missing)} of {len(ready)} ready pods{told}"
        yield found(NO_GPU, of(target, "gpu"), text)
    limit_s = target.policy.freshness.gpu_stale_after_s
    if old := [one for one in good.values() if now_s - one.at_s > limit_s]:
        text = f"GPU samples up to {max(now_s - one.at_s for one in old):.0f} s old"
        fix = "lower DCGM_EXPORTER_INTERVAL, or raise policy.freshness.gpu_stale_after_s"
        yield found(STALE, of(target, "gpu"), text, severity=_W, fix=fix)


# Objectives


def _objectives(target: Target, samples: TargetSamples) -> Iterator[Finding]:
    slo = target.policy.slo
    pods = [one for one in samples.pods.values() if isinstance(one, PodSample)]
    seen = _latency(samples.ttft, [one.ttft for one in pods])
    if seen is not None:
        yield from bucket(target, slo.ttft_s, seen, key="ttftSloSeconds", family=_TTFT)
    elif pods:
        why = f": {samples.ttft.detail}" if isinstance(samples.ttft, NoData) else ""
        yield found(NO_TTFT, of(target, "ttft"), f"no buckets{why}")
    seen = _latency(samples.itl, [one.itl for one in pods])
    if seen is not None and slo.tpot_s > 0.0:
        yield from bucket(target, slo.tpot_s, seen, key="tpotSloSeconds", family=_ITL)


_TTFT, _ITL = "time_to_first_token", "inter_token_latency"  # families of vLLM's own flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Finite bounds, and requests per bucket; the last is above every bound."""

    bounds_s: tuple[float, ...]
    counts: tuple[float, ...]


def bucket(
    target: Target, objective_s: float, seen: Seen, *, key: str, family: str
) -> Iterator[Finding]:
    """Whether an objective is one of the finite bounds; if not, whether that matters now.

    It does where the target lies between the share within the bound below and that within the bound
    above: then what is assumed of the bucket decides whether the objective is kept.
    """
    bounds_s = seen.bounds_s
    if any(math.isclose(bound, objective_s, rel_tol=1e-6) for bound in bounds_s):
        return
    place = bisect_left(bounds_s, objective_s)
    below = bounds_s[place - 1] if place else 0.0
    above = bounds_s[place] if place < len(bounds_s) else math.inf
    choices = " or ".join(f'"{bound:g}"' for bound in (below, above) if 0.0 < bound < math.inf)
    listed = ", ".join(f"{bound:g}" for bound in sorted((*bounds_s, objective_s)))
    fix = (
        f"set {key}: {choices}, or start vLLM 0.32 or newer with --custom-histogram-buckets "
        f"'{{\"{family}\": [{listed}]}}'"
    )
    text = f"{key} = {objective_s:g} s lies in the bucket ({below:g}, {above:g}] s of {family}"
    where = of(target, f"metadata.{key}")
    if above == math.inf:
        yield found(ABOVE_BUCKETS, where, text, fix=fix)
        return
    asked, total = target.policy.slo.attainment_target_ratio, sum(seen.counts)
    if total <= 0.0:
        yield found(INSIDE_BUCKET, where, f"{text}; no request of now tells more", fix=fix)
        return
    surely, perhaps = (sum(seen.counts[:end]) / total for end in (place, place + 1))
    matters = surely < asked <= perhaps
    so = "it decides whether that is kept" if matters else "it makes no difference now"
    text = f"{text}; {surely:.2%} to {perhaps:.2%} are within, {asked:.2%} are asked for: {so}"
    yield found(INSIDE_BUCKET, where, text, fix=fix, severity=_W if matters else _I)


def _latency(merged: Latency | NoData | None, of_pods: Sequence[Histogram | None]) -> Seen | None:
    """The merged histogram, else the sum of those of the pods that have the first one's bounds."""
    if isinstance(merged, Latency):
        return Seen(bounds_s=merged.bounds_s, counts=merged.counts)
    known = [one for one in of_pods if one is not None]
    alike = [one.counts for one in known if one.bounds_s == known[0].bounds_s]
    if not alike:
        return None
    totals = [sum(column) for column in zip(*alike, strict=True)]
    counts = tuple(max(upto - before, 0.0) for before, upto in pairwise((0.0, *totals)))
    return Seen(bounds_s=known[0].bounds_s[:-1], counts=counts)
