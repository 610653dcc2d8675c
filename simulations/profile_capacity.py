"""The true capacity of a replica for a mix of lengths: what a thorough benchmark would have found.

A profile-driven peer is handed these numbers.  Each is measured in this simulator by bisection: the
largest rate of Poisson arrivals, with prompts and outputs drawn in pairs from the trace, at which a
fleet of a fixed size attains what is asked for, as a share of what unlimited replicas would attain
(``simulations.attainable``).  Every probe of a bisection draws the same numbers, so that more
load is never luckier.

    profile = profile_for(context)     # for a peer
    profile.replica_requests_per_s     # what one replica of a fleet of four carries
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from scaler.core.config import SloConfig
from scaler.errors import ScenarioError
from simulations.attainable import Objectives, alone, attainable
from simulations.cluster import Fleet
from simulations.controller import Context
from simulations.engine_layout import Records
from simulations.replica import PrefixCache, ReplicaModel, Routing
from simulations.request_ring import RequestStatus
from simulations.streams import generator
from simulations.trace_chunks import Floats, Requests, join

FLEETS = (1, 4, 16)  # sizes that are measured unless fewer are asked for
REFERENCE_FLEET = 4  # the fleet whose share of one replica peers are handed
SAMPLE = 10_000  # requests of the trace whose lengths make the mix
PROBE_S = 1500.0  # of arrivals in one probe
PROBE_REQUESTS = 100_000  # or as many of them, whichever is less
LEAD_RATIO = 0.2  # of a probe, while the fleet fills, is not judged
PRECISION_RATIO = 0.01
RATE_MAX_PER_S = 1e5  # of one replica: nothing that is benchmarked is faster
TAIL_MAX_S = 7200.0  # after the last arrival, where an objective needs requests to end
_CACHE_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a fleet of ``replicas`` carries, and the KV cache in use in each replica then."""

    replicas: int
    requests_per_s: float
    kv_tokens_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A replica's capacity for one mix of lengths.

    ``capacities`` ascend in replicas.  ``prefill_tokens_per_s`` and ``decode_tokens_per_s`` are of
    one replica that does nothing else: outputs of one token, and prompts found in the prefix cache.
    ``velocity_tokens_per_s`` is llm-d's V_P, a full chunk over the TTFT of a prompt of that length
    alone; ``ttft_alone_s`` the median TTFT of the mix alone.
    """

    prompt_tokens_mean: float
    output_tokens_mean: float
    capacities: tuple[Capacity, ...]
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    velocity_tokens_per_s: float
    ttft_alone_s: float

    @property
    def reference(self) -> Capacity:
        """That of ``REFERENCE_FLEET`` replicas.  Raises KeyError if it was not measured."""
        return {capacity.replicas: capacity for capacity in self.capacities}[REFERENCE_FLEET]

    @property
    def replica_requests_per_s(self) -> float:
        """What one replica carries, one of a few: neither alone nor in a crowd."""
        return self.reference.requests_per_s / REFERENCE_FLEET

    def requests_per_s(self, replicas: int) -> float:
        """What each of ``replicas`` carries; between sizes that were measured, linear in log n."""
        sizes = [np.log(capacity.replicas) for capacity in self.capacities]
        each = [capacity.requests_per_s / capacity.replicas for capacity in self.capacities]
        return float(np.interp(np.log(replicas), sizes, each))


def profile_for(context: Context) -> Profile:
    """What a peer is handed: of the run's replica model, mix, objectives and routing.

    Only ``REFERENCE_FLEET`` is measured of the fleets.

    Raises:
        ScenarioError: the run has no requests, or one replica carries none of them in time.
    """
    sample = _sampled(context.requests, until_s=context.until_s)
    return profile(
        context.model,
        sample,
        slo=context.config.slo,
        routing=context.routing,
        fleets=(REFERENCE_FLEET,),
        seed=context.seed,
    )


def profile(
    model: ReplicaModel,
    sample: Requests,
    *,
    slo: SloConfig,
    routing: Routing = Routing.LEAST_REQUESTS,
    fleets: tuple[int, ...] = FLEETS,
    seed: int = 0,
) -> Profile:
    """The profile of ``model`` for the lengths in ``sample``; measured once for equal arguments.

    Raises:
        ScenarioError: ``sample`` is empty, or one replica carries none of it in time.
    """
    if not len(sample):
        raise ScenarioError("a capacity profile needs requests to take lengths from")
    lengths = sample.prompt_tokens.tobytes() + sample.output_tokens.tobytes()
    key = (model, lengths, slo, routing, fleets, seed)
    found = _measured.get(key)
    if found is None:
        bench = _Bench(model=model, sample=sample, slo=slo, routing=routing, seed=seed)
        found = _measure(bench, fleets)
        while len(_measured) >= _CACHE_MAX:
            del _measured[next(iter(_measured))]
        _measured[key] = found
    return found


# Only saves work: equal keys have equal values.
_measured: dict[tuple[object, ...], Profile] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """A benchmark's fixed part."""

    model: ReplicaModel
    sample: Requests
    slo: SloConfig
    routing: Routing
    seed: int

    def target_ratio(self) -> float:
        """What is asked for, as a share of all requests."""
        objectives = Objectives(ttft_s=self.slo.ttft_s, tpot_s=self.slo.tpot_s)
        share = attainable(self.sample, self.model, objectives)
        if not share > 0.0:
            raise ScenarioError(
                f"ttft_s = {self.slo.ttft_s}: no request of the trace meets the objectives alone"
            )
        return self.slo.attainment_target_ratio * share


