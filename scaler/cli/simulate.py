"""``scaler simulate``: one policy on one trace."""

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scaler.cli.progress import shown
from scaler.config import load
from scaler.config_tree import ScalerConfig
from scaler.core.config import PolicyConfig
from scaler.core.hpa_spec import parse_version
from scaler.core.settings import declared
from scaler.errors import ConfigError, ScalerError, ScenarioError
from scaler.ops.manifest import ManifestRequest, scaled_object
from scaler.trigger import metadata_settings, operators_settings, parse

if TYPE_CHECKING:
    from simulations import Scenario
    from simulations.replica import ReplicaModel, StartUp

PRESET = "llama-3.1-70b-h100-tp4"
KUBERNETES = "1.36"
SLO_KEYS = {
    "slo_ttft_s": "ttftSloSeconds",
    "slo_tpot_s": "tpotSloSeconds",
    "attainment": "sloAttainmentTarget",
}
"""Options that are settings of the trigger, and their keys there."""


@click.command("simulate")
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR"
)
@click.option(
    "--policy", default="predictive", show_default=True, help="predictive, reactive or fixed:N."
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The daemon's configuration: its policy settings are the defaults.",
)
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting by its path (hold_down.window_s=120) or metadata key. Repeatable.",
)
@click.option("--replica-model", default=PRESET, show_default=True, metavar="NAME|FILE")
@click.option("--slo-ttft-s", help="Objective for the time to first token.")
@click.option("--slo-tpot-s", help="Objective for the mean time per output token.")
@click.option("--attainment", help="Share of requests within the objectives, such as 0.99.")
@click.option(
    "--start-up-s",
    metavar="S|MEDIAN,P95",
    help="From scheduled to ready: always S, or lognormal; the model's own unless given.",
)
@click.option("--min-replicas", type=int, default=1, show_default=True)
@click.option("--max-replicas", type=int, default=32, show_default=True)
@click.option("--initial-replicas", type=int, help="Ready at 0 s; --min-replicas unless given.")
@click.option("--gpus-total", type=click.IntRange(min=1), help="No limit unless given.")
@click.option("--load-factor", type=float, default=1.0, show_default=True)
@click.option("--kubernetes-version", default=KUBERNETES, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--until-s", type=float, help="Play only arrivals before this time.")
@click.option("--skip-bad-rows", is_flag=True, help="Leave out bad rows and count them.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json on standard output.")
def command(
    *,
    trace: Path,
    out: Path,
    skip_bad_rows: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Try a scaling policy on recorded traffic.

    A simulated vLLM fleet serves TRACE; the policy of the daemon decides from what the daemon
    would see; KEDA and the HPA act on it. Writes summary.json, timeline.csv (a row a tick) and
    decisions.jsonl (the daemon's own records) into DIR. Peer policies, the oracle, report.html and
    scaling to zero are not here yet.

    Example: scaler simulate traffic.csv.gz --out run/ --load-factor 2 --set slo.ttft_s=3
    """
    try:
        from scaler.cli import simulate_output as output  # noqa: PLC0415 - numba, only for this
        from simulations.engine import load_kernel  # noqa: PLC0415
        from simulations.run import simulate  # noqa: PLC0415
        from simulations.traces import read_trace  # noqa: PLC0415
    except ImportError as missing:
        raise ScalerError(
            f"scaler simulate needs {missing.name}: pip install 'vllm-scaler[sim]'"
        ) from missing
    reader = read_trace(trace, skip_bad_rows=skip_bad_rows)
    scenario = _scenario(reader, **options)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (
            shown() as progress,
            output.decision_log(out, scenario) as log,
        ):
            progress.say("loading the replica model (compiled once, which takes half a minute)")
            load_kernel()
            show = output.ticked(progress, reader, options["until_s"])

            def watch(tick: Any) -> None:
                log(tick)
                show(tick)

            result = simulate(scenario, watch=watch, clock=time.perf_counter)
        summary = output.summary(trace.name, scenario, result, rows_skipped=reader.rows_skipped)
        output.write(out, summary, result)
    except OSError as error:
        raise ScalerError(f"{error.filename or out}: {error.strerror}") from error
    text = json.dumps(summary, indent=2) if as_json else output.headline(summary, out)
    click.echo(text)


def _scenario(requests: Any, **options: Any) -> "Scenario":
    """The scenario that the options describe.

    Raises:
        ConfigError: a setting is wrong.
        ScenarioError: the rest of it is.
    """
    from simulations import Scenario  # noqa: PLC0415
    from simulations.lifecycle import GpuPool  # noqa: PLC0415
    from simulations.replica_files import load_replica_model  # noqa: PLC0415
    from simulations.scaled_object import ClusterSpec, parse_scaled_object  # noqa: PLC0415
    from simulations.scenario import drawn_timing, policy_named  # noqa: PLC0415

    kubernetes = parse_version(options["kubernetes_version"])
    config = _policy_config(options)
    low, high = options["min_replicas"], options["max_replicas"]
    if low < 1 or high < low:  # said in the words of the options
        raise ScenarioError(f"--min-replicas = {low}, must be in [1, {high}], --max-replicas")
    if options["seed"] < 0:
        raise ScenarioError(f"--seed = {options['seed']}, must be at least 0")
    shipped = scaled_object(
        ManifestRequest(
            target="deployment/simulated",
            namespace="simulated",
            replicas_min=low,
            replicas_max=high,
            kubernetes=kubernetes,
        )
    )
    spec = parse_scaled_object(shipped)
    cluster = ClusterSpec(kubernetes=kubernetes)
    first = options["initial_replicas"]
    return Scenario(
        requests=requests,
        model=_model(load_replica_model(options["replica_model"]), options["start_up_s"]),
        scaled_object=spec,
        cluster=cluster,
        policy=policy_named(options["policy"], config),
        replicas_first=low if first is None else first,
        timing=drawn_timing(
            options["seed"],
            tick_s=config.tick_s,
            poll_s=spec.polling_interval_s,
            sync_s=cluster.hpa_sync_s,
        ),
        gpus=GpuPool(total=options["gpus_total"]),
        seed=options["seed"],
        load_factor=options["load_factor"],
        until_s=options["until_s"],
    )


def _policy_config(options: dict[str, Any]) -> PolicyConfig:
    """The configuration's policy with --set and the objectives on top, checked like metadata."""
    path = options["config_path"]
    config = load(path, environ={}) if path else ScalerConfig()
    metadata: dict[str, str] = {}
    faults: list[str] = []
    for item in options["given"]:
        key, equals, value = item.partition("=")
        if not key or not equals:
            faults.append(f"--set {item!r}, must be KEY=VALUE")
        metadata[_metadata_key(key)] = value
    for option, key in SLO_KEYS.items():
        if (value := options[option]) is not None:
            metadata[key] = value
    if faults:
        raise ConfigError(*faults)
    return parse(metadata, config).policy


def _metadata_key(key: str) -> str:
    """The trigger's key of a setting's path; anything else as it is."""
    paths = {item.path: item.metadata_key for item in declared(PolicyConfig())}
    found = paths.get(key, key)
    known = found in metadata_settings() or found in operators_settings()
    return found if known else key


def _model(model: "ReplicaModel", start_up_s: str | None) -> "ReplicaModel":
    """``model`` with the start-up asked for."""
    if start_up_s is None:
        return model
    return dataclasses.replace(model, start_up=_start_up(start_up_s, model.start_up.crash_ratio))


def _start_up(text: str, crash_ratio: float) -> "StartUp":
    from simulations.replica import StartUp, constant, lognormal  # noqa: PLC0415

    try:
        values = [float(part) for part in text.split(",")]
        drawn = constant(values[0]) if len(values) == 1 else lognormal(*values)
    except (ValueError, TypeError) as error:
        raise ScenarioError(f"--start-up-s = {text!r}, must be S or MEDIAN,P95") from error
    except ScenarioError as error:
        raise ScenarioError(f"--start-up-s = {text!r}: {error}") from error
    none = constant(0.0)
    return StartUp(
        scheduling=none, image=none, weights=none, compile=drawn, crash_ratio=crash_ratio
    )
