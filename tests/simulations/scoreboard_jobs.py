"""Small traces and plans for the scoreboard's tests."""

import dataclasses
from pathlib import Path

from scaler.core.config import PolicyConfig
from scaler.core.hpa import parse_behavior
from simulations.replica import StartUp, constant
from simulations.run_cache import RunCache
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Policy, Scenario
from simulations.sweep import Sweep
from simulations.sweep_traces import stored_trace
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate
from simulations.traces import write_trace
from tests.simulations.small_fleet import model

AT_ONCE = parse_behavior(
    {
        "scaleUp": {"stabilizationWindowSeconds": 0, "tolerance": 0},
        "scaleDown": {"stabilizationWindowSeconds": 0, "tolerance": 0},
    }
)
QUICK = model(start_up=StartUp(scheduling=constant(1.0), weights=constant(20.0)))


def scenario(folder: Path, name: str = "step.csv", *, seed: int = 1, peak: float = 8.0) -> Scenario:
    """Ten minutes of a step, on replicas that serve eight requests of 2 s at once: 4 a second."""
    path = folder / name
    if not path.exists():
        spec = TraceSpec(
            shape=Shape.STEP,
            duration_s=600.0,
            rate_per_s=2.0,
            peak_per_s=peak,
            at_s=300.0,
            prompt=Lengths(median_tokens=50.0, p95_tokens=90.0, longest_tokens=100),
            output=Lengths(median_tokens=20.0, p95_tokens=30.0, longest_tokens=40),
        )
        write_trace(path, generate(spec, seed=seed))
    return Scenario(
        requests=stored_trace(path, folder=folder / "cache"),
        model=dataclasses.replace(QUICK, gpus_per_replica=1),
        scaled_object=ScaledObjectSpec(
            polling_interval_s=15.0, replicas_min=1, replicas_max=8, behavior=AT_ONCE
        ),
        policy=Policy(name="predictive", config=PolicyConfig()),
        replicas_first=2,
        seed=1,
    )


class Counter:
    """Hears of runs, and counts those that were not kept."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.kept: list[str] = []
        self.count = 0

    def planned(self, count: int) -> None:
        self.count += count

    def ended(self, name: str, *, cached: bool) -> None:
        (self.kept if cached else self.ran).append(name)


def sweep(run_on, folder: Path | None, watcher: Counter | None = None) -> Sweep:  # type: ignore[no-untyped-def]  # an Executor
    return Sweep(run_on, RunCache(folder), watcher=watcher)
