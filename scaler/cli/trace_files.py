"""What the commands of ``scaler trace`` share: options, reading and writing with progress."""

import contextlib
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scaler.cli.progress import Progress, shown, time_left
from scaler.errors import ScalerError, ScenarioError

if TYPE_CHECKING:
    from simulations.sweep_traces import StoredTrace
    from simulations.trace_chunks import Requests
    from simulations.traces import TraceReader

TRACE = click.Path(exists=True, dir_okay=False, path_type=Path)
SUFFIXES = (".csv", ".csv.gz", ".parquet")
FORMATS = """\
A trace is CSV (plain or .gz) or Parquet with arrival_s,prompt_tokens,output_tokens[,class]. Read
as well, told by their first line: Azure LLM inference (2023, 2024), BurstGPT and ServeGen CSV,
Mooncake jsonl, and `vllm bench serve --save-result --save-detailed` jsonl."""

out_option = click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Written: .csv, .csv.gz or .parquet.",
)
skip_option = click.option("--skip-bad-rows", is_flag=True, help="Leave out bad rows, count them.")
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
factor_option = click.option(
    "--load-factor",
    type=float,
    default=1.0,
    show_default=True,
    help="Superpose shifted copies (above 1) or thin (below 1), drawn from --seed.",
)


def write_generated(out: Path, chunks: "Iterable[Requests]", *, duration_s: float) -> int:
    """Write chunks that come in order of time, with progress; the number of requests."""
    with shown() as progress:
        return write(out, _timed(chunks, progress, duration_s), ())


def _timed(
    chunks: "Iterable[Requests]", progress: Progress, duration_s: float
) -> "Iterator[Requests]":
    rows = 0
    for chunk in chunks:
        rows += len(chunk)
        share = float(chunk.arrival_s[-1]) / duration_s
        progress(functools.partial(_pace, rows, share))
        yield chunk


def reader_of(trace: Path, *, skip_bad_rows: bool) -> "TraceReader":
    """The reader of a file; ScalerError where the simulator is not installed."""
    try:
        from simulations.traces import read_trace  # noqa: PLC0415
    except ImportError as missing:
        raise ScalerError(
            f"scaler trace needs {missing.name}: pip install 'vllm-scaler[sim]'"
        ) from missing
    return read_trace(trace, skip_bad_rows=skip_bad_rows)


def watched(
    chunks: "Iterable[Requests]", readers: "Sequence[TraceReader]", progress: Progress
) -> "Iterator[Requests]":
    """The chunks, with progress by how much of the files was read."""
    rows = 0
    for chunk in chunks:
        rows += len(chunk)
        share = sum(reader.read_ratio for reader in readers) / len(readers)
        progress(functools.partial(_pace, rows, share))
        yield chunk


def _pace(rows: int, done_ratio: float, elapsed_s: float) -> str:
    rate = f"{rows:,} requests, {rows / elapsed_s:,.0f} requests/s"
    return rate + time_left(done_ratio, elapsed_s)


def write(out: Path, chunks: "Iterable[Requests]", tenants: Collection[str]) -> int:
    """Write a trace; a fault leaves no half trace behind, and an old one as it was."""
    from simulations.traces import write_trace  # noqa: PLC0415

    suffix = next((s for s in reversed(SUFFIXES) if out.name.endswith(s)), None)
    if suffix is None:
        raise ScenarioError(f"--out = {out}, must end in {', '.join(SUFFIXES)}")
    begun = out.with_name(f".{out.name.removesuffix(suffix)}.partial{suffix}")
    try:
        rows = write_trace(begun, chunks, tenants=tenants)
        begun.replace(out)
    except ScenarioError as error:
        raise ScenarioError(str(error).replace(str(begun), str(out))) from error
    except OSError as error:
        raise ScalerError(f"{out}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            begun.unlink()
    return rows


def written(out: Path, rows: int, readers: "Sequence[TraceReader]") -> str:
    """What was done, in a line, and what was done to the dates of a trace in another."""
    skipped = sum(reader.rows_skipped for reader in readers)
    left_out = f"; {skipped:,} bad rows left out" if skipped else ""
    return "\n".join((*dates(readers), f"{rows:,} requests written to {out}{left_out}"))


def dates(traces: "Iterable[TraceReader | StoredTrace]") -> Iterator[str]:
    """A line for each trace whose arrivals were dates; read it first."""
    for trace in traces:
        if trace.counted_from_s > 0.0:
            yield (
                f"{trace.path.name}: arrival_s are dates, counted from the first:"
                f" {moment(trace.counted_from_s)}"
            )


def moment(at_s: float) -> str:
    """A time since 1970 as a date."""
    return datetime.fromtimestamp(at_s, tz=UTC).isoformat(sep=" ", timespec="seconds")
