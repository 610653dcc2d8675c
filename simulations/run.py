"""One scenario -> result: the fleet, what is seen of it, and what moves its count.

The loop is a handful of clocks (DCGM collection, scrape, the controller's own, a tick for the
timeline), each with its own period and phase; between two of their times the compiled kernel runs
the fleet.  What decides is a ``Controller``: our daemon through KEDA, a peer, a schedule.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from scaler.core.model import Cause, Decision, Observation, Replicas
from scaler.errors import ScenarioError
from simulations.attained import NONE, Attained, AttainedTally
from simulations.cluster import Fleet
from simulations.controller import Clock, Context, Stopwatch, make_view
from simulations.engine_layout import Records
from simulations.fleet_counters import FleetCounters
from simulations.gpu_exporter import GpuExporter
from simulations.injector import Injector
from simulations.inspection import Inspector, Standing
from simulations.observe import Observer
from simulations.peers import controller_for
from simulations.scenario import Scenario, watched
from simulations.score import CountHistory, ReplicaChange, Score, Tally
from simulations.sessions import SessionStream
from simulations.timeline import Timeline, TimelineWriter
from simulations.trace_chunks import Floats, Requests
from simulations.traces import scale

TAKE_EVERY_S = 60.0  # how often outcomes are taken: what bounds memory
OVERTIME_MAX_S = 30 * 86400.0  # after the last arrival; what has not ended then never will
SLOTS_FIRST = 64
PIECE_REQUESTS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One look of the daemon at the fleet; ``decision`` is None where another policy decides."""

    at_s: float
    arrived: int  # requests so far
    observation: Observation
    decision: Decision | None


