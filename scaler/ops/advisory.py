"""What would have been against what was: sums, disagreements, and whether to go active.

The counts are compared as they were asked for, on both sides: spec.replicas and the would-be
count, each for as long as it stood.  Nobody can measure what a fleet that was not there would have
missed; it is judged by the learned capacity.  A would-be replica counts from one lead time after it
was first asked for on, and a minute would have been missed where fewer of them were there than the
load needed.  The live fleet is judged by the same rule with the replicas it had ready, beside what
was measured of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaler.ops.advisory_rows import START_UP_S, Floats, Watched

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What going active takes; each is named in the reasons."""

    watched_hours_min: float = 24.0  # a day has a peak and a night
    blind_ratio_max: float = 0.02  # half an hour a day
    missed_ratio_more_max: float = 0.001  # of the minutes, beyond the live fleet by the same rule
    gpu_hours_ratio_max: float = 1.0  # of the live scaler's, unless it misses less


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A stretch in which the two wanted different counts; the counts are those farthest apart."""

    at_s: float
    until_s: float
    would_be: int
    live: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One target: the sums, and the verdict (``go``, ``no-go``, ``undecided``) with its reasons.

    ``missed_minutes_live`` were measured; ``modelled_minutes_live`` are by the rule that the
    would-be ones are judged by.  ``unwatched_minutes`` have no decision in the log.
    ``*_hours_more`` is the time in which the policy wanted more, or fewer, than there was.
    """

    namespace: str
    name: str
    id: str
    from_at_s: float
    to_at_s: float
    ttft_slo_s: float
    gpus_per_replica: int
    watched_hours: float
    gpu_hours_would: float
    gpu_hours_live: float
    missed_minutes_would: float
    missed_minutes_live: float
    modelled_minutes_live: float
    blind_minutes: float
    unwatched_minutes: float
    agreed_ratio: float
    hours_more: float
    hours_fewer: float
    disagreements: tuple[Episode, ...]
    verdict: str
    reasons: tuple[str, ...]
    note: str


def advise(rows: Watched, thresholds: Thresholds | None = None) -> Advice:
    """The advice on a target."""
    limits = thresholds or Thresholds()
    step_s, would, live = rows.step_s, rows["would_be"], rows["live"]
    known = np.isfinite(live)
    both_s = np.where(known, step_s, 0.0)
    gpus = max(rows.gpus_per_replica, 1)
    needs = rows["needs"]
    apart = np.where(known, would - live, 0.0)
    watched_s = float(step_s.sum())
    made = Advice(
        namespace=rows.namespace,
        name=rows.name,
        id=rows.id,
        from_at_s=float(rows["at_s"][0]),
        to_at_s=float(rows["at_s"][-1] + step_s[-1]),
        ttft_slo_s=rows.ttft_slo_s,
        gpus_per_replica=rows.gpus_per_replica,
        watched_hours=watched_s / 3600.0,
        gpu_hours_would=float(np.dot(would, both_s)) * gpus / 3600.0,
        gpu_hours_live=float(np.dot(np.where(known, live, 0.0), both_s)) * gpus / 3600.0,
        missed_minutes_would=_minutes(rows, there(rows) < needs),
        missed_minutes_live=_minutes(rows, rows["missed_ratio"] > rows.allowed_ratio),
        modelled_minutes_live=_minutes(rows, rows["ready"] < needs),
        blind_minutes=float(np.dot(rows["blind"], step_s)) / MINUTE_S,
        unwatched_minutes=max(_span_s(rows) - watched_s, 0.0) / MINUTE_S,
        agreed_ratio=float(np.dot(apart == 0.0, step_s)) / watched_s if watched_s else 1.0,
        hours_more=float(np.dot(apart > 0.0, step_s)) / 3600.0,
        hours_fewer=float(np.dot(apart < 0.0, step_s)) / 3600.0,
        disagreements=episodes(rows, apart),
        verdict="undecided",
        reasons=(),
        note=rows.note,
    )
    return judged(made, active_ratio=float(np.mean(rows["active"])), limits=limits)


def _span_s(rows: Watched) -> float:
    return float(rows["at_s"][-1] - rows["at_s"][0] + rows.step_s[-1])


def there(rows: Watched) -> Floats:
    """Would-be replicas that would have been ready: asked for throughout the last lead time.

    Before the first row the live fleet's were there.
    """
    lead_s = rows["forecast_lead_s"]
    lead_s = np.where(np.isfinite(lead_s), lead_s, START_UP_S)
    at_s, would = rows["at_s"], rows["would_be"]
    begun = np.searchsorted(at_s, at_s - lead_s, side="right") - 1  # the row that stood then
    ready = rows["ready"]
    before = ready[0] if np.isfinite(ready[0]) else would[0]
    made = np.empty(len(at_s))
    for place, first in enumerate(begun):
        fewest = would[max(first, 0) : place + 1].min()
        made[place] = min(fewest, before) if first < 0 else fewest
    return made


