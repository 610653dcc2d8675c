"""NVIDIA Dynamo's planner for engines that prefill and decode: a load loop over a predicted floor.

Follows ``components/src/dynamo/planner/core`` (ai-dynamo/dynamo, August 2026), mode ``agg``:
``throughput_scaling.py`` every 180 s, ``load_scaling.py`` every 5 s.  It moves the count itself.
Its performance model is given the true step time and the true rate an engine carries at the SLO,
instead of a profile or a regression.

With ``optimization_target`` sla (here ``shipped``) the load loop compares estimated latencies with
the SLO and never goes below the floor.  The planner's default target, throughput, has no floor: its
load loop alone looks at KV cache use (variant ``easy``).  The predictor is ARIMA by default;
``kalman`` and ``constant`` are the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simulations.controller import Context, Controller, View
from simulations.fleet_counters import FleetCounters
from simulations.peers.dynamo_predictors import PREDICTORS
from simulations.peers.peer import Group, Peer, Setting
from simulations.peers.ticking import TickingController
from simulations.peers.traffic import Traffic, TrafficMeter, since
from simulations.profile_capacity import Profile, profile_for
from simulations.replica import ReplicaModel
from simulations.scenario import SHIPPED

LOAD_EVERY_S = 5.0
THROUGHPUT_EVERY_S = 180.0
EASY_UP_RATIO = 1.0
EASY_DOWN_RATIO = 0.6
SENSITIVITY = 0.8  # of the SLO's budget that the replicas left may use after a step down
EASY = "easy"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """What one engine reports at each step; the tokens of a prompt count until it is computed."""

    decode_kv_tokens: float
    queued_prompt_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """The planner's estimates from the true step time.

    A new prompt of ``prompt_tokens`` waits for those queued before it: all of their tokens go
    through steps of at most ``max_num_batched_tokens``, beside the decodes.  Nothing of it knows of
    requests that wait for a slot or for KV blocks, nor does the planner's.
    """

    model: ReplicaModel
    prompt_tokens: float
    context_tokens: float

    def ttft_s(self, load: EngineLoad) -> float:
        """Estimated TTFT of the next request."""
        step = self.model.step
        tokens = load.queued_prompt_tokens + self.prompt_tokens
        steps = math.ceil(tokens / self.model.max_num_batched_tokens)
        beside_s = (
            step.mixed_per_seq_s * self._sequences(load)
            + step.mixed_per_kv_token_s * load.decode_kv_tokens
        )
        per_step_s = step.overhead_s + step.mixed_base_s + beside_s
        attention_s = step.prefill_attention_s * 0.5 * self.prompt_tokens * tokens
        return steps * per_step_s + step.prefill_per_token_s * tokens + attention_s

    def itl_s(self, load: EngineLoad) -> float:
        """Estimated time between tokens with all of the load decoding."""
        step = self.model.step
        return (
            step.overhead_s
            + step.decode_base_s
            + step.decode_per_seq_s * self._sequences(load)
            + step.decode_per_kv_token_s * load.decode_kv_tokens
        )

    def _sequences(self, load: EngineLoad) -> float:
        held = load.decode_kv_tokens / self.context_tokens
        return min(held, float(self.model.max_num_seqs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """``itl_s`` is infinite where none is set."""

    ttft_s: float
    itl_s: float


def sla_count(
    loads: Sequence[EngineLoad], latency: LatencyModel, objective: Objective, *, replicas: int
) -> int:
    """One up if every engine is estimated above either SLA, one down if both sides would let it.

    A step down supposes the load of each engine times n / (n - 1): the queue may then use 0.8 of
    the TTFT left after the request's own prefill, the cache must hold, and the ITL be below 0.8 of
    its SLA.
    """
    if all(latency.ttft_s(load) > objective.ttft_s for load in loads):
        return replicas + 1
    if all(latency.itl_s(load) > objective.itl_s for load in loads):
        return replicas + 1
    if replicas <= 1:
        return replicas
    factor = replicas / (replicas - 1)
    fits = all(_survives(load, latency, objective, factor=factor) for load in loads)
    return replicas - 1 if fits else replicas


def _survives(
    load: EngineLoad, latency: LatencyModel, objective: Objective, *, factor: float
) -> bool:
    kv_tokens = load.decode_kv_tokens * factor
    queued = load.queued_prompt_tokens * factor
    own_s = latency.ttft_s(EngineLoad(decode_kv_tokens=kv_tokens, queued_prompt_tokens=0.0))
    after = EngineLoad(decode_kv_tokens=kv_tokens, queued_prompt_tokens=queued)
    budget_s = (objective.ttft_s - own_s) * SENSITIVITY
    if latency.ttft_s(after) - own_s >= budget_s:
        return False
    if kv_tokens + queued >= latency.model.kv_capacity_tokens:
        return False
    decoding = EngineLoad(decode_kv_tokens=kv_tokens + queued, queued_prompt_tokens=0.0)
    return latency.itl_s(decoding) < objective.itl_s * SENSITIVITY


def easy_count(loads: Sequence[EngineLoad], *, kv_capacity_tokens: int, replicas: int) -> int:
    """One up if any engine's cache is wanted more than full, one down if all are below 0.6."""
    uses = [
        (load.decode_kv_tokens + load.queued_prompt_tokens) / kv_capacity_tokens for load in loads
    ]
    if any(use > EASY_UP_RATIO for use in uses):
        return replicas + 1
    if replicas > 1 and all(use < EASY_DOWN_RATIO for use in uses):
        return replicas - 1
    return replicas


