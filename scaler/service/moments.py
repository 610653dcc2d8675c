"""The arithmetic of past decisions: what a page or ``scaler explain`` asks for afterwards.

A decision without its measurements, with four digits of every number, takes some hundred bytes
beside others of its kind.  All targets share one room: where there are few every decision of a day
has a place in it, where there are a thousand every change of a count and one every 45 minutes.
"""

import re
import threading
import zlib
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace

import msgspec

from scaler.core.model import Cause, Decision, NoData, Observation
from scaler.service.board import TriggerKey
from scaler.service.codec import decode, encode
from scaler.service.loop import TickReport
from scaler.service.registry import state_name
from scaler.signals.turns import at_once

ROOM_BYTES = 6 << 20
RECORD_BYTES = 190  # of one in a block; measured on two days of a simulated fleet
DAY_S = 86400.0
UNCLAIMED_S = 600.0  # a target that has not come back by then is gone
BLOCK = 16  # records that are packed together
OVERHEAD_BYTES = 112  # of one Python object of bytes, its time, their pair
PENDING_MAX = 4  # ticks whose records are still being made; more are passed over
_WINDOW_BITS = -15
_UNKEPT = NoData(cause=Cause.NEVER, detail="not kept")
_TEXT_OR_FRACTION = re.compile(
    rb'"(?:seen_)?at_s":[^,}]+|"(?:[^"\\]|\\.)*"|-?\d+\.\d+(?:[eE][-+]?\d+)?'
)
"""Times and texts, which stay as they are, and numbers with a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A past decision; its observation has the replicas alone.

    ``next_at_s`` is when the next one that is kept was made, None for the last; ``begin_s`` how far
    back the memory of this target goes.
    """

    decision: Decision
    next_at_s: float | None
    begin_s: float


class SavedRecords(msgspec.Struct):
    """The records of one trigger as they survive a restart."""

    blocks: list[tuple[float, bytes]]
    open: list[tuple[float, bytes]]


class _When(msgspec.Struct):
    at_s: float


@dataclass(slots=True)
class _Past:
    """Blocks of one trigger, oldest first, and the records that fill none yet."""

    due_s: float  # at which a record is kept though nothing changed
    told: tuple[object, ...] = ()
    blocks: deque[tuple[float, bytes]] = field(default_factory=deque)
    open: list[tuple[float, bytes]] = field(default_factory=list)
    size: int = 0


