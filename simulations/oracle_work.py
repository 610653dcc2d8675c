"""The least replica time each request needs, from the terms of the step time.

A step's time is its base and what each request adds to it.  What a request adds, whatever the steps
it is served in, is at least (p prompt tokens, c of them cached, o output tokens; every term the
lesser one of the decode-only and the mixed step)::

    prefill_per_token_s * (p - c) + prefill_attention_s * (p * p - c * c) / 2
    + (o - 1) * per_seq_s + per_kv_token_s * sum(p + j for j in 0 .. o - 2)

The base is shared by all requests of the step, and there are three limits to how many share it:
at most max_num_seqs run, their blocks are at most those of the cache, their tokens at most
max_num_batched_tokens.  So for any weights that sum to 1, a request that takes part with b blocks
and n tokens can be charged ``seqs / max_num_seqs + blocks * b / kv_blocks + tokens * n / budget``
of the base, and all charges of a step together are at most 1.

A token after a preemption comes from a recomputation instead of a decode step.  Where prompts are
so short that this could be cheaper, the difference is taken off (``_recomputed_s``).
"""

from dataclasses import dataclass

import numpy as np

from simulations.attainable import cached_tokens
from simulations.replica import ReplicaModel
from simulations.trace_chunks import Floats, Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseShare:
    """Weights of the three ways to share a step's base; they sum to 1."""

    seqs: float = 1.0
    blocks: float = 0.0
    tokens: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Least replica time in seconds of each request, up to its first token and after it."""

    prefill_s: Floats
    decode_s: Floats


def least_work(requests: Requests, model: ReplicaModel, share: BaseShare) -> Work:
    """The least replica time of each request, the base charged by ``share``."""
    step = model.step
    prompt = requests.prompt_tokens.astype(np.float64)
    decodes = requests.output_tokens.astype(np.float64) - 1.0
    cached = cached_tokens(requests, model)
    computed = prompt - cached
    base_s = step.overhead_s + min(step.decode_base_s, step.mixed_base_s)
    mixed_base_s = step.overhead_s + step.mixed_base_s
    per_seq_s = min(step.decode_per_seq_s, step.mixed_per_seq_s)
    per_kv_token_s = min(step.decode_per_kv_token_s, step.mixed_per_kv_token_s)
    context = decodes * prompt + 0.5 * decodes * (decodes - 1.0)
    budget = model.max_num_batched_tokens
    capacity = model.kv_capacity_tokens
    chunks = np.ceil(computed / budget)
    # In the step of the last chunk the whole prompt is in the cache.
    prefill_share = (
        share.seqs * chunks / model.max_num_seqs
        + share.blocks * prompt / capacity
        + share.tokens * computed / budget
    )
    decode_share = (
        share.seqs * decodes / model.max_num_seqs
        + share.blocks * context / capacity
        + share.tokens * decodes / budget
    )
    decode_s = base_s * decode_share + per_seq_s * decodes + per_kv_token_s * context
    first_s = per_seq_s + (per_kv_token_s + base_s * share.blocks / capacity) * prompt
    return Work(
        prefill_s=mixed_base_s * prefill_share
        + step.prefill_per_token_s * computed
        + step.prefill_attention_s * 0.5 * (prompt * prompt - cached * cached),
        decode_s=decode_s
        - np.minimum(decode_s, _recomputed_s(model, first_s, computed, decodes, share=share)),
    )


def _recomputed_s(
    model: ReplicaModel, first_s: Floats, computed: Floats, decodes: Floats, *, share: BaseShare
) -> Floats:
    """The most that making tokens by recomputation could save.

    The g-th decode costs ``first_s + slope * (g - 1)`` beside the shares by sequences and tokens,
    a recomputation in its place at least ``prefill_per_token_s * (computed + g)`` and the same
    shares.  Their difference falls with g if a prompt token costs more than one of context.
    """
    step = model.step
    base_s = step.overhead_s + min(step.decode_base_s, step.mixed_base_s)
    slope_s = min(step.decode_per_kv_token_s, step.mixed_per_kv_token_s) + (
        base_s * share.blocks / model.kv_capacity_tokens
    )
    saved_s = np.maximum(first_s - step.prefill_per_token_s * (computed + 1.0), 0.0)
    falls_s = step.prefill_per_token_s - slope_s
    if falls_s <= 0.0:
        last_s = saved_s - falls_s * decodes
        return np.where(last_s > 0.0, decodes * last_s, 0.0)
    return saved_s * np.minimum(decodes, np.ceil(saved_s / falls_s))
