"""llm-d's saturation analyser and the freeze of its operator, by hand."""

import pytest

from scaler.core.hpa import Tolerances
from simulations.peers import CORRECTED, PEERS, SHIPPED, Setting
from simulations.peers.hpa_wva import (
    WVA_BEHAVIOR,
    Peak,
    Saturation,
    SaturationLoop,
    limits_at,
    saturation_step,
)
from simulations.scenario import Behaviour
from simulations.scrape_history import ScrapeHistory
from tests.simulations.peers.test_hpa_controller import context
from tests.simulations.scrapes import history, replicas, scrape, seen, view

LIMITS = Saturation()


def _peaks(*pairs: tuple[float, float]) -> list[Peak]:
    return [Peak(kv_ratio=kv, waiting=waiting) for kv, waiting in pairs]


@pytest.mark.parametrize(
    ("pairs", "step"),
    [
        (((0.75, 0.0), (0.70, 0.0)), 1),  # 0.8 - 0.725 < 0.1
        (((0.1, 2.5), (0.1, 2.0)), 1),  # 5 - 2.25 < 3
        (((0.9, 0.0), (0.1, 0.0)), 0),  # one is saturated, the other has room, but is alone
        (((0.1, 9.0), (0.1, 0.0), (0.1, 0.0)), -1),  # two left with 0.1: doubled still 0.2
        (((0.9, 0.0), (0.1, 9.0)), 1),  # all saturated
        (((0.4, 0.0), (0.4, 0.0)), 0),  # 0.8 - 0.8 is no spare
        (((0.3, 0.0), (0.3, 0.0)), -1),  # 0.8 - 0.6 = 0.2
        (((0.1, 1.5), (0.1, 1.5)), 0),  # 5 - 3 < 3
        (((0.1, 0.0),), 0),  # never below one
    ],
)
def test_the_step(pairs: tuple[tuple[float, float], ...], step: int) -> None:
    assert saturation_step(_peaks(*pairs), LIMITS) == step


def test_the_knob_moves_all_four_limits() -> None:
    half = limits_at(0.4)
    assert (half.kv_ratio, half.waiting) == (0.4, 2.5)
    assert (half.kv_spare_ratio, half.waiting_spare) == (0.05, 1.5)
    assert limits_at(0.8) == Saturation()


def _busy(count: int, blocks: int = 90) -> ScrapeHistory:
    return history(scrape(50.0, {uid: {"blocks_used": blocks} for uid in range(count)}))


def _loop(*, corrected: bool = False) -> SaturationLoop:
    return SaturationLoop(LIMITS, corrected=corrected, context=context())


def test_it_adds_one_a_minute_and_waits_for_it() -> None:
    loop = _loop()
    assert (loop.next_at_s, loop.desired) == (0.0, None)
    loop.run(seen(replicas(2), _busy(2), now_s=60.0))
    assert (loop.next_at_s, loop.desired) == (60.0, 3)
    loop.run(seen(replicas(2), _busy(2), now_s=60.0))
    assert loop.desired == 3, "not the current count yet: frozen"
    loop.run(seen(replicas(3, ready=2), _busy(2), now_s=60.0))
    assert loop.desired == 3, "one does not report yet: frozen"
    loop.run(seen(replicas(3), _busy(3), now_s=60.0))
    assert loop.desired == 4


def test_it_looks_at_the_last_minute_of_those_that_are_there() -> None:
    past = history(
        scrape(0.0, {0: {"blocks_used": 90}, 1: {"blocks_used": 90}}),
        scrape(15.0, {0: {"blocks_used": 10}, 1: {"blocks_used": 10}, 7: {"blocks_used": 90}}),
    )
    loop = _loop()
    loop.run(seen(replicas(2), past, now_s=59.0))
    assert loop.desired == 3  # 0.9 at 0 s
    loop = _loop()
    loop.run(seen(replicas(2), past, now_s=60.0))
    assert loop.desired == 1  # 0.1 each; replica 7 is not ready any more


def test_nobody_who_reports_leaves_everything() -> None:
    loop = _loop()
    loop.run(seen(replicas(2), history(scrape(0.0, {})), now_s=1.0))
    assert loop.desired is None
    loop.run(seen(replicas(2), ScrapeHistory(), now_s=1.0))
    assert loop.desired is None


def test_as_shipped_a_swallowed_step_freezes_it_for_good() -> None:
    """11 of 10 is within the HPA's tolerance; 12 is not."""
    shipped, corrected = _loop(), _loop(corrected=True)
    for loop in (shipped, corrected):
        loop.run(seen(replicas(10), _busy(10), now_s=60.0))
    assert (shipped.desired, corrected.desired) == (11, 12)
    for loop in (shipped, corrected):
        loop.run(seen(replicas(10), _busy(10, blocks=1), now_s=60.0))
    assert (shipped.desired, corrected.desired) == (11, 8)  # 9 of 10 is swallowed too
    corrected.run(
        seen(replicas(10), _busy(10), now_s=60.0, tolerances=Tolerances(up=0.0, down=0.0))
    )
    assert corrected.desired == 11


def test_the_bounds_hold() -> None:
    loop = _loop(corrected=True)
    loop.run(seen(replicas(20), _busy(20), now_s=60.0))
    assert loop.desired == 20


@pytest.mark.parametrize("variant", [SHIPPED, CORRECTED])
def test_the_hpa_waits_four_minutes(variant: str) -> None:
    assert WVA_BEHAVIOR is not None
    setting = Setting(knob=0.8, variant=variant, behaviour=Behaviour.OWN)
    controller = PEERS["wva-saturation"].build(setting, context())
    assert controller.act(view(0.0, replicas(2))) is None, "its loop; nothing is known yet"
    assert controller.act(view(3.0, replicas(2))) == 2
    for one in _busy(2)._scrapes:
        controller.scraped(one.counters, None)
    raised_at_s = None
    while controller.next_at_s < 400.0 and raised_at_s is None:
        now_s = controller.next_at_s
        controller.scraped(scrape(now_s, {0: {"blocks_used": 90}, 1: {"blocks_used": 90}}), None)
        if controller.act(view(now_s, replicas(2))) == 3:
            raised_at_s = now_s
    # Wanted from 60 s on.  The count that the first sync found, at 3 s, leaves the window of 240 s
    # at 243 s; the syncs before 60 s had no metric and left nothing.
    assert raised_at_s == 243.0
