"""A trace from what the engines counted: arrivals by balance, lengths by histogram.

Arrivals of a round are the change of finished, running, waiting and rejected requests; when they
came within the round is not known, and they are spread evenly at random (a Poisson process, given
its count, is just that).  Lengths are drawn from the histograms of the requests that finished
around then, and scaled so that their sums are those of the token counters.
"""

import gzip
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scaler.core.model import Observation, Work
from scaler.errors import SignalError
from scaler.ops.record_history import LENGTHS_EVERY_S, Rows
from scaler.signals.samples import TargetRef

Floats = npt.NDArray[np.float64]
_PARTS = 64  # a bucket's curve is followed in so many straight lines
_SCALES = (0.5, 2.0)  # beyond it histogram and counters are not of the same requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What came and was done between two scrapes; tokens are those that were computed then."""

    begin_s: float
    end_s: float
    arrived: float
    prompt_tokens: float
    output_tokens: float
    finished: float
    finished_prompt_tokens: float
    finished_output_tokens: float


class Rounds:
    """Collects the rounds of observations that follow each other."""

    def __init__(self) -> None:
        self.rounds: list[Round] = []
        self._seen_at_s = -math.inf

    def add(self, observation: Observation) -> None:
        """Take in one observation; a round that was there before counts once."""
        work = observation.work
        if not isinstance(work, Work) or work.seen_at_s <= self._seen_at_s:
            return
        begin_s = max(work.seen_at_s - work.interval_s, self._seen_at_s)
        self._seen_at_s = work.seen_at_s
        self.rounds.append(
            Round(
                begin_s=begin_s,
                end_s=work.seen_at_s,
                arrived=work.requests_arrived,
                prompt_tokens=work.prompt_tokens + work.cached_tokens,
                output_tokens=work.output_tokens,
                finished=work.requests_finished,
                finished_prompt_tokens=work.finished_prompt_tokens,
                finished_output_tokens=work.finished_output_tokens,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Requests in order of arrival; ``arrival_s`` counts from the beginning of the window."""

    arrival_s: Floats
    prompt_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.arrival_s.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Histograms of finished requests by the end of their stretch: bounds, counts per bucket."""

    by_end_s: Mapping[float, tuple[Floats, Floats]]

    def around(self, at_s: float) -> tuple[Floats, Floats] | None:
        """The histogram of the stretch that ``at_s`` is in, or of the nearest that has requests."""
        if not self.by_end_s:
            return None
        wanted_s = at_s + LENGTHS_EVERY_S / 2.0  # requests of now finish a little later
        nearest_s = min(
            self.by_end_s, key=lambda end_s: abs(end_s - LENGTHS_EVERY_S / 2.0 - wanted_s)
        )
        return self.by_end_s[nearest_s]

    def whole(self) -> tuple[Floats, Floats] | None:
        """All stretches in one, of the bounds that most have; None without a request."""
        shapes = Counter(tuple(bounds.tolist()) for bounds, _ in self.by_end_s.values())
        if not shapes:
            return None
        usual = shapes.most_common(1)[0][0]
        counts = [
            counts for bounds, counts in self.by_end_s.values() if tuple(bounds.tolist()) == usual
        ]
        total: Floats = np.sum(counts, axis=0)
        return np.array(usual), total


def read_lengths(parts: Iterable[Rows], target: TargetRef) -> Lengths:
    """The length histograms of a target, of all its models and engines."""
    counts: dict[float, dict[float, float]] = {}
    for rows in parts:
        for labels, points in rows:
            if labels.get("workload", "") != target.name:
                continue
            if target.model_name and labels.get("model_name", "") not in {target.model_name, ""}:
                continue
            bound = float(labels.get("le", "nan"))
            for at_s, value in points:
                if math.isfinite(value) and not math.isnan(bound):
                    table = counts.setdefault(at_s, {})
                    table[bound] = table.get(bound, 0.0) + value
    found = {at_s: _singles(table) for at_s, table in sorted(counts.items())}
    return Lengths(by_end_s={at_s: pair for at_s, pair in found.items() if pair is not None})


def _singles(table: Mapping[float, float]) -> tuple[Floats, Floats] | None:
    """Counts per bucket; None without a request, or without a bound below infinity."""
    bounds = np.array(sorted(table))
    counts = np.diff(np.array([table[bound] for bound in bounds]), prepend=0.0).clip(min=0.0)
    if bounds.size < 2 or counts.sum() < 0.5:
        return None
    return bounds, counts


def build_trace(
    rounds: Sequence[Round], prompts: Lengths, outputs: Lengths, *, from_s: float, seed: int
) -> Trace:
    """The trace of the rounds.

    Raises:
        SignalError: nothing arrived, or no length is known.
    """
    random = np.random.default_rng(seed)
    counts = _whole([round_.arrived for round_ in rounds])
    if not sum(counts):
        raise SignalError("no request arrived in the window, so there is no trace to write")
    arrivals = np.concatenate(
        [
            np.sort(random.uniform(round_.begin_s, round_.end_s, count))
            for round_, count in zip(rounds, counts, strict=True)
        ]
    )
    prompt = _lengths(arrivals, rounds, prompts, _PROMPTS, random)
    output = _lengths(arrivals, rounds, outputs, _OUTPUTS, random)
    kept = arrivals >= from_s
    return Trace(
        arrival_s=(arrivals - from_s)[kept],
        prompt_tokens=prompt[kept],
        output_tokens=output[kept],
    )


def _whole(amounts: Sequence[float]) -> list[int]:
    """Whole numbers with the same running sum."""
    sums = np.floor(np.cumsum(amounts) + 0.5)
    return [int(count) for count in np.diff(sums, prepend=0.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    name: str
    counted: str
    finished: str


_PROMPTS = _Kind(name="prompt", counted="prompt_tokens", finished="finished_prompt_tokens")
_OUTPUTS = _Kind(name="output", counted="output_tokens", finished="finished_output_tokens")


def _lengths(
    arrivals: Floats,
    rounds: Sequence[Round],
    lengths: Lengths,
    kind: _Kind,
    random: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """A length for every arrival: drawn by stretch, scaled to the means of what finished then."""
    stretch = np.floor((arrivals - arrivals[0]) / LENGTHS_EVERY_S).astype(int)
    drawn = np.empty(arrivals.size)
    for place in np.unique(stretch):
        mine = np.flatnonzero(stretch == place)
        middle_s = arrivals[0] + (place + 0.5) * LENGTHS_EVERY_S
        mean = _mean(rounds, kind, middle_s)
        table = lengths.around(middle_s)
        if mean is None and table is None:
            raise SignalError(
                f"no {kind.name} lengths: the engine has neither the histogram of request"
                f" {kind.name} tokens nor counters of tokens and finished requests"
            )
        if table is None:
            assert mean is not None
            drawn[mine] = random.exponential(mean, mine.size)  # of a mean alone the least assumed
        else:
            drawn[mine] = quantiles(*table, random.random(mine.size))
        if mean is not None and drawn[mine].sum() > 0.0:
            factor = mean * mine.size / drawn[mine].sum()
            drawn[mine] *= min(max(factor, _SCALES[0]), _SCALES[1])
    return _rounded(drawn * _global_factor(drawn, rounds, kind))


def _mean(rounds: Sequence[Round], kind: _Kind, at_s: float) -> float | None:
    """Tokens for each request that finished around ``at_s``, else over the whole window."""
    near = [r for r in rounds if abs(r.end_s - LENGTHS_EVERY_S / 2.0 - at_s) <= LENGTHS_EVERY_S]
    for chosen in (near, rounds):
        finished = sum(round_.finished for round_ in chosen)
        tokens = sum(getattr(round_, kind.finished) for round_ in chosen)
        if finished >= 1.0 and tokens > 0.0:
            return float(tokens / finished)
    return None


def _global_factor(drawn: Floats, rounds: Sequence[Round], kind: _Kind) -> float:
    """By how much the sum differs from what the token counters say of the whole window.

    Counters also hold what was in flight when the window began and lack what still is at its end,
    so that only a window with many times that is corrected, and by no more than a tenth.
    """
    arrived, finished = (
        sum(getattr(round_, name) for round_ in rounds) for name in ("arrived", "finished")
    )
    counted = sum(getattr(round_, kind.counted) for round_ in rounds)
    total = float(drawn.sum())
    if counted <= 0.0 or total <= 0.0 or abs(arrived - finished) > 0.02 * arrived:
        return 1.0
    return float(min(max(counted / total, 0.9), 1.1))


def quantiles(bounds: Floats, counts: Floats, shares: Floats) -> Floats:
    """Lengths at ``shares`` of a histogram's requests, by a smooth distribution through its counts.

    The distribution is a monotone cubic (Fritsch and Butland 1984) in the logarithm of the length,
    which keeps every bucket's count.  Buckets of vLLM double, and lengths spread evenly within them
    have a standard deviation 8 to 10 % too wide, which costs replicas when they are simulated.
    The last bucket has no end; it is taken to be as wide as the one below it, by its ratio.
    """
    upper = bounds.copy()
    if not math.isfinite(upper[-1]):
        upper[-1] = upper[-2] * (upper[-2] / upper[-3] if upper.size > 2 else 2.0)
    at = np.log(np.concatenate(([min(0.5, upper[0] / 2.0)], upper)))
    below = np.concatenate(([0.0], np.cumsum(counts))) / counts.sum()
    width, slopes = np.diff(at), _slopes(at, below)
    part = np.linspace(0.0, 1.0, _PARTS + 1)  # of each bucket
    rest = 1.0 - part
    curve = (
        np.outer(below[:-1], rest * rest * (1.0 + 2.0 * part))
        + np.outer(below[1:], part * part * (3.0 - 2.0 * part))
        + np.outer(width * slopes[:-1], part * rest * rest)
        - np.outer(width * slopes[1:], part * part * rest)
    )
    places = at[:-1, None] + np.outer(width, part)
    rising = np.maximum.accumulate(curve.ravel())  # it is, but for rounding
    made: Floats = np.exp(np.interp(shares, rising, places.ravel()))
    return made


def _slopes(at: Floats, below: Floats) -> Floats:
    """Slopes at the bounds: the weighted harmonic mean of the densities beside each, 0 beside none.

    PCHIP's: w1 = 2 * width_right + width_left, w2 = width_right + 2 * width_left,
    slope = (w1 + w2) / (w1 / density_left + w2 / density_right).
    """
    width = np.diff(at)
    density = np.diff(below) / width
    left, right = density[:-1], density[1:]
    first, second = 2.0 * width[1:] + width[:-1], width[1:] + 2.0 * width[:-1]
    made = np.zeros(at.size)
    both = np.flatnonzero((left > 0.0) & (right > 0.0))
    shares = first[both] / left[both] + second[both] / right[both]
    made[both + 1] = (first + second)[both] / shares
    return made


def _rounded(drawn: Floats) -> npt.NDArray[np.int64]:
    """Whole tokens with the same running sum, at least one each."""
    sums = np.floor(np.cumsum(drawn) + 0.5)
    whole: npt.NDArray[np.int64] = np.maximum(np.diff(sums, prepend=0.0), 1.0).astype(np.int64)
    return whole


def write_csv(path: Path, trace: Trace) -> None:
    """The trace as a native file; ``.gz`` without a time in it, so that equal traces are equal."""
    beside = path.with_name(path.name + ".new")
    with (
        beside.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
    ):
        packed.write(b"arrival_s,prompt_tokens,output_tokens\n")
        for arrival_s, prompt, output in zip(
            trace.arrival_s.tolist(),
            trace.prompt_tokens.tolist(),
            trace.output_tokens.tolist(),
            strict=True,
        ):
            packed.write(f"{arrival_s:.4f},{prompt},{output}\n".encode())
    beside.replace(path)
