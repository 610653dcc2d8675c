"""A simulated fleet: the life of its replicas around the compiled kernel.

    fleet = Fleet(model=load_replica_model("llama-3.1-70b-h100-tp4"), seed=1)
    fleet.start_warm(2)                        # two replicas that are ready at 0 s
    fleet.load(arrival_at_s=..., prompt_tokens=..., output_tokens=...)
    fleet.advance(15.0)
    fleet.set_replicas(4, now_s=15.0)
    fleet.replica_status(15.0, since_s=0.0)    # what Kubernetes shows
    fleet.counters()                           # what the /metrics pages show
    fleet.take_outcomes()                      # what became of each request

Times are seconds on the scenario's clock and only move forward.  A replica is *pending* until a GPU
is free for it, *starting* (or *crash-looping*) while it holds the GPU and loads, *ready*, then
*draining* until its last request has ended or the grace is over.
"""

import functools
import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from scaler.core.model import Replicas
from simulations import engine, request_ring
from simulations.engine_layout import Records, allocate, clear_slot, grow_slots
from simulations.fleet_counters import FleetCounters
from simulations.fleet_members import Event, FleetStatus, Member, shown
from simulations.gpu_supply import GpuSupply
from simulations.gpu_time import GpuTime
from simulations.lifecycle import (
    GpuPool,
    Phase,
    ReplicaView,
    Usage,
    VictimChoice,
    back_off_s,
    replicaset_choice,
)
from simulations.replica import ReplicaModel, Routing, write_params
from simulations.streams import generator, word

RING_FIRST = 1 << 12
SESSION_TABLE = 1 << 18


