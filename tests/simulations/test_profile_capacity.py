"""The true capacity: bounds that queues obey, rates known by hand, determinism."""

import dataclasses

import numpy as np
import pytest

from scaler.core.config import PolicyConfig, SloConfig
from scaler.errors import ScenarioError
from simulations.controller import Context
from simulations.profile_capacity import Profile, prefill_velocity, profile, profile_for
from simulations.replica import ReplicaModel
from simulations.scaled_object import ClusterSpec, ScaledObjectSpec
from simulations.timing import Timing
from simulations.trace_chunks import Requests
from tests.simulations.small_fleet import model

SLO = SloConfig(ttft_s=2.0)
# Every step takes 0.1 s and 8 requests fit, so requests of 10 tokens leave at 8 / s at most.
MODEL = model()
FULL_PER_S = 8.0


def _requests(count: int = 50, *, prompt: int = 32, output: int = 10) -> Requests:
    return Requests(
        arrival_s=np.arange(float(count)),
        prompt_tokens=np.full(count, prompt, dtype=np.int32),
        output_tokens=np.full(count, output, dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )


def _measured(
    slo: SloConfig = SLO, *, replica: ReplicaModel = MODEL, fleets: tuple[int, ...] = (1,)
) -> Profile:
    return profile(replica, _requests(), slo=slo, fleets=fleets)


def test_a_replica_carries_nearly_what_it_serves_when_it_is_full() -> None:
    # M/D/8 at 95 % load waits 0.4 s in the mean; almost nobody waits 1.9 s
    found = _measured(fleets=(1, 4))
    assert 0.88 * FULL_PER_S < found.requests_per_s(1) < FULL_PER_S
    assert found.requests_per_s(1) < found.requests_per_s(4) < FULL_PER_S, "larger pools carry more"


def test_what_is_asked_for_sets_the_rate() -> None:
    strict = _measured(SloConfig(ttft_s=0.25)).requests_per_s(1)
    plain = _measured().requests_per_s(1)
    lax = _measured(SloConfig(ttft_s=2.0, attainment_target_ratio=0.5)).requests_per_s(1)
    assert 0.3 * FULL_PER_S < strict < plain < lax


def test_a_tpot_that_a_full_batch_breaks_lowers_the_rate() -> None:
    growing = dataclasses.replace(
        MODEL.step,
        decode_base_s=0.02,
        mixed_base_s=0.02,
        decode_per_seq_s=0.01,
        mixed_per_seq_s=0.01,
    )  # 0.03 s a token alone, 0.1 s with eight
    replica = dataclasses.replace(MODEL, step=growing)
    free = _measured(replica=replica).requests_per_s(1)
    tight = _measured(SloConfig(ttft_s=2.0, tpot_s=0.06), replica=replica).requests_per_s(1)
    assert 0.3 < tight < 0.8 * free


def test_rates_of_one_kind_of_work() -> None:
    found = _measured()
    # Outputs of one token leave a step later: 8 prompts of 32 tokens a step are 2560 / s.
    assert 0.9 * 2560.0 < found.prefill_tokens_per_s < 2560.0
    # A step with a prompt is as long as one without, so cached prompts change nothing: 80 tokens/s.
    assert 0.88 * 80.0 < found.decode_tokens_per_s < 80.0
    assert found.velocity_tokens_per_s == prefill_velocity(MODEL) == pytest.approx(2048 / 0.1)
    assert found.ttft_alone_s == pytest.approx(0.1)
    assert (found.prompt_tokens_mean, found.output_tokens_mean) == (32.0, 10.0)


def test_tokens_in_the_cache_by_littles_law() -> None:
    # each request holds 32 + 10 / 2 tokens for 1 s
    one = _measured().capacities[0]
    assert one.kv_tokens_mean == pytest.approx(37.0 * one.requests_per_s, rel=0.05)


def test_measured_once_and_equal_for_equal_arguments() -> None:
    assert _measured() is _measured()
    other = profile(MODEL, _requests(), slo=SLO, fleets=(1,), seed=5)
    again = profile(MODEL, _requests(51), slo=SLO, fleets=(1,), seed=5)
    assert other is not _measured()
    assert other.requests_per_s(1) == pytest.approx(again.requests_per_s(1), rel=0.02)


def test_what_nobody_could_meet_is_no_profile() -> None:
    with pytest.raises(ScenarioError, match=r"ttft_s = 0\.05"):
        _measured(SloConfig(ttft_s=0.05))
    with pytest.raises(ScenarioError, match="requests"):
        profile(MODEL, _requests(0), slo=SLO)


def _context(requests: list[Requests], *, until_s: float | None = None) -> Context:
    return Context(
        model=MODEL,
        config=PolicyConfig(slo=SLO),
        scaled_object=ScaledObjectSpec(replicas_min=1, replicas_max=8),
        cluster=ClusterSpec(),
        timing=Timing(),
        seed=0,
        requests=requests,
        until_s=until_s,
    )


def test_the_mix_is_that_of_the_requests_that_are_played() -> None:
    short, long = _requests(100), _requests(100, prompt=64)
    late = dataclasses.replace(long, arrival_s=long.arrival_s + 100.0)
    assert profile_for(_context([short, late])).prompt_tokens_mean == 48.0
    assert profile_for(_context([short, late], until_s=100.0)).prompt_tokens_mean == 32.0
    assert profile_for(_context([short, late], until_s=150.0)).prompt_tokens_mean == pytest.approx(
        (100 * 32 + 50 * 64) / 150
    )


def test_a_long_trace_is_thinned_evenly() -> None:
    count = 45_000
    ramp = _requests(count)
    ramp = dataclasses.replace(ramp, prompt_tokens=np.arange(1, count + 1, dtype=np.int32) % 97 + 1)
    chunks = [ramp.pick(slice(begin, begin + 7_001)) for begin in range(0, count, 7_001)]
    mean = profile_for(_context(chunks)).prompt_tokens_mean
    assert mean == float(ramp.prompt_tokens[::4].mean()), "whatever the size of the chunks"
    assert mean == profile_for(_context([ramp])).prompt_tokens_mean
