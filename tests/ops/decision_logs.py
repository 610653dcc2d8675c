"""Decision logs as they come to be: of a simulated run, and of the daemon's own writer."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scaler.cli.simulate_output import decision_log
from scaler.config import RecordsConfig
from scaler.core.config import PolicyConfig
from scaler.core.model import Mode
from scaler.service.records import DecisionLog
from simulations.presets import PRESETS
from simulations.run import simulate
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Policy, Scenario
from simulations.trace_chunks import Requests
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate
from tests.service.fakes import World, world
from tests.service.test_records import Inline

SIMULATED = "simulated/simulated"
_KEPT: dict[tuple[Mode, int], bytes] = {}  # a run is played once a process


class _Trace:
    """A step from 4 to 24 requests/s after five minutes; may be read more than once."""

    def __iter__(self) -> Iterator[Requests]:
        spec = TraceSpec(
            shape=Shape.STEP,
            duration_s=1200.0,
            rate_per_s=4.0,
            peak_per_s=24.0,
            at_s=300.0,
            prompt=Lengths(median_tokens=500.0, p95_tokens=1500.0, longest_tokens=3000),
        )
        return iter(generate(spec, seed=5))


def _lines(mode: Mode, replicas: int, folder: Path) -> bytes:
    scenario = Scenario(
        requests=_Trace(),
        model=PRESETS["llama-3.1-70b-h100-tp4"].model,
        scaled_object=ScaledObjectSpec(polling_interval_s=15.0, replicas_min=1, replicas_max=16),
        policy=Policy(name="predictive", config=PolicyConfig(mode=mode)),
        replicas_first=replicas,
    )
    folder.mkdir(parents=True)
    with decision_log(folder, scenario) as log:
        simulate(scenario, watch=log)
    return (folder / "decisions.jsonl").read_bytes()


def simulated_log(folder: Path, *, mode: Mode = Mode.ACTIVE, replicas: int = 1) -> Path:
    """The log of twenty simulated minutes, as ``scaler simulate`` writes it."""
    path = folder / f"{mode}.jsonl"
    if (mode, replicas) not in _KEPT:
        _KEPT[mode, replicas] = _lines(mode, replicas, folder / "run")
    path.write_bytes(_KEPT[mode, replicas])
    return path


async def daemon_log(folder: Path, *names: str, file_bytes_max: int = 10**7) -> World:
    """A daemon's rotated log of thirty ticks: load, a peak, and an API that is away."""
    settings = replace(RecordsConfig(directory=str(folder)), file_bytes_max=file_bytes_max)
    made = world(*names, sinks=(DecisionLog(settings, Inline()),))
    await made.tick(8)
    made.source.fleets["chat"].requests_per_s = 40.0
    made.source.fleets["chat"].waiting = 30.0
    await made.tick(10)
    made.source.fleets["chat"].waiting = 0.0
    await made.tick(12)
    return made