def _minutes(rows: Watched, missed: np.ndarray) -> float:
    """Minutes of the clock in which any row missed; a row of five minutes counts as five."""
    found = np.flatnonzero(missed)
    at_s, step_s = rows["at_s"][found], rows.step_s[found]
    if not len(found):
        return 0.0
    short = step_s <= MINUTE_S
    minutes = np.unique(np.floor(at_s[short] / MINUTE_S)).size
    return float(minutes + step_s[~short].sum() / MINUTE_S)


def episodes(rows: Watched, apart: Floats) -> tuple[Episode, ...]:
    """Stretches of one direction, in order of time."""
    found = []
    sign = np.sign(apart)
    begins = np.flatnonzero(np.diff(sign, prepend=0.0) != 0.0)
    for place, first in enumerate(begins):
        end = begins[place + 1] if place + 1 < len(begins) else len(sign)
        if sign[first] == 0.0:
            continue
        farthest = int(first + np.argmax(np.abs(apart[first:end])))
        found.append(
            Episode(
                at_s=float(rows["at_s"][first]),
                until_s=float(rows["at_s"][end - 1] + rows.step_s[end - 1]),
                would_be=int(rows["would_be"][farthest]),
                live=int(rows["live"][farthest]),
                why=rows.why[farthest],
            )
        )
    return tuple(found)


def judged(made: Advice, *, active_ratio: float, limits: Thresholds) -> Advice:
    """With the verdict: ``undecided`` where too little was seen, else what speaks for or against.

    What speaks against it is told in either case.
    """
    against, unsure = _against(made, limits), _unsure(made, active_ratio, limits)
    if unsure:
        return replace(made, verdict="undecided", reasons=(*unsure, *against))
    if against:
        return replace(made, verdict="no-go", reasons=against)
    return replace(made, verdict="go", reasons=_for(made, limits))


def _unsure(made: Advice, active_ratio: float, limits: Thresholds) -> tuple[str, ...]:
    found = []
    if made.watched_hours < limits.watched_hours_min:
        found.append(
            f"watched for {made.watched_hours:.1f} h, {limits.watched_hours_min:.0f} h are asked"
        )
    if active_ratio > 0.0:
        found.append(
            f"the target was active for {active_ratio:.0%} of the decisions: there it is compared"
            " with itself"
        )
    return tuple(found)


def _against(made: Advice, limits: Thresholds) -> tuple[str, ...]:
    found = []
    minutes = made.watched_hours * 60.0
    blind = made.blind_minutes / minutes if minutes else 0.0
    if blind > limits.blind_ratio_max:
        found.append(
            f"blind for {blind:.1%} of the time, at most {limits.blind_ratio_max:.1%} are allowed"
        )
    most = made.modelled_minutes_live + limits.missed_ratio_more_max * minutes
    if made.missed_minutes_would > most:
        found.append(
            f"it would have missed {made.missed_minutes_would:.0f} minutes, the live fleet by the"
            f" same rule {made.modelled_minutes_live:.0f}; at most {most:.1f} are allowed"
        )
    dearer = made.gpu_hours_would > limits.gpu_hours_ratio_max * made.gpu_hours_live
    if dearer and made.missed_minutes_would >= made.modelled_minutes_live:
        found.append(
            f"it asks for more GPU-hours ({made.gpu_hours_would:.1f} against"
            f" {made.gpu_hours_live:.1f}) and misses no less"
        )
    return tuple(found)


def _for(made: Advice, limits: Thresholds) -> tuple[str, ...]:
    return (
        f"{made.gpu_hours_would:.1f} GPU-hours against {made.gpu_hours_live:.1f}",
        (
            f"would have missed {made.missed_minutes_would:.0f} minutes against"
            f" {made.modelled_minutes_live:.0f} by the same rule"
        ),
        (
            f"blind for {made.blind_minutes:.0f} of {made.watched_hours * 60.0:.0f} minutes, at"
            f" most {limits.blind_ratio_max:.1%} are allowed"
        ),
    )


def longest(found: Sequence[Episode], count: int) -> list[Episode]:
    """The ``count`` longest, in order of time."""
    by_length = sorted(found, key=lambda one: one.at_s - one.until_s)[:count]
    return sorted(by_length, key=lambda one: one.at_s)
