"""From counters to work: restarts, new and vanished pods, gaps, and scrapes at another pace."""

import pytest

from scaler.core.model import Cause, Queue, Signal, Work
from scaler.signals import deltas
from scaler.signals.deltas import PodHistory
from tests.signals.fleet import (
    AB,
    UNREACHABLE,
    A,
    cause,
    collected,
    detail,
    observe,
    pod,
    target,
    tracker,
    work,
)


def test_two_samples_make_a_rate() -> None:
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


def test_more_cached_than_came_computes_nothing() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0)))
    seen = work(
        observe(one, collected(A, 15.0, pod("a", 15.0, prompt_tokens=50.0, cached_tokens=80.0)))
    )
    assert (seen.prompt_tokens, seen.cached_tokens) == (0.0, 50.0)


def test_a_counter_that_fell_without_a_start_time_counts_anew() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, finished=1000.0, running=7.0)))
    seen = work(observe(one, collected(A, 15.0, pod("a", 15.0, finished=4.0, running=2.0))))
    assert (seen.requests_finished, seen.requests_arrived) == (4.0, 6.0)


def test_a_moved_start_is_a_restart_even_if_counters_rose() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, finished=3.0, started_at_s=-500.0)))
    after = pod("a", 15.0, finished=5.0, running=1.0, started_at_s=5.0)
    seen = work(observe(one, collected(A, 15.0, after)))
    assert (seen.requests_finished, seen.requests_arrived) == (5.0, 6.0)
    assert (seen.interval_s, seen.replica_s) == (15.0, 10.0)  # it began at 5 s


def test_a_lower_counter_of_the_same_process_is_not_a_restart() -> None:
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


def test_a_counter_that_stays_low_is_believed_in_the_end() -> None:
    one = tracker()
    finished = []
    for turn, value in enumerate((1000.0, 2.0, 3.0, 4.0, 6.0, 9.0)):
        at_s = 15.0 * turn
        seen = observe(one, collected(A, at_s, pod("a", at_s, finished=value, started_at_s=-500.0)))
        if turn:
            finished.append(work(seen).requests_finished)
    assert finished == [0.0, 0.0, 0.0, 2.0, 3.0]


def test_a_new_pod_counts_from_first_sight_if_it_is_old() -> None:
    """Older than our watch: it was given to the workload, and what it did before is not known."""
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, started_at_s=-500.0)))
    old = pod("b", 15.0, finished=700.0, running=3.0, started_at_s=-100.0)
    first = observe(one, collected(AB, 15.0, pod("a", 15.0, started_at_s=-500.0), old))
    assert cause(first.work) is Cause.PARTIAL  # the arrivals of a alone are not those of both
    assert "1 of 2 ready replicas have two samples" in detail(first.work)
    later = pod("b", 30.0, finished=705.0, running=4.0, started_at_s=-100.0)
    seen = work(observe(one, collected(AB, 30.0, pod("a", 30.0, started_at_s=-500.0), later)))
    assert seen.requests_arrived == 6.0


def test_a_new_pod_counts_from_zero_if_it_began_since() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, started_at_s=-500.0)))
    young = pod("b", 15.0, finished=2.0, running=3.0, started_at_s=6.0)
    seen = work(observe(one, collected(AB, 15.0, pod("a", 15.0, started_at_s=-500.0), young)))
    assert seen.requests_arrived == 5.0
    assert (seen.interval_s, seen.replica_s) == (15.0, 24.0)  # 15 + 9 s since its start


def test_counters_an_engine_never_has_cast_no_doubt_on_the_others() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, started_at_s=-500.0)))
    for turn in range(1, 7):
        at_s = 15.0 * turn
        young = pod("b", at_s, finished=2.0 * turn, started_at_s=6.0, preemptions=None)
        old = pod("a", at_s, started_at_s=-500.0)
        seen = work(observe(one, collected(AB, at_s, old, young)))
        assert seen.requests_arrived == 2.0


def test_what_a_vanished_pod_had_in_flight_is_no_negative_demand() -> None:
    one = tracker()
    observe(one, collected(AB, 0.0, pod("a", 0.0), pod("b", 0.0, running=8.0, waiting=30.0)))
    seen = work(observe(one, collected(A, 15.0, pod("a", 15.0, running=2.0))))
    assert (seen.requests_arrived, seen.replica_s) == (2.0, 15.0)


def test_the_same_scrape_twice_keeps_the_rate_and_its_time() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0)))
    seen = observe(one, collected(A, 15.0, pod("a", 15.0, finished=30.0)))
    again = observe(one, collected(A, 30.0, pod("a", 15.0, finished=30.0)))
    assert again.work is seen.work


