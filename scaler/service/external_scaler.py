"""The gRPC servicer that KEDA calls: answers from the board, never decides.

KEDA sets no deadline and one call that never returns stops its poll loop for that ScaledObject, so
no handler does I/O or waits for anything but its own client.  Any status but OK makes KEDA hold the
replicas; a zero or an empty list would not.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from scaler._generated import externalscaler_pb2 as pb
from scaler.errors import ConfigError
from scaler.service.board import (
    METRIC_NAME,
    TARGET_SIZE,
    Board,
    NoAnswer,
    Published,
    Silence,
    TriggerKey,
)
from scaler.service.clock import Clock
from scaler.service.identity import KeyCache, Parse
from scaler.service.streams import ActivityStreams, StreamTimes

Observe = Callable[[str, grpc.StatusCode, float], None]
"""Told of each finished call: method, status, seconds."""

MESSAGE_CHARS_MAX = 1024  # of a status; KEDA puts it into an event, where Kubernetes allows as much
FAULT_CHARS_MIN = 80  # names key and value; beyond some twelve faults the last ones are cut
STREAMS_MAX = 10_000  # half of all calls at a time, so that polls find room beside them
_HPA_PREFIX = re.compile(r"s\d+-")  # the trigger's position, which the HPA puts in front
_Response = TypeVar("_Response")
_Context = grpc.aio.ServicerContext[Any, Any]

_SILENCES: Final[Mapping[Silence, str]] = {
    Silence.UNKNOWN_TRIGGER: "not known yet, collection starts with this call",
    Silence.PENDING: "no decision yet, collection has started",
    Silence.UNKNOWN: "the load is not known",
    Silence.EXPIRED: "the last decision is too old",
}


class Refusal(Exception):  # noqa: N818 (no error of ours: an answer other than OK)
    """A status other than OK as the answer of a handler."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message[:MESSAGE_CHARS_MAX]


