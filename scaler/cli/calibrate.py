"""``scaler calibrate``: a replica model from history, a profile, or bench results."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scaler.cli.history_options import Source, history_options, source_of
from scaler.cli.progress import Progress, shown
from scaler.cli.record import fetch_history, resolved
from scaler.cli.simulation_options import simulator_needed
from scaler.errors import ConfigError, ScalerError
from scaler.ops.calibrate_files import read_bench, read_profile
from scaler.ops.calibrate_history import EngineHistory, engine_history
from scaler.ops.calibrate_stretches import WINDOW_S
from scaler.ops.record_history import Store, fingerprint, history_queries

if TYPE_CHECKING:
    from simulations.calibration import Calibration
    from simulations.replica import ReplicaModel, StartUp

LIMITS = {
    "kv_blocks": "KV-cache blocks (num_gpu_blocks); of history by cache_config_info.",
    "block_size": "Tokens in a block.",
    "max_num_seqs": "vLLM's flag.",
    "max_num_batched_tokens": "vLLM's flag.",
    "max_model_len": "vLLM's flag.",
    "gpus_per_replica": "GPUs of one replica.",
}


def _limit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, help_ in reversed(LIMITS.items()):
        option = click.option(f"--{name.replace('_', '-')}", type=click.IntRange(min=1), help=help_)
        function = option(function)
    return function


@click.command("calibrate")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="MODEL.yaml",
    help="What --replica-model takes.",
)
@click.option(
    "--profile",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with prefill_tokens, prefill_context, decode_seqs, decode_context_per_seq, step_ms.",
)
@click.option(
    "--where", multiple=True, metavar="COLUMN=VALUE", help="Rows of --profile. Repeatable."
)
@click.option("--overhead-ms", type=float, default=0.0, help="A step's time beside --profile's.")
@click.option(
    "--bench",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A result of vllm bench serve of one replica: one or more with --save-detailed, or five"
    " and more of different concurrencies. Repeatable.",
)
@click.option("--start-up-s", type=float, help="From scheduled to ready, where history has none.")
@click.option("--name", help="Of the model; the file's unless given.")
@_limit_options
@history_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print the fit on standard output as JSON.")
def command(*, out: Path, as_json: bool, **options: Any) -> None:
    """Fit a replica model: how long a step takes, limits, start-up.

    From one of: the history of a window (--prometheus-url or --config, --target, --from, --to), a
    profile of engine steps (--profile), or benchmarks (--bench).  Says how well it fits, the
    interval of each coefficient, and what data would tighten it.

    Example: scaler calibrate --prometheus-url http://prometheus:9090 --target llm/vllm-llama-70b
    --from 2026-03-02T00:00:00Z --to 2026-03-03T00:00:00Z --out model.yaml

    Example: scaler calibrate --bench low.json --bench high.json --kv-blocks 27000 --out model.yaml
    """
    with simulator_needed("calibrate"):
        from simulations.replica_files import dump_replica_model  # noqa: PLC0415
    try:
        with shown() as progress:
            made = _calibrated(progress, out, **options)
        out.write_text(_heading(made) + dump_replica_model(made.model))
    except OSError as error:
        raise ScalerError(f"{error.filename or out}: {error.strerror}") from error
    click.echo(json.dumps(_entries(made), indent=2) if as_json else _lines(made, out))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A model, how its steps were fitted, and what else must be known of it."""

    model: "ReplicaModel"
    fit: "Calibration"
    what: str
    notes: tuple[str, ...]


def _calibrated(
    progress: Progress,
    out: Path,
    *,
    profile: Path | None,
    bench: tuple[Path, ...],
    where: tuple[str, ...],
    overhead_ms: float,
    name: str | None,
    start_up_s: float | None,
    seed: int,
    **options: Any,
) -> _Made:
    """A model from the one source that was given.

    Raises:
        ConfigError: none or several were.
    """
    limits = {key: options.pop(key) for key in LIMITS}
    history = options["prometheus_url"] is not None or options["config_path"] is not None
    if (profile is not None) + bool(bench) + history != 1:
        raise ConfigError("give one of --profile, --bench, and --prometheus-url or --config")
    named = name or out.stem
    if profile is not None:
        made = _of_profile(profile, where, overhead_ms, _limited(named, limits), seed)
    elif bench:
        made = _of_bench(bench, _limited(named, limits), seed, progress)
    else:
        made = _of_history(out, progress, named, limits, seed=seed, **options)
    if start_up_s is not None:
        model = dataclasses.replace(made.model, start_up=_start_up((start_up_s,)))
        made = dataclasses.replace(made, model=model)
    notes = (*made.notes, *_assumed(made.model, limits))
    return dataclasses.replace(made, notes=notes)


