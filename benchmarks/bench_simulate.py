"""Speed of the whole loop: kernel, observation, decide() and actuator, as ``scaler simulate`` runs.

    python -m benchmarks.bench_simulate [TRACE ...] [--policy NAME ...]

Every trace at load factor 4 with at most 16 replicas of the 70B preset, then the first one for a
quarter and a half of its time.  Reading the trace, loading the compiled code and writing files are
not counted.  Times are process time: on a machine that does nothing else they are the wall time.
``kernel`` is the compiled fleet, ``decide`` the policy, ``rest`` everything else of the loop.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.perf_data import DATA
from scaler.core.config import PolicyConfig
from scaler.core.hpa_spec import parse_version
from scaler.ops.manifest import ManifestRequest, scaled_object
from simulations import Scenario, engine, simulate
from simulations.engine_layout import State
from simulations.peers import peer_policy
from simulations.presets import PRESETS
from simulations.run import Result
from simulations.scaled_object import parse_scaled_object
from simulations.scenario import drawn_timing
from simulations.trace_chunks import Requests
from simulations.traces import read_trace

PRESET = "llama-3.1-70b-h100-tp4"
TRACES = ("azure-2024-shape-conv-48h", "servegen-tenants-48h", "servegen-large-48h")
POLICIES = ("predictive", "fixed:14")
LOAD_FACTOR = 4.0
REPLICAS_MAX = 16
PARTS = (0.25, 0.5)


class Kernel:
    """Stands before the compiled ``advance`` and counts the time in it."""

    def __init__(self) -> None:
        self.compiled = engine.advance
        self.spent_s = 0.0

    def __call__(self, state: State, until_s: float) -> float:
        """Advance, on the clock."""
        began_s = time.process_time()
        reached_s = self.compiled(state, until_s)
        self.spent_s += time.process_time() - began_s
        return reached_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run, in process time."""

    result: Result
    kernel_s: float


def scenario(requests: Sequence[Requests], policy: str) -> Scenario:
    """The base case of the scoreboard under a policy, one replica ready at the beginning."""
    config = PolicyConfig()
    shipped = scaled_object(
        ManifestRequest(
            target="deployment/simulated",
            namespace="simulated",
            replicas_max=REPLICAS_MAX,
            kubernetes=parse_version("1.36"),
        )
    )
    spec = parse_scaled_object(shipped)
    return Scenario(
        requests=requests,
        model=PRESETS[PRESET].model,
        scaled_object=spec,
        policy=peer_policy(policy, config),
        timing=drawn_timing(0, tick_s=config.tick_s, poll_s=spec.polling_interval_s, sync_s=15.0),
        load_factor=LOAD_FACTOR,
    )


def measure(made: Scenario, *, runs: int) -> Measured:
    """The run with the least process time: the others shared the machine."""
    found = []
    for _ in range(runs):
        kernel = Kernel()
        engine.advance = kernel
        try:
            result = simulate(made, clock=time.process_time)
        finally:
            engine.advance = kernel.compiled
        found.append(Measured(result=result, kernel_s=kernel.spent_s))
    return min(found, key=lambda m: m.result.spent.wall_s)


def line(name: str, policy: str, found: Measured) -> str:
    """What came out, as a row of a table."""
    score, spent = found.result.score, found.result.spent
    rest_s = spent.wall_s - found.kernel_s - spent.decide_wall_s
    ticks = max(len(found.result.timeline.numbers), 1)
    return (
        f"| {name} | {policy} | {score.requests:,} | {score.replicas_mean:.1f}"
        f" | {score.requests / spent.wall_s:,.0f} | {score.requests / found.kernel_s:,.0f}"
        f" | {spent.decide_wall_s / ticks * 1e6:.0f} | {rest_s / ticks * 1e6:.0f} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="*", type=Path)
    parser.add_argument("--policy", nargs="*", default=POLICIES, dest="policies")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    paths = asked.traces or [DATA / "traces" / f"{name}.csv.gz" for name in TRACES]
    engine.load_kernel()
    print("| trace | policy | requests | replicas, mean | requests/s, whole loop | kernel only"
          " | decide, us a tick | rest, us a tick |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for place, path in enumerate(paths):
        requests = list(read_trace(path))
        name = path.name.split(".")[0]
        for policy in asked.policies:
            made = scenario(requests, policy)
            print(line(name, policy, measure(made, runs=asked.runs)), flush=True)
        for part in PARTS if place == 0 else ():
            until_s = part * float(requests[-1].arrival_s[-1])
            made = dataclasses.replace(scenario(requests, asked.policies[0]), until_s=until_s)
            found = measure(made, runs=asked.runs)
            print(line(f"{name}, {until_s / 3600.0:.0f} h", asked.policies[0], found), flush=True)


if __name__ == "__main__":
    main()
