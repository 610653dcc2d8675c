"""What would have to change: each answer is one of decide() itself, and is checked by hand."""

from dataclasses import replace

import pytest

from scaler.core.config import BoundsConfig, HpaConfig, PolicyConfig, SignalConfig
from scaler.core.explain_counterfactual import (
    Basis,
    Supposition,
    counterfactual_lines,
    counterfactuals,
    load_of,
)
from scaler.core.model import Cause, Decision, NoData, Stage
from scaler.core.policy import decide
from tests.core.play import CONFIG, observation, play, rows
from tests.core.test_policy_scripts import TREND

NO_HOLD = replace(CONFIG, hold_down=replace(CONFIG.hold_down, window_s=0.0, start_up_factor=0.0))


def basis_of(script: str, config: PolicyConfig = CONFIG) -> Basis:
    """What the last row of a script is decided from; the rows before it make the state."""
    lines = script.strip().splitlines()
    before = "\n".join(lines[:-1])
    state = play(before, config).state if len(lines) > 2 else play(script, config).state
    if len(lines) == 2:
        state = type(state)()
    last = rows(script)[-1]
    at_s = float(last.left["at_s"])
    return Basis(observation=observation(last.left), state=state, config=config, now_s=at_s)


def supposed(basis: Basis) -> dict[Supposition, tuple[int, Stage]]:
    return {
        one.supposition: (one.replicas, one.decided_by) for one in counterfactuals(basis).supposed
    }


def test_a_basis_decides_as_decide_does() -> None:
    basis = basis_of("at_s ready rate | want\n 0 3 4 | .\n 15 3 4 | .")
    again = decide(basis.observation, basis.state, basis.config, basis.now_s)[0]
    assert basis.decide() == again


def test_the_hold_lets_go_when_its_span_is_over() -> None:
    """Five were wanted at 0 s; at 45 s one request/s of 0.5 s is left, 255 s are to be waited."""
    script = "at_s ready rate | want\n 0 1 8 | .\n 15 5 8 | .\n 30 5 1 | .\n 45 5 1 | ."
    basis = basis_of(script)
    found = counterfactuals(basis)
    assert found.hold_left_s is not None
    held = dict(basis.decide().steps[-1].terms)
    assert basis.decide().decided_by is Stage.HOLD_DOWN
    assert found.hold_left_s == pytest.approx(held["span_s"] - held["since_s"])
    unheld = supposed(basis)[Supposition.NO_HOLD][0]
    assert unheld < found.replicas
    assert after(basis, found.hold_left_s + 1.0).decided_by is not Stage.HOLD_DOWN
    assert after(basis, found.hold_left_s - 1.0).decided_by is Stage.HOLD_DOWN
    assert f"the hold-down lets go in {found.hold_left_s:.0f} s" in counterfactual_lines(found)


def after(basis: Basis, seconds: float) -> Decision:
    """The same observation later, by a daemon that has watched all the while."""
    now_s = basis.now_s + seconds
    state = replace(basis.state, good_at_s=now_s)
    return decide(basis.observation, state, basis.config, now_s)[0]


def test_without_a_hold_nothing_is_left_of_it() -> None:
    found = counterfactuals(basis_of("at_s ready rate | want\n 0 1 8 | ."))
    assert found.hold_left_s is None


def test_the_load_at_which_the_count_turns_is_the_decisions_own() -> None:
    """Just there it is another count, and a millionth before it is the same."""
    basis = basis_of("at_s ready rate | want\n 0 3 4 | .\n 15 3 4 | .", NO_HOLD)
    found = counterfactuals(basis)
    assert found.load is not None
    rises, falls = found.load.rises, found.load.falls
    assert rises is not None
    assert falls is not None
    assert rises.replicas == found.replicas + 1
    assert falls.replicas == found.replicas - 1
    assert found.load.now == pytest.approx(load_of(basis.decide()))
    # The rate is the only thing that moves the load: cost stays, so the value is factor * now.
    assert rises.value == pytest.approx(rises.factor * found.load.now)
    assert falls.value == pytest.approx(falls.factor * found.load.now)
    for turn, short in ((rises, 1.0 - 1e-5), (falls, 1.0 + 1e-5)):
        assert traffic(basis, turn.factor).would_be == turn.replicas
        assert traffic(basis, turn.factor * short).would_be == found.replicas


def traffic(basis: Basis, factor: float) -> Decision:
    """So many times the requests, made by hand."""
    state, work = basis.state, basis.observation.work
    demand = replace(
        state.demand,
        requests_per_s=factor * state.demand.requests_per_s,
        arrived_per_s=factor * state.demand.arrived_per_s,
    )
    level = None if state.work_level is None else factor * state.work_level
    state = replace(state, demand=demand, load=factor * state.load, work_level=level)
    assert not isinstance(work, NoData)
    work = replace(work, requests_arrived=factor * work.requests_arrived)
    seen = replace(basis.observation, work=work)
    return decide(seen, state, basis.config, basis.now_s)[0]


