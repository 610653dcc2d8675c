"""The share within the objectives over time, reckoned by hand and against the score."""

import math

import numpy as np
import pytest

from simulations.attained import Attained, AttainedTally
from simulations.engine_layout import REQUEST
from simulations.request_ring import RequestStatus

NAN = math.nan


def outcomes(*rows: tuple[float, float, float, int, RequestStatus]) -> np.ndarray:
    """Arrival, first token, end, output tokens, what became of it."""
    made = np.zeros(len(rows), dtype=REQUEST)
    for place, (arrival_s, first_s, end_s, tokens, status) in enumerate(rows):
        made[place]["arrival_at_s"] = arrival_s
        made[place]["first_token_at_s"] = first_s
        made[place]["finished_at_s"] = end_s
        made[place]["output_tokens"] = tokens
        made[place]["status"] = status
    return made


def test_requests_count_where_they_arrived() -> None:
    tally = AttainedTally(ttft_slo_s=2.0, tpot_slo_s=0.1)
    tally.add(outcomes())
    tally.add(
        outcomes(
            (10.0, 12.0, 13.0, 11, RequestStatus.COMPLETED),  # 2 s, ten gaps of 0.1 s: good
            (59.9, 62.0, 62.5, 2, RequestStatus.COMPLETED),  # 2.1 s
            (130.0, 131.0, 133.2, 11, RequestStatus.COMPLETED),  # 0.22 s a token
            (130.0, 131.0, 131.0, 1, RequestStatus.COMPLETED),  # one token has no gap: good
            (130.0, 131.0, NAN, 11, RequestStatus.CUT),
            (130.0, NAN, NAN, 11, RequestStatus.REJECTED),
        )
    )
    tally.add(outcomes((61.0, 61.5, 62.0, 6, RequestStatus.COMPLETED)))  # ended after later ones
    found = tally.attained()
    assert found.arrived.tolist() == [2.0, 1.0, 4.0]
    assert found.good.tolist() == [1.0, 1.0, 1.0]


def test_the_share_is_that_of_the_window_before() -> None:
    made = Attained(arrived=np.array([10.0, 0.0, 20.0]), good=np.array([10.0, 0.0, 5.0]))
    at_s = np.array([60.0, 120.0, 150.0, 180.0, 600.0])
    found = made.share(at_s, 120.0)
    # At 150 s: half of the first minute and half of the third, (5 + 2.5) of (5 + 10).
    assert found[:4].tolist() == pytest.approx([1.0, 1.0, 0.5, 0.25])
    assert np.isnan(found[4])
    assert np.isnan(made.share(np.array([120.0]), 60.0)).all()  # nobody arrived


def test_a_long_run_has_room_for_every_minute() -> None:
    tally = AttainedTally(ttft_slo_s=2.0, tpot_slo_s=0.0)
    late_s = 60.0 * 40_000
    for at_s in (0.0, late_s):
        tally.add(outcomes((at_s, at_s + 1.0, at_s + 2.0, 5, RequestStatus.COMPLETED)))
    found = tally.attained()
    assert len(found.arrived) == 40_001
    assert found.arrived.sum() == found.good.sum() == 2.0
