"""PHPA: the live number and its forecasts, by hand."""

from simulations.peers import PEERS, Setting
from simulations.peers.hpa_phpa import ReplicaForecasts
from simulations.replica import StartUp, constant, lognormal
from simulations.scenario import Behaviour
from tests.simulations.peers.test_hpa_controller import context
from tests.simulations.scrapes import replicas, scrape, view
from tests.simulations.small_fleet import model


def _forecasts(*numbers: int, lead_s: float = 30.0) -> ReplicaForecasts:
    made = ReplicaForecasts(lead_s=lead_s)
    for at, number in enumerate(numbers):
        made.add(number, 15.0 * at)
    return made


def test_a_line_needs_six_numbers_and_looks_the_lead_ahead() -> None:
    assert _forecasts(1, 2, 3, 4, 5).line() == 0
    assert _forecasts(1, 2, 3, 4, 5, 6).line() == 8  # one each 15 s, two more in 30 s
    assert _forecasts(9, 9, 1, 2, 3, 4, 5, 6).line() == 8, "only the last six count"


def test_the_season_needs_sixteen_numbers() -> None:
    assert _forecasts(*[3] * 15).season() == 0
    assert _forecasts(*[3] * 16).season() == 3
    assert _forecasts(*[1, 1, 1, 1, 1, 4] * 4)._numbers.maxlen == 24
    # The next of a season of six is the 1 after the 4; the one before it foresees the 4.
    assert _forecasts(*[1, 1, 1, 1, 1, 4] * 4).season() == 1
    assert _forecasts(*([1, 1, 1, 1, 1, 4] * 3), 1, 1, 1, 1, 1).season() == 4


def test_a_forecast_can_only_add() -> None:
    falling = _forecasts(9, 8, 7, 6, 5, 4)
    assert falling.line() == 2
    assert falling.highest() == 4
    assert _forecasts(4, 5, 6, 7, 8, 9).highest() == 11
    seasonal = _forecasts(*([1, 1, 1, 1, 1, 4] * 3), 1, 1, 1, 1, 1)
    assert seasonal.line() <= 1
    assert seasonal.highest() == 4


def test_the_live_number_goes_through_the_hpa_with_its_forecast() -> None:
    """Waiting rises by 5 a sync, so the live number by 1: a start-up of 100 s is 6.67 syncs ahead.

    The counts follow with ours, which limits at 4 or 100 % in 15 s.
    """
    start_up = StartUp(
        scheduling=constant(10.0), image=constant(0.0),
        weights=lognormal(40.0, 80.0), compile=constant(50.0),
    )  # fmt: skip
    made = context(model=model(start_up=start_up))
    controller = PEERS["phpa-holt-winters"].build(Setting(knob=5.0, behaviour=Behaviour.OURS), made)
    counts, current = [], 1
    for sync in range(6):
        now_s = 3.0 + 15.0 * sync
        controller.scraped(scrape(now_s, {0: {"requests_waiting": 5.0 * (sync + 1)}}), None)
        current = controller.act(view(now_s, replicas(current))) or current
        counts.append(current)
    assert counts[:5] == [1, 2, 3, 4, 5]
    # 6 + 6.67 = 12.67 would be 13; from 5 it may be 10 at once.
    assert counts[5] == 10


def test_what_is_remembered_stays_within_the_bounds() -> None:
    """A sync asks for 200,000: 20 are remembered.

    Two syncs later a line through 1, 1, 1, 20, 1, 1 has the mean 4.17 and rises by 0.5 * 19 / 17.5
    a sync, 5.52 now, and the lead is 0.
    """
    none = constant(0.0)
    start_up = StartUp(scheduling=none, image=none, weights=none, compile=none)
    made = context(model=model(start_up=start_up))
    controller = PEERS["phpa-holt-winters"].build(Setting(knob=5.0, behaviour=Behaviour.OURS), made)
    count: int | None = 1
    for sync, waiting in enumerate((5.0, 5.0, 5.0, 1e6, 5.0, 5.0)):
        now_s = 3.0 + 15.0 * sync
        controller.scraped(scrape(now_s, {0: {"requests_waiting": waiting}}), None)
        count = controller.act(view(now_s, replicas(20)))
    assert count == 6
