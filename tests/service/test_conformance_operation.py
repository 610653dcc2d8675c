"""What KEDA and the HPA demand of an external scaler, checks 24 to 41: streams to faults."""

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scaler._generated import externalscaler_pb2 as pb
from scaler.config import GrpcConfig
from scaler.core.hpa import average_value_proposal
from scaler.core.hpa_encoding import encode
from scaler.core.hpa_spec import Tolerances
from scaler.service.board import AnswerState
from scaler.service.server import SERVICE, ServerLimits
from scaler.service.streams import StreamTimes
from simulations.actuation import Answer, Failure, KedaActuator, Scale
from simulations.scaled_object import ClusterSpec, Fallback, ScaledObjectSpec
from tests.service.keda import METADATA, Keda, key_of, reference, refused, serving, until
from tests.service.wires import GOAWAY, BareClient, wire_to

EOF = grpc.aio.EOF  # type: ignore[attr-defined]  # not in the stubs
LOCAL = (("grpc.use_local_subchannel_pool", 1),)


async def test_e24_a_stream_tells_the_present_state_and_then_each_activation() -> None:
    async with serving() as rig:
        rig.publish(reference(), 2)
        stream = rig.keda.stub.StreamIsActive(reference())
        assert (await stream.read()).result is True
        rig.publish(reference(), 3)  # still active: nothing
        rig.publish(reference(), 0)  # a change to inactive: nothing
        rig.publish(reference(), 0)
        rig.publish(reference(), 1)  # the second message
        assert (await stream.read()).result is True
        rig.publish(reference(), 4)
        rig.servicer.end_streams()
        assert await stream.read() is EOF  # so there was no third
        assert await stream.code() is grpc.StatusCode.OK


async def test_e24_a_stream_of_an_unknown_trigger_waits_for_its_first_state() -> None:
    async with serving() as rig:
        stream = rig.keda.stub.StreamIsActive(reference())
        await until(lambda: rig.servicer.streams_open == 1)
        assert rig.admitted == [key_of(reference())]
        rig.publish(reference(), 0, state=AnswerState.UNKNOWN)
        rig.publish(reference(), 0)
        assert (await stream.read()).result is False
        bad = rig.keda.stub.StreamIsActive(reference(metadata={"model": "m"}))
        assert (await refused(bad.read())).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_e25_hundreds_of_streams_on_one_connection_beside_the_polls() -> None:
    async with serving() as rig:
        refs = [reference(f"chat-{number}") for number in range(300)]
        streams = [rig.keda.stub.StreamIsActive(ref) for ref in refs]
        await until(lambda: rig.servicer.streams_open == 300)
        for ref in refs:
            rig.publish(ref, 1)
        answers = await asyncio.gather(*(rig.keda.answer(ref) for ref in refs[:20]))
        assert {answer.integer for answer in answers} == {1}
        states = await asyncio.gather(*(stream.read() for stream in streams))
        assert [state.result for state in states] == [True] * 300


async def test_e25_streams_of_a_client_that_fell_silent_are_freed() -> None:
    limits = ServerLimits(keepalive_s=0.1, keepalive_timeout_s=1.0)  # a busy machine answers late
    async with (
        serving(limits=limits) as rig,
        wire_to(rig.address) as wire,
        grpc.aio.insecure_channel(wire.address, options=LOCAL) as channel,
    ):
        stream = Keda(channel).stub.StreamIsActive(reference())
        await until(lambda: rig.servicer.streams_open == 1)
        wire.silent = True  # the connection stays open: only missing pings tell
        await until(lambda: rig.servicer.streams_open == 0)
        assert ("StreamIsActive", grpc.StatusCode.CANCELLED) in rig.observed
        stream.cancel()


async def test_e26_shutdown_ends_streams_with_ok_and_refuses_new_calls() -> None:
    async with serving(limits=ServerLimits(drain_s=0.2)) as rig:
        rig.publish(reference(), 1)
        streams = [
            rig.keda.stub.StreamIsActive(reference()),
            rig.keda.stub.StreamMetricSpec(reference()),
        ]
        for stream in streams:
            await stream.read()
        bare = await BareClient.connect(rig.address)
        await rig.server.stop()  # takes the whole drain: the bare client does not hang up
        for stream in streams:
            assert await stream.read() is EOF
            assert await stream.code() is grpc.StatusCode.OK
        assert GOAWAY in await bare.frames_until(GOAWAY)
        bare.close()
        assert (await refused(rig.keda.spec(reference()))).code() is grpc.StatusCode.UNAVAILABLE


async def test_e26_an_aged_connection_is_renewed_without_breaking_streams_or_calls() -> None:
    config = GrpcConfig(address="127.0.0.1:0", connection_age_max_s=0.05)
    async with serving(config=config) as rig, wire_to(rig.address) as wire:
        rig.publish(reference(), 1)
        async with grpc.aio.insecure_channel(wire.address, options=LOCAL) as channel:
            keda = Keda(channel)
            stream = keda.stub.StreamIsActive(reference())
            assert (await stream.read()).result is True
            while wire.accepted < 3:  # two GOAWAYs later
                assert (await keda.metrics(reference())).metricValues[0].metricValue == 1
            rig.publish(reference(), 0)
            rig.publish(reference(), 1)
            assert (await stream.read()).result is True  # on the first connection still
            stream.cancel()


