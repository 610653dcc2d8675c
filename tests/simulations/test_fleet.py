"""Requests through a fleet: routing, admission, sessions, counters, outcomes, determinism."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from scaler.errors import ScenarioError
from simulations import engine
from simulations.cluster import Fleet
from simulations.engine import load_kernel
from simulations.engine_layout import ITL_BOUNDS_S, TTFT_BOUNDS_S, allocate, grow_ring
from simulations.replica import (
    PrefixCache,
    Routing,
)
from simulations.request_ring import RequestStatus
from tests.simulations.small_fleet import fleet, load, model, statuses


def test_requests_wait_at_the_gateway_for_the_first_replica() -> None:
    made = fleet()
    made.set_replicas(1, now_s=0.0)
    load(made, [10.0, 20.0])
    made.advance(99.0)
    assert made.counters().gateway_waiting == 2
    made.advance(200.0)
    rows = made.take_outcomes()
    assert rows["routed_at_s"].tolist() == [100.0, 100.0]
    # The first starts at once, the second with the next step.
    np.testing.assert_allclose(rows["first_token_at_s"], [100.1, 100.2])
    # The server's own TTFT counts from when it got them: 0.1 s and 0.2 s.
    assert made.counters().values["ttft_sum_s"][0] == pytest.approx(0.3)


def test_a_gateway_may_reject_instead() -> None:
    made = Fleet(model=model(), seed=1, gateway_rejects=True)
    load(made, [10.0])
    made.advance(11.0)
    assert statuses(made.take_outcomes()) == [RequestStatus.REJECTED]
    assert made.counters().gateway_rejections == 1


def test_the_admission_limit_counts_running_and_waiting() -> None:
    made = fleet(warm=1, max_num_queued_reqs=10)
    load(made, [1.0] * 14)
    made.advance(1.05)
    made.advance(5.0)
    assert statuses(made.take_outcomes()).count(RequestStatus.REJECTED) == 4
    assert made.counters().values["admission_rejections"].tolist() == [4]


def test_a_request_that_never_fits_is_refused_as_too_long() -> None:
    made = fleet(warm=1, kv_blocks=5)  # 4 usable blocks of 16: 64 tokens
    load(made, [1.0], prompt=60, output=4)
    load(made, [2.0], prompt=60, output=5)
    made.advance(10.0)
    assert statuses(made.take_outcomes()) == [RequestStatus.COMPLETED, RequestStatus.TOO_LONG]


def test_counters_are_those_of_a_metrics_page() -> None:
    made = fleet(warm=1)
    load(made, [1.0, 1.0], prompt=40, output=5)
    made.advance(1.35)
    # Steps end at 1.1, 1.2, 1.3: the first request is alone in the first one.
    values = made.counters().values[0]
    assert values["requests_running"] == 2
    assert values["requests_waiting"] == 0
    assert values["iterations"] == 3
    assert values["generation_tokens"] == 3 + 2
    # As on a real page, prompt tokens and generated tokens add up to it.
    assert values["iteration_tokens_sum"] == (40 + 1) + (1 + 40 + 1) + 2
    assert values["prompt_tokens"] == 80
    assert values["blocks_used"] == 3 + 3  # 42 and 41 tokens, 16 a block
    assert values["busy_s"] == pytest.approx(0.35)
    made.advance(10.0)
    seen = made.counters()
    values = seen.values[0]
    assert (values["finished_stop"], values["generation_tokens"]) == (2, 10)
    assert values["busy_s"] == pytest.approx(0.6)  # the second ends at 1.6
    assert values["blocks_used"] == 0
    assert values["e2e_sum_s"] == pytest.approx(0.5 + 0.6)
    # TTFT 0.1 (a rounding error above it) and 0.2; ITL eight times 0.1, to either side.
    assert seen.ttft_buckets[0][np.searchsorted(TTFT_BOUNDS_S, 0.2)] == 2
    bucket = np.searchsorted(ITL_BOUNDS_S, 0.1)
    assert seen.itl_buckets[0][bucket : bucket + 2].sum() == 8
    assert seen.itl_buckets[0].sum() == 8


def test_a_sick_replica_is_slow() -> None:
    made = fleet(warm=2)
    made.slow_down(1, 3.0)
    load(made, [1.0, 1.0])
    made.advance(20.0)
    rows = made.take_outcomes()
    took_s = dict(zip(rows["replica_uid"], rows["finished_at_s"] - 1.0, strict=True))
    assert took_s[0] == pytest.approx(1.0)
    assert took_s[1] == pytest.approx(3.0)


def test_looking_seldom_is_looking_all_the_same() -> None:
    """Time that passes unobserved is made up for by whatever looks first."""

    def played(*, looks: bool) -> tuple[object, ...]:
        made = fleet(warm=2, drain_grace_s=50.0)
        load(made, np.arange(0.0, 400.0, 0.3).tolist(), output=12)
        seen: list[object] = []
        for at_s, count in ((60.0, 2), (100.0, 4), (205.0, 3), (206.5, 1), (300.0, 2), (600.0, 2)):
            while looks and made.now_s + 7.0 < at_s:
                made.advance(made.now_s + 7.0)
            made.pass_time(at_s)
            seen.append(made.replica_status(at_s, since_s=0.0))
            made.set_replicas(count, now_s=at_s)
            if at_s >= 206.0:
                counters = made.counters()
                seen += [counters.uids.tolist(), counters.values.tolist()]
                seen += [made.usage(), made.idle]
        return (*seen, made.take_outcomes().tobytes())

    assert played(looks=False) == played(looks=True)


def test_a_look_is_as_of_now() -> None:
    """Each way of looking, first after time has passed."""
    for look, expected in (
        (lambda made: made.counters().values["generation_tokens"].sum(), 10),
        (lambda made: len(made.take_outcomes()), 1),
        (lambda made: len(made.all_outcomes()), 1),
        (lambda made: made.idle, True),
    ):
        made = fleet(warm=1)
        load(made, [1.0])
        made.pass_time(20.0)
        assert look(made) == expected


def test_a_replica_that_has_become_busy_unobserved_is_drained() -> None:
    made = fleet(warm=2, drain_grace_s=60.0)
    load(made, [1.0, 1.0], output=300)  # one each, for 30 s
    made.pass_time(20.0)
    made.set_replicas(1, now_s=20.0)
    made.advance(100.0)
    rows = made.take_outcomes()
    assert statuses(rows) == [RequestStatus.COMPLETED] * 2
    assert set(rows["replica_uid"].tolist()) == {0, 1}


def test_the_session_hit_share_falls_when_replicas_are_added() -> None:
    cache = PrefixCache(hit_ratio=0.8, per_session=True)
    random = np.random.default_rng(0)
    sessions = random.integers(0, 50, 4000)
    shares = []
    for warm in (1, 4, 16):
        made = Fleet(
            model=model(prefix_cache=cache, kv_blocks=100_000), seed=1, routing=Routing.RANDOM
        )
        made.start_warm(warm)
        made.load(
            arrival_at_s=np.arange(4000) * 0.2,
            prompt_tokens=np.full(4000, 320),
            output_tokens=np.full(4000, 3),
            session=sessions,
        )
        made.advance(1000.0)
        values = made.counters().values
        shares.append(values["prefix_cache_hits"].sum() / values["prefix_cache_queries"].sum())
    # Every (session, replica) pair misses once: 50, 200 and 800 of 4,000 (a few pairs never occur).
    np.testing.assert_allclose(shares, [0.8 * (1 - n / 4000) for n in (50, 200, 800)], rtol=0.01)


def test_sticky_sessions_stay_on_their_replica_and_few_move_when_one_is_added() -> None:
    made = Fleet(model=model(), seed=1, routing=Routing.SESSION)
    made.start_warm(4)
    sessions = np.tile(np.arange(200), 2)
    made.load(
        arrival_at_s=np.arange(400) * 1.0,
        prompt_tokens=np.full(400, 16),
        output_tokens=np.full(400, 2),
        session=sessions,
    )
    made.advance(199.5)
    before = made.take_outcomes()["replica_uid"]
    made.start_warm(1)
    made.advance(500.0)
    after = made.take_outcomes()["replica_uid"]
    moved = before != after
    assert set(after[moved]) == {4}
    assert 0.1 < moved.mean() < 0.3  # one fifth, with 200 draws within four deviations of 0.028


def test_bad_requests_are_refused_by_name() -> None:
    made = fleet(warm=1)
    with pytest.raises(
        ScenarioError, match=r"prompt_tokens = 0 .. 0, must be in \[1, 1073741824\]"
    ):
        load(made, [1.0], prompt=0)
    load(made, [5.0])
    with pytest.raises(ScenarioError, match=r"must ascend from 5.0"):
        load(made, [4.0])


def test_outcomes_are_given_once_in_bounded_memory() -> None:
    made = fleet(warm=4, max_num_seqs=64)
    taken = 0
    for chunk in range(40):
        load(made, (chunk * 100 + np.linspace(0, 99, 2000)).tolist(), output=2)
        made.advance(chunk * 100 + 99.5)
        taken += len(made.take_outcomes())
    made.advance(5000.0)
    assert taken + len(made.take_outcomes()) == 80_000
    assert made.idle
    assert made._state.requests.shape[0] == 1 << 12  # 80,000 passed through 4,096 places


SAME_BYTES = """
import hashlib, numpy as np
from simulations import engine
from simulations.cluster import Fleet
from simulations.lifecycle import ordinal_choice
from simulations.replica import Routing
from simulations.replica_files import load_replica_model
fleet = Fleet(model=load_replica_model("llama-3.1-8b-h100-tp1"), seed=11, routing=Routing.RANDOM)
fleet.start_warm(2)
random = np.random.default_rng(5)
fleet.load(
    arrival_at_s=np.cumsum(random.exponential(0.02, 5000)),
    prompt_tokens=random.integers(1, 3000, 5000),
    output_tokens=random.integers(1, 300, 5000),
)
for tick in range(1, 30):
    fleet.advance(tick * 15.0)
    fleet.set_replicas(2 + tick % 3, now_s=tick * 15.0)
