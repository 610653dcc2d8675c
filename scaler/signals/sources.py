"""Several sources as one: each target is asked of those that serve its namespace, then merged."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from scaler.core.model import Cause, Latency, NoData, Signal
from scaler.signals.samples import GpuSample, PodSample, Source, TargetRef, TargetSamples
from scaler.signals.turns import Turns

_log = logging.getLogger(__name__)

_CANCEL_LIMIT_S = 1.0  # for a source to let go of what it holds; it takes a turn of the event loop

_Sample = TypeVar("_Sample", PodSample, GpuSample)

# Which signals come with which part of a source's result.
_OF_PODS = (Signal.WORK, Signal.QUEUE, Signal.KV_CACHE)


class RoutedSource(Source, Protocol):
    """A source that knows which targets it is for."""

    @property
    def attempts(self) -> int:
        """Requests made so far, repeated ones included."""
        ...

    def serves(self, target: TargetRef) -> bool:
        """Whether the source is asked about the target."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a source's collections so far; ``duration_s`` is of the last one."""

    collections: int = 0
    failures: int = 0  # collections that brought nothing for any target
    attempts: int = 0
    samples: int = 0
    missing: Mapping[Cause, int] = field(default_factory=dict)  # pods without a sample, by cause
    duration_s: float = 0.0


class SourceSet:
    """Asks every source at the same time, within one limit, and merges what they bring.

    The first source that has a good sample of a pod provides it; a sample older than ``fresh_s``
    counts only where no source has a newer one.  GPU samples, histograms and the gateway's counter
    may come from other sources than the engines' numbers.
    """

    def __init__(
        self,
        sources: Sequence[RoutedSource],
        *,
        timeout_s: float = 10.0,
        fresh_s: float = 60.0,
        name: str = "sources",
    ) -> None:
        assert len({source.name for source in sources}) == len(sources), "names tell sources apart"
        self.name = name
        self._sources = tuple(sources)
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._outcomes = {source.name: Outcome() for source in sources}

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Counters by source, for our own metrics."""
        return dict(self._outcomes)

    async def collect(
        self, targets: Sequence[TargetRef], now_s: float
    ) -> Mapping[str, TargetSamples]:
        """Samples by key for every target; a target no source serves is UNSUPPORTED."""
        asked = {
            source.name: [target for target in targets if source.serves(target)]
            for source in self._sources
        }
        brought = await self._ask(asked, now_s)
        turns, merged = Turns(), {}
        for target in targets:
            await turns.rest()
            merged[target.key] = self._merged(target, now_s, brought)
        return merged

    async def close(self) -> None:
        """Close every source."""
        await asyncio.gather(*(source.close() for source in self._sources))

    async def _ask(
        self, asked: Mapping[str, Sequence[TargetRef]], now_s: float
    ) -> list[Mapping[str, TargetSamples]]:
        tasks = {
            source.name: asyncio.create_task(self._one(source, asked[source.name], now_s))
            for source in self._sources
            if asked[source.name]
        }
        if not tasks:
            return []
        try:
            await asyncio.wait(tasks.values(), timeout=self._timeout_s)
        finally:  # late ones at the limit, all of them when this collection is cancelled
            for task in tasks.values():
                task.cancel()
        await asyncio.wait(tasks.values(), timeout=_CANCEL_LIMIT_S)
        return [self._result(name, task, asked[name], now_s) for name, task in tasks.items()]

    async def _one(
        self, source: RoutedSource, targets: Sequence[TargetRef], now_s: float
    ) -> Mapping[str, TargetSamples]:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        before = source.attempts
        result: Mapping[str, TargetSamples] = {}
        try:
            result = await source.collect(targets, now_s)
        finally:
            duration_s, attempts = loop.time() - began_s, source.attempts - before
            await self._count(source, result.values(), duration_s, attempts)
        return result

    def _result(
        self,
        name: str,
        task: "asyncio.Task[Mapping[str, TargetSamples]]",
        targets: Sequence[TargetRef],
        now_s: float,
    ) -> Mapping[str, TargetSamples]:
        if not task.done() or task.cancelled():
            detail = f"{name}: no result within {self._timeout_s:g} s"
            return _failed(targets, now_s, NoData(cause=Cause.UNREACHABLE, detail=detail))
        defect = task.exception()
        if defect is None:
            return task.result()
        # A source never raises for the world's faults.  This is a defect of ours: it must be loud,
        # and must not blind the targets of the other sources.
        _log.error("source %s is defective", name, exc_info=defect)
        detail = f"{name}: defect in this program: {type(defect).__name__}"
        return _failed(targets, now_s, NoData(cause=Cause.UNREACHABLE, detail=detail))

    async def _count(
        self,
        source: RoutedSource,
        brought: Iterable[TargetSamples],
        duration_s: float,
        attempts: int,
    ) -> None:
        so_far = self._outcomes[source.name]
        missing = dict(so_far.missing)
        samples = 0
        good = False
        turns = Turns()
        for one in brought:
            await turns.rest()
            good = good or one.failure is None
            for sample in (*one.pods.values(), *one.gpus.values()):
                if isinstance(sample, NoData):
                    missing[sample.cause] = missing.get(sample.cause, 0) + 1
                else:
                    samples += 1
        self._outcomes[source.name] = Outcome(
            collections=so_far.collections + 1,
            failures=so_far.failures + (not good),
            attempts=so_far.attempts + attempts,
            samples=so_far.samples + samples,
            missing=missing,
            duration_s=duration_s,
        )

    def _merged(
        self, target: TargetRef, now_s: float, brought: Sequence[Mapping[str, TargetSamples]]
    ) -> TargetSamples:
        parts = [result[target.key] for result in brought if target.key in result]
        if not parts:
            return TargetSamples(target=target, at_s=now_s, failure=_unserved(target))
        if len(parts) == 1:
            return parts[0]
        good = [part for part in parts if part.failure is None]
        if not good:
            return TargetSamples(target=target, at_s=now_s, failure=_all_failed(parts))
        oldest_s = now_s - self._fresh_s
        return TargetSamples(
            target=target,
            at_s=min(part.at_s for part in good),
            pods=_best([part.pods for part in good], oldest_s),
            gpus=_best([part.gpus for part in good], oldest_s),
            ttft=_first([part.ttft for part in good]),
            itl=_first([part.itl for part in good]),
            gateway_requests=next(
                (p.gateway_requests for p in good if p.gateway_requests is not None), None
            ),
            warnings=tuple(warning for part in parts for warning in part.warnings),
            faults=_faults(good),
        )


def _best(
    maps: Sequence[Mapping[str, _Sample | NoData]], oldest_s: float
) -> dict[str, _Sample | NoData]:
    """For each pod the first fresh sample, else the first sample, else the first cause."""
    best: dict[str, _Sample | NoData] = {}
    for samples in maps:
        for pod, sample in samples.items():
            if pod not in best or _rank(sample, oldest_s) > _rank(best[pod], oldest_s):
                best[pod] = sample
    return best


def _rank(sample: PodSample | GpuSample | NoData, oldest_s: float) -> int:
    if isinstance(sample, NoData):
        return 0
    return 2 if sample.at_s >= oldest_s else 1


def _first(values: Sequence[Latency | NoData | None]) -> Latency | NoData | None:
    """The first histogram, else the first cause; None leaves it to the pods' own histograms."""
    for value in values:
        if isinstance(value, Latency):
            return value
    if None in values:
        return None
    return next(iter(values), None)


