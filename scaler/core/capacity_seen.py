"""What one observation tells of a replica's capacity, each part with what it remembers.

Everything is per replica and smoothed no more than its use asks for: the balance of an interval for
``capacity_steps``, the length of contexts, the largest step seen, and how far the TTFT tail lies
from the law of ``capacity_share``.
"""

import math
from dataclasses import dataclass

from scaler.core.capacity_share import Batch, seen_stretch
from scaler.core.capacity_steps import Sample, make_sample
from scaler.core.config import CapacityConfig
from scaler.core.made import maker
from scaler.core.model import KvCache, Latency, NoData, Observation, Queue, Work
from scaler.core.window import decay, within

LIMITS_PART = 0.4  # of the correction limit, for limits and contexts; the rest is for step times
CALM_SAMPLES = 8  # two minutes: what an overload left behind has gone from the histogram
TAIL_SAMPLES = (CALM_SAMPLES - 2, CALM_SAMPLES)  # after so many calm ones the tail is looked at
SEQUENCES_MIN = 8.0  # an objective that allows fewer is met by no count of replicas

_GAUGE_AGE_INTERVALS = 2.0  # an older reading of the gauge says nothing of this interval
_TOKENS_PER_REQUEST_MIN = 8.0  # below it decode is not what a request spends its time on
_TOKENS_MIN = 20.0  # of output in one interval
_SIGMA_MAX = 2.0  # a sample with more doubt than this teaches nothing
_GAUGE_SIGMA = 0.15  # of steps that are reckoned from the running gauge
_IDLE_SIGMA = 1.5  # relative to the idle share, which is an estimate
_SPARSE_SIGMA = 0.15  # of a replica that has few sequences, however busy it seems
_UNLIKE_SIGMA = 3.0  # if all replicas were fresh, or all requests preempted
_BUSY_MIN = 0.05
_ALWAYS_BUSY = 8.0  # sequences a step: exp(-8) of the time idle
_CONTEXT_FACTOR_MAX = 4.0
_KV_FULL = 0.9
_STILL = 0.02  # relative: finished sequences are replaced a step later
_STILL_SAMPLES = 4
_MIX_S = 120.0  # of contexts and tokens of a step
_RATE_S = 60.0  # of the rates against which latencies are held: their window
_CALM_LOAD = 0.9
_STRETCH_PRIOR = 10.0  # late requests that weigh as much as the prior
_STRETCH_WEIGHT_MAX = 300.0  # late requests that are remembered
_STRETCH_WINDOW_MAX = 15.0  # of them in one window: they waited together, which is one event
_STRETCH_MAX = 5.0
_STRETCH_STEP = 0.1
_WINDOW_SAMPLES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """KV tokens of a running sequence, recent means.

    ``seen`` in the KV cache, ``named`` by the lengths of what finished (prompt and half the
    output), 0 while unknown.  ``factor`` is the first over the second, and follows it by a bounded
    share: long requests run longer, so it is mostly above 1.
    """

    seen: float = 0.0
    named: float = 0.0
    factor: float = 1.0


