"""The compiled kernel agrees with the step-by-step reference, request by request."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.cluster import Fleet
from simulations.engine_layout import Records
from simulations.lifecycle import Phase, ReplicaView
from simulations.replica import (
    PrefixCache,
    ReplicaModel,
    Routing,
    StartUp,
    StepTime,
    constant,
)
from simulations.request_ring import RequestStatus
from simulations.streams import word
from tests.simulations.reference_engine import ReferenceFleet, Request

# All times are multiples of powers of two, so that sums of steps and the closed form are both exact
# and even a tie (an arrival at the very end of a step) must come out alike.
TICK_S = 2.0**-8


@dataclass(frozen=True, kw_only=True)
class Case:
    """A small scenario."""

    model: ReplicaModel
    routing: Routing
    gateway_rejects: bool
    warm: int
    start_up_s: float
    requests: tuple[tuple[float, int, int, int], ...]
    resizes: tuple[tuple[float, int], ...]
    looks_at_s: tuple[float, ...]


def part(low: int, high: int, scale: float) -> st.SearchStrategy[float]:
    """A multiple of ``scale``; zero half of the time, so that steps often end on a tick."""
    return st.one_of(st.just(low), st.integers(low, high)).map(lambda n: n * scale)


step_times = st.builds(
    StepTime,
    overhead_s=part(0, 2, TICK_S / 4),
    decode_base_s=part(1, 8, TICK_S),
    decode_per_seq_s=part(0, 4, TICK_S / 16),
    decode_per_kv_token_s=part(0, 4, TICK_S / 256),
    mixed_base_s=part(1, 8, TICK_S),
    mixed_per_seq_s=part(0, 4, TICK_S / 16),
    mixed_per_kv_token_s=part(0, 4, TICK_S / 256),
    prefill_per_token_s=part(0, 8, TICK_S / 64),
    prefill_attention_s=part(0, 4, TICK_S / 4096),
)

prefix_caches = st.sampled_from(
    [
        PrefixCache(),
        PrefixCache(),
        PrefixCache(hit_ratio=0.5),
        PrefixCache(hit_ratio=1.0),
        PrefixCache(hit_ratio=0.75, per_session=True),
    ]
)


@st.composite
def models(draw: st.DrawFn) -> ReplicaModel:
    seqs = draw(st.integers(1, 8))
    cache = draw(prefix_caches)
    return ReplicaModel(
        name="small",
        step=draw(step_times),
        kv_blocks=draw(st.integers(4, 32)),
        block_size=draw(st.sampled_from([1, 2, 4, 8])),
        max_num_seqs=seqs,
        max_num_batched_tokens=draw(st.integers(seqs, 24)),
        max_num_queued_reqs=draw(st.sampled_from([0, 0, 0, 0, 4, 10])),
        scheduler_reserve_full_isl=cache.per_session or draw(st.booleans()),
        watermark_ratio=draw(st.sampled_from([0.0, 0.2])),
        prefix_cache=cache,
        drain_grace_s=draw(st.sampled_from([0.25, 2.0, 100.0])),
    )


def draw_requests(
    seed: int, model: ReplicaModel, gap_ticks: int
) -> list[tuple[float, int, int, int]]:
    """Enough requests to queue, fill the cache and preempt; one in a hundred is too long."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 60))
    capacity = model.kv_capacity_tokens
    at_s = np.cumsum(random.integers(0, gap_ticks + 1, count)) * TICK_S
    prompt = random.integers(1, max(2, int(capacity * random.uniform(0.1, 1.0))), count)
    output = random.integers(1, np.maximum(2, capacity - prompt + 2), count)
    output = np.where(random.random(count) < 0.01, capacity, np.minimum(output, 40))
    session = random.integers(0, 4, count)
    columns = (at_s.tolist(), prompt.tolist(), output.tolist(), session.tolist())
    return list(zip(*columns, strict=True))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    model = draw(models())
    gap_ticks = draw(st.sampled_from([0, 1, 4, 16, 64]))
    requests = draw_requests(draw(st.integers(0, 2**32)), model, gap_ticks)
    end_ticks = int(requests[-1][0] / TICK_S) + 400
    # Off the grid of arrivals and steps: what happens at one instant is not what these are for.
    times = st.integers(0, end_ticks).map(lambda n: n * TICK_S + 2.0**-30)
    return Case(
        model=model,
        routing=draw(
            st.sampled_from(
                [Routing.RANDOM, Routing.ROUND_ROBIN, Routing.LEAST_REQUESTS, Routing.SESSION]
            )
        ),
        gateway_rejects=draw(st.booleans()),
        warm=draw(st.integers(0, 3)),
        start_up_s=draw(st.integers(1, 200)) * TICK_S + 2.0**-31,
        requests=tuple(requests),
        resizes=tuple(sorted(draw(st.lists(st.tuples(times, st.integers(0, 4)), max_size=4)))),
        looks_at_s=tuple(sorted(draw(st.lists(times, max_size=8)))),
    )


