"""Traces: chunks of requests in order of arrival, read, scaled, sliced, summed up and written.

A trace is a CSV file (plain or ``.gz``) or a Parquet file with
``arrival_s,prompt_tokens,output_tokens[,class]``, or one of the public formats of
``trace_formats``.  Everything here works on an iterator of chunks, so that a trace of any length
passes through bounded memory; only the public formats, which need not be sorted, are held whole.
"""

import dataclasses
import gzip
import itertools
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from scaler.errors import ScenarioError
from simulations.streams import generator
from simulations.trace_chunks import Requests, join, shifted
from simulations.trace_copies import superposed
from simulations.trace_formats import (
    DIALECTS,
    BadRow,
    Columns,
    Dialect,
    TraceFormat,
    dialect_of,
    json_format_of,
    json_line_parser,
    parse_csv_block,
    parse_lines,
)

BLOCK_BYTES = 1 << 20
EPOCH_FROM_S = 1e8  # a first arrival from here on, after three years, is a date since 1970
SPAN_MAX_S = 1e8  # so much after the first arrival no trace goes on
EPOCH_TO_S = 1e11  # and from here on, after three thousand years, one in milliseconds
SHIFT_MAX_S = 600.0  # copies of a superposed trace are apart by less: the shape of the day stays


@dataclass(slots=True, kw_only=True)
class TraceReader:
    """Iterates over the chunks of one file; each iteration reads it anew.

    A fault raises ScenarioError naming file, line and what is wrong; with ``skip_bad_rows`` bad
    rows are left out and counted in ``rows_skipped`` (unsorted arrivals in a native trace among
    them), and only a file without a single good row is an error.  ``read_ratio`` is the share of
    the file that was read.  Arrivals of a native trace that are dates, seconds since 1970, are
    counted from the first of them, which is ``counted_from_s``; it is 0 for all others.
    """

    path: Path
    skip_bad_rows: bool = False
    tenants: dict[str, int] = field(default_factory=dict)
    rows_skipped: int = 0
    read_ratio: float = 0.0
    counted_from_s: float = 0.0
    _last_s: float = 0.0

    def __iter__(self) -> Iterator[Requests]:
        """The chunks, in order of arrival."""
        self.tenants.clear()
        self.rows_skipped = 0
        self.read_ratio = self.counted_from_s = 0.0
        self._last_s = 0.0
        empty = True
        for chunk in self._chunks():
            if len(chunk):
                empty = False
                self._last_s = float(chunk.arrival_s[-1])
                yield chunk
        self.read_ratio = 1.0
        if empty:
            raise ScenarioError(f"{self.path}: holds no requests")

    @property
    def span_s(self) -> float:
        """The last arrival, by what was read so far and the share of the file that was read."""
        return self._last_s / self.read_ratio if self.read_ratio > 0.0 else 0.0

    def _chunks(self) -> Iterator[Requests]:
        try:
            if self.path.suffix == ".parquet":
                yield from self._parquet()
                return
            size = max(self.path.stat().st_size, 1)
            with self.path.open("rb") as raw, _unpacked(self.path, raw) as file:
                for chunk in self._text(file):
                    self.read_ratio = min(raw.tell() / size, 1.0)
                    yield chunk
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise ScenarioError(f"{self.path}: cannot be read: {error}") from error

    def _text(self, file: IO[bytes]) -> Iterator[Requests]:
        first = file.readline()
        text = first.decode(errors="replace").strip().removeprefix("\ufeff")
        if not text:
            raise ScenarioError(f"{self.path}: is empty")
        if text.startswith("{"):
            yield self._sorted_whole(self._json_blocks(file, first))
            return
        header = [name.strip().strip('"') for name in text.split(",")]
        dialect = dialect_of(header)
        if dialect is None:
            raise ScenarioError(self._wrong_columns(header))
        blocks = self._csv_blocks(file, header, dialect)
        if dialect.sorted_by_arrival:
            for columns in blocks:
                yield self._in_order(columns)
        else:
            yield self._sorted_whole(blocks)

    def _wrong_columns(self, header: Sequence[str]) -> str:
        known = "; ".join(f"{d.arrival},{d.prompt},{d.output} ({d.format})" for d in DIALECTS)
        return f"{self.path}: line 1: columns {','.join(header)[:200]}, must include one of {known}"

    def _csv_blocks(
        self, file: IO[bytes], header: Sequence[str], dialect: Dialect
    ) -> Iterator[Columns]:
        line = 2
        while lines := file.readlines(BLOCK_BYTES):
            columns = parse_csv_block(lines, header=header, dialect=dialect, first_line=line)
            self._account(columns.bad_rows)
            yield columns
            line += len(lines)

    def _json_blocks(self, file: IO[bytes], first: bytes) -> Iterator[Columns]:
        format_ = json_format_of(first.decode(errors="replace"))
        if format_ is None:
            raise ScenarioError(
                f"{self.path}: line 1: keys must include timestamp,input_length,output_length"
                f" ({TraceFormat.MOONCAKE}) or start_times,input_lens,output_lens"
                f" ({TraceFormat.VLLM_BENCH})"
            )
        parser = json_line_parser(format_)
        line, lines = 1, [first]
        while lines:
            columns = parse_lines(lines, parser=parser, first_line=line)
            self._account(columns.bad_rows)
            yield columns
            line += len(lines)
            lines = file.readlines(BLOCK_BYTES)

    def _account(self, bad_rows: Sequence[BadRow]) -> None:
        if bad_rows and not self.skip_bad_rows:
            raise ScenarioError(f"{self.path}: line {bad_rows[0].line}: {bad_rows[0].fault}")
        self.rows_skipped += len(bad_rows)

    def _in_order(self, columns: Columns) -> Requests:
        """A native chunk, whose arrivals must ascend."""
        if self._last_s == 0.0 and self.counted_from_s == 0.0 and columns.arrival_s.size:
            self.counted_from_s = self._date_of_first(columns)
        columns = self._without_far(columns)
        arrivals = columns.arrival_s - self.counted_from_s
        highest = np.maximum.accumulate(np.concatenate(([self._last_s], arrivals)))
        late = np.flatnonzero(arrivals < highest[:-1])
        if late.size and not self.skip_bad_rows:
            raise ScenarioError(
                f"{self.path}: line {columns.lines[late[0]]}:"
                f" arrival_s = {columns.arrival_s[late[0]]}, must not be before"
                f" {highest[late[0]] + self.counted_from_s}, the arrival above it"
            )
        self.rows_skipped += int(late.size)
        self._last_s = float(highest[-1])
        requests = self._requests(dataclasses.replace(columns, arrival_s=arrivals))
        return requests.pick(np.delete(np.arange(arrivals.size), late)) if late.size else requests

    def _without_far(self, columns: Columns) -> Columns:
        """Without rows years after the first: somebody's mistake, and a run without end."""
        far = columns.arrival_s - self.counted_from_s > SPAN_MAX_S
        if not far.any():
            return columns
        if not self.skip_bad_rows:
            place = int(np.argmax(far))
            raise ScenarioError(
                f"{self.path}: line {columns.lines[place]}: arrival_s ="
                f" {columns.arrival_s[place]:g}, must be within {SPAN_MAX_S:g} s of the first"
            )
        self.rows_skipped += int(np.count_nonzero(far))
        near = np.flatnonzero(~far)
        return Columns(
            arrival_s=columns.arrival_s[near],
            prompt_tokens=columns.prompt_tokens[near],
            output_tokens=columns.output_tokens[near],
            tenants=[columns.tenants[place] for place in near.tolist()]
            if len(columns.tenants)
            else (),
            lines=columns.lines[near],
        )

    def _date_of_first(self, columns: Columns) -> float:
        """The first arrival of the file where it is a date, else 0."""
        first_s = float(columns.arrival_s[0])
        if first_s >= EPOCH_TO_S:
            raise ScenarioError(
                f"{self.path}: line {columns.lines[0]}: arrival_s = {first_s:.0f}, must be in"
                f" seconds, at most {EPOCH_TO_S:g}: these look like milliseconds since 1970"
            )
        return first_s if first_s >= EPOCH_FROM_S else 0.0

    def _sorted_whole(self, blocks: Iterable[Columns]) -> Requests:
        """A public trace: read to its end, put in order, counted from its first arrival."""
        whole = join([self._requests(columns) for columns in blocks])
        if not len(whole):
            return whole
        ordered = whole.pick(np.argsort(whole.arrival_s, kind="stable"))
        span_s = float(ordered.arrival_s[-1] - ordered.arrival_s[0])
        if span_s > SPAN_MAX_S:
            raise ScenarioError(
                f"{self.path}: the last request is {span_s:g} s after the first, must be within"
                f" {SPAN_MAX_S:g} s"
            )
        return Requests(
            arrival_s=ordered.arrival_s - ordered.arrival_s[0],
            prompt_tokens=ordered.prompt_tokens,
            output_tokens=ordered.output_tokens,
            tenant=ordered.tenant,
        )

    def _requests(self, columns: Columns) -> Requests:
        numbers = self.tenants
        tenant = np.zeros(columns.arrival_s.size, dtype=np.int32)
        if len(columns.tenants):
            names, inverse = np.unique(np.asarray(columns.tenants), return_inverse=True)
            first_seen = {name: columns.tenants.index(name) for name in names.tolist()}
            for name in sorted(first_seen, key=first_seen.__getitem__):
                numbers.setdefault(name, len(numbers))
            tenant = np.array([numbers[n] for n in names.tolist()], dtype=np.int32)[inverse]
        return Requests(
            arrival_s=columns.arrival_s,
            prompt_tokens=columns.prompt_tokens.astype(np.int32),
            output_tokens=columns.output_tokens.astype(np.int32),
            tenant=tenant,
        )

    def _parquet(self) -> Iterator[Requests]:
        """Row groups as they come; a row's number takes the place of its line."""
        file = pa_parquet.ParquetFile(self.path)
        header = file.schema_arrow.names
        dialect = dialect_of(header)
        if dialect is None or not dialect.sorted_by_arrival:
            raise ScenarioError(self._wrong_columns(header))
        names = [dialect.arrival, dialect.prompt, dialect.output]
        classes = ["class"] if "class" in header else []
        row = 2
        rows = max(file.metadata.num_rows, 1)
        for batch in file.iter_batches(batch_size=1 << 18, columns=names + classes):
            # Through the text parser, so that one piece of code judges rows of either file type.
            buffer = pa.BufferOutputStream()
            options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
            pa_csv.write_csv(batch.select(names), buffer, options)
            lines = buffer.getvalue().to_pybytes().splitlines(keepends=True)
            columns = parse_csv_block(lines, header=names, dialect=dialect, first_line=row)
            self._account(columns.bad_rows)
            if classes:  # which may be of any characters
                of_row = batch.column("class").cast(pa.string()).to_pylist()
                tenants = [of_row[line - row] or "" for line in columns.lines.tolist()]
                columns = dataclasses.replace(columns, tenants=tenants)
            row += len(lines)
            self.read_ratio = min((row - 2) / rows, 1.0)
            yield self._in_order(columns)


