"""Rules on token counts, written as KEDA Prometheus triggers: ``token-rate`` and ``llmd-tokens``.

``token-rate`` is the rule that an engineer with a benchmark writes by hand::

    replicas = (sum(rate(vllm:prompt_tokens_total[1m])) / P
                + sum(rate(vllm:generation_tokens_total[1m])) / G) / load_ratio

P and G are in the proportion of what one replica prefills and decodes when it does nothing else,
scaled together so that the sum is 1 at the rate of the mix that one replica of four truly carries.
The counters are of served tokens: a fleet that is overloaded shows its capacity, not its demand.
Variant ``queue`` has a second trigger for that, on the requests that wait; ``prompt-heavy`` and
``output-heavy`` move the proportion of P and G by half, the mix costing the same.

``llmd-tokens`` is llm-d's token-aware guide for replicas that prefill and decode
(``guides/workload-autoscaling/keda-epp-token-aware/optimized-baseline`` of llm-d/llm-d): seconds of
prompts that are not computed yet, and the KV cache in use.  The router's gauge of such prompt
tokens is taken as the requests without a first token times their mean prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaler.core.hpa import Behavior, Metric, MetricFailed, Version, parse_behavior
from simulations.controller import Context, Controller
from simulations.engine_layout import Floats
from simulations.fleet_counters import FleetCounters
from simulations.peers.hpa_controller import BOTH, HpaController, Law, Seen, external, peer_hpa
from simulations.peers.peer import Group, Peer, Setting
from simulations.profile_capacity import Profile, prefill_velocity, profile_for
from simulations.scenario import SHIPPED
from simulations.scrape_history import ScrapeHistory, kv_cache_usage, metric

RATE_WINDOW_S = 60.0
LENGTH_WINDOW_S = 300.0
SETTLED_RATIO = 0.7  # of the window; scrapes 15 s apart span 45 s of a minute
QUEUE = "queue"
WAITING_TARGET = 10.0  # requests a replica, of the second trigger
PROPORTIONS = {"prompt-heavy": 1.5, "output-heavy": 1.0 / 1.5}

_PROMPT = metric("prompt_tokens")
_GENERATED = metric("generation_tokens")
_WAITING = metric("requests_waiting")

PATIENT: Behavior | None = parse_behavior({"scaleDown": {"stabilizationWindowSeconds": 300}})
TOKEN_AWARE: Behavior | None = parse_behavior(
    {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 180}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}],
        },
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """P and G: tokens per second that are one replica's worth each."""

    prompt_per_s: float
    output_per_s: float

    def replicas(self, *, prompt_per_s: float, output_per_s: float) -> float:
        """How many replicas' worth of work there is."""
        return prompt_per_s / self.prompt_per_s + output_per_s / self.output_per_s


def rates_of(profile: Profile, *, prompt_weight: float = 1.0) -> Rates:
    """P and G from the profile; the share of the prompts in the work is multiplied by the weight.

    With r the rate one replica of four carries, a = r I / P0 and b = r O / G0::

        P = P0 c / w,  G = G0 c,  c = w a + b    so that  r I / P + r O / G = 1
    """
    carried_per_s = profile.replica_requests_per_s
    prompt = carried_per_s * profile.prompt_tokens_mean / profile.prefill_tokens_per_s
    output = carried_per_s * profile.output_tokens_mean / profile.decode_tokens_per_s
    scale = prompt_weight * prompt + output
    return Rates(
        prompt_per_s=profile.prefill_tokens_per_s * scale / prompt_weight,
        output_per_s=profile.decode_tokens_per_s * scale,
    )


class Settled:
    """Whether a rate's window has been full of scrapes once.

    A run begins where Prometheus has seen nothing, a fleet's day does not: until then its rates
    would be those of no load, and the peer would begin with a step down.
    """

    def __init__(self) -> None:
        self._once = False

    def __call__(self, history: ScrapeHistory, now_s: float) -> bool:
        """Whether it is or has been by now."""
        if not self._once:
            span_s = history.span_s(window_s=RATE_WINDOW_S, now_s=now_s)
            self._once = span_s >= SETTLED_RATIO * RATE_WINDOW_S
        return self._once