def _assumed(model: "ReplicaModel", limits: dict[str, int | None]) -> Iterator[str]:
    """What nobody said and no data told: it is in the model nevertheless."""
    from simulations.replica import StartUp  # noqa: PLC0415

    if limits["gpus_per_replica"] is None:
        yield (
            f"gpus_per_replica: {model.gpus_per_replica} is assumed, and GPU-hours follow from it;"
            " --gpus-per-replica"
        )
    if model.start_up == StartUp():
        phases = (model.start_up.scheduling, model.start_up.weights, model.start_up.compile)
        yield (
            f"start-up: {sum(one.values_s[0] for one in phases):.0f} s is assumed, no pod times"
            " (kube_pod_created, kube_pod_status_ready_time) were found; --start-up-s"
        )
    for name in ("max_num_batched_tokens", "max_model_len"):
        if limits[name] is None:
            flag = name.replace("_", "-")
            yield f"{name}: {getattr(model, name)} is assumed, as vLLM's flag; --{flag}"


def _limited(name: str, limits: dict[str, int | None]) -> "ReplicaModel":
    """A model with the given limits whose steps are still to be found.

    Raises:
        ConfigError: the KV blocks are not given.
        ScenarioError: a limit is out of its range.
    """
    from simulations.presets import PRESETS  # noqa: PLC0415
    from simulations.replica import ReplicaModel  # noqa: PLC0415

    if limits["kv_blocks"] is None:
        raise ConfigError(
            "--kv-blocks is missing: the label num_gpu_blocks of vllm:cache_config_info, or in"
            " vLLM's log"
        )
    given = {key: value for key, value in limits.items() if value is not None}
    placeholder = PRESETS["llama-3.1-70b-h100-tp4"].model.step
    model = ReplicaModel(name=name, step=placeholder, kv_blocks=given.pop("kv_blocks"))
    return dataclasses.replace(model, **given)  # type: ignore[arg-type]  # whole numbers, all


def _of_profile(
    path: Path, where: tuple[str, ...], overhead_ms: float, limits: "ReplicaModel", seed: int
) -> _Made:
    from simulations.calibration import calibrate_profile  # noqa: PLC0415
    from simulations.fitting import Profile  # noqa: PLC0415

    wrong = [item for item in where if "=" not in item]
    if wrong:
        raise ConfigError(f"--where {wrong[0]!r}, must be COLUMN=VALUE")
    columns = read_profile(path, dict(item.split("=", 1) for item in where))
    seqs = columns["decode_seqs"]
    fit = calibrate_profile(
        Profile(
            prefill_tokens=columns["prefill_tokens"],
            prefill_context_tokens=columns["prefill_context"],
            decode_seqs=seqs,
            decode_kv_tokens=seqs * columns["decode_context_per_seq"],
            step_s=columns["step_ms"] / 1e3,
        ),
        overhead_s=overhead_ms / 1e3,
        seed=seed,
    )
    notes: tuple[str, ...] = ()
    if not overhead_ms:
        notes = ("kernel profiles lack scheduler and launches, often 2 to 3 ms: --overhead-ms",)
    return _made(limits, fit, f"{fit.rows} engine steps of {path.name}", notes)


def _of_bench(
    paths: tuple[Path, ...], limits: "ReplicaModel", seed: int, progress: Progress
) -> _Made:
    """By simulating the requests where all results have them, else by times per token."""
    import numpy as np  # noqa: PLC0415

    from simulations.calibration import calibrate_steady  # noqa: PLC0415
    from simulations.calibration_replay import (  # noqa: PLC0415
        MeasuredRequests,
        calibrate_requests,
    )
    from simulations.fitting import SteadyStates  # noqa: PLC0415

    results = [read_bench(path) for path in paths]
    runs = [MeasuredRequests(**one.requests) for one in results if one.requests is not None]
    if len(runs) == len(results):

        def told(done: int) -> None:
            progress(lambda _: f"fitting: {done:,} simulations")

        fit = calibrate_requests(runs, limits, told=told)
        return _made(limits, fit, f"{fit.rows} requests of {len(paths)} benchmarks", ())
    fit = calibrate_steady(
        SteadyStates(
            concurrency=np.array([one.concurrency for one in results]),
            prompt_tokens=np.array([one.prompt_tokens / one.completed for one in results]),
            output_tokens=np.array([one.output_tokens / one.completed for one in results]),
            tpot_s=np.array([one.tpot_s for one in results]),
        ),
        seed=seed,
    )
    note = "fitted to times per token alone: --save-detailed results tell prefill far better"
    return _made(limits, fit, f"{fit.rows} benchmarks", (note,))


