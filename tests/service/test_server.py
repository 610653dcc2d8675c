"""The server's own duties: ports, certificates, bounds, reflection, clients that misbehave."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from scaler.config import GrpcConfig, TlsConfig
from scaler.errors import ConfigError
from scaler.service.certificates import Certificates
from scaler.service.guard import Guard
from scaler.service.server import ServerLimits
from scaler.service.streams import StreamTimes
from tests.service.keda import Keda, reference, refused, serving, until
from tests.service.wires import NAMED, BareClient, client_credentials, write_tls_files

HERE = "127.0.0.1:0"


async def test_a_port_in_use_is_a_fault_of_the_configuration() -> None:
    async with serving() as rig:
        with pytest.raises(ConfigError, match=rf"grpc.address = '{rig.address}', must be a free"):
            async with serving(config=GrpcConfig(address=rig.address)):
                pass
        assert (await rig.keda.spec(reference())).metricSpecs  # the first is unharmed


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "203.0.113.1:0"])
async def test_an_address_that_cannot_be_bound_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match=address):
        async with serving(config=GrpcConfig(address=address)):
            pass


async def test_a_unary_handler_that_waits_for_ever_is_cut_off() -> None:
    async def hangs(_request: bytes, _context: Any) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def answers(request: bytes, _context: Any) -> bytes:
        return request

    server = grpc.aio.server(interceptors=[Guard(0.05)])
    methods = {
        "Hang": grpc.unary_unary_rpc_method_handler(hangs),
        "Echo": grpc.unary_unary_rpc_method_handler(answers),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", methods)])
    port = server.add_insecure_port(HERE)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        hang = channel.unary_unary("/t.T/Hang", bytes, bytes)
        with pytest.raises(grpc.aio.AioRpcError, match=r"no answer within 0\.05 s"):
            await hang(b"", timeout=20.0)
        assert await channel.unary_unary("/t.T/Echo", bytes, bytes)(b"x", timeout=20.0) == b"x"
    await server.stop(None)


async def test_a_rotated_certificate_is_served_and_a_broken_one_is_not(
    tmp_path: Path,
) -> None:
    first, second = trustme.CA(), trustme.CA()
    files = write_tls_files(first, tmp_path)
    config = GrpcConfig(
        address=HERE, tls=TlsConfig(cert_file=files.cert_file, key_file=files.key_file)
    )
    trusted = client_credentials(first, None)
    async with serving(config=config, credentials=trusted, channel_options=NAMED) as rig:
        assert (await rig.keda.spec(reference())).metricSpecs
        write_tls_files(second, tmp_path)
        assert await connects(rig.address, client_credentials(second, None))
        assert not await connects(rig.address, client_credentials(first, None))
        assert (await rig.keda.spec(reference())).metricSpecs  # on its old connection
        (tmp_path / "cert.pem").write_text("half a certif")
        assert await connects(rig.address, client_credentials(second, None))  # the last good one
        write_tls_files(first, tmp_path)
        assert await connects(rig.address, client_credentials(first, None))


async def connects(address: str, credentials: grpc.ChannelCredentials) -> bool:
    async with grpc.aio.secure_channel(address, credentials, NAMED) as channel:
        try:
            return bool((await Keda(channel).spec(reference())).metricSpecs)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


def test_a_fault_of_rotation_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    files = write_tls_files(trustme.CA(), tmp_path)
    certificates = Certificates(files, told.append)
    assert certificates.renewed() is None
    (tmp_path / "key.pem").unlink()
    for _handshake in range(3):
        assert certificates.renewed() is None
    assert len(told) == 1
    assert "key.pem cannot be read: No such file or directory" in told[0]
    write_tls_files(trustme.CA(), tmp_path)
    assert certificates.renewed() is not None
    assert certificates.renewed() is None  # unchanged since
    assert len(told) == 1


@pytest.mark.parametrize("broken", ["cert.pem", "key.pem", "ca.pem"])
@pytest.mark.parametrize("content", [None, b"", b"\x00\xff not PEM"])
def test_unusable_certificate_files_are_named_at_start(
    tmp_path: Path, broken: str, content: bytes | None
) -> None:
    files = write_tls_files(trustme.CA(), tmp_path)
    (tmp_path / broken).unlink()
    if content is not None:
        (tmp_path / broken).write_bytes(content)
    with pytest.raises(ConfigError, match=broken):
        Certificates(files, pytest.fail)


def test_a_key_of_another_certificate_is_refused_at_start(tmp_path: Path) -> None:
    files = write_tls_files(trustme.CA(), tmp_path)
    cert = Path(files.cert_file).read_bytes()
    write_tls_files(trustme.CA(), tmp_path)
    Path(files.cert_file).write_bytes(cert)
    with pytest.raises(ConfigError, match="not a certificate and its key"):
        Certificates(files, pytest.fail)


@pytest.mark.parametrize("wanted", [True, False])
async def test_reflection_lists_the_service_where_asked_for(*, wanted: bool) -> None:
    async with serving(config=GrpcConfig(address=HERE, reflection=wanted)) as rig:
        stub = reflection_pb2_grpc.ServerReflectionStub(rig.channel)
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        if not wanted:
            assert (await refused(call.read())).code() is grpc.StatusCode.UNIMPLEMENTED
            return
        answer = await call.read()
        names = {service.name for service in answer.list_services_response.service}
        assert {"externalscaler.ExternalScaler", "grpc.health.v1.Health"} <= names


async def test_a_message_beyond_the_limit_is_refused_and_the_connection_lives() -> None:
    async with serving(limits=ServerLimits(request_bytes_max=10_000)) as rig:
        huge = reference(metadata={"modelName": "m" * 20_000})
        error = await refused(rig.keda.spec(huge))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await rig.keda.spec(reference())).metricSpecs


async def test_a_stream_whose_client_never_reads_is_ended() -> None:
    async with serving(times=StreamTimes(write_s=0.05)) as rig:
        rig.publish(reference(), 1)
        client = await BareClient.connect(rig.address, window_bytes=0)
        client.call(
            "/externalscaler.ExternalScaler/StreamIsActive", reference().SerializeToString()
        )
        await until(lambda: bool(rig.observed))
        assert rig.observed == [("StreamIsActive", grpc.StatusCode.DEADLINE_EXCEEDED)]
        assert rig.servicer.streams_open == 0
        client.close()
        assert (await rig.keda.spec(reference())).metricSpecs


async def test_a_health_watch_does_not_hold_up_the_end() -> None:
    async with serving(limits=ServerLimits(drain_s=0.05)) as rig:
        stub = health_pb2_grpc.HealthStub(rig.channel)
        await rig.server.set_serving(serving=True)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await rig.server.stop()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_every_call_is_observed_with_its_status() -> None:
    async with serving() as rig:
        await rig.keda.read(reference())
        await refused(rig.keda.metrics(reference(), "other"))
        codes = grpc.StatusCode
        assert rig.observed == [
            ("GetMetricSpec", codes.OK),
            ("GetMetrics", codes.UNAVAILABLE),
            ("GetMetrics", codes.UNAVAILABLE),  # KEDA's retry
            ("GetMetrics", codes.NOT_FOUND),
        ]
