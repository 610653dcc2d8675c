"""From samples to observations: what is counted, what is fresh, and of how many replicas."""

import math
from collections.abc import Mapping

import pytest

from scaler.core.model import (
    Cause,
    Gateway,
    Gpu,
    KvCache,
    Latency,
    NoData,
    Observation,
    Queue,
    Signal,
    Work,
)
from scaler.signals.samples import GpuSample, Histogram, PodRef, TargetRef
from scaler.signals.tracker import TargetTracker, TrackerSettings
from tests.signals.fleet import ANYWHERE, REPLICAS, collected, gpu, observe, pod, target

REFUSED = NoData(cause=Cause.REFUSED, detail="loading")
UNREACHABLE = NoData(cause=Cause.UNREACHABLE, detail="timed out")
AB = target("a", "b")
A = target("a")


def tracker(**settings: float) -> TargetTracker:
    return TargetTracker(TrackerSettings(**settings))


def work(observation: Observation) -> Work:
    assert isinstance(observation.work, Work), observation.work
    return observation.work


def queue(observation: Observation) -> Queue:
    assert isinstance(observation.queue, Queue), observation.queue
    return observation.queue


def cause(signal: object) -> Cause:
    assert isinstance(signal, NoData), signal
    assert signal.detail
    return signal.cause


def detail(signal: object) -> str:
    assert isinstance(signal, NoData), signal
    return signal.detail


class TestGauges:
    def test_queues_add_up_and_kv_is_mean_and_maximum(self) -> None:
        seen = observe(
            tracker(),
            collected(
                AB,
                100.0,
                pod("a", 90.0, running=3.0, waiting=6.0, deferred=1.0, kv_mean_ratio=0.75,
                    kv_max_ratio=1.0, kv_capacity_tokens=1000.0),
                pod("b", 95.0, running=1.0, kv_mean_ratio=0.25, kv_max_ratio=0.25,
                    kv_capacity_tokens=2000.0),
            ),
        )  # fmt: skip
        assert seen.queue == Queue(
            seen_at_s=90.0,  # the older of the two
            coverage_ratio=1.0,
            requests_running=4.0,
            requests_waiting=6.0,
            requests_deferred=1.0,
        )
        assert seen.kv_cache == KvCache(
            seen_at_s=90.0,
            coverage_ratio=1.0,
            usage_mean_ratio=0.5,  # (0.75 + 0.25) / 2
            usage_max_ratio=1.0,
            capacity_tokens=1500.0,
        )
        assert seen.replicas is REPLICAS
        assert seen.seen_at_s == 100.0

    def test_zero_needs_to_be_seen(self) -> None:
        seen = observe(tracker(), collected(A, 0.0, pod("a", 0.0)))
        assert queue(seen).requests_running == 0.0
        blank = pod("a", 0.0, running=None, waiting=None, kv_mean_ratio=None, kv_max_ratio=None)
        blind = observe(tracker(), collected(A, 0.0, blank))
        assert cause(blind.queue) is Cause.ABSENT
        assert cause(blind.kv_cache) is Cause.ABSENT
        assert cause(blind.work) is Cause.ABSENT

    def test_coverage_is_counted_for_each_signal(self) -> None:
        names = "abcde"
        where = target(*names)
        pods = [pod(name, 0.0, running=1.0) for name in names]
        pods[0] = pod("a", 0.0, running=1.0, kv_mean_ratio=None, kv_max_ratio=None)
        seen = observe(tracker(), collected(where, 0.0, *pods))
        assert queue(seen).coverage_ratio == 1.0
        assert isinstance(seen.kv_cache, KvCache)
        assert seen.kv_cache.coverage_ratio == 0.8
        pods[1] = pod("b", 0.0, running=1.0, kv_mean_ratio=None, kv_max_ratio=None)
        seen = observe(tracker(), collected(where, 0.0, *pods))
        assert queue(seen).coverage_ratio == 1.0
        assert cause(seen.kv_cache) is Cause.PARTIAL  # 3 of 5 is below 0.8
        assert "3 of 5" in detail(seen.kv_cache)


