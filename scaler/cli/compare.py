"""``scaler compare``: many policies, many traces, one scoreboard."""

import json
import os
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scaler.cli.simulation_options import (
    cache_option,
    scenario,
    simulation_options,
    simulator_needed,
    worker_options,
)
from scaler.cli.trace_files import dates
from scaler.errors import ConfigError, ScalerError, ScenarioError

if TYPE_CHECKING:
    from simulations.scoreboard import Kind, Plan

TUNE_ON = "--tune-on"
VARIANTS = ("shipped", "tuned")
ATTAINMENT = "0.99"


class _Compare(click.Command):
    """Takes several values after ``--tune-on``, up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse with ``--tune-on A B`` written out as ``--tune-on A --tune-on B``."""
        return super().parse_args(ctx, list(_written_out(args)))


@click.command("compare", cls=_Compare)
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
@click.option(
    "--policies", default="all", show_default=True, metavar="A,B,C|all", help="fixed:N too."
)
@click.option(
    "--variants",
    default="shipped",
    show_default=True,
    metavar="shipped,tuned",
    help="Shipped defaults; baselines with their knob tuned on the traces of --tune-on.",
)
@click.option(
    TUNE_ON,
    "training",
    multiple=True,
    metavar="TRACE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Training traces, up to the next option.",
)
@click.option("--frontier", is_flag=True, help="Sweep each policy's knob on the trace itself.")
@click.option(
    "--screen-until-s",
    type=float,
    metavar="S",
    help="With --frontier: search first on arrivals before S, then near what was found.",
)
@click.option("--no-oracle", is_flag=True, help="Leave out the oracle, which takes minutes.")
@worker_options
@cache_option("Where runs are kept; vllm-scaler in the user's cache folder unless given.")
@simulation_options
@click.option("--json", "as_json", is_flag=True, help="Print scoreboard.json instead of a table.")
def command(
    *,
    traces: tuple[Path, ...],
    out: Path,
    jobs: int,
    ray_address: str | None,
    cache: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare scaling policies on recorded traffic.

    Every policy meets the same requests, the same start-ups and the same GPUs. Writes
    scoreboard.json, scoreboard.csv and scoreboard.html into DIR. A run is kept by the hash of all
    it depends on: what was run before is not run again, and a command that was stopped goes on.

    Example: scaler compare monday.csv.gz --policies predictive,keda-queue --frontier --out board/
    """
    with simulator_needed("compare"):
        from scaler.cli import compare_output as output  # noqa: PLC0415 - numba, only for this
        from simulations.executor import executor  # noqa: PLC0415
        from simulations.run_cache import RunCache  # noqa: PLC0415
        from simulations.scoreboard import scoreboard  # noqa: PLC0415
        from simulations.sweep import Sweep  # noqa: PLC0415
    folder = _cache_folder() if cache is None else cache
    with output.shown_runs() as watcher, executor(workers=jobs, ray_address=ray_address) as run_on:
        plan = _plan(traces, folder, watcher, **options)
        _made(out)
        watcher.kernel()
        board = scoreboard(plan, Sweep(run_on, RunCache(folder), watcher=watcher))
    try:
        output.write(out, board)
    except OSError as error:
        raise ScalerError(f"{error.filename or out}: {error.strerror}") from error
    for fault in board.faults:
        click.echo(f"left out: {fault}", err=True)
    text = json.dumps(board.entries, indent=2) if as_json else output.table(board.entries, out)
    click.echo(text)


def _written_out(arguments: Sequence[str]) -> Iterable[str]:
    taking = False
    for argument in arguments:
        if argument.startswith("-"):
            taking = argument == TUNE_ON
            if not taking:
                yield argument
        elif taking:
            yield from (TUNE_ON, argument)
        else:
            yield argument


def _plan(
    traces: Sequence[Path],
    folder: Path,
    watcher: Any,
    *,
    policies: str,
    variants: str,
    training: Sequence[Path],
    frontier: bool,
    no_oracle: bool,
    screen_until_s: float | None,
    skip_bad_rows: bool,
    **options: Any,
) -> "Plan":
    """What the options ask for; reads the traces.

    Raises:
        ConfigError: a setting is wrong.
        ScenarioError: a trace or another option is.
    """
    from simulations.scoreboard import Kind, Plan  # noqa: PLC0415
    from simulations.scoreboard_policies import (  # noqa: PLC0415
        ORACLE,
        contenders,
        policy_names,
        scenario_of,
    )
    from simulations.sweep_traces import stored_trace  # noqa: PLC0415

    names = policy_names(policies)
    if no_oracle and names == (ORACLE,):
        raise ScenarioError(f"--policies {ORACLE} and --no-oracle leave nothing to compare")
    kinds = {Kind(name) for name in _variants(variants)} | ({Kind.FRONTIER} if frontier else set())
    _check_partners(kinds, training, screen_until_s)
    options["attainment"] = options["attainment"] or ATTAINMENT
    # A wrong option is said before traces are read.
    base = scenario((), policy="predictive", **options)
    for contender in contenders(names, attainment_share=0.99):
        scenario_of(base, contender)

    def scenarios(paths: Sequence[Path]) -> tuple[Any, ...]:
        made = []
        for path in paths:
            watcher.reading(path)
            trace = stored_trace(path, folder=folder, skip_bad_rows=skip_bad_rows)
            for line in dates([trace]):
                click.echo(line, err=True)
            made.append(scenario(trace, policy="predictive", **options))
        return tuple(made)

    evaluated = scenarios(_distinct(traces))
    return Plan(
        policies=names,
        traces=evaluated,
        training=scenarios(_distinct(training)),
        kinds=frozenset(kinds),
        attainment_share=evaluated[0].policy.config.slo.attainment_target_ratio,
        with_oracle=not no_oracle,
        screen_until_s=screen_until_s,
        clock=time.perf_counter,
    )


def _check_partners(
    kinds: "Collection[Kind]", training: Sequence[Path], screen_until_s: float | None
) -> None:
    """Raise ScenarioError for an option that says nothing without another one."""
    from simulations.scoreboard import Kind  # noqa: PLC0415

    if Kind.TUNED in kinds and not training:
        raise ScenarioError(f"--variants tuned needs training traces: {TUNE_ON} TRACE...")
    if training and Kind.TUNED not in kinds:
        raise ScenarioError(f"{TUNE_ON} {training[0]}: needs --variants tuned")
    if screen_until_s is not None and Kind.FRONTIER not in kinds:
        raise ScenarioError(f"--screen-until-s = {screen_until_s:g}, needs --frontier")


def _variants(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in VARIANTS:
            raise ScenarioError(f"--variants: {name} is unknown, must be of {', '.join(VARIANTS)}")
    return names


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """Every trace once; entries name traces by file name, so two files may not share one."""
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(path.name, path)
        if other.resolve() != path.resolve():
            raise ScenarioError(f"{other} and {path}: two traces may not have the same file name")
    return list(by_name.values())


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(base) if base else Path.home() / ".cache"
    except RuntimeError as error:
        raise ConfigError("--cache: there is no home folder, a folder must be given") from error
    return folder / "vllm-scaler"


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScalerError(f"{error.filename or folder}: {error.strerror}") from error
