"""Whatever a client sends: an answer, never a hang, never a fault of ours."""

import asyncio
from typing import Any

import grpc
import grpc.aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaler._generated import externalscaler_pb2 as pb
from scaler.service.board import METRIC_NAME
from scaler.trigger import metadata_settings
from tests.service.keda import Rig, reference, serving

ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.NOT_FOUND,
}
# A StreamIsActive of a trigger without a decision would rightly wait: it is not asked here.
METHODS = ["GetMetricSpec", "GetMetrics", "IsActive", "StreamMetricSpec"]
_texts = st.text(max_size=80) | st.sampled_from(["", "chat", "llm", "a.b", "-", "1e999", "nan"])
_keys = _texts | st.sampled_from(
    ["target", "modelName", "profile", "scalerAddress", "modelNameFromEnv", *metadata_settings()]
)
_values = _texts | st.integers().map(str) | st.floats().map(str)
_refs = st.builds(
    lambda name, namespace, metadata: pb.ScaledObjectRef(
        name=name, namespace=namespace, scalerMetadata=metadata
    ),
    name=_texts | st.just("chat"),
    namespace=_texts | st.just("llm"),
    metadata=st.dictionaries(_keys, _values, max_size=6),
)
_names = _texts | st.sampled_from([METRIC_NAME, f"s1-{METRIC_NAME}"])


async def status(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code() if len(error.details() or "") <= 1024 else grpc.StatusCode.UNKNOWN
    return grpc.StatusCode.OK


async def all_statuses(rig: Rig, ref: pb.ScaledObjectRef, name: str) -> set[grpc.StatusCode]:
    keda = rig.keda
    calls = [keda.spec(ref), keda.metrics(ref, name), keda.active(ref)]
    return {await status(call) for call in calls}


def served(check: Any) -> None:
    """Run ``check`` against one server for all examples, on a loop of its own."""

    async def run() -> None:
        async with serving() as rig:
            rig.publish(reference(), 3)
            await asyncio.to_thread(check, rig, asyncio.get_running_loop())
            assert (await rig.keda.answer(reference())).integer == 3  # alive and unharmed

    asyncio.run(run())


def test_any_request_gets_one_of_four_statuses() -> None:
    def check(rig: Rig, loop: asyncio.AbstractEventLoop) -> None:
        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(_refs, _names)
        def holds(ref: pb.ScaledObjectRef, name: str) -> None:
            calls = asyncio.run_coroutine_threadsafe(all_statuses(rig, ref, name), loop)
            assert calls.result() <= ALLOWED

        holds()

    served(check)


def test_any_bytes_are_refused_or_answered() -> None:
    async def send(rig: Rig, method: str, body: bytes) -> grpc.StatusCode:
        path = f"/externalscaler.ExternalScaler/{method}"
        if method.startswith("Stream"):
            stream = rig.channel.unary_stream(path, bytes, bytes)(body, timeout=20.0)
            found = await status(stream.read())
            stream.cancel()
            return found
        return await status(rig.channel.unary_unary(path, bytes, bytes)(body, timeout=20.0))

    def check(rig: Rig, loop: asyncio.AbstractEventLoop) -> None:
        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(METHODS), st.binary(max_size=60))
        def holds(method: str, body: bytes) -> None:
            call = asyncio.run_coroutine_threadsafe(send(rig, method, body), loop)
            assert call.result() in ALLOWED

        holds()

    served(check)
