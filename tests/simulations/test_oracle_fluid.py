"""The fluid that stands for a trace, and the counts that are cheapest for it."""

import dataclasses

import numpy as np
import pytest

from simulations.attainable import Objectives
from simulations.oracle_fluid import (
    LATE_AT,
    Fluid,
    FluidTask,
    cheapest_counts,
    corrected,
    fluid_of,
    learned,
    through,
)
from simulations.trace_chunks import Requests
from tests.simulations.oracle_cases import MODEL

CELL_S = 30.0


def _fluid(rates_per_s: list[float]) -> Fluid:
    """Even arrivals of 500 prompt and 30 output tokens, a rate for each minute."""
    arrivals = np.concatenate(
        [
            minute * 60.0 + np.arange(round(rate * 60)) / rate
            for minute, rate in enumerate(rates_per_s)
        ]
    )
    count = arrivals.size
    requests = Requests(
        arrival_s=arrivals,
        prompt_tokens=np.full(count, 500, dtype=np.int32),
        output_tokens=np.full(count, 30, dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )
    return fluid_of(requests, MODEL, Objectives(ttft_s=1.0), cell_s=CELL_S)


def _task(**changes: object) -> FluidTask:
    settings: dict[str, object] = {
        "replicas_first": 1,
        "replicas_min": 1,
        "replicas_max": 6,
        "start_up_s": 30.0,
        "miss_price_s": 10.0,
    }
    return FluidTask(**{**settings, **changes})  # type: ignore[arg-type]


def test_a_replica_completes_what_its_step_time_says() -> None:
    """Eight sequences: 8 / (30 * (0.08 + 8 * (0.01 + 1e-6 * 515)) + 8 * 0.1) = 1.4 a second."""
    fluid = _fluid([1.0])
    assert fluid.full[0] == pytest.approx(8.0)
    held = np.array([[1000.0]])  # so many wait that every cell is full
    after, missed = through(fluid, 0, np.array([[1.0]]), held)
    rate = 8 / (30 * (0.08 + 8 * (0.01 + 1e-6 * 515)) + 8 * 500 * 2e-4)
    assert after[0, 0] == pytest.approx(1000.0 + 30.0 - rate * CELL_S)
    assert missed[0, 0] == pytest.approx(30.0)


def test_counts_follow_a_step_and_wait_for_the_first_start() -> None:
    """A replica completes 1.4 a second: one is enough for 0.7, between two and three for 3."""
    counts = cheapest_counts(_fluid([0.7] * 10 + [3.0] * 10 + [0.7] * 10), _task())
    assert set(counts[2:18]) == {1}
    assert counts[22:40].min() >= 2
    assert counts[20:40].mean() > 3.0 / 1.4
    assert counts.max() == 3
    assert set(counts[44:]) == {1}
    crowd_first = cheapest_counts(_fluid([3.0] * 5), _task())
    assert crowd_first[0] == 1  # nobody can come before a start-up is over
    assert crowd_first[1] >= 2
    assert crowd_first.max() == 3


def test_a_miss_without_a_price_is_not_paid_for() -> None:
    counts = cheapest_counts(_fluid([0.7] * 5 + [3.0] * 2 + [0.1] * 8), _task(miss_price_s=0.01))
    assert counts.max() == 1


def test_drift_leads_the_fluid_through_what_was_seen() -> None:
    fluid = _fluid([1.0, 1.0, 1.0])
    held = np.array([3.0, 6.0, 4.0, 9.0, 2.0, 1.0])
    led = corrected(fluid, ready=np.ones(6), held=held)
    at = np.zeros((1, 1))
    for cell, expected in enumerate(held):
        at, _ = through(led, cell, np.ones((1, 1)), at)
        assert at[0, 0] == pytest.approx(expected)


def test_the_share_of_misses_is_learned_by_load_and_never_falls() -> None:
    """Cells of 300 arrivals at loads 0.5 and 1 of full; 30 and 15 of them missed."""
    fluid = dataclasses.replace(_fluid([10.0] * 3), full=np.full(7, 8.0))
    learnt = learned(
        fluid,
        ready=np.ones(6),
        held=np.array([4.0, 8.0, 4.0, 8.0, 4.0, 8.0]),
        misses=np.array([30.0, 15.0, 30.0, 15.0, 30.0, 15.0]),
    )
    share = np.interp([0.5, 1.0], LATE_AT, learnt.late_ratio)
    assert share[0] == pytest.approx(0.1)
    assert share[1] == pytest.approx(0.1)
    assert np.all(np.diff(learnt.late_ratio) >= 0.0)


def test_misses_after_a_replica_came_are_not_learned() -> None:
    fluid = dataclasses.replace(_fluid([10.0] * 3), full=np.full(7, 8.0))
    ready = np.array([1.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    learnt = learned(
        fluid, ready=ready, held=np.full(6, 4.0), misses=np.array([0.0, 0.0, 99, 99, 99, 99])
    )
    assert learnt.late_ratio.max() == 0.0
