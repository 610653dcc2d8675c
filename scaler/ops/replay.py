"""Recorded decisions decided again, with the same settings or with others."""

import gzip
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scaler.core.config import PolicyConfig
from scaler.core.model import Decision
from scaler.core.policy import PolicyState, decide
from scaler.errors import SignalError
from scaler.service.codec import DecisionRecord, StateRecord, decode

Change = Callable[[PolicyConfig], PolicyConfig]
Belongs = Callable[["Head"], bool]
_PART = re.compile(r"decisions(-\d+)?\.jsonl(\.gz)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A recorded decision and what is decided now from the same observation.

    ``again`` is None where the log says of no state from which it was decided; ``before`` and
    ``policy`` are what it was made from.
    """

    record: DecisionRecord
    again: Decision | None
    before: PolicyState | None = None
    policy: PolicyConfig | None = None

    @property
    def same(self) -> bool:
        """Whether the two are equal bit by bit."""
        return self.again == self.record.decision


class When(msgspec.Struct):
    """The one field of a decision that tells its place in the log."""

    at_s: float


class Head(msgspec.Struct):
    """What is read of a record before all of it is: whose it is, and of when."""

    kind: str
    namespace: str = ""
    name: str = ""
    id: str = ""
    decision: When | None = None

    @property
    def at_s(self) -> float | None:
        """When it was decided; None of a state."""
        return None if self.decision is None else self.decision.at_s


def replay(
    records: Iterable[StateRecord | DecisionRecord], change: Change | None = None
) -> Iterator[Replayed]:
    """Decide every recorded decision again, in the order of the log.

    Without ``change`` each state of the log is taken up, so that every decision stands for itself.
    With it, settings are changed and each trigger goes its own way from its first state on: what
    was decided differently is remembered.
    """
    states: dict[tuple[str, str, str], PolicyState] = {}
    policies: dict[tuple[str, str, str], PolicyConfig] = {}
    hashes: dict[tuple[str, str, str], str] = {}
    for record in records:
        name = (record.namespace, record.name, record.id)
        if isinstance(record, StateRecord):
            policies[name] = change(record.policy) if change else record.policy
            hashes[name] = record.config_hash
            if change is None or name not in states:
                states[name] = record.state
            continue
        if name not in states or hashes[name] != record.config_hash:
            yield Replayed(record=record, again=None)
            continue
        logged, before, policy = record.decision, states[name], policies[name]
        again, states[name] = decide(logged.observation, before, policy, logged.at_s)
        yield Replayed(record=record, again=again, before=before, policy=policy)


def log_files(path: Path) -> tuple[Path, ...]:
    """The files of a log in the order they were written: ``path``, or those of a daemon's folder.

    Raises:
        SignalError: there is no such file, or the folder has none.
    """
    if not path.is_dir():
        if not path.exists():
            raise SignalError(f"{path} is not there: a decision log or the folder of one is wanted")
        return (path,)
    found = [one for one in path.iterdir() if _PART.fullmatch(one.name)]
    if not found:
        raise SignalError(f"{path} has no decision log: decisions.jsonl, decisions-000001.jsonl.gz")
    whole = {one.name for one in found}
    kept = [one for one in found if f"{one.name}.gz" not in whole]  # half way through compression
    return tuple(sorted(kept, key=lambda one: (one.name == "decisions.jsonl", one.name)))


def read_logs(path: Path, belongs: Belongs | None = None) -> Iterator[StateRecord | DecisionRecord]:
    """The records of all files of ``path`` in order; ``belongs`` says which are wanted.

    Raises:
        SignalError: as ``log_files`` and ``read_log``.
    """
    for one in log_files(path):
        yield from read_log(one, belongs)


def read_log(path: Path, belongs: Belongs | None = None) -> Iterator[StateRecord | DecisionRecord]:
    """The records of one file of the decision log, compressed or not.

    A last line that a crash has cut is left out.  Records that do not ``belongs`` are passed over
    at a hundredth of the cost.

    Raises:
        SignalError: naming the file and the line that cannot be read.
    """
    for number, line in _lines(path):
        try:
            if belongs is None or belongs(parse_head(line)):
                yield parse_record(line)
        except SignalError as error:
            raise SignalError(f"{path}:{number}: {error}") from error


def read_heads(path: Path) -> Iterator[Head]:
    """Whose each record is and of when, of all files of ``path``.

    Raises:
        SignalError: naming the file and the line that cannot be read.
    """
    for one in log_files(path):
        for number, line in _lines(one):
            try:
                yield parse_head(line)
            except SignalError as error:
                raise SignalError(f"{one}:{number}: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                yield number, line
    except (OSError, EOFError) as error:
        raise SignalError(f"{path} cannot be read: {error}") from error


def parse_record(line: bytes) -> StateRecord | DecisionRecord:
    """One record from its line.

    Raises:
        SignalError: when it is none.
    """
    kind = parse_head(line).kind
    if kind == "state":
        return decode(StateRecord, line)
    return decode(DecisionRecord, line)


def parse_head(line: bytes) -> Head:
    """Whose record a line is, and of when.

    Raises:
        SignalError: when it is none.
    """
    try:
        head = msgspec.json.decode(line, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SignalError(f"no record: {error}") from error
    if head.kind not in ("state", "decision"):
        raise SignalError(f"no record: kind = {head.kind!r}, must be state or decision")
    return head
