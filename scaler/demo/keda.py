"""The stand-in for KEDA and the HPA controller: real calls over gRPC, real writes to /scale.

What they make of an answer is ``simulations.actuation``; this module asks, and writes the count.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import aiohttp
import grpc
import grpc.aio

from scaler._generated import externalscaler_pb2 as pb
from scaler._generated import externalscaler_pb2_grpc
from scaler.core.hpa import Version
from scaler.demo.clock import Sleeper
from scaler.errors import ScalerError
from simulations.actuation import Answer, Failure, KedaActuator, KedaState, Read, Scale
from simulations.scaled_object import ClusterSpec, parse_scaled_object

CLUSTER = ClusterSpec(kubernetes=Version(1, 35, 0), keda=Version(2, 20, 2))
CALL_LIMIT_S = 20.0  # KEDA itself sets none; a demonstration must not hang
FIRST_POLL_S = 4.0  # KEDA, the HPA controller and the daemon keep their own time
FIRST_SYNC_S = 9.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleChange:
    """One write to the scale subresource."""

    at_s: float
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the ScaledObject is, and the API server and the scaler that serve it."""

    api_url: str
    scaler_address: str
    namespace: str
    name: str


class KedaStandIn:
    """KEDA's operator and the HPA controller, for one ScaledObject.

    ``calls`` are the names of the gRPC calls made, in order; ``changes`` the counts written.
    """

    def __init__(self, place: Place, *, sleeper: Sleeper) -> None:
        self.calls: list[str] = []
        self.failures = 0  # reads that failed, after KEDA's one retry
        self.changes: list[ScaleChange] = []
        self._place = place
        self._sleeper = sleeper
        self._session: aiohttp.ClientSession | None = None
        self._channel = grpc.aio.insecure_channel(place.scaler_address)
        self._stub = externalscaler_pb2_grpc.ExternalScalerStub(self._channel)
        self._workload = ""

    async def run(self) -> None:
        """Poll and sync at KEDA's and the HPA's own times, until cancelled."""
        document = await self._get(
            f"/apis/keda.sh/v1alpha1/namespaces/{self._place.namespace}"
            f"/scaledobjects/{self._place.name}"
        )
        spec = document["spec"]
        self._workload = (
            f"/apis/apps/v1/namespaces/{self._place.namespace}"
            f"/deployments/{spec['scaleTargetRef']['name']}"
        )
        actuator = KedaActuator.of(parse_scaled_object(document), CLUSTER)
        ref = pb.ScaledObjectRef(
            name=self._place.name,
            namespace=self._place.namespace,
            scalerMetadata=spec["triggers"][0]["metadata"],
        )
        now_s = self._sleeper.clock.now_s()
        state = replace(
            actuator.start(now_s=now_s),
            next_poll_at_s=now_s + FIRST_POLL_S,
            next_sync_at_s=now_s + FIRST_SYNC_S,
        )
        while True:
            await self._sleeper.sleep_until(min(state.next_poll_at_s, state.next_sync_at_s))
            state = await self._turn(actuator, state, ref)

    async def close(self) -> None:
        """Close the channel and the connections."""
        await self._channel.close(None)
        if self._session is not None:
            await self._session.close()

    async def _turn(
        self, actuator: KedaActuator, state: KedaState, ref: pb.ScaledObjectRef
    ) -> KedaState:
        """Whatever is due now: a poll of KEDA's, or a sync of the HPA's."""
        now_s = self._sleeper.clock.now_s()
        scale = await self._scale()
        if state.next_poll_at_s <= now_s:
            answer = await self._read(ref)
            polled = actuator.poll(state, now_s=now_s, answer=answer, scale=scale)
            await self._write(scale, polled.replicas, now_s)
            return polled.state
        answer = await self._read(ref) if actuator.asks(scale) else Failure.METRICS
        synced = actuator.hpa_sync(state, now_s=now_s, answer=answer, scale=scale)
        await self._write(scale, synced.replicas, now_s)
        return synced.state

    # The scaler

    async def _read(self, ref: pb.ScaledObjectRef) -> Read:
        """One read as KEDA makes it: spec, metrics, activity; each part retried once, at once."""
        try:
            specs = (await self._twice(self._spec, ref)).metricSpecs
        except grpc.aio.AioRpcError:
            specs = ()
        if not specs:
            self.failures += 1
            return Failure.SPEC

        async def read(ref: pb.ScaledObjectRef) -> Answer:
            return await self._metrics_and_activity(ref, specs[0].metricName)

        try:
            return await self._twice(read, ref)
        except grpc.aio.AioRpcError:
            self.failures += 1
            return Failure.METRICS

    async def _spec(self, ref: pb.ScaledObjectRef) -> Any:
        self.calls.append("GetMetricSpec")
        return await self._stub.GetMetricSpec(ref, timeout=CALL_LIMIT_S)

    async def _metrics_and_activity(self, ref: pb.ScaledObjectRef, metric: str) -> Answer:
        request = pb.GetMetricsRequest(scaledObjectRef=ref, metricName=metric)
        self.calls.append("GetMetrics")
        values = (await self._stub.GetMetrics(request, timeout=CALL_LIMIT_S)).metricValues
        self.calls.append("IsActive")
        active = (await self._stub.IsActive(ref, timeout=CALL_LIMIT_S)).result
        return Answer(
            integer=sum(value.metricValue for value in values),
            double=sum(value.metricValueFloat for value in values),
            active=bool(active),
        )

    @staticmethod
    async def _twice(
        call: Callable[[pb.ScaledObjectRef], Awaitable[_Result]], ref: pb.ScaledObjectRef
    ) -> _Result:
        try:
            return await call(ref)
        except grpc.aio.AioRpcError:
            return await call(ref)

    # The API server

    async def _scale(self) -> Scale:
        found = await self._get(self._workload)
        status = found["status"]
        return Scale(
            spec_replicas=found["spec"]["replicas"],
            status_replicas=status["replicas"],
            ready_pods=status["readyReplicas"],
        )

    async def _write(self, scale: Scale, replicas: int, now_s: float) -> None:
        if replicas == scale.spec_replicas:
            return
        self.changes.append(ScaleChange(at_s=now_s, before=scale.spec_replicas, after=replicas))
        url = f"{self._place.api_url}{self._workload}/scale"
        patch = {"spec": {"replicas": replicas}}
        headers = {"Content-Type": "application/merge-patch+json"}
        async with self._connected().patch(url, json=patch, headers=headers) as response:
            _refuse_errors(url, response)

    async def _get(self, path: str) -> Any:
        url = self._place.api_url + path
        async with self._connected().get(url) as response:
            _refuse_errors(url, response)
            return await response.json()

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False)
        return self._session


def _refuse_errors(url: str, response: aiohttp.ClientResponse) -> None:
    if not response.ok:
        raise ScalerError(f"{url} answered {response.status}")
