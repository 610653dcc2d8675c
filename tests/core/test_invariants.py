"""Invariants 1, 6, 7, 8 and 9 of DESIGN.md, over whatever an observation can hold."""

import math
from dataclasses import fields, replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scaler.core.capacity import capacity_of, update_capacity
from scaler.core.config import BoundsConfig, ForecasterName, FreshnessConfig, PolicyConfig
from scaler.core.explain import narrative
from scaler.core.model import (
    Cause,
    Decision,
    Gateway,
    Gpu,
    KvCache,
    Latency,
    Mode,
    NoData,
    Observation,
    Queue,
    Replicas,
    Role,
    Verdict,
    Work,
)
from scaler.core.policy import PolicyState, decide
from tests.core.play import CONFIG, observation

TICK_S = 15.0
MANY = settings(max_examples=80, deadline=None)

# -- strategies: wild numbers are anything the types allow, sane ones what a fleet produces --------

WILD = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from((0.0, -0.0, -1.0, 1e-320, 1e300, math.nan, math.inf, -math.inf)),
    st.floats(0.0, 1e4),
)
WILD_COUNT = st.one_of(st.integers(-3, 40), st.sampled_from((0, 10**9)))
NO_DATA = st.builds(NoData, cause=st.sampled_from(list(Cause)))


def wild(kind: type[Any], **given_: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``kind`` with every float wild."""
    floats = {item.name: WILD for item in fields(kind) if item.type is float}
    return st.builds(kind, **{**floats, **given_})


COUNTS = st.lists(WILD, min_size=0, max_size=6).map(tuple)
WILD_LATENCY = wild(Latency, bounds_s=COUNTS, counts=COUNTS)
WILD_REPLICAS = wild(
    Replicas,
    wanted=WILD_COUNT,
    current=WILD_COUNT,
    ready=WILD_COUNT,
    starting_age_s=st.lists(WILD, max_size=3).map(tuple),
    unschedulable=WILD_COUNT,
    crash_looping=WILD_COUNT,
    start_up_s=st.lists(WILD, max_size=3).map(tuple),
    inferred=st.booleans(),
)


def wild_observation(at_s: float) -> st.SearchStrategy[Observation]:
    return st.builds(
        Observation,
        seen_at_s=st.just(at_s),
        replicas=WILD_REPLICAS | NO_DATA,
        queue=wild(Queue) | NO_DATA,
        kv_cache=wild(KvCache) | NO_DATA,
        ttft=WILD_LATENCY | NO_DATA,
        itl=WILD_LATENCY | NO_DATA,
        work=wild(Work) | NO_DATA,
        gpu=wild(Gpu) | NO_DATA,
        gateway=wild(Gateway) | NO_DATA,
        capacity_key=st.sampled_from(("", "a", "b")),
    )


@st.composite
def sane_observations(draw: st.DrawFn, length: int) -> list[Observation]:
    """A sequence of what a fleet of one to forty replicas might show."""
    made = []
    for tick in range(length):
        at_s = TICK_S * tick
        ready = draw(st.integers(1, 40))
        rate = draw(st.floats(0.0, 60.0))
        running = draw(st.floats(0.0, 400.0))
        ratio = st.floats(0.0, 1.0)
        counts = draw(st.tuples(*[st.integers(0, 200).map(float)] * 5))
        cells = {
            "at_s": str(at_s),
            "ready": str(ready),
            "starting": str(draw(st.integers(0, 5))),
            "unschedulable": str(draw(st.integers(0, 2))),
            "rate": str(rate),
            "running": str(running),
            "waiting": str(draw(st.floats(0.0, 500.0))),
            "kv": str(draw(ratio)),
            "gpu": str(draw(ratio)),
            "ttft": ":".join(map(str, counts)),
        }
        seen = observation(cells)
        assert isinstance(seen.work, Work)
        work = replace(
            seen.work,
            prompt_tokens=rate * TICK_S * draw(st.floats(1.0, 4000.0)),
            output_tokens=rate * TICK_S * draw(st.floats(0.0, 1000.0)),
            finished_prompt_tokens=rate * TICK_S * draw(st.floats(0.0, 4000.0)),
            finished_output_tokens=rate * TICK_S * draw(st.floats(0.0, 1000.0)),
        )
        made.append(replace(seen, work=work))
    return made


CONFIGS = st.builds(
    PolicyConfig,
    mode=st.sampled_from(list(Mode)),
    role=st.sampled_from(list(Role)),
    forecaster=st.sampled_from(list(ForecasterName)),
    bounds=st.builds(BoundsConfig, replicas_min=st.integers(0, 3), replicas_max=st.integers(3, 60)),
    freshness=st.builds(
        FreshnessConfig,
        floor_replicas=st.integers(0, 9),
        wake_when_blind=st.booleans(),
        grace_s=st.sampled_from((0.0, 20.0, 120.0)),
    ),
)


BOTH = (PolicyConfig(), CONFIG)  # as shipped, and without any margin
CONFIGS |= st.sampled_from(BOTH)


def run(
    observations: list[Observation], config: PolicyConfig
) -> tuple[list[Decision], PolicyState]:
    state, decisions = PolicyState(), []
    for seen in observations:
        decision, state = decide(seen, state, config, seen.seen_at_s)
        decisions.append(decision)
    return decisions, state


WILD_RUNS = st.tuples(*(wild_observation(TICK_S * tick) for tick in range(4))).map(list)


def finite(value: object) -> bool:
    """Whether every float in a state is finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, tuple):
        return all(finite(item) for item in value)
    if hasattr(value, "__dataclass_fields__"):
        return all(finite(getattr(value, name)) for name in value.__dataclass_fields__)
    return True


