"""From trials to an answer: the front, the point to apply, and which settings mattered.

The point is chosen where it was searched and confirmed where it was not: the cheapest trial that
reached the attainment on the searched part is looked at on the held-out part, and refused there if
it misses or is worse than the settings it would replace.  Few are looked at, because whoever tries
long enough finds something that shines on any part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from simulations.frontier import REACHED_FROM
from simulations.tune_flapping import Calm
from simulations.tune_parts import Outcome
from simulations.tune_space import Dimension, Values

LOOKED_AT_MAX = 5
SURE_SIGMAS = 1.96  # of a rank correlation that is there by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A trial with what it came to; ``held_out`` None where it was not tried.

    ``exceeded`` says by what share it changes the count too often, 0 and less where it does not.
    """

    number: int
    values: Values
    train: Outcome
    held_out: Outcome | None = None
    exceeded: float = 0.0


class Refusal(StrEnum):
    """Why a trial that was best where it was searched is not recommended."""

    MISSED = "missed the attainment on the held-out part"
    DEARER = "took more GPU-hours than the shipped settings on the held-out part"
    FLAPS = "changed the count too often on the held-out part"
    WORSE = "attained less than the shipped settings on the held-out part"


class Verdict(StrEnum):
    """What the recommendation rests on."""

    CONFIRMED = "the held-out part agrees"
    AFTER_REFUSALS = "the held-out part refused better ones"
    UNREACHED = "better than the shipped settings on both parts; no trial reached the attainment"
    SHIPPED = "nothing better than the shipped settings was confirmed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A trial that was looked at and refused."""

    number: int
    reason: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The trial to apply; None where nothing reached the attainment and nothing was better."""

    chosen: Candidate | None
    verdict: Verdict
    refused: tuple[Refused, ...]


def front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those that no other beats where they were searched, by GPU-hours ascending.

    What changes the count too often is none of them, and beats nobody.
    """
    best: list[Candidate] = []
    calm = [one for one in candidates if one.exceeded <= 0.0]
    for one in sorted(calm, key=lambda c: (c.train.gpu_hours, -c.train.attained_ratio, c.number)):
        if not best or one.train.attained_ratio > best[-1].train.attained_ratio:
            best.append(one)
    return tuple(best)


def choose(
    candidates: Sequence[Candidate],
    shipped: Candidate,
    *,
    target_ratio: float,
    calm: Calm | None = None,
) -> Choice:
    """The recommendation among ``candidates``, the front, each tried on the held-out part.

    ``calm`` is how often the count may change there; None: as often as it may be.

    Where none reaches the target on the searched part, those count that are at least as good there
    as the shipped settings in attainment and in GPU-hours.
    """
    assert shipped.held_out is not None, "the shipped settings are tried on both parts"
    reached = [c for c in candidates if c.train.attained_ratio >= target_ratio]
    verdict = Verdict.CONFIRMED
    if reached:
        ordered = sorted(reached, key=lambda c: c.train.gpu_hours)
    else:
        verdict = Verdict.UNREACHED
        better = [c for c in candidates if _dominates(c.train, shipped.train)]
        ordered = sorted(better, key=lambda c: -c.train.attained_ratio)
    refused: list[Refused] = []
    for one in ordered[:LOOKED_AT_MAX]:
        if one.number == shipped.number:
            break  # whatever is left is dearer where it was searched
        assert one.held_out is not None, "every member of the front is tried on both parts"
        reason = refusal(one.held_out, shipped.held_out, target_ratio=target_ratio)
        if reason is None and calm is not None and calm.exceeded(one.held_out) > 0.0:
            reason = Refusal.FLAPS
        if reason is None:
            if refused and verdict is Verdict.CONFIRMED:
                verdict = Verdict.AFTER_REFUSALS
            return Choice(chosen=one, verdict=verdict, refused=tuple(refused))
        refused.append(Refused(number=one.number, reason=reason))
    known = bool(reached) or shipped.train.attained_ratio >= target_ratio
    return Choice(
        chosen=shipped if known else None, verdict=Verdict.SHIPPED, refused=tuple(refused)
    )


def refusal(held_out: Outcome, shipped: Outcome, *, target_ratio: float) -> Refusal | None:
    """Why not to recommend what came to ``held_out``; None where nothing is against it.

    A target counts as reached from ``REACHED_FROM`` below it, for both alike.  Where the shipped
    settings reach it, so must the other, for no more GPU-hours; where they do not, the other must
    reach it, or be at least as good in both.
    """
    enough = target_ratio - REACHED_FROM
    if shipped.attained_ratio < enough:
        if held_out.attained_ratio >= enough or _dominates(held_out, shipped):
            return None
        worse = held_out.attained_ratio < shipped.attained_ratio
        return Refusal.WORSE if worse else Refusal.DEARER
    if held_out.attained_ratio < enough:
        return Refusal.MISSED
    return Refusal.DEARER if held_out.gpu_hours > shipped.gpu_hours else None


def _dominates(one: Outcome, other: Outcome) -> bool:
    return one.attained_ratio >= other.attained_ratio and one.gpu_hours <= other.gpu_hours


def leading(candidates: Sequence[Candidate], *, target_ratio: float, count: int) -> list[Candidate]:
    """Members of the front around the attainment that is wanted: worth moving a little."""
    near = sorted(
        front(candidates), key=lambda c: (abs(c.train.attained_ratio - target_ratio), c.number)
    )
    return near[:count]


def importance(
    dimensions: Sequence[Dimension], candidates: Sequence[Candidate]
) -> Mapping[str, float | None]:
    """Share of each setting in what moved attainment and GPU-hours, by squared rank correlation.

    Correlations that as many trials show by chance count as none; None for all where nothing else
    is left.
    """
    if len(candidates) < 3:
        return {item.path: None for item in dimensions}
    attained = ranks([c.train.attained_ratio for c in candidates])
    hours = ranks([c.train.gpu_hours for c in candidates])
    limit = SURE_SIGMAS / np.sqrt(len(candidates) - 1)
    moved: dict[str, float] = {}
    for item in dimensions:
        own = ranks([c.values[item.path] for c in candidates])
        both = [abs(correlation(own, other)) for other in (attained, hours)]
        moved[item.path] = sum(rho * rho for rho in both if rho > limit)
    whole = sum(moved.values())
    return {path: (share / whole if whole > 0.0 else None) for path, share in moved.items()}


def ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Ranks; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - 0.5 * (counts + 1)
    ranks: npt.NDArray[np.float64] = means[places]
    return ranks


def correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Pearson's; 0 where one of them does not vary."""
    a, b = one - one.mean(), other - other.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread > 0.0 else 0.0


def with_held_out(candidate: Candidate, held_out: Outcome) -> Candidate:
    """The candidate, tried on the held-out part."""
    return replace(candidate, held_out=held_out)