class TestCoverage:
    def test_few_answers_are_partial_and_say_how_few_and_why(self) -> None:
        seen = observe(tracker(), collected(AB, 0.0, pod("a", 0.0), missing={"b": UNREACHABLE}))
        for signal in (seen.queue, seen.kv_cache, seen.work, seen.ttft, seen.itl):
            assert cause(signal) is Cause.PARTIAL
            assert "1 of 2" in detail(signal)
            assert "timed out" in detail(signal)

    def test_the_threshold_is_a_setting(self) -> None:
        samples = collected(AB, 0.0, pod("a", 0.0), missing={"b": UNREACHABLE})
        assert queue(observe(tracker(coverage_min_ratio=0.5), samples)).coverage_ratio == 0.5

    def test_a_loading_pod_is_not_missing(self) -> None:
        where = target("a", loading=("b",))
        seen = observe(tracker(), collected(where, 0.0, pod("a", 0.0), missing={"b": REFUSED}))
        assert queue(seen).coverage_ratio == 1.0

    def test_a_pod_that_is_no_longer_ready_or_listed_is_left_out(self) -> None:
        where = target("a", loading=("b",))
        gone, unready = pod("z", 0.0, running=9.0), pod("b", 0.0, running=9.0)
        seen = observe(tracker(), collected(where, 0.0, pod("a", 0.0), unready, gone))
        assert (queue(seen).requests_running, queue(seen).coverage_ratio) == (0.0, 1.0)

    def test_workers_of_a_group_are_not_asked(self) -> None:
        pods = (PodRef(name="g-0"), PodRef(name="g-0-1", leader=False))
        where = TargetRef(namespace="llm", kind="leaderworkerset", name="g", pods=pods)
        assert queue(observe(tracker(), collected(where, 0.0, pod("g-0", 0.0)))).coverage_ratio == 1

    def test_nothing_is_ready(self) -> None:
        loading = target(loading=("a",))
        seen = observe(tracker(), collected(loading, 0.0, missing={"a": REFUSED}))
        assert cause(seen.queue) is Cause.REFUSED
        assert cause(observe(tracker(), collected(loading, 0.0)).queue) is Cause.REFUSED
        assert cause(observe(tracker(), collected(target(), 0.0)).queue) is Cause.EMPTY

    def test_a_ready_pod_without_series(self) -> None:
        assert cause(observe(tracker(), collected(A, 0.0)).queue) is Cause.EMPTY

    def test_a_failed_source_speaks_for_every_signal(self) -> None:
        seen = observe(tracker(), collected(A, 0.0, pod("a", 0.0), failure=UNREACHABLE))
        for signal in (seen.queue, seen.kv_cache, seen.work, seen.ttft, seen.itl, seen.gpu):
            assert signal is UNREACHABLE

    def test_a_failed_query_speaks_for_its_signal_alone(self) -> None:
        seen = observe(
            tracker(), collected(A, 0.0, pod("a", 0.0), faults={Signal.KV_CACHE: UNREACHABLE})
        )
        assert seen.kv_cache is UNREACHABLE
        assert isinstance(seen.queue, Queue)

    def test_a_sleeping_replica_is_neither_load_nor_missing(self) -> None:
        sleeping = pod("b", 0.0, running=4.0, asleep=True)
        seen = observe(tracker(), collected(AB, 0.0, pod("a", 0.0, running=1.0), sleeping))
        assert (queue(seen).requests_running, queue(seen).coverage_ratio) == (1.0, 1.0)
        asleep = observe(tracker(), collected(target("b"), 0.0, sleeping))
        assert cause(asleep.queue) is Cause.ABSENT
        assert "sleep" in detail(asleep.queue)

    def test_without_kubernetes_pods_seen_lately_are_expected(self) -> None:
        one = tracker(remembered_s=100.0)
        observe(one, collected(ANYWHERE, 0.0, pod("a", 0.0), pod("b", 0.0)))
        assert cause(observe(one, collected(ANYWHERE, 90.0, pod("a", 90.0))).queue) is Cause.PARTIAL
        seen = observe(one, collected(ANYWHERE, 110.0, pod("a", 110.0)))
        assert queue(seen).coverage_ratio == 1.0
        assert cause(observe(tracker(), collected(ANYWHERE, 0.0)).queue) is Cause.EMPTY


