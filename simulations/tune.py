"""Searches the tunable settings on some traces: attainment against GPU-hours.

A trial is the policy under one set of values, played on the part that is searched.  The members of
the front and the shipped settings are then played on the part that was held out; what is
recommended, and how sure that is, comes from there.  ``front.json`` is ``Found.as_json``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scaler.errors import ScenarioError
from simulations.attainable import Objectives, attainable_flags
from simulations.executor import Executor
from simulations.report_tune import Front, Interval, Recommended, SearchedSetting, Trial
from simulations.report_tune import Outcome as Shown
from simulations.run_cache import key_of
from simulations.scenario import Scenario
from simulations.tune_choice import (
    Candidate,
    Choice,
    choose,
    front,
    importance,
    leading,
    with_held_out,
)
from simulations.tune_parts import (
    LEVEL_RATIO,
    Outcome,
    Role,
    Split,
    Sure,
    bootstrap,
    split,
    units,
)
from simulations.tune_run import TrialJob, TrialResult, play
from simulations.tune_search import BATCH, Asked, Study, Tried
from simulations.tune_space import Dimension, Values, applied, changed, defaults, space

TRIALS_MAX = 100_000
LEADING = 6  # trials that mutations start from
SHIPPED_TRIAL = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to search: one scenario a trace, by the trace's name, all under the same policy.

    ``attainment_share`` is of what unlimited warm replicas attain.  ``batch`` trials are asked for
    at once; what is found depends on it.
    """

    scenarios: Mapping[str, Scenario]
    trials: int
    storage: Path
    attainment_share: float
    seed: int = 0
    batch: int = BATCH

    def __post_init__(self) -> None:
        """Raise ScenarioError for what cannot be searched."""
        if not 1 <= self.trials <= TRIALS_MAX:
            raise ScenarioError(f"--trials = {self.trials}, must be in [1, {TRIALS_MAX}]")


class Watcher(Protocol):
    """Hears how a search goes on."""

    def tried(self, tried: Sequence[Tried], front: Sequence[Candidate], *, ran: int) -> None:
        """One more trial has ended; ``ran`` of them in this process."""

    def confirming(self, count: int) -> None:
        """So many trials are to be played on the held-out part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to.

    ``changes`` are the recommended settings that differ from those it began with.  The attainment
    asked for is a share of ``attainable_ratio``.
    """

    front: Front
    choice: Choice
    changes: Mapping[str, float]
    splits: tuple[Split, ...]
    sure: Sure | None
    attainable_ratio: float
    given_up: int

    def as_json(self, patches: Mapping[str, str]) -> dict[str, Any]:
        """front.json: the report's own input and what stands behind the recommendation.

        ``verdict`` and ``refused`` say what the held-out part had to say; ``confidence`` holds the
        bootstrap: intervals of the recommended trial, of its attainment less that of the shipped
        settings, the share of draws in which it was not dearer, and how many days or hours were
        drawn from; ``split`` lists the seconds of each trace that were searched and held out;
        ``given_up`` counts trials that ended at the screening and are not among ``trials``.
        """
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
            "changes": dict(self.changes),
            "split": [_split(part) for part in self.splits],
            "given_up": self.given_up,
        }


def tune(plan: Plan, executor: Executor, watcher: Watcher) -> Found:
    """Search until ``plan.trials`` have been tried, those kept in the storage included.

    Raises:
        ScalerError: Optuna is missing, or the storage cannot be used.
        ScenarioError: a trace cannot be divided, or the storage belongs to another search.
    """
    return _Search(plan, executor, watcher).found()


