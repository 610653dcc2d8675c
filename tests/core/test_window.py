"""Windows forget what has left them; quantiles and decay follow their formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.window import Peaks, decay, highest, normal_quantile, push_peak, quantile


def test_a_peak_is_kept_for_the_span_and_no_longer() -> None:
    peaks = push_peak((), 7, now_s=0.0, span_s=300.0)
    peaks = push_peak(peaks, 3, now_s=15.0, span_s=300.0)
    assert highest(peaks, now_s=300.0, span_s=300.0) == 7
    assert highest(peaks, now_s=301.0, span_s=300.0) == 3
    assert highest(peaks, now_s=316.0, span_s=300.0) is None
    assert highest((), now_s=0.0, span_s=300.0) is None


@given(st.lists(st.tuples(st.floats(0.0, 200.0), st.integers(0, 50)), max_size=40))
def test_the_highest_is_that_of_the_whole_history_and_the_memory_is_bounded(
    moves: list[tuple[float, int]],
) -> None:
    peaks: Peaks = ()
    history: list[tuple[float, int]] = []
    now_s = 0.0
    for elapsed_s, value in moves:
        now_s += elapsed_s
        history.append((now_s, value))
        peaks = push_peak(peaks, value, now_s=now_s, span_s=300.0)
        expected = max(kept for at_s, kept in history if at_s >= now_s - 300.0)
        assert highest(peaks, now_s=now_s, span_s=300.0) == expected
        values = [kept for _, kept in peaks]
        assert values == sorted(set(values), reverse=True)  # strictly descending: at most 51


@pytest.mark.parametrize(
    ("values", "ratio", "expected"),
    [
        ((5.0,), 0.9, 5.0),
        ((3.0, 1.0, 2.0), 0.5, 2.0),
        ((0.0, 10.0), 0.25, 2.5),  # position 0.25 of 1
        ((1.0, 2.0, 3.0, 4.0), 0.9, 3.7),  # position 2.7
        ((1.0, 2.0), 1.0, 2.0),
    ],
)
def test_quantiles_interpolate(values: tuple[float, ...], ratio: float, expected: float) -> None:
    assert quantile(values, ratio) == pytest.approx(expected)


def test_a_quantile_of_nothing_is_a_programmers_mistake() -> None:
    with pytest.raises(AssertionError):
        quantile((), 0.5)


def test_decay_is_exponential_and_time_does_not_run_backwards() -> None:
    assert decay(30.0, 30.0) == pytest.approx(math.exp(-1.0))
    assert decay(0.0, 30.0) == 1.0
    assert decay(-5.0, 30.0) == 1.0


def test_the_normal_quantile_of_a_median_is_zero() -> None:
    assert normal_quantile(0.5) == pytest.approx(0.0)
    assert normal_quantile(0.99) == pytest.approx(2.3263, abs=1e-4)
