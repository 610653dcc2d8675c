"""Counters of pods between two samples: resets, new and vanished pods, missed collections.

Deltas are formed in rounds.  A round ends when every pod that is being followed has a newer sample
than at the last round's end, because scrapes may be rarer than collections: with a scrape every
30 s and a collection every 15 s, adding up whatever is new would show half of the load each time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, sub
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

from scaler.core.model import Work
from scaler.signals.roster import Entry
from scaler.signals.samples import Histogram, PodSample

PODS_MAX = 10_000  # followed at most; beyond it the longest unseen are forgotten
_COUNTERS = (
    "finished", "rejected", "prompt_tokens", "cached_tokens", "output_tokens", "preemptions",
    "engine_steps", "finished_prompt_tokens", "finished_output_tokens",
)  # fmt: skip
_counters_of = attrgetter(*_COUNTERS)
_RESTART_MOVES_S = 1.0  # a process start time that moves by more is another process
_DOUBTS_MAX = 3  # lower counters in a row, after which they are believed without a restart
# A pod that missed collections brings what happened meanwhile, so that nothing is lost; after more
# of them it would look like a burst, and counts for one usual interval only.
_CATCH_UP_MISSES = 2
_INTERVAL_MIN_S = 1e-3
_NOBODY: Mapping[str, Entry] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Deltas:
    """What happened in one round, summed over pods.

    ``pods`` is how many pods were compared (0: no round has ended), ``interval_s`` the usual time
    between their two samples, ``counters`` by field of PodSample (those no pod has are left out).
    """

    pods: int = 0
    interval_s: float = 0.0
    replica_s: float = 0.0
    oldest_at_s: float = 0.0  # of the samples that ended the round
    newest_at_s: float = 0.0
    arrived: float = 0.0
    counters: dict[str, float] = field(default_factory=dict)
    ttft: tuple[Histogram, ...] = ()
    itl: tuple[Histogram, ...] = ()


def work_of(deltas: Deltas, coverage_ratio: float, seen_at_s: float) -> Work:
    """Work from the growth of counters.

    Computed prompt tokens are all prompt tokens less the cached ones.  Older versions count cache
    hits when a request is scheduled, also again after a preemption: no more are taken than came.
    """
    count = deltas.counters.get
    prompt = count("prompt_tokens", 0.0)
    cached = min(count("cached_tokens", 0.0), prompt)
    return Work(
        seen_at_s=seen_at_s,
        coverage_ratio=coverage_ratio,
        interval_s=deltas.interval_s,
        replica_s=deltas.replica_s,
        requests_arrived=deltas.arrived,
        requests_finished=count("finished", 0.0),
        requests_rejected=count("rejected", 0.0),
        prompt_tokens=prompt - cached,
        cached_tokens=cached,
        output_tokens=count("output_tokens", 0.0),
        preemptions=count("preemptions", 0.0),
        engine_steps=count("engine_steps", 0.0),
        finished_prompt_tokens=count("finished_prompt_tokens", 0.0),
        finished_output_tokens=count("finished_output_tokens", 0.0),
    )


@dataclass(slots=True)
class _Followed:
    """A pod as it was when the last round ended.

    ``seen_in`` numbers the last collection that had it, ``missed`` is the most in a row without it.
    """

    base: PodSample
    seen_in: int
    missed: int = 0
    doubts: int = 0


class PodHistory:
    """The last sample of every pod, and how its counters grew since."""

    def __init__(self, remembered_s: float) -> None:
        self._remembered_s = remembered_s
        self._followed: dict[str, _Followed] = {}
        self._stepped_at_s: float | None = None
        self._collection = 0
        self._carried = 0.0

    def step(self, samples: Sequence[PodSample], entered: Mapping[str, Entry] = _NOBODY) -> Deltas:
        """Take in a collection; deltas if it ends a round.

        ``entered`` are pods that have just begun to serve: all they have counted is news.
        Every sample must have the fields of the balance: ``running``, ``waiting``, ``finished``.
        What a vanished pod had in flight is gone: it is neither finished nor negative demand.
        """
        pairs: list[tuple[_Followed, PodSample]] = []
        pending = False
        self._collection += 1
        for sample in samples:
            followed = self._follow(sample, entered.get(sample.pod))
            if followed is None:
                continue
            if sample.at_s <= followed.base.at_s:
                pending = True  # the same scrape again, or a late one
            else:
                pairs.append((followed, sample))
        if samples:  # an empty collection is a gap, not the end of all pods
            self._stepped_at_s = max(sample.at_s for sample in samples)
            self._forget(len(samples))
        if pending or not pairs:
            return Deltas()
        return self._summed([_advanced(followed, sample) for followed, sample in pairs])

    def _follow(self, sample: PodSample, entry: Entry | None) -> _Followed | None:
        """How far the pod was followed; None where counting begins with this sample.

        A pod seen for the first time has an unknown past, unless it has just begun to serve or its
        process began since the last collection: then it is followed from zero.
        """
        followed = self._followed.get(sample.pod)
        if followed is not None and sample.at_s - followed.base.at_s <= self._remembered_s:
            followed.missed = max(followed.missed, self._collection - followed.seen_in - 1)
            followed.seen_in = self._collection
            return followed
        base = sample
        if entry is not None and entry.at_s < sample.at_s:
            # Its latencies so far are those of warm-up requests and a cold engine.
            base = replace(_zero(sample, entry.at_s), ttft=None, itl=None)
        elif self._stepped_at_s is not None and self._began_since(sample):
            base = _zero(sample, self._stepped_at_s)
        missed = entry.missed if entry is not None else 0
        followed = _Followed(base, self._collection, missed=missed)
        self._followed[sample.pod] = followed
        return None if base is sample else followed

    def _began_since(self, sample: PodSample) -> bool:
        """Whether the process began after the last collection and before its sample."""
        started_at_s, stepped_at_s = sample.started_at_s, self._stepped_at_s
        if started_at_s is None or stepped_at_s is None:
            return False
        return stepped_at_s <= started_at_s < sample.at_s

    def _forget(self, present: int) -> None:
        """Let go of pods that were not seen for long; all are bounded by ``PODS_MAX``."""
        if len(self._followed) == present or self._stepped_at_s is None:
            return
        horizon_s = self._stepped_at_s - self._remembered_s
        kept = {
            pod: followed
            for pod, followed in self._followed.items()
            if followed.base.at_s >= horizon_s
        }
        if len(kept) > PODS_MAX:
            newest = sorted(kept, key=lambda pod: kept[pod].base.at_s, reverse=True)[:PODS_MAX]
            kept = {pod: kept[pod] for pod in newest}
        self._followed = kept

    def _summed(self, made: Sequence["_PodDelta"]) -> Deltas:
        present = [delta.interval_s for delta in made if not delta.away]
        usual_s = median(present or [delta.interval_s for delta in made])
        shares = [usual_s / delta.interval_s if delta.away else 1.0 for delta in made]
        balance = sum(share * delta.arrived for share, delta in zip(shares, made, strict=True))
        # Gauge and counter of one page may belong to neighbouring engine steps, so that a balance
        # may fall below zero.  The next one makes up for it; later ones do not, or requests that
        # were dropped uncounted would hide as many new ones.
        arrived, self._carried = balance + self._carried, min(balance, 0.0)
        return Deltas(
            pods=len(made),
            interval_s=usual_s,
            replica_s=sum(share * delta.lived_s for share, delta in zip(shares, made, strict=True)),
            oldest_at_s=min(delta.at_s for delta in made),
            newest_at_s=max(delta.at_s for delta in made),
            arrived=max(arrived, 0.0),
            counters=_counters(shares, made),
            ttft=tuple(delta.ttft for delta in made if delta.ttft is not None),
            itl=tuple(delta.itl for delta in made if delta.itl is not None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PodDelta:
    """One pod's part of a round; ``grown`` is in the order of ``_COUNTERS``.

    ``lived_s`` is how much of the interval the process has seen; ``away`` says that the pod was
    missing for long within it.
    """

    away: bool
    at_s: float
    interval_s: float
    lived_s: float
    arrived: float
    grown: tuple[float | None, ...]
    ttft: Histogram | None
    itl: Histogram | None


def _advanced(followed: _Followed, sample: PodSample) -> _PodDelta:
    """The pod's part of the round; it is followed from ``sample`` on."""
    before, after = followed.base, sample
    if _restarted(before, sample):
        before = _zero(sample, before.at_s)
        followed.doubts = 0
    else:
        fell, after = _at_least(before, sample)
        followed.doubts = followed.doubts + 1 if fell else 0
        if followed.doubts >= _DOUBTS_MAX:
            before, after, followed.doubts = replace(sample, at_s=before.at_s), sample, 0
    away, followed.missed = followed.missed > _CATCH_UP_MISSES, 0
    followed.base = after
    return _delta(before, after, away=away)


