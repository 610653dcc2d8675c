"""A Prometheus-compatible API as a source of samples.

One collection is: ask for the server's time (which also finds out whether it lives), then one
grouped query for each signal, all evaluated at one instant, then the samples of every target are
put together.  The number of queries does not depend on the number of targets.

Ages are taken on the server's clock alone, so that a difference of clocks cannot make old data
look new.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from scaler.core.model import Cause, NoData
from scaler.signals.faults import SourceError
from scaler.signals.prometheus_answer import Track, open_answer, reading
from scaler.signals.prometheus_assembly import Answers, assemble
from scaler.signals.prometheus_buckets import read_buckets
from scaler.signals.prometheus_http import PrometheusHttp, Reply
from scaler.signals.prometheus_queries import Queries, RuleProbe, queries
from scaler.signals.prometheus_rows import read_all, read_engine_rows, read_gpu_rows
from scaler.signals.promql import Scope
from scaler.signals.readers import Readers
from scaler.signals.samples import TargetRef, TargetSamples
from scaler.signals.settings import PrometheusSettings

T = TypeVar("T")

_POINTS_PER_CHUNK = 5000  # Prometheus refuses more than 11,000 points a series


class PrometheusSource:
    """Collects from one API; see ``PrometheusSettings``."""

    def __init__(self, settings: PrometheusSettings, readers: Readers) -> None:
        self.name = settings.name
        self._settings = settings
        self._readers = readers
        self._http = PrometheusHttp(settings)
        self._failures = 0  # collections in a row in which the API was not reached
        self._rules = RuleProbe(settings)

    @property
    def attempts(self) -> int:
        """Requests made so far, repeated ones included."""
        return self._http.attempts

    def serves(self, target: TargetRef) -> bool:
        """Whether this source is asked about the target."""
        return self._settings.serves(target)

    async def collect(
        self, targets: Sequence[TargetRef], now_s: float
    ) -> Mapping[str, TargetSamples]:
        """Samples by key for every target, within ``timeout_s``; faults are in the result."""
        until_s = asyncio.get_running_loop().time() + self._settings.timeout_s
        served = [target for target in targets if self.serves(target) and target.namespace]
        result = {
            target.key: TargetSamples(target=target, at_s=now_s, failure=_unserved(target))
            for target in targets
            if not (self.serves(target) and target.namespace)
        }
        if served:
            result.update(await self._collect(served, now_s, until_s))
        return result

    async def close(self) -> None:
        """Close connections; threads end as their requests do."""
        await self._http.close()

    async def server_now_s(self) -> float:
        """The server's clock, within ``timeout_s``.

        Raises:
            SourceError: when it cannot be had.
        """
        until_s = asyncio.get_running_loop().time() + self._settings.timeout_s
        return await self._server_time(until_s)

    async def query_range(
        self, query: str, *, start_s: float, end_s: float, step_s: float, timeout_s: float = 60.0
    ) -> list[Track]:
        """History of an expression of ours, fetched in chunks and joined by series.

        Times are on the server's clock; ``end_s`` is included where a step falls on it.

        Raises:
            SourceError: when a chunk cannot be had; nothing partial is returned.
        """
        assert step_s > 0.0, "a step takes time"
        until_s = asyncio.get_running_loop().time() + timeout_s
        joined: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        chunk_start_s = start_s
        while chunk_start_s <= end_s:
            chunk_end_s = min(chunk_start_s + (_POINTS_PER_CHUNK - 1) * step_s, end_s)
            form = {
                "query": query,
                "start": f"{chunk_start_s:.3f}",
                "end": f"{chunk_end_s:.3f}",
                "step": f"{step_s:.3f}",
            }
            for track in await self._http.post(
                "/api/v1/query_range", form, _read_tracks, until_s=until_s
            ):
                joined.setdefault(tuple(track.labels.items()), []).extend(track.points)
            chunk_start_s = chunk_end_s + step_s
        return [Track(dict(labels), tuple(points)) for labels, points in joined.items()]

    async def _collect(
        self, served: Sequence[TargetRef], now_s: float, until_s: float
    ) -> Mapping[str, TargetSamples]:
        try:
            server_now_s = await self._server_time(until_s)
        except SourceError as fault:
            self._failures += 1
            return _all_failed(served, now_s, fault.no_data())
        self._failures = 0
        at_s = server_now_s - self._settings.settle_s
        scope = _scope(served, self._settings)
        await self._look_for_rules(scope, at_s, until_s)
        asked = queries(served, scope, self._settings, self._readers, recorded=self._rules.found)
        answers = await self._ask_all(asked, at_s, until_s)
        self._rules.remember(answers.queue)
        work = partial(
            assemble,
            served,
            answers,
            self._settings,
            self._readers,
            now_s=now_s,
            ahead_s=server_now_s - now_s,
        )
        return await self._http.run(work)

    async def _server_time(self, until_s: float) -> float:
        """The server's clock; the one request that a dead or hung server costs a collection."""
        attempts = 1 if self._failures >= self._settings.failures_to_open else 2
        cells, _ = await self._http.post(
            "/api/v1/query", {"query": "time()"}, read_all, until_s=until_s, attempts=attempts
        )
        if len(cells) != 1:
            raise SourceError(Cause.MALFORMED, f"time() has {len(cells)} values, must have one")
        return cells[0].value

    async def _look_for_rules(self, scope: Scope, at_s: float, until_s: float) -> None:
        loop_s = asyncio.get_running_loop().time()
        if self._rules.due(loop_s):
            probed = await self._ask(self._rules.query(scope), read_all, at_s, until_s)
            self._rules.learn(() if isinstance(probed, NoData) else probed[0], loop_s)

    async def _ask_all(self, asked: Queries, at_s: float, until_s: float) -> Answers:
        """Every query, as many at a time as the connection allows."""
        settings = self._settings
        read_rows = partial(
            read_engine_rows,
            namespace_label=settings.namespace_label,
            pod_label=settings.pod_label,
        )
        label = "namespace" if asked.recorded else settings.namespace_label
        read_histogram = partial(read_buckets, namespace_label=label)

        async with asyncio.TaskGroup() as group:

            def ask(query: str, read: Callable[[Reply], T]) -> "asyncio.Task[T | NoData]":
                return group.create_task(self._ask(query, read, at_s, until_s))

            queue, work, kv_cache, info, times = (
                ask(query, read_rows)
                for query in (asked.queue, asked.work, asked.kv_cache, asked.info, asked.times)
            )
            ttft, itl = (ask(query, read_histogram) for query in (asked.ttft, asked.itl))
            gpu, gpu_times = (ask(query, read_gpu_rows) for query in (asked.gpu, asked.gpu_times))
            gateways = {query: ask(query, read_all) for query in asked.gateways}
        return Answers(
            queue=queue.result(),
            work=work.result(),
            kv_cache=kv_cache.result(),
            info=info.result(),
            times=times.result(),
            ttft=ttft.result(),
            itl=itl.result(),
            gpu=gpu.result(),
            gpu_times=gpu_times.result(),
            gateways={query: answer.result() for query, answer in gateways.items()},
        )

    async def _ask(
        self, query: str, read: Callable[[Reply], T], at_s: float, until_s: float
    ) -> T | NoData:
        """One grouped query: what its reader makes of it, or why there is nothing."""
        if not query:
            return NoData(cause=Cause.UNSUPPORTED, detail="not asked of this source")
        form = {
            "query": query,
            "time": f"{at_s:.3f}",
            "timeout": f"{self._settings.attempt_timeout_s:.3f}",
        }
        try:
            return await self._http.post("/api/v1/query", form, read, until_s=until_s)
        except SourceError as fault:
            return fault.no_data()


def _scope(served: Sequence[TargetRef], settings: PrometheusSettings) -> Scope:
    return Scope(
        namespaces=tuple(sorted({target.namespace for target in served})),
        namespace_label=settings.namespace_label,
        pod_label=settings.pod_label,
    )


def _read_tracks(reply: Reply) -> list[Track]:
    with reading():
        return list(open_answer(reply).tracks())


def _all_failed(
    targets: Sequence[TargetRef], now_s: float, failure: NoData
) -> dict[str, TargetSamples]:
    return {
        target.key: TargetSamples(target=target, at_s=now_s, failure=failure) for target in targets
    }


def _unserved(target: TargetRef) -> NoData:
    if not target.namespace:
        detail = "a target without a namespace is not asked for: the query would not be pinned"
    else:
        detail = f"this source does not serve namespace {target.namespace!r}"
    return NoData(cause=Cause.UNSUPPORTED, detail=detail)
