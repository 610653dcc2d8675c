"""Scores reckoned by hand."""

import math

import numpy as np
import pytest

from simulations.engine_layout import REQUEST
from simulations.lifecycle import Usage
from simulations.request_ring import RequestStatus
from simulations.score import CountHistory, Tally, quantiles

USAGE = Usage(gpu_hours=8.0, pending_gpu_hours=1.0, replica_hours=2.0)


def test_changes_mean_and_reversals() -> None:
    counts = CountHistory(2)
    for at_s, count, changes in (
        (10.0, 4, True),
        (20.0, 4, False),
        (30.0, 3, True),
        (60.0, 5, True),
    ):
        assert counts.set(count, at_s) is changes
    # 2 for 10 s, 4 for 20 s, 3 for 30 s, 5 for 40 s: 20 + 80 + 90 + 200 = 390 over 100 s.
    assert counts.mean(100.0) == pytest.approx(3.9)
    assert (counts.lowest, counts.highest, counts.now) == (2, 5, 5)
    assert len(counts.changes) == 3
    assert counts.reversals == 2  # up, down, up


def test_steps_in_one_direction_are_no_reversal() -> None:
    counts = CountHistory(1)
    for at_s, count in ((1.0, 2), (2.0, 3), (3.0, 5), (4.0, 2)):
        counts.set(count, at_s)
    assert counts.reversals == 1


def test_outcomes_are_counted_by_what_became_of_them() -> None:
    rows = np.zeros(5, dtype=REQUEST)
    rows["arrival_at_s"] = 10.0
    rows["scheduled_at_s"] = [10.5, 10.5, 10.5, math.nan, math.nan]
    rows["first_token_at_s"] = [11.0, 13.0, 11.0, math.nan, math.nan]
    rows["finished_at_s"] = [12.0, 14.0, 12.0, math.nan, math.nan]
    rows["output_tokens"] = [11, 1, 11, 5, 5]
    rows["status"] = [
        RequestStatus.COMPLETED, RequestStatus.COMPLETED, RequestStatus.CUT,
        RequestStatus.REJECTED, RequestStatus.TOO_LONG,
    ]  # fmt: skip
    tally = Tally(ttft_slo_s=2.0, tpot_slo_s=0.0)
    tally.add(rows[:2])
    tally.add(rows[2:])
    score = tally.score(USAGE, CountHistory(2), end_s=100.0)
    assert (score.requests, score.completed, score.cut_by_scale_down, score.rejected) == (
        5,
        2,
        1,
        2,
    )
    assert score.slo_attainment_ratio == 0.2  # the second was late by 1 s, the third was cut
    assert score.ttft_s.max == 3.0
    assert score.tpot_s.max == pytest.approx(0.1)  # 1 s for ten gaps; one token has no gap
    assert score.queue_s.p50 == 0.5
    assert score.replicas_mean == 2.0
    assert (score.gpu_hours, score.pending_gpu_hours, score.replica_hours) == (8.0, 1.0, 2.0)


def test_quantiles_interpolate_and_nothing_has_none() -> None:
    found = quantiles([np.arange(0, 50, dtype=np.float32), np.arange(50, 101, dtype=np.float32)])
    assert (found.p50, found.p90, found.p95, found.p99, found.max) == (
        50.0,
        90.0,
        95.0,
        99.0,
        100.0,
    )
    # Between the second and the third of three: 0.9 * 2 = 1.8, so 20 + 0.8 * 20.
    assert quantiles([np.array([40.0, 0.0, 20.0], dtype=np.float32)]).p90 == pytest.approx(36.0)
    assert quantiles([np.array([7.0], dtype=np.float32)]).p99 == 7.0
    assert math.isnan(quantiles([]).p50)