def test_a_rate_that_is_not_renewed_becomes_stale() -> None:
    one = tracker(stale_after_s=100.0)
    observe(one, collected(A, 0.0, pod("a", 0.0)))
    observe(one, collected(A, 15.0, pod("a", 110.0)))
    assert isinstance(observe(one, collected(A, 115.0, pod("a", 110.0))).work, Work)
    stale = observe(one, collected(A, 116.0, pod("a", 110.0)))
    assert cause(stale.work) is Cause.STALE
    assert isinstance(stale.queue, Queue)


def test_a_late_sample_is_no_step_back() -> None:
    one = tracker()
    observe(one, collected(A, 20.0, pod("a", 20.0, finished=10.0)))
    late = observe(one, collected(A, 30.0, pod("a", 10.0, finished=4.0)))
    assert cause(late.work) is Cause.NEVER
    assert work(observe(one, collected(A, 35.0, pod("a", 35.0, finished=16.0)))) == Work(
        seen_at_s=35.0, coverage_ratio=1.0, interval_s=15.0, replica_s=15.0,
        requests_arrived=6.0, requests_finished=6.0, requests_rejected=0.0, prompt_tokens=0.0,
        cached_tokens=0.0, output_tokens=0.0, preemptions=0.0, engine_steps=0.0,
    )  # fmt: skip


def test_scrapes_rarer_than_collections_show_the_whole_load() -> None:
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


def test_new_work_is_always_newer_than_the_last() -> None:
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
    assert len(times) == 4  # not in the first collection, nor where b had one sample only


def test_a_missed_collection_is_made_up_for() -> None:
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


def test_a_pod_that_was_away_for_long_is_no_burst() -> None:
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


def test_a_pod_that_was_forgotten_counts_from_first_sight() -> None:
    one = tracker(remembered_s=60.0)
    observe(one, collected(A, 0.0, pod("a", 0.0, finished=0.0)))
    seen = observe(one, collected(A, 61.0, pod("a", 61.0, finished=500.0)))
    assert cause(seen.work) is Cause.NEVER


def test_what_could_not_be_used_is_counted_with_the_next() -> None:
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


def test_a_failed_query_of_counters_leaves_no_hole_and_no_burst() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, running=4.0, finished=100.0)))
    blind = collected(
        A, 15.0, pod("a", 15.0, running=9.0, finished=None), faults={Signal.WORK: UNREACHABLE}
    )
    assert observe(one, blind).work is UNREACHABLE
    seen = work(observe(one, collected(A, 30.0, pod("a", 30.0, running=6.0, finished=108.0))))
    assert (seen.requests_arrived, seen.interval_s) == (10.0, 30.0)  # 8 + 6 - 4


def test_gauge_and_counter_of_neighbouring_steps_balance_out() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, running=8.0)))
    # Five requests have left the gauge and are not yet in the counter.
    early = work(observe(one, collected(A, 15.0, pod("a", 15.0, running=3.0))))
    assert early.requests_arrived == 0.0
    seen = work(observe(one, collected(A, 30.0, pod("a", 30.0, running=3.0, finished=7.0))))
    assert seen.requests_arrived == 2.0  # 7 - 5


def test_requests_dropped_uncounted_do_not_hide_new_ones_for_long() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, waiting=500.0)))
    assert work(observe(one, collected(A, 15.0, pod("a", 15.0)))).requests_arrived == 0.0
    rates = []
    for turn in range(1, 4):
        at_s = 15.0 + 15.0 * turn
        seen = observe(one, collected(A, at_s, pod("a", at_s, finished=20.0 * turn)))
        rates.append(work(seen).requests_arrived)
    assert rates == [0.0, 20.0, 20.0]


def test_an_unknown_counter_grows_by_nothing_when_it_appears() -> None:
    one = tracker()
    observe(one, collected(A, 0.0, pod("a", 0.0, output_tokens=None)))
    seen = work(observe(one, collected(A, 15.0, pod("a", 15.0, output_tokens=9e6))))
    assert seen.output_tokens == 0.0


def test_pods_that_are_gone_are_forgotten() -> None:
    history = PodHistory(remembered_s=60.0)
    for tick in range(200):
        history.step([pod(f"v-{tick}", 15.0 * tick)])
    assert len(history._followed) <= 60 / 15 + 1


def test_the_number_of_pods_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "PODS_MAX", 3)
    history = PodHistory(remembered_s=1e9)
    for tick in range(20):
        history.step([pod(f"v-{tick}", 15.0 * tick)])
    assert list(history._followed) == ["v-19", "v-18", "v-17"]
