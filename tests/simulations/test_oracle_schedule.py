"""Schedules on the grid, the controller that commands them, and changes to them."""

import math
from typing import NoReturn

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.core.model import Replicas
from simulations.controller import View
from simulations.oracle_moves import Move, drawn_move, moved
from simulations.oracle_replay import Deployment
from simulations.oracle_schedule import (
    GRID_S,
    ScheduleController,
    commanded,
    spread,
    steps_of,
)
from tests.simulations.oracle_cases import CASE_DEPLOYMENT


def _view(now_s: float) -> View:
    replicas = Replicas(
        seen_at_s=now_s, wanted=1, current=1, ready=1, starting_age_s=(), unschedulable=0,
        crash_looping=0, terminating=0, start_up_s=(), gpus_per_replica=1, gpus_allocatable=None,
    )  # fmt: skip
    return View(
        now_s=now_s, acted_at_s=0.0, wanted=1, current=1, ready=(0,),
        status=lambda since_s: replicas, scrape=None, gpu_ratio=None, live=_no_counters,
    )  # fmt: skip


def _no_counters() -> NoReturn:
    raise AssertionError("a schedule looks at nothing")


def test_the_controller_sets_each_count_at_its_time() -> None:
    controller = ScheduleController([(0.0, 2), (30.0, 5), (45.0, 1)])
    assert controller.next_at_s == 0.0
    assert controller.act(_view(0.0)) == 2
    assert controller.next_at_s == 30.0
    assert controller.act(_view(15.0)) is None
    assert controller.act(_view(50.0)) == 1  # two were due: the later one holds
    assert controller.next_at_s == math.inf
    assert controller.act(_view(60.0)) is None
    assert controller.decision is None


def test_steps_are_where_counts_change() -> None:
    counts = np.array([1, 1, 3, 3, 2])
    assert steps_of(counts, first=1) == ((2 * GRID_S, 3), (4 * GRID_S, 2))
    assert steps_of(counts, first=4)[0] == (0.0, 1)


def test_who_must_be_ready_is_commanded_a_start_up_before() -> None:
    """Three in cells 5 and 6, starts of two cells: commanded from cell 3 on, given up at 7."""
    ready = np.array([1, 1, 1, 1, 1, 3, 3, 1, 1, 1])
    expected = [1, 1, 1, 3, 3, 3, 3, 1, 1, 1]
    assert commanded(ready, lead_cells=2, valley_cells=1).tolist() == expected


def test_a_short_valley_is_filled_and_a_long_one_is_not() -> None:
    """Valleys of 2 and 4 cells, no lead: what is shorter than 3 cells is kept."""
    ready = np.array([2, 1, 1, 2, 2, 1, 1, 1, 1, 2])
    expected = [2, 2, 2, 2, 2, 1, 1, 1, 1, 2]
    assert commanded(ready, lead_cells=0, valley_cells=3).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(
    spans=st.lists(
        st.tuples(st.floats(0.0, 200.0), st.floats(0.0, 90.0), st.floats(0.1, 9.0)),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_spread_keeps_its_sum_and_its_place(
    spans: list[tuple[float, float, float]],
) -> None:
    starts, lengths, amounts = (np.array(each) for each in zip(*spans, strict=True))
    cells = 30  # 450 s: everything ends within
    summed = spread(starts, lengths, amounts, cells=cells)
    assert np.isclose(summed.sum(), amounts.sum())
    assert summed.min() >= -1e-9
    before = int(starts.min() // GRID_S)
    assert np.allclose(summed[:before], 0.0, atol=1e-9)


def test_an_amount_is_spread_evenly() -> None:
    """From 7.5 s over 30 s: half a cell, a cell, half a cell of 15 s each."""
    summed = spread(np.array([7.5]), np.array([30.0]), np.array([4.0]), cells=4)
    assert np.allclose(summed, [1.0, 2.0, 1.0, 0.0])


def test_a_move_stays_within_the_bounds() -> None:
    deployment: Deployment = CASE_DEPLOYMENT
    counts = np.array([1, 2, 3, 3])
    up = Move(block=0, begin=1, end=4, change=1)
    down = Move(block=0, begin=0, end=2, change=-1)
    assert moved(counts, up, deployment).tolist() == [1, 3, 3, 3]  # at most 3
    assert moved(counts, down, deployment).tolist() == [1, 1, 3, 3]  # at least 1
    assert counts.tolist() == [1, 2, 3, 3]


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(1, 3), min_size=2, max_size=60),
    begin=st.integers(0, 40),
    seed=st.integers(0, 1000),
)
def test_a_drawn_move_changes_something_in_reach(counts: list[int], begin: int, seed: int) -> None:
    cells = range(min(begin, len(counts) - 1), len(counts))
    move = drawn_move(np.array(counts), block=0, cells=cells, random=np.random.default_rng(seed))
    assert cells.start - 1 <= move.begin < move.end <= len(counts)
    assert move.begin >= 0
    assert abs(move.change) == 1
