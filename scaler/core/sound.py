"""The door of the policy: numbers that no fleet can produce become NoData, and say so.

The shell promises finite numbers.  This keeps the promise to the arithmetic behind it, whatever
comes: one NaN in a smoothed sum would stay there for good, and one 1e300 would hold a target at its
maximum for hours.
"""

import math
from dataclasses import replace
from typing import TypeVar

from scaler.core.model import (
    Cause,
    Gateway,
    Gpu,
    KvCache,
    Latency,
    NoData,
    Observation,
    Queue,
    Replicas,
    Work,
)

AMOUNT_MAX = 1e12  # tokens, requests or seconds in one sample; squares of it stay finite
RATIO_MAX = 1.001  # a rounding above 1; a percentage that was not converted is far beyond
EASY_MAX = 0.5 * AMOUNT_MAX  # amounts whose sum is below are sound, in whatever order it is made
INTERVAL_MIN_S = 1e-3  # a rate over less is noise
COUNT_MIN = 1e-9  # requests or steps: less is a rounding of none, and a mean over it infinite

T = TypeVar("T", Queue, KvCache, Latency, Work, Gpu, Gateway)


def sound(observation: Observation) -> Observation:
    """``observation``, with every signal that cannot be true replaced by NoData and the reason."""
    replicas, queue = _replicas(observation.replicas), _queue(observation.queue)
    kv_cache, work = _kv_cache(observation.kv_cache), _work(observation.work)
    ttft, itl = _latency(observation.ttft), _latency(observation.itl)
    gpu, gateway = _gpu(observation.gpu), _gateway(observation.gateway)
    if (
        replicas is observation.replicas
        and queue is observation.queue
        and kv_cache is observation.kv_cache
        and work is observation.work
        and ttft is observation.ttft
        and itl is observation.itl
        and gpu is observation.gpu
        and gateway is observation.gateway
    ):
        return observation  # nearly always; a copy would cost as much as the checks
    return replace(
        observation,
        replicas=replicas,
        queue=queue,
        kv_cache=kv_cache,
        work=work,
        ttft=ttft,
        itl=itl,
        gpu=gpu,
        gateway=gateway,
    )


def _replicas(replicas: Replicas | NoData) -> Replicas | NoData:
    if isinstance(replicas, NoData):
        return replicas
    least = min(replicas.wanted, replicas.current, replicas.ready)
    if least < 0 or replicas.unschedulable < 0 or replicas.crash_looping < 0:
        return NoData(cause=Cause.MALFORMED, detail="a negative number of replicas")
    if replicas.inferred and replicas.wanted == 0:
        return NoData(cause=Cause.EMPTY, detail="no pod was seen, and none can be counted")
    return replicas


def _queue(queue: Queue | NoData) -> Queue | NoData:
    if isinstance(queue, NoData):
        return queue
    running, waiting = queue.requests_running, queue.requests_waiting
    seen_at_s, deferred = queue.seen_at_s, queue.requests_deferred
    if (
        seen_at_s >= 0.0
        and running >= 0.0
        and waiting >= 0.0
        and deferred >= 0.0
        and seen_at_s + running + waiting + deferred <= EASY_MAX
        and 0.0 <= queue.coverage_ratio <= RATIO_MAX
    ):
        return queue
    amounts = (seen_at_s, running, waiting, deferred)
    return _checked(queue, amounts, ratios=(queue.coverage_ratio,))


def _kv_cache(kv: KvCache | NoData) -> KvCache | NoData:
    if isinstance(kv, NoData):
        return kv
    if (
        kv.seen_at_s >= 0.0
        and kv.capacity_tokens >= 0.0
        and kv.seen_at_s + kv.capacity_tokens <= EASY_MAX
        and 0.0 <= kv.coverage_ratio <= RATIO_MAX
        and 0.0 <= kv.usage_mean_ratio <= RATIO_MAX
        and 0.0 <= kv.usage_max_ratio <= RATIO_MAX
    ):
        return kv
    kv_ratios = (kv.coverage_ratio, kv.usage_mean_ratio, kv.usage_max_ratio)
    return _checked(kv, (kv.seen_at_s, kv.capacity_tokens), ratios=kv_ratios)