class TestFreshness:
    def test_an_old_sample_is_stale_and_not_zero(self) -> None:
        assert isinstance(observe(tracker(), collected(A, 45.0, pod("a", 0.0))).queue, Queue)
        seen = observe(tracker(), collected(A, 46.0, pod("a", 0.0)))
        assert cause(seen.queue) is Cause.STALE
        assert cause(seen.work) is Cause.STALE
        assert "46 s old" in detail(seen.queue)

    def test_one_stale_pod_of_two_is_a_partial_answer(self) -> None:
        seen = observe(tracker(), collected(AB, 50.0, pod("a", 0.0), pod("b", 45.0)))
        assert cause(seen.queue) is Cause.PARTIAL
        assert "a is 50 s old" in detail(seen.queue)

    def test_a_clock_that_is_ahead_does_not_date_an_observation_later_than_now(self) -> None:
        assert queue(observe(tracker(), collected(A, 10.0, pod("a", 12.0)))).seen_at_s == 10.0


class TestWork:
    def test_two_samples_make_a_rate(self) -> None:
        one = tracker()
        first = observe(one, collected(A, 0.0, pod("a", 0.0, running=2.0, finished=10.0)))
        assert cause(first.work) is Cause.NEVER
        second = pod(
            "a", 15.0, running=3.0, waiting=4.0, deferred=1.0, finished=15.0, rejected=2.0,
            prompt_tokens=100.0, cached_tokens=30.0, output_tokens=50.0, preemptions=1.0,
        )  # fmt: skip
        assert observe(one, collected(A, 16.0, second)).work == Work(
            seen_at_s=15.0,
            coverage_ratio=1.0,
            interval_s=15.0,
            replica_s=15.0,
            requests_arrived=13.0,  # finished 5 + rejected 2 + in flight 8 - 2
            requests_finished=5.0,
            requests_rejected=2.0,
            prompt_tokens=70.0,  # 100 - 30 cached
            cached_tokens=30.0,
            output_tokens=50.0,
            preemptions=1.0,
            engine_steps=0.0,
        )

    def test_more_cached_than_came_computes_nothing(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0)))
        seen = work(
            observe(one, collected(A, 15.0, pod("a", 15.0, prompt_tokens=50.0, cached_tokens=80.0)))
        )
        assert (seen.prompt_tokens, seen.cached_tokens) == (0.0, 50.0)

    def test_a_counter_that_fell_without_a_start_time_counts_anew(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, finished=1000.0, running=7.0)))
        seen = work(observe(one, collected(A, 15.0, pod("a", 15.0, finished=4.0, running=2.0))))
        assert (seen.requests_finished, seen.requests_arrived) == (4.0, 6.0)

    def test_a_moved_start_is_a_restart_even_if_counters_rose(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, finished=3.0, started_at_s=-500.0)))
        after = pod("a", 15.0, finished=5.0, running=1.0, started_at_s=5.0)
        seen = work(observe(one, collected(A, 15.0, after)))
        assert (seen.requests_finished, seen.requests_arrived) == (5.0, 6.0)
        assert (seen.interval_s, seen.replica_s) == (15.0, 10.0)  # it began at 5 s

    def test_a_lower_counter_of_the_same_process_is_not_a_restart(self) -> None:
        """Two Prometheus servers of which one lags, or a page cut off at a line's end."""
        one = tracker()
        for at_s, finished, expected in (
            (0.0, 1000.0, None),
            (15.0, 1010.0, 10.0),
            (30.0, 1005.0, 0.0),
            (45.0, 1030.0, 20.0),  # since 1010
        ):
            sample = pod("a", at_s, finished=finished, started_at_s=-500.0)
            seen = observe(one, collected(A, at_s, sample))
            if expected is not None:
                assert work(seen).requests_finished == expected

    def test_a_counter_that_stays_low_is_believed_in_the_end(self) -> None:
        one = tracker()
        finished = []
        for turn, value in enumerate((1000.0, 2.0, 3.0, 4.0, 6.0, 9.0)):
            at_s = 15.0 * turn
            seen = observe(
                one, collected(A, at_s, pod("a", at_s, finished=value, started_at_s=-500.0))
            )
            if turn:
                finished.append(work(seen).requests_finished)
        assert finished == [0.0, 0.0, 0.0, 2.0, 3.0]

    def test_a_new_pod_counts_from_first_sight_if_it_is_old(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, started_at_s=-500.0)))
        old = pod("b", 15.0, finished=700.0, running=3.0, started_at_s=-100.0)
        seen = work(observe(one, collected(AB, 15.0, pod("a", 15.0, started_at_s=-500.0), old)))
        assert seen.requests_arrived == 0.0
        later = pod("b", 30.0, finished=705.0, running=4.0, started_at_s=-100.0)
        seen = work(observe(one, collected(AB, 30.0, pod("a", 30.0, started_at_s=-500.0), later)))
        assert seen.requests_arrived == 6.0

    def test_a_new_pod_counts_from_zero_if_it_began_since(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, started_at_s=-500.0)))
        young = pod("b", 15.0, finished=2.0, running=3.0, started_at_s=6.0)
        seen = work(observe(one, collected(AB, 15.0, pod("a", 15.0, started_at_s=-500.0), young)))
        assert seen.requests_arrived == 5.0
        assert (seen.interval_s, seen.replica_s) == (15.0, 24.0)  # 15 + 9 s since its start

    def test_counters_an_engine_never_has_cast_no_doubt_on_the_others(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, started_at_s=-500.0)))
        for turn in range(1, 7):
            at_s = 15.0 * turn
            young = pod("b", at_s, finished=2.0 * turn, started_at_s=6.0, preemptions=None)
            old = pod("a", at_s, started_at_s=-500.0)
            seen = work(observe(one, collected(AB, at_s, old, young)))
            assert seen.requests_arrived == 2.0

    def test_what_a_vanished_pod_had_in_flight_is_no_negative_demand(self) -> None:
        one = tracker()
        observe(one, collected(AB, 0.0, pod("a", 0.0), pod("b", 0.0, running=8.0, waiting=30.0)))
        seen = work(observe(one, collected(A, 15.0, pod("a", 15.0, running=2.0))))
        assert (seen.requests_arrived, seen.replica_s) == (2.0, 15.0)

    def test_the_same_scrape_twice_keeps_the_rate_and_its_time(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0)))
        seen = observe(one, collected(A, 15.0, pod("a", 15.0, finished=30.0)))
        again = observe(one, collected(A, 30.0, pod("a", 15.0, finished=30.0)))
        assert again.work is seen.work

    def test_a_rate_that_is_not_renewed_becomes_stale(self) -> None:
        one = tracker(stale_after_s=100.0)
        observe(one, collected(A, 0.0, pod("a", 0.0)))
        observe(one, collected(A, 15.0, pod("a", 110.0)))
        assert isinstance(observe(one, collected(A, 115.0, pod("a", 110.0))).work, Work)
        stale = observe(one, collected(A, 116.0, pod("a", 110.0)))
        assert cause(stale.work) is Cause.STALE
        assert isinstance(stale.queue, Queue)

    def test_a_late_sample_is_no_step_back(self) -> None:
        one = tracker()
        observe(one, collected(A, 20.0, pod("a", 20.0, finished=10.0)))
        late = observe(one, collected(A, 30.0, pod("a", 10.0, finished=4.0)))
        assert cause(late.work) is Cause.NEVER
        assert work(observe(one, collected(A, 35.0, pod("a", 35.0, finished=16.0)))) == Work(
            seen_at_s=35.0, coverage_ratio=1.0, interval_s=15.0, replica_s=15.0,
            requests_arrived=6.0, requests_finished=6.0, requests_rejected=0.0, prompt_tokens=0.0,
            cached_tokens=0.0, output_tokens=0.0, preemptions=0.0, engine_steps=0.0,
        )  # fmt: skip

    def test_scrapes_rarer_than_collections_show_the_whole_load(self) -> None:
        """Two pods of 1 request/s each, scraped every 30 s half a period apart."""
        one = tracker()
        rates = set()
        for tick in range(12):
            now_s = 15.0 * tick
            a_s, b_s = 30.0 * (tick // 2), 30.0 * ((tick + 1) // 2) - 15.0
            seen = observe(
                one,
                collected(AB, now_s, pod("a", a_s, finished=100.0 + a_s),
                          pod("b", b_s, finished=100.0 + b_s)),
            )  # fmt: skip
            if isinstance(seen.work, Work):
                rates.add(seen.work.requests_arrived / seen.work.interval_s)
                assert seen.work.interval_s == 30.0
        assert rates == {2.0}

    def test_new_work_is_always_newer_than_the_last(self) -> None:
        """Consumers tell new work by its time, also when a pod joins with an older sample."""
        one = tracker()
        times = []
        for tick in range(6):
            now_s = 15.0 * tick
            pods = [pod("a", now_s, finished=now_s)]
            if tick >= 2:
                pods.append(pod("b", now_s - 16.0, finished=now_s))
            seen = observe(one, collected(AB if tick >= 2 else A, now_s, *pods))
            if isinstance(seen.work, Work):
                times.append(seen.work.seen_at_s)
        assert times == sorted(set(times))
        assert len(times) == 5

    def test_a_missed_collection_is_made_up_for(self) -> None:
        names = "abcdef"
        where = target(*names)
        one = tracker()
        total = 0.0
        for tick in range(5):
            now_s = 15.0 * tick
            pods = [pod(name, now_s, finished=2.0 * now_s) for name in names]
            if tick in (2, 3):
                pods.pop()
            seen = observe(one, collected(where, now_s, *pods))
            if tick:
                total += work(seen).requests_arrived
                assert work(seen).interval_s == 15.0
        assert total == 6 * 2 * 60.0

    def test_a_pod_that_was_away_for_long_is_no_burst(self) -> None:
        names = "abcdef"
        where = target(*names)
        one = tracker()
        for tick in range(8):
            now_s = 15.0 * tick
            pods = [pod(name, now_s, finished=2.0 * now_s) for name in names]
            if 1 <= tick <= 5:
                pods.pop()
            seen = observe(one, collected(where, now_s, *pods))
            if tick == 6:  # 90 s at 2/s count as 15 s of them: 6 * 30
                assert work(seen).requests_arrived == pytest.approx(180.0)

    def test_a_pod_that_was_forgotten_counts_from_first_sight(self) -> None:
        one = tracker(remembered_s=60.0)
        observe(one, collected(A, 0.0, pod("a", 0.0, finished=0.0)))
        seen = observe(one, collected(A, 61.0, pod("a", 61.0, finished=500.0)))
        assert cause(seen.work) is Cause.NEVER

    def test_what_could_not_be_used_is_counted_with_the_next(self) -> None:
        one = tracker()
        observe(one, collected(AB, 0.0, pod("a", 0.0), pod("b", 0.0)))
        partial = collected(AB, 15.0, pod("a", 15.0, finished=5.0), missing={"b": UNREACHABLE})
        assert cause(observe(one, partial).work) is Cause.PARTIAL
        seen = work(
            observe(
                one,
                collected(AB, 30.0, pod("a", 30.0, finished=9.0), pod("b", 30.0, finished=4.0)),
            )
        )
        assert (seen.requests_arrived, seen.interval_s, seen.replica_s) == (13.0, 30.0, 60.0)

    def test_a_failed_query_of_counters_leaves_no_hole_and_no_burst(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, running=4.0, finished=100.0)))
        blind = collected(
            A, 15.0, pod("a", 15.0, running=9.0, finished=None), faults={Signal.WORK: UNREACHABLE}
        )
        assert observe(one, blind).work is UNREACHABLE
        seen = work(observe(one, collected(A, 30.0, pod("a", 30.0, running=6.0, finished=108.0))))
        assert (seen.requests_arrived, seen.interval_s) == (10.0, 30.0)  # 8 + 6 - 4

    def test_gauge_and_counter_of_neighbouring_steps_balance_out(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, running=8.0)))
        # Five requests have left the gauge and are not yet in the counter.
        early = work(observe(one, collected(A, 15.0, pod("a", 15.0, running=3.0))))
        assert early.requests_arrived == 0.0
        seen = work(observe(one, collected(A, 30.0, pod("a", 30.0, running=3.0, finished=7.0))))
        assert seen.requests_arrived == 2.0  # 7 - 5

    def test_requests_dropped_uncounted_do_not_hide_new_ones_for_long(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, waiting=500.0)))
        assert work(observe(one, collected(A, 15.0, pod("a", 15.0)))).requests_arrived == 0.0
        rates = []
        for turn in range(1, 4):
            at_s = 15.0 + 15.0 * turn
            seen = observe(one, collected(A, at_s, pod("a", at_s, finished=20.0 * turn)))
            rates.append(work(seen).requests_arrived)
        assert rates == [0.0, 20.0, 20.0]

    def test_an_unknown_counter_grows_by_nothing_when_it_appears(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, output_tokens=None)))
        seen = work(observe(one, collected(A, 15.0, pod("a", 15.0, output_tokens=9e6))))
        assert seen.output_tokens == 0.0


