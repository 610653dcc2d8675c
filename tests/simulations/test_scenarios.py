"""What went wrong elsewhere, where it takes a closed loop to go wrong; and constant load.

The shipped defaults, against a simulated fleet of the 70B preset that starts in 135 s.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from scaler.core.config import PolicyConfig
from scaler.core.hpa_spec import parse_behavior
from simulations import Scenario, simulate
from simulations.faults import Fault, FaultKind
from simulations.presets import PRESETS
from simulations.replica import StartUp, constant
from simulations.run import Tick
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Policy, drawn_timing
from simulations.trace_chunks import Requests
from simulations.trace_generate import Shape, TraceSpec, generate

HOUR_S = 3600.0
START_UP_S = 135.0
MODEL = dataclasses.replace(
    PRESETS["llama-3.1-70b-h100-tp4"].model,
    start_up=StartUp(weights=constant(105.0), compile=constant(28.0)),  # and 2 s of scheduling
)
SHIPPED = ScaledObjectSpec(
    polling_interval_s=15.0,
    replicas_min=1,
    replicas_max=64,
    behavior=parse_behavior(
        {
            "scaleUp": {"stabilizationWindowSeconds": 0, "tolerance": 0},
            "scaleDown": {"stabilizationWindowSeconds": 0, "tolerance": 0},
        }
    ),
)


def played(
    trace: Sequence[Requests], *, first: int, faults: tuple[Fault, ...] = ()
) -> tuple[Scenario, list[Tick]]:
    """The scenario, and every tick of its run."""
    scenario = Scenario(
        requests=trace,
        model=MODEL,
        scaled_object=SHIPPED,
        policy=Policy(name="predictive", config=PolicyConfig()),
        replicas_first=first,
        timing=drawn_timing(1, tick_s=15.0, poll_s=15.0, sync_s=15.0),
        seed=1,
        faults=faults,
    )
    ticks: list[Tick] = []
    simulate(scenario, watch=ticks.append)
    return scenario, ticks


def constant_load(rate_per_s: float, *, hours: float, seed: int = 5) -> list[Requests]:
    spec = TraceSpec(shape=Shape.CONSTANT, duration_s=hours * HOUR_S, rate_per_s=rate_per_s)
    return list(generate(spec, seed=seed))


def step_down(
    high_per_s: float, low_per_s: float, *, at_s: float, until_s: float
) -> list[Requests]:
    spec = TraceSpec(
        shape=Shape.STEP,
        duration_s=until_s,
        rate_per_s=high_per_s,
        peak_per_s=low_per_s,
        at_s=at_s,
    )
    return list(generate(spec, seed=5))


def wanted(ticks: Sequence[Tick], *, from_s: float, until_s: float) -> list[int]:
    return [
        tick.decision.would_be
        for tick in ticks
        if tick.decision is not None and from_s <= tick.at_s < until_s
    ]


def cost_s(ticks: Sequence[Tick], *, at_s: float) -> float:
    """What a request was believed to cost at the last tick before ``at_s``."""
    seen = [tick.decision for tick in ticks if tick.decision is not None and tick.at_s < at_s]
    capacity = seen[-1].capacity
    assert capacity is not None
    return capacity.request_cost_s


@pytest.mark.parametrize(("rate_per_s", "first"), [(10.0, 5), (33.0, 13)], ids=["3", "10"])
def test_a_day_of_constant_load_moves_nothing_after_the_first_hour(
    rate_per_s: float, first: int
) -> None:
    """About 2.4 and 8 replicas' worth of busy time: three and ten replicas carry it with slack."""
    _, ticks = played(constant_load(rate_per_s, hours=24.0), first=first)
    counts = wanted(ticks, from_s=HOUR_S, until_s=24 * HOUR_S)
    changes = int(np.count_nonzero(np.diff(counts)))
    assert changes == 0, f"{changes} changes between {min(counts)} and {max(counts)}"


