"""What KEDA and the HPA demand of an external scaler, checks 14 to 23: values and activity."""

import asyncio

import grpc
import pytest

from scaler.core.hpa import average_value_proposal
from scaler.core.hpa_encoding import encode, keda_milli
from scaler.core.hpa_spec import Tolerances, Version
from scaler.service.board import AnswerState
from tests.service.keda import EXPIRY_S, Rig, key_of, reference, refused, serving, until


async def refusals(rig: Rig) -> list[str]:
    """What GetMetrics and IsActive say while neither may answer."""
    errors = [
        await refused(rig.keda.metrics(reference())),
        await refused(rig.keda.active(reference())),
    ]
    assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
    return [error.details() or "" for error in errors]


async def test_e14_no_stale_or_blind_data_is_ever_a_zero() -> None:
    async with serving() as rig:
        assert all("collection starts" in text for text in await refusals(rig))
        rig.publish(reference(), 0, state=AnswerState.PENDING)
        assert all("no decision yet" in text for text in await refusals(rig))
        rig.publish(reference(), 0, state=AnswerState.UNKNOWN, reason="blind at zero")
        assert all("(blind at zero)" in text for text in await refusals(rig))
        rig.publish(reference(), 0, state=AnswerState.UNKNOWN, reason="label " * 1000)
        assert {len(text) for text in await refusals(rig)} == {1024}  # what an event may hold
        rig.publish(reference(), 5)
        rig.clock.at_s += EXPIRY_S  # as old as allowed
        assert (await rig.keda.metrics(reference())).metricValues[0].metricValue == 5
        rig.clock.at_s += 15.0
        assert all("too old, 60 s old" in text for text in await refusals(rig))  # 45 + 15


async def test_e15_calls_advance_nothing() -> None:
    async with serving() as rig:
        rig.publish(reference(), 12, double=11.01)
        before = dict(rig.board.entries)
        answers = {(await rig.keda.metrics(reference())).SerializeToString() for _ in range(50)}
        states = {await rig.keda.active(reference()) for _ in range(50)}
        assert len(answers) == len(states) == 1
        assert rig.board.entries == before


async def test_e16_polls_and_hpa_reads_of_many_objects_do_not_mix() -> None:
    async with serving() as rig:
        refs = [reference(f"chat-{number}") for number in range(40)]
        for number, ref in enumerate(refs):
            rig.publish(ref, number + 1)
        paths = [rig.keda.answer(ref) for ref in refs for _path in ("poll", "hpa")]
        answers = await asyncio.gather(*paths)
        # Objects 0 to 39 want 1 to 40, each read on both paths.
        assert [answer.integer for answer in answers] == [n for n in range(1, 41) for _ in "ph"]


async def test_e17_hung_collection_delays_no_call_and_a_cancelled_call_is_let_go() -> None:
    async with serving() as rig:

        async def collect_for_ever() -> None:
            await asyncio.Event().wait()

        collection = asyncio.create_task(collect_for_ever())
        rig.publish(reference(), 3)
        answers = await asyncio.gather(*(rig.keda.answer(reference()) for _ in range(100)))
        assert {answer.integer for answer in answers} == {3}
        stream = rig.keda.stub.StreamIsActive(reference())
        await stream.read()
        assert rig.servicer.streams_open == 1
        stream.cancel()
        await until(lambda: not rig.servicer.streams_open)
        assert not collection.done()
        collection.cancel()


@pytest.mark.parametrize("replicas", [0, 1, 99, 100_000, 2**31 - 1])
async def test_e18_zero_and_counts_beyond_any_maximum_are_reported_as_they_are(
    replicas: int,
) -> None:
    async with serving() as rig:
        rig.publish(reference(), replicas)
        (value,) = (await rig.keda.metrics(reference())).metricValues
        assert (value.metricValue, value.metricValueFloat) == (replicas, float(replicas))


async def test_e19_the_hpa_lands_on_every_count_outside_its_tolerance() -> None:
    tolerances = Tolerances()
    async with serving() as rig:
        for desired in range(1001):
            rig.publish(reference(), desired)
            (value,) = (await rig.keda.metrics(reference())).metricValues
            milli = keda_milli(
                integer=value.metricValue, double=value.metricValueFloat, keda=Version(2, 20)
            )
            for status in {1, 2, 9, 10, 11, 19, 20, 50, 100, 999, max(1, desired - 1), desired + 1}:
                if not tolerances.holds(desired / status):
                    assert desired == average_value_proposal(
                        usage_milli=milli,
                        target_milli=1000,
                        status_replicas=status,
                        tolerances=tolerances,
                    )


@pytest.mark.parametrize("keda", [Version(2, 19), Version(2, 20), Version(2, 20, 2)])
async def test_e19_every_step_down_from_up_to_19_lands(keda: Version) -> None:
    tolerances = Tolerances()
    async with serving() as rig:
        for status in range(2, 20):
            for desired in range(1, status):
                sent = encode(
                    desired=desired,
                    status_replicas=status,
                    spec_replicas=status,
                    tolerances=tolerances,
                )
                rig.publish(reference(), sent.integer, double=sent.double)
                (value,) = (await rig.keda.metrics(reference())).metricValues
                usage_milli = keda_milli(
                    integer=value.metricValue, double=value.metricValueFloat, keda=keda
                )
                assert desired == average_value_proposal(
                    usage_milli=usage_milli,
                    target_milli=1000,
                    status_replicas=status,
                    tolerances=tolerances,
                )


async def test_e20_wanted_replicas_are_always_active() -> None:
    async with serving() as rig:
        for replicas, active in ((0, False), (0, True), (1, True), (7, True)):
            rig.publish(reference(), replicas, active=active)
            answer = await rig.keda.answer(reference())
            assert (answer.integer, answer.active) == (replicas, active)
        with pytest.raises(AssertionError):
            rig.publish(reference(), 1, active=False)


async def test_e21_inactive_is_said_only_where_it_is_known() -> None:
    async with serving() as rig:
        rig.publish(reference(), 0, active=False)
        assert await rig.keda.active(reference()) is False
        rig.publish(reference(), 0, active=False, state=AnswerState.UNKNOWN)
        await refusals(rig)
        rig.publish(reference(), 0, active=False)
        rig.clock.at_s += EXPIRY_S + 1.0
        await refusals(rig)


async def test_e22_at_zero_replicas_the_board_answers_and_wakes() -> None:
    async with serving() as rig:
        rig.publish(reference(), 0, active=False)
        assert await rig.keda.active(reference()) is False
        rig.publish(reference(), 1)
        assert await rig.keda.active(reference()) is True


async def test_e23_activity_is_answered_wherever_the_metric_is() -> None:
    async with serving() as rig:
        for replicas in range(30):
            rig.publish(reference(), replicas, active=True)
            rig.clock.at_s += 15.0
            answer = await rig.keda.answer(reference())
            assert answer.integer == replicas
            assert answer.active
        entry = rig.board.entries[key_of(reference())]
        rig.clock.at_s = entry.at_s + EXPIRY_S + 1.0
        await refusals(rig)  # and both fail together
