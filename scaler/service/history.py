"""The last day of every target in memory, for the live page: bounded, oldest first forgotten.

The last hour and a half is kept as it was decided; what is older as one row for every five minutes,
in which a queue and a latency keep their worst, work its mean, and counts what they were last.
"""

import threading
import zlib
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scaler.core.model import Decision, NoData, Stage
from scaler.service.board import TriggerKey
from scaler.service.loop import TickReport
from scaler.service.registry import state_name
from scaler.signals.turns import at_once

Row: TypeAlias = NDArray[np.float64]
"""One row of ``COLUMNS``, or several; NaN where there was no data."""

ROWS_MAX = 360  # 90 minutes of 15 s ticks
COARSE_S = 300.0
COARSE_ROWS_MAX = 276  # 23 hours
BLOCK = 30  # rows packed together: a full day takes 14 kB a target, unpacked it takes 25
PAST_MAX_S = 86400.0
UNCLAIMED_S = 600.0  # a target that has not come back by then is gone
COUNTS = ("desired", "published", "wanted", "ready", "starting", "decided_by")
WORST = ("waiting", "ttft_p95_s")
MEAN = (
    "running", "kv_cache_ratio", "gpu_util_ratio", "load", "forecast_upper", "forecast_mean",
    "forecast_lead_s",
)  # fmt: skip
COLUMNS = ("at_s", *COUNTS, *WORST, *MEAN)
"""``decided_by`` is the index of a stage."""
STEP = "step_s"
"""The column after the others in ``History.rows``: for how long a row stands."""
_STAGES = tuple(Stage)
_UNSEEN = -1
_COUNT_MAX = np.iinfo(np.int16).max
_VALUE_MAX = float(np.finfo(np.float16).max)  # its three digits are what a chart can show


class SavedRing(msgspec.Struct):
    """Rows as they are kept: packed, ``size`` at a time, and the arrays of those that are not."""

    size: int
    packed: list[bytes]
    at_s: bytes
    counts: bytes
    values: bytes


class SavedRows(msgspec.Struct):
    """The past of one trigger as it survives a restart; ``open`` rows are of ``begin_s``."""

    recent: SavedRing
    older: SavedRing
    begin_s: float
    open: int


