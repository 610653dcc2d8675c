"""The bound by hand, and what each of its terms adds."""

import dataclasses

import numpy as np
import pytest

from simulations.attainable import Objectives
from simulations.lifecycle import ordinal_choice
from simulations.oracle_bound import bound_gpu_hours, shortest_start_s
from simulations.oracle_replay import Deployment, replay
from simulations.oracle_work import BaseShare, least_work
from simulations.replica import (
    Distribution,
    DistributionKind,
    PrefixCache,
    StartUp,
    StepTime,
    constant,
    lognormal,
)
from simulations.trace_chunks import Requests
from tests.simulations.oracle_cases import MODEL

# A decode step of S sequences takes 0.8 + 0.1 * S, a prompt token 1 ms; 8 sequences at most.
STEP = StepTime(
    overhead_s=0.2,
    decode_base_s=0.6,
    decode_per_seq_s=0.1,
    decode_per_kv_token_s=0.0,
    mixed_base_s=0.6,
    mixed_per_seq_s=0.1,
    mixed_per_kv_token_s=0.0,
    prefill_per_token_s=1e-3,
    prefill_attention_s=0.0,
)
NOTHING = constant(0.0)
ANY_START = StartUp(scheduling=NOTHING, weights=lognormal(10.0, 20.0), compile=NOTHING)
BY_HAND = dataclasses.replace(MODEL, step=STEP, start_up=ANY_START)


