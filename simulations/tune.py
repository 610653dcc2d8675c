"""Searches the tunable settings on some traces: attainment against GPU-hours.

A trial is the policy under one set of values, played on the part that is searched.  The members of
the front and the shipped settings are then played on the part that was held out; what is
recommended, and how sure that is, comes from there.  ``front.json`` is ``Found.as_json``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scaler.errors import ScenarioError
from simulations.executor import Executor
from simulations.report_tune import Front, OnTrace
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
from simulations.tune_flapping import Calm, calm
from simulations.tune_found import (
    ByTrace,
    Found,
    generalised,
    on_traces,
    recommended,
    setting,
    trial,
)
from simulations.tune_load import loaded, searched_per_s
from simulations.tune_parts import (
    Outcome,
    Role,
    Sure,
    bootstrap,
    split,
    units,
)
from simulations.tune_run import Rivals, TrialJob, TrialResult, play
from simulations.tune_search import BATCH, Asked, Study, Tried, outcome, plain
from simulations.tune_space import Values, applied, changed, defaults, space
from simulations.tune_words import advice, findings

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


def tune(plan: Plan, executor: Executor, watcher: Watcher) -> Found:
    """Search until ``plan.trials`` have been tried, those kept in the storage included.

    Raises:
        ScalerError: Optuna is missing, or the storage cannot be used.
        ScenarioError: a trace cannot be divided, or the storage belongs to another search.
    """
    search = _Search(plan, executor, watcher)
    try:
        return search.found()
    finally:
        search.close()


class _Search:
    """The state of one search."""

    def __init__(self, plan: Plan, executor: Executor, watcher: Watcher) -> None:
        self._plan = plan
        self._executor = executor
        self._watcher = watcher
        self._scenarios = tuple(plan.scenarios.values())
        self._base = self._scenarios[0].policy.config
        self._dimensions = space(self._base)
        loads = [loaded(scenario) for scenario in self._scenarios]
        self._splits = split(
            {name: load.duration_s for name, load in zip(plan.scenarios, loads, strict=True)}
        )
        self._attainable = sum(load.good for load in loads) / sum(load.requests for load in loads)
        self._target = plan.attainment_share * self._attainable
        self._steady_per_s = searched_per_s(self._scenarios[0], self._splits[0])
        self._ran = 0
        problem = key_of(
            play,
            [self._job("problem", defaults(self._dimensions), Role.TRAIN), list(self._dimensions)],
        )
        self._study = Study(self._dimensions, file=plan.storage, problem=problem, seed=plan.seed)

    def close(self) -> None:
        """Let others use the storage."""
        self._study.close()

    def found(self) -> Found:
        """The whole search."""
        while len(self._study.tried) < self._plan.trials:
            self._batch()
        tried = self._study.tried
        candidates = _candidates(tried)
        confirmed, rows = self._confirmed(candidates)
        shipped = confirmed[SHIPPED_TRIAL]
        members = [confirmed[one.number] for one in front(candidates)]
        choice = choose(
            members,
            shipped,
            target_ratio=self._target,
            calm=self._calm(tried, rows[SHIPPED_TRIAL].total(self._splits, Role.HELD_OUT)),
        )
        return self._summed_up(tried, candidates, confirmed, rows, choice)

    def _summed_up(
        self,
        tried: Sequence[Tried],
        candidates: Sequence[Candidate],
        confirmed: Mapping[int, Candidate],
        rows: Mapping[int, TrialResult],
        choice: Choice,
    ) -> Found:
        """What is said of a search whose front was tried on the held-out part."""
        chosen, shipped = choice.chosen, confirmed[SHIPPED_TRIAL]
        members = [confirmed[one.number] for one in front(candidates)]
        sure = None if chosen is None else self._sure(rows, chosen.number)
        both = generalised(members, shipped)
        traces = self._on_traces(rows, SHIPPED_TRIAL if chosen is None else chosen.number)
        flapped = sum(one.exceeded > 0.0 for one in candidates)
        said = advice(
            choice,
            members,
            shipped,
            target_ratio=self._target,
            attainable_ratio=self._attainable,
        )
        found = self._front(candidates, confirmed)
        found["recommended"] = recommended(choice, sure)
        found["advice"] = said
        found["findings"] = [
            *findings(sure, both, splits=self._splits, flapped=flapped, traces=traces)
        ]
        found["by_trace"] = traces
        return Found(
            front=found,
            choice=choice,
            changes={} if chosen is None else changed(self._dimensions, chosen.values),
            splits=self._splits,
            sure=sure,
            generalised=both,
            attainable_ratio=self._attainable,
            given_up=sum(one.train is None for one in tried),
            flapped=flapped,
        )

    def _front(self, candidates: Sequence[Candidate], confirmed: Mapping[int, Candidate]) -> Front:
        """The trials; what is made of them comes later."""
        on_front = {one.number for one in front(candidates)}
        trials = [
            trial(confirmed.get(one.number, one), on_front=one.number in on_front)
            for one in candidates
        ]
        moved = importance(self._dimensions, candidates)
        return Front(
            traces=list(self._plan.scenarios),
            attainment_target_ratio=self._target,
            train_hours=sum(part.seconds(Role.TRAIN) for part in self._splits) / 3600.0,
            held_out_hours=sum(part.seconds(Role.HELD_OUT) for part in self._splits) / 3600.0,
            settings=[setting(item, moved[item.path]) for item in self._dimensions],
            defaults=next(one for one in trials if one["number"] == SHIPPED_TRIAL),
            trials=trials,
            recommended=None,
            patches={},
            seed=self._plan.seed,
            advice="",
            findings=[],
            by_trace=[],
        )

    def _batch(self) -> None:
        """Ask, run, tell."""
        tried = self._study.tried
        asked = self._asked(tried)
        begin = _begin(asked[0].number, self._plan.batch)
        # Of earlier batches alone: what is given up must not depend on where a search was stopped.
        rivals = self._rivals([one for one in tried if one.number < begin])
        jobs = [self._job(f"trial {a.number}", a.values, Role.TRAIN, rivals) for a in asked]

        def ended(place: int, result: TrialResult) -> None:
            self._study.tell(self._told(asked[place], result, rivals.calm))
            self._ran += 1
            known = self._study.tried
            self._watcher.tried(known, front(_candidates(known)), ran=self._ran)

        self._executor.map(play, jobs, ended=ended)

    def _told(self, asked: Asked, result: TrialResult, allowed: Calm | None) -> Tried:
        train = None if result.given_up else result.total(self._splits, Role.TRAIN)
        exceeded = 0.0
        if train is not None and allowed is not None:
            exceeded = allowed.exceeded(train, result.steady)
        return Tried(
            number=asked.number,
            values=asked.values,
            train=train,
            screening=result.screening,
            steady=result.steady,
            exceeded=exceeded,
            by_trace=() if train is None else result.by_trace(self._splits, Role.TRAIN),
        )

    def _asked(self, tried: Sequence[Tried]) -> list[Asked]:
        """The batch to run: what is left of one that was stopped, or the next one.

        One of which nothing was told may not have been asked for to its end, when it was stopped.
        """
        asked = self._study.unfinished()
        begin = _begin(asked[0].number if asked else len(tried), self._plan.batch)
        if asked and tried and tried[-1].number >= begin:
            return asked
        end = min(_end(begin, self._plan.batch), self._plan.trials)
        near = leading(_candidates(tried), target_ratio=self._target, count=LEADING)
        missing = max(end - len(tried) - len(asked), 0)
        return asked + self._study.ask(missing, leading=[one.values for one in near])

    def _rivals(self, tried: Sequence[Tried]) -> Rivals:
        """The shipped settings and the front; nobody before the shipped settings were tried."""
        by_number = {one.number: one for one in tried}
        if SHIPPED_TRIAL not in by_number:
            return Rivals()
        leads = front(_candidates(tried))
        numbers = [SHIPPED_TRIAL, *(one.number for one in leads)]
        screened = [by_number[number].screening for number in numbers]
        return Rivals(
            screened=tuple(seen for seen in screened if seen is not None),
            front=tuple(one.train for one in leads),
            calm=self._calm(tried, None),
        )

    def _calm(self, tried: Sequence[Tried], held_out: Outcome | None) -> Calm:
        """How often the count may change on the searched part, or on the held-out one."""
        shipped = tried[SHIPPED_TRIAL]
        assert shipped.train is not None, "the shipped settings are never given up"
        assert shipped.steady is not None, "the shipped settings meet the slow load first"
        role = Role.TRAIN if held_out is None else Role.HELD_OUT
        return calm(
            shipped.train if held_out is None else held_out,
            shipped.steady,
            seconds=sum(part.seconds(role) for part in self._splits),
        )

    def _job(self, name: str, values: Values, role: Role, rivals: Rivals | None = None) -> TrialJob:
        return TrialJob(
            name=name,
            scenarios=self._scenarios,
            splits=self._splits,
            role=role,
            config=applied(self._base, values),
            rivals=rivals or Rivals(),
            target_ratio=self._target,
            steady_per_s=self._steady_per_s if role is Role.TRAIN else 0.0,
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
            self._study.keep(
                f"held out {number}", [[plain(one) for one in part] for part in result.rows]
            )

        self._executor.map(play, jobs, ended=ended)
        confirmed = {
            number: with_held_out(one, rows[number].total(self._splits, Role.HELD_OUT))
            for number, one in wanted.items()
        }
        return confirmed, rows

    def _kept(self, number: int) -> TrialResult | None:
        said = self._study.kept(f"held out {number}")
        if said is None:
            return None
        return TrialResult(
            rows=tuple(
                tuple(seen for one in part if (seen := outcome(one)) is not None) for part in said
            )
        )

    def _sure(self, rows: Mapping[int, TrialResult], number: int) -> Sure:
        own, shipped = (
            units(self._splits, rows[one].rows, Role.HELD_OUT) for one in (number, SHIPPED_TRIAL)
        )
        return bootstrap(own, shipped, seed=self._plan.seed)

    def _on_traces(self, rows: Mapping[int, TrialResult], number: int) -> list[OnTrace]:
        tried = self._study.tried
        chosen, shipped = (
            ByTrace(
                train=tried[one].by_trace,
                held_out=rows[one].by_trace(self._splits, Role.HELD_OUT),
            )
            for one in (number, SHIPPED_TRIAL)
        )
        return on_traces(self._splits, chosen, shipped)


def _begin(number: int, batch: int) -> int:
    """The first trial of the batch that a trial is in; the shipped settings are one of their own.

    Whatever follows is measured by them.
    """
    return min(number, 1) if number < batch else number - number % batch


def _end(begin: int, batch: int) -> int:
    """The first trial of the next batch."""
    return max(1 if begin == 0 else batch * (begin // batch + 1), begin + 1)


def _candidates(tried: Sequence[Tried]) -> list[Candidate]:
    return [
        Candidate(number=one.number, values=one.values, train=one.train, exceeded=one.exceeded)
        for one in tried
        if one.train is not None
    ]
