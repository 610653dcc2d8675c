"""What ``scaler simulate`` and its kin share: the options of a simulated run, and its scenario."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

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
    from simulations.lifecycle import GpuPool, VictimOrder
    from simulations.replica import Distribution, ReplicaModel
    from simulations.scenario import Policy
    from simulations.trace_chunks import Requests

    PolicyOf = Callable[[PolicyConfig], Policy]

PRESET = "llama-3.1-70b-h100-tp4"
KUBERNETES = "1.36"
SLO_KEYS = {
    "slo_ttft_s": "ttftSloSeconds",
    "slo_tpot_s": "tpotSloSeconds",
    "attainment": "sloAttainmentTarget",
}
"""Options that are settings of the trigger, and their keys there."""

ROUTINGS = ("least-requests", "random", "round-robin", "kv-aware", "session")
WORKLOADS = ("deployment", "statefulset", "leaderworkerset")

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--config",
        "config_path",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The daemon's configuration: its policy settings are the defaults.",
    ),
    click.option(
        "--set",
        "given",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting by its path (hold_down.window_s=120) or metadata key. Repeatable.",
    ),
    click.option("--replica-model", default=PRESET, show_default=True, metavar="NAME|FILE"),
    click.option("--slo-ttft-s", help="Objective for the time to first token."),
    click.option("--slo-tpot-s", help="Objective for the mean time per output token."),
    click.option("--attainment", help="Share of requests within the objectives, such as 0.99."),
    click.option(
        "--start-up-s",
        metavar="S|MEDIAN,P95",
        help="From scheduled to ready: always S, or lognormal; the model's own unless given.",
    ),
    click.option(
        "--min-replicas",
        type=int,
        default=1,
        show_default=True,
        help="0: to zero once idle, and back by a gateway's counter.",
    ),
    click.option("--max-replicas", type=int, default=32, show_default=True),
    click.option(
        "--initial-replicas",
        type=int,
        help="Ready at 0 s; what the first ten minutes of arrivals need unless given.",
    ),
    click.option("--gpus-total", type=click.IntRange(min=1), help="No limit unless given."),
    click.option(
        "--gpus-max",
        type=click.IntRange(min=1),
        help="Nodes come for pending replicas, up to as many GPUs; needs --gpus-total.",
    ),
    click.option("--gpus-per-node", type=click.IntRange(min=1), default=8, show_default=True),
    click.option(
        "--node-provisioning-s",
        default="240,600",
        show_default=True,
        metavar="S|MEDIAN,P95",
        help="How long a node of --gpus-max takes.",
    ),
    click.option(
        "--workload",
        type=click.Choice(WORKLOADS),
        default=WORKLOADS[0],
        show_default=True,
        help="Whose order of victims a scale-down follows.",
    ),
    click.option("--routing", type=click.Choice(ROUTINGS), default=ROUTINGS[0], show_default=True),
    click.option(
        "--prefix-cache-ratio",
        type=click.FloatRange(0.0, 1.0),
        help="Share of each prompt in the prefix cache; the model's own unless given.",
    ),
    click.option("--load-factor", type=float, default=1.0, show_default=True),
    click.option("--kubernetes-version", default=KUBERNETES, show_default=True),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--until-s", type=float, help="Play only arrivals before this time."),
    click.option("--skip-bad-rows", is_flag=True, help="Leave out bad rows and count them."),
)

_WORKERS = (
    click.option(
        "--jobs", type=int, default=os.cpu_count() or 1, show_default="all cores", metavar="N"
    ),
    click.option(
        "--ray",
        "ray_address",
        metavar="ADDRESS",
        help="Run on a Ray cluster: local, auto or ray://HOST:PORT.",
    ),
)


def simulation_options(function: F) -> F:
    """Adds the options of a simulated run to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def worker_options(function: F) -> F:
    """Adds ``--jobs`` and ``--ray``: where many runs are played."""
    for option in reversed(_WORKERS):
        function = option(function)
    return function


def cache_option(what: str) -> Callable[[F], F]:
    """Adds ``--cache``; ``what`` is its help: what is kept there, and where unless given."""
    return click.option(
        "--cache",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help=what,
    )


@contextlib.contextmanager
def simulator_needed(command: str) -> Iterator[None]:
    """Says which extra to install where a library of the simulator is missing."""
    try:
        yield
    except ImportError as missing:
        raise ScalerError(
            f"scaler {command} needs {missing.name}: pip install 'vllm-scaler[sim]'"
        ) from missing


