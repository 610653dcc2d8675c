"""Flapping: changes of the count at constant load, and reversals on two development traces.

    python -m benchmarks.flapping [--hours H] [--about 3,10,40] [--rates N] [--no-traces]

Base case (``benchmarks.arena``), as shipped.  Constant load is Poisson arrivals with the lengths of
azure-2024-shape-conv, at rates spread evenly over one replica's worth, because a count that is just
enough is nearer to a change than one in the middle; each rate has a seed of its own.  Counted are
changes of ``spec.replicas`` and of what was decided, after the first hour.  A reversal is a change
in the other direction within ten minutes of the change before it.
"""

import argparse
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.arena import HOUR_S, RECORDED, Development, base_scenario, cache_folder, trace_of
from simulations.run import Result, Tick, simulate
from simulations.score import ReplicaChange
from simulations.streams import generator
from simulations.trace_chunks import Requests, join

LENGTHS, TENANTS = RECORDED[0], RECORDED[2]
RATE_PER_S = {3: 8.0, 10: 34.0, 40: 149.0}  # the lowest of each group, by the count it needs
WORTH_PER_S = 4.0  # requests/s of these lengths that one replica more carries
FIRST_HOUR_S = HOUR_S
REVERSAL_S = 600.0
WINDOW_S = 600.0  # arrivals are drawn a window at a time
DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantLoad:
    """Poisson arrivals with lengths drawn from those given; iterated anew, the same again."""

    prompt_tokens: npt.NDArray[np.int32]
    output_tokens: npt.NDArray[np.int32]
    rate_per_s: float
    duration_s: float
    seed: int

    def __iter__(self) -> Iterator[Requests]:
        """Chunks in order of arrival."""
        arrivals = generator(self.seed, "generate.arrivals")
        lengths = generator(self.seed, "generate.lengths")
        for window in range(math.ceil(self.duration_s / WINDOW_S)):
            begin_s = window * WINDOW_S
            width_s = min(WINDOW_S, self.duration_s - begin_s)
            count = int(arrivals.poisson(self.rate_per_s * width_s))
            at_s = np.sort(begin_s + width_s * arrivals.random(count))
            drawn = lengths.integers(0, self.prompt_tokens.size, count)
            if count:
                yield Requests(
                    arrival_s=at_s,
                    prompt_tokens=self.prompt_tokens[drawn],
                    output_tokens=self.output_tokens[drawn],
                    tenant=np.zeros(count, dtype=np.int32),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Steadiness:
    """How much a count moved; ``decided`` are changes of the decision, which the HPA may smooth."""

    changes: int
    decided: int
    mean: float
    attained_ratio: float


def reversals_within(changes: Sequence[ReplicaChange], within_s: float) -> int:
    """Changes in the other direction within ``within_s`` of the change before."""
    return sum(
        (one.after > one.before) != (other.after > other.before)
        and other.at_s - one.at_s <= within_s
        for one, other in itertools.pairwise(changes)
    )


def steadiness(load: ConstantLoad, *, first: int, folder: Path) -> Steadiness:
    """The base case on a constant load, from ``first`` replicas on."""
    scenario = base_scenario(LENGTHS, folder, max_replicas=128, seed=load.seed)
    scenario = dataclasses.replace(
        scenario,
        requests=load,
        load_factor=1.0,
        until_s=None,
        replicas_first=first,
        timeline=False,
    )
    counts: list[int] = []

    def watch(tick: Tick) -> None:
        if tick.decision is not None and FIRST_HOUR_S <= tick.at_s < load.duration_s:
            counts.append(tick.decision.would_be)

    result = simulate(scenario, watch=watch)
    after = [one for one in result.changes if FIRST_HOUR_S <= one.at_s < load.duration_s]
    return Steadiness(
        changes=len(after),
        decided=int(np.count_nonzero(np.diff(counts))),
        mean=result.score.replicas_mean,
        attained_ratio=result.score.slo_attainment_ratio,
    )


def _played(trace: Development, folder: Path) -> Result:
    return simulate(dataclasses.replace(base_scenario(trace, folder), timeline=False))


def main() -> None:
    """Run and print."""
    asked = _arguments()
    lengths = join(list(trace_of(LENGTHS, asked.cache)))
    print("about  requests/s  seed  replicas  attained  changes  decided", flush=True)
    for about in map(int, asked.about.split(",")):
        for place in range(asked.rates):
            load = ConstantLoad(
                prompt_tokens=lengths.prompt_tokens,
                output_tokens=lengths.output_tokens,
                rate_per_s=RATE_PER_S[about] + WORTH_PER_S * place / asked.rates,
                duration_s=asked.hours * HOUR_S,
                seed=place,
            )
            found = steadiness(load, first=math.ceil(1.2 * about), folder=asked.cache)
            print(
                f"{about:5} {load.rate_per_s:11.2f} {load.seed:5} {found.mean:9.2f}"
                f" {found.attained_ratio:9.4f} {found.changes:8} {found.decided:8}",
                flush=True,
            )
    if asked.no_traces:
        return
    print("\nreversals within ten minutes, a day")
    for trace in (TENANTS, LENGTHS):
        result = _played(trace, asked.cache)
        days = result.end_s / DAY_S
        count = reversals_within(result.changes, REVERSAL_S)
        print(
            f"{trace.name:<34} {count / days:5.2f}  changes a day {len(result.changes) / days:.1f}"
            f"  attained {result.score.slo_attainment_ratio:.4f}"
            f"  GPU-hours {result.score.gpu_hours:.1f}",
            flush=True,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--about", default=",".join(map(str, RATE_PER_S)))
    parser.add_argument("--rates", type=int, default=6, help="spread over one replica's worth")
    parser.add_argument("--no-traces", action="store_true")
    parser.add_argument("--cache", type=Path, default=cache_folder())
    return parser.parse_args()


if __name__ == "__main__":
    main()
