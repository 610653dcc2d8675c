"""Dynamo's planner: both loops reckoned by hand on a replica with round numbers."""

import math

import numpy as np
import pytest

from scaler.core.model import Replicas
from simulations.controller import View
from simulations.engine_layout import COUNTERS, TTFT_BOUNDS_S
from simulations.fleet_counters import FleetCounters
from simulations.peers.dynamo import (
    EngineLoad,
    Floor,
    LatencyModel,
    Objective,
    PlannerLaw,
    easy_count,
    sla_count,
)
from simulations.peers.traffic import Traffic
from simulations.profile_capacity import Capacity, Profile
from simulations.replica import ReplicaModel, StepTime

STEP = StepTime(
    overhead_s=0.0,
    decode_base_s=0.02,
    decode_per_seq_s=0.0,
    decode_per_kv_token_s=1e-6,
    mixed_base_s=0.02,
    mixed_per_seq_s=0.0,
    mixed_per_kv_token_s=1e-6,
    prefill_per_token_s=1e-4,
    prefill_attention_s=0.0,
)
MODEL = ReplicaModel(name="round", step=STEP, kv_blocks=6251, max_num_batched_tokens=2000)
LATENCY = LatencyModel(model=MODEL, prompt_tokens=1000.0, context_tokens=1100.0)
TTFT_2_S = Objective(ttft_s=2.0, itl_s=math.inf)


def _load(kv: float = 0.0, queued: float = 0.0) -> EngineLoad:
    return EngineLoad(decode_kv_tokens=kv, queued_prompt_tokens=queued)


def _profile() -> Profile:
    return Profile(
        prompt_tokens_mean=1000.0,
        output_tokens_mean=200.0,
        capacities=(
            Capacity(replicas=1, requests_per_s=4.0, kv_tokens_mean=0.0),
            Capacity(replicas=4, requests_per_s=20.0, kv_tokens_mean=0.0),
        ),
        prefill_tokens_per_s=10_000.0,
        decode_tokens_per_s=2_000.0,
        velocity_tokens_per_s=0.0,
        ttft_alone_s=0.0,
    )


def test_a_new_prompt_waits_for_the_steps_of_those_before_it() -> None:
    # 7000 queued and 1000 own: 4 steps of (0.02 + 0.05) s, 8000 * 1e-4 s
    assert LATENCY.ttft_s(_load(kv=50_000.0, queued=7000.0)) == pytest.approx(0.28 + 0.8)
    assert LATENCY.itl_s(_load(kv=50_000.0)) == pytest.approx(0.07)


def test_one_up_only_if_every_engine_is_late() -> None:
    late, early = _load(queued=20_000.0), _load()  # 11 * 0.02 + 2.1 s; 0.02 + 0.1 s
    assert sla_count([late, late], LATENCY, TTFT_2_S, replicas=2) == 3
    assert sla_count([late, early], LATENCY, TTFT_2_S, replicas=2) == 2


def test_either_objective_alone_asks_for_one_more() -> None:
    busy = _load(kv=90_000.0)  # 0.02 + 0.09 s a token
    assert sla_count([busy], LATENCY, Objective(ttft_s=2.0, itl_s=0.1), replicas=1) == 2
    assert sla_count([busy], LATENCY, Objective(ttft_s=2.0, itl_s=0.12), replicas=1) == 1


@pytest.mark.parametrize(
    ("queued", "count"),
    [
        # Own prefill 0.12 s leaves a budget of 0.8 * 1.88 = 1.504 s.  With 2 / 1 of the queue:
        (6000.0, 1),  # 12000: 7 steps in all, 6 * 0.02 + 1.2 = 1.32 s more
        (7000.0, 2),  # 14000: 8 steps, 7 * 0.02 + 1.4 = 1.54 s more
    ],
)
def test_a_step_down_leaves_room_for_the_queue(queued: float, count: int) -> None:
    loads = [_load(queued=queued), _load()]
    assert sla_count(loads, LATENCY, TTFT_2_S, replicas=2) == count


@pytest.mark.parametrize(("kv", "count"), [(66_000.0, 2), (67_000.0, 3)])
def test_a_step_down_leaves_the_cache_whole(kv: float, count: int) -> None:
    # 6250 blocks of 16 are 100000 tokens; 66000 * 3 / 2 = 99000, 67000 * 3 / 2 = 100500
    assert sla_count([_load(kv=kv)] * 3, LATENCY, TTFT_2_S, replicas=3) == count


