"""A prior that is reloaded moves nothing that was learned: seconds stay seconds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaler.core.capacity import unlearned_cost_s
from scaler.core.capacity_prior import repriced
from scaler.core.capacity_steps import Filter, Four, first_doubt, step_times
from scaler.core.config import CapacityConfig, PolicyConfig
from scaler.core.model import Decision, Observation, Work
from scaler.core.policy import PolicyState, decide
from tests.core.play import CONFIG, TICK_S, observation
from tests.core.test_invariants import finite

SHIPPED = PolicyConfig()
NAMES = ("overhead_s", "per_sequence_s", "per_kv_token_s", "per_prefill_token_s")
READY, RATE, PROMPT, OUTPUT = 30, 200.0, 1000.0, 200.0
TIMES: Four = (1.6, 0.5, 1.2, 0.8)  # of the engine, in those of the shipped prior
RELOAD, END = 240, 480  # ticks: an hour to learn, an hour to remember


def reloaded(factor: float, names: tuple[str, ...] = NAMES) -> PolicyConfig:
    """The shipped settings with a prior of other step times."""
    capacity = SHIPPED.capacity
    times = {name: factor * getattr(capacity, name) for name in names}
    return replace(SHIPPED, capacity=replace(capacity, **times))


def fleet(tick: int, *, varied: bool) -> Observation:
    """Thirty busy replicas, for an hour with twice the load of the next; all is served in time."""
    rate = RATE if tick < RELOAD - 8 else 0.5 * RATE
    row = {
        "at_s": str(TICK_S * tick), "ready": str(READY), "rate": str(rate),
        "running": str(20 * READY), "kv": "0.3", "ttft": "8000:600:0:0:0",
    }  # fmt: skip
    made = observation(row)
    assert isinstance(made.work, Work)
    prompt = PROMPT * ((0.6, 1.0, 1.4)[tick % 3] if varied else 1.0) * rate * TICK_S
    output = OUTPUT * ((0.8, 1.0, 1.2, 1.0)[tick % 4] if varied else 1.0) * rate * TICK_S
    overhead_s, sequence_s, kv_token_s, prefill_s = step_times(TIMES, SHIPPED.capacity)
    context = PROMPT + 0.5 * OUTPUT
    work_s = prompt * prefill_s + output * (sequence_s + context * kv_token_s)
    steps = (READY * TICK_S - work_s) / overhead_s
    work = replace(
        made.work,
        prompt_tokens=prompt,
        output_tokens=output,
        engine_steps=steps,
        finished_prompt_tokens=PROMPT * rate * TICK_S,
        finished_output_tokens=OUTPUT * rate * TICK_S,
    )
    return replace(made, work=work)


def played(
    after: PolicyConfig, *, varied: bool, change: Callable[[PolicyState], PolicyState] = lambda s: s
) -> tuple[list[Decision], PolicyState]:
    """The decisions since the settings became ``after``, and the state that they ended in."""
    state, decisions = PolicyState(), []
    for tick in range(END):
        if tick == RELOAD:
            state = change(state)
        config = SHIPPED if tick < RELOAD else after
        decision, state = decide(fleet(tick, varied=varied), state, config, TICK_S * tick)
        decisions.append(decision)
    return decisions[RELOAD:], state


def loads(decision: Decision) -> tuple[float, ...]:
    """Load now, expected, and at most, in replicas' worth."""
    capacity, demand, forecast = decision.capacity, decision.demand, decision.forecast
    assert capacity is not None
    assert demand is not None
    assert forecast is not None
    load = demand.requests_per_s * capacity.request_cost_s
    return load, forecast.load_mean, forecast.load_upper


def doubt(decision: Decision) -> float:
    """How unsure the cost of a request is, as a factor."""
    assert decision.capacity is not None
    return decision.capacity.request_cost_high_s / decision.capacity.request_cost_s


