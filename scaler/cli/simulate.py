"""``scaler simulate``: one policy on one trace."""

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scaler.cli.progress import Progress, shown
from scaler.cli.simulation_options import scenario, simulation_options, simulator_needed
from scaler.cli.trace_files import dates
from scaler.core.config import PolicyConfig
from scaler.errors import ScalerError, ScenarioError

if TYPE_CHECKING:
    from simulations import Scenario
    from simulations.scenario import Policy
    from simulations.traces import TraceReader

COMPILING = "loading the replica model (compiled once, which takes half a minute)"
KNOB_MIN, KNOB_MAX = 0.001, 1e9  # a quantity of Kubernetes has no less than a thousandth
FORM_OPTIONS = ("variant", "knob", "behaviour")


@click.command("simulate")
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR"
)
@click.option(
    "--policy",
    default="predictive",
    show_default=True,
    help="predictive, reactive, fixed:N, oracle, or a peer by its name, as keda-queue.",
)
@click.option("--variant", help="Of a peer with a known defect: shipped (the default), corrected.")
@click.option("--knob", type=float, help="A peer's main setting; what it ships unless given.")
@click.option(
    "--behaviour",
    type=click.Choice(("own", "ours")),
    help="Of the HPA of a peer: its own (the default), or the one that we ship.",
)
@simulation_options
@click.option(
    "--sessions",
    metavar="OPEN,TURNS",
    help="Conversations open at a time and requests in each; the prefix cache is then theirs.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND:FROM_S:TO_S[:AMOUNT]",
    help="scrape-gap, blind-label, prometheus-outage, sick-replica, crash-loop, gpu-limit. "
    "Repeatable.",
)
@click.option(
    "--oracle/--no-oracle",
    "with_oracle",
    default=None,
    help="Look for the best clairvoyant schedule, which takes minutes; a short search for small "
    "traces unless given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print summary.json on standard output.")
def command(*, trace: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Try a scaling policy on recorded traffic.

    A simulated vLLM fleet serves TRACE; the policy of the daemon decides from what the daemon
    would see; KEDA and the HPA act on it. Writes summary.json, timeline.csv (a row a tick),
    decisions.jsonl (the daemon's own records) and report.html (one page, opens offline) into DIR.

    Example: scaler simulate traffic.csv.gz --out run/ --load-factor 2 --set slo.ttft_s=3
    """
    with simulator_needed("simulate"):
        from scaler.cli import simulate_output as output  # noqa: PLC0415 - numba, only for this
        from simulations.traces import read_trace  # noqa: PLC0415
    try:
        with shown() as progress:
            reader = read_trace(trace, skip_bad_rows=options.pop("skip_bad_rows"))
            summary = _simulated(reader, out, progress, **options)
    except OSError as error:
        raise ScalerError(f"{error.filename or out}: {error.strerror}") from error
    for line in dates([reader]):
        click.echo(line, err=True)
    click.echo(json.dumps(summary, indent=2) if as_json else output.headline(summary, out))


def _simulated(
    reader: "TraceReader",
    out: Path,
    progress: Progress,
    *,
    with_oracle: bool | None,
    **options: Any,
) -> dict[str, Any]:
    """Run, search the oracle, write; the object of summary.json.

    Raises:
        ConfigError: a setting is wrong.
        ScenarioError: the rest of the input is.
        OSError: a file cannot be written.
    """
    from scaler.cli import simulate_output as output  # noqa: PLC0415
    from scaler.cli.simulate_bounds import Attainable, bounds_of, clairvoyant  # noqa: PLC0415
    from simulations.engine import load_kernel  # noqa: PLC0415
    from simulations.report_records import Records  # noqa: PLC0415
    from simulations.run import simulate  # noqa: PLC0415

    made, wants_oracle = _scenario(reader, **options)
    out.mkdir(parents=True, exist_ok=True)
    progress.say(COMPILING)
    load_kernel()
    if wants_oracle:
        made = clairvoyant(made, progress)
    attainable, records = Attainable(made), Records()
    with output.decision_log(out, made) as log:
        show = output.ticked(progress, reader, made.until_s)

        def watch(tick: Any) -> None:
            log(tick)
            records(tick)
            show(tick)

        result = simulate(made, watch=watch, loaded=attainable.add, clock=time.perf_counter)
    bounds = bounds_of(made, result, progress, asked=with_oracle, attainable_ratio=attainable.ratio)
    summary = output.summary(
        made,
        result,
        {"trace": reader.path.name, "rows_skipped": reader.rows_skipped},
        {"slo_attainable_ratio": attainable.ratio, **bounds},
    )
    progress.say("writing the report")
    output.write(out, summary, made, result, records)
    return summary


def _scenario(requests: Any, *, policy: str, **options: Any) -> "tuple[Scenario, bool]":
    """The scenario that the options describe, and whether its policy is the oracle's schedule."""
    from simulations.faults import parse_fault  # noqa: PLC0415
    from simulations.scoreboard_policies import ORACLE  # noqa: PLC0415

    form = {name: options.pop(name) for name in FORM_OPTIONS}
    faults = tuple(map(parse_fault, options.pop("faults")))
    sessions = options.pop("sessions")
    known = "predictive" if policy == ORACLE else policy

    def chosen(config: PolicyConfig) -> "Policy":
        return _policy(known, config, form)

    made = scenario(requests, policy=chosen, **options)
    made = dataclasses.replace(made, faults=faults)
    return (made if sessions is None else _with_sessions(made, sessions)), policy == ORACLE


def _policy(name: str, config: PolicyConfig, form: dict[str, Any]) -> "Policy":
    from simulations.peers import PEERS, SHIPPED, Behaviour, peer_policy  # noqa: PLC0415
    from simulations.scenario import fixed_count  # noqa: PLC0415
    from simulations.scoreboard_policies import known_policies  # noqa: PLC0415

    if name not in known_policies() and fixed_count(name) is None:
        known = ", ".join(known_policies())
        raise ScenarioError(f"--policy = {name}, must be one of {known}, fixed:N")
    given = [option for option in FORM_OPTIONS if form[option] is not None]
    if given and name not in PEERS:
        raise ScenarioError(f"--{given[0]} is for a peer, and {name} is none")
    knob = form["knob"]
    if knob is not None and not KNOB_MIN <= knob <= KNOB_MAX:
        meaning = PEERS[name].knob
        raise ScenarioError(
            f"--knob = {knob:g}, must be in [{KNOB_MIN:g}, {KNOB_MAX:g}]: {meaning}"
        )
    return peer_policy(
        name,
        config,
        variant=form["variant"] or SHIPPED,
        knob=knob,
        behaviour=Behaviour(form["behaviour"] or Behaviour.OWN),
    )


def _with_sessions(made: "Scenario", text: str) -> "Scenario":
    """``made`` with conversations, whose prefix cache is on the replica that served them."""
    from simulations.sessions import Sessions  # noqa: PLC0415

    try:
        open_count, turns = text.split(",")
        sessions = Sessions(open_count=int(open_count), turns_mean=float(turns))
    except ValueError as error:
        raise ScenarioError(f"--sessions = {text!r}, must be OPEN,TURNS") from error
    except ScenarioError as error:
        raise ScenarioError(f"--sessions = {text!r}: {error}") from error
    cache = dataclasses.replace(made.model.prefix_cache, per_session=True)
    model = dataclasses.replace(made.model, prefix_cache=cache)
    return dataclasses.replace(made, model=model, sessions=sessions)
