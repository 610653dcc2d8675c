"""What each Prometheus has, held against what the daemon asks of it."""

from collections.abc import Iterator

from scaler.ops.doctor.evidence import Evidence, Source, Unseen
from scaler.ops.doctor.findings import at, rule, unchecked
from scaler.ops.doctor.prometheus import SCRAPES_OVER_S
from scaler.ops.lint.model import Finding, Place, Severity, found

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
DOWN = rule(
    "source-unreachable", _E, "the daemon is blind for every target of this source",
    "check sources.*.url, ca_file, token_file and the network policy; names of Services resolve "
    "in the cluster alone: kubectl exec deploy/vllm-scaler -- scaler doctor --config ...",
)  # fmt: skip
QUERY_FAILED = rule(
    "query-failed", _E, "this query of the daemon has no answer",
    "run the query by hand; raise the server's query limits or sources.*.timeout_s",
)  # fmt: skip
NOTHING = rule(
    "no-engine-series", _E, "the source has no series of the engine in these namespaces",
    "add a PodMonitor or ServiceMonitor for the pods, and check sources.*.engine",
)  # fmt: skip
NO_NAMESPACE = rule(
    "no-namespace-label", _E, "series without a namespace label belong to no target",
    "relabel __meta_kubernetes_namespace to namespace in the scrape job",
)  # fmt: skip
NO_POD = rule(
    "no-pod-label", _E, "series without a pod label belong to no pod",
    "relabel __meta_kubernetes_pod_name to pod in the scrape job (a PodMonitor does)",
)  # fmt: skip
TOO_RARE = rule(
    "scrape-too-rare", _E, "samples are too old before the next scrape comes",
    "scrape more often, or raise policy.freshness.stale_after_s to three intervals",
    heuristic=True,
)  # fmt: skip
SHORT_WINDOW = rule(
    "window-too-short", _W, "percentiles need two scrapes in the window, better four",
    "raise sources.*.window_s to four scrape intervals",
    heuristic=True,
)  # fmt: skip
FUTURE = rule(
    "sample-from-the-future", _E, "samples are newer than the server's own clock",
    "set the clocks of the scraping agents by NTP",
)  # fmt: skip
NO_RULES = rule(
    "recording-rules-absent", _I, "histograms are computed at each tick instead of once",
    "apply the recording rules of manifests/monitoring",
)  # fmt: skip
_SLACK_S = 1.0  # of timestamps: Prometheus stores milliseconds, clocks of one cluster agree to that


def check(evidence: Evidence) -> Iterator[Finding]:
    """Findings of every source."""
    if not evidence.sources:
        place = at("daemon", "sources")
        yield unchecked(place, "Prometheus", Unseen(reason="no source of type prometheus is set"))
    for source in evidence.sources:
        place = at("source", f"{source.name} {source.url}")
        if source.fault:
            yield found(DOWN, place, source.fault)
        elif not source.namespaces:
            yield unchecked(place, "queries", Unseen(reason="it serves no namespace of a target"))
        else:
            yield from _queries(source, place)
            yield from _labels(source, place)
            yield from _pace(source, place, evidence)
            yield from _rules(source, place)


def _queries(source: Source, place: Place) -> Iterator[Finding]:
    for name, asked in source.queries.items():
        if asked.fault:
            severity = _W if name in ("gpu", "gpu_times", "info") else _E
            where = at(place.file, place.object, f"query {name}")
            yield found(QUERY_FAILED, where, asked.fault, severity=severity)


def _labels(source: Source, place: Place) -> Iterator[Finding]:
    """Series that exist but carry no label, or another namespace, first; then none at all."""
    elsewhere, spaces = source.elsewhere, ", ".join(source.namespaces)
    times = source.queries.get("times")
    empty = times is not None and not times.fault and times.rows == 0
    if isinstance(elsewhere, Unseen):
        yield unchecked(place, "series without a namespace label", elsewhere)
    elif count := elsewhere.get("", 0.0):
        severity = _E if empty else _W
        yield found(NO_NAMESPACE, place, f"{count:.0f} series without it", severity=severity)
    if isinstance(source.without_pod, Unseen):
        yield unchecked(place, "series without a pod label", source.without_pod)
    elif source.without_pod:
        severity = _E if empty else _W
        yield found(NO_POD, place, f"{source.without_pod:.0f} series", severity=severity)
    if empty:
        others = [] if isinstance(elsewhere, Unseen) else sorted(set(elsewhere) - {""})
        told = f"; there are some in {', '.join(others[:5])}" if others else ""
        yield found(NOTHING, place, f"no series in {spaces}{told}")


def _pace(source: Source, place: Place, evidence: Evidence) -> Iterator[Finding]:
    newest_s = max(source.sampled_at_s.values(), default=0.0)
    if newest_s > source.now_s + _SLACK_S:
        yield found(FUTURE, place, f"{newest_s - source.now_s:.1f} s ahead")
    scrapes = max(source.scrapes_in_5m.values(), default=0.0)
    if scrapes < 1.0:
        return  # nothing was scraped: that is said elsewhere
    every_s = SCRAPES_OVER_S / scrapes  # of the pod that is scraped best: others may be new
    stale_s = evidence.policy.freshness.stale_after_s
    if every_s >= stale_s / 1.5:
        severity = _E if every_s >= stale_s else _W
        text = f"a scrape every {every_s:.0f} s, stale_after_s = {stale_s:g}"
        fix = f"scrape every 15 s, or policy.freshness.stale_after_s: {3.0 * every_s:.0f}"
        yield found(TOO_RARE, place, text, severity=severity, fix=fix)
    if 2.0 * every_s > source.window_s:
        text = f"a scrape every {every_s:.0f} s, window_s = {source.window_s:g}"
        fix = f"sources.{source.name}.window_s: {4.0 * every_s:.0f}"
        yield found(SHORT_WINDOW, place, text, fix=fix)


def _rules(source: Source, place: Place) -> Iterator[Finding]:
    if source.rules_wanted == "never":
        return
    if isinstance(source.ruled, Unseen):
        yield unchecked(place, "recording rules", source.ruled)
        return
    if missing := sorted(set(source.namespaces) - source.ruled):
        always = source.rules_wanted == "always"
        text = f"recording_rules = {source.rules_wanted}, none in {', '.join(missing[:5])}"
        yield found(NO_RULES, place, text, severity=_E if always else _I)
