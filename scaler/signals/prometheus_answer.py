"""Reading the JSON of the Prometheus HTTP API: typed, in slices, with the path in every error.

An answer for ten thousand pods has megabytes.  It is decoded row by row and only one thread at a
time, with a pause after every slice: the interpreter's lock is free again after about a
millisecond, so that the event loop answers gRPC calls while an answer is read.
"""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from scaler.core.model import Cause
from scaler.signals.faults import SourceError, brief
from scaler.signals.prometheus_http import Body, Reply

_SLICE_BYTES = 32 * 1024  # some 200 rows: a millisecond of decoding and of what a reader does
_SLICE_ROWS = 200
_PAUSE_S = 0.0002  # enough for a waiting thread to be woken and to take the lock
_RESULT = b'"result":['
_BOUNDARY = b'},{"metric"'
_SLICE_PATH = re.compile(r"`\$\[(\d+)\]")
_LINT = "PromQL info"  # remarks about the text of a query, not about the data

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What a source says about its own answer.  ``partial`` are warnings that data is missing."""

    partial: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One series of an instant query: labels, when evaluated, value (NaN and infinities kept)."""

    labels: dict[str, str]
    at_s: float
    value: float


@dataclass(frozen=True, slots=True)
class Track:
    """One series of a range query: labels, and points of (time, value)."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


class _Data(msgspec.Struct):
    resultType: str  # noqa: N815  the API's own name
    result: list[msgspec.Raw]


class _Envelope(msgspec.Struct):
    status: str
    data: _Data | None = None
    errorType: str = ""  # noqa: N815  the API's own name
    error: str = ""
    warnings: list[str] = []
    infos: list[str] = []


class _VectorRow(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _MatrixRow(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]]


_envelope = msgspec.json.Decoder(_Envelope)
_vector_rows = msgspec.json.Decoder(list[_VectorRow])
_matrix_rows = msgspec.json.Decoder(list[_MatrixRow])
_number = msgspec.json.Decoder(float)
_text = msgspec.json.Decoder(str)


class Answer:
    """An opened answer: its notes, and its rows on demand.

    ``early`` is where the body has all rows but the last, which the envelope holds.
    """

    def __init__(self, envelope: _Envelope, body: Body, early: range) -> None:
        assert envelope.data is not None, "only answers with data are opened"
        self._data = envelope.data
        self._body = body
        self._early = early
        self.notes = _notes(envelope)

    def cells(self) -> Iterator[Cell]:
        """Rows of an instant vector; a scalar is one row without labels.

        Raises:
            SourceError: MALFORMED, naming the path of the first wrong value.
        """
        if self._data.resultType == "scalar":
            yield self._scalar()
            return
        self._expect("vector")
        for index, row in self._rows(_vector_rows):
            at_s, text = row.value
            yield Cell(row.metric, at_s, _value(text, f"$.data.result[{index}].value[1]"))

    def tracks(self) -> Iterator[Track]:
        """Rows of a range query.

        Raises:
            SourceError: MALFORMED, naming the path of the first wrong value.
        """
        self._expect("matrix")
        for index, row in self._rows(_matrix_rows):
            path = f"$.data.result[{index}].values"
            points = tuple(
                (at_s, _value(text, f"{path}[{point}][1]"))
                for point, (at_s, text) in enumerate(row.values)
            )
            yield Track(row.metric, points)

    def _expect(self, kind: str) -> None:
        if self._data.resultType != kind:
            raise SourceError(
                Cause.MALFORMED,
                f"$.data.resultType is {brief(self._data.resultType, 40)!r}, must be {kind!r}; "
                "the query does not give one value per series",
            )

    def _rows(self, decoder: "msgspec.json.Decoder[list[Any]]") -> Iterator[tuple[int, Any]]:
        """Rows with their index, a slice at a time."""
        index = 0
        for piece in chain(_pieces(self._body, self._early), _grouped(self._data.result)):
            try:
                rows = decoder.decode(piece)
            except (msgspec.DecodeError, UnicodeDecodeError) as fault:
                raise _malformed(fault, first=index) from None
            for row in rows:
                yield index, row
                index += 1
            breathe()

    def _scalar(self) -> Cell:
        try:
            at_s, text = self._data.result
            number = _value(_text.decode(text), "$.data.result[1]")
            return Cell({}, _number.decode(at_s), number)
        except (msgspec.DecodeError, ValueError) as fault:
            raise SourceError(
                Cause.MALFORMED, f"$.data.result is not a scalar: {brief(str(fault))}"
            ) from None


def open_answer(reply: Reply) -> Answer:
    """Open a reply of the API: status and notes are read, the rows are not yet.

    Raises:
        SourceError: MALFORMED for anything that is not the API's JSON or is an error about our
            query; UNREACHABLE, passing, where the server says that it could not answer just now.
    """
    early, rest = _split(reply.body)
    try:
        envelope = _envelope.decode(rest)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise _not_ours(reply, fault) from None
    if envelope.status != "success" or reply.status >= 300:
        raise _refused(reply.status, envelope)
    if envelope.data is None:
        raise SourceError(Cause.MALFORMED, "$.data is missing from a successful answer")
    return Answer(envelope, reply.body, early)


class reading:  # noqa: N801  used as `with reading():`, like the other context managers
    """Holds the right to decode; one thread at a time, so that the event loop has one rival."""

    def __enter__(self) -> None:
        _one_at_a_time.acquire()

    def __exit__(self, *_: object) -> None:
        _one_at_a_time.release()


def breathe() -> None:
    """Let a waiting thread (the event loop) have the interpreter's lock."""
    time.sleep(_PAUSE_S)


