"""From samples of replicas to stretches of ten minutes in which none of them was idle.

Everything but the KV cache is counted; the KV cache is a gauge that is seen at each scrape.  What
of it is missed between two scrapes is an error whose size the samples tell themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scaler.ops.record_trace import Lengths, quantiles
from scaler.signals.samples import PodSample

Floats = npt.NDArray[np.float64]

WINDOW_S = 600.0  # many times what a request takes, so that those which finished are those computed
RUNNING_MIN = 2.0  # at every scrape of a window: an engine with less may have been idle in between
GAP_SCRAPES = 4.0  # a replica with a longer hole in its samples is left out of the window
_SHARES = (np.arange(400, dtype=np.float64) + 0.5) / 400.0
_MOMENT_SHARES = (np.arange(50_000, dtype=np.float64) + 0.5) / 50_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What the replicas did in a stretch without idling; see ``simulations.calibration``."""

    span_s: float
    steps: float
    seq_steps: float
    kv_token_steps: float
    kv_token_variance: float
    prefill_tokens: float
    attention_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One replica's share of a stretch; ``even`` and ``odd`` are every second sample's sums."""

    span_s: float
    scrapes: int
    steps: float
    seq_steps: float
    prompt_tokens: float
    cached_tokens: float
    finished: float
    residence_s: float  # of all requests together: Little's law gives that of one
    kv_even: float
    kv_odd: float
    running_even: float
    running_odd: float


def part(series: Sequence[PodSample], block_size: int, *, tick_s: float) -> Part | None:
    """A replica's share; None where it may have idled, was restarted, preempted or not seen."""
    if len(series) < 3 or min(sample.running or 0.0 for sample in series) < RUNNING_MIN:
        return None
    first, last = series[0], series[-1]
    times = [sample.at_s for sample in series]
    steps, output = grown(first, last, "engine_steps"), grown(first, last, "output_tokens")
    finished = grown(first, last, "finished")
    if max(np.diff(times)) > GAP_SCRAPES * tick_s or min(steps, output, finished) <= 0.0:
        return None
    if grown(first, last, "preemptions") != 0.0:
        return None
    kv = np.array([_context(sample, block_size) for sample in series])
    running = np.array([sample.running or 0.0 for sample in series])
    began = finished + grown(first, last, "running")
    return Part(
        span_s=times[-1] - times[0],
        scrapes=len(series) - 1,
        steps=steps,
        seq_steps=max(output - began, 0.0),  # a first token comes from its prefill
        prompt_tokens=max(grown(first, last, "prompt_tokens"), 0.0),
        cached_tokens=max(grown(first, last, "cached_tokens"), 0.0),
        finished=finished,
        residence_s=float(running.mean()) * (times[-1] - times[0]),
        kv_even=float(kv[::2].sum()),
        kv_odd=float(kv[1::2].sum()),
        running_even=float(running[::2].sum()),
        running_odd=float(running[1::2].sum()),
    )


def _context(sample: PodSample, block_size: int) -> float:
    """Tokens in the KV cache; the last block of each request is half full on average."""
    held = (sample.kv_mean_ratio or 0.0) * (sample.kv_capacity_tokens or 0.0)
    return max(held - (sample.running or 0.0) * block_size / 2.0, 0.0)


def grown(first: PodSample, last: PodSample, name: str) -> float:
    """By how much a number grew."""
    return (getattr(last, name) or 0.0) - (getattr(first, name) or 0.0)


