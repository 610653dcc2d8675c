"""Engine metric pages and rows -> PodSample, or NoData with a cause.

The page is read by prometheus_client's parser; only the lines of wanted metrics are handed to it,
because a page has some 430 samples of which we need a third.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

from scaler.core.model import Cause, NoData
from scaler.signals.faults import brief
from scaler.signals.profiles import VLLM, EngineProfile, Names
from scaler.signals.readers import CompactRow, EngineNames, Labels
from scaler.signals.samples import Histogram, PodSample

PAGE_CHARS_MAX = 16 << 20  # a page of vLLM has 52 kB; this one is something else
_FOREIGN_SHOWN = 3

Series: TypeAlias = dict[Labels, float]
Table: TypeAlias = dict[str, Series]


class VllmReader:
    """Reads the metrics of one engine profile; vLLM's by default."""

    def __init__(self, profile: EngineProfile = VLLM) -> None:
        self._profile = profile
        self._names = profile.engine_names()
        histograms = (*profile.ttft, *profile.itl)
        self._wanted = frozenset((*profile.scalars(), *(f"{name}_bucket" for name in histograms)))
        self._own = tuple({name for name in profile.scalars() if name not in profile.started})

    @property
    def names(self) -> EngineNames:
        """What to ask Prometheus for."""
        return self._names

    def from_page(self, text: str, *, pod: str, at_s: float) -> PodSample | NoData:
        """One pod's sample from its page.

        NoData causes: MALFORMED for a page that cannot be read, ABSENT for one without any of the
        engine's metrics, NOT_A_NUMBER where a gauge is NaN or infinite.
        """
        if len(text) > PAGE_CHARS_MAX:
            return _malformed(pod, f"the page has {len(text)} characters, more than any engine's")
        if text and not text.endswith("\n"):
            return _malformed(pod, "the page is cut off: its last line has no end")
        lines = [line for line in text.split("\n") if _name_of(line) in self._wanted]
        try:
            table = _parsed("\n".join(lines) + "\n")
        except (ValueError, IndexError, KeyError, TypeError) as error:
            return _malformed(pod, f"{type(error).__name__}: {brief(str(error))}")
        if not any(name in table for name in self._own):
            return _absent(pod, text, self._profile.name)
        return self._sample(table, pod=pod, at_s=at_s)

    def from_rows(self, rows: Iterable[CompactRow], *, pod: str, at_s: float) -> PodSample | NoData:
        """One pod's sample from rows of grouped queries (without histograms)."""
        table: Table = {}
        for name, labels, value in rows:
            table.setdefault(name, {})[labels] = value
        if not any(name in table for name in self._own):
            return NoData(cause=Cause.ABSENT, detail=f"{pod} has no metric of {self._profile.name}")
        return self._sample(table, pod=pod, at_s=at_s)

    def _sample(self, table: Table, *, pod: str, at_s: float) -> PodSample | NoData:
        """A missing gauge of a living engine is zero, unlike a missing counter.

        In multiprocess mode a fresh server exports no gauge before its first step.  What a failed
        query left out is named in the faults of its result.
        """
        profile = self._profile
        table = _chosen(table, profile.only_labels)
        odd = _not_numbers(table, (*profile.running, *profile.waiting, *profile.kv_cache))
        if odd:
            return NoData(cause=Cause.NOT_A_NUMBER, detail=f"{pod}: {odd} is not a number")
        kv = [value * profile.kv_factor for value in _first(table, profile.kv_cache).values()]
        waiting, deferred = _waiting(table, profile)
        return PodSample(
            pod=pod,
            at_s=at_s,
            model_names=_models(table, profile),
            running=_total(table, profile.running, missing=0.0),
            waiting=0.0 if waiting is None else waiting,
            deferred=deferred,
            kv_mean_ratio=sum(kv) / len(kv) if kv else _zero_of(profile.kv_cache),
            kv_max_ratio=max(kv) if kv else _zero_of(profile.kv_cache),
            kv_capacity_tokens=_kv_capacity(table, profile),
            finished=_total(table, profile.finished),
            rejected=_total(table, profile.rejected),
            prompt_tokens=_total(table, profile.prompt_tokens),
            cached_tokens=_total(table, profile.cached_tokens),
            output_tokens=_total(table, profile.output_tokens),
            preemptions=_total(table, profile.preemptions),
            engine_steps=_total(table, profile.engine_steps),
            finished_prompt_tokens=_total(table, profile.finished_prompt_tokens),
            finished_output_tokens=_total(table, profile.finished_output_tokens),
            started_at_s=max(_first(table, profile.started).values(), default=None),
            asleep=_asleep(table, profile),
            ttft=_histogram(table, profile.ttft),
            itl=_histogram(table, profile.itl),
        )


def _name_of(line: str) -> str:
    """The metric's name at the start of a sample line; whole, so that prefixes never match."""
    brace, blank = line.find("{"), line.find(" ")
    if brace < 0 or (0 <= blank < brace):
        return line[: max(blank, 0)]
    return line[:brace]


