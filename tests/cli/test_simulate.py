"""``scaler simulate`` as people start it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from scaler import cli
from scaler.errors import ScenarioError
from scaler.ops.replay import read_log, replay
from scaler.service.codec import DecisionRecord, StateRecord
from simulations import Scenario
from simulations import run as run_module
from simulations.lifecycle import VictimOrder
from simulations.timeline import COLUMNS
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate
from simulations.traces import write_trace

pytestmark = pytest.mark.usefixtures("no_progress")

PROGRAM = "from scaler import cli; cli.main()"
MACHINE = ("wall_s", "decide_wall_s", "simulated_requests_per_s")  # not of the scenario
FILES = ("timeline.csv", "decisions.jsonl", "report.html")
SUMMARY = {
    "trace", "policy", "seed", "config_hash", "requests", "completed", "rejected",
    "cut_by_scale_down", "slo_attainment_ratio", "slo_attainable_ratio", "gpu_hours",
    "pending_gpu_hours", "replica_hours", "oracle_gpu_hours", "oracle_bound_gpu_hours",
    "gpu_hours_over_oracle", "ttft_s", "tpot_s", "queue_s", "replicas", "replica_changes",
    "reversals", *MACHINE,
}  # fmt: skip


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]  # a function of the test
    def run(*arguments: str) -> tuple[int, str, list[str]]:
        searched = () if "--oracle" in arguments else ("--no-oracle",)
        monkeypatch.setattr("sys.argv", ["scaler", "simulate", *arguments, *searched])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err.splitlines()

    return run


@pytest.fixture(name="trace", scope="module")
def _trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    spec = TraceSpec(
        shape=Shape.STEP,
        duration_s=900.0,
        rate_per_s=2.0,
        peak_per_s=12.0,
        at_s=300.0,
        prompt=Lengths(median_tokens=500.0, p95_tokens=1500.0, longest_tokens=3000),
    )
    path = tmp_path_factory.mktemp("traces") / "step.csv.gz"
    write_trace(path, generate(spec, seed=5))
    return str(path)


def _summary(directory: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads((directory / "summary.json").read_text()))


def test_it_writes_what_can_be_read_back(run, trace: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "run"
    status, printed, errors = run(trace, "--out", str(out), "--start-up-s", "40", "--json")
    assert (status, errors) == (0, [])
    summary = _summary(out)
    assert json.loads(printed) == summary
    assert summary["trace"] == "step.csv.gz"
    assert summary["requests"] == summary["completed"] > 5000
    assert 0.5 < summary["slo_attainment_ratio"] <= 1.0
    assert summary["gpu_hours"] == pytest.approx(4.0 * summary["replica_hours"])
    assert set(summary["ttft_s"]) == {"p50", "p90", "p95", "p99", "max"}
    assert set(summary) >= SUMMARY
    assert summary["slo_attainment_ratio"] <= summary["slo_attainable_ratio"] <= 1.0
    assert summary["oracle_gpu_hours"] is None, "what is not computed is not claimed"
    with (out / "timeline.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == (*COLUMNS, "decided_by", "faults")
    assert len(rows) >= 60  # 900 s of 15 s ticks
    ready = [int(row["replicas_ready"]) for row in rows]
    # The first ten minutes bring some 4200 requests of 0.11 replica-seconds at the least.
    assert summary["first_hour"]["replicas"] == ready[0] == 2
    assert max(ready) >= 2
    records = list(read_log(out / "decisions.jsonl"))
    assert isinstance(records[0], StateRecord)
    assert sum(isinstance(record, DecisionRecord) for record in records) == len(rows)


def test_its_log_is_replayed_by_the_daemons_replay(run, trace: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Invariant 4: the log holds all that the decisions depended on."""
    run(trace, "--out", str(tmp_path))
    replayed = list(replay(read_log(tmp_path / "decisions.jsonl")))
    assert len(replayed) >= 60
    assert all(one.same for one in replayed)


def test_two_processes_write_the_same_bytes(trace: str, tmp_path: Path) -> None:
    """Invariant 5, with different hash seeds so that no order of a set is in the result."""
    for name, hash_seed in (("one", "1"), ("other", "2")):
        arguments = (
            trace, "--out", str(tmp_path / name), "--load-factor", "1.5", "--seed", "7",
            "--no-oracle", "--sessions", "40,5", "--fault", "scrape-gap:300:400:0.5",
        )  # fmt: skip
        subprocess.run(
            [sys.executable, "-c", PROGRAM, "simulate", *arguments],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
        )
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    one, other = _summary(tmp_path / "one"), _summary(tmp_path / "other")
    for key in MACHINE:
        del one[key], other[key]
    assert one == other


