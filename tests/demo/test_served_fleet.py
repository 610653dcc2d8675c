"""What is counted of the requests of a demonstration, and which ones a trace or the story has."""

from pathlib import Path

import numpy as np
import pytest

from scaler.demo.scenario import DAY_S, FLASH_AT_S, Scenario, from_trace, story
from scaler.demo.served_fleet import Score, ServedFleet, judged
from scaler.errors import ScenarioError
from simulations.engine_layout import REQUEST
from simulations.request_ring import RequestStatus
from simulations.trace_chunks import Requests

NEVER = np.nan


def test_which_requests_met_the_objective_and_which_can_no_longer() -> None:
    """Now is 100 s and the objective 2 s."""
    cases = [
        # arrival, first token, status, good, missed
        (10.0, 11.5, RequestStatus.COMPLETED, True, False),
        (10.0, 12.0, RequestStatus.COMPLETED, True, False),  # just in time
        (10.0, 12.1, RequestStatus.COMPLETED, False, True),
        (95.0, 96.0, RequestStatus.PENDING, True, False),  # still being answered
        (95.0, NEVER, RequestStatus.PENDING, False, True),  # has waited 5 s
        (99.0, NEVER, RequestStatus.PENDING, False, False),  # may still be in time
        (10.0, NEVER, RequestStatus.REJECTED, False, True),
        (99.0, NEVER, RequestStatus.REJECTED, False, True),  # it will get none
        (10.0, 10.5, RequestStatus.CUT, False, True),  # in time, and not answered to its end
    ]
    records = np.zeros(len(cases), dtype=REQUEST)
    for record, (arrival, first, status, _, _) in zip(records, cases, strict=True):
        record["arrival_at_s"], record["first_token_at_s"] = arrival, first
        record["status"] = status
    good, missed = judged(records, 100.0, 2.0)
    assert good.tolist() == [case[3] for case in cases]
    assert missed.tolist() == [case[4] for case in cases]


def test_a_score_without_requests_misses_nothing() -> None:
    assert Score(arrived=0, answered=0, within_slo=0, gpu_hours=0.0).within_ratio == 1.0
    assert Score(arrived=9, answered=8, within_slo=6, gpu_hours=0.0).within_ratio == 0.75


def requests(*arrival_s: float) -> Requests:
    count = len(arrival_s)
    return Requests(
        arrival_s=np.array(arrival_s),
        prompt_tokens=np.full(count, 100, dtype=np.int32),
        output_tokens=np.full(count, 10, dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )


def test_arrivals_are_counted_once_by_intervals_that_meet() -> None:
    scenario = Scenario(requests=requests(1.0, 2.0, 2.5, 30.0), duration_s=60.0)
    fleet = ServedFleet(scenario, start_at_s=1000.0)
    assert fleet.arrivals(1000.0, 1002.0) == 2  # the end belongs to it
    assert fleet.arrivals(1002.0, 1040.0) == 2  # the beginning does not
    fleet.advance(1050.0)
    fleet.advance(1049.0)  # has passed
    score = fleet.score()
    assert (score.arrived, score.answered, score.within_slo) == (4, 4, 4)
    assert score.gpu_hours == pytest.approx(2 * 4 * 50 / 3600)  # two replicas of four GPUs


def rate_per_s(played: Scenario, *, from_s: float, to_s: float) -> float:
    at_s = played.requests.arrival_s
    return float(((at_s >= from_s) & (at_s < to_s)).sum() / (to_s - from_s))


def test_the_story_rises_flashes_and_ends_in_quiet() -> None:
    played = story()
    assert np.all(np.diff(played.requests.arrival_s) >= 0.0)
    # From 3 to 13 requests/s at half the day; 16 more when the flash begins; 3 in the evening.
    assert rate_per_s(played, from_s=0.0, to_s=60.0) == pytest.approx(3.0, rel=0.2)
    assert rate_per_s(played, from_s=DAY_S / 2 - 60, to_s=DAY_S / 2 + 60) == pytest.approx(
        13, rel=0.1
    )
    before = rate_per_s(played, from_s=FLASH_AT_S - 30, to_s=FLASH_AT_S)
    assert rate_per_s(played, from_s=FLASH_AT_S, to_s=FLASH_AT_S + 30) > before + 10.0
    assert rate_per_s(played, from_s=DAY_S, to_s=played.duration_s) == pytest.approx(3.0, rel=0.1)
    assert np.array_equal(story().requests.arrival_s, played.requests.arrival_s)


def test_a_short_story_is_the_beginning_of_the_long_one() -> None:
    short, long = story(120.0).requests, story().requests
    assert np.array_equal(short.arrival_s, long.arrival_s[: len(short)])
    assert short.arrival_s[-1] < 120.0


def write_trace(path: Path, *arrival_s: float) -> Path:
    rows = [f"{at_s},100,10" for at_s in arrival_s]
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]) + "\n")
    return path


def test_a_trace_begins_with_its_first_request(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "t.csv", 500.0, 510.0, 650.0, 5000.0)
    assert from_trace(path).requests.arrival_s.tolist() == [0.0, 10.0, 150.0]
    assert from_trace(path).duration_s == 150.0
    assert from_trace(path, 100.0).requests.arrival_s.tolist() == [0.0, 10.0]
    assert from_trace(path, 100.0).duration_s == 100.0
    assert from_trace(path, 7200.0).requests.arrival_s.tolist() == [0.0, 10.0, 150.0, 4500.0]


def test_what_cannot_be_played_is_refused() -> None:
    with pytest.raises(ScenarioError, match="duration_s = 5, must be in"):
        Scenario(requests=requests(1.0), duration_s=5.0)
    with pytest.raises(ScenarioError, match="no request"):
        Scenario(requests=requests(), duration_s=60.0)
    with pytest.raises(ScenarioError, match="replicas_max = 13"):
        Scenario(requests=requests(1.0), duration_s=60.0, replicas_max=13)