def test_while_it_is_held_no_load_lowers_it_but_later_one_does() -> None:
    basis = basis_of("at_s ready rate | want\n 0 1 8 | .\n 15 5 8 | .")
    found = counterfactuals(basis)
    assert found.load is not None
    assert found.load.falls is None
    assert found.load.falls_unheld is not None
    assert found.load.falls_unheld.replicas < found.replicas
    text = " ".join(counterfactual_lines(found))
    assert "no load of the moment makes it fewer now; when the hold-down is over" in text


def test_where_only_the_hold_keeps_it_the_present_load_is_low_enough() -> None:
    basis = basis_of("at_s ready rate | want\n 0 1 8 | .\n 15 5 8 | .\n 30 5 1 | .\n 45 5 1 | .")
    load = counterfactuals(basis).load
    assert load is not None
    assert load.falls_unheld is not None
    assert load.falls_unheld.factor == 1.0
    assert load.falls_unheld.value == load.now


def test_at_the_maximum_no_load_makes_it_more() -> None:
    capped = replace(NO_HOLD, bounds=BoundsConfig(replicas_max=2))
    basis = basis_of("at_s ready rate | want\n 0 2 40 | .\n 15 2 40 | .", capped)
    found = counterfactuals(basis)
    assert found.load is not None
    assert found.load.rises is None
    assert supposed(basis)[Supposition.NO_BOUNDS][0] > 2
    assert any("times that of now makes it more" in line for line in counterfactual_lines(found))


def test_at_the_minimum_no_load_makes_it_fewer() -> None:
    found = counterfactuals(
        basis_of("at_s ready rate | want\n 0 1 0.1 | .\n 15 1 0.1 | .", NO_HOLD)
    )
    assert found.load is not None
    assert (found.load.falls, found.load.falls_unheld) == (None, None)
    assert any("fewer than 1, held or not" in line for line in counterfactual_lines(found))


@pytest.mark.parametrize(
    ("supposition", "config", "script", "stage"),
    [
        (
            Supposition.NO_QUEUE, NO_HOLD,
            "at_s ready rate waiting | want\n 0 2 8 40 | .", Stage.QUEUE,
        ),
        (
            Supposition.NO_LATENCY, NO_HOLD,
            "at_s ready rate ttft | want\n 0 4 . 0:0:0:0:0 | .\n 15 4 2.6 90:4:6:0:0 | .",
            Stage.VETO,
        ),
        (
            Supposition.NO_GPU, replace(NO_HOLD, signals=SignalConfig(gpu_util_target_ratio=0.8)),
            "at_s ready running gpu | want\n 0 4 9 1.0 | .", Stage.GPU,
        ),
        (
            Supposition.NO_MARGIN, replace(NO_HOLD, hold_down=replace(
                NO_HOLD.hold_down, margin_ratio=0.9)),
            "at_s ready rate | want\n 0 4 4.7 | .\n 15 4 4.7 | .", Stage.KEEP,
        ),
        (
            Supposition.GRACE_OVER, replace(CONFIG, freshness=replace(
                CONFIG.freshness, floor_replicas=9)),
            "at_s ready rate engines | want\n 0 3 4 . | .\n 15 3 0 -stale | .", Stage.BLIND,
        ),
        (
            Supposition.NO_TOLERANCE, replace(NO_HOLD, hpa=HpaConfig()),
            "at_s ready rate | want\n 0 20 33 | .", Stage.UNREACHABLE_STEP,
        ),
    ],
)  # fmt: skip
def test_without_what_decided_another_count_is_wanted(
    supposition: Supposition, config: PolicyConfig, script: str, stage: Stage
) -> None:
    basis = basis_of(script, config)
    assert basis.decide().decided_by is stage
    replicas, decided_by = supposed(basis)[supposition]
    assert replicas != basis.decide().would_be
    assert decided_by is not stage
    lines = counterfactual_lines(counterfactuals(basis))
    assert f"{supposition}: {replicas} (by {decided_by})" in lines


def test_without_the_forecast_the_load_of_the_moment_decides() -> None:
    script = "at_s ready rate | want\n" + "".join(
        f"{15 * i} 40 {2 + 0.1 * i:.2f} | .\n" for i in range(60)
    )
    config = replace(TREND, hold_down=NO_HOLD.hold_down)
    script = script.replace(" 40 ", " 1 ")
    basis = basis_of(script, config)
    assert basis.decide().decided_by is Stage.FORECAST
    replicas, decided_by = supposed(basis)[Supposition.NO_FORECAST]
    assert replicas < basis.decide().would_be
    assert decided_by is Stage.WORK


