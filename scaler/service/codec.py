"""Frozen dataclasses <-> JSON, exactly: floats keep every bit, enums their values.

One record of the decision log is one JSON object a line: ``{"kind": "decision", ...}`` with the
decision and the settings' hash, or ``{"kind": "state", ...}`` with what the next decisions start
from.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from pydantic import TypeAdapter, ValidationError

from scaler.core.config import PolicyConfig
from scaler.core.model import Decision
from scaler.core.policy import PolicyState
from scaler.errors import SignalError

SCHEMA_VERSION = 2  # raised when a field changes or goes; checkpoints of another are not read
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One decision of one trigger, as logged."""

    kind: str
    schema: int
    namespace: str
    name: str
    id: str
    target: str
    config_hash: str
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord:
    """What the next decision of a trigger starts from: state and settings."""

    kind: str
    schema: int
    namespace: str
    name: str
    id: str
    target: str
    config_hash: str
    policy: PolicyConfig
    state: PolicyState


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All that a daemon continues from, by ``namespace/name/id``."""

    schema: int
    at_s: float
    states: Mapping[str, PolicyState]


def encode(value: Any) -> bytes:
    """One line of JSON without the line end."""
    return msgspec.json.encode(value)


def encode_in_parts(value: Any, field: str) -> Iterator[bytes]:
    """The same line in parts, one for each item of ``field``, the last field and a mapping.

    The states of a thousand targets in one go would keep every thread from running for 40 ms.
    """
    assert dataclasses.fields(value)[-1].name == field, f"{field} must be the last field"
    yield encode(dataclasses.replace(value, **{field: {}}))[: -len("}}")]
    comma = b""
    for name, item in getattr(value, field).items():
        yield b"%b%b:%b" % (comma, encode(name), encode(item))
        comma = b","
    yield b"}}"


def decode(kind: type[Made], data: bytes) -> Made:
    """A ``kind`` from JSON.

    Raises:
        SignalError: naming the place that is wrong.
    """
    try:
        made: Made = _adapter(cast("Any", kind)).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text itself"
        raise SignalError(f"not a {kind.__name__}: {place}: {first['msg']}") from error
    return made


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """A decoder by pydantic, because msgspec decodes no unions of dataclasses."""
    return TypeAdapter(kind)