def youngest(replicas: Sequence[ReplicaView], count: int, _now_s: float) -> list[int]:
    """Starting before ready, the newest first in each: simple enough for the reference."""
    ranked = sorted(replicas, key=lambda r: (r.phase == Phase.READY, -r.created_at_s, -r.uid))
    return [r.uid for r in ranked[:count]]


def play_fast(case: Case, until_s: float) -> tuple[Fleet, Records]:
    model = ReplicaModel(
        **{
            **{f: getattr(case.model, f) for f in ReplicaModel.__dataclass_fields__},
            "start_up": StartUp(
                scheduling=constant(0.0),
                image=constant(0.0),
                weights=constant(case.start_up_s),
                compile=constant(0.0),
            ),
        }
    )
    fleet = Fleet(
        model=model,
        seed=3,
        routing=case.routing,
        max_slots=2,
        gateway_rejects=case.gateway_rejects,
    )
    fleet.start_warm(case.warm)
    at_s, prompt, output, session = zip(*case.requests, strict=True)
    fleet.load(arrival_at_s=at_s, prompt_tokens=prompt, output_tokens=output, session=session)
    stops = [(at_s, None) for at_s in case.looks_at_s] + list(case.resizes) + [(until_s, None)]
    for stop_s, count in sorted(stops, key=lambda stop: stop[0]):
        fleet.advance(stop_s)
        if count is not None:
            fleet.set_replicas(count, now_s=stop_s, victims=youngest)
    return fleet, fleet.all_outcomes()


def play_slow(case: Case, until_s: float) -> tuple[ReferenceFleet, list[Request]]:
    fleet = ReferenceFleet(
        model=case.model,
        routing=case.routing,
        seed_word=word(3, "routing"),
        start_up_s=case.start_up_s,
        gateway_rejects=case.gateway_rejects,
    )
    fleet.start_warm(case.warm)
    requests = [
        Request(index=i, arrival_at_s=a, prompt=p, output=o, session=s)
        for i, (a, p, o, s) in enumerate(case.requests)
    ]
    fleet.run(requests, list(case.resizes), until_s)
    return fleet, requests


def assert_same_requests(fast: Records, slow: list[Request]) -> None:
    for row, request in zip(fast, slow, strict=True):
        assert RequestStatus(row["status"]).name.lower() == request.status
        assert row["preemptions"] == request.preemptions
        assert row["cached_tokens"] == request.cached
        assert row["replica_uid"] == request.replica_uid
        for name in ("routed_at_s", "scheduled_at_s", "first_token_at_s"):
            np.testing.assert_allclose(row[name], getattr(request, name), rtol=1e-12)
        if request.status != "pending":
            assert row["generated_tokens"] == request.generated
            np.testing.assert_allclose(row["finished_at_s"], request.finished_at_s, rtol=1e-12)


def assert_same_counters(fleet: Fleet, reference: ReferenceFleet) -> None:
    seen = fleet.counters()
    serving = {r.uid: r for r in reference.replicas if r.state != "starting"}
    assert sorted(seen.uids) == sorted(serving)
    for i, uid in enumerate(seen.uids):
        slow = serving[int(uid)]
        values = seen.values[i]
        running, waiting, blocks = slow.gauges
        assert values["requests_running"] == running
        # Where admission is blocked the kernel counts those that came during the step as well.
        highest = max(slow.ended_waiting, len(slow.waiting))
        assert waiting <= values["requests_waiting"] <= highest
        assert values["blocks_used"] == blocks
        assert values["iterations"] == slow.iterations
        assert values["generation_tokens"] == slow.generation_tokens
        assert values["prefill_tokens_computed"] == slow.prefill_tokens
        assert values["preemptions"] == slow.preemptions
        assert values["finished_stop"] == slow.finished
        assert values["admission_rejections"] == slow.rejections
        assert values["prompt_tokens"] == slow.prompt_tokens
        assert values["iteration_tokens_sum"] == slow.prompt_tokens + slow.generation_tokens
        assert list(seen.iteration_buckets[i]) == slow.iteration_buckets
        assert list(seen.itl_buckets[i]) == slow.itl_buckets
        assert list(seen.ttft_buckets[i]) == slow.ttft_buckets


@given(cases())
@settings(max_examples=400, deadline=None)
def test_every_request_ends_as_in_the_reference(case: Case) -> None:
    fleet, fast = play_fast(case, 1e6)
    reference, slow = play_slow(case, 1e6)
    assert_same_requests(fast, slow)
    assert_same_counters(fleet, reference)


@given(cases(), st.integers(0, 2000))
@settings(max_examples=200, deadline=None)
def test_in_the_middle_everything_seen_agrees_with_the_reference(case: Case, ticks: int) -> None:
    until_s = ticks * TICK_S + 2.0**-29
    looks = tuple(at_s for at_s in case.looks_at_s if at_s < until_s)
    resizes = tuple((at_s, count) for at_s, count in case.resizes if at_s < until_s)
    partial = Case(**{**case.__dict__, "looks_at_s": looks, "resizes": resizes})
    fleet, fast = play_fast(partial, until_s)
    reference, slow = play_slow(partial, until_s)
    assert_same_requests(fast, slow)
    assert_same_counters(fleet, reference)