class Fleet:
    """All replicas of one deployment, their requests and their GPUs."""

    def __init__(
        self,
        *,
        model: ReplicaModel,
        seed: int,
        routing: Routing = Routing.LEAST_REQUESTS,
        gpus: GpuPool | None = None,
        max_slots: int = 16,
        gateway_rejects: bool = False,
    ) -> None:
        """An empty fleet at 0 s; ``max_slots`` is only where the arrays begin, they grow."""
        self.model = model
        self.now_s = 0.0
        self._seed = seed
        self._reached_s = 0.0  # how far the kernel has run; never beyond now_s
        self._gpus = GpuSupply(gpus or GpuPool(), seed=seed)
        self._crash_ratio: float | None = None
        self._wanted = 0
        self._state = allocate(
            slots=1 << (max_slots - 1).bit_length(),
            ring=RING_FIRST,
            max_num_seqs=model.max_num_seqs,
            block_size=model.block_size,
            sessions=SESSION_TABLE if model.prefix_cache.per_session else 1,
        )
        write_params(model, self._state, routing=routing, seed_word=word(seed, "routing"))
        self._state.params["gateway_rejects"] = gateway_rejects
        self._blocks_usable = int(self._state.params["blocks_total"][0])
        self._next_uid = 0
        self._replicas: dict[int, Member] = {}  # in order of creation; gone ones leave
        self._by_slot: dict[int, Member] = {}
        self._events: list[tuple[float, int, int, int]] = []  # at_s, serial, kind, uid
        self._serial = 0
        self._start_ups: list[tuple[float, float]] = []  # ready_at_s, duration_s
        self._gpu_time = GpuTime()
        self._draining = 0
        self._seen: FleetStatus | None = None  # made anew after every change of a phase

    # Requests

    def load(
        self,
        *,
        arrival_at_s: npt.ArrayLike,
        prompt_tokens: npt.ArrayLike,
        output_tokens: npt.ArrayLike,
        session: npt.ArrayLike | None = None,
    ) -> None:
        """Append requests in order of arrival; none may be earlier than those loaded or than now.

        Raises ScenarioError for unsorted arrivals or token counts below 1.
        """
        self._state = request_ring.append(
            self._state,
            now_s=self.now_s,
            arrival_at_s=np.asarray(arrival_at_s, dtype=np.float64),
            prompt_tokens=np.asarray(prompt_tokens, dtype=np.int64),
            output_tokens=np.asarray(output_tokens, dtype=np.int64),
            session=None if session is None else np.asarray(session, dtype=np.int64),
        )

    def take_outcomes(self) -> Records:
        """The requests that have ended, in order of arrival, up to the first that has not.

        Each is given once, with the fields of ``engine_layout.REQUEST`` and a ``RequestStatus``;
        times that never came are NaN.  Taking them is what keeps memory bounded.
        """
        self._catch_up()
        return request_ring.take_ended(self._state)

    def hand_outcomes(self, take: Callable[[Records], None]) -> None:
        """The same without a copy: ``take`` gets one or two parts, and must not keep them."""
        self._catch_up()
        request_ring.hand_ended(self._state, take)

    def all_outcomes(self) -> Records:
        """Every loaded request whose outcome was not taken, ended or not, in order of arrival."""
        self._catch_up()
        return request_ring.untaken(self._state)

    @property
    def idle(self) -> bool:
        """Whether every loaded request has arrived and ended."""
        self._catch_up()
        clock = self._state.clock[0]
        used = self._state.replicas[: clock["slots_used"]]
        return bool(
            clock["arrivals_routed"] == clock["arrivals_loaded"]
            and clock["gateway_waiting"] == 0
            and not np.any(used["running"] + used["waiting"])
        )

    # Time

    def advance(self, until_s: float) -> None:
        """Let everything happen up to and including ``until_s``."""
        self.pass_time(until_s)
        self._catch_up()

    def pass_time(self, until_s: float) -> None:
        """The same, but requests are served only once somebody looks: looking seldom is cheaper."""
        assert until_s >= self.now_s, "time only moves forward"
        while self._draining or (self._events and self._events[0][0] <= until_s):
            due_s = self._events[0][0] if self._events else np.inf
            self._serve(min(until_s, due_s))
            drained = int(self._state.clock["drained_slot"][0])
            if drained >= 0:
                self._remove(self._by_slot[drained], self.now_s)
            elif due_s <= until_s:
                self._live_through(heapq.heappop(self._events))
            else:
                return
        self.now_s = until_s

    def _catch_up(self) -> None:
        if self._reached_s < self.now_s:
            self._serve(self.now_s)

    def _serve(self, until_s: float) -> None:
        # A whole number would have the kernel compiled again for integers.
        self.now_s = self._reached_s = engine.advance(self._state, float(until_s))

    def _live_through(self, event: tuple[float, int, int, int]) -> None:
        at_s, _, kind, uid = event
        if kind == Event.NODE_READY:
            self._gpus.node_came()
            self._schedule_pending(at_s)
            return
        replica = self._replicas.get(uid)
        if replica is None:
            return
        if kind == Event.STARTED and replica.phase == Phase.STARTING:
            self._end_start(replica, at_s)
        elif kind == Event.RESTART and replica.phase == Phase.CRASH_LOOPING:
            self._enter(replica, Phase.STARTING)
            self._begin_start(replica, at_s, image=False)
        elif kind == Event.GRACE_OVER and replica.phase == Phase.DRAINING:
            engine.cut(self._state, replica.slot, float(at_s))
            self._remove(replica, at_s)

    def _push(self, at_s: float, kind: Event, uid: int) -> None:
        self._serial += 1
        heapq.heappush(self._events, (at_s, self._serial, int(kind), uid))

    # Replicas

    def set_replicas(
        self, count: int, *, now_s: float, victims: VictimChoice = replicaset_choice
    ) -> None:
        """Want ``count`` replicas: create what is missing, or end those that ``victims`` names."""
        assert count >= 0
        assert now_s == self.now_s, "advance the fleet to now_s first"
        self._catch_up()
        self._wanted = count
        alive = [r for r in self._replicas.values() if r.phase != Phase.DRAINING]
        for _ in range(count - len(alive)):
            self._create(now_s)
        excess = len(alive) - count
        if excess > 0:
            for uid in victims([r.view() for r in alive], excess, now_s):
                self._end(self._replicas[uid], now_s)
        self._schedule_pending(now_s)

    def start_warm(self, count: int) -> None:
        """Add ``count`` replicas that are ready at once: how a run begins."""
        self._catch_up()
        self._wanted += count
        for _ in range(count):
            replica = self._create(self.now_s)
            self._take_gpus(replica, self.now_s)
            self._make_ready(replica, self.now_s)

    def slow_down(self, uid: int, factor: float) -> None:
        """Make a serving replica sick: the steps it begins take ``factor`` times as long."""
        self._catch_up()
        self._state.replicas[self._replicas[uid].slot]["slowness"] = factor

    def inject_crashes(self, ratio: float | None) -> None:
        """Let this share of the starts that end from now on fail; None is the model's share."""
        self._crash_ratio = ratio

    def limit_gpus(self, total: int | None, *, now_s: float) -> None:
        """Give no GPU to a new replica beyond ``total``, whatever the pool has; None ends it."""
        self._gpus.limit(total)
        self._schedule_pending(now_s)

    def _create(self, now_s: float) -> Member:
        replica = Member(uid=self._next_uid, created_at_s=now_s)
        self._next_uid += 1
        self._replicas[replica.uid] = replica
        self._seen = None
        return replica

    def _enter(self, replica: Member, phase: Phase) -> None:
        replica.phase = phase
        self._seen = None

    def _schedule_pending(self, now_s: float) -> None:
        """Oldest first, as far as the GPUs go; then ask for nodes for the rest."""
        need = self.model.gpus_per_replica
        pending = [r for r in self._replicas.values() if r.phase == Phase.PENDING]
        for replica in pending:
            if not self._gpus.fits(need):
                break
            self._take_gpus(replica, now_s)
            self._enter(replica, Phase.STARTING)
            self._begin_start(replica, now_s, image=True)
        short = sum(r.phase == Phase.PENDING for r in pending) * need
        for at_s in self._gpus.order_nodes(short=short, now_s=now_s):
            self._push(at_s, Event.NODE_READY, -1)

    def _take_gpus(self, replica: Member, now_s: float) -> None:
        self._gpus.take(self.model.gpus_per_replica)
        replica.scheduled_at_s = now_s
        self._gpu_time.pended(replica.created_at_s, now_s)

    def _begin_start(self, replica: Member, now_s: float, *, image: bool) -> None:
        start = self.model.start_up
        random = generator(self._seed, "start_up", replica.uid, replica.restarts)
        phases = [start.scheduling, start.image, start.weights, start.compile]
        drawn_s = [phase.draw_s(random) for phase in phases]
        if not image:
            drawn_s[0] = drawn_s[1] = 0.0
        self._push(now_s + sum(drawn_s), Event.STARTED, replica.uid)

    def _end_start(self, replica: Member, now_s: float) -> None:
        random = generator(self._seed, "crash", replica.uid, replica.restarts)
        own = self.model.start_up.crash_ratio
        if random.random() < (own if self._crash_ratio is None else self._crash_ratio):
            self._enter(replica, Phase.CRASH_LOOPING)
            self._push(now_s + back_off_s(replica.restarts), Event.RESTART, replica.uid)
            replica.restarts += 1
            return
        self._start_ups.append((now_s, now_s - replica.scheduled_at_s))
        self._make_ready(replica, now_s)

    def _make_ready(self, replica: Member, now_s: float) -> None:
        self._enter(replica, Phase.READY)
        replica.ready_at_s = now_s
        slots = self._state.replicas.shape[0]
        if len(self._by_slot) == slots:
            self._state = grow_slots(self._state)
        slot = next(i for i in range(slots + 1) if i not in self._by_slot)
        replica.slot = slot
        self._by_slot[slot] = replica
        clear_slot(self._state, slot, uid=replica.uid, slowness=1.0)
        clock = self._state.clock[0]
        clock["slots_used"] = max(int(clock["slots_used"]), slot + 1)
        self._list_ready()
        engine.release_gateway(self._state, float(now_s))

    def _list_ready(self) -> None:
        ready = [r.slot for r in self._replicas.values() if r.phase == Phase.READY]
        self._state.ready[: len(ready)] = ready
        self._state.clock["replicas_ready"] = len(ready)

    def _end(self, replica: Member, now_s: float) -> None:
        """Stop a replica: at once while it does not serve, after its drain if it does."""
        if replica.phase != Phase.READY:
            self._remove(replica, now_s)
            return
        self._enter(replica, Phase.DRAINING)
        self._draining += 1
        self._list_ready()
        record = self._state.replicas[replica.slot]
        record["draining"] = 1
        if record["running"] + record["waiting"]:
            self._push(now_s + self.model.drain_grace_s, Event.GRACE_OVER, replica.uid)
        else:
            self._remove(replica, now_s)

    def _remove(self, replica: Member, now_s: float) -> None:
        if replica.phase == Phase.PENDING:
            self._gpu_time.pended(replica.created_at_s, now_s)
        else:
            self._gpu_time.held(replica.scheduled_at_s, now_s)
            self._gpus.give_back(self.model.gpus_per_replica)
        self._draining -= replica.phase == Phase.DRAINING
        self._enter(replica, Phase.GONE)
        del self._replicas[replica.uid]
        if replica.slot >= 0:
            self._state.next_at_s[replica.slot] = np.inf
            self._state.replicas[replica.slot]["draining"] = 0
            del self._by_slot[replica.slot]
        self._schedule_pending(now_s)

    def replica_status(self, now_s: float, *, since_s: float) -> Replicas:
        """What the Kubernetes API shows at ``now_s``.

        Start-up times are of the replicas that became ready after ``since_s``.
        """
        return self.status_at(now_s)(since_s)

    def status_at(
        self, now_s: float, *, replicas_min: int | None = None, replicas_max: int | None = None
    ) -> Callable[[float], Replicas]:
        """``replica_status`` by ``since_s``, for who may not need it; the bounds are as given."""
        return functools.partial(
            shown,
            self._look(),
            self._start_ups,
            now_s=now_s,
            wanted=self._wanted,
            gpus_per_replica=self.model.gpus_per_replica,
            gpus_allocatable=self._gpus.allocatable,
            bounds=(replicas_min, replicas_max),
        )

    @property
    def wanted(self) -> int:
        """spec.replicas."""
        return self._wanted

    @property
    def current(self) -> int:
        """status.replicas."""
        return self._look().current

    @property
    def ready(self) -> tuple[int, ...]:
        """The uids of the replicas that are ready, in order of creation."""
        return self._look().ready

    def replicas(self) -> list[ReplicaView]:
        """Every replica that is not gone, in order of creation."""
        return [r.view() for r in self._replicas.values()]

    def counters(self) -> FleetCounters:
        """The metrics of every replica that serves, as of ``now_s``."""
        self._catch_up()
        return FleetCounters.read(
            self._state,
            at_s=self.now_s,
            serving=self._look().serving,
            kv_blocks_usable=self._blocks_usable,
        )

    def _look(self) -> FleetStatus:
        if self._seen is None:
            self._seen = FleetStatus.of(list(self._replicas.values()))
        return self._seen

    def usage(self, *, until_s: float | None = None) -> Usage:
        """GPU time so far, the replicas that are there included.

        With ``until_s``, when the last request ended, up to that time: what a run costs must not
        depend on how long after it somebody looked.
        """
        end_s = self.now_s if until_s is None else min(until_s, self.now_s)
        members = self._replicas.values()
        return self._gpu_time.usage(members, gpus=self.model.gpus_per_replica, end_s=end_s)
