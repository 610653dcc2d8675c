"""Counters of pods between two samples: resets, new and vanished pods, missed collections."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

from scaler.signals.samples import Histogram, PodSample

_COUNTERS = (
    "finished", "rejected", "prompt_tokens", "cached_tokens", "output_tokens", "preemptions",
    "engine_steps", "finished_prompt_tokens", "finished_output_tokens",
)  # fmt: skip
_RESTART_MOVES_S = 1.0  # a process start time that moves by more is another process
_MISSED_FACTOR = 1.5  # a pod whose interval is longer than so many usual ones missed a collection


@dataclass(frozen=True, slots=True, kw_only=True)
class Deltas:
    """What happened between two collections, summed over pods.

    ``pods`` is how many pods could be compared, ``interval_s`` the usual time between their two
    samples, ``counters`` by field of PodSample (absent ones are left out).
    """

    pods: int = 0
    interval_s: float = 0.0
    replica_s: float = 0.0
    arrived: float = 0.0
    counters: dict[str, float] = field(default_factory=dict)
    ttft: tuple[Histogram, ...] = ()
    itl: tuple[Histogram, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _PodDelta:
    interval_s: float
    arrived: float
    counters: dict[str, float]
    ttft: Histogram | None
    itl: Histogram | None


class PodHistory:
    """The previous sample of every pod, and the arrivals that are owed.

    A gauge and a counter of one page may belong to neighbouring engine steps, so that the balance
    of a quiet interval can be a request below zero; it is taken off the next one, so that arrivals
    add up over time.
    """

    def __init__(self) -> None:
        self._previous: dict[str, PodSample] = {}
        self._stepped_at_s: float | None = None
        self._owed = 0.0

    def step(self, samples: Sequence[PodSample]) -> Deltas:
        """Compare with the previous samples and remember these; vanished pods are forgotten.

        What a vanished pod had in flight is gone: it is neither finished nor negative demand.
        """
        made: list[_PodDelta] = []
        kept: dict[str, PodSample] = {}
        for sample in samples:
            previous = self._previous.get(sample.pod)
            kept[sample.pod] = sample
            if previous is not None and sample.at_s <= previous.at_s:
                kept[sample.pod] = previous  # the same scrape again: nothing new
                continue
            before = self._before(sample, previous)
            if before is not None:
                made.append(_delta(before, sample))
        if samples:  # an empty collection is a gap, not the end of all pods
            self._previous = kept
            self._stepped_at_s = max(sample.at_s for sample in samples)
        return self._summed(made)

    def _before(self, sample: PodSample, previous: PodSample | None) -> PodSample | None:
        """What to compare with: the previous sample, zeros for a process that began since, or None.

        A pod seen for the first time whose process is older has an unknown past.
        """
        if previous is not None and not _restarted(previous, sample):
            return previous
        started_at_s = sample.started_at_s
        if previous is not None:
            since_s = previous.at_s if started_at_s is None else max(started_at_s, previous.at_s)
            return _zero(sample, since_s)
        stepped_at_s = self._stepped_at_s
        if started_at_s is None or stepped_at_s is None or started_at_s < stepped_at_s:
            return None
        return _zero(sample, started_at_s)

    def _summed(self, made: Sequence[_PodDelta]) -> Deltas:
        if not made:
            return Deltas()
        usual_s = median(delta.interval_s for delta in made)
        shares = [_share(delta.interval_s, usual_s) for delta in made]
        arrived = self._owed + sum(
            share * delta.arrived for share, delta in zip(shares, made, strict=True)
        )
        self._owed = min(arrived, 0.0)
        counters: dict[str, float] = {}
        for share, delta in zip(shares, made, strict=True):
            for name, value in delta.counters.items():
                counters[name] = counters.get(name, 0.0) + share * value
        return Deltas(
            pods=len(made),
            interval_s=usual_s,
            replica_s=sum(
                share * delta.interval_s for share, delta in zip(shares, made, strict=True)
            ),
            arrived=max(arrived, 0.0),
            counters=counters,
            ttft=tuple(delta.ttft for delta in made if delta.ttft is not None),
            itl=tuple(delta.itl for delta in made if delta.itl is not None),
        )


def _share(interval_s: float, usual_s: float) -> float:
    """The part of a longer interval that belongs to this one, so that rates are not inflated."""
    return usual_s / interval_s if interval_s > _MISSED_FACTOR * usual_s else 1.0


def _restarted(previous: PodSample, sample: PodSample) -> bool:
    """Whether another process answers: its start moved, or a counter fell."""
    if previous.started_at_s is not None and sample.started_at_s is not None:
        return abs(sample.started_at_s - previous.started_at_s) > _RESTART_MOVES_S
    return any(
        (now := getattr(sample, name)) is not None
        and (before := getattr(previous, name)) is not None
        and now < before
        for name in _COUNTERS
    )


def _zero(sample: PodSample, at_s: float) -> PodSample:
    """A sample of the same process before it did anything."""
    zeros: dict[str, Any] = {name: 0.0 for name in _COUNTERS if getattr(sample, name) is not None}
    return replace(
        sample,
        at_s=min(at_s, sample.at_s),
        running=0.0,
        waiting=0.0,
        deferred=0.0,
        ttft=_emptied(sample.ttft),
        itl=_emptied(sample.itl),
        **zeros,
    )


def _emptied(histogram: Histogram | None) -> Histogram | None:
    if histogram is None:
        return None
    return Histogram(bounds_s=histogram.bounds_s, counts=(0.0,) * len(histogram.counts))


def _delta(before: PodSample, after: PodSample) -> _PodDelta:
    counters = {
        name: max(now - (getattr(before, name) or 0.0), 0.0)
        for name in _COUNTERS
        if (now := getattr(after, name)) is not None
    }
    flight = _in_flight(after) - _in_flight(before)
    return _PodDelta(
        interval_s=max(after.at_s - before.at_s, 1e-3),
        arrived=flight + counters.get("finished", 0.0) + counters.get("rejected", 0.0),
        counters=counters,
        ttft=_between(before.ttft, after.ttft),
        itl=_between(before.itl, after.itl),
    )


def _in_flight(sample: PodSample) -> float:
    return (sample.running or 0.0) + (sample.waiting or 0.0) + (sample.deferred or 0.0)


def _between(before: Histogram | None, after: Histogram | None) -> Histogram | None:
    """Observations per bucket between two samples; None when the bounds changed."""
    if before is None or after is None or before.bounds_s != after.bounds_s:
        return None
    rises = [now - then for now, then in zip(after.counts, before.counts, strict=True)]
    buckets = [rises[0], *(high - low for low, high in pairwise(rises))]
    return Histogram(bounds_s=after.bounds_s, counts=tuple(max(count, 0.0) for count in buckets))
