"""From the history of engines to what a replica model is made of: stretches, limits, starts."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scaler.errors import SignalError
from scaler.ops.calibrate_stretches import (
    WINDOW_S,
    Attention,
    Part,
    Stretch,
    grown,
    part,
    relative_outputs,
    residence_s,
    stretch,
)
from scaler.ops.record_history import Asked, Store, chunks
from scaler.ops.record_ticks import Collected, collected, lives
from scaler.ops.record_trace import Lengths, read_lengths
from scaler.signals.readers import Readers
from scaler.signals.samples import PodSample

_FIELDS = (
    "running", "finished", "prompt_tokens", "output_tokens", "engine_steps", "kv_mean_ratio",
    "kv_capacity_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHistory:
    """What the window tells of one replica."""

    stretches: tuple[Stretch, ...]
    attention: bool  # whether histograms tell the lengths of prompts
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
    book = _Book(block_size=block_size, tick_s=asked.tick_s)
    for tick in collected(asked, readers, known, chunks(asked, store)):
        book.add(tick)
    if not book.samples:
        raise SignalError(f"no sample has all of {', '.join(_FIELDS)}: {book.missing}")
    prompts, outputs = (
        read_lengths((rows.get(name, []) for _, rows in chunks(asked, store)), asked.target)
        for name in ("prompt_lengths", "output_lengths")
    )
    return EngineHistory(
        stretches=tuple(_stretches(book.windows, prompts, outputs)),
        attention=bool(prompts.by_end_s),
        kv_blocks=kv_blocks,
        block_size=block_size,
        running_max=int(book.running_max),
        running_max_full=book.full,
        hit_ratio=book.cached / book.prompts if book.prompts else 0.0,
        start_up_s=_start_ups(asked, store),
    )


def _stretches(
    windows: Iterable[tuple[float, Sequence[Part]]], prompts: Lengths, outputs: Lengths
) -> Iterator[Stretch]:
    """Prompts are counted when their requests finish: as much later as those run."""
    attention, relative = Attention(prompts), relative_outputs(outputs)
    for end_s, parts in windows:
        tokens = attention.at(end_s + residence_s(parts)) if prompts.by_end_s else 0.0
        if tokens is not None:
            yield stretch(parts, relative, tokens)


class _Book:
    """Samples of every replica, cut into windows."""

    def __init__(self, *, block_size: int, tick_s: float) -> None:
        self.windows: list[tuple[float, list[Part]]] = []
        self.samples = 0
        self.missing = "no pod answered"
        self.running_max = 0.0
        self.full = False
        self.prompts = self.cached = 0.0
        self._block_size = block_size
        self._tick_s = tick_s
        self._end_s = -math.inf
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
        if tick.at_s >= self._end_s:
            if math.isfinite(self._end_s):
                self._close(tick.at_s)
            self._end_s = tick.at_s + WINDOW_S - 0.5 * self._tick_s

    def _peak(self, sample: PodSample) -> None:
        running = sample.running or 0.0
        if running > self.running_max:
            self.running_max, self.full = running, False
        if running == self.running_max and (sample.waiting or 0.0) > 0.0:
            self.full = True

    def _close(self, at_s: float) -> None:
        """The last sample of a window is the first of the next."""
        parts = []
        for series in self._open.values():
            self.prompts += max(grown(series[0], series[-1], "prompt_tokens"), 0.0)
            self.cached += max(grown(series[0], series[-1], "cached_tokens"), 0.0)
            made = part(series, self._block_size, tick_s=self._tick_s)
            if made is not None:
                parts.append(made)
        if parts:
            self.windows.append((at_s, parts))
        fresh_s = at_s - WINDOW_S
        self._open = {
            pod: series[-1:] for pod, series in self._open.items() if series[-1].at_s > fresh_s
        }


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
