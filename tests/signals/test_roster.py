"""Pods that have just become ready: all they counted is news, and they are not missed at once."""

import pytest

from scaler.core.model import Cause, KvCache, Latency, NoData
from scaler.signals import roster
from scaler.signals.roster import Roster
from scaler.signals.samples import Histogram
from tests.signals.fleet import (
    AB,
    ANYWHERE,
    REFUSED,
    UNREACHABLE,
    A,
    cause,
    collected,
    observe,
    pod,
    queue,
    target,
    tracker,
    work,
)

A_LOADING_B = target("a", loading=("b",))
LOADED_S = 300.0  # a process starts minutes before its pod is ready


def test_requests_of_a_pod_that_became_ready_are_news() -> None:
    """Its process began minutes ago: only that it was not ready tells that nothing is old."""
    one = tracker()
    for at_s in (0.0, 15.0, LOADED_S):
        where = A if at_s == 0.0 else A_LOADING_B
        observe(one, collected(where, at_s, pod("a", at_s), missing={"b": REFUSED}))
    new = pod("b", LOADED_S + 15.0, running=3.0, waiting=4.0, finished=5.0, started_at_s=16.0)
    seen = work(observe(one, collected(AB, LOADED_S + 15.0, pod("a", LOADED_S + 15.0), new)))
    assert seen.requests_arrived == 12.0  # 3 + 4 + 5
    assert (seen.interval_s, seen.coverage_ratio) == (15.0, 1.0)


def test_a_server_that_tells_no_start_counts_as_well() -> None:
    """Of several API servers: they export no process_start_time_seconds."""
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0)))
    observe(one, collected(A_LOADING_B, 15.0, pod("a", 15.0), missing={"b": REFUSED}))
    seen = work(observe(one, collected(AB, 30.0, pod("a", 30.0), pod("b", 30.0, finished=7.0))))
    assert seen.requests_arrived == 7.0


def test_a_pod_that_was_there_when_watching_began_has_an_unknown_past() -> None:
    """It may have served for a week before it was not ready for a moment."""
    one = tracker()
    observe(one, collected(A_LOADING_B, 0.0, pod("a", 0.0), missing={"b": REFUSED}))
    back = observe(one, collected(AB, 15.0, pod("a", 15.0), pod("b", 15.0, finished=1e6)))
    assert cause(back.work) is Cause.PARTIAL
    later = collected(AB, 30.0, pod("a", 30.0), pod("b", 30.0, finished=1e6 + 2.0))
    assert work(observe(one, later)).requests_arrived == 2.0


def test_a_pod_that_was_not_ready_for_long_does_not_enter_again() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0)))
    for tick in range(1, 20):  # ready and seen at 15 s, then not ready until 285 s
        at_s = 15.0 * tick
        where, more = (AB, [pod("b", at_s, finished=500.0)]) if tick == 1 else (A_LOADING_B, [])
        observe(one, collected(where, at_s, pod("a", at_s, finished=at_s), *more))
    back = [pod("a", 300.0, finished=300.0), pod("b", 300.0, finished=900.0)]
    seen = observe(one, collected(AB, 300.0, *back))
    assert cause(seen.work) is Cause.PARTIAL  # 900 are not counted as of the last 15 s


def test_a_pod_that_served_unseen_before_it_was_not_ready_has_an_unknown_past() -> None:
    """Ready and not scraped from 15 s to 45 s: its 900 requests did not come since 60 s."""
    one = tracker()
    for tick, where in enumerate((A, AB, AB, AB, A_LOADING_B)):
        observe(one, collected(where, 15.0 * tick, pod("a", 15.0 * tick)))
    seen = observe(one, collected(AB, 75.0, pod("a", 75.0), pod("b", 75.0, finished=900.0)))
    assert cause(seen.work) is Cause.PARTIAL


def test_a_name_that_left_the_list_is_another_pod() -> None:
    """A StatefulSet gives v-1 again."""
    one = tracker()
    observe(one, collected(AB, 0.0, pod("a", 0.0), pod("b", 0.0, finished=90.0)))
    for tick in range(1, 20):
        observe(one, collected(A, 15.0 * tick, pod("a", 15.0 * tick)))
    seen = observe(one, collected(AB, 300.0, pod("a", 300.0), pod("b", 300.0, finished=4.0)))
    assert work(seen).requests_arrived == 4.0


