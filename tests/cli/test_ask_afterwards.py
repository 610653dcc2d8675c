"""``scaler replay``, ``scaler explain`` and ``scaler report`` as people start them."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from scaler import cli
from scaler.core.explain import headline
from scaler.core.model import Mode
from scaler.core.publish import POLICY_VERSION
from scaler.ops.replay import read_logs
from scaler.ops.times import spelled
from scaler.service.codec import DecisionRecord, StateRecord, encode
from tests.ops.decision_logs import SIMULATED, daemon_log, simulated_log
from tests.service.test_web import site

pytestmark = pytest.mark.usefixtures("no_progress")

Run: TypeAlias = Callable[..., tuple[int, str, str]]
ANOTHER = f"{POLICY_VERSION}0"  # a version that the log is not of


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["scaler", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.mark.parametrize("command", ["replay", "explain", "report"])
def test_help_has_an_example(run: Run, command: str) -> None:
    status, printed, _ = run(command, "--help")
    assert status == 0
    assert f"scaler {command} " in printed.split("Example")[1]


def test_a_replay_under_the_same_settings_is_the_same(run: Run, tmp_path: Path) -> None:
    log = simulated_log(tmp_path)
    count = sum(isinstance(one, DecisionRecord) for one in read_logs(log))
    status, printed, errors = run("replay", str(log))
    assert (status, errors) == (0, "")
    assert printed == (
        f"{SIMULATED}: {count} decisions made again, {count} the same bit by bit, 0 of another"
        " count\n"
    )


def test_the_bound_decides_the_status(run: Run, tmp_path: Path) -> None:
    log = str(simulated_log(tmp_path))
    changed = ("replay", log, "--set", "slo.attainment_target_ratio=0.9")
    assert run(*changed)[0] == 0  # without a bound anything may differ
    status, printed, _ = run(*changed, "--json")
    (target,) = json.loads(printed)["targets"]
    largest = target["largest"]
    assert largest > 0
    assert status == 0
    assert run(*changed, "--max-difference", str(largest))[0] == 0
    status, printed, _ = run(*changed, "--max-difference", str(largest - 1))
    assert status == 1
    assert f"largest difference {largest} replicas" in printed
    assert "they part first at 0h00m" in printed
    assert "first other count at" in printed


def test_one_bit_is_a_difference_and_no_count_is_a_bound(run: Run, tmp_path: Path) -> None:
    log = simulated_log(tmp_path)
    lines = log.read_bytes().splitlines(keepends=True)
    record = json.loads(lines[9])
    record["decision"]["encoded"] += 1e-12
    lines[9] = json.dumps(record).encode() + b"\n"
    log.write_bytes(b"".join(lines))
    status, printed, _ = run("replay", str(log))
    assert status == 1
    assert "0 of another count" in printed
    assert "encoded was" in printed
    assert run("replay", str(log), "--max-difference", "0")[0] == 0


def test_holes_are_said(run: Run, tmp_path: Path) -> None:
    log = simulated_log(tmp_path)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:20] + lines[40:]))
    _, printed, _ = run("replay", str(log))
    assert "1 gaps in the log, the longest of 315 s" in printed  # 21 steps of 15 s
    log.write_bytes(b"".join(lines[1:]))
    status, printed, _ = run("replay", str(log))
    assert status == 1
    assert f"{len(lines) - 1} were left out: the log has no state in front of them" in printed


def _of_another_version(log: bytes) -> bytes:
    logged, other = (f'"policy_version":"{one}"'.encode() for one in (POLICY_VERSION, ANOTHER))
    assert logged in log
    return log.replace(logged, other)


def test_another_version_is_said(run: Run, tmp_path: Path) -> None:
    log = simulated_log(tmp_path)
    log.write_bytes(_of_another_version(log.read_bytes()))
    status, printed, _ = run("replay", str(log))
    assert status == 1
    assert printed.startswith(
        f"logged under policy version {ANOTHER}, decided again under {POLICY_VERSION}\n"
    )
    assert run("replay", str(log), "--max-difference", "0")[0] == 0  # the upgrade check


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("replay", "{empty}"), 1, "has no decision"),
        (("replay", "{none}"), 1, "is not there"),
        (("replay", "{log}", "--set", "a"), 2, "--set 'a', must be KEY=VALUE"),
        (("replay", "{log}", "--max-difference", "-1"), 2, "-1 is not in the range"),
        (("explain", "x/y", "--log", "{log}"), 2, "no target x/y, must be one of: simulated/"),
        (("explain", "x/y"), 2, "one of --log and --url must be given"),
        (("explain", "--url", "http://127.0.0.1:9"), 2, "NAMESPACE/NAME must be given"),
        (("explain", "x/y", "--url", "http://127.0.0.1:9"), 1, "does not answer"),
        (("explain", "x/y", "--url", "http://127.0.0.1:9", "--at", "1"), 1, "does not answer"),
        (("explain", "--log", "{log}", "--at", "9e9"), 2, "--at = 9e9, must be in [0h00m"),
        (("explain", "--log", "{log}", "--at", "9", "--from", "8"), 2, "not both"),
        (("explain", "--log", "{log}", "--from", "600", "--to", "500"), 2, "must not be before"),
        (("report", "--log", "{log}"), 2, "--advisory must be given"),
        (("report", "--advisory"), 2, "one of --log and --url"),
        (("report", "--advisory", "--log", "{log}", "--days", "0"), 2, "--days"),
        (("report", "--advisory", "--url", "http://127.0.0.1:9"), 1, "does not answer"),
        (("report", "--advisory", "--log", "{log}", "--out", "{none}/a.html"), 1, "No such file"),
    ],
)
def test_mistakes_are_one_line_each(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    (tmp_path / "empty.jsonl").touch()
    places = {
        "log": simulated_log(tmp_path),
        "empty": tmp_path / "empty.jsonl",
        "none": tmp_path / "none",
    }
    found, _, errors = run(*(text.format(**places) for text in arguments))
    assert (found, len(errors.splitlines())) == (status, 1)
    assert errors.startswith("error: ")
    assert said in errors


def test_a_moment_is_explained_with_what_would_change_it(run: Run, tmp_path: Path) -> None:
    log = str(simulated_log(tmp_path))
    status, printed, errors = run("explain", "--log", log, "--at", "0:15:00")
    assert (status, errors) == (0, "")
    lines = printed.splitlines()
    assert lines[0].startswith(f"{SIMULATED} at 0h14m") or lines[0].endswith("0h15m00s")
    assert " replicas wanted, now " in lines[1]
    assert any("alone would ask for" in line for line in lines)
    assert "Why not fewer, and what would have to change (decided again):" in lines
    assert any(" from a load of " in line for line in lines)
    status, printed, _ = run("explain", SIMULATED, "--log", log, "--at", "900", "--json")
    told = json.loads(printed)
    assert told["same_decided_again"] is True
    assert told["counterfactuals"]["replicas"] == told["replicas"]
    assert told["steps"][-1]["stage"] == told["decided_by"]
    assert told["bound_by"] == told["steps"][0]["stage"]


def test_a_window_is_explained_by_its_changes(run: Run, tmp_path: Path) -> None:
    log = str(simulated_log(tmp_path))
    status, printed, _ = run("explain", "--log", log, "--from", "300", "--to", "0:20:00")
    assert status == 0
    lines = printed.splitlines()
    assert lines[0] == f"{SIMULATED} from 0h05m00s to 0h20m00s"
    _, printed, _ = run("explain", "--log", log, "--from", "300", "--to", "1200", "--json")
    told = json.loads(printed)
    assert len(told["changes"]) == len(lines) - 2 > 2
    assert all(one["before"] != one["after"] for one in told["changes"])
    first = told["changes"][0]["at_s"]
    window = ("--from", f"{first - 15:.0f}", "--to", f"{first:.0f}")
    assert "1 change in 2 decisions" in run("explain", "--log", log, *window)[1]


def test_what_another_version_or_no_state_leaves_open_is_said(run: Run, tmp_path: Path) -> None:
    log = simulated_log(tmp_path)
    whole = log.read_bytes()
    log.write_bytes(_of_another_version(whole))
    assert "decides otherwise from the same inputs" in run("explain", "--log", str(log))[1]
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
    printed = run("explain", "--log", str(log))[1]
    assert "nothing can be decided again" in printed
    assert "Why not fewer" not in printed


async def test_a_daemons_log_is_asked_by_the_time_of_day(run: Run, tmp_path: Path) -> None:
    made = await daemon_log(tmp_path / "log")
    last = made.entry("chat").decision
    assert last is not None
    # START_S is 2027-01-15T08:00:00Z; thirty ticks of 15 s end 7.5 minutes later at most.
    status, printed, _ = run("explain", "llm/chat", "--log", str(tmp_path / "log"), "--at", "8:05")
    assert status == 0
    assert printed.startswith("llm/chat at 2027-01-15T08:0")


def test_an_advisory_report_in_text_json_and_html(run: Run, tmp_path: Path) -> None:
    log, page = str(simulated_log(tmp_path, mode=Mode.ADVISORY, replicas=6)), tmp_path / "a.html"
    asked = ("report", "--advisory", "--days", "1", "--log", log)
    status, printed, errors = run(*asked, "--out", str(page))
    assert (status, errors) == (0, "")
    assert printed.startswith(f"{SIMULATED}: undecided\n")  # twenty minutes are too few
    assert "GPU-hours would have been asked for" in printed
    _, printed, _ = run(*asked, "--json")
    told = json.loads(printed)
    assert told["thresholds"]["watched_hours_min"] == 24.0
    assert told["targets"][0]["verdict"] == "undecided"
    text = page.read_text()
    assert "Advisory report" in text
    assert len(text) > 50_000  # with its charts and its rows


def test_a_no_go_is_the_status(run: Run, tmp_path: Path) -> None:
    """A day of the last decision again and again, in which one replica is wanted for six there."""
    records = list(read_logs(simulated_log(tmp_path, mode=Mode.ADVISORY, replicas=6)))
    last = json.loads(encode(records[-1]))
    decision = last["decision"]
    decision["would_be"] = 0
    lines = [encode(next(one for one in records if isinstance(one, StateRecord)))]
    for place in range(1500):  # a tick a minute: 25 hours
        decision["at_s"] = decision["observation"]["seen_at_s"] = 60.0 * place
        lines.append(json.dumps(last).encode())
    log = tmp_path / "day.jsonl"
    log.write_bytes(lines[0].replace(b'"tick_s":15.0', b'"tick_s":60.0') + b"\n")
    with log.open("ab") as file:
        file.write(b"\n".join(lines[1:]) + b"\n")
    status, printed, _ = run("report", "--advisory", "--days", "2", "--log", str(log))
    assert status == 1
    assert printed.startswith(f"{SIMULATED}: no-go\n  it would have missed 1500 minutes")


async def test_a_daemon_tells_of_a_past_time_what_it_remembers(run: Run) -> None:
    async with site("chat") as made:
        before = made.world.entry("chat").decision
        assert before is not None
        await made.world.tick(4)
        latest = made.world.entry("chat").decision
        assert latest is not None

        async def explained(at_s: float, *more: str) -> tuple[int, str, str]:
            asked = ("explain", "llm/chat", "--url", f"http://{made.address}", "--at", str(at_s))
            return await asyncio.to_thread(run, *asked, *more)

        status, printed, _ = await explained(before.at_s + 1.0)
        assert status == 0
        assert printed.splitlines()[:2] == [
            f"llm/chat at {spelled(before.at_s)}", headline(before),
        ]  # fmt: skip
        assert "--log DIR" in printed.splitlines()[-1]
        told = json.loads((await explained(before.at_s + 1.0, "--json"))[1])
        assert (told["at_s"], told["replicas"]) == (before.at_s, before.would_be)
        assert [step["replicas"] for step in told["steps"]] == [
            step.replicas for step in before.steps
        ]
        _, printed, _ = await explained(latest.at_s)  # in full, as without a time
        assert "what would have to change" in printed
        status, _, errors = await explained(before.at_s - 3600.0)
        assert status == 2
        assert "must be in [" in errors
        assert "--log DIR" in errors
