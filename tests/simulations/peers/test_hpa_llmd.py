"""llm-d's control law and its queue guard, by hand."""

import pytest

from scaler.core.hpa import Tolerances, Version
from scaler.core.model import Cause, NoData
from simulations.peers.hpa_controller import Seen
from simulations.peers.hpa_llmd import (
    QUEUE_GUARD_BEHAVIOR,
    SLO_BEHAVIOR,
    SaturationRule,
    guarded,
    queue_guard_law,
    slo_replicas,
    tpot_s,
    ttft_p90_s,
)
from simulations.scrape_history import ScrapeHistory
from tests.simulations.scrapes import history, proposal, replicas, scrape, seen, view

KEDA = Version(2, 20, 2)


@pytest.mark.parametrize(
    ("saturation", "provisioned", "ready", "wanted"),
    [
        (0.56, 4, 4, 5),  # 4 + ceil(4 * 0.018)
        (1.1, 4, 4, 8),  # 4 + 4 * 1
        (2.0, 4, 4, 15),  # 4 + ceil(4 * 2.636)
        (1.1, 8, 4, 8),  # half are ready: 8 + ceil(8 * (0.55 / 0.55 - 1))
        (1.65, 8, 4, 12),  # 8 + ceil(8 * 0.5)
        (0.6, 4, 2, 3),  # the credit makes 0.3 of it: 4 + ceil(4 * -0.4545) = 4 - 1
        (1.1, 4, 0, 8),  # none ready: no credit
        (0.55, 4, 4, 4),  # the band
        (0.40, 4, 4, 4),
        (0.30, 4, 4, 3),  # 4 - floor(4 * 0.25)
        (0.30, 4, 2, 3),  # uncredited on the way down
        (0.39, 4, 4, 4),  # floor(4 * 0.025)
        (0.0, 4, 4, 0),
    ],
)
def test_the_control_law(saturation: float, provisioned: int, ready: int, wanted: int) -> None:
    assert slo_replicas(saturation, provisioned=provisioned, ready=ready) == wanted


def test_the_knob_moves_both_thresholds() -> None:
    # up above 1.1, down below 0.8
    assert slo_replicas(1.0, provisioned=4, ready=4, up_above=1.1) == 4
    assert slo_replicas(0.6, provisioned=4, ready=4, up_above=1.1) == 3  # floor(4 * 0.25) = 1
    assert slo_replicas(2.2, provisioned=4, ready=4, up_above=1.1) == 8


def _fast_and_slow() -> ScrapeHistory:
    """Ten requests between two scrapes: eight within 0.5 s, two between 1 and 2.5 s."""
    return history(
        scrape(15.0, {0: {}}, ttft={0: {0.5: 1000}}),
        scrape(30.0, {0: {}}, ttft={0: {0.5: 1008, 2.5: 2}}),
    )


def test_saturation_is_p90_ttft_over_its_objective() -> None:
    past = _fast_and_slow()
    assert ttft_p90_s(seen(replicas(1), past, now_s=31.0)) == pytest.approx(1.75)  # half way in
    rule = SaturationRule(ttft_slo_s=2.0, tpot_slo_s=0.0, first_at_s=31.0)
    assert rule.saturation(31.0) == 0.0
    rule.run(seen(replicas(1), past, now_s=31.0))
    assert rule.next_at_s == 46.0
    assert rule.saturation(31.0) == pytest.approx(0.875)


def test_saturation_is_clamped_and_averaged_over_45_s() -> None:
    rule = SaturationRule(ttft_slo_s=0.1, tpot_slo_s=0.0, first_at_s=31.0)
    rule.run(seen(replicas(1), _fast_and_slow(), now_s=31.0))  # 1.75 / 0.1 = 17.5, clamped to 2
    idle = history(scrape(31.0, {0: {}}), scrape(46.0, {0: {}}))
    for now_s in (46.0, 61.0, 76.0):
        rule.run(seen(replicas(1), idle, now_s=now_s))
    assert rule.saturation(75.9) == pytest.approx(2.0 / 4.0)
    assert rule.saturation(76.0) == 0.0  # 45 s later the first sample has left


