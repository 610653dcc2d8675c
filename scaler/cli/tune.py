"""``scaler tune``: search of the tunable settings on recorded traffic."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scaler.cli.progress import Progress, shown, time_left
from scaler.cli.simulation_options import (
    cache_option,
    scenario,
    simulation_options,
    simulator_needed,
    worker_options,
)
from scaler.cli.trace_files import dates
from scaler.cli.tune_patches import CONFIG, SCALED_OBJECT, config_patch, scaled_object_patch
from scaler.errors import ScalerError, ScenarioError

if TYPE_CHECKING:
    from simulations.scenario import Scenario
    from simulations.tune_choice import Candidate
    from simulations.tune_found import Found
    from simulations.tune_search import Tried

TRIALS = 200
ATTAINMENT = "0.99"
STORAGE = "search.journal"
FRONT_SHOWN = 4
_PROFILE = re.compile(r"[A-Za-z0-9][-_A-Za-z0-9]{0,62}")


@click.command("tune")
@click.argument(
    "traces",
    metavar="TRACE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR"
)
@click.option("--trials", type=int, default=TRIALS, show_default=True, metavar="N")
@worker_options
@click.option(
    "--storage",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help=f"Where the search is kept; DIR/{STORAGE} unless given. SQLite if it ends in .db.",
)
@click.option("--profile", metavar="NAME", help="Write patch.yaml as a profile of this name.")
@cache_option("Where read traces are kept; DIR/cache of --out unless given.")
@simulation_options
@click.option("--json", "as_json", is_flag=True, help="Print front.json instead of a summary.")
def command(
    *,
    traces: tuple[Path, ...],
    out: Path,
    trials: int,
    jobs: int,
    ray_address: str | None,
    storage: Path | None,
    profile: str | None,
    cache: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Search the tunable settings on recorded traffic.

    Attainment against GPU-hours, on a part of the traces; what is recommended for --attainment is
    confirmed on the rest of them: every second day, the last third of less than two days, or every
    third trace. Settings that change the count more often than the shipped ones, there or under a
    slow load, are never recommended. Writes front.json, report.html, patch.yaml (the daemon's
    configuration) and patch-scaledobject.yaml (a trigger's metadata) into DIR. A search that was
    stopped or killed goes on where it was, to the same front, and more --trials continue it.

    Example: scaler tune last-week.csv.gz --trials 200 --attainment 0.99 --out tuned/
    """
    if profile is not None and not _PROFILE.fullmatch(profile):
        raise ScenarioError(f"--profile = {profile!r}, must be letters, digits, - and _")
    with simulator_needed("tune"):
        from simulations.engine import load_kernel  # noqa: PLC0415 - numba, only for this
        from simulations.executor import executor  # noqa: PLC0415
        from simulations.tune import Plan, tune  # noqa: PLC0415
        from simulations.tune_search import BATCH  # noqa: PLC0415
    with _shown_trials(trials) as watcher, executor(workers=jobs, ray_address=ray_address) as run:
        _made(out)
        scenarios = _scenarios(traces, cache or out / "cache", watcher, **options)
        config = next(iter(scenarios.values())).policy.config
        plan = Plan(
            scenarios=scenarios,
            trials=trials,
            storage=storage or out / STORAGE,
            attainment_share=config.slo.attainment_target_ratio,
            seed=options["seed"],
            batch=max(BATCH, jobs),
        )
        watcher.say("loading the replica model (compiled once, which takes half a minute)")
        load_kernel()
        watcher.say(f"{trials:,} trials")
        found = tune(plan, run, watcher)
    made = _write(out, found, profile)
    click.echo(json.dumps(made, indent=2) if as_json else _summary(found, out))


def _scenarios(
    paths: Sequence[Path],
    folder: Path,
    watcher: "_Trials",
    *,
    skip_bad_rows: bool,
    **options: Any,
) -> "dict[str, Scenario]":
    """One scenario a trace, by its file name."""
    from simulations.sweep_traces import stored_trace  # noqa: PLC0415

    options["attainment"] = options["attainment"] or ATTAINMENT
    scenario((), policy="predictive", **options)  # a wrong option is said before traces are read
    made: dict[str, Scenario] = {}
    for path in paths:
        if path.name in made:
            raise ScenarioError(f"{path}: two traces may not have the same file name")
        watcher.say(f"reading {path}")
        trace = stored_trace(path, folder=folder, skip_bad_rows=skip_bad_rows)
        for line in dates([trace]):
            click.echo(line, err=True)
        made[path.name] = scenario(trace, policy="predictive", **options)
    return made


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScalerError(f"{error.filename or folder}: {error.strerror}") from error