def test_one_replica_in_forty_is_no_reason_to_move() -> None:
    """At 148/s one replica is 2.3 % of the load, and lengths without a bound spread the TTFT tail.

    One change is the price of the careful first hours on its way down.  Were the stretch of that
    tail chosen by chance in one bucket, the count would go up and down four times from 44 to 47.
    """
    _, ticks = played(constant_load(148.0, hours=6.0, seed=7), first=48)
    counts = wanted(ticks, from_s=HOUR_S, until_s=6 * HOUR_S)
    changes = int(np.count_nonzero(np.diff(counts)))
    assert changes <= 1, f"{changes} changes between {min(counts)} and {max(counts)}"


def test_cold_samples_do_not_poison_the_capacity() -> None:
    """ai-dynamo/dynamo#12430: the slow first samples of a new worker stayed in its profile.

    Half of a fleet of two is four times slower for three minutes, as one that still compiles.
    """
    slow = Fault(kind=FaultKind.SICK_REPLICA, from_s=5400.0, to_s=5580.0, amount=4.0)
    _, ticks = played(constant_load(3.0, hours=2.5), first=2, faults=(slow,))
    _, clean = played(constant_load(3.0, hours=2.5), first=2)
    before, after = cost_s(ticks, at_s=5400.0), cost_s(ticks, at_s=7200.0)
    assert before == cost_s(clean, at_s=5400.0)
    assert after == pytest.approx(cost_s(clean, at_s=7200.0), rel=0.1)
    assert max(wanted(ticks, from_s=7200.0, until_s=9000.0)) <= 2


def test_series_of_replicas_that_are_gone_do_not_hold_the_others() -> None:
    """llm-d/llm-d-router#2529: gauges of pods that had been scaled in were summed for ever."""
    _, ticks = played(step_down(20.0, 1.0, at_s=HOUR_S, until_s=5 * HOUR_S), first=8)
    high = wanted(ticks, from_s=0.8 * HOUR_S, until_s=HOUR_S)
    low = wanted(ticks, from_s=4.5 * HOUR_S, until_s=5 * HOUR_S)
    assert min(high) >= 5
    assert low[-1] == 1
    assert max(low) <= 2  # a prompt or two beyond the objective may still ask for one step


def test_a_wrong_model_label_neither_lowers_nor_freezes_for_good() -> None:
    """llm-d/llm-d#2310: no series under the name asked for, for half an hour."""
    gone = Fault(kind=FaultKind.BLIND_LABEL, from_s=HOUR_S, to_s=1.5 * HOUR_S)
    _, ticks = played(
        step_down(20.0, 2.0, at_s=HOUR_S + 60.0, until_s=3 * HOUR_S), first=8, faults=(gone,)
    )
    blind = wanted(ticks, from_s=HOUR_S + 60.0, until_s=1.5 * HOUR_S)
    held = wanted(ticks, from_s=0.9 * HOUR_S, until_s=HOUR_S)[-1]
    assert min(blind) >= held
    assert wanted(ticks, from_s=2.5 * HOUR_S, until_s=3 * HOUR_S)[-1] < held


def test_an_unschedulable_replica_does_not_hold_the_fleet_up() -> None:
    """ai-dynamo/dynamo#14251, closed: no GPUs for the third replica while 12/s ask for more."""
    full = Fault(kind=FaultKind.GPU_LIMIT, from_s=60.0, to_s=3.5 * HOUR_S, amount=8.0)
    _, ticks = played(step_down(9.0, 1.0, at_s=HOUR_S, until_s=4 * HOUR_S), first=2, faults=(full,))
    asked = wanted(ticks, from_s=0.5 * HOUR_S, until_s=HOUR_S)
    assert max(asked) >= 3
    assert max(asked) <= 12, "what cannot be placed is not asked for again and again"
    assert set(wanted(ticks, from_s=3.0 * HOUR_S, until_s=3.5 * HOUR_S)) == {1}
