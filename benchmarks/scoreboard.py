"""The scoreboard of the development traces: ours against every peer and the oracle.

    python -m benchmarks.scoreboard [--quick] [--jobs N] [--cache DIR] [--out DIR] [--policies ...]

Every peer in every form (shipped and corrected, own behaviour and ours), its knob as shipped and in
hindsight on that very trace; ours as shipped and with its dial turned.  Two ratios to a peer are
shown: at the target, where each side's number is at or above it, and at the attainment that our
shipped defaults reached, for which the peer's frontier is read.  Runs are kept: what was stopped
goes on.  ``--quick`` plays the first 12 hours of each recorded trace and leaves the generated out.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arena import GENERATED, RECORDED, base_scenario, cache_folder
from scaler.cli.compare_output import shown_runs, table, write
from simulations.executor import executor
from simulations.frontier import Point, gpu_hours_at
from simulations.report_scoreboard import Standing, means, standings
from simulations.run_cache import RunCache
from simulations.scoreboard import Kind, Plan, Scoreboard, scoreboard
from simulations.scoreboard_policies import policy_names
from simulations.sweep import Sweep

SCREEN_S = 2 * 3600.0
GROUPS = ("metric", "profile")

Entry = Mapping[str, Any]


def main() -> int:
    """Run, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    asked = arguments(parser, out="build/scoreboard", policies="all", of="traces")
    development = RECORDED if asked.quick else (*RECORDED, *GENERATED)
    chosen = [trace for trace in development if not asked.traces or asked.traces in trace.name]
    board = played(
        asked,
        lambda: Plan(
            policies=policy_names(asked.policies),
            traces=tuple(base_scenario(one, asked.cache, quick=asked.quick) for one in chosen),
            kinds=frozenset({Kind.SHIPPED, Kind.FRONTIER}),
            screen_until_s=SCREEN_S,
            with_oracle=not asked.no_oracle,
            clock=time.perf_counter,
        ),
    )
    print(verdict(board.entries))
    return 0


def arguments(
    parser: argparse.ArgumentParser, *, out: str, policies: str, of: str
) -> argparse.Namespace:
    """What was asked for: the options of every board after the parser's own; it plays ``of``."""
    parser.add_argument("--no-oracle", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cache", type=Path, default=cache_folder())
    parser.add_argument("--out", default=out)
    parser.add_argument("--policies", default=policies)
    parser.add_argument("--traces", default="", help=f"only {of} with this in their name")
    return parser.parse_args()


def played(asked: argparse.Namespace, planned: Callable[[], Plan]) -> Scoreboard:
    """The board of a plan, written and printed; the plan is made once the progress is shown."""
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    with shown_runs() as watcher, executor(workers=asked.jobs) as run_on:
        plan = planned()
        watcher.kernel()
        board = scoreboard(plan, Sweep(run_on, RunCache(asked.cache), watcher=watcher))
    write(out, board)
    print(table(board.entries, out))
    print("\n".join(f"left out: {fault}" for fault in board.faults))
    return board


def verdict(entries: Sequence[Entry]) -> str:
    """Ours by trace, and geometric means over traces."""
    found = standings(entries)
    lines = ["ours / best, GPU-hours at the target", *map(_standing, found)]
    lines += [
        f"  at equal attainment, {trace}: {_ratios(ratios)}"
        for trace, ratios in equal_attainment(entries)
    ]
    for variant, ratios in means(found).items():
        lines.append(f"  geometric mean, {variant}: {_ratios(ratios)}")
    same = [ratios for _, ratios in equal_attainment(entries)]
    for group in GROUPS:
        known = [ratio for one in same if (ratio := one[group]) is not None]
        lines.append(
            f"  geometric mean at equal attainment, {group}: {_text(geometric_mean(known))}"
            f" on {len(known)} of {len(same)} traces, worst {_text(max(known, default=None))}"
        )
    return "\n".join(lines)


def _standing(one: Standing) -> str:
    return (
        f"  {one.trace:<44} {one.variant:<9} attained {one.attained_ratio or math.nan:.4f}"
        f" of {one.target_ratio or math.nan:.4f};"
        f" metric {_text(one.metric_ratio)} {one.metric_by},"
        f" profile {_text(one.profile_ratio)} {one.profile_by},"
        f" oracle {_text(one.oracle_ratio)}"
    )


def _ratios(ratios: Mapping[str, float | None]) -> str:
    return ", ".join(f"{group} {_text(ratio)}" for group, ratio in ratios.items())


def equal_attainment(
    entries: Sequence[Entry],
) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Our shipped GPU-hours over the least a group's frontiers need for the same attainment."""
    for trace in dict.fromkeys(entry["trace"] for entry in entries):
        here = [entry for entry in entries if entry["trace"] == trace]
        ours = [e for e in here if e["policy"] == "predictive" and e["variant"] == "shipped"]
        if ours:
            yield trace, {group: _against(ours[0], here, group) for group in GROUPS}


def _against(ours: Entry, here: Sequence[Entry], group: str) -> float | None:
    hours = []
    for entry in here:
        if entry["group"] == group and "points" in entry:
            points = [
                Point(knob=knob, attainment_ratio=attained, gpu_hours=used)
                for knob, attained, used in entry["points"]
            ]
            reached = gpu_hours_at(points, ours["slo_attainment_ratio"])
            hours += [] if reached is None else [reached]
    return ours["gpu_hours"] / min(hours) if hours else None


def geometric_mean(values: Sequence[float]) -> float | None:
    """None without values."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def _text(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"


if __name__ == "__main__":
    sys.exit(main())