def stretch(parts: Sequence[Part], outputs: Floats, attention: float) -> Stretch:
    """The replicas' shares in one.

    The context of a sequence is that of the samples, the number of sequences is counted: how many
    ran at the scrapes does not matter then.  ``outputs`` are lengths by their mean,
    ``attention`` is what ``Attention`` tells of the stretch.
    """
    total = {
        name: sum(getattr(one, name) for one in parts)
        for name in ("seq_steps", "prompt_tokens", "cached_tokens", "finished", "residence_s",
                     "kv_even", "kv_odd", "running_even", "running_odd")
    }  # fmt: skip
    seq_steps, span_s = total["seq_steps"], sum(one.span_s for one in parts)
    even = total["kv_even"] / total["running_even"]
    odd = total["kv_odd"] / total["running_odd"]
    both = (total["kv_even"] + total["kv_odd"]) / (total["running_even"] + total["running_odd"])
    scrape_s = span_s / sum(one.scrapes for one in parts)
    seen = total["residence_s"] / total["finished"] / scrape_s
    prefill = max(total["prompt_tokens"] - total["cached_tokens"], 0.0)
    hit_ratio = total["cached_tokens"] / total["prompt_tokens"] if total["prompt_tokens"] else 0.0
    return Stretch(
        span_s=span_s,
        steps=sum(one.steps for one in parts),
        seq_steps=seq_steps,
        kv_token_steps=both * seq_steps,
        kv_token_variance=((even - odd) * seq_steps / 2.0) ** 2 * missed_share(seen * outputs),
        prefill_tokens=prefill,
        # What was in the cache is in front of every token: (p^2 - c^2) / 2 over p - c tokens.
        attention_tokens=prefill * attention * (1.0 + hit_ratio),
    )


def residence_s(parts: Sequence[Part]) -> float:
    """How long a request runs, by Little's law."""
    return sum(one.residence_s for one in parts) / sum(one.finished for one in parts)


def missed_share(scrapes: Floats) -> float:
    """The error of a sampled sum, as a share of what every second sample's difference tells of it.

    A request that runs for k + f scrape intervals, f in [0, 1), is in k of the samples, or with
    probability f in k + 1: the variance of that count is f * (1 - f).  In the difference of even
    and odd samples it counts once where the count is odd.  Where a request runs for less than an
    interval the share is 1 - f; the longer requests run the less is missed.
    """
    whole = np.floor(scrapes)
    rest = scrapes - whole
    odd = np.where(whole % 2.0 == 0.0, rest, 1.0 - rest)
    told = float(odd.sum())
    return float((rest * (1.0 - rest)).sum()) / told if told > 0.0 else 0.0


def relative_outputs(outputs: Lengths) -> Floats:
    """How long requests run by their mean: as the tokens that they bring, else exponentially."""
    table = outputs.whole()
    lengths = -np.log(1.0 - _SHARES) if table is None else quantiles(*table, _SHARES)
    made: Floats = lengths / lengths.mean()
    return made


class Attention:
    """The mean number of tokens in front of a prompt's token, of the prompts of some time.

    Half the sum of squared lengths over the sum of lengths; within a bucket of the histogram they
    are those of all the time.
    """

    def __init__(self, prompts: Lengths) -> None:
        self._prompts = prompts
        self._times = np.array(sorted(prompts.by_end_s))
        self._moments: Mapping[tuple[float, ...], tuple[Floats, Floats]] = {}
        table = prompts.whole()
        if table is not None:
            bounds, _ = table
            lengths = quantiles(*table, _MOMENT_SHARES)
            place = np.minimum(np.searchsorted(bounds, lengths), bounds.size - 1)
            sums = (np.bincount(place, lengths**power, bounds.size) for power in (1, 2))
            each = np.maximum(np.bincount(place, minlength=bounds.size), 1)
            first, second = (one / each for one in sums)
            self._moments = {tuple(bounds.tolist()): (first, second)}

    def at(self, end_s: float) -> float | None:
        """Of the requests that finished in the window up to ``end_s``; None where not known."""
        if not self._times.size:
            return None
        nearest_s = float(self._times[np.argmin(np.abs(self._times - end_s))])
        bounds, counts = self._prompts.by_end_s[nearest_s]
        moments = self._moments.get(tuple(bounds.tolist()))
        if moments is None or abs(nearest_s - end_s) > WINDOW_S / 10.0:
            return None
        sums = float(np.dot(counts, moments[0])), float(np.dot(counts, moments[1]))
        return sums[1] / sums[0] / 2.0 if sums[0] > 0.0 else None
