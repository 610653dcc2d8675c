"""What a run came to: attainment, latencies, GPU time, changes of the count."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulations import engine
from simulations.attainable import Objectives, good_outcomes
from simulations.engine_layout import Records
from simulations.lifecycle import Usage
from simulations.request_ring import RequestStatus

Singles = npt.NDArray[np.float32]

FIRST_HOUR_S = 3600.0  # long enough for a fleet that began too small to have grown


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Of one latency over the requests that have it; NaN where none has."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaChange:
    """One change of spec.replicas."""

    at_s: float
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The numbers a policy is judged by.

    ``slo_attainment_ratio`` is the share of all arrived requests that completed with a TTFT, and a
    mean TPOT where one is asked for, within the objectives; NaN where nothing arrived.
    ``rejected`` includes the ``too_long``, which no replica takes.  ``first_hour_*`` are of the
    requests that arrived before ``FIRST_HOUR_S``.  ``replicas_*`` are of
    spec.replicas, the mean over time.  A reversal is a change in the other direction than the
    change before it.
    """

    requests: int
    completed: int
    rejected: int
    too_long: int
    cut_by_scale_down: int
    slo_attainment_ratio: float
    first_hour_requests: int
    first_hour_attainment_ratio: float
    gpu_hours: float
    pending_gpu_hours: float
    replica_hours: float
    ttft_s: Quantiles
    tpot_s: Quantiles
    queue_s: Quantiles
    replicas_min: int
    replicas_mean: float
    replicas_max: int
    replica_changes: int
    reversals: int


class Tally:
    """Takes outcomes in as they come: twelve bytes a request are kept, for the quantiles."""

    def __init__(self, *, ttft_slo_s: float, tpot_slo_s: float) -> None:
        """``tpot_slo_s`` 0 sets no objective."""
        self._ttft_slo_s = ttft_slo_s
        self._tpot_slo_s = tpot_slo_s
        self._requests = 0
        self._good = 0
        self._last_ended_s = 0.0
        self._first_requests = 0
        self._first_good = 0
        self._by_status = np.zeros(len(RequestStatus), dtype=np.int64)
        self._ttft: list[Singles] = []
        self._tpot: list[Singles] = []
        self._queue: list[Singles] = []

    @property
    def ended(self) -> int:
        """Requests taken in so far."""
        return self._requests

    @property
    def last_ended_s(self) -> float:
        """When the last of them ended; 0 without any."""
        return self._last_ended_s

    def add(self, outcomes: Records) -> None:
        """Take in requests that have ended."""
        found = np.empty((3, len(outcomes)), dtype=np.float32)
        counts = np.zeros(len(engine.TALLIED), dtype=np.int64)
        engine.tally(outcomes, found, counts, self._ttft_slo_s, self._tpot_slo_s)
        *by_status, good, ttfts, tpots, queues = counts.tolist()
        self._requests += len(outcomes)
        self._good += good
        self._by_status += by_status
        self._last_ended_s = max(self._last_ended_s, last_ended_s(outcomes))
        self._add_first_hour(outcomes)
        for kept, values in (
            (self._ttft, found[0, :ttfts]),
            (self._tpot, found[1, :tpots]),
            (self._queue, found[2, :queues]),
        ):
            kept.append(values.copy())

    def _add_first_hour(self, outcomes: Records) -> None:
        """Outcomes come in order of arrival, so that this is over after an hour."""
        if not len(outcomes) or outcomes["arrival_at_s"][0] >= FIRST_HOUR_S:
            return
        end = int(np.searchsorted(outcomes["arrival_at_s"], FIRST_HOUR_S))
        objectives = Objectives(ttft_s=self._ttft_slo_s, tpot_s=self._tpot_slo_s)
        self._first_requests += end
        self._first_good += int(np.count_nonzero(good_outcomes(outcomes[:end], objectives)))

    def score(self, usage: Usage, counts: "CountHistory", *, end_s: float) -> Score:
        """The score of a run that ended at ``end_s``."""
        by_status = self._by_status
        rejected = by_status[RequestStatus.REJECTED] + by_status[RequestStatus.TOO_LONG]
        return Score(
            requests=self._requests,
            completed=int(by_status[RequestStatus.COMPLETED]),
            rejected=int(rejected),
            too_long=int(by_status[RequestStatus.TOO_LONG]),
            cut_by_scale_down=int(by_status[RequestStatus.CUT]),
            slo_attainment_ratio=_share(self._good, self._requests),
            first_hour_requests=self._first_requests,
            first_hour_attainment_ratio=_share(self._first_good, self._first_requests),
            gpu_hours=usage.gpu_hours,
            pending_gpu_hours=usage.pending_gpu_hours,
            replica_hours=usage.replica_hours,
            ttft_s=quantiles(self._ttft),
            tpot_s=quantiles(self._tpot),
            queue_s=quantiles(self._queue),
            replicas_min=counts.lowest,
            replicas_mean=counts.mean(end_s),
            replicas_max=counts.highest,
            replica_changes=len(counts.changes),
            reversals=counts.reversals,
        )


class CountHistory:
    """spec.replicas over a run that begins at 0 s."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.changes: list[ReplicaChange] = []

    @property
    def now(self) -> int:
        """The count that holds."""
        return self.changes[-1].after if self.changes else self.first

    def set(self, count: int, at_s: float) -> bool:
        """Note what is wanted from ``at_s`` on; whether that is a change."""
        if count == self.now:
            return False
        self.changes.append(ReplicaChange(at_s=at_s, before=self.now, after=count))
        return True

    @property
    def lowest(self) -> int:
        """The lowest count there was."""
        return min((self.first, *(change.after for change in self.changes)))

    @property
    def highest(self) -> int:
        """The highest count there was."""
        return max((self.first, *(change.after for change in self.changes)))

    def mean(self, end_s: float) -> float:
        """Mean over time up to ``end_s``."""
        if end_s <= 0.0:
            return float(self.first)
        steps = sum(
            (change.after - change.before) * (end_s - change.at_s) for change in self.changes
        )
        return self.first + steps / end_s

    @property
    def reversals(self) -> int:
        """Changes in the other direction than the change before."""
        ups = [change.after > change.before for change in self.changes]
        return sum(one != other for one, other in itertools.pairwise(ups))


def last_ended_s(outcomes: Records) -> float:
    """When the last of the requests ended, whatever became of it; 0 without any."""
    return float(outcomes["finished_at_s"].max()) if len(outcomes) else 0.0


def _share(count: int, of: int) -> float:
    return count / of if of else float("nan")


def quantiles(parts: Sequence[Singles]) -> Quantiles:
    """Of all values together, by linear interpolation; NaN without any."""
    values = np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
    if values.size == 0:
        nan = float("nan")
        return Quantiles(p50=nan, p90=nan, p95=nan, p99=nan, max=nan)
    values.sort()  # quicker than selecting: numpy sorts whole vectors at a time
    p50, p90, p95, p99 = (_quantile(values, share) for share in (0.5, 0.9, 0.95, 0.99))
    return Quantiles(p50=p50, p90=p90, p95=p95, p99=p99, max=float(values[-1]))


def _quantile(ascending: Singles, share: float) -> float:
    place = share * (ascending.size - 1)
    below = int(place)
    low, high = float(ascending[below]), float(ascending[min(below + 1, ascending.size - 1)])
    return low + (high - low) * (place - below)
