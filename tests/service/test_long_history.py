"""The past read back: after the first answer, gently, and never at any price."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import floor
from pathlib import Path
from typing import Any

import pytest
import structlog

from scaler.core.config import CapacityConfig, ForecastConfig
from scaler.core.forecast import ForecastState, prime
from scaler.core.policy import PolicyState
from scaler.service.board import Published
from scaler.service.long_history import BATCH, SERIES, LongHistory, held_s
from scaler.service.metrics_table import REFERENCE_WORK
from scaler.service.registry import Entry, entry_id, state_name, watched_key
from scaler.service.telemetry import Telemetry
from scaler.signals.dcgm import DcgmReader
from scaler.signals.prometheus import PrometheusSource
from scaler.signals.readers import Readers
from scaler.signals.settings import PrometheusSettings
from scaler.signals.vllm import VllmReader
from tests.service.fakes import START_S, HandClock, MemoryCluster, World, counted, scaled, world
from tests.service.test_daemon import CHAT, engines, running, written
from tests.service.test_telemetry import values
from tests.signals.fake_prometheus import (
    Answering,
    Canned,
    FakePrometheus,
    Fault,
    Seen,
    error,
    success,
    vector,
)

DAY_S = 86400.0
FUTURE = [[START_S + 1e9 + 60.0 * place, "1"] for place in range(200)]
Shape = Callable[[float], float]
Labels = dict[str, str]


def office(at_s: float) -> float:
    """Five replicas' worth from 08:00 to 20:00, one at night."""
    return 5.0 if 8 * 3600.0 <= at_s % DAY_S < 20 * 3600.0 else 1.0


# Half hours of the day: 16 before 08:00, 24 until 20:00, 8 until midnight.
OFFICE_SLOTS = (1.0,) * 16 + (5.0,) * 24 + (1.0,) * 8
EDGED = partial(pytest.approx, abs=4.0 / 30.0 + 1e-9)  # one minute in 30 on either side of an edge


def labels_of(entry: Entry) -> Labels:
    return {"target_namespace": "llm", "target": entry.label, "trigger": entry.id}


def matrix(seen: Seen, rows: Sequence[Labels], shape: Shape, *, since_s: float) -> Canned:
    """What a server that has ``shape`` from ``since_s`` on answers to a range query."""
    start_s, end_s, step_s = (float(seen.form[name]) for name in ("start", "end", "step"))
    times = [start_s + place * step_s for place in range(floor((end_s - start_s) / step_s) + 1)]
    points = [[at_s, str(shape(at_s))] for at_s in times if at_s >= since_s]
    return success("matrix", [{"metric": row, "values": points} for row in rows] if points else [])


def serving(
    rows: Sequence[Labels], *, clock: HandClock, ahead_s: float = 0.0, days: float = 2.0
) -> Answering:
    """A server with so many days of ``office``, its clock ``ahead_s`` before ours."""

    def answering(seen: Seen) -> Canned:
        if seen.path.endswith("query_range"):
            return matrix(seen, rows, office, since_s=START_S + ahead_s - days * DAY_S)
        if seen.query == "time()":
            return success("scalar", [0, str(clock.at_s + ahead_s)])
        return vector([])

    return answering