def _unpacked(path: Path, raw: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw


def read_trace(path: str | Path, *, skip_bad_rows: bool = False) -> TraceReader:
    """The chunks of a trace file, its format told by its first line."""
    return TraceReader(path=Path(path), skip_bad_rows=skip_bad_rows)


# Scaling and slicing


def scale(chunks: Iterable[Requests], *, load_factor: float, seed: int) -> Iterator[Requests]:
    """``load_factor`` times the load: thinned below 1, superposed above.

    A factor F is the sum of floor(F) copies of the trace and one more with each request kept with
    probability F - floor(F).  The first copy is as it is; the others are later by a fixed shift
    each, drawn once in [60, 600) s, so that each keeps its own bursts and the sum keeps the shape
    of the day.  The sum is as long as the trace and has its full load from the beginning.
    Which requests are kept depends on the seed, not on the size of the chunks.
    """
    if not 0.0 < load_factor <= 1000.0:
        raise ScenarioError(f"load_factor = {load_factor}, must be in (0, 1000]")
    whole = int(load_factor)
    part = load_factor - whole
    copies = whole + (part > 0.0)
    shifts_s = generator(seed, "superpose").uniform(60.0, SHIFT_MAX_S, copies)
    shifts_s[0] = 0.0
    thinning = generator(seed, "thin")

    def copied() -> Iterator[list[Requests]]:
        for chunk in chunks:
            if len(chunk):
                kept = chunk.pick(thinning.random(len(chunk)) < part) if part > 0.0 else chunk
                yield [*[chunk] * whole, *([kept] if part > 0.0 else [])]

    if copies == 1:
        yield from (kept for (kept,) in copied() if len(kept))
    else:
        yield from superposed(copied(), shifts_s.tolist())


def cut_out(chunks: Iterable[Requests], *, from_s: float, until_s: float) -> Iterator[Requests]:
    """The arrivals in [from_s, until_s), counted from ``from_s``."""
    if not 0.0 <= from_s < until_s:
        raise ScenarioError(f"slice = [{from_s}, {until_s}), must be 0 <= from < until")
    for chunk in chunks:
        inside = (chunk.arrival_s >= from_s) & (chunk.arrival_s < until_s)
        if inside.any():
            yield shifted(chunk.pick(inside), by_s=-from_s)
        if len(chunk) and chunk.arrival_s[-1] >= until_s:
            return


# Writing


def write_trace(
    path: str | Path, chunks: Iterable[Requests], *, tenants: Collection[str] = ()
) -> int:
    """Write a native trace (CSV, ``.gz`` or ``.parquet`` by the name) and return its rows.

    ``tenants`` are the names of the classes by number; a view that grows while the chunks come, as
    ``TraceReader.tenants.keys()``, will do.
    """
    target = Path(path)
    written = (_table(chunk, tenants) for chunk in chunks)
    first = next(written, None)
    if first is None:
        raise ScenarioError(f"{target}: there are no requests to write")
    tables = itertools.chain([first], written)
    if target.suffix == ".parquet":
        with pa_parquet.ParquetWriter(target, first.schema) as writer:
            return sum(_put(writer, table) for table in tables)
    options = pa_csv.WriteOptions(quoting_style="needed", quoting_header="none")
    with (
        target.open("wb") as raw,
        _packed(target, raw) as stream,
        pa_csv.CSVWriter(stream, first.schema, write_options=options) as writer,
    ):
        return sum(_put(writer, table) for table in tables)


def _packed(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """Without a name and a time in it, so that equal traces are equal files."""
    if path.suffix != ".gz":
        return raw
    return cast("IO[bytes]", gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0))


def _put(writer: pa_parquet.ParquetWriter | pa_csv.CSVWriter, table: pa.Table) -> int:
    writer.write_table(table)
    return int(table.num_rows)


def _table(requests: Requests, tenants: Collection[str]) -> pa.Table:
    columns = {
        "arrival_s": pa.array(np.round(requests.arrival_s, 6)),
        "prompt_tokens": pa.array(requests.prompt_tokens),
        "output_tokens": pa.array(requests.output_tokens),
    }
    if tenants:
        columns["class"] = pa.array(
            np.asarray(list(tenants))[requests.tenant].tolist(), pa.string()
        )
    return pa.table(columns)
