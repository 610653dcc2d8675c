"""What is said of a target, and that it is said once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import structlog

from scaler.config import from_tree
from scaler.core.model import Cause, NoData
from scaler.demo.kube_store import RESOURCE_TYPES
from scaler.service.events import EventReason, EventWriter, Subject
from scaler.service.loop import TickReport
from scaler.service.news import News
from scaler.service.registry import Entry
from tests.service.fakes import NAMESPACE, Fleet, World, counted, key, scaled, world
from tests.signals.kube_fixture import Cluster, cluster

DOWN = NoData(cause=Cause.UNREACHABLE, detail="connection refused")
EVENT = next(type_ for type_ in RESOURCE_TYPES if type_.kind == "Event")


def changed(entry: Entry, **changes: Any) -> TickReport:
    """A report in which one entry's decision is as it is, but for ``changes``."""
    assert entry.decision is not None
    entry.decision = replace(entry.decision, **changes)
    return TickReport(
        at_s=entry.decision.at_s, tick=1, duration_s=0.0, decide_s=0.0, entries=(entry,),
        changed=(), dropped=(),
    )  # fmt: skip


class Noted:
    """Stands at the end of the writer's wire: what was handed over, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[EventReason, str]] = []

    def emit(self, subject: Subject, reason: EventReason, message: str) -> bool:
        assert subject.kind == "ScaledObject"
        self.said.append((reason, message))
        return True


def telling(*names: str, **changes: Any) -> tuple[World, Noted]:
    noted = Noted()
    news = News(noted)
    return world(*names, sinks=(news,), **changes), noted


def reasons(noted: Noted) -> list[str]:
    return [reason.name for reason, _ in noted.said]


async def test_one_line_when_a_decision_changes_and_none_while_it_does_not() -> None:
    made, _ = telling()
    with structlog.testing.capture_logs() as lines:
        await made.tick(10)
        told = [line for line in lines if line["log_level"] == "info"]
        assert len(told) == 1  # the first decision
        assert told[0]["event"].startswith("2 replicas wanted, now 2 (2 ready); ")
        assert told[0]["target"] == "deployment/chat"
        assert (told[0]["replicas"], told[0]["mode"]) == (2, "active")
        made.source.fleets["chat"].requests_per_s = 60.0
        await made.tick(1)
        made.cluster.replicas["chat"] = counted(2)
        assert len([line for line in lines if "replicas" in line]) == 2


async def test_blind_and_recovered_once_each() -> None:
    made, noted = telling()
    await made.tick(2)
    made.source.fleets["chat"].fault = DOWN
    await made.tick(20)  # within the grace and beyond it
    assert reasons(noted) == ["BLIND"]
    assert "connection refused" in noted.said[0][1]
    made.source.fleets["chat"].fault = None
    await made.tick(3)
    assert reasons(noted) == ["BLIND", "RECOVERED"]


async def test_blindness_from_the_start_is_said() -> None:
    made, noted = telling()
    made.source.fleets["chat"] = Fleet(fault=DOWN)
    await made.tick(3)
    assert reasons(noted) == ["BLIND"]


async def test_blindness_is_no_news_of_the_forecast() -> None:
    made, noted = telling()
    await made.tick(1)
    entry = made.entry()
    assert entry.decision is not None
    assert entry.decision.forecast is not None
    (news,) = made.loop.sinks
    used = replace(entry.decision.forecast, used=True)
    for forecast in (used, None, used, None, None, used):
        news.take(changed(entry, forecast=forecast))
    assert reasons(noted) == []


async def test_a_forecast_that_is_dropped_and_taken_up_again() -> None:
    made, noted = telling()
    await made.tick(1)
    entry = made.entry()
    assert entry.decision is not None
    assert entry.decision.forecast is not None
    used = replace(entry.decision.forecast, used=True)
    unused = replace(used, used=False)
    (news,) = made.loop.sinks
    for forecast in (unused, unused, used, used):
        news.take(changed(entry, forecast=forecast))
    assert reasons(noted) == []  # it has earned its use for the first time
    for forecast in (unused, unused, used):
        news.take(changed(entry, forecast=forecast))
    assert reasons(noted) == ["FORECAST_DROPPED", "FORECAST_RESUMED"]


async def test_at_the_maximum_only_a_growing_queue_is_news() -> None:
    made, noted = telling()
    made.cluster.facts[0] = scaled(replicas_max=2)
    chat = made.source.fleets["chat"] = Fleet(waiting=3.0)
    await made.tick(5)
    assert reasons(noted) == []  # full, and the queue stands still
    for waiting in (4.0, 9.0, 7.0, 8.0):
        chat.waiting = waiting
        await made.tick(1)
    assert reasons(noted) == ["AT_MAX"]
    chat.waiting = 0.0
    await made.tick(1)
    chat.waiting = 5.0
    await made.tick(1)
    assert reasons(noted) == ["AT_MAX", "AT_MAX"]  # it was over, and began anew


async def test_replicas_that_cannot_be_scheduled_are_told_in_gpus() -> None:
    made, noted = telling()
    made.source.fleets["chat"] = Fleet(requests_per_s=0.1)
    made.cluster.replicas["chat"] = counted(
        5, ready=2, unschedulable=3, gpus_per_replica=4, gpus_allocatable=8
    )
    await made.tick(4)
    assert reasons(noted) == ["UNSCHEDULABLE"]
    decision = made.entry().decision
    assert decision is not None
    wanted = decision.would_be * 4
    assert noted.said[0][1] == (
        f"3 replicas cannot be scheduled: {wanted} GPUs wanted, 8 allocatable"
    )
    made.cluster.down = DOWN  # what is not seen has not ended
    await made.tick(2)
    made.cluster.down = None
    await made.tick(2)
    assert reasons(noted) == ["UNSCHEDULABLE"]


async def test_a_change_of_mode_is_said_and_the_first_mode_is_not() -> None:
    made, noted = telling()
    await made.tick(2)
    assert reasons(noted) == []
    freeze = {"namespace": NAMESPACE, "target": "deployment/chat", "mode": "frozen"}
    made.registry.reconfigure(from_tree({"targets": [freeze]}))
    await made.tick(2)
    assert noted.said == [(EventReason.MODE_CHANGED, "Mode is now frozen")]


async def test_bad_metadata_is_said_once_for_each_version_of_it() -> None:
    made, noted = telling()
    made.cluster.facts[:] = [scaled("chat", metadata={"ttftSloSeconds": "x"})]
    with structlog.testing.capture_logs() as lines:
        await made.tick(3)
    assert reasons(noted) == ["BAD_METADATA"]
    assert noted.said[0][1] == "ttftSloSeconds = 'x', must be a number in [0.01, 600]"
    assert [line["event"] for line in lines] == ["trigger cannot be used"]


async def test_targets_without_an_object_have_the_log_alone() -> None:
    made, noted = telling()
    made.cluster.facts.clear()
    made.cluster.replicas["x"] = counted(1)
    made.registry.admit(key("called", target="deployment/x"))
    await made.tick(1)
    made.source.fleets["x"].fault = DOWN
    with structlog.testing.capture_logs() as lines:
        await made.tick(1)
    assert "blind" in [line["event"] for line in lines]
    assert noted.said == []


@contextlib.asynccontextmanager
async def heard() -> AsyncIterator[tuple[World, EventWriter, Cluster]]:
    async with cluster() as kube:
        events = EventWriter(kube.client, kube.clock, instance="scaler-0", sleep=kube.sleeps)
        writing = asyncio.create_task(events.run())
        yield world(sinks=(News(events),)), events, kube
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def test_events_are_written_on_the_scaled_object() -> None:
    async with heard() as (made, events, kube):
        await made.tick(2)
        made.source.fleets["chat"].fault = DOWN
        await made.tick(5)
        await events.drain(5.0)
        found = kube.store.list(EVENT)
    assert [(one["reason"], one["count"]) for one in found] == [("SignalsLost", 1)]
    assert found[0]["involvedObject"]["kind"] == "ScaledObject"
    assert (found[0]["involvedObject"]["name"], found[0]["involvedObject"]["uid"]) == (
        "chat",
        "uid-chat",
    )
