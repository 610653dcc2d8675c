"""What ``scaler compare`` writes and shows."""

import contextlib
import csv
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from scaler.cli.progress import Progress, shown, time_left
from simulations.engine import load_kernel
from simulations.frontier import REACHED_FROM
from simulations.report_scoreboard import GROUPS, hours_at_target, render
from simulations.report_verdict import cold_start
from simulations.scoreboard import Scoreboard

Entry: TypeAlias = Mapping[str, Any]

CSV_COLUMNS = (
    "trace", "policy", "variant", "group", "behaviour", "knob", "knob_value", "attainment_target",
    "slo_attainment_ratio", "slo_attainable_ratio", "target_reached", "gpu_hours",
    "gpu_hours_at_target", "gpu_hours_over_oracle", "oracle_gpu_hours", "oracle_bound_gpu_hours",
    "pending_gpu_hours", "replica_hours", "requests", "completed", "rejected", "cut_by_scale_down",
    "ttft_s.p50", "ttft_s.p90", "ttft_s.p95", "ttft_s.p99", "ttft_s.max", "tpot_s.p50",
    "tpot_s.p95", "tpot_s.p99", "queue_s.p95", "queue_s.p99", "replicas.min", "replicas.mean",
    "replicas.max", "replica_changes", "reversals", "replica_model", "load_factor", "seed",
    "config_hash", "wall_s", "decide_wall_s", "simulated_requests_per_s",
)  # fmt: skip


# Files


def write(directory: Path, board: Scoreboard) -> None:
    """Write scoreboard.json, scoreboard.csv and scoreboard.html."""
    text = json.dumps(board.entries, indent=2, allow_nan=False)
    (directory / "scoreboard.json").write_text(text + "\n", encoding="utf-8")
    with (directory / "scoreboard.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(CSV_COLUMNS)
        for entry in board.entries:
            rows.writerow([_cell(entry, column) for column in CSV_COLUMNS])
    (directory / "scoreboard.html").write_text(render(board.entries), encoding="utf-8")


def _cell(entry: Entry, column: str) -> object:
    """A value by its path; empty where the entry has none."""
    value: Any = entry
    for name in column.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return "" if value is None else value


# The table


def table(entries: Sequence[Entry], directory: Path) -> str:
    """The scoreboard in lines: by trace and group, the least GPU-hours at the target first."""
    lines: list[str] = []
    for trace, of_trace in itertools.groupby(entries, key=lambda entry: entry["trace"]):
        rows = list(of_trace)
        lines += [_heading(trace, rows[0]), _COLUMNS]
        for group, title in GROUPS.items():
            members = sorted((e for e in rows if e["group"] == group), key=_rank)
            if members:
                lines += [f" {title}", *(_line(entry) for entry in members)]
        cold = next((said for entry in rows if (said := cold_start(entry))), None)
        lines += [f" {cold}"] if cold else []
        lines.append("")
    if any(entry["behaviour"] != "own" for entry in entries):
        lines.append("* with the HPA behaviour that we ship, in place of its own")
    lines.append(f"written to {directory}")
    return "\n".join(lines)


_COLUMNS = (
    f"  {'policy':<22} {'variant':<10} {'at target':>9} {'/oracle':>8} {'attained':>9}"
    f" {'GPU-hours':>10} {'TTFT p95':>9} {'p99':>8} {'changes':>8}"
)


def _heading(trace: str, entry: Entry) -> str:
    oracle = entry["oracle_gpu_hours"]
    known = "" if oracle is None else f", oracle {oracle:,.1f} GPU-hours"
    if oracle is None and entry["oracle_bound_gpu_hours"] is not None:  # it was looked for
        known = ", no schedule found reaches it"
    return (
        f"{trace}: {entry['requests']:,} requests, {entry['slo_attainable_ratio']:.2%} attainable,"
        f" target {entry['attainment_target']:.2%}, reached from"
        f" {entry['attainment_target'] - REACHED_FROM:.2%}{known}"
    )


def _rank(entry: Entry) -> tuple[bool, float]:
    """By GPU-hours at the target; who does not reach it by what is missing."""
    hours = hours_at_target(entry)
    if hours is None:
        return True, -float(entry["slo_attainment_ratio"])
    return False, hours


def _line(entry: Entry) -> str:
    hours, over = hours_at_target(entry), entry["gpu_hours_over_oracle"]
    name = entry["policy"] + ("" if entry["behaviour"] == "own" else " *")
    ttft = entry["ttft_s"]
    return (
        f"  {name:<22} {entry['variant']:<10} {_number(hours, '9,.1f'):>9}"
        f" {_number(over if hours is not None else None, '8.3f'):>8}"
        f" {entry['slo_attainment_ratio']:>9.2%} {entry['gpu_hours']:>10,.1f}"
        f" {_seconds(ttft['p95']):>9} {_seconds(ttft['p99']):>8}"
        f" {entry['replica_changes']:>8}"
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}s"


# Progress


class Runs:
    """Shows how many runs there are, how fast they go, and the time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._planned = self._ended = self._cached = 0

    def reading(self, path: Path) -> None:
        """A trace is read."""
        self._progress.say(f"reading {path}")

    def kernel(self) -> None:
        """Compile the kernel here, once, and not in every worker at the same time."""
        self._progress.say("loading the replica model (compiled once, which takes half a minute)")
        load_kernel()

    def planned(self, count: int) -> None:
        """So many more runs are wanted."""
        self._planned += count
        self._progress.say(f"{self._planned:,} runs")

    def ended(self, name: str, *, cached: bool) -> None:
        """One of them is there."""
        self._ended += 1
        self._cached += cached
        self._progress(lambda elapsed_s: self._text(name, elapsed_s))

    def _text(self, name: str, elapsed_s: float) -> str:
        ran = self._ended - self._cached
        kept = f", {self._cached:,} kept from before" if self._cached else ""
        wanted = max(self._planned - self._cached, 1)
        left = time_left(ran / wanted, elapsed_s)
        return (
            f"{self._ended:,} of {self._planned:,} runs{kept}, {ran / elapsed_s:.2f} runs/s{left};"
            f" last {name}"
        )


@contextlib.contextmanager
def shown_runs() -> Iterator[Runs]:
    """Progress on standard error."""
    with shown() as progress:
        yield Runs(progress)
