"""The least replica time each request needs, from the terms of the step time.

A step's time is its base and what each request adds to it.  What a request adds, whatever the steps
it is served in, is at least (p prompt tokens, c of them cached, o output tokens; every term the
lesser one of the decode-only and the mixed step)::

    prefill_per_token_s * (p - c) + prefill_attention_s * (p * p - c * c) / 2
    + (o - 1) * per_seq_s + per_kv_token_s * sum(p + j for j in 0 .. o - 2)

The base is shared by all requests of the step, and there are three limits to how many share it:
at most max_num_seqs run, their blocks are at most those of the cache, their tokens at most
max_num_batched_tokens.  So for any weights that sum to 1, a request that takes part with b blocks
and n tokens can be charged ``w_seqs / max_num_seqs + w_blocks * b / blocks + w_tokens * n / budget``
of the base, and all charges of a step together are at most 1.
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
    prefill_share = (
        share.seqs * chunks / model.max_num_seqs
        + share.blocks * _chunk_blocks(prompt, cached, budget=budget) / capacity
        + share.tokens * computed / budget
    )
    decode_share = (
        share.seqs * decodes / model.max_num_seqs
        + share.blocks * context / capacity
        + share.tokens * decodes / budget
    )
    return Work(
        prefill_s=mixed_base_s * prefill_share
        + step.prefill_per_token_s * computed
        + step.prefill_attention_s * 0.5 * (prompt * prompt - cached * cached),
        decode_s=base_s * decode_share + per_seq_s * decodes + per_kv_token_s * context,
    )


def _chunk_blocks(prompt: Floats, cached: Floats, *, budget: int) -> Floats:
    """Tokens of cache held in the step of the last chunk: the whole prompt, and in no step less
    than what was there before it, which is left out."""
    del cached, budget
    return prompt