def _parsed(text: str) -> Table:
    """Samples by name and labels; a series given twice counts once."""
    table: Table = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            table.setdefault(sample.name, {})[labels] = float(sample.value)
    return table


def _chosen(table: Table, only: Labels) -> Table:
    """Series whose labels agree with ``only`` where they have them."""
    if not only:
        return table
    wanted = set(only)
    names = {name for name, _ in only}
    return {
        name: {
            labels: value
            for labels, value in series.items()
            if {pair for pair in labels if pair[0] in names} <= wanted
        }
        for name, series in table.items()
    }


def _first(table: Table, names: Names) -> Series:
    """The series of the first name that is there."""
    for name in names:
        if table.get(name):
            return table[name]
    return {}


def _total(table: Table, names: Names, missing: float | None = None) -> float | None:
    """Sum over the series of the first name that is there; numbers only."""
    series = _first(table, names)
    values = [value for value in series.values() if math.isfinite(value)]
    return sum(values) if values else missing


def _zero_of(names: Names) -> float | None:
    """Zero of a gauge the engine has but does not export yet; None of one it never has."""
    return 0.0 if names else None


def _not_numbers(table: Table, names: Names) -> str:
    """The first gauge with a NaN or an infinity, empty when there is none."""
    for name in names:
        if any(not math.isfinite(value) for value in table.get(name, {}).values()):
            return name
    return ""


def _waiting(table: Table, profile: EngineProfile) -> tuple[float | None, float | None]:
    """Requests that more replicas can help, and those they cannot.

    The plain gauge holds both; by reason only ``capacity`` is a matter of replicas.
    """
    reasons = _first(table, profile.waiting_by_reason)
    if not reasons:
        return _total(table, profile.waiting), None
    capacity = deferred = 0.0
    for labels, value in reasons.items():
        if dict(labels).get("reason") == "capacity":
            capacity += value
        else:
            deferred += value
    return capacity, deferred


def _kv_capacity(table: Table, profile: EngineProfile) -> float | None:
    """Tokens the KV caches of one pod's engines hold, from the labels of the info series.

    All values are strings and may be "None".  One block is the null block.
    """
    total = 0.0
    for labels in _first(table, profile.cache_info):
        known = dict(labels)
        tokens = _number(known.get("kv_cache_size_tokens"))
        if tokens is None:
            block, blocks = _number(known.get("block_size")), _number(known.get("num_gpu_blocks"))
            tokens = block * max(blocks - 1.0, 0.0) if block and blocks else 0.0
        total += tokens
    return total or None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None


def _asleep(table: Table, profile: EngineProfile) -> bool:
    """Whether every engine sleeps: the pod is Ready but cannot serve."""
    awake = [
        value
        for labels, value in _first(table, profile.sleep_state).items()
        if ("sleep_state", "awake") in labels
    ]
    return bool(awake) and not any(awake)


def _models(table: Table, profile: EngineProfile) -> tuple[str, ...]:
    """Model names on the series, sorted."""
    if not profile.model_label:
        return ()
    found = {
        value
        for name in (*profile.running, *profile.output_tokens, *profile.finished)
        for labels in table.get(name, {})
        for label, value in labels
        if label == profile.model_label
    }
    return tuple(sorted(found))


def _histogram(table: Table, names: Names) -> Histogram | None:
    """The first histogram that is there, summed over engines; bounds as the page has them.

    None where the engines' bounds differ, a bound is missing or counts fall: not a histogram.
    """
    for name in names:
        series = table.get(f"{name}_bucket")
        if not series:
            continue
        by_bound: dict[float, float] = {}
        seen: dict[float, int] = {}
        for labels, count in series.items():
            bound_s = _number_or_infinity(dict(labels).get("le", ""))
            if bound_s is None or not math.isfinite(count):
                return None
            by_bound[bound_s] = by_bound.get(bound_s, 0.0) + count
            seen[bound_s] = seen.get(bound_s, 0) + 1
        bounds = tuple(sorted(by_bound))
        counts = tuple(by_bound[bound_s] for bound_s in bounds)
        rising = all(low <= high for low, high in pairwise(counts))
        if bounds[-1] != math.inf or len(set(seen.values())) != 1 or not rising:
            return None
        return Histogram(bounds_s=bounds, counts=counts)
    return None


def _number_or_infinity(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _malformed(pod: str, detail: str) -> NoData:
    return NoData(cause=Cause.MALFORMED, detail=f"{pod}: {detail}")


def _absent(pod: str, text: str, engine: str) -> NoData:
    """ABSENT, with what the page has instead."""
    names = {_name_of(line) for line in text.split("\n") if line and not line.startswith("#")}
    shown = ", ".join(sorted(names - {""})[:_FOREIGN_SHOWN]) or "nothing"
    return NoData(
        cause=Cause.ABSENT,
        detail=f"{pod}: no metric of {engine} on the page, which has {brief(shown)}; "
        "is it the engine's port?",
    )
