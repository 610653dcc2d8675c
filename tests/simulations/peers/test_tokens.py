"""Rules on tokens: P and G, the triggers' values, reckoned by hand."""

import numpy as np
import pytest

from scaler.core.hpa import ExternalMetric, Version
from simulations.engine_layout import COUNTERS, TTFT_BOUNDS_S
from simulations.fleet_counters import FleetCounters
from simulations.peers.tokens import Settled, not_prefilled, rates_of, token_aware
from simulations.profile_capacity import Capacity, Profile
from simulations.scrape_history import ScrapeHistory

PROFILE = Profile(
    prompt_tokens_mean=1000.0,
    output_tokens_mean=200.0,
    capacities=(
        Capacity(replicas=1, requests_per_s=4.0, kv_tokens_mean=0.0),
        Capacity(replicas=4, requests_per_s=20.0, kv_tokens_mean=0.0),
        Capacity(replicas=16, requests_per_s=96.0, kv_tokens_mean=0.0),
    ),
    prefill_tokens_per_s=10_000.0,
    decode_tokens_per_s=4_000.0,
    velocity_tokens_per_s=0.0,
    ttft_alone_s=0.0,
)


def test_the_mix_at_the_true_rate_is_one_replica() -> None:
    # 5 / s: 5000 / 10000 = 0.5 and 1000 / 4000 = 0.25, so P and G are 0.75 of what they are alone
    rates = rates_of(PROFILE)
    assert rates.prompt_per_s == pytest.approx(7500.0)
    assert rates.output_per_s == pytest.approx(3000.0)
    assert rates.replicas(prompt_per_s=5000.0, output_per_s=1000.0) == pytest.approx(1.0)


@pytest.mark.parametrize("weight", [0.5, 1.5])
def test_a_weight_moves_the_proportion_and_keeps_the_mix(weight: float) -> None:
    plain, rates = rates_of(PROFILE), rates_of(PROFILE, prompt_weight=weight)
    assert rates.replicas(prompt_per_s=5000.0, output_per_s=1000.0) == pytest.approx(1.0)
    shift = (plain.prompt_per_s / plain.output_per_s) / (rates.prompt_per_s / rates.output_per_s)
    assert shift == pytest.approx(weight)


def test_the_profile_is_read_between_sizes_by_logarithm() -> None:
    # one of 4: 5 / s, one of 16: 6 / s; 8 is half way in logarithms
    assert PROFILE.requests_per_s(1) == pytest.approx(4.0)
    assert PROFILE.requests_per_s(8) == pytest.approx(5.5)
    assert PROFILE.requests_per_s(64) == pytest.approx(6.0)


def _counters(at_s: float, *, begun: int, waiting: int, blocks: int) -> FleetCounters:
    """One replica: 3 running, of each that began 500 prompt tokens, 100 of them from the cache."""
    values = np.zeros(1, dtype=COUNTERS)
    values["requests_running"] = 3
    values["requests_waiting"] = waiting
    values["finished_stop"] = begun - 2  # so one of the three that run has no first token
    values["prompt_tokens"] = 500 * begun
    values["prompt_tokens_cached"] = 100 * begun
    values["blocks_used"] = blocks
    buckets = np.zeros((1, len(TTFT_BOUNDS_S) + 1), dtype=np.int64)
    buckets[0, 4] = begun
    return FleetCounters(
        at_s=at_s,
        uids=np.array([7]),
        draining=np.array([False]),
        values=values,
        ttft_buckets=buckets,
        itl_buckets=buckets,
        e2e_buckets=buckets,
        queue_buckets=buckets,
        iteration_buckets=buckets,
        kv_blocks_usable=1000,
        gateway_waiting=0,
        gateway_rejections=0,
    )


def test_prompts_still_to_be_computed_are_seconds_of_backlog() -> None:
    history = ScrapeHistory()
    for index in range(4):
        history.add(_counters(15.0 * index, begun=100 + 10 * index, waiting=9, blocks=600))
    assert not_prefilled(_counters(0.0, begun=50, waiting=9, blocks=0)).tolist() == [10.0]
    backlog, cache = token_aware(
        history, 45.0, velocity=2000.0, seconds=1.5, kv=0.8, keda=Version(2, 20, 2)
    )
    # 10 requests of 400 tokens that are not in the cache: 4000 / 2000 = 2 s against 1.5 s
    assert isinstance(backlog, ExternalMetric)
    assert isinstance(cache, ExternalMetric)
    assert (backlog.values_milli, backlog.target_milli) == ((2000,), 1500)
    assert (cache.values_milli, cache.target_milli) == ((600,), 800)


def test_a_rate_is_asked_for_once_its_window_is_full_and_from_then_on() -> None:
    settled = Settled()
    history = ScrapeHistory()
    found = []
    for index in range(5):
        history.add(_counters(15.0 * index, begun=10, waiting=0, blocks=0))
        found.append(settled(history, 15.0 * index + 1.0))
    assert found == [False, False, False, True, True]  # 45 s of 60 from the fourth scrape on
    assert settled(ScrapeHistory(), 500.0), "a gap later on is the rule's own trouble"
