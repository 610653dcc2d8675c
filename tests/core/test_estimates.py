"""What is derived before any signal proposes, and what an observation may teach."""

from dataclasses import replace

from scaler.core.config import PolicyConfig
from scaler.core.memory import PolicyState
from scaler.core.model import Cause, NoData, Observation
from scaler.core.policy import decide
from tests.core.play import observation


def seen(at_s: float, *, sampled: bool = True) -> Observation:
    """Forty replicas with a steady load; counters need a second scrape before they are rates."""
    found = observation({"at_s": str(at_s), "ready": "40", "rate": "150"})
    return found if sampled else replace(found, work=NoData(cause=Cause.ABSENT))


def test_a_load_that_is_not_known_yet_is_no_load_to_the_forecaster() -> None:
    """It would be a ramp from zero, and its errors would be remembered for hours."""
    config, state = PolicyConfig(), PolicyState()
    decision, state = decide(seen(0.0, sampled=False), state, config, 0.0)
    assert decision.forecast is not None
    assert state.forecast.known is None
    for tick in range(1, 41):
        decision, state = decide(seen(15.0 * tick), state, config, 15.0 * tick)
        assert decision.demand is not None
        assert decision.capacity is not None
        assert decision.forecast is not None
        load = decision.demand.requests_per_s * decision.capacity.request_cost_s
        assert abs(decision.forecast.load_mean / load - 1.0) < 1e-6
        assert decision.forecast.load_upper < 1.3 * load