digest = hashlib.sha256(fleet.all_outcomes().tobytes())
digest.update(fleet.counters().values.tobytes())
digest.update(repr(fleet.usage()).encode())
print(digest.hexdigest())
"""


def test_two_processes_give_the_same_bytes() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", SAME_BYTES], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


def test_kv_aware_routing_counts_prompts_that_wait() -> None:
    """Two long prompts fill one replica's cache; least requests would not see it."""
    made = Fleet(model=model(max_num_seqs=1), seed=1, routing=Routing.KV_AWARE)
    made.start_warm(2)
    load(made, [1.0], prompt=1600, output=100)
    load(made, [1.05] * 3, prompt=400, output=100)
    load(made, [1.3], prompt=16)
    made.advance(1.5)
    rows = made.all_outcomes()
    # 1,600 tokens on one; on the other 400 that run and 800 that wait: fewer than 1,600 still.
    long_one = int(rows["replica_uid"][0])
    assert rows["replica_uid"].tolist() == [long_one, *[1 - long_one] * 4]


def test_round_robin_takes_replicas_in_turn() -> None:
    made = Fleet(model=model(), seed=1, routing=Routing.ROUND_ROBIN)
    made.start_warm(3)
    load(made, np.arange(9.0).tolist())
    made.advance(20.0)
    uids = made.take_outcomes()["replica_uid"].tolist()
    assert uids[:3] == uids[3:6] == uids[6:]
    assert sorted(uids[:3]) == [0, 1, 2]