def test_a_signal_that_is_missed_holds_the_count_and_is_named() -> None:
    script = "at_s ready rate kv | want\n 0 4 8 0.1 | .\n 15 4 0.5 - | ."
    basis = basis_of(script, NO_HOLD)
    assert basis.decide().decided_by is Stage.BLIND
    assert supposed(basis)[Supposition.ALL_SEEN] == (3, Stage.KEEP)


def test_a_blind_decision_knows_of_no_load() -> None:
    basis = basis_of("at_s ready rate engines | want\n 0 3 4 . | .\n 15 3 0 -stale | .")
    found = counterfactuals(basis)
    assert (found.load, found.budget, found.hold_left_s) == (None, None, None)
    never = basis_of("at_s ready rate engines | want\n 0 3 0 -stale | .")
    assert counterfactuals(never).load is None


def spending(ttft: str, doubt: float) -> Basis:
    """Five minutes of twenty replicas at nine replicas' load, with so many requests late."""
    config = replace(NO_HOLD, capacity=replace(CONFIG.capacity, prior_uncertainty_factor=doubt))
    script = "at_s ready rate ttft | want\n 0 20 18 . | .\n" + "".join(
        f" {15 * place} 20 18 {ttft} | .\n" for place in range(1, 20)
    )
    return basis_of(script, config)


def spent(basis: Basis, factor: float) -> Decision:
    """So many times the misses, made by hand."""
    budget = basis.state.budget
    budget = replace(budget, missed=factor * budget.missed)
    state = replace(basis.state, budget=budget)
    return decide(basis.observation, state, basis.config, basis.now_s)[0]


def test_what_the_budget_changes_is_found_by_spending_it() -> None:
    """A capacity known to a factor of four makes the price of a miss count both ways."""
    basis = spending("90:0:0:10:0", 4.0)
    found = counterfactuals(basis)
    assert found.budget is not None
    rises, falls = found.budget.rises, found.budget.falls
    assert rises is not None
    assert falls is not None
    assert falls.value < found.budget.now < rises.value
    assert spent(basis, rises.factor).would_be == rises.replicas > found.replicas
    assert spent(basis, falls.factor).would_be == falls.replicas < found.replicas
    assert spent(basis, 0.5 * (1.0 + rises.factor)).would_be == found.replicas
    assert spent(basis, 0.5 * (1.0 + falls.factor)).would_be == found.replicas
    lines = counterfactual_lines(found)
    assert f"{found.budget.now:.0%} of the allowed misses are spent" in lines
    assert f"{rises.replicas} with {rises.value:.0%} of them spent" in lines
    assert f"{falls.replicas} with {falls.value:.0%} of them spent" in lines


def test_a_budget_that_falls_only_after_the_hold_says_so() -> None:
    basis = spending("90:0:0:10:0", 4.0)
    held = replace(basis, config=replace(basis.config, hold_down=CONFIG.hold_down))
    before = counterfactuals(basis).replicas
    held = replace(held, state=replace(held.state, raised_at_s=held.now_s, last_count=before))
    lines = counterfactual_lines(counterfactuals(held))
    assert any(line.endswith("of them spent, when the hold-down is over") for line in lines)


def test_without_a_miss_so_far_some_are_supposed() -> None:
    """Of some thousand requests none was late: if most had been, the price would be higher."""
    basis = spending("100:0:0:0:0", 4.0)
    assert basis.state.budget.missed == 0.0
    found = counterfactuals(basis)
    assert found.budget is not None
    assert found.budget.rises is not None
    assert found.budget.rises.replicas > found.replicas
    assert found.budget.rises.value > found.budget.now


def test_where_the_price_is_nothing_to_a_count_it_is_said() -> None:
    basis = basis_of("at_s ready rate | want\n 0 3 4 | .\n 15 3 4 | .", NO_HOLD)
    lines = counterfactual_lines(counterfactuals(basis))
    assert "no other share of them changes the count now" in lines


def test_without_kubernetes_and_without_work_counters_it_is_still_told() -> None:
    """The rate of the tick before stands where the counters are missing."""
    away = basis_of("at_s wanted rate | want\n 0 3 4 | .\n 15 - 4 | .", NO_HOLD)
    found = counterfactuals(away)
    assert found.replicas == 3
    assert found.load is not None
    assert found.load.rises is not None
    silent = basis_of("at_s ready rate | want\n 0 3 4 | .\n 15 3 4 | .", NO_HOLD)
    seen = replace(silent.observation, work=NoData(cause=Cause.ABSENT))
    unseen = counterfactuals(replace(silent, observation=seen))
    assert unseen.load is not None
    assert unseen.load.now > 0.0
    assert unseen.load.rises is not None
    assert unseen.budget is None  # nothing was sized at a price


def test_a_decision_without_data_has_no_load() -> None:
    blind = basis_of("at_s ready rate engines | want\n 0 3 4 . | .\n 15 3 0 -stale | .")
    assert load_of(blind.decide()) == 0.0
