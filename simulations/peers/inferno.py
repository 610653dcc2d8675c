"""llm-d's WVA with its queueing model (Inferno): ceil(arrival rate / rate that meets the SLO).

Follows ``pkg/analyzer`` of llm-d-workload-variant-autoscaler, February 2026.  A replica is a queue
with state-dependent service::

    iteration(n) = alpha + n (beta (I + O) / (O + 1) + gamma (I + O / 2))
    prefill(n) = iteration(n) + (beta + gamma) I
    decode(n) = iteration(n) + beta + gamma (I + O / 2)
    mu(n) = n / (prefill(n) + O decode(n))

for n requests in the batch, I prompt and O output tokens.  alpha, beta and gamma are fitted to the
true step time, where the operator tracks them with a filter.  Its objectives are of means: mean
wait + prefill within the TTFT, mean decode within the ITL.

As shipped the arrival rate is that of ``vllm:request_success_total``, of requests that have ended:
a fleet that is overloaded shows its capacity, so that a modelled rate a little above the true one
keeps it overloaded for good.  ``corrected`` counts requests as they come.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from scaler.core.hpa import Metric, MetricFailed
from simulations.controller import Context, Controller
from simulations.peers.hpa_controller import BOTH, HpaController, Seen, external, peer_hpa
from simulations.peers.hpa_wva import WVA_BEHAVIOR
from simulations.peers.peer import CORRECTED, Group, Peer, Setting
from simulations.peers.tokens import come
from simulations.peers.wva_tokens import finished
from simulations.profile_capacity import profile_for
from simulations.replica import ReplicaModel
from simulations.scenario import SHIPPED
from simulations.scrape_history import Series, metric
from simulations.streams import generator
from simulations.trace_chunks import Floats

TICK_S = 60.0
WINDOW_S = 60.0
QUEUE_FACTOR = 10  # requests that may wait, in batches
BISECTIONS = 16  # to 2e-5 of the range

_PROMPT = metric("finished_prompt_tokens")
_OUTPUT = metric("finished_output_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Mean tokens of a request: I and O."""

    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationTime:
    """alpha_s of a step, beta_s of a token computed in it, gamma_s of a token read in it."""

    alpha_s: float
    beta_s: float
    gamma_s: float

    def iteration_s(self, batch: Floats, lengths: Lengths) -> Floats:
        """Length of a step with this many requests in the batch."""
        computed, read = _features(lengths)
        times: Floats = self.alpha_s + batch * (self.beta_s * computed + self.gamma_s * read)
        return times

    def prefill_s(self, batch: Floats, lengths: Lengths) -> Floats:
        """Time to compute a prompt beside the batch."""
        own_s = (self.beta_s + self.gamma_s) * lengths.prompt_tokens
        times: Floats = self.iteration_s(batch, lengths) + own_s
        return times

    def decode_s(self, batch: Floats, lengths: Lengths) -> Floats:
        """Time from one token to the next."""
        own_s = self.beta_s + self.gamma_s * _features(lengths)[1]
        times: Floats = self.iteration_s(batch, lengths) + own_s
        return times


def _features(lengths: Lengths) -> tuple[float, float]:
    """Tokens computed and tokens of context of one request, a mean step of its life."""
    whole = lengths.prompt_tokens + lengths.output_tokens
    computed = whole / (lengths.output_tokens + 1.0)
    return computed, lengths.prompt_tokens + lengths.output_tokens / 2.0


def true_iteration_s(model: ReplicaModel, lengths: Lengths, batch: float) -> float:
    """Mean length of a step with ``batch`` requests whose prompts are spread over their lives."""
    step = model.step
    steps = lengths.output_tokens + 1.0
    mixed = 1.0 - math.exp(-batch / steps)  # of the steps have a prompt in them
    per_seq_s = mixed * step.mixed_per_seq_s + (1.0 - mixed) * step.decode_per_seq_s
    per_kv_s = mixed * step.mixed_per_kv_token_s + (1.0 - mixed) * step.decode_per_kv_token_s
    computed = lengths.prompt_tokens * (1.0 - model.prefix_cache.hit_ratio)
    prompt_s = (
        step.prefill_per_token_s * computed
        + 0.5 * step.prefill_attention_s * computed * lengths.prompt_tokens
    )
    return (
        step.overhead_s
        + mixed * step.mixed_base_s
        + (1.0 - mixed) * step.decode_base_s
        + batch * (per_seq_s + per_kv_s * _features(lengths)[1] + prompt_s / steps)
    )


def fit(model: ReplicaModel, lengths: Lengths) -> IterationTime:
    """Least squares over batches and lengths around the usual ones; no term below 0."""
    batches = [2.0**k for k in range(int(math.log2(model.max_num_seqs)) + 1)]
    rows, times = [], []
    for batch, by_prompt, by_output in product(batches, (0.5, 1.0, 2.0), (0.5, 1.0, 2.0)):
        near = Lengths(
            prompt_tokens=lengths.prompt_tokens * by_prompt,
            output_tokens=lengths.output_tokens * by_output,
        )
        computed, read = _features(near)
        rows.append((1.0, batch * computed, batch * read))
        times.append(true_iteration_s(model, near, batch))
    solved = _positive(np.array(rows), np.array(times))
    return IterationTime(alpha_s=solved[0], beta_s=solved[1], gamma_s=solved[2])