# -- 1, 6, 7 ---------------------------------------------------------------------------------------


@MANY
@given(WILD_RUNS, CONFIGS)
def test_whatever_is_seen_the_count_is_within_bounds_explained_and_repeatable(
    observations: list[Observation], config: PolicyConfig
) -> None:
    decisions, state = run(observations, config)
    assert repr(run(observations, config)) == repr((decisions, state))  # 1; repr equates NaN
    for decision in decisions:
        assert config.bounds.replicas_min <= decision.would_be <= config.bounds.replicas_max  # 7
        assert math.isfinite(decision.encoded)
        if decision.mode is Mode.ACTIVE:
            assert decision.replicas_desired == decision.would_be
        assert decision.steps[-1].replicas == decision.replicas_desired  # 6
        assert decision.decided_by is decision.steps[-1].stage
        assert narrative(decision)
    assert finite(state)


@MANY
@given(
    sane_observations(3),
    CONFIGS,
    st.sampled_from(("queue", "kv_cache", "ttft", "work", "gpu")),
    st.sampled_from((math.nan, math.inf, -math.inf, -1.0, 1e300)),
    st.data(),
)
def test_one_impossible_number_is_the_same_as_no_data(
    observations: list[Observation],
    config: PolicyConfig,
    name: str,
    poison: float,
    data: st.DataObject,
) -> None:
    """Whichever number of a signal it is: nothing of that signal is used, or remembered."""
    _, state = run(observations[:-1], config)
    now = observations[-1]
    signal = getattr(now, name)
    measured = [item.name for item in fields(signal) if item.type is float]
    field = data.draw(st.sampled_from([*measured, "counts"] if name == "ttft" else measured))
    assume(not (field == "requests_arrived" and poison == -1.0))  # a balance may be negative
    value = (poison, *signal.counts[1:]) if field == "counts" else poison
    impossible: dict[str, Any] = {name: replace(signal, **{field: value})}
    hurt = replace(now, **impossible)
    decision, after = decide(hurt, state, config, now.seen_at_s)
    said = getattr(decision.observation, name)
    assert isinstance(said, NoData)
    assert said.cause in (Cause.NOT_A_NUMBER, Cause.MALFORMED)
    missing: dict[str, Any] = {name: said}
    assert (decision, after) == decide(replace(now, **missing), state, config, now.seen_at_s)


def _moved(seen: Observation, by_s: float) -> Observation:
    parts: dict[str, Any] = {}
    for name in ("replicas", "queue", "kv_cache", "ttft", "work", "gpu"):
        value = getattr(seen, name)
        parts[name] = replace(value, seen_at_s=value.seen_at_s + by_s)
    return replace(seen, seen_at_s=seen.seen_at_s + by_s, **parts)


@MANY
@given(sane_observations(4), CONFIGS)
def test_every_step_changes_the_count_or_is_the_first_or_the_proof_of_idleness(
    observations: list[Observation], config: PolicyConfig
) -> None:
    """6: no stage is named that did nothing."""
    for decision in run(observations, config)[0]:
        counts = [step.replicas for step in decision.steps]
        stages = [step.stage.value for step in decision.steps]
        for before, after, stage in zip(counts, counts[1:], stages[1:], strict=False):
            assert before != after or stage == "idle"


# -- 8 ---------------------------------------------------------------------------------------------


