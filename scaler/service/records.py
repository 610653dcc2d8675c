"""The decision log: a full record every tick, aggregated per target, in rotated files."""

import gzip
import shutil
from concurrent.futures import Executor
from pathlib import Path

import structlog

from scaler.config import RecordsConfig
from scaler.service.codec import SCHEMA_VERSION, DecisionRecord, StateRecord, encode
from scaler.service.loop import TickReport
from scaler.service.registry import Entry, state_name

log = structlog.get_logger(__name__)

CURRENT = "decisions.jsonl"


class DecisionLog:
    """Writes records; rotates at a size, compresses in ``executor``, keeps so many files.

    A file begins with the state of every trigger in it, so each file can be replayed by itself.
    A full disk stops the log, not the daemon: it is said once and tried again next tick.
    """

    def __init__(self, config: RecordsConfig, executor: Executor) -> None:
        self._directory = Path(config.directory)
        self._config = config
        self._executor = executor
        self._started: dict[str, str] = {}  # trigger -> settings hash its records follow
        self._bytes = 0
        self._failing = False
        self.failures = 0

    def take(self, report: TickReport) -> None:
        """Append one record per decided trigger; a state record first where the log starts."""
        lines = [line for entry in report.entries for line in self._lines(entry, report)]
        try:
            self._append(b"".join(lines))
            self._failing = False
        except OSError as error:
            self.failures += 1
            if not self._failing:
                log.warning("decision log cannot be written", reason=error.strerror)
            self._failing = True
            self._started.clear()

    def _start(self, entry: Entry) -> bytes | None:
        """The state record of a trigger whose log starts now, or with other settings; else None."""
        name = state_name(entry.key)
        if self._started.get(name) == entry.hash:
            return None
        self._started[name] = entry.hash
        return _line(
            StateRecord(
                kind="state",
                schema=SCHEMA_VERSION,
                namespace=entry.key.namespace,
                name=entry.key.name,
                id=entry.id,
                target=entry.label,
                config_hash=entry.hash,
                policy=entry.policy,
                state=entry.state,
            )
        )

    def _lines(self, entry: Entry, report: TickReport) -> list[bytes]:
        decision = entry.decision
        if decision is None or decision.at_s != report.at_s:
            return []
        record = DecisionRecord(
            kind="decision",
            schema=SCHEMA_VERSION,
            namespace=entry.key.namespace,
            name=entry.key.name,
            id=entry.id,
            target=entry.label,
            config_hash=entry.hash,
            decision=decision,
        )
        state = self._start(entry)
        return [_line(record)] if state is None else [_line(record), state]

    def _append(self, data: bytes) -> None:
        if not data:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / CURRENT
        with path.open("ab") as file:
            file.write(data)
            self._bytes = file.tell()
        if self._bytes >= self._config.file_bytes_max:
            self._rotate(path)

    def _rotate(self, path: Path) -> None:
        """Give the file its number, compress it aside, delete the oldest; the next starts anew."""
        taken = sorted(self._directory.glob("decisions-*.jsonl*"))
        last = int(taken[-1].name.split("-")[1].split(".")[0]) if taken else 0
        rotated = self._directory / f"decisions-{last + 1:06d}.jsonl"
        path.replace(rotated)
        self._started.clear()
        for old in taken[: max(len(taken) + 1 - self._config.files_max, 0)]:
            old.unlink(missing_ok=True)
        self._executor.submit(_compress, rotated)


def _line(record: DecisionRecord | StateRecord) -> bytes:
    return encode(record) + b"\n"


def _compress(path: Path) -> None:
    """``path`` to ``path.gz``; the original goes only when the copy is whole."""
    packed = path.with_name(path.name + ".gz")
    beside = path.with_name(path.name + ".gz.new")
    with path.open("rb") as source, gzip.open(beside, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target)
    beside.replace(packed)
    path.unlink()