@pytest.mark.parametrize("varied", [False, True], ids=["one mix", "mixes"])
@pytest.mark.parametrize(
    ("factor", "names"),
    [(3.0, NAMES), (1.0 / 3.0, NAMES), (3.0, NAMES[3:]), (1.0 / 3.0, NAMES[:1])],
    ids=["dearer", "cheaper", "prompts dearer", "overhead cheaper"],
)
def test_a_prior_reloaded_in_mid_run_moves_neither_count_nor_load(
    factor: float, names: tuple[str, ...], *, varied: bool
) -> None:
    """Neither while the count is held for a load that fell two minutes before, nor after it.

    New evidence is weighed by the new prior's doubt, so the next steps may come a little earlier or
    later.
    """
    plain, _ = played(SHIPPED, varied=varied)
    moved, _ = played(reloaded(factor, names), varied=varied)
    for before, after in zip(plain, moved, strict=True):
        assert loads(after) == pytest.approx(loads(before), rel=1e-3)
        assert doubt(after) == pytest.approx(doubt(before), abs=0.1)
    counts, again = [[one.would_be for one in each] for each in (plain, moved)]
    assert counts[0] > counts[-1] + 8
    assert again[:40] == counts[:40]
    assert again[-1] == counts[-1]
    assert max(abs(one - other) for one, other in zip(counts, again, strict=True)) <= 3


def test_a_prior_that_was_reloaded_and_taken_back_leaves_nothing() -> None:
    config, other = SHIPPED, reloaded(3.0)
    _, state = played(config, varied=True)
    decision, _ = decide(fleet(END, varied=True), state, config, TICK_S * END)
    assert decision.demand is not None
    there = repriced(state.capacity, decision.demand, other)
    back = repriced(there, decision.demand, config)
    assert there.multiples == pytest.approx([one / 3.0 for one in state.capacity.multiples])
    assert there.unit == pytest.approx(1.0 / 3.0)
    assert back.multiples == pytest.approx(state.capacity.multiples)
    assert back.steps.doubt == pytest.approx(state.capacity.steps.doubt)
    assert back.unit == pytest.approx(1.0)
    assert back.prior == state.capacity.prior


def test_a_state_that_names_no_prior_was_learned_with_that_of_the_settings() -> None:
    """As in a checkpoint of a version that did not name it."""

    def unnamed(state: PolicyState) -> PolicyState:
        return replace(state, capacity=replace(state.capacity, prior=None))

    assert played(SHIPPED, varied=True, change=unnamed) == played(SHIPPED, varied=True)


def test_where_nothing_was_learned_a_new_prior_is_believed_at_once() -> None:
    """Also of the load of the last minutes: a level that followed slowly would hold the count."""
    state, counts = PolicyState(), []
    dearer = replace(CONFIG, capacity=replace(CONFIG.capacity, per_prefill_token_s=12e-4))
    cheaper = replace(CONFIG, capacity=replace(CONFIG.capacity, per_prefill_token_s=0.5e-4))
    for tick, config in enumerate((CONFIG, CONFIG, dearer, dearer, cheaper)):
        seen = observation({"at_s": str(TICK_S * tick), "ready": "8", "rate": "8"})
        decision, state = decide(seen, state, config, TICK_S * tick)
        assert decision.demand is not None
        assert decision.capacity is not None
        load = decision.demand.requests_per_s * decision.capacity.request_cost_s
        level = state.work_level
        assert level is not None
        cost_s = unlearned_cost_s(decision.demand, config) * state.capacity.unit
        assert level * decision.capacity.request_cost_s / cost_s == pytest.approx(load)
        counts.append(round(load, 6))
    # 1000 tokens of prompt at 0.5, 1.2 and 0.05 ms, and 0.125 s for the outputs.
    assert counts == [5.0, 5.0, 10.6, 10.6, 1.4]


def test_a_step_time_of_nothing_has_no_multiples() -> None:
    decisions, state = played(SHIPPED, varied=True)
    demand = decisions[-1].demand
    assert demand is not None
    none = repriced(state.capacity, demand, reloaded(0.0, NAMES[1:3]))
    assert none.multiples == state.capacity.multiples
    assert repriced(none, demand, SHIPPED).multiples == state.capacity.multiples


def test_no_multiple_is_in_more_doubt_than_the_prior_is() -> None:
    """And what is known of their sum stays known: correlations shrink with the rest."""
    decisions, state = played(SHIPPED, varied=False)
    demand = decisions[-1].demand
    assert demand is not None
    most = first_doubt(SHIPPED.capacity)[0]
    before = state.capacity.steps.doubt
    assert max(before) * 9.0 > most  # one mix tells little of each
    after = repriced(state.capacity, demand, reloaded(1.0 / 3.0)).steps.doubt
    assert max(after) == pytest.approx(most)
    assert [one / max(after) for one in after] == pytest.approx([x / max(before) for x in before])


