"""``scaler compare`` as people start it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaler import cli
from simulations.report_scoreboard import render
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate
from simulations.traces import write_trace

pytestmark = pytest.mark.usefixtures("no_progress")

# Ctrl-C ends it, also where the tests run in the background of a shell that ignores it there.
HEARS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
PROGRAM = f"{HEARS}from scaler import cli; cli.main()"
LIMIT_S = 240.0  # several processes start, on a machine that may be busy
TINY = ("--policies", "predictive,keda-queue,fixed:3", "--no-oracle", "--jobs", "1")


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]  # a function of the test
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr("sys.argv", ["scaler", "compare", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err.splitlines()

    return run


def _written(folder: Path, name: str, *, seed: int, duration_s: float = 900.0) -> str:
    spec = TraceSpec(
        shape=Shape.STEP,
        duration_s=duration_s,
        rate_per_s=2.0,
        peak_per_s=12.0,
        at_s=300.0,
        prompt=Lengths(median_tokens=500.0, p95_tokens=1500.0, longest_tokens=3000),
    )
    write_trace(folder / name, generate(spec, seed=seed))
    return str(folder / name)


@pytest.fixture(name="traces", scope="module")
def _traces(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("traces")
    return _written(folder, "one.csv.gz", seed=5), _written(folder, "two.csv.gz", seed=6)


def _kept(folder: Path) -> dict[Path, int]:
    """Runs in a cache folder and when each was written."""
    return {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.json")}


def test_it_writes_a_scoreboard_and_prints_a_table(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    status, printed, errors = run(*traces, "--out", str(out), *TINY, "--frontier")
    assert (status, errors) == (0, [])
    entries = json.loads((out / "scoreboard.json").read_text())
    assert [(e["trace"], e["policy"], e["variant"], e["group"]) for e in entries][:6] == [
        ("one.csv.gz", "predictive", "shipped", "ours"),
        ("one.csv.gz", "predictive", "frontier", "ours"),
        ("one.csv.gz", "keda-queue", "shipped", "metric"),
        ("one.csv.gz", "keda-queue", "shipped", "metric"),
        ("one.csv.gz", "keda-queue", "frontier", "metric"),
        ("one.csv.gz", "fixed:3", "shipped", "bound"),
    ]
    assert [e["trace"] for e in entries] == ["one.csv.gz"] * 6 + ["two.csv.gz"] * 6
    assert all(e["oracle_gpu_hours"] is None for e in entries), "not computed, not claimed"
    with (out / "scoreboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(entries)
    for row, entry in zip(rows, entries, strict=True):
        assert float(row["gpu_hours"]) == entry["gpu_hours"]
        assert float(row["ttft_s.p99"]) == entry["ttft_s"]["p99"]
        assert (row["gpu_hours_at_target"] == "") == (entry.get("gpu_hours_at_target") is None)
    assert (out / "scoreboard.html").read_text() == render(entries), "the page of these entries"
    lines = printed.splitlines()
    assert lines[0].startswith("one.csv.gz: ")
    headings = ("ours", "metric-driven", "bounds")
    assert [line.strip() for line in lines if line.strip() in headings] == [*headings, *headings]
    assert sum("keda-queue" in line for line in lines) == 6
    assert f"written to {out}" in lines


def test_a_schedule_that_misses_the_target_is_no_oracle(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Start-ups of 600 s on 900 s of load: only who begins with its replicas reaches the target."""
    out = tmp_path / "out"
    options = ("--start-up-s", "600", "--load-factor", "2", "--jobs", "1", "--max-replicas", "16")
    late = ("--replica-model", "llama-3.1-8b-rtx-4090-tp1", *options)
    status, printed, _ = run(
        traces[0], "--out", str(out), "--policies", "predictive,fixed:16", *late
    )
    assert status == 0
    entries = json.loads((out / "scoreboard.json").read_text())
    for entry in entries:
        assert entry["oracle_gpu_hours"] is entry["gpu_hours_over_oracle"] is None
        assert entry["oracle_bound_gpu_hours"] > 0.0
    assert "no schedule found reaches it" in printed.splitlines()[0]


