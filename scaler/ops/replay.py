"""Recorded decisions decided again, with the same settings or with others."""

import gzip
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A recorded decision and what is decided now from the same observation.

    ``again`` is None where the log says of no state from which it was decided.
    """

    record: DecisionRecord
    again: Decision | None

    @property
    def same(self) -> bool:
        """Whether the two are equal bit by bit."""
        return self.again == self.record.decision


class _Kind(msgspec.Struct):
    kind: str


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
        logged = record.decision
        again, states[name] = decide(logged.observation, states[name], policies[name], logged.at_s)
        yield Replayed(record=record, again=again)


def read_log(path: Path) -> Iterator[StateRecord | DecisionRecord]:
    """The records of one file of the decision log, compressed or not.

    A last line that a crash has cut is left out.

    Raises:
        SignalError: naming the file and the line that cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield parse_record(line)
                except SignalError as error:
                    raise SignalError(f"{path}:{number}: {error}") from error
    except (OSError, EOFError) as error:
        raise SignalError(f"{path} cannot be read: {error}") from error


def parse_record(line: bytes) -> StateRecord | DecisionRecord:
    """One record from its line.

    Raises:
        SignalError: when it is none.
    """
    try:
        kind = msgspec.json.decode(line, type=_Kind).kind
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SignalError(f"no record: {error}") from error
    if kind == "state":
        return decode(StateRecord, line)
    if kind == "decision":
        return decode(DecisionRecord, line)
    raise SignalError(f"no record: kind = {kind!r}, must be state or decision")
