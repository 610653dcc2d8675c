"""Small searches for the tests of the tuner."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scaler.core.config import PolicyConfig, SloConfig
from scaler.ops.manifest import ManifestRequest, scaled_object
from simulations.presets import PRESETS
from simulations.scaled_object import parse_scaled_object
from simulations.scenario import Scenario, policy_named
from simulations.sweep_traces import stored_trace
from simulations.trace_chunks import Requests
from simulations.traces import write_trace
from simulations.tune import Plan
from simulations.tune_parts import Outcome
from simulations.tune_search import Tried

DURATION_S = 1200.0


def requests(seed: int, *, rate_per_s: float = 6.0, late_rate_per_s: float = 6.0) -> Requests:
    """Twenty minutes; from 800 s on, where a third is held out, another rate."""
    draws = np.random.default_rng(seed)

    def arrivals(begin_s: float, end_s: float, per_s: float) -> np.ndarray:
        return np.sort(draws.uniform(begin_s, end_s, int((end_s - begin_s) * per_s)))

    times = [arrivals(0.0, 800.0, rate_per_s), arrivals(800.0, DURATION_S, late_rate_per_s)]
    arrival_s = np.concatenate([*times, [DURATION_S]])
    count = len(arrival_s)
    # Lengths are drawn apart, so that those of the first part do not depend on what follows it.
    lengths = np.random.default_rng(seed + 1).integers((200, 20), (2000, 300), (count, 2))
    return Requests(
        arrival_s=arrival_s,
        prompt_tokens=lengths[:, 0].astype(np.int32),
        output_tokens=lengths[:, 1].astype(np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )


def scenario(folder: Path, name: str, made: Requests) -> Scenario:
    """A trace as a file, and the scenario on it."""
    write_trace(folder / name, [made])
    spec = ManifestRequest(target="deployment/x", namespace="x", replicas_min=1, replicas_max=8)
    config = PolicyConfig(slo=SloConfig(ttft_s=2.0))
    return Scenario(
        requests=stored_trace(folder / name, folder=folder / "cache"),
        model=PRESETS["llama-3.1-70b-h100-tp4"].model,
        scaled_object=parse_scaled_object(scaled_object(spec)),
        policy=policy_named("predictive", config),
        timeline=False,
    )


def plan(
    scenarios: Mapping[str, Scenario], storage: Path, *, trials: int = 12, seed: int = 0
) -> Plan:
    """A search of a few trials for 99 %."""
    return Plan(
        scenarios=scenarios, trials=trials, storage=storage, attainment_share=0.99, seed=seed
    )


class Silent:
    """Hears of the search and keeps what it heard."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.confirmed = 0

    def tried(self, tried: Sequence[Tried], front: Sequence[object], *, ran: int) -> None:
        """Kept."""
        assert tried
        assert front or all(one.train is None for one in tried)
        self.ran.append(ran)

    def confirming(self, count: int) -> None:
        """Kept."""
        self.confirmed += count


def outcome(attained_ratio: float, gpu_hours: float, *, requests: int = 100_000) -> Outcome:
    """An outcome with so many requests."""
    return Outcome(requests=requests, good=round(attained_ratio * requests), gpu_hours=gpu_hours)