BOUNDS = (0.1, 1.0, math.inf)


def histogram(*counts: float, bounds_s: tuple[float, ...] = BOUNDS) -> Histogram:
    return Histogram(bounds_s=bounds_s, counts=counts)


def latency(signal: object) -> Latency:
    assert isinstance(signal, Latency), signal
    return signal


class TestLatency:
    def test_growth_of_all_pods_over_the_window(self) -> None:
        one = tracker(window_s=40.0)
        for turn in range(5):
            at_s = 15.0 * turn
            grown = float(turn)
            seen = observe(
                one,
                collected(
                    AB,
                    at_s,
                    pod("a", at_s, ttft=histogram(100 + grown, 100 + 2 * grown, 100 + 4 * grown)),
                    pod("b", at_s, ttft=histogram(grown, grown, grown)),
                ),
            )
            if turn == 0:
                assert cause(seen.ttft) is Cause.NEVER
        # Rounds at 30, 45 and 60 s are within 40 s; each has a: 1, 1, 2 and b: 1, 0, 0.
        assert seen.ttft == Latency(
            seen_at_s=60.0,
            coverage_ratio=1.0,
            window_s=40.0,
            bounds_s=(0.1, 1.0),
            counts=(6.0, 3.0, 6.0),
        )
        assert cause(seen.itl) is Cause.ABSENT

    def test_a_stall_leaves_an_empty_window_and_not_the_last_percentile(self) -> None:
        one = tracker(window_s=30.0)
        observe(one, collected(A, 0.0, pod("a", 0.0, itl=histogram(0, 0, 0))))
        full = histogram(5, 5, 5)
        assert latency(observe(one, collected(A, 15.0, pod("a", 15.0, itl=full))).itl).total == 5.0
        for at_s in (30.0, 45.0):
            seen = observe(one, collected(A, at_s, pod("a", at_s, itl=full)))
        assert latency(seen.itl).total == 0.0

    def test_a_restart_counts_from_zero(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, finished=9.0, ttft=histogram(90, 90, 95))))
        after = pod("a", 15.0, finished=1.0, ttft=histogram(1, 2, 2))
        assert latency(observe(one, collected(A, 15.0, after)).ttft).counts == (1.0, 1.0, 0.0)

    def test_only_equal_bounds_are_merged(self) -> None:
        """A rollout of other bounds: the set with more observations is read."""
        one = tracker()
        other = (0.2, 2.0, math.inf)
        observe(
            one,
            collected(AB, 0.0, pod("a", 0.0, ttft=histogram(0, 0, 0)),
                      pod("b", 0.0, ttft=histogram(0, 0, 0, bounds_s=other))),
        )  # fmt: skip
        seen = observe(
            one,
            collected(AB, 15.0, pod("a", 15.0, ttft=histogram(7, 7, 7)),
                      pod("b", 15.0, ttft=histogram(0, 3, 3, bounds_s=other))),
        )  # fmt: skip
        assert latency(seen.ttft).bounds_s == (0.1, 1.0)
        assert latency(seen.ttft).counts == (7.0, 0.0, 0.0)

    def test_bounds_that_change_in_one_process_are_not_compared(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, ttft=histogram(5, 5, 5))))
        changed = histogram(9, 9, 9, bounds_s=(0.2, 2.0, math.inf))
        seen = observe(one, collected(A, 15.0, pod("a", 15.0, ttft=changed)))
        assert cause(seen.ttft) is Cause.NEVER

    def test_a_histogram_that_shrank_is_not_compared(self) -> None:
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0, ttft=histogram(5, 5, 5))))
        observe(one, collected(A, 15.0, pod("a", 15.0, ttft=histogram(6, 6, 6))))
        seen = observe(one, collected(A, 30.0, pod("a", 30.0, ttft=histogram(4, 9, 9))))
        assert latency(seen.ttft).counts == (1.0, 0.0, 0.0)

    def test_too_few_pods_with_a_histogram(self) -> None:
        one = tracker()
        observe(one, collected(AB, 0.0, pod("a", 0.0, ttft=histogram(5, 5, 5)), pod("b", 0.0)))
        seen = observe(
            one, collected(AB, 15.0, pod("a", 15.0, ttft=histogram(5, 5, 6)), pod("b", 15.0))
        )
        assert cause(seen.ttft) is Cause.PARTIAL

    def test_a_histogram_the_source_has_summed(self) -> None:
        summed = Latency(
            seen_at_s=90.0, coverage_ratio=1.0, window_s=60.0, bounds_s=(1.0,), counts=(1.0, 2.0)
        )
        seen = observe(tracker(), collected(A, 100.0, pod("a", 100.0), ttft=summed, itl=REFUSED))
        assert seen.ttft is summed
        assert seen.itl is REFUSED
        old = observe(tracker(), collected(A, 136.0, pod("a", 136.0), ttft=summed))
        assert cause(old.ttft) is Cause.STALE
        few = Latency(
            seen_at_s=90.0, coverage_ratio=0.5, window_s=60.0, bounds_s=(1.0,), counts=(1.0, 2.0)
        )
        partial = observe(tracker(), collected(A, 100.0, pod("a", 100.0), ttft=few))
        assert cause(partial.ttft) is Cause.PARTIAL


