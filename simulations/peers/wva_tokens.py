"""llm-d's Workload Variant Autoscaler with its token analyser (V2), one variant.

Every 60 s it compares the tokens in use and in queues with a token capacity per replica, publishes
a desired count, and an HPA with a target of 1 applies it.  Follows
``internal/engines/analyzers/saturation_v2/analyzer.go`` and ``pipeline/cost_aware_optimizer.go`` of
llm-d-workload-variant-autoscaler, February 2026.  The hop of its result through Prometheus is left
out.  Variant ``profiled`` is told the tokens in use of a replica at its true rate in place of the
compute bound that the analyser observes or derives.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from scaler.core.hpa import Metric, MetricFailed
from simulations.controller import Context, Controller
from simulations.engine_layout import Floats
from simulations.fleet_counters import FleetCounters
from simulations.peers.hpa_controller import BOTH, HpaController, Seen, external, peer_hpa
from simulations.peers.hpa_wva import WVA_BEHAVIOR
from simulations.peers.peer import Group, Peer, Setting
from simulations.profile_capacity import profile_for
from simulations.replica import ReplicaModel
from simulations.scenario import SHIPPED
from simulations.scrape_history import ScrapeHistory, kv_cache_usage, metric
from simulations.streams import generator

TICK_S = 60.0
PEAK_WINDOW_S = 60.0
LENGTH_WINDOW_S = 300.0
HISTORY = 10  # observations of the compute bound that are averaged
OUTPUT_BUCKETS = (100.0, 500.0)  # tokens: short, medium, long
PROFILED = "profiled"

_WAITING = metric("requests_waiting")
_PROMPT = metric("finished_prompt_tokens")
_OUTPUT = metric("finished_output_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """Shares of the KV cache and of the capacity; ``waiting`` requests saturate a replica."""

    kv_ratio: float = 0.80
    waiting: float = 5.0
    up_ratio: float = 0.85
    down_ratio: float = 0.70


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """One replica: highest KV share and queue of the last minute, mean lengths of five."""

    kv_ratio: float
    waiting: float
    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What the count is made of, in tokens; the capacity is of one replica."""

    demand: float
    capacity: float


def derived_bound(model: ReplicaModel, *, prompt_tokens: float, output_tokens: float) -> int:
    """N (I + O / 2) with N = min(B O / (I + O), S): B tokens a step, S sequences; 0 if unknown."""
    if output_tokens <= 0.0:
        return 0
    batch = model.max_num_batched_tokens * output_tokens / (prompt_tokens + output_tokens)
    held = min(batch, float(model.max_num_seqs))
    return int(held * (prompt_tokens + output_tokens / 2.0))


def token_count(supply: Supply, limits: TokenLimits, *, ready: int, current: int) -> int:
    """Up by ceil(required / capacity), else down by floor(spare / capacity), one is kept.

    required = demand / up - current * capacity (replicas that start count);
    spare = ready * capacity - demand / down.
    """
    if supply.capacity <= 0.0:
        return current
    required = supply.demand / limits.up_ratio - current * supply.capacity
    if required > 0.0:
        return current + math.ceil(required / supply.capacity)
    spare = ready * supply.capacity - supply.demand / limits.down_ratio
    if spare > 0.0:
        return max(current - math.floor(spare / supply.capacity), 1)
    return current


class TokenAnalyser:
    """Capacity and demand in tokens; remembers the tokens in use of saturated replicas.

    The capacity of a replica is min(k1, k2): k1 is the KV cache's tokens times 0.8, k2 the tokens
    in use while it is saturated, else the mean of the last ten such for outputs of that length,
    else the derived bound, else k1.  The fleet's is the median.
    """

    def __init__(
        self, model: ReplicaModel, limits: TokenLimits, *, bound_tokens: float | None = None
    ) -> None:
        """``bound_tokens`` is a k2 that is known beforehand."""
        self._model = model
        self._limits = limits
        self._bound_tokens = bound_tokens
        self._saturated: dict[int, deque[float]] = {}

    def supply(self, loads: Sequence[ReplicaLoad]) -> Supply:
        """Demand and capacity as of one tick."""
        capacities = [self._capacity(load) for load in loads]
        demand = sum(
            self._in_use(load) + int(load.waiting) * int(load.prompt_tokens) for load in loads
        )
        return Supply(demand=float(demand), capacity=_median(capacities))

    def _in_use(self, load: ReplicaLoad) -> int:
        return int(load.kv_ratio * self._model.kv_capacity_tokens)

    def _capacity(self, load: ReplicaLoad) -> int:
        memory = int(self._model.kv_capacity_tokens * self._limits.kv_ratio)
        if self._bound_tokens is not None:
            return min(memory, int(self._bound_tokens))
        return min(memory, self._compute(load) or memory)

    def _compute(self, load: ReplicaLoad) -> int:
        bucket = sum(load.output_tokens >= bound for bound in OUTPUT_BUCKETS)
        past = self._saturated.setdefault(bucket, deque(maxlen=HISTORY))
        in_use = self._in_use(load)
        if load.waiting >= self._limits.waiting and in_use > 0:
            past.append(float(in_use))
            return in_use
        if past:
            return int(fmean(past))
        return derived_bound(
            self._model, prompt_tokens=load.prompt_tokens, output_tokens=load.output_tokens
        )