@pytest.mark.parametrize(("kv", "count"), [(30_000.0, 1), (31_000.0, 2)])
def test_a_step_down_leaves_the_itl_at_four_fifths(kv: float, count: int) -> None:
    # 0.02 + 2 * 0.030 = 0.080 is below 0.8 * 0.101 = 0.0808, 0.02 + 2 * 0.031 = 0.082 is not
    objective = Objective(ttft_s=2.0, itl_s=0.101)
    assert sla_count([_load(kv=kv)] * 2, LATENCY, objective, replicas=2) == count


def test_the_last_engine_stays() -> None:
    assert sla_count([_load()], LATENCY, TTFT_2_S, replicas=1) == 1
    assert easy_count([_load()], kv_capacity_tokens=1000, replicas=1) == 1


@pytest.mark.parametrize(
    ("uses", "count"),
    [((0.5, 1.01), 3), ((0.5, 1.0), 2), ((0.5, 0.59), 1), ((0.5, 0.6), 2)],
)
def test_the_easy_mode_looks_at_the_cache_alone(uses: tuple[float, float], count: int) -> None:
    loads = [_load(kv=600.0 * use, queued=400.0 * use) for use in uses]
    assert easy_count(loads, kv_capacity_tokens=1000, replicas=2) == count


def _traffic(requests: float, *, prompt: float = 1000.0, output: float = 200.0) -> Traffic:
    return Traffic(
        arrived=requests,
        first_tokens=requests,
        prompt_tokens=requests * prompt,
        output_tokens=requests * output,
    )


def test_the_floor_is_the_predicted_rate_over_what_an_engine_carries() -> None:
    # One of four carries 20 / 4 = 5 / s; 5400 in 180 s are 30 / s, so 6; 5401 ask for a seventh.
    floor = Floor(_profile(), predictor="constant", load_ratio=1.0)
    assert floor.after(_traffic(5400.0)) == 6
    assert floor.after(_traffic(5401.0)) == 7
    assert Floor(_profile(), predictor="constant", load_ratio=0.5).after(_traffic(5400.0)) == 12
    assert floor.after(_traffic(0.0)) == 1


def test_longer_requests_count_for_more() -> None:
    # Work of 1000 / 10000 + 200 / 2000 = 0.2; of 2000 / 10000 + 200 / 2000 = 0.3 half as much again
    floor = Floor(_profile(), predictor="constant", load_ratio=1.0)
    assert floor.after(_traffic(5400.0, prompt=2000.0)) == 9


def _view(now_s: float, *, wanted: int, ready: int) -> View:
    """Idle engines."""
    buckets = np.zeros((ready, len(TTFT_BOUNDS_S) + 1), dtype=np.int64)
    counters = FleetCounters(
        at_s=now_s,
        uids=np.arange(ready),
        draining=np.zeros(ready, dtype=np.bool_),
        values=np.zeros(ready, dtype=COUNTERS),
        ttft_buckets=buckets,
        itl_buckets=buckets,
        e2e_buckets=buckets,
        queue_buckets=buckets,
        iteration_buckets=buckets,
        kv_blocks_usable=6250,
        gateway_waiting=0,
        gateway_rejections=0,
    )
    return View(
        now_s=now_s,
        acted_at_s=0.0,
        wanted=wanted,
        current=wanted,
        status=lambda since_s: Replicas(
            seen_at_s=now_s, wanted=wanted, current=wanted, ready=ready
        ),
        ready=range(ready),
        scrape=None,
        gpu_ratio=None,
        live=lambda: counters,
    )


def test_the_floor_holds_until_an_interval_has_been_seen_and_nothing_moves_meanwhile() -> None:
    floor = Floor(_profile(), predictor="constant", load_ratio=1.0)
    law = PlannerLaw(LATENCY, TTFT_2_S, floor=floor)
    assert law.desired(_view(0.0, wanted=3, ready=3)) == 3, "what is ready is the first floor"
    assert law.desired(_view(175.0, wanted=3, ready=3)) == 3
    assert law.desired(_view(180.0, wanted=4, ready=3)) is None, "one starts"
    assert law.desired(_view(185.0, wanted=3, ready=3)) == 2, "no load: a floor of 1, one a step"
    assert law.desired(_view(190.0, wanted=2, ready=3)) is None, "one ends"


def test_without_a_floor_the_cache_alone_decides() -> None:
    law = PlannerLaw(LATENCY, TTFT_2_S, floor=None)
    assert law.desired(_view(0.0, wanted=3, ready=3)) == 2