async def test_e26_a_stream_ends_with_ok_at_the_end_of_its_term() -> None:
    async with serving(times=StreamTimes(term_s=0.05)) as rig:
        for call in (rig.keda.stub.StreamIsActive, rig.keda.stub.StreamMetricSpec):
            stream = call(reference())
            while await stream.read() is not EOF:
                pass
            assert await stream.code() is grpc.StatusCode.OK
    assert ServerLimits().connection_grace_s > StreamTimes().term_s  # else it would be cut


async def test_e27_streamed_specs_come_at_once_and_equal_the_asked_ones() -> None:
    async with serving() as rig:
        stream = rig.keda.stub.StreamMetricSpec(reference())
        assert await stream.read() == await rig.keda.spec(reference())
        rig.publish(reference(), 9)
        assert rig.servicer.streams_open == 1  # nothing more to tell, and open
        rig.servicer.end_streams()
        assert await stream.read() is EOF


async def test_e28_kedas_own_keys_are_accepted_and_ours_may_be_missing() -> None:
    own = {"scalerAddress": "a:1", "enableTLS": "true", "unsafeSsl": "false", "caCert": "x"}
    async with serving() as rig:
        rig.publish(reference(metadata={}), 8)
        assert await rig.keda.read(reference(metadata=own)) == Answer(
            integer=8, double=8.0, active=True
        )


async def test_e29_two_triggers_of_one_object_do_not_mix_and_the_deleted_are_forgotten() -> None:
    prefill, decode = (
        reference(metadata={"role": "prefill"}),
        reference(metadata={"role": "decode"}),
    )
    async with serving() as rig:
        rig.publish(prefill, 2)
        rig.publish(decode, 5)
        answers = [await rig.keda.answer(ref) for ref in (prefill, decode)]
        assert [answer.integer for answer in answers] == [2, 5]
        rig.board.drop(key_of(prefill))
        assert await rig.keda.read(prefill) is Failure.METRICS
        assert (await rig.keda.answer(decode)).integer == 5


async def test_e30_keys_from_the_environment_stand_for_the_plain_ones() -> None:
    async with serving() as rig:
        rig.publish(reference(metadata={"modelName": "m"}), 4)
        answer = await rig.keda.answer(reference(metadata={"modelNameFromEnv": "m"}))
        assert answer.integer == 4


async def test_e31_bad_metadata_names_every_key_value_and_range() -> None:
    bad = reference("Chat_", namespace="", metadata={})
    error = await one_refusal(bad)
    assert "namespace = ''" in error
    assert "name = 'Chat_'" in error
    error = await one_refusal(reference(metadata={"ttftSloSeconds": "-1", "modelname": "m"}))
    assert "ttftSloSeconds = '-1', must be a number in [" in error
    assert "'modelname'; did you mean 'modelName'?" in error
    error = await one_refusal(reference(metadata={f"k{n}": "v" * 60 for n in range(200)}))
    assert "200 entries, must be at most 128" in error
    many = await one_refusal(reference(metadata={f"strange{n}": "v" for n in range(9)}))
    assert all(f"strange{n}" in many for n in range(9))  # a long list of one hides no other
    assert len(many) <= 1024


async def one_refusal(ref: pb.ScaledObjectRef) -> str:
    """What all three methods say of ``ref``."""
    async with serving() as rig:
        said = set()
        for call in (rig.keda.spec, rig.keda.metrics, rig.keda.active):
            error = await refused(call(ref))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            said.add(error.details() or "")
    (text,) = said
    return text


async def test_e32_changed_metadata_takes_effect_at_the_next_call() -> None:
    async with serving() as rig:
        rig.publish(reference(), 3)
        assert (await rig.keda.answer(reference())).integer == 3
        changed = reference(metadata={**METADATA, "ttftSloSeconds": "4"})
        assert await rig.keda.read(changed) is Failure.METRICS  # not the old trigger's answer
        rig.publish(changed, 2)
        assert (await rig.keda.answer(changed)).integer == 2


async def test_e33_values_from_the_environment_are_never_repeated() -> None:
    secret = "hunter2-hunter2"
    for key in ("ttftSloSecondsFromEnv", "targetFromEnv", "profileFromEnv", "passwordFromEnv"):
        text = await one_refusal(reference(metadata={key: secret}))
        assert secret not in text
        assert key.removesuffix("FromEnv") in text


async def test_e34_after_a_restart_errors_until_the_first_answer_never_zeros() -> None:
    async with serving() as rig:
        rig.publish(reference(), 6)
        assert (await rig.keda.answer(reference())).integer == 6
    async with serving() as rig:
        assert await rig.keda.read(reference()) is Failure.METRICS
        rig.publish(reference(), 6)
        assert (await rig.keda.answer(reference())).integer == 6