def _positive(rows: Floats, times: Floats) -> list[float]:
    """Least squares; the most negative term is left out until none is negative."""
    kept = list(range(rows.shape[1]))
    while True:
        solved = np.linalg.lstsq(rows[:, kept], times, rcond=None)[0]
        worst = int(np.argmin(solved))
        if solved[worst] >= 0.0:
            full = [0.0] * rows.shape[1]
            for place, value in zip(kept, solved.tolist(), strict=True):
                full[place] = value
            return full
        del kept[worst]


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Objectives of the means; ``itl_s`` is infinite where none is set."""

    ttft_s: float
    itl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the queue model says of a rate."""

    ttft_s: float
    itl_s: float


def queue_means(
    time: IterationTime, lengths: Lengths, *, batch_max: int, rate_per_s: float
) -> Means:
    """Means of the birth and death chain; requests that find ten batches waiting are lost.

    p(n) is proportional to the product of rate / mu(min(i, batch_max)) for i = 1 .. n.
    """
    batch = np.arange(1.0, batch_max + 1.0)
    service_s = time.prefill_s(batch, lengths) + lengths.output_tokens * time.decode_s(
        batch, lengths
    )
    steps = np.log(rate_per_s) - np.log(batch / service_s)
    waiting = np.full(QUEUE_FACTOR * batch_max, steps[-1])
    logs = np.concatenate(([0.0], np.cumsum(np.concatenate((steps, waiting)))))
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    states = np.arange(len(weights))
    served_per_s = rate_per_s * (1.0 - weights[-1])
    wait_s = float(np.maximum(states - batch_max, 0) @ weights) / served_per_s
    mean_batch = np.array([np.minimum(states, batch_max) @ weights])
    return Means(
        ttft_s=wait_s + float(time.prefill_s(mean_batch, lengths)[0]),
        itl_s=float(time.decode_s(mean_batch, lengths)[0]),
    )


def best_rate(time: IterationTime, lengths: Lengths, targets: Targets, *, batch_max: int) -> float:
    """The largest rate of one replica whose means meet both targets; 0 if not even a trickle."""
    full = np.array([float(batch_max)])
    service_s = time.prefill_s(full, lengths) + lengths.output_tokens * time.decode_s(full, lengths)
    low, high = 0.0, float(batch_max / service_s[0])
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        means = queue_means(time, lengths, batch_max=batch_max, rate_per_s=middle)
        if means.ttft_s <= targets.ttft_s and means.itl_s <= targets.itl_s:
            low = middle
        else:
            high = middle
    return low


class InfernoLoop:
    """The operator's loop; ``desired`` is what it publishes, None before it has seen traffic."""

    def __init__(
        self,
        time: IterationTime,
        targets: Targets,
        *,
        load_ratio: float,
        requests: Series,
        context: Context,
    ) -> None:
        """``requests`` is the counter whose rate is taken for that of the arrivals."""
        self.next_at_s = float(generator(context.seed, "peer_phase").random()) * TICK_S
        self.desired: int | None = None
        self._time = time
        self._targets = targets
        self._load_ratio = load_ratio
        self._requests = requests
        self._model = context.model

    def run(self, seen: Seen) -> None:
        """Take the rate, and the lengths of the requests that ended in the last minute; size.

        Without an answer the operator publishes the current count, as it does for its other models.
        """
        self.next_at_s += TICK_S
        if seen.unanswered:
            self.desired = None if self.desired is None else seen.current
            return
        ended, arrived, prompt, output = (
            seen.history.rate(series, window_s=WINDOW_S, now_s=seen.now_s).total
            for series in (finished, self._requests, _PROMPT, _OUTPUT)
        )
        if ended > 0.0:
            lengths = Lengths(prompt_tokens=prompt / ended, output_tokens=output / ended)
            self.desired = self.count(arrived, lengths)

    def count(self, rate_per_s: float, lengths: Lengths) -> int | None:
        """ceil(rate / best rate); the last answer where no rate meets the targets."""
        batch = batch_max(self._model, lengths)
        best = best_rate(self._time, lengths, self._targets, batch_max=batch) * self._load_ratio
        return math.ceil(rate_per_s / best) if best > 0.0 else self.desired


def batch_max(model: ReplicaModel, lengths: Lengths) -> int:
    """Requests that fit: the limit of sequences, or the KV cache at their mean context."""
    by_cache = model.kv_capacity_tokens / max(_features(lengths)[1], 1.0)
    return max(int(min(float(model.max_num_seqs), by_cache)), 1)


def _build(setting: Setting, context: Context) -> Controller:
    profile, slo = profile_for(context), context.config.slo
    usual = Lengths(
        prompt_tokens=profile.prompt_tokens_mean, output_tokens=profile.output_tokens_mean
    )
    targets = Targets(ttft_s=slo.ttft_s, itl_s=slo.tpot_s if slo.tpot_s > 0.0 else math.inf)
    loop = InfernoLoop(
        fit(context.model, usual),
        targets,
        load_ratio=setting.knob,
        requests=come if setting.variant == CORRECTED else finished,
        context=context,
    )

    def law(_seen: Seen) -> Sequence[Metric]:
        if loop.desired is None:
            return (MetricFailed(),)
        return (external(float(loop.desired), 1.0, context.cluster.keda),)

    hpa = peer_hpa(WVA_BEHAVIOR, setting.behaviour, context)
    return HpaController(law, hpa=hpa, context=context, loop=loop)


PEERS = (
    Peer(
        name="inferno",
        group=Group.PROFILE,
        knob="share of the modelled rate at the SLO that a replica is planned for",
        knob_default=1.0,
        knob_values=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1),
        build=_build,
        variants=(SHIPPED, CORRECTED),
        behaviours=BOTH,
    ),
)
