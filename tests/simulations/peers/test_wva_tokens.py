"""WVA's token analyser, reckoned by hand."""

import dataclasses

import pytest

from simulations.peers.wva_tokens import (
    ReplicaLoad,
    Supply,
    TokenAnalyser,
    TokenLimits,
    derived_bound,
    limits_at,
    token_count,
)
from tests.simulations.small_fleet import model

LIMITS = TokenLimits()
MODEL = model(kv_blocks=6251, max_num_seqs=64, max_num_batched_tokens=2048)  # 100000 tokens


def _load(kv: float, waiting: float = 0.0, output: float = 200.0) -> ReplicaLoad:
    return ReplicaLoad(kv_ratio=kv, waiting=waiting, prompt_tokens=1000.0, output_tokens=output)


@pytest.mark.parametrize(
    ("prompt", "output", "tokens"),
    [
        # min(2048 * 200 / 1200, 64) = 64 sequences of 1000 + 100
        (1000.0, 200.0, 70_400),
        # 2048 * 10 / 1010 = 20.277 of 1000 + 5
        (1000.0, 10.0, 20_378),
        (1000.0, 0.0, 0),
    ],
)
def test_the_derived_bound(prompt: float, output: float, tokens: int) -> None:
    assert derived_bound(MODEL, prompt_tokens=prompt, output_tokens=output) == tokens


@pytest.mark.parametrize(
    ("demand", "ready", "current", "count"),
    [
        # 100000 / 0.85 = 117647; two of 50000 lack 17647: one more
        (100_000.0, 2, 2, 3),
        # four are on their way: 200000 are enough, and 2 * 50000 - 142857 is no spare
        (100_000.0, 2, 4, 4),
        # 5 * 50000 - 70000 / 0.7 = 150000 spare: three fewer
        (70_000.0, 5, 5, 2),
        (0.0, 3, 3, 1),
        # 85000 / 0.85 = 100000 is what two have; 100000 - 121428 is no spare
        (85_000.0, 2, 2, 2),
    ],
)
def test_the_count(demand: float, ready: int, current: int, count: int) -> None:
    supply = Supply(demand=demand, capacity=50_000.0)
    assert token_count(supply, LIMITS, ready=ready, current=current) == count


def test_without_a_capacity_nothing_moves() -> None:
    nothing = Supply(demand=1.0, capacity=0.0)
    assert token_count(nothing, LIMITS, ready=3, current=3) == 3


def test_demand_is_what_is_in_use_and_what_waits() -> None:
    analyser = TokenAnalyser(MODEL, LIMITS)
    supply = analyser.supply([_load(0.3), _load(0.5, waiting=2.0)])
    # 30000 + 50000 + 2 * 1000; both derive min(80000, 70400)
    assert supply == Supply(demand=82_000.0, capacity=70_400.0)


def test_the_compute_bound_is_seen_remembered_and_kept_by_output_length() -> None:
    analyser = TokenAnalyser(MODEL, LIMITS)
    assert analyser.supply([_load(0.4, waiting=5.0)]).capacity == 40_000.0
    assert analyser.supply([_load(0.6, waiting=9.0)]).capacity == 60_000.0
    assert analyser.supply([_load(0.1)]).capacity == 50_000.0, "the mean of both"
    assert analyser.supply([_load(0.1, output=50.0)]).capacity == derived_bound(
        MODEL, prompt_tokens=1000.0, output_tokens=50.0
    ), "other lengths have a history of their own"
    for _ in range(10):
        analyser.supply([_load(0.2, waiting=5.0)])
    assert analyser.supply([_load(0.1)]).capacity == 20_000.0, "ten are remembered"


def test_the_memory_bound_holds_and_the_fleet_takes_the_median() -> None:
    analyser = TokenAnalyser(MODEL, LIMITS)
    loads = [_load(0.95, waiting=5.0), _load(0.4, waiting=5.0), _load(0.2, waiting=5.0)]
    assert analyser.supply(loads).capacity == 40_000.0  # of 80000, 40000, 20000
    # 80000, 40000, and for the last two (95000 + 40000 + 20000) / 3 = 51666, then 30000 observed
    even = [*loads[:2], _load(0.1), _load(0.3, waiting=5.0)]
    bounds = sorted([80_000, 40_000, (95 + 40 + 20 + 95 + 40) * 200, 30_000])
    assert analyser.supply(even).capacity == (bounds[1] + bounds[2]) // 2


def test_a_known_bound_replaces_the_observed_one() -> None:
    analyser = TokenAnalyser(MODEL, LIMITS, bound_tokens=55_000.9)
    assert analyser.supply([_load(0.1, waiting=9.0)]).capacity == 55_000.0
    small = dataclasses.replace(MODEL, kv_blocks=626)  # 10000 tokens
    known = TokenAnalyser(small, LIMITS, bound_tokens=55_000.9)
    assert known.supply([_load(0.1)]).capacity == 8_000.0


def test_the_knob_keeps_the_proportion() -> None:
    assert limits_at(0.85) == LIMITS
    assert limits_at(0.425).down_ratio == pytest.approx(0.35)
