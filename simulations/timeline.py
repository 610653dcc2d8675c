"""One row a tick of what was seen and decided, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scaler.core.model import Decision, Latency, NoData, Observation
from simulations.trace_chunks import Floats

UNSEEN = float("nan")
ROWS_AT_ONCE = 512
TTFT_SHARE = 0.95

COLUMNS = (
    "at_s", "arrivals_per_s", "waiting", "running", "kv_cache_ratio", "gpu_util_ratio",
    "ttft_p95_s", "requests_per_s", "request_cost_s", "load", "forecast_lead_s",
    "forecast_load_mean", "forecast_load_upper", "forecast_skill", "replicas_desired",
    "replicas_wanted", "replicas_ready", "replicas_starting", "replicas_unschedulable",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """``numbers`` has a row for each tick and the columns of ``COLUMNS``; NaN is not seen.

    ``arrivals_per_s`` is the truth since the tick before; ``waiting`` to ``ttft_p95_s`` are as the
    policy saw them; ``requests_per_s`` to ``forecast_skill`` are its estimates, loads in replicas'
    worth of busy time; ``replicas_desired`` is the decision, ``replicas_wanted`` spec.replicas.
    ``faults`` names the kinds of injected faults that were there, joined by a plus sign.
    """

    numbers: Floats
    decided_by: npt.NDArray[np.str_]
    faults: npt.NDArray[np.str_]

    def column(self, name: str) -> Floats:
        """One column."""
        return self.numbers[:, COLUMNS.index(name)]


class TimelineWriter:
    """Collects rows; ``policy`` stands in ``decided_by`` where no stage of ours decides."""

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self._rows: list[tuple[float, ...]] = []
        self._ttft: list[Latency | NoData] = []  # of the same ticks; their p95 is reckoned at once
        self._done: list[Floats] = []
        self._decided_by: list[str] = []
        self._faults: list[str] = []
        self._last_s = 0.0
        self._last_arrived = 0

    def add(
        self,
        observation: Observation,
        decision: Decision | None,
        *,
        arrived: int,
        wanted: int,
        faults: str = "",
    ) -> None:
        """Add a tick; ``arrived`` counts the requests so far."""
        now_s = observation.seen_at_s
        span_s = now_s - self._last_s
        rate = (arrived - self._last_arrived) / span_s if span_s > 0.0 else 0.0
        self._last_s, self._last_arrived = now_s, arrived
        self._rows.append(
            (now_s, rate, *_signals(observation), *_estimates(decision), *_counts(
                observation, decision, wanted
            ))
        )  # fmt: skip
        self._ttft.append(observation.ttft)
        if len(self._rows) == ROWS_AT_ONCE:
            self._reckon()
        self._faults.append(faults)
        self._decided_by.append(self._policy if decision is None else decision.decided_by.value)

    def timeline(self) -> Timeline:
        """All rows so far."""
        self._reckon()
        return Timeline(
            numbers=np.concatenate(self._done),
            decided_by=np.array(self._decided_by, dtype=np.str_),
            faults=np.array(self._faults, dtype=np.str_),
        )

    def _reckon(self) -> None:
        """Rows as arrays, with what is cheaper for many at once."""
        numbers = np.array(self._rows, dtype=np.float64).reshape(-1, len(COLUMNS))
        latencies = [seen for seen in self._ttft if not isinstance(seen, NoData)]
        seen = np.array([not isinstance(seen, NoData) for seen in self._ttft], dtype=np.bool_)
        numbers[seen, COLUMNS.index("ttft_p95_s")] = percentiles(latencies, TTFT_SHARE)
        self._done.append(numbers)
        self._rows, self._ttft = [], []


def _signals(seen: Observation) -> tuple[float, ...]:
    queue, kv, gpu = seen.queue, seen.kv_cache, seen.gpu
    return (
        UNSEEN if isinstance(queue, NoData) else queue.requests_waiting,
        UNSEEN if isinstance(queue, NoData) else queue.requests_running,
        UNSEEN if isinstance(kv, NoData) else kv.usage_mean_ratio,
        UNSEEN if isinstance(gpu, NoData) else gpu.utilisation_mean_ratio,
        UNSEEN,  # the p95 of the TTFT
    )


def percentiles(latencies: Sequence[Latency], share: float) -> Floats:
    """The percentile of each by linear interpolation inside its bucket, as ``histogram_quantile``.

    NaN of an empty histogram; the highest bound where the percentile is above it.  All have the
    same bounds.
    """
    if not latencies:
        return np.empty(0)
    counts = np.array([latency.counts for latency in latencies])
    bounds_s = np.array(latencies[0].bounds_s)
    up_to = np.cumsum(counts, axis=1)
    rank = share * up_to[:, -1]
    bucket = np.sum(up_to < rank[:, np.newaxis], axis=1)
    inside = np.minimum(bucket, len(bounds_s) - 1)
    rows = np.arange(len(counts))
    below_s = np.where(inside > 0, bounds_s[inside - 1], 0.0)
    before = np.where(inside > 0, up_to[rows, inside - 1], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):  # of histograms that are empty
        found_s = below_s + (bounds_s[inside] - below_s) * (rank - before) / counts[rows, inside]
    found_s = np.where(bucket == len(bounds_s), bounds_s[-1], found_s)
    made: Floats = np.where(up_to[:, -1] > 0.0, found_s, UNSEEN)
    return made


def _estimates(decision: Decision | None) -> tuple[float, ...]:
    demand = decision.demand if decision is not None else None
    capacity = decision.capacity if decision is not None else None
    forecast = decision.forecast if decision is not None else None
    if demand is None or capacity is None or forecast is None:
        return (UNSEEN,) * 7
    return (
        demand.requests_per_s,
        capacity.request_cost_s,
        demand.requests_per_s * capacity.request_cost_s,
        forecast.lead_s,
        forecast.load_mean,
        forecast.load_upper,
        forecast.skill,
    )


def _counts(seen: Observation, decision: Decision | None, wanted: int) -> tuple[float, ...]:
    replicas = seen.replicas
    assert not isinstance(replicas, NoData), "the simulated Kubernetes API is always there"
    desired = wanted if decision is None else decision.replicas_desired
    return (
        float(desired),
        float(wanted),
        float(replicas.ready),
        float(replicas.starting),
        float(replicas.unschedulable),
    )
