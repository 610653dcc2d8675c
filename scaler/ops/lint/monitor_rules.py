"""ServiceMonitors that scrape nothing, or everything twice (mistake 8)."""

from collections.abc import Iterator, Mapping
from typing import Any

from scaler.ops.lint.bundle import MONITORS, Bundle, PodTemplate
from scaler.ops.lint.model import Finding, Rule, Severity, found
from scaler.ops.lint.nodes import at, items, mapping, text
from scaler.ops.lint.reading import Document

NUMBER = Rule(
    id="monitor-port-number",
    mistake=8,
    severity=Severity.ERROR,
    says="port is the name of a port: a number selects none",
    fix="the name of the Service's port, or targetPort with the number",
)
UNKNOWN_PORT = Rule(
    id="monitor-port-unknown",
    mistake=8,
    severity=Severity.ERROR,
    says="no selected Service has a port of this name",
    fix="name the port in the Service, and use that name",
)
POD_LABELS = Rule(
    id="monitor-selects-no-service",
    mistake=8,
    severity=Severity.ERROR,
    says="the monitor selects labels of Services; these are labels of pods",
    fix="put the labels under the Service's own metadata",
)
NO_RELEASE = Rule(
    id="monitor-without-release",
    mistake=8,
    severity=Severity.WARNING,
    says="no label release, by which kube-prometheus-stack selects monitors",
    fix="the label that your Prometheus object selects, often release: prometheus",
    heuristic=True,
)
TWICE = Rule(
    id="pods-scraped-twice",
    mistake=8,
    severity=Severity.WARNING,
    says="two Services over the same pods are monitored: every sum is doubled",
    fix="monitor one of them, or use a PodMonitor",
)
RULES = (NUMBER, UNKNOWN_PORT, POD_LABELS, NO_RELEASE, TWICE)


def check(bundle: Bundle) -> Iterator[Finding]:
    """Findings on every monitor."""
    for monitor in bundle.of_kind(*MONITORS):
        yield from _ports(monitor)
        if "release" not in mapping(monitor.body, "metadata", "labels") and not bundle.is_component:
            yield found(NO_RELEASE, monitor.place.below("metadata.labels"), "release is missing")
    for monitor in bundle.of_kind("ServiceMonitor"):
        selected = _selected(bundle, monitor)
        if selected:
            yield from _names(monitor, selected)
        else:
            yield from _mistaken(bundle, monitor)
    for template in bundle.templates:
        yield from _doubled(bundle, template)


def _ports(monitor: Document) -> Iterator[Finding]:
    for key in ("endpoints", "podMetricsEndpoints"):
        for place, endpoint in enumerate(items(monitor.body, "spec", key)):
            port = at(endpoint, "port")
            if isinstance(port, int) or str(port).isdecimal():
                yield found(
                    NUMBER, monitor.place.below(f"spec.{key}.{place}.port"), f"port: {port!r}"
                )


def _wanted(monitor: Document) -> Mapping[str, Any]:
    return mapping(monitor.body, "spec", "selector", "matchLabels")


def _selected(bundle: Bundle, monitor: Document) -> list[Document]:
    """Services whose own labels a monitor selects, in the namespaces it looks at."""
    namespaces = items(monitor.body, "spec", "namespaceSelector", "matchNames")
    anywhere = at(monitor.body, "spec", "namespaceSelector", "any") is True
    looked_at = namespaces or [monitor.namespace]
    return [
        service
        for service in bundle.of_kind("Service")
        if _wanted(monitor).items() <= mapping(service.body, "metadata", "labels").items()
        and (anywhere or "" in (service.namespace, *looked_at) or service.namespace in looked_at)
    ]


def _names(monitor: Document, selected: list[Document]) -> Iterator[Finding]:
    named = {
        text(port, "name") for service in selected for port in items(service.body, "spec", "ports")
    }
    for place, endpoint in enumerate(items(monitor.body, "spec", "endpoints")):
        port = at(endpoint, "port")
        if isinstance(port, str) and not port.isdecimal() and port not in named:
            services = ", ".join(sorted(service.name for service in selected))
            path = f"spec.endpoints.{place}.port"
            evidence = (
                f"port: {port}, while {services} names {', '.join(sorted(named - {''})) or 'none'}"
            )
            yield found(UNKNOWN_PORT, monitor.place.below(path), evidence)


def _mistaken(bundle: Bundle, monitor: Document) -> Iterator[Finding]:
    """A Service is here whose pods have the labels, while it has not got them itself."""
    wanted = _wanted(monitor)
    for service in bundle.of_kind("Service"):
        if wanted and wanted.items() <= mapping(service.body, "spec", "selector").items():
            labels = dict(mapping(service.body, "metadata", "labels"))
            evidence = (
                f"{dict(wanted)} selected, Service {service.name} has {labels or 'no labels'}"
            )
            yield found(POD_LABELS, monitor.place.below("spec.selector.matchLabels"), evidence)


def _doubled(bundle: Bundle, template: PodTemplate) -> Iterator[Finding]:
    over = {service.name for service in bundle.services_over(template)}
    scraped = sorted(
        {
            service.name
            for monitor in bundle.of_kind("ServiceMonitor")
            for service in _selected(bundle, monitor)
        }
        & over
    )
    if len(scraped) > 1:
        yield found(TWICE, template.document.place, f"Services {', '.join(scraped)}")
