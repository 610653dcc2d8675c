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
from simulations.run import Result, Tick, Watch
from simulations.scenario import Scenario, watched
from simulations.score import Quantiles
from simulations.timeline import COLUMNS
from simulations.traces import TraceReader

NAMESPACE, NAME, TARGET, ID = "simulated", "simulated", "deployment/simulated", "0"

Log = Callable[[Tick], None]


# Files


@contextlib.contextmanager
def decision_log(directory: Path, scenario: Scenario) -> Iterator[Log]:
    """Writes decisions.jsonl, records as the daemon's log has them: `scaler replay` reads it.

    The state from which the first decision was made stands in front.  A fixed count decides
    nothing, and its log is empty.
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
        if scenario.policy.replicas_fixed is None:
            state = StateRecord(kind="state", policy=policy, state=PolicyState(), **known)
            file.write(encode(state) + b"\n")

        def log(tick: Tick) -> None:
            if tick.decision is not None:
                record = DecisionRecord(kind="decision", decision=tick.decision, **known)
                file.write(encode(record) + b"\n")

        yield log


def summary(trace: str, scenario: Scenario, result: Result, *, rows_skipped: int) -> dict[str, Any]:
    """summary.json; the last four entries are of the machine, not of the scenario."""
    score, spent = result.score, result.spent
    policy = watched(scenario.policy.config, scenario.scaled_object, scenario.cluster)
    made: dict[str, Any] = {
        "trace": trace,
        "policy": scenario.policy.name,
        "seed": scenario.seed,
        "config_hash": config_hash(policy),
        "replica_model": scenario.model.name,
        "load_factor": scenario.load_factor,
        "rows_skipped": rows_skipped,
        "duration_s": result.end_s,
        "requests": score.requests,
        "completed": score.completed,
        "rejected": score.rejected,
        "cut_by_scale_down": score.cut_by_scale_down,
        "slo_attainment_ratio": score.slo_attainment_ratio,
        "gpu_hours": score.gpu_hours,
        "pending_gpu_hours": score.pending_gpu_hours,
        "replica_hours": score.replica_hours,
        "ttft_s": _quantiles(score.ttft_s, "p50", "p90", "p95", "p99", "max"),
        "tpot_s": _quantiles(score.tpot_s, "p50", "p95", "p99"),
        "queue_s": _quantiles(score.queue_s, "p95", "p99"),
        "replicas": {
            "min": score.replicas_min,
            "mean": score.replicas_mean,
            "max": score.replicas_max,
        },
        "replica_changes": score.replica_changes,
        "reversals": score.reversals,
        "wall_s": spent.wall_s,
        "decide_wall_s": spent.decide_wall_s,
        "simulated_requests_per_s": score.requests / spent.wall_s if spent.wall_s else None,
    }
    return made


def _quantiles(found: Quantiles, *names: str) -> dict[str, float | None]:
    """By name; null where no request has the latency, because JSON knows no NaN."""
    values = {name: getattr(found, name) for name in names}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def write(directory: Path, made: Mapping[str, Any], result: Result) -> None:
    """Write summary.json and timeline.csv."""
    text = json.dumps(made, indent=2, allow_nan=False)
    (directory / "summary.json").write_text(text + "\n", encoding="utf-8")
    timeline = result.timeline
    with (directory / "timeline.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow((*COLUMNS, "decided_by"))
        for numbers, stage in zip(
            timeline.numbers.tolist(), timeline.decided_by.tolist(), strict=True
        ):
            rows.writerow((*map(_cell, numbers), stage))


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
        f"{made['policy']} on {made['trace']}: {made['slo_attainment_ratio']:.2%}"
        f" of {made['requests']:,} requests within the objectives"
    )
    lines.append(
        f"TTFT p95 {p95}, p99 {p99}; {made['gpu_hours']:,.1f} GPU-hours"
        f" ({made['pending_gpu_hours']:,.1f} more pending)"
    )
    lines.append(
        f"replicas {replicas['min']} to {replicas['max']}, mean {replicas['mean']:.2f};"
        f" {made['replica_changes']} changes, {made['reversals']} reversals"
    )
    lines.append(
        f"{made['wall_s']:.1f} s, of it {made['decide_wall_s']:.1f} s deciding;"
        f" written to {directory}"
    )
    return "\n".join(lines)


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
