"""``scaler replay``: recorded decisions decided again."""

import dataclasses
import json
from pathlib import Path

import click

from scaler.cli.progress import shown
from scaler.core.publish import POLICY_VERSION
from scaler.errors import SignalError
from scaler.ops.replay import read_logs, replay
from scaler.ops.replay_compare import (
    Comparison,
    Difference,
    TargetComparison,
    other_versions,
    settings_change,
)
from scaler.ops.times import spelled


@click.command("replay")
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting by its path (hold_down.window_s=120) or metadata key. Repeatable.",
)
@click.option(
    "--max-difference",
    type=click.IntRange(min=0),
    metavar="N",
    help="Exit 1 where a count differs by more than N replicas. Unless given nothing may differ, "
    "to the last bit; with --set anything may.",
)
@click.option("--json", "as_json", is_flag=True, help="The comparison for scripts.")
@click.pass_context
def command(
    context: click.Context,
    *,
    log: Path,
    given: tuple[str, ...],
    max_difference: int | None,
    as_json: bool,
) -> None:
    """Decide recorded decisions again, and say where they part.

    LOG is a decisions.jsonl of `scaler simulate`, a file of the daemon's decision log (.gz too), or
    the folder of one. Under the log's own settings every decision is made from the state that the
    log has for it. With --set a target goes its own way from its first state on; the observations
    stay those of the log, so replicas that were not there then are not seen to help.

    Exit status 0: within the bound; 1: beyond it, or no decision could be made again; 2: wrong
    input.

    Example: scaler replay run/decisions.jsonl; after an upgrade scaler replay decisions/
    --max-difference 1; scaler replay decisions.jsonl --set slo.ttft_s=3 --set hold_down.window_s=60
    """
    change = settings_change(given)
    comparison = Comparison()
    with shown() as progress:
        done = 0
        for done, one in enumerate(replay(read_logs(log), change), 1):
            comparison.add(one)
            progress(lambda elapsed_s, done=done: _pace(done, elapsed_s))  # type: ignore[misc]
    targets = comparison.targets
    if not targets:
        raise SignalError(f"{log} has no decision")
    within = _within(targets, max_difference, changed=change is not None)
    if as_json:
        click.echo(json.dumps(_object(targets, given, within=within), indent=2))
    else:
        _print(targets, changed=change is not None)
    context.exit(0 if within else 1)


def _pace(done: int, elapsed_s: float) -> str:
    return f"{done:,} decisions, {done / elapsed_s:,.0f} decisions/s"


def _within(
    targets: tuple[TargetComparison, ...], max_difference: int | None, *, changed: bool
) -> bool:
    """Whether the bound is kept; a log of which nothing could be decided keeps none."""
    if all(target.undecided == target.decisions for target in targets):
        return False
    if max_difference is not None:
        return all(target.largest <= max_difference for target in targets)
    return changed or all(target.same + target.undecided == target.decisions for target in targets)


def _object(
    targets: tuple[TargetComparison, ...], given: tuple[str, ...], *, within: bool
) -> dict[str, object]:
    return {
        "policy_version": POLICY_VERSION,
        "set": list(given),
        "within_bound": within,
        "targets": [dataclasses.asdict(target) for target in targets],
    }


def _print(targets: tuple[TargetComparison, ...], *, changed: bool) -> None:
    for version in other_versions(targets):
        click.echo(f"logged under policy version {version}, decided again under {POLICY_VERSION}")
    for target in targets:
        for line in _lines(target, changed=changed):
            click.echo(line)


def _lines(target: TargetComparison, *, changed: bool) -> list[str]:
    decided = target.decisions - target.undecided
    lines = []
    lines.append(
        f"{target.namespace}/{target.name}: {decided:,} decisions made again,"
        f" {target.same:,} the same bit by bit, {target.differ:,} of another count"
    )
    if target.differ:
        lines.append(
            f"  largest difference {target.largest} replicas; {target.replica_hours_more:.2f}"
            f" replica-hours more, {target.replica_hours_fewer:.2f} fewer"
        )
    if target.first is not None:
        lines.append(f"  they part first {_told(target.first)}")
    if target.first_count is not None and target.first_count != target.first:
        lines.append(f"  first other count {_told(target.first_count)}")
    if target.undecided:
        lines.append(
            f"  {target.undecided:,} were left out: the log has no state in front of them"
            " (it begins in the middle, or a file is missing)"
        )
    if target.gap_longest is not None:
        gap = target.gap_longest
        held = "what was remembered before a gap is carried over it"
        again = "each is taken up with the state that the log has after it"
        lines.append(
            f"  {target.gaps} gaps in the log, the longest of"
            f" {gap.to_at_s - gap.from_at_s:,.0f} s from {spelled(gap.from_at_s)}:"
            f" {held if changed else again}"
        )
    return lines


def _told(found: Difference) -> str:
    told = (
        f"at {spelled(found.at_s)}: {found.path} was {found.logged}, is {found.again};"
        f" {found.replicas_logged} replicas became {found.replicas_again}"
    )
    if found.stage:
        told += f" (stage {found.stage})\n    was {found.why_logged}\n    is  {found.why_again}"
    return told
