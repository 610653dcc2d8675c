"""Maxima, quantiles and limits.  Every function takes ``now_s``; windows forget what has left."""

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import TypeAlias

_NORMAL = NormalDist()

Peaks: TypeAlias = tuple[tuple[float, int], ...]
"""(at_s, value) pairs: times ascending, values strictly descending, so only possible maxima."""


def push_peak(peaks: Peaks, value: int, *, now_s: float, span_s: float) -> Peaks:
    """``peaks`` with ``value`` added at ``now_s`` and everything older than ``span_s`` forgotten.

    Values at or below the new one can never be the maximum again and are dropped, so the length
    is bounded by the number of distinct counts in the window.
    """
    horizon_s = now_s - span_s
    kept = [peak for peak in peaks if peak[0] >= horizon_s and peak[1] > value]
    kept.append((now_s, value))
    return tuple(kept)


def highest(peaks: Peaks, *, now_s: float, span_s: float) -> int | None:
    """The largest value not older than ``span_s``; None when there is none."""
    horizon_s = now_s - span_s
    return max((value for at_s, value in peaks if at_s >= horizon_s), default=None)


def quantile(values: Sequence[float], ratio: float) -> float:
    """The ``ratio`` quantile by linear interpolation (type 7 of Hyndman and Fan 1996).

    ``values`` need not be sorted and must not be empty.
    """
    assert values, "a quantile needs at least one value"
    ordered = sorted(values)
    position = ratio * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@cache
def normal_quantile(ratio: float) -> float:
    """The ``ratio`` quantile of the standard normal distribution; ratios come from settings."""
    return _NORMAL.inv_cdf(ratio)


def within(value: float, low: float, high: float) -> float:
    """``value``, or the end that it is beyond: min(max()) at half the price."""
    if value < low:
        return low
    return high if value > high else value


def decay(elapsed_s: float, time_constant_s: float) -> float:
    """Weight that remains of the past after ``elapsed_s``: exp(-elapsed / time constant)."""
    if elapsed_s <= 0.0:
        return 1.0
    return math.exp(-elapsed_s / time_constant_s)
