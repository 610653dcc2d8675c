"""Names of metrics that do not exist: what reads them never sees anything (mistakes 1, 2, 3)."""

from collections.abc import Iterator

from scaler.ops.lint import metric_names
from scaler.ops.lint.bundle import Bundle
from scaler.ops.lint.known_flags import newest
from scaler.ops.lint.model import Finding, Place, Rule, Severity, found
from scaler.ops.lint.nodes import items, text
from scaler.ops.lint.promql import names, selectors
from scaler.ops.lint.queries import Query

NEVER = Rule(
    id="metric-never-existed",
    mistake=1,
    severity=Severity.ERROR,
    says="no version of vLLM exports this metric",
    fix="read a metric that exists; data on GPUs come from the DCGM exporter alone",
)
UNKNOWN = Rule(
    id="metric-unknown",
    mistake=1,
    severity=Severity.WARNING,
    says="vLLM is not known to export this metric",
    fix="look for the name on /metrics of a running server",
    heuristic=True,
)
GONE = Rule(
    id="metric-gone",
    mistake=2,
    severity=Severity.ERROR,
    says="vLLM exported this metric once and does no longer",
    fix="read its successor",
)
UNDERSCORE = Rule(
    id="metric-underscore",
    mistake=3,
    severity=Severity.WARNING,
    says="vLLM's names begin with vllm: and not with vllm_",
    fix="write vllm: unless a relabelling or OpenTelemetry has renamed it",
    heuristic=True,
)
RULES = (NEVER, UNKNOWN, GONE, UNDERSCORE)


def check(bundle: Bundle, asked: list[Query]) -> Iterator[Finding]:
    """Findings on every name in an expression, an HPA or a trigger."""
    for query in asked:
        read = {name for one in selectors(query.tree) for name in names(one)}
        for name in sorted(read - bundle.recorded):
            yield from _in_query(bundle, query.place, name, read)
    for place, name in _plain_names(bundle):
        yield from _in_object(place, name)


def _in_query(bundle: Bundle, place: Place, name: str, read: set[str]) -> Iterator[Finding]:
    if name.startswith("vllm_") and ":" not in name:
        renamed = metric_names.with_colon(name)
        if metric_names.never_existed(renamed):
            yield from _dead(bundle, place, renamed, written=name)
        elif metric_names.exists(renamed) or metric_names.gone(renamed):
            yield found(UNDERSCORE, place, name, fix=f"{renamed}, unless something renamed it")
    elif name.startswith(metric_names.PREFIX):
        past = metric_names.gone(name)
        if past and past[1].partition(" ")[0] in {metric_names.base(one) for one in read}:
            return  # the successor is read as well: both ages are covered
        yield from _dead(bundle, place, name, written=name)


def _dead(bundle: Bundle, place: Place, name: str, *, written: str) -> Iterator[Finding]:
    instead = metric_names.never_existed(name)
    past = metric_names.gone(name)
    if instead:
        yield found(NEVER, place, written, fix=f"read {instead}")
    elif past:
        old = [one.release for one in bundle.servers if one.whole]
        still = bool(old) and all(one is not None and one < past[0] for one in old)
        version = ".".join(str(part) for part in past[0]).removesuffix(".0")
        yield found(
            GONE,
            place,
            f"{written} is gone from vLLM {version} on"
            if still
            else f"{written}, gone by {version}",
            fix=f"read {past[1]}",
            severity=Severity.INFO if still else None,
        )
    elif not metric_names.exists(name):
        newest_ = ".".join(str(part) for part in newest())
        yield found(UNKNOWN, place, f"{written}, not among those of vLLM {newest_}")


def _in_object(place: Place, name: str) -> Iterator[Finding]:
    """A name outside of PromQL: an adapter writes ``vllm_`` for ``vllm:``, which is right there."""
    instead = metric_names.never_existed(metric_names.with_colon(name))
    if instead:
        yield found(NEVER, place, name, fix=f"read {instead}")


def _plain_names(bundle: Bundle) -> Iterator[tuple[Place, str]]:
    for document in bundle.of_kind("HorizontalPodAutoscaler"):
        for place, metric in enumerate(items(document.body, "spec", "metrics")):
            for kind in ("pods", "external", "object"):
                name = text(metric, kind, "metric", "name")
                if name:
                    path = f"spec.metrics.{place}.{kind}.metric.name"
                    yield document.place.below(path), name
    for document in bundle.of_kind("ScaledObject"):
        for place, trigger in enumerate(items(document.body, "spec", "triggers")):
            name = text(trigger, "metadata", "metricName")
            if name:
                yield document.place.below(f"spec.triggers.{place}.metadata.metricName"), name
