"""KEDA's side of the wire, and a server to call: real channels on loopback, time by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest

from scaler._generated import externalscaler_pb2 as pb
from scaler._generated import externalscaler_pb2_grpc
from scaler.config import GrpcConfig, ScalerConfig
from scaler.service.board import METRIC_NAME, AnswerState, Board, Published, TriggerKey
from scaler.service.external_scaler import ExternalScaler
from scaler.service.identity import Parse, key_parser
from scaler.service.server import ScalerServer, ServerLimits
from scaler.service.streams import StreamTimes
from simulations.actuation import Answer, Failure, Read

_Result = TypeVar("_Result")
SAFETY_S = 20.0  # a call that takes as long has hung: the test fails with DEADLINE_EXCEEDED
START_S = 1_000_000.0
EXPIRY_S = 45.0
METADATA = {
    "scalerAddress": "vllm-scaler.vllm-scaler.svc:9090",
    "modelName": "llama-3.1-70b-instruct",
    "ttftSloSeconds": "2",
}


@dataclass(slots=True)
class HandClock:
    """Stands still until a test moves it."""

    at_s: float = START_S

    def now_s(self) -> float:
        return self.at_s


@dataclass(slots=True)
class Counted:
    """A parser that counts how often it is asked."""

    parse: Parse
    calls: int = 0

    def __call__(self, namespace: str, name: str, metadata: Mapping[str, str]) -> TriggerKey:
        self.calls += 1
        return self.parse(namespace, name, metadata)


@dataclass(slots=True, kw_only=True)
class Rig:
    """A running server, the board behind it, and a channel to it as KEDA would hold."""

    clock: HandClock
    board: Board
    servicer: ExternalScaler
    server: ScalerServer
    address: str
    channel: grpc.aio.Channel
    parse: Counted
    admitted: list[TriggerKey] = field(default_factory=list)
    observed: list[tuple[str, grpc.StatusCode]] = field(default_factory=list)

    @property
    def keda(self) -> "Keda":
        return Keda(self.channel)

    def publish(self, ref: pb.ScaledObjectRef, replicas: int, **changes: Any) -> None:
        """Publish ``replicas`` for the trigger of ``ref``, decided now, but for ``changes``."""
        entry = Published(
            at_s=self.clock.at_s,
            state=AnswerState.GOOD,
            integer=replicas,
            double=float(replicas),
            active=replicas > 0,
            reason="",
        )
        self.board.publish({key_of(ref): replace(entry, **changes)})


def reference(
    name: str = "chat", *, namespace: str = "llm", metadata: Mapping[str, str] | None = None
) -> pb.ScaledObjectRef:
    entries = METADATA if metadata is None else metadata
    return pb.ScaledObjectRef(name=name, namespace=namespace, scalerMetadata=entries)


def key_of(ref: pb.ScaledObjectRef) -> TriggerKey:
    """The board's key for the trigger that ``ref`` names."""
    return key_parser(ScalerConfig)(ref.namespace, ref.name, dict(ref.scalerMetadata))


@asynccontextmanager
async def serving(
    *,
    config: GrpcConfig | None = None,
    limits: ServerLimits | None = None,
    times: StreamTimes | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    channel_options: Sequence[tuple[str, Any]] = (),
) -> AsyncIterator[Rig]:
    """A server on a port of its own, stopped at the end."""
    clock = HandClock()
    admitted: list[TriggerKey] = []
    observed: list[tuple[str, grpc.StatusCode]] = []
    board = Board(admit=admitted.append, expiry_s=EXPIRY_S)
    parse = Counted(key_parser(ScalerConfig))
    servicer = ExternalScaler(
        board=board,
        parse=parse,
        clock=clock,
        observe=lambda method, code, _seconds: observed.append((method, code)),
        times=times,
    )
    server = ScalerServer(servicer, config or GrpcConfig(address="127.0.0.1:0"), limits=limits)
    address = f"127.0.0.1:{await server.start()}"
    options = [("grpc.use_local_subchannel_pool", 1), *channel_options]
    if credentials is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, credentials, options=options)
    rig = Rig(
        clock=clock,
        board=board,
        servicer=servicer,
        server=server,
        address=address,
        channel=channel,
        parse=parse,
        admitted=admitted,
        observed=observed,
    )
    try:
        yield rig
    finally:
        await channel.close(None)
        await server.stop()


class Keda:
    """The calls of KEDA 2.20 on one channel that all ScaledObjects share."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = externalscaler_pb2_grpc.ExternalScalerStub(channel)

    async def spec(self, ref: pb.ScaledObjectRef) -> Any:
        return await self.stub.GetMetricSpec(ref, timeout=SAFETY_S)

    async def metrics(self, ref: pb.ScaledObjectRef, name: str = METRIC_NAME) -> Any:
        request = pb.GetMetricsRequest(scaledObjectRef=ref, metricName=name)
        return await self.stub.GetMetrics(request, timeout=SAFETY_S)

    async def active(self, ref: pb.ScaledObjectRef) -> bool:
        return bool((await self.stub.IsActive(ref, timeout=SAFETY_S)).result)

    async def answer(self, ref: pb.ScaledObjectRef) -> Answer:
        """A read that must succeed."""
        found = await self.read(ref)
        assert isinstance(found, Answer), found
        return found

    async def read(self, ref: pb.ScaledObjectRef) -> Read:
        """One poll or HPA read: spec, metrics, activity, in order; one retry at once."""
        try:
            specs = (await self._twice(self.spec, ref)).metricSpecs
        except grpc.aio.AioRpcError:
            return Failure.SPEC
        if not specs:
            return Failure.SPEC
        try:
            return await self._twice(self._metrics_and_activity, ref)
        except grpc.aio.AioRpcError:
            return Failure.METRICS

    async def _metrics_and_activity(self, ref: pb.ScaledObjectRef) -> Answer:
        values = (await self.metrics(ref)).metricValues
        active = await self.active(ref)
        return Answer(
            integer=sum(value.metricValue for value in values),
            double=sum(value.metricValueFloat for value in values),
            active=active,
        )

    @staticmethod
    async def _twice(
        call: Callable[[pb.ScaledObjectRef], Awaitable[_Result]], ref: pb.ScaledObjectRef
    ) -> _Result:
        try:
            return await call(ref)
        except grpc.aio.AioRpcError:
            return await call(ref)


async def refused(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """The error of a call that must fail, and must not have hung."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED, "the call has hung"
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Wait for ``condition`` to hold, for as long as the test may take."""
    while not condition():  # noqa: ASYNC110 (what is waited for happens in gRPC's own threads)
        await asyncio.sleep(0.002)