def test_the_table_has_who_needs_least_first(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, printed, _ = run(
        traces[0], "--out", str(tmp_path), "--policies", "fixed:5,fixed:1,fixed:4", *TINY[2:]
    )
    assert status == 0
    names = [line.split()[0] for line in printed.splitlines() if "fixed:" in line]
    assert names == ["fixed:4", "fixed:5", "fixed:1"], "one replica does not reach the target"


def test_json_is_the_scoreboard(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, printed, _ = run(traces[0], "--out", str(tmp_path / "out"), *TINY, "--json")
    assert json.loads(printed) == json.loads((tmp_path / "out" / "scoreboard.json").read_text())


def test_the_second_call_runs_nothing(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cache = tmp_path / "kept"
    arguments = (traces[0], *TINY, "--cache", str(cache), "--frontier")
    assert run(*arguments, "--out", str(tmp_path / "one"))[0] == 0
    before = _kept(cache)
    assert run(*arguments, "--out", str(tmp_path / "other"))[0] == 0
    assert _kept(cache) == before != {}
    for name in ("scoreboard.json", "scoreboard.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_the_cache_is_in_the_users_folder_unless_told(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run(traces[0], "--out", str(tmp_path / "out"), *TINY)
    assert len(_kept(tmp_path / "cache" / "vllm-scaler")) == 5  # attainable, 1 + 2 forms + 1


@pytest.mark.timeout(LIMIT_S + 60.0)
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_comparison_goes_on(run, traces, tmp_path: Path, ending: signal.Signals) -> None:  # type: ignore[no-untyped-def]
    """Ended in whatever way after its first runs, it keeps them, and the next call the same."""
    cache = tmp_path / "kept"
    counts = ",".join(f"fixed:{count}" for count in range(3, 13))
    arguments = (
        traces[0], "--policies", counts, "--no-oracle", "--cache", str(cache),
        "--load-factor", "5", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "compare", *arguments, "--jobs", "2"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=dict(os.environ),
    ) as process:
        end_s = time.monotonic() + LIMIT_S
        while len(_kept(cache)) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end_s
            time.sleep(0.002)
        process.send_signal(ending)
    assert process.returncode == (130 if ending is signal.SIGINT else -ending)
    before = _kept(cache)
    assert 3 <= len(before) < 11
    assert run(*arguments, "--jobs", "1")[0] == 0
    after = _kept(cache)
    assert len(after) == 11  # 10 counts and the attainable
    assert {path: after[path] for path in before} == before, "what was there is not run again"


def test_a_baseline_is_tuned_on_the_traces_after_tune_on(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, _, errors = run(
        traces[0], *TINY, "--variants", "shipped,tuned", "--out", str(tmp_path),
        "--tune-on", traces[1], _written(tmp_path, "three.csv", seed=9, duration_s=400.0),
        "--attainment", "0.9",
    )  # fmt: skip
    assert (status, errors) == (0, [])
    entries = json.loads((tmp_path / "scoreboard.json").read_text())
    assert {entry["trace"] for entry in entries} == {"one.csv.gz"}
    (tuned,) = (entry for entry in entries if entry["variant"] == "tuned")
    assert tuned["policy"] == "keda-queue"
    assert tuned["tuned_on"] == ["two.csv.gz", "three.csv"]
    assert tuned["attainment_target"] == pytest.approx(0.9 * tuned["slo_attainable_ratio"])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--policies", "keda"), ("keda is unknown", "predictive", "keda-queue", "fixed:N")),
        (("--policies", "oracle"), ("--policies oracle", "--no-oracle")),
        (("--variants", "best"), ("--variants: best", "shipped, tuned")),
        (("--variants", "tuned"), ("--variants tuned", "--tune-on TRACE")),
        (("--policies", "fixed:x"), ("policy = fixed:x", "whole number in [1, 10000]")),
        (("--policies", "fixed:40"), ("policy = fixed:40", "[1, 32]", "--max-replicas")),
        (("--screen-until-s", "60"), ("--screen-until-s = 60", "needs --frontier")),
        (("--jobs", "0"), ("jobs = 0", "[1, 1024]")),
        (("--attainment", "1"), ("sloAttainmentTarget", "'1'")),
        (("--set", "nonsense=1"), ("nonsense",)),
        (("--min-replicas", "9", "--max-replicas", "8"), ("--min-replicas = 9", "8]")),
        (("--frontier", "--screen-until-s", "0"), ("screen_until_s = 0.0", "above 0")),
        (("--until-s", "-1"), ("--until-s = -1.0", "above 0")),
        (("--load-factor", "0"), ("--load-factor = 0.0", "(0, 1000]")),
        (("--replica-model", "gpt-9"), ("replica_model = gpt-9",)),
    ],
)
def test_wrong_input_is_one_line_and_status_2(  # type: ignore[no-untyped-def]
    run, traces, tmp_path: Path, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    status, printed, errors = run(traces[0], "--out", str(tmp_path / "out"), *TINY, *arguments)
    assert (status, printed) == (2, "")
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    for part in parts:
        assert part in errors[0]


def test_a_trace_that_nobody_can_serve_compares_nothing(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, printed, errors = run(
        traces[0], "--out", str(tmp_path / "out"), *TINY, "--slo-ttft-s", "0.01"
    )
    assert (status, printed) == (2, "")
    assert "requests can meet the objectives, not even alone on a replica of " in errors[-1]
    assert "tokens of prompt and output together" in errors[-1]


def test_a_bad_row_is_named_or_skipped(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trace = tmp_path / "bad.csv"
    rows = [f"{at}.5,100,20" for at in range(30)]
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows, "31,-4,20", ""]))
    out = ("--out", str(tmp_path / "out"))
    status, _, errors = run(str(trace), *out, *TINY)
    assert status == 2
    assert "line 32" in errors[0]
    assert run(str(trace), *out, *TINY, "--skip-bad-rows")[0] == 0
    entries = json.loads((tmp_path / "out" / "scoreboard.json").read_text())
    assert {(entry["requests"], entry["rows_skipped"]) for entry in entries} == {(30, 1)}


def test_two_traces_of_one_name_are_refused(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    twin = _written(tmp_path, "one.csv.gz", seed=8)
    status, _, errors = run(traces[0], twin, "--out", str(tmp_path / "out"), *TINY)
    assert status == 2
    assert "may not have the same file name" in errors[0]


def test_a_folder_that_cannot_be_made_is_the_worlds_fault(run, traces, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("in the way")
    status, _, errors = run(traces[0], "--out", str(tmp_path / "file" / "run"), *TINY)
    assert status == 1
    assert len(errors) == 1
    assert "file" in errors[0]