def _restarted(before: PodSample, after: PodSample) -> bool:
    """Whether another process answers: its start moved or, where that is not told, counters fell.

    With the same start a fall is a page that was cut off at a line's end, or one of two Prometheus
    servers that lags behind the other: see ``_at_least``.
    """
    if before.started_at_s is not None and after.started_at_s is not None:
        return abs(after.started_at_s - before.started_at_s) > _RESTART_MOVES_S
    return any(
        now is not None and then is not None and now < then
        for then, now in zip(_counters_of(before), _counters_of(after), strict=True)
    )


class _Monotone(NamedTuple):
    """A sample whose counters are not lower than before, and whether any was."""

    fell: bool
    sample: PodSample


def _at_least(before: PodSample, after: PodSample) -> _Monotone:
    """``after`` with counters that did not fall; what is missing comes with the next sample."""
    fell = False
    higher: dict[str, Any] = {}
    for name, then, now in zip(_COUNTERS, _counters_of(before), _counters_of(after), strict=True):
        if then is not None and (now is None or now < then):
            higher[name] = then
            fell = fell or now is not None
    return _Monotone(fell, replace(after, **higher) if higher else after)


def _zero(sample: PodSample, at_s: float) -> PodSample:
    """A sample of the same process before it did anything."""
    zeros: dict[str, Any] = {name: 0.0 for name in _COUNTERS if getattr(sample, name) is not None}
    return PodSample(
        pod=sample.pod,
        at_s=at_s,
        model_names=sample.model_names,
        running=0.0,
        waiting=0.0,
        ttft=_emptied(sample.ttft),
        itl=_emptied(sample.itl),
        **zeros,
    )


