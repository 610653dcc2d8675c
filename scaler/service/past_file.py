"""The past that the page shows, in a file beside the checkpoint, so that a restart keeps it.

One frame a target, written one after the other by a thread: a thousand targets take some 10 MB of
disk and the memory of one.  A file that cannot be read, or is of another version, is said and left:
the past begins anew, and nothing else depends on it.
"""

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from scaler.config import StateConfig
from scaler.core.model import Stage
from scaler.service.history import COLUMNS, History, SavedRows
from scaler.service.loop import TickReport
from scaler.service.moments import Moments, SavedRecords
from scaler.service.registry import state_name

log = structlog.get_logger(__name__)

SCHEMA_VERSION = 1
SUFFIX = ".past"
EVERY_S = 300.0  # what a crash may forget; an orderly end writes it too
_SIZE_BYTES = 4
_FRAME_BYTES_MAX = 16 << 20


class _Head(msgspec.Struct):
    """The first frame: of another shape of rows nothing is taken."""

    schema: int
    columns: tuple[str, ...]
    stages: tuple[str, ...]
    common: bytes


class _Frame(msgspec.Struct):
    """What is known of one trigger; ``name`` as in the checkpoint."""

    name: str
    rows: SavedRows | None
    records: SavedRecords | None


@dataclass(slots=True)
class PastFile:
    """A sink of the loop; without a checkpoint file nothing is ever written or read."""

    config: StateConfig
    history: History
    moments: Moments
    executor: Executor
    _due_s: float | None = None
    _writing: "Future[None] | None" = None

    @property
    def path(self) -> Path | None:
        """Where it is; None without a checkpoint."""
        checkpoint = self.config.checkpoint_file
        return Path(checkpoint + SUFFIX) if checkpoint else None

    def take(self, report: TickReport) -> None:
        """Write it when it is time, unless the last writing goes on."""
        if self.path is None:
            return
        if self._due_s is None:
            self._due_s = report.at_s + EVERY_S
        if report.at_s < self._due_s or (self._writing is not None and not self._writing.done()):
            return
        self._due_s = report.at_s + EVERY_S
        self._writing = self.save()

    def save(self) -> "Future[None]":
        """Write it beside the event loop."""
        return self.executor.submit(self._save)

    def restore(self) -> int:
        """Give history and moments what the file has of each trigger.

        Returns:
            Of how many triggers there was something.
        """
        if self.path is None or not self.path.exists():
            return 0
        rows: dict[str, SavedRows] = {}
        records: dict[str, SavedRecords] = {}
        try:
            frames = _frames(self.path)
            head = msgspec.msgpack.decode(next(frames, b""), type=_Head)
            if (head.schema, head.columns, head.stages) != (SCHEMA_VERSION, COLUMNS, _STAGES):
                log.warning("the past of the page has another schema", path=str(self.path))
                return 0
            for frame in frames:
                found = msgspec.msgpack.decode(frame, type=_Frame)
                if found.rows is not None:
                    rows[found.name] = found.rows
                if found.records is not None:
                    records[found.name] = found.records
        except (OSError, ValueError, zlib.error, msgspec.DecodeError) as error:
            log.warning("the past of the page is broken", path=str(self.path), reason=str(error))
            return 0
        self.history.adopt(rows)
        self.moments.adopt(records, head.common)
        return len(rows.keys() | records.keys())

    def _save(self) -> None:
        """A full disk is said and tried again next time."""
        assert self.path is not None, "asked for only with a checkpoint"
        beside = self.path.with_name(self.path.name + ".new")
        try:
            with beside.open("wb") as file:
                for frame in self._packed():
                    file.write(len(frame).to_bytes(_SIZE_BYTES, "big"))
                    file.write(frame)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError as error:
            log.warning("past not written", path=str(self.path), reason=error.strerror)

    def _packed(self) -> Iterator[bytes]:
        head = _Head(
            schema=SCHEMA_VERSION, columns=COLUMNS, stages=_STAGES, common=self.moments.common
        )
        yield zlib.compress(msgspec.msgpack.encode(head))
        for key in self.history.known():
            frame = _Frame(
                name=state_name(key), rows=self.history.saved(key), records=self.moments.saved(key)
            )
            yield zlib.compress(msgspec.msgpack.encode(frame), 1)


_STAGES = tuple(stage.value for stage in Stage)


def _frames(path: Path) -> Iterator[bytes]:
    """The frames of a file, unpacked; one that is cut off ends it.

    Raises:
        ValueError: a frame claims more than any has.
    """
    with path.open("rb") as file:
        while head := file.read(_SIZE_BYTES):
            size = int.from_bytes(head, "big")
            if size > _FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {size} bytes")
            body = file.read(size)
            if len(body) < size:
                raise ValueError("the last frame is cut off")
            yield zlib.decompress(body)
