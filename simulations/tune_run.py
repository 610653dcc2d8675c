"""One trial on the traces: what each block came to, given up early where it is hopeless."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scaler.core.config import PolicyConfig
from simulations.scenario import Scenario
from simulations.tune_blocks import blocks_of
from simulations.tune_flapping import Calm
from simulations.tune_parts import Outcome, Role, Split, total
from simulations.tune_steady import steady

WORSE_ATTAINED = 0.05  # below the defaults by this much at the screening: no policy to look at
BEATEN_ATTAINED = 0.01
BEATEN_HOURS = 0.15  # as a share
DEARER_FACTOR = 1.5  # than one that attains what is wanted: whatever it attains, nobody wants it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """What a trial has to stand beside; empty: nothing is known yet, and nothing given up.

    ``screened`` are the screenings of what leads at present, the defaults' first; ``front`` what
    those on the front came to in the end, and ``calm`` how often they may change the count.
    """

    screened: tuple[Outcome, ...] = ()
    front: tuple[Outcome, ...] = ()
    calm: Calm | None = None

    def outdone(self, train: Outcome) -> bool:
        """Whether one is at least as good in both, or it flaps: it cannot join the front."""
        if self.calm is not None and self.calm.exceeded(train) > 0.0:
            return True
        return any(
            one.attained_ratio >= train.attained_ratio and one.gpu_hours <= train.gpu_hours
            for one in self.front
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """One policy on every trace, as far as the role needs them to be played.

    ``target_ratio`` is the attainment that is wanted.  What may join the front is played at
    a slow load as well, with ``steady_per_s`` its highest rate; 0: it is not.
    """

    name: str = field(compare=False)
    scenarios: tuple[Scenario, ...]  # one a trace, all with the same policy
    splits: tuple[Split, ...]
    role: Role
    config: PolicyConfig
    rivals: Rivals = Rivals()
    target_ratio: float = 1.0
    steady_per_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """``rows`` are by trace and block, empty for a trace that was not played.

    ``screening`` is what the first part of the first trace came to; with ``given_up`` there is
    nothing beyond it.  ``steady`` is what it came to at a slow load, None where it was not tried.
    """

    rows: tuple[tuple[Outcome, ...], ...]
    screening: Outcome | None = None
    given_up: bool = False
    steady: Outcome | None = None

    def total(self, splits: Sequence[Split], role: Role) -> Outcome:
        """Of all blocks with a role."""
        return total(self.by_trace(splits, role))

    def by_trace(self, splits: Sequence[Split], role: Role) -> tuple[Outcome, ...]:
        """Of the blocks with a role, on each trace."""
        return tuple(
            total([rows[place] for place in part.blocks(role)])
            for part, rows in zip(splits, self.rows, strict=True)
        )


def play(job: TrialJob) -> TrialResult:
    """Run a trial; a function of a module, so that it can be sent to another process.

    Raises:
        ScenarioError: the trace has a fault, or no request in the time that is played.
    """
    rows: list[tuple[Outcome, ...]] = []
    screening: Outcome | None = None
    for scenario, part in zip(job.scenarios, job.splits, strict=True):
        if not part.blocks(job.role):
            rows.append(())
            continue
        screened = part.screened if screening is None and job.role is Role.TRAIN else 0
        found = _played(job, scenario, part, screened)
        if screened:
            screening = found.screening
        if found.given_up:
            return TrialResult(rows=(), screening=screening, given_up=True)
        rows.append(found.rows)
    result = TrialResult(rows=tuple(rows), screening=screening)
    if not job.steady_per_s or job.rivals.outdone(result.total(job.splits, Role.TRAIN)):
        return result
    met = steady(
        _under(job, job.scenarios[0]),
        highest_per_s=job.steady_per_s,
        searched_s=job.splits[0].seconds(Role.TRAIN),
    )
    return replace(result, steady=met)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Played:
    rows: tuple[Outcome, ...]
    screening: Outcome | None
    given_up: bool


def _played(job: TrialJob, scenario: Scenario, part: Split, screened: int) -> _Played:
    """One trace, as far as the role needs it."""
    until_s = part.until_s(job.role)
    # A held-out part is played to the end, with the copies of superposed requests that come
    # later than the trace's own last one.
    whole = until_s >= part.block_s * len(part.roles)
    seen: list[Outcome] = []

    def goes_on(blocks: Sequence[Outcome]) -> bool:
        train = [blocks[place] for place in part.blocks(Role.TRAIN) if place < screened]
        seen.append(total(train))
        return not hopeless(seen[0], job.rivals.screened, target_ratio=job.target_ratio)

    rows = blocks_of(
        replace(_under(job, scenario), until_s=scenario.until_s if whole else until_s),
        block_s=part.block_s,
        blocks=round(until_s / part.block_s),
        screened=screened,
        goes_on=goes_on,
    )
    return _Played(
        rows=rows, screening=seen[0] if seen else None, given_up=len(rows) == screened > 0
    )


def _under(job: TrialJob, scenario: Scenario) -> Scenario:
    """The scenario under the trial's settings."""
    policy = replace(scenario.policy, config=job.config)
    return replace(scenario, policy=policy, timeline=False)


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