def _emptied(histogram: Histogram | None) -> Histogram | None:
    if histogram is None:
        return None
    return Histogram(bounds_s=histogram.bounds_s, counts=(0.0,) * len(histogram.counts))


def _delta(before: PodSample, after: PodSample, *, away: bool) -> _PodDelta:
    """Growth between two samples; unknown for a counter that one of them does not have."""
    grown = tuple(
        None if now is None or then is None else max(now - then, 0.0)
        for then, now in zip(_counters_of(before), _counters_of(after), strict=True)
    )
    finished, rejected = grown[0] or 0.0, grown[1] or 0.0
    return _PodDelta(
        away=away,
        at_s=after.at_s,
        interval_s=max(after.at_s - before.at_s, _INTERVAL_MIN_S),
        lived_s=max(after.at_s - _began_s(before, after), _INTERVAL_MIN_S),
        arrived=finished + rejected + _in_flight(after) - _in_flight(before),
        grown=grown,
        ttft=_between(before.ttft, after.ttft),
        itl=_between(before.itl, after.itl),
    )


def _began_s(before: PodSample, after: PodSample) -> float:
    """When the process began within the interval, else the interval's begin.

    A start in the future is on another clock (a simulation's) and says nothing.
    """
    started_at_s = after.started_at_s
    if started_at_s is None or not before.at_s < started_at_s < after.at_s:
        return before.at_s
    return started_at_s


def _in_flight(sample: PodSample) -> float:
    return (sample.running or 0.0) + (sample.waiting or 0.0) + (sample.deferred or 0.0)


def _between(before: Histogram | None, after: Histogram | None) -> Histogram | None:
    """Observations per bucket between two samples; None where they cannot be compared."""
    if before is None or after is None or before.bounds_s != after.bounds_s:
        return None
    if before.counts == after.counts:
        return Histogram(bounds_s=after.bounds_s, counts=(0.0,) * len(after.counts))
    rises = list(map(sub, after.counts, before.counts))
    buckets = (rises[0], *map(sub, rises[1:], rises))
    if min(buckets) < 0.0:
        return None
    return Histogram(bounds_s=after.bounds_s, counts=buckets)


def _counters(shares: Sequence[float], made: Sequence[_PodDelta]) -> dict[str, float]:
    """Growth by name, of the counters that any pod has."""
    sums: dict[str, float] = {}
    for place, name in enumerate(_COUNTERS):
        grown = [
            share * value
            for share, delta in zip(shares, made, strict=True)
            if (value := delta.grown[place]) is not None
        ]
        if grown:
            sums[name] = sum(grown)
    return sums