class Floor:
    """ceil(predicted requests per second / R), where R is scaled to the predicted lengths.

    A request's work is prompt / P + output / G with the rates of an engine that only prefills or
    only decodes; R is the profile's rate at the profile's lengths.
    """

    def __init__(self, profile: Profile, *, predictor: str, load_ratio: float) -> None:
        self._profile = profile
        self._rate_per_s = load_ratio * profile.replica_requests_per_s
        self._requests = PREDICTORS[predictor]()
        self._prompt = PREDICTORS[predictor]()
        self._output = PREDICTORS[predictor]()

    def after(self, traffic: Traffic) -> int:
        """The floor for the interval that follows one with ``traffic``."""
        self._requests.add(traffic.arrived)
        begun = max(traffic.first_tokens, 1.0)
        self._prompt.add(traffic.prompt_tokens / begun)
        self._output.add(traffic.output_tokens / begun)
        work = self._work(self._prompt.predict(), self._output.predict())
        usual = self._work(self._profile.prompt_tokens_mean, self._profile.output_tokens_mean)
        carries_per_s = self._rate_per_s * usual / max(work, 1e-3 * usual)
        return max(math.ceil(self._requests.predict() / THROUGHPUT_EVERY_S / carries_per_s), 1)

    def _work(self, prompt_tokens: float, output_tokens: float) -> float:
        profile = self._profile
        return (
            prompt_tokens / profile.prefill_tokens_per_s
            + output_tokens / profile.decode_tokens_per_s
        )


class PlannerLaw:
    """Both loops; nothing is decided while a change is under way, as long as ready != wanted.

    The first floor is what is ready: the planner is taken to have run before the run begins.
    """

    def __init__(self, latency: LatencyModel, objective: Objective, *, floor: Floor | None) -> None:
        self._latency = latency
        self._objective = objective
        self._floor = floor
        self._meter = TrafficMeter()
        self._window = Traffic()
        self._next_floor_s: float | None = None
        self._at_least = 1

    def desired(self, view: View) -> int | None:
        """Update the floor if it is due, then let the load loop step."""
        counters = view.live()
        total = self._meter.look(counters)
        if self._next_floor_s is None:
            self._next_floor_s = view.now_s + THROUGHPUT_EVERY_S
            self._at_least = len(view.ready)
        elif view.now_s >= self._next_floor_s and self._floor is not None:
            self._next_floor_s += THROUGHPUT_EVERY_S
            self._at_least = self._floor.after(since(self._window, total))
            self._window = total
        loads = _loads(counters, self._latency.model, prompt_tokens=_mean_prompt(total))
        replicas = len(view.ready)
        if not loads or len(loads) != replicas or replicas != view.wanted:
            return None
        if self._floor is None:
            kv_tokens = self._latency.model.kv_capacity_tokens
            return easy_count(loads, kv_capacity_tokens=kv_tokens, replicas=replicas)
        count = sla_count(loads, self._latency, self._objective, replicas=replicas)
        return max(count, self._at_least)


def _mean_prompt(total: Traffic) -> float:
    return total.prompt_tokens / total.first_tokens if total.first_tokens else 0.0


def _loads(
    counters: FleetCounters, model: ReplicaModel, *, prompt_tokens: float
) -> list[EngineLoad]:
    """Of the engines that take requests; a waiting prompt is taken to be of the mean length."""
    taking = ~counters.draining
    blocks = counters.values["blocks_used"][taking].tolist()
    waiting = counters.values["requests_waiting"][taking].tolist()
    return [
        EngineLoad(
            decode_kv_tokens=float(used * model.block_size),
            queued_prompt_tokens=queued * prompt_tokens,
        )
        for used, queued in zip(blocks, waiting, strict=True)
    ]


def _build(setting: Setting, context: Context) -> Controller:
    profile, slo = profile_for(context), context.config.slo
    mean_context = profile.prompt_tokens_mean + 0.5 * profile.output_tokens_mean
    latency = LatencyModel(
        model=context.model, prompt_tokens=profile.prompt_tokens_mean, context_tokens=mean_context
    )
    objective = Objective(ttft_s=slo.ttft_s, itl_s=slo.tpot_s if slo.tpot_s > 0.0 else math.inf)
    floor = None
    if setting.variant != EASY:
        predictor = "arima" if setting.variant == SHIPPED else setting.variant
        floor = Floor(profile, predictor=predictor, load_ratio=setting.knob)
    law = PlannerLaw(latency, objective, floor=floor)
    return TickingController(law, context, every_s=LOAD_EVERY_S)


PEERS = (
    Peer(
        name="dynamo",
        group=Group.PROFILE,
        knob="share of an engine's true rate at the SLO that the floor plans for",
        knob_default=1.0,
        knob_values=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25),
        build=_build,
        variants=(SHIPPED, "kalman", "constant", EASY),
    ),
)