def test_a_new_pod_template_is_believed_to_be_what_a_prior_reloaded_with_it_says() -> None:
    """What another engine taught is a first belief at most, and somebody has just said better."""
    decisions, state = played(SHIPPED, varied=True)
    demand = decisions[-1].demand
    assert demand is not None
    fresh = replace(state.capacity, steps=Filter(estimate=state.capacity.multiples))
    after = repriced(fresh, demand, reloaded(3.0))
    assert (after.multiples, after.steps) == (Filter().estimate, Filter())
    assert after.evidence_s == 0.0


@pytest.mark.parametrize("ticks", [1, 2, 3, 10, 39])
def test_in_the_first_minutes_a_corrected_prior_is_believed_at_once(ticks: int) -> None:
    """The prior of an engine four times slower than the shipped, reloaded after some looks.

    It is up to half too dear; what is published was still on its way to what those looks had shown,
    and a quarter of the truth.
    """
    shipped, right = SHIPPED, reloaded(4.0)
    state, costs = PolicyState(), []
    for tick in range(80):
        seen = fleet(tick, varied=True)
        assert isinstance(seen.work, Work)
        quarter = 0.25 * TIMES[0] / 1.6  # of the work, in as much time
        work = replace(
            seen.work,
            prompt_tokens=quarter * seen.work.prompt_tokens,
            output_tokens=quarter * seen.work.output_tokens,
            engine_steps=quarter * seen.work.engine_steps,
        )
        config = shipped if tick < ticks else right
        decision, state = decide(replace(seen, work=work), state, config, TICK_S * tick)
        assert decision.capacity is not None
        costs.append(decision.capacity.request_cost_s)
    assert 0.65 < costs[ticks] / costs[-1] < 1.6
    assert costs[ticks] > 2.0 * costs[0]


@pytest.mark.parametrize("varied", [False, True], ids=["one mix", "mixes"])
@pytest.mark.parametrize("uncertainty", [1.0, 1.1, 100.0])
def test_another_doubt_of_the_prior_moves_no_load(uncertainty: float, *, varied: bool) -> None:
    """A smaller one cut only the variances: their correlations made the estimate run away."""
    capacity = replace(SHIPPED.capacity, prior_uncertainty_factor=uncertainty)
    plain, _ = played(SHIPPED, varied=varied)
    moved, state = played(replace(SHIPPED, capacity=capacity), varied=varied)
    for before, after in zip(plain, moved, strict=True):
        assert loads(after) == pytest.approx(loads(before), rel=0.02)
        assert doubt(after) < doubt(before) + 0.2
    p00, p01, p02, p03, p11, p12, p13, p22, p23, p33 = state.capacity.steps.doubt
    rows = [(p00, p01, p02, p03), (p01, p11, p12, p13), (p02, p12, p22, p23), (p03, p13, p23, p33)]
    assert min(np.linalg.eigvalsh(np.array(rows))) > -1e-12


PRIORS = st.builds(
    CapacityConfig,
    overhead_s=st.floats(1e-4, 10.0),
    per_sequence_s=st.floats(0.0, 1.0),
    per_kv_token_s=st.floats(0.0, 1e-3),
    per_prefill_token_s=st.floats(1e-7, 1.0),
    sequences_max=st.floats(1.0, 1e5),
    prior_uncertainty_factor=st.floats(1.0, 100.0),
)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PRIORS, min_size=2, max_size=4))
def test_whatever_prior_is_reloaded_the_state_stays_finite(priors: list[CapacityConfig]) -> None:
    state = PolicyState()
    for tick in range(8 * len(priors)):
        config = replace(SHIPPED, capacity=priors[tick // 8])
        decision, state = decide(fleet(tick, varied=True), state, config, TICK_S * tick)
        assert decision.capacity is not None
        assert 0.0 < decision.capacity.request_cost_low_s <= decision.capacity.request_cost_high_s
    assert finite(state)
