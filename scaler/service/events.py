"""Kubernetes events: what an operator must know, where ``kubectl describe`` shows it.

An event is a courtesy.  ``emit`` never waits and never raises; the same reason for the same object
is written at most once in ``every_s``, with a count; the queue is bounded; a server that is away
costs events, nothing else.

Events are of core/v1, which every tool shows.  Permissions: ``create`` and ``patch`` on events in
the namespaces of the targets.
"""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import structlog

from scaler.service.clock import Clock
from scaler.signals.kube.client import KubeClient, KubeError

EVERY_S = 600.0
QUEUE_MAX = 512
SERIES_MAX = 4096  # objects times reasons that are remembered
ATTEMPTS_MAX = 3
RETRY_S = 2.0  # doubled after each attempt
MESSAGE_MAX_CHARS = 1024  # the API's limit
NAME_MAX_CHARS = 253 - 17  # of the object's name in the event's name, a suffix apart

_log = structlog.get_logger(__name__)


class EventReason(StrEnum):
    """Why an event is written; the strings are what operators filter by."""

    BLIND = "SignalsLost"
    RECOVERED = "SignalsRecovered"
    AT_MAX = "AtMaximumWithGrowingQueue"
    UNSCHEDULABLE = "ReplicasUnschedulable"
    FORECAST_DROPPED = "ForecastDropped"
    FORECAST_RESUMED = "ForecastResumed"
    MODE_CHANGED = "ModeChanged"
    BAD_METADATA = "TriggerMetadataInvalid"


WARNINGS = frozenset(
    {
        EventReason.BLIND,
        EventReason.AT_MAX,
        EventReason.UNSCHEDULABLE,
        EventReason.FORECAST_DROPPED,
        EventReason.BAD_METADATA,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object an event is about; ``kubectl describe`` finds its events by the uid."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(slots=True, kw_only=True)
class _Series:
    """What was said of one object for one reason."""

    subject: Subject
    reason: EventReason
    message: str
    first_at_s: float
    last_at_s: float
    queued_at_s: float
    count: int = 1
    name: str = ""  # of the event object; empty before it is written
    waits: bool = True  # in the queue


class EventWriter:
    """Events of one daemon.  ``instance`` is its pod."""

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        *,
        instance: str,
        component: str = "vllm-scaler",
        every_s: float = EVERY_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.written = 0
        self.suppressed = 0  # within every_s of the last; counted in the next one written
        self.dropped = 0  # the queue was full
        self.failed = 0  # given up after ATTEMPTS_MAX, or refused
        self._client = client
        self._clock = clock
        self._instance = instance
        self._component = component
        self._every_s = every_s
        self._sleep = sleep
        self._series: OrderedDict[tuple[Subject, EventReason], _Series] = OrderedDict()
        self._queue: asyncio.Queue[_Series] = asyncio.Queue(maxsize=QUEUE_MAX)
        self._ailing = False

    def emit(self, subject: Subject, reason: EventReason, message: str) -> bool:
        """Say something of an object; True if it will be written now, not just counted."""
        now_s = self._clock.now_s()
        series = self._series.get((subject, reason))
        if series is None:
            series = self._begin(subject, reason, message, now_s)
        else:
            series.count += 1
            series.last_at_s, series.message = now_s, message
            if series.waits or now_s - series.queued_at_s < self._every_s:
                self.suppressed += 1
                return False
        return self._enqueue(series, now_s)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            series = await self._queue.get()
            try:
                await self._write(series)
            finally:
                self._queue.task_done()

    async def drain(self, limit_s: float) -> None:
        """Wait until the queue is written, or ``limit_s``; ``run`` must be running."""
        try:
            async with asyncio.timeout(limit_s):
                await self._queue.join()
        except TimeoutError:
            _log.warning("events_left_unwritten", events=self._queue.qsize())

    def _begin(self, subject: Subject, reason: EventReason, message: str, now_s: float) -> _Series:
        series = _Series(
            subject=subject,
            reason=reason,
            message=message,
            first_at_s=now_s,
            last_at_s=now_s,
            queued_at_s=now_s,
        )
        self._series[subject, reason] = series
        if len(self._series) > SERIES_MAX:
            self._series.popitem(last=False)
        return series

    def _enqueue(self, series: _Series, now_s: float) -> bool:
        try:
            self._queue.put_nowait(series)
        except asyncio.QueueFull:
            self.dropped += 1
            series.waits = False
            return False
        series.waits, series.queued_at_s = True, now_s
        self._series.move_to_end((series.subject, series.reason))
        return True

    async def _write(self, series: _Series) -> None:
        series.waits = False
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                await self._sleep(RETRY_S * 2.0 ** (attempt - 1))
            try:
                await self._write_once(series)
            except KubeError as error:
                self._tell_failure(error)
                if not _is_passing(error):
                    break
            else:
                self.written += 1
                self._ailing = False
                return
        self.failed += 1

    async def _write_once(self, series: _Series) -> None:
        """Raise the count of the event written before, or write a new one.  Raises KubeError."""
        path = f"/api/v1/namespaces/{series.subject.namespace}/events"
        if series.name:
            patch = {
                "count": series.count,
                "lastTimestamp": _timestamp(series.last_at_s),
                "message": series.message[:MESSAGE_MAX_CHARS],
            }
            try:
                await self._client.merge(f"{path}/{series.name}", patch)
            except KubeError as error:
                if error.status != HTTPStatus.NOT_FOUND:  # events expire, after an hour by default
                    raise
            else:
                return
        name = f"{series.subject.name[:NAME_MAX_CHARS]}.{uuid.uuid4().hex[:16]}"
        await self._client.create(path, self._event(series, name))
        series.name = name

    def _event(self, series: _Series, name: str) -> dict[str, Any]:
        subject = series.subject
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": subject.namespace},
            "involvedObject": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
            "type": "Warning" if series.reason in WARNINGS else "Normal",
            "reason": series.reason.value,
            "message": series.message[:MESSAGE_MAX_CHARS],
            "count": series.count,
            "firstTimestamp": _timestamp(series.first_at_s),
            "lastTimestamp": _timestamp(series.last_at_s),
            "source": {"component": self._component, "host": self._instance},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }

    def _tell_failure(self, error: KubeError) -> None:
        if not self._ailing:  # once, not for every event
            _log.warning("events_unwritable", error=str(error))
        self._ailing = True


def _is_passing(error: KubeError) -> bool:
    """Whether another attempt may succeed: no answer, overload or a fault of the server."""
    overloaded = error.status in {0, HTTPStatus.TOO_MANY_REQUESTS}
    return overloaded or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _timestamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
