"""``scaler trace``: sum up, convert, generate and slice request traces."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scaler.cli.progress import shown
from scaler.cli.trace_files import (
    FORMATS,
    TRACE,
    factor_option,
    moment,
    out_option,
    reader_of,
    seed_option,
    skip_option,
    watched,
    write,
    written,
)
from scaler.cli.trace_generate import generate

if TYPE_CHECKING:
    from simulations.trace_stats import TraceStats
    from simulations.traces import TraceReader


@click.group("trace", epilog=FORMATS)
def command() -> None:
    """Sum up, convert, generate and slice request traces.

    Example: scaler trace stats traffic.csv.gz
    """


@command.command("stats", epilog=FORMATS)
@click.argument("trace", type=TRACE)
@skip_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stats(*, trace: Path, skip_bad_rows: bool, as_json: bool) -> None:
    """Load over time and token lengths of TRACE.

    Example: scaler trace stats traffic.csv.gz --json
    """
    from simulations.trace_stats import stats_of  # noqa: PLC0415 - pyarrow, only for this

    reader = reader_of(trace, skip_bad_rows=skip_bad_rows)
    with shown() as progress:
        found = stats_of(watched(reader, [reader], progress))
    if as_json:
        click.echo(json.dumps(_as_json(trace, found, reader), indent=2))
    else:
        click.echo("\n".join(_as_text(trace, found, reader)))


@command.command("convert", epilog=FORMATS)
@click.argument("traces", nargs=-1, required=True, type=TRACE)
@out_option
@factor_option
@seed_option
@skip_option
def convert(
    *, traces: tuple[Path, ...], out: Path, load_factor: float, seed: int, skip_bad_rows: bool
) -> None:
    """Write TRACES, several of them superposed, as one native trace.

    Example: scaler trace convert AzureLLMInferenceTrace_conv.csv --out conv.parquet
    """
    from simulations.trace_superpose import Superposed  # noqa: PLC0415
    from simulations.traces import scale  # noqa: PLC0415

    readers = [reader_of(trace, skip_bad_rows=skip_bad_rows) for trace in traces]
    # A single reader is taken as it is: superposing would give every request a class.
    whole = readers[0] if len(readers) == 1 else Superposed(readers=readers)
    with shown() as progress:
        chunks = watched(whole, readers, progress)
        scaled = scale(chunks, load_factor=load_factor, seed=seed)
        rows = write(out, scaled, whole.tenants.keys())
    click.echo(written(out, rows, readers))


@command.command("slice", epilog=FORMATS)
@click.argument("trace", type=TRACE)
@out_option
@click.option(
    "--from-s",
    type=float,
    default=0.0,
    show_default=True,
    help="The first second.",
)
@click.option("--until-s", type=float, required=True, help="The second after the last.")
@factor_option
@seed_option
@skip_option
def cut(
    *,
    trace: Path,
    out: Path,
    from_s: float,
    until_s: float,
    load_factor: float,
    seed: int,
    skip_bad_rows: bool,
) -> None:
    """Write the arrivals of TRACE in [--from-s, --until-s), counted from --from-s.

    Where arrivals are dates, both are counted from the first of them.

    Example: scaler trace slice week.csv.gz --from-s 86400 --until-s 172800 --out tuesday.csv.gz
    """
    from simulations.traces import cut_out, scale  # noqa: PLC0415

    reader = reader_of(trace, skip_bad_rows=skip_bad_rows)
    with shown() as progress:
        chunks = cut_out(watched(reader, [reader], progress), from_s=from_s, until_s=until_s)
        rows = write(out, scale(chunks, load_factor=load_factor, seed=seed), reader.tenants.keys())
    click.echo(written(out, rows, [reader]))


# Statistics


def _as_json(trace: Path, found: "TraceStats", reader: "TraceReader") -> dict[str, object]:
    made: dict[str, object] = {"trace": trace.name, **dataclasses.asdict(found)}
    for name in ("prompt_quantiles_tokens", "output_quantiles_tokens"):
        values = made.pop(name)
        assert isinstance(values, tuple)
        made[name.replace("_quantiles", "")] = dict(zip(("p50", "p95", "p99"), values, strict=True))
    return {
        **made,
        "classes": list(reader.tenants),
        "rows_skipped": reader.rows_skipped,
        "counted_from_s": reader.counted_from_s,
    }


def _as_text(trace: Path, found: "TraceStats", reader: "TraceReader") -> Iterator[str]:
    yield f"{trace.name}: {found.requests:,} requests in {found.span_s / 3600.0:,.2f} h"
    yield (
        f"arrivals   {found.mean_per_s:,.2f}/s, peak minute {found.peak_minute_per_s:,.2f}/s,"
        f" per-minute CV {found.minute_cv:.2f}"
    )
    for name, per_s, quantiles in (
        ("prompt", found.prompt_tokens_per_s, found.prompt_quantiles_tokens),
        ("output", found.output_tokens_per_s, found.output_quantiles_tokens),
    ):
        p50, p95, p99 = quantiles
        yield f"{name:10s} {per_s:,.0f} tokens/s; p50 {p50:,.0f}, p95 {p95:,.0f}, p99 {p99:,.0f}"
    if reader.counted_from_s:
        yield f"began      {moment(reader.counted_from_s)}; arrival_s are dates, counted from there"
    if reader.tenants:
        yield f"classes    {len(reader.tenants)}: {', '.join(list(reader.tenants)[:8])}"
    if reader.rows_skipped:
        yield f"left out   {reader.rows_skipped:,} bad rows"


command.add_command(generate)
