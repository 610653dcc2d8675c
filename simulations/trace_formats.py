"""Readers of the trace formats: blocks of lines in, columns out, faults with their line.

A block is parsed by pyarrow at once; only a block with a fault in it is gone through line by line,
which finds the line and says what is wrong with it.  ``Dialect`` lists the comma-separated formats
by their columns; JSON lines are told apart by their keys.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

TOKENS_MAX = 2**30


class TraceFormat(StrEnum):
    """Where a trace comes from."""

    NATIVE = "native"  # arrival_s,prompt_tokens,output_tokens[,class]
    AZURE = "azure"  # AzurePublicDataset, 2023 and 2024
    BURSTGPT = "burstgpt"
    SERVEGEN = "servegen"
    MOONCAKE = "mooncake"  # JSON lines
    VLLM_BENCH = "vllm-bench"  # a line per run of `vllm bench serve --save-result --save-detailed`


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The columns of one comma-separated format; ``sorted_by_arrival`` files can be streamed."""

    format: TraceFormat
    arrival: str
    prompt: str
    output: str
    tenant: str | None = None
    time_stamps: bool = False  # dates instead of seconds
    sorted_by_arrival: bool = False


DIALECTS = (
    Dialect(
        format=TraceFormat.NATIVE,
        arrival="arrival_s",
        prompt="prompt_tokens",
        output="output_tokens",
        tenant="class",
        sorted_by_arrival=True,
    ),
    Dialect(
        format=TraceFormat.AZURE,
        arrival="TIMESTAMP",
        prompt="ContextTokens",
        output="GeneratedTokens",
        time_stamps=True,
    ),
    Dialect(
        format=TraceFormat.BURSTGPT,
        arrival="Timestamp",
        prompt="Request tokens",
        output="Response tokens",
        tenant="Model",
    ),
    Dialect(
        format=TraceFormat.SERVEGEN,
        arrival="timestamp",
        prompt="input_tokens",
        output="output_tokens",
        tenant="client_id",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request as a line gives it."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    tenant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A line that is not a request."""

    line: int
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The requests of a block, arrays of equal length; ``tenants`` is empty if there are none."""

    arrival_s: npt.NDArray[np.float64]
    prompt_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    tenants: Sequence[str]
    lines: npt.NDArray[np.int64]  # the line each request stands on
    bad_rows: tuple[BadRow, ...] = ()


LineParser: TypeAlias = Callable[[str], list[Row]]


class RowFaultError(Exception):
    """What is wrong with a line; becomes a BadRow with its number."""


def dialect_of(header: Sequence[str]) -> Dialect | None:
    """The dialect whose three required columns are all in ``header``."""
    for dialect in DIALECTS:
        if {dialect.arrival, dialect.prompt, dialect.output} <= set(header):
            return dialect
    return None


def parse_csv_block(
    lines: list[bytes], *, header: Sequence[str], dialect: Dialect, first_line: int
) -> Columns:
    """Lines below the header; at once where they are clean, line by line where they are not."""
    if not dialect.time_stamps:
        fast = _parse_clean(lines, header=header, dialect=dialect, first_line=first_line)
        if fast is not None:
            return fast
    return parse_lines(lines, parser=_csv_line_parser(header, dialect), first_line=first_line)


def _parse_clean(
    lines: list[bytes], *, header: Sequence[str], dialect: Dialect, first_line: int
) -> Columns | None:
    """Columns, or None where any line is not clean."""
    types = {
        dialect.arrival: pa.float64(),
        dialect.prompt: pa.int64(),
        dialect.output: pa.int64(),
    }
    tenant = dialect.tenant if dialect.tenant in header else None
    if tenant is not None:
        types[tenant] = pa.string()
    try:
        table = pa_csv.read_csv(
            io.BytesIO(b"".join(lines)),
            read_options=pa_csv.ReadOptions(column_names=list(header)),
            parse_options=pa_csv.ParseOptions(ignore_empty_lines=False),
            convert_options=pa_csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[]
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None
    columns = Columns(
        arrival_s=table[dialect.arrival].to_numpy(),
        prompt_tokens=table[dialect.prompt].to_numpy(),
        output_tokens=table[dialect.output].to_numpy(),
        tenants=table[tenant].to_pylist() if tenant is not None else (),
        lines=first_line + np.arange(table.num_rows),
    )
    return columns if _clean(columns) else None


def _clean(columns: Columns) -> bool:
    arrivals = columns.arrival_s
    fine = bool(np.all(np.isfinite(arrivals)) and np.all(arrivals >= 0.0))
    for tokens in (columns.prompt_tokens, columns.output_tokens):
        fine = fine and bool(np.all(tokens >= 1) and np.all(tokens <= TOKENS_MAX))
    return fine


def parse_lines(lines: list[bytes], *, parser: LineParser, first_line: int) -> Columns:
    """Every line on its own; those that fail are in ``bad_rows``."""
    rows: list[Row] = []
    numbers: list[int] = []
    bad: list[BadRow] = []
    for number, line in enumerate(lines, start=first_line):
        try:
            text = line.decode()
            fresh = parser(text) if text.strip() else []
            rows.extend(fresh)
            numbers.extend([number] * len(fresh))
        except UnicodeDecodeError:
            bad.append(BadRow(line=number, fault="is not UTF-8 text"))
        except RowFaultError as fault:
            bad.append(BadRow(line=number, fault=str(fault)))
    return Columns(
        arrival_s=np.array([r.arrival_s for r in rows], dtype=np.float64),
        prompt_tokens=np.array([r.prompt_tokens for r in rows], dtype=np.int64),
        output_tokens=np.array([r.output_tokens for r in rows], dtype=np.int64),
        tenants=[r.tenant for r in rows] if any(r.tenant for r in rows) else (),
        lines=np.array(numbers, dtype=np.int64),
        bad_rows=tuple(bad),
    )


def _csv_line_parser(header: Sequence[str], dialect: Dialect) -> LineParser:
    places = {name: i for i, name in enumerate(header)}

    def parse(text: str) -> list[Row]:
        try:
            cells = next(csv.reader([text]))
        except csv.Error as error:
            raise RowFaultError(f"is not CSV: {error}") from None
        if len(cells) != len(header):
            raise RowFaultError(f"has {len(cells)} columns, must have {len(header)}")
        when = cells[places[dialect.arrival]]
        return [
            Row(
                arrival_s=_date_s(when) if dialect.time_stamps else arrival(dialect.arrival, when),
                prompt_tokens=tokens(dialect.prompt, cells[places[dialect.prompt]]),
                output_tokens=tokens(dialect.output, cells[places[dialect.output]]),
                tenant=cells[places[dialect.tenant]] if dialect.tenant in places else "",
            )
        ]

    return parse


def _date_s(text: str) -> float:
    """Seconds since the epoch of ``2023-11-16 18:15:46.6805900``, UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(_microseconds(text.strip()))
    except ValueError:
        raise RowFaultError(f"TIMESTAMP = {text!r}, must be a date and time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _microseconds(text: str) -> str:
    """Fractions cut to six digits: Azure writes seven, more than datetime takes."""
    whole, dot, rest = text.partition(".")
    digits = "".join(c for c in rest if c.isdigit()) if dot and "+" not in rest else ""
    if dot and "+" in rest:
        fraction, _, zone = rest.partition("+")
        return f"{whole}.{fraction[:6]:0<6}+{zone}"
    return f"{whole}.{digits[:6]:0<6}" if digits else text


def arrival(name: str, value: object) -> float:
    """A finite, non-negative time; otherwise a RowFaultError that names the column."""
    try:
        at_s = float(str(value))
    except ValueError:
        raise RowFaultError(f"{name} = {value!r}, must be a number of seconds") from None
    if not math.isfinite(at_s) or at_s < 0.0:
        raise RowFaultError(f"{name} = {value}, must be finite and >= 0")
    return at_s


def tokens(name: str, value: object) -> int:
    """A whole number of tokens, at least 1; otherwise a RowFaultError that names the column."""
    try:
        number = float(str(value))
    except ValueError:
        raise RowFaultError(f"{name} = {value!r}, must be a whole number") from None
    if not math.isfinite(number) or number != int(number):
        raise RowFaultError(f"{name} = {value}, must be a whole number")
    if not 1 <= number <= TOKENS_MAX:
        raise RowFaultError(f"{name} = {int(number)}, must be in [1, {TOKENS_MAX}]")
    return int(number)


# JSON lines


def json_format_of(first_line: str) -> TraceFormat | None:
    """Which of the JSON formats a first line belongs to."""
    try:
        entry = json.loads(first_line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    if {"timestamp", "input_length", "output_length"} <= set(entry):
        return TraceFormat.MOONCAKE
    if {"input_lens", "output_lens"} <= set(entry):
        return TraceFormat.VLLM_BENCH
    return None


def json_line_parser(format_: TraceFormat) -> LineParser:
    """The parser of one line of ``format_``."""
    build = _mooncake if format_ == TraceFormat.MOONCAKE else _vllm_bench

    def parse(text: str) -> list[Row]:
        try:
            entry = json.loads(text)
        except json.JSONDecodeError as error:
            raise RowFaultError(f"is not JSON: {error.msg} at column {error.colno}") from None
        except (ValueError, RecursionError):
            raise RowFaultError("has a number too long or brackets too deep to be read") from None
        if not isinstance(entry, dict):
            raise RowFaultError("must be a JSON object")
        return build(entry)

    return parse


def _field(entry: dict[str, Any], name: str) -> Any:
    if name not in entry:
        raise RowFaultError(f"has no {name}")
    return entry[name]


def _mooncake(entry: dict[str, Any]) -> list[Row]:
    """``{"timestamp": <ms>, "input_length": ..., "output_length": ..., "hash_ids": [...]}``."""
    return [
        Row(
            arrival_s=arrival("timestamp", _field(entry, "timestamp")) / 1000.0,
            prompt_tokens=tokens("input_length", _field(entry, "input_length")),
            output_tokens=tokens("output_length", _field(entry, "output_length")),
        )
    ]


def _vllm_bench(entry: dict[str, Any]) -> list[Row]:
    """The arrays of a saved run; requests that failed (no output) are left out."""
    if "start_times" not in entry:
        raise RowFaultError(
            "has no start_times: save the run with --save-detailed of vLLM 0.12 or later"
        )
    starts = _field(entry, "start_times")
    prompts, outputs = _field(entry, "input_lens"), _field(entry, "output_lens")
    if not all(isinstance(each, list) for each in (starts, prompts, outputs)):
        raise RowFaultError("start_times, input_lens and output_lens must be lists")
    if not len(starts) == len(prompts) == len(outputs):
        raise RowFaultError("start_times, input_lens and output_lens differ in length")
    return [
        Row(
            arrival_s=arrival("start_times", start),
            prompt_tokens=tokens("input_lens", prompt),
            output_tokens=tokens("output_lens", output),
        )
        for start, prompt, output in zip(starts, prompts, outputs, strict=True)
        if output != 0
    ]
