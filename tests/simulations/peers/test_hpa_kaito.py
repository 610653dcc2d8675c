"""KAITO's three answers and its queue time, by hand."""

import pytest

from scaler.core.hpa import MetricFailed, Version
from simulations.peers import PEERS, Setting
from simulations.peers.hpa_kaito import KAITO_BEHAVIOR, Thresholds, kaito_law, mean_queue_s
from simulations.scenario import Behaviour
from simulations.scrape_history import ScrapeHistory
from tests.simulations.peers.test_hpa_controller import context
from tests.simulations.scrapes import history, proposal, replicas, scrape, seen, view

KEDA = Version(2, 20, 2)
UP, DOWN = Thresholds(waiting=10.0, queue_s=30.0), Thresholds(waiting=1.0, queue_s=1.0)


def _past(count: int, *, waiting: float, queue_s: float, span_s: float = 285.0) -> ScrapeHistory:
    """Two scrapes, between which ten requests of each replica waited for ``queue_s`` each."""
    page = {"requests_waiting": waiting, "queue_sum_s": 10.0 * queue_s}
    return history(
        scrape(300.0 - span_s, {uid: {} for uid in range(count)}),
        scrape(
            300.0, dict.fromkeys(range(count), page), queue_counts=dict.fromkeys(range(count), 10)
        ),
    )


@pytest.mark.parametrize(
    ("waiting", "queue_s", "current", "ready", "wanted"),
    [
        (11.0, 31.0, 4, 4, 8),  # 2.0 * 4 ready; the behavior lets one through
        (11.0, 31.0, 5, 4, 5),  # one is not ready
        (11.0, 30.0, 4, 4, 4),  # both must be above
        (10.0, 31.0, 4, 4, 4),
        (0.0, 0.5, 4, 4, 2),  # 0.5 * 4
        (0.0, 0.5, 5, 4, 2),
        (0.0, 1.0, 4, 4, 4),  # both must be below
        (1.0, 0.5, 4, 4, 4),
    ],
)
def test_all_metrics_must_agree(
    waiting: float, queue_s: float, current: int, ready: int, wanted: int
) -> None:
    of = replicas(current, ready=ready)
    past = _past(ready, waiting=waiting, queue_s=queue_s)
    metrics = kaito_law(seen(of, past, now_s=300.0), up=UP, down=DOWN, keda=KEDA)
    assert proposal(metrics, of) == wanted


def test_the_queue_time_is_the_mean_of_five_minutes() -> None:
    assert mean_queue_s(_past(2, waiting=0.0, queue_s=7.0), 300.0) == pytest.approx(7.0)
    idle = history(scrape(10.0, {0: {}}), scrape(295.0, {0: {}}))
    assert mean_queue_s(idle, 300.0) == 0.0


def test_it_holds_until_four_minutes_are_covered() -> None:
    short = _past(2, waiting=99.0, queue_s=99.0, span_s=239.0)
    assert mean_queue_s(short, 300.0) is None
    (metric,) = kaito_law(seen(replicas(2), short, now_s=300.0), up=UP, down=DOWN, keda=KEDA)
    assert isinstance(metric, MetricFailed)
    assert mean_queue_s(_past(2, waiting=0.0, queue_s=1.0, span_s=240.0), 300.0) == 1.0


def test_nobody_to_ask_holds() -> None:
    nobody = history(scrape(15.0, {0: {}}), scrape(300.0, {}))
    (metric,) = kaito_law(seen(replicas(2), nobody, now_s=300.0), up=UP, down=DOWN, keda=KEDA)
    assert isinstance(metric, MetricFailed)


def test_one_replica_in_five_minutes() -> None:
    """From 3 s on, every request waits 31 s; four minutes are covered at 243 s."""
    assert KAITO_BEHAVIOR is not None
    setting = Setting(knob=10.0, behaviour=Behaviour.OWN)
    controller = PEERS["kaito"].build(setting, context())
    current, rises = 2, []
    while controller.next_at_s < 900.0:
        now_s = controller.next_at_s
        page = {"requests_waiting": 11.0, "queue_sum_s": 31.0 * now_s}
        controller.scraped(scrape(now_s, {0: page}, queue_counts={0: int(now_s)}), None)
        count = controller.act(view(now_s, replicas(current)))
        assert count is not None
        if count > current:
            rises.append((now_s, count))
        current = count
    assert rises == [(243.0, 3), (543.0, 4), (843.0, 5)]


def test_the_knob_moves_both_upper_thresholds() -> None:
    """At 1 instead of 10: above 1 waiting and 3 s, below 0.5 waiting and 1 s."""
    made = context()
    controller = PEERS["kaito"].build(Setting(knob=1.0, behaviour=Behaviour.OURS), made)
    for one in _past(2, waiting=2.0, queue_s=4.0)._scrapes:
        controller.scraped(one.counters, None)
    assert controller.act(view(303.0, replicas(2))) == 4
