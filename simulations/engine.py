"""The compiled kernel: a fleet of continuously batching replicas, event by event in closed form.

What one replica does is vLLM V1's scheduler (``vllm/v1/core/sched/scheduler.py``,
``kv_cache_manager.py``): every engine step first gives each running request one token, then
continues the one partly prefilled prompt, then admits waiting requests in arrival order while
sequences, token budget and KV blocks last.  If a running request finds no block, the request
admitted last is preempted, waits at the head of the queue and is recomputed; nothing is admitted in
such a step.

Between two events (a finish, an admission, the last free block, an arrival that can be admitted) a
replica does only decode steps.  With S sequences and K tokens of context the i-th of them takes
``decode_base_s + decode_per_seq_s * S + decode_per_kv_token_s * (K + i * S)``, so n steps take ``n
* first_step_s + step_growth_s * n * (n - 1) / 2``: a quadratic that is solved instead of stepped
through.  Which decode step allocates how many blocks is known as well: a sequence needs one
whenever its context is a multiple of the block size, and contexts modulo block size move in step.
A run is anchored where it began and never re-anchored by an observation, so results do not depend
on how often the fleet is looked at.

This module is longer than the others on purpose: numba's cache follows changes of the file of the
function it compiles, so the whole kernel and its constants are in one file.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numba import njit

from simulations.engine_layout import (
    CLOCK_WORDS,
    COUNTERS,
    METRIC_WORDS,
    REPLICA_WORDS,
    Floats,
    Ints,
    State,
    allocate,
    clear_slot,
)

Record: TypeAlias = Any  # one record of a structured array: fields by name, written in place
Int: TypeAlias = Any  # int64 in the compiled code; a type checker cannot see into records
Float: TypeAlias = Any  # float64

IDLE, DECODING, MIXED = 0, 1, 2  # replicas.phase

PENDING, COMPLETED, REJECTED, CUT, TOO_LONG = 0, 1, 2, 3, 4  # requests.status

RANDOM, ROUND_ROBIN, LEAST_REQUESTS, KV_AWARE, SESSION = 0, 1, 2, 3, 4  # params.routing

RUN_STEPS_MAX = 1 << 40
MINUTE_S = 60.0
_NONE = np.empty(0, dtype=np.int64)

SLOT_BITS = 16
SLOT_MASK = (1 << SLOT_BITS) - 1

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile for the CPU and keep the machine code on disk, where a folder for it can be written.

    ``error_model="numpy"`` leaves out checks for division by zero, and inner functions are inlined:
    passing all arrays of ``State`` cost more than most of them do.  ``_nrt=False`` leaves out
    numba's reference counts: the kernel makes no array, and counting references to the arrays of
    ``State`` at every call made it ten times slower.
    """
    compiler: Any = njit  # its type hints leave ``_nrt`` out
    inner = function.__name__.startswith("_")
    options: dict[str, Any] = {"error_model": "numpy", "_nrt": False, "forceinline": inner}
    try:
        made = compiler(cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep it, as in a read-only image without a home
        made = compiler(**options)(function)
    return cast("_Function", made)


class _Direct:
    """A compiled function of a ``State``, called past numba's choice of what it compiled.

    Before every call numba reads the types of two dozen arrays of records, to choose what it has
    compiled for them: 3 us when nothing else runs, 8 us in a run, for an ``advance`` that has
    nothing to do.  ``engine_layout`` makes the arrays of every ``State``, always with the same
    types, so that the first call chooses for all.  Passing the arrays themselves takes 0.3 us.
    """

    __slots__ = ("_call", "_chooser")

    def __init__(self, chooser: Any) -> None:
        self._chooser = chooser
        self._call: Callable[..., Any] = self._first

    def __call__(self, state: State, *given: float) -> Any:
        return self._call(state, *given)

    @property
    def signatures(self) -> list[Any]:
        """The types it was compiled for."""
        found: list[Any] = self._chooser.signatures
        return found

    def _first(self, state: State, *given: float) -> Any:
        done = self._chooser(state, *given)
        (only,) = self._chooser.signatures
        self._call = self._chooser.get_overload(only)
        return done


def compiled_for_state(function: _Function) -> _Function:
    """The same for a function whose first argument is a ``State``."""
    return cast("_Function", _Direct(compiled(function)))


def load_kernel() -> None:
    """Load the compiled code, or compile it (some 20 s, once for each version of this file).

    For callers that measure time; without it the first call of each function does the same.
    """
    state = allocate(slots=1, ring=1, max_num_seqs=1, block_size=1, sessions=1)
    clear_slot(state, 0, uid=0, slowness=1.0)
    advance(state, 0.0)
    release_gateway(state, 0.0)
    cut(state, 0, 0.0)
    count_ended(state)
    append(state.requests, 0, np.empty(0), _NONE, _NONE, _NONE)
    fit(np.empty(0), _NONE, _NONE, 0.0, 0)
    found = np.empty((3, 1), dtype=np.float32)
    tally(state.requests, found, np.zeros(len(TALLIED), dtype=np.int64), 0.0, 0.0)
    count_by_minute(state.requests, np.zeros((2, 1)), 0.0, 0.0)
    sum_metrics(state.metrics, _NONE, np.empty(SUMS, dtype=np.int64))


@compiled_for_state
def advance(state: State, until_s: float) -> float:
    """Run every replica to ``until_s`` (inclusive) or until a draining one is empty.

    Returns the time reached; ``clock.drained_slot`` is the slot of the empty replica, or -1 where
    there was none and all up to ``until_s`` has happened.  Gauges and counters are brought up to
    the time reached.
    """
    clock = state.clock[0]
    requests = state.requests
    mask = requests.shape[0] - 1
    reached_s = until_s
    clock.drained_slot = -1
    tree = state.earliest
    leaves = tree.shape[0] >> 1
    _plant(tree, state.next_at_s)
    while True:
        arrival_at_s = np.inf
        if clock.arrivals_routed < clock.arrivals_loaded:
            arrival_at_s = requests[clock.arrivals_routed & mask].arrival_at_s
        slot = tree[1]
        event_at_s: Float = state.next_at_s[slot]
        if arrival_at_s <= event_at_s:
            if arrival_at_s > until_s:
                break
            index = clock.arrivals_routed
            clock.arrivals_routed = index + 1
            slot = _arrive(state, index, arrival_at_s)
            if slot < 0:
                continue
        else:
            if event_at_s > until_s:
                break
            clock.events += 1
            if _end_step(state, slot, event_at_s):
                reached_s = event_at_s
                clock.drained_slot = slot
                break
        _replay(tree, state.next_at_s, (leaves + slot) >> 1)
    for slot in range(clock.slots_used):
        _observe(state, slot, reached_s)
    return reached_s


@compiled_for_state
def release_gateway(state: State, now_s: float) -> None:
    """Route every request that is held for want of a ready replica, oldest first."""
    clock = state.clock[0]
    mask = state.requests.shape[0] - 1
    while clock.gateway_waiting > 0:
        index = clock.gateway_head
        clock.gateway_head = state.requests[index & mask].next
        clock.gateway_waiting -= 1
        _deliver(state, index, _route(state, index), now_s)


@compiled_for_state
def count_ended(state: State) -> int:
    """Requests that have ended, counted from the first whose outcome was not taken yet."""
    clock = state.clock[0]
    mask = state.requests.shape[0] - 1
    index = clock.outcomes_taken
    while index < clock.arrivals_routed and state.requests[index & mask].status != PENDING:
        index += 1
    return int(index - clock.outcomes_taken)


@compiled_for_state
def cut(state: State, slot: int, now_s: float) -> None:
    """End all that a replica holds at ``now_s``: its requests, running and waiting, are ``CUT``."""
    _observe(state, slot, now_s)
    replica = state.replicas[slot]
    mask = state.requests.shape[0] - 1
    done = replica.step
    if replica.phase == DECODING:
        done += replica.run_counted
    while replica.newest >= 0:
        held = state.slots[slot, replica.newest]
        request = state.requests[held.request & mask]
        if held.finish_step > 0:
            request.generated_tokens = request.output_tokens - (held.finish_step - done)
        _abort(state, slot, held.request, now_s)
        replica.newest = held.older
    while replica.waiting > 0:
        index = replica.waiting_head
        replica.waiting_head = state.requests[index & mask].next
        replica.waiting -= 1
        _abort(state, slot, index, now_s)
    replica.phase = IDLE
    replica.running = 0
    state.requests_held[slot] = 0
    state.next_at_s[slot] = np.inf


@compiled
def _abort(state: State, slot: int, index: int, now_s: float) -> None:
    request = state.requests[index & (state.requests.shape[0] - 1)]
    request.status = CUT
    request.finished_at_s = now_s
    state.counters[slot].finished_abort += 1


# Requests in, outcomes out


@compiled
def append(  # noqa: PLR0917 - the call into compiled code takes no keywords for free
    ring: Record, first: int, arrival_at_s: Floats, prompts: Ints, outputs: Ints, sessions: Ints
) -> None:
    """Write fresh requests into the ring, from number ``first`` on; no sessions are session 0."""
    mask = ring.shape[0] - 1
    for i in range(arrival_at_s.shape[0]):
        request = ring[(first + i) & mask]
        request.arrival_at_s = arrival_at_s[i]
        request.routed_at_s = np.nan
        request.scheduled_at_s = np.nan
        request.first_token_at_s = np.nan
        request.finished_at_s = np.nan
        request.next = 0
        request.prompt_tokens = prompts[i]
        request.output_tokens = outputs[i]
        request.session = sessions[i] if sessions.shape[0] > 0 else 0
        request.generated_tokens = 0
        request.cached_tokens = 0
        request.replica_uid = -1
        request.preemptions = 0
        request.status = PENDING


@compiled
def fit(arrival_at_s: Floats, prompts: Ints, outputs: Ints, last_s: float, tokens_max: int) -> bool:
    """Whether requests ascend from ``last_s``, and their tokens are in [1, ``tokens_max``]."""
    good = True
    for i in range(arrival_at_s.shape[0]):
        good &= last_s <= arrival_at_s[i] < np.inf
        last_s = arrival_at_s[i]
        good &= 1 <= prompts[i] <= tokens_max
        good &= 1 <= outputs[i] <= tokens_max
    return good


TALLIED = ("pending", "completed", "rejected", "cut", "too_long", "good", "ttft", "tpot", "queue")
"""What ``tally`` counts: requests by status, good ones, and values found of each latency."""


@compiled
def tally(outcomes: Record, found: Any, counts: Ints, ttft_slo_s: float, tpot_slo_s: float) -> None:
    """Add outcomes to ``counts`` and put their latencies, without gaps, into the rows of ``found``.

    The rows are TTFT, mean TPOT and time in the queue; an objective of 0 for TPOT is none.
    """
    ttfts, tpots, queues = 0, 0, 0
    for i in range(outcomes.shape[0]):
        request = outcomes[i]
        ttft_s = request.first_token_at_s - request.arrival_at_s
        queue_s = request.scheduled_at_s - request.arrival_at_s
        gaps = request.output_tokens - 1
        tpot_s = 0.0
        counts[request.status] += 1
        if request.status == COMPLETED:
            if gaps > 0:
                tpot_s = (request.finished_at_s - request.first_token_at_s) / gaps
                found[1, tpots] = tpot_s
                tpots += 1
            if ttft_s <= ttft_slo_s and (tpot_slo_s <= 0.0 or tpot_s <= tpot_slo_s):
                counts[5] += 1
        if not math.isnan(ttft_s):
            found[0, ttfts] = ttft_s
            ttfts += 1
        if not math.isnan(queue_s):
            found[2, queues] = queue_s
            queues += 1
    counts[6], counts[7], counts[8] = ttfts, tpots, queues


@compiled
def count_by_minute(outcomes: Record, counts: Any, ttft_slo_s: float, tpot_slo_s: float) -> None:
    """Add outcomes to the columns of ``counts`` by the minute in which they arrived.

    The rows are all requests and the good ones, by the rule of ``tally``.
    """
    for i in range(outcomes.shape[0]):
        request = outcomes[i]
        minute = int(request.arrival_at_s / MINUTE_S)
        counts[0, minute] += 1.0
        ttft_s = request.first_token_at_s - request.arrival_at_s
        if request.status == COMPLETED and ttft_s <= ttft_slo_s:
            gaps = request.output_tokens - 1
            lasted_s = request.finished_at_s - request.first_token_at_s
            if tpot_slo_s <= 0.0 or gaps <= 0 or lasted_s / gaps <= tpot_slo_s:
                counts[1, minute] += 1.0


_COUNTERS, _TTFTS, _ITLS = (
    METRIC_WORDS[name] for name in ("counters", "ttft_buckets", "itl_buckets")
)
SUMS = _COUNTERS + _TTFTS + _ITLS + 1
_BLOCKS_USED = (COUNTERS.names or ()).index("blocks_used")


@compiled
def sum_metrics(metrics: Ints, slots: Ints, found: Ints) -> None:
    """Counters, TTFT and ITL buckets of these slots added up, and the most blocks that one uses.

    ``metrics`` is as in ``State``; sums of counters that are no integers have no meaning.
    """
    capacity = (metrics.shape[0] - CLOCK_WORDS) // REPLICA_WORDS
    found[:] = 0
    for i in range(slots.shape[0]):
        begin, done = CLOCK_WORDS, 0
        most = metrics[begin + slots[i] * _COUNTERS + _BLOCKS_USED]
        found[SUMS - 1] = max(found[SUMS - 1], most)
        for words in (_COUNTERS, _TTFTS, _ITLS):
            row = begin + slots[i] * words
            for word in range(words):
                found[done + word] += metrics[row + word]
            begin += capacity * words
            done += words


# Arrivals and routing


@compiled
def _plant(tree: Ints, next_at_s: Floats) -> None:
    """Play a tournament for the earliest slot: leaf i is slot i, each node the earlier child."""
    leaves = tree.shape[0] >> 1
    for slot in range(leaves):
        tree[leaves + slot] = slot
    for node in range(leaves - 1, 0, -1):
        left, right = tree[2 * node], tree[2 * node + 1]
        tree[node] = left if next_at_s[left] <= next_at_s[right] else right


@compiled
def _replay(tree: Ints, next_at_s: Floats, node: int) -> None:
    """Play again the matches from ``node`` to the root, after the time of a leaf below changed."""
    while node > 0:
        left, right = tree[2 * node], tree[2 * node + 1]
        tree[node] = left if next_at_s[left] <= next_at_s[right] else right
        node >>= 1


@compiled
def _arrive(state: State, index: int, now_s: float) -> Int:
    """Route a request; the slot it went to, or -1 where none is ready."""
    clock = state.clock[0]
    if clock.replicas_ready > 0:
        slot = _route(state, index)
        _deliver(state, index, slot, now_s)
        return slot
    request = state.requests[index & (state.requests.shape[0] - 1)]
    if state.params[0].gateway_rejects:
        request.status = REJECTED
        request.finished_at_s = now_s
        clock.gateway_rejections += 1
        return -1
    request.next = -1
    if clock.gateway_waiting == 0:
        clock.gateway_head = index
    else:
        state.requests[clock.gateway_tail & (state.requests.shape[0] - 1)].next = index
    clock.gateway_tail = index
    clock.gateway_waiting += 1
    return -1


@compiled
def _route(state: State, index: int) -> Int:
    clock = state.clock[0]
    params = state.params[0]
    ready = clock.replicas_ready
    if ready == 1:
        return state.ready[0]
    if params.routing == RANDOM:
        bits = _mix(np.uint64(index) ^ params.seed) >> np.uint64(32)
        return state.ready[np.int64((bits * np.uint64(ready)) >> np.uint64(32))]
    if params.routing == SESSION:
        session = state.requests[index & (state.requests.shape[0] - 1)].session
        return _rendezvous(state, session, ready)
    clock.turn += 1
    start = clock.turn % ready
    if params.routing == ROUND_ROBIN:
        return state.ready[start]
    return _least_loaded(state, start, ready)


@compiled
def _least_loaded(state: State, start: int, ready: int) -> Int:
    """The least loaded ready replica; ties go to the next one in turn."""
    params = state.params[0]
    best: Int = np.int64(1) << np.int64(62)
    for i in range(ready):
        place = start + i
        if place >= ready:
            place -= ready
        slot = state.ready[place]
        load = state.requests_held[slot]
        if params.routing == KV_AWARE:
            replica = state.replicas[slot]
            # Blocks as of its last event, as a router's own scrape would be a little old too.
            load = (replica.blocks_used << params.block_shift) + replica.waiting_tokens
        best = min(best, (load << SLOT_BITS) | i)
    place = start + (best & SLOT_MASK)
    return state.ready[place - ready if place >= ready else place]


@compiled
def _rendezvous(state: State, session: int, ready: int) -> Int:
    """Highest random weight (Thaler and Ravishankar 1998): only sessions of a lost replica move."""
    best = state.ready[0]
    best_weight = np.uint64(0)
    for i in range(ready):
        slot = state.ready[i]
        weight = _mix(_session_key(session, state.replicas[slot].uid))
        if weight >= best_weight:
            best = slot
            best_weight = weight
    return best


@compiled
def _session_key(session: int, uid: int) -> np.uint64:
    return _mix(np.uint64(session)) ^ (np.uint64(uid) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(
        1
    )


@compiled
def _mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): 64 well mixed bits."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _deliver(state: State, index: int, slot: int, now_s: float) -> None:
    """Hand a request to a replica: refuse it, or queue it and end a run under way early for it."""
    params = state.params[0]
    replica = state.replicas[slot]
    request = state.requests[index & (state.requests.shape[0] - 1)]
    request.routed_at_s = now_s
    request.replica_uid = replica.uid
    if request.prompt_tokens + request.output_tokens > params.request_tokens_max:
        request.status = TOO_LONG
        request.finished_at_s = now_s
        return
    if 0 < params.requests_queued_max <= replica.running + replica.waiting:
        request.status = REJECTED
        request.finished_at_s = now_s
        state.counters[slot].admission_rejections += 1
        return
    state.requests_held[slot] += 1
    unblocked = replica.waiting == replica.joining and replica.running < params.max_num_seqs
    _append_waiting(state, replica, index)
    if replica.phase == IDLE:
        replica.busy_since_s = now_s
        _schedule(state, slot, now_s)
    elif replica.phase == MIXED:
        replica.joining += 1
    elif unblocked:
        replica.joining += 1
        if replica.joining == 1:
            replica.run_steps = _steps_until(replica, now_s)
            state.next_at_s[slot] = _run_end_s(replica, replica.run_steps)


@compiled
def _append_waiting(state: State, replica: Record, index: int) -> None:
    mask = state.requests.shape[0] - 1
    request = state.requests[index & mask]
    request.next = -1
    if replica.waiting == 0:
        replica.waiting_head = index
    else:
        state.requests[replica.waiting_tail & mask].next = index
    replica.waiting_tail = index
    replica.waiting += 1
    replica.waiting_tokens += request.prompt_tokens


# The quadratic of a decode run


@compiled
def _run_end_s(replica: Record, steps: int) -> Float:
    return replica.began_at_s + steps * (
        replica.first_step_s + 0.5 * replica.step_growth_s * (steps - 1)
    )


@compiled
def _steps_until(replica: Record, at_s: float) -> Int:
    """The fewest steps (at least 1) after which the run has reached ``at_s``, at most its length.

    The root of ``n * first + growth * n * (n - 1) / 2 = elapsed`` in the form without cancellation,
    then corrected by whole steps until it agrees with ``_run_end_s`` in floating point.
    """
    elapsed_s = at_s - replica.began_at_s
    half = replica.first_step_s - 0.5 * replica.step_growth_s
    root = (
        2.0 * elapsed_s / (half + math.sqrt(half * half + 2.0 * replica.step_growth_s * elapsed_s))
    )
    steps = replica.run_steps
    if root < steps:
        steps = max(1, math.ceil(root))
    while steps < replica.run_steps and _run_end_s(replica, steps) < at_s:
        steps += 1
    while steps > 1 and _run_end_s(replica, steps - 1) >= at_s:
        steps -= 1
    return steps


@compiled
def _blocks_in_run(block_phase: Ints, shift: int, replica: Record, steps: int) -> Int:
    """Blocks that ``steps`` decode steps from the start of the run allocate."""
    mask = block_phase.shape[0] - 1
    blocks = (steps >> shift) * replica.decoding
    for i in range(steps & mask):
        blocks += block_phase[-(replica.step + i) & mask]
    return blocks


@compiled
def _steps_within(block_phase: Ints, shift: int, replica: Record, free: int, steps: int) -> Int:
    """``steps``, or as many as the free blocks last for (the caller has seen that one does)."""
    size = block_phase.shape[0]
    if ((steps >> shift) + 1) * replica.decoding <= free:
        return steps
    rounds = free // replica.decoding
    left = free - rounds * replica.decoding
    lasting = rounds * size
    while lasting < steps:
        left -= block_phase[-(replica.step + lasting) & (size - 1)]
        if left < 0:
            break
        lasting += 1
    return min(lasting, steps)


# One engine step, or a run of them, ends


@compiled
def _end_step(state: State, slot: int, now_s: float) -> bool:
    """Account for what ended and start what comes next.  True if a draining replica is empty."""
    replica = state.replicas[slot]
    if replica.phase == DECODING:
        steps = replica.run_steps
        _count_run(state, slot, steps)
        replica.blocks_used += _blocks_in_run(
            state.block_phase[slot], state.params[0].block_shift, replica, steps
        )
        replica.kv_tokens += steps * replica.decoding
        replica.step += steps
    else:
        _end_mixed_step(state, slot, now_s)
    _finish_requests(state, slot, now_s)
    counters = state.counters[slot]
    counters.requests_running = replica.running
    counters.requests_waiting = replica.waiting - replica.joining
    counters.blocks_used = replica.blocks_used
    _schedule(state, slot, now_s)
    return bool(replica.draining == 1 and replica.phase == IDLE)


@compiled
def _count_run(state: State, slot: int, steps: int) -> None:
    """Bring the counters of a decode run up to its first ``steps`` steps."""
    replica = state.replicas[slot]
    first = replica.run_counted
    fresh = steps - first
    if fresh <= 0:
        return
    replica.run_counted = steps
    sequences = replica.decoding
    counters = state.counters[slot]
    counters.iterations += fresh
    counters.iteration_tokens_sum += fresh * sequences
    counters.generation_tokens += fresh * sequences
    bucket = _bucket_near(state.iteration_bounds_tokens, float(sequences), replica.iteration_bucket)
    replica.iteration_bucket = bucket
    state.iteration_buckets[slot, bucket] += fresh
    counters.itl_sum_s += sequences * (_run_end_s(replica, steps) - _run_end_s(replica, first))
    _count_run_itl(state, slot, first, steps)


@compiled
def _count_run_itl(state: State, slot: int, first: int, steps: int) -> None:
    """Steps ``first`` to ``steps`` by duration, which only grows: one addition a bucket."""
    replica = state.replicas[slot]
    bounds_s = state.itl_bounds_s
    growth_s = replica.step_growth_s
    last_s = replica.first_step_s + growth_s * (steps - 1)
    bucket = _bucket_near(bounds_s, replica.first_step_s + growth_s * first, replica.itl_bucket)
    replica.itl_bucket = bucket
    while bucket < bounds_s.shape[0] and last_s > bounds_s[bucket]:
        beyond = int((bounds_s[bucket] - replica.first_step_s) / growth_s) + 1
        beyond = min(max(beyond, first), steps)
        state.itl_buckets[slot, bucket] += (beyond - first) * replica.decoding
        first = beyond
        bucket += 1
    state.itl_buckets[slot, bucket] += (steps - first) * replica.decoding


@compiled
def _bucket(bounds: Floats, value: float) -> Int:
    """Index of the first bound that is not below ``value``: Prometheus' ``le``."""
    low = 0
    size = bounds.shape[0] + 1
    while size > 1:  # without a branch on the comparison, which nothing could predict
        half = size >> 1
        low += half if bounds[low + half - 1] < value else 0
        size -= half
    return low


@compiled
def _bucket_near(bounds: Floats, value: float, guess: int) -> Int:
    """The same, for values that seldom leave the bucket of the one before."""
    above_low = guess == 0 or bounds[guess - 1] < value
    below_high = guess == bounds.shape[0] or value <= bounds[guess]
    if above_low and below_high:
        return guess
    return _bucket(bounds, value)


@compiled
def _end_mixed_step(state: State, slot: int, now_s: float) -> None:
    """Tokens of the decoding sequences, then the prompts whose last chunk was in this step."""
    replica = state.replicas[slot]
    counters = state.counters[slot]
    step_s = now_s - replica.began_at_s
    sequences = replica.decoding
    if sequences > 0:
        state.itl_buckets[slot, _bucket(state.itl_bounds_s, step_s)] += sequences
        counters.itl_sum_s += sequences * step_s
        counters.generation_tokens += sequences
        replica.kv_tokens += sequences
    replica.step += 1
    replica.partial = -1
    tokens = sequences
    for i in range(replica.prefilling):
        place = state.prefill_slots[slot, i]
        held = state.slots[slot, place]
        held.computed_tokens += held.chunk_tokens
        counters.prefill_tokens_computed += held.chunk_tokens
        if held.computed_tokens < held.prefill_tokens:
            replica.partial = place
        else:
            tokens += _begin_decoding(state, slot, place, now_s)
    if tokens > 0:  # vLLM does not count a step that makes no token
        counters.iterations += 1
        counters.iteration_tokens_sum += tokens
        state.iteration_buckets[slot, _bucket(state.iteration_bounds_tokens, float(tokens))] += 1


@compiled
def _begin_decoding(state: State, slot: int, place: int, now_s: float) -> Int:
    """A prompt is in the cache and made its first token (after a preemption: its next one).

    Returns the tokens vLLM counts for it in this iteration: the one made, and the whole prompt when
    it made its first (computed chunks and recomputed prompts are not counted).
    """
    replica = state.replicas[slot]
    counters = state.counters[slot]
    held = state.slots[slot, place]
    request = state.requests[held.request & (state.requests.shape[0] - 1)]
    counters.generation_tokens += 1
    counted = 1
    if request.generated_tokens == 0:
        counted += request.prompt_tokens
        request.first_token_at_s = now_s
        ttft_s = now_s - request.routed_at_s
        state.ttft_buckets[slot, _bucket(state.ttft_bounds_s, ttft_s)] += 1
        counters.ttft_sum_s += ttft_s
        counters.prompt_tokens += request.prompt_tokens
        counters.prompt_tokens_cached += request.cached_tokens
    else:
        gap_s = now_s - request.finished_at_s
        state.itl_buckets[slot, _bucket(state.itl_bounds_s, gap_s)] += 1
        counters.itl_sum_s += gap_s
    request.generated_tokens += 1
    held.context_base = held.prefill_tokens - replica.step
    held.finish_step = replica.step + request.output_tokens - request.generated_tokens
    size = state.block_phase.shape[1]
    state.block_phase[slot, held.context_base & (size - 1)] += 1
    replica.kv_tokens += held.prefill_tokens
    _heap_push(state.finish_heap[slot], replica.decoding, (held.finish_step << SLOT_BITS) | place)
    replica.decoding += 1
    return counted


@compiled
def _finish_requests(state: State, slot: int, now_s: float) -> None:
    replica = state.replicas[slot]
    counters = state.counters[slot]
    heap = state.finish_heap[slot]
    mask = state.requests.shape[0] - 1
    while replica.decoding > 0 and heap[0] >> SLOT_BITS == replica.step:
        place = heap[0] & SLOT_MASK
        _heap_remove(heap, replica.decoding, 0)
        index = state.slots[slot, place].request
        _leave_batch(state, slot, place)
        state.requests_held[slot] -= 1
        request = state.requests[index & mask]
        request.status = COMPLETED
        request.finished_at_s = now_s
        request.generated_tokens = request.output_tokens
        counters.finished_stop += 1
        counters.finished_prompt_tokens += request.prompt_tokens
        counters.finished_output_tokens += request.output_tokens
        e2e_s = now_s - request.routed_at_s
        queue_s = request.scheduled_at_s - request.routed_at_s
        counters.e2e_sum_s += e2e_s
        counters.queue_sum_s += queue_s
        state.e2e_buckets[slot, _bucket(state.request_bounds_s, e2e_s)] += 1
        state.queue_buckets[slot, _bucket(state.request_bounds_s, queue_s)] += 1


@compiled
def _leave_batch(state: State, slot: int, place: int) -> None:
    """Take a decoding sequence (already out of the heap) out of the batch and free its blocks."""
    replica = state.replicas[slot]
    held = state.slots[slot, place]
    size = state.block_phase.shape[1]
    context = held.context_base + replica.step
    replica.blocks_used -= (context + size - 1) >> state.params[0].block_shift
    replica.kv_tokens -= context
    replica.decoding -= 1
    state.block_phase[slot, held.context_base & (size - 1)] -= 1
    _free_slot(state, slot, place)


@compiled
def _free_slot(state: State, slot: int, place: int) -> None:
    replica = state.replicas[slot]
    held = state.slots[slot, place]
    if held.newer >= 0:
        state.slots[slot, held.newer].older = held.older
    else:
        replica.newest = held.older
    if held.older >= 0:
        state.slots[slot, held.older].newer = held.newer
    held.finish_step = 0
    replica.running -= 1
    state.free_slots[slot, replica.running] = place


# The scheduler: what the next step does


@compiled
def _schedule(state: State, slot: int, now_s: float) -> None:
    """Decide what the replica does from ``now_s`` on: running, partial prompt, then waiting."""
    params = state.params[0]
    replica = state.replicas[slot]
    replica.began_at_s = now_s
    replica.joining = 0
    replica.run_counted = 0
    replica.prefilling = 0
    preempted = _make_room(state, slot, now_s)
    attention = _continue_partial(state, slot)
    if not preempted and replica.waiting > 0 and replica.running < params.max_num_seqs:
        attention += _admit(state, slot, now_s)
    if replica.prefilling > 0:
        _begin_mixed_step(state, slot, attention)
    elif replica.decoding > 0:
        # What a preemption freed may admit a request one step later.
        _begin_run(state, slot, 1 if preempted else RUN_STEPS_MAX)
    else:
        replica.phase = IDLE
        state.next_at_s[slot] = np.inf
        state.counters[slot].busy_s += now_s - replica.busy_since_s


@compiled
def _blocks_next(state: State, slot: int) -> Int:
    """Blocks the decoding sequences need for their next token."""
    replica = state.replicas[slot]
    size = state.block_phase.shape[1]
    return state.block_phase[slot, -replica.step & (size - 1)]


@compiled
def _make_room(state: State, slot: int, now_s: float) -> bool:
    """Preempt from the newest on until the running requests get their blocks.  True if any was."""
    params = state.params[0]
    replica = state.replicas[slot]
    preempted = False
    while True:
        need = _blocks_next(state, slot)
        if replica.partial >= 0:
            held = state.slots[slot, replica.partial]
            need += _partial_blocks(params, replica, held) - held.blocks
        if need <= params.blocks_total - replica.blocks_used:
            return preempted
        _preempt_newest(state, slot, now_s)
        preempted = True


@compiled
def _partial_chunk(params: Record, replica: Record, held: Record) -> Int:
    budget = params.max_num_batched_tokens - replica.decoding
    return min(held.prefill_tokens - held.computed_tokens, budget)


@compiled
def _partial_blocks(params: Record, replica: Record, held: Record) -> Int:
    tokens = held.computed_tokens + _partial_chunk(params, replica, held)
    return (tokens + (1 << params.block_shift) - 1) >> params.block_shift


@compiled
def _preempt_newest(state: State, slot: int, now_s: float) -> None:
    replica = state.replicas[slot]
    place = replica.newest
    held = state.slots[slot, place]
    index = held.request
    request = state.requests[index & (state.requests.shape[0] - 1)]
    if place == replica.partial:
        replica.partial = -1
        replica.blocks_used -= held.blocks
        _free_slot(state, slot, place)
    else:
        request.generated_tokens = request.output_tokens - (held.finish_step - replica.step)
        request.finished_at_s = now_s
        heap = state.finish_heap[slot]
        at = 0
        while heap[at] & SLOT_MASK != place:
            at += 1
        _heap_remove(heap, replica.decoding, at)
        _leave_batch(state, slot, place)
    if replica.waiting == 0:
        replica.waiting_tail = index
    request.next = replica.waiting_head if replica.waiting > 0 else -1
    replica.waiting_head = index
    replica.waiting += 1
    replica.waiting_tokens += request.prompt_tokens
    request.preemptions += 1
    state.counters[slot].preemptions += 1


@compiled
def _continue_partial(state: State, slot: int) -> Float:
    """Schedule the next chunk of the partly prefilled prompt; its attention work in token pairs."""
    replica = state.replicas[slot]
    if replica.partial < 0:
        return 0.0
    params = state.params[0]
    held = state.slots[slot, replica.partial]
    blocks = _partial_blocks(params, replica, held)
    held.chunk_tokens = _partial_chunk(params, replica, held)
    replica.blocks_used += blocks - held.blocks
    held.blocks = blocks
    if held.chunk_tokens == 0:
        return 0.0
    state.prefill_slots[slot, 0] = replica.partial
    replica.prefilling = 1
    return held.chunk_tokens * (held.computed_tokens + 0.5 * held.chunk_tokens)


@compiled
def _admit(state: State, slot: int, now_s: float) -> Float:
    """Admit waiting requests until something runs out; their attention work in token pairs."""
    params = state.params[0]
    replica = state.replicas[slot]
    budget = params.max_num_batched_tokens - replica.decoding
    if replica.prefilling > 0:
        budget -= state.slots[slot, replica.partial].chunk_tokens
    shift = params.block_shift
    round_up = (1 << shift) - 1
    free = params.blocks_total - replica.blocks_used - _blocks_next(state, slot)
    attention = 0.0
    while budget > 0 and replica.waiting > 0 and replica.running < params.max_num_seqs:
        index = replica.waiting_head
        request = state.requests[index & (state.requests.shape[0] - 1)]
        target = np.int64(request.prompt_tokens) + request.generated_tokens
        cached = _cached_tokens(state, slot, request)
        chunk = min(target - cached, budget)
        blocks = (cached + chunk + round_up) >> shift
        required = (target + round_up) >> shift if params.reserve_full_prompt else blocks
        if replica.running > 0:
            required += params.watermark_blocks
        if required > free:
            break
        free -= blocks
        budget -= chunk
        attention += chunk * (cached + 0.5 * chunk)
        _enter_batch(state, slot, now_s)
        held = state.slots[slot, replica.newest]
        held.prefill_tokens = target
        held.computed_tokens = cached
        held.chunk_tokens = chunk
        held.blocks = blocks
        replica.blocks_used += blocks
    return attention


@compiled
def _cached_tokens(state: State, slot: int, request: Record) -> Int:
    """Prompt tokens found in the prefix cache: whole blocks, and never the last token."""
    params = state.params[0]
    if params.prefix_hit_ratio == 0.0:
        return 0
    prompt = np.int64(request.prompt_tokens)
    if params.session_cache and not _session_resident(state, slot, request.session):
        return 0
    hit = min(int(params.prefix_hit_ratio * prompt), prompt - 1)
    return hit >> params.block_shift << params.block_shift


@compiled
def _session_resident(state: State, slot: int, session: int) -> bool:
    """Whether the session's prefix is on this replica: served before, and not evicted since.

    Eviction is least recently used; it is taken to come once ``session_tokens_kept`` other tokens
    were computed.
    """
    key = _session_key(session, state.replicas[slot].uid)
    entry = state.sessions[np.int64(key >> np.uint64(1)) & (state.sessions.shape[0] - 1)]
    written = state.counters[slot].prefill_tokens_computed + state.counters[slot].generation_tokens
    kept = state.params[0].session_tokens_kept
    return bool(entry.key == key and written - entry.seen_at_tokens <= kept)


@compiled
def _touch_session(state: State, slot: int, session: int) -> None:
    key = _session_key(session, state.replicas[slot].uid)
    entry = state.sessions[np.int64(key >> np.uint64(1)) & (state.sessions.shape[0] - 1)]
    entry.key = key
    entry.seen_at_tokens = (
        state.counters[slot].prefill_tokens_computed + state.counters[slot].generation_tokens
    )


@compiled
def _enter_batch(state: State, slot: int, now_s: float) -> None:
    """Move the head of the queue into the batch; it becomes the newest running request."""
    params = state.params[0]
    replica = state.replicas[slot]
    counters = state.counters[slot]
    index = replica.waiting_head
    request = state.requests[index & (state.requests.shape[0] - 1)]
    replica.waiting_head = request.next
    replica.waiting -= 1
    replica.waiting_tokens -= request.prompt_tokens
    place = state.free_slots[slot, replica.running]
    held = state.slots[slot, place]
    held.request = index
    held.older = replica.newest
    held.newer = -1
    if replica.newest >= 0:
        state.slots[slot, replica.newest].newer = place
    replica.newest = place
    replica.running += 1
    state.prefill_slots[slot, replica.prefilling] = place
    replica.prefilling += 1
    if request.preemptions == 0:
        request.scheduled_at_s = now_s
        request.cached_tokens = _cached_tokens(state, slot, request)
        counters.prefix_cache_queries += request.prompt_tokens
        counters.prefix_cache_hits += request.cached_tokens
    if params.session_cache:
        _touch_session(state, slot, request.session)


@compiled
def _begin_mixed_step(state: State, slot: int, attention: float) -> None:
    """One step with prefill chunks in it (``replica.StepTime`` has the formula)."""
    params = state.params[0]
    replica = state.replicas[slot]
    tokens = 0
    for i in range(replica.prefilling):
        tokens += state.slots[slot, state.prefill_slots[slot, i]].chunk_tokens
    step_s = (
        params.mixed_base_s
        + params.mixed_per_seq_s * replica.decoding
        + params.mixed_per_kv_token_s * replica.kv_tokens
        + params.prefill_per_token_s * tokens
        + params.prefill_attention_s * attention
    )
    replica.blocks_used += _blocks_next(state, slot)
    replica.phase = MIXED
    state.next_at_s[slot] = replica.began_at_s + replica.slowness * step_s


@compiled
def _begin_run(state: State, slot: int, steps_max: int) -> None:
    """Decode steps until a finish, until the blocks run out, at most ``steps_max``."""
    params = state.params[0]
    replica = state.replicas[slot]
    replica.first_step_s = replica.slowness * (
        params.decode_base_s
        + params.decode_per_seq_s * replica.decoding
        + params.decode_per_kv_token_s * replica.kv_tokens
    )
    replica.step_growth_s = replica.slowness * params.decode_per_kv_token_s * replica.decoding
    to_finish = (state.finish_heap[slot, 0] >> SLOT_BITS) - replica.step
    free = params.blocks_total - replica.blocks_used
    replica.run_steps = min(
        steps_max,
        _steps_within(state.block_phase[slot], params.block_shift, replica, free, to_finish),
    )
    replica.phase = DECODING
    state.next_at_s[slot] = _run_end_s(replica, replica.run_steps)


@compiled
def _observe(state: State, slot: int, now_s: float) -> None:
    """Bring gauges and counters up to ``now_s`` without disturbing the run under way."""
    replica = state.replicas[slot]
    counters = state.counters[slot]
    if replica.phase == IDLE:
        return
    counters.busy_s += now_s - replica.busy_since_s
    replica.busy_since_s = now_s
    if replica.phase != DECODING:
        return
    steps = _steps_until(replica, now_s)
    if _run_end_s(replica, steps) > now_s:
        steps -= 1
    if steps <= replica.run_counted:
        return
    _count_run(state, slot, steps)
    counters.requests_running = replica.running
    counters.requests_waiting = replica.waiting - replica.joining
    counters.blocks_used = replica.blocks_used + _blocks_in_run(
        state.block_phase[slot], state.params[0].block_shift, replica, steps
    )


# A binary heap of packed integers, in place


@compiled
def _heap_push(heap: Ints, size: int, key: int) -> None:
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if heap[parent] <= key:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = key


@compiled
def _heap_remove(heap: Ints, size: int, at: int) -> None:
    """Remove the entry at ``at`` from a heap of ``size`` entries."""
    key = heap[size - 1]
    end = size - 1
    while True:
        child = 2 * at + 1
        if child >= end:
            break
        if child + 1 < end and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    while at > 0 and heap[(at - 1) >> 1] > key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key
