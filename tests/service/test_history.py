"""The last day in memory: bounded, in order, gaps as gaps, what is older in larger steps."""

import numpy as np
import pytest

from scaler.core.model import Cause, NoData, Stage
from scaler.service.history import (
    COARSE_ROWS_MAX,
    COARSE_S,
    COLUMNS,
    ROWS_MAX,
    STEP,
    History,
    Ring,
)
from tests.service.fakes import START_S, Fleet, key, world

TICK_S = 15.0
PER_BUCKET = int(COARSE_S / TICK_S)  # 20 ticks in five minutes


def rows_of(history: History, name: str = "chat") -> list[list[float | None]]:
    return history.rows(key(name), tick_s=TICK_S)


def column(rows: list[list[float | None]], name: str) -> list[float | None]:
    return [row[(*COLUMNS, STEP).index(name)] for row in rows]


async def test_rows_are_kept_in_order_and_the_oldest_forgotten() -> None:
    history = History(rows_max=5)
    made = world(sinks=(history,))
    await made.tick(3)
    assert column(rows_of(history), "at_s") == [START_S + TICK_S * n for n in (1, 2, 3)]
    await made.tick(5)
    assert column(rows_of(history), "at_s") == [START_S + TICK_S * n for n in (4, 5, 6, 7, 8)]
    assert column(rows_of(history), STEP) == [TICK_S] * 5


async def test_what_is_older_is_one_row_for_five_minutes() -> None:
    history = History(rows_max=PER_BUCKET)
    made = world(sinks=(history,))
    await made.tick(5 * PER_BUCKET)
    rows = rows_of(history)
    steps = column(rows, STEP)
    coarse = steps.count(COARSE_S)
    assert steps == [COARSE_S] * coarse + [TICK_S] * (len(rows) - coarse)
    assert coarse >= 4  # five times five minutes, of which at most the last one is fine
    assert 0 < len(rows) - coarse <= PER_BUCKET
    at_s = np.array(column(rows, "at_s"))
    assert (at_s[:coarse] % COARSE_S == 0.0).all()
    ends_s = at_s + np.array(steps)
    assert (ends_s[:-1] <= at_s[1:]).all()  # no time is told twice
    assert (at_s[1:] - ends_s[:-1] < TICK_S).all()  # and none is left out


async def test_a_row_of_five_minutes_keeps_the_worst_queue_and_the_mean_work() -> None:
    history = History(rows_max=PER_BUCKET)
    made = world(sinks=(history,), replicas=3)
    until_full = PER_BUCKET - int(START_S % COARSE_S / TICK_S)
    await made.tick(until_full)  # into the next five minutes
    for place in range(PER_BUCKET):
        waiting = 40.0 if place == 7 else 0.0
        made.source.fleets["chat"] = Fleet(pods=3, running=2.0 + (place % 2) * 4.0, waiting=waiting)
        await made.tick(1)
    await made.tick(PER_BUCKET + 1)
    rows = rows_of(history)
    found = [dict(zip((*COLUMNS, STEP), row, strict=True)) for row in rows if row[-1] == COARSE_S]
    worst = max(found, key=lambda row: row["waiting"] or 0.0)
    assert worst["waiting"] == 120.0  # 40 on each of three pods, in one tick of twenty
    # Every second tick 2 and 6 on each of three pods: 12 in the mean.
    assert worst["running"] == pytest.approx(12.0, abs=1.0)


async def test_memory_is_bounded_whatever_the_time() -> None:
    history = History(rows_max=4, coarse_rows_max=3)
    made = world(sinks=(history,))
    await made.tick(6 * PER_BUCKET + 4)  # five ticks into the seventh five minutes
    steps = column(rows_of(history), STEP)
    assert (steps.count(COARSE_S), steps.count(TICK_S)) == (3, 4)


def test_a_thousand_targets_fit_beside_the_rest() -> None:
    # Times in 8 bytes, six counts in 2, nine values in 2: 38 bytes a row.
    row_bytes = 8 + 6 * 2 + (len(COLUMNS) - 7) * 2
    assert 1000 * (ROWS_MAX + COARSE_ROWS_MAX) * row_bytes < 25e6


async def test_a_row_says_what_the_decision_said() -> None:
    history = History()
    made = world(sinks=(history,), replicas=3)
    made.source.fleets["chat"] = Fleet(pods=3, running=4.0, waiting=2.0)
    await made.tick(2)
    row = dict(zip((*COLUMNS, STEP), rows_of(history)[-1], strict=True))
    decision = made.entry().decision
    assert decision is not None
    assert (row["desired"], row["published"]) == (decision.would_be, decision.replicas_desired)
    assert (row["wanted"], row["ready"], row["starting"]) == (3.0, 3.0, 0.0)
    assert (row["running"], row["waiting"]) == (12.0, 6.0)  # summed over three pods
    assert row["decided_by"] == float(tuple(Stage).index(decision.decided_by))


async def test_what_was_not_seen_is_none_and_never_zero() -> None:
    history = History()
    made = world(sinks=(history,))
    await made.tick(1)
    made.source.fleets["chat"].fault = NoData(cause=Cause.UNREACHABLE)
    await made.tick(1)
    rows = rows_of(history)
    assert column(rows, "running") == [8.0, None]
    assert column(rows, "gpu_util_ratio") == [None, None]
    assert column(rows, "load")[-1] is None


async def test_numbers_too_large_for_a_chart_are_cut_and_never_infinite() -> None:
    history = History()
    made = world(sinks=(history,), replicas=1)
    made.source.fleets["chat"] = Fleet(pods=1, running=4.0, waiting=1e6)
    await made.tick(2)
    assert column(rows_of(history), "waiting")[-1] == 65504.0  # the most that two bytes hold


async def test_dropped_triggers_are_forgotten_and_unknown_ones_have_no_rows() -> None:
    history = History()
    made = world(sinks=(history,))
    await made.tick(1)
    assert rows_of(history, "other") == []
    made.cluster.facts.clear()
    await made.tick(1, every_s=601.0)
    assert rows_of(history) == []


def test_what_is_packed_comes_back_and_takes_less() -> None:
    ring = Ring(ROWS_MAX)
    noise = np.random.default_rng(3)
    rows = []
    for place in range(3 * ROWS_MAX):
        counts = [4.0, 4.0, 4.0, 4.0, 0.0, 2.0]
        values = np.float16(noise.uniform(0.0, 30.0, len(COLUMNS) - 1 - len(counts)))
        rows.append([START_S + TICK_S * place + noise.uniform(), *counts, *values])
        ring.push(np.array(rows[-1]))
    assert ring.full
    np.testing.assert_array_equal(ring.rows(), np.array(rows[-ROWS_MAX:]))
    np.testing.assert_array_equal(ring.rows(7), np.array(rows[-7:]))
    again = Ring(ROWS_MAX)
    again.restore(ring.saved())
    np.testing.assert_array_equal(again.rows(), ring.rows())
    other = Ring(7)  # packed by sevens: what others packed is not for it
    other.restore(ring.saved())
    assert other.filled == len(other.rows()) == 0
    assert ring.bytes < 0.8 * ROWS_MAX * 38  # of random numbers: those of a fleet take half
