"""What is noted when, and how it is settled."""

from dataclasses import replace

import pytest

from scaler.core.config import ForecastConfig
from scaler.core.forecast_candidates import COUNT, EVERY, Candidate, Known, first_known, learn
from scaler.core.forecast_record import (
    PEAK_ROWS_MAX,
    ROWS_MAX,
    PeakPending,
    Peaks,
    Record,
    Said,
    forgotten,
    noted,
    row_is_due,
    settled,
)
from scaler.core.forecast_scores import LAST_ONLY, Pending

CONFIG = ForecastConfig()
TICK_S = 15.0


def known_of(values: list[float]) -> Known:
    known = first_known(values[0], 0.0)
    for place, value in enumerate(values[1:], 1):
        known = learn(known, value, TICK_S * place, CONFIG)
    return known


def said(*, lead_s: float = 60.0, horizon_s: float = 180.0) -> Said:
    return Said(
        blend=5.0,
        mean=5.0,
        margin=1.0,
        spread=0.5,
        weights=LAST_ONLY,
        peak_mean=5.5,
        peak_margin=1.5,
        lead_s=lead_s,
        horizon_s=horizon_s,
    )


def settle(record: Record, known: Known, now_s: float) -> Record:
    return settled(record, known, CONFIG, forecaster=EVERY, now_s=now_s)


def row(due_at_s: float, mean: float, margin: float = 1.0) -> Pending:
    return Pending(
        due_at_s=due_at_s,
        each=(mean,) * COUNT,
        blend=mean,
        mean=mean,
        margin=margin,
        spread=0.5,
    )


def noting_times(lead_s: float, until_s: float) -> list[float]:
    times: list[float] = []
    for tick in range(round(until_s / TICK_S)):
        if row_is_due(times[-1] if times else None, lead_s, TICK_S * tick):
            times.append(TICK_S * tick)
    return times


def test_forecasts_are_noted_about_once_a_minute_and_meet_every_phase_of_a_switching_load() -> None:
    """Within ten periods of ten minutes nearly each of its 40 ticks is met once or more."""
    times = noting_times(150.0, 6000.0)
    assert 60.0 <= 6000.0 / len(times) <= 85.0  # whole ticks
    assert len({time_s % 600.0 for time_s in times}) >= 30


def test_a_long_lead_notes_further_apart_so_that_few_wait() -> None:
    times = noting_times(3600.0, 36000.0)
    assert 3600.0 * len(times) / 36000.0 <= ROWS_MAX + 1


def test_what_is_noted_waits_for_its_time_with_four_digits() -> None:
    known = known_of([5.0, 6.0])
    record = noted(Record(), said(), known, CONFIG, now_s=15.0)
    (waiting,) = record.pending
    assert waiting.due_at_s == 75.0
    assert (waiting.mean, waiting.margin, waiting.spread) == (5.0, 1.0, 0.5)
    assert waiting.each[0] == pytest.approx(known.last, rel=1e-3)
    (peak,) = record.peaks.pending
    assert (peak.noted_at_s, peak.due_at_s) == (15.0, 195.0)
    assert peak.mean == pytest.approx(max(5.5, known.last), rel=1e-3)
    assert record.peaks.within == record.peaks.ahead == known.last  # persistence is flat
    soon = noted(record, said(), known, CONFIG, now_s=30.0)
    assert len(soon.pending) == 2
    assert len(soon.peaks.pending) == 1  # 180 s in eight parts: 22.5 s have not passed
    later = noted(soon, said(), known, CONFIG, now_s=45.0)
    assert len(later.peaks.pending) == 2


def test_however_many_are_noted_a_bounded_number_waits() -> None:
    known, record = known_of([5.0]), Record()
    for place in range(200):
        now_s = 30.0 * place
        record = noted(record, said(lead_s=1e6, horizon_s=200.0), known, CONFIG, now_s=now_s)
    assert len(record.pending) == 2 * ROWS_MAX
    assert record.pending[0].due_at_s == 1e6  # the oldest: their time comes first
    assert len(record.peaks.pending) == 2 * PEAK_ROWS_MAX


def test_all_that_came_due_is_scored_and_the_rest_waits() -> None:
    known = known_of([5.0] * 9)
    record = Record(pending=(row(50.0, 4.8), row(60.0, 3.0), row(300.0, 5.0)))
    after = settle(record, known, 120.0)
    assert [item.due_at_s for item in after.pending] == [300.0]
    assert after.scores.rows == 2.0
    assert after.scores.error == pytest.approx(0.2 + 2.0)
    assert after.scored_at_s == 120.0
    # one within its margin of 1, one above it: 0.003 / 0.09 * (0.9 - 0.1) up
    assert after.residuals.shift == pytest.approx(0.003 / 0.09 * 0.8)
    assert after.margin == after.residuals.quantile(0.9)
    again = settle(after, known, 130.0)
    assert again is after


def test_a_candidate_that_does_not_take_part_gets_no_weight() -> None:
    known = known_of([5.0] * 9)
    good = tuple(5.0 if name is Candidate.TREND else 1.0 for name in EVERY)
    record = Record(pending=(replace(row(60.0, 3.0), each=good),))
    place = EVERY.index(Candidate.TREND)
    assert settle(record, known, 60.0).scores.weights[place] == 1.0
    alone = settled(record, known, CONFIG, forecaster=(Candidate.LAST,), now_s=60.0)
    assert alone.scores.weights == LAST_ONLY


def test_a_peak_is_compared_with_the_highest_minute_of_its_time() -> None:
    """Minutes of 2, 9 and 3, and one of 4 under way; noted after the first."""
    known = known_of([0.0, *[2.0] * 4, *[9.0] * 4, *[3.0] * 4, 4.0])
    assert known.cycle.minutes == (2.0, 9.0, 3.0)
    waiting = PeakPending(noted_at_s=60.0, due_at_s=180.0, mean=5.0, margin=1.0, spread=0.5)
    record = Record(peaks=Peaks(pending=(waiting,), ahead=1.0, within=7.0))
    after = settle(record, known, 195.0).peaks
    assert after.pending == ()
    assert (after.ahead, after.within) == (1.0, 7.0)
    assert after.residuals.shift > 0.0  # 9 is above 5 + 1
    late = replace(waiting, noted_at_s=120.0)
    record = Record(peaks=Peaks(pending=(late, replace(late, due_at_s=900.0))))
    after = settle(record, known, 195.0).peaks
    assert len(after.pending) == 1
    assert after.residuals.shift < 0.0  # since then the highest minute was 3
    assert settle(record, first_known(5.0, 0.0), 195.0).peaks.residuals.shift < 0.0  # none ended


def test_after_a_silence_nothing_waits_and_what_was_learned_stays() -> None:
    known = known_of([5.0] * 9)
    record = settle(Record(pending=(row(60.0, 3.0), row(900.0, 3.0))), known, 60.0)
    after = forgotten(record)
    assert after.pending == ()
    assert after.noted_at_s is None
    assert after.scores == record.scores
    assert after.residuals == record.residuals
