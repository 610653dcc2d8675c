"""The decision log: replayed bit by bit, rotated, and never in the way."""

import gzip
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from scaler.config import RecordsConfig
from scaler.core.model import Cause, Latency, NoData
from scaler.errors import SignalError
from scaler.ops.replay import Replayed, parse_record, read_log, replay
from scaler.service.codec import DecisionRecord, StateRecord, encode
from scaler.service.records import CURRENT, DecisionLog
from scaler.signals.samples import GpuSample, TargetRef, TargetSamples
from tests.service.fakes import Fleet, MemorySource, World, counted, world

Made = TypeVar("Made")
DOWN = NoData(cause=Cause.UNREACHABLE, detail="connection refused")


class Inline(Executor):
    """Runs what it is given at once; ``held`` keeps everything back, as a disk that hangs."""

    held = False

    def submit(self, fn: Callable[..., Made], /, *args: Any, **kwargs: Any) -> "Future[Made]":
        future: Future[Made] = Future()
        if not self.held:
            future.set_result(fn(*args, **kwargs))
        return future


def logging_world(folder: Path, *names: str, **settings: Any) -> tuple[World, DecisionLog]:
    config = replace(RecordsConfig(directory=str(folder)), **settings)
    made = DecisionLog(config, Inline())
    return world(*names, sinks=(made,)), made


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def replayed(folder: Path, name: str = CURRENT) -> list[Replayed]:
    return list(replay(read_log(folder / name)))


async def a_day_of_everything(made: World) -> None:
    """Load, a peak, blindness, the API away, replicas that come and that cannot."""
    await made.tick(3)
    chat = made.source.fleets["chat"]
    chat.requests_per_s, chat.waiting = 40.0, 30.0
    await made.tick(4)
    made.cluster.replicas["chat"] = counted(
        6, made.clock.at_s, ready=4, starting_age_s=(20.0,), unschedulable=1, start_up_s=(61.5,),
        gpus_per_replica=2, gpus_allocatable=10,
    )  # fmt: skip
    await made.tick(2)
    chat.fault = DOWN
    await made.tick(10)
    chat.fault = None
    made.cluster.down = DOWN
    await made.tick(2)
    made.cluster.down = None
    chat.requests_per_s, chat.waiting = 0.1, 0.0
    await made.tick(30)


async def test_every_logged_decision_replays_bit_by_bit(tmp_path: Path) -> None:
    """Invariant 4, through the file."""
    made, _ = logging_world(tmp_path, "chat", "other")
    await a_day_of_everything(made)
    found = replayed(tmp_path)
    assert len(found) == 2 * 51
    assert {one.record.decision.verdict.value for one in found} >= {
        "fresh", "held", "floored", "load_only",
    }  # fmt: skip
    assert [one.record.decision.at_s for one in found if not one.same] == []
    lines = [parse_record(line) for line in (tmp_path / CURRENT).open("rb")]
    assert sum(isinstance(line, StateRecord) for line in lines) == 2  # one a trigger, at the start


async def test_a_replay_sees_a_change_of_the_numbers(tmp_path: Path) -> None:
    made, _ = logging_world(tmp_path)
    await made.tick(5)
    records = list(read_log(tmp_path / CURRENT))
    last = records[-1]
    assert isinstance(last, DecisionRecord)
    other = replace(last.decision, encoded=last.decision.encoded + 1e-12)
    records[-1] = replace(last, decision=other)
    assert [one.same for one in replay(records)] == [True, True, True, True, False]


async def test_other_settings_are_followed_from_the_first_state_on(tmp_path: Path) -> None:
    made, _ = logging_world(tmp_path)
    await a_day_of_everything(made)
    dearer = list(
        replay(
            read_log(tmp_path / CURRENT),
            change=lambda policy: replace(
                policy, capacity=replace(policy.capacity, per_prefill_token_s=2e-4)
            ),
        )
    )
    pairs = [(one.record.decision.would_be, one.again.would_be) for one in dearer if one.again]
    assert len(pairs) == 51
    assert all(again >= logged for logged, again in pairs)
    assert any(again > logged for logged, again in pairs)


