"""Memory layout of the simulated fleet: what the compiled kernel reads and writes.

Everything the kernel touches is in numpy structured arrays, so that one replica, one slot or one
request is one contiguous record.  Requests live in a ring whose length is a power of two: request
``i`` (counted from the first one ever loaded) is at ``i & (length - 1)`` until its outcome has been
taken.
"""

import itertools
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Records: TypeAlias = npt.NDArray[np.void]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

# vLLM's own bucket bounds in seconds (tokens for the last one), as on the metrics page of vLLM 0.32
# and 0.33.
TTFT_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
ITL_BOUNDS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
REQUEST_BOUNDS_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
ITERATION_BOUNDS_TOKENS = (
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
)  # fmt: skip

PARAMS = np.dtype(
    [
        ("decode_base_s", "f8"),
        ("decode_per_seq_s", "f8"),
        ("decode_per_kv_token_s", "f8"),
        ("mixed_base_s", "f8"),
        ("mixed_per_seq_s", "f8"),
        ("mixed_per_kv_token_s", "f8"),
        ("prefill_per_token_s", "f8"),
        ("prefill_attention_s", "f8"),
        ("prefix_hit_ratio", "f8"),
        ("max_num_seqs", "i8"),
        ("max_num_batched_tokens", "i8"),
        ("block_shift", "i8"),  # block_size = 1 << block_shift
        ("blocks_total", "i8"),  # usable ones, the null block apart
        ("watermark_blocks", "i8"),
        ("reserve_full_prompt", "i8"),
        ("requests_queued_max", "i8"),  # running + waiting; 0 is no limit
        ("request_tokens_max", "i8"),
        ("session_cache", "i8"),  # 1: hits only where the session was served before
        ("session_tokens_kept", "i8"),  # computed tokens after which an unused prefix is evicted
        ("routing", "i8"),
        ("gateway_rejects", "i8"),  # 1: no ready replica means a rejection; 0: requests are held
        ("seed", "u8"),
    ],
    align=True,
)

CLOCK = np.dtype(
    [
        ("arrivals_loaded", "i8"),
        ("arrivals_routed", "i8"),
        ("outcomes_taken", "i8"),
        ("gateway_head", "i8"),
        ("gateway_tail", "i8"),
        ("gateway_waiting", "i8"),
        ("gateway_rejections", "i8"),
        ("turn", "i8"),  # round robin
        ("replicas_ready", "i8"),
        ("slots_used", "i8"),
        ("drained_slot", "i8"),  # the replica whose drain ended the last advance, or -1
        ("events", "i8"),
    ],
    align=True,
)

REPLICA = np.dtype(
    [
        ("phase", "i8"),
        ("step", "i8"),  # engine steps finished when the present run or step began
        ("began_at_s", "f8"),  # when it began
        ("run_steps", "i8"),  # decode run: its length in steps
        ("run_counted", "i8"),  # decode run: steps already in the counters
        ("first_step_s", "f8"),  # decode run: duration of its first step
        ("step_growth_s", "f8"),  # decode run: each step is longer than the one before by this
        ("slowness", "f8"),  # factor on every step; above 1 for a sick replica
        ("decoding", "i8"),
        ("running", "i8"),
        ("waiting", "i8"),
        (
            "joining",
            "i8",
        ),  # of the waiting: arrived during the step under way, not yet seen by the scheduler
        ("waiting_head", "i8"),
        ("waiting_tail", "i8"),
        ("waiting_tokens", "i8"),
        ("kv_tokens", "i8"),  # context of the decoding sequences
        ("blocks_used", "i8"),
        ("partial", "i8"),  # slot of the one partly prefilled request, or -1
        ("prefilling", "i8"),  # requests with a chunk in the step under way
        ("newest", "i8"),  # slot admitted last, or -1
        ("draining", "i8"),
        ("uid", "i8"),
        ("busy_since_s", "f8"),
        ("iteration_bucket", "i8"),  # of the last decode run: the next one's is likely the same
        ("itl_bucket", "i8"),
    ],
    align=True,
)

SLOT = np.dtype(
    [
        ("request", "i8"),
        ("context_base", "i8"),  # context now = context_base + steps finished
        ("finish_step", "i8"),
        ("prefill_tokens", "i8"),  # to be in the cache before the next token is made
        ("computed_tokens", "i8"),
        ("chunk_tokens", "i8"),
        ("blocks", "i8"),  # while prefilling
        ("older", "i4"),  # order of admission, a doubly linked list
        ("newer", "i4"),
    ],
    align=True,
)

