"""PromQL over scrapes, with Prometheus' own arithmetic done by hand."""

import math

import numpy as np
import pytest

from simulations.scrape_history import (
    TTFT,
    ScrapeHistory,
    kv_cache_usage,
    metric,
)
from tests.simulations.scrapes import history, scrape

RUNNING = metric("requests_running")
TOKENS = metric("generation_tokens")


def _tokens(*samples: tuple[float, float]) -> ScrapeHistory:
    """One replica whose counter is read."""
    return history(*(scrape(at_s, {0: {"generation_tokens": value}}) for at_s, value in samples))


def test_now_is_the_last_scrape_without_the_draining() -> None:
    past = history(
        scrape(0.0, {0: {"requests_running": 9}}),
        scrape(15.0, {0: {"requests_running": 2}, 1: {"requests_running": 5}}, draining=[0]),
    )
    found = past.now(RUNNING, 20.0)
    assert found.by_uid() == {1: 5.0}
    assert (found.total, found.mean, found.highest) == (5.0, 5.0, 5.0)


def test_a_series_is_stale_five_minutes_after_the_last_scrape() -> None:
    past = history(scrape(0.0, {0: {"requests_running": 2}}))
    assert past.now(RUNNING, 299.0).total == 2.0
    gone = past.now(RUNNING, 300.0)
    assert gone.total == 0.0
    assert math.isnan(gone.mean)
    assert math.isnan(gone.highest)


def test_nothing_scraped_is_nothing() -> None:
    past = ScrapeHistory()
    assert past.empty
    assert past.now(RUNNING, 0.0).total == 0.0
    assert past.rate(TOKENS, window_s=60.0, now_s=0.0).total == 0.0
    assert math.isnan(past.quantile(0.9, TTFT, window_s=60.0, now_s=0.0))
    assert past.span_s(window_s=60.0, now_s=0.0) == 0.0


def test_kv_cache_usage_is_the_share_of_the_blocks() -> None:
    past = history(scrape(0.0, {0: {"blocks_used": 25}, 1: {"blocks_used": 100}}))
    assert past.now(kv_cache_usage, 0.0).by_uid() == {0: 0.25, 1: 1.0}


def test_a_rate_is_stretched_to_the_ends_of_its_range() -> None:
    # 100 to 190 from 15 to 60 s: 90 in 45 s.  The range is (5, 65]: the first sample is 10 s after
    # its start and the last 5 s before its end, both nearer than 1.1 * 15 s.  The counter would
    # have been 0 at 15 - 45 * 100 / 90 < 5 s.  So 90 * (45 + 10 + 5) / 45 = 120 in 60 s.
    past = _tokens((0.0, 70.0), (15.0, 100.0), (30.0, 130.0), (45.0, 160.0), (60.0, 190.0))
    assert past.rate(TOKENS, window_s=60.0, now_s=65.0).total == pytest.approx(2.0)


def test_a_rate_begins_no_earlier_than_its_counter_at_zero() -> None:
    # 5 to 65 from 15 to 45 s: at 60 in 30 s it was 0 at 15 - 30 * 5 / 60 = 12.5 s, and the range
    # begins at 0 s: 60 * (30 + 2.5 + 15) / 30 = 95 in 60 s.
    past = _tokens((15.0, 5.0), (30.0, 35.0), (45.0, 65.0))
    assert past.rate(TOKENS, window_s=60.0, now_s=60.0).total == pytest.approx(95.0 / 60.0)


def test_a_rate_far_from_its_ends_is_stretched_by_half_a_distance() -> None:
    # 1000 to 1030 from 100 to 115 s in (60, 160]: 40 s and 45 s are over 16.5 s, so 7.5 s each.
    past = _tokens((100.0, 1000.0), (115.0, 1030.0))
    assert past.rate(TOKENS, window_s=100.0, now_s=160.0).total == pytest.approx(60.0 / 100.0)


def test_a_counter_that_starts_anew_goes_on_from_where_it_was() -> None:
    # 100, 160, then 20 after a restart: 60 + 20 = 80; from 15 to 45 s and stretched by 5 and 15 s.
    past = _tokens((15.0, 100.0), (30.0, 160.0), (45.0, 20.0))
    assert past.growth(TOKENS, window_s=50.0, now_s=60.0).total == 80.0
    expected = 80.0 * (30.0 + 5.0 + 15.0) / 30.0 / 50.0
    assert past.rate(TOKENS, window_s=50.0, now_s=60.0).total == pytest.approx(expected)


def test_a_counter_at_rest_has_the_rate_zero_and_one_sample_none() -> None:
    assert _tokens((15.0, 7.0), (30.0, 7.0)).rate(TOKENS, window_s=30.0, now_s=31.0).total == 0.0
    once = _tokens((30.0, 7.0)).rate(TOKENS, window_s=30.0, now_s=31.0)
    assert once.by_uid() == {}


def test_replicas_that_come_and_go_have_the_samples_they_have() -> None:
    """Replica 0 goes after 30 s, 1 stays, 2 comes at 45 s; a second is two tokens to each."""
    past = history(
        scrape(15.0, {0: {"generation_tokens": 1030}, 1: {"generation_tokens": 1030}}),
        scrape(30.0, {0: {"generation_tokens": 1060}, 1: {"generation_tokens": 1060}}),
        scrape(45.0, {1: {"generation_tokens": 1090}, 2: {"generation_tokens": 2000}}),
        scrape(60.0, {1: {"generation_tokens": 1120}, 2: {"generation_tokens": 2030}}),
    )
    grown = past.growth(TOKENS, window_s=60.0, now_s=60.0).by_uid()
    assert grown == {0: 30.0, 1: 90.0, 2: 30.0}
    rates = past.rate(TOKENS, window_s=60.0, now_s=60.0).by_uid()
    # 0: 15 s before, half a distance after (30 s away); 1: 15 s before; 2: half a distance before.
    assert rates[0] == pytest.approx(2.0 * (15.0 + 15.0 + 7.5) / 60.0)
    assert rates[1] == pytest.approx(2.0 * (45.0 + 15.0) / 60.0)
    assert rates[2] == pytest.approx(2.0 * (15.0 + 7.5) / 60.0)
    assert past.now(TOKENS, 61.0).by_uid() == {1: 1120.0, 2: 2030.0}


