"""What the daemon would see of the simulated fleet: pages as scraped -> Observation.

The meaning of every field is that of the daemon's own signals (a test holds the two together):
deltas between two scrapes of a replica, all counts of a replica that has just begun to serve as
news, its first latencies left out, draining replicas not looked at.  Counters never reset here,
because a replica that crashes does so before it serves.

A run observes some ten thousand times.  Most of the time the replicas are those of the scrape
before; then sums over replicas are all that is needed, and nothing is looked up replica by replica.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from scaler.core.config import FreshnessConfig
from scaler.core.model import (
    Cause,
    Gateway,
    Gpu,
    NoData,
    Observation,
    Replicas,
    Work,
    make_gpu,
    make_kv_cache,
    make_observation,
    make_queue,
    make_work,
)
from simulations.engine_layout import Ints
from simulations.fleet_counters import FleetCounters
from simulations.pages import BUCKETS, COUNTED, MOST_BLOCKS, PLACE, Latencies, Pages, Window
from simulations.replica import ReplicaModel

_INTERVAL_MIN_S = 1e-3
_GAUGES = 3  # running, waiting and blocks in use come first
_BALANCE = [
    PLACE[name]
    for name in (
        "requests_running", "requests_waiting", "finished_stop", "finished_abort",
        "admission_rejections",
    )
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """What happened between two scrapes, summed over the replicas seen in the later one."""

    replicas: int
    interval_s: float
    replica_s: float
    grown: Sequence[int]  # in the order of COUNTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """Replicas that counted last on one page."""

    page: Pages
    uids: tuple[int, ...]


class Observer:
    """Scrapes and collections in, observations out; one for one target."""

    def __init__(
        self, model: ReplicaModel, freshness: FreshnessConfig, *, gateway: bool = False
    ) -> None:
        """``gateway`` says whether the target's profile asks for a gateway's counter."""
        self._model = model
        self._freshness = freshness
        self._has_gateway = gateway
        self._scraped: Pages | None = None
        self._base: dict[int, Pages] = {}  # the last scrape that counted, by replica
        self._level: _Level | None = None  # in place of it where that is one for all
        self._base_at_s: float | None = None
        self._last_tick_s: float | None = None
        self._attended: Sequence[int] = ()  # ready replicas that are all in _past
        self._past: set[int] = set()  # replicas whose counting has begun
        self._entered_at_s: dict[int, float] = {}
        self._last_work: Work | None = None
        self._last_work_at_s = 0.0
        self._window = Window()
        self._histograms = False
        self._gpu_scraped: tuple[float, Mapping[int, float]] | None = None
        self._front: int | None = None  # requests that the gateway had counted as of the scrape
        # A run begins before its first request: the counter appears with it, and counts it.
        self._front_before: tuple[int, float] = (0, 0.0)

    def scrape(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None = None) -> None:
        """Prometheus reads the pages of all replicas, the DCGM exporter's (by uid), a gateway's."""
        self._scraped = Pages(counters)
        self._front = counters.gateway_requests
        if gpu_ratio is not None:
            self._gpu_scraped = (counters.at_s, gpu_ratio)

    def observe(
        self,
        replicas: Replicas,
        ready: Sequence[int],
        now_s: float,
        failure: NoData | None = None,
    ) -> Observation:
        """The observation at ``now_s``; ``ready`` are the uids of the replicas that are ready.

        ``failure`` is why the queries about the engines come to nothing, None where they do not.
        """
        ready = tuple(ready)
        self._attend(ready, now_s)
        pages = self._scraped
        missing = failure or self._missing(pages, ready, replicas, now_s)
        having: tuple[int, ...] = ()
        if pages is not None and missing is None:
            having = ready
            if pages.uids != ready:
                having = tuple([uid for uid in ready if uid in pages.rows])
                missing = self._too_few(having, ready, now_s)
        self._last_tick_s = now_s
        down = failure is not None and failure.cause is Cause.UNREACHABLE
        gpu = failure if down and failure is not None else self._gpu(ready, now_s)
        gateway = failure if down and failure is not None else self._gateway(now_s)
        if pages is None or missing is not None:
            gap = missing or NoData(cause=Cause.NEVER, detail="not scraped yet")
            return self._seen(replicas, gap, gpu, gateway)
        return self._of_pages(pages, having, replicas, ready, gpu, gateway)

    def _of_pages(  # noqa: PLR0917 - all of it is what was seen; nothing could be mistaken
        self,
        pages: Pages,
        having: tuple[int, ...],
        replicas: Replicas,
        ready: tuple[int, ...],
        gpu: Gpu | NoData,
        gateway: Gateway | NoData,
    ) -> Observation:
        now_s = replicas.seen_at_s
        coverage = len(having) / len(ready)
        sums = pages.sums(having)
        work = self._work(pages, having, ready, now_s)
        usable = self._model.kv_blocks - 1
        running, waiting, blocks = sums[:_GAUGES].tolist()
        latencies = self._latencies(pages.at_s, coverage, now_s)
        return make_observation(
            seen_at_s=now_s,
            replicas=replicas,
            queue=make_queue(
                seen_at_s=pages.at_s,
                coverage_ratio=coverage,
                requests_running=float(running),
                requests_waiting=float(waiting),
            ),
            kv_cache=make_kv_cache(
                seen_at_s=pages.at_s,
                coverage_ratio=coverage,
                usage_mean_ratio=blocks / (len(having) * usable),
                usage_max_ratio=int(sums[MOST_BLOCKS]) / usable,
                capacity_tokens=float(self._model.kv_capacity_tokens),
            ),
            ttft=latencies if isinstance(latencies, NoData) else latencies.ttft,
            itl=latencies if isinstance(latencies, NoData) else latencies.itl,
            work=work,
            gpu=gpu,
            gateway=gateway,
            capacity_key=self._model.name,
        )

    def _seen(
        self, replicas: Replicas, gap: NoData, gpu: Gpu | NoData, gateway: Gateway | NoData
    ) -> Observation:
        """Only what Kubernetes, DCGM and the gateway show."""
        return make_observation(
            seen_at_s=replicas.seen_at_s,
            replicas=replicas,
            queue=gap,
            kv_cache=gap,
            ttft=gap,
            itl=gap,
            work=gap,
            gpu=gpu,
            gateway=gateway,
            capacity_key=self._model.name,
        )

    # Which replicas should answer

    def _attend(self, ready: tuple[int, ...], now_s: float) -> None:
        """Remember since when a replica may have served without having been seen."""
        if self._last_tick_s is None:
            self._past = set(ready)  # they may have a past: counting begins with their first page
            return
        if ready == self._attended:
            return
        unseen = [uid for uid in ready if uid not in self._past]
        for uid in unseen:
            self._entered_at_s.setdefault(uid, self._last_tick_s)
        if not unseen:
            self._attended = ready

    def _is_awaited(self, uid: int, now_s: float) -> bool:
        entered_at_s = self._entered_at_s.get(uid)
        return entered_at_s is not None and entered_at_s >= now_s - self._freshness.stale_after_s

    def _missing(
        self, pages: Pages | None, ready: tuple[int, ...], replicas: Replicas, now_s: float
    ) -> NoData | None:
        """Why nothing of the engines can be used; None when something can."""
        if not ready:
            cause = Cause.REFUSED if replicas.current else Cause.EMPTY
            return NoData(cause=cause, detail="no replica is ready")
        if pages is None or not (pages.uids == ready or any(uid in pages.rows for uid in ready)):
            return NoData(cause=Cause.EMPTY, detail="no ready replica was scraped yet")
        age_s = now_s - pages.at_s
        if age_s > self._freshness.stale_after_s:
            return NoData(cause=Cause.STALE, detail=f"the newest sample is {age_s:.0f} s old")
        return None

    def _too_few(
        self, having: tuple[int, ...], ready: tuple[int, ...], now_s: float
    ) -> NoData | None:
        awaited = sum(self._is_awaited(uid, now_s) for uid in set(ready).difference(having))
        due = len(ready) - awaited
        if len(having) >= self._freshness.coverage_min_ratio * due:
            return None
        detail = f"{len(having)} of {len(ready)} ready replicas answered"
        return NoData(cause=Cause.PARTIAL, detail=detail)

    # Work and latencies: differences between scrapes

    def _work(
        self, pages: Pages, having: tuple[int, ...], ready: tuple[int, ...], now_s: float
    ) -> Work | NoData:
        if self._base_at_s is None or pages.at_s > self._base_at_s:
            found = self._round(pages, having, ready, now_s)
            if found is not None:
                self._last_work = _work_of(found, min(found.replicas / len(ready), 1.0), pages.at_s)
                self._last_work_at_s = now_s
        last = self._last_work
        if last is None:
            return NoData(cause=Cause.NEVER, detail="two samples are needed for a rate")
        age_s = now_s - self._last_work_at_s
        if age_s > self._freshness.stale_after_s:
            return NoData(cause=Cause.STALE, detail=f"the last rate is {age_s:.0f} s old")
        return last

    def _round(
        self, pages: Pages, having: tuple[int, ...], ready: tuple[int, ...], now_s: float
    ) -> _Round | None:
        """End a round with ``pages``; None if no replica can be compared.

        A ready replica that did not answer keeps the page that counted last: when it answers again,
        it brings all that it has done since.
        """
        if self._level is not None and having == self._level.uids:
            return self._level_round(self._level.page, pages, having, now_s)
        base = self._base
        if self._level is not None:
            base = dict.fromkeys(self._level.uids, self._level.page)
        known = tuple([uid for uid in having if uid in base])
        news = tuple([uid for uid in having if uid not in base])
        fresh = tuple([uid for uid in news if self._is_fresh(uid, pages)])
        grown = pages.sums((*known, *fresh))[COUNTED]
        intervals = [pages.at_s - self._entered_at_s.pop(uid) for uid in fresh]
        if known:
            counts = pages.sums(known)[BUCKETS]
            for before, uids in _by_page(base, known):
                then = before.sums(uids)
                grown = grown - then[COUNTED]
                intervals += [pages.at_s - before.at_s] * len(uids)
                counts = counts - then[BUCKETS]
            self._window.add(counts, now_s)
            self._histograms = True
        silent = {uid: base[uid] for uid in set(ready).difference(having) if uid in base}
        self._base = silent | dict.fromkeys(having, pages)
        self._level = None if silent else _Level(page=pages, uids=having)
        self._base_at_s = pages.at_s
        self._past.update(having)
        if not intervals:
            return None
        return _Round(
            replicas=len(intervals),
            interval_s=max(median(intervals), _INTERVAL_MIN_S),
            replica_s=sum(intervals),
            grown=grown.tolist(),
        )

    def _level_round(
        self, before: Pages, pages: Pages, having: tuple[int, ...], now_s: float
    ) -> _Round:
        """The same for replicas that all counted last on one page, as they nearly always did."""
        grown: Ints = pages.sums(having) - before.sums(having)
        self._window.add(grown[BUCKETS], now_s)
        self._histograms = True
        self._level = _Level(page=pages, uids=having)
        self._base_at_s = pages.at_s
        span_s = pages.at_s - before.at_s
        return _Round(
            replicas=len(having),
            interval_s=max(span_s, _INTERVAL_MIN_S),
            replica_s=span_s * len(having),
            grown=grown[COUNTED].tolist(),
        )

    def _is_fresh(self, uid: int, pages: Pages) -> bool:
        """Whether this is a replica's first page: all it has counted is news."""
        return uid not in self._past and self._entered_at_s.get(uid, pages.at_s) < pages.at_s

    def _latencies(
        self, seen_at_s: float, coverage_ratio: float, now_s: float
    ) -> Latencies | NoData:
        if not self._histograms:
            return NoData(cause=Cause.NEVER, detail="two samples are needed for a histogram")
        return self._window.latencies(
            seen_at_s=seen_at_s, coverage_ratio=coverage_ratio, now_s=now_s
        )

    # Beside the engines

    def _gpu(self, ready: tuple[int, ...], now_s: float) -> Gpu | NoData:
        """Over the ready replicas; one that DCGM has not seen at work has done none."""
        if not ready or self._gpu_scraped is None:
            return NoData(cause=Cause.EMPTY, detail="no ready replica whose GPUs could be seen")
        at_s, ratios = self._gpu_scraped
        age_s = now_s - at_s
        if age_s > self._freshness.gpu_stale_after_s:
            return NoData(cause=Cause.STALE, detail=f"the newest DCGM sample is {age_s:.0f} s old")
        uses = [ratios.get(uid, 0.0) for uid in ready]
        return make_gpu(
            seen_at_s=at_s,
            coverage_ratio=1.0,
            utilisation_mean_ratio=sum(uses) / len(uses),
            utilisation_max_ratio=max(uses),
        )

    def _gateway(self, now_s: float) -> Gateway | NoData:
        """Requests that came to the gateway since the last look."""
        if not self._has_gateway:
            return NoData(cause=Cause.UNSUPPORTED, detail="no gateway query in the profile")
        if self._front is None:
            return NoData(cause=Cause.NEVER, detail="not scraped yet")
        (count, at_s), self._front_before = self._front_before, (self._front, now_s)
        return Gateway(
            seen_at_s=now_s,
            interval_s=now_s - at_s,
            requests_arrived=float(self._front - count),
        )


