"""What would have been against what was, by hand-made rows; then of real logs."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from scaler.core.capacity import replicas_for
from scaler.core.config import PolicyConfig
from scaler.core.model import Mode
from scaler.errors import SignalError
from scaler.ops.advisory import Thresholds, advise, longest, there
from scaler.ops.advisory_rows import watched_daemon, watched_log
from scaler.ops.explain_daemon import target_detail
from scaler.ops.replay import read_logs
from scaler.service.codec import DecisionRecord
from tests.ops.advisory_cases import BEGAN_AT_S, held, watched
from tests.ops.decision_logs import SIMULATED, daemon_log, simulated_log
from tests.service.test_web import site

DAY = 5760  # ticks of 15 s


def test_gpu_hours_are_of_the_counts_asked_for() -> None:
    """240 ticks are an hour: 5 live replicas of 2 GPUs; half an hour of 3, half an hour of 4."""
    made = advise(watched(240, would_be=held((120, 3), (120, 4))))
    assert made.gpu_hours_live == pytest.approx(10.0)
    assert made.gpu_hours_would == pytest.approx(2 * (1.5 + 2.0))
    assert made.hours_fewer == pytest.approx(1.0)
    assert (made.hours_more, made.agreed_ratio) == (0.0, 0.0)


def test_a_live_count_that_nobody_saw_is_on_neither_side() -> None:
    made = advise(watched(240, live=held((120, 5), (120, np.nan)), would_be=held((240, 3))))
    assert made.gpu_hours_live == pytest.approx(5.0)
    assert made.gpu_hours_would == pytest.approx(3.0)


def test_a_replica_counts_a_lead_time_after_it_was_asked_for() -> None:
    """60 s are four ticks: asked for in row 4, there from row 8 on; fewer are fewer at once."""
    rows = watched(16, would_be=held((4, 3), (8, 6), (4, 2)), ready=3.0)
    assert there(rows).tolist() == [3] * 8 + [6] * 4 + [2] * 4


def test_before_the_first_row_the_live_replicas_were_there() -> None:
    assert there(watched(6, would_be=9.0, ready=4.0)).tolist() == [4, 4, 4, 4, 9, 9]
    unseen = watched(6, would_be=9.0, ready=np.nan)
    assert there(unseen).tolist() == [9] * 6


def test_a_minute_is_missed_where_too_few_would_have_been_there() -> None:
    """BEGAN_AT_S is a whole minute: rows 8 to 12 lie in minutes 2 and 3, with 3 replicas for 4."""
    would = held((8, 5), (5, 3), (227, 5))
    made = advise(watched(240, would_be=would))
    # Five are there again 60 s after row 13, in row 17: rows 8 to 16 touch minutes 2, 3 and 4.
    assert made.missed_minutes_would == 3.0
    assert made.modelled_minutes_live == 0.0


def test_the_live_fleet_is_measured_and_judged_by_the_same_rule() -> None:
    rows = watched(
        240,
        missed_ratio=held((4, 0.02), (4, 0.01), (232, np.nan)),
        ready=held((232, 5), (8, 3)),
    )
    made = advise(rows)
    assert made.missed_minutes_live == 1.0  # 2 % of 1 % allowed; just 1 % is kept
    assert made.modelled_minutes_live == 2.0  # eight ticks


def test_rows_of_five_minutes_count_as_five() -> None:
    made = advise(watched(12, tick_s=300.0, ready=held((10, 5), (2, 3))))
    assert made.modelled_minutes_live == 10.0


def test_disagreements_are_stretches_of_one_direction() -> None:
    would = held((10, 5), (10, 7), (10, 4), (10, 5), (5, 3))
    made = advise(watched(45, would_be=would))
    told = [((one.at_s - BEGAN_AT_S) / 15.0, (one.until_s - BEGAN_AT_S) / 15.0, one.would_be)
            for one in made.disagreements]  # fmt: skip
    assert told == [(10, 20, 7), (20, 30, 4), (40, 45, 3)]
    assert made.disagreements[0].why == "why 10"
    assert [one.would_be for one in longest(made.disagreements, 2)] == [7, 4]
    assert made.agreed_ratio == pytest.approx(20 / 45)


def test_the_farthest_count_of_a_stretch_is_told() -> None:
    made = advise(watched(8, would_be=held((2, 5), (2, 6), (2, 9), (2, 7))))
    (one,) = made.disagreements
    assert (one.would_be, one.live, one.why) == (9, 5, "why 4")


def test_a_gap_is_unwatched_and_not_counted() -> None:
    at_s = BEGAN_AT_S + 15.0 * np.concatenate([np.arange(120), 360 + np.arange(120)])
    made = advise(watched(240, at_s=at_s))
    # Row 119 stands for a tick; 240 ticks from 120 to 360 have no decision: an hour.
    assert made.unwatched_minutes == pytest.approx(60.0)
    assert made.watched_hours == pytest.approx(1.0)
    assert made.gpu_hours_live == pytest.approx(10.0)


def test_go_with_the_numbers_that_speak_for_it() -> None:
    made = advise(watched(DAY, would_be=4.0))
    assert made.verdict == "go"
    assert made.reasons[0] == "192.0 GPU-hours against 240.0"  # 24 h, 2 GPUs, 4 and 5 replicas


def test_no_go_for_what_would_have_been_missed() -> None:
    """At most 0.1 % of 1440 minutes beyond the live fleet's none: 1.4."""
    made = advise(watched(DAY, would_be=3.0))
    assert made.verdict == "no-go"
    assert "at most 1.4 are allowed" in made.reasons[0]
    few = held((100, 5), (1, 3), (DAY - 101, 5))  # missed until a lead later: two minutes
    assert advise(watched(DAY, would_be=few)).verdict == "no-go"
    assert advise(watched(DAY, would_be=few, forecast_lead_s=0.0)).verdict == "go"