class Rig:
    """A world whose loop tells a LongHistory that asks one fake server."""

    def __init__(
        self,
        *names: str,
        answering: Answering | None = None,
        policy: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        self.leads = True
        self.server = FakePrometheus(answering or (lambda _seen: vector([])))
        settings = PrometheusSettings(
            url=self.server.url, queries_in_flight=1, retry_backoff_s=0.0, attempt_timeout_s=5.0
        )
        self.world: World = world(*names, settings={"policy": policy} if policy else None)
        self.history = LongHistory(
            [
                PrometheusSource(
                    replace(settings, **changes), Readers(engine=VllmReader(), gpu=DcgmReader())
                )
            ],
            self.world.clock,
            read_days=14.0,
            leads=lambda: self.leads,
            retry_s=0.001,
        )
        self.world.loop.sinks = (self.history,)

    @property
    def forecast(self) -> ForecastState:
        return self.world.entry().state.forecast

    @property
    def ranges(self) -> list[Seen]:
        return [seen for seen in self.server.seen if seen.path.endswith("query_range")]

    async def serve(self, **changes: Any) -> None:
        """One tick, so that the entries exist, and a server that has the past of all of them."""
        await self.world.tick()
        rows = [labels_of(entry) for entry in self.world.registry.entries.values()]
        self.server.answering = serving(rows, clock=self.world.clock, **changes)


@contextmanager
def rig(*names: str, answering: Answering | None = None, **changes: Any) -> Iterator[Rig]:
    made = Rig(*names, answering=answering, **changes)
    with made.server:
        yield made


def slots(state: ForecastState) -> tuple[float, ...]:
    assert state.known is not None
    return state.known.day.slots


async def test_the_next_decision_knows_the_day() -> None:
    with rig() as made:
        await made.serve()
        await made.world.tick()
        assert held_s(made.forecast) == 0.0
        await made.history.read()
        assert held_s(made.forecast) == 0.0  # the loop's task alone puts it in place
        with structlog.testing.capture_logs() as lines:
            await made.world.tick()
        assert slots(made.forecast) == EDGED(OFFICE_SLOTS)
        assert held_s(made.forecast) == pytest.approx(2 * DAY_S, rel=0.05)
        (line,) = lines
        assert line["log_level"] == "info"
        assert line["read_days"] == pytest.approx(2.0, abs=0.01)
        await made.world.tick()  # decides from it
        assert slots(made.forecast) == EDGED(OFFICE_SLOTS)
        assert made.world.entry().decision is not None
        await made.world.tick(3)
        await made.history.read()
        assert len(made.ranges) == 29  # 14 days by halves and the minute that is now, never again
        await made.history.close()


async def test_the_past_is_placed_on_our_clock() -> None:
    with rig() as made:
        await made.serve(ahead_s=3600.0)
        await made.world.tick()
        await made.history.read()
        await made.world.tick()
        # The server's 08:00 is our 07:00: two half hours earlier.
        assert slots(made.forecast) == EDGED(OFFICE_SLOTS[2:] + OFFICE_SLOTS[:2])
        await made.history.close()


async def test_many_targets_are_asked_for_in_bounded_queries_one_at_a_time() -> None:
    names = [f"m-{place}" for place in range(2 * BATCH + 1)]
    in_flight, most, lock = 0, 0, threading.Lock()
    with rig(*names) as made:
        await made.serve(days=0.2)
        answer = made.server.answering

        def counting(seen: Seen) -> Canned:
            nonlocal in_flight, most
            with lock:
                in_flight += 1
                most = max(most, in_flight)
            try:
                return answer(seen)
            finally:
                with lock:
                    in_flight -= 1

        made.server.answering = counting
        await made.world.tick()
        await made.history.read()
        assert most == 1
        assert len({seen.query for seen in made.ranges}) == 3  # 10, 10 and 1 targets
        for seen in made.ranges:
            start_s, end_s, step_s = (float(seen.form[key]) for key in ("start", "end", "step"))
            assert step_s == 60.0
            assert (end_s - start_s) / step_s + 1 <= 11_000
        begins = sorted({float(seen.form["start"]) for seen in made.ranges})
        assert begins[0] == made.world.clock.at_s // 60 * 60 - 14 * DAY_S
        assert {late - early for early, late in pairwise(begins)} == {DAY_S / 2.0}
        await made.world.tick()
        held = {held_s(entry.state.forecast) for entry in made.world.registry.entries.values()}
        assert min(held) > 0.1 * DAY_S
        await made.history.close()


def broken(body: bytes) -> Answering:
    return lambda seen: (
        Canned(body=body)
        if seen.path.endswith("query_range")
        else success("scalar", [0, str(START_S)])
    )


def everything(canned: Canned) -> Answering:
    return lambda _seen: canned


def odd(*values: Any) -> Answering:
    """A server that has these values, one a minute, under any labels asked for."""

    def answering(seen: Seen) -> Canned:
        if not seen.path.endswith("query_range"):
            return success("scalar", [0, str(START_S)])
        start_s = float(seen.form["start"])
        points = [[start_s + 60.0 * n, str(values[n % len(values)])] for n in range(200)]
        return success("matrix", [{"metric": labels_of_chat(), "values": points}])

    return answering


def labels_of_chat() -> Labels:
    return {
        "target_namespace": "llm",
        "target": "deployment/chat",
        "trigger": entry_id(watched_key(scaled())),
    }


async def test_the_server_of_odd_values_is_believed_when_they_are_not() -> None:
    """The control of the cases below: the same rows with sound values are taken."""
    with rig(answering=odd(2.0)) as made:
        await made.world.tick(2)
        await made.history.read()
        await made.world.tick()
        assert held_s(made.forecast) > 0.0
        await made.history.close()


@pytest.mark.parametrize(
    ("answering", "said"),
    [
        pytest.param(everything(error(503, "unavailable", "starting")), "starting", id="not-ready"),
        pytest.param(everything(Canned(fault=Fault.RESET)), "cannot be reached", id="reset"),
        pytest.param(everything(Canned(fault=Fault.HANG)), "no whole answer", id="hangs"),
        pytest.param(everything(Canned(body=b"<html>")), "not the JSON", id="not-the-api"),
        pytest.param(broken(b'{"status":"success","data":{'), "not the JSON", id="cut"),
        pytest.param(
            broken(success("vector", []).body), "resultType", id="no-matrix"
        ),
        pytest.param(broken(success("matrix", []).body), "no values of", id="no-such-series"),
        pytest.param(
            broken(success("matrix", [{"metric": {"target": "other"}, "values": [[1, "1"]]}]).body),
            "no values of",
            id="somebody-else",
        ),
        pytest.param(odd("NaN", "+Inf", "-1", "1e30"), "no values of", id="no-demand"),
        pytest.param(
            broken(success("matrix", [{"metric": labels_of_chat(), "values": FUTURE}]).body),
            "no values of",
            id="from-the-future",
        ),
    ],
)  # fmt: skip
async def test_what_goes_wrong_changes_nothing_and_is_said_once(
    answering: Answering, said: str
) -> None:
    with rig(answering=answering, attempt_timeout_s=0.1, timeout_s=0.2) as made:
        await made.world.tick(2)
        before = made.forecast
        with structlog.testing.capture_logs() as lines:
            await made.history.read()
            assert made.forecast is before
            await made.world.tick()
            await made.history.read()
            await made.world.tick()
        (line,) = lines
        assert line["log_level"] == "info"
        assert line["targets"] == ["llm/deployment/chat"]
        assert said in line["reason"]
        assert held_s(made.forecast) == 0.0
        await made.history.close()


async def test_a_gap_in_the_past_is_no_fault() -> None:
    with rig() as made:
        await made.serve()
        answer = made.server.answering

        def gaping(seen: Seen) -> Canned:
            canned = answer(seen)
            if not seen.path.endswith("query_range"):
                return canned
            tree = json.loads(canned.body)
            for row in tree["data"]["result"]:  # nothing between 10:00 and 12:00
                row["values"] = [
                    one for one in row["values"] if not 36_000 <= one[0] % DAY_S < 43_200
                ]
            return replace(canned, body=json.dumps(tree).encode())

        made.server.answering = gaping
        await made.world.tick()
        await made.history.read()
        await made.world.tick()
        found = slots(made.forecast)
        assert found[:20] == EDGED(OFFICE_SLOTS[:20])
        assert found[20:24] == (-1.0,) * 4  # not known, and not zero
        assert found[24:] == EDGED(OFFICE_SLOTS[24:])
        await made.history.close()


async def test_a_server_that_comes_later_is_asked_again_by_itself() -> None:
    with rig() as made:
        await made.serve()
        good, refused = made.server.answering, 0

        def late(seen: Seen) -> Canned:
            nonlocal refused
            refused += 1
            # Each round tries twice: two rounds fail, and the second is not said again.
            return error(503, "unavailable", "starting") if refused <= 4 else good(seen)

        made.server.answering = late
        await made.world.tick()
        task = asyncio.create_task(made.history.run())
        with structlog.testing.capture_logs() as lines:
            async with asyncio.timeout(10.0):
                while held_s(made.forecast) == 0.0:
                    await asyncio.sleep(0.002)
                    await made.world.tick(every_s=0.1)
        said = [line["event"] for line in lines]
        assert said == ["forecast begins without long history", "forecast primed from long history"]
        task.cancel()
        await made.history.close()


def day_known() -> ForecastState:
    times = [START_S - 60.0 * place for place in range(3 * 1440)]
    return prime([(at_s, office(at_s)) for at_s in times], ForecastConfig())


async def test_who_knows_a_day_from_a_checkpoint_or_a_snapshot_reads_nothing() -> None:
    with rig() as made:
        name = state_name(watched_key(scaled()))
        made.world.registry.adopt({name: PolicyState(forecast=day_known())})
        await made.serve()
        await made.world.tick()
        assert held_s(made.forecast) >= DAY_S
        await made.history.read()
        assert made.server.seen == []
        await made.history.close()


async def test_what_was_learned_meanwhile_is_not_replaced_by_less() -> None:
    with rig() as made:
        await made.serve(days=1.0)
        await made.world.tick()
        await made.history.read()
        entry = made.world.entry()
        entry.state = replace(entry.state, forecast=day_known())
        await made.world.tick()
        assert held_s(made.forecast) == held_s(day_known())  # three days, not one
        await made.history.close()


async def test_only_the_daemon_that_decides_reads() -> None:
    with rig() as made:
        await made.serve()
        await made.world.tick()
        made.leads = False
        await made.history.read()
        assert made.server.seen == []
        made.leads = True
        await made.world.tick()
        await made.history.read()
        await made.world.tick()
        assert held_s(made.forecast) >= DAY_S
        await made.history.close()


async def test_a_target_that_is_gone_before_the_answer_leaves_nothing() -> None:
    with rig("chat", "other") as made:
        await made.serve()
        await made.world.tick()
        made.world.cluster.facts = [scaled("other")]
        answer = made.server.answering
        loop = asyncio.get_running_loop()

        def slow(seen: Seen) -> Canned:
            if seen.path.endswith("query_range"):  # ten minutes pass while the server works
                asyncio.run_coroutine_threadsafe(made.world.tick(every_s=700.0), loop).result(5.0)
                made.server.answering = answer
            return answer(seen)

        made.server.answering = slow
        await made.history.read()
        assert [key.name for key in made.world.registry.entries] == ["other"]
        await made.world.tick()
        assert held_s(made.world.entry("other").state.forecast) >= DAY_S
        assert made.history._recalled == {}
        await made.history.close()


async def test_a_daemon_answers_first_and_remembers_then(tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()
    clock = HandClock()
    row = {"target_namespace": "llm", "target": "deployment/chat"}

    def answering(seen: Seen) -> Canned:
        if not seen.path.endswith("query_range"):
            return serving([], clock=clock)(seen)
        asked.set()
        assert go_on.wait(30.0)
        assert SERIES in seen.query
        return serving([row], clock=clock)(seen)

    async with engines() as target:
        with FakePrometheus(answering) as server:
            sources = [{"type": "scrape"}, {"type": "prometheus", "url": server.url}]
            async with running(written(tmp_path, targets=[target], sources=sources)) as made:
                entry = made.daemon.registry.entries[CHAT]
                row["trigger"] = entry.id
                clock.at_s = made.clock.at_s
                await made.tick()
                assert await asyncio.to_thread(asked.wait, 10.0)
                await made.tick()  # the server has not answered, and nobody waits for it
                found = made.daemon.board.look_up(CHAT, made.clock.at_s)
                assert isinstance(found, Published)
                assert held_s(entry.state.forecast) == 0.0
                go_on.set()
                async with asyncio.timeout(20.0):
                    while held_s(entry.state.forecast) == 0.0:
                        await asyncio.sleep(0.005)
                        await made.tick(every_s=0.01)
                assert slots(entry.state.forecast) == EDGED(OFFICE_SLOTS)


async def test_nothing_is_read_where_it_is_switched_off(tmp_path: Path) -> None:
    async with engines() as target:
        with FakePrometheus(serving([], clock=HandClock())) as server:
            sources = [{"type": "scrape"}, {"type": "prometheus", "url": server.url}]
            settings = {"history": {"read_days": 0}}
            path = written(tmp_path, targets=[target], sources=sources, **settings)
            async with running(path) as made:
                await made.tick()
                await made.daemon.long_history.run()  # ends at once
                assert not any(seen.path.endswith("query_range") for seen in server.seen)


TRIPLE = {
    "overhead_s": 3.0 * CapacityConfig().overhead_s,
    "per_sequence_s": 3.0 * CapacityConfig().per_sequence_s,
    "per_kv_token_s": 3.0 * CapacityConfig().per_kv_token_s,
    "per_prefill_token_s": 3.0 * CapacityConfig().per_prefill_token_s,
}


@pytest.mark.parametrize(
    ("configured", "reloaded", "unit"),
    [({}, TRIPLE, 1.0), (TRIPLE, TRIPLE, 3.0), (TRIPLE, {}, 3.0)],
)
async def test_the_past_counts_in_the_unit_that_the_forecaster_counts_in(
    configured: Mapping[str, float], reloaded: Mapping[str, float], unit: float
) -> None:
    """The exported past at the prices of the prior that it began with, whatever came later."""
    with rig(policy={"capacity": configured}) as made:
        await made.serve()
        await made.history.read()
        assert made.ranges == []  # no mix was seen yet, by which the past would be converted
        entry = made.world.entry()
        entry.policy = replace(entry.policy, capacity=CapacityConfig(**reloaded))
        await made.world.tick()
        await made.history.read()
        await made.world.tick()
        assert made.forecast.known is not None
        assert max(made.forecast.known.recent) == pytest.approx(unit * 5.0, rel=1e-6)
        await made.history.close()


async def test_what_is_exported_is_the_same_whatever_prior_is_configured() -> None:
    """Also where the forecaster began under another prior and goes on in the unit of that."""
    telemetry = Telemetry(HandClock())
    made = world(sinks=(telemetry,))
    made.cluster = MemoryCluster(facts=[scaled()], replicas={"chat": counted(2)})
    await made.tick()
    made.source.fleets["chat"].requests_per_s = 3.0
    await made.tick(4)
    (exported,) = values(telemetry, REFERENCE_WORK).values()
    entry = made.entry()
    entry.policy = replace(entry.policy, capacity=CapacityConfig(**TRIPLE))
    await made.tick()
    assert values(telemetry, REFERENCE_WORK)[()] == pytest.approx(exported, rel=0.02)


async def test_what_is_exported_is_what_the_forecaster_is_fed() -> None:
    telemetry = Telemetry(HandClock())
    made = world(sinks=(telemetry,))
    made.cluster = MemoryCluster(facts=[scaled()], replicas={"chat": counted(2)})
    await made.tick()
    assert values(telemetry, REFERENCE_WORK) == {}  # one look counts no arrivals
    made.source.fleets["chat"].requests_per_s = 3.0
    await made.tick(4)
    entry = made.entry()
    known = entry.state.forecast.known
    assert known is not None
    (exported,) = values(telemetry, REFERENCE_WORK).values()
    assert exported == known.recent[-1] > 0.0
    entry.state = replace(entry.state, capacity=replace(entry.state.capacity, multiples=(3.0,) * 4))
    (work,) = values(telemetry, "demand_work").values()
    await made.tick()
    (after,) = values(telemetry, "demand_work").values()
    assert after > 1.5 * work  # the same traffic, by what was learned of the replicas
    assert values(telemetry, REFERENCE_WORK)[()] == pytest.approx(exported, rel=0.02)
