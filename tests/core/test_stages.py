"""One contract for every stage: it changes the count and says so, or it leaves no trace."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.budget import Budget
from scaler.core.config import HoldDownConfig
from scaler.core.model import Cause, Forecast, Gpu, NoData, Signal, Stage, Step
from scaler.core.proposals import Situation, attainment, likely_ratio, propose, relief
from scaler.core.sizing import Margins
from scaler.core.stages import (
    Steps,
    binding,
    bound,
    count_of,
    hold_down,
    hold_span_s,
    keep,
    limits,
    lost_signal,
    no_api,
    then,
    veto,
)
from tests.core.play import CONFIG, observation, play


def situation(wanted: int = 4, **cells: str) -> Situation:
    """What the stages look at, taken from a decision on the same cells."""
    row = {"at_s": "0", "ready": str(wanted), **cells}
    seen = observation(row)
    made = play(f"{' '.join(row)} | want\n {' '.join(row.values())} | .").decisions[0]
    assert made.demand is not None
    assert made.capacity is not None
    assert isinstance(made.forecast, Forecast)
    load = made.demand.requests_per_s * made.capacity.request_cost_s
    return Situation(
        now_s=0.0,
        observation=seen,
        demand=made.demand,
        capacity=made.capacity,
        forecast=made.forecast,
        margins=Margins(sigmas=1.0, forecast=0.0, capacity_ratio=0.0),
        budget=Budget(allowed_ratio=0.01, unavoidable_ratio=0.0, spent_ratio=1.0, price_factor=1.0),
        config=CONFIG,
        load=load,
        level=load,
        peak=load,
        settled=load,
        ease=1.0,
        before=wanted,
        sought=wanted,
        wanted=wanted,
        ready=wanted,
        coming=0,
        stuck=0,
        latency_step_at_s=None,
        ready_rose_at_s=None,
    )


BUSY_GPU = situation(gpu="1.0")
NEAR = situation(rate="2.6", waiting="1", ttft="94:3:3:0:0")
LOADED = situation(rate="4.7")
NO_API = replace(
    situation(),
    observation=replace(situation().observation, replicas=NoData(cause=Cause.UNREACHABLE)),
)
LONG_S = 86400.0
Apply = Callable[[Steps], Steps]
STAGES: dict[Stage, Apply] = {
    Stage.KEEP: lambda steps: keep(steps, LOADED, since_s=LONG_S),
    Stage.HOLD_DOWN: lambda steps: hold_down(steps, situation(), since_s=15.0, span_s=300.0),
    Stage.VETO: lambda steps: veto(steps, NEAR),
    Stage.BLIND: lambda steps: lost_signal(steps, situation(), 1),
    Stage.NO_API: lambda steps: no_api(steps, NO_API),
    Stage.BOUNDS: lambda steps: bound(steps, low=2, high=6),
}
EVERY = pytest.mark.parametrize("stage", list(STAGES))


def first(count: int) -> Steps:
    return (Step(stage=Stage.WORK, replicas=count, terms=()),)


@EVERY
@given(count=st.integers(0, 100))
def test_a_stage_adds_one_step_of_its_own_or_none(stage: Stage, count: int) -> None:
    before = first(count)
    after = STAGES[stage](before)
    assert after[0] is before[0]
    if after == before:
        return
    assert len(after) == 2
    assert after[-1].stage is stage
    assert after[-1].replicas != count
    assert after[-1].terms
    assert all(isinstance(value, float) for _, value in after[-1].terms)


@EVERY
def test_a_stage_holds_a_count_of_zero_up(stage: Stage) -> None:
    assert count_of(STAGES[stage](first(0))) == {Stage.BOUNDS: 2}.get(stage, 4)


@EVERY
@given(count=st.integers(4, 100))
def test_only_the_bounds_ever_lower_a_count(stage: Stage, count: int) -> None:
    after = count_of(STAGES[stage](first(count)))
    assert after == (min(count, 6) if stage is Stage.BOUNDS else count)


@EVERY
@given(count=st.integers(0, 50), more=st.integers(0, 50))
def test_a_stage_keeps_the_order_of_counts(stage: Stage, count: int, more: int) -> None:
    apply = STAGES[stage]
    assert count_of(apply(first(count + more))) >= count_of(apply(first(count)))


def test_then_adds_nothing_where_nothing_changes() -> None:
    steps = first(3)
    assert then(steps, Stage.VETO, 3, ()) is steps
    assert count_of(then(steps, Stage.VETO, 4, ())) == 4


def test_the_largest_proposal_binds_and_the_earliest_among_equals() -> None:
    proposals = propose(situation(rate="4.7", kv="0.6"))  # work 3, forecast 3, queue 3, KV 3
    assert {item.replicas for item in proposals if item.signal is not Signal.TTFT} == {3}
    assert binding(proposals)[0].stage is Stage.WORK


def test_keep_never_asks_for_more_than_there_are() -> None:
    """A load of 2.35 with 10 % needs 4; where 3 run and the proposal is 2, it keeps 3."""
    at = replace(LOADED, wanted=3, sought=3)
    assert count_of(keep(first(2), at, since_s=LONG_S)) == 3


def test_a_step_down_begins_clear_of_the_noise_of_the_level_and_then_goes_all_the_way() -> None:
    """A load of 2.6 * 0.625 = 1.625 with 10 % is 1.79; 15 s of level scatter by 0.27.

    Two replicas carry it with no standard deviation of that to spare and not with one: 2.06.
    """

    def kept(wanted: int, factor: float, *, sought: int | None = None) -> int:
        at = situation(wanted, rate="2.6")
        hold = replace(at.config.hold_down, scatter_factor=factor)
        margins = replace(at.margins, sigmas=0.0)
        config = replace(at.config, hold_down=hold)
        at = replace(
            at, config=config, margins=margins, sought=wanted if sought is None else sought
        )
        return count_of(keep(first(1), at, since_s=LONG_S))

    assert kept(3, 0.0) == 2
    assert kept(3, 1.0) == 3
    assert kept(3, 1.0, sought=2) == 2  # decided before, and the HPA waits: not taken back
    assert kept(4, 1.0) == 2  # three carry that too, so it goes to where it would be without


def test_the_veto_of_latency_ends_where_load_can_have_no_part_in_it() -> None:
    """Load 2.6 * 0.625 = 1.625 with the dear end equal to the mean, half busy: ceil(3.25) = 4."""
    at = situation(30, rate="2.6", ttft="94:3:3:0:0")
    assert relief(at) == 4
    assert count_of(veto(first(2), at)) == 4
    assert count_of(veto(first(12), at)) == 12
    waiting = situation(30, rate="2.6", ttft="94:3:3:0:0", waiting="1")
    assert count_of(veto(first(2), waiting)) == 30


def test_gpus_veto_only_what_the_engines_do_not_explain() -> None:
    assert count_of(veto(first(1), BUSY_GPU)) == 4
    assert count_of(veto(first(1), situation(gpu="1.0", running="2"))) == 1
    assert count_of(veto(first(1), situation(gpu="0.9"))) == 1
    unseen = replace(BUSY_GPU, observation=replace(BUSY_GPU.observation, queue=_gone()))
    assert isinstance(unseen.observation.gpu, Gpu)
    assert count_of(veto(first(1), unseen)) == 1


def _gone() -> NoData:
    return NoData(cause=Cause.STALE)


@pytest.mark.parametrize(
    ("window_s", "start_up_s", "expected"), [(300.0, 180.0, 300.0), (300.0, 400.0, 600.0)]
)
def test_the_hold_grows_with_what_a_mistake_costs(
    window_s: float, start_up_s: float, expected: float
) -> None:
    assert hold_span_s(HoldDownConfig(window_s=window_s), start_up_s) == expected


def test_limits_of_the_object_replace_the_configured_ones() -> None:
    configured = limits(CONFIG, None, None)
    assert (configured.low, configured.high) == (1, 100)
    objects = limits(CONFIG, 0, 7)
    assert (objects.low, objects.high) == (0, 7)
    senseless = limits(CONFIG, -2, 0)
    assert (senseless.low, senseless.high) == (0, 1)


# -- attainment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective_s", "low", "likely", "high"),
    [
        (1.0, 0.7, 0.7, 0.7),  # on a bound: certain
        (2.0, 0.7, 1 - 0.3 * 3 ** (-2 / 3), 0.9),  # a tail of 0.3 at 1 s and of 0.1 at 2.5 s
        (5.0, 1.0 - 0.05, 0.95, 0.95),  # the highest bound
        (9.0, 0.95, 0.95, 1.0),  # above it: those beyond may be in time
        (0.25, 0.0, 1 - math.sqrt(0.6), 0.4),  # half of (0, 0.5]: the root of what is above it
    ],
)
def test_attainment_is_an_interval_where_a_bucket_straddles_the_objective(
    objective_s: float, low: float, likely: float, high: float
) -> None:
    latency = observation({"at_s": "0", "ttft": "40:30:20:5:5"}).ttft
    assert not isinstance(latency, NoData)
    found = attainment(latency, objective_s)
    assert (found.low, found.likely, found.high) == pytest.approx((low, likely, high))
    assert likely_ratio(latency, objective_s) == found.likely


@given(
    counts=st.tuples(*[st.integers(0, 100)] * 5).filter(any),
    objective_s=st.floats(0.01, 20.0),
    more_s=st.floats(0.0, 5.0),
)
def test_attainment_is_ordered_and_grows_with_the_objective(
    counts: tuple[int, ...], objective_s: float, more_s: float
) -> None:
    latency = observation({"at_s": "0", "ttft": ":".join(map(str, counts))}).ttft
    assert not isinstance(latency, NoData)
    found, wider = attainment(latency, objective_s), attainment(latency, objective_s + more_s)
    assert 0.0 <= found.low <= found.likely + 1e-12
    assert found.likely <= found.high + 1e-12
    assert found.high <= 1.0 + 1e-12
    assert wider.likely >= found.likely - 1e-12


def test_an_empty_histogram_has_no_attainment() -> None:
    latency = observation({"at_s": "0"}).ttft
    assert not isinstance(latency, NoData)
    with pytest.raises(AssertionError):
        attainment(latency, 1.0)
