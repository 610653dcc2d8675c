"""A second engine, slow and obvious: every engine step of every replica, one after the other.

It follows vLLM V1's ``Scheduler.schedule`` line by line, with a list of running requests that is
walked in order, and knows nothing of runs, heaps or closed forms.  The compiled kernel must agree
with it request by request.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from simulations.engine_layout import ITERATION_BOUNDS_TOKENS, ITL_BOUNDS_S, TTFT_BOUNDS_S
from simulations.replica import ReplicaModel, Routing

MASK = (1 << 64) - 1


@dataclass(slots=True)
class Request:
    """One request and what became of it."""

    index: int
    arrival_at_s: float
    prompt: int
    output: int
    session: int = 0
    status: str = "pending"
    routed_at_s: float = math.nan
    scheduled_at_s: float = math.nan
    first_token_at_s: float = math.nan
    finished_at_s: float = math.nan
    last_token_at_s: float = math.nan
    replica_uid: int = -1
    generated: int = 0
    computed: int = 0
    blocks: int = 0
    cached: int = 0
    preemptions: int = 0
    decoding: bool = False

    @property
    def tokens(self) -> int:
        """Prompt and what was generated: what must be in the KV cache before the next token."""
        return self.prompt + self.generated


@dataclass(slots=True)
class Replica:
    """One vLLM server."""

    uid: int
    model: ReplicaModel
    born_at_s: float
    ready_at_s: float
    state: str = "starting"
    grace_over_at_s: float = math.inf
    slowness: float = 1.0
    running: list[Request] = field(default_factory=list)
    waiting: deque[Request] = field(default_factory=deque)
    scheduled: list[tuple[Request, int]] = field(default_factory=list)
    left_waiting: int = 0  # by the last schedule(): what came since is not known to the scheduler
    ended_waiting: int = 0  # those included, at the last step's end
    step_began_at_s: float = 0.0
    step_ends_at_s: float = math.inf
    busy_s: float = 0.0
    sessions: dict[int, int] = field(default_factory=dict)
    iterations: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefill_tokens: int = 0
    preemptions: int = 0
    finished: int = 0
    aborted: int = 0
    rejections: int = 0
    gauges: tuple[int, int, int] = (0, 0, 0)  # running, waiting, blocks at the last step's end
    itl_buckets: list[int] = field(default_factory=lambda: [0] * (len(ITL_BOUNDS_S) + 1))
    iteration_buckets: list[int] = field(
        default_factory=lambda: [0] * (len(ITERATION_BOUNDS_TOKENS) + 1)
    )
    ttft_buckets: list[int] = field(default_factory=lambda: [0] * (len(TTFT_BOUNDS_S) + 1))

    def blocks_for(self, tokens: int) -> int:
        return math.ceil(tokens / self.model.block_size)

    @property
    def blocks_free(self) -> int:
        return self.model.kv_blocks - 1 - sum(r.blocks for r in self.running)

    def cached_tokens(self, request: Request) -> int:
        cache = self.model.prefix_cache
        if cache.per_session:
            written = self.prefill_tokens + self.generation_tokens
            seen = self.sessions.get(request.session)
            if seen is None or written - seen > self.model.kv_capacity_tokens:
                return 0
        hit = min(int(cache.hit_ratio * request.prompt), request.prompt - 1)
        return hit // self.model.block_size * self.model.block_size

    def schedule(self, now_s: float) -> None:
        """vLLM's ``schedule()``: the running requests in order, then the waiting ones."""
        budget = self.model.max_num_batched_tokens
        self.scheduled = []
        preempted = False
        position = 0
        while position < len(self.running) and budget > 0:
            request = self.running[position]
            new = min(request.tokens - request.computed, budget)
            while self.blocks_for(request.computed + new) - request.blocks > self.blocks_free:
                victim = self.running.pop()
                self.preempt(victim)
                preempted = True
                if victim is request:
                    break
            if position >= len(self.running):
                break
            request.blocks = self.blocks_for(request.computed + new)
            self.scheduled.append((request, new))
            budget -= new
            position += 1
        while not preempted and self.waiting and budget > 0:
            if len(self.running) == self.model.max_num_seqs:
                break
            request = self.waiting[0]
            cached = self.cached_tokens(request)
            new = min(request.tokens - cached, budget)
            needed = self.blocks_for(cached + new)
            required = needed
            if self.model.scheduler_reserve_full_isl:
                required = self.blocks_for(request.tokens)
            if self.running:
                required += int(self.model.watermark_ratio * self.model.kv_blocks)
            if required > self.blocks_free:
                break
            self.waiting.popleft()
            self.running.append(request)
            request.computed = cached
            request.blocks = needed
            self.sessions[request.session] = self.prefill_tokens + self.generation_tokens
            if request.preemptions == 0:
                request.scheduled_at_s = now_s
                request.cached = cached
            self.scheduled.append((request, new))
            budget -= new
        self.left_waiting = len(self.waiting)
        self.step_began_at_s = now_s
        self.step_ends_at_s = now_s + self.step_s() if self.scheduled else math.inf

    def preempt(self, victim: Request) -> None:
        victim.blocks = 0
        victim.computed = 0
        victim.decoding = False
        victim.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(victim)

    def step_s(self) -> float:
        """The formula of ``StepTime``, from the list of what is scheduled."""
        step = self.model.step
        decodes = [r for r, _ in self.scheduled if r.decoding]
        prefills = [(r.computed, new) for r, new in self.scheduled if not r.decoding]
        context = sum(r.computed for r in decodes)
        if not prefills:
            total = step.overhead_s + step.decode_base_s
            total += step.decode_per_seq_s * len(decodes) + step.decode_per_kv_token_s * context
            return total * self.slowness
        total = step.overhead_s + step.mixed_base_s
        total += step.mixed_per_seq_s * len(decodes) + step.mixed_per_kv_token_s * context
        total += step.prefill_per_token_s * sum(new for _, new in prefills)
        total += step.prefill_attention_s * sum(new * (old + new / 2) for old, new in prefills)
        return total * self.slowness

    def end_step(self) -> None:
        """vLLM's ``update_from_output()``, then the next ``schedule()``."""
        now_s = self.step_ends_at_s
        generated, prompts = self.generation_tokens, self.prompt_tokens
        self.busy_s += now_s - self.step_began_at_s
        for request, new in self.scheduled:
            request.computed += new
            if not request.decoding:
                self.prefill_tokens += new
            if request.computed == request.tokens:
                self.make_token(request, now_s)
        counted = self.generation_tokens - generated + self.prompt_tokens - prompts
        if counted:
            self.iterations += 1
            count(self.iteration_buckets, ITERATION_BOUNDS_TOKENS, counted)
        self.ended_waiting = len(self.waiting)
        self.gauges = (
            len(self.running),
            self.left_waiting,
            sum(r.blocks for r in self.running),
        )
        self.schedule(now_s)

    def make_token(self, request: Request, now_s: float) -> None:
        request.generated += 1
        request.decoding = True
        self.generation_tokens += 1
        if request.generated == 1:
            request.first_token_at_s = now_s
            self.prompt_tokens += request.prompt
            count(self.ttft_buckets, TTFT_BOUNDS_S, now_s - request.routed_at_s)
        else:
            count(self.itl_buckets, ITL_BOUNDS_S, now_s - request.last_token_at_s)
        request.last_token_at_s = now_s
        if request.generated == request.output:
            request.status = "completed"
            request.finished_at_s = now_s
            self.finished += 1
            self.running.remove(request)

    def cut(self, now_s: float) -> None:
        for request in [*self.running, *self.waiting]:
            request.status = "cut"
            request.finished_at_s = now_s
            self.aborted += 1
        self.running = []
        self.waiting = deque()
        self.step_ends_at_s = math.inf


