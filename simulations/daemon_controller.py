"""Our daemon in a run: Observer -> decide -> what it answers -> KEDA and the HPA."""

import dataclasses
from collections.abc import Mapping

from scaler.core.config import PolicyConfig
from scaler.core.model import Decision, Observation, Verdict
from scaler.core.policy import PolicyState, decide
from simulations.actuation import Failure, KedaActuator, Read, Scale, make_answer, make_scale
from simulations.controller import Context, Stopwatch, View
from simulations.fleet_counters import FleetCounters
from simulations.observe import Observer


class DaemonController:
    """Three clocks: the daemon's tick, KEDA's poll, the HPA's sync; at one instant in that order.

    A tick decides and publishes; polls and syncs read what was published last, and may set a count.
    """

    def __init__(self, context: Context) -> None:
        """Starts where ``context.timing`` says."""
        timing, spec = context.timing, context.scaled_object
        self._config: PolicyConfig = context.config
        self._stopwatch: Stopwatch = context.stopwatch
        self._observer = Observer(
            context.model, context.config.freshness, gateway=spec.replicas_min == 0
        )
        self._state = PolicyState()
        self._decision: Decision | None = None
        self._published: Read = Failure.METRICS  # before the first decision the daemon has none
        self._actuator = KedaActuator.of(spec, context.cluster)
        self._keda = dataclasses.replace(
            self._actuator.start(now_s=0.0),
            next_poll_at_s=timing.poll_phase_s,
            next_sync_at_s=timing.sync_phase_s,
        )
        self._next_tick_s = timing.tick_phase_s
        self._ticked_at_s = 0.0
        self.next_at_s = self._first_clock_s()

    @property
    def decision(self) -> Decision | None:
        """The newest one."""
        return self._decision

    def scraped(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None) -> None:
        """The daemon reads what Prometheus has read."""
        self._observer.scrape(counters, gpu_ratio)

    def act(self, view: View) -> int | None:
        """What is due: a tick, else a poll, else a sync."""
        count: int | None = None
        if self._next_tick_s == view.now_s:
            self._next_tick_s += self._config.tick_s
            self._tick(view)
        elif self._keda.next_poll_at_s == view.now_s:
            count = self._poll(view)
        else:
            count = self._sync(view)
        self.next_at_s = self._first_clock_s()
        return count

    def _first_clock_s(self) -> float:
        """When whichever clock is next."""
        return min(self._next_tick_s, self._keda.next_poll_at_s, self._keda.next_sync_at_s)

    def _tick(self, view: View) -> None:
        """Observe, decide, publish."""
        replicas = view.status(self._ticked_at_s)
        self._ticked_at_s = view.now_s
        observation = self._observer.observe(replicas, view.ready, view.now_s, view.failure)
        self._decision = self._decide(observation, view.now_s)
        self._published = _answer(self._decision)

    def _decide(self, observation: Observation, now_s: float) -> Decision:
        began_s = self._stopwatch.clock()
        decision, self._state = decide(observation, self._state, self._config, now_s)
        self._stopwatch.spent_s += self._stopwatch.clock() - began_s
        return decision

    def _poll(self, view: View) -> int:
        polled = self._actuator.poll(
            self._keda, now_s=view.now_s, answer=self._published, scale=_scale(view)
        )
        self._keda = polled.state
        return polled.replicas

    def _sync(self, view: View) -> int:
        synced = self._actuator.hpa_sync(
            self._keda, now_s=view.now_s, answer=self._published, scale=_scale(view)
        )
        self._keda = synced.state
        return synced.replicas


def _scale(view: View) -> Scale:
    return make_scale(
        spec_replicas=view.wanted, status_replicas=view.current, ready_pods=len(view.ready)
    )


def _answer(decision: Decision) -> Read:
    """What the daemon answers from a decision: UNAVAILABLE where nothing may be said."""
    if decision.verdict is Verdict.UNKNOWN:
        return Failure.METRICS
    return make_answer(
        integer=decision.replicas_desired, double=decision.encoded, active=decision.active
    )
