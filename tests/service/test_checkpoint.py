"""The checkpoint file: whole or not at all, and never a reason not to start."""

import dataclasses
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from scaler.core.capacity import CapacityState
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


HEAD = b'{"schema": %d' % SCHEMA_VERSION


@pytest.mark.parametrize(
    "text", [b"", b"{", b"{}", b"\x00\xff", HEAD + b"}", HEAD + b', "a": ' + b"[" * 100_000]
)
def test_a_broken_file_is_set_aside_and_said(
    tmp_path: Path, text: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(text)
    assert checkpoint.restore(path) is None
    assert (tmp_path / "state.json.broken").read_bytes() == text
    assert not path.exists()
    assert "checkpoint is broken, set aside" in capsys.readouterr().out


# Of a version that named the level otherwise, and one whose states have another shape altogether.
LEVEL = b'{"schema": 1, "at_s": 1, "states": {"llm/chat/0123": {"level": 30.0, "last_count": 30}}}'
SHAPE = b'{"schema": 1, "at_s": 1, "states": [["llm/chat/0123", {"last_count": "many"}]]}'
LATER = encode(Checkpoint(schema=SCHEMA_VERSION + 1, at_s=START_S, states=STATES))


@pytest.mark.parametrize("data", [LEVEL, SHAPE, LATER], ids=["names", "shape", "later"])
def test_a_file_of_another_schema_is_left_and_said(
    tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of it is taken: a level that is not found would be one of nothing."""
    path = tmp_path / "state.json"
    path.write_bytes(data)
    assert checkpoint.restore(path) is None
    assert path.read_bytes() == data
    assert "checkpoint has another schema: every target begins anew" in capsys.readouterr().out


def test_a_state_that_lacks_a_newer_field_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    states = {"llm/chat/0123": {"last_count": 5, "capacity": {"evidence_s": 7.0}}}
    path.write_bytes(encode({"schema": SCHEMA_VERSION, "at_s": START_S, "states": states}))
    found = checkpoint.restore(path)
    assert found is not None
    expected = PolicyState(last_count=5, capacity=CapacityState(evidence_s=7.0))
    assert found.states == {"llm/chat/0123": expected}


def fields_of(kind: object) -> Iterator[str]:
    """``Class.field: type`` for every dataclass that ``kind`` is made of."""
    for part in get_args(kind):
        yield from fields_of(part)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        for name, hint in get_type_hints(kind).items():
            shown = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
            yield f"{kind.__name__}.{name}: {re.sub(r'[a-z_]+[.]', '', shown)}"
            yield from fields_of(hint)


def test_the_fields_of_a_state_are_those_of_its_schema() -> None:
    """A field that is renamed would be forgotten at a restart, without a word."""
    path = Path(__file__).parents[1] / "data" / f"state_fields_{SCHEMA_VERSION}.txt"
    known = set(path.read_text(encoding="utf-8").splitlines())
    found = set(fields_of(PolicyState))
    assert found >= known, f"raise SCHEMA_VERSION: not there any more: {sorted(known - found)}"
    assert found <= known, f"new, they need a default and a line in {path}: {sorted(found - known)}"


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
