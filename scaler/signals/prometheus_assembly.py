"""From the answers of one collection to the samples of every target."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scaler.core.model import Cause, Latency, NoData, Signal
from scaler.signals.belonging import Membership, expected, of_model, workload_of
from scaler.signals.prometheus_answer import Cell, Notes, reading
from scaler.signals.prometheus_buckets import BucketTable
from scaler.signals.prometheus_rows import PodRows, in_slices
from scaler.signals.readers import CompactRow, Readers
from scaler.signals.samples import GpuSample, PodRef, PodSample, TargetRef, TargetSamples
from scaler.signals.settings import PrometheusSettings

_SLICE_PODS = 25  # about a millisecond of building samples
_WORKLOADS_SHOWN = 3

Read = tuple[list[Cell], Notes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the queries of one collection brought; each may have failed alone."""

    queue: PodRows | NoData
    work: PodRows | NoData
    kv_cache: PodRows | NoData
    info: PodRows | NoData
    times: PodRows | NoData
    ttft: BucketTable | NoData
    itl: BucketTable | NoData
    gpu: PodRows | NoData
    gpu_times: PodRows | NoData
    gateways: Mapping[str, Read | NoData]


def assemble(
    served: Sequence[TargetRef],
    answers: Answers,
    settings: PrometheusSettings,
    readers: Readers,
    *,
    now_s: float,
    ahead_s: float,
) -> dict[str, TargetSamples]:
    """Samples of every target by key; called in a thread.

    ``ahead_s`` is by how much the server's clock is ahead of ``now_s``'s.
    """
    failure = _failure(answers)
    if failure is not None:
        return {
            target.key: TargetSamples(target=target, at_s=now_s, failure=failure)
            for target in served
        }
    with reading():
        collected = _Collected(served, answers, settings, readers, now_s=now_s, ahead_s=ahead_s)
        collected.engines()
        collected.gpus()
        return {target.key: collected.of(target) for target in served}


def _failure(answers: Answers) -> NoData | None:
    """Why nothing can be said of any target, if so.

    Without the times of the samples nothing is known to be alive.
    """
    if isinstance(answers.times, NoData):
        return answers.times
    engine = (answers.queue, answers.work, answers.kv_cache)
    failed = [part for part in engine if isinstance(part, NoData)]
    return failed[0] if len(failed) == len(engine) else None


class _Collected:
    """One collection while it is sorted by target."""

    def __init__(
        self,
        served: Sequence[TargetRef],
        answers: Answers,
        settings: PrometheusSettings,
        readers: Readers,
        *,
        now_s: float,
        ahead_s: float,
    ) -> None:
        self._answers = answers
        self._settings = settings
        self._readers = readers
        self._now_s = now_s
        self._ahead_s = ahead_s
        self._members = Membership(served)
        self._targets = {target.key: target for target in served}
        self._pods: dict[str, dict[str, PodSample | NoData]] = {key: {} for key in self._targets}
        self._gpus: dict[str, dict[str, GpuSample | NoData]] = {key: {} for key in self._targets}
        self._seen: dict[str, set[str]] = {}  # workloads with engine series by namespace
        self._faults = _signal_faults(answers)
        self._gateways = _Gateways(answers.gateways)
        self._warnings = _warnings(answers)

    def engines(self) -> None:
        """Sort the engines' rows by target."""
        times = self._answers.times
        assert isinstance(times, PodRows), "a collection without times has failed"
        parts = (
            self._answers.queue,
            self._answers.work,
            self._answers.kv_cache,
            self._answers.info,
        )
        found = [part for part in parts if isinstance(part, PodRows)]
        for key in in_slices(times, _SLICE_PODS):
            namespace, pod = key
            self._seen.setdefault(namespace, set()).add(workload_of(pod) or pod)
            targets = self._members.keys_of(namespace, pod)
            if not targets:
                continue
            scraped = times.take(key)
            rows = [row for part in found for row in part.take(key)]
            sample = self._readers.engine.from_rows(rows, pod=pod, at_s=self._at_s(scraped))
            if isinstance(sample, PodSample):
                sample = _without_unknown(sample, self._answers)
            for target in targets:
                self._pods[target][pod] = _for_target(sample, self._targets[target])

    def gpus(self) -> None:
        """Sort the GPUs' rows by target."""
        rows, times = self._answers.gpu, self._answers.gpu_times
        if not isinstance(rows, PodRows) or not isinstance(times, PodRows):
            return
        for key in in_slices(rows, _SLICE_PODS):
            namespace, pod = key
            targets = self._members.keys_of(namespace, pod)
            scraped = times.take(key)
            if not targets or not scraped:
                continue
            sample = self._readers.gpu.from_rows(rows.take(key), pod=pod, at_s=self._at_s(scraped))
            for target in targets:
                self._gpus[target][pod] = sample

    def of(self, target: TargetRef) -> TargetSamples:
        """Everything of one target, what is missing included."""
        pods = self._pods[target.key]
        for pod in expected(target):
            if pod.name not in pods:
                pods[pod.name] = self._missing(target, pod)
        return TargetSamples(
            target=target,
            at_s=self._now_s,
            pods=pods,
            gpus=self._gpus[target.key],
            ttft=self._latency(self._answers.ttft, target, pods),
            itl=self._latency(self._answers.itl, target, pods),
            gateway_requests=self._gateways.requests(target),
            warnings=self._warnings,
            failure=None if target.pods is not None or pods else self._nothing(target),
            faults=self._faults,
        )

    def _at_s(self, scraped: Sequence[CompactRow]) -> float:
        """When a pod was scraped, on our clock; never later than now."""
        return min(max(value for _, _, value in scraped) - self._ahead_s, self._now_s)

    def _missing(self, target: TargetRef, pod: PodRef) -> NoData:
        if not pod.ready:
            return NoData(cause=Cause.REFUSED, detail=f"{pod.name} is not ready and has no series")
        if partial := self._faults.get(Signal.QUEUE):
            return partial
        if self._seen.get(target.namespace):
            return NoData(
                cause=Cause.NO_MATCH,
                detail=f"{self._settings.name} has engine series in {target.namespace}, none with "
                f"{self._settings.pod_label}={pod.name!r}; check the scrape job and its labels",
            )
        return self._empty(target)

    def _nothing(self, target: TargetRef) -> NoData:
        seen = sorted(self._seen.get(target.namespace, ()))
        if not seen:
            return self._faults.get(Signal.QUEUE) or self._empty(target)
        shown = ", ".join(seen[:_WORKLOADS_SHOWN])
        return NoData(
            cause=Cause.NO_MATCH,
            detail=f"no pod of {target.namespace} has the name of a pod of {target.name}; "
            f"series come from {shown}",
        )

    def _empty(self, target: TargetRef) -> NoData:
        label = self._settings.namespace_label
        return NoData(
            cause=Cause.EMPTY,
            detail=f"{self._settings.name} has no engine series with "
            f"{label}={target.namespace!r}; check the scrape job and its labels",
        )

    def _latency(
        self,
        table: BucketTable | NoData,
        target: TargetRef,
        pods: Mapping[str, PodSample | NoData],
    ) -> Latency | NoData:
        if isinstance(table, NoData):
            return table
        good = [sample for sample in pods.values() if isinstance(sample, PodSample)]
        if table.notes.partial:
            return _partial(table.notes)
        if not good:
            return next(
                (sample for sample in pods.values() if isinstance(sample, NoData)),
                self._empty(target),
            )
        ready = sum(pod.ready for pod in expected(target)) or len(good)
        return table.latency(
            target,
            seen_at_s=max(sample.at_s for sample in good),
            coverage_ratio=min(len(good) / ready, 1.0),
            window_s=self._settings.window_s,
        )


