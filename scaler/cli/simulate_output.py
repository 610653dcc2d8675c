"""What ``scaler simulate`` writes and shows."""

import contextlib
import csv
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import click

from scaler.config import config_hash
from scaler.core.policy import PolicyState
from scaler.service.codec import SCHEMA_VERSION, DecisionRecord, StateRecord, encode
from simulations.run import Result, Tick
from simulations.scenario import Scenario, watched
from simulations.score import Quantiles
from simulations.timeline import COLUMNS

NAMESPACE, NAME, TARGET, ID = "simulated", "simulated", "deployment/simulated", "0"
SHOW_AFTER_S = 2.0
PLAIN_EVERY_S = 10.0
TERMINAL_EVERY_S = 0.2

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


class Progress(Protocol):
    """Shows how far a run is."""

    def __call__(self, tick: Tick) -> None:
        """Take in a tick."""
        ...

    def say(self, what: str) -> None:
        """Say what is done before the first tick."""
        ...


@contextlib.contextmanager
def shown_progress(until_s: float | None) -> Iterator[Progress]:
    """Progress on standard error, from two seconds on: live on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        lines = _Lines()
        try:
            yield lines
        finally:
            lines.stop()
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.status import Status  # noqa: PLC0415

    status = Status("", console=Console(stderr=True))
    live = _Live(status, until_s)
    try:
        yield live
    finally:
        status.stop()


class _Pace:
    """When to show something next, and how fast the run is."""

    def __init__(self, every_s: float) -> None:
        self._began_s = time.monotonic()
        self._every_s = every_s
        self._due_s = self._began_s + SHOW_AFTER_S

    def due(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._every_s
        return True

    def text(self, tick: Tick) -> str:
        elapsed_s = time.monotonic() - self._began_s
        return (
            f"{tick.at_s / 3600.0:.1f} h simulated, {tick.arrived:,} requests, "
            f"{tick.arrived / elapsed_s:,.0f} requests/s"
        )


class _Lines:
    """One line every few seconds."""

    def __init__(self) -> None:
        self._pace = _Pace(PLAIN_EVERY_S)
        self._said: threading.Timer | None = None

    def __call__(self, tick: Tick) -> None:
        self.stop()
        if self._pace.due():
            click.echo(self._pace.text(tick), err=True)

    def say(self, what: str) -> None:
        """Said only if it takes long: whoever does it cannot look at a clock meanwhile."""
        self._said = threading.Timer(SHOW_AFTER_S, click.echo, (what,), {"err": True})
        self._said.daemon = True
        self._said.start()

    def stop(self) -> None:
        """What was to be said is over."""
        if self._said is not None:
            self._said.cancel()
            self._said = None


class _Live:
    """A line that is rewritten; with an end known, also the time left."""

    def __init__(self, status: Any, until_s: float | None) -> None:
        self._pace = _Pace(TERMINAL_EVERY_S)
        self._status = status
        self._until_s = until_s
        self._began_s = time.monotonic()

    def __call__(self, tick: Tick) -> None:
        if self._pace.due():
            self._status.start()
            self._status.update(self._pace.text(tick) + self._left(tick))

    def _left(self, tick: Tick) -> str:
        if self._until_s is None or not 0.0 < tick.at_s < self._until_s:
            return ""
        elapsed_s = time.monotonic() - self._began_s
        return f", {elapsed_s * (self._until_s / tick.at_s - 1.0):.0f} s left"

    def say(self, what: str) -> None:
        self._status.update(what)
        self._status.start()
