"""What KEDA and the HPA demand of an external scaler, checks 1 to 13: wire, specs, names.

Each of the 41 checks is driven over a real loopback channel and carries its number; the others are
in test_conformance_answers.py and test_conformance_operation.py.
"""

import itertools
import math
import ssl
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from scaler._generated import externalscaler_pb2 as pb
from scaler.config import GrpcConfig, TlsConfig
from scaler.core.hpa_encoding import encode, keda_milli
from scaler.core.hpa_spec import Tolerances, Version
from scaler.service.board import METRIC_NAME, AnswerState, Published
from tests.service.keda import METADATA, Keda, key_of, reference, refused, serving
from tests.service.wires import NAMED, answer_to_hello, client_credentials, write_tls_files

KEDA_VERSIONS = (Version(2, 16), Version(2, 19), Version(2, 20), Version(2, 20, 2))
BAD = {"ttftSloSeconds": "soon"}


async def raw(channel: grpc.aio.Channel, method: str, request: bytes) -> bytes:
    """A call without any generated code on the client's side."""
    call = channel.unary_unary(
        f"/externalscaler.ExternalScaler/{method}",
        request_serializer=bytes,
        response_deserializer=bytes,
    )
    return bytes(await call(request, timeout=20.0))


async def test_e01_wire_format_of_the_four_methods() -> None:
    # Tag = field << 3 | type: 0x0a field 1 text or message, 0x12 field 2, 0x1a field 3,
    # 0x10 field 2 varint, 0x19 field 3 double.
    entry = b"\x0a\x09modelName\x12\x01m"
    ref = b"\x0a\x04chat" + b"\x12\x03llm" + b"\x1a" + bytes([len(entry)]) + entry
    name = METRIC_NAME.encode()
    named = b"\x0a" + bytes([len(name)]) + name
    one, five = b"\x00\x00\x00\x00\x00\x00\xf0\x3f", b"\x00\x00\x00\x00\x00\x00\x14\x40"
    spec = named + b"\x10\x01" + b"\x19" + one
    value = named + b"\x10\x05" + b"\x19" + five
    request = b"\x0a" + bytes([len(ref)]) + ref + b"\x12" + bytes([len(name)]) + name
    async with serving() as rig:
        rig.publish(reference(metadata={"modelName": "m"}), 5)
        assert await raw(rig.channel, "GetMetricSpec", ref) == b"\x0a" + bytes([len(spec)]) + spec
        assert (
            await raw(rig.channel, "GetMetrics", request) == b"\x0a" + bytes([len(value)]) + value
        )
        assert await raw(rig.channel, "IsActive", ref) == b"\x08\x01"
        stream = rig.channel.unary_stream(
            "/externalscaler.ExternalScaler/StreamIsActive", bytes, bytes
        )(ref)
        assert await stream.read() == b"\x08\x01"


