"""Seeded synthetic traces: a rate over time, Poisson arrivals under it, lognormal lengths."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from scaler.errors import ScenarioError
from simulations.streams import generator
from simulations.trace_chunks import Requests

WINDOW_S = 600.0  # arrivals are drawn a window at a time

LONGEST_TOKENS = 32768
TOKENS_MAX = 2**30

Floats = npt.NDArray[np.float64]


class Shape(StrEnum):
    """How the load runs over time."""

    CONSTANT = "constant"  # rate_per_s
    DIURNAL = "diurnal"  # from rate_per_s up to peak_per_s and back, each period_s
    RAMP = "ramp"  # linear from rate_per_s to peak_per_s over the whole trace
    STEP = "step"  # peak_per_s from at_s on
    FLASH_CROWD = "flash-crowd"  # peak_per_s at at_s, decaying back with time constant hold_s
    ON_OFF = "on-off"  # peak_per_s for hold_s of each period_s, rate_per_s else
    MIX_SHIFT = "mix-shift"  # rate_per_s, lengths going over to the later ones from at_s for hold_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lognormal token lengths by median and 95th percentile, at least 1, at most ``longest``."""

    median_tokens: float
    p95_tokens: float
    longest_tokens: int = LONGEST_TOKENS

    def __post_init__(self) -> None:
        """Raise ScenarioError for lengths that cannot be."""
        if not 1.0 <= self.median_tokens <= self.p95_tokens <= 1e9:
            raise ScenarioError(
                f"median_tokens, p95_tokens = {self.median_tokens:g}, {self.p95_tokens:g},"
                " must be 1 <= median <= p95 <= 1e9"
            )
        if not 1 <= self.longest_tokens <= TOKENS_MAX:
            raise ScenarioError(
                f"longest_tokens = {self.longest_tokens}, must be in [1, {TOKENS_MAX}]"
            )

    def draw(self, random: np.random.Generator, count: int) -> npt.NDArray[np.int32]:
        """``count`` lengths; sigma = ln(p95 / median) / 1.645."""
        sigma = math.log(self.p95_tokens / self.median_tokens) / 1.6448536269514722
        drawn = self.median_tokens * np.exp(sigma * random.standard_normal(count))
        return np.clip(np.rint(drawn), 1, self.longest_tokens).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSpec:
    """What to generate; ``Shape`` says which of the times each shape uses."""

    shape: Shape
    duration_s: float
    rate_per_s: float
    peak_per_s: float = 0.0
    at_s: float = 0.0
    hold_s: float = 300.0
    period_s: float = 86400.0
    prompt: Lengths = field(
        default_factory=lambda: Lengths(median_tokens=1020.0, p95_tokens=4083.0)
    )
    output: Lengths = field(default_factory=lambda: Lengths(median_tokens=129.0, p95_tokens=451.0))
    later_prompt: Lengths = field(
        default_factory=lambda: Lengths(median_tokens=4000.0, p95_tokens=16000.0)
    )
    later_output: Lengths = field(
        default_factory=lambda: Lengths(median_tokens=60.0, p95_tokens=200.0)
    )

    def __post_init__(self) -> None:
        """Reject what no trace can be; raises ScenarioError."""
        for name, low in (("duration_s", 0.0), ("hold_s", 0.0), ("period_s", 0.0)):
            value = getattr(self, name)
            if not low < value <= 1e9:
                raise ScenarioError(f"{name} = {value}, must be in (0, 1e9]")
        for name in ("rate_per_s", "peak_per_s"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1e6:
                raise ScenarioError(f"{name} = {value}, must be in [0, 1e6]")
        if not 0.0 <= self.at_s <= 1e9:
            raise ScenarioError(f"at_s = {self.at_s}, must be in [0, 1e9]")
        if max(self.rate_per_s, self._peak()) <= 0.0:
            raise ScenarioError(f"rate_per_s = {self.rate_per_s}, must be above 0")

    def _peak(self) -> float:
        uses_peak = self.shape not in (Shape.CONSTANT, Shape.MIX_SHIFT)
        return self.peak_per_s if uses_peak else 0.0

    @property
    def highest_per_s(self) -> float:
        """A bound of the rate."""
        return max(self.rate_per_s, self._peak())

    def rate_at(self, at_s: Floats) -> Floats:
        """Requests per second at each time."""
        base, peak = self.rate_per_s, self.peak_per_s
        match self.shape:
            case Shape.CONSTANT | Shape.MIX_SHIFT:
                raised = np.zeros_like(at_s)
            case Shape.DIURNAL:
                raised = 0.5 * (1.0 - np.cos(2.0 * np.pi * at_s / self.period_s))
            case Shape.RAMP:
                raised = at_s / self.duration_s
            case Shape.STEP:
                raised = (at_s >= self.at_s).astype(np.float64)
            case Shape.FLASH_CROWD:
                since_s = np.maximum(at_s - self.at_s, 0.0)
                raised = np.where(at_s >= self.at_s, np.exp(-since_s / self.hold_s), 0.0)
            case Shape.ON_OFF:
                raised = ((at_s % self.period_s) < self.hold_s).astype(np.float64)
        return base + (peak - base) * raised


def generate(spec: TraceSpec, *, seed: int) -> Iterator[Requests]:
    """Chunks of a Poisson process with the spec's rate, by thinning (Lewis and Shedler 1979)."""
    arrivals = generator(seed, "generate.arrivals")
    lengths = generator(seed, "generate.lengths")
    for window in range(math.ceil(spec.duration_s / WINDOW_S)):
        begin_s = window * WINDOW_S
        width_s = min(WINDOW_S, spec.duration_s - begin_s)
        count = int(arrivals.poisson(spec.highest_per_s * width_s))
        at_s = np.sort(begin_s + width_s * arrivals.random(count))
        kept = at_s[arrivals.random(count) * spec.highest_per_s < spec.rate_at(at_s)]
        if kept.size:
            yield _with_lengths(kept, spec, lengths)


def _with_lengths(at_s: Floats, spec: TraceSpec, random: np.random.Generator) -> Requests:
    prompt = spec.prompt.draw(random, at_s.size)
    output = spec.output.draw(random, at_s.size)
    if spec.shape == Shape.MIX_SHIFT:
        share = np.clip((at_s - spec.at_s) / spec.hold_s, 0.0, 1.0)
        later = random.random(at_s.size) < share
        prompt = np.where(later, spec.later_prompt.draw(random, at_s.size), prompt)
        output = np.where(later, spec.later_output.draw(random, at_s.size), output)
    return Requests(
        arrival_s=at_s,
        prompt_tokens=prompt,
        output_tokens=output,
        tenant=np.zeros(at_s.size, dtype=np.int32),
    )
