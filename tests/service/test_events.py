"""Events: written once, counted, bounded, and never in the way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

from scaler.demo.kube_api import Fault, FaultKind
from scaler.demo.kube_store import RESOURCE_TYPES
from scaler.service.events import (
    ATTEMPTS_MAX,
    EVERY_S,
    QUEUE_MAX,
    SERIES_MAX,
    EventReason,
    EventWriter,
    Subject,
)
from tests.signals.kube_fixture import NOW_S, Cluster, cluster, until

EVENT = next(type_ for type_ in RESOURCE_TYPES if type_.kind == "Event")
CHAT = Subject(
    api_version="keda.sh/v1alpha1", kind="ScaledObject", namespace="ml", name="chat", uid="u-1"
)


def writer(world: Cluster) -> EventWriter:
    return EventWriter(world.client, world.clock, instance="scaler-0", sleep=world.sleeps)


@contextlib.asynccontextmanager
async def running(events: EventWriter) -> AsyncIterator[EventWriter]:
    task = asyncio.create_task(events.run())
    try:
        yield events
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_event_says_who_what_and_when() -> None:
    async with cluster() as world, running(writer(world)) as events:
        assert events.emit(CHAT, EventReason.BLIND, "no samples of 3 pods")
        await events.drain(5.0)
        (event,) = world.store.list(EVENT, "ml")
    assert event["metadata"]["name"].startswith("chat.")
    assert event["involvedObject"] == {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "namespace": "ml",
        "name": "chat",
        "uid": "u-1",
    }
    assert (event["type"], event["reason"]) == ("Warning", "SignalsLost")
    assert (event["message"], event["count"]) == ("no samples of 3 pods", 1)
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2027-01-15T08:00:00Z"
    assert event["source"] == {"component": "vllm-scaler", "host": "scaler-0"}


async def test_good_news_is_no_warning() -> None:
    async with cluster() as world, running(writer(world)) as events:
        events.emit(CHAT, EventReason.RECOVERED, "all signals are back")
        await events.drain(5.0)
        assert [one["type"] for one in world.store.list(EVENT)] == ["Normal"]


async def test_a_repetition_is_counted_and_written_after_ten_minutes_on_the_same_event() -> None:
    async with cluster() as world, running(writer(world)) as events:
        assert events.emit(CHAT, EventReason.BLIND, "first")
        await events.drain(5.0)
        for _ in range(3):
            world.clock.at_s += 60.0
            assert not events.emit(CHAT, EventReason.BLIND, "again")
        await events.drain(5.0)
        assert world.store.list(EVENT)[0]["count"] == 1
        world.clock.at_s = NOW_S + EVERY_S
        assert events.emit(CHAT, EventReason.BLIND, "still")
        await events.drain(5.0)
        (event,) = world.store.list(EVENT)
    assert (event["count"], event["message"]) == (5, "still")  # 1 + 3 + 1
    assert event["firstTimestamp"] == "2027-01-15T08:00:00Z"
    assert event["lastTimestamp"] == "2027-01-15T08:10:00Z"
    assert (events.written, events.suppressed) == (2, 3)


async def test_reasons_and_objects_do_not_silence_each_other() -> None:
    other = Subject(**{name: getattr(CHAT, name) for name in CHAT.__slots__} | {"uid": "u-2"})
    async with cluster() as world, running(writer(world)) as events:
        assert events.emit(CHAT, EventReason.BLIND, "a")
        assert events.emit(CHAT, EventReason.RECOVERED, "b")
        assert events.emit(other, EventReason.BLIND, "c")
        await events.drain(5.0)
        assert len(world.store.list(EVENT)) == 3


async def test_an_event_that_has_expired_is_written_anew() -> None:
    async with cluster() as world, running(writer(world)) as events:
        events.emit(CHAT, EventReason.BLIND, "first")
        await events.drain(5.0)
        world.store.delete(EVENT, "ml", world.store.list(EVENT)[0]["metadata"]["name"])
        world.clock.at_s += EVERY_S
        events.emit(CHAT, EventReason.BLIND, "second")
        await events.drain(5.0)
        assert [one["message"] for one in world.store.list(EVENT)] == ["second"]


async def test_a_server_that_fails_for_a_moment_gets_another_try() -> None:
    async with cluster() as world:
        world.api.faults.append(Fault(kind=FaultKind.STATUS))
        world.sleeps.open.clear()
        async with running(writer(world)) as events:
            events.emit(CHAT, EventReason.BLIND, "x")
            await until(lambda: bool(world.sleeps.asked_s))
            world.api.faults.clear()
            world.sleeps.open.set()
            await events.drain(5.0)
            assert (events.written, events.failed) == (1, 0)


async def test_a_server_that_is_away_costs_a_bounded_number_of_attempts() -> None:
    async with cluster() as world:
        await world.api.stop()
        async with running(writer(world)) as events:
            events.emit(CHAT, EventReason.BLIND, "x")
            events.emit(CHAT, EventReason.AT_MAX, "y")
            await events.drain(5.0)
            assert events.failed == 2
            assert world.sleeps.asked_s == [2.0, 4.0] * 2  # two pauses between three attempts
            assert len(world.sleeps.asked_s) == 2 * (ATTEMPTS_MAX - 1)


async def test_a_refusal_is_not_repeated() -> None:
    async with cluster() as world, running(writer(world)) as events:
        world.api.faults.append(Fault(kind=FaultKind.STATUS, status=HTTPStatus.FORBIDDEN))
        events.emit(CHAT, EventReason.BLIND, "x")
        await events.drain(5.0)
        assert events.failed == 1
        assert sum("POST" in line for line in world.api.requests) == 1


async def test_the_queue_is_bounded_and_emitting_never_waits() -> None:
    async with cluster() as world:
        events = writer(world)  # nobody writes
        for number in range(QUEUE_MAX + 10):
            subject = Subject(
                api_version="v1", kind="Pod", namespace="ml", name=f"p-{number}", uid=str(number)
            )
            assert events.emit(subject, EventReason.BLIND, "x") is (number < QUEUE_MAX)
        assert events.dropped == 10
        last = subject
        async with running(events):
            await events.drain(10.0)
            world.clock.at_s += EVERY_S
            assert events.emit(last, EventReason.BLIND, "x")  # dropped is not silenced for ever


async def test_what_is_remembered_is_bounded() -> None:
    async with cluster() as world:
        events = writer(world)
        for number in range(SERIES_MAX + 50):
            subject = Subject(
                api_version="v1", kind="Pod", namespace="ml", name=f"p-{number}", uid=str(number)
            )
            events.emit(subject, EventReason.BLIND, "x")
        assert len(events._series) == SERIES_MAX


async def test_long_messages_and_names_are_cut_to_what_the_api_takes() -> None:
    long = Subject(api_version="v1", kind="Pod", namespace="ml", name="n" * 253, uid="u")
    async with cluster() as world, running(writer(world)) as events:
        events.emit(long, EventReason.BLIND, "m" * 5000)
        await events.drain(5.0)
        (event,) = world.store.list(EVENT)
    assert len(event["metadata"]["name"]) == 253
    assert len(event["message"]) == 1024


async def test_draining_ends_when_its_time_is_over() -> None:
    async with cluster() as world:
        events = writer(world)
        events.emit(CHAT, EventReason.BLIND, "x")
        await events.drain(0.005)  # nobody writes
        assert events.written == 0