class ExternalScaler:
    """The five methods of ``externalscaler.ExternalScaler`` over one board."""

    def __init__(
        self,
        *,
        board: Board,
        parse: Parse,
        clock: Clock,
        observe: Observe = lambda _method, _code, _seconds: None,
        times: StreamTimes | None = None,
    ) -> None:
        self._board = board
        self._keys = KeyCache(parse)
        self._clock = clock
        self._observe = observe
        self._times = times or StreamTimes()
        self._activity = ActivityStreams(board)
        self._streams_open = 0

    @property
    def streams_open(self) -> int:
        """Streams held at present, of both kinds."""
        return self._streams_open

    def forget_parsed(self) -> None:
        """Parse all metadata anew: the configuration has changed."""
        self._keys.clear()

    def end_streams(self) -> None:
        """End every stream with OK, present and to come: the server shuts down."""
        self._activity.close()

    async def GetMetricSpec(  # noqa: N802 (name given by the contract)
        self, request: pb.ScaledObjectRef, context: _Context
    ) -> pb.GetMetricSpecResponse:
        """Name and target of the metric: constants, whatever is down."""
        return await self._answered("GetMetricSpec", context, partial(self._specs, request))

    async def GetMetrics(  # noqa: N802
        self, request: pb.GetMetricsRequest, context: _Context
    ) -> pb.GetMetricsResponse:
        """The desired replicas of the trigger."""
        return await self._answered("GetMetrics", context, partial(self._metrics, request))

    async def IsActive(  # noqa: N802
        self, request: pb.ScaledObjectRef, context: _Context
    ) -> pb.IsActiveResponse:
        """Whether the trigger wants any replica, from the entry that GetMetrics answers from."""
        return await self._answered("IsActive", context, partial(self._active, request))

    async def StreamIsActive(  # noqa: N802
        self, request: pb.ScaledObjectRef, context: _Context
    ) -> None:
        """The present state as soon as it is known, then true at each change to it."""
        await self._held("StreamIsActive", context, partial(self._tell_activity, request, context))

    async def StreamMetricSpec(  # noqa: N802
        self, request: pb.ScaledObjectRef, context: _Context
    ) -> None:
        """The answer of GetMetricSpec, and nothing after it: it never changes."""
        await self._held("StreamMetricSpec", context, partial(self._tell_specs, request, context))

    def _specs(self, request: pb.ScaledObjectRef) -> pb.GetMetricSpecResponse:
        self._board.note(self._key(request))
        spec = pb.MetricSpec(
            metricName=METRIC_NAME, targetSize=TARGET_SIZE, targetSizeFloat=float(TARGET_SIZE)
        )
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    def _metrics(self, request: pb.GetMetricsRequest) -> pb.GetMetricsResponse:
        key = self._key(request.scaledObjectRef)
        _check_metric_name(request.metricName)
        entry = self._entry(key)
        value = pb.MetricValue(
            metricName=METRIC_NAME, metricValue=entry.integer, metricValueFloat=entry.double
        )
        return pb.GetMetricsResponse(metricValues=[value])

    def _active(self, request: pb.ScaledObjectRef) -> pb.IsActiveResponse:
        return pb.IsActiveResponse(result=self._entry(self._key(request)).active)

    def _key(self, ref: pb.ScaledObjectRef) -> TriggerKey:
        try:
            return self._keys.key(ref.namespace, ref.name, dict(ref.scalerMetadata))
        except ConfigError as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, _listed(error.faults)) from error

    def _entry(self, key: TriggerKey) -> Published:
        found = self._board.look_up(key, self._clock.now_s())
        if isinstance(found, NoAnswer):
            raise Refusal(grpc.StatusCode.UNAVAILABLE, _unavailable(key, found))
        return found

    async def _answered(
        self, method: str, context: _Context, answer: Callable[[], _Response]
    ) -> _Response:
        """Answer a unary call, and tell the observer."""
        started_at_s = self._clock.now_s()
        code = grpc.StatusCode.UNKNOWN  # what gRPC answers where ``answer`` fails unexpectedly
        try:
            response = answer()
            code = grpc.StatusCode.OK
        except Refusal as refusal:
            code = refusal.code
            await context.abort(refusal.code, refusal.message)
        finally:
            self._observe(method, code, self._clock.now_s() - started_at_s)
        return response

    async def _held(
        self, method: str, context: _Context, tell: Callable[[], Awaitable[None]]
    ) -> None:
        """Hold a stream until its term or the server ends; then tell the observer."""
        started_at_s = self._clock.now_s()
        code = grpc.StatusCode.CANCELLED  # the client left, or its connection died
        self._streams_open += 1
        try:
            self._check_room()
            await tell()
            code = grpc.StatusCode.OK
        except Refusal as refusal:
            code = refusal.code
            await context.abort(refusal.code, refusal.message)
        finally:
            self._streams_open -= 1
            self._observe(method, code, self._clock.now_s() - started_at_s)

    def _check_room(self) -> None:
        if self._streams_open > STREAMS_MAX:
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams are open")

    async def _tell_specs(self, request: pb.ScaledObjectRef, context: _Context) -> None:
        await self._send(context, self._specs(request))
        await _within(self._times.term_of_s(request.name), self._activity.closed.wait())

    async def _tell_activity(self, request: pb.ScaledObjectRef, context: _Context) -> None:
        key = self._key(request)
        found = self._board.look_up(key, self._clock.now_s())
        present = None if isinstance(found, NoAnswer) else found.active
        with self._activity.follow(key, present) as follower:

            async def tell() -> None:
                while (state := await follower.next()) is not None:
                    await self._send(context, pb.IsActiveResponse(result=state))

            await _within(self._times.term_of_s(request.name), tell())

    async def _send(self, context: _Context, message: object) -> None:
        try:
            async with asyncio.timeout(self._times.write_s):
                await context.write(message)
        except TimeoutError:
            raise Refusal(
                grpc.StatusCode.DEADLINE_EXCEEDED, "the client does not read its stream"
            ) from None


def _check_metric_name(name: str) -> None:
    """Accept our one metric as KEDA, the HPA or a person may write it."""
    plain = _HPA_PREFIX.sub("", name, count=1) if _HPA_PREFIX.match(name) else name
    if plain.casefold() != METRIC_NAME:
        raise Refusal(
            grpc.StatusCode.NOT_FOUND, f"metricName = {name[:100]!r}, must be {METRIC_NAME!r}"
        )


def _listed(faults: tuple[str, ...]) -> str:
    """Every fault, each cut to its share of the message so that none hides the others."""
    share = max(FAULT_CHARS_MIN, MESSAGE_CHARS_MAX // len(faults) - 2)
    return "; ".join(
        fault if len(fault) <= share else f"{fault[: share - 3]}..." for fault in faults
    )


def _unavailable(key: TriggerKey, found: NoAnswer) -> str:
    """One line for KEDA's event: whose trigger, what is missing, how old, and why."""
    age = f", {found.age_s:.0f} s old" if found.silence is Silence.EXPIRED else ""
    why = f" ({found.reason})" if found.reason else ""
    return f"{key.namespace}/{key.name}: {_SILENCES[found.silence]}{age}{why}"


async def _within(seconds: float, work: Awaitable[object]) -> None:
    """Do ``work``, and leave it unfinished after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return