def _median(capacities: Sequence[int]) -> float:
    """Of an even number the mean of the middle two, in whole tokens."""
    ordered = sorted(capacities)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    return float((ordered[middle - 1] + ordered[middle]) // 2)


class TokenLoop:
    """The operator's loop; ``desired`` is what it publishes, None before its first result."""

    def __init__(self, analyser: TokenAnalyser, limits: TokenLimits, context: Context) -> None:
        self.next_at_s = float(generator(context.seed, "peer_phase").random()) * TICK_S
        self.desired: int | None = None
        self._analyser = analyser
        self._limits = limits

    def run(self, seen: Seen) -> None:
        """Analyse the replicas that report, and publish; the current count where none does."""
        self.next_at_s += TICK_S
        ready = frozenset(seen.view.ready)
        loads = [] if seen.unanswered else _loads(seen.history, ready, seen.now_s)
        if loads:
            supply = self._analyser.supply(loads)
            self.desired = token_count(supply, self._limits, ready=seen.ready, current=seen.current)
        elif self.desired is not None:
            self.desired = seen.current


def _loads(history: ScrapeHistory, ready: frozenset[int], now_s: float) -> list[ReplicaLoad]:
    kv = history.max_over_time(kv_cache_usage, window_s=PEAK_WINDOW_S, now_s=now_s).by_uid()
    waiting = history.max_over_time(_WAITING, window_s=PEAK_WINDOW_S, now_s=now_s).by_uid()
    lengths = [
        history.rate(series, window_s=LENGTH_WINDOW_S, now_s=now_s).by_uid()
        for series in (_PROMPT, _OUTPUT, finished)
    ]
    prompt, output, ended = lengths
    return [
        ReplicaLoad(
            kv_ratio=kv[uid],
            waiting=waiting[uid],
            prompt_tokens=_each(prompt, ended, uid),
            output_tokens=_each(output, ended, uid),
        )
        for uid in sorted(kv.keys() & ready)
    ]


def finished(counters: FleetCounters) -> Floats:
    """Requests that have ended in each replica."""
    values = counters.values
    ended: Floats = (values["finished_stop"] + values["finished_abort"]).astype(np.float64)
    return ended


def _each(tokens: Mapping[int, float], ended: Mapping[int, float], uid: int) -> float:
    count = ended.get(uid, 0.0)
    return tokens[uid] / count if count > 0.0 else 0.0


def limits_at(up_ratio: float) -> TokenLimits:
    """The boundary of a step down stays in proportion to that of a step up."""
    plain = TokenLimits()
    return TokenLimits(up_ratio=up_ratio, down_ratio=plain.down_ratio * up_ratio / plain.up_ratio)


def _build(setting: Setting, context: Context) -> Controller:
    limits = limits_at(setting.knob)
    bound = None
    if setting.variant == PROFILED:
        bound = profile_for(context).reference.kv_tokens_mean
    analyser = TokenAnalyser(context.model, limits, bound_tokens=bound)
    loop = TokenLoop(analyser, limits, context)

    def law(_seen: Seen) -> Sequence[Metric]:
        if loop.desired is None:
            return (MetricFailed(),)
        return (external(float(loop.desired), 1.0, context.cluster.keda),)

    hpa = peer_hpa(WVA_BEHAVIOR, setting.behaviour, context)
    return HpaController(law, hpa=hpa, context=context, loop=loop)


PEERS = (
    Peer(
        name="wva-tokens",
        group=Group.PROFILE,
        knob="share of the token capacity above which replicas are added (0.70 in proportion)",
        knob_default=0.85,
        knob_values=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2),
        build=_build,
        variants=(SHIPPED, PROFILED),
        behaviours=BOTH,
    ),
)
