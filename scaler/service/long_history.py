"""The long past of the demand, read back from our own exported series after a start.

A daemon without a checkpoint knows nothing of yesterday, but Prometheus does: each target's
``demand_reference_work`` is what its forecaster was fed.  It is asked for after the first answer
of a target, never before, over a connection that no collection uses, one request at a time; the
forecast is primed in a thread.  What goes wrong changes nothing, and is said once.

The loop's task owns the state of a target.  ``take`` runs in that task, between two ticks, so a
primed forecast is put in place there and the next decision continues from it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog

from scaler.core.capacity import unit_cost_s
from scaler.core.config import ForecasterName, PolicyConfig
from scaler.core.forecast import FORECASTERS, ForecastState, prime
from scaler.core.forecast_season import DAY_S, DAY_SLOTS, WEEK_S, WEEK_SLOTS
from scaler.core.model import NoData
from scaler.service.board import TriggerKey
from scaler.service.clock import Clock
from scaler.service.loop import TickReport
from scaler.service.metrics_table import PREFIX, REFERENCE_WORK, TARGET_LABELS, reference_cost_s
from scaler.service.registry import Entry
from scaler.signals.faults import SourceError
from scaler.signals.prometheus import PrometheusSource
from scaler.signals.prometheus_answer import Track
from scaler.signals.promql import matcher
from scaler.signals.samples import TargetRef

log = structlog.get_logger(__name__)

SERIES = PREFIX + REFERENCE_WORK
STEP_S = 60.0
BATCH = 10  # targets of one query: 14 days of them are 200,000 points, some 25 MB for a moment
CHUNK_S = DAY_S / 2.0  # of one request: its JSON is decoded without a pause, 720 points a target
DEADLINE_S = 120.0  # for all chunks of one query
RETRY_S = 600.0
TRIES_MAX = 6  # a Prometheus that starts together with us gets an hour
WORK_MAX = 1e6  # replicas' worth; a larger value is none of ours
_Points: TypeAlias = list[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A target whose past is asked for; ``entry`` is looked at again, never written, here.

    ``unit`` is what its forecaster counts in, over the shipped prices of the exported past: at the
    mix of now, which matters only where step times other than the shipped are configured.
    """

    entry: Entry
    target: TargetRef
    policy: PolicyConfig
    lead_s: float
    unit: float
    tries: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """The values of ``TARGET_LABELS`` under which its series is exported."""
        return self.target.namespace, self.entry.label, self.entry.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A forecast primed from the past, and how much of it there was."""

    state: ForecastState
    points: int


class LongHistory:
    """Primes the forecasts of targets that have known less than a day; a sink of the loop.

    ``sources`` are used by nothing else, and closed with it.  Without any, nothing is ever done.
    """

    def __init__(
        self,
        sources: Sequence[PrometheusSource],
        clock: Clock,
        *,
        read_days: float,
        leads: Callable[[], bool] = lambda: True,
        retry_s: float = RETRY_S,
    ) -> None:
        self._sources = tuple(sources)
        self._clock = clock
        self._read_s = read_days * DAY_S
        self._leads = leads
        self._retry_s = retry_s
        self._seen: set[TriggerKey] = set()
        self._waiting: list[Wanted] = []
        self._failed: list[Wanted] = []
        self._recalled: dict[TriggerKey, Recalled] = {}
        self._wake = asyncio.Event()

    def take(self, report: TickReport) -> None:
        """After a tick was published: put primed forecasts in place, note targets that are new."""
        if not self._sources:
            return
        for key in report.dropped:
            self._seen.discard(key)
            self._recalled.pop(key, None)
        for entry in report.entries:
            if entry.key in self._recalled:
                _put(entry, self._recalled.pop(entry.key))
            elif entry.key not in self._seen and (wanted := _wanted(entry, report.at_s)):
                self._seen.add(entry.key)
                self._waiting.append(wanted)
                self._wake.set()

    async def run(self) -> None:
        """Read the past of each new target in turn, for ever; a defect of ours is logged."""
        while self._sources:
            try:
                async with asyncio.timeout(self._retry_s if self._failed else None):
                    await self._wake.wait()
            except TimeoutError:
                self._waiting += self._failed
                self._failed = []
            self._wake.clear()
            await self.read()

    async def read(self) -> None:
        """Read the past of every target that waits for it, a batch at a time."""
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), BATCH):
            await asyncio.sleep(0)
            await self._guarded(waiting[first : first + BATCH])

    async def close(self) -> None:
        """Close the connections."""
        for source in self._sources:
            await source.close()

    async def _guarded(self, batch: Sequence[Wanted]) -> None:
        try:
            await self._recall(batch)
        except Exception:  # a defect met in one batch must not end the task: others still wait
            log.exception("long history not read", targets=len(batch))

    async def _recall(self, batch: Sequence[Wanted]) -> None:
        """Ask one source after the other for what the ones before it did not have."""
        if not self._leads():  # the daemon that decides now does it, and we when we decide again
            self._seen -= {one.entry.key for one in batch}
            return
        missing = [one for one in batch if held_s(one.entry.state.forecast) < DAY_S]
        reasons: list[str] = []
        unreached: set[TriggerKey] = set()
        for source in self._sources:
            asked = [one for one in missing if source.serves(one.target)]
            if not asked:
                continue
            try:
                await self._read(source, asked)
            except SourceError as fault:
                reasons.append(f"{source.name}: {fault}")
                unreached |= {one.entry.key for one in asked}
            missing = [one for one in missing if one.entry.key not in self._recalled]
        if missing:
            self._tell(missing, reasons)
        self._failed += [
            replace(one, tries=one.tries + 1)
            for one in missing
            if one.entry.key in unreached and one.tries + 1 < TRIES_MAX
        ]

    def _tell(self, missing: Sequence[Wanted], reasons: Sequence[str]) -> None:
        """Say once that these targets begin without a past."""
        names = [f"{one.target.namespace}/{one.entry.label}" for one in missing if one.tries == 0]
        if names:
            reason = "; ".join(reasons) or f"no values of {SERIES} in any source"
            log.info("forecast begins without long history", targets=names, reason=reason)

    async def _read(self, source: PrometheusSource, asked: Sequence[Wanted]) -> None:
        """The past of all of ``asked``, then one forecast after the other primed in a thread.

        Raises:
            SourceError: when the source does not answer, or not in its time.
        """
        server_s = await source.server_now_s()
        ahead_s = server_s - self._clock.now_s()
        found = await self._fetch(source, asked, server_s)
        for one in asked:
            points = found.get(one.labels, [])
            recalled = await asyncio.to_thread(
                _primed, points, one, ahead_s=ahead_s, until_s=server_s
            )
            if recalled is not None and one.entry.key in self._seen:  # not dropped meanwhile
                self._recalled[one.entry.key] = recalled

    async def _fetch(
        self, source: PrometheusSource, asked: Sequence[Wanted], until_s: float
    ) -> Mapping[tuple[str, ...], _Points]:
        """Points by the labels of the target, a chunk after the other, all within ``DEADLINE_S``.

        Raises:
            SourceError: when a chunk cannot be had.
        """
        loop, query = asyncio.get_running_loop(), _query(asked)
        deadline_s = loop.time() + DEADLINE_S
        found: dict[tuple[str, ...], _Points] = {}
        end_s = until_s - until_s % STEP_S
        start_s = end_s - self._read_s // STEP_S * STEP_S
        while start_s <= end_s:
            last_s = min(start_s + CHUNK_S - STEP_S, end_s)
            for track in await source.query_range(
                query,
                start_s=start_s,
                end_s=last_s,
                step_s=STEP_S,
                timeout_s=deadline_s - loop.time(),
            ):
                found.setdefault(_labels(track), []).extend(track.points)
            start_s = last_s + STEP_S
        return found


def held_s(state: ForecastState) -> float:
    """How much of a day or of a week the forecaster has seen: at most a week, in seconds."""
    if state.known is None:
        return 0.0
    day = sum(slot >= 0.0 for slot in state.known.day.slots) * DAY_S / DAY_SLOTS
    week = sum(slot >= 0.0 for slot in state.known.week.slots) * WEEK_S / WEEK_SLOTS
    return max(day, week)


def _wanted(entry: Entry, at_s: float) -> Wanted | None:
    """``entry`` as one to ask for, once it was decided from what was seen of its load."""
    decision, target = entry.decision, entry.target
    if decision is None or target is None or decision.at_s != at_s:
        return None
    demand, forecast = decision.demand, decision.forecast
    if demand is None or forecast is None or isinstance(decision.observation.work, NoData):
        return None
    if entry.policy.forecaster is ForecasterName.LAST:  # it has no use for a past
        return None
    unit_s = unit_cost_s(demand, entry.state.capacity, entry.policy)
    return Wanted(
        entry=entry,
        target=target,
        policy=entry.policy,
        lead_s=forecast.lead_s,
        unit=unit_s / reference_cost_s(demand),
    )


def _put(entry: Entry, recalled: Recalled) -> None:
    """Continue from the primed forecast, unless the live one has come to know as much."""
    held = held_s(recalled.state)
    if held <= held_s(entry.state.forecast):
        return
    entry.state = replace(entry.state, forecast=recalled.state)
    log.info(
        "forecast primed from long history",
        target=entry.label,
        namespace=entry.key.namespace,
        read_days=round(recalled.points * STEP_S / DAY_S, 2),
        known_days=round(held / DAY_S, 2),
    )


def _query(asked: Iterable[Wanted]) -> str:
    """Means of each minute; the last value where the series is scraped less often.

    Two daemons, or two Prometheus replicas, may have exported one target for a moment: ``max``.
    """
    pins = (
        matcher(label, values)
        for label, values in zip(
            TARGET_LABELS, zip(*(one.labels for one in asked), strict=True), strict=True
        )
    )
    series = f"{SERIES}{{{', '.join(pins)}}}"
    minute = f"avg_over_time({series}[{STEP_S:.0f}s]) or {series}"
    return f"max by ({', '.join(TARGET_LABELS)}) ({minute})"


def _labels(track: Track) -> tuple[str, ...]:
    return tuple(track.labels.get(label, "") for label in TARGET_LABELS)


def _primed(points: _Points, one: Wanted, *, ahead_s: float, until_s: float) -> Recalled | None:
    """The forecast after these points of the server's clock; None where there is nothing sound."""
    history = [
        (at_s - ahead_s, value * one.unit)
        for at_s, value in points
        if 0.0 <= value <= WORK_MAX and at_s <= until_s
    ]
    if not history:
        return None
    forecaster = FORECASTERS[one.policy.forecaster]
    state = prime(history, one.policy.forecast, forecaster=forecaster, lead_s=one.lead_s)
    return Recalled(state=state, points=len(history)) if held_s(state) > 0.0 else None