class Moments:
    """A sink of the loop.  ``executor`` does the packing, so that no answer waits for it."""

    def __init__(self, *, room_bytes: int = ROOM_BYTES, executor: Executor | None = None) -> None:
        self._room_bytes = room_bytes
        self._executor = executor
        self._pending: list[Future[None]] = []
        self._lock = threading.Lock()  # the packing runs beside the questions
        self._pasts: dict[TriggerKey, _Past] = {}
        self._saved: dict[str, SavedRecords] = {}
        self._saved_until_s: float | None = None
        self.common = b""  # the first record: what the others repeat

    def take(self, report: TickReport) -> None:
        """Keep what changed, and of the rest as much as there is room for; forget what is gone."""
        at_once(self.taking(report))

    def taking(self, report: TickReport) -> Generator[None]:
        """``take``, a trigger at a time."""
        with self._lock:
            for key in report.dropped:
                self._pasts.pop(key, None)
        if self._saved_until_s is None:
            self._saved_until_s = report.at_s + UNCLAIMED_S
        if report.at_s > self._saved_until_s:
            self._saved = {}
        self._pending = [one for one in self._pending if not one.done()]
        if len(self._pending) >= PENDING_MAX:
            return
        made: list[tuple[TriggerKey, Decision]] = []
        for entry in report.entries:
            yield
            decision = entry.decision
            if decision is None or decision.at_s != report.at_s:
                continue
            if self._wanted(entry.key, decision):
                made.append((entry.key, decision))
        if self._executor is None:
            self._keep(made)
        elif made:
            self._pending.append(self._executor.submit(self._keep, made))

    def adopt(self, saved: Mapping[str, SavedRecords], common: bytes) -> None:
        """Records of before a restart, by ``namespace/name/id``: taken up as triggers come."""
        assert not self._pasts, "adopted before the first tick"
        self._saved, self.common = dict(saved), common
        self._saved_until_s = None

    @property
    def unclaimed(self) -> set[str]:
        """Names of triggers whose records of before a restart wait for them."""
        return set(self._saved)

    def saved(self, key: TriggerKey) -> SavedRecords | None:
        """The records of a trigger, to be adopted after a restart."""
        with self._lock:
            past = self._pasts.get(key)
            if past is None:
                return None
            return SavedRecords(blocks=list(past.blocks), open=list(past.open))

    def find(self, key: TriggerKey, at_s: float) -> Kept | None:
        """The last decision that is kept and was not made after ``at_s``; None if none is."""
        with self._lock:
            past = self._pasts.get(key)
            if past is None:
                return None
            texts = self._around(past, at_s)
        begin_s = self.begin_s(key)
        if not texts or begin_s is None:
            return None
        times_s = [msgspec.json.decode(text, type=_When).at_s for text in texts]
        place = sum(one <= at_s for one in times_s) - 1
        if place < 0:
            return None
        return Kept(
            decision=decode(Decision, texts[place]),
            next_at_s=times_s[place + 1] if place + 1 < len(times_s) else None,
            begin_s=begin_s,
        )

    def begin_s(self, key: TriggerKey) -> float | None:
        """How far back the memory of a target goes; None where it has none."""
        with self._lock:
            past = self._pasts.get(key)
            if past is None or not (past.blocks or past.open):
                return None
            return past.blocks[0][0] if past.blocks else past.open[0][0]

    @property
    def size(self) -> int:
        """Bytes of all records."""
        return sum(past.size for past in tuple(self._pasts.values()))

    def _wanted(self, key: TriggerKey, decision: Decision) -> bool:
        past = self._pasts.get(key)
        if past is None:  # of many targets that begin at once each has its own turn
            past = self._begun(key, decision.at_s)
        told = (
            decision.would_be, decision.replicas_desired, decision.verdict, decision.active,
        )  # fmt: skip
        if told == past.told and decision.at_s < past.due_s:
            return False
        if decision.at_s >= past.due_s:
            past.due_s = decision.at_s + self._every_s() * (1.0 - 1e-9)
        past.told = told
        return True

    def _begun(self, key: TriggerKey, at_s: float) -> _Past:
        """A new past, or the one of before the restart, unless the clock was set back since."""
        made = _Past(due_s=at_s + self._every_s() * _share(key))
        saved = self._saved.pop(state_name(key), None)
        times_s = [one for one, _ in (*saved.blocks, *saved.open)] if saved is not None else []
        if saved is not None and times_s and at_s - DAY_S < times_s[-1] < at_s:
            made.blocks.extend(saved.blocks)
            made.open.extend(saved.open)
        with self._lock:
            self._pasts[key] = made
        return made

    def _every_s(self) -> float:
        """A day in as many records as a target has room for."""
        return DAY_S / max(self._room_each / RECORD_BYTES, 1.0)

    @property
    def _room_each(self) -> float:
        return self._room_bytes / max(len(self._pasts), 1)

    def _keep(self, made: Sequence[tuple[TriggerKey, Decision]]) -> None:
        for key, decision in made:
            text = slim(decision)
            with self._lock:
                past = self._pasts.get(key)
                if past is not None:  # else it was dropped meanwhile
                    self._append(past, decision.at_s, text)

    def _append(self, past: _Past, at_s: float, text: bytes) -> None:
        self.common = self.common or text
        past.open.append((at_s, self._packed(text)))
        if len(past.open) >= BLOCK:
            begin_s, _ = past.open[0]
            whole = b"\n".join(self._unpacked(packed) for _, packed in past.open)
            past.blocks.append((begin_s, self._packed(whole)))
            past.open.clear()
        past.size = sum(len(one) + OVERHEAD_BYTES for _, one in (*past.blocks, *past.open))
        while past.size > self._room_each and past.blocks:
            _, oldest = past.blocks.popleft()
            past.size -= len(oldest) + OVERHEAD_BYTES

    def _around(self, past: _Past, at_s: float) -> list[bytes]:
        """The texts of the block that has ``at_s``, and the first one after it."""
        groups: list[tuple[float, tuple[bytes, ...]]] = [
            (begin_s, (block,)) for begin_s, block in past.blocks
        ]
        if past.open:
            groups.append((past.open[0][0], tuple(packed for _, packed in past.open)))
        place = max(sum(begin_s <= at_s for begin_s, _ in groups) - 1, 0)
        texts = [
            text
            for _, packed in groups[place : place + 1]
            for one in packed
            for text in self._unpacked(one).split(b"\n")
        ]
        for _, packed in groups[place + 1 : place + 2]:
            texts.append(self._unpacked(packed[0]).partition(b"\n")[0])
        return texts

    def _packed(self, text: bytes) -> bytes:
        packer = zlib.compressobj(6, zlib.DEFLATED, _WINDOW_BITS, 8, zdict=self.common)
        return packer.compress(text) + packer.flush()

    def _unpacked(self, packed: bytes) -> bytes:
        return zlib.decompressobj(_WINDOW_BITS, zdict=self.common).decompress(packed)


def slim(decision: Decision) -> bytes:
    """A decision as JSON that ``decode`` takes: replicas are all that is left of what was seen."""
    seen = Observation(
        seen_at_s=decision.observation.seen_at_s,
        replicas=decision.observation.replicas,
        queue=_UNKEPT, kv_cache=_UNKEPT, ttft=_UNKEPT, itl=_UNKEPT, work=_UNKEPT, gpu=_UNKEPT,
        gateway=_UNKEPT,
    )  # fmt: skip
    return _TEXT_OR_FRACTION.sub(_shorter, encode(replace(decision, observation=seen)))


def _shorter(found: re.Match[bytes]) -> bytes:
    text = found.group()
    if text.startswith(b'"') or len(text) <= 5:
        return text
    return f"{float(text):.4g}".encode()


def _share(key: TriggerKey) -> float:
    """A number from 0 to 1 that differs from target to target and is the same in every process."""
    return zlib.crc32(f"{key.namespace}/{key.name}".encode()) / 2**32
