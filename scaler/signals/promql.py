"""Queries: one for each signal and all targets, pinned to the namespaces of the targets.

Nothing of a trigger's metadata enters a query; a model name is compared on our side.  Namespaces
and names of metrics enter as exact, escaped alternatives.

Every aggregation begins with ``max by (.., pod, .., engine)``: a pod that two scrape jobs or two
Prometheus replicas report counts once, where a plain sum would count it twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Names that ReplicaSets give to pods (the alphabet of k8s.io/apimachinery/pkg/util/rand) and the
# ordinals of StatefulSets and LeaderWorkerSet leaders.  The shipped recording rules have the same.
DEPLOYMENT_POD = "^(.+)-[bcdfghjklmnpqrstvwxz2456789]{1,10}-[bcdfghjklmnpqrstvwxz2456789]{5}$"
ORDINAL_POD = "^(.+)-[0-9]+$"

TTFT_RECORDED = "vllm_scaler:ttft_bucket:increase1m"
ITL_RECORDED = "vllm_scaler:itl_bucket:increase1m"

FAMILY = "family"  # which of several alternative histogram names a row came from
_REGEX_SPECIAL = frozenset("\\.+*?()|[]{}^$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where queries may look: the namespaces, and what the labels are called there."""

    namespaces: tuple[str, ...]
    namespace_label: str = "namespace"
    pod_label: str = "pod"

    def __post_init__(self) -> None:
        assert self.namespaces, "a query without a namespace would see everything"
        assert all(self.namespaces), "an empty namespace would match series that have none"

    def pin(self, label: str = "") -> str:
        """The matcher that holds a selector to the namespaces."""
        return matcher(label or self.namespace_label, self.namespaces)


def matcher(label: str, values: Iterable[str]) -> str:
    """A label matcher for exactly these values, whatever characters they have."""
    distinct = sorted(set(values))
    if len(distinct) == 1:
        return f"{label}={quoted(distinct[0])}"
    return f"{label}=~{quoted('|'.join(literal(value) for value in distinct))}"


def literal(text: str) -> str:
    """A RE2 expression that matches the text alone (Go's regexp.QuoteMeta)."""
    return "".join(f"\\{char}" if char in _REGEX_SPECIAL else char for char in text)


def quoted(text: str) -> str:
    """A PromQL string literal (escapes of Go: prometheus.io, Querying basics, String literals)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(_printable(char) for char in escaped) + '"'


def latest(names: Sequence[str], scope: Scope, *, by: Sequence[str]) -> str:
    """Newest values of gauges and counters, one row for each name, pod and further label."""
    labels = ("__name__", scope.namespace_label, scope.pod_label, *by)
    return f"max by ({', '.join(labels)}) ({selector(names, scope.pin())})"


def totals(names: Sequence[str], scope: Scope, *, by: Sequence[str], over: Sequence[str]) -> str:
    """The same, summed over labels whose single values are of no interest."""
    labels = ("__name__", scope.namespace_label, scope.pod_label, *by)
    return f"sum by ({', '.join(labels)}) ({latest(names, scope, by=(*by, *over))})"


def sample_times(names: Sequence[str], scope: Scope) -> str:
    """When each pod was last scraped, by the first of the names that it has.

    The values of an instant query come up to five minutes after the last scrape; only
    ``timestamp()`` tells a dead exporter from a quiet one.  Names are tried one after the other,
    because ``timestamp()`` drops the name and would make twins of them.
    """
    by = f"{scope.namespace_label}, {scope.pod_label}"
    return " or ".join(
        f"max by ({by}) (timestamp({selector((name,), scope.pin())}))" for name in names
    )


def histogram(names: Sequence[str], scope: Scope, *, window_s: float) -> str:
    """Growth of a histogram's buckets in the window, by workload, model and bound.

    ``names`` are alternatives of one histogram without their suffix; a label says which of them a
    row came from, because bounds of two names must never be mixed.
    """
    parts = [_grown(name, scope, window_s) for name in names]
    rows = " or ".join(
        f"label_replace({part}, {quoted(FAMILY)}, {quoted(str(rank))}, {quoted('')}, {quoted('')})"
        for rank, part in enumerate(parts)
    )
    by = f"{FAMILY}, {scope.namespace_label}, workload, model_name, le"
    return f"sum by ({by}) ({_with_workload(rows, scope)})"


def recorded(name: str, scope: Scope) -> str:
    """A histogram from the shipped recording rules; their labels have the standard names."""
    pinned = selector((name,), scope.pin("namespace"))
    return f"sum by (namespace, workload, model_name, le) ({pinned})"


def recorded_namespaces(scope: Scope) -> str:
    """Which namespaces the recording rules cover, for each rule: a cheap probe."""
    both = selector((TTFT_RECORDED, ITL_RECORDED), scope.pin("namespace"))
    return f"group by (__name__, namespace) ({both})"


def gpu(names: Sequence[str], scope: Scope) -> str:
    """DCGM values by whichever pod label the installation has."""
    return f"max by (__name__, {_GPU_LABELS}) ({_gpu_any(names, scope)})"


def gpu_times(names: Sequence[str], scope: Scope) -> str:
    """When each pod's GPUs were last scraped, by the first of the names that it has."""
    return " or ".join(
        f"max by ({_GPU_LABELS}) ({_gpu_any((name,), scope, function='timestamp')})"
        for name in names
    )


def selector(names: Sequence[str], *matchers: str) -> str:
    """A selector of one name, or of several as exact alternatives of ``__name__``."""
    if len(names) == 1:
        return f"{names[0]}{{{', '.join(matchers)}}}"
    return f"{{{', '.join((matcher('__name__', names), *matchers))}}}"


# Where the exporter's own labels lost against the scrape target's they are called exported_*; the
# 1.x namespace option of dcgm-exporter says pod_name and pod_namespace.
_GPU_LABELS = "exported_namespace, exported_pod, pod_namespace, pod_name, namespace, pod"


def _gpu_any(names: Sequence[str], scope: Scope, *, function: str = "") -> str:
    choices = (
        selector(names, scope.pin("exported_namespace")),
        selector(names, scope.pin("pod_namespace")),
        selector(names, scope.pin("namespace"), 'exported_pod=""', 'pod_name=""'),
    )
    return " or ".join(f"{function}({choice})" if function else choice for choice in choices)


def _grown(name: str, scope: Scope, window_s: float) -> str:
    by = f"{scope.namespace_label}, {scope.pod_label}, model_name, engine, le"
    bucket = selector((f"{name}_bucket",), scope.pin())
    return f"max by ({by}) (increase({bucket}[{window_s:.0f}s]))"


def _with_workload(rows: str, scope: Scope) -> str:
    """Name the workload of each pod: a Deployment's where the name has its form, else an ordinal's.

    Prometheus anchors the expression itself; the later replacement wins.
    """
    pod = quoted(scope.pod_label)
    named = f'label_replace({rows}, "workload", "$1", {pod}, {quoted(ORDINAL_POD)})'
    return f'label_replace({named}, "workload", "$1", {pod}, {quoted(DEPLOYMENT_POD)})'


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