def test_tpot_counts_where_it_has_an_objective() -> None:
    # 100 gaps that took 8 s in all: 0.08 s each, 1.6 of an objective of 0.05 s.
    one, other = scrape(15.0, {0: {}}), scrape(30.0, {0: {"itl_sum_s": 8.0}})
    other.itl_buckets[0, 3] = 100
    past = history(one, other)
    assert tpot_s(seen(replicas(1), past, now_s=31.0)) == pytest.approx(0.08)
    for slo_s, saturation in ((0.05, 1.6), (0.0, 0.0)):
        rule = SaturationRule(ttft_slo_s=2.0, tpot_slo_s=slo_s, first_at_s=31.0)
        rule.run(seen(replicas(1), past, now_s=31.0))
        assert rule.saturation(31.0) == pytest.approx(saturation)


def test_no_traffic_is_no_saturation() -> None:
    idle = seen(replicas(1), history(scrape(0.0, {0: {}}), scrape(15.0, {0: {}})), now_s=16.0)
    assert ttft_p90_s(idle) == 0.0
    assert tpot_s(idle) == 0.0
    assert tpot_s(seen(replicas(1), history(scrape(0.0, {})), now_s=1.0)) == 0.0


def test_nothing_is_recorded_while_prometheus_is_down() -> None:
    rule = SaturationRule(ttft_slo_s=2.0, tpot_slo_s=0.0, first_at_s=31.0)
    down = NoData(cause=Cause.UNREACHABLE, detail="down")
    rule.run(seen(replicas(1), _fast_and_slow(), now_s=31.0))
    rule.run(
        Seen(
            now_s=46.0,
            view=view(46.0, replicas(1), down),
            history=history(scrape(40.0, {0: {}})),
            tolerances=Tolerances(),
        )
    )
    assert rule.next_at_s == 61.0
    assert rule.saturation(46.0) == pytest.approx(0.875)


@pytest.mark.parametrize(
    ("demand", "current", "pending", "wanted"),
    [
        (3.0, 4, 2, 3.0),  # below the present count: as it is
        (9.0, 4, 0, 9.0),
        (9.0, 4, 2, 7.0),  # two are on their way
        (5.0, 4, 3, 4.0),  # 5 - 3 would be a step down
        (4.0, 4, 1, 4.0),
    ],
)
def test_the_guard(demand: float, current: int, pending: int, wanted: float) -> None:
    assert guarded(demand, replicas=current, pending=pending) == wanted


@pytest.mark.parametrize(
    ("waiting", "running", "current", "ready", "wanted"),
    [
        (3, 160, 4, 4, 10),  # 160 / 16
        (6, 16, 4, 4, 6),
        (0, 16, 4, 4, 1),
        (0, 160, 8, 6, 8),  # max(10 - 2, 8)
    ],
)
def test_queue_guard(waiting: int, running: int, current: int, ready: int, wanted: int) -> None:
    of = replicas(current, ready=ready)
    past = history(scrape(0.0, {0: {"requests_waiting": waiting, "requests_running": running}}))
    metrics = queue_guard_law(seen(of, past), running_target=16.0, keda=KEDA)
    assert proposal(metrics, of) == wanted


def test_behaviours_are_those_of_the_guides() -> None:
    assert SLO_BEHAVIOR is not None
    assert QUEUE_GUARD_BEHAVIOR is not None
    assert [(p.value, p.period_s) for p in SLO_BEHAVIOR.up.policies] == [(100, 60.0), (4, 60.0)]
    assert [(p.value, p.period_s) for p in SLO_BEHAVIOR.down.policies] == [(1, 120.0)]
    assert (SLO_BEHAVIOR.up.stabilisation_s, SLO_BEHAVIOR.down.stabilisation_s) == (30.0, 180.0)
    guard = QUEUE_GUARD_BEHAVIOR
    assert (guard.up.stabilisation_s, guard.down.stabilisation_s) == (0.0, 300.0)
