"""Which part of the traces is searched and which is held out, and what a part came to.

A run is summed up in blocks of an hour (shorter for traces of less than half a day).  Parts are
ranges of blocks: of one trace every second whole day is held out, or its last third where it has
fewer than two days; of several traces every third is held out whole (of two, the second).  A
held-out day that follows a searched one is met with what was learned before it, as in production.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.errors import ScenarioError
from simulations.streams import generator

BLOCK_S = 3600.0
BLOCKS_MIN = 12  # of a trace
DAY_S = 86400.0
DAYS_FROM = 1.9  # a trace of 48 h whose last request comes a little earlier has two days
DAYS_SURE = 4  # from so many held-out days on, days are drawn anew and not blocks
TOGETHER = 4  # blocks drawn together: hours next to each other are alike
SCREEN_SHARE = 1.0 / 3.0
RESAMPLES = 2000
LEVEL_RATIO = 0.9


Doubles: TypeAlias = npt.NDArray[np.float64]


class Role(StrEnum):
    """What a part is for."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a policy came to on a part; changes and reversals are of spec.replicas."""

    requests: int = 0
    good: int = 0
    gpu_hours: float = 0.0
    changes: int = 0
    reversals: int = 0

    @property
    def attained_ratio(self) -> float:
        """Share of the requests within the objectives; 1 where none came."""
        return self.good / self.requests if self.requests else 1.0

    def __add__(self, other: "Outcome") -> "Outcome":
        """Both parts together."""
        return Outcome(
            requests=self.requests + other.requests,
            good=self.good + other.good,
            gpu_hours=self.gpu_hours + other.gpu_hours,
            changes=self.changes + other.changes,
            reversals=self.reversals + other.reversals,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The roles of one trace's blocks, one for each ``block_s``."""

    trace: str
    block_s: float
    roles: tuple[Role, ...]

    def blocks(self, role: Role) -> tuple[int, ...]:
        """Numbers of the blocks with a role."""
        return tuple(place for place, own in enumerate(self.roles) if own is role)

    def seconds(self, role: Role) -> float:
        """How much time has a role."""
        return len(self.blocks(role)) * self.block_s

    def until_s(self, role: Role) -> float:
        """How far the trace must be played for all of a role; 0 where it has none."""
        return (max(self.blocks(role), default=-1) + 1) * self.block_s

    @property
    def screened(self) -> int:
        """So many blocks show whether a trial is worth the rest: a third of those searched."""
        train = self.blocks(Role.TRAIN)
        return train[int(len(train) * SCREEN_SHARE)] if len(train) > 2 else 0


def split(durations_s: Mapping[str, float]) -> tuple[Split, ...]:
    """The parts of traces, by name and duration.

    Raises:
        ScenarioError: a trace is too short to hold anything out.
    """
    whole = len(durations_s) > 1
    parts = []
    for place, (name, duration_s) in enumerate(durations_s.items()):
        if not duration_s > 0.0:
            raise ScenarioError(f"{name}: one moment of requests, too short to hold any of it out")
        block_s = min(BLOCK_S, duration_s / BLOCKS_MIN)
        count = max(round(duration_s / block_s), 1)
        role = Role.HELD_OUT if _held_out(place, len(durations_s)) else Role.TRAIN
        roles = (role,) * count if whole else _within(duration_s, block_s, count)
        parts.append(Split(trace=name, block_s=block_s, roles=roles))
    return tuple(parts)


def _held_out(place: int, traces: int) -> bool:
    return place == 1 if traces == 2 else place % 3 == 2


def _within(duration_s: float, block_s: float, count: int) -> tuple[Role, ...]:
    if duration_s >= DAYS_FROM * DAY_S:
        days = round(duration_s / DAY_S)
        day_blocks = round(DAY_S / block_s)
        return tuple(
            Role.HELD_OUT if min(place // day_blocks, days - 1) % 2 else Role.TRAIN
            for place in range(count)
        )
    held_out = round(count / 3)
    return (Role.TRAIN,) * (count - held_out) + (Role.HELD_OUT,) * held_out


def total(outcomes: Sequence[Outcome]) -> Outcome:
    """All of them together."""
    return sum(outcomes, Outcome())


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What the bootstrap draws anew: whole days where there are enough of them, else blocks.

    ``days`` are the days that have a part in it, also where blocks are drawn.
    """

    outcomes: tuple[Outcome, ...]
    days: int
    whole_days: bool


def units(splits: Sequence[Split], rows: Sequence[Sequence[Outcome]], role: Role) -> Units:
    """What is drawn anew by the bootstrap: days where there are four, else blocks."""
    days: list[Outcome] = []
    blocks: list[Outcome] = []
    for part, outcomes in zip(splits, rows, strict=True):
        by_day: dict[int, list[Outcome]] = {}
        for place in part.blocks(role):
            blocks.append(outcomes[place])
            by_day.setdefault(int(place * part.block_s // DAY_S), []).append(outcomes[place])
        days += [total(inside) for inside in by_day.values()]
    enough = len(days) >= DAYS_SURE
    return Units(outcomes=tuple(days if enough else blocks), days=len(days), whole_days=enough)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sure:
    """Bootstrap intervals of one policy on a part, and against another on the same draws.

    ``not_dearer_ratio`` is the share of the draws in which it took no more GPU-hours.  ``drawn``
    counts what was drawn from, days if ``whole_days``, else hours of ``days``.
    """

    attained_low: float
    attained_high: float
    gpu_hours_low: float
    gpu_hours_high: float
    attained_more_low: float
    attained_more_high: float
    not_dearer_ratio: float
    drawn: int
    days: int
    whole_days: bool


def bootstrap(own: Units, other: Units, *, seed: int) -> Sure:
    """How far the outcome would differ on other days like these (percentiles of resampled sums).

    ``own`` and ``other`` are the units of two policies on the same part, in the same order.  Hours
    next to each other are alike and are drawn four at a time, going round at the end (circular
    blocks, Politis and Romano 1992); even so they know nothing of other days.
    """
    count = len(own.outcomes)
    together = 1 if own.whole_days else min(TOGETHER, count)
    begins = generator(seed, "bootstrap").integers(count, size=(RESAMPLES, -(-count // together)))
    draws = (begins[:, :, None] + np.arange(together)).reshape(RESAMPLES, -1)[:, :count] % count
    mine, theirs = _sums(own.outcomes, draws), _sums(other.outcomes, draws)
    attained, hours = _interval(mine.attained), _interval(mine.hours)
    more = _interval(mine.attained - theirs.attained)
    return Sure(
        attained_low=attained.low,
        attained_high=attained.high,
        gpu_hours_low=hours.low,
        gpu_hours_high=hours.high,
        attained_more_low=more.low,
        attained_more_high=more.high,
        not_dearer_ratio=float(np.mean(mine.hours <= theirs.hours)),
        drawn=count,
        days=own.days,
        whole_days=own.whole_days,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    attained: Doubles
    hours: Doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interval:
    low: float
    high: float


def _sums(outcomes: Sequence[Outcome], draws: npt.NDArray[np.int64]) -> _Sums:
    """Attainment and GPU-hours of each draw."""
    table = np.array([(one.requests, one.good, one.gpu_hours) for one in outcomes], dtype=float)
    requests, good, hours = table[draws].sum(axis=1).T
    return _Sums(attained=good / np.maximum(requests, 1.0), hours=hours)


def _interval(values: Doubles) -> _Interval:
    tail = 50.0 * (1.0 - LEVEL_RATIO)
    low, high = np.percentile(values, [tail, 100.0 - tail]).tolist()
    return _Interval(low=low, high=high)
