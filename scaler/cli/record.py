"""``scaler record``: a trace and a decision log of a live system from Prometheus history."""

import asyncio
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from scaler.cli.history_options import Source, history_options, source_of
from scaler.cli.progress import Progress, shown, time_left
from scaler.core.model import Mode
from scaler.errors import ScalerError
from scaler.ops.record import LOG, SUMMARY, TRACE, write_recording
from scaler.ops.record_history import Store, fetch, fingerprint, history_queries, workload_of_model
from scaler.signals.prometheus import PrometheusSource

PARTS = ".parts"


@click.command("record")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR"
)
@history_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawn requests.")
@click.option(
    "--gpus-per-replica",
    type=click.IntRange(min=1),
    help="So that reports on the log tell GPU-hours, which no metric of the engine does.",
)
@click.option("--json", "as_json", is_flag=True, help="Print record.json on standard output.")
def command(
    *, out: Path, seed: int, gpus_per_replica: int | None, as_json: bool, **options: Any
) -> None:
    """Record a past window of a live system from its Prometheus.

    Writes trace.csv.gz (arrivals balanced from counters, lengths from histograms: simulate, compare
    and tune take it), decisions.jsonl.gz (what the daemon would have seen and decided at every
    tick, in advisory mode: report, explain and replay take it) and record.json (what was counted,
    gaps) into DIR.  A recording that was interrupted goes on where it was when it is started again
    with the same options.

    Which long requests came together is in no counter and is drawn: with one or two replicas it
    moves GPU-hours of a few hours by some per cent.  Traces of other --seed show how much.

    Example: scaler record --prometheus-url http://prometheus:9090 --target llm/vllm-llama-70b
    --from 2026-03-02T00:00:00Z --to 2026-03-09T00:00:00Z --out week/

    Then: scaler report --advisory --log week/decisions.jsonl.gz --days 7
    """
    source = source_of(**options)
    asked = dataclasses.replace(source.asked, gpus_per_replica=gpus_per_replica or 0)
    source = dataclasses.replace(source, asked=asked)
    try:
        with shown() as progress:
            source = resolved(source)
            summary = _recorded(source, out, seed, progress)
    except OSError as error:
        raise ScalerError(f"{error.filename or out}: {error.strerror}") from error
    click.echo(json.dumps(summary, indent=2) if as_json else _headline(summary, out))


def _recorded(source: Source, out: Path, seed: int, progress: Progress) -> dict[str, Any]:
    asked = source.asked
    made = history_queries(asked, source.readers)
    store = Store(out / PARTS, fingerprint(asked, made))
    fetch_history(source, store, progress)

    def told(done: int, all_: int) -> None:
        progress(lambda s: f"deciding: {done:,} of {all_:,} ticks{time_left(done / all_, s)}")

    # The daemon did not act then: whatever scaled was another.
    policy = dataclasses.replace(source.policy, mode=Mode.ADVISORY)
    with store.used_up():
        return write_recording(asked, source.readers, store, policy, out=out, seed=seed, told=told)


def fetch_history(source: Source, store: Store, progress: Progress) -> None:
    """Fetch what of the history is not in the store.

    Raises:
        SignalError: the API cannot be asked.
    """

    def told(done: int, all_: int) -> None:
        progress(lambda s: f"fetching: {done:,} of {all_:,} chunks{time_left(done / all_, s)}")

    async def fetched() -> None:
        api = PrometheusSource(source.asked.settings, source.readers)
        try:
            await fetch(source.asked, api, source.readers, store, told)
        finally:
            await api.close()

    asyncio.run(fetched())


def resolved(source: Source) -> Source:
    """``source`` with the workload that serves the model, where only the model was named."""
    if source.asked.target.name:
        return source

    async def found() -> str:
        api = PrometheusSource(source.asked.settings, source.readers)
        try:
            return await workload_of_model(source.asked, api, source.readers)
        finally:
            await api.close()

    target = dataclasses.replace(source.asked.target, name=asyncio.run(found()))
    return dataclasses.replace(source, asked=dataclasses.replace(source.asked, target=target))


def _headline(summary: dict[str, Any], out: Path) -> str:
    """A few lines for people; what is missing is said."""
    begin, end = (
        datetime.fromtimestamp(summary[key], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for key in ("from_s", "to_s")
    )
    what = (
        f"{summary['requests']:,} requests, {summary['prompt_tokens']:,} prompt and"
        f" {summary['output_tokens']:,} output tokens, {summary['ticks']:,} ticks"
    )
    lines = [f"{summary['target']}, {begin} to {end}: {what}"]
    if summary["gaps"]:
        worst = max(summary["gaps"], key=lambda gap: gap["to_s"] - gap["from_s"])
        lines.append(
            f"gaps: {len(summary['gaps'])}, {summary['gap_s']:,.0f} s in all: what came then is"
            f" missing from the trace in part; the longest: {worst['reason']}"
        )
    for name, source in summary["lengths_from"].items():
        if source == "mean":
            lines.append(f"{name} lengths: no histogram found, drawn around the counters' mean")
    if summary["replicas_inferred"]:
        lines.append("replicas: counted from pods with metrics (no kube-state-metrics found)")
    lines.append(f"wrote {out / TRACE}, {out / LOG}, {out / SUMMARY}")
    first = summary["replicas_first"]
    lines.append(f"simulate it: scaler simulate {out / TRACE} --initial-replicas {first} --out run")
    return "\n".join(lines)
