"""What expressions do wrong with metrics that exist (mistakes 4, 5, 6, 7, 22)."""

import re
from collections.abc import Iterator

from scaler.ops.lint import metric_names
from scaler.ops.lint.bundle import MONITORS, Bundle
from scaler.ops.lint.model import Finding, Rule, Severity, found
from scaler.ops.lint.nodes import items, number, text
from scaler.ops.lint.promql import (
    COMPARISONS,
    Aggregate,
    Binary,
    Call,
    Expression,
    Selector,
    Value,
    children,
    names,
    seconds,
    selectors,
    walk,
)
from scaler.ops.lint.queries import Purpose, Query

PERCENT_OF_RATIO = Rule(
    id="ratio-compared-as-percent",
    mistake=4,
    severity=Severity.ERROR,
    says="the metric goes from 0 to 1, whatever its name says",
    fix="compare with 0.9 instead of 90",
)
RATIO_OF_PERCENT = Rule(
    id="percent-compared-as-ratio",
    mistake=4,
    severity=Severity.ERROR,
    says="the metric goes from 0 to 100",
    fix="compare with 90 instead of 0.9",
)
LIFETIME_QUANTILE = Rule(
    id="quantile-without-rate",
    mistake=5,
    severity=Severity.ERROR,
    says="a quantile over the whole life of a pod: it hardly moves any more",
    fix="histogram_quantile(q, sum by (le) (rate(x_bucket[5m])))",
)
POD_QUANTILE = Rule(
    id="quantile-per-pod",
    mistake=5,
    severity=Severity.WARNING,
    says="a quantile of each pod by itself, not of all requests",
    fix="histogram_quantile(q, sum by (le) (rate(x_bucket[5m])))",
)
MEAN_OF_QUANTILES = Rule(
    id="mean-of-quantiles",
    mistake=5,
    severity=Severity.ERROR,
    says="a mean of quantiles is the quantile of nothing",
    fix="add the buckets of all pods by le, then take one quantile",
)
LIFETIME_MEAN = Rule(
    id="mean-over-lifetime",
    mistake=6,
    severity=Severity.ERROR,
    says="a mean over the whole life of a pod: it hardly moves any more",
    fix="rate(x_sum[5m]) / rate(x_count[5m])",
)
MODEL_LABEL = Rule(
    id="label-model",
    mistake=7,
    severity=Severity.ERROR,
    says="vLLM has no label model: nothing matches",
    fix='model_name="...", the first --served-model-name',
)
GPU_INDEX = Rule(
    id="gpu-index-filter",
    mistake=7,
    severity=Severity.ERROR,
    says="gpu is the index on a node: this takes that GPU of every node and leaves the others out",
    fix="filter by exported_pod and take the maximum over a pod's GPUs",
)
DCGM_POD = Rule(
    id="dcgm-pod-label",
    mistake=7,
    severity=Severity.WARNING,
    says="pod is the exporter's own where Prometheus keeps its labels; the GPU's is exported_pod",
    fix="exported_pod, or honorLabels: true in the exporter's monitor",
    heuristic=True,
)
SHORT_FOR = Rule(
    id="for-too-short",
    mistake=22,
    severity=Severity.WARNING,
    says="the alert fires on one or two samples",
    fix="for: of at least two scrapes, better minutes",
)
ABSENT_AT_ZERO = Rule(
    id="absent-at-zero",
    mistake=22,
    severity=Severity.ERROR,
    says="absent() on metrics that are rightly gone while the target is at zero",
    fix="and on the count of replicas wanted: kube_deployment_spec_replicas > 0",
)
RULES = (
    PERCENT_OF_RATIO, RATIO_OF_PERCENT, LIFETIME_QUANTILE, POD_QUANTILE, MEAN_OF_QUANTILES,
    LIFETIME_MEAN, MODEL_LABEL, GPU_INDEX, DCGM_POD, SHORT_FOR, ABSENT_AT_ZERO,
)  # fmt: skip
_RATIO = re.compile(r"vllm:(?:kv|gpu|cpu)_cache_usage_perc|DCGM_FI_PROF_\w+_ACTIVE")
_PERCENT = re.compile(r"DCGM_FI_DEV_(?:GPU|MEM_COPY)_UTIL")
_RATES = frozenset({"rate", "irate", "increase", "delta", "idelta", "deriv"})