async def test_e35_calls_spread_over_two_servers_with_one_snapshot_agree() -> None:
    async with serving() as leader, serving() as follower:
        for replicas in (3, 4, 0):
            leader.publish(reference(), replicas)
            follower.board.publish(leader.board.entries)
            answers = [await leader.keda.read(reference()), await follower.keda.read(reference())]
            assert answers[0] == answers[1]


async def test_e36_health_says_serving_only_when_answers_are_real() -> None:
    state = health_pb2.HealthCheckResponse
    async with serving() as rig:
        stub = health_pb2_grpc.HealthStub(rig.channel)

        async def healths() -> set[int]:
            asked = [health_pb2.HealthCheckRequest(service=name) for name in ("", SERVICE)]
            return {(await stub.Check(request)).status for request in asked}

        assert await healths() == {state.NOT_SERVING}
        await rig.server.set_serving(serving=True)
        assert await healths() == {state.SERVING}
        await rig.server.set_serving(serving=False)
        assert await healths() == {state.NOT_SERVING}


async def test_e37_bursts_of_retries_cost_one_parse_and_one_admitted_key() -> None:
    async with serving() as rig:
        for _burst in range(20):
            assert await rig.keda.read(reference()) is Failure.METRICS
        assert set(rig.admitted) == {key_of(reference())}
        assert rig.parse.calls == 1
        bad = reference(metadata={"ttftSloSeconds": "soon"})
        for _burst in range(20):
            assert await rig.keda.read(bad) is Failure.SPEC
        assert rig.parse.calls == 2


async def test_e38_fallback_acts_on_our_errors_and_never_lowers_the_count() -> None:
    fallback = Fallback(failure_threshold=3, replicas=5)
    keda = KedaActuator.of(
        ScaledObjectSpec(replicas_min=1, fallback=fallback, polling_interval_s=15.0), ClusterSpec()
    )
    now_s, scale = 0.0, Scale(spec_replicas=3, status_replicas=3, ready_pods=3)
    state = keda.start(now_s=now_s)
    counts = []
    async with serving() as rig:  # nothing published: UNAVAILABLE, while GetMetricSpec answers
        for _tick in range(4):
            read = await rig.keda.read(reference())
            state = keda.poll(state, now_s=now_s, answer=read, scale=scale).state
            synced = keda.hpa_sync(state, now_s=now_s, answer=read, scale=scale)
            state, now_s = synced.state, now_s + 15.0
            scale = Scale(
                spec_replicas=synced.replicas, status_replicas=synced.replicas, ready_pods=3
            )
            counts.append(synced.replicas)
    # Failures 1, 2 | 3, 4: the fourth exceeds the threshold of 3, in the second sync.
    assert counts == [3, 5, 5, 5]


async def test_e38_cached_metrics_leave_the_spec_call_alone_to_the_hpa() -> None:
    keda = KedaActuator.of(ScaledObjectSpec(use_cached_metrics=True), ClusterSpec())
    scale = Scale(spec_replicas=3, status_replicas=3, ready_pods=3)
    async with serving() as rig:
        rig.publish(reference(), 6)
        state = keda.poll(
            keda.start(now_s=0.0), now_s=0.0, answer=await rig.keda.read(reference()), scale=scale
        ).state
        rig.publish(reference(), 1)
        await rig.keda.spec(reference())
        synced = keda.hpa_sync(
            state, now_s=15.0, answer=await rig.keda.read(reference()), scale=scale
        )
    assert synced.replicas == 6  # the polled answer, up to a polling interval old


async def test_e39_without_the_replicas_the_plain_count_is_served() -> None:
    sent = encode(desired=9, status_replicas=None, spec_replicas=None, tolerances=Tolerances())
    async with serving() as rig:
        rig.publish(reference(), sent.integer, double=sent.double)
        answer = await rig.keda.answer(reference())
        assert answer == Answer(integer=9, double=9.0, active=True)


@pytest.mark.parametrize("status", [10, 11, 12])
async def test_e40_a_surge_in_the_status_does_not_feed_back(status: int) -> None:
    # A rollout of 10 with surge: the HPA would take 11 for the count at a plain 10 (10/11 > 0.9).
    async with serving() as rig:
        sent = encode(desired=10, status_replicas=11, spec_replicas=10, tolerances=Tolerances())
        rig.publish(reference(), sent.integer, double=sent.double)
        answer = await rig.keda.answer(reference())
    proposal = average_value_proposal(
        usage_milli=round(answer.double * 1000),
        target_milli=1000,
        status_replicas=status,
        tolerances=Tolerances(),
    )
    assert proposal == 10


async def test_e41_equal_decisions_are_equal_bit_by_bit() -> None:
    async with serving() as rig:
        seen = set()
        for _tick in range(200):
            rig.publish(reference(), 10, double=9.01)
            rig.clock.at_s += 15.0
            seen.add((await rig.keda.metrics(reference())).SerializeToString())
        assert len(seen) == 1