async def test_new_settings_begin_with_a_state_and_replay_too(tmp_path: Path) -> None:
    made, _ = logging_world(tmp_path)
    await made.tick(3)
    made.registry.reconfigure(
        replace(
            made.registry.config,
            policy=replace(
                made.registry.config.policy,
                slo=replace(made.registry.config.policy.slo, ttft_s=9.0),
            ),
        )
    )
    await made.tick(3)
    found = replayed(tmp_path)
    assert len({one.record.config_hash for one in found}) == 2
    assert all(one.same for one in found)


async def test_states_adopted_from_elsewhere_break_no_replay(tmp_path: Path) -> None:
    """As after a failover: this daemon led, followed another, and leads again."""
    made, _ = logging_world(tmp_path)
    made.source.fleets["chat"] = Fleet(requests_per_s=30.0, waiting=20.0)
    await made.tick(6)
    early = made.registry.states()
    made.source.fleets["chat"].requests_per_s = 1.0
    await made.tick(6)
    made.registry.adopt(early)
    await made.tick(3)
    found = replayed(tmp_path)
    assert len(found) == 15
    assert all(one.same for one in found)


async def test_a_tick_that_was_not_logged_breaks_no_replay(tmp_path: Path) -> None:
    made, _ = logging_world(tmp_path)
    await made.tick(2)
    sinks, made.loop.sinks = made.loop.sinks, ()
    await made.tick(3)
    made.loop.sinks = sinks
    await made.tick(2)
    found = replayed(tmp_path)
    assert len(found) == 4
    assert all(one.same for one in found)


async def test_files_are_rotated_compressed_and_the_oldest_deleted(tmp_path: Path) -> None:
    (tmp_path / "decisions-notes.jsonl").write_text("mine")  # not ours: left alone
    made, _ = logging_world(tmp_path, file_bytes_max=20_000, files_max=3)
    await made.tick(60)
    names = [name for name in files(tmp_path) if name not in (CURRENT, "decisions-notes.jsonl")]
    numbers = [int(name.removeprefix("decisions-").split(".")[0]) for name in names]
    assert len(names) == 3
    assert all(name.endswith(".jsonl.gz") for name in names)
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert numbers[0] > 1
    assert (tmp_path / "decisions-notes.jsonl").read_text() == "mine"
    for name in names:  # each file stands by itself
        found = replayed(tmp_path, name)
        assert len(found) > 3
        assert all(one.same for one in found)
    again, _ = logging_world(tmp_path, file_bytes_max=20_000, files_max=3)
    await again.tick(10)
    assert max(int(name[10:16]) for name in files(tmp_path) if name.endswith(".gz")) > numbers[-1]


async def test_a_path_that_cannot_be_written_is_said_once_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file where the folder should be")
    made, log = logging_world(folder)
    await made.tick(3)
    assert log.failures == 3
    assert capsys.readouterr().out.count("decision log cannot be written") == 1
    folder.unlink()
    await made.tick(2)
    assert log.failures == 3
    assert [one.same for one in replayed(folder)] == [True, True]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
async def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    (tmp_path / CURRENT).symlink_to("/dev/full")
    made, log = logging_world(tmp_path)
    await made.tick(2)
    assert log.failures == 2
    (tmp_path / CURRENT).unlink()
    await made.tick(1)
    assert [one.same for one in replayed(tmp_path)] == [True]


async def test_a_line_cut_by_a_crash_spoils_only_itself(tmp_path: Path) -> None:
    made, _ = logging_world(tmp_path)
    await made.tick(2)
    whole = (tmp_path / CURRENT).read_bytes()
    (tmp_path / CURRENT).write_bytes(whole[:-100])
    assert [one.same for one in replayed(tmp_path)] == [True]  # the cut line is left out
    again, _ = logging_world(tmp_path)
    await again.tick(1)
    lines = (tmp_path / CURRENT).read_bytes().splitlines()
    assert isinstance(parse_record(lines[-2]), StateRecord)
    assert isinstance(parse_record(lines[-1]), DecisionRecord)
    with pytest.raises(SignalError, match=r"decisions\.jsonl:3: "):
        replayed(tmp_path)