class _Search:
    """The state of one search."""

    def __init__(self, plan: Plan, executor: Executor, watcher: Watcher) -> None:
        self._plan = plan
        self._executor = executor
        self._watcher = watcher
        self._scenarios = tuple(plan.scenarios.values())
        self._base = self._scenarios[0].policy.config
        self._dimensions = space(self._base)
        loads = [_loaded(scenario) for scenario in self._scenarios]
        self._splits = split(
            {name: load.duration_s for name, load in zip(plan.scenarios, loads, strict=True)}
        )
        self._attainable = sum(load.good for load in loads) / sum(load.requests for load in loads)
        self._target = plan.attainment_share * self._attainable
        self._ran = 0
        problem = key_of(
            play,
            [self._job("problem", defaults(self._dimensions), Role.TRAIN), list(self._dimensions)],
        )
        self._study = Study(self._dimensions, file=plan.storage, problem=problem, seed=plan.seed)

    def found(self) -> Found:
        """The whole search."""
        while len(self._study.tried) < self._plan.trials:
            self._batch(self._study.tried)
        tried = self._study.tried
        candidates = _candidates(tried)
        confirmed, rows = self._confirmed(candidates)
        shipped = confirmed[SHIPPED_TRIAL]
        members = [confirmed[one.number] for one in front(candidates)]
        choice = choose(members, shipped, target_ratio=self._target)
        sure = None if choice.chosen is None else self._sure(rows, choice.chosen.number)
        changes = {} if choice.chosen is None else changed(self._dimensions, choice.chosen.values)
        return Found(
            front=self._front(candidates, confirmed, choice, sure),
            choice=choice,
            changes=changes,
            splits=self._splits,
            sure=sure,
            attainable_ratio=self._attainable,
            given_up=sum(one.train is None for one in tried),
        )

    def _batch(self, tried: Sequence[Tried]) -> None:
        """Ask, run, tell."""
        asked = self._study.unfinished() or self._ask(tried)
        first = asked[0].number - asked[0].number % self._plan.batch
        # Of earlier batches alone: what is given up must not depend on where a search was stopped.
        rivals = self._rivals([one for one in tried if one.number < first])
        jobs = [self._job(f"trial {a.number}", a.values, Role.TRAIN, rivals) for a in asked]

        def ended(place: int, result: TrialResult) -> None:
            train = None if result.given_up else result.total(self._splits, Role.TRAIN)
            self._study.tell(asked[place], train=train, screening=result.screening)
            self._ran += 1
            known = self._study.tried
            self._watcher.tried(known, front(_candidates(known)), ran=self._ran)

        self._executor.map(play, jobs, ended=ended)

    def _ask(self, tried: Sequence[Tried]) -> list[Asked]:
        batch, done = self._plan.batch, len(tried)
        count = min(batch - done % batch, self._plan.trials - done)
        near = leading(_candidates(tried), target_ratio=self._target, count=LEADING)
        return self._study.ask(count, leading=[one.values for one in near])

    def _rivals(self, tried: Sequence[Tried]) -> tuple[Outcome, ...]:
        """Screenings of the shipped settings, if they were tried, and of the front."""
        screened = {one.number: one.screening for one in tried if one.train is not None}
        if screened.get(SHIPPED_TRIAL) is None:
            return ()
        numbers = [SHIPPED_TRIAL, *(one.number for one in front(_candidates(tried)))]
        return tuple(seen for number in numbers if (seen := screened[number]) is not None)

    def _job(
        self, name: str, values: Values, role: Role, rivals: tuple[Outcome, ...] = ()
    ) -> TrialJob:
        return TrialJob(
            name=name,
            scenarios=self._scenarios,
            splits=self._splits,
            role=role,
            config=applied(self._base, values),
            rivals=rivals,
            target_ratio=self._target,
        )

    def _confirmed(
        self, candidates: Sequence[Candidate]
    ) -> tuple[dict[int, Candidate], dict[int, TrialResult]]:
        """The front and the shipped settings with their held-out parts, kept with the study."""
        by_number = {one.number: one for one in candidates}
        wanted = {SHIPPED_TRIAL: by_number[SHIPPED_TRIAL]}
        wanted |= {one.number: one for one in front(candidates)}
        rows = {number: kept for number in wanted if (kept := self._kept(number)) is not None}
        missing = [one for number, one in wanted.items() if number not in rows]
        if missing:
            self._watcher.confirming(len(missing))
        jobs = [
            self._job(f"trial {one.number}, held out", one.values, Role.HELD_OUT) for one in missing
        ]

        def ended(place: int, result: TrialResult) -> None:
            number = missing[place].number
            rows[number] = result
            plain = [[[o.requests, o.good, o.gpu_hours] for o in part] for part in result.rows]
            self._study.keep(f"held out {number}", plain)

        self._executor.map(play, jobs, ended=ended)
        confirmed = {
            number: with_held_out(one, rows[number].total(self._splits, Role.HELD_OUT))
            for number, one in wanted.items()
        }
        return confirmed, rows

    def _kept(self, number: int) -> TrialResult | None:
        plain = self._study.kept(f"held out {number}")
        if plain is None:
            return None
        return TrialResult(
            rows=tuple(
                tuple(Outcome(requests=r, good=g, gpu_hours=h) for r, g, h in part)
                for part in plain
            )
        )

    def _sure(self, rows: Mapping[int, TrialResult], number: int) -> Sure:
        own, shipped = (
            units(self._splits, rows[one].rows, Role.HELD_OUT) for one in (number, SHIPPED_TRIAL)
        )
        return bootstrap(own, shipped, seed=self._plan.seed)

    def _front(
        self,
        candidates: Sequence[Candidate],
        confirmed: Mapping[int, Candidate],
        choice: Choice,
        sure: Sure | None,
    ) -> Front:
        on_front = {one.number for one in front(candidates)}
        trials = [
            _trial(confirmed.get(one.number, one), on_front=one.number in on_front)
            for one in candidates
        ]
        moved = importance(self._dimensions, candidates)
        return Front(
            traces=list(self._plan.scenarios),
            attainment_target_ratio=self._target,
            train_hours=sum(part.seconds(Role.TRAIN) for part in self._splits) / 3600.0,
            held_out_hours=sum(part.seconds(Role.HELD_OUT) for part in self._splits) / 3600.0,
            settings=[_setting(item, moved[item.path]) for item in self._dimensions],
            defaults=next(one for one in trials if one["number"] == SHIPPED_TRIAL),
            trials=trials,
            recommended=_recommended(choice, sure),
            patches={},
            seed=self._plan.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A trace as far as it is played; superposing changes none of the shares."""

    duration_s: float
    requests: int
    good: int


def _loaded(scenario: Scenario) -> _Loaded:
    slo = scenario.policy.config.slo
    objectives = Objectives(ttft_s=slo.ttft_s, tpot_s=slo.tpot_s)
    until_s = np.inf if scenario.until_s is None else scenario.until_s
    last_s, requests, good = 0.0, 0, 0
    for chunk in scenario.requests:
        played = chunk.pick(chunk.arrival_s < until_s)
        if len(played):
            last_s = float(played.arrival_s[-1])
        requests += len(played)
        good += int(np.count_nonzero(attainable_flags(played, scenario.model, objectives)))
    if not requests:
        raise ScenarioError("a trace has no request in the time that is played")
    return _Loaded(duration_s=last_s, requests=requests, good=good)


def _candidates(tried: Sequence[Tried]) -> list[Candidate]:
    return [
        Candidate(number=one.number, values=one.values, train=one.train)
        for one in tried
        if one.train is not None
    ]


def _trial(one: Candidate, *, on_front: bool) -> Trial:
    return Trial(
        number=one.number,
        settings=dict(one.values),
        train=_shown(one.train),
        held_out=None if one.held_out is None else _shown(one.held_out),
        on_front=on_front,
    )


def _shown(outcome: Outcome) -> Shown:
    return Shown(slo_attainment_ratio=outcome.attained_ratio, gpu_hours=outcome.gpu_hours)


def _setting(item: Dimension, share: float | None) -> SearchedSetting:
    return SearchedSetting(
        name=item.path,
        low=item.low,
        high=item.high,
        default=item.default,
        why=item.why,
        importance_ratio=share,
    )


def _recommended(choice: Choice, sure: Sure | None) -> Recommended | None:
    if choice.chosen is None or sure is None:
        return None
    return Recommended(
        trial=choice.chosen.number,
        slo_attainment_ratio=Interval(low=sure.attained_low, high=sure.attained_high),
        gpu_hours=Interval(low=sure.gpu_hours_low, high=sure.gpu_hours_high),
        level_ratio=LEVEL_RATIO,
    )


def _sure(sure: Sure) -> dict[str, Any]:
    return {
        "level_ratio": LEVEL_RATIO,
        "slo_attainment_ratio": {"low": sure.attained_low, "high": sure.attained_high},
        "gpu_hours": {"low": sure.gpu_hours_low, "high": sure.gpu_hours_high},
        "slo_attainment_more": {"low": sure.attained_more_low, "high": sure.attained_more_high},
        "not_dearer_ratio": sure.not_dearer_ratio,
        "drawn_from": sure.drawn,
    }


def _split(part: Split) -> dict[str, Any]:
    return {
        "trace": part.trace,
        "train_s": part.seconds(Role.TRAIN),
        "held_out_s": part.seconds(Role.HELD_OUT),
    }