make_context = maker(Context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a step of one replica was seen to hold; 0 while nothing was."""

    sequences: float = 0.0
    step_tokens: float = 0.0
    step_tokens_mean: float = 0.0
    still_samples: int = 0  # in a row in which the batch stood still under a queue


make_limits = maker(Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Recent mean rates of one replica, and for how many samples it has had room to spare."""

    requests_per_s: float = 0.0
    prompt_per_s: float = 0.0
    output_per_s: float = 0.0
    calm_samples: int = 0


make_flow = maker(Flow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """How much longer the TTFT tail is than the law's, as a logarithm; ``weight`` late requests."""

    log: float = 0.0
    weight: float = 0.0


make_stretch = maker(Stretch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Readings of the last sample, for what lies between two."""

    seen_at_s: float | None = None
    running: float = 0.0
    waiting: float = 0.0
    ready: int = 0


make_gauges = maker(Gauges)


def see_context(
    work: Work,
    queue: Queue,
    kv: KvCache | NoData,
    before: Context,
    config: CapacityConfig,
    *,
    kv_capacity_tokens: float,
) -> Context:
    """The contexts after one observation."""
    fresh = 1.0 - decay(work.interval_s, _MIX_S)
    named, seen, factor = before.named, before.seen, before.factor
    lengths = work.finished_prompt_tokens + 0.5 * work.finished_output_tokens
    if work.requests_finished > 0.0 and lengths > 0.0:
        mean = lengths / work.requests_finished
        named += (fresh if named > 0.0 else 1.0) * (mean - named)
    count, running = work.replica_s / work.interval_s, queue.requests_running
    if not isinstance(kv, NoData) and running >= count and running >= 1.0:
        mean = kv.usage_mean_ratio * kv_capacity_tokens * count / running
        seen += (fresh if seen > 0.0 else 1.0) * (mean - seen)
        if named > 0.0 and seen > 0.0:
            most = _most(config)
            target = within(seen / named, 1.0 / _CONTEXT_FACTOR_MAX, _CONTEXT_FACTOR_MAX)
            factor = within(target, factor / most, factor * most)
    return make_context(seen=seen, named=named, factor=factor)


def _most(config: CapacityConfig) -> float:
    """The factor by which one observation moves a limit or a context at most."""
    most: float = (1.0 + config.correction_max_ratio) ** LIMITS_PART
    return most


def see_limits(
    work: Work,
    queue: Queue,
    kv: KvCache | NoData,
    before: Limits,
    config: CapacityConfig,
    *,
    gauges: Gauges,
) -> Limits:
    """The limits after one observation.

    A batch that stands still while requests wait and the KV cache has room is at its limit; one
    that is larger than the limit believed in shows that it is none.  Tokens of a step can only be
    seen to be more.
    """
    believed = before.sequences or config.sequences_max
    held = queue.requests_running * work.interval_s / max(work.replica_s, work.interval_s)
    still = (
        held >= SEQUENCES_MIN
        and min(queue.requests_waiting, gauges.waiting) * held > queue.requests_running
        and abs(queue.requests_running - gauges.running) <= _STILL * queue.requests_running
        and (isinstance(kv, NoData) or kv.usage_mean_ratio < _KV_FULL)
    )
    samples = min(before.still_samples + 1, _STILL_SAMPLES) if still else 0
    sequences, tokens, mean = before.sequences, before.step_tokens, before.step_tokens_mean
    if held > believed or samples >= _STILL_SAMPLES:
        most = _most(config)
        sequences = within(held, believed / most, believed * most)
    if work.engine_steps > 0.0 and work.output_tokens > 2.0 * work.engine_steps:
        seen = (work.prompt_tokens + work.output_tokens) / work.engine_steps
        mean += (1.0 - decay(work.interval_s, _MIX_S)) * (seen - mean)
        known = max(tokens, config.step_tokens_max)
        if mean > known:
            tokens = min(mean, known * _most(config))
    return make_limits(
        sequences=sequences, step_tokens=tokens, step_tokens_mean=mean, still_samples=samples
    )


def see_sample(observation: Observation, gauges: Gauges, *, context: float) -> Sample | None:
    """The interval's balance, per second of one replica; None when it says nothing.

    Replicas that have just begun to serve, and preempted requests, which are computed twice, add
    their share to the doubt.
    """
    work, queue, replicas = observation.work, observation.queue, observation.replicas
    assert not isinstance(work, NoData)
    assert not isinstance(queue, NoData)
    if isinstance(replicas, NoData) or work.replica_s < 1.0:
        return None
    ready, finished, replica_s = replicas.ready, work.requests_finished, work.replica_s
    fresh = max(ready - gauges.ready, len(replicas.start_up_s), 0)
    unlike = fresh / max(ready, 1) + work.preemptions / max(finished, 1.0)
    sigma = _UNLIKE_SIGMA * unlike
    running = 0.5 * (gauges.running + queue.requests_running) * work.interval_s / replica_s
    steps, output = work.engine_steps, work.output_tokens
    least = max(_TOKENS_PER_REQUEST_MIN * finished, _TOKENS_MIN)
    if output < least:  # prefill is what these replicas do
        gpu = observation.gpu
        busy = min(running, 1.0) if isinstance(gpu, NoData) else gpu.utilisation_mean_ratio
        steps = steps or output
        sigma += _GAUGE_SIGMA if work.prompt_tokens > 0.0 else math.inf
    elif steps > 0.0:
        busy, doubt = _busy(work, observation)
        sigma += doubt
    elif _is_recent(gauges, work) and running > 0.0:
        busy = 1.0 - math.exp(-running)
        steps = output * busy / running
        sigma += _GAUGE_SIGMA + _IDLE_SIGMA * (1.0 - busy)
    else:
        return None
    if busy < _BUSY_MIN or sigma > _SIGMA_MAX:
        return None
    return make_sample(
        busy_ratio=min(busy, 1.0),
        steps_per_s=steps / replica_s,
        output_per_s=output / replica_s,
        context_per_s=output * context / replica_s,
        prompt_per_s=work.prompt_tokens / replica_s,
        interval_s=work.interval_s,
        sigma=sigma,
    )


def _is_recent(gauges: Gauges, work: Work) -> bool:
    age_s = math.inf if gauges.seen_at_s is None else work.seen_at_s - gauges.seen_at_s
    return age_s <= _GAUGE_AGE_INTERVALS * work.interval_s


def _busy(work: Work, observation: Observation) -> tuple[float, float]:
    """The share of time that counted steps filled, and its relative doubt.

    Plain where each step has many tokens.  Else it is steps times the mean gap between tokens,
    which is a step's length up to the width of a bucket, and what DCGM shows, which is right on
    average but of another interval: their geometric mean, or either, and not below what chance
    would make of so small a batch.  The doubt is larger than the scatter, because the same error
    comes again and again.
    """
    batch = work.output_tokens / work.engine_steps
    if batch >= _ALWAYS_BUSY:
        return 1.0, 0.0
    itl, gpu = observation.itl, observation.gpu
    step_s = 0.0 if isinstance(itl, NoData) else _mean_s(itl)
    chance = busy_ratio(batch)
    busy = min(work.engine_steps * step_s / work.replica_s, 1.0) or chance
    apart = 0.0
    if not isinstance(gpu, NoData) and gpu.utilisation_mean_ratio > 0.0:
        seen = min(gpu.utilisation_mean_ratio, 1.0)
        apart = abs(math.log(seen / max(busy, _BUSY_MIN)))
        busy = math.sqrt(seen * busy)
    busy = max(busy, chance)
    unsure = _SPARSE_SIGMA * (1.0 - batch / _ALWAYS_BUSY)
    return busy, _IDLE_SIGMA * (1.0 - busy) + 0.5 * apart + unsure


def _mean_s(latency: Latency) -> float:
    """Mean of a histogram, each bucket at the geometric mean of its bounds."""
    total, bounds_s, counts = latency.total, latency.bounds_s, latency.counts
    if total <= 0.0 or not bounds_s:
        return 0.0
    sum_s = 0.5 * counts[0] * bounds_s[0] + counts[-1] * bounds_s[-1]
    for place in range(1, len(bounds_s)):
        if counts[place] > 0.0:
            sum_s += counts[place] * math.sqrt(bounds_s[place - 1] * bounds_s[place])
    return sum_s / total


def busy_ratio(sequences_per_step: float) -> float:
    """Share of time in which a replica steps, from the mean batch of its steps.

    With requests coming at random and few of them, their number is Poisson with some mean m (an
    M/G/infinity queue), the replica idles with exp(-m), and the mean batch of its steps is m / (1 -
    exp(-m)).  One Newton step from a start that is good to a few percent.
    """
    if sequences_per_step >= _ALWAYS_BUSY:
        return 1.0
    batch = max(sequences_per_step, 1.0)
    busy = 1.0 - math.exp(-1.8 * (batch - 1.0))
    idle = math.exp(-batch * busy)
    return busy + (1.0 - idle - busy) / max(1.0 - batch * idle, 0.1)


def see_flow(work: Work, before: Flow, *, calm: bool) -> Flow:
    """The rates after one observation; ``calm`` says whether they left room to spare."""
    interval_s = work.interval_s
    kept = decay(interval_s, _RATE_S) if before.requests_per_s > 0.0 else 0.0
    per_s = (1.0 - kept) / max(work.replica_s, interval_s)
    return make_flow(
        requests_per_s=kept * before.requests_per_s + per_s * max(work.requests_arrived, 0.0),
        prompt_per_s=kept * before.prompt_per_s + per_s * work.prompt_tokens,
        output_per_s=kept * before.output_per_s + per_s * work.output_tokens,
        calm_samples=_next_calm(before.calm_samples) if calm else 0,
    )


def _next_calm(samples: int) -> int:
    """Counts up to ``CALM_SAMPLES``, then again from one window before it."""
    return samples + 1 if samples < CALM_SAMPLES else CALM_SAMPLES - _WINDOW_SAMPLES + 1


def is_calm(work: Work, queue: Queue, batch: Batch, flow: Flow) -> bool:
    """Whether the replicas have room to spare, so that latencies belong to the rate of now."""
    count = max(work.replica_s / work.interval_s, 1.0)
    spare = flow.requests_per_s * batch.saturated_cost_s < _CALM_LOAD
    queued = queue.requests_waiting <= count * max(flow.requests_per_s, 1.0)
    return spare and queued and work.preemptions <= 0.0


def see_stretch(
    observation: Observation, batch: Batch, flow: Flow, before: Stretch, *, gain: float
) -> Stretch:
    """The stretch after one histogram, moved by the share that its late requests have of all.

    Each window is looked at once, at the end of ``CALM_SAMPLES`` calm samples.
    """
    work, ttft = observation.work, observation.ttft
    assert not isinstance(work, NoData)
    if flow.calm_samples < CALM_SAMPLES or isinstance(ttft, NoData):
        return before
    together = max(work.replica_s / work.interval_s, 1.0) ** gain
    found = seen_stretch(batch, flow.requests_per_s, ttft, waiting_replicas=together)
    if found is None:
        return before
    target = math.log(within(found.stretch, 1.0, _STRETCH_MAX))
    late = min(found.late, _STRETCH_WINDOW_MAX)
    step = (target - before.log) * late / (before.weight + late + _STRETCH_PRIOR)
    return make_stretch(
        log=before.log + within(step, -_STRETCH_STEP, _STRETCH_STEP),
        weight=min(before.weight + late, _STRETCH_WEIGHT_MAX),
    )