def count(buckets: list[int], bounds: Sequence[float], value: float) -> None:
    """One observation of a Prometheus histogram, per bucket."""
    buckets[next((i for i, bound in enumerate(bounds) if value <= bound), len(bounds))] += 1


@dataclass(slots=True)
class ReferenceFleet:
    """Replicas behind a router, resized by a schedule of ``(at_s, count)``."""

    model: ReplicaModel
    routing: Routing
    seed_word: int
    start_up_s: float
    gateway_rejects: bool
    replicas: list[Replica] = field(default_factory=list)
    gone: list[Replica] = field(default_factory=list)
    held: deque[Request] = field(default_factory=deque)
    turn: int = 0
    uids: int = 0

    def start_warm(self, count_: int) -> None:
        for _ in range(count_):
            self.create(now_s=0.0, start_up_s=0.0).state = "ready"

    def create(self, *, now_s: float, start_up_s: float) -> Replica:
        replica = Replica(
            uid=self.uids, model=self.model, born_at_s=now_s, ready_at_s=now_s + start_up_s
        )
        self.uids += 1
        self.replicas.append(replica)
        return replica

    def run(
        self, requests: list[Request], resizes: list[tuple[float, int]], until_s: float
    ) -> None:
        """Everything up to and including ``until_s``."""
        arrivals = deque(requests)
        plan = deque(resizes)
        while True:
            arrival_s = arrivals[0].arrival_at_s if arrivals else math.inf
            step_s = min((r.step_ends_at_s for r in self.replicas), default=math.inf)
            resize_s = plan[0][0] if plan else math.inf
            ready_s = min(
                (r.ready_at_s for r in self.replicas if r.state == "starting"), default=math.inf
            )
            grace_s = min((r.grace_over_at_s for r in self.replicas), default=math.inf)
            now_s = min(arrival_s, step_s, resize_s, ready_s, grace_s)
            if now_s > until_s or now_s == math.inf:
                return
            # At one instant: arrivals, then ends of steps, then the life of replicas, then a
            # resize.
            if arrival_s == now_s:
                self.arrive(arrivals.popleft())
            elif step_s == now_s:
                replica = self.in_slot_order(
                    [r for r in self.replicas if r.step_ends_at_s == now_s]
                )[0]
                replica.end_step()
                self.reap()
            elif min(ready_s, grace_s) == now_s:
                self.live(now_s)
            else:
                self.resize(plan.popleft()[1], now_s)

    def in_slot_order(self, replicas: list[Replica]) -> list[Replica]:
        return sorted(replicas, key=lambda r: r.uid)

    def live(self, now_s: float) -> None:
        for replica in list(self.replicas):
            if replica.state == "starting" and replica.ready_at_s == now_s:
                replica.state = "ready"
                while self.held:
                    self.deliver(self.held.popleft(), now_s)
            elif replica.grace_over_at_s == now_s:
                replica.cut(now_s)
                self.reap()

    def reap(self) -> None:
        for replica in list(self.replicas):
            if replica.state == "draining" and not replica.running and not replica.waiting:
                self.replicas.remove(replica)
                self.gone.append(replica)

    def resize(self, wanted: int, now_s: float) -> None:
        alive = [r for r in self.replicas if r.state != "draining"]
        for _ in range(wanted - len(alive)):
            self.create(now_s=now_s, start_up_s=self.start_up_s)
        rank = {"starting": 1, "ready": 2}
        alive.sort(key=lambda r: (rank[r.state], -r.born_at_s, -r.uid))
        for replica in alive[: max(0, len(alive) - wanted)]:
            if replica.state == "starting":
                self.replicas.remove(replica)
            else:
                replica.state = "draining"
                replica.grace_over_at_s = now_s + self.model.drain_grace_s
        self.reap()

    def arrive(self, request: Request) -> None:
        if any(r.state == "ready" for r in self.replicas):
            self.deliver(request, request.arrival_at_s)
        elif self.gateway_rejects:
            request.status = "rejected"
            request.finished_at_s = request.arrival_at_s
        else:
            self.held.append(request)

    def deliver(self, request: Request, now_s: float) -> None:
        replica = self.route(request)
        request.routed_at_s = now_s
        request.replica_uid = replica.uid
        limit = min(self.model.max_model_len, self.model.kv_capacity_tokens)
        if request.prompt + request.output > limit:
            request.status = "too_long"
            request.finished_at_s = now_s
            return
        queued = len(replica.running) + len(replica.waiting)
        if 0 < self.model.max_num_queued_reqs <= queued:
            request.status = "rejected"
            request.finished_at_s = now_s
            replica.rejections += 1
            return
        replica.waiting.append(request)
        if replica.step_ends_at_s == math.inf:
            replica.schedule(now_s)

    def route(self, request: Request) -> Replica:
        ready = [r for r in self.replicas if r.state == "ready"]
        if len(ready) == 1:
            return ready[0]
        match self.routing:
            case Routing.RANDOM:
                return ready[(mix(request.index ^ self.seed_word) >> 32) * len(ready) >> 32]
            case Routing.SESSION:
                return max(ready, key=lambda r: (mix(session_key(request.session, r.uid)), r.uid))
            case Routing.ROUND_ROBIN | Routing.LEAST_REQUESTS:
                self.turn += 1
                start = self.turn % len(ready)
                rotated = ready[start:] + ready[:start]
                if self.routing == Routing.ROUND_ROBIN:
                    return rotated[0]
                return min(rotated, key=lambda r: len(r.running) + len(r.waiting))
            case _:
                raise AssertionError(self.routing)


def mix(value: int) -> int:
    """splitmix64's finaliser."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def session_key(session: int, uid: int) -> int:
    return mix(session) ^ (uid * 0x9E3779B97F4A7C15 & MASK) | 1