def test_a_seed_is_another_run(run, trace: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for seed in ("1", "2"):
        assert run(trace, "--out", str(tmp_path / seed), "--seed", seed)[0] == 0
    assert (tmp_path / "1/timeline.csv").read_bytes() != (tmp_path / "2/timeline.csv").read_bytes()


def test_settings_reach_the_policy(run, trace: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """By path, by metadata key, by option, from the file; the nearer one wins."""
    config = tmp_path / "config.yaml"
    config.write_text("policy: {slo: {ttft_s: 9, tpot_s: 8}, demand: {rate_time_constant_s: 45}}\n")
    status, _, errors = run(
        trace, "--out", str(tmp_path), "--until-s", "120", "--config", str(config),
        "--set", "hold_down.window_s=120", "--set", "forecastQuantileRatio=0.8",
        "--slo-ttft-s", "3", "--attainment", "0.95", "--kubernetes-version", "1.34",
    )  # fmt: skip
    assert (status, errors) == (0, [])
    first = next(read_log(tmp_path / "decisions.jsonl"))
    assert isinstance(first, StateRecord)
    policy = first.policy
    assert (policy.slo.ttft_s, policy.slo.tpot_s) == (3.0, 8.0)
    assert policy.slo.attainment_target_ratio == 0.95
    assert policy.hold_down.window_s == 120.0
    assert policy.forecast.quantile_ratio == 0.8
    assert policy.demand.rate_time_constant_s == 45.0
    assert (policy.hpa.kubernetes_minor, policy.hpa.tolerance_up_ratio) == (34, 0.1)


def test_a_fixed_count_and_a_limit_of_gpus(run, trace: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fixed, few = tmp_path / "fixed", tmp_path / "few"
    assert run(trace, "--out", str(fixed), "--policy", "fixed:3")[0] == 0
    summary = _summary(fixed)
    assert summary["replicas"] == {"min": 3, "mean": 3.0, "max": 3}
    assert summary["replica_changes"] == 0
    assert (fixed / "decisions.jsonl").read_bytes() == b""
    assert run(trace, "--out", str(few), "--gpus-total", "4", "--start-up-s", "20,40")[0] == 0
    assert _summary(few)["pending_gpu_hours"] > 0.0


def test_a_peer_with_its_knob_and_the_hpa_of_ours(run, trace: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    entries = {}
    for name, options in (
        ("shipped", ()),
        ("eager", ("--knob", "2")),
        ("ours", ("--behaviour", "ours")),
    ):
        out = tmp_path / name
        arguments = (trace, "--out", str(out), "--policy", "keda-queue", "--start-up-s", "40")
        assert run(*arguments, *options)[0] == 0
        entries[name] = _summary(out)
        assert (out / "decisions.jsonl").read_bytes() == b"", "its decisions are not ours"
    assert entries["eager"]["knob_value"] == 2.0
    assert entries["eager"]["gpu_hours"] != entries["shipped"]["gpu_hours"]
    assert entries["ours"]["gpu_hours"] != entries["shipped"]["gpu_hours"]


def test_the_oracle_bounds_a_run_and_is_a_policy_itself(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    spec = TraceSpec(shape=Shape.STEP, duration_s=900.0, rate_per_s=0.5, peak_per_s=4.0, at_s=300.0)
    trace = tmp_path / "small.csv"
    write_trace(trace, generate(spec, seed=5))
    assert run(str(trace), "--out", str(tmp_path / "ours"), "--oracle")[0] == 0
    ours = _summary(tmp_path / "ours")
    assert 0.0 < ours["oracle_bound_gpu_hours"] <= ours["oracle_gpu_hours"]
    assert ours["gpu_hours_over_oracle"] == pytest.approx(
        ours["gpu_hours"] / ours["oracle_gpu_hours"]
    )
    arguments = ("--policy", "oracle", "--attainment", "0.9")
    status, printed, _ = run(str(trace), "--out", str(tmp_path / "best"), *arguments)
    assert status == 0
    best = _summary(tmp_path / "best")
    assert best["policy"] == "oracle"
    assert best["slo_attainment_ratio"] >= 0.9 * best["slo_attainable_ratio"] - 1e-9
    assert "oracle on small.csv" in printed


def test_what_is_chosen_reaches_the_fleet(run, trace: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Each option by what it does to the numbers of a run."""

    def made(name: str, *options: str) -> dict[str, Any]:
        out = tmp_path / name
        arguments = (trace, "--out", str(out), "--policy", "fixed:3")
        assert run(*arguments, *options)[0] == 0
        return _summary(out)

    plain = made("plain")
    assert plain["routing"] == "least-requests"
    assert made("random", "--routing", "random")["ttft_s"]["p95"] > plain["ttft_s"]["p95"]
    cached = made("cached", "--prefix-cache-ratio", "0.9")
    assert cached["ttft_s"]["p50"] < 0.7 * plain["ttft_s"]["p50"]
    kept = ("--prefix-cache-ratio", "0.9", "--sessions", "200,10", "--routing")
    sticky, spread = made("sticky", *kept, "session"), made("spread", *kept, "round-robin")
    assert sticky["ttft_s"]["p50"] < spread["ttft_s"]["p50"]
    sick = made("sick", "--fault", "sick-replica:300:600:10")
    assert sick["faults"] == ["sick-replica:300:600:10"]
    assert sick["slo_attainment_ratio"] < plain["slo_attainment_ratio"]
    with (tmp_path / "sick" / "timeline.csv").open(newline="") as file:
        marked = [float(row["at_s"]) for row in csv.DictReader(file) if row["faults"]]
    assert min(marked) >= 300.0
    assert max(marked) < 600.0


@pytest.mark.parametrize(
    ("workload", "order"),
    [
        ("deployment", VictimOrder.REPLICASET),
        ("statefulset", VictimOrder.ORDINAL),
        ("leaderworkerset", VictimOrder.ORDINAL),
    ],
)
def test_a_workload_brings_its_order_of_victims(
    trace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workload: str, order: VictimOrder
) -> None:
    """What it does to a fleet is held where fleets are."""
    asked: list[VictimOrder] = []

    def noted(scenario: Scenario, **_: object) -> None:
        asked.append(scenario.victims)
        raise ScenarioError("seen")

    monkeypatch.setattr(run_module, "simulate", noted)
    arguments = ["simulate", trace, "--out", str(tmp_path), "--workload", workload]
    with pytest.raises(ScenarioError, match="seen"):
        cli.cli(arguments, standalone_mode=False)
    assert asked == [order]


def test_nodes_come_for_pending_replicas(run, trace: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pending, most = {}, {}
    for name, options in (("none", ()), ("some", ("--gpus-max", "64"))):
        out = tmp_path / name
        arguments = (trace, "--out", str(out), "--gpus-total", "4", "--start-up-s", "30",
                     "--node-provisioning-s", "60")  # fmt: skip
        assert run(*arguments, *options)[0] == 0
        summary = _summary(out)
        pending[name] = summary["pending_gpu_hours"]
        with (out / "timeline.csv").open(newline="") as file:
            most[name] = max(int(row["replicas_ready"]) for row in csv.DictReader(file))
    assert most["none"] == 1 < most["some"]
    assert pending["some"] > 0.0


def test_from_zero_and_back(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trace = tmp_path / "sparse.csv"
    rows = [f"{at},100,20" for at in (30, 31, 32, 3000, 3001)]
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows, ""]))
    arguments = (str(trace), "--out", str(tmp_path), "--min-replicas", "0", "--start-up-s", "40")
    status, printed, errors = run(*arguments, "--oracle")
    assert (status, errors) == (0, [])
    assert "oracle not known where a gateway wakes the target" in printed
    summary = _summary(tmp_path)
    assert summary["oracle_gpu_hours"] is None
    assert summary["completed"] == 5
    assert summary["replicas"]["min"] == 0
    assert 40.0 < summary["ttft_s"]["max"] < 120.0


def test_a_request_at_the_very_beginning_wakes_a_fleet_at_zero(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The gateway's counter is first seen above zero: that is a request, not where counting begins.

    While the first replica starts there is nobody to be seen, which is not called blindness.
    """
    trace = tmp_path / "early.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n0,100,20\n4000,100,20\n")
    status, _, _ = run(
        str(trace), "--out", str(tmp_path), "--min-replicas", "0", "--initial-replicas", "0",
        "--start-up-s", "300",
    )  # fmt: skip
    assert status == 0
    assert 300.0 < _summary(tmp_path)["ttft_s"]["p90"] < 345.0
    with (tmp_path / "timeline.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    starting = [row for row in rows if row["replicas_wanted"] == "1" > row["replicas_ready"]]
    assert len(starting) >= 2 * 19  # two starts of 300 s, looked at every 15 s
    assert {row["decided_by"] for row in starting} == {"wake"}


def test_a_run_begins_with_what_its_first_minutes_need(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Some 20 requests/s of 0.11 replica-seconds at the least; a tenth of it, and none."""
    spec = TraceSpec(shape=Shape.CONSTANT, duration_s=900.0, rate_per_s=20.0)
    trace = tmp_path / "busy.csv"
    write_trace(trace, generate(spec, seed=5))

    def first(*options: str) -> int:
        arguments = (str(trace), "--out", str(tmp_path / "run"), "--until-s", "60", *options)
        assert run(*arguments)[0] == 0
        return int(_summary(tmp_path / "run")["first_hour"]["replicas"])

    needed = first()
    assert 3 <= needed <= 8
    assert first("--load-factor", "3") == pytest.approx(3 * needed, abs=3)
    assert first("--load-factor", "0.1") == 1
    assert first("--max-replicas", "2") == first("--gpus-total", "8") == 2
    assert first("--min-replicas", "9") == 9
    assert first("--initial-replicas", "1") == 1


def test_a_cold_start_is_named_with_the_option(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    spec = TraceSpec(shape=Shape.CONSTANT, duration_s=7200.0, rate_per_s=12.0)
    trace = tmp_path / "busy.csv"
    write_trace(trace, generate(spec, seed=5))
    arguments = (str(trace), "--start-up-s", "600", "--out")
    status, printed, _ = run(*arguments, str(tmp_path / "cold"), "--initial-replicas", "1")
    assert status == 0
    (line,) = [line for line in printed.splitlines() if "--initial-replicas" in line]
    assert line.startswith("The first hour had ")
    assert "the run began with 1 of up to " in line
    cold = _summary(tmp_path / "cold")
    assert cold["first_hour"]["slo_attainment_ratio"] < 0.9
    assert 0.4 < cold["first_hour"]["requests"] / cold["requests"] < 0.6
    _, printed, _ = run(*arguments, str(tmp_path / "warm"))
    assert "--initial-replicas" not in printed
    assert _summary(tmp_path / "warm")["slo_attainment_ratio"] > 0.97


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ("200000,10", (), "All 3 requests are longer than llama-3.1-70b-h100-tp4 takes, "),
        ("200,10", ("--slo-ttft-s", "0.01"), "None of 3 requests can meet the objectives on "),
    ],
)
def test_what_no_count_can_serve_is_said(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, rows: str, options: tuple[str, ...], said: str
) -> None:
    trace = tmp_path / "odd.csv"
    lines = [f"{at},{rows}" for at in range(3)]
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines, ""]))
    status, printed, _ = run(str(trace), "--out", str(tmp_path / "run"), "--oracle", *options)
    assert status == 0
    assert said in printed
    summary = _summary(tmp_path / "run")
    assert summary["slo_attainable_ratio"] == 0.0
    assert summary["oracle_gpu_hours"] is None
    assert summary["oracle_note"] == "not searched: no request can meet the objectives"
    if not options:
        assert summary["too_long"] == summary["rejected"] == 3
        assert f"{summary['request_tokens_max']:,} tokens" in printed


def test_what_was_left_out_is_not_advertised(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trace = tmp_path / "small.csv"
    trace.write_text("arrival_s,prompt_tokens,output_tokens\n1,100,20\n")
    _, printed, _ = run(str(trace), "--out", str(tmp_path / "run"))  # with --no-oracle
    assert "oracle left out (--no-oracle)" in printed
    assert "simulated in " in printed


def test_bad_rows_are_named_or_counted(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trace = tmp_path / "bad.csv"
    rows = [f"{at}.5,100,20" for at in range(30)]
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows, "31,-4,20", ""]))
    status, _, errors = run(str(trace), "--out", str(tmp_path / "out"))
    assert status == 2
    assert len(errors) == 1
    assert "line 32" in errors[0]
    assert "-4" in errors[0]
    assert run(str(trace), "--out", str(tmp_path / "out"), "--skip-bad-rows")[0] == 0
    summary = _summary(tmp_path / "out")
    assert (summary["rows_skipped"], summary["requests"]) == (1, 30)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--set", "hold_down.window_s=-5"), ("holdDownWindowSeconds", "-5", "[0, 7200]")),
        (("--set", "nonsense=1"), ("nonsense",)),
        (("--set", "nonsense"), ("--set 'nonsense'", "KEY=VALUE")),
        (("--set", "bounds.replicas_max=4"), ("operator",)),
        (("--slo-ttft-s", "x"), ("ttftSloSeconds", "'x'", "number")),
        (("--attainment", "2"), ("sloAttainmentTarget", "'2'", "[0.5, 0.9999]")),
        (("--policy", "nobody"), ("--policy = nobody", "predictive", "keda-queue", "fixed:N")),
        (("--policy", "fixed:0"), ("policy = fixed:0", "[1, 10000]")),
        (("--policy", "fixed:x"), ("policy = fixed:x", "whole number in [1, 10000]")),
        (("--policy", "fixed:9", "--max-replicas", "8"), ("fixed:9", "[1, 8]", "--max-replicas")),
        (("--policy", "fixed:1", "--min-replicas", "2"), ("fixed:1", "[2, 32]")),
        (("--knob", "3"), ("--knob is for a peer", "predictive")),
        (
            ("--policy", "keda-queue", "--knob", "nan"),
            ("--knob = nan", "waiting", "[0.001, 1e+09]"),
        ),
        (("--policy", "keda-queue", "--knob", "inf"), ("--knob = inf", "1e+09")),
        (("--policy", "keda-queue", "--knob", "0"), ("--knob = 0,", "[0.001")),
        (("--policy", "keda-queue", "--variant", "odd"), ("variant = odd", "shipped")),
        (("--fault", "flood:0:1"), ("fault = 'flood:0:1'", "gpu-limit")),
        (("--sessions", "4"), ("--sessions = '4'", "OPEN,TURNS")),
        (("--sessions", "0,4"), ("--sessions = '0,4'", "open = 0")),
        (("--routing", "best"), ("'best'", "kv-aware")),
        (("--gpus-total", "8", "--gpus-max", "4"), ("--gpus-max = 4", "at least", "8")),
        (("--gpus-max", "4"), ("--gpus-max = 4", "needs --gpus-total")),
        (("--node-provisioning-s", "soon"), ("--node-provisioning-s = 'soon'", "MEDIAN,P95")),
        (("--max-replicas", "0"), ("--max-replicas = 0", "at least 1")),
        (("--prefix-cache-ratio", "2"), ("--prefix-cache-ratio", "0.0<=x<=1.0")),
        (("--policy", "oracle", "--sessions", "4,4"), ("policy = oracle", "conversations")),
        (("--replica-model", "gpt-9"), ("replica_model = gpt-9", "llama-3.1-70b-h100-tp4")),
        (("--start-up-s", "soon"), ("--start-up-s = 'soon'", "MEDIAN,P95")),
        (("--start-up-s", "50,20"), ("--start-up-s = '50,20'", "0 < median < p95")),
        (("--min-replicas", "-1"), ("--min-replicas = -1", "[0, 32]")),
        (("--min-replicas", "9", "--max-replicas", "8"), ("--min-replicas = 9", "[0, 8]")),
        (("--initial-replicas", "40"), ("initial_replicas = 40", "[1, 32]")),
        (("--gpus-total", "3"), ("gpus_total = 3", "at least 4")),
        (("--load-factor", "0"), ("--load-factor = 0.0", "(0, 1000]")),
        (("--kubernetes-version", "new"), ("'new'", "1.33")),
        (("--seed", "-1"), ("--seed = -1", "at least 0")),
        (("--until-s", "-1"), ("--until-s = -1.0", "above 0")),
    ],
)
def test_wrong_input_is_one_line_and_status_2(  # type: ignore[no-untyped-def]
    run, trace: str, tmp_path: Path, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    status, printed, errors = run(trace, "--out", str(tmp_path / "out"), *arguments)
    assert (status, printed) == (2, "")
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    for part in parts:
        assert part in errors[0]


def test_a_folder_that_cannot_be_made_is_the_worlds_fault(run, trace: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("in the way")
    status, _, errors = run(trace, "--out", str(tmp_path / "file" / "run"))
    assert status == 1
    assert len(errors) == 1
    assert "file" in errors[0]