REQUEST = np.dtype(
    [
        ("arrival_at_s", "f8"),
        ("routed_at_s", "f8"),
        ("scheduled_at_s", "f8"),
        ("first_token_at_s", "f8"),
        ("finished_at_s", "f8"),  # while preempted: when its last token was made
        ("next", "i8"),  # in the queue it waits in
        ("prompt_tokens", "i4"),
        ("output_tokens", "i4"),
        ("session", "i4"),
        ("generated_tokens", "i4"),
        ("cached_tokens", "i4"),
        ("replica_uid", "i4"),
        ("preemptions", "i4"),
        ("status", "i4"),  # wide enough to leave no padding, whose bytes would be anything
    ],
    align=True,
)

COUNTERS = np.dtype(
    [
        ("requests_running", "i8"),  # gauges: as of the last engine step that ended
        ("requests_waiting", "i8"),
        ("blocks_used", "i8"),
        ("busy_s", "f8"),
        ("finished_stop", "i8"),
        ("finished_abort", "i8"),
        ("admission_rejections", "i8"),
        ("preemptions", "i8"),
        ("prompt_tokens", "i8"),
        ("prompt_tokens_cached", "i8"),
        ("prefix_cache_queries", "i8"),
        ("prefix_cache_hits", "i8"),
        ("generation_tokens", "i8"),
        ("iterations", "i8"),
        ("iteration_tokens_sum", "i8"),
        ("prefill_tokens_computed", "i8"),
        ("finished_prompt_tokens", "i8"),
        ("finished_output_tokens", "i8"),
        ("ttft_sum_s", "f8"),
        ("itl_sum_s", "f8"),
        ("e2e_sum_s", "f8"),
        ("queue_sum_s", "f8"),
    ],
    align=True,
)

SESSION = np.dtype([("key", "u8"), ("seen_at_tokens", "i8")], align=True)


METRIC_WORDS = {
    "counters": len(COUNTERS.names or ()),
    "ttft_buckets": len(TTFT_BOUNDS_S) + 1,
    "itl_buckets": len(ITL_BOUNDS_S) + 1,
    "e2e_buckets": len(REQUEST_BOUNDS_S) + 1,
    "queue_buckets": len(REQUEST_BOUNDS_S) + 1,
    "iteration_buckets": len(ITERATION_BOUNDS_TOKENS) + 1,
}
"""What a metrics page is made of, in the order of the memory, and 8-byte words a replica."""

CLOCK_WORDS = len(CLOCK.names or ())
REPLICA_WORDS = sum(METRIC_WORDS.values())
_WORDS_BEFORE = dict(
    zip(METRIC_WORDS, itertools.accumulate(METRIC_WORDS.values(), initial=0), strict=False)
)

assert COUNTERS.itemsize == 8 * METRIC_WORDS["counters"], "every counter is a word"
assert CLOCK.itemsize == 8 * CLOCK_WORDS, "so is every field of the clock"


class State(NamedTuple):
    """All arrays of one fleet.  First axis: replica slot, except where said."""

    params: Records  # one record
    clock: Records  # one record, the beginning of metrics
    requests: Records  # the ring
    replicas: Records
    next_at_s: Floats  # when the run or step under way ends; infinity where idle
    earliest: Ints  # a tournament tree over next_at_s; the winner is entry 1
    requests_held: Ints  # running and waiting, beside the replicas so that a router reads few lines
    ready: Ints  # slots of the ready replicas, the first clock.replicas_ready entries
    slots: Records  # [replica, slot]
    free_slots: Ints  # [replica, slot], a stack: entries from replicas.running on are free
    finish_heap: Ints  # [replica, slot], finish_step << 16 | slot, a binary heap
    block_phase: Ints  # [replica, block_size], decoding sequences by context_base modulo block size
    prefill_slots: Ints  # [replica, slot]
    metrics: Ints  # the memory of the clock and of the six below, so that a scrape is one copy
    counters: Records
    ttft_buckets: (
        Ints  # [replica, bucket], per bucket, not cumulative; the last is above all bounds
    )
    itl_buckets: Ints
    e2e_buckets: Ints
    queue_buckets: Ints
    iteration_buckets: Ints
    ttft_bounds_s: Floats
    itl_bounds_s: Floats
    request_bounds_s: Floats
    iteration_bounds_tokens: Floats
    sessions: Records


