"""The search for the cheapest schedule that attains a share of good requests.

Three passes, each by replay of the whole trace, cut into blocks of time:

1. *Sweep.*  The work of the trace (``oracle_work``) in cells of the grid, averaged over a few
   widths and divided by a few load shares, gives counts that serve it.
2. *Compose.*  Each block takes the counts of the sweep that are cheapest there at a price of a miss
   (replica-seconds); the price is the one at which the misses of all blocks are just affordable.
   A multiplier of Lagrange: the error budget is spent where it saves most.
3. *Improve.*  In each second block one change is tried (a step earlier or later, a stretch raised
   or lowered), all in the same replay, and kept where the replica time and the priced misses of
   the block and the next one fell.  The price follows the budget.

A change acts on little more than its neighbourhood, since a queue is worked off within minutes; and
where it does act further, the next replay has the truth.  Only a schedule that was replayed as it
is and attained what was asked for is ever an answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from simulations.attainable import attainable_flags
from simulations.oracle_moves import Move, drawn_move, moved
from simulations.oracle_replay import Deployment, Replay, replay
from simulations.oracle_schedule import GRID_S, Counts, commanded, spread, steps_of
from simulations.oracle_work import BaseShare, least_work
from simulations.streams import generator
from simulations.trace_chunks import Floats, Requests

BLOCK_S = 600.0
WIDTHS = (1, 4, 16, 48)  # cells over which the work is averaged
SHARES = (1.08, 1.02, 0.96, 0.90, 0.80)
SHARES_LAST = (0.6, 0.4, 0.2, 0.1, 0.05)  # only while nothing reached the target
VALLEY_CELLS = 4  # a drain of a minute costs what so short a valley saves
TOKEN_S = 0.1  # of a busy replica; says only over what time a request's decoding is spread
RUNS_AFTER_CELLS = 1


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


@dataclass(slots=True, kw_only=True)
class _Trial:
    counts: Counts
    replay: Replay


class _Search:
    """The replays so far and the best of them."""

    def __init__(self, requests: Requests, deployment: Deployment, misses_max: int) -> None:
        self._requests = requests
        self._deployment = deployment
        self._misses_max = misses_max
        self._cells = int(requests.arrival_s[-1] // GRID_S) + 1 + RUNS_AFTER_CELLS
        self._random = generator(deployment.seed, "oracle")
        self._best: _Trial | None = None
        self._replays = 0

    def run(self, replays_max: int) -> Found:
        swept = list(self._sweep())
        current, price = self._compose(swept)
        while self._replays < replays_max:
            current, price = self._improve(current, price)
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
        played = replay(self._requests, self._deployment, schedule, block_s=BLOCK_S)
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

    def _sweep(self) -> Iterator[_Trial]:
        demand = self._demand()
        for width in WIDTHS:
            for share in SHARES:
                yield self._try(self._counts_for(demand, width=width, share=share))
        for share in SHARES_LAST:
            if self._best is not None and self._affordable(self._best.replay):
                return
            yield self._try(self._counts_for(demand, width=1, share=share))

    def _demand(self) -> Floats:
        """Replicas' worth of work in each cell, of the requests that can be good."""
        model, objectives = self._deployment.model, self._deployment.objectives
        worth = self._requests.pick(attainable_flags(self._requests, model, objectives))
        work = least_work(worth, model, BaseShare())
        prompts_s = np.zeros(len(worth))
        decodes_s = TOKEN_S * worth.output_tokens
        cells = self._cells
        prefill = spread(worth.arrival_s, prompts_s, work.prefill_s, cells=cells)
        decode = spread(worth.arrival_s, decodes_s, work.decode_s, cells=cells)
        return (prefill + decode) / GRID_S

    def _counts_for(self, demand: Floats, *, width: int, share: float) -> Counts:
        left = width // 2
        padded = np.pad(demand, (left, width - 1 - left), mode="edge")
        mean = np.convolve(padded, np.full(width, 1.0 / width), "valid")
        low, high = self._deployment.replicas_min, self._deployment.replicas_max
        ready = np.clip(np.ceil(mean / share), low, high).astype(np.int64)
        return commanded(ready, lead_cells=self._lead_cells(), valley_cells=VALLEY_CELLS)

    def _lead_cells(self) -> int:
        return int(np.ceil(start_up_s(self._deployment) / GRID_S))

    # Compose

    def _compose(self, swept: list[_Trial]) -> tuple[_Trial, float]:
        """The cheapest counts of each block at the price that makes the misses affordable."""
        cost_s = np.array([trial.replay.replica_s[:-1] for trial in swept])
        misses = np.array([trial.replay.misses for trial in swept])
        blocks = np.arange(cost_s.shape[1])

        def chosen_at(price: float) -> Counts:
            choice: Counts = np.argmin(cost_s + price * misses, axis=0)
            return choice

        price = _lowest_price(
            lambda price: float(misses[chosen_at(price), blocks].sum()) <= self._misses_max
        )
        trial = self._try(self._stitched(swept, chosen_at(price)))
        return trial, price

    def _stitched(self, swept: list[_Trial], choice: Counts) -> Counts:
        block = np.minimum(
            (np.arange(self._cells) * GRID_S // BLOCK_S).astype(np.int64), choice.size - 1
        )
        rows = np.array([trial.counts for trial in swept])
        stitched: Counts = rows[choice[block], np.arange(self._cells)]
        return stitched

    # Improve

    def _improve(self, current: _Trial, price: float) -> tuple[_Trial, float]:
        """One round: even blocks, odd blocks, and the truth about what was kept."""
        for parity in (0, 1):
            current = self._round(current, price, parity)
        current = self._try(current.counts)
        return current, self._next_price(current.replay, price)

    def _next_price(self, played: Replay, price: float) -> float:
        over = float(played.misses.sum()) / max(self._misses_max, 1) - 1.0
        return price * float(np.exp(np.clip(0.5 * over, -0.1, 0.25)))

    def _round(self, current: _Trial, price: float, parity: int) -> _Trial:
        moves = list(self._moves(current.counts, parity))
        counts = current.counts
        for move in moves:
            counts = moved(counts, move, self._deployment)
        trial = self._try(counts)
        gain = _by_pair(current.replay, price) - _by_pair(trial.replay, price)
        kept = current.counts
        for move in moves:
            if gain[move.block] > 0.0:
                kept = moved(kept, move, self._deployment)
        return _Trial(counts=kept, replay=_mixed(current.replay, trial.replay, moves, gain))

    def _moves(self, counts: Counts, parity: int) -> Iterator[Move]:
        blocks = int(np.ceil(self._cells * GRID_S / BLOCK_S))
        per_block = int(BLOCK_S / GRID_S)
        for block in range(min(parity, blocks - 1), blocks, 2):
            yield drawn_move(
                counts,
                block=block,
                cells=range(block * per_block, min((block + 1) * per_block, self._cells)),
                random=self._random,
            )


def start_up_s(deployment: Deployment) -> float:
    """What a start takes where all do alike, else the mean of the first starts of the run."""
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


def _by_pair(played: Replay, price: float) -> Floats:
    """Replica time and priced misses of each block and the one after it."""
    cost = played.replica_s.copy()
    cost[: played.misses.size] += price * played.misses
    cost[:-1] += cost[1:].copy()
    return cost


def _mixed(old: Replay, new: Replay, moves: list[Move], gain: Floats) -> Replay:
    """What is known of the kept schedule: the new replay where its moves were kept."""
    misses, replica_s = old.misses.copy(), old.replica_s.copy()
    for move in moves:
        if gain[move.block] > 0.0:
            pair = slice(move.block, move.block + 2)
            misses[pair] = new.misses[pair]
            replica_s[pair] = new.replica_s[pair]
    return Replay(misses=misses, replica_s=replica_s, requests=old.requests, gpu_hours=float("nan"))