class TestGpu:
    def seen(
        self,
        where: TargetRef,
        now_s: float,
        *samples: GpuSample,
        faults: Mapping[Signal, NoData] | None = None,
    ) -> Gpu | NoData:
        gpus = {sample.pod: sample for sample in samples}
        return observe(tracker(), collected(where, now_s, gpus=gpus, faults=faults or {})).gpu

    def test_mean_and_maximum_over_replicas(self) -> None:
        assert self.seen(AB, 50.0, gpu("a", 20.0, 0.2), gpu("b", 30.0, 0.8)) == Gpu(
            seen_at_s=20.0,
            coverage_ratio=1.0,
            utilisation_mean_ratio=0.5,
            utilisation_max_ratio=0.8,
        )

    def test_a_group_counts_with_its_busiest_pod(self) -> None:
        pods = (
            PodRef(name="g-0"),
            PodRef(name="g-0-1", leader=False),
            PodRef(name="g-1"),
            PodRef(name="g-1-1", leader=False),
        )
        where = TargetRef(namespace="llm", kind="leaderworkerset", name="g", pods=pods)
        assert self.seen(
            where, 0.0, gpu("g-0", 0.0, 0.1), gpu("g-0-1", 0.0, 0.75), gpu("g-1-1", 0.0, 0.25)
        ) == Gpu(
            seen_at_s=0.0,
            coverage_ratio=1.0,
            utilisation_mean_ratio=0.5,  # (0.75 + 0.25) / 2
            utilisation_max_ratio=0.75,
        )

    def test_absent_stale_partial_and_zero_are_told_apart(self) -> None:
        assert cause(self.seen(AB, 0.0)) is Cause.ABSENT
        assert cause(self.seen(AB, 91.0, gpu("a", 0.0, 0.0), gpu("b", 0.0, 0.0))) is Cause.STALE
        assert cause(self.seen(AB, 0.0, gpu("a", 0.0, 0.0))) is Cause.PARTIAL
        zero = self.seen(AB, 90.0, gpu("a", 0.0, 0.0), gpu("b", 0.0, 0.0))
        assert isinstance(zero, Gpu)
        assert zero.utilisation_max_ratio == 0.0
        assert cause(self.seen(target(), 0.0, gpu("a", 0.0, 0.5))) is Cause.EMPTY

    def test_loading_and_foreign_pods_are_left_out(self) -> None:
        where = target("a", loading=("b",))
        seen = self.seen(where, 0.0, gpu("a", 0.0, 0.1), gpu("b", 0.0, 1.0), gpu("z", 0.0, 1.0))
        assert isinstance(seen, Gpu)
        assert seen.utilisation_max_ratio == 0.1

    def test_one_dead_exporter_of_several_costs_what_it_covers(self) -> None:
        names = "abcde"
        where, faults = target(*names), {Signal.GPU: UNREACHABLE}
        four = [gpu(name, 0.0, 0.5) for name in "abcd"]
        seen = self.seen(where, 0.0, *four, faults=faults)
        assert isinstance(seen, Gpu)
        assert seen.coverage_ratio == 0.8
        assert self.seen(where, 0.0, *four[:3], faults=faults) is UNREACHABLE

    def test_without_kubernetes_every_gpu_found_counts(self) -> None:
        seen = self.seen(ANYWHERE, 0.0, gpu("a", 0.0, 0.5))
        assert isinstance(seen, Gpu)
        assert cause(self.seen(ANYWHERE, 0.0)) is Cause.EMPTY