def _notes(envelope: _Envelope) -> Notes:
    remarks = tuple(brief(info) for info in envelope.infos if info.startswith(_LINT))
    told = (info for info in envelope.infos if not info.startswith(_LINT))
    return Notes(
        partial=tuple(brief(text) for text in (*envelope.warnings, *told)), remarks=remarks
    )


def _value(text: str, path: str) -> float:
    try:
        return float(text)  # reads "NaN", "+Inf" and "-Inf" as Prometheus writes them
    except ValueError:
        raise SourceError(
            Cause.MALFORMED, f"{path} is {brief(text, 40)!r}, must be a number as text"
        ) from None


def _malformed(fault: Exception, *, first: int) -> SourceError:
    """Name the path in the whole answer; the decoder's own begins at the slice."""

    def moved(found: re.Match[str]) -> str:
        return f"`$.data.result[{first + int(found[1])}]"

    text = _SLICE_PATH.sub(moved, brief(str(fault)), count=1)
    return SourceError(Cause.MALFORMED, f"the answer has a wrong value: {text}")


def _split(body: Body) -> tuple[range, Body]:
    """Where all rows but the last are, and the answer as if the last were the only one.

    Rows are cut where one ends and the next begins, in the form in which servers write them.  A
    quotation mark inside a JSON string is escaped, so that no label can look like a boundary.
    Where an answer is written otherwise nothing is cut, and it is decoded in one piece.
    """
    start = body.find(_RESULT)
    last = body.rfind(_BOUNDARY)
    if start < 0 or last < start:
        return range(0), body
    start += len(_RESULT)
    # Of the boundary `},{"metric"` the brace ends the early rows, and the last begins behind the
    # comma.
    return range(start, last + 1), body[:start] + body[last + 2 :]


def _pieces(body: Body, early: range) -> Iterator[bytes]:
    """The early rows as JSON arrays of about ``_SLICE_BYTES``."""
    begin = early.start
    while begin < early.stop:
        cut = body.find(_BOUNDARY, begin + _SLICE_BYTES, early.stop)
        end = early.stop if cut < 0 else cut + 1
        yield b"[%b]" % bytes(body[begin:end])
        begin = end + 1


def _grouped(rows: Sequence[msgspec.Raw]) -> Iterator[bytes]:
    """Rows of the envelope, as arrays of a slice each."""
    for begin in range(0, len(rows), _SLICE_ROWS):
        yield b"[" + b",".join(bytes(row) for row in rows[begin : begin + _SLICE_ROWS]) + b"]"


def _not_ours(reply: Reply, fault: Exception) -> SourceError:
    kind = reply.content_type.split(";")[0].strip()
    if reply.status >= 500:
        return SourceError(
            Cause.UNREACHABLE, f"the server answered {reply.status} without a reason", passing=True
        )
    if kind and "json" not in kind:
        return SourceError(
            Cause.MALFORMED,
            f"the answer ({reply.status}) is {brief(kind, 40)}, not JSON; "
            "url must name the API, not a login page or a user interface",
        )
    return SourceError(
        Cause.MALFORMED,
        f"the answer ({reply.status}, {len(reply.body)} bytes) is not the JSON of the API: "
        f"{brief(str(fault))}",
    )


def _refused(status: int, envelope: _Envelope) -> SourceError:
    kind = brief(envelope.errorType or "error", 40)
    said = f"{kind} ({status}): {brief(envelope.error)}"
    if status >= 500 or kind in ("timeout", "canceled", "unavailable", "too_many_requests"):
        return SourceError(Cause.UNREACHABLE, f"the server could not answer: {said}", passing=True)
    return SourceError(Cause.MALFORMED, f"the server refused the query: {said}")
