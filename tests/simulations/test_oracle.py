"""The oracle against every schedule of a coarse grid, against policies, and against the run."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.core.config import PolicyConfig, SloConfig
from scaler.errors import ScenarioError
from simulations import Scenario, simulate
from simulations.oracle import OracleResult, oracle
from simulations.oracle_replay import replay
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import drawn_timing, policy_named
from simulations.scoreboard_policies import oracle_scenario
from tests.simulations.oracle_cases import (
    HIGHEST,
    MODEL,
    PERIOD_S,
    Case,
    every_schedule,
    optimum_gpu_hours,
)

REPLAYS = 150
COARSE_RATIO = 1.03
"""How far above the optimum of the coarse grid the search may stay (mostly it is below: its own
grid is finer)."""
CROWD = Case(rates_per_s=(0.5, 0.5, 3.0, 0.5), seed=7)


def _scenario(case: Case, policy: str) -> Scenario:
    config = dataclasses.replace(
        PolicyConfig(), slo=dataclasses.replace(SloConfig(), ttft_s=1.0, tpot_s=0.0)
    )
    return Scenario(
        requests=[case.requests],
        model=MODEL,
        scaled_object=ScaledObjectSpec(
            polling_interval_s=15.0, replicas_min=1, replicas_max=HIGHEST
        ),
        policy=policy_named(policy, config),
        timing=drawn_timing(1, tick_s=15.0, poll_s=15.0, sync_s=15.0),
        seed=case.seed,
    )


@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    rates=st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]), min_size=4, max_size=4),
    seed=st.integers(0, 5),
    share=st.sampled_from([1.0, 0.95, 0.85]),
)
def test_the_oracle_is_near_the_optimum_and_the_bound_below_it(
    rates: list[float], seed: int, share: float
) -> None:
    case = Case(rates_per_s=tuple(rates), seed=seed)
    tried = every_schedule(case)
    attainment = share * max(each.attainment_ratio for _, each in tried)
    optimum = optimum_gpu_hours(tried, attainment)
    found = oracle(case.requests, case.deployment, attainment_ratio=attainment, replays_max=REPLAYS)
    assert found.reached
    assert found.slo_attainment_ratio >= attainment - 1e-9
    assert found.gpu_hours <= COARSE_RATIO * optimum
    assert found.bound_gpu_hours <= min(optimum, found.gpu_hours)


@settings(max_examples=12, deadline=None)
@given(
    rates=st.lists(st.floats(0.2, 3.0), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
    counts=st.lists(st.integers(1, HIGHEST), min_size=4, max_size=4),
    share=st.floats(0.3, 1.0),
)
def test_no_schedule_that_reaches_a_share_costs_less_than_its_bound(
    rates: list[float], seed: int, counts: list[int], share: float
) -> None:
    case = Case(rates_per_s=tuple(rates), seed=seed)
    schedule = [(place * PERIOD_S / 2.0, count) for place, count in enumerate(counts)]
    played = replay(case.requests, case.deployment, schedule, block_s=PERIOD_S)
    found = oracle(
        case.requests,
        case.deployment,
        attainment_ratio=share * played.attainment_ratio,
        replays_max=1,
    )
    assert found.bound_gpu_hours <= played.gpu_hours


@pytest.mark.parametrize("policy", ["fixed:1", "fixed:2", "fixed:3", "reactive", "predictive"])
def test_no_policy_is_cheaper_at_its_own_attainment(policy: str) -> None:
    scenario = _scenario(CROWD, policy)
    score = simulate(scenario).score
    deployment = dataclasses.replace(
        CROWD.deployment, replicas_first=scenario.policy.replicas_fixed or 1
    )
    found = oracle(
        CROWD.requests,
        deployment,
        attainment_ratio=score.slo_attainment_ratio,
        replays_max=REPLAYS,
    )
    assert found.reached
    assert found.gpu_hours <= score.gpu_hours + 1e-9
    assert found.bound_gpu_hours <= score.gpu_hours


@pytest.fixture(scope="module")
def crowd() -> OracleResult:
    return oracle(CROWD.requests, CROWD.deployment, replays_max=REPLAYS)


def test_a_run_under_the_schedule_is_the_replay(crowd: OracleResult) -> None:
    score = simulate(oracle_scenario(_scenario(CROWD, "predictive"), crowd.schedule)).score
    assert score.slo_attainment_ratio == pytest.approx(crowd.slo_attainment_ratio, abs=1e-12)
    assert score.gpu_hours == pytest.approx(crowd.gpu_hours, rel=1e-12)


def test_replicas_are_warm_before_a_crowd_comes(crowd: OracleResult) -> None:
    """The crowd of 3 requests/s comes at 120 s, and a start takes 30 s."""
    count_at = 1
    for at_s, count in crowd.schedule:
        if at_s <= 120.0 - 30.0 + 15.0:  # one cell of the grid may be given up
            count_at = count
    assert count_at > 1


def test_equal_arguments_give_an_equal_result_that_can_be_pickled(crowd: OracleResult) -> None:
    again = oracle(CROWD.requests, CROWD.deployment, replays_max=REPLAYS)
    assert pickle.loads(pickle.dumps(again)) == crowd  # noqa: S301 - our own bytes


def test_less_attainment_never_raises_the_bound_and_costs_no_more() -> None:
    shares = (0.95, 0.8, 0.5)
    found = [
        oracle(CROWD.requests, CROWD.deployment, attainment_ratio=0.9 * share, replays_max=REPLAYS)
        for share in shares
    ]
    bounds = [each.bound_gpu_hours for each in found]
    assert bounds == sorted(bounds, reverse=True)
    hours = [each.gpu_hours for each in found]
    assert hours == sorted(hours, reverse=True)


def test_out_of_reach_it_says_so_and_attains_what_it_can() -> None:
    """Eight requests a second are more than three replicas of some two a second each serve."""
    case = Case(rates_per_s=(8.0, 8.0), seed=1)
    found = oracle(case.requests, case.deployment, attainment_ratio=0.99, replays_max=60)
    assert not found.reached
    assert 0.0 < found.slo_attainment_ratio < 0.99
    highest = replay(
        case.requests, case.deployment, [(0.0, HIGHEST)], block_s=PERIOD_S
    ).attainment_ratio
    assert found.slo_attainment_ratio >= highest - 0.02


def test_what_cannot_be_asked_for() -> None:
    nothing = CROWD.requests.pick(slice(0, 0))
    with pytest.raises(ScenarioError, match="no request"):
        oracle(nothing, CROWD.deployment)
    with pytest.raises(ScenarioError, match=r"attainment = 1\.5"):
        oracle(CROWD.requests, CROWD.deployment, attainment_ratio=1.5)


def test_a_replay_counts_each_request_and_all_replica_time_once() -> None:
    """Two replicas from 0 s; no start-up for the first, 30 s for the other, both to the end."""
    requests = CROWD.requests
    played = replay(requests, CROWD.deployment, [(0.0, 2)], block_s=PERIOD_S)
    assert played.requests == len(requests)
    assert 0.0 < played.misses.sum() < len(requests)
    end_s = played.replica_s.sum() / 2.0
    assert end_s >= requests.arrival_s[-1]
    assert np.all(played.replica_s[:-1] == 2.0 * PERIOD_S)
    assert played.gpu_hours == pytest.approx(
        MODEL.gpus_per_replica * played.replica_s.sum() / 3600.0
    )
    assert played.ready[0] == 2.0
