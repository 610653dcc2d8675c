"""What a search says to people: what to do, in one sentence, and what to think of it."""

import math
from collections.abc import Iterator, Sequence

from simulations.report_tune import OnTrace
from simulations.report_verdict import share
from simulations.tune_choice import Candidate, Choice, Verdict
from simulations.tune_found import Generalised
from simulations.tune_parts import DAY_S, DAYS_SURE, Role, Split, Sure

WEAK_DAYS = 3.0  # a trace shorter than this has one held-out day at most
ALIKE = 0.7  # rank correlations from here on say that the searched part knows the other's order
SOME = 0.3
GAP_POINTS = 0.3  # of attainment: what the held-out part may take without a word of overfitting


def advice(
    choice: Choice,
    members: Sequence[Candidate],
    shipped: Candidate,
    *,
    target_ratio: float,
    attainable_ratio: float,
) -> str:
    """What to do, in one sentence."""
    chosen = choice.chosen
    if not any(one.train.attained_ratio >= target_ratio for one in members):
        return _nearest(
            choice, members, target_ratio=target_ratio, attainable_ratio=attainable_ratio
        )
    if chosen is None or chosen.number == shipped.number:
        return (
            "Keep the shipped settings: nothing that was searched is confirmed to do better on the"
            " held-out part."
        )
    assert chosen.held_out is not None, "what is recommended was tried on both parts"
    assert shipped.held_out is not None, "the shipped settings are tried on both parts"
    saved = 1.0 - chosen.held_out.gpu_hours / shipped.held_out.gpu_hours
    return (
        f"Apply the patch of trial {chosen.number}: on the held-out part"
        f" {share(chosen.held_out.attained_ratio)} within the objectives (shipped"
        f" {share(shipped.held_out.attained_ratio)}) for {_fewer(saved)} GPU-hours."
    )


def _fewer(saved_ratio: float) -> str:
    text = f"{abs(saved_ratio) * 100.0:.1f}"
    if not float(text):
        return "as many"
    return f"{text} % {'fewer' if saved_ratio > 0.0 else 'more'}"


def _nearest(
    choice: Choice,
    members: Sequence[Candidate],
    *,
    target_ratio: float,
    attainable_ratio: float,
) -> str:
    """Where no trial reaches what is asked for: how near it comes, and what could be asked."""
    best = max(members, key=lambda one: (one.train.attained_ratio, -one.number))
    assert best.held_out is not None, "every member of the front is tried on both parts"
    reachable = math.floor(1000.0 * best.train.attained_ratio / attainable_ratio) / 1000.0
    found = choice.chosen
    applied = (
        f"apply the patch of trial {found.number}, better than the shipped settings in both,"
        if choice.verdict is Verdict.UNREACHED and found is not None
        else "keep the shipped settings,"
    )
    return (
        f"No trial reaches {share(target_ratio)}, the nearest is trial {best.number} with"
        f" {share(best.train.attained_ratio)} where it was searched and"
        f" {share(best.held_out.attained_ratio)} where it was not: {applied} and ask for what can"
        f" be reached (--attainment {reachable:g}), more --max-replicas or easier objectives."
    )


def findings(
    sure: Sure | None,
    both: Generalised,
    *,
    splits: Sequence[Split],
    flapped: int,
    traces: Sequence[OnTrace],
) -> Iterator[str]:
    """What to think of it: how sure, how far it carries over, and what was left out."""
    if sure is not None and (weak := weakness(sure, splits)):
        yield weak
    yield carried_over(both)
    if flapped:
        yield (
            f"{flapped} trial{'s' if flapped > 1 else ''} changed the count more often than the"
            " shipped settings, on the searched part or under a slow load, and may not be on the"
            " front."
        )
    if len({row["trace"] for row in traces}) > 1:
        yield over_traces(traces)


def weakness(sure: Sure, splits: Sequence[Split]) -> str:
    """How weak the intervals are; empty where enough days were held out."""
    if sure.whole_days:
        return ""
    hours = sum(part.seconds(Role.HELD_OUT) for part in splits) / 3600.0
    longest = max(len(part.roles) * part.block_s for part in splits) / DAY_S
    known = (
        "one held-out day or less says nothing of other days"
        if longest < WEAK_DAYS and sure.days < 2
        else f"{sure.days} held-out days say little of others"
    )
    return (
        f"{'Very weak' if sure.days < 2 else 'Weak'} evidence: the intervals are drawn from"
        f" {hours:.1f} h, hours of one day are alike, and {known}; from {DAYS_SURE} held-out days"
        f" on ({2 * DAYS_SURE} days of traffic), days are drawn."
    )


def carried_over(both: Generalised) -> str:
    """How the front, as it was searched, went on the held-out part."""
    points = 100.0 * both.gap_mean_ratio
    gaps = (
        f"beyond what the days themselves make ({_signed(100.0 * both.shipped_gap_ratio)} points"
        f" for the shipped settings), it lost {_signed(points)} points of attainment in the mean"
        f" and {_signed(100.0 * both.gap_worst_ratio)} at worst"
    )
    if both.attained_correlation is None or both.gpu_hours_correlation is None:
        return f"Of the front's {both.members} trials on the held-out part: {gaps}."
    least = min(both.attained_correlation, both.gpu_hours_correlation)
    if points > GAP_POINTS or least < SOME:
        verdict = "The search overfits"
    elif least >= ALIKE:
        verdict = "The front carries over"
    else:
        verdict = "The front carries over in part"
    return (
        f"{verdict}: rank correlation of its {both.members} trials between both parts"
        f" {both.attained_correlation:.2f} for attainment and"
        f" {both.gpu_hours_correlation:.2f} for GPU-hours; {gaps}."
    )


def over_traces(rows: Sequence[OnTrace]) -> str:
    """Mean and worst over several traces: a large one does not hide a small one."""
    attained = [row["recommended"]["slo_attainment_ratio"] for row in rows]
    ratios = [row["recommended"]["gpu_hours"] / row["shipped"]["gpu_hours"] for row in rows]
    worst = min(rows, key=lambda row: row["recommended"]["slo_attainment_ratio"])
    dearest = max(zip(ratios, rows, strict=True), key=lambda pair: pair[0])
    mean = math.exp(sum(math.log(one) for one in ratios) / len(ratios))
    return (
        f"Over {len({row['trace'] for row in rows})} traces, each counted once: attainment"
        f" {share(sum(attained) / len(attained))} in the mean, {share(min(attained))} at worst"
        f" ({_place(worst)}); GPU-hours against the shipped settings {_more(mean)} in the geometric"
        f" mean, {_more(dearest[0])} at worst ({_place(dearest[1])})."
    )


def _place(row: OnTrace) -> str:
    return f"{row['trace']}, {'held out' if row['held_out'] else 'searched'}"


def _more(ratio: float) -> str:
    return f"{_signed(100.0 * (ratio - 1.0), 1)} %"


def _signed(value: float, digits: int = 2) -> str:
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]  # no sign of a zero