async def test_e02_unknown_methods_are_unimplemented_and_stream_metric_spec_is_there() -> None:
    async with serving() as rig:
        error = await refused(raw(rig.channel, "GetNothing", b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        stream = rig.keda.stub.StreamMetricSpec(reference())
        assert await stream.read() == await rig.keda.spec(reference())


def old_class(message: str) -> Any:
    """A message as KEDA 2.16 knows it: generated from a descriptor without fields 3."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    del file.service[:]
    for known in file.message_type:
        if known.name in {"MetricSpec", "MetricValue"}:
            del known.field[2]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"externalscaler.{message}"))


async def test_e03_old_and_new_clients_read_the_same_meaning() -> None:
    desired = 10
    falling = encode(desired=desired, status_replicas=11, spec_replicas=11, tolerances=Tolerances())
    assert falling.double == pytest.approx(9.01)  # 10/11 lies within 10 %, 9.01/11 does not
    async with serving() as rig:
        rig.publish(reference(), desired, double=falling.double)
        spec = await raw(rig.channel, "GetMetricSpec", reference().SerializeToString())
        request = pb.GetMetricsRequest(scaledObjectRef=reference(), metricName=METRIC_NAME)
        values = await raw(rig.channel, "GetMetrics", request.SerializeToString())
    old_spec = old_class("GetMetricSpecResponse").FromString(spec).metricSpecs[0]
    old_value = old_class("GetMetricsResponse").FromString(values).metricValues[0]
    assert not hasattr(old_spec, "targetSizeFloat")
    assert old_value.metricValue / old_spec.targetSize == desired
    new_spec = pb.GetMetricSpecResponse.FromString(spec).metricSpecs[0]
    new_value = pb.GetMetricsResponse.FromString(values).metricValues[0]
    assert (new_spec.targetSize, new_spec.targetSizeFloat) == (1, 1.0)
    assert math.ceil(new_value.metricValueFloat / new_spec.targetSizeFloat) == desired


@pytest.mark.parametrize(
    ("integer", "double", "active"),
    [
        (3, 0.0, True),  # KEDA would fall back to the integer
        (0, 3.0, True),  # an old KEDA reads 0
        (3, math.nan, True),
        (3, math.inf, True),
        (3, -1.0, True),
        (-3, -3.0, True),
        (1, 0.0004, True),  # 0 in thousandths
        (9, 8.001, True),  # KEDA up to 2.19 cuts 8.001 * 1000 to 8000: 8, not 9
        (3, 2.0004, True),  # 3 by its ceiling, 2 in thousandths
        (2**31, 2.0**31, True),  # beyond int32
        (3, 3.0, False),  # replicas wanted of an inactive target
    ],
)
def test_e04_an_answer_that_some_keda_would_misread_cannot_be_published(
    integer: int, double: float, *, active: bool
) -> None:
    with pytest.raises(AssertionError):
        Published(
            at_s=0.0,
            state=AnswerState.GOOD,
            integer=integer,
            double=double,
            active=active,
            reason="",
        )


async def test_e04_every_encoding_means_one_count_in_every_keda() -> None:
    async with serving() as rig:
        for desired, current in itertools.product(range(0, 41, 3), range(0, 41, 2)):
            encoded = encode(
                desired=desired,
                status_replicas=current,
                spec_replicas=current,
                tolerances=Tolerances(),
            )
            rig.publish(reference(), encoded.integer, double=encoded.double)
            value = (await rig.keda.metrics(reference())).metricValues[0]
            milli = {
                math.ceil(
                    keda_milli(integer=value.metricValue, double=value.metricValueFloat, keda=keda)
                    / 1000
                )
                for keda in KEDA_VERSIONS
            }
            assert milli == {desired}


@pytest.mark.parametrize("metadata", [{}, METADATA, {"target": "deployment/a", "role": "prefill"}])
async def test_e05_target_is_positive_whatever_the_metadata(metadata: dict[str, str]) -> None:
    async with serving() as rig:
        (spec,) = (await rig.keda.spec(reference(metadata=metadata))).metricSpecs
        assert spec.targetSize == 1
        assert spec.targetSizeFloat == 1.0


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


async def test_e06_tls_names_the_service_and_mutual_tls_refuses_strangers(
    authority: trustme.CA, tmp_path: Path
) -> None:
    config = GrpcConfig(address="127.0.0.1:0", tls=write_tls_files(authority, tmp_path))
    known = client_credentials(authority, authority)
    async with serving(config=config, credentials=known, channel_options=NAMED) as rig:
        assert (await rig.keda.spec(reference())).metricSpecs
        for credentials in (
            client_credentials(authority, None),  # no certificate
            client_credentials(authority, trustme.CA()),  # of another authority
            client_credentials(trustme.CA(), authority),  # trusts another server
        ):
            async with grpc.aio.secure_channel(rig.address, credentials, NAMED) as channel:
                error = await refused(Keda(channel).spec(reference()))
                assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_e06_tls_below_1_2_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    files = write_tls_files(authority, tmp_path)
    plain = TlsConfig(cert_file=files.cert_file, key_file=files.key_file)
    async with serving(config=GrpcConfig(address="127.0.0.1:0", tls=plain)) as rig:
        refusal = await answer_to_hello(rig.address, ssl.TLSVersion.TLSv1_1)
        welcome = await answer_to_hello(rig.address, ssl.TLSVersion.TLSv1_2)
    assert refusal == b""  # hung up
    assert welcome[0] == 22  # RFC 5246: a handshake record


async def test_e07_a_spec_or_an_error_never_an_empty_list() -> None:
    async with serving() as rig:
        assert len((await rig.keda.spec(reference())).metricSpecs) == 1
        error = await refused(rig.keda.spec(reference(metadata=BAD)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_e08_specs_need_nothing_reachable_and_start_collection() -> None:
    async with serving() as rig:  # nothing was ever published
        assert (await rig.keda.spec(reference())).metricSpecs
        assert rig.admitted == [key_of(reference())]


async def test_e09_specs_are_the_same_over_time_restarts_and_servers() -> None:
    seen = set()
    for _start in range(2):
        async with serving() as one, serving() as other:
            for rig in (one, other):
                rig.publish(reference(), 3)
                seen.add((await rig.keda.spec(reference())).SerializeToString())
                rig.clock.at_s += 86_400.0
                rig.publish(reference(), 7)
                seen.add((await rig.keda.spec(reference())).SerializeToString())
    assert len(seen) == 1


async def test_e10_the_name_is_fit_for_a_path_segment() -> None:
    async with serving() as rig:
        (spec,) = (await rig.keda.spec(reference())).metricSpecs
    assert spec.metricName == "vllm-desired-replicas"
    assert not set("/% ") & set(spec.metricName)
    assert len(spec.metricName) <= 63
    assert spec.metricName == spec.metricName.lower()


async def test_e11_order_of_metadata_and_position_of_the_trigger_do_not_matter() -> None:
    async with serving() as rig:
        rig.publish(reference(), 6)
        for order in itertools.permutations(METADATA):
            ref = reference(metadata={key: METADATA[key] for key in order})
            for prefix in ("", "s0-", "s7-"):
                values = (await rig.keda.metrics(ref, prefix + METRIC_NAME)).metricValues
                assert [value.metricValue for value in values] == [6]


@pytest.mark.parametrize("replicas", [0, 1, 250])
async def test_e12_exactly_one_value(replicas: int) -> None:
    async with serving() as rig:
        rig.publish(reference(), replicas)
        assert len((await rig.keda.metrics(reference())).metricValues) == 1


async def test_e13_its_own_metric_in_any_case_and_no_other() -> None:
    async with serving() as rig:
        rig.publish(reference(), 4)
        (spec,) = (await rig.keda.spec(reference())).metricSpecs
        for name in (spec.metricName, spec.metricName.upper(), f"s3-{spec.metricName}"):
            assert (await rig.keda.metrics(reference(), name)).metricValues[0].metricValue == 4
        for name in ("", "queue", f"x-{METRIC_NAME}", f"s0-s1-{METRIC_NAME}", "%", "a" * 5000):
            error = await refused(rig.keda.metrics(reference(), name))
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert METRIC_NAME in (error.details() or "")
