"""From the history of engines to what a replica model is made of: busy minutes, limits, starts."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scaler.errors import SignalError
from scaler.ops.record_history import Asked, Store, chunks
from scaler.ops.record_ticks import Collected, collected, lives
from scaler.signals.readers import Readers
from scaler.signals.samples import PodSample

WINDOW_S = 60.0  # long enough that gauges at its scrapes are a mean, short enough to be of one load
RUNNING_MIN = 2.0  # at every scrape of a window: an engine with less may have been idle in between
_FIELDS = (
    "running", "finished", "prompt_tokens", "output_tokens", "engine_steps", "kv_mean_ratio",
    "kv_capacity_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyMinute:
    """What a replica did in a stretch without idling; see ``simulations.calibration``."""

    span_s: float
    steps: float
    seq_steps: float
    kv_token_steps: float
    prefill_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHistory:
    """What the window tells of one replica."""

    minutes: tuple[BusyMinute, ...]
    kv_blocks: int
    block_size: int
    running_max: int
    running_max_full: bool  # whether requests waited then: it may be the engine's limit
    hit_ratio: float
    start_up_s: tuple[float, ...]


def engine_history(asked: Asked, readers: Readers, store: Store) -> EngineHistory:
    """Read the history in the store.

    Raises:
        SignalError: what is needed is not there, and what that is.
    """
    known = lives(asked, chunks(asked, store))
    if not known.first_s:
        raise SignalError(
            f"no series of {asked.target.namespace}/{asked.target.name} in the window; series come"
            f" from {', '.join(sorted(known.others)) or 'nothing'}"
        )
    block_size, kv_blocks = _blocks(asked, store)
    book = _Book(block_size=block_size)
    for tick in collected(asked, readers, known, chunks(asked, store)):
        book.add(tick)
    if not book.samples:
        raise SignalError(f"no sample has all of {', '.join(_FIELDS)}: {book.missing}")
    return EngineHistory(
        minutes=tuple(book.minutes),
        kv_blocks=kv_blocks,
        block_size=block_size,
        running_max=int(book.running_max),
        running_max_full=book.full,
        hit_ratio=book.cached / book.prompts if book.prompts else 0.0,
        start_up_s=_start_ups(asked, store),
    )


class _Book:
    """Samples of every replica, cut into windows."""

    def __init__(self, *, block_size: int) -> None:
        self.minutes: list[BusyMinute] = []
        self.samples = 0
        self.missing = "no pod answered"
        self.running_max = 0.0
        self.full = False
        self.prompts = self.cached = 0.0
        self._block_size = block_size
        self._open: dict[str, list[PodSample]] = {}

    def add(self, tick: Collected) -> None:
        """Take in one tick."""
        for pod, sample in tick.samples.pods.items():
            if not isinstance(sample, PodSample):
                continue
            absent = [name for name in _FIELDS if getattr(sample, name) is None]
            if absent:
                self.missing = f"{pod} has no {', '.join(absent)}"
                continue
            series = self._open.setdefault(pod, [])
            if series and sample.at_s <= series[-1].at_s:
                continue
            self.samples += 1
            self._peak(sample)
            series.append(sample)
            if sample.at_s - series[0].at_s >= WINDOW_S - 1.0:
                self._close(series)
                self._open[pod] = [sample]

    def _peak(self, sample: PodSample) -> None:
        running = sample.running or 0.0
        if running > self.running_max:
            self.running_max, self.full = running, False
        if running == self.running_max and (sample.waiting or 0.0) > 0.0:
            self.full = True

    def _close(self, series: Sequence[PodSample]) -> None:
        first, last = series[0], series[-1]
        self.prompts += max(_grown(first, last, "prompt_tokens"), 0.0)
        self.cached += max(_grown(first, last, "cached_tokens"), 0.0)
        minute = _minute(series, self._block_size)
        if minute is not None:
            self.minutes.append(minute)


def _minute(series: Sequence[PodSample], block_size: int) -> BusyMinute | None:
    """A busy stretch; None where the engine may have idled, was restarted or preempted."""
    first, last = series[0], series[-1]
    span_s = last.at_s - first.at_s
    steps = _grown(first, last, "engine_steps")
    output = _grown(first, last, "output_tokens")
    began = _grown(first, last, "finished") + _grown(first, last, "running")
    if min(sample.running or 0.0 for sample in series) < RUNNING_MIN or span_s > 2.0 * WINDOW_S:
        return None
    if steps <= 0.0 or output <= 0.0 or _grown(first, last, "preemptions") != 0.0:
        return None
    prefill = _grown(first, last, "prompt_tokens") - _grown(first, last, "cached_tokens")
    context = _mean(_context(sample, block_size) for sample in series)
    return BusyMinute(
        span_s=span_s,
        steps=steps,
        seq_steps=max(output - began, 0.0),  # a first token comes from its prefill
        kv_token_steps=context * steps,
        prefill_tokens=max(prefill, 0.0),
    )


def _context(sample: PodSample, block_size: int) -> float:
    """Tokens in the KV cache; the last block of each request is half full on average."""
    held = (sample.kv_mean_ratio or 0.0) * (sample.kv_capacity_tokens or 0.0)
    return max(held - (sample.running or 0.0) * block_size / 2.0, 0.0)


def _grown(first: PodSample, last: PodSample, name: str) -> float:
    return (getattr(last, name) or 0.0) - (getattr(first, name) or 0.0)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _blocks(asked: Asked, store: Store) -> tuple[int, int]:
    """Block size and number of blocks, from the labels of ``cache_config_info``."""
    for labels in _labels(asked, store, "info"):
        try:
            return int(labels["block_size"]), int(labels["num_gpu_blocks"])
        except (KeyError, ValueError):
            continue  # another series of the same query, or a label that says "None"
    raise SignalError("no cache_config_info with block_size and num_gpu_blocks in the window")


def _labels(asked: Asked, store: Store, name: str) -> Iterator[dict[str, str]]:
    for _, rows in chunks(asked, store):
        for labels, _ in rows.get(name, ()):
            yield labels


def _start_ups(asked: Asked, store: Store) -> tuple[float, ...]:
    """From creation to ready of each pod of the target, by kube-state-metrics."""
    prefix = f"{asked.target.name}-"
    found: dict[str, float] = {}
    for _, rows in chunks(asked, store):
        for labels, points in rows.get("start_ups", ()):
            pod = labels.get("pod", "")
            for _, value in points:
                if pod.startswith(prefix) and math.isfinite(value) and value > 0.0:
                    # A pod that was ready before is ready anew later: its first time counts.
                    found[pod] = min(value, found.get(pod, math.inf))
    return tuple(found[pod] for pod in sorted(found))
