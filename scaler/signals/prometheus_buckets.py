"""Histograms that Prometheus has summed by workload: from rows of buckets to ``Latency``."""

import math
from collections.abc import Iterable, Mapping, Sequence

from scaler.core.model import Cause, Latency, NoData
from scaler.signals.belonging import wrong_model
from scaler.signals.faults import SourceError, brief
from scaler.signals.prometheus_answer import Cell, Notes, open_answer, reading
from scaler.signals.prometheus_http import Reply
from scaler.signals.promql import FAMILY
from scaler.signals.samples import TargetRef

_NOISE_RATIO = 0.01  # extrapolation at the window's edges lets cumulative counts cross by so much

Counts = dict[float, float]  # upper bound in seconds -> observations at or below it


class BucketTable:
    """Growth of buckets by (namespace, workload), model and family."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[str, dict[str, Counts]]] = {}
        self.notes = Notes()

    def add(self, cell: Cell, namespace_label: str) -> None:
        """Take in one row of a histogram query.

        Raises:
            SourceError: MALFORMED where ``le`` is not a number.
        """
        labels = cell.labels
        workload = labels.get("workload", "")
        if not workload:
            return  # a pod whose name has neither form: no target can claim it
        where = (labels.get(namespace_label, ""), workload)
        families = self._counts.setdefault(where, {}).setdefault(labels.get("model_name", ""), {})
        counts = families.setdefault(labels.get(FAMILY, ""), {})
        bound_s = _bound(labels.get("le", ""))
        # "1" and "1.0" are one bound: Prometheus 3 writes the second form, older ones the first.
        counts[bound_s] = counts.get(bound_s, 0.0) + cell.value

    def namespaces(self) -> set[str]:
        """Namespaces with any row."""
        return {namespace for namespace, _ in self._counts}

    def latency(
        self, target: TargetRef, *, seen_at_s: float, coverage_ratio: float, window_s: float
    ) -> Latency | NoData:
        """The histogram of a target over the window, or why there is none."""
        models = self._counts.get((target.namespace, target.name), {})
        if not models:
            return NoData(
                cause=Cause.EMPTY,
                detail=f"no such buckets of {target.namespace}/{target.name} within "
                f"{window_s:g} s: the engine has none, or less than two scrapes fall in window_s",
            )
        wanted = _of_model(models, target.model_name)
        if not wanted:
            return wrong_model(target.model_name, models)
        counts = _merged([_preferred(families) for families in wanted])
        if isinstance(counts, NoData):
            return counts
        return _latency(
            counts, seen_at_s=seen_at_s, coverage_ratio=coverage_ratio, window_s=window_s
        )


def read_buckets(reply: Reply, *, namespace_label: str) -> BucketTable:
    """Read a histogram query; called in a thread."""
    table = BucketTable()
    with reading():
        answer = open_answer(reply)
        for cell in answer.cells():
            table.add(cell, namespace_label)
    table.notes = answer.notes
    return table


def _bound(text: str) -> float:
    try:
        bound_s = float(text)
    except ValueError:
        bound_s = math.nan
    if math.isnan(bound_s):
        raise SourceError(Cause.MALFORMED, f"label le = {brief(text, 40)!r}, must be a number")
    return bound_s


def _of_model(
    models: Mapping[str, Mapping[str, Counts]], wanted: str
) -> list[Mapping[str, Counts]]:
    """The model that was asked for; every one where none was, or where engines name none."""
    return [families for model, families in models.items() if not wanted or model in (wanted, "")]


def _preferred(families: Mapping[str, Counts]) -> Counts:
    """Of alternative names of one histogram the one that is listed first in the profile."""
    return families[min(families)]


def _merged(tables: Iterable[Counts]) -> Counts | NoData:
    """The sum of histograms of several models; only equal bounds can be added."""
    first, *others = tables
    total = dict(first)
    for other in others:
        if other.keys() != total.keys():
            return NoData(
                cause=Cause.PARTIAL,
                detail="the models of this target have different bucket bounds; set modelName",
            )
        for bound_s, count in other.items():
            total[bound_s] += count
    return total


def _latency(
    counts: Counts, *, seen_at_s: float, coverage_ratio: float, window_s: float
) -> Latency | NoData:
    bounds_s = sorted(counts)
    cumulative = [counts[bound_s] for bound_s in bounds_s]
    if not all(math.isfinite(count) for count in cumulative):
        return NoData(cause=Cause.NOT_A_NUMBER, detail="a bucket's count is NaN or infinite")
    if bounds_s[-1] != math.inf:
        return NoData(cause=Cause.MALFORMED, detail='the bucket le="+Inf" is missing')
    singles = _singles(cumulative)
    if singles is None:
        return NoData(
            cause=Cause.PARTIAL,
            detail="cumulative buckets fall: the replicas have different bounds, or one restarted",
        )
    return Latency(
        seen_at_s=seen_at_s,
        coverage_ratio=coverage_ratio,
        window_s=window_s,
        bounds_s=tuple(bounds_s[:-1]),
        counts=tuple(singles),
    )


def _singles(cumulative: Sequence[float]) -> list[float] | None:
    """Counts of each bucket; None where the cumulative ones fall by more than noise.

    Replicas with different bounds (a rollout of ``--custom-histogram-buckets``) are not always
    seen here.  Where they are not, a replica without some bound is missing from that bound's count,
    which makes latencies look longer, never shorter.
    """
    noise = _NOISE_RATIO * max(*cumulative, 1.0)
    singles: list[float] = []
    highest = 0.0
    for count in cumulative:
        if count < highest - noise:
            return None
        singles.append(max(count - highest, 0.0))
        highest = max(highest, count)
    return singles