async def test_a_disk_that_hangs_costs_records_and_nothing_else(tmp_path: Path) -> None:
    executor = Inline()
    log = DecisionLog(RecordsConfig(directory=str(tmp_path)), executor)
    made = world(sinks=(log,))
    await made.tick(1)
    executor.held = True
    await made.tick(4)  # the first of them hangs, three are given up
    assert log.failures == 3
    assert made.loop.tick_number == 5


async def test_writing_is_done_in_the_executors_thread(tmp_path: Path) -> None:
    threads: list[threading.Thread] = []

    class Noting(Inline):
        def submit(self, fn: Callable[..., Made], /, *args: Any, **kwargs: Any) -> "Future[Made]":
            threads.append(threading.current_thread())
            return super().submit(fn, *args, **kwargs)

    made = world(sinks=(DecisionLog(RecordsConfig(directory=str(tmp_path)), Noting()),))
    await made.tick(2)
    assert len(threads) == 2  # nothing is written but through it


def sizes(folder: Path) -> Iterator[int]:
    for line in (folder / CURRENT).open("rb"):
        if isinstance(parse_record(line), DecisionRecord):
            yield len(line)


def histogram(bounds: int, total: float, at_s: float) -> Latency:
    """As Prometheus answers: fractions in every bucket."""
    counts = tuple(total / (place + 1.7) for place in range(bounds + 1))
    steps = tuple(0.001 * 1.7**place for place in range(bounds))
    return Latency(seen_at_s=at_s, coverage_ratio=1.0, window_s=60.0, bounds_s=steps, counts=counts)


class Full(MemorySource):
    """A source that has every signal, with vLLM's 22 bounds of TTFT and 18 of ITL, and DCGM."""

    async def collect(
        self, targets: Sequence[TargetRef], now_s: float
    ) -> Mapping[str, TargetSamples]:
        found = await super().collect(targets, now_s)
        return {
            key: replace(
                samples,
                ttft=histogram(22, now_s % 97.0, now_s),
                itl=histogram(18, now_s % 89.0, now_s),
                gpus={
                    pod: GpuSample(pod=pod, at_s=now_s, utilisation_ratio=now_s % 1.0, field="SM")
                    for pod in samples.pods
                },
            )
            for key, samples in found.items()
        }


async def test_the_stated_size_of_a_day_is_right(tmp_path: Path) -> None:
    """RecordsConfig's words against records that have every signal; 5760 ticks of 15 s a day."""
    made, _ = logging_world(tmp_path)
    made.loop.source = Full(fleets={"chat": Fleet(pods=10, requests_per_s=8.0)})
    made.cluster.replicas["chat"] = counted(10)
    await made.tick(240, every_s=15.25)
    found = list(sizes(tmp_path))
    mean = sum(found) / len(found)
    said = " ".join((RecordsConfig.__doc__ or "").split())
    assert "About 5 kB a record with every signal, 28 MB a target and day at 15 s" in said
    assert 0.85 < mean / 5000 < 1.15
    assert 0.85 < mean * 5760 / 28e6 < 1.15
    data = (tmp_path / CURRENT).read_bytes()
    assert "about an eighth of it" in said
    assert 0.08 < len(gzip.compress(data, 6)) / len(data) < 0.2


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[]", b'{"kind": "other"}', b'{"kind": "decision"}', b"\xff", b'{"kind": 1}'],
)
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(SignalError):
        parse_record(line)


async def test_records_are_told_apart_by_their_kind() -> None:
    made = world()
    await made.tick(1)
    entry = made.entry()
    assert entry.basis is not None
    common = {"schema": 1, "namespace": "a", "name": "b", "id": "c", "target": "d",
              "config_hash": entry.basis.hash}  # fmt: skip
    state = StateRecord(
        kind="state",
        policy=entry.basis.policy,
        state=entry.basis.before,
        **common,  # type: ignore[arg-type]
    )
    assert parse_record(encode(state)) == state