def check(bundle: Bundle, asked: list[Query]) -> Iterator[Finding]:
    """Findings on every expression."""
    for query in asked:
        yield from _comparisons(query)
        yield from _quantiles(bundle, query)
        yield from _means(query)
        yield from _labels(bundle, query)
        if query.purpose is Purpose.ALERT:
            yield from _alert(bundle, query)


def _comparisons(query: Query) -> Iterator[Finding]:
    for node in walk(query.tree):
        if isinstance(node, Binary) and node.operator in COMPARISONS:
            for left, right in ((node.left, node.right), (node.right, node.left)):
                if isinstance(right, Value) and right.number is not None:
                    yield from _compared(query, left, right.number, node.operator)
    threshold = number(query.held_by, "metadata", "threshold")
    if query.purpose is Purpose.TRIGGER and threshold is not None:
        summed = text(query.held_by, "metricType") != "Value"  # divided by the pods again
        inner = query.tree
        if summed and isinstance(inner, Aggregate) and inner.operator == "sum":
            inner = inner.arguments[-1]
        yield from _compared(query, inner, threshold, ">")


def _compared(query: Query, side: Expression, limit: float, operator: str) -> Iterator[Finding]:
    name = _unscaled(side)
    if _RATIO.fullmatch(name) and limit > 1.0:
        yield found(PERCENT_OF_RATIO, query.place, f"{name} {operator} {limit:g}")
    if _PERCENT.fullmatch(name) and 0.0 < limit < 1.0 and operator in (">", ">="):
        yield found(RATIO_OF_PERCENT, query.place, f"{name} {operator} {limit:g}")


def _unscaled(node: Expression) -> str:
    """The metric whose unit an expression still has, empty where it has another."""
    if isinstance(node, Selector):
        return (*names(node), "")[0]
    keeps = isinstance(node, Aggregate) and node.operator in ("avg", "max", "min", "quantile")
    over_time = isinstance(node, Call) and node.function in (
        "avg_over_time", "max_over_time", "min_over_time", "quantile_over_time", "last_over_time",
        "label_replace",
    )  # fmt: skip
    if keeps or over_time:
        for inner in children(node):
            if not isinstance(inner, Value):
                return _unscaled(inner)
    return ""


def _quantiles(bundle: Bundle, query: Query) -> Iterator[Finding]:
    for node in walk(query.tree):
        averaged = isinstance(node, Aggregate) and node.operator == "avg"
        if averaged and any(_is_quantile(inner) for inner in walk(node)):
            yield found(MEAN_OF_QUANTILES, query.place, query.source)
        if not isinstance(node, Call) or not _is_quantile(node) or len(node.arguments) != 2:
            continue
        inner = node.arguments[1]
        raw = _raw(inner) - bundle.recorded
        buckets = {name for name in raw if name.endswith("_bucket")}
        if buckets:
            yield found(LIFETIME_QUANTILE, query.place, query.source)
        elif not _added_by_bound(inner) and any(
            name.startswith(metric_names.PREFIX) for one in selectors(inner) for name in names(one)
        ):
            yield found(POD_QUANTILE, query.place, query.source)


def _is_quantile(node: Expression) -> bool:
    return isinstance(node, Call) and node.function == "histogram_quantile"


def _added_by_bound(node: Expression) -> bool:
    """Whether some sum by le stands between the quantile and the pods' own series."""
    return any(
        isinstance(one, Aggregate)
        and one.operator == "sum"
        and one.labels is not None
        and (("le" in one.labels) is not one.without)
        for one in walk(node)
    )


def _raw(node: Expression) -> set[str]:
    """Names of series that no rate or increase is taken of."""
    if isinstance(node, Call) and node.function in _RATES:
        return set()
    if isinstance(node, Selector):
        return set(names(node))
    return {name for child in children(node) for name in _raw(child)}


