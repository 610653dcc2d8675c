"""The search for a knob value in hindsight: what it asks, where it ends, what it interpolates."""

import dataclasses
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.frontier import (
    FIRST_MAX,
    TRIES_MAX,
    Knob,
    Point,
    Search,
    ask,
    envelope,
    gpu_hours_at,
    near,
    told,
)

TARGET = 0.99


def _point(attainment: float, hours: float, knob: float = 0.0) -> Point:
    return Point(knob=knob, attainment_ratio=attainment, gpu_hours=hours)


def _searched(
    knob: Knob, model: Callable[[float], Point | None], start: tuple[float, ...] = ()
) -> Search:
    search = Search(knob=knob, target=TARGET, start=start)
    while values := ask(search):
        search = told(search, {value: model(value) for value in values})
        assert len(search.points) + len(search.failed) <= TRIES_MAX
    return search


def _smooth(value: float) -> Point:
    """A queue threshold: attains 1 - (value / 100)^2, takes 1000 / (1 + value / 10) GPU-hours."""
    return _point(1.0 - (value / 100.0) ** 2, 1000.0 / (1.0 + value / 10.0), value)


# The envelope


def test_the_envelope_leaves_out_what_is_beaten() -> None:
    cheap, fair, dear = _point(0.9, 100.0), _point(0.99, 200.0), _point(0.995, 300.0)
    beaten = [_point(0.9, 101.0), _point(0.95, 250.0), _point(0.99, 200.5), _point(0.8, 100.0)]
    assert envelope([dear, *beaten, cheap, fair]) == (cheap, fair, dear)


def test_gpu_hours_are_interpolated_between_neighbours_of_the_envelope() -> None:
    points = [_point(0.98, 100.0), _point(0.995, 160.0), _point(0.999, 400.0)]
    # 0.99 lies two thirds of the way from 0.98 to 0.995: 100 + 60 * 2 / 3
    assert gpu_hours_at(points, TARGET) == pytest.approx(140.0)
    assert gpu_hours_at(points, 0.995) == pytest.approx(160.0)


@pytest.mark.parametrize(
    ("best", "hours"), [(0.9871, 80.0), (0.9869, None), (0.99, 80.0), (0.9999, 80.0)]
)
def test_a_target_counts_as_reached_from_0_003_below(best: float, hours: float | None) -> None:
    assert gpu_hours_at([_point(best, 80.0), _point(0.5, 70.0)], TARGET) == pytest.approx(
        hours if best < TARGET or hours is None else _between(best)
    )


def _between(best: float) -> float:
    """From 70 h at 0.5 to 80 h at the best: the share of the way to 0.99."""
    return 70.0 + 10.0 * (TARGET - 0.5) / (best - 0.5)


def test_cheaper_than_all_that_was_seen_is_not_claimed() -> None:
    assert gpu_hours_at([_point(0.999, 300.0), _point(0.995, 250.0)], TARGET) == 250.0
    assert gpu_hours_at([], TARGET) is None


@given(
    st.lists(
        st.tuples(st.floats(0.5, 1.0), st.floats(1.0, 1000.0)), min_size=1, max_size=12
    )
)  # fmt: skip
def test_more_attainment_never_costs_less(points: list[tuple[float, float]]) -> None:
    made = [_point(*point) for point in points]
    hours = [gpu_hours_at(made, target) for target in (0.6, 0.7, 0.8, 0.9, 0.99)]
    known = [value for value in hours if value is not None]
    assert known == sorted(known)
    assert hours[: len(known)] == known, "what is not reached stays out of reach further up"
    dearest = max(point.gpu_hours for point in made)
    assert all(1.0 <= value <= dearest for value in known)


# The search


def test_a_search_ends_close_to_the_truth() -> None:
    """1 - (k / 100)^2 = 0.99 at k = 10, which takes 1000 / 2 = 500 GPU-hours."""
    search = _searched(Knob(name="queue", values=(1.0, 3.0, 5.0, 15.0, 30.0, 60.0)), _smooth)
    assert search.gpu_hours == pytest.approx(500.0, rel=0.01)
    assert FIRST_MAX < len(search.points) <= 9, "bisection, no sweep of everything"


@pytest.mark.parametrize("values", [(30.0, 60.0, 90.0), (1.0, 2.0, 4.0), (4.0, 8.0)])
def test_a_search_goes_beyond_the_declared_values(values: tuple[float, ...]) -> None:
    """10 lies below or above all of them; 4 * 2 is within reach of the last."""
    search = _searched(Knob(name="queue", values=values), _smooth)
    assert search.gpu_hours == pytest.approx(500.0, rel=0.02)