def _measure(bench: _Bench, fleets: tuple[int, ...]) -> Profile:
    model, sample = bench.model, bench.sample
    capacities = tuple(_capacity(bench, replicas) for replicas in fleets)
    one_token = dataclasses.replace(sample, output_tokens=np.ones_like(sample.output_tokens))
    prompts_only = dataclasses.replace(bench, sample=one_token)
    cached = dataclasses.replace(model, prefix_cache=PrefixCache(hit_ratio=1.0))
    outputs_only = dataclasses.replace(bench, model=cached)
    prompt_tokens = float(sample.prompt_tokens.mean())
    output_tokens = float(sample.output_tokens.mean())
    return Profile(
        prompt_tokens_mean=prompt_tokens,
        output_tokens_mean=output_tokens,
        capacities=capacities,
        prefill_tokens_per_s=_capacity(prompts_only, 1).requests_per_s * prompt_tokens,
        decode_tokens_per_s=_capacity(outputs_only, 1).requests_per_s * output_tokens,
        velocity_tokens_per_s=prefill_velocity(model),
        ttft_alone_s=float(np.median(alone(sample, model).ttft_s)),
    )


def prefill_velocity(model: ReplicaModel) -> float:
    """V_P = chunk / TTFT of a prompt of one chunk, alone (llm-d ``calibrate.sh``)."""
    chunk = min(model.max_num_batched_tokens, model.max_model_len - 1)
    one = Requests(
        arrival_s=np.zeros(1),
        prompt_tokens=np.array([chunk], dtype=np.int32),
        output_tokens=np.ones(1, dtype=np.int32),
        tenant=np.zeros(1, dtype=np.int32),
    )
    bare = dataclasses.replace(model, prefix_cache=PrefixCache())
    return float(chunk / alone(one, bare).ttft_s[0])


