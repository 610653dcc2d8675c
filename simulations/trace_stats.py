"""What a trace is like: load over time and token lengths, in one pass over its chunks."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulations.trace_chunks import Requests

MINUTE_S = 60.0
SPAN_MIN_S = 1.0  # a single arrival has no span, and no rate of billions either


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStats:
    """Rates are requests (or tokens) per second, of at least one second; quantiles are exact."""

    requests: int
    span_s: float
    mean_per_s: float
    peak_minute_per_s: float
    minute_cv: float  # standard deviation of the rate per minute over its mean
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    prompt_quantiles_tokens: tuple[float, float, float]  # p50, p95, p99
    output_quantiles_tokens: tuple[float, float, float]
    tenants: int


def stats_of(chunks: Iterable[Requests]) -> TraceStats:
    """Statistics of a trace; the last minute counts only if it is whole."""
    minutes = np.zeros(0, dtype=np.int64)
    prompts = np.zeros(0, dtype=np.int64)
    outputs = np.zeros(0, dtype=np.int64)
    tenants = 0
    last_s = 0.0
    for chunk in chunks:
        minutes = _add(minutes, (chunk.arrival_s // MINUTE_S).astype(np.int64))
        prompts = _add(prompts, chunk.prompt_tokens)
        outputs = _add(outputs, chunk.output_tokens)
        tenants = max(tenants, int(chunk.tenant.max(initial=-1)) + 1)
        last_s = float(chunk.arrival_s[-1])
    span_s = max(last_s, SPAN_MIN_S)
    whole = minutes[:-1] if minutes.size > 1 else minutes
    return TraceStats(
        requests=int(minutes.sum()),
        span_s=last_s,
        mean_per_s=float(minutes.sum() / span_s),
        peak_minute_per_s=float(whole.max() / MINUTE_S),
        minute_cv=float(whole.std() / whole.mean()) if whole.any() else 0.0,
        prompt_tokens_per_s=_total(prompts) / span_s,
        output_tokens_per_s=_total(outputs) / span_s,
        prompt_quantiles_tokens=_quantiles(prompts),
        output_quantiles_tokens=_quantiles(outputs),
        tenants=tenants,
    )


def _add(
    counts: npt.NDArray[np.int64], values: npt.NDArray[np.int64] | npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]:
    fresh = np.bincount(values, minlength=counts.size)
    fresh[: counts.size] += counts
    return fresh


def _total(counts: npt.NDArray[np.int64]) -> float:
    return float(np.dot(counts, np.arange(counts.size)))


def _quantiles(counts: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """Nearest-rank quantiles from the number of times each value occurs."""
    cumulative = np.cumsum(counts)
    p50, p95, p99 = (
        float(np.searchsorted(cumulative, np.ceil(q * cumulative[-1]))) for q in (0.5, 0.95, 0.99)
    )
    return p50, p95, p99
