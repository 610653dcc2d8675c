"""The page of ``scaler report --advisory``: what would have been, beside what was."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from simulations.report_page import TIME_CHARTS, column, page

ROWS_MAX = 12_000  # rows a target; more are drawn by every second, third, ... one
WORST = {"attained_ratio": np.fmin, "ttft_p95_s": np.fmax, "waiting": np.fmax}  # of those left out
SCRIPTS = ("frame.js", "table.js", "advisory.js")


class Disagreement(TypedDict):
    """A stretch in which the two wanted different counts; ``why`` is the daemon's own headline."""

    at_s: float
    until_s: float
    would_be: int  # at its farthest from the live count
    live: int
    why: str


class Series(TypedDict):
    """Columns of one target, one value a decision; NaN where nothing was known.

    ``load`` and ``forecast_*`` are in replicas' worth of busy time; ``decided_by`` names stages.
    ``attained_ratio`` is the measured share of the live fleet's requests within the objective.
    """

    at_s: npt.NDArray[np.float64]  # seconds since the epoch
    would_be: npt.NDArray[np.float64]
    live: npt.NDArray[np.float64]
    ready: npt.NDArray[np.float64]
    load: npt.NDArray[np.float64]
    forecast_lead_s: npt.NDArray[np.float64]
    forecast_mean: npt.NDArray[np.float64]
    forecast_upper: npt.NDArray[np.float64]
    ttft_p95_s: npt.NDArray[np.float64]
    attained_ratio: npt.NDArray[np.float64]
    waiting: npt.NDArray[np.float64]
    decided_by: Sequence[str]


class Target(TypedDict):
    """One target over the days: sums, verdict, disagreements.

    ``missed_minutes_would`` are minutes in which the would-be count lay below what the load, or the
    time to first token, asked for; ``missed_minutes_live`` those in which the live fleet missed.
    """

    namespace: str
    name: str
    ttft_slo_s: float
    attainment_target_ratio: float
    gpus_per_replica: int
    gpu_hours_would: float
    gpu_hours_live: float
    missed_minutes_would: float
    missed_minutes_live: float
    blind_minutes: float
    verdict: Literal["go", "no-go", "undecided"]
    reasons: Sequence[str]
    disagreements: Sequence[Disagreement]
    series: Series


class Advisory(TypedDict):
    """All targets over ``[from_at_s, to_at_s]``, seconds since the epoch."""

    from_at_s: float
    to_at_s: float
    tick_s: float
    targets: Sequence[Target]


def render(advisory: Advisory) -> str:
    """The page; equal arguments give equal bytes."""
    data: dict[str, Any] = dict(advisory)
    data["targets"] = [_target(one) for one in advisory["targets"]]
    data["lead"], *rest = [*_sentences(advisory)]
    data["sentences"] = rest
    data["verdict"] = verdict(advisory)
    return page(title="Advisory report", data=data, kit=TIME_CHARTS, scripts=SCRIPTS)


def verdict(advisory: Advisory) -> str:
    """``go`` where every target is; ``no-go`` where one is not; else ``undecided``."""
    found = {target["verdict"] for target in advisory["targets"]}
    if "no-go" in found:
        return "no-go"
    return "go" if found == {"go"} else "undecided"


def _target(target: Target) -> dict[str, Any]:
    series = target["series"]
    every = max(1, -(-len(series["at_s"]) // ROWS_MAX))
    known: dict[str, int] = {}
    stage = [known.setdefault(name, len(known)) for name in list(series["decided_by"])[::every]]
    columns: Mapping[str, Any] = {
        name: column(_thinned(name, np.asarray(values, dtype=np.float64), every))
        for name, values in series.items()
        if name not in ("at_s", "decided_by") and isinstance(values, np.ndarray)
    }
    return {
        **{name: value for name, value in target.items() if name != "series"},
        "at_s": column(np.asarray(series["at_s"], dtype=np.float64)[::every], 12),
        "columns": columns,
        "stages": list(known),
        "stage": stage,
        "every": every,
    }


def _thinned(name: str, values: npt.NDArray[np.float64], every: int) -> npt.NDArray[np.float64]:
    """Every so many rows; of what was missed the worst of each, or it would not be seen."""
    if name not in WORST or every == 1:
        return values[::every]
    return WORST[name].reduceat(values, np.arange(0, len(values), every))


def _sentences(advisory: Advisory) -> Iterator[str]:
    targets = advisory["targets"]
    days = (advisory["to_at_s"] - advisory["from_at_s"]) / 86400.0
    if not targets:
        yield "No target was watched in that time."
        return
    would = sum(target["gpu_hours_would"] for target in targets)
    live = sum(target["gpu_hours_live"] for target in targets)
    saved = round(100.0 * (1.0 - would / live)) if live else 0
    change = f" ({abs(saved)} % {'fewer' if saved > 0 else 'more'})" if saved else ""
    yield (
        f"Over {days:.1f} days, {_targets(len(targets))} would have taken {would:,.0f} GPU-hours"
        f" against {live:,.0f}{change}."
    )
    missed = sum(target["missed_minutes_would"] for target in targets)
    before = sum(target["missed_minutes_live"] for target in targets)
    yield (
        f"It would have missed the objective in {missed:,.0f} minutes; the live scaler missed it in"
        f" {before:,.0f}."
    )
    blind = sum(target["blind_minutes"] for target in targets)
    if blind:
        yield f"In {blind:,.0f} minutes it saw too little to say."
    ready = sum(target["verdict"] == "go" for target in targets)
    yield f"Ready to go active: {ready} of {len(targets)}."


def _targets(count: int) -> str:
    return "1 target" if count == 1 else f"{count} targets"
