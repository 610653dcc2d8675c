"""What ``scaler simulate`` writes and shows."""

import contextlib
import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scaler.cli.progress import Progress, time_left
from scaler.config import config_hash
from scaler.core.policy import PolicyState
from scaler.service.codec import SCHEMA_VERSION, DecisionRecord, StateRecord, encode
from simulations.report import render_simulation
from simulations.report_records import Records
from simulations.report_verdict import cold_start, hopeless, share
from simulations.run import Result, Tick, Watch
from simulations.scenario import Scenario, watched
from simulations.summary import summary as run_summary
from simulations.timeline import COLUMNS
from simulations.traces import TraceReader

NAMESPACE, NAME, TARGET, ID = "simulated", "simulated", "deployment/simulated", "0"

MACHINE = ("wall_s", "decide_wall_s", "simulated_requests_per_s")

Log = Callable[[Tick], None]


# Files


@contextlib.contextmanager
def decision_log(directory: Path, scenario: Scenario) -> Iterator[Log]:
    """Writes decisions.jsonl, records as the daemon's log has them: `scaler replay` reads it.

    The state from which the first decision was made stands in front.  Where another policy decides
    the log is empty.
    """
    policy = watched(scenario.policy.config, scenario.scaled_object, scenario.cluster)
    known: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "namespace": NAMESPACE,
        "name": NAME,
        "id": ID,
        "target": TARGET,
        "config_hash": config_hash(policy),
    }
    with (directory / "decisions.jsonl").open("wb") as file:

        def log(tick: Tick) -> None:
            if tick.decision is None:
                return
            if file.tell() == 0:
                state = StateRecord(kind="state", policy=policy, state=PolicyState(), **known)
                file.write(encode(state) + b"\n")
            record = DecisionRecord(kind="decision", decision=tick.decision, **known)
            file.write(encode(record) + b"\n")

        yield log


def summary(
    scenario: Scenario, result: Result, trace: Mapping[str, Any], bounds: Mapping[str, Any]
) -> dict[str, Any]:
    """summary.json, in the order of its reader's questions; the last three are of the machine."""
    run = run_summary(scenario, result)
    spent = {name: run.pop(name) for name in MACHINE}
    return {
        **trace,
        **run,
        **bounds,
        "variant": scenario.policy.variant,
        "knob_value": scenario.policy.knob,
        "routing": scenario.routing.name.lower().replace("_", "-"),
        "faults": [str(fault) for fault in scenario.faults],
        **spent,
    }


def write(
    directory: Path,
    made: Mapping[str, Any],
    scenario: Scenario,
    result: Result,
    records: Records,
) -> None:
    """Write summary.json, timeline.csv and report.html."""
    text = json.dumps(made, indent=2, allow_nan=False)
    (directory / "summary.json").write_text(text + "\n", encoding="utf-8")
    timeline = result.timeline
    with (directory / "timeline.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow((*COLUMNS, "decided_by", "faults"))
        words = zip(timeline.decided_by.tolist(), timeline.faults.tolist(), strict=True)
        for numbers, said in zip(timeline.numbers.tolist(), words, strict=True):
            rows.writerow((*map(_cell, numbers), *said))
    shown = {name: value for name, value in made.items() if name not in MACHINE}
    page = render_simulation(shown, scenario, result, records)
    (directory / "report.html").write_text(page, encoding="utf-8")


def _cell(value: float) -> str:
    """Six significant digits are more than anyone plots; empty where nothing was seen."""
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() else f"{value:.9g}"


def headline(made: Mapping[str, Any], directory: Path) -> str:
    """The run in a few lines."""
    replicas, ttft = made["replicas"], made["ttft_s"]
    p95, p99 = (_seconds(ttft[name]) for name in ("p95", "p99"))
    lines = []
    lines.append(
        f"{made['policy']} on {made['trace']}: {share(made['slo_attainment_ratio'])}"
        f" of {made['requests']:,} requests within the objectives"
    )
    lines += [said for said in (hopeless(made), cold_start(made)) if said]
    lines.append(
        f"TTFT p95 {p95}, p99 {p99}; {made['gpu_hours']:,.1f} GPU-hours"
        f" ({made['pending_gpu_hours']:,.1f} more pending)"
    )
    lines.append(_against_oracle(made))
    lines.append(
        f"replicas {replicas['min']} to {replicas['max']}, mean {replicas['mean']:.2f};"
        f" {made['replica_changes']} changes, {made['reversals']} reversals"
    )
    lines.append(
        f"simulated in {made['wall_s']:.1f} s, {made['decide_wall_s']:.1f} s of it in the policy"
        f" (without reading, searching, writing); written to {directory}"
    )
    return "\n".join(lines)


def _against_oracle(made: Mapping[str, Any]) -> str:
    attainable, hours = made["slo_attainable_ratio"], made["oracle_gpu_hours"]
    line = f"{share(attainable)} attainable; oracle "
    if hours is None:
        return f"{line}{made['oracle_note']}"
    note = f" ({made['oracle_note']})" if made["oracle_note"] else ""
    return (
        f"{line}{hours:,.1f} GPU-hours, no schedule below {made['oracle_bound_gpu_hours']:,.1f}:"
        f" {made['gpu_hours_over_oracle']:.2f} times the oracle's{note}"
    )


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} s"


# Progress


def ticked(progress: Progress, reader: TraceReader, until_s: float | None) -> Watch:
    """Shows simulated time, rate and time left, tick by tick."""

    def show(tick: Tick) -> None:
        progress(lambda elapsed_s: _pace(tick, elapsed_s) + _left(tick, elapsed_s))

    def _left(tick: Tick, elapsed_s: float) -> str:
        span_s = reader.span_s if until_s is None else min(until_s, reader.span_s)
        return time_left(tick.at_s / span_s if span_s > 0.0 else 0.0, elapsed_s)

    return show


def _pace(tick: Tick, elapsed_s: float) -> str:
    return (
        f"{tick.at_s / 3600.0:.1f} h simulated, {tick.arrived:,} requests, "
        f"{tick.arrived / elapsed_s:,.0f} requests/s"
    )
