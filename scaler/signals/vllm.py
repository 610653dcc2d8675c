"""Engine metric pages and rows -> PodSample, or NoData with a cause.

The page is read by prometheus_client's parser; only the lines of wanted metrics are handed to it,
because a page has some 430 samples of which we need a third.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

from scaler.core.model import Cause, NoData
from scaler.signals.belonging import wrong_model
from scaler.signals.faults import brief
from scaler.signals.profiles import PROFILES, VLLM, EngineProfile, Names, Selector
from scaler.signals.readers import CompactRow, EngineNames, Labels
from scaler.signals.samples import Histogram, PodSample

PAGE_CHARS_MAX = 16 << 20  # a page of vLLM has 52 kB; this one is something else
AMOUNT_MAX = 1e15  # tokens or seconds; sums of many of them stay exact enough and finite
# What prometheus_client's parser raises on lines that are not the text format.
PARSER_FAULTS = (ValueError, IndexError, KeyError, TypeError, AttributeError)
_DEFERRED = ("reason", "deferred")
_FOREIGN_SHOWN = 3

Series: TypeAlias = dict[Labels, float]
Table: TypeAlias = dict[str, Series]


class VllmReader:
    """Reads the metrics of one engine profile; vLLM's by default."""

    def __init__(self, profile: EngineProfile = VLLM) -> None:
        self._profile = profile
        self._names = profile.engine_names()
        scalars = profile.scalars()
        self._numbers = tuple(name for name in scalars if name not in profile.cache_info)
        self._own = tuple(name for name in scalars if name not in profile.started)
        self._selectors = {
            name: found for name in scalars if (found := Selector.of(name)) is not None
        }
        plain = {
            self._selectors[name].name if name in self._selectors else name for name in scalars
        }
        histograms = (*profile.ttft, *profile.itl)
        self._wanted = frozenset((*plain, *(f"{name}_bucket" for name in histograms)))

    @property
    def names(self) -> EngineNames:
        """What to ask Prometheus for."""
        return self._names

    def from_page(
        self, text: str, *, pod: str, at_s: float, model_name: str = ""
    ) -> PodSample | NoData:
        """One pod's sample from its page; of one model where ``model_name`` asks for it.

        NoData causes: MALFORMED for a page that cannot be read or is cut off, ABSENT for one
        without any of the engine's metrics, NO_MATCH for one of another engine or model,
        NOT_A_NUMBER where a number is NaN or infinite.
        """
        if len(text) > PAGE_CHARS_MAX:
            return _malformed(pod, f"the page has {len(text)} characters, more than any engine's")
        if text and not text.endswith("\n"):
            return _malformed(pod, "the page is cut off: its last line has no end")
        lines = [line for line in text.split("\n") if _name_of(line) in self._wanted]
        try:
            table = _parsed("\n".join(lines) + "\n")
        except PARSER_FAULTS as error:
            return _malformed(pod, f"{type(error).__name__}: {brief(str(error))}")
        sample = self._sample(table, pod=pod, at_s=at_s, model_name=model_name)
        return sample if sample is not None else _foreign(pod, text, self._profile)

    def from_rows(
        self, rows: Iterable[CompactRow], *, pod: str, at_s: float, model_name: str = ""
    ) -> PodSample | NoData:
        """One pod's sample from rows of grouped queries (without histograms)."""
        table: Table = {}
        for name, labels, value in rows:
            table.setdefault(name, {})[labels] = value
        sample = self._sample(table, pod=pod, at_s=at_s, model_name=model_name)
        if sample is not None:
            return sample
        return NoData(cause=Cause.ABSENT, detail=f"{pod} has no metric of {self._profile.name}")

    def _sample(
        self, table: Table, *, pod: str, at_s: float, model_name: str
    ) -> PodSample | NoData | None:
        """The sample; None of a table without any of the engine's metrics."""
        profile = self._profile
        for name, found in self._selectors.items():
            table[name] = _selected(table.get(found.name, {}), (found.label, found.value))
        if not any(table.get(name) for name in self._own):
            return None
        table = _chosen(table, profile.only_labels)
        if model_name and profile.model_label:
            models = _models(table, profile)
            table = _of_model(table, profile.model_label, model_name)
            if models and model_name not in models:
                return wrong_model(model_name, models)
        return _odd(table, self._numbers, pod) or _built(table, profile, pod=pod, at_s=at_s)


