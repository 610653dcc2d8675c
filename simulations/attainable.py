"""What unlimited warm replicas would attain: each request alone on a replica of its own.

Alone, a prompt of p tokens, c of them in the prefix cache, is computed in ceil((p - c) / budget)
steps without other work, and the o - 1 further tokens come from as many decode steps of one
sequence.  With the terms of ``replica.StepTime`` (the attention terms of the chunks telescope)::

    ttft_s = chunks * (overhead_s + mixed_base_s) + prefill_per_token_s * (p - c)
           + prefill_attention_s * (p * p - c * c) / 2
    tpot_s = overhead_s + decode_base_s + decode_per_seq_s
           + decode_per_kv_token_s * (p + (o - 2) / 2)

Nothing a schedule does makes a request faster than that: other sequences only lengthen steps and
share their token budget.  A cache that is kept per session holds nothing on a replica that has
served no other request of the session.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulations.engine_layout import Records
from simulations.replica import ReplicaModel
from simulations.request_ring import RequestStatus
from simulations.trace_chunks import Floats, Requests

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What makes a request a good one; ``tpot_s`` 0 sets no objective."""

    ttft_s: float
    tpot_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Latencies of requests that share nothing; ``served`` is False for those that are too long."""

    ttft_s: Floats
    tpot_s: Floats
    served: Flags


def alone(requests: Requests, model: ReplicaModel) -> Alone:
    """The latencies of each request alone on a warm replica."""
    step = model.step
    prompt = requests.prompt_tokens.astype(np.float64)
    output = requests.output_tokens.astype(np.float64)
    cached = cached_tokens(requests, model)
    if model.prefix_cache.per_session:
        cached = np.zeros_like(cached)
    chunks = np.ceil((prompt - cached) / model.max_num_batched_tokens)
    ttft_s = (
        chunks * (step.overhead_s + step.mixed_base_s)
        + step.prefill_per_token_s * (prompt - cached)
        + step.prefill_attention_s * 0.5 * (prompt * prompt - cached * cached)
    )
    tpot_s = (
        step.overhead_s
        + step.decode_base_s
        + step.decode_per_seq_s
        + step.decode_per_kv_token_s * (prompt + 0.5 * (output - 2.0))
    )
    return Alone(
        ttft_s=ttft_s,
        tpot_s=np.where(output > 1.0, tpot_s, 0.0),
        served=prompt + output <= request_tokens_max(model),
    )


def attainable(requests: Requests, model: ReplicaModel, objectives: Objectives) -> float:
    """Share of the requests that meet the objectives alone; NaN without requests."""
    if not len(requests):
        return float("nan")
    return float(np.mean(attainable_flags(requests, model, objectives)))


def attainable_flags(requests: Requests, model: ReplicaModel, objectives: Objectives) -> Flags:
    """Which requests meet the objectives alone."""
    times = alone(requests, model)
    good = times.served & (times.ttft_s <= objectives.ttft_s)
    if objectives.tpot_s > 0.0:
        good &= times.tpot_s <= objectives.tpot_s
    return good


def good_outcomes(outcomes: Records, objectives: Objectives) -> Flags:
    """Which requests completed within the objectives."""
    ttft_s = outcomes["first_token_at_s"] - outcomes["arrival_at_s"]
    completed = outcomes["status"] == RequestStatus.COMPLETED
    good: Flags = completed & (ttft_s <= objectives.ttft_s)
    if objectives.tpot_s > 0.0:
        gaps = np.maximum(outcomes["output_tokens"] - 1, 1)
        decode_s = outcomes["finished_at_s"] - outcomes["first_token_at_s"]
        good &= decode_s / gaps <= objectives.tpot_s
    return good


def cached_tokens(requests: Requests, model: ReplicaModel) -> Floats:
    """The most prompt tokens found in the prefix cache: whole blocks, and never the last token."""
    prompt = requests.prompt_tokens.astype(np.int64)
    hit = np.minimum((model.prefix_cache.hit_ratio * prompt).astype(np.int64), prompt - 1)
    return (hit // model.block_size * model.block_size).astype(np.float64)


def request_tokens_max(model: ReplicaModel) -> int:
    """The longest prompt and output together that a replica takes."""
    return min(model.max_model_len, model.kv_capacity_tokens)
