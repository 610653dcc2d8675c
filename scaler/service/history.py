"""The last hours of every target in memory, for the live page: bounded, oldest first forgotten."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaler.core.model import Decision, NoData, Stage
from scaler.service.board import TriggerKey
from scaler.service.loop import TickReport

ROWS_MAX = 480  # two hours of 15 s ticks; 29 kB a target
COLUMNS = (
    "at_s",
    "desired",
    "published",
    "wanted",
    "ready",
    "starting",
    "running",
    "waiting",
    "kv_cache_ratio",
    "gpu_util_ratio",
    "ttft_p95_s",
    "load",
    "forecast_upper",
    "decided_by",
)
_STAGES = tuple(Stage)


@dataclass(slots=True)
class _Ring:
    """Times need every digit; counts and ratios do not."""

    at_s: NDArray[np.float64]
    values: NDArray[np.float32]
    filled: int = 0


class History:
    """A ring of rows per trigger; column ``decided_by`` is the index of the stage."""

    def __init__(self, rows_max: int = ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._rings: dict[TriggerKey, _Ring] = {}

    def take(self, report: TickReport) -> None:
        """Append one row per decided trigger; forget dropped ones."""
        for entry in report.entries:
            decision = entry.decision
            if decision is None or decision.at_s != report.at_s:
                continue
            ring = self._rings.get(entry.key)
            if ring is None:
                ring = self._rings[entry.key] = _Ring(
                    at_s=np.empty(self._rows_max, dtype=np.float64),
                    values=np.empty((self._rows_max, len(COLUMNS) - 1), dtype=np.float32),
                )
            place = ring.filled % self._rows_max
            row = row_of(decision)
            ring.at_s[place], ring.values[place] = row[0], row[1:]
            ring.filled += 1
        for key in report.dropped:
            self._rings.pop(key, None)

    def rows(self, key: TriggerKey) -> list[list[float | None]]:
        """The rows of a trigger in order of time; None where there was no data."""
        ring = self._rings.get(key)
        if ring is None:
            return []
        count = min(ring.filled, self._rows_max)
        start = ring.filled - count
        order = (np.arange(start, start + count)) % self._rows_max
        found = np.column_stack((ring.at_s[order], ring.values[order])).tolist()
        return [[None if value != value else value for value in row] for row in found]  # noqa: PLR0124 - NaN


def row_of(decision: Decision) -> tuple[float, ...]:
    """One decision as a row of ``COLUMNS``; NaN where there was no data."""
    seen = decision.observation
    replicas, queue, kv, gpu = seen.replicas, seen.queue, seen.kv_cache, seen.gpu
    load = upper = np.nan
    if decision.demand is not None and decision.capacity is not None:
        load = decision.demand.requests_per_s * decision.capacity.request_cost_s
    if decision.forecast is not None:
        upper = decision.forecast.load_upper
    counts = (np.nan, np.nan, np.nan)
    if not isinstance(replicas, NoData):
        counts = (replicas.wanted, replicas.ready, replicas.starting)
    return (
        decision.at_s,
        decision.would_be,
        decision.replicas_desired,
        *counts,
        np.nan if isinstance(queue, NoData) else queue.requests_running,
        np.nan if isinstance(queue, NoData) else queue.requests_waiting,
        np.nan if isinstance(kv, NoData) else kv.usage_mean_ratio,
        np.nan if isinstance(gpu, NoData) else gpu.utilisation_mean_ratio,
        _ttft_p95_s(decision),
        load,
        upper,
        _STAGES.index(decision.decided_by),
    )


def _ttft_p95_s(decision: Decision) -> float:
    """The 95th percentile of TTFT, interpolated in its bucket; NaN without requests."""
    latency = decision.observation.ttft
    if isinstance(latency, NoData) or latency.total <= 0.0:
        return np.nan
    wanted, below_s, passed = 0.95 * latency.total, 0.0, 0.0
    for bound_s, count in zip(latency.bounds_s, latency.counts, strict=False):
        if passed + count >= wanted and count > 0.0:
            return below_s + (bound_s - below_s) * (wanted - passed) / count
        passed += count
        below_s = bound_s
    return below_s
