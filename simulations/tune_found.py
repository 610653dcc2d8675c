"""What a search came to, and how far that holds: what ``front.json`` and the report say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulations.report_tune import Front, Interval, OnTrace, Recommended, SearchedSetting, Trial
from simulations.report_tune import Outcome as Shown
from simulations.tune_choice import Candidate, Choice, correlation, ranks
from simulations.tune_parts import LEVEL_RATIO, Outcome, Role, Split, Sure
from simulations.tune_space import Dimension

MEMBERS_MIN = 4  # of a front, for a rank correlation to say something


@dataclass(frozen=True, slots=True, kw_only=True)
class Generalised:
    """How what was found on the searched part went where it was held out, over the whole front.

    Rank correlations (Spearman) between both parts, None of fewer than four trials: 1 where the
    order is the same, 0 where the searched part says nothing of the other.  Gaps are attainment
    lost on the held-out part beyond what the shipped settings lose there, whose own difference is
    that of the days.
    """

    members: int
    attained_correlation: float | None
    gpu_hours_correlation: float | None
    gap_mean_ratio: float
    gap_worst_ratio: float
    shipped_gap_ratio: float


def generalised(members: Sequence[Candidate], shipped: Candidate) -> Generalised:
    """Compare both parts over ``members``, all of them tried on both."""
    pairs = [(one.train, one.held_out) for one in members if one.held_out is not None]
    assert len(pairs) == len(members) > 0, "every member of the front is tried on both parts"
    assert shipped.held_out is not None, "the shipped settings are tried on both parts"
    own = shipped.train.attained_ratio - shipped.held_out.attained_ratio
    gaps = [train.attained_ratio - unseen.attained_ratio - own for train, unseen in pairs]
    enough = len(pairs) >= MEMBERS_MIN
    return Generalised(
        members=len(pairs),
        attained_correlation=_same_order(
            [(train.attained_ratio, unseen.attained_ratio) for train, unseen in pairs]
        )
        if enough
        else None,
        gpu_hours_correlation=_same_order(
            [(train.gpu_hours, unseen.gpu_hours) for train, unseen in pairs]
        )
        if enough
        else None,
        gap_mean_ratio=sum(gaps) / len(gaps),
        gap_worst_ratio=max(gaps),
        shipped_gap_ratio=own,
    )


def _same_order(pairs: Sequence[tuple[float, float]]) -> float:
    one, other = zip(*pairs, strict=True)
    return correlation(ranks(one), ranks(other))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to.

    ``changes`` are the recommended settings that differ from those it began with.  The attainment
    asked for is a share of ``attainable_ratio``.  ``flapped`` trials were left out because they
    change the count too often.
    """

    front: Front
    choice: Choice
    changes: Mapping[str, float]
    splits: tuple[Split, ...]
    sure: Sure | None
    generalised: Generalised
    attainable_ratio: float
    given_up: int
    flapped: int

    def as_json(self, patches: Mapping[str, str]) -> dict[str, Any]:
        """front.json: the report's own input and what stands behind the recommendation.

        ``verdict`` and ``refused`` say what the held-out part had to say; ``confidence`` holds the
        bootstrap: intervals of the recommended trial, of its attainment less that of the shipped
        settings, the share of draws in which it was not dearer, and how many days or hours were
        drawn from; ``generalised`` compares both parts over the whole front; ``split`` lists the
        seconds of each trace that were searched and held out; ``given_up`` counts trials that ended
        at the screening and are not among ``trials``, ``flapped`` those that may not be on the
        front because they change the count too often.
        """
        both = self.generalised
        return {
            **self.front,
            "patches": dict(patches),
            "attainable_ratio": self.attainable_ratio,
            "verdict": self.choice.verdict.name.lower(),
            "verdict_text": self.choice.verdict.value,
            "refused": [
                {"trial": one.number, "reason": one.reason.value} for one in self.choice.refused
            ],
            "confidence": None if self.sure is None else _sure(self.sure),
            "generalised": {
                "members": both.members,
                "attained_rank_correlation": both.attained_correlation,
                "gpu_hours_rank_correlation": both.gpu_hours_correlation,
                "gap_mean_ratio": both.gap_mean_ratio,
                "gap_worst_ratio": both.gap_worst_ratio,
                "shipped_gap_ratio": both.shipped_gap_ratio,
            },
            "changes": dict(self.changes),
            "split": [_split(part) for part in self.splits],
            "given_up": self.given_up,
            "flapped": self.flapped,
        }


def trial(one: Candidate, *, on_front: bool) -> Trial:
    """A candidate as front.json has it."""
    return Trial(
        number=one.number,
        settings=dict(one.values),
        train=shown(one.train),
        held_out=None if one.held_out is None else shown(one.held_out),
        on_front=on_front,
        flaps=one.exceeded > 0.0,
    )


def shown(outcome: Outcome) -> Shown:
    """An outcome as front.json has it."""
    return Shown(
        slo_attainment_ratio=outcome.attained_ratio,
        gpu_hours=outcome.gpu_hours,
        replica_changes=outcome.changes,
        reversals=outcome.reversals,
    )


def setting(item: Dimension, importance_ratio: float | None) -> SearchedSetting:
    """A dimension as front.json has it."""
    return SearchedSetting(
        name=item.path,
        low=item.low,
        high=item.high,
        default=item.default,
        why=item.why,
        importance_ratio=importance_ratio,
    )


def recommended(choice: Choice, sure: Sure | None) -> Recommended | None:
    """The recommendation as front.json has it."""
    if choice.chosen is None or sure is None:
        return None
    return Recommended(
        trial=choice.chosen.number,
        slo_attainment_ratio=Interval(low=sure.attained_low, high=sure.attained_high),
        gpu_hours=Interval(low=sure.gpu_hours_low, high=sure.gpu_hours_high),
        level_ratio=LEVEL_RATIO,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ByTrace:
    """What a trial came to on each trace, of both parts."""

    train: Sequence[Outcome]
    held_out: Sequence[Outcome]

    def of(self, role: Role) -> Sequence[Outcome]:
        """Those of one part."""
        return self.train if role is Role.TRAIN else self.held_out


def on_traces(splits: Sequence[Split], chosen: ByTrace, shipped: ByTrace) -> list[OnTrace]:
    """Both policies on each trace and part that has requests."""
    rows = []
    for place, part in enumerate(splits):
        for role in Role:
            own, was = (
                (by.train if role is Role.TRAIN else by.held_out) for by in (chosen, shipped)
            )
            if part.blocks(role) and was[place].requests:
                rows.append(
                    OnTrace(
                        trace=part.trace,
                        held_out=role is Role.HELD_OUT,
                        recommended=shown(own[place]),
                        shipped=shown(was[place]),
                    )
                )
    return rows


def _sure(sure: Sure) -> dict[str, Any]:
    return {
        "level_ratio": LEVEL_RATIO,
        "slo_attainment_ratio": {"low": sure.attained_low, "high": sure.attained_high},
        "gpu_hours": {"low": sure.gpu_hours_low, "high": sure.gpu_hours_high},
        "slo_attainment_more": {"low": sure.attained_more_low, "high": sure.attained_more_high},
        "not_dearer_ratio": sure.not_dearer_ratio,
        "drawn_from": sure.drawn,
        "drawn": "days" if sure.whole_days else "hours",
        "held_out_days": sure.days,
    }


def _split(part: Split) -> dict[str, Any]:
    return {
        "trace": part.trace,
        "train_s": part.seconds(Role.TRAIN),
        "held_out_s": part.seconds(Role.HELD_OUT),
    }
