"""A slow load: what shows whether a policy flaps where there is little reason to change anything.

A trace's own ups and downs hide needless changes, and a load that is constant shows them only where
it happens to lie between two counts.  So whatever would join the front is played on Poisson
arrivals whose rate rises fourfold and falls again within a working day: it passes every level of a
few fleet sizes, at each the count has reason to change once, and only once is there reason to turn.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from simulations.scenario import Scenario
from simulations.streams import generator
from simulations.trace_chunks import Floats, Requests
from simulations.tune_blocks import blocks_of
from simulations.tune_parts import Outcome, total

DURATION_S = 8.0 * 3600.0  # or as long as what is searched, if that is shorter
PARTS = 8
SETTLED_PARTS = 1  # not counted: a daemon that has just begun has reason to change its mind
LOWEST_SHARE = 0.25  # of the highest rate: at the beginning and at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowLoad:
    """Poisson arrivals whose rate rises to ``highest_per_s`` and falls, each along a line.

    The lengths are those of a trace's first requests.  Iterating gives its one chunk, the same each
    time.
    """

    like: Iterable[Requests]
    highest_per_s: float
    duration_s: float
    seed: int

    def __iter__(self) -> Iterator[Requests]:
        """The chunk.  Given their number, the times of Poisson arrivals are independent."""
        draws = generator(self.seed, "slow load")
        mean_per_s = 0.5 * (1.0 + LOWEST_SHARE) * self.highest_per_s
        count = max(int(draws.poisson(mean_per_s * self.duration_s)), 1)
        up = _rising(draws.random(count))
        share = np.where(draws.random(count) < 0.5, 0.5 * up, 1.0 - 0.5 * up)
        sample = next(iter(self.like))
        picked = sample.pick(draws.integers(len(sample), size=count))
        yield replace(picked, arrival_s=np.sort(share) * self.duration_s)


def _rising(uniform: Floats) -> Floats:
    """Times in 0 to 1 with a density that rises along a line; the inverse of its integral."""
    low, mean = LOWEST_SHARE, 0.5 * (1.0 + LOWEST_SHARE)
    times: Floats = (np.sqrt(low * low + 2.0 * (1.0 - low) * mean * uniform) - low) / (1.0 - low)
    return times


def steady(scenario: Scenario, *, highest_per_s: float, searched_s: float) -> Outcome:
    """What the policy of ``scenario`` comes to under a slow load, once it has settled."""
    load = SlowLoad(
        like=scenario.requests,
        highest_per_s=highest_per_s,
        duration_s=min(DURATION_S, searched_s),
        seed=scenario.seed,
    )
    calm = replace(
        scenario,
        requests=load,
        load_factor=1.0,
        until_s=None,
        faults=(),
        sessions=None,
        timeline=False,
    )
    rows = blocks_of(calm, block_s=load.duration_s / PARTS, blocks=PARTS)
    return total(rows[SETTLED_PARTS:])
