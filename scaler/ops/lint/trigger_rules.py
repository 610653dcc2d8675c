"""KEDA's own pitfalls, and triggers that the scaler would refuse (beside the list of mistakes)."""

from collections.abc import Iterator

from scaler.config_tree import ScalerConfig
from scaler.errors import ConfigError
from scaler.ops.lint.bundle import Bundle
from scaler.ops.lint.model import Finding, Rule, Severity, found
from scaler.ops.lint.nodes import at, items, mapping, number, text
from scaler.ops.lint.promql import Aggregate, Binary, Call, Expression, Selector, Value
from scaler.ops.lint.queries import Purpose, Query
from scaler.ops.lint.reading import Document
from scaler.trigger import parse

SEVERAL_SERIES = Rule(
    id="keda-several-series",
    mistake=0,
    severity=Severity.ERROR,
    says="KEDA fails on an answer of more than one series, and there is one for each pod",
    fix="sum(...) or max(...) around it",
)
METRIC_NAME = Rule(
    id="keda-metric-name",
    mistake=0,
    severity=Severity.INFO,
    says="metricName in a Prometheus trigger is deprecated and does nothing",
    fix="leave it out",
)
VALUE_TYPE = Rule(
    id="target-type-value",
    mistake=0,
    severity=Severity.WARNING,
    says="type Value is multiplied by ready pods only: it collapses while replicas load",
    fix="type AverageValue",
)
FALLBACK = Rule(
    id="fallback-lowers",
    mistake=0,
    severity=Severity.WARNING,
    says="an outage of the metrics sets this count, also where more replicas are at work",
    fix="behavior: currentReplicasIfHigher (KEDA 2.17), replicas of at least 1",
)
REFUSED = Rule(
    id="trigger-refused",
    mistake=0,
    severity=Severity.ERROR,
    says="the scaler answers this trigger with INVALID_ARGUMENT",
    fix="as the message says",
)
AVERAGED_TWICE = Rule(
    id="averaged-twice",
    mistake=0,
    severity=Severity.ERROR,
    says="the HPA divides an AverageValue by the pods, and this is a mean already",
    fix="sum(...), with the threshold for one pod",
)
RULES = (SEVERAL_SERIES, AVERAGED_TWICE, METRIC_NAME, VALUE_TYPE, FALLBACK, REFUSED)


def check(bundle: Bundle, asked: list[Query]) -> Iterator[Finding]:
    """Findings on triggers and on what an HPA does with their values."""
    for query in asked:
        if query.purpose is Purpose.TRIGGER and not _single(query.tree):
            yield found(SEVERAL_SERIES, query.place, query.source)
        if query.purpose is Purpose.TRIGGER and _averaged_twice(query):
            yield found(AVERAGED_TWICE, query.place, query.source)
    for document in bundle.of_kind("ScaledObject"):
        yield from _scaled_object(document, checked=not bundle.is_component)
    for document in bundle.of_kind("HorizontalPodAutoscaler"):
        for place, metric in enumerate(items(document.body, "spec", "metrics")):
            if text(metric, "external", "target", "type") == "Value":
                path = f"spec.metrics.{place}.external.target.type"
                yield found(VALUE_TYPE, document.place.below(path), "Value")


def _averaged_twice(query: Query) -> bool:
    mean = isinstance(query.tree, Aggregate) and query.tree.operator == "avg"
    return mean and text(query.held_by, "metricType") in ("", "AverageValue")


def _single(node: Expression) -> bool:
    """Whether an expression gives one series, however many pods there are."""
    if isinstance(node, Value):
        return True
    if isinstance(node, Aggregate):
        pinned = {
            matcher.label
            for selector in node.arguments
            if isinstance(selector, Selector)
            for matcher in selector.matchers
            if matcher.operator == "="
        }
        return not node.without and set(node.labels or ()) <= pinned
    if isinstance(node, Binary):
        return _single(node.left) and _single(node.right)
    if isinstance(node, Call) and node.function == "histogram_quantile":
        inner = node.arguments[-1] if node.arguments else node
        return isinstance(inner, Aggregate) and set(inner.labels or ()) == {"le"}
    if isinstance(node, Call):
        alone = node.function in ("scalar", "vector", "time", "absent")
        return alone or any(_single(one) for one in node.arguments if not isinstance(one, Value))
    return False


def _scaled_object(document: Document, *, checked: bool) -> Iterator[Finding]:
    for place, trigger in enumerate(items(document.body, "spec", "triggers")):
        below = document.place.below(f"spec.triggers.{place}")
        kind = text(trigger, "type")
        if kind == "prometheus" and at(trigger, "metadata", "metricName") is not None:
            name = text(trigger, "metadata", "metricName")
            yield found(METRIC_NAME, below.below("metadata.metricName"), name)
        if text(trigger, "metricType") == "Value":
            yield found(VALUE_TYPE, below.below("metricType"), "Value")
        metadata = mapping(trigger, "metadata")
        address = text(metadata, "scalerAddress")
        if kind.startswith("external") and address.startswith("vllm-scaler") and checked:
            try:
                given = {str(key): str(value) for key, value in metadata.items()}
                given.pop("profile", None)  # known to the daemon alone
                parse(given, ScalerConfig())
            except ConfigError as error:
                for fault in error.faults:
                    yield found(REFUSED, below.below("metadata"), fault)
    yield from _fallback(document)


def _fallback(document: Document) -> Iterator[Finding]:
    fallback = mapping(document.body, "spec", "fallback")
    behavior = text(fallback, "behavior") or "static"
    lowers = behavior in ("static", "currentReplicasIfLower")
    if fallback and (lowers or number(fallback, "replicas") == 0):
        evidence = f"behavior: {behavior}, replicas: {text(fallback, 'replicas')}"
        yield found(FALLBACK, document.place.below("spec.fallback"), evidence)