def _built(table: Table, profile: EngineProfile, *, pod: str, at_s: float) -> PodSample:
    """The sample of sound numbers; what is not there stays None unless it must be zero.

    In multiprocess mode a fresh server exports no gauge before its first scheduler step, and
    labelled counters may appear with their first count.  An engine that has made no token runs
    nothing and has finished nothing; of one that has made some, a missing number is unknown.
    """
    kv = [value * profile.kv_factor for value in _first(table, profile.kv_cache).values()]
    running, output = _total(table, profile.running), _total(table, profile.output_tokens)
    finished = _total(table, profile.finished)
    waiting = _waiting(table, profile)
    untouched = output == 0.0
    if untouched and finished is None and profile.finished:
        finished = 0.0
    if untouched and running is None and waiting.waiting is None and not kv:
        running, waiting = 0.0, _Waiting(waiting=0.0, deferred=None)
        kv = [0.0] if profile.kv_cache else []
    return PodSample(
        pod=pod,
        at_s=at_s,
        model_names=_models(table, profile),
        running=running,
        waiting=waiting.waiting,
        deferred=waiting.deferred,
        kv_mean_ratio=sum(kv) / len(kv) if kv else None,
        kv_max_ratio=max(kv) if kv else None,
        kv_capacity_tokens=_kv_capacity(table, profile),
        finished=finished,
        rejected=_total(table, profile.rejected),
        prompt_tokens=_total(table, profile.prompt_tokens),
        cached_tokens=_total(table, profile.cached_tokens),
        output_tokens=output,
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
    for label, value in only:
        table = _of_model(table, label, value)
    return table


def _of_model(table: Table, label: str, wanted: str) -> Table:
    """Series whose ``label`` is ``wanted``, and those that do not have the label."""
    return {
        name: {
            labels: value
            for labels, value in series.items()
            if all(found == wanted for key, found in labels if key == label)
        }
        for name, series in table.items()
    }


def _selected(series: Series, pair: tuple[str, str]) -> Series:
    return {labels: value for labels, value in series.items() if pair in labels}


def _first(table: Table, names: Names) -> Series:
    """The series of the first name that is there."""
    for name in names:
        if table.get(name):
            return table[name]
    return {}


def _total(table: Table, names: Names) -> float | None:
    """Sum over the series of the first name that is there; None where none is."""
    series = _first(table, names)
    return sum(series.values()) if series else None


def _odd(table: Table, names: Names, pod: str) -> NoData | None:
    """Why the numbers cannot be used: NaN, infinite, negative or beyond any count; None if sound.

    One that is left out of a sum would look like a counter reset, so the sample is refused.
    """
    for name in names:
        for value in table.get(name, {}).values():
            if not math.isfinite(value):
                return NoData(
                    cause=Cause.NOT_A_NUMBER, detail=f"{pod}: {name} = {value}, must be a number"
                )
            if not 0.0 <= value <= AMOUNT_MAX:
                return _malformed(pod, f"{name} = {value:g}, must be in [0, {AMOUNT_MAX:g}]")
    return None


class _Waiting(NamedTuple):
    """Waiting requests that more replicas can help, and those they cannot."""

    waiting: float | None
    deferred: float | None


def _waiting(table: Table, profile: EngineProfile) -> _Waiting:
    """The queue without its deferred part (LoRA budget, KV transfer, blocked status).

    The plain gauge holds both.  A reason that is not known yet counts as a matter of replicas.
    """
    plain = _total(table, profile.waiting)
    more = _total(table, profile.waiting_more) or 0.0
    reasons = _first(table, profile.waiting_by_reason)
    if not reasons:
        return _Waiting(None if plain is None else plain + more, None)
    total = sum(reasons.values()) if plain is None else plain
    deferred = sum(value for labels, value in reasons.items() if _DEFERRED in labels)
    return _Waiting(max(total - deferred, 0.0) + more, deferred)


def _kv_capacity(table: Table, profile: EngineProfile) -> float | None:
    """Tokens the KV caches of one pod's engines hold, from the labels of the info series.

    All values are strings and may be "None".  An engine counts once however many series it has.
    """
    engines: dict[str, float] = {}
    for labels in _first(table, profile.cache_info):
        known = dict(labels)
        tokens = _number(known.get("kv_cache_size_tokens"))
        if tokens is None:
            block, blocks = _number(known.get("block_size")), _number(known.get("num_gpu_blocks"))
            tokens = block * blocks if block is not None and blocks is not None else 0.0
        engine = known.get("engine", "")
        engines[engine] = max(tokens, engines.get(engine, 0.0))
    return sum(engines.values()) or None


def _number(text: str | None) -> float | None:
    """A plausible amount from a label; None of anything else."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if 0.0 <= value <= AMOUNT_MAX else None


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
            if bound_s is None or not 0.0 <= count <= AMOUNT_MAX:
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


def _foreign(pod: str, text: str, profile: EngineProfile) -> NoData:
    """Why the page has none of the engine's metrics: another engine's, renamed ones, or neither."""
    names = {_name_of(line) for line in text.split("\n") if line and not line.startswith("#")}
    names.discard("")
    for other in PROFILES.values():
        if not names.isdisjoint(other.running):
            detail = f"{pod}: the page is of {other.name}, not of {profile.name}; set engine"
            return NoData(cause=Cause.NO_MATCH, detail=detail)
    if any(name.startswith("vllm_") for name in names):
        detail = f"{pod}: names begin with vllm_ where vLLM writes vllm:; who renames them?"
        return NoData(cause=Cause.NO_MATCH, detail=detail)
    shown = ", ".join(sorted(names)[:_FOREIGN_SHOWN]) or "nothing"
    return NoData(
        cause=Cause.ABSENT,
        detail=f"{pod}: no metric of {profile.name} on the page, which has {brief(shown)}; "
        "is it the engine's port?",
    )