def _means(query: Query) -> Iterator[Finding]:
    for node in walk(query.tree):
        if isinstance(node, Binary) and node.operator == "/":
            sums = {name.removesuffix("_sum") for name in _raw(node.left) if name.endswith("_sum")}
            counts = {
                name.removesuffix("_count") for name in _raw(node.right) if name.endswith("_count")
            }
            for name in sorted(sums & counts):
                yield found(LIFETIME_MEAN, query.place, f"{name}_sum / {name}_count")


def _labels(bundle: Bundle, query: Query) -> Iterator[Finding]:
    for one in selectors(query.tree):
        for name in names(one):
            for matcher in one.matchers:
                written = f'{name}{{{matcher.label}{matcher.operator}"{matcher.value}"}}'
                if name.startswith(metric_names.PREFIX) and matcher.label == "model":
                    yield found(MODEL_LABEL, query.place, written)
                positive = matcher.operator in ("=", "=~")
                if name.startswith("DCGM_") and matcher.label == "gpu" and positive:
                    yield found(GPU_INDEX, query.place, written)
    yield from _grouped_by_model(query)
    if "exported_pod" not in query.source and not _keeps_labels(bundle):
        yield from _dcgm_pods(query)


def _grouped_by_model(query: Query) -> Iterator[Finding]:
    for node in walk(query.tree):
        if isinstance(node, Aggregate) and "model" in (node.labels or ()) and not node.without:
            inside = {name for one in selectors(node) for name in names(one)}
            if any(name.startswith(metric_names.PREFIX) for name in inside):
                yield found(MODEL_LABEL, query.place, f"{node.operator} by (model)")


def _keeps_labels(bundle: Bundle) -> bool:
    """Whether a monitor lets the exporter's labels stand."""
    return any(
        endpoint.get("honorLabels") is True
        for document in bundle.of_kind(*MONITORS)
        if "dcgm" in document.name.lower()
        for key in ("endpoints", "podMetricsEndpoints")
        for endpoint in items(document.body, "spec", key)
        if isinstance(endpoint, dict)
    )


def _dcgm_pods(query: Query) -> Iterator[Finding]:
    chosen = any(
        matcher.label == "pod" and matcher.operator in ("=", "=~") and matcher.value
        for one in selectors(query.tree)
        if any(name.startswith("DCGM_") for name in names(one))
        for matcher in one.matchers
    )
    grouped = any(
        "pod" in ((node.labels or ()) if isinstance(node, Aggregate) else node.on)
        and any(name.startswith("DCGM_") for one in selectors(node) for name in names(one))
        for node in walk(query.tree)
        if isinstance(node, Aggregate | Binary)
    )
    if chosen or grouped:
        yield found(DCGM_POD, query.place, query.source)


def _alert(bundle: Bundle, query: Query) -> Iterator[Finding]:
    held_s = seconds(text(query.held_by, "for"))
    smoothed = any(one.range_s > 0 for one in selectors(query.tree))
    if held_s < 2 * bundle.scrape_interval_s and not smoothed:
        said = text(query.held_by, "for") or "missing"
        interval_s = bundle.scrape_interval_s
        evidence = f"{text(query.held_by, 'alert')}: for {said}, scraped every {interval_s:g} s"
        yield found(SHORT_FOR, query.place, evidence)
    zero = [one for one in bundle.autoscalers if one.replicas_min == 0 and bundle.serves_vllm(one)]
    if zero and _reads_absence(query.tree):
        target = "/".join(zero[0].target)
        yield found(ABSENT_AT_ZERO, query.place, f"{target} may be at zero: {query.source}")


def _reads_absence(tree: Expression) -> bool:
    """Whether the absence of vLLM servers' series is asked for."""
    return any(
        isinstance(node, Call)
        and node.function in ("absent", "absent_over_time")
        and any(_is_servers(one) for one in selectors(node))
        for node in walk(tree)
    )


def _is_servers(selector: Selector) -> bool:
    """Whether series are those of vLLM servers, by name or by the job that scrapes them."""
    jobs = [one.value for one in selector.matchers if one.label == "job"]
    scraped = any("vllm" in job and "scaler" not in job for job in jobs)
    return scraped or any(name.startswith(metric_names.PREFIX) for name in names(selector))
