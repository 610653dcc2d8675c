"""The checkpoint file: whole or not at all, and never a reason not to start."""

import stat
from pathlib import Path

import pytest

from scaler.core.policy import PolicyState
from scaler.service import checkpoint
from scaler.service.codec import SCHEMA_VERSION, Checkpoint, encode
from tests.service.fakes import START_S

STATES = {"llm/chat/0123": PolicyState(last_count=5, good_at_s=START_S)}


def test_what_is_saved_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    checkpoint.save(path, STATES, START_S)
    checkpoint.save(path, STATES, START_S + 60.0)
    found = checkpoint.restore(path)
    assert found == Checkpoint(schema=SCHEMA_VERSION, at_s=START_S + 60.0, states=STATES)
    assert [one.name for one in tmp_path.iterdir()] == ["state.json"]


def test_no_file_is_no_checkpoint_and_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checkpoint.restore(tmp_path / "absent.json") is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b"\x00\xff", b'{"schema": 1}'])
def test_a_broken_file_is_set_aside_and_said(
    tmp_path: Path, text: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(text)
    assert checkpoint.restore(path) is None
    assert (tmp_path / "state.json.broken").read_bytes() == text
    assert not path.exists()
    assert "checkpoint is broken, set aside" in capsys.readouterr().out


def test_a_file_of_another_schema_is_left_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(encode(Checkpoint(schema=SCHEMA_VERSION + 1, at_s=START_S, states=STATES)))
    assert checkpoint.restore(path) is None
    assert path.exists()
    assert "another schema" in capsys.readouterr().out


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checkpoint.restore(tmp_path) is None  # a folder
    assert "Is a directory" in capsys.readouterr().out


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    checkpoint.save(path, STATES, START_S)
    before = path.read_bytes()
    (tmp_path / "state.json.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {}, START_S)
    assert path.read_bytes() == before
    assert stat.S_ISREG(path.stat().st_mode)
