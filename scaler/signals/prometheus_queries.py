"""Which queries one collection asks: a fixed number, whatever the number of targets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scaler.config import RecordingRules
from scaler.core.model import NoData
from scaler.signals import promql
from scaler.signals.prometheus_answer import Cell
from scaler.signals.prometheus_rows import PodRows
from scaler.signals.promql import Scope
from scaler.signals.readers import Readers
from scaler.signals.samples import TargetRef
from scaler.signals.settings import RECORDED_WINDOW_S, PrometheusSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """The queries of one collection; an empty one is not asked."""

    queue: str
    work: str
    kv_cache: str
    info: str
    times: str
    ttft: str
    itl: str
    gpu: str
    gpu_times: str
    gateways: tuple[str, ...]
    recorded: bool  # whether the histograms come from our recording rules


class RuleProbe:
    """Finds out now and then whether the shipped recording rules are installed.

    They are used only while they cover every namespace that was asked about and has engines.
    """

    def __init__(self, settings: PrometheusSettings) -> None:
        self._mode = settings.recording_rules
        self._every_s = settings.probe_every_s
        self._usable = settings.window_s == RECORDED_WINDOW_S
        self._covered: frozenset[str] = frozenset()
        self._engines: frozenset[str] = frozenset()
        self._next_s: float | None = None

    def query(self, scope: Scope) -> str:
        """The probe."""
        return promql.recorded_namespaces(scope)

    def due(self, loop_s: float) -> bool:
        """Whether it is time to look again."""
        if self._mode is not RecordingRules.AUTO or not self._usable:
            return False
        return self._next_s is None or loop_s >= self._next_s

    def learn(self, cells: Iterable[Cell], loop_s: float) -> None:
        """Take in the answer of the probe; none where it failed."""
        spaces: dict[str, set[str]] = {promql.TTFT_RECORDED: set(), promql.ITL_RECORDED: set()}
        for cell in cells:
            named = spaces.get(cell.labels.get("__name__", ""))
            if named is not None:
                named.add(cell.labels.get("namespace", ""))
        self._covered = frozenset.intersection(*map(frozenset, spaces.values()))
        self._next_s = loop_s + self._every_s

    @property
    def found(self) -> bool:
        """Whether the histograms are to be read from the rules."""
        if self._mode is RecordingRules.AUTO:
            return bool(self._engines) and self._engines <= self._covered
        return self._mode is RecordingRules.ALWAYS

    def remember(self, engines: PodRows | NoData) -> None:
        """Keep which namespaces have engines: a rule that misses one of them is not used."""
        if not isinstance(engines, NoData):
            self._engines = frozenset(namespace for namespace, _ in engines.pods())


def queries(
    served: Sequence[TargetRef],
    scope: Scope,
    settings: PrometheusSettings,
    readers: Readers,
    *,
    recorded: bool,
) -> Queries:
    """The queries of one collection for these targets."""
    names = readers.engine.names
    model = ("model_name",)
    gpu = readers.gpu.names if settings.gpu else ()
    return Queries(
        queue=promql.totals(names.queue, scope, by=(*model, *names.queue_labels), over=("engine",)),
        work=promql.totals(names.work, scope, by=model, over=("engine", *names.work_labels)),
        kv_cache=promql.latest(names.kv_cache, scope, by=(*model, "engine")),
        info=promql.latest(names.info, scope, by=("engine", *names.info_labels)),
        times=promql.sample_times(names.times, scope),
        ttft=_histogram(promql.TTFT_RECORDED, names.ttft, scope, settings, recorded=recorded),
        itl=_histogram(promql.ITL_RECORDED, names.itl, scope, settings, recorded=recorded),
        gpu=promql.gpu(gpu, scope) if gpu else "",
        gpu_times=promql.gpu_times(gpu, scope) if gpu else "",
        gateways=tuple(sorted({target.gateway_query for target in served} - {""})),
        recorded=recorded,
    )


def _histogram(
    rule: str,
    names: Sequence[str],
    scope: Scope,
    settings: PrometheusSettings,
    *,
    recorded: bool,
) -> str:
    if recorded:
        return promql.recorded(rule, scope)
    return promql.histogram(names, scope, window_s=settings.window_s) if names else ""
