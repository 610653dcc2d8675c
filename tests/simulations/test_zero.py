"""To zero and back: idleness is proven, and a request in front of the fleet ends it."""

import dataclasses

import numpy as np
import pytest

from scaler.core.config import PolicyConfig
from scaler.core.hpa_spec import parse_behavior
from scaler.core.model import Cause, Gateway, NoData
from simulations import Scenario, simulate
from simulations.faults import parse_fault
from simulations.replica import StartUp, constant
from simulations.run import Result, Tick
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Policy, Timing
from simulations.trace_chunks import Requests
from tests.simulations.small_fleet import model

COOLDOWN_S, START_UP_S = 300.0, 40.0
BUSY_S, AGAIN_AT_S = 600.0, 4000.0
CONFIG = PolicyConfig()


def run(*, watch: list[Tick] | None = None, **changes: object) -> Result:
    """A request every two seconds for ten minutes, nothing for an hour, ten more requests."""
    arrivals = np.concatenate((np.arange(0.5, BUSY_S, 2.0), AGAIN_AT_S + np.arange(0.5, 20.5, 2.0)))
    count = arrivals.size
    start_up = StartUp(
        scheduling=constant(0.0), weights=constant(START_UP_S), compile=constant(0.0)
    )
    settings: dict[str, object] = {
        "requests": [
            Requests(
                arrival_s=arrivals,
                prompt_tokens=np.full(count, 10, dtype=np.int32),
                output_tokens=np.full(count, 10, dtype=np.int32),
                tenant=np.zeros(count, dtype=np.int32),
            )
        ],
        "model": dataclasses.replace(model(), start_up=start_up),
        "scaled_object": ScaledObjectSpec(
            polling_interval_s=15.0,
            cooldown_s=COOLDOWN_S,
            replicas_min=0,
            replicas_max=4,
            behavior=parse_behavior({"scaleDown": {"stabilizationWindowSeconds": 0}}),
        ),
        "policy": Policy(name="predictive", config=CONFIG),
        "timing": Timing(scrape_phase_s=1.0, tick_phase_s=3.0, poll_phase_s=5.0, sync_phase_s=7.0),
        "replicas_first": 1,
    }
    scenario = Scenario(**{**settings, **changes})  # type: ignore[arg-type]
    return simulate(scenario, watch=None if watch is None else watch.append)


def test_it_goes_to_zero_after_its_proof_and_the_cooldown_and_comes_back() -> None:
    result = run()
    to_zero = next(change for change in result.changes if change.after == 0)
    proven_s = BUSY_S + CONFIG.zero.idle_proof_s + COOLDOWN_S
    # The last work is seen a scrape and a tick later; the cooldown ends with a poll: 15 s each.
    assert proven_s - 5.0 <= to_zero.at_s <= proven_s + 60.0
    back = next(c for c in result.changes if c.before == 0 and c.at_s > to_zero.at_s)
    # The first request is on the gateway's counter with the next scrape, tick and poll.
    assert AGAIN_AT_S < back.at_s <= AGAIN_AT_S + 45.0
    assert result.score.completed == result.score.requests == 310
    # Its TTFT is the rest of the start-up: nobody is refused, everybody waits.
    assert START_UP_S < result.score.ttft_s.max <= START_UP_S + 45.0 + 2.0
    assert result.score.replicas_min == 0


def test_the_gateways_counter_is_only_asked_for_where_zero_is_allowed() -> None:
    def fronts(low: int) -> list[Gateway | NoData]:
        ticks: list[Tick] = []
        spec = ScaledObjectSpec(polling_interval_s=15.0, replicas_min=low, replicas_max=4)
        run(watch=ticks, scaled_object=spec)
        return [tick.observation.gateway for tick in ticks]

    assert all(isinstance(g, NoData) and g.cause is Cause.UNSUPPORTED for g in fronts(1))
    counted = [g.requests_arrived for g in fronts(0) if isinstance(g, Gateway)]
    # All requests but those before the first look: one in the first scrape's second.
    assert 310.0 - 2.0 <= sum(counted) <= 310.0


@pytest.mark.parametrize("kind", ["scrape-gap", "blind-label", "prometheus-outage"])
def test_blind_at_one_is_not_idle_and_blind_at_zero_stays_there(kind: str) -> None:
    """Two spans without sight: one when the load has just ended, one when nobody is left."""
    result = run(faults=(parse_fault(f"{kind}:590:2000"), parse_fault(f"{kind}:3900:5000")))
    assert all(change.at_s >= 2000.0 for change in result.changes if change.after == 0)
    down = next(change for change in result.changes if change.after == 0)
    woken = next(change for change in result.changes if change.before == 0)
    assert down.at_s < 3900.0
    # The gateway's counter is on another page than the pods'; without Prometheus it is not seen.
    blind = kind == "prometheus-outage"
    assert woken.at_s > (5000.0 if blind else AGAIN_AT_S)
    assert woken.at_s <= (5045.0 if blind else AGAIN_AT_S + 45.0)
