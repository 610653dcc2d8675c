"""Logs decided again: the same to the last bit, or where and why not."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from scaler.core.model import Mode, NoData
from scaler.core.publish import POLICY_VERSION
from scaler.errors import ConfigError, SignalError
from scaler.ops.replay import Change, log_files, read_heads, read_logs, replay
from scaler.ops.replay_compare import (
    Comparison,
    TargetComparison,
    difference,
    other_versions,
    settings_change,
)
from scaler.service.codec import DecisionRecord, StateRecord, encode
from tests.ops.decision_logs import daemon_log, simulated_log

Record = StateRecord | DecisionRecord


def compared(records: list[Record], change: Change | None = None) -> tuple[TargetComparison, ...]:
    comparison = Comparison()
    for one in replay(records, change):
        comparison.add(one)
    return comparison.targets


def test_a_simulated_log_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    (found,) = compared(list(read_logs(simulated_log(tmp_path))))
    assert found.decisions > 80  # twenty minutes and more of 15 s
    assert found.same == found.decisions
    assert (found.differ, found.undecided, found.gaps) == (0, 0, 0)
    assert found.first is None
    assert found.versions == (POLICY_VERSION,)


async def test_a_daemons_rotated_log_is_too(tmp_path: Path) -> None:
    await daemon_log(tmp_path, "chat", "other", file_bytes_max=40_000)
    files = [path.name for path in log_files(tmp_path)]
    assert len(files) > 2
    assert files == [*sorted(files[:-1]), "decisions.jsonl"]  # in the order of writing
    found = compared(list(read_logs(tmp_path)))
    assert [(one.name, one.decisions, one.same) for one in found] == [
        ("chat", 30, 30), ("other", 30, 30),
    ]  # fmt: skip


def test_changed_settings_part_and_say_where_and_by_how_much(tmp_path: Path) -> None:
    records = list(read_logs(simulated_log(tmp_path)))
    change = settings_change(["bounds.replicas_min=3", "bounds.replicas_max=3"])
    assert change is not None
    unset = [_without_limits(record) for record in records]
    (found,) = compared(unset, change)
    logged = [one.decision for one in unset if isinstance(one, DecisionRecord)]
    counts = [one.would_be for one in logged]
    steps_s = [15.0, *(b.at_s - a.at_s for a, b in itertools.pairwise(logged))]
    assert found.differ == sum(count != 3 for count in counts)
    assert found.largest == max(abs(3 - count) for count in counts) > 1
    more = sum(max(3 - n, 0) * s for n, s in zip(counts, steps_s, strict=True)) / 3600.0
    fewer = sum(max(n - 3, 0) * s for n, s in zip(counts, steps_s, strict=True)) / 3600.0
    assert found.replica_hours_more == pytest.approx(more)
    assert found.replica_hours_fewer == pytest.approx(fewer)
    assert found.first_count is not None
    assert found.first_count.stage == "bounds"
    assert found.first_count.replicas_again == 3
    assert "limited to 3 to 3" in found.first_count.why_again


def _without_limits(record: Record) -> Record:
    """The bounds of the policy are asked only where the ScaledObject has none."""
    if isinstance(record, StateRecord):
        return record
    seen = record.decision.observation
    assert not isinstance(seen.replicas, NoData)
    free = replace(seen.replicas, replicas_min=None, replicas_max=None)
    return replace(
        record, decision=replace(record.decision, observation=replace(seen, replicas=free))
    )


def test_the_first_field_that_differs_is_named_in_the_order_of_the_flow(tmp_path: Path) -> None:
    decision = next(
        record.decision
        for record in list(read_logs(simulated_log(tmp_path)))[20:]
        if isinstance(record, DecisionRecord)
    )
    assert decision.forecast is not None
    moved = replace(
        decision,
        forecast=replace(decision.forecast, load_mean=7.25),
        would_be=decision.would_be + 2,
        encoded=0.5,
    )
    found = difference(decision, moved)
    assert (found.path, found.again) == ("forecast.load_mean", "7.25")
    assert found.replicas_again - found.replicas_logged == 2
    assert found.stage == ""  # the steps are the same
    step = replace(decision.steps[0], terms=(("load", 1.5), *decision.steps[0].terms[1:]))
    other = difference(decision, replace(decision, steps=(step, *decision.steps[1:])))
    assert other.path.startswith(f"steps[{step.stage}].terms")
    assert other.stage == step.stage
    longer = difference(decision, replace(decision, steps=(*decision.steps, step)))
    assert (longer.path, longer.stage) == ("steps", step.stage)
    assert difference(decision, replace(decision, policy_version="0")).path == "policy_version"
    assert difference(decision, replace(decision, forecast=None)).logged == "Forecast"


def test_gaps_and_decisions_without_a_state_are_counted(tmp_path: Path) -> None:
    records = list(read_logs(simulated_log(tmp_path)))
    holed = [*records[:20], *records[40:]]
    (found,) = compared(holed)
    assert found.gaps == 1
    assert found.gap_longest is not None
    # 20 decisions of 15 s are missing: the gap is of 21 steps
    assert found.gap_longest.to_at_s - found.gap_longest.from_at_s == pytest.approx(21 * 15.0)
    assert found.differ + found.same < found.decisions  # what was forgotten shows in the numbers
    (headless,) = compared(records[1:])
    assert headless.undecided == headless.decisions == len(records) - 1


def test_another_version_in_the_log_is_said(tmp_path: Path) -> None:
    records = list(read_logs(simulated_log(tmp_path)))
    old = [
        replace(one, decision=replace(one.decision, policy_version="0"))
        if isinstance(one, DecisionRecord)
        else one
        for one in records
    ]
    (found,) = compared(old)
    assert other_versions([found]) == ("0",)
    assert (found.same, found.differ) == (0, 0)
    assert found.first is not None
    assert found.first.path == "policy_version"


def test_settings_are_checked_and_every_fault_is_named() -> None:
    given = ["hold_down.window_s=-5", "hold_down.windows=3", "loose", "mode=asleep"]
    with pytest.raises(ConfigError) as failed:
        settings_change(given)
    faults = failed.value.faults
    assert any("hold_down.window_s = '-5', must be" in fault for fault in faults)
    assert any("'hold_down.windows'; did you mean 'hold_down.window_s'?" in one for one in faults)
    assert "--set 'loose', must be KEY=VALUE" in faults
    assert len(faults) == 4
    with pytest.raises(ConfigError, match="see `scaler serve"):
        settings_change(["zzzzzzzz=1"])
    assert settings_change([]) is None


def test_a_setting_is_known_by_path_and_by_metadata_key(tmp_path: Path) -> None:
    state = next(iter(read_logs(simulated_log(tmp_path))))
    assert isinstance(state, StateRecord)
    change = settings_change(["ttftSloSeconds=3", "hold_down.window_s=60", "mode=advisory"])
    assert change is not None
    made = change(state.policy)
    assert (made.slo.ttft_s, made.hold_down.window_s, made.mode) == (3.0, 60.0, Mode.ADVISORY)
    assert made.capacity == state.policy.capacity


async def test_a_folder_is_read_in_order_and_half_a_compression_is_not_read_twice(
    tmp_path: Path,
) -> None:
    await daemon_log(tmp_path, file_bytes_max=40_000)
    count = len(list(read_heads(tmp_path)))
    first = log_files(tmp_path)[0]
    (tmp_path / first.stem).write_bytes(b"not a record\n")  # the original beside its copy
    assert len(list(read_heads(tmp_path))) == count


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="is not there"):
        log_files(tmp_path / "none")
    with pytest.raises(SignalError, match="has no decision log"):
        log_files(tmp_path)
    (tmp_path / "decisions.jsonl").write_bytes(b'{"kind": "other"}\n')
    with pytest.raises(SignalError, match=r"decisions\.jsonl:1: no record"):
        list(read_heads(tmp_path))
    with pytest.raises(SignalError, match=r"decisions\.jsonl:1: no record"):
        list(read_logs(tmp_path, lambda _head: True))


def test_records_of_others_are_passed_over(tmp_path: Path) -> None:
    records = list(read_logs(simulated_log(tmp_path)))[:3]
    other = [replace(one, name="other") for one in records]
    lines = b"".join(encode(one) + b"\n" for one in (*records, *other))
    (tmp_path / "two.jsonl").write_bytes(lines)
    found = list(read_logs(tmp_path / "two.jsonl", lambda head: head.name == "other"))
    assert [one.name for one in found] == ["other"] * 3