def allocate(*, slots: int, ring: int, max_num_seqs: int, block_size: int, sessions: int) -> State:
    """Arrays for ``slots`` replica slots and a ring of ``ring`` requests; parameters still zero."""
    assert ring & (ring - 1) == 0, "the ring's length is a power of two"
    assert slots & (slots - 1) == 0, "so is the number of leaves of the tournament"

    def ints(*shape: int) -> Ints:
        return np.zeros(shape, dtype=np.int64)

    made = State(
        params=np.zeros(1, dtype=PARAMS),
        requests=np.zeros(ring, dtype=REQUEST),
        replicas=np.zeros(slots, dtype=REPLICA),
        next_at_s=np.full(slots, np.inf),
        earliest=ints(2 * slots),
        requests_held=ints(slots),
        ready=ints(slots),
        slots=np.zeros((slots, max_num_seqs), dtype=SLOT),
        free_slots=ints(slots, max_num_seqs),
        finish_heap=ints(slots, max_num_seqs),
        block_phase=ints(slots, block_size),
        prefill_slots=ints(slots, max_num_seqs),
        **allocate_metrics(slots),
        ttft_bounds_s=np.array(TTFT_BOUNDS_S),
        itl_bounds_s=np.array(ITL_BOUNDS_S),
        request_bounds_s=np.array(REQUEST_BOUNDS_S),
        iteration_bounds_tokens=np.array(ITERATION_BOUNDS_TOKENS),
        sessions=np.zeros(sessions, dtype=SESSION),
    )
    made.clock["gateway_head"] = made.clock["gateway_tail"] = -1
    return made


def allocate_metrics(slots: int) -> dict[str, Any]:
    """The clock and the metrics of ``slots`` replicas, by the name of the field of ``State``."""
    whole = np.zeros(CLOCK_WORDS + slots * REPLICA_WORDS, dtype=np.int64)
    made: dict[str, Any] = {name: metric_part(whole, name) for name in METRIC_WORDS}
    made["counters"] = made["counters"].reshape(-1).view(COUNTERS)
    return made | {"metrics": whole, "clock": whole[:CLOCK_WORDS].view(CLOCK)}


def metric_part(metrics: Ints, name: str) -> Ints:
    """One of ``METRIC_WORDS`` in ``State.metrics``, or in a copy of it, as [slot, word]."""
    slots = (metrics.size - CLOCK_WORDS) // REPLICA_WORDS
    words = METRIC_WORDS[name]
    begin = CLOCK_WORDS + slots * _WORDS_BEFORE[name]
    return metrics[begin : begin + slots * words].reshape(slots, words)


# Arrays whose first axis is the replica slot: they grow together, and a slot's part of them is
# cleared when it gets a new replica.
PER_REPLICA = (
    "replicas", "next_at_s", "requests_held", "ready", "slots", "free_slots", "finish_heap",
    "block_phase", "prefill_slots", "counters", "ttft_buckets", "itl_buckets", "e2e_buckets",
    "queue_buckets", "iteration_buckets",
)  # fmt: skip


def grow_slots(state: State) -> State:
    """The same fleet with twice as many replica slots."""
    grown: dict[str, Any] = allocate_metrics(2 * state.next_at_s.shape[0])
    for name in PER_REPLICA:
        old = getattr(state, name)
        if name not in METRIC_WORDS:
            grown[name] = np.zeros((2 * old.shape[0], *old.shape[1:]), dtype=old.dtype)
        grown[name][: old.shape[0]] = old
    grown["clock"][:] = state.clock
    grown["next_at_s"][state.next_at_s.shape[0] :] = np.inf
    grown["earliest"] = np.zeros(2 * state.earliest.shape[0], dtype=np.int64)
    return state._replace(**grown)


def grow_ring(state: State, *, room_for: int) -> State:
    """The same fleet with a request ring that holds at least ``room_for`` requests."""
    clock = state.clock[0]
    old = state.requests
    length = old.shape[0]
    while length < room_for:
        length *= 2
    ring = np.zeros(length, dtype=REQUEST)
    at, end = int(clock["outcomes_taken"]), int(clock["arrivals_loaded"])
    while at < end:  # in stretches that wrap in neither ring
        begin, new = at & (old.shape[0] - 1), at & (length - 1)
        count = min(end - at, old.shape[0] - begin, length - new)
        raw(ring)[new : new + count] = raw(old)[begin : begin + count]
        at += count
    return state._replace(requests=ring)


def clear_slot(state: State, slot: int, *, uid: int, slowness: float) -> None:
    """Make ``slot`` a fresh, idle replica: its counters start at zero, as those of a new pod."""
    for name in PER_REPLICA:
        if name != "ready":
            getattr(state, name)[slot] = 0
    state.next_at_s[slot] = np.inf
    replica = state.replicas[slot]
    replica["uid"] = uid
    replica["slowness"] = slowness
    replica["partial"] = replica["newest"] = -1
    replica["waiting_head"] = replica["waiting_tail"] = -1
    state.free_slots[slot] = np.arange(state.free_slots.shape[1])


def raw(records: Records) -> Records:
    """The same memory without field names: numpy copies it at once instead of field by field."""
    return records.view(np.dtype((np.void, records.dtype.itemsize)))
