"""Inferno: its step time, its queue against M/M/1 and M/M/c, its sizing."""

import math

import numpy as np
import pytest

from simulations.peers.inferno import (
    IterationTime,
    Lengths,
    Targets,
    batch_max,
    best_rate,
    fit,
    queue_means,
    true_iteration_s,
)
from simulations.presets import PRESETS
from tests.simulations.small_fleet import model

CHAT = Lengths(prompt_tokens=1000.0, output_tokens=199.0)
ROUND = IterationTime(alpha_s=0.01, beta_s=1e-4, gamma_s=1e-6)


def test_the_times_by_hand() -> None:
    batch = np.array([8.0])
    # computed 1199 / 200 = 5.995, read 1099.5; 0.01 + 8 * (5.995e-4 + 1.0995e-3)
    assert ROUND.iteration_s(batch, CHAT)[0] == pytest.approx(0.023592)
    assert ROUND.prefill_s(batch, CHAT)[0] == pytest.approx(0.023592 + 0.101)
    assert ROUND.decode_s(batch, CHAT)[0] == pytest.approx(0.023592 + 1e-4 + 1.0995e-3)


def test_one_server_is_an_m_m_1_queue() -> None:
    # All of the service time in alpha: 0.1 + 9 * 0.1 = 1 s; at 0.5 / s the wait is 1 s, but no more
    # than 10 may wait: sum (n - 1) 0.5^n / sum 0.5^n over 0..11, by the requests let in.
    time = IterationTime(alpha_s=0.1, beta_s=0.0, gamma_s=0.0)
    lengths = Lengths(prompt_tokens=1.0, output_tokens=9.0)
    means = queue_means(time, lengths, batch_max=1, rate_per_s=0.5)
    weights = 0.5 ** np.arange(12)
    waiting = float(np.maximum(np.arange(12) - 1, 0) @ weights / weights.sum())
    wait_s = waiting / (0.5 * (1.0 - weights[-1] / weights.sum()))
    assert means.ttft_s == pytest.approx(wait_s + 0.1)
    assert wait_s == pytest.approx(1.0, abs=0.02)
    assert means.itl_s == pytest.approx(0.1)


def test_a_step_time_that_does_not_grow_is_an_m_m_c_queue() -> None:
    # 4 servers of 1 s at 3 / s: Erlang C = 0.5094, wait = C / (4 - 3)
    time = IterationTime(alpha_s=0.1, beta_s=0.0, gamma_s=0.0)
    lengths = Lengths(prompt_tokens=1.0, output_tokens=9.0)
    means = queue_means(time, lengths, batch_max=4, rate_per_s=3.0)
    assert means.ttft_s - 0.1 == pytest.approx(0.5094, rel=2e-3)


def test_the_best_rate_is_on_the_edge_of_the_binding_target() -> None:
    free = Targets(ttft_s=1.0, itl_s=math.inf)
    rate = best_rate(ROUND, CHAT, free, batch_max=64)
    inside = queue_means(ROUND, CHAT, batch_max=64, rate_per_s=rate)
    outside = queue_means(ROUND, CHAT, batch_max=64, rate_per_s=1.001 * rate)
    assert inside.ttft_s <= 1.0 < outside.ttft_s
    tight = best_rate(ROUND, CHAT, Targets(ttft_s=1.0, itl_s=0.03), batch_max=64)
    assert 0.0 < tight < rate
    assert queue_means(ROUND, CHAT, batch_max=64, rate_per_s=tight).itl_s <= 0.03


def test_a_target_below_the_prefill_is_met_by_no_rate() -> None:
    nothing = Targets(ttft_s=0.05, itl_s=math.inf)  # a prompt alone takes 0.1 s and more
    assert best_rate(ROUND, CHAT, nothing, batch_max=8) == 0.0


def test_a_true_step_of_that_form_is_fitted_exactly_where_it_can_be() -> None:
    # Every step takes 0.1 s: alpha is that, and nothing else is there.
    found = fit(model(), CHAT)
    assert found.alpha_s == pytest.approx(0.1)
    assert (found.beta_s, found.gamma_s) == pytest.approx((0.0, 0.0), abs=1e-12)


@pytest.mark.parametrize("name", ["llama-3.1-70b-h100-tp4", "llama-3.1-8b-rtx-pro-6000-tp1"])
def test_the_fit_is_near_the_true_step(name: str) -> None:
    preset = PRESETS[name].model
    found = fit(preset, CHAT)
    assert min(found.alpha_s, found.beta_s, found.gamma_s) >= 0.0
    for batch in (8.0, 64.0, 256.0):
        fitted = float(found.iteration_s(np.array([batch]), CHAT)[0])
        assert fitted == pytest.approx(true_iteration_s(preset, CHAT, batch), rel=0.25)


def test_a_batch_is_what_the_limit_and_the_cache_hold() -> None:
    # 16000 tokens: 14 contexts of 1099.5
    assert batch_max(model(), CHAT) == 8
    assert batch_max(model(max_num_seqs=64), CHAT) == 14


def test_however_long_the_queue_the_batch_is_no_larger_than_its_limit() -> None:
    means = queue_means(ROUND, CHAT, batch_max=4, rate_per_s=50.0)
    assert means.itl_s == pytest.approx(float(ROUND.decode_s(np.array([4.0]), CHAT)[0]), rel=1e-3)