def test_it_goes_no_further_than_the_knob_may() -> None:
    knob = Knob(name="share", values=(0.2, 0.4, 0.6), low=0.15, high=1.0)
    seen: list[float] = []

    def never(value: float) -> Point:
        seen.append(value)
        return _point(0.5 - 0.1 * value, 100.0 - value, value)

    search = _searched(knob, never)
    assert search.gpu_hours is None
    assert min(seen) == 0.15
    assert max(seen) == 0.6, "the far end attains less still"


def test_the_safe_end_may_be_either() -> None:
    """Mirrored: the higher the knob, the safer."""
    knob = Knob(name="headroom", values=(1.0, 2.0, 30.0, 60.0))
    search = _searched(knob, lambda value: dataclasses.replace(_smooth(100.0 / value), knob=value))
    assert search.gpu_hours == pytest.approx(500.0, rel=0.02)  # at 100 / 10 = 10


def test_a_search_may_begin_near_what_is_known() -> None:
    """From a value next to the truth it takes few runs; from one far off it steps back."""
    knob = Knob(name="queue", values=(1.0, 3.0, 5.0, 15.0, 30.0, 60.0))
    assert near(knob, 11.0) == (5.0, 15.0)
    assert near(knob, 15.0) == (5.0, 30.0)
    assert near(knob, 0.5) == (1.0, 3.0)
    assert near(knob, 60.0) == (15.0, 30.0)
    assert near(Knob(name="k", values=(2.0,)), 2.0) == ()
    assert len(_searched(knob, _smooth, start=near(knob, 11.0)).points) <= 6
    far = _searched(knob, _smooth, start=near(knob, 50.0))
    assert far.points[-1].knob == 60.0
    assert far.gpu_hours == pytest.approx(500.0, rel=0.01)
    assert {15.0, 5.0} <= {point.knob for point in far.points}, "declared values, one by one"


def test_one_point_says_nothing_of_the_way() -> None:
    """What remains of the declared values is tried until there are two."""
    knob = Knob(name="queue", values=(1.0, 5.0, 15.0, 30.0, 60.0))
    search = _searched(knob, _smooth, start=(60.0,))
    assert search.gpu_hours == pytest.approx(500.0, rel=0.01)


def test_a_whole_knob_gets_whole_numbers() -> None:
    knob = Knob(name="requests", values=(1.0, 7.0, 40.0), whole=True)
    search = _searched(knob, _smooth)
    assert all(point.knob.is_integer() for point in search.points)
    assert search.gpu_hours == pytest.approx(500.0, rel=0.05)


def test_values_that_cannot_be_run_are_left_out() -> None:
    search = _searched(
        Knob(name="queue", values=(1.0, 5.0, 20.0, 80.0)),
        lambda value: None if value > 50.0 else _smooth(value),
    )
    assert search.failed == {80.0}
    assert search.gpu_hours == pytest.approx(500.0, rel=0.01)


def test_nothing_that_can_be_run_ends_the_search() -> None:
    search = _searched(Knob(name="queue", values=(1.0, 5.0)), lambda _: None)
    assert (search.points, search.gpu_hours) == ((), None)


def test_one_value_is_a_search_too() -> None:
    search = _searched(Knob(name="queue", values=(5.0,)), _smooth)
    assert [point.knob for point in search.points] == [5.0]


def test_the_best_point_reaches_the_target_if_any_does() -> None:
    reached = Search(
        knob=Knob(name="k", values=(1.0,)),
        target=TARGET,
        points=(_point(0.999, 300.0, 1.0), _point(0.988, 150.0, 2.0), _point(0.98, 100.0, 3.0)),
    )
    assert reached.best.knob == 2.0  # 0.988 is less than 0.003 below 0.99
    missed = Search(knob=reached.knob, target=0.9999999, points=reached.points[1:])
    assert missed.best.knob == 2.0


@given(
    st.lists(st.floats(0.01, 1e4), min_size=1, max_size=10, unique=True),
    st.randoms(use_true_random=False),
)
def test_every_search_ends_and_asks_nothing_twice(values: list[float], random) -> None:  # type: ignore[no-untyped-def]
    """Whatever the runs come to, however little they follow the knob."""
    asked: list[float] = []

    def erratic(value: float) -> Point | None:
        asked.append(value)
        if random.random() < 0.1:
            return None
        return _point(random.uniform(0.9, 1.0), random.uniform(1.0, 100.0), value)

    _searched(Knob(name="k", values=tuple(values)), erratic)
    assert len(asked) == len(set(asked)) <= TRIES_MAX
    assert all(math.isfinite(value) for value in asked)