class TestGateway:
    where = target(gateway_query="sum by (namespace) (requests_total)")

    def test_growth_since_the_last_answer(self) -> None:
        one = tracker()
        first = observe(one, collected(self.where, 0.0, gateway_requests=1000.0))
        assert first.gateway == Gateway(seen_at_s=0.0, interval_s=0.0, requests_arrived=0.0)
        seen = observe(one, collected(self.where, 15.0, gateway_requests=1004.0))
        assert seen.gateway == Gateway(seen_at_s=15.0, interval_s=15.0, requests_arrived=4.0)
        fell = observe(one, collected(self.where, 30.0, gateway_requests=3.0))
        assert fell.gateway == Gateway(seen_at_s=30.0, interval_s=15.0, requests_arrived=3.0)

    def test_a_series_that_appears_is_a_request(self) -> None:
        one = tracker()
        observe(one, collected(self.where, 0.0, gateway_requests=0.0))
        seen = observe(one, collected(self.where, 15.0, gateway_requests=1.0))
        assert isinstance(seen.gateway, Gateway)
        assert seen.gateway.requests_arrived == 1.0

    def test_an_unanswered_query_is_neither_zero_nor_a_reset(self) -> None:
        one = tracker()
        observe(one, collected(self.where, 0.0, gateway_requests=1000.0))
        blind = observe(one, collected(self.where, 15.0))
        assert cause(blind.gateway) is Cause.ABSENT
        seen = observe(one, collected(self.where, 30.0, gateway_requests=1001.0))
        assert seen.gateway == Gateway(seen_at_s=30.0, interval_s=30.0, requests_arrived=1.0)
        failed = observe(one, collected(self.where, 45.0, failure=UNREACHABLE))
        assert failed.gateway is UNREACHABLE

    def test_none_is_asked_for(self) -> None:
        assert cause(observe(tracker(), collected(A, 0.0)).gateway) is Cause.UNSUPPORTED
