"""Traces for many runs: parsed once, kept as arrays that every process maps into its memory.

Two million rows take seconds to parse and milliseconds to map, and processes that map the same file
share its pages.  The copies are named by the content of the trace, and the oldest are removed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scaler.errors import ScenarioError
from simulations.run_cache import being_written
from simulations.trace_chunks import Requests, join
from simulations.traces import TraceReader

KEPT_MAX = 32
CHUNK_ROWS = 1 << 17
COLUMNS = np.dtype(
    [("arrival_s", "<f8"), ("prompt_tokens", "<i4"), ("output_tokens", "<i4"), ("tenant", "<i4")]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrace:
    """A trace file and its copy as arrays; pickled, it is two paths.

    Iterating gives its chunks, as a ``TraceReader`` does.
    """

    path: Path
    folder: Path
    fingerprint: str
    rows_skipped: int = 0
    skip_bad_rows: bool = False
    counted_from_s: float = 0.0

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def __iter__(self) -> Iterator[Requests]:
        """The chunks, in order of arrival; read anew from the trace where the copy is lost or torn.

        Raises:
            ScenarioError: the copy is lost, and the trace is not what it was.
        """
        try:
            rows = np.load(self._copy, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            rows = self._anew()
        for begin in range(0, len(rows), CHUNK_ROWS):
            part = rows[begin : begin + CHUNK_ROWS]
            yield Requests(**{name: np.array(part[name]) for name in COLUMNS.names or ()})

    def _anew(self) -> npt.NDArray[np.void]:
        """The rows of a copy that is made again."""
        self._copy.with_suffix(".json").unlink(missing_ok=True)  # it vouches for the copy
        made = stored_trace(self.path, folder=self.folder, skip_bad_rows=self.skip_bad_rows)
        if made.fingerprint != self.fingerprint:
            raise ScenarioError(f"{self.path}: has changed since it was read")
        rows: npt.NDArray[np.void] = np.load(self._copy, mmap_mode="r")
        return rows

    @property
    def _copy(self) -> Path:
        return _copy_path(self.folder, self.fingerprint)


def stored_trace(path: Path, *, folder: Path, skip_bad_rows: bool = False) -> StoredTrace:
    """The trace at ``path``, its copy in ``folder`` made if it is not there.

    Raises:
        ScenarioError: the trace cannot be read, or has a bad row.
        ScalerError: the copy cannot be written.
    """
    try:
        content = hashlib.sha256(path.read_bytes())
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    content.update(f"skip_bad_rows={skip_bad_rows}".encode())
    fingerprint = content.hexdigest()[:32]
    note = _copy_path(folder, fingerprint).with_suffix(".json")
    trace = StoredTrace(
        path=path.resolve(), folder=folder, fingerprint=fingerprint, skip_bad_rows=skip_bad_rows
    )
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        known["counted_from_s"]  # a copy that knows nothing of it may hold dates
        note.touch()  # what is used stays
    except (OSError, ValueError, KeyError, TypeError):
        known = _store(trace, note)
    return dataclasses.replace(
        trace,
        rows_skipped=int(known["rows_skipped"]),
        counted_from_s=float(known["counted_from_s"]),
    )


def _store(trace: StoredTrace, note: Path) -> dict[str, float]:
    reader = TraceReader(path=trace.path, skip_bad_rows=trace.skip_bad_rows)
    whole = join(list(reader))
    rows = np.empty(len(whole), dtype=COLUMNS)
    for name in COLUMNS.names or ():
        rows[name] = getattr(whole, name)
    with being_written(note.with_suffix(".npy")) as draft, draft.open("wb") as file:
        np.save(file, rows)
    known = {
        "rows": len(whole),
        "rows_skipped": reader.rows_skipped,
        "counted_from_s": reader.counted_from_s,
    }
    with being_written(note) as draft:
        draft.write_text(json.dumps(known), encoding="utf-8")
    _remove_oldest(note.parent)
    return known


def _remove_oldest(folder: Path) -> None:
    notes = sorted(folder.glob("*.json"), key=lambda note: note.stat().st_mtime, reverse=True)
    for note in notes[KEPT_MAX:]:
        note.unlink(missing_ok=True)
        note.with_suffix(".npy").unlink(missing_ok=True)


def _copy_path(folder: Path, fingerprint: str) -> Path:
    return folder / "traces" / f"{fingerprint}.npy"
