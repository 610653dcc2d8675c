"""What the page shows of the past comes back after a restart; what is broken is left."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scaler.config import StateConfig
from scaler.core.model import Decision
from scaler.service.history import COARSE_S, PAST_MAX_S, UNCLAIMED_S, History
from scaler.service.moments import Moments
from scaler.service.past_file import EVERY_S, SUFFIX, PastFile
from scaler.service.registry import state_name
from tests.service.fakes import World, key, world

TICK_S = 15.0


class Life:
    """One daemon's memory from its start on: ``world`` ticks into it."""

    def __init__(self, folder: Path, made: World | None = None, *names: str) -> None:
        self.history, self.moments = History(rows_max=40), Moments()
        self.executor = ThreadPoolExecutor(max_workers=1)
        state = StateConfig(checkpoint_file=str(folder / "checkpoint.json"))
        self.file = PastFile(state, self.history, self.moments, self.executor)
        self.world = made or world(*names)
        self.world.loop.sinks = (self.history, self.moments, self.file)

    def rows(self, name: str = "chat") -> list[list[float | None]]:
        return self.history.rows(key(name), tick_s=TICK_S)

    def decision(self, name: str = "chat") -> Decision:
        made = self.world.entry(name).decision
        assert made is not None
        return made

    def end(self) -> None:
        self.file.save().result()


async def test_a_restart_keeps_rows_and_arithmetic(tmp_path: Path) -> None:
    first = Life(tmp_path, None, "chat", "code")
    await first.world.tick(90)  # into rows of five minutes
    before, decision = first.rows(), first.decision()
    first.end()
    second = Life(tmp_path, first.world)
    assert second.file.restore() == 2
    assert second.rows() == []  # not before the target is there again
    first.world.clock.at_s += 120.0
    await second.world.tick(1)
    at_s = second.decision().at_s
    kept = [row for row in before if row[0] is not None and row[0] >= at_s - PAST_MAX_S]
    rows = second.rows()
    assert rows[-1][0] == at_s
    assert rows[:-1] == kept[-len(rows) + 1 :]
    assert len(rows) >= len(before)
    found = second.moments.find(key("chat"), decision.at_s)
    assert found is not None
    assert found.decision.at_s == decision.at_s
    assert found.next_at_s == at_s
    assert found.begin_s < decision.at_s - 80 * TICK_S


async def test_five_minutes_that_a_restart_cuts_in_two_are_one_row(tmp_path: Path) -> None:
    first = Life(tmp_path)
    await first.world.tick(45)
    first.end()
    second = Life(tmp_path, first.world)
    second.file.restore()
    await second.world.tick(60)
    rows = second.rows()
    coarse = [row for row in rows if row[-1] == COARSE_S]
    begins = [row[0] for row in coarse]
    assert len(coarse) >= 3
    assert begins == sorted(set(begins))  # none twice
    assert [b - a for a, b in itertools.pairwise(begins)] == [COARSE_S] * (len(begins) - 1)


@pytest.mark.parametrize("moved_s", [-3600.0, PAST_MAX_S + 60.0])
async def test_a_past_of_another_time_is_left(tmp_path: Path, moved_s: float) -> None:
    first = Life(tmp_path)
    await first.world.tick(5)
    first.end()
    second = Life(tmp_path)
    second.world.clock.at_s = first.world.clock.at_s + moved_s
    second.file.restore()
    await second.world.tick(1)
    assert len(second.rows()) == 1
    assert second.moments.begin_s(key("chat")) == second.decision().at_s


async def test_a_target_that_does_not_come_back_is_forgotten(tmp_path: Path) -> None:
    first = Life(tmp_path, None, "chat", "code")
    await first.world.tick(2)
    first.end()
    second = Life(tmp_path, None, "chat")
    second.world.clock.at_s = first.world.clock.at_s
    second.file.restore()
    await second.world.tick(1)
    missing = {state_name(first.world.entry("code").key)}
    assert second.history.unclaimed == second.moments.unclaimed == missing
    await second.world.tick(int(UNCLAIMED_S / TICK_S) + 1)
    assert second.history.unclaimed == second.moments.unclaimed == set()


async def test_it_is_written_every_few_minutes_and_not_without_a_checkpoint(
    tmp_path: Path,
) -> None:
    made = Life(tmp_path)
    await made.world.tick(int(EVERY_S / TICK_S))
    made.executor.submit(lambda: None).result()
    file = tmp_path / f"checkpoint.json{SUFFIX}"
    assert not file.exists()
    await made.world.tick(2)
    made.executor.submit(lambda: None).result()
    assert file.exists()
    without = PastFile(StateConfig(), made.history, made.moments, made.executor)
    assert without.path is None
    assert without.restore() == 0


@pytest.mark.parametrize("damage", ["cut", "text", "size", "empty"])
async def test_a_broken_file_is_left_and_said(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Life(tmp_path)
    await first.world.tick(5)
    first.end()
    file = tmp_path / f"checkpoint.json{SUFFIX}"
    whole = file.read_bytes()
    broken = {
        "cut": whole[:-7],
        "text": b"{} no past at all",
        "size": b"\xff" * 40,
        "empty": b"",
    }[damage]
    file.write_bytes(broken)
    second = Life(tmp_path, first.world)
    assert second.file.restore() == 0
    assert "past of the page" in capsys.readouterr().out
    await second.world.tick(1)
    assert len(second.rows()) == 1


async def test_rows_of_another_shape_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Life(tmp_path)
    await first.world.tick(3)
    first.end()
    monkeypatch.setattr("scaler.service.past_file.COLUMNS", ("at_s", "other"))
    assert Life(tmp_path).file.restore() == 0


async def test_a_full_disk_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Life(tmp_path / "none")
    await made.world.tick(2)
    made.end()
    assert "past not written" in capsys.readouterr().out
