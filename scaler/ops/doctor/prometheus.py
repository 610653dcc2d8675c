"""Asking one Prometheus: the daemon's own queries one by one, and what explains their answers."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from scaler.config import RecordingRules
from scaler.ops.doctor.evidence import Asked, Source, Unseen
from scaler.signals import promql
from scaler.signals.dcgm import DcgmReader
from scaler.signals.faults import SourceError
from scaler.signals.profiles import PROFILES
from scaler.signals.prometheus_answer import Cell
from scaler.signals.prometheus_http import PrometheusHttp
from scaler.signals.prometheus_queries import queries
from scaler.signals.prometheus_rows import read_all
from scaler.signals.promql import Scope
from scaler.signals.readers import Readers
from scaler.signals.samples import TargetRef
from scaler.signals.settings import PrometheusSettings
from scaler.signals.vllm import VllmReader

SCRAPES_OVER_S = 300.0  # in which scrapes are counted for the interval between them
_SLACK = 2.0  # of the source's own time limit: eleven queries and four more go through it

Answers = Mapping[str, list[Cell] | SourceError]


async def look(settings: PrometheusSettings, targets: Sequence[TargetRef]) -> Source:
    """What the source says of the targets it serves; its faults are in the result."""
    served = [target for target in targets if settings.serves(target) and target.namespace]
    seen = Source(
        name=settings.name,
        url=settings.url,
        namespaces=tuple(sorted({target.namespace for target in served})),
        window_s=settings.window_s,
        rules_wanted=settings.recording_rules.value,
    )
    if not served:
        return seen
    http = PrometheusHttp(settings)
    try:
        return await _look(http, settings, served, seen)
    finally:
        await http.close()


async def _look(
    http: PrometheusHttp, settings: PrometheusSettings, served: Sequence[TargetRef], seen: Source
) -> Source:
    until_s = asyncio.get_running_loop().time() + settings.timeout_s * _SLACK
    asked_at_s = time.time()
    try:
        cells, _ = await http.post("/api/v1/query", {"query": "time()"}, read_all, until_s=until_s)
    except SourceError as fault:
        return replace(seen, fault=fault.detail)
    if len(cells) != 1:
        return replace(seen, fault=f"time() has {len(cells)} values, must have one")
    now_s = cells[0].value
    ahead_s = now_s - (asked_at_s + time.time()) / 2.0
    asked = _texts(settings, served)
    answers = await _ask_all(http, asked, at_s=now_s - settings.settle_s, until_s=until_s)
    return _made(replace(seen, now_s=now_s, ahead_s=ahead_s), settings, asked, answers)


def _texts(settings: PrometheusSettings, served: Sequence[TargetRef]) -> dict[str, str]:
    """Every query by its name: the daemon's, then (with a ``+``) those that explain them."""
    scope = Scope(
        namespaces=tuple(sorted({target.namespace for target in served})),
        namespace_label=settings.namespace_label,
        pod_label=settings.pod_label,
    )
    engine = PROFILES[settings.engine]
    readers = Readers(engine=VllmReader(engine), gpu=DcgmReader())
    made = queries(
        served,
        scope,
        settings,
        readers,
        recorded=settings.recording_rules is RecordingRules.ALWAYS,
    )
    own = {
        name: getattr(made, name)
        for name in (
            "queue", "work", "kv_cache", "info", "times", "ttft", "itl", "gpu", "gpu_times",
        )
    }  # fmt: skip
    own |= {f"gateway {place}": text for place, text in enumerate(made.gateways)}
    running = engine.engine_names().queue[0]
    namespace, pod = settings.namespace_label, settings.pod_label
    counted = f"count_over_time({promql.selector((running,), scope.pin())}[{SCRAPES_OVER_S:.0f}s])"
    more = {
        "+elsewhere": f"count by ({namespace}) ({running})",
        "+without pod": f'count({running}{{{pod}=""}})',
        "+scrapes": f"max by ({namespace}, {pod}) ({counted})",
        "+rules": promql.recorded_namespaces(scope),
    }
    return {name: text for name, text in (own | more).items() if text}


async def _ask_all(
    http: PrometheusHttp, asked: Mapping[str, str], *, at_s: float, until_s: float
) -> Answers:
    async def ask(text: str) -> list[Cell] | SourceError:
        form = {"query": text, "time": f"{at_s:.3f}"}
        try:
            cells, _ = await http.post("/api/v1/query", form, read_all, until_s=until_s)
        except SourceError as fault:
            return fault
        return cells

    found = await asyncio.gather(*(ask(text) for text in asked.values()))
    return dict(zip(asked, found, strict=True))


def _made(
    seen: Source, settings: PrometheusSettings, asked: Mapping[str, str], answers: Answers
) -> Source:
    labels = settings.namespace_label, settings.pod_label
    elsewhere, ruled = answers["+elsewhere"], answers["+rules"]
    without = answers["+without pod"]
    return replace(
        seen,
        queries={name: _asked(answers[name]) for name in asked if not name.startswith("+")},
        sampled_at_s=_by_pod(answers["times"], labels),
        scrapes_in_5m=_by_pod(answers["+scrapes"], labels),
        elsewhere=Unseen(reason=elsewhere.detail)
        if isinstance(elsewhere, SourceError)
        else {cell.labels.get(labels[0], ""): cell.value for cell in elsewhere},
        without_pod=Unseen(reason=without.detail)
        if isinstance(without, SourceError)
        else sum(cell.value for cell in without),
        ruled=Unseen(reason=ruled.detail) if isinstance(ruled, SourceError) else _ruled(ruled),
    )


def _asked(answer: list[Cell] | SourceError) -> Asked:
    if isinstance(answer, SourceError):
        return Asked(fault=answer.detail)
    names = {cell.labels.get("__name__", "") for cell in answer} - {""}
    return Asked(rows=len(answer), names=frozenset(names))


def _by_pod(
    answer: list[Cell] | SourceError, labels: tuple[str, str]
) -> dict[tuple[str, str], float]:
    if isinstance(answer, SourceError):
        return {}
    namespace, pod = labels
    return {
        (cell.labels.get(namespace, ""), cell.labels.get(pod, "")): cell.value for cell in answer
    }


def _ruled(cells: Sequence[Cell]) -> frozenset[str]:
    """Namespaces that both rules cover."""
    spaces: dict[str, set[str]] = {promql.TTFT_RECORDED: set(), promql.ITL_RECORDED: set()}
    for cell in cells:
        spaces.setdefault(cell.labels.get("__name__", ""), set()).add(
            cell.labels.get("namespace", "")
        )
    return frozenset(spaces[promql.TTFT_RECORDED] & spaces[promql.ITL_RECORDED])
