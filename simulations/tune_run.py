"""One trial on the traces: what each block came to, given up early where it is hopeless."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from scaler.core.config import PolicyConfig
from simulations.attainable import Objectives, good_outcomes
from simulations.engine_layout import Records
from simulations.run import _Run
from simulations.scenario import Scenario
from simulations.score import Tally
from simulations.tune_parts import Outcome, Role, Split, total

WORSE_ATTAINED = 0.05  # below the defaults by this much at the screening: no policy to look at
BEATEN_ATTAINED = 0.01
BEATEN_HOURS = 0.15  # as a share
DEARER_FACTOR = 1.5  # than one that attains what is wanted: whatever it attains, nobody wants it


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """One policy on every trace, as far as the role needs them to be played.

    ``rivals`` are the screenings of what leads at present, the defaults first; none: no screening.
    ``target_ratio`` is the attainment that is wanted.
    """

    name: str = field(compare=False)
    scenarios: tuple[Scenario, ...]  # one a trace, all with the same policy
    splits: tuple[Split, ...]
    role: Role
    config: PolicyConfig
    rivals: tuple[Outcome, ...] = ()
    target_ratio: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """``rows`` are by trace and block, empty for a trace that was not played.

    ``screening`` is what the first part of the first trace came to; with ``given_up`` there is
    nothing beyond it.
    """

    rows: tuple[tuple[Outcome, ...], ...]
    screening: Outcome | None = None
    given_up: bool = False

    def total(self, splits: Sequence[Split], role: Role) -> Outcome:
        """Of all blocks with a role."""
        return total(
            [
                rows[place]
                for part, rows in zip(splits, self.rows, strict=True)
                for place in part.blocks(role)
            ]
        )


def play(job: TrialJob) -> TrialResult:
    """Run a trial; a function of a module, so that it can be sent to another process.

    Raises:
        ScenarioError: the trace has a fault, or no request in the time that is played.
    """
    rows: list[tuple[Outcome, ...]] = []
    screening: Outcome | None = None
    for scenario, part in zip(job.scenarios, job.splits, strict=True):
        until_s = part.until_s(job.role)
        if until_s == 0.0:
            rows.append(())
            continue
        first = screening is None and job.role is Role.TRAIN
        # A held-out part is played to the end, with the copies of superposed requests that come
        # later than the trace's own last one.
        whole = until_s >= part.block_s * len(part.roles)
        run = _Blocks(
            replace(
                scenario,
                policy=replace(scenario.policy, config=job.config),
                timeline=False,
                until_s=scenario.until_s if whole else until_s,
            ),
            part,
            blocks=round(until_s / part.block_s),
            screened=part.screened if first else 0,
            gives_up=lambda seen: hopeless(seen, job.rivals, target_ratio=job.target_ratio),
        )
        rows.append(run.rows())
        screening = run.screening if first else screening
        if run.given_up:
            return TrialResult(rows=(), screening=screening, given_up=True)
    return TrialResult(rows=tuple(rows), screening=screening)


def hopeless(screening: Outcome, rivals: Sequence[Outcome], *, target_ratio: float) -> bool:
    """Whether a trial is not worth the rest, from a part of what it would be tried on.

    It attains far less than the defaults, or one that leads is clearly better in one thing and not
    worse in the other, or attains what is wanted for far fewer GPU-hours.
    """
    if not rivals:
        return False
    if screening.attained_ratio < rivals[0].attained_ratio - WORSE_ATTAINED:
        return True
    return any(_beats(rival, screening, target_ratio) for rival in rivals)


def _beats(rival: Outcome, own: Outcome, target_ratio: float) -> bool:
    more = rival.attained_ratio - own.attained_ratio
    hours = rival.gpu_hours / own.gpu_hours if own.gpu_hours else 1.0
    return (
        (more >= BEATEN_ATTAINED and hours <= 1.0)
        or (more >= 0.0 and hours <= 1.0 - BEATEN_HOURS)
        or (rival.attained_ratio >= target_ratio and hours * DEARER_FACTOR <= 1.0)
    )


class _Blocks(_Run):
    """A run that keeps what each block came to, and ends where it is given up.

    Requests count where they arrive, GPU-hours where they pass (to the tick).  What comes after the
    last block belongs to it.
    """

    def __init__(
        self,
        scenario: Scenario,
        part: Split,
        *,
        blocks: int,
        screened: int,
        gives_up: Callable[[Outcome], bool],
    ) -> None:
        super().__init__(scenario, watch=None, loaded=None, clock=lambda: 0.0)
        slo = scenario.policy.config.slo
        self._counted = self._tally = _BlockTally(
            Objectives(ttft_s=slo.ttft_s, tpot_s=slo.tpot_s), block_s=part.block_s, blocks=blocks
        )
        self._part = part
        self._screened = screened
        self._gives_up = gives_up
        self._hours: list[float] = []  # GPU-hours up to the end of each block
        self.screening: Outcome | None = None
        self.given_up = False

    def rows(self) -> tuple[Outcome, ...]:
        """Play, and what each block came to."""
        self.play()
        blocks = len(self._counted.requests)
        last = self._fleet.usage().gpu_hours
        hours = [*self._hours[: blocks - 1]]
        hours += [last] * (blocks - len(hours))
        return self._rows(hours)

    def _rows(self, hours: Sequence[float]) -> tuple[Outcome, ...]:
        return tuple(
            Outcome(requests=requests, good=good, gpu_hours=up_to - before)
            for requests, good, before, up_to in zip(
                self._counted.requests.tolist(),
                self._counted.good.tolist(),
                (0.0, *hours),
                hours,
                strict=False,
            )
        )

    def _ended(self) -> bool:
        return self.given_up or super()._ended()

    def _tick(self, now_s: float) -> None:
        super()._tick(now_s)
        while now_s >= (len(self._hours) + 1) * self._part.block_s:
            self._hours.append(self._fleet.usage().gpu_hours)
            if len(self._hours) == self._screened:
                self._screen()

    def _screen(self) -> None:
        """Look at what is searched of the first blocks; who still waits has missed."""
        self._fleet.hand_outcomes(self._tally.add)
        seen = self._rows(self._hours)
        waiting = self._feed.arrived(self._screened * self._part.block_s) - total(seen).requests
        train = self._part.blocks(Role.TRAIN)
        ended = total([seen[place] for place in train if place < self._screened])
        self.screening = ended + Outcome(requests=waiting)
        self.given_up = self._gives_up(self.screening)


class _BlockTally(Tally):
    """A tally that counts by block as well."""

    def __init__(self, objectives: Objectives, *, block_s: float, blocks: int) -> None:
        super().__init__(ttft_slo_s=objectives.ttft_s, tpot_slo_s=objectives.tpot_s)
        self._objectives = objectives
        self._block_s = block_s
        self.requests = np.zeros(blocks, dtype=np.int64)
        self.good = np.zeros(blocks, dtype=np.int64)

    def add(self, outcomes: Records) -> None:
        """Take in requests that have ended."""
        super().add(outcomes)
        blocks = len(self.requests)
        places = np.minimum(outcomes["arrival_at_s"] // self._block_s, blocks - 1).astype(np.int64)
        self.requests += np.bincount(places, minlength=blocks)
        good = good_outcomes(outcomes, self._objectives)
        self.good += np.bincount(places[good], minlength=blocks)