def _latency(latency: Latency | NoData) -> Latency | NoData:
    if isinstance(latency, NoData):
        return latency
    bounds_s, counts = latency.bounds_s, latency.counts
    if len(counts) != len(bounds_s) + 1:
        return NoData(cause=Cause.MALFORMED, detail="a histogram without its last bucket")
    if not math.isfinite(sum(bounds_s)):
        return NoData(cause=Cause.NOT_A_NUMBER, detail="a bucket bound that is no finite number")
    if (
        latency.seen_at_s >= 0.0
        and latency.window_s >= 0.0
        and min(counts) >= 0.0
        and latency.seen_at_s + latency.window_s + sum(counts) <= EASY_MAX
        and 0.0 <= latency.coverage_ratio <= RATIO_MAX
    ):
        return latency
    amounts = (latency.seen_at_s, latency.window_s, *counts)
    return _checked(latency, amounts, ratios=(latency.coverage_ratio,))


def _work(work: Work | NoData) -> Work | NoData:
    """The balance of arrivals may be slightly negative; what was counted may not."""
    if isinstance(work, NoData):
        return work
    if 0.0 < work.requests_finished < COUNT_MIN or 0.0 < work.engine_steps < COUNT_MIN:
        return _work(_without_roundings(work))
    if work.interval_s < INTERVAL_MIN_S:
        return NoData(cause=Cause.MALFORMED, detail=f"work of an interval of {work.interval_s} s")
    counted = (
        work.seen_at_s,
        abs(work.requests_arrived),
        work.interval_s,
        work.replica_s,
        work.requests_finished,
        work.requests_rejected,
        work.prompt_tokens,
        work.cached_tokens,
        work.output_tokens,
        work.preemptions,
        work.engine_steps,
        work.finished_prompt_tokens,
        work.finished_output_tokens,
    )
    # Nearly always: one look at each, and the sum finds what is no number.
    if min(counted) >= 0.0 and sum(counted) <= EASY_MAX and 0.0 <= work.coverage_ratio <= RATIO_MAX:
        return work
    return _checked(work, counted, ratios=(work.coverage_ratio,))


def _without_roundings(work: Work) -> Work:
    """Of the counts that means are made over."""
    finished, steps = work.requests_finished, work.engine_steps
    return replace(
        work,
        requests_finished=0.0 if 0.0 < finished < COUNT_MIN else finished,
        engine_steps=0.0 if 0.0 < steps < COUNT_MIN else steps,
    )


def _gpu(gpu: Gpu | NoData) -> Gpu | NoData:
    if isinstance(gpu, NoData):
        return gpu
    if (
        0.0 <= gpu.seen_at_s <= EASY_MAX
        and 0.0 <= gpu.coverage_ratio <= RATIO_MAX
        and 0.0 <= gpu.utilisation_mean_ratio <= RATIO_MAX
        and 0.0 <= gpu.utilisation_max_ratio <= RATIO_MAX
    ):
        return gpu
    gpu_ratios = (gpu.coverage_ratio, gpu.utilisation_mean_ratio, gpu.utilisation_max_ratio)
    return _checked(gpu, (gpu.seen_at_s,), ratios=gpu_ratios)


def _gateway(gateway: Gateway | NoData) -> Gateway | NoData:
    if isinstance(gateway, NoData):
        return gateway
    return _checked(
        gateway, (gateway.seen_at_s, gateway.requests_arrived, gateway.requests_waiting)
    )


def _checked(
    signal: T, amounts: tuple[float, ...], *, ratios: tuple[float, ...] = ()
) -> T | NoData:
    """``signal`` when its amounts are in [0, AMOUNT_MAX], summed, and its ratios in [0, 1].

    Minimum and maximum see a NaN only in some positions; the sum has it wherever it is, and fails
    every comparison.
    """
    total = sum(amounts) + sum(ratios)
    if total <= AMOUNT_MAX and min(amounts) >= 0.0:
        for ratio in ratios:
            if not 0.0 <= ratio <= RATIO_MAX:
                return NoData(cause=Cause.MALFORMED, detail="a ratio outside [0, 1] in the sample")
        return signal
    if not math.isfinite(total):
        return NoData(cause=Cause.NOT_A_NUMBER, detail="NaN or infinity in the sample")
    return NoData(
        cause=Cause.MALFORMED, detail=f"an amount outside [0, {AMOUNT_MAX:g}] in the sample"
    )