def test_a_pod_scraped_long_after_it_became_ready_is_no_burst() -> None:
    """Prometheus found it after six collections: 90 s of requests are not those of 15 s."""
    one = tracker()
    for tick in range(6):
        where = A if tick == 0 else AB
        observe(one, collected(where, 15.0 * tick, pod("a", 15.0 * tick)))
    seen = observe(one, collected(AB, 90.0, pod("a", 90.0), pod("b", 90.0, finished=60.0)))
    assert work(seen).interval_s == 45.0  # of a: from 45 s on b was missed, nothing was taken in
    assert work(seen).requests_arrived == 30.0  # 60 requests in 90 s are 30 in 45 s


def test_latencies_of_a_cold_engine_are_left_out() -> None:
    cold = Histogram(bounds_s=(1.0, float("inf")), counts=(0.0, 3.0))  # warm-up: all above 1 s
    warm = Histogram(bounds_s=(1.0, float("inf")), counts=(8.0, 11.0))
    none = Histogram(bounds_s=(1.0, float("inf")), counts=(0.0, 0.0))
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, ttft=none)))
    samples = (pod("a", 15.0, ttft=none), pod("b", 15.0, ttft=cold))
    seen = observe(one, collected(AB, 15.0, *samples))
    assert isinstance(seen.ttft, Latency)
    assert seen.ttft.total == 0.0
    samples = (pod("a", 30.0, ttft=none), pod("b", 30.0, ttft=warm))
    seen = observe(one, collected(AB, 30.0, *samples))
    assert isinstance(seen.ttft, Latency)
    assert seen.ttft.counts == (8.0, 0.0)


class TestCoverage:
    def test_a_pod_that_just_became_ready_does_not_blind_the_others(self) -> None:
        """From one replica to two: half of the fleet has no series for a scrape."""
        one = tracker()
        observe(one, collected(A, 0.0, pod("a", 0.0)))
        seen = observe(one, collected(AB, 15.0, pod("a", 15.0, running=8.0, waiting=20.0)))
        assert queue(seen).requests_waiting == 20.0
        assert isinstance(seen.kv_cache, KvCache)
        # Nothing is scaled down on it: the sum is of one replica of two.
        assert queue(seen).coverage_ratio == 0.5
        assert work(seen).coverage_ratio == 0.5

    def test_it_is_missed_when_it_stays_silent(self) -> None:
        one = tracker(stale_after_s=45.0)
        observe(one, collected(A, 0.0, pod("a", 0.0)))
        causes = []
        for at_s in (15.0, 30.0, 45.0, 60.0):
            seen = observe(one, collected(AB, at_s, pod("a", at_s)))
            causes.append(seen.queue.cause if isinstance(seen.queue, NoData) else None)
        assert causes == [None, None, None, Cause.PARTIAL]  # last known not to serve at 0 s

    def test_alone_it_is_no_idle_fleet(self) -> None:
        one = tracker()
        observe(one, collected(target(loading=("a",)), 0.0, missing={"a": REFUSED}))
        observe(one, collected(target(), 15.0))
        seen = observe(one, collected(A, 30.0, missing={"a": UNREACHABLE}))
        assert cause(seen.queue) is Cause.UNREACHABLE
        assert cause(seen.work) is Cause.UNREACHABLE


class TestWithoutList:
    def test_a_pod_is_expected_from_its_last_sample_on(self) -> None:
        """Prometheus answers with the sample of a pod that is gone for five more minutes."""
        seen = Roster(remembered_s=120.0)
        gone = pod("b", 0.0)
        for at_s, expected in ((0.0, ("a", "b")), (120.0, ("a", "b")), (135.0, ("a",))):
            found = seen.update(collected(ANYWHERE, at_s, pod("a", at_s), gone), at_s)
            assert found.expected == expected

    def test_the_number_of_pods_is_bounded_and_the_newest_stay(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(roster, "PODS_MAX", 2)
        pods = [pod(name, at_s) for name, at_s in (("a", 3.0), ("b", 1.0), ("c", 2.0))]
        found = Roster(remembered_s=120.0).update(collected(ANYWHERE, 5.0, *pods), 5.0)
        assert set(found.expected) == {"a", "c"}
