"""The last hours in memory: bounded, in order, gaps as gaps."""

from scaler.core.model import Cause, NoData, Stage
from scaler.service.history import COLUMNS, History
from tests.service.fakes import START_S, Fleet, key, world


def column(rows: list[list[float | None]], name: str) -> list[float | None]:
    return [row[COLUMNS.index(name)] for row in rows]


async def test_rows_are_kept_in_order_and_the_oldest_forgotten() -> None:
    history = History(rows_max=5)
    made = world(sinks=(history,))
    await made.tick(3)
    assert column(history.rows(key()), "at_s") == [START_S + 15.0 * n for n in (1, 2, 3)]
    await made.tick(5)
    assert column(history.rows(key()), "at_s") == [START_S + 15.0 * n for n in (4, 5, 6, 7, 8)]


async def test_a_row_says_what_the_decision_said() -> None:
    history = History()
    made = world(sinks=(history,), replicas=3)
    made.source.fleets["chat"] = Fleet(pods=3, running=4.0, waiting=2.0)
    await made.tick(2)
    row = dict(zip(COLUMNS, history.rows(key())[-1], strict=True))
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
    rows = history.rows(key())
    assert column(rows, "running") == [8.0, None]
    assert column(rows, "gpu_util_ratio") == [None, None]
    assert column(rows, "load")[-1] is None


async def test_dropped_triggers_are_forgotten_and_unknown_ones_have_no_rows() -> None:
    history = History()
    made = world(sinks=(history,))
    await made.tick(1)
    assert history.rows(key("other")) == []
    made.cluster.facts.clear()
    await made.tick(1, every_s=601.0)
    assert history.rows(key()) == []
