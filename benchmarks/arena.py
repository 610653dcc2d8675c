"""The arena: the development traces at the load of the base case, as scenarios.

Base case: 70B on four H100, start-up 135 s, TTFT within 2 s, at most 64 replicas, Kubernetes 1.36,
load factors at which ``token-rate`` has some 15 replicas at the peak; a run begins with enough
replicas for its first ten minutes.
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.perf_data import DATA
from scaler.cli.simulation_options import scenario, simulation_options
from simulations.oracle_work import BaseShare, least_work
from simulations.presets import PRESETS
from simulations.run_cache import being_written
from simulations.scenario import Scenario
from simulations.sweep_traces import StoredTrace, stored_trace
from simulations.trace_chunks import Requests, join
from simulations.trace_generate import Shape, TraceSpec, generate
from simulations.traces import write_trace

HOUR_S = 3600.0
BASE_MODEL = "llama-3.1-70b-h100-tp4"
BASE: Mapping[str, Any] = {
    "replica_model": BASE_MODEL,
    "start_up_s": "135",
    "slo_ttft_s": "2",
    "attainment": "0.99",
    "min_replicas": 1,
    "max_replicas": 64,
    "kubernetes_version": "1.36",
    "seed": 0,
}
GENERATED_SEED = 7
PEAK_PER_S = 50.0  # of the lengths of Azure 2023: some 15 replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Development:
    """A trace: its load in the base case, and the part that a quick run plays.

    ``draw`` makes the requests of a trace that is not in the data folder.
    """

    name: str
    load_factor: float = 1.0
    quick_until_s: float | None = None
    draw: Callable[[], Iterable[Requests]] | None = None


def _made(spec: TraceSpec) -> Development:
    return Development(
        name=f"generated-{spec.shape.value}.csv.gz",
        draw=functools.partial(generate, spec, seed=GENERATED_SEED),
    )


def _spec(shape: Shape, *, hours: float) -> TraceSpec:
    return TraceSpec(shape=shape, duration_s=hours * HOUR_S, rate_per_s=8.0, peak_per_s=PEAK_PER_S)


RECORDED = (
    Development(
        name="azure-2024-shape-conv-48h.csv.gz", load_factor=3.0, quick_until_s=12 * HOUR_S
    ),
    Development(
        name="azure-2024-shape-conv-weekend-24h.csv.gz",
        load_factor=5.5,
        quick_until_s=12 * HOUR_S,
    ),
    Development(name="servegen-tenants-48h.csv.gz", load_factor=7.0, quick_until_s=12 * HOUR_S),
    Development(name="servegen-large-48h.csv.gz", load_factor=5.0, quick_until_s=12 * HOUR_S),
    Development(name="servegen-onoff-48h.csv.gz", load_factor=0.5, quick_until_s=12 * HOUR_S),
)
GENERATED = (
    _made(_spec(Shape.RAMP, hours=6.0)),
    _made(replace(_spec(Shape.STEP, hours=4.0), at_s=2 * HOUR_S)),
    _made(replace(_spec(Shape.FLASH_CROWD, hours=4.0), at_s=HOUR_S, hold_s=900.0)),
    _made(replace(_spec(Shape.ON_OFF, hours=8.0), period_s=2400.0, hold_s=900.0)),
    _made(_spec(Shape.DIURNAL, hours=24.0)),
    _made(
        replace(
            _spec(Shape.MIX_SHIFT, hours=6.0), rate_per_s=20.0, at_s=2 * HOUR_S, hold_s=2 * HOUR_S
        )
    ),
)


def cache_folder() -> Path:
    """Where runs and traces are kept, as ``scaler compare`` keeps them."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vllm-scaler"


def trace_of(trace: Development, folder: Path) -> StoredTrace:
    """The recorded trace from the data folder, or the one that is made, written once."""
    if trace.draw is None:
        return stored_trace(DATA / "traces" / trace.name, folder=folder)
    path = folder / "generated" / trace.name
    if not path.exists():
        with being_written(path) as draft:
            named = draft.with_name(f"{draft.name}.csv.gz")  # the ending is the format
            write_trace(named, trace.draw())
            named.replace(draft)
    return stored_trace(path, folder=folder)


def base_scenario(
    trace: Development, folder: Path, *, quick: bool = False, load: float = 1.0, **changes: Any
) -> Scenario:
    """The base case on a trace, with options of ``scaler compare`` changed.

    ``load`` multiplies the trace's load factor.
    """
    options = {**_defaults(), **BASE, **changes}
    options["load_factor"] = trace.load_factor * load
    options["until_s"] = trace.quick_until_s if quick else None
    options.pop("skip_bad_rows", None)
    return scenario(trace_of(trace, folder), policy="predictive", **options)


def equal_load(trace: Development, folder: Path, model: str) -> float:
    """How much more load gives another model the work of the base case, in replicas."""
    requests = join(list(trace_of(trace, folder)))
    sample = requests.pick(slice(0, 20_000))
    return _mean_work_s(sample, BASE_MODEL) / _mean_work_s(sample, model)


def _mean_work_s(sample: Any, model: str) -> float:
    work = least_work(sample, PRESETS[model].model, BaseShare())
    return float(np.mean(work.prefill_s + work.decode_s))


def _defaults() -> dict[str, Any]:
    """The defaults of the options of a simulated run."""

    @click.command()
    @simulation_options
    def command(**_: Any) -> None:
        """Never called."""

    return dict(command.make_context("simulation", []).params)