def test_no_go_for_blindness_and_for_cost_without_gain() -> None:
    blind = held((DAY - 200, 0), (200, 1))  # 3.5 %
    made = advise(watched(DAY, blind=blind))
    assert made.verdict == "no-go"
    assert made.reasons[0].startswith("blind for 3.5% of the time, at most 2.0%")
    assert made.blind_minutes == pytest.approx(50.0)
    dearer = advise(watched(DAY, would_be=6.0))
    assert dearer.verdict == "no-go"
    assert "more GPU-hours (288.0 against 240.0) and misses no less" in dearer.reasons[0]
    worth_it = advise(watched(DAY, would_be=6.0, ready=3.0))
    assert worth_it.verdict == "go"


def test_undecided_after_too_short_a_time_or_where_it_was_active() -> None:
    short = advise(watched(240, would_be=3.0))
    assert short.verdict == "undecided"
    assert short.reasons[0] == "watched for 1.0 h, 24 h are asked"
    assert any("would have missed" in reason for reason in short.reasons)
    assert advise(watched(240), Thresholds(watched_hours_min=1.0)).verdict == "go"
    active = advise(watched(DAY, active=held((DAY // 2, 1), (DAY // 2, 0))))
    assert active.verdict == "undecided"
    assert "active for 50% of the decisions" in active.reasons[0]


def test_a_simulated_log_gives_the_rows_that_its_decisions_say(tmp_path: Path) -> None:
    path = simulated_log(tmp_path, mode=Mode.ADVISORY, replicas=6)
    decisions = [one.decision for one in read_logs(path) if isinstance(one, DecisionRecord)]
    (rows,) = watched_log(path, days=1.0)
    assert (rows.namespace, rows.name, rows.gpus_per_replica) == ("simulated", "simulated", 4)
    assert rows["would_be"].tolist() == [one.would_be for one in decisions]
    assert set(rows["live"]) == {6.0}  # nobody scaled it
    assert set(rows["active"]) == {0.0}
    assert "frozen" not in rows.decided_by
    measured = rows.attained_ratio[np.isfinite(rows.attained_ratio)]
    assert len(measured) > 20
    assert (
        measured.tolist()
        == (1.0 - rows["missed_ratio"][np.isfinite(rows["missed_ratio"])]).tolist()
    )
    last = decisions[-1]
    assert last.demand is not None
    assert last.capacity is not None
    load = last.demand.requests_per_s * last.capacity.request_cost_s
    needs = replicas_for(load, last.capacity, PolicyConfig().capacity)
    assert (rows["load"][-1], rows["needs"][-1]) == (load, needs)
    made = advise(rows)
    steps_s = rows.step_s
    assert made.gpu_hours_live == pytest.approx(6 * 4 * steps_s.sum() / 3600.0)
    assert made.gpu_hours_would == pytest.approx(
        4 * sum(one.would_be * s for one, s in zip(decisions, steps_s, strict=True)) / 3600.0
    )


async def test_only_the_last_days_and_the_target_asked_for(tmp_path: Path) -> None:
    await daemon_log(tmp_path, "chat", "other")
    assert [one.name for one in watched_log(tmp_path, days=1.0)] == ["chat", "other"]
    told: list[int] = []
    (one,) = watched_log(tmp_path, days=10 * 15.0 / 86400.0, target="llm/other", tell=told.append)
    assert one.name == "other"
    assert len(one["at_s"]) == 11  # the last, and ten ticks before it
    assert told[-1] == len(told)
    with pytest.raises(SignalError, match="has no decision of llm/none"):
        watched_log(tmp_path, days=1.0, target="llm/none")


def test_a_simulated_target_is_named_as_in_explain(tmp_path: Path) -> None:
    assert watched_log(simulated_log(tmp_path), days=1.0, target=SIMULATED)[0].name == "simulated"


async def test_a_daemons_day_gives_the_same_counts() -> None:
    async with site("chat") as made:
        made.world.source.fleets["chat"].requests_per_s = 40.0
        await made.world.tick(20)
        detail = await asyncio.to_thread(target_detail, f"http://{made.address}", "llm/chat")
        replicas = made.world.cluster.replicas["chat"]
    rows = watched_daemon(detail, days=1.0)
    assert len(rows["at_s"]) == 23
    assert rows["live"].tolist() == [float(replicas.wanted)] * 23
    assert rows["would_be"][-1] == detail["decision"]["would_be"]
    found = advise(rows)
    assert "from the daemon's memory of a day" in found.note
    assert np.isnan(rows.attained_ratio).all()  # only a percentile is remembered
    assert found.watched_hours == pytest.approx(23 * 15.0 / 3600.0)
    with pytest.raises(SignalError, match="another version"):
        watched_daemon({**detail, "basis": None}, days=1.0)


def test_a_hole_in_a_real_log_is_unwatched(tmp_path: Path) -> None:
    path = simulated_log(tmp_path, mode=Mode.ADVISORY, replicas=6)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:20] + lines[40:]))
    made = advise(watched_log(path, days=1.0)[0])
    assert made.unwatched_minutes == pytest.approx(5.0)  # twenty ticks of 15 s


def test_a_log_without_a_state_is_read_with_the_shipped_settings(tmp_path: Path) -> None:
    path = simulated_log(tmp_path, mode=Mode.ADVISORY, replicas=6)
    whole = watched_log(path, days=1.0)[0]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    assert watched_log(path, days=1.0)[0]["needs"].tolist()[5:] == whole["needs"].tolist()[5:]
