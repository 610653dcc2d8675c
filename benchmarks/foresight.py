"""What the future is worth: the policy as shipped, and handed the load to come.

    python -m benchmarks.foresight [--hours H] [--jobs N]

The base case (``benchmarks.arena``).  Each trace is played as shipped, which also writes down the
work that arrives; then again with the highest minute until the lead in place of the forecast, and
the highest until the end of the hold in place of its horizon; then once more without what the way
down keeps because the future is not known (release, margins, dead band, and a hold longer than a
start-up).  Everything else stays: capacity is learned, KEDA and the HPA stand between.  What is
saved is what no policy without a view of the future can be blamed for; what is left over the
oracle of the scoreboard is the method's, and the HPA's.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.arena import HOUR_S, RECORDED, Development, base_scenario, cache_folder
from benchmarks.flapping import REVERSAL_S, reversals_within
from scaler.core import estimates
from scaler.core.config import HoldDownConfig
from scaler.core.forecast import ForecastState, Outlook, look_ahead
from simulations.run import Result, simulate
from simulations.scenario import Scenario

TICKS_A_MINUTE = 4
ERROR_RATIO = 0.02  # that is left to guard against when the future is known
HEARD_S = 30.0  # KEDA and the HPA take that long at most to hear a decision
FREE = HoldDownConfig(
    window_s=150.0,
    level_s=30.0,
    start_up_factor=1.0,
    margin_ratio=0.0,
    sigma_min_factor=0.0,
    scatter_factor=0.0,
    drift_ratio=0.0,
    release_s=0.0,
)
Look = Callable[..., tuple[Outlook, ForecastState]]


class Arrivals:
    """The work that arrives, as a run saw it: what the forecaster is given, by the tick."""

    def __init__(self) -> None:
        self._at_s: list[float] = []
        self._work: list[float] = []

    def look(self, value: float, *given: Any, now_s: float, **named: Any) -> Any:
        """``look_ahead``, with ``value`` written down."""
        self._at_s.append(now_s)
        self._work.append(value)
        return look_ahead(value, *given, now_s=now_s, **named)

    def known(self) -> Look:
        """``look_ahead`` that knows what was written down instead of forecasting."""
        at_s = np.array(self._at_s)
        minutes = np.convolve(self._work, np.full(TICKS_A_MINUTE, 1.0 / TICKS_A_MINUTE))
        minutes = minutes[: at_s.size]

        def highest(begin_s: float, end_s: float) -> float:
            first, last = np.searchsorted(at_s, [begin_s, end_s])
            first = min(int(first), at_s.size - 1)
            return float(minutes[first : max(int(last), first + 1)].max())

        def look(
            value: float, *given: Any, lead_s: float, now_s: float, horizon_s: float, **named: Any
        ) -> tuple[Outlook, ForecastState]:
            outlook, state = look_ahead(
                value, *given, lead_s=lead_s, now_s=now_s, horizon_s=horizon_s, **named
            )
            mean = highest(now_s, now_s + lead_s + HEARD_S)
            outlook = dataclasses.replace(
                outlook,
                mean=mean,
                upper=mean * (1.0 + ERROR_RATIO),
                skill=1.0,
                used=True,
                horizon_mean=highest(now_s, now_s + max(horizon_s, lead_s + HEARD_S)),
            )
            return outlook, state

        return look


def _with(scenario: Scenario, hold: HoldDownConfig) -> Scenario:
    policy = scenario.policy
    config = dataclasses.replace(policy.config, hold_down=hold)
    return dataclasses.replace(scenario, policy=dataclasses.replace(policy, config=config))


def _played(scenario: Scenario, look: Look) -> Result:
    with mock.patch.object(estimates, "look_ahead", look):
        return simulate(scenario)


def _row(name: str, result: Result) -> str:
    score = result.score
    reversals = reversals_within(result.changes, REVERSAL_S)
    return f"  {name:34} {score.slo_attainment_ratio:8.4f} {score.gpu_hours:9.1f} {reversals:9d}"


def rows_of(trace: Development, *, hours: float, folder: Path) -> list[str]:
    """The runs of a trace, a line each."""
    base = dataclasses.replace(base_scenario(trace, folder), until_s=hours * HOUR_S, timeline=False)
    arrivals = Arrivals()
    runs = [("as shipped", _played(base, arrivals.look))]
    known = arrivals.known()
    runs.append(("the future known", _played(base, known)))
    runs.append(("and nothing kept for the unknown", _played(_with(base, FREE), known)))
    return [trace.name, *(_row(name, result) for name, result in runs)]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=12.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=cache_folder())
    asked = parser.parse_args()
    play = functools.partial(rows_of, hours=asked.hours, folder=asked.cache)
    print(f"  {'':34} attained GPU-hours reversals")
    with concurrent.futures.ProcessPoolExecutor(asked.jobs) as pool:
        for rows in pool.map(play, RECORDED):
            print("\n".join(rows), flush=True)


if __name__ == "__main__":
    main()
