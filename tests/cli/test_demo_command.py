"""``scaler demo`` as people and scripts start it."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LINE = re.compile(
    r"t=(?P<t>\d+) target=(?P<target>\S+) desired=(?P<desired>\d+) ready=(?P<ready>\d+) "
    r"starting=(?P<starting>\d+) waiting=(?P<waiting>\d+) by=(?P<by>[a-z_]+)( \S+=\S+)*\n?"
)
PROGRAM = (sys.executable, "-c", "from scaler.cli import main; main()", "demo")
LIMIT_S = 100  # the first run on a machine compiles the replica model


def demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.mark.timeout(LIMIT_S + 20)
def test_a_plain_run_prints_a_line_a_tick_and_a_summary(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    done = demo("--duration-s", "600", "--speed", "inf", "--plain", "--log-file", str(log))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [found for line in lines if (found := LINE.fullmatch(line))]
    assert [int(row["t"]) for row in rows] == list(range(0, 601, 15))
    assert {row["target"] for row in rows} == {"llm/vllm-llama-70b"}
    # The load has doubled by t=300: more is wanted, and what was started then serves minutes later.
    assert int(rows[-1]["desired"]) > int(rows[0]["desired"]) == 2
    assert max(int(row["ready"]) for row in rows) > 2
    assert len(lines) == len(rows) + 5
    assert lines[len(rows)].startswith("played 10.0 min of traffic")
    assert re.match(r"requests: \d+, first token within 2 s: \d+\.\d+%", lines[len(rows) + 1])
    assert "failed reads: 0" in lines[-1]
    assert "live page: http://127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr
    assert '"started"' in log.read_text()
    assert "\x1b" not in done.stdout, "no colours where there is no terminal"


def test_a_trace_is_played_instead(tmp_path: Path) -> None:
    trace = tmp_path / "small.csv"
    rows = [f"{1000.0 + 0.5 * number},700,60" for number in range(200)]
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]) + "\n")
    done = demo("--trace", str(trace), "--speed", "inf", "--plain")
    assert done.returncode == 0, done.stderr
    # 200 requests, one each half second: the last one 99.5 s after the first.
    assert "requests: 200, " in done.stdout
    assert "played 1.7 min" in done.stdout
    assert "load_per_s=2.0" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--speed", "0"), "--speed"),
        (("--speed", "nan"), "must be a number"),
        (("--duration-s", "1"), "15.0<=x<=604800.0"),
        (("--trace", "missing.csv"), "missing.csv"),
    ],
)
def test_wrong_input_is_told_with_status_2(arguments: tuple[str, ...], message: str) -> None:
    done = demo(*arguments, "--plain")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "other.csv"
    trace.write_text("a,b\n1,2\n")
    done = demo("--trace", str(trace), "--plain")
    assert done.returncode == 2
    assert "columns a,b" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    with subprocess.Popen(
        [*PROGRAM, "--plain", "--speed", "inf"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        assert LINE.fullmatch(started.stdout.readline())
        started.stdout.close()
        told = started.stderr.read()
        assert started.wait(LIMIT_S) == 0
    assert "Traceback" not in told
    assert "BrokenPipe" not in told


@pytest.mark.parametrize("colours", [True, False])
def test_a_terminal_gets_a_table_in_place(*, colours: bool) -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    environment |= {} if colours else {"NO_COLOR": "1"}
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*PROGRAM, "--duration-s", "60", "--speed", "inf"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment,
    ) as started:
        os.close(theirs)
        shown = read_all(ours)
        assert started.wait(LIMIT_S) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"0:01:00 +\d+\.\d +\d+ +\d+\.\d\d s +2 ", plain), plain[-3000:]
    assert "live page: http://127.0.0.1:" in plain
    assert "replicas wanted, now 2 (2 ready)" in plain
    assert "requests: " in plain
    assert LINE.search(plain) is None
    assert bool(re.search(r"\x1b\[3[0-9]m", shown)) is colours


def read_all(terminal: int) -> str:
    """What is written to a pseudo-terminal until its other side is closed."""
    found = b""
    with contextlib.suppress(OSError):  # EIO: nobody writes any more
        while chunk := os.read(terminal, 65536):
            found += chunk
    os.close(terminal)
    return found.decode()
