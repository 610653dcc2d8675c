"""Knative's KPA: windows, bounds and panic, reckoned by hand."""

import pytest

from simulations.peers.knative import KpaSettings, KpaState, kpa_start, kpa_step

CALM = KpaState()
TEN = KpaSettings(target=10.0)


def test_the_stable_window_decides_in_calm() -> None:
    # ceil(45 / 10) = 5; the panic window's ceil(70 / 10) = 7 is below 2 * 4
    count, state = kpa_step(TEN, CALM, stable=45.0, panic=70.0, ready=4, now_s=100.0)
    assert (count, state) == (5, CALM)


@pytest.mark.parametrize(
    ("stable", "ready", "count"),
    [
        (0.0, 5, 2),  # floor(5 / 2), not 0
        (5.0, 1, 1),  # floor(1 / 2) = 0, ceil(5 / 10) = 1
        (0.0, 1, 0),  # the run's minimum is not Knative's business here
        (30.0, 0, 3),  # nothing ready counts as one
    ],
)
def test_a_step_down_is_at_most_a_halving(stable: float, ready: int, count: int) -> None:
    found, _ = kpa_step(TEN, CALM, stable=stable, panic=stable, ready=ready, now_s=0.0)
    assert found == count


def test_a_step_up_is_at_most_a_thousandfold() -> None:
    # ceil(25000 / 10) = 2500 is held to ceil(2 * 1000) = 2000, in panic as in calm
    found, _ = kpa_step(TEN, CALM, stable=25_000.0, panic=25_000.0, ready=2, now_s=0.0)
    assert found == 2000


def test_panic_begins_at_twice_the_ready_pods_and_only_rises() -> None:
    # ceil(75 / 10) / 4 = 2.0: panic, max(ceil(45 / 10), 8) = 8
    count, state = kpa_step(TEN, CALM, stable=45.0, panic=75.0, ready=4, now_s=100.0)
    assert (count, state) == (8, KpaState(panic_at_s=100.0, panic_replicas=8))
    # the burst is over: 8 stays, and the panic's time does not move
    count, later = kpa_step(TEN, state, stable=50.0, panic=20.0, ready=4, now_s=130.0)
    assert (count, later) == (8, state)
    # still above the threshold: extended
    _, extended = kpa_step(TEN, state, stable=50.0, panic=80.0, ready=4, now_s=130.0)
    assert extended.panic_at_s == 130.0


def test_panic_ends_after_the_stable_window() -> None:
    state = KpaState(panic_at_s=100.0, panic_replicas=8)
    at_60_s, _ = kpa_step(TEN, state, stable=30.0, panic=10.0, ready=8, now_s=160.0)
    assert at_60_s == 8, "60 s must have passed, not just be reached"
    after, over = kpa_step(TEN, state, stable=30.0, panic=10.0, ready=8, now_s=160.1)
    assert (after, over) == (4, CALM)  # ceil(30 / 10) = 3, held to floor(8 / 2)


def test_a_restart_beside_several_pods_begins_in_panic() -> None:
    assert kpa_start(1, now_s=7.0).panic_at_s is None
    state = kpa_start(6, now_s=7.0)
    count, _ = kpa_step(TEN, state, stable=1.0, panic=1.0, ready=6, now_s=9.0)
    assert count == 6, "a fresh autoscaler has no history to scale in on"


def test_in_panic_the_larger_window_counts() -> None:
    # ceil(95 / 10) = 10 over a minute, ceil(80 / 10) = 8 over six seconds
    count, _ = kpa_step(TEN, CALM, stable=95.0, panic=80.0, ready=4, now_s=0.0)
    assert count == 10
