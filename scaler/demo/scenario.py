"""What the demonstration plays: requests, the replicas that serve them, and the cluster's size."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scaler.errors import ScenarioError
from simulations.presets import PRESETS
from simulations.replica import ReplicaModel
from simulations.trace_chunks import Requests, join, merge, shifted
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate

SEED = 7
DURATION_S = 2700.0
TRACE_DURATION_S = 3600.0  # played of a file, unless told otherwise
GPUS_PER_NODE = 8

# A day in half an hour, from 3 requests/s to 13 and back; soon after its height a flash crowd of 16
# more arrives at once and goes away over minutes; then a quiet evening in which replicas are given
# back.  Prompts as in Azure's chat trace, but none so long that it alone takes the objective.
DAY_S = 1800.0
FLASH_AT_S = 1080.0
QUIET_PER_S = 3.0
PEAK_PER_S = 13.0
FLASH_PER_S = 16.0
FLASH_DECAY_S = 180.0
PROMPT = Lengths(median_tokens=1020.0, p95_tokens=4083.0, longest_tokens=8192)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All that a demonstration depends on; arrivals count from its beginning."""

    requests: Requests
    duration_s: float
    seed: int = SEED
    model: ReplicaModel = field(default_factory=lambda: PRESETS["llama-3.1-70b-h100-tp4"].model)
    model_name: str = "llama-3.1-70b-instruct"
    namespace: str = "llm"
    target: str = "vllm-llama-70b"
    replicas_first: int = 2
    replicas_max: int = 12
    nodes: int = 6
    ttft_slo_s: float = 2.0

    def __post_init__(self) -> None:
        """Raise ScenarioError where there is nothing to play or the nodes are too few."""
        if not 15.0 <= self.duration_s <= 7 * 86400.0:
            raise ScenarioError(f"duration_s = {self.duration_s:g}, must be in [15, 604800]")
        if len(self.requests) == 0:
            raise ScenarioError("the trace has no request in the time that is played")
        room = self.nodes * GPUS_PER_NODE // self.model.gpus_per_replica
        if not 1 <= self.replicas_first <= self.replicas_max <= room:
            raise ScenarioError(f"replicas_max = {self.replicas_max}, must be in [1, {room}]")


def story(duration_s: float = DURATION_S, *, seed: int = SEED) -> Scenario:
    """The embedded one: a day with a flash crowd, and quiet for as long as is asked."""
    day = TraceSpec(
        shape=Shape.DIURNAL,
        duration_s=DAY_S,
        rate_per_s=QUIET_PER_S,
        peak_per_s=PEAK_PER_S,
        period_s=DAY_S,
        prompt=PROMPT,
    )
    flash = TraceSpec(
        shape=Shape.FLASH_CROWD,
        duration_s=DAY_S,
        rate_per_s=0.0,
        peak_per_s=FLASH_PER_S,
        at_s=FLASH_AT_S,
        hold_s=FLASH_DECAY_S,
        prompt=PROMPT,
    )
    parts = [join(list(generate(day, seed=seed))), join(list(generate(flash, seed=seed + 1)))]
    if duration_s > DAY_S:
        quiet = TraceSpec(
            shape=Shape.CONSTANT,
            duration_s=duration_s - DAY_S,
            rate_per_s=QUIET_PER_S,
            prompt=PROMPT,
        )
        parts.append(shifted(join(list(generate(quiet, seed=seed + 2))), by_s=DAY_S))
    requests = merge(parts)
    played = requests.pick(requests.arrival_s < duration_s)
    return Scenario(requests=played, duration_s=duration_s, seed=seed)


def from_trace(path: Path, duration_s: float | None = None) -> Scenario:
    """The beginning of a trace file: ``duration_s`` of it, at most an hour where not given.

    Raises:
        ScenarioError: for a file that is no trace.
    """
    from simulations.traces import TraceReader  # noqa: PLC0415 - needs pyarrow, nothing else here does

    limit_s = TRACE_DURATION_S if duration_s is None else duration_s
    requests = join(list(_beginning(iter(TraceReader(path=path)), limit_s)))
    span_s = float(requests.arrival_s[-1]) if len(requests) else 0.0
    played_s = min(limit_s, max(span_s, 60.0)) if duration_s is None else duration_s
    return Scenario(requests=requests, duration_s=played_s)


def _beginning(chunks: Iterator[Requests], limit_s: float) -> Iterator[Requests]:
    """Requests of the first ``limit_s`` after the first arrival, which becomes 0."""
    first_s: float | None = None
    for chunk in chunks:
        first_s = float(chunk.arrival_s[0]) if first_s is None else first_s
        moved = shifted(chunk, by_s=-first_s)
        yield moved.pick(moved.arrival_s < limit_s)
        if moved.arrival_s[-1] >= limit_s:
            return
