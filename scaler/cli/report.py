"""``scaler report``: what would have been, against the live scaler."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scaler.cli.progress import shown
from scaler.cli.simulation_options import simulator_needed
from scaler.errors import ConfigError, ScalerError
from scaler.ops.advisory import Advice, Thresholds, advise, longest
from scaler.ops.advisory_rows import Watched, watched_daemon, watched_log
from scaler.ops.explain_daemon import fetched, target_detail
from scaler.ops.times import spelled

if TYPE_CHECKING:
    from simulations.report_advisory import Target

EPISODES_TOLD = 5
EPISODES_DRAWN = 200
COLOURS = {"go": "green", "no-go": "red", "undecided": "yellow"}
SERIES = (
    "at_s", "would_be", "live", "ready", "load", "forecast_lead_s", "forecast_mean",
    "forecast_upper", "ttft_p95_s", "waiting",
)  # fmt: skip


@click.command("report")
@click.option(
    "--advisory", is_flag=True, help="What the policy would have asked for; the only report yet."
)
@click.option(
    "--days", type=click.FloatRange(min=0.0, min_open=True), default=1.0, show_default=True,
    help="How far back from the last decision.",
)  # fmt: skip
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="A decision log: decisions.jsonl, a rotated file, or the folder of the daemon's.",
)
@click.option("--url", metavar="URL", help="The daemon's HTTP port: it remembers one day.")
@click.option("--target", metavar="NAMESPACE/NAME", help="Only this one.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the report as one HTML page, which opens offline.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The report for scripts.")
@click.pass_context
def command(
    context: click.Context,
    *,
    advisory: bool,
    days: float,
    log: Path | None,
    url: str | None,
    target: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare what the policy would have done with what the live scaler did.

    For each target: GPU-hours of the counts asked for, minutes in which too few replicas would have
    been there for the load (by the learned capacity: what was not there cannot be measured), where
    the two disagreed, and whether to go active, with the reasons.

    Exit status 0: no target is a no-go; 1: one is, or the world failed; 2: wrong input.

    Example: scaler report --advisory --days 7 --log /var/lib/vllm-scaler/decisions --out week.html
    """
    if not advisory:
        raise ConfigError("--advisory must be given: it is the only report")
    if (log is None) == (url is None):
        raise ConfigError("one of --log and --url must be given")
    rows = _of_log(log, days, target) if log is not None else _of_daemon(url or "", days, target)
    advice = [advise(one) for one in rows]
    if out is not None:
        _write(out, rows, advice)
    if as_json:
        click.echo(json.dumps(_object(advice), indent=2, allow_nan=False))
    else:
        _print(advice)
    context.exit(1 if any(one.verdict == "no-go" for one in advice) else 0)


def _of_log(log: Path, days: float, target: str | None) -> list[Watched]:
    with shown() as progress:

        def tell(count: int) -> None:
            progress(lambda elapsed_s: f"{count:,} records, {count / elapsed_s:,.0f} records/s")

        return watched_log(log, days=days, target=target, tell=tell)


def _of_daemon(url: str, days: float, target: str | None) -> list[Watched]:
    if target is not None:
        return [watched_daemon(target_detail(url, target), days=days)]
    with shown() as progress:
        rows = []
        listed = fetched(url, "/api/targets")["targets"]
        decided = [one for one in listed if "desired" in one]
        for place, one in enumerate(decided, 1):
            detail = target_detail(url, f"{one['namespace']}/{one['name']}", one["trigger"])
            rows.append(watched_daemon(detail, days=days))
            progress(lambda _elapsed_s, place=place: f"{place} of {len(decided)} targets")  # type: ignore[misc]
    if not rows:
        raise ScalerError(f"{url} has not decided on any target yet")
    return rows


def _object(advice: list[Advice]) -> dict[str, Any]:
    return {
        "thresholds": dataclasses.asdict(Thresholds()),
        "targets": [dataclasses.asdict(one) for one in advice],
    }


def _print(advice: list[Advice]) -> None:
    for one in advice:
        click.secho(f"{one.namespace}/{one.name}: {one.verdict}", fg=COLOURS[one.verdict])
        for line in _lines(one):
            click.echo(f"  {line}")


def _lines(one: Advice) -> list[str]:
    unit = "GPU-hours" if one.gpus_per_replica else "replica-hours (GPUs a replica are not known)"
    ratio = one.gpu_hours_would / one.gpu_hours_live if one.gpu_hours_live else 1.0
    lines = [*one.reasons]
    lines.append(
        f"{spelled(one.from_at_s)} to {spelled(one.to_at_s)}: {one.watched_hours:.1f} h watched,"
        f" {one.unwatched_minutes:.0f} minutes without a decision,"
        f" {one.blind_minutes:.0f} blind"
    )
    lines.append(
        f"{one.gpu_hours_would:,.1f} {unit} would have been asked for, {one.gpu_hours_live:,.1f}"
        f" were: {ratio:.2f} times"
    )
    lines.append(
        f"minutes with too few replicas for the load: {one.missed_minutes_would:.0f} would have"
        f" been, {one.modelled_minutes_live:.0f} live by the same rule;"
        f" TTFT measured beyond its objective in {one.missed_minutes_live:.0f}"
    )
    lines.append(
        f"agreed {one.agreed_ratio:.0%} of the time; {len(one.disagreements)} disagreements,"
        f" {one.hours_more:.1f} h of more and {one.hours_fewer:.1f} h of fewer replicas"
    )
    lines += [
        f"  {spelled(found.at_s)} for {found.until_s - found.at_s:,.0f} s: {found.would_be}"
        f" instead of {found.live}: {found.why}"
        for found in longest(one.disagreements, EPISODES_TOLD)
    ]
    return [*lines, one.note] if one.note else lines


def _write(out: Path, rows: list[Watched], advice: list[Advice]) -> None:
    with simulator_needed("report --out"):
        from simulations.report_advisory import Advisory, render  # noqa: PLC0415 - only for this
    page = render(
        Advisory(
            from_at_s=min(one.from_at_s for one in advice),
            to_at_s=max(one.to_at_s for one in advice),
            tick_s=rows[0].tick_s,
            targets=[_target(*pair) for pair in zip(rows, advice, strict=True)],
        )
    )
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ScalerError(f"{out}: {error.strerror}") from error


def _target(rows: Watched, one: Advice) -> "Target":
    from simulations.report_advisory import Disagreement, Target  # noqa: PLC0415

    series: Any = {name: rows[name] for name in SERIES} | {
        "decided_by": rows.decided_by,
        "attained_ratio": rows.attained_ratio,
    }
    verdict: Any = one.verdict
    return Target(
        namespace=one.namespace,
        name=one.name,
        ttft_slo_s=one.ttft_slo_s,
        attainment_target_ratio=1.0 - rows.allowed_ratio,
        gpus_per_replica=max(one.gpus_per_replica, 1),
        gpu_hours_would=one.gpu_hours_would,
        gpu_hours_live=one.gpu_hours_live,
        missed_minutes_would=one.missed_minutes_would,
        missed_minutes_live=one.missed_minutes_live,
        blind_minutes=one.blind_minutes,
        verdict=verdict,
        reasons=[*one.reasons, *([one.note] if one.note else [])],
        disagreements=[
            Disagreement(
                at_s=found.at_s,
                until_s=found.until_s,
                would_be=found.would_be,
                live=found.live,
                why=found.why,
            )
            for found in longest(one.disagreements, EPISODES_DRAWN)
        ],
        series=series,
    )