def test_a_watermark_keeps_blocks_free_beside_others_only() -> None:
    # 100 usable blocks of 16; the watermark is 10 of 101. A prompt of 1,500 needs 94 blocks.
    made = fleet(warm=1, kv_blocks=101, watermark_ratio=0.1)
    load(made, [1.0], prompt=1500, output=3)
    load(made, [10.0, 10.0], prompt=720, output=20)  # 45 blocks each, the second passes 90
    made.advance(9.0)
    assert made.counters().values["finished_stop"].tolist() == [1]  # alone it may have them all
    made.advance(11.0)
    assert made.counters().values["requests_running"].tolist() == [1]
    assert made.counters().values["requests_waiting"].tolist() == [1]


def test_the_kernel_can_be_loaded_ahead() -> None:
    load_kernel()
    made = fleet(warm=1)
    load(made, [1.0])
    made.advance(10.0)
    assert statuses(made.take_outcomes()) == [RequestStatus.COMPLETED]


def test_whole_numbers_of_seconds_do_not_compile_the_kernel_again() -> None:
    made = fleet(warm=1, drain_grace_s=1)
    load(made, [1, 1])
    made.advance(1)
    made.set_replicas(0, now_s=1)
    made.set_replicas(1, now_s=1)
    made.advance(300)
    load(made, [300], output=1000)
    made.advance(301)
    made.set_replicas(0, now_s=301)
    made.advance(400)
    assert made.usage().replica_hours > 0.0
    kernel: Any = engine
    for function in (kernel.advance, kernel.cut, kernel.release_gateway):
        assert len(function.signatures) == 1


