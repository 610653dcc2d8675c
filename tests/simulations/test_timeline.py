"""The percentile of a row, as ``histogram_quantile`` gives it."""

import math

import pytest

from scaler.core.model import Latency
from simulations.timeline import percentiles


def latency(*counts: float) -> Latency:
    return Latency(
        seen_at_s=0.0, coverage_ratio=1.0, window_s=60.0, bounds_s=(0.1, 0.5, 2.0), counts=counts
    )


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ((10.0, 0.0, 0.0, 0.0), 0.5, 0.05),  # half way through [0, 0.1]
        ((6.0, 4.0, 0.0, 0.0), 0.8, 0.3),  # the eighth of ten is the second of four: 0.1 + 0.2
        ((6.0, 0.0, 4.0, 0.0), 0.6, 0.1),  # exactly at the end of a bucket
        ((6.0, 0.0, 4.0, 0.0), 0.8, 1.25),  # 0.5 + 2 / 4 of 1.5, over the empty bucket
        ((1.0, 0.0, 0.0, 9.0), 0.95, 2.0),  # above all bounds: the highest one
    ],
)
def test_percentiles_are_interpolated(
    counts: tuple[float, ...], share: float, expected: float
) -> None:
    assert percentiles([latency(*counts)], share) == pytest.approx([expected])


def test_an_empty_histogram_has_none() -> None:
    found = percentiles([latency(0.0, 0.0, 0.0, 0.0), latency(6.0, 4.0, 0.0, 0.0)], 0.8)
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(0.3)


def test_of_no_histograms_there_are_none() -> None:
    assert percentiles([], 0.8).shape == (0,)
