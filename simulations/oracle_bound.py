"""A bound on the GPU-hours of any schedule, by weak duality.  Each step is named.

Let r(t) be the replicas that serve at time t (ready or draining), [T_(w-1), T_w] windows of length
D that cover all arrivals, n_w the mean of r over window w, and r_w = r(T_w).

1. *Start-ups.*  Replica time is at least the integral of r plus s for every replica that becomes
   ready after 0 s, s being the shortest start-up there can be (constants as they are, the smallest
   of a sample, 0 for a lognormal phase; a crash only adds).  r rises by such replicas only, so
   their number is at least the positive variation of any walk along r, and, averaging over walks
   that pick one point of each window, of ``r(0), n_1, r_1, n_2, r_2, ...``.
2. *Work.*  A good request needs at least its work v_i (``oracle_work``: marginal terms exactly, the
   base shared by no more than a step can hold).  Charges of a step never exceed its length.
3. *Carry.*  Let C_w be the charges after T_w to good requests that arrived before.  Then
   ``D n_w >= sum of v_i of the good arrivals of w + C_(w-1) - C_w``.
4. *Deadline.*  A good request without its first token at T_w arrived after T_w - ttft_s.  Such
   requests are worth at most E_w, the work of all arrivals of that span.
5. *Batch limit.*  A replica has at most max_num_seqs requests that were admitted and have not
   ended: preempted ones wait at the head of its queue, so a fresh one is admitted only when all of
   them run, and no more than max_num_seqs run.  What is left of a request with its first token is
   at most its decode work; so ``C_w <= E_w + H r_w``, H being the sum of the max_num_seqs largest.
6. *Misses.*  At most K of the requests that are attainable alone may be bad; for a price m >= 0 of
   a miss, minimising cost + m * (misses - K) over all schedules and all choices of misses is not
   above the optimum.  Requests that can never be good, and bad ones, cost nothing here: a schedule
   may have them cut.
7. *Floor.*  Where a ReplicaSet chooses the victims, those that are not ready go first, so that r
   never falls below f, the lesser of the minimum and the first count, until all has ended.
8. *Weak duality.*  For u_w, q_w in [0, s], multipliers of the rises into n_w and into r_w, and a
   price of work ``0 <= p_w <= P_w = 1 + (u_w - q_w) / D`` in window w, if also
   ``z_w = q_w - u_(w+1) - H * max(p_w - p_(w+1), 0) >= 0``, then no schedule costs less than::

       sum_w [ sum_i min(p_w v_i, m) - max(p_w - p_(w+1), 0) E_w + (P_w - p_w) D f + z_w f ]
       - u_1 r(0) - m K

   with p after the last window 1: the fleet serves until all requests have ended.  There D is cut
   off at the last arrival, and z counts nothing.

Any multipliers give a bound.  For windows of a few lengths, the best on a grid is found by dynamic
programming over the windows and a search over m; u = q = 0, p = 1 is on the grid and is the plain
work of the cheapest requests.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulations.attainable import attainable_flags
from simulations.lifecycle import replicaset_choice
from simulations.oracle_replay import Deployment
from simulations.oracle_work import BaseShare, Work, least_work
from simulations.replica import DistributionKind, ReplicaModel, StartUp
from simulations.trace_chunks import Floats, Requests

WINDOWS_S = (120.0, 300.0, 900.0, 1800.0)
WINDOWS_MAX = 2000
LEVELS = 6  # of the multipliers u and q
PARTS = 4  # of P_w that the price of work may be, and none
PRICES = 24  # of a miss, tried one after the other
SAMPLE = 100_000  # requests on which the shares of the base are chosen
SHARES = tuple(
    BaseShare(seqs=seqs / 4.0, blocks=blocks / 4.0, tokens=(4 - seqs - blocks) / 4.0)
    for seqs in range(5)
    for blocks in range(5 - seqs)
)


def bound_gpu_hours(requests: Requests, deployment: Deployment, *, good_min: int) -> float:
    """GPU-hours below which no schedule has ``good_min`` good requests."""
    model = deployment.model
    able = requests.pick(attainable_flags(requests, model, deployment.objectives))
    floor = _floor(deployment)
    bounds_s = [floor * float(requests.arrival_s[-1])]
    if len(able) and good_min > 0:
        bounds_s.append(_bound_s(able, deployment, misses_max=max(len(able) - good_min, 0)))
    return model.gpus_per_replica * max(bounds_s) / 3600.0


def _floor(deployment: Deployment) -> int:
    """Replicas that serve at any time, whatever the schedule."""
    if deployment.victims is not replicaset_choice or deployment.gpus.total is not None:
        return 0
    return min(deployment.replicas_min, deployment.replicas_first)


def shortest_start_s(start_up: StartUp) -> float:
    """The shortest start-up that the distributions of its phases can give."""
    phases = (start_up.scheduling, start_up.image, start_up.weights, start_up.compile)
    return sum(
        0.0 if phase.kind is DistributionKind.LOGNORMAL else min(phase.values_s) for phase in phases
    )


def _bound_s(able: Requests, deployment: Deployment, *, misses_max: int) -> float:
    """The best bound in replica-seconds over lengths of windows."""
    work = least_work(able, deployment.model, _best_share(able, deployment.model, misses_max))
    last_s = float(able.arrival_s[-1])
    lengths = [each for each in WINDOWS_S if last_s / each <= WINDOWS_MAX]
    return max(
        _Dual(able, work, deployment, misses_max=misses_max, window_s=each).best()
        for each in lengths or WINDOWS_S[-1:]
    )


def _best_share(able: Requests, model: ReplicaModel, misses_max: int) -> BaseShare:
    """The weights that charge the cheapest requests most; any would give a bound."""
    every = -(-len(able) // SAMPLE)
    sample = able.pick(slice(None, None, every))
    kept = len(sample) - misses_max // every

    def charged(share: BaseShare) -> float:
        work = least_work(sample, model, share)
        return float(np.sort(work.prefill_s + work.decode_s)[:kept].sum())

    return max(SHARES, key=charged)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The works of a window's arrivals in ascending order, and their running sums from 0 on."""

    work_s: Floats
    sums_s: Floats


