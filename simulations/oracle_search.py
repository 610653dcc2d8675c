"""The search for the cheapest schedule that attains a share of good requests.

Every schedule is judged by a replay of the whole trace, cut into cells of time:

1. *Sweep.*  The work of the trace (``oracle_work``), averaged over a few widths and divided by a
   few load shares, gives counts that serve it: the naive clairvoyant, and material to learn from.
2. *Plan.*  The trace as a fluid (``oracle_fluid``) is solved by dynamic programming at a price of a
   miss; the replay of the plan corrects the fluid, and the price follows the budget of misses.
3. *Compose.*  Each block of time takes the counts of all trials that are cheapest there at a price
   of a miss: a multiplier of Lagrange, the error budget is spent where it saves most.
4. *Improve.*  In every fourth block one change is tried (a step earlier or later, a stretch raised
   or lowered), all in the same replay, and kept where the cost of that and the next blocks fell.
   The cost is replica time, misses at their price, and the work left over at the end, which others
   will have to do.

A trace of no more than ``EVOLVED_BLOCKS`` has too few neighbourhoods for that: there a small pool
of schedules evolves by changes of any length, judged by the replay as a whole.

A change acts on little more than its neighbourhood; where it does act further, the next replay has
the truth, and a round that made things worse is taken back.  Only a schedule that was replayed as
it is and attained what was asked for is ever an answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from simulations.attainable import attainable_flags
from simulations.oracle_fluid import (
    Fluid,
    FluidTask,
    cheapest_counts,
    corrected,
    fluid_of,
    learned,
)
from simulations.oracle_moves import LENGTHS_FAR, Move, drawn_move, moved
from simulations.oracle_replay import Deployment, Replay, replay
from simulations.oracle_schedule import GRID_S, Counts, commanded, spread, steps_of
from simulations.oracle_work import BaseShare, least_work
from simulations.replica import Routing
from simulations.streams import generator
from simulations.trace_chunks import Floats, Requests

BLOCK_CELLS = 20  # of the grid: what a change is judged by
PART_CELLS = 240  # what is composed: long, since each seam costs misses
SPACING = 4  # blocks from one tried change to the next: what it acts on lies between
WIDTHS = (4, 32, 96)  # cells over which the work is averaged
SHARES = (1.0, 0.93, 0.85)
SHARES_LAST = (0.7, 0.5, 0.3, 0.2, 0.1, 0.05)  # only while nothing reached the target
VALLEY_CELLS = 4  # a drain of a minute costs what so short a valley saves
TOKEN_S = 0.1  # of a busy replica; says only over what time a request's decoding is spread
LONG_S = 7200.0  # traces from here on are planned in steps of two cells
PLANS = 10
PLAN_PRICE_S = 1.0  # of a miss, to begin with
PLAN_GAIN = 0.8
COMPOSED_MAX = 4
BACKLOG_PRICE = 1.2  # replica-seconds for one of work left over, which others will have to do
EVOLVED_BLOCKS = 12
POOL = 8
MUTATIONS = 3  # changes of a schedule at once, at most
EXCESS_PRICE_S = 3.0  # of a miss beyond the budget
PRICE_GAIN = 1.0
PRICE_STEP = 0.25  # of its logarithm, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A schedule with its replay; ``reached`` says whether it attains what was asked for."""

    counts: Counts
    replay: Replay
    reached: bool
    replays: int