def test_every_fleet_calls_the_kernel_past_the_choice_of_types() -> None:
    """Also one that has grown its slots and its ring: their types are the same."""
    load_kernel()
    kernel: Any = engine
    for function in (kernel.advance, kernel.count_ended):
        assert function._call == function._chooser.get_overload(function.signatures[0])
    made = Fleet(model=model(), seed=1, max_slots=1)
    made.start_warm(1)
    load(made, [1.0 + 0.001 * i for i in range(6000)])
    made.advance(10.0)
    made.set_replicas(3, now_s=10.0)
    made.advance(3000.0)
    assert len(made.ready) == 3
    assert set(statuses(made.take_outcomes())) == {RequestStatus.COMPLETED}
    for function in (kernel.advance, kernel.count_ended):
        assert len(function.signatures) == 1


def test_an_array_of_another_type_is_refused_by_the_kernel() -> None:
    made = fleet(warm=1)
    load(made, [1.0])
    made.advance(2.0)
    made._state = made._state._replace(requests=np.zeros(4, dtype=np.int8))
    with pytest.raises(TypeError, match="unbox"):
        made.advance(3.0)


def test_a_ring_that_wraps_keeps_every_request_when_it_grows() -> None:
    """The 16 of a full ring begin in its middle; those from 60 on wrap in the ring of 64 too."""
    state = allocate(slots=1, ring=16, max_num_seqs=1, block_size=1, sessions=1)
    held = np.arange(13, 29)
    state.requests["prompt_tokens"][held & 15] = held
    state.clock["outcomes_taken"], state.clock["arrivals_loaded"] = 13, 29
    grown = grow_ring(state, room_for=40)
    assert grown.requests.shape == (64,)
    assert grown.requests["prompt_tokens"][held & 63].tolist() == held.tolist()
    later = np.arange(60, 76)
    state.requests["prompt_tokens"][later & 15] = later
    state.clock["outcomes_taken"], state.clock["arrivals_loaded"] = 60, 76
    grown = grow_ring(state, room_for=64)
    assert grown.requests["prompt_tokens"][later & 63].tolist() == later.tolist()
    assert int(np.count_nonzero(grown.requests["prompt_tokens"])) == 16