class Ring:
    """Rows in as few bytes as a chart allows: times need every digit, counts are whole.

    All but the newest are packed, ``BLOCK`` rows at a time: what a thousand targets take is halved.
    """

    def __init__(self, rows: int) -> None:
        self.filled = 0
        self._rows = rows
        self._packed: deque[bytes] = deque()
        self._open = 0
        self._at_s = np.empty(min(BLOCK, rows), dtype=np.float64)
        self._counts = np.empty((len(self._at_s), len(COUNTS)), dtype=np.int16)
        self._values = np.empty((len(self._at_s), len(WORST) + len(MEAN)), dtype=np.float16)

    @property
    def full(self) -> bool:
        """Whether the next row takes the place of another."""
        return self.filled >= self._rows

    @property
    def bytes(self) -> int:
        """What the rows take."""
        open_bytes = self._at_s.nbytes + self._counts.nbytes + self._values.nbytes
        return open_bytes + sum(map(len, self._packed))

    def push(self, row: Row) -> None:
        """Take in a row of ``COLUMNS``; the oldest goes when there is no place."""
        counts, values = row[1 : 1 + len(COUNTS)], row[1 + len(COUNTS) :]
        self._at_s[self._open] = row[0]
        self._counts[self._open] = np.where(
            np.isnan(counts), _UNSEEN, np.minimum(counts, _COUNT_MAX)
        )
        self._values[self._open] = np.minimum(values, _VALUE_MAX)
        self._count_up()

    def saved(self) -> SavedRing:
        """Every row, without unpacking any."""
        arrays = (self._at_s, self._counts, self._values)
        at_s, counts, values = (array[: self._open].tobytes() for array in arrays)
        return SavedRing(
            size=len(self._at_s), packed=[*self._packed], at_s=at_s, counts=counts, values=values
        )

    def restore(self, saved: SavedRing) -> None:
        """Take in what was saved; nothing of rows that were packed otherwise."""
        if saved.size != len(self._at_s):
            return
        for mine, told in (
            (self._at_s, saved.at_s), (self._counts, saved.counts), (self._values, saved.values),
        ):  # fmt: skip
            rows = np.frombuffer(told, dtype=mine.dtype).reshape(-1, *mine.shape[1:])
            mine[: len(rows)] = rows
            self._open = len(rows)
        self._packed.extend(saved.packed)
        self.filled = len(saved.packed) * saved.size + self._open

    def rows(self, last: int | None = None) -> Row:
        """The rows in order of time, all or so many of the last ones."""
        at_s, whole, values = self._parts(self._rows if last is None else last)
        counts = whole.astype(np.float64)
        counts[counts == _UNSEEN] = np.nan
        found: Row = np.column_stack((at_s, counts, values))
        return found

    def _count_up(self) -> None:
        self.filled += 1
        self._open += 1
        size = len(self._at_s)
        if self._open == size:
            arrays = (self._at_s, self._counts, self._values)
            self._packed.append(zlib.compress(b"".join(_shuffled(array) for array in arrays)))
            self._open = 0
        while (len(self._packed) - 1) * size + self._open >= self._rows:
            self._packed.popleft()

    def _parts(self, last: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Times, counts and values of the last rows, no more of them than there is place for."""
        wanted = min(last, self._rows, self.filled)
        size, arrays = len(self._at_s), (self._at_s, self._counts, self._values)
        needed = -(-max(wanted - self._open, 0) // size)
        blocks = [*self._packed][len(self._packed) - needed :]
        found = [_unshuffled(zlib.decompress(block), arrays) for block in blocks]
        found.append([array[: self._open].copy() for array in arrays])
        at_s, counts, values = (
            np.concatenate(one)[-wanted:] if wanted else one[-1][:0]
            for one in zip(*found, strict=True)
        )
        return at_s, counts, values


def _shuffled(array: NDArray[Any]) -> bytes:
    """Column by column, and of each the first bytes of all values, the second ones, ...: alike."""
    columns = np.ascontiguousarray(array.reshape(len(array), -1).T)
    return columns.view(np.uint8).reshape(*columns.shape, -1).transpose(0, 2, 1).tobytes()


def _unshuffled(data: bytes, like: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The arrays that ``_shuffled`` made ``data`` of, shaped as ``like``."""
    made: list[NDArray[Any]] = []
    begin = 0
    for array in like:
        count, width = len(array), array.dtype.itemsize
        whole = np.frombuffer(data, np.uint8, array.nbytes, begin).reshape(-1, width, count)
        columns = np.ascontiguousarray(whole.transpose(0, 2, 1)).view(array.dtype)
        made.append(columns.reshape(-1, count).T.reshape(array.shape))
        begin += array.nbytes
    return made


class _Past:
    """The rows of one trigger; ``recent`` also holds the five minutes that are not over yet."""

    def __init__(self, rows_max: int, coarse_rows_max: int) -> None:
        self.recent = Ring(rows_max)
        self.older = Ring(coarse_rows_max)
        self._begin_s = np.nan
        self._open = 0  # rows of the five minutes that are not over yet

    def take(self, row: Row) -> None:
        begin_s = row[0] - row[0] % COARSE_S
        if begin_s != self._begin_s:
            if self._open:
                self.older.push(_merged(self._begin_s, self.recent.rows(self._open)))
            self._begin_s, self._open = begin_s, 0
        self._open += 1
        self.recent.push(row)

    def saved(self) -> SavedRows:
        return SavedRows(
            recent=self.recent.saved(),
            older=self.older.saved(),
            begin_s=float(self._begin_s),
            open=self._open,
        )

    def restore(self, saved: SavedRows) -> None:
        self.recent.restore(saved.recent)
        self.older.restore(saved.older)
        self._begin_s, self._open = saved.begin_s, min(saved.open, self.recent.filled)

    def rows(self, tick_s: float) -> Row:
        recent, older = self.recent.rows(), self.older.rows()
        begin_s = recent[0, 0] if self.recent.full else -np.inf
        older = older[older[:, 0] < begin_s]
        if len(older):  # no time is told twice, and none is left out
            recent = recent[recent[:, 0] >= older[-1, 0] + COARSE_S]
        step_s = np.repeat((COARSE_S, tick_s), (len(older), len(recent)))
        found: Row = np.column_stack((np.concatenate((older, recent)), step_s))
        return found


def _merged(begin_s: float, rows: Row) -> Row:
    """One row for several; NaN only where none of them saw anything."""
    worst, mean = 1 + len(COUNTS), 1 + len(COUNTS) + len(WORST)
    seen = rows[:, mean:]
    there = np.isfinite(seen)
    total, count = np.where(there, seen, 0.0).sum(axis=0), there.sum(axis=0)
    means = np.divide(total, count, out=np.full(len(MEAN), np.nan), where=count > 0)
    made: Row = rows[-1].copy()
    made[0] = begin_s
    made[worst:mean] = np.fmax.reduce(rows[:, worst:mean], axis=0)
    made[mean:] = means
    return made


class History:
    """The past of each trigger."""

    def __init__(self, rows_max: int = ROWS_MAX, coarse_rows_max: int = COARSE_ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._coarse_rows_max = coarse_rows_max
        self._pasts: dict[TriggerKey, _Past] = {}
        self._saved: dict[str, SavedRows] = {}
        self._saved_until_s: float | None = None
        self._lock = threading.Lock()  # a thread saves one past while another grows

    def take(self, report: TickReport) -> None:
        """Append one row per decided trigger; forget dropped ones."""
        at_once(self.taking(report))

    def taking(self, report: TickReport) -> Generator[None]:
        """``take``, a trigger at a time."""
        for entry in report.entries:
            yield
            decision = entry.decision
            if decision is None or decision.at_s != report.at_s:
                continue
            past = self._pasts.get(entry.key)
            if past is None:
                past = self._begun(entry.key, decision.at_s)
            with self._lock:
                past.take(np.array(row_of(decision)))
        for key in report.dropped:
            self._pasts.pop(key, None)
        if self._saved_until_s is None:
            self._saved_until_s = report.at_s + UNCLAIMED_S
        if report.at_s > self._saved_until_s:
            self._saved = {}

    def adopt(self, saved: Mapping[str, SavedRows]) -> None:
        """The past of before a restart, by ``namespace/name/id``: taken up as triggers come."""
        self._saved = dict(saved)

    @property
    def unclaimed(self) -> set[str]:
        """Names of triggers whose past of before a restart waits for them."""
        return set(self._saved)

    def known(self) -> tuple[TriggerKey, ...]:
        """Every trigger with a past."""
        return tuple(self._pasts)

    def saved(self, key: TriggerKey) -> SavedRows | None:
        """The past of a trigger, to be adopted after a restart."""
        past = self._pasts.get(key)
        if past is None:
            return None
        with self._lock:
            return past.saved()

    def _begun(self, key: TriggerKey, at_s: float) -> _Past:
        """A new past, or the one of before the restart, unless the clock was set back since."""
        made = _Past(self._rows_max, self._coarse_rows_max)
        saved = self._saved.pop(state_name(key), None)
        if saved is not None:
            made.restore(saved)
            rows = made.recent.rows(1)
            if not len(rows) or not at_s - PAST_MAX_S < rows[0, 0] < at_s:
                made = _Past(self._rows_max, self._coarse_rows_max)
        self._pasts[key] = made
        return made

    def rows(self, key: TriggerKey, *, tick_s: float) -> list[list[float | None]]:
        """The rows of a trigger in order of time, ``COLUMNS`` and ``STEP``; None is no data.

        Rows of five minutes end where rows of ticks begin.
        """
        past = self._pasts.get(key)
        if past is None:
            return []
        found = past.rows(tick_s).tolist()
        return [[None if value != value else value for value in row] for row in found]  # noqa: PLR0124 - NaN


def row_of(decision: Decision) -> tuple[float, ...]:
    """One decision as a row of ``COLUMNS``; NaN where there was no data."""
    seen = decision.observation
    replicas, queue, kv, gpu = seen.replicas, seen.queue, seen.kv_cache, seen.gpu
    load = np.nan
    if decision.demand is not None and decision.capacity is not None:
        load = decision.demand.requests_per_s * decision.capacity.request_cost_s
    forecast = (np.nan, np.nan, np.nan)
    if decision.forecast is not None:
        ahead = decision.forecast
        forecast = (ahead.load_upper, ahead.load_mean, ahead.lead_s)
    counts = (np.nan, np.nan, np.nan)
    if not isinstance(replicas, NoData):
        counts = (replicas.wanted, replicas.ready, replicas.starting)
    return (
        decision.at_s,
        decision.would_be,
        decision.replicas_desired,
        *counts,
        _STAGES.index(decision.decided_by),
        np.nan if isinstance(queue, NoData) else queue.requests_waiting,
        _ttft_p95_s(decision),
        np.nan if isinstance(queue, NoData) else queue.requests_running,
        np.nan if isinstance(kv, NoData) else kv.usage_mean_ratio,
        np.nan if isinstance(gpu, NoData) else gpu.utilisation_mean_ratio,
        load,
        *forecast,
    )


def _ttft_p95_s(decision: Decision) -> float:
    """The 95th percentile of TTFT, interpolated in its bucket; NaN without requests."""
    latency = decision.observation.ttft
    if isinstance(latency, NoData) or latency.total <= 0.0:
        return np.nan
    wanted, below_s, passed = 0.95 * latency.total, 0.0, 0.0
    for bound_s, count in zip(latency.bounds_s, latency.counts, strict=False):
        if passed + count >= wanted and count > 0.0:
            return below_s + (bound_s - below_s) * (wanted - passed) / count
        passed += count
        below_s = bound_s
    return below_s
