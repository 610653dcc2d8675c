"""The file of a search: whose turn it is, and what a process that was killed left of it."""

import contextlib
import fcntl
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from scaler.errors import ScalerError

SQLITE = (".db", ".sqlite", ".sqlite3")
TURN = ".turn"
"""Added to the file's name; it stays, and is locked only while a search goes on.

Not ``.lock``: that is Optuna's own lock of a journal.  Whoever else writes to the journal would
wait half a minute for a file that is never taken away, and then take it away.
"""


class Turn:
    """The right to write a search's file; the system takes it back when a process dies."""

    def __init__(self, file: Path) -> None:
        """Take it.

        Raises:
            ScalerError: another search has it.
            OSError: the folder cannot be written.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock: IO[str] = file.with_name(file.name + TURN).open("w", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ScalerError(
                f"--storage {file} is in use by another scaler tune: wait for it, or give another"
                " file"
            ) from error

    def end(self) -> None:
        """Give it back."""
        self._lock.close()


class _OwnTurn:
    """Optuna's lock of a journal: the turn is taken already, and outlives no process."""

    def acquire(self) -> bool:
        """At once."""
        return True

    def release(self) -> None:
        """Not before the search ends."""


def storage(optuna: Any, file: Path) -> Any:
    """Optuna's storage: SQLite by the file's ending, a journal otherwise."""
    if file.suffix in SQLITE:
        return optuna.storages.RDBStorage(f"sqlite:///{file.resolve()}")
    mend(file)
    journal = importlib.import_module("optuna.storages.journal")
    return optuna.storages.JournalStorage(
        journal.JournalFileBackend(str(file), lock_obj=_OwnTurn())
    )


def mend(file: Path) -> None:
    """Cut off a journal's last line where it was not written to its end.

    What is appended to half a line would make both unreadable.  A file that is no journal is left
    as it is.
    """
    with contextlib.suppress(FileNotFoundError), file.open("r+b") as journal:
        if not _is_journal(journal.readline()):
            return
        kept = sum(len(line) for line in _whole(journal))
        if kept < os.fstat(journal.fileno()).st_size:
            journal.truncate(kept)


def _is_journal(first: bytes) -> bool:
    try:
        entry = json.loads(first)
    except ValueError:
        return False
    return isinstance(entry, dict) and "op_code" in entry


def _whole(journal: IO[bytes]) -> Iterator[bytes]:
    journal.seek(0)
    for line in journal:
        if line.endswith(b"\n"):
            yield line