class _Dual:
    """The dual of one trace for one length of windows."""

    def __init__(
        self,
        able: Requests,
        work: Work,
        deployment: Deployment,
        *,
        misses_max: int,
        window_s: float,
    ) -> None:
        whole_s = work.prefill_s + work.decode_s
        self._window_s = window_s
        self._misses_max = misses_max
        self._first = deployment.replicas_first
        self._floor = _floor(deployment)
        self._start_s = shortest_start_s(deployment.model.start_up)
        seqs = deployment.model.max_num_seqs
        self._held_s = float(np.sort(work.decode_s)[-seqs:].sum())
        count = int(able.arrival_s[-1] // window_s) + 1
        ends: Floats = np.arange(1, count + 1, dtype=np.float64) * window_s
        self._windows = _windows(able.arrival_s, whole_s, ends)
        self._late_s = _late_work(able.arrival_s, whole_s, ends, deployment.objectives.ttft_s)
        last_s = float(able.arrival_s[-1])
        self._spans_s = np.minimum(ends, last_s) - (ends - window_s)
        levels = np.linspace(0.0, self._start_s, LEVELS)
        parts = np.linspace(0.0, 1.0, PARTS + 1)
        u, q, part = (each.ravel() for each in np.meshgrid(levels, levels, parts, indexing="ij"))
        whole = 1.0 + (u - q) / window_s
        valid = whole >= 0.0
        self._u, self._q = u[valid], q[valid]
        self._prices = (part * whole)[valid]
        self._rest = whole[valid] - self._prices
        self._fall = np.maximum(self._prices[:, None] - self._prices[None, :], 0.0)
        self._follow = self._followed()

    def _followed(self) -> Floats:
        """What a window's state gains by the next one's, ``z f``; -inf where it may not follow."""
        left = self._q[:, None] - self._u[None, :] - self._held_s * self._fall
        return np.where(left >= 0.0, left * self._floor, -np.inf)

    def best(self) -> float:
        """The highest bound over the price of a miss, which is concave: by golden section."""
        low, high = np.log(1e-4), np.log(1e4)
        ratio = 0.5 * (np.sqrt(5.0) - 1.0)
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        at_left, at_right = self._at(np.exp(left)), self._at(np.exp(right))
        found = max(at_left, at_right)
        for _ in range(PRICES):
            if at_left > at_right:
                high, right, at_right = right, left, at_left
                left = high - ratio * (high - low)
                at_left = self._at(np.exp(left))
            else:
                low, left, at_left = left, right, at_right
                right = low + ratio * (high - low)
                at_right = self._at(np.exp(right))
            found = max(found, at_left, at_right)
        return float(found)

    def _at(self, price: float) -> float:
        """The best bound on the grid of multipliers at one price of a miss; from the end back."""
        gains = self._gains(price)
        over = np.maximum(self._prices - 1.0, 0.0)
        may_end = self._q >= self._held_s * over
        value = np.where(may_end, gains[-1] - over * self._late_s[-1], -np.inf)
        for window in range(len(gains) - 2, -1, -1):
            after = self._follow - self._fall * self._late_s[window] + value[None, :]
            value = gains[window] + after.max(axis=1)
        best = float((value - self._u * self._first).max())
        return best - price * self._misses_max

    def _gains(self, price: float) -> list[Floats]:
        """For each window and state, the priced work and the floor."""
        distinct, index = np.unique(self._prices, return_inverse=True)
        limits = price / np.maximum(distinct, 1e-12)
        return [
            _priced(window, distinct, limits, price)[index] + self._rest * self._floor * span_s
            for window, span_s in zip(self._windows, self._spans_s, strict=True)
        ]


def _priced(window: _Window, prices: Floats, limits: Floats, price: float) -> Floats:
    below = np.searchsorted(window.work_s, limits, side="right")
    priced: Floats = prices * window.sums_s[below] + price * (window.work_s.size - below)
    return priced


def _windows(arrival_s: Floats, work_s: Floats, ends: Floats) -> Sequence[_Window]:
    bounds = np.concatenate(([0], np.searchsorted(arrival_s, ends, side="right")))
    windows = []
    for begin, end in itertools.pairwise(bounds):
        ordered = np.sort(work_s[begin:end])
        windows.append(_Window(work_s=ordered, sums_s=np.concatenate(([0.0], np.cumsum(ordered)))))
    return windows


def _late_work(arrival_s: Floats, work_s: Floats, ends: Floats, ttft_s: float) -> Floats:
    """Work of the arrivals of the last ``ttft_s`` before each end."""
    sums = np.concatenate(([0.0], np.cumsum(work_s)))
    until = np.searchsorted(arrival_s, ends, side="right")
    since = np.searchsorted(arrival_s, ends - ttft_s, side="left")
    late: Floats = sums[until] - sums[since]
    return late
