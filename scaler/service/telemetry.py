"""Our own metrics, as ``metrics_table`` declares them.

Per-target values are read from the latest decisions when Prometheus scrapes us, so a target that
is gone leaves no series behind.
"""

import threading
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from scaler.service.clock import Clock
from scaler.service.loop import TickReport
from scaler.service.metrics_table import (
    PREFIX,
    PROCESS_METRICS,
    TARGET_LABELS,
    TARGET_METRICS,
    ProcessMetric,
)
from scaler.service.registry import Entry
from scaler.signals.sources import Outcome

_DURATION_BOUNDS_S = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
_MAKERS: Mapping[str, type[Counter | Gauge | Histogram]] = {"counter": Counter, "gauge": Gauge}


class Telemetry(Collector):
    """All metrics of the daemon in one registry of its own.

    While ``leads`` says no, another daemon exports the targets: two would count them twice.
    """

    def __init__(self, clock: Clock, *, leads: Callable[[], bool] = lambda: True) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._leads = leads
        self._outcomes: Mapping[str, Outcome] = {}
        self._entries: tuple[Entry, ...] = ()
        self._lock = threading.Lock()  # the registry is rendered in a worker thread
        self._process = {metric.name: self._make(metric) for metric in PROCESS_METRICS}
        self.gauge("leader").set_function(lambda: float(leads()))
        self.registry.register(self)

    def _make(self, metric: ProcessMetric) -> Counter | Gauge | Histogram:
        name, labels = PREFIX + metric.name, metric.labels
        if metric.kind == "histogram":
            return Histogram(
                name, metric.meaning, labels, registry=self.registry, buckets=_DURATION_BOUNDS_S
            )
        return _MAKERS[metric.kind](name, metric.meaning, labels, registry=self.registry)

    def take(self, report: TickReport) -> None:
        """Take in one tick."""
        with self._lock:
            self._entries = report.entries
        self.histogram("tick_duration_seconds").observe(report.duration_s)
        self.histogram("decide_duration_seconds").observe(report.decide_s)
        self.counter("decision_changes_total").inc(len(report.changed))
        self.gauge("targets").set(len(report.entries))
        self.gauge("targets_faulty").set(sum(bool(entry.faults) for entry in report.entries))
        stages = Counts(
            entry.decision.decided_by.value
            for entry in report.entries
            if entry.decision is not None and entry.decision.at_s == report.at_s
        )
        for stage, count in stages.items():
            self.counter("decisions_total").labels(stage).inc(count)

    def observe_sources(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take in what became of each source's collections so far."""
        for name, outcome in outcomes.items():
            before = self._outcomes.get(name, Outcome())
            for metric, risen in (
                ("source_requests_total", outcome.attempts - before.attempts),
                ("source_collections_total", outcome.collections - before.collections),
                ("source_failures_total", outcome.failures - before.failures),
            ):
                self.counter(metric).labels(name).inc(max(risen, 0))
            self.gauge("source_samples").labels(name).set(outcome.samples - before.samples)
            self.gauge("source_duration_seconds").labels(name).set(outcome.duration_s)
        self._outcomes = dict(outcomes)

    def observe_call(self, method: str, code: str, duration_s: float) -> None:
        """Count one gRPC call."""
        self.counter("grpc_requests_total").labels(method, code).inc()
        self.histogram("grpc_duration_seconds").labels(method).observe(duration_s)

    def counter(self, name: str) -> Counter:
        """The process counter ``name`` (without the prefix)."""
        metric = self._process[name]
        assert isinstance(metric, Counter), f"{name} is not a counter"
        return metric

    def gauge(self, name: str) -> Gauge:
        """The process gauge ``name``."""
        metric = self._process[name]
        assert isinstance(metric, Gauge), f"{name} is not a gauge"
        return metric

    def histogram(self, name: str) -> Histogram:
        """The process histogram ``name``."""
        metric = self._process[name]
        assert isinstance(metric, Histogram), f"{name} is not a histogram"
        return metric

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The per-target gauges, from the entries of the last tick."""
        with self._lock:
            entries = self._entries if self._leads() else ()
        now_s = self._clock.now_s()
        labels = [
            (entry, (entry.key.namespace, entry.label, entry.id))
            for entry in entries
            if entry.target is not None
        ]
        for metric in TARGET_METRICS:
            family = GaugeMetricFamily(
                PREFIX + metric.name, metric.meaning, labels=(*TARGET_LABELS, *metric.labels)
            )
            for entry, identity in labels:
                for further, value in metric.read(entry, now_s):
                    family.add_metric((*identity, *further), value)
            yield family