@MANY
@given(
    sane_observations(4), CONFIGS, st.floats(1.0, 5.0), st.floats(0.0, 300.0), st.floats(1.0, 3.0)
)
def test_more_demand_is_never_sized_to_fewer_replicas(
    observations: list[Observation],
    config: PolicyConfig,
    factor: float,
    waiting: float,
    longer: float,
) -> None:
    """More arrivals, longer requests, more waiting: with equal state never fewer replicas.

    Running requests are left alone: they are what is served, not what is asked for, and with none
    of them busy GPUs are unexplained.
    """
    *before, now = observations
    _, state = run(before, config)
    assert isinstance(now.work, Work)
    assert isinstance(now.queue, Queue)
    assume(now.work.requests_finished > 0.0)
    work = replace(
        now.work,
        requests_arrived=now.work.requests_arrived * factor,
        finished_prompt_tokens=now.work.finished_prompt_tokens * longer,
        finished_output_tokens=now.work.finished_output_tokens * longer,
    )
    queue = replace(now.queue, requests_waiting=now.queue.requests_waiting + waiting)
    more = replace(now, work=work, queue=queue)
    assume(now.work.finished_prompt_tokens + now.work.finished_output_tokens > 0.0)
    less_decision, _ = decide(now, state, config, now.seen_at_s)
    more_decision, _ = decide(more, state, config, now.seen_at_s)
    assert more_decision.would_be >= less_decision.would_be


@MANY
@given(st.lists(wild_observation(0.0), min_size=1, max_size=6), sane_observations(6))
def test_one_observation_moves_the_capacity_estimate_by_a_bounded_share(
    wild_ones: list[Observation], sane_ones: list[Observation]
) -> None:
    config = CONFIG.capacity
    mixed = [item for pair in zip(sane_ones, wild_ones, strict=False) for item in pair]
    _, state = run(sane_ones[:1], CONFIG)
    capacity, demand = state.capacity, run(sane_ones, CONFIG)[0][0].demand
    assert demand is not None
    for tick, seen in enumerate(mixed, start=1):
        at_s = TICK_S * tick
        decision, _ = decide(replace(seen, seen_at_s=at_s), PolicyState(), CONFIG, at_s)
        clean = replace(decision.observation, capacity_key="", kv_cache=NoData(cause=Cause.ABSENT))
        later = update_capacity(clean, capacity, config)
        ratio = (
            capacity_of(demand, later, CONFIG).request_cost_s
            / capacity_of(demand, capacity, CONFIG).request_cost_s
        )
        assert 1.0 / 1.1 - 1e-9 <= ratio <= 1.1 + 1e-9
        capacity = later


# -- 9 ---------------------------------------------------------------------------------------------

SIGNALS = ("replicas", "queue", "kv_cache", "ttft", "work", "gpu")  # itl is never there
LOST = st.dictionaries(st.sampled_from(SIGNALS), NO_DATA, min_size=1)


@MANY
@given(sane_observations(6), CONFIGS, LOST, st.sampled_from((15.0, 60.0, 400.0, 4000.0)))
def test_missing_data_never_scales_down(
    observations: list[Observation], config: PolicyConfig, lost: dict[str, Any], gap_s: float
) -> None:
    """Any signals gone that were there: not below the last decision and the count that runs.

    Either may be the lower one: the HPA may be on its way from one to the other.
    """
    decisions, state = run(observations, config)
    now = _moved(observations[-1], gap_s)
    assert isinstance(now.replicas, Replicas)
    hurt = replace(now, **lost)
    decision, _ = decide(hurt, state, config, now.seen_at_s)
    if decision.verdict is Verdict.UNKNOWN:
        return  # no answer: the HPA keeps the count it has
    least = min(decisions[-1].would_be, now.replicas.wanted, config.bounds.replicas_max)
    assert decision.would_be >= least
    assert decision.active
    if "replicas" not in lost and not {"queue", "work"} <= set(lost):
        assert decision.would_be >= min(now.replicas.wanted, config.bounds.replicas_max)


@MANY
@given(sane_observations(5), st.floats(0.0, 0.99), st.sampled_from(("queue", "work")))
def test_a_partial_sum_never_scales_down(
    observations: list[Observation], coverage_ratio: float, name: str
) -> None:
    for config in BOTH:
        _, state = run(observations[:-1], config)
        now = observations[-1]
        part = replace(getattr(now, name), coverage_ratio=coverage_ratio)
        decision, _ = decide(replace(now, **{name: part}), state, config, now.seen_at_s)
        assert isinstance(now.replicas, Replicas)
        assert decision.would_be >= min(now.replicas.wanted, config.bounds.replicas_max)


@MANY
@given(sane_observations(4), st.floats(0.0, 3000.0))
def test_a_blind_target_at_zero_is_left_there(
    observations: list[Observation], later_s: float
) -> None:
    config = replace(CONFIG, bounds=BoundsConfig(replicas_min=0))
    _, state = run(observations, config)
    at_s = observations[-1].seen_at_s + later_s
    seen = observation({"at_s": str(at_s), "ready": "0", "engines": "-refused"})
    decision, after = decide(seen, state, config, at_s)
    assert decision.verdict is Verdict.UNKNOWN
    assert after.demand == state.demand
