"""From the chunks of a history to what the daemon would have had in its hands at every tick."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from scaler.core.model import Cause, NoData, Replicas
from scaler.ops.record_history import Asked, Rows
from scaler.signals.belonging import Membership, workload_of
from scaler.signals.prometheus_answer import Cell
from scaler.signals.prometheus_assembly import Answers, assemble
from scaler.signals.prometheus_buckets import BucketTable
from scaler.signals.prometheus_http import Reply
from scaler.signals.prometheus_rows import PodRows, read_gpu_rows
from scaler.signals.readers import Readers
from scaler.signals.samples import PodRef, TargetSamples

_NOT_ASKED = NoData(cause=Cause.UNSUPPORTED, detail="not asked of this source")
Chunk = tuple[tuple[float, ...], dict[str, Rows]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """One tick: the samples of the target, and its replicas."""

    at_s: float
    samples: TargetSamples
    replicas: Replicas | NoData


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """From when to when each pod of the target has samples; ``others`` are workloads beside it."""

    first_s: Mapping[str, float] = field(default_factory=dict)
    last_s: Mapping[str, float] = field(default_factory=dict)
    others: frozenset[str] = frozenset()

    def at(self, now_s: float) -> tuple[PodRef, ...]:
        """The pods that serve, a gap in their samples or not.

        A pod serves while its page can be read: an engine that loads its model answers nothing, and
        one that ends has left the endpoints.  Only of the past can this be said before it is over.
        """
        return tuple(
            PodRef(name=pod)
            for pod, first_s in self.first_s.items()
            if first_s <= now_s and self.last_s[pod] >= now_s
        )


def lives(asked: Asked, parts: Iterable[Chunk]) -> Lives:
    """When each pod of the target was seen."""
    members = Membership([replace(asked.target, pods=None)])
    first_s: dict[str, float] = {}
    last_s: dict[str, float] = {}
    others: set[str] = set()
    for _, rows in parts:
        for labels, points in rows.get("times", ()):
            pod = labels.get(asked.settings.pod_label, "")
            fresh = [at_s for at_s, scraped_s in points if at_s - scraped_s < _lapse_s(asked)]
            if not members.keys_of(asked.target.namespace, pod):
                others.add(workload_of(pod) or pod)
            elif fresh:
                first_s[pod] = min(first_s.get(pod, math.inf), fresh[0])
                last_s[pod] = max(last_s.get(pod, -math.inf), fresh[-1])
    return Lives(first_s=first_s, last_s=last_s, others=frozenset(others))


def _lapse_s(asked: Asked) -> float:
    """A sample as old is of a pod that is gone: Prometheus shows it for up to five minutes."""
    return max(45.0, 2.0 * asked.tick_s)


def collected(
    asked: Asked, readers: Readers, known: Lives, parts: Iterable[Chunk]
) -> Iterator[Collected]:
    """Every tick in order, through the same readers as the daemon's."""
    for ticks, rows in parts:
        by_tick = {name: _by_tick(found, ticks, asked.tick_s) for name, found in rows.items()}
        for place, at_s in enumerate(ticks):
            now = {name: cells[place] for name, cells in by_tick.items()}
            target = replace(asked.target, pods=known.at(at_s))
            answers = _answers(now, rows, asked)
            samples = assemble([target], answers, asked.settings, readers, now_s=at_s, ahead_s=0.0)[
                target.key
            ]
            yield Collected(
                at_s=at_s, samples=samples, replicas=_replicas(now, target.pods or (), at_s, asked)
            )


def _by_tick(rows: Rows, ticks: Sequence[float], tick_s: float) -> list[list[Cell]]:
    """The rows of each tick, as an instant query would have brought them."""
    cells: list[list[Cell]] = [[] for _ in ticks]
    for labels, points in rows:
        for at_s, value in points:
            place = round((at_s - ticks[0]) / tick_s)
            if 0 <= place < len(ticks) and abs(ticks[place] - at_s) < 0.01:
                cells[place].append(Cell(labels, at_s, value))
    return cells


def _answers(
    now: Mapping[str, Sequence[Cell]], asked_for: Mapping[str, Rows], asked: Asked
) -> Answers:
    settings = asked.settings

    def rows(name: str) -> PodRows | NoData:
        return _pod_rows(now[name], asked) if name in asked_for else _NOT_ASKED

    def buckets(name: str) -> BucketTable | NoData:
        if name not in asked_for:
            return _NOT_ASKED
        table = BucketTable()
        for cell in now[name]:
            table.add(cell, settings.namespace_label)
        return table

    def gpus(name: str) -> PodRows | NoData:
        return read_gpu_rows(_reply(now[name])) if name in asked_for else _NOT_ASKED

    return Answers(
        queue=rows("queue"),
        work=rows("work"),
        kv_cache=rows("kv_cache"),
        info=rows("info"),
        times=rows("times"),
        ttft=buckets("ttft"),
        itl=buckets("itl"),
        gpu=gpus("gpu"),
        gpu_times=gpus("gpu_times"),
        gateways={},
    )


def _pod_rows(cells: Sequence[Cell], asked: Asked) -> PodRows:
    rows = PodRows()
    for cell in cells:
        labels = dict(cell.labels)
        namespace = labels.pop(asked.settings.namespace_label, "")
        pod = labels.pop(asked.settings.pod_label, "")
        rows.add((namespace, pod), labels.pop("__name__", ""), labels, cell.value)
    return rows


def _reply(cells: Sequence[Cell]) -> Reply:
    """The rows of a tick as the answer of an instant query."""
    result = [{"metric": cell.labels, "value": (cell.at_s, repr(cell.value))} for cell in cells]
    answer = {"status": "success", "data": {"resultType": "vector", "result": result}}
    return Reply(status=200, content_type="application/json", body=msgspec.json.encode(answer))


def _replicas(
    now: Mapping[str, Sequence[Cell]], pods: Sequence[PodRef], at_s: float, asked: Asked
) -> Replicas | NoData:
    """By kube-state-metrics where there is one, else counted from the pods."""
    counts = {
        name: int(now[name][0].value)
        for name in ("wanted", "current", "ready")
        if now.get(name) and math.isfinite(now[name][0].value)
    }
    if len(counts) == 3:
        return Replicas(
            seen_at_s=at_s,
            wanted=counts["wanted"],
            current=counts["current"],
            ready=counts["ready"],
            gpus_per_replica=asked.gpus_per_replica,
        )
    if not pods:
        return NoData(cause=Cause.EMPTY, detail="no pod answered, and no Kubernetes API is used")
    seen = len(pods)
    return Replicas(
        seen_at_s=at_s,
        wanted=seen,
        current=seen,
        ready=seen,
        inferred=True,
        gpus_per_replica=asked.gpus_per_replica,
    )