def _write(out: Path, found: "Found", profile: str | None) -> dict[str, Any]:
    """Write the four files; what front.json holds."""
    from simulations.report_tune import as_front, render  # noqa: PLC0415

    patches = {
        CONFIG: config_patch(found.changes, profile=profile),
        SCALED_OBJECT: scaled_object_patch(found.changes),
    }
    made = found.as_json(patches)
    texts: Mapping[str, str] = {
        "front.json": json.dumps(made, indent=2, allow_nan=False) + "\n",
        "report.html": render(as_front(made)),
        **patches,
    }
    try:
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScalerError(f"{error.filename or out}: {error.strerror}") from error
    return made


# The summary


def _summary(found: "Found", out: Path) -> str:
    front = found.front
    target = front["attainment_target_ratio"]
    played = len(front["trials"])
    lines = [
        f"{played} trials, {found.given_up} given up early, {found.flapped} flapped",
        f"target {target:.2%}",
        f"{front['train_hours']:.1f} h searched, {front['held_out_hours']:.1f} h held out",
        "",
        f"  {'trial':>6} {'searched':>9} {'GPUs':>8}   {'held out':>9} {'GPUs':>8}",
    ]
    chosen = None if front["recommended"] is None else front["recommended"]["trial"]
    rows = [one for one in front["trials"] if one["on_front"] or one["number"] == 0]
    for one in sorted(rows, key=lambda trial: trial["train"]["gpu_hours"]):
        train, held_out = one["train"], one["held_out"]
        assert held_out is not None, "the front and the shipped settings are tried on both"
        notes = [
            *(["shipped"] if one["number"] == 0 else []),
            *(["recommended"] if one["number"] == chosen else []),
        ]
        lines.append(
            f"  {one['number']:>6} {train['slo_attainment_ratio']:>9.2%}"
            f" {train['gpu_hours'] / front['train_hours']:>8.2f}  "
            f" {held_out['slo_attainment_ratio']:>9.2%}"
            f" {held_out['gpu_hours'] / front['held_out_hours']:>8.2f}  {', '.join(notes)}".rstrip()
        )
    return "\n".join([*lines, "", *_conclusion(found), f"written to {out}", "", front["advice"]])


def _conclusion(found: "Found") -> Iterator[str]:
    for refused in found.choice.refused:
        yield f"trial {refused.number} refused: {refused.reason.value}"
    yield f"{found.choice.verdict.value}"
    sure = found.sure
    if sure is not None:
        yield (
            f"held out, 90 % sure: {sure.attained_low:.2%} to {sure.attained_high:.2%},"
            f" {sure.gpu_hours_low:,.1f} to {sure.gpu_hours_high:,.1f} GPU-hours;"
            f" not dearer than shipped in {sure.not_dearer_ratio:.0%} of the draws"
        )
    yield from found.front["findings"]
    was = {item["name"]: item["default"] for item in found.front["settings"]}
    for path, value in found.changes.items():
        yield f"  {path} = {value:g} (was {was[path]:g})"


# Progress


class _Trials:
    """Shows how many trials there were, how fast they go, and the present front."""

    def __init__(self, progress: Progress, trials: int) -> None:
        self._progress = progress
        self._trials = trials

    def say(self, what: str) -> None:
        """What is done before the first trial."""
        self._progress.say(what)

    def tried(self, tried: "Sequence[Tried]", front: "Sequence[Candidate]", *, ran: int) -> None:
        """One more trial has ended."""
        self._progress(lambda elapsed_s: self._text(tried, front, ran, elapsed_s))

    def confirming(self, count: int) -> None:
        """The search is over."""
        self._progress.say(f"{count} trials on the held-out part")

    def _text(
        self, tried: "Sequence[Tried]", front: "Sequence[Candidate]", ran: int, elapsed_s: float
    ) -> str:
        given_up = sum(one.train is None for one in tried)
        left = time_left(ran / max(ran + self._trials - len(tried), 1), elapsed_s)
        best = sorted(front, key=lambda one: -one.train.attained_ratio)[:FRONT_SHOWN]
        points = ", ".join(
            f"{one.train.attained_ratio:.2%} {one.train.gpu_hours:,.1f}" for one in best
        )
        return (
            f"{len(tried):,} of {self._trials:,} trials, {given_up:,} given up early,"
            f" {60.0 * ran / elapsed_s:.1f} trials/min{left}; front (attained, GPU-hours): {points}"
        )


@contextlib.contextmanager
def _shown_trials(trials: int) -> Iterator[_Trials]:
    """Progress on standard error."""
    with shown() as progress:
        yield _Trials(progress, trials)
