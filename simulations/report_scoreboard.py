"""scoreboard.html of ``scaler compare``: every policy on every trace, and who needs least."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from simulations.report_page import XY_CHARTS, page
from simulations.report_verdict import share

Entry: TypeAlias = Mapping[str, Any]

OURS = "predictive"
SHIPPED, FRONTIER = "shipped", "frontier"
MISSED_TOLD = 3
SCRIPTS = ("frame.js", "table.js", "scoreboard_chart.js", "scoreboard_ranking.js", "scoreboard.js")
GROUPS = {
    "ours": "ours",
    "metric": "metric-driven",
    "profile": "profile-driven, given the true capacity",
    "bound": "bounds",
}
"""Groups of entries and their names for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Ours against the best of the others on one trace; GPU-hours for the trace's target.

    ``ours`` is None where the target is missed; a best is None where nobody of the group reaches
    the target, or nobody ran.  Ratios are ours over theirs: below 1 is better.
    """

    trace: str
    variant: str
    target_ratio: float | None
    attained_ratio: float | None
    ours: float | None
    metric: float | None
    metric_by: str
    metric_ratio: float | None
    profile: float | None
    profile_by: str
    profile_ratio: float | None
    oracle: float | None
    oracle_ratio: float | None
    bound: float | None


def render(entries: Sequence[Entry]) -> str:
    """The page, from the objects of scoreboard.json; equal entries give equal bytes.

    Needed of every entry: ``trace, policy, variant, group, slo_attainment_ratio, gpu_hours``; read
    where they are there: ``attainment_target, target_reached, gpu_hours_at_target, points, knob,
    knob_value, behaviour, oracle_gpu_hours, oracle_bound_gpu_hours, slo_attainable_ratio``, and the
    other numbers of summary.json.
    """
    found = standings(entries)
    data = {
        "entries": [{**entry, "hours": hours_at_target(entry)} for entry in entries],
        "standings": [asdict(one) for one in found],
        "means": means(found),
        "sentences": [*_winners(entries), *_sentences(found)],
        "badge": _badge(entries),
        "groups": GROUPS,
        "traces": list(dict.fromkeys(entry["trace"] for entry in entries)),
    }
    title = "Policies compared"
    return page(title=title, data=data, kit=XY_CHARTS, scripts=SCRIPTS)


def hours_at_target(entry: Entry) -> float | None:
    """GPU-hours for the target: a frontier's interpolated, a run's own where it reached it."""
    if "gpu_hours_at_target" in entry:
        found: float | None = entry["gpu_hours_at_target"]
        return found
    return float(entry["gpu_hours"]) if entry.get("target_reached", True) else None


def standings(entries: Sequence[Entry]) -> tuple[Standing, ...]:
    """Ours on each trace, as shipped and with its dial turned in hindsight, against the best."""
    made: list[Standing] = []
    for trace in dict.fromkeys(entry["trace"] for entry in entries):
        here = [entry for entry in entries if entry["trace"] == trace]
        own = [entry for entry in here if entry["policy"] == OURS]
        made += [_standing(entry, here) for entry in sorted(own, key=_variant_rank)]
    return tuple(made)


def means(found: Sequence[Standing]) -> dict[str, dict[str, float | None]]:
    """Geometric means of the ratios over traces, by variant; None unless every trace has one."""
    made: dict[str, dict[str, float | None]] = {}
    for variant in dict.fromkeys(one.variant for one in found):
        rows = [one for one in found if one.variant == variant]
        made[variant] = {
            name: _geometric([getattr(one, f"{name}_ratio") for one in rows])
            for name in ("metric", "profile", "oracle")
        }
    return made


def _standing(own: Entry, here: Sequence[Entry]) -> Standing:
    ours = hours_at_target(own)
    metric, metric_by = _best(here, "metric")
    profile, profile_by = _best(here, "profile")
    oracle = own.get("oracle_gpu_hours")
    return Standing(
        trace=own["trace"],
        variant=own["variant"],
        target_ratio=own.get("attainment_target"),
        attained_ratio=own["slo_attainment_ratio"],
        ours=ours,
        metric=metric,
        metric_by=metric_by,
        metric_ratio=_ratio(ours, metric),
        profile=profile,
        profile_by=profile_by,
        profile_ratio=_ratio(ours, profile),
        oracle=oracle,
        oracle_ratio=_ratio(ours, oracle),
        bound=own.get("oracle_bound_gpu_hours"),
    )


def _best(here: Sequence[Entry], group: str) -> tuple[float | None, str]:
    """The least GPU-hours at the target in a group, and whose they are."""
    able = [
        (hours, f"{entry['policy']} ({entry['variant']})")
        for entry in here
        if entry["group"] == group and (hours := hours_at_target(entry)) is not None
    ]
    return min(able, default=(None, ""))


def _variant_rank(entry: Entry) -> tuple[bool, str]:
    return entry["variant"] != SHIPPED, entry["variant"]


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _geometric(ratios: Sequence[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio is not None and ratio > 0.0]
    if not known or len(known) < len(ratios):
        return None
    return math.exp(sum(map(math.log, known)) / len(known))


def _least(entries: Sequence[Entry]) -> dict[str, Entry | None]:
    """By trace, whoever needs least for its target; None where nobody reaches it."""
    made: dict[str, Entry | None] = {}
    for entry in _contenders(entries):
        first = made.setdefault(entry["trace"], None)
        hours = hours_at_target(entry)
        if hours is not None and (first is None or hours < (hours_at_target(first) or 0.0)):
            made[entry["trace"]] = entry
    return made


def _contenders(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry["group"] != "bound"]


def _winners(entries: Sequence[Entry]) -> Iterator[str]:
    """Who needs least, and on how many traces; where nobody reaches the target, who came near."""
    least = _least(entries)
    counts = Counter(f"{one['policy']} ({one['variant']})" for one in least.values() if one)
    told = [f"{name} on {count}" for name, count in counts.most_common()]
    if told:
        first, *rest = told
        others = f", {_listed(rest)}" if rest else ""
        of = f" of {_traces(len(least))}"
        name, _, count = first.rpartition(" on ")
        yield f"Fewest GPU-hours for the target: {name} on {count}{of}{others}."
    missed = [trace for trace, one in least.items() if one is None]
    for trace in missed[:MISSED_TOLD]:
        here = [entry for entry in _contenders(entries) if entry["trace"] == trace]
        nearest = max(here, key=lambda entry: (_attained(entry), -entry["gpu_hours"]))
        own = next((one for one in here if one["policy"] == OURS), None)
        ours = "" if own is None or own["policy"] == nearest["policy"] else f"; {_came_to(own)}"
        yield f"On {trace} nobody reached the target: {_came_to(nearest)} came nearest{ours}."


def _came_to(entry: Entry) -> str:
    return (
        f"{entry['policy']} ({entry['variant']}), {share(_attained(entry))}"
        f" for {entry['gpu_hours']:,.0f} GPU-hours"
    )


def _attained(entry: Entry) -> float:
    """A run in which nothing arrived attained nothing."""
    ratio = entry["slo_attainment_ratio"]
    return float(ratio) if ratio is not None and math.isfinite(ratio) else 0.0


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _badge(entries: Sequence[Entry]) -> tuple[str, str] | None:
    """Whether ours needs least wherever the target can be reached; None where it never ran."""
    if not any(entry["policy"] == OURS for entry in entries):
        return None
    able = [one for one in _least(entries).values() if one is not None]
    if not able:
        return "plain", "target out of reach"
    won = sum(one["group"] == "ours" for one in able)
    if won == len(able):
        return "good", "ours needs least"
    return ("plain", f"ours needs least on {won} of {len(able)}") if won else (
        "bad", "another needs less"
    )  # fmt: skip


def _sentences(found: Sequence[Standing]) -> Iterator[str]:
    """What the scoreboard says of our defaults, for those who read no table."""
    shipped = [one for one in found if one.variant == SHIPPED]
    if not shipped:
        return
    kept = sum(one.ours is not None for one in shipped)
    yield f"{OURS}, as shipped, reached the target on {kept} of {_traces(len(shipped))}."
    for group, whose in (
        ("metric", "the best metric-driven peer"),
        ("profile", "the best peer that is given the true capacity"),
        ("oracle", "the best schedule found with the future known"),
    ):
        ratios = [getattr(one, f"{group}_ratio") for one in shipped]
        known = [ratio for ratio in ratios if ratio is not None]
        mean = _geometric(known)
        if mean is None:
            continue
        on = "" if len(known) == len(ratios) else f" (on {_traces(len(known))})"
        worst = f"; at worst {max(known):.2f} times" if len(known) > 1 else ""
        yield f"It took {_compared(mean)} GPU-hours {_than(mean)} {whose}{on}{worst}."


def _compared(ratio: float) -> str:
    if abs(ratio - 1.0) < 0.005:
        return "the same"
    return f"{abs(1.0 - ratio) * 100.0:.0f} % {'fewer' if ratio < 1.0 else 'more'}"


def _than(ratio: float) -> str:
    return "as" if abs(ratio - 1.0) < 0.005 else "than"


def _traces(count: int) -> str:
    return "1 trace" if count == 1 else f"{count} traces"
