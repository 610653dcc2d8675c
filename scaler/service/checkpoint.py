"""PolicyState <-> a file with a schema version, so that a restart does not forget."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from scaler.core.policy import PolicyState
from scaler.errors import SignalError
from scaler.service.codec import SCHEMA_VERSION, Checkpoint, decode, encode_in_parts

log = structlog.get_logger(__name__)


def save(path: Path, states: Mapping[str, PolicyState], now_s: float) -> None:
    """Write the states so that a crash leaves either the old file or the new one, never half."""
    made = Checkpoint(schema=SCHEMA_VERSION, at_s=now_s, states=dict(states))
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        for part in encode_in_parts(made, "states"):
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class _Head(msgspec.Struct):
    """What every schema has."""

    schema: int


def restore(path: Path) -> Checkpoint | None:
    """The checkpoint at ``path``; None when there is none or it cannot be used (and that is said).

    A file of another schema is another version's: fields that it names otherwise would be taken for
    ones that it has not, so nothing is taken from it, and every target begins anew.  It stays until
    the next checkpoint is written.  A file that cannot be read is set aside, not overwritten: it
    may be wanted for a look.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("checkpoint cannot be read", path=str(path), reason=error.strerror)
        return None
    try:
        schema = msgspec.json.decode(data, type=_Head).schema
        if schema != SCHEMA_VERSION:
            log.warning(
                "checkpoint has another schema: every target begins anew",
                path=str(path),
                found=schema,
                wanted=SCHEMA_VERSION,
            )
            return None
        return decode(Checkpoint, data)
    except (SignalError, msgspec.DecodeError, RecursionError) as error:
        aside = path.with_name(path.name + ".broken")
        with contextlib.suppress(OSError):  # a volume that is read-only
            path.replace(aside)
        log.warning("checkpoint is broken, set aside", path=str(aside), reason=str(error))
        return None
