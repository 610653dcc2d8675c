"""What each block of a run came to: requests, those within the objectives, GPU-hours, changes.

Requests count where they arrive, GPU-hours where they pass (to the tick), changes of the count
where they are made.  What comes after the last block belongs to it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from simulations.attainable import Objectives, good_outcomes
from simulations.engine_layout import Records
from simulations.inspection import Standing
from simulations.run import simulate
from simulations.scenario import Scenario
from simulations.score import ReplicaChange, Score
from simulations.trace_chunks import Requests
from simulations.tune_parts import Outcome


def blocks_of(
    scenario: Scenario,
    *,
    block_s: float,
    blocks: int,
    screened: int = 0,
    goes_on: Callable[[Sequence[Outcome]], bool] = lambda _: True,
) -> tuple[Outcome, ...]:
    """Run ``scenario``; what came to pass in each of so many blocks.

    After ``screened`` of them, if any, ``goes_on`` is given what they came to; those ended early
    have no more of them.  Who waits at that time has missed so far.

    Raises:
        ScenarioError: the trace has a fault, or no request in the time that is played.
    """
    slo = scenario.policy.config.slo
    counts = _Counts(Objectives(ttft_s=slo.ttft_s, tpot_s=slo.tpot_s), block_s, blocks)
    look = _Look(counts, screened, goes_on)
    result = simulate(scenario, loaded=counts.loaded, inspector=look)
    if look.seen is not None and not look.on:
        return look.seen
    counts.close(result.score, result.changes)
    return counts.rows(blocks)


class _Counts:
    """Counts by block; GPU-hours up to the end of each, and changes by when they were made."""

    def __init__(self, objectives: Objectives, block_s: float, blocks: int) -> None:
        self._objectives = objectives
        self.block_s = block_s
        self._requests = np.zeros(blocks, dtype=np.int64)
        self._good = np.zeros(blocks, dtype=np.int64)
        self._hours: list[float] = []
        self._changes: Sequence[ReplicaChange] = ()

    def loaded(self, requests: Requests) -> None:
        """Requests that arrive; some come later than the present."""
        self._requests += self._by_block(requests.arrival_s)

    def ended(self, outcomes: Records) -> None:
        """Requests that have ended."""
        good = good_outcomes(outcomes, self._objectives)
        self._good += self._by_block(outcomes["arrival_at_s"][good])

    def note(self, standing: Standing) -> None:
        """The end of a block."""
        while standing.at_s >= self.next_at_s and len(self._hours) < len(self._good):
            self._hours.append(standing.gpu_hours)
        self._changes = standing.changes

    def close(self, score: Score, changes: Sequence[ReplicaChange]) -> None:
        """The end of the run: what is left belongs to the last block."""
        blocks = len(self._good)
        kept = self._hours[: blocks - 1]
        self._hours = kept + [score.gpu_hours] * (blocks - len(kept))
        self._changes = changes

    @property
    def noted(self) -> int:
        """Blocks that have ended."""
        return len(self._hours)

    @property
    def next_at_s(self) -> float:
        """When the present block ends."""
        return (len(self._hours) + 1) * self.block_s

    def rows(self, count: int) -> tuple[Outcome, ...]:
        """What the first blocks came to."""
        changes = self._by_block(np.array([change.at_s for change in self._changes]))
        reversals = self._by_block(np.fromiter(reversed_at_s(self._changes), dtype=np.float64))
        hours = self._hours[:count]
        return tuple(
            Outcome(requests=r, good=g, gpu_hours=up_to - before, changes=c, reversals=v)
            for r, g, c, v, before, up_to in zip(
                self._requests.tolist(),
                self._good.tolist(),
                changes.tolist(),
                reversals.tolist(),
                (0.0, *hours),
                hours,
                strict=False,
            )
        )

    def _by_block(self, at_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        blocks = len(self._good)
        places = np.minimum(at_s // self.block_s, blocks - 1).astype(np.int64)
        found: npt.NDArray[np.int64] = np.bincount(places, minlength=blocks)
        return found


def reversed_at_s(changes: Sequence[ReplicaChange]) -> Iterator[float]:
    """When a change went in the other direction than the one before it."""
    for one, other in itertools.pairwise(changes):
        if (one.after > one.before) != (other.after > other.before):
            yield other.at_s


class _Look:
    """Looks at the end of every block, and asks once whether the run goes on."""

    def __init__(
        self, counts: _Counts, screened: int, goes_on: Callable[[Sequence[Outcome]], bool]
    ) -> None:
        self._counts = counts
        self._screened = screened
        self._goes_on = goes_on
        self.seen: tuple[Outcome, ...] | None = None
        self.on = True

    @property
    def next_at_s(self) -> float:
        """The end of the present block."""
        return self._counts.next_at_s

    def ended(self, outcomes: Records) -> None:
        """Counted."""
        self._counts.ended(outcomes)

    def look(self, standing: Standing) -> bool:
        """Whether the run goes on."""
        self._counts.note(standing)
        if self.seen is None and 0 < self._screened <= self._counts.noted:
            self.seen = self._counts.rows(self._screened)
            self.on = self._goes_on(self.seen)
        return self.on
