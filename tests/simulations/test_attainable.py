"""What is attainable is what the kernel does with one warm replica for each request."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.attainable import Objectives, alone, attainable, attainable_flags, good_outcomes
from simulations.cluster import Fleet
from simulations.engine_layout import Records
from simulations.replica import PrefixCache, ReplicaModel, Routing, StepTime
from simulations.request_ring import RequestStatus
from simulations.trace_chunks import Requests
from tests.simulations.small_fleet import model as steady_model


def _requests(prompts: list[int], outputs: list[int]) -> Requests:
    count = len(prompts)
    return Requests(
        arrival_s=np.arange(count, dtype=np.float64) * 0.25,
        prompt_tokens=np.array(prompts, dtype=np.int32),
        output_tokens=np.array(outputs, dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )


def _each_alone(requests: Requests, model: ReplicaModel) -> Records:
    """Outcomes with a replica for each request; round robin gives none a second one."""
    fleet = Fleet(model=model, seed=1, routing=Routing.ROUND_ROBIN, max_slots=16)
    fleet.start_warm(len(requests))
    fleet.load(
        arrival_at_s=requests.arrival_s,
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
    )
    fleet.advance(1e6)
    return fleet.take_outcomes()


MODEL = steady_model(
    step=StepTime(
        overhead_s=0.001,
        decode_base_s=0.02,
        decode_per_seq_s=0.003,
        decode_per_kv_token_s=1e-5,
        mixed_base_s=0.03,
        mixed_per_seq_s=0.005,
        mixed_per_kv_token_s=2e-5,
        prefill_per_token_s=1e-3,
        prefill_attention_s=1e-6,
    ),
    max_num_batched_tokens=64,
    max_model_len=500,
    kv_blocks=40,
)
LENGTHS = st.lists(st.tuples(st.integers(1, 520), st.integers(1, 120)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    lengths=LENGTHS,
    hit_ratio=st.sampled_from([0.0, 0.3, 0.77, 1.0]),
    per_session=st.booleans(),
    reserve=st.booleans(),
)
def test_latencies_alone_are_those_of_the_kernel(
    lengths: list[tuple[int, int]], hit_ratio: float, per_session: bool, reserve: bool
) -> None:
    model = dataclasses.replace(
        MODEL,
        prefix_cache=PrefixCache(hit_ratio=hit_ratio, per_session=per_session),
        scheduler_reserve_full_isl=reserve or per_session,
    )
    requests = _requests([p for p, _ in lengths], [o for _, o in lengths])
    seen = _each_alone(requests, model)
    assert len(set(seen["replica_uid"])) == len(requests)
    times = alone(requests, model)
    completed = seen["status"] == RequestStatus.COMPLETED
    assert completed.tolist() == times.served.tolist()
    ttft_s = (seen["first_token_at_s"] - seen["arrival_at_s"])[completed]
    np.testing.assert_allclose(times.ttft_s[completed], ttft_s, rtol=1e-9)
    gaps = np.maximum(seen["output_tokens"] - 1, 1)
    tpot_s = ((seen["finished_at_s"] - seen["first_token_at_s"]) / gaps)[completed]
    np.testing.assert_allclose(times.tpot_s[completed], tpot_s, rtol=1e-9, atol=1e-12)
    for objectives in (Objectives(ttft_s=0.21), Objectives(ttft_s=0.5, tpot_s=0.0261)):
        near = np.isclose(times.ttft_s, objectives.ttft_s) | np.isclose(
            times.tpot_s, objectives.tpot_s
        )
        flags = attainable_flags(requests, model, objectives)
        assert (flags | near).tolist() == (good_outcomes(seen, objectives) | near).tolist()


def test_the_share_by_hand() -> None:
    """Every step takes 0.1 s and 64 prompt tokens: 64 need one, 65 two, 600 ten and are too long.

    A TTFT of 0.15 s is met by one step only; the decode steps take 0.1 s each.
    """
    model = steady_model(max_num_batched_tokens=64, max_model_len=620)
    requests = _requests([64, 65, 600, 10], [10, 10, 100, 1])
    assert attainable(requests, model, Objectives(ttft_s=0.15)) == 0.5
    assert attainable(requests, model, Objectives(ttft_s=0.25)) == 0.75
    # Only the request of a single token has no time per output token above 0.09 s.
    assert attainable(requests, model, Objectives(ttft_s=0.15, tpot_s=0.09)) == 0.25
    assert np.isnan(attainable(requests.pick(slice(0, 0)), model, Objectives(ttft_s=1.0)))


def test_hits_shorten_the_prompt_by_whole_blocks() -> None:
    """Of 64 tokens 0.9 are 57, three blocks of 16 are 48, so 16 tokens of 1 ms each are left."""
    step = dataclasses.replace(MODEL.step, mixed_base_s=0.0, overhead_s=1e-6, prefill_attention_s=0)
    model = dataclasses.replace(
        MODEL, step=step, prefix_cache=PrefixCache(hit_ratio=0.9), max_num_batched_tokens=2048
    )
    assert alone(_requests([64], [1]), model).ttft_s[0] == pytest.approx(0.016, abs=1e-5)