Watch: TypeAlias = Callable[[Tick], None]
Loaded: TypeAlias = Callable[[Requests], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of the machine: on the run without its trace and its watcher, and on ``decide``."""

    wall_s: float = 0.0
    decide_wall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run came to.  All but ``spent`` depends on the scenario alone.

    ``attained`` is empty where no timeline was asked for.
    """

    score: Score
    timeline: Timeline
    changes: tuple[ReplicaChange, ...]
    end_s: float
    spent: Spent
    attained: Attained = NONE


def simulate(
    scenario: Scenario,
    *,
    watch: Watch | None = None,
    loaded: Loaded | None = None,
    inspector: Inspector | None = None,
    clock: Clock | None = None,
) -> Result:
    """Run ``scenario`` until its last request has ended, or until ``inspector`` ends it.

    ``watch`` is called with every tick as it comes, ``loaded`` with every chunk of requests as they
    are played; ``clock`` measures what the run takes, without these two and without the trace.

    Raises:
        ScenarioError: the trace has a fault or no request, or requests never end.
    """
    clock = clock or (lambda: 0.0)
    return _Run(scenario, watch=watch, loaded=loaded, inspector=inspector, clock=clock).play()


class _Feed:
    """Loads the trace into the fleet no further than it is needed, and counts what has arrived."""

    def __init__(self, scenario: Scenario, clock: Clock, loaded: Loaded | None) -> None:
        self._chunks: Iterator[Requests] = scale(
            scenario.requests, load_factor=scenario.load_factor, seed=scenario.seed
        )
        self._until_s = scenario.until_s
        self._clock = clock
        self._loaded = loaded
        self._sessions = (
            None
            if scenario.sessions is None
            else SessionStream(scenario.sessions, seed=scenario.seed)
        )
        self._arrivals: deque[Floats] = deque()
        self._chunk: Requests | None = None
        self._begin = 0  # of what is not loaded yet of the chunk
        self._passed = 0
        self._ends = False  # the last chunk was read
        self._loaded_s = -np.inf
        self.exhausted = False
        self.last_s = 0.0
        self.spent_s = 0.0

    def load_until(self, fleet: Fleet, at_s: float) -> None:
        """Load every request that arrives up to ``at_s``."""
        while self._loaded_s <= at_s and not self.exhausted:
            chunk = self._chunk
            if chunk is None:
                self._chunk, self._begin = self._next(), 0
                self.exhausted = self._ends and self._chunk is None
                continue
            piece = slice(self._begin, self._begin + PIECE_REQUESTS)
            arrival_s = chunk.arrival_s[piece]
            fleet.load(
                arrival_at_s=arrival_s,
                prompt_tokens=chunk.prompt_tokens[piece],
                output_tokens=chunk.output_tokens[piece],
                session=None if self._sessions is None else self._sessions.draw(len(arrival_s)),
            )
            self._arrivals.append(arrival_s)
            self._loaded_s = self.last_s = float(arrival_s[-1])
            self._begin = piece.stop
            if self._begin >= len(chunk):
                self._chunk = None

    def _next(self) -> Requests | None:
        """The next chunk, None where there is none or nothing of it is played.

        It is loaded in parts so small that what the kernel works on stays in the processor's cache.
        """
        began_s = self._clock()
        chunk = next(self._chunks, None)
        if chunk is None:
            self._ends = True
        elif self._until_s is not None and chunk.arrival_s[-1] >= self._until_s:
            self._ends = True
            chunk = chunk.pick(chunk.arrival_s < self._until_s)
        if chunk is not None and self._loaded is not None:
            self._loaded(chunk)
        self.spent_s += self._clock() - began_s
        return chunk if chunk is not None and len(chunk) else None

    def arrived(self, at_s: float) -> int:
        """Requests that have arrived up to ``at_s``; times must ascend."""
        while self._arrivals and self._arrivals[0][-1] <= at_s:
            self._passed += len(self._arrivals.popleft())
        if not self._arrivals:
            return self._passed
        return self._passed + int(self._arrivals[0].searchsorted(at_s, side="right"))


class _Run:
    """The state of one run."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        watch: Watch | None,
        loaded: Loaded | None,
        inspector: Inspector | None,
        clock: Clock,
    ) -> None:
        self._scenario = scenario
        self._watch = watch
        self._inspector = inspector
        self._given_up = False
        self._clock = clock
        policy, spec = scenario.policy, scenario.scaled_object
        config = watched(policy.config, spec, scenario.cluster)
        first = policy.replicas_fixed or scenario.replicas_first
        self._fleet = Fleet(
            model=scenario.model,
            seed=scenario.seed,
            routing=scenario.routing,
            gpus=scenario.gpus,
            max_slots=min(max(spec.replicas_max, first), SLOTS_FIRST),
        )
        self._fleet.start_warm(first)
        self._faults = Injector(scenario.faults, self._fleet, seed=scenario.seed)
        self._counts = CountHistory(first)
        self._feed = _Feed(scenario, clock, loaded)
        self._stopwatch = Stopwatch(clock=clock)
        context = Context(
            model=scenario.model,
            config=config,
            scaled_object=spec,
            cluster=scenario.cluster,
            timing=scenario.timing,
            seed=scenario.seed,
            stopwatch=self._stopwatch,
            requests=scenario.requests,
            until_s=scenario.until_s,
            routing=scenario.routing,
        )
        self._controller = controller_for(policy, context)
        self._gpus = GpuExporter()
        self._scraped: FleetCounters | None = None
        self._gpu_ratio: Mapping[int, float] | None = None  # as of the scrape
        self._decision: Decision | None = None
        self._acted_at_s = self._last_tick_s = 0.0
        observer = Observer(scenario.model, config.freshness, gateway=spec.replicas_min == 0)
        self._observer = observer if scenario.timeline or watch is not None else None
        timing = scenario.timing
        self._next_scrape_s = timing.scrape_phase_s
        self._next_dcgm_s = timing.dcgm_phase_s
        self._next_tick_s = timing.tick_phase_s
        self._tick_every_s = config.tick_s
        self._next_take_s = TAKE_EVERY_S
        objectives = {"ttft_slo_s": config.slo.ttft_s, "tpot_slo_s": config.slo.tpot_s}
        self._tally = Tally(**objectives)
        self._attained = AttainedTally(**objectives) if scenario.timeline else None
        self._timeline = TimelineWriter(policy.name.partition(":")[0])
        self._watch_s = 0.0

    def play(self) -> Result:
        """Run to the end."""
        began_s = self._clock()
        while not self._ended():
            self._turn()
        fleet = self._fleet
        self._take_outcomes()
        if self._tally.ended == 0:
            raise ScenarioError("the trace has no request in the time that is played")
        usage = fleet.usage(until_s=self._tally.last_ended_s)
        score = self._tally.score(usage, self._counts, end_s=fleet.now_s)
        wall_s = self._clock() - began_s - self._feed.spent_s - self._watch_s
        return Result(
            score=score,
            timeline=self._timeline.timeline(),
            changes=tuple(self._counts.changes),
            end_s=fleet.now_s,
            spent=Spent(wall_s=wall_s, decide_wall_s=self._stopwatch.spent_s),
            attained=NONE if self._attained is None else self._attained.attained(),
        )

    def _take_outcomes(self) -> None:
        def take(outcomes: Records) -> None:
            self._tally.add(outcomes)
            if self._attained is not None:
                self._attained.add(outcomes)
            if self._inspector is not None:
                self._inspector.ended(outcomes)

        self._fleet.hand_outcomes(take)

    def _ended(self) -> bool:
        if self._given_up:
            return True
        if not self._feed.exhausted:
            return False
        if self._fleet.now_s >= self._feed.last_s and self._fleet.idle:
            return True
        if self._fleet.now_s - self._feed.last_s > OVERTIME_MAX_S:
            raise ScenarioError(
                f"requests still wait {OVERTIME_MAX_S / 86400.0:.0f} days after the last arrival:"
                f" {self._counts.now} replicas never carry this load"
            )
        return False

    def _turn(self) -> None:
        """Whatever is due next; of things due at once, in the order in which they are told."""
        acts_s = self._controller.next_at_s
        fault_s, dcgm_s, scrape_s = self._faults.next_at_s, self._next_dcgm_s, self._next_scrape_s
        due_s = min(fault_s, dcgm_s, scrape_s, acts_s, self._next_tick_s)
        self._feed.load_until(self._fleet, due_s)
        self._fleet.pass_time(due_s)
        if fault_s == due_s:
            self._faults.act(due_s)
        elif dcgm_s == due_s:
            self._next_dcgm_s += self._scenario.timing.dcgm_every_s
            self._gpus.collect(self._fleet.counters())
        elif scrape_s == due_s:
            self._next_scrape_s += self._scenario.timing.scrape_every_s
            self._scrape()
        elif acts_s == due_s:
            self._act(due_s)
        else:
            self._next_tick_s += self._tick_every_s
            self._tick(due_s)

    def _scrape(self) -> None:
        counters, gpu_ratio = self._faults.scraped(self._fleet.counters()), self._gpus.ratio
        if counters is None:
            return
        self._scraped, self._gpu_ratio = counters, gpu_ratio
        self._controller.scraped(counters, gpu_ratio)
        if self._observer is not None:
            self._observer.scrape(counters, gpu_ratio)

    def _act(self, now_s: float) -> None:
        failure = self._faults.failure(now_s)
        down = failure is not None and failure.cause is Cause.UNREACHABLE
        view = make_view(
            now_s=now_s,
            acted_at_s=self._acted_at_s,
            wanted=self._fleet.wanted,
            current=self._fleet.current,
            ready=self._fleet.ready,
            status=self._status(now_s),
            scrape=None if down else self._scraped,
            gpu_ratio=None if down else self._gpu_ratio,
            live=self._fleet.counters,
            failure=failure,
        )
        self._acted_at_s = now_s
        count = self._controller.act(view)
        decision = self._controller.decision
        if decision is not None and decision is not self._decision:
            self._decision = decision
            self._observer = None  # a controller that decides on observations makes its own
            self._keep(decision.observation, decision)
        if count is not None and self._counts.set(count, now_s):
            self._fleet.set_replicas(count, now_s=now_s, victims=self._scenario.victims.choice)

    def _tick(self, now_s: float) -> None:
        """Take outcomes; look as the daemon would where it does not run itself."""
        if self._observer is not None:
            replicas = self._status(now_s)(self._last_tick_s)
            failure = self._faults.failure(now_s)
            observation = self._observer.observe(replicas, self._fleet.ready, now_s, failure)
            self._keep(observation, None)
        self._last_tick_s = now_s
        if now_s >= self._next_take_s:
            self._next_take_s = now_s + TAKE_EVERY_S
            self._take_outcomes()
        if self._inspector is not None and now_s >= self._inspector.next_at_s:
            self._inspect(self._inspector, now_s)

    def _inspect(self, inspector: Inspector, now_s: float) -> None:
        self._take_outcomes()
        hours, changes = self._fleet.usage().gpu_hours, self._counts.changes
        standing = Standing(at_s=now_s, gpu_hours=hours, changes=changes)
        self._given_up = not inspector.look(standing)

    def _status(self, now_s: float) -> Callable[[float], Replicas]:
        """What the Kubernetes API shows now, by the time since which start-ups are told."""
        spec = self._scenario.scaled_object
        return self._fleet.status_at(
            now_s, replicas_min=spec.replicas_min, replicas_max=spec.replicas_max
        )

    def _keep(self, observation: Observation, decision: Decision | None) -> None:
        """Write a row, and tell the watcher."""
        if not self._scenario.timeline and self._watch is None:
            return
        now_s = observation.seen_at_s
        arrived = self._feed.arrived(now_s)
        if self._scenario.timeline:
            self._timeline.add(
                observation,
                decision,
                arrived=arrived,
                wanted=self._counts.now,
                faults=self._faults.names(now_s),
            )
        if self._watch is not None:
            began_s = self._clock()
            self._watch(
                Tick(at_s=now_s, arrived=arrived, observation=observation, decision=decision)
            )
            self._watch_s += self._clock() - began_s
