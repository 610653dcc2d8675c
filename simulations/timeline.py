"""One row a tick of what was seen and decided, as arrays."""

import bisect
import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scaler.core.model import Decision, Latency, NoData, Observation
from simulations.trace_chunks import Floats

UNSEEN = float("nan")

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
        self._faults.append(faults)
        self._decided_by.append(self._policy if decision is None else decision.decided_by.value)

    def timeline(self) -> Timeline:
        """All rows so far."""
        return Timeline(
            numbers=np.array(self._rows, dtype=np.float64).reshape(-1, len(COLUMNS)),
            decided_by=np.array(self._decided_by, dtype=np.str_),
            faults=np.array(self._faults, dtype=np.str_),
        )


def _signals(seen: Observation) -> tuple[float, ...]:
    queue, kv, gpu = seen.queue, seen.kv_cache, seen.gpu
    return (
        UNSEEN if isinstance(queue, NoData) else queue.requests_waiting,
        UNSEEN if isinstance(queue, NoData) else queue.requests_running,
        UNSEEN if isinstance(kv, NoData) else kv.usage_mean_ratio,
        UNSEEN if isinstance(gpu, NoData) else gpu.utilisation_mean_ratio,
        UNSEEN if isinstance(seen.ttft, NoData) else percentile(seen.ttft, 0.95),
    )


def percentile(latency: Latency, share: float) -> float:
    """The percentile by linear interpolation inside its bucket, as ``histogram_quantile`` does.

    NaN of an empty histogram; the highest bound where the percentile is above it.
    """
    up_to = list(itertools.accumulate(latency.counts))
    if up_to[-1] <= 0.0:
        return UNSEEN
    rank = share * up_to[-1]
    bucket = bisect.bisect_left(up_to, rank)
    bounds_s = latency.bounds_s
    if bucket == len(bounds_s):
        return bounds_s[-1]
    below_s = bounds_s[bucket - 1] if bucket else 0.0
    before = up_to[bucket - 1] if bucket else 0.0
    return below_s + (bounds_s[bucket] - below_s) * (rank - before) / latency.counts[bucket]


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