def search(
    requests: Requests, deployment: Deployment, *, misses_max: int, replays_max: int
) -> Found:
    """The cheapest schedule found with at most ``misses_max`` bad requests, within the replays.

    Where no schedule reaches that, the one with the fewest misses.
    """
    return _Search(requests, deployment, misses_max).run(replays_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    counts: Counts
    replay: Replay


class _Search:
    """The replays so far and the best of them."""

    def __init__(self, requests: Requests, deployment: Deployment, misses_max: int) -> None:
        self._requests = requests
        self._deployment = deployment
        self._misses_max = misses_max
        self._cells = int(requests.arrival_s[-1] // GRID_S) + 2
        self._random = generator(deployment.seed, "oracle")
        long = float(requests.arrival_s[-1]) >= LONG_S
        self._cell_s = 2.0 * GRID_S if long else GRID_S
        self._work = least_work(requests, deployment.model, BaseShare())
        self._trials: list[_Trial] = []
        self._best: _Trial | None = None
        self._replays = 0

    def run(self, replays_max: int) -> Found:
        self._sweep()
        price = self._plan(min(PLANS, replays_max // 2))
        current, price = self._compose(price)
        if self._cells <= EVOLVED_BLOCKS * BLOCK_CELLS:
            self._evolve(replays_max)
        phase = 0
        while self._replays + 1 < replays_max:
            current = self._improve(current, price, phase)
            price = self._next_price(current.replay, price)
            phase = (phase + 1) % SPACING
        best = self._best
        assert best is not None
        return Found(
            counts=best.counts,
            replay=best.replay,
            reached=self._affordable(best.replay),
            replays=self._replays,
        )

    def _try(self, counts: Counts) -> _Trial:
        schedule = steps_of(counts, first=self._deployment.replicas_first)
        played = replay(self._requests, self._deployment, schedule, block_s=self._cell_s)
        self._replays += 1
        trial = _Trial(counts=counts, replay=played)
        if self._best is None or self._rank(played) < self._rank(self._best.replay):
            self._best = trial
        return trial

    def _affordable(self, played: Replay) -> bool:
        return bool(played.misses.sum() <= self._misses_max)

    def _rank(self, played: Replay) -> tuple[bool, float]:
        """First those that reach the target, the cheapest of them; then the fewest misses."""
        reached = self._affordable(played)
        return not reached, played.gpu_hours if reached else float(played.misses.sum())

    # Sweep

    def _sweep(self) -> None:
        demand = self._demand()
        for width in WIDTHS:
            for share in SHARES:
                self._trials.append(self._try(self._counts_for(demand, width=width, share=share)))
        for share in SHARES_LAST:
            if self._best is not None and self._affordable(self._best.replay):
                return
            self._trials.append(self._try(self._counts_for(demand, width=1, share=share)))

    def _demand(self) -> Floats:
        """Replicas' worth of work in each cell, of the requests that can be good."""
        model, objectives = self._deployment.model, self._deployment.objectives
        able = attainable_flags(self._requests, model, objectives)
        work = self._work
        worth = self._requests.pick(able)
        cells = self._cells
        prefill = spread(
            worth.arrival_s,
            np.zeros(len(worth), dtype=np.float64),
            work.prefill_s[able],
            cells=cells,
        )
        decode = spread(
            worth.arrival_s,
            (TOKEN_S * worth.output_tokens).astype(np.float64),
            work.decode_s[able],
            cells=cells,
        )
        demand: Floats = (prefill + decode) / GRID_S
        return demand

    def _counts_for(self, demand: Floats, *, width: int, share: float) -> Counts:
        left = width // 2
        padded = np.pad(demand, (left, width - 1 - left), mode="edge")
        mean = np.convolve(padded, np.full(width, 1.0 / width), "valid")
        low, high = self._deployment.replicas_min, self._deployment.replicas_max
        ready = np.clip(np.ceil(mean / share), low, high).astype(np.int64)
        return commanded(ready, lead_cells=self._lead_cells(), valley_cells=VALLEY_CELLS)

    def _lead_cells(self) -> int:
        return int(np.ceil(start_up_s(self._deployment) / GRID_S))

    # Plan

    def _plan(self, plans: int) -> float:
        """Plans for the fluid, each corrected by the replay of the one before; the price found."""
        deployment = self._deployment
        fluid = fluid_of(
            self._requests, deployment.model, deployment.objectives, cell_s=self._cell_s
        )
        price = PLAN_PRICE_S
        for _ in range(plans):
            fluid = self._lesson(fluid)
            trial = self._try(self._planned(fluid, price))
            self._trials.append(trial)
            fluid = corrected(fluid, ready=trial.replay.ready, held=_held(trial.replay))
            over = float(trial.replay.misses.sum() + 1.0) / (self._misses_max + 1.0)
            price *= float(np.clip(over**PLAN_GAIN, 0.4, 2.5))
        return price

    def _lesson(self, fluid: Fluid) -> Fluid:
        played = [trial.replay for trial in self._trials]
        return learned(
            fluid,
            ready=np.concatenate([each.ready for each in played]),
            held=np.concatenate([_held(each) for each in played]),
            misses=np.concatenate([each.misses for each in played]),
        )

    def _planned(self, fluid: Fluid, price: float) -> Counts:
        deployment = self._deployment
        needed = max(int(trial.counts.max()) for trial in self._trials)
        task = FluidTask(
            replicas_first=deployment.replicas_first,
            replicas_min=deployment.replicas_min,
            replicas_max=min(deployment.replicas_max, max(needed, deployment.replicas_first)),
            start_up_s=start_up_s(deployment),
            miss_price_s=price,
            floods=deployment.routing in (Routing.LEAST_REQUESTS, Routing.KV_AWARE),
        )
        wide = np.repeat(cheapest_counts(fluid, task), round(self._cell_s / GRID_S))
        return commanded(wide[: self._cells], lead_cells=self._lead_cells(), valley_cells=1)

    # Compose

    def _compose(self, price: float) -> tuple[_Trial, float]:
        """The cheapest counts of each block at the price that makes the misses affordable.

        Where the seams cost more misses than the parts had, the price is raised.
        """
        replays = [trial.replay for trial in self._trials]
        cost_s = np.array(
            [self._summed(self._cost_s(each, price=0.0), PART_CELLS) for each in replays]
        )
        misses = np.array([self._summed(each.misses, PART_CELLS) for each in replays])
        parts = np.arange(cost_s.shape[1])

        def chosen_at(price: float) -> Counts:
            choice: Counts = np.argmin(cost_s + price * misses, axis=0)
            return choice

        found = _lowest_price(
            lambda price: float(misses[chosen_at(price), parts].sum()) <= self._misses_max
        )
        for attempt in range(COMPOSED_MAX):
            trial = self._try(self._stitched(chosen_at(found * 1.5**attempt)))
            if self._affordable(trial.replay):
                break
        best = self._best
        assert best is not None
        return best, price

    def _summed(self, values: Floats, grid_cells: int) -> Floats:
        """Sums over stretches of the grid; what is after its end counts to the last."""
        count = -(-self._cells // grid_cells)
        stretch = (np.arange(values.size) * (self._cell_s / GRID_S) / grid_cells).astype(np.int64)
        last = np.minimum(stretch, count - 1)
        return np.bincount(last, values, minlength=count).astype(np.float64)

    def _stitched(self, choice: Counts) -> Counts:
        block = np.arange(self._cells) // PART_CELLS
        rows = np.array([trial.counts for trial in self._trials])
        stitched: Counts = rows[choice[block], np.arange(self._cells)]
        return stitched

    def _cost_s(self, played: Replay, *, price: float) -> Floats:
        """Of each block: replica time, priced misses, and the work left over that it added."""
        count = len(self._requests)
        work = self._work
        prefill_s = float(work.prefill_s.sum()) / count
        decode_s = float(work.decode_s.sum()) / count
        backlog_s = played.waiting * (prefill_s + decode_s) + played.running * 0.5 * decode_s
        cost_s = played.replica_s.copy()
        cost_s[:-1] += price * played.misses
        cost_s[:-1] += BACKLOG_PRICE * np.diff(backlog_s, prepend=0.0)
        return cost_s

    # Improve

    def _improve(self, current: _Trial, price: float, phase: int) -> _Trial:
        """Try a change in every fourth block, keep the good ones, and see what they come to."""
        moves = list(self._moves(current.counts, phase))
        trial = self._try(self._all_moved(current.counts, moves))
        saved_s = self._summed(
            self._cost_s(current.replay, price=price) - self._cost_s(trial.replay, price=price),
            BLOCK_CELLS,
        )
        gains = np.convolve(saved_s, np.ones(SPACING), "full")[SPACING - 1 :]
        kept = [move for move in moves if gains[move.block] > 0.0]
        if not kept:
            return current
        whole = len(kept) == len(moves)
        after = trial if whole else self._try(self._all_moved(current.counts, kept))
        worse = self._cost_s(after.replay, price=price).sum() > (
            self._cost_s(current.replay, price=price).sum()
        )
        return current if worse else after

    def _moves(self, counts: Counts, phase: int) -> Iterator[Move]:
        blocks = -(-self._cells // BLOCK_CELLS)
        for block in range(phase % blocks, blocks, SPACING):
            begin = block * BLOCK_CELLS
            cells = range(begin, min(begin + BLOCK_CELLS, self._cells))
            yield drawn_move(counts, block=block, cells=cells, random=self._random)

    def _all_moved(self, counts: Counts, moves: list[Move]) -> Counts:
        for move in moves:
            counts = moved(counts, move, self._deployment)
        return counts

    # Evolve

    def _evolve(self, replays_max: int) -> None:
        """Change schedules of a pool of the best, and let what is better push the worst out."""
        pool = sorted(self._trials, key=self._penalised)[:POOL]
        while self._replays < replays_max:
            parent = pool[int(self._random.integers(len(pool)))]
            trial = self._try(self._mutated(parent.counts))
            known = any(np.array_equal(trial.counts, each.counts) for each in pool)
            if not known and self._penalised(trial) < self._penalised(pool[-1]):
                pool = sorted([*pool[: POOL - 1], trial], key=self._penalised)

    def _mutated(self, counts: Counts) -> Counts:
        for _ in range(int(self._random.integers(1, MUTATIONS + 1))):
            move = drawn_move(
                counts,
                block=0,
                cells=range(self._cells),
                random=self._random,
                lengths=LENGTHS_FAR,
            )
            counts = moved(counts, move, self._deployment)
        return counts

    def _penalised(self, trial: _Trial) -> float:
        """Replica-seconds, and what is missed beyond the budget at a price that forbids it."""
        over = max(float(trial.replay.misses.sum()) - self._misses_max, 0.0)
        return float(trial.replay.replica_s.sum()) + EXCESS_PRICE_S * over

    def _next_price(self, played: Replay, price: float) -> float:
        over = float(played.misses.sum()) / max(self._misses_max, 1) - 1.0
        return price * float(np.exp(np.clip(PRICE_GAIN * over, -PRICE_STEP, PRICE_STEP)))


def _held(played: Replay) -> Floats:
    """Requests in the fleet at the end of each cell."""
    return played.waiting + played.running


def start_up_s(deployment: Deployment) -> float:
    """What a start takes: the mean of the first starts of the run."""
    start = deployment.model.start_up
    drawn = []
    for uid in range(64):
        random = generator(deployment.seed, "start_up", uid, 0)
        phases = (start.scheduling, start.image, start.weights, start.compile)
        drawn.append(sum(phase.draw_s(random) for phase in phases))
    return float(np.mean(drawn))


def _lowest_price(affordable: Callable[[float], bool]) -> float:
    """The lowest price of a miss at which a choice is affordable, to a hundredth."""
    low, high = 1e-4, 1e5
    while high / low > 1.01:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if affordable(middle) else (middle, high)
    return high
