"""The decision log: a full record every tick, aggregated per target, in rotated files."""

import contextlib
import gzip
import os
import re
import shutil
from collections.abc import Generator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import structlog

from scaler.config import RecordsConfig
from scaler.core.policy import PolicyState
from scaler.service.codec import SCHEMA_VERSION, DecisionRecord, StateRecord, encode
from scaler.service.loop import TickReport
from scaler.service.registry import Basis, Entry, state_name
from scaler.signals.turns import at_once

log = structlog.get_logger(__name__)

CURRENT = "decisions.jsonl"
_ROTATED = re.compile(r"decisions-(\d{6,})\.jsonl(\.gz)?")
Record = StateRecord | DecisionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class _Followed:
    """Where the log of a trigger stands: a decision from just there needs no state before it."""

    state: PolicyState
    hash: str


class DecisionLog:
    """Writes records; rotates at a size, compresses, keeps so many files.

    A state record stands before each decision that does not follow from the one logged before it:
    at the beginning of a file, under new settings, after a gap, after another daemon has led.  So
    each file can be replayed by itself, and every decision in it.

    All writing is done in ``executor``, one tick at a time: a disk that hangs or is full stops the
    log, not the daemon.  It is said once, and tried again every tick.
    """

    def __init__(self, config: RecordsConfig, executor: Executor) -> None:
        self.failures = 0
        self._directory = Path(config.directory)
        self._config = config
        self._executor = executor
        self._followed: dict[str, _Followed] = {}
        self._writing: Future[bool] | None = None
        self._failing = False

    def take(self, report: TickReport) -> None:
        """Hand over one record per decided trigger, with a state record first where it is due."""
        at_once(self.taking(report))

    def taking(self, report: TickReport) -> Generator[None]:
        """``take``, a trigger at a time."""
        if self._writing is not None and not self._writing.done():
            self._fail("the write of an earlier tick has not ended")
            return
        if self._writing is None or not self._writing.result():
            self._followed.clear()
        records: list[Record] = []
        for entry in report.entries:
            yield
            records += self._records(entry, report)
        for key in report.dropped:
            self._followed.pop(state_name(key), None)
        if records:
            self._writing = self._executor.submit(self._write, records)

    def _records(self, entry: Entry, report: TickReport) -> list[Record]:
        decision, basis = entry.decision, entry.basis
        if decision is None or basis is None or decision.at_s != report.at_s:
            return []
        record = DecisionRecord(
            kind="decision",
            schema=SCHEMA_VERSION,
            namespace=entry.key.namespace,
            name=entry.key.name,
            id=entry.id,
            target=entry.label,
            config_hash=basis.hash,
            decision=decision,
        )
        name = entry.state_name
        followed = self._followed.get(name)
        self._followed[name] = _Followed(state=basis.after, hash=basis.hash)
        if followed and followed.state is basis.before and followed.hash == basis.hash:
            return [record]
        return [_state(entry, basis), record]

    def _fail(self, reason: str | None) -> None:
        """What was to be written is lost: say it once, begin anew with states."""
        self.failures += 1
        if not self._failing:
            log.warning("decision log cannot be written", reason=reason)
        self._failing = True
        self._followed.clear()

    def _write(self, records: Sequence[Record]) -> bool:
        """Append and rotate; False where the next records must begin with states.

        Runs in the executor, and ``take`` looks at nothing of it before it has ended.
        """
        try:
            size = self._append(b"".join(encode(record) + b"\n" for record in records))
            self._failing = False
            if size < self._config.file_bytes_max:
                return True
            self._rotate()
        except OSError as error:
            self._fail(error.strerror)
        return False

    def _append(self, data: bytes) -> int:
        """Append whole lines, or nothing.

        Returns:
            The size of the file.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / CURRENT).open("ab+", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            if before:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a crash cut the last line
                    data = b"\n" + data
            try:
                written = memoryview(data)
                while written:
                    written = written[file.write(written) or 0 :]
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(before)
                raise
        return before + len(data)

    def _rotate(self) -> None:
        """Give the file its number, compress it, delete the oldest; the next starts anew."""
        found = (_ROTATED.fullmatch(path.name) for path in self._directory.iterdir())
        taken = {int(match[1]): self._directory / match[0] for match in found if match}
        rotated = self._directory / f"decisions-{max(taken, default=0) + 1:06d}.jsonl"
        (self._directory / CURRENT).replace(rotated)
        surplus = max(len(taken) + 1 - self._config.files_max, 0)
        for number in sorted(taken)[:surplus]:
            taken[number].unlink(missing_ok=True)
        _compress(rotated)


def _state(entry: Entry, basis: Basis) -> StateRecord:
    return StateRecord(
        kind="state",
        schema=SCHEMA_VERSION,
        namespace=entry.key.namespace,
        name=entry.key.name,
        id=entry.id,
        target=entry.label,
        config_hash=basis.hash,
        policy=basis.policy,
        state=basis.before,
    )


def _compress(path: Path) -> None:
    """``path`` to ``path.gz``; the original goes only when the copy is whole."""
    packed = path.with_name(path.name + ".gz")
    beside = path.with_name(path.name + ".gz.new")
    with path.open("rb") as source, gzip.open(beside, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target)
    beside.replace(packed)
    path.unlink()