def _token_rate(setting: Setting, context: Context) -> Controller:
    weight = PROPORTIONS.get(setting.variant, 1.0)
    rates = rates_of(profile_for(context), prompt_weight=weight)
    keda = context.cluster.keda
    settled = Settled()

    def law(seen: Seen) -> Sequence[Metric]:
        if not settled(seen.history, seen.now_s):
            return (MetricFailed(),)
        prompt, output = (
            seen.history.rate(series, window_s=RATE_WINDOW_S, now_s=seen.now_s).total
            for series in (_PROMPT, _GENERATED)
        )
        work = rates.replicas(prompt_per_s=prompt, output_per_s=output)
        metrics = (external(work, setting.knob, keda),)
        if setting.variant != QUEUE:
            return metrics
        waiting = seen.history.now(_WAITING, seen.now_s).total
        return (*metrics, external(waiting, WAITING_TARGET, keda))

    return _with_hpa(law, PATIENT, setting, context)


def _llmd_tokens(setting: Setting, context: Context) -> Controller:
    """The KV trigger's 0.8 moves in proportion with the knob, so that one knob moves both."""
    velocity = prefill_velocity(context.model)
    kv_target = 0.8 * setting.knob / 1.5
    keda = context.cluster.keda
    settled = Settled()

    def law(seen: Seen) -> Sequence[Metric]:
        if not settled(seen.history, seen.now_s):
            return (MetricFailed(),)
        history, now_s = seen.history, seen.now_s
        return token_aware(
            history, now_s, velocity=velocity, seconds=setting.knob, kv=kv_target, keda=keda
        )

    return _with_hpa(law, TOKEN_AWARE, setting, context)


def token_aware(
    history: ScrapeHistory,
    now_s: float,
    *,
    velocity: float,
    seconds: float,
    kv: float,
    keda: Version,
) -> tuple[Metric, ...]:
    """Seconds of prompts still to be computed against ``seconds``, full caches against ``kv``."""
    queued = history.now(not_prefilled, now_s).total * _mean_prompt(history, now_s)
    used = history.now(kv_cache_usage, now_s).total
    return (external(queued / velocity, seconds, keda), external(used, kv, keda))


def come(counters: FleetCounters) -> Floats:
    """Requests that have come to each replica, ended or not."""
    values = counters.values
    held = values["requests_running"] + values["requests_waiting"]
    total: Floats = (held + values["finished_stop"] + values["finished_abort"]).astype(np.float64)
    return total


def not_prefilled(counters: FleetCounters) -> Floats:
    """Requests of each replica that have come and have no first token."""
    missing: Floats = np.maximum(come(counters) - _first_tokens(counters), 0.0)
    return missing


def _uncached(counters: FleetCounters) -> Floats:
    values = counters.values
    tokens: Floats = (values["prompt_tokens"] - values["prompt_tokens_cached"]).astype(np.float64)
    return tokens


def _first_tokens(counters: FleetCounters) -> Floats:
    begun: Floats = counters.ttft_buckets.sum(axis=1).astype(np.float64)
    return begun


def _mean_prompt(history: ScrapeHistory, now_s: float) -> float:
    tokens = history.rate(_uncached, window_s=LENGTH_WINDOW_S, now_s=now_s).total
    begun = history.rate(_first_tokens, window_s=LENGTH_WINDOW_S, now_s=now_s).total
    return tokens / begun if begun > 0.0 else 0.0


def _with_hpa(law: Law, own: Behavior | None, setting: Setting, context: Context) -> Controller:
    hpa = peer_hpa(own, setting.behaviour, context)
    return HpaController(law, hpa=hpa, context=context)


PEERS = (
    Peer(
        name="token-rate",
        group=Group.PROFILE,
        knob="share of a replica's true rate that is planned for",
        knob_default=0.8,
        knob_values=(0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0),
        build=_token_rate,
        variants=(SHIPPED, QUEUE, *PROPORTIONS),
        behaviours=BOTH,
    ),
    Peer(
        name="llmd-tokens",
        group=Group.PROFILE,
        knob="seconds of prompt backlog a replica (0.8 of the KV cache in proportion)",
        knob_default=1.5,
        knob_values=(0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5),
        build=_llmd_tokens,
        behaviours=BOTH,
    ),
)
