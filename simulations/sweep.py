"""Many jobs that name their trace: taken from the cache, or given to the executor and kept."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from scaler.errors import ScalerError
from simulations.attainable import Objectives, attainable_flags
from simulations.executor import Executor, Named
from simulations.oracle import oracle
from simulations.oracle_replay import Deployment
from simulations.run_cache import Json, RunCache, key_of, source_hash
from simulations.scenario import Scenario
from simulations.sweep_traces import StoredTrace
from simulations.trace_chunks import Requests, join
from simulations.traces import scale

J = TypeVar("J", bound=Named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A trace as it is played."""

    trace: StoredTrace
    load_factor: float = 1.0
    seed: int = 0
    until_s: float | None = None

    def requests(self) -> Requests:
        """All requests as one chunk."""
        chunks = list(scale(self.trace, load_factor=self.load_factor, seed=self.seed))
        whole = join(chunks)
        return whole if self.until_s is None else whole.pick(whole.arrival_s < self.until_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What is true of a trace whatever decides: the attainable, the oracle for an attainment.

    ``attainment_share`` is of the attainable ratio; None leaves the oracle out.  The oracle tries
    as many schedules as its own default says, or up to ``replays_max``.
    """

    name: str = field(compare=False)
    load: Load
    deployment: Deployment
    attainment_share: float | None = None
    replays_max: int | None = None


def attainable_one(bound: Bound) -> Json:
    """How many requests there are, and the share that meets the objectives alone."""
    good = requests = 0
    load = bound.load
    for chunk in scale(load.trace, load_factor=load.load_factor, seed=load.seed):
        inside = slice(None) if load.until_s is None else chunk.arrival_s < load.until_s
        played = chunk.pick(inside)
        requests += len(played)
        flags = attainable_flags(played, bound.deployment.model, bound.deployment.objectives)
        good += int(np.count_nonzero(flags))
    return {"requests": requests, "slo_attainable_ratio": good / requests if requests else 0.0}


def oracle_one(bound: Bound) -> Json:
    """The oracle's schedule and the bound below it, in GPU-hours."""
    assert bound.attainment_share is not None, "the oracle is for an attainment"
    requests = bound.load.requests()
    reachable = float(
        np.mean(attainable_flags(requests, bound.deployment.model, bound.deployment.objectives))
    )
    found = oracle(
        requests,
        bound.deployment,
        attainment_ratio=bound.attainment_share * reachable,
        replays_max=bound.replays_max,
    )
    return {
        "schedule": [list(step) for step in found.schedule],
        "gpu_hours": found.gpu_hours,
        "bound_gpu_hours": found.bound_gpu_hours,
        "slo_attainment_ratio": found.slo_attainment_ratio,
        "slo_attainable_ratio": found.slo_attainable_ratio,
        "reached": found.reached,
        "replays": found.replays,
        "requests": len(requests),
    }


def deployment_of(scenario: Scenario) -> Deployment:
    """The fleet of a scenario without what decides."""
    slo = scenario.policy.config.slo
    return Deployment(
        model=scenario.model,
        objectives=Objectives(ttft_s=slo.ttft_s, tpot_s=slo.tpot_s),
        replicas_first=scenario.replicas_at_start,
        replicas_min=scenario.scaled_object.replicas_min,
        replicas_max=scenario.scaled_object.replicas_max,
        gpus=scenario.gpus,
        routing=scenario.routing,
        victims=scenario.victims.choice,
        seed=scenario.seed,
    )


def load_of(scenario: Scenario) -> Load:
    """The trace of a scenario as it is played."""
    trace = scenario.requests
    assert isinstance(trace, StoredTrace), "a job names its trace, it does not hold it"
    return Load(
        trace=trace,
        load_factor=scenario.load_factor,
        seed=scenario.seed,
        until_s=scenario.until_s,
    )


class Watcher(Protocol):
    """Hears how a sweep goes on."""

    def planned(self, count: int) -> None:
        """So many more results are wanted."""

    def ended(self, name: str, *, cached: bool) -> None:
        """One of them is there."""


class Quiet:
    """Shows nothing."""

    def planned(self, count: int) -> None:
        """Nothing."""

    def ended(self, name: str, *, cached: bool) -> None:
        """Nothing."""


class Sweep:
    """Gets results of jobs: kept ones from the cache, each other one run once and kept at once."""

    def __init__(
        self, executor: Executor, cache: RunCache, *, watcher: Watcher | None = None
    ) -> None:
        self._executor = executor
        self._cache = cache
        self._watcher = watcher or Quiet()

    def results(self, function: Callable[[J], Json], jobs: Sequence[J]) -> list[Json]:
        """``function`` of every job, in their order.

        Raises:
            ScalerError: a job failed; those that ended before it are kept.
        """
        self._watcher.planned(len(jobs))
        keys = [key_of(function, job) for job in jobs]
        found: dict[str, Json] = {}
        missing: dict[str, J] = {}
        for key, job in zip(keys, jobs, strict=True):
            if key in found or key in missing:
                self._watcher.ended(job.name, cached=True)
            elif (kept := self._cache.get(key)) is not None:
                found[key] = kept
                self._watcher.ended(job.name, cached=True)
            else:
                missing[key] = job
        found.update(self._run(function, missing))
        return [dict(found[key]) for key in keys]

    def _run(self, function: Callable[[J], Json], missing: Mapping[str, J]) -> dict[str, Json]:
        keys, jobs = list(missing), list(missing.values())

        def ended(place: int, result: Json) -> None:
            self._cache.put(keys[place], jobs[place].name, result)
            self._watcher.ended(jobs[place].name, cached=False)

        source = source_hash(function.__module__)
        checked: Callable[[J], Json] = functools.partial(_same_source, function, source)
        return dict(zip(keys, self._executor.map(checked, jobs, ended=ended), strict=True))


def _same_source(function: Callable[[Any], Json], source: str, job: Any) -> Json:
    """``function(job)``, unless this process runs another source than the key was made of."""
    if source_hash(function.__module__) != source:
        raise ScalerError(
            "the worker runs another version of the source than the command: it was changed"
            " meanwhile, or another one is installed there"
        )
    return function(job)