def _for_target(sample: PodSample | NoData, target: TargetRef) -> PodSample | NoData:
    return sample if isinstance(sample, NoData) else of_model(sample, target)


def _signal_faults(answers: Answers) -> dict[Signal, NoData]:
    """Signals whose query failed or whose answer said of itself that data is missing."""
    parts = {
        Signal.QUEUE: (answers.queue, answers.times),
        Signal.KV_CACHE: (answers.kv_cache, answers.times),
        Signal.WORK: (answers.work, answers.queue, answers.times),
        Signal.TTFT: (answers.ttft,),
        Signal.ITL: (answers.itl,),
        Signal.GPU: (answers.gpu, answers.gpu_times),
    }
    found = {signal: _part_fault(of) for signal, of in parts.items()}
    return {signal: fault for signal, fault in found.items() if fault is not None}


def _part_fault(parts: Sequence[PodRows | BucketTable | NoData]) -> NoData | None:
    for part in parts:
        if isinstance(part, NoData):
            return part
        if part.notes.partial:
            return _partial(part.notes)
    return None


def _without_unknown(sample: PodSample, answers: Answers) -> PodSample:
    """The sample without fields whose query failed.

    A reader takes a missing gauge of a living engine as zero; without its query nothing is known.
    """
    if isinstance(answers.queue, NoData):
        sample = replace(sample, running=None, waiting=None, deferred=None)
    if isinstance(answers.kv_cache, NoData):
        sample = replace(sample, kv_mean_ratio=None, kv_max_ratio=None)
    return sample


def _partial(notes: Notes) -> NoData:
    return NoData(
        cause=Cause.PARTIAL,
        detail=f"the source warned that its answer is incomplete: {notes.partial[0]}",
    )


def _warnings(answers: Answers) -> tuple[str, ...]:
    """What the source said of all its answers, each text once."""
    parts = (
        answers.queue,
        answers.work,
        answers.kv_cache,
        answers.info,
        answers.times,
        answers.ttft,
        answers.itl,
        answers.gpu,
        answers.gpu_times,
    )
    notes = [part.notes for part in parts if not isinstance(part, NoData)]
    return tuple(dict.fromkeys(text for note in notes for text in (*note.partial, *note.remarks)))


class _Gateways:
    """Counters in front of the targets, by query and namespace."""

    def __init__(self, reads: Mapping[str, Read | NoData]) -> None:
        self._rows: dict[str, dict[str, list[Cell]]] = {}
        for query, read in reads.items():
            if isinstance(read, NoData) or read[1].partial:
                continue
            spaces = self._rows.setdefault(query, {})
            for cell in read[0]:
                if namespace := cell.labels.get("namespace"):
                    spaces.setdefault(namespace, []).append(cell)

    def requests(self, target: TargetRef) -> float | None:
        """The counter of a target; None where it is not known.

        The operator's query must give ``namespace``; ``workload`` and ``model_name`` narrow it
        where it gives them.  An answer without such rows is 0: a counter that first appears is a
        request.
        """
        spaces = self._rows.get(target.gateway_query)
        if spaces is None:
            return None
        wanted = {"workload": target.name}
        if target.model_name:
            wanted["model_name"] = target.model_name
        values = (
            cell.value
            for cell in spaces.get(target.namespace, ())
            if all(cell.labels.get(label, value) == value for label, value in wanted.items())
        )
        return sum(value for value in values if math.isfinite(value))