def _capacity(bench: _Bench, replicas: int) -> Capacity:
    """The largest rate that holds the target, to ``PRECISION_RATIO``."""
    target = bench.target_ratio()
    low = high = float(replicas)
    if _probe(bench, replicas, high).attained >= target:
        while _probe(bench, replicas, high := 2.0 * low).attained >= target:
            low = high
            if low > RATE_MAX_PER_S * replicas:
                break
    else:
        while _probe(bench, replicas, low := 0.5 * high).attained < target:
            high = low
            if low < 1e-4 * replicas:
                raise ScenarioError("one replica carries none of the trace within the objectives")
    while high > low * (1.0 + PRECISION_RATIO):
        middle = float(np.sqrt(low * high))
        if _probe(bench, replicas, middle).attained >= target:
            low = middle
        else:
            high = middle
    return Capacity(
        replicas=replicas,
        requests_per_s=low,
        kv_tokens_mean=_probe(bench, replicas, low).kv_tokens_mean,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """One rate's outcome."""

    attained: float
    kv_tokens_mean: float


def _probe(bench: _Bench, replicas: int, rate_per_s: float) -> _Probe:
    count = int(min(PROBE_REQUESTS, max(rate_per_s * PROBE_S, 50.0)))
    arrivals = np.cumsum(generator(bench.seed, "profile_gaps").standard_exponential(count))
    arrivals /= rate_per_s
    rows = generator(bench.seed, "profile_rows").integers(len(bench.sample), size=count)
    fleet = Fleet(
        model=bench.model, seed=bench.seed, routing=bench.routing, max_slots=max(replicas, 1)
    )
    fleet.start_warm(replicas)
    fleet.load(
        arrival_at_s=arrivals,
        prompt_tokens=bench.sample.prompt_tokens[rows],
        output_tokens=bench.sample.output_tokens[rows],
    )
    _play(fleet, float(arrivals[-1]), bench.slo)
    outcomes = fleet.all_outcomes()
    judged = outcomes[int(LEAD_RATIO * count) :]
    return _Probe(
        attained=float(np.mean(_good(judged, bench.slo))),
        kv_tokens_mean=_kv_tokens(outcomes, arrivals) / replicas,
    )


def _play(fleet: Fleet, last_s: float, slo: SloConfig) -> None:
    """Until every outcome that counts is known: first tokens, or ends where a TPOT is asked for."""
    fleet.advance(last_s + slo.ttft_s)
    over_s = last_s + TAIL_MAX_S
    while slo.tpot_s > 0.0 and not fleet.idle and fleet.now_s < over_s:
        fleet.advance(min(fleet.now_s + 300.0, over_s))


def _good(outcomes: Records, slo: SloConfig) -> "np.typing.NDArray[np.bool_]":
    """Which requests met the objectives; one that was refused has no first token."""
    ttft_s = outcomes["first_token_at_s"] - outcomes["arrival_at_s"]
    good: np.typing.NDArray[np.bool_] = ttft_s <= slo.ttft_s
    if slo.tpot_s > 0.0:
        gaps = np.maximum(outcomes["output_tokens"] - 1, 1)
        tpot_s = (outcomes["finished_at_s"] - outcomes["first_token_at_s"]) / gaps
        good &= (tpot_s <= slo.tpot_s) & (outcomes["status"] == RequestStatus.COMPLETED)
    return good


def _kv_tokens(outcomes: Records, arrivals: Floats) -> float:
    """Mean context in all caches while requests arrive, the filling at the beginning left out.

    By Little's law: each request that ended held prompt + output / 2 tokens for its time in the
    batch, so that the tokens per second times the time is the mean.
    """
    ended = outcomes["status"] == RequestStatus.COMPLETED
    begin_s, end_s = float(arrivals[int(LEAD_RATIO * arrivals.size)]), float(arrivals[-1])
    started_s = np.clip(outcomes["scheduled_at_s"], begin_s, end_s)
    finished_s = np.where(ended, outcomes["finished_at_s"], end_s)
    held_s = np.clip(finished_s, begin_s, end_s) - started_s
    tokens = outcomes["prompt_tokens"] + 0.5 * outcomes["output_tokens"]
    return float(np.nansum(held_s * tokens) / max(end_s - begin_s, 1e-9))


def _sampled(requests: Iterable[Requests], *, until_s: float | None) -> Requests:
    """Every k-th request, k a power of two, so that up to twice ``SAMPLE`` remain."""
    stride, seen, kept = 1, 0, 0
    held: list[Requests] = []
    for chunk in requests:
        played = chunk if until_s is None else chunk.pick(chunk.arrival_s < until_s)
        part = played.pick(slice(-seen % stride, None, stride))
        seen += len(played)
        held.append(part)
        kept += len(part)
        while kept > 2 * SAMPLE:
            held = [join(held).pick(slice(None, None, 2))]
            stride, kept = 2 * stride, len(held[0])
        if until_s is not None and len(chunk) and chunk.arrival_s[-1] >= until_s:
            break
    return join(held)