def _faults(parts: Sequence[TargetSamples]) -> dict[Signal, NoData]:
    """Faults of a signal that no other source made good."""
    kept: dict[Signal, NoData] = {}
    for signal in {signal for part in parts for signal in part.faults}:
        if not any(_vouches(part, signal) for part in parts):
            kept[signal] = next(part.faults[signal] for part in parts if signal in part.faults)
    return kept


def _vouches(part: TargetSamples, signal: Signal) -> bool:
    """Whether this source brought the signal without a fault."""
    if signal in part.faults:
        return False
    if signal is Signal.GPU:
        return any(isinstance(gpu, GpuSample) for gpu in part.gpus.values())
    samples = [pod for pod in part.pods.values() if isinstance(pod, PodSample)]
    if signal is Signal.TTFT:
        return isinstance(part.ttft, Latency) or any(pod.ttft for pod in samples)
    if signal is Signal.ITL:
        return isinstance(part.itl, Latency) or any(pod.itl for pod in samples)
    return signal in _OF_PODS and bool(samples)


def _failed(
    targets: Sequence[TargetRef], now_s: float, failure: NoData
) -> dict[str, TargetSamples]:
    return {
        target.key: TargetSamples(target=target, at_s=now_s, failure=failure) for target in targets
    }


def _unserved(target: TargetRef) -> NoData:
    return NoData(
        cause=Cause.UNSUPPORTED,
        detail=f"no source serves namespace {target.namespace!r}; "
        "add it to the namespaces of a source",
    )


def _all_failed(parts: Sequence[TargetSamples]) -> NoData:
    failures = [part.failure for part in parts if part.failure is not None]
    details = tuple(dict.fromkeys(failure.detail for failure in failures))
    return NoData(cause=failures[0].cause, detail="; ".join(details))