def test_a_window_is_open_on_the_left() -> None:
    past = history(*(scrape(at_s, {0: {"requests_running": at_s}}) for at_s in (0.0, 15.0, 30.0)))
    highest = past.max_over_time(RUNNING, window_s=30.0, now_s=30.0)
    mean = past.avg_over_time(RUNNING, window_s=30.0, now_s=30.0)
    assert (highest.total, mean.total) == (30.0, 22.5)  # 15 and 30, not 0
    assert past.span_s(window_s=30.0, now_s=30.0) == 15.0


def test_what_is_older_than_the_history_is_forgotten() -> None:
    past = ScrapeHistory(keep_s=30.0)
    for at_s in (0.0, 15.0, 30.0):
        past.add(scrape(at_s, {0: {"requests_running": 1}}))
    assert past.span_s(window_s=30.0, now_s=30.0) == 15.0
    with pytest.raises(AssertionError, match="shorter than the window"):
        past.max_over_time(RUNNING, window_s=31.0, now_s=30.0)


def test_a_quantile_is_linear_in_its_bucket() -> None:
    # In (10, 30] replica 0 grows by 6 in (0.5, 0.75] from 0, which is not stretched: 6 * 15 / 15.
    # Replica 1 grows by 4 in (1, 2.5] from 100, stretched by 5 s: 4 * 20 / 15.  In fifteenths 90
    # and 80: rank 153 of 170 is 63 of 80 through (1, 2.5], rank 51 is 51 of 90 through (0.5, 0.75].
    past = history(
        scrape(15.0, {0: {}, 1: {}}, ttft={1: {0.5: 100}}),
        scrape(30.0, {0: {}, 1: {}}, ttft={0: {0.75: 6}, 1: {0.5: 100, 2.5: 4}}),
    )
    found = past.quantile(0.9, TTFT, window_s=20.0, now_s=30.0)
    low = past.quantile(0.3, TTFT, window_s=20.0, now_s=30.0)
    assert found == pytest.approx(1.0 + 1.5 * 63.0 / 80.0)
    assert low == pytest.approx(0.5 + 0.25 * 51.0 / 90.0)


def test_a_quantile_of_one_replica_is_exact() -> None:
    past = history(
        scrape(15.0, {0: {}}, ttft={0: {0.5: 100}}),
        scrape(30.0, {0: {}}, ttft={0: {0.5: 106, 2.5: 4}}),
    )
    # Both cumulative counters are stretched alike, since 0 is far: 6 below 0.5 s, 4 below 2.5 s.
    # Rank 9 of 10 is three quarters of the way through (1, 2.5].
    assert past.quantile(0.9, TTFT, window_s=20.0, now_s=30.0) == pytest.approx(2.125)
    # Rank 3 of 10 is half way through (0.25, 0.5].
    assert past.quantile(0.3, TTFT, window_s=20.0, now_s=30.0) == pytest.approx(0.375)


def test_a_quantile_above_all_bounds_is_the_highest_bound() -> None:
    one, other = scrape(15.0, {0: {}}), scrape(30.0, {0: {}})
    other.ttft_buckets[0, -1] = 5
    past = history(one, other)
    assert past.quantile(0.5, TTFT, window_s=20.0, now_s=30.0) == 2560.0


def test_a_quantile_without_traffic_is_nan() -> None:
    past = history(scrape(15.0, {0: {}}), scrape(30.0, {0: {}}))
    assert math.isnan(past.quantile(0.9, TTFT, window_s=20.0, now_s=30.0))


def test_gpu_use_is_of_replicas_that_are_ready_and_known_to_dcgm() -> None:
    past = ScrapeHistory()
    past.add(scrape(0.0, {0: {}, 1: {}, 2: {}}, draining=[2]), {0: 0.5, 2: 1.0})
    assert past.gpu_ratio(1.0).by_uid() == {0: 0.5}
    past.add(scrape(15.0, {0: {}}), None)
    assert past.gpu_ratio(16.0).by_uid() == {}


def test_the_fast_way_and_the_slow_way_agree() -> None:
    """A replica that comes makes ranges be gathered one by one; the others' results stay."""
    random = np.random.Generator(np.random.PCG64(1))
    counters = np.cumsum(random.integers(0, 50, size=(5, 3)), axis=0)
    pages = [{uid: {"generation_tokens": row[uid]} for uid in range(3)} for row in counters]
    times = [15.0, 30.0, 45.0, 60.0, 75.0]
    alike = history(*(scrape(at_s, page) for at_s, page in zip(times, pages, strict=True)))
    pages[-1][9] = {"generation_tokens": 1}
    mixed = history(*(scrape(at_s, page) for at_s, page in zip(times, pages, strict=True)))
    for name in ("growth", "rate", "max_over_time", "avg_over_time"):
        one = getattr(alike, name)(TOKENS, window_s=70.0, now_s=76.0).by_uid()
        other = getattr(mixed, name)(TOKENS, window_s=70.0, now_s=76.0).by_uid()
        other.pop(9, None)
        assert other == pytest.approx(one)