def _by_page(
    base: Mapping[int, Pages], uids: tuple[int, ...]
) -> Iterable[tuple[Pages, tuple[int, ...]]]:
    """The replicas by the page that counted last: all on one, but for those that did not answer."""
    first = base[uids[0]]
    if all(base[uid] is first for uid in uids):
        return ((first, uids),)
    pages = dict.fromkeys(base[uid] for uid in uids)
    return [(page, tuple(uid for uid in uids if base[uid] is page)) for page in pages]


def _work_of(found: _Round, coverage_ratio: float, seen_at_s: float) -> Work:
    grown = found.grown
    at = PLACE
    cached = min(grown[at["prompt_tokens_cached"]], grown[at["prompt_tokens"]])
    return make_work(
        seen_at_s=seen_at_s,
        coverage_ratio=coverage_ratio,
        interval_s=found.interval_s,
        replica_s=found.replica_s,
        requests_arrived=float(max(sum([grown[place] for place in _BALANCE]), 0)),
        requests_finished=float(grown[at["finished_stop"]] + grown[at["finished_abort"]]),
        requests_rejected=float(grown[at["admission_rejections"]]),
        prompt_tokens=float(grown[at["prompt_tokens"]] - cached),
        cached_tokens=float(cached),
        output_tokens=float(grown[at["generation_tokens"]]),
        preemptions=float(grown[at["preemptions"]]),
        engine_steps=float(grown[at["iterations"]]),
        finished_prompt_tokens=float(grown[at["finished_prompt_tokens"]]),
        finished_output_tokens=float(grown[at["finished_output_tokens"]]),
    )
