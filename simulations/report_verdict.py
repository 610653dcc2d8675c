"""What a run came to in words that need no chart: did it keep the objective, and at what price."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REACHED_FROM = 0.003  # a target counts as reached from this far below it
COLD_START_GAP = 0.02  # of attainment between the first hour and the rest, from which it is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``kept`` is None where nothing arrived; ``bars`` are names with GPU-hours to compare."""

    kept: bool | None
    lead: str
    sentences: tuple[str, ...]
    bars: tuple[tuple[str, float], ...]


def verdict(
    summary: Mapping[str, Any],
    *,
    ttft_slo_s: float,
    tpot_slo_s: float,
    target_ratio: float,
    gpus_per_replica: int,
) -> Verdict:
    """The run in a few sentences, from the object of summary.json."""
    attainment = _number(summary, "slo_attainment_ratio")
    objective = f"a first token within {ttft_slo_s:g} s"
    if tpot_slo_s > 0.0:
        objective += f" and {tpot_slo_s:g} s a token"
    spent = _number(summary, "gpu_hours") or 0.0
    if attainment is None:
        return Verdict(kept=None, lead="No request arrived.", sentences=(), bars=())
    if (why := hopeless(summary)) is not None:
        return Verdict(kept=None, lead=why, sentences=tuple(_losses(summary)), bars=())
    kept = attainment >= target_ratio - REACHED_FROM
    near = f", kept from {share(target_ratio - REACHED_FROM)}" if kept else ""
    asked = f"{share(target_ratio)} asked for{near if attainment < target_ratio else ''}"
    lead = (
        f"{share(attainment)} of {summary['requests']:,} requests had {objective} ({asked}),"
        f" for {spent:,.1f} GPU-hours."
    )
    bars = _bars(summary, spent, gpus_per_replica)
    cold = cold_start(summary)
    sentences = (
        *([cold] if cold else []), *_comparisons(summary, spent, bars), *_losses(summary)
    )  # fmt: skip
    return Verdict(kept=kept, lead=lead, sentences=sentences, bars=bars)


def hopeless(summary: Mapping[str, Any]) -> str | None:
    """Why no count of replicas could serve a single request as asked; None where one could."""
    requests, too_long = summary["requests"], summary.get("too_long", 0)
    model = summary.get("replica_model", "the model")
    if requests and too_long == requests:
        return (
            f"All {requests:,} requests are longer than {model} takes,"
            f" {summary['request_tokens_max']:,} tokens of prompt and output together:"
            " no count of replicas can serve them."
        )
    if _number(summary, "slo_attainable_ratio") == 0.0:
        return (
            f"None of {requests:,} requests can meet the objectives on {model}, not even alone on"
            " a warm replica: no count of replicas can change that."
        )
    return None


def cold_start(summary: Mapping[str, Any]) -> str | None:
    """Said where a fleet that began too small missed much of its first hour, and only that."""
    first = summary.get("first_hour")
    attainment = _number(summary, "slo_attainment_ratio")
    if first is None or attainment is None or first["slo_attainment_ratio"] is None:
        return None
    rest = summary["requests"] - first["requests"]
    if not rest or first["replicas"] >= summary["replicas"]["max"]:
        return None
    began = first["slo_attainment_ratio"]
    later = (attainment * summary["requests"] - began * first["requests"]) / rest
    if began >= later - COLD_START_GAP:
        return None
    return (
        f"The first hour had {share(began)}, the rest {share(later)}: the run began with"
        f" {first['replicas']} of up to {summary['replicas']['max']} replicas"
        " (--initial-replicas sets how many)."
    )


def _bars(
    summary: Mapping[str, Any], spent: float, gpus_per_replica: int
) -> tuple[tuple[str, float], ...]:
    found = [(str(summary["policy"]), spent)]
    oracle = _number(summary, "oracle_gpu_hours")
    bound = _number(summary, "oracle_bound_gpu_hours")
    if oracle is not None:
        found.append(("best clairvoyant schedule found", oracle))
    if bound is not None:
        found.append(("provable lower bound", bound))
    peak, hours = summary["replicas"]["max"], summary["duration_s"] / 3600.0
    if summary["replicas"]["min"] < peak:
        found.append((f"always {peak} replicas", peak * hours * gpus_per_replica))
    return tuple(found)


def _comparisons(
    summary: Mapping[str, Any], spent: float, bars: tuple[tuple[str, float], ...]
) -> list[str]:
    made = []
    name, always = bars[-1]
    if name.startswith("always") and always > 0.0:
        saved = 1.0 - spent / always
        made.append(
            f"To hold the highest count all the time ({name.removeprefix('always ')}) would take"
            f" {always:,.1f} GPU-hours: {abs(saved) * 100.0:.0f} %"
            f" {'saved' if saved >= 0.0 else 'more'}."
        )
    over = _number(summary, "gpu_hours_over_oracle")
    oracle = _number(summary, "oracle_gpu_hours")
    if over is not None and oracle is not None:
        made.append(
            f"With the future known, {oracle:,.1f} GPU-hours would have done:"
            f" this run took {over:.2f} times that."
        )
    attainable = _number(summary, "slo_attainable_ratio")
    if attainable is not None:
        made.append(f"With unlimited warm replicas {share(attainable)} could have been reached.")
    changes, reversals = summary["replica_changes"], summary["reversals"]
    made.append(
        f"The count changed {_times(changes)}, {reversals} of them against the change before."
    )
    return made


def _losses(summary: Mapping[str, Any]) -> list[str]:
    made = []
    too_long = summary.get("too_long", 0)
    if 0 < too_long < summary["requests"]:
        made.append(
            f"{too_long:,} requests are longer than {summary['replica_model']} takes,"
            f" {summary['request_tokens_max']:,} tokens of prompt and output together."
        )
    if (rejected := summary.get("rejected", 0) - too_long) > 0:
        made.append(f"{rejected:,} requests were rejected.")
    if summary.get("cut_by_scale_down"):
        made.append(f"{summary['cut_by_scale_down']:,} requests were cut off by scaling down.")
    if (pending := _number(summary, "pending_gpu_hours")) is not None and pending >= 0.05:
        made.append(f"{pending:,.1f} GPU-hours passed waiting for a GPU.")
    return made


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def share(ratio: float) -> str:
    """Percent in two digits, or three where two would round it up to all."""
    for digits in (2, 3):
        text = f"{ratio * 100.0:.{digits}f}"
        if ratio >= 1.0 or float(text) < 100.0:
            return f"{float(text):g} %"
    return "over 99.999 %"


def _number(summary: Mapping[str, Any], key: str) -> float | None:
    value = summary.get(key)
    return None if value is None or math.isnan(value) else float(value)
