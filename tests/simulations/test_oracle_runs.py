"""No run is cheaper than the bound, nor than the oracle that attains as much: any small scenario.

Idle and tiny traces are where it once broke: a run and a replay looked at different moments whether
all had ended, which a replica that stands around pays for.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.core.config import PolicyConfig, SloConfig
from simulations import Scenario, simulate
from simulations.lifecycle import GpuPool, VictimOrder, ordinal_choice, replicaset_choice
from simulations.oracle import oracle
from simulations.oracle_replay import replay
from simulations.oracle_schedule import GRID_S
from simulations.peers import peer_policy
from simulations.run import Result
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import drawn_timing
from simulations.sweep import deployment_of
from simulations.trace_chunks import Requests
from tests.simulations.oracle_cases import HIGHEST, MODEL

CONFIG = dataclasses.replace(
    PolicyConfig(), slo=dataclasses.replace(SloConfig(), ttft_s=1.0, tpot_s=0.0)
)
ROUNDING = 1e-9
REPLAYS = 12
POLICIES = ("predictive", "reactive", "fixed:1", "fixed:2", "fixed:3", "keda-queue", "queue-guard")


def _trace(gaps_s: list[float], seed: int) -> Requests:
    random = np.random.default_rng(seed)
    count = len(gaps_s)
    return Requests(
        arrival_s=np.cumsum(gaps_s),
        prompt_tokens=random.integers(50, 40_000, count).astype(np.int32),  # some are too long
        output_tokens=random.integers(1, 60, count).astype(np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )


def _scenario(requests: Requests, policy: str, **changes: object) -> Scenario:
    settings_: dict[str, object] = {
        "requests": [requests],
        "model": MODEL,
        "scaled_object": ScaledObjectSpec(
            polling_interval_s=15.0, replicas_min=1, replicas_max=HIGHEST
        ),
        "policy": peer_policy(policy, CONFIG),
        "timing": drawn_timing(1, tick_s=15.0, poll_s=15.0, sync_s=15.0),
    }
    return Scenario(**{**settings_, **changes})  # type: ignore[arg-type]


def _steps(result: Result) -> list[tuple[float, int]]:
    return [(change.at_s, change.after) for change in result.changes]


@settings(max_examples=60, deadline=None)
@given(
    gaps_s=st.lists(st.one_of(st.floats(0.0, 2.0), st.floats(0.0, 400.0)), min_size=1, max_size=40),
    policy=st.sampled_from(POLICIES),
    first=st.integers(1, HIGHEST),
    gpus=st.sampled_from([None, 2 * HIGHEST]),
    victims=st.sampled_from(VictimOrder),
    seed=st.integers(0, 1000),
)
def test_no_run_is_cheaper_than_the_bound_or_the_oracle(  # noqa: PLR0917 - drawn by name
    gaps_s: list[float],
    policy: str,
    first: int,
    gpus: int | None,
    victims: VictimOrder,
    seed: int,
) -> None:
    requests = _trace(gaps_s, seed)
    scenario = _scenario(
        requests, policy, replicas_first=first, seed=seed, victims=victims, gpus=GpuPool(total=gpus)
    )
    result = simulate(scenario)
    score = result.score
    found = oracle(
        requests,
        deployment_of(scenario),
        attainment_ratio=score.slo_attainment_ratio,
        replays_max=REPLAYS,
        known=_steps(result),
    )
    assert found.reached
    assert found.slo_attainment_ratio >= score.slo_attainment_ratio - ROUNDING
    assert found.gpu_hours <= score.gpu_hours + ROUNDING
    assert found.bound_gpu_hours <= found.gpu_hours + ROUNDING


@pytest.mark.parametrize("policy", ["fixed:2", "predictive", "keda-queue"])
@pytest.mark.parametrize("gap_s", [0.5, 97.0, 1000.0])
def test_a_run_costs_what_its_schedule_costs_in_a_replay(policy: str, gap_s: float) -> None:
    """To the same instant: until the last request has ended, not until somebody looks."""
    requests = _trace([gap_s] * 12, seed=3)
    scenario = _scenario(requests, policy)
    result = simulate(scenario)
    played = replay(requests, deployment_of(scenario), _steps(result), block_s=GRID_S)
    assert played.gpu_hours == pytest.approx(result.score.gpu_hours, rel=1e-12)
    assert played.replica_s.sum() == pytest.approx(result.score.replica_hours * 3600.0, rel=1e-12)
    assert played.attainment_ratio == pytest.approx(result.score.slo_attainment_ratio)


def test_a_fixed_fleet_is_paid_until_the_last_request_has_ended() -> None:
    """Alone a request of o tokens takes o steps of some 0.09 s; two replicas of two GPUs."""
    requests = dataclasses.replace(
        _trace([10.0], seed=1),
        prompt_tokens=np.array([100], dtype=np.int32),
        output_tokens=np.array([1], dtype=np.int32),
    )
    score = simulate(_scenario(requests, "fixed:2")).score
    ended_s = 10.0 + score.ttft_s.max
    assert score.gpu_hours == pytest.approx(2 * MODEL.gpus_per_replica * ended_s / 3600.0, rel=1e-6)


def test_the_oracles_fleet_is_the_runs() -> None:
    """Its first replicas, and its order of victims: a LeaderWorkerSet gives up the last group."""
    requests = _trace([1.0], seed=1)
    plain = deployment_of(_scenario(requests, "predictive", replicas_first=2))
    assert (plain.replicas_first, plain.victims) == (2, replicaset_choice)
    fixed = _scenario(requests, "fixed:3", victims=VictimOrder.ORDINAL)
    assert deployment_of(fixed).replicas_first == 3
    assert deployment_of(fixed).victims is ordinal_choice