def scenario(
    requests: "Iterable[Requests]", *, policy: "str | PolicyOf", **options: Any
) -> "Scenario":
    """The scenario that the options describe, under a policy by its name or made of the settings.

    Raises:
        ConfigError: a setting is wrong.
        ScenarioError: the rest of it is.
    """
    from simulations import Scenario  # noqa: PLC0415
    from simulations.peers import peer_policy  # noqa: PLC0415
    from simulations.replica import Routing  # noqa: PLC0415
    from simulations.replica_files import load_replica_model  # noqa: PLC0415
    from simulations.scaled_object import ClusterSpec, parse_scaled_object  # noqa: PLC0415
    from simulations.scenario import drawn_timing  # noqa: PLC0415

    kubernetes = parse_version(options["kubernetes_version"])
    config = _policy_config(options)
    low, high = options["min_replicas"], options["max_replicas"]
    if high < 1:  # said in the words of the options
        raise ScenarioError(f"--max-replicas = {high}, must be at least 1")
    if not 0 <= low <= high:
        raise ScenarioError(f"--min-replicas = {low}, must be in [0, {high}], --max-replicas")
    if options["seed"] < 0:
        raise ScenarioError(f"--seed = {options['seed']}, must be at least 0")
    factor, until_s = options["load_factor"], options["until_s"]
    if not 0.0 < factor <= 1000.0:
        raise ScenarioError(f"--load-factor = {factor}, must be in (0, 1000]")
    if until_s is not None and not until_s > 0.0:
        raise ScenarioError(f"--until-s = {until_s}, must be above 0")
    shipped = scaled_object(
        ManifestRequest(
            target="deployment/simulated",
            namespace="simulated",
            replicas_min=low,
            replicas_max=high,
            kubernetes=kubernetes,
            scale_to_zero=low == 0,
        )
    )
    spec = parse_scaled_object(shipped)
    cluster = ClusterSpec(kubernetes=kubernetes)
    model, gpus = _model(load_replica_model(options["replica_model"]), options), _gpus(options)
    first = options["initial_replicas"]
    if first is None:
        first = _first_count(requests, model, gpus, options)
    return Scenario(
        requests=requests,
        model=model,
        scaled_object=spec,
        cluster=cluster,
        policy=peer_policy(policy, config) if isinstance(policy, str) else policy(config),
        replicas_first=first,
        timing=drawn_timing(
            options["seed"],
            tick_s=config.tick_s,
            poll_s=spec.polling_interval_s,
            sync_s=cluster.hpa_sync_s,
        ),
        gpus=gpus,
        routing=Routing[options["routing"].replace("-", "_").upper()],
        victims=_victims(options["workload"]),
        seed=options["seed"],
        load_factor=factor,
        until_s=until_s,
    )


def _first_count(
    requests: "Iterable[Requests]",
    model: "ReplicaModel",
    gpus: "GpuPool",
    options: dict[str, Any],
) -> int:
    """What the arrivals of the first minutes need, within the bounds and the GPUs that are there.

    A count of 0 is for a trace that begins without arrivals, where zero is allowed.
    """
    from simulations.first_count import first_count  # noqa: PLC0415

    low, high = options["min_replicas"], options["max_replicas"]
    if gpus.total is not None:
        high = min(high, gpus.total // model.gpus_per_replica)
    needed = first_count(
        requests, model, load_factor=options["load_factor"], until_s=options["until_s"]
    )
    return int(max(min(needed, high), low))


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


def _model(model: "ReplicaModel", options: dict[str, Any]) -> "ReplicaModel":
    """``model`` with the start-up and the prefix cache asked for."""
    from simulations.replica import StartUp, constant  # noqa: PLC0415

    if (text := options["start_up_s"]) is not None:
        none = constant(0.0)
        start_up = StartUp(
            scheduling=none,
            image=none,
            weights=none,
            compile=_drawn("--start-up-s", text),
            crash_ratio=model.start_up.crash_ratio,
        )
        model = dataclasses.replace(model, start_up=start_up)
    if (ratio := options["prefix_cache_ratio"]) is not None:
        cache = dataclasses.replace(model.prefix_cache, hit_ratio=ratio)
        model = dataclasses.replace(model, prefix_cache=cache)
    return model


def _gpus(options: dict[str, Any]) -> "GpuPool":
    from simulations.lifecycle import GpuPool  # noqa: PLC0415

    total, most = options["gpus_total"], options["gpus_max"]
    provisioning = _drawn("--node-provisioning-s", options["node_provisioning_s"])
    if most is None:
        return GpuPool(total=total)
    if total is None:
        raise ScenarioError(f"--gpus-max = {most}, needs --gpus-total")
    if most < total:
        raise ScenarioError(f"--gpus-max = {most}, must be at least --gpus-total, {total}")
    return GpuPool(
        total=total,
        provisioned_max=most,
        gpus_per_node=options["gpus_per_node"],
        node_provisioning=provisioning,
    )


def _victims(workload: str) -> "VictimOrder":
    from simulations.lifecycle import VictimOrder  # noqa: PLC0415

    return VictimOrder.REPLICASET if workload == "deployment" else VictimOrder.ORDINAL


def _drawn(option: str, text: str) -> "Distribution":
    """A duration that is constant, or lognormal by median and 95th percentile."""
    from simulations.replica import constant, lognormal  # noqa: PLC0415

    try:
        values = [float(part) for part in text.split(",")]
        return constant(values[0]) if len(values) == 1 else lognormal(*values)
    except (ValueError, TypeError) as error:
        raise ScenarioError(f"{option} = {text!r}, must be S or MEDIAN,P95") from error
    except ScenarioError as error:
        raise ScenarioError(f"{option} = {text!r}: {error}") from error
