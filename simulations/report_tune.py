"""report.html of ``scaler tune``: what the search found, how sure it is, and what to apply."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from simulations.report_page import XY_CHARTS, page
from simulations.report_verdict import share

SCRIPTS = ("frame.js", "table.js", "parallel.js", "tune.js")


class Outcome(TypedDict):
    """One trial on one part of the traces."""

    slo_attainment_ratio: float
    gpu_hours: float
    replica_changes: int
    reversals: int


class Trial(TypedDict):
    """One point of the search space; ``held_out`` is None where it was not tried there."""

    number: int
    settings: Mapping[str, float]  # path of the setting -> value, as in PolicyConfig
    train: Outcome
    held_out: Outcome | None
    on_front: bool  # on the Pareto front of the training part
    flaps: bool  # changes the count too often to be on it


class OnTrace(TypedDict):
    """The recommended and the shipped settings on one trace's part."""

    trace: str
    held_out: bool
    recommended: Outcome
    shipped: Outcome


class Interval(TypedDict):
    """A bootstrap interval over days."""

    low: float
    high: float


class Recommended(TypedDict):
    """The trial to apply for the attainment asked for, on the held-out part."""

    trial: int
    slo_attainment_ratio: Interval
    gpu_hours: Interval
    level_ratio: float  # of both intervals, such as 0.9


class SearchedSetting(TypedDict):
    """A setting that was searched; ``importance_ratio`` is its share of what moved the result."""

    name: str
    low: float
    high: float
    default: float
    why: str
    importance_ratio: float | None


class Front(TypedDict):
    """What ``front.json`` holds and this report shows.

    GPU-hours are per part: ``train_hours`` and ``held_out_hours`` say how much time each covers, so
    that both are compared as GPUs in the mean.  ``patches`` are file names and contents; ``advice``
    is one sentence on what to do, ``findings`` are some on what to think of it.
    """

    traces: Sequence[str]
    attainment_target_ratio: float
    train_hours: float
    held_out_hours: float
    settings: Sequence[SearchedSetting]
    defaults: Trial
    trials: Sequence[Trial]
    recommended: Recommended | None
    patches: Mapping[str, str]
    seed: int
    advice: str
    findings: Sequence[str]
    by_trace: Sequence[OnTrace]


def render(front: Front) -> str:
    """The page; equal fronts give equal bytes."""
    made = dict(front)
    made["kept"] = kept(front)
    made["lead"] = front["advice"]
    made["sentences"] = [*_sentences(front), *front["findings"]]
    title = f"Tuned on {', '.join(front['traces'])}"
    return page(title=title, data=made, kit=XY_CHARTS, scripts=SCRIPTS)


def kept(front: Front) -> bool | None:
    """Whether the recommended trial keeps the attainment where it was not trained; None without."""
    chosen = _chosen(front)
    if chosen is None or chosen["held_out"] is None:
        return None
    return chosen["held_out"]["slo_attainment_ratio"] >= front["attainment_target_ratio"]


def _chosen(front: Front) -> Trial | None:
    recommended = front["recommended"]
    if recommended is None:
        return None
    return next(one for one in front["trials"] if one["number"] == recommended["trial"])


def _sentences(front: Front) -> Iterator[str]:
    target = front["attainment_target_ratio"]
    chosen, recommended = _chosen(front), front["recommended"]
    if chosen is None or recommended is None:
        return
    train, held_out = chosen["train"], chosen["held_out"]
    if held_out is None:
        yield (
            f"Trial {chosen['number']} reached {share(train['slo_attainment_ratio'])} with"
            f" {train['gpu_hours']:,.0f} GPU-hours where it was searched; it was not tried"
            " elsewhere, so that nothing is known of other days."
        )
        return
    attained, hours, level = (
        recommended["slo_attainment_ratio"],
        recommended["gpu_hours"],
        recommended["level_ratio"],
    )
    yield (
        f"Trial {chosen['number']} reached {share(held_out['slo_attainment_ratio'])} on days it had"
        f" not seen ({share(attained['low'])} to {share(attained['high'])} with"
        f" {level * 100.0:.0f} % confidence; {share(target)} asked for),"
        f" for {held_out['gpu_hours']:,.0f} GPU-hours"
        f" ({hours['low']:,.0f} to {hours['high']:,.0f})."
    )
    yield from _against_defaults(held_out, front["defaults"]["held_out"])
    yield _overfit(train, held_out, front)


def _against_defaults(held_out: Outcome, defaults: Outcome | None) -> Iterator[str]:
    if defaults is None or not defaults["gpu_hours"]:
        return
    saved = 1.0 - held_out["gpu_hours"] / defaults["gpu_hours"]
    yield (
        f"The shipped settings took {defaults['gpu_hours']:,.0f} GPU-hours there for"
        f" {share(defaults['slo_attainment_ratio'])}: {abs(saved) * 100.0:.1f} %"
        f" {'saved' if saved >= 0.0 else 'more'}."
    )


def _overfit(train: Outcome, held_out: Outcome, front: Front) -> str:
    """What the search flattered itself by: points of attainment, and GPUs in the mean."""
    points = 100.0 * (train["slo_attainment_ratio"] - held_out["slo_attainment_ratio"])
    before = train["gpu_hours"] / front["train_hours"]
    after = held_out["gpu_hours"] / front["held_out_hours"]
    return (
        f"Where it was searched it had looked {abs(points):.2f} points"
        f" {'better' if points >= 0.0 else 'worse'}, with {before:.1f} GPUs in the mean"
        f" against {after:.1f}."
    )


def as_front(value: Mapping[str, Any]) -> Front:
    """The object of a front.json as a ``Front``.

    Raises:
        KeyError: an entry is missing; its name is the argument.
    """
    return Front(
        traces=value["traces"],
        attainment_target_ratio=value["attainment_target_ratio"],
        train_hours=value["train_hours"],
        held_out_hours=value["held_out_hours"],
        settings=value["settings"],
        defaults=value["defaults"],
        trials=value["trials"],
        recommended=value["recommended"],
        patches=value["patches"],
        seed=value["seed"],
        advice=value["advice"],
        findings=value["findings"],
        by_trace=value["by_trace"],
    )