def _of_history(
    out: Path,
    progress: Progress,
    name: str,
    limits: dict[str, int | None],
    *,
    seed: int,
    **options: Any,
) -> _Made:
    import numpy as np  # noqa: PLC0415

    from simulations.calibration import BusyWindows, calibrate_windows  # noqa: PLC0415

    source = _of_stretches(resolved(source_of(**options)))
    parts = out.with_name(f".{out.name}.parts")
    made = history_queries(source.asked, source.readers)
    store = Store(parts, fingerprint(source.asked, made))
    fetch_history(source, store, progress)
    progress.say("reading the history")
    with store.used_up():
        found = engine_history(source.asked, source.readers, store)
    fields = [field.name for field in dataclasses.fields(BusyWindows)]
    columns = {
        field: np.array([getattr(one, field) for one in found.stretches]) for field in fields
    }
    fit = calibrate_windows(BusyWindows(**columns), seed=seed)
    seen = {"kv_blocks": found.kv_blocks, "block_size": found.block_size}
    if limits["max_num_seqs"] is None and found.running_max_full:
        seen["max_num_seqs"] = found.running_max
    model = _limited(name, {**limits, **{k: limits[k] or v for k, v in seen.items()}})
    model = _with_history(model, found.hit_ratio, found.start_up_s)
    notes = (*_longer(fit), *_notes_of_history(found, limits))
    return _made(model, fit, f"{fit.rows} busy stretches of ten minutes", notes)


def _of_stretches(source: Source) -> Source:
    """The same with lengths told at every tick, of as long as a stretch."""
    asked = dataclasses.replace(
        source.asked, lengths_s=WINDOW_S, lengths_every_s=source.asked.tick_s
    )
    return dataclasses.replace(source, asked=asked)


def _longer(fit: "Calibration") -> Iterator[str]:
    """Intervals shrink with the root of the number of stretches."""
    loose = [item for item in fit.coefficients if item.loose]
    if loose and all(item.low > 0.0 for item in loose):
        factor = max(item.looseness for item in loose) ** 2
        yield f"the same traffic for {math.ceil(factor)} times as long would tighten them as well"


def _notes_of_history(found: EngineHistory, limits: dict[str, int | None]) -> Iterator[str]:
    """What history does not tell of the replica."""
    if not found.attention:
        yield (
            "no histogram of prompt lengths: the attention within long prompts is put down to"
            " their tokens and their context; a --profile with prefill_context tells it"
        )
    if limits["max_num_seqs"] is None:
        yield (
            f"max_num_seqs: {found.running_max} ran at most"
            f"{' while others waited' if found.running_max_full else ', the model has 256'};"
            " --max-num-seqs is surer"
        )


def _with_history(
    model: "ReplicaModel", hit_ratio: float, start_up_s: tuple[float, ...]
) -> "ReplicaModel":
    from simulations.replica import PrefixCache  # noqa: PLC0415

    cache = PrefixCache(hit_ratio=min(max(round(hit_ratio, 4), 0.0), 1.0))
    model = dataclasses.replace(model, prefix_cache=cache)
    return dataclasses.replace(model, start_up=_start_up(start_up_s)) if start_up_s else model


def _start_up(values_s: tuple[float, ...]) -> "StartUp":
    """All of it in one phase: pods tell when they were created and when they were ready."""
    from simulations.replica import (  # noqa: PLC0415
        Distribution,
        DistributionKind,
        StartUp,
        constant,
    )

    drawn = constant(values_s[0])
    if len(values_s) > 1:
        drawn = Distribution(kind=DistributionKind.EMPIRICAL, values_s=values_s)
    none = constant(0.0)
    return StartUp(scheduling=none, image=none, weights=drawn, compile=none)


def _made(limits: "ReplicaModel", fit: "Calibration", what: str, notes: tuple[str, ...]) -> _Made:
    return _Made(model=dataclasses.replace(limits, step=fit.step), fit=fit, what=what, notes=notes)


def _heading(made: _Made) -> str:
    """Comments above the model: where it comes from."""
    fit = made.fit
    errors = f"error {fit.error_mean_ratio:.1%} on average, {fit.error_p90_ratio:.1%} at the p90"
    return f"# By scaler calibrate from {made.what}: {errors}.\n"


def _entries(made: _Made) -> dict[str, Any]:
    fit = made.fit
    return {
        "model": dataclasses.asdict(made.model),
        "from": made.what,
        "rows": fit.rows,
        "error_mean_ratio": fit.error_mean_ratio,
        "error_p90_ratio": fit.error_p90_ratio,
        "coefficients": [
            {**dataclasses.asdict(item), "loose": item.loose} for item in fit.coefficients
        ],
        "advice": list(fit.advice),
        "notes": list(made.notes),
    }


def _lines(made: _Made, out: Path) -> str:
    """The fit for people."""
    fit = made.fit
    errors = f"{fit.error_mean_ratio:.1%} on average, {fit.error_p90_ratio:.1%} at the p90"
    lines = [f"{made.what}: fits within {errors}; intervals of 90 %:"]
    lines += [
        f"  {item.name:<24} {item.value:.3g}  ({item.low:.3g} to {item.high:.3g})"
        f"{'  loose' if item.loose else ''}"
        for item in fit.coefficients
    ]
    lines += [f"advice: {text}" for text in fit.advice]
    lines += [f"note: {text}" for text in made.notes]
    lines.append(f"wrote {out}: scaler simulate TRACE --replica-model {out} --out run")
    return "\n".join(lines)
