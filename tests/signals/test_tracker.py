"""From samples to observations: what is fresh, of how many replicas, and what is absent."""

import math
from collections.abc import Mapping

from scaler.core.model import Cause, Gateway, Gpu, KvCache, Latency, NoData, Queue, Signal
from scaler.signals.samples import GpuSample, Histogram, PodRef, TargetRef
from tests.signals.fleet import (
    AB,
    ANYWHERE,
    REFUSED,
    REPLICAS,
    UNREACHABLE,
    A,
    cause,
    collected,
    detail,
    gpu,
    observe,
    pod,
    queue,
    target,
    tracker,
)


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

    def test_a_series_that_was_gone_and_is_back_is_no_request(self) -> None:
        """A target of Prometheus was down for a while: a GPU is not started for that."""
        one = tracker()
        rises = []
        for tick, value in enumerate((1000.0, 0.0, 0.0, 1000.0, 1003.0, 0.0, 2.0, 5.0)):
            seen = observe(one, collected(self.where, 15.0 * tick, gateway_requests=value))
            assert isinstance(seen.gateway, Gateway)
            rises.append(seen.gateway.requests_arrived)
        # Gone and back at 1000; 3 more; restarted, 2 since; 3 more.
        assert rises == [0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 2.0, 3.0]

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