def _alike(arrival_s: list[float], prompt: int = 1000, output: int = 11) -> Requests:
    count = len(arrival_s)
    return Requests(
        arrival_s=np.array(arrival_s, dtype=np.float64),
        prompt_tokens=np.full(count, prompt, dtype=np.int32),
        output_tokens=np.full(count, output, dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )


def _deployment(**changes: object) -> Deployment:
    settings: dict[str, object] = {"model": BY_HAND, "objectives": Objectives(ttft_s=5.0)}
    return Deployment(**{**settings, **changes})  # type: ignore[arg-type]


def test_work_by_hand() -> None:
    """Prefill 1000 * 1 ms + 0.8 / 8 in its one step; 10 decodes of 0.1 + 0.8 / 8 each."""
    work = least_work(_alike([0.0]), BY_HAND, BaseShare())
    assert work.prefill_s[0] == pytest.approx(1.1)
    assert work.decode_s[0] == pytest.approx(2.0)
    # By tokens of 2048: the prompt has 1000 / 2048 of a base, each decode 1 / 2048 of one.
    shared = least_work(_alike([0.0]), BY_HAND, BaseShare(seqs=0.0, tokens=1.0))
    assert shared.prefill_s[0] == pytest.approx(1.0 + 0.8 * 1000 / 2048)
    assert shared.decode_s[0] == pytest.approx(10 * (0.1 + 0.8 / 2048))


def test_cached_prompt_tokens_cost_nothing() -> None:
    """0.5 of 1000 tokens are 500, in blocks of 16 they are 496."""
    model = dataclasses.replace(BY_HAND, prefix_cache=PrefixCache(hit_ratio=0.5))
    work = least_work(_alike([0.0]), model, BaseShare())
    assert work.prefill_s[0] == pytest.approx(0.504 + 0.1)


def test_tokens_that_a_recomputation_makes_cheaper_are_charged_as_such() -> None:
    """A prompt of 1: recomputing 2 tokens takes 2 ms beside the base, a decode 100 ms.

    The g-th token costs at least min(100, 1 + g) ms: 98 and 97 ms are taken off the first two of
    two decodes; the bound takes off 98 ms twice, which is not less.
    """
    work = least_work(_alike([0.0], prompt=1, output=3), BY_HAND, BaseShare())
    assert work.decode_s[0] == pytest.approx(2 * (0.1 + 0.1) - 2 * 0.098)


def test_the_cheapest_requests_count_and_never_less_than_the_minimum() -> None:
    """100 requests within 99 s of 3.1 s each; 90 of them are 279 s, two replicas at least 198 s."""
    requests = _alike([float(at_s) for at_s in range(100)])
    hours = bound_gpu_hours(requests, _deployment(), good_min=90)
    assert hours == pytest.approx(2 * 279.0 / 3600.0, rel=1e-3)  # two GPUs a replica
    few = bound_gpu_hours(requests, _deployment(replicas_min=2, replicas_first=2), good_min=10)
    assert few == pytest.approx(2 * 198.0 / 3600.0)
    other = _deployment(replicas_min=2, replicas_first=2, victims=ordinal_choice)
    assert bound_gpu_hours(requests, other, good_min=10) < few


def test_what_can_never_be_good_costs_nothing() -> None:
    requests = _alike([0.0, 1.0])
    none = _deployment(objectives=Objectives(ttft_s=0.5), replicas_min=0)
    assert bound_gpu_hours(requests, none, good_min=0) == 0.0


def test_a_peak_between_lulls_pays_for_its_starts() -> None:
    """A crowd of 900 requests in ten minutes after a lull of thirty, one warm replica.

    The lull takes one replica 1800 s, the crowd is 2790 s of work. The fleet must hold more than
    one replica on average then, and each of those pays 200 s; with lognormal starts, which may be
    of any length, nothing is added.
    """
    arrivals = [*np.linspace(0.0, 1800.0, 20), *np.linspace(1801.0, 2399.0, 900)]
    requests = _alike([float(at_s) for at_s in arrivals])
    start_up = StartUp(scheduling=NOTHING, weights=constant(200.0), compile=NOTHING)
    slow = dataclasses.replace(BY_HAND, start_up=start_up)
    plain = bound_gpu_hours(requests, _deployment(), good_min=920)
    paid = bound_gpu_hours(requests, _deployment(model=slow), good_min=920)
    assert plain == pytest.approx(2 * (1800.0 + 900 * 3.1) / 3600.0, rel=0.01)
    # 2790 s in 599 s are 4.6 replicas, 3.6 of them new: up to 2 * 3.6 * 200 / 3600 = 0.4.
    assert plain + 0.1 < paid < plain + 0.45


def test_replicas_that_are_warm_at_the_beginning_pay_no_start() -> None:
    """A crowd at once: 2790 s of work in 599 s are 4.6 replicas; eight are there, or one is."""
    requests = _alike([float(at_s) for at_s in np.linspace(0.0, 599.0, 900)])
    start_up = StartUp(scheduling=NOTHING, weights=constant(200.0), compile=NOTHING)
    slow = dataclasses.replace(BY_HAND, start_up=start_up)
    warm = bound_gpu_hours(requests, _deployment(model=slow, replicas_first=8), good_min=900)
    cold = bound_gpu_hours(requests, _deployment(model=slow), good_min=900)
    assert warm == pytest.approx(2 * 900 * 3.1 / 3600.0, rel=0.01)
    assert cold > warm + 0.1


def test_a_real_schedule_of_the_peak_is_above_its_bound() -> None:
    arrivals = np.linspace(0.0, 900.0, 500)
    requests = _alike([float(at_s) for at_s in arrivals])
    deployment = _deployment(model=dataclasses.replace(BY_HAND, start_up=StartUp()))
    played = replay(requests, deployment, [(0.0, 4)], block_s=60.0)
    good = round(played.attainment_ratio * len(requests))
    assert good > 100
    assert bound_gpu_hours(requests, deployment, good_min=good) <= played.gpu_hours


def test_the_shortest_start_is_what_no_draw_falls_below() -> None:
    sample = Distribution(kind=DistributionKind.EMPIRICAL, values_s=(40.0, 25.0, 60.0))
    start = StartUp(
        scheduling=constant(2.0), image=constant(3.0), weights=sample, compile=lognormal(9.0, 20.0)
    )
    assert shortest_start_s(start) == 30.0
