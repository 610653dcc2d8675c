"""JSON of states and decisions: exact, and refused where it is something else."""

import dataclasses
import math
from typing import Any

import pytest

from scaler.core.budget import BudgetState
from scaler.core.capacity_shown import Shown
from scaler.core.config import PolicyConfig
from scaler.core.policy import PolicyState
from scaler.errors import SignalError
from scaler.service.codec import (
    SCHEMA_VERSION,
    Checkpoint,
    StateRecord,
    decode,
    encode,
    encode_in_parts,
)
from tests.service.fakes import START_S, world


async def lived(ticks: int = 40) -> PolicyState:
    """A state in which every part has been used."""
    made = world()
    await made.tick(ticks, every_s=15.1)
    return made.entry().state


def checkpoint(**states: PolicyState) -> Checkpoint:
    return Checkpoint(schema=SCHEMA_VERSION, at_s=START_S, states=states)


async def test_a_state_comes_back_bit_by_bit() -> None:
    state = await lived()
    assert state.forecast.known is not None  # not an empty one
    assert state.work_level is not None
    again = decode(Checkpoint, encode(checkpoint(a=state)))
    assert again == checkpoint(a=state)
    assert encode(again) == encode(checkpoint(a=state))


async def test_the_parts_of_a_checkpoint_are_the_whole_and_none_has_two_states() -> None:
    lived_in = await lived()
    names = ["llm/chat/0123", 'of "quotes" \\ and \n lines/\u00e9']
    for states in ({}, {names[0]: lived_in}, dict.fromkeys(names, lived_in)):
        parts = [*encode_in_parts(checkpoint(**states), "states")]
        assert b"".join(parts) == encode(checkpoint(**states))
        assert len(parts) == len(states) + 2
    with pytest.raises(AssertionError, match="at_s must be the last field"):
        next(encode_in_parts(checkpoint(), "at_s"))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e22])
def test_floats_keep_every_bit(value: float) -> None:
    state = PolicyState(good_at_s=value)
    again = decode(Checkpoint, encode(checkpoint(a=state))).states["a"].good_at_s
    assert again is not None
    assert (again, math.copysign(1.0, again)) == (value, math.copysign(1.0, value))


def test_settings_come_back_with_their_types() -> None:
    record = StateRecord(
        kind="state", schema=1, namespace="a", name="b", id="c", target="d", config_hash="e",
        policy=PolicyConfig(), state=PolicyState(),
    )  # fmt: skip
    assert decode(StateRecord, encode(record)) == record


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"", "the text itself"),
        (b"{", "the text itself"),
        (b"\xff\xfe", "the text itself"),
        (b"[]", "the text itself"),
        (b"{}", "schema"),
        (b'{"schema": 1, "at_s": "soon", "states": {}}', "at_s"),
        (b'{"schema": 1, "at_s": 1, "states": {"a": {"seen": 3}}}', "states.a.seen"),
        (b"[" * 100_000, "the text itself"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_place(data: bytes, place: str) -> None:
    with pytest.raises(SignalError, match=f"not a Checkpoint: {place}: "):
        decode(Checkpoint, data)


def test_every_field_of_a_state_is_carried() -> None:
    """A field that the codec dropped would be forgotten at each restart."""
    marked: Any = PolicyState(
        budget=BudgetState(requests=1.0, missed=2.0), load=1.5, work_level=1.6, level_at_s=1.7,
        work_peak=1.8, shown=Shown(output_per_s=1.9, seen_at_s=2.0),
        raised_at_s=2.5, good_at_s=3.0, last_count=4, last_ready=5, last_active=False,
        idle_since_s=6.0, latency_step_at_s=7.0, ready_rose_at_s=7.5, asked_at_s=8.0,
    )  # fmt: skip
    again = decode(Checkpoint, encode(checkpoint(a=marked))).states["a"]
    for item in dataclasses.fields(PolicyState):
        assert getattr(again, item.name) == getattr(marked, item.name), item.name
