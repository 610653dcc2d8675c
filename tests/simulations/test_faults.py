"""What goes wrong on purpose: seen as in a cluster, and never a reason for fewer replicas."""

import dataclasses
import pickle
from itertools import pairwise

import numpy as np
import pytest

from scaler.core.config import HoldDownConfig, PolicyConfig
from scaler.core.hpa import Behavior
from scaler.core.hpa_spec import parse_behavior
from scaler.core.model import Cause, NoData, Work
from scaler.errors import ScenarioError
from simulations import Scenario, simulate
from simulations.faults import Fault, FaultKind, parse_fault
from simulations.peers import PEERS, peer_policy
from simulations.presets import PRESETS
from simulations.replica import StartUp, constant
from simulations.run import Result, Tick
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Policy, drawn_timing, policy_named
from simulations.trace_chunks import Requests, join
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate

MODEL = dataclasses.replace(
    PRESETS["llama-3.1-8b-h100-tp1"].model,
    start_up=StartUp(weights=constant(30.0), compile=constant(28.0)),  # and 2 s of scheduling
)
AT_ONCE: Behavior | None = parse_behavior(
    {
        "scaleUp": {"stabilizationWindowSeconds": 0, "tolerance": 0},
        "scaleDown": {"stabilizationWindowSeconds": 0, "tolerance": 0},
    }
)
BEGIN_S, END_S = 1180.0, 2400.0
BLINDING = (
    f"scrape-gap:{BEGIN_S}:{END_S}",
    f"blind-label:{BEGIN_S}:{END_S}",
    f"prometheus-outage:{BEGIN_S}:{END_S}",
)


def trace(**changes: object) -> list[Requests]:
    settings: dict[str, object] = {
        "shape": Shape.STEP,
        "duration_s": 3000.0,
        "rate_per_s": 4.0,
        "peak_per_s": 40.0,
        "at_s": 600.0,
        "prompt": Lengths(median_tokens=800.0, p95_tokens=2000.0, longest_tokens=4000),
    }
    return list(generate(TraceSpec(**{**settings, **changes}), seed=3))  # type: ignore[arg-type]


def heavy_trace() -> list[Requests]:
    """More than the replicas can serve that a careful daemon has before the step."""
    return trace(peak_per_s=80.0)


def falling_trace() -> list[Requests]:
    """40 requests a second until 1200 s, then a twentieth of them."""
    whole = join(trace(at_s=0.0))
    kept = (whole.arrival_s < 1200.0) | (np.arange(len(whole)) % 20 == 0)
    return [whole.pick(kept)]


def run(*faults: str, watch: list[Tick] | None = None, **changes: object) -> Result:
    settings: dict[str, object] = {
        "requests": trace(),
        "model": MODEL,
        "scaled_object": ScaledObjectSpec(
            polling_interval_s=15.0, replicas_min=1, replicas_max=12, behavior=AT_ONCE
        ),
        "policy": Policy(name="predictive", config=PolicyConfig()),
        "timing": drawn_timing(1, tick_s=15.0, poll_s=15.0, sync_s=15.0),
        "seed": 1,
        "faults": tuple(map(parse_fault, faults)),
    }
    scenario = Scenario(**{**settings, **changes})  # type: ignore[arg-type]
    return simulate(scenario, watch=None if watch is None else watch.append)


def lowered(result: Result, *, from_s: float, to_s: float) -> list[float]:
    """When the count went down in a span."""
    return [c.at_s for c in result.changes if c.after < c.before and from_s <= c.at_s < to_s]


# Declarations


def test_a_fault_is_written_as_it_is_read() -> None:
    fault = parse_fault("gpu-limit:60:90.5:8")
    assert fault == Fault(kind=FaultKind.GPU_LIMIT, from_s=60.0, to_s=90.5, amount=8.0)
    assert str(fault) == "gpu-limit:60:90.5:8"
    assert parse_fault("sick-replica:0:1").amount == 4.0
    for kind in FaultKind:
        numbers = ":8" if kind is FaultKind.GPU_LIMIT else ""
        one = parse_fault(f"{kind}:1:2{numbers}")
        assert str(parse_fault(str(one))) == str(one) == str(pickle.loads(pickle.dumps(one)))  # noqa: S301 - what was just pickled


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("flood:0:1", "fault = 'flood:0:1', must be KIND:FROM_S:TO_S[:AMOUNT] with KIND one of"),
        ("blind-label:0", "must be KIND:FROM_S:TO_S[:AMOUNT] in numbers"),
        ("blind-label:0:x", "must be KIND:FROM_S:TO_S[:AMOUNT] in numbers"),
        ("blind-label:5:4", "fault blind-label = [5, 4), must be 0 <= from < to"),
        ("blind-label:0:nan", "must be 0 <= from < to"),
        ("blind-label:0:4:2", "has too many numbers"),
        ("gpu-limit:0:4", "needs an AMOUNT, the GPUs that there are"),
        ("scrape-gap:0:4:2", "share of the replicas = 2, must be in [0.01, 1]"),
        ("sick-replica:0:4:nan", "factor on its steps = nan, must be in [1, 1000]"),
    ],
)
def test_what_is_no_fault_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_fault(text)
    assert fault in str(caught.value)


# What is seen


@pytest.mark.parametrize(
    ("text", "cause"),
    list(zip(BLINDING, (Cause.EMPTY, Cause.NO_MATCH, Cause.UNREACHABLE), strict=True)),
)
def test_a_blinding_fault_shows_its_cause_and_is_over_when_it_is(text: str, cause: Cause) -> None:
    ticks: list[Tick] = []
    result = run(text, watch=ticks)
    blind = [
        tick.at_s
        for tick in ticks
        if isinstance(tick.observation.queue, NoData)
        and tick.observation.queue.cause is cause
        and tick.at_s > 60.0  # before the first scrape nothing is there to be seen
    ]
    # Seen a scrape and a tick later at most, and over as late: 15 s each.
    assert BEGIN_S <= min(blind) <= BEGIN_S + 30.0
    assert END_S - 15.0 <= max(blind) <= END_S + 30.0
    kind = text.split(":", maxsplit=1)[0]
    at_s, marked = result.timeline.column("at_s"), result.timeline.faults == kind
    np.testing.assert_array_equal(marked, (at_s >= BEGIN_S) & (at_s < END_S))
    gpu_seen = [
        not isinstance(t.observation.gpu, NoData) for t in ticks if BEGIN_S < t.at_s < END_S
    ]
    assert any(gpu_seen) == (cause is not Cause.UNREACHABLE), "DCGM is beside the engines"


@pytest.mark.parametrize(
    "text", [*BLINDING, f"scrape-gap:{BEGIN_S}:{END_S}:0.3", f"scrape-gap:{BEGIN_S}:{END_S}:0.8"]
)
def test_what_was_missed_is_counted_when_it_can_be_seen_again(text: str) -> None:
    """No request is lost or counted twice: the daemon balances counters, not moments."""
    ticks: list[Tick] = []
    requests = trace()
    run(text, watch=ticks, requests=requests, policy=policy_named("fixed:6", PolicyConfig()))
    rounds = {
        tick.observation.work.seen_at_s: tick.observation.work.requests_arrived
        for tick in ticks
        if isinstance(tick.observation.work, Work)
    }
    arrived = join(requests).arrival_s
    first_s, last_s = _counted_between(ticks)
    expected = int(np.count_nonzero((arrived > first_s) & (arrived <= last_s)))
    # What a step has not taken in yet is not waiting yet: a few requests at either end.
    assert sum(rounds.values()) == pytest.approx(expected, abs=15)
    if text.endswith(":0.3"):  # one of six is not reached, which is few enough to go on
        coverage = {
            t.observation.work.coverage_ratio
            for t in ticks
            if t.at_s > 60.0 and isinstance(t.observation.work, Work)
        }
        assert coverage == {1.0, 5 / 6}


def _counted_between(ticks: list[Tick]) -> tuple[float, float]:
    """The scrape that counting began with, and that of the last round."""
    works = [t.observation.work for t in ticks if isinstance(t.observation.work, Work)]
    return works[0].seen_at_s - works[0].interval_s, works[-1].seen_at_s


# Nothing of it lowers the count


@pytest.mark.parametrize("text", BLINDING)
def test_blind_is_not_idle(text: str) -> None:
    """The load falls to a twentieth when nobody can see it; what is seen is released at once."""
    hold = HoldDownConfig(release_s=0.0)
    policy = Policy(name="predictive", config=PolicyConfig(hold_down=hold))
    seeing = run(requests=falling_trace(), policy=policy)
    blind = run(text, requests=falling_trace(), policy=policy)
    assert lowered(seeing, from_s=BEGIN_S, to_s=END_S), "else the test could not fail"
    assert not lowered(blind, from_s=BEGIN_S, to_s=END_S)


@pytest.mark.parametrize(
    "text", ["sick-replica:1180:1800:20", "crash-loop:600:1800", "gpu-limit:500:1800:1"]
)
def test_a_sick_fleet_is_no_reason_for_fewer_replicas(text: str) -> None:
    """Not at any moment fewer than without the fault."""
    healthy, sick = run(requests=heavy_trace()), run(text, requests=heavy_trace())
    at_s = healthy.timeline.column("at_s")
    inside = (at_s >= 600.0) & (at_s < 1800.0)
    wanted = [r.timeline.column("replicas_wanted")[: len(at_s)][inside] for r in (healthy, sick)]
    assert np.all(wanted[1] >= wanted[0])
    assert sick.score.slo_attainment_ratio < healthy.score.slo_attainment_ratio


def test_crashes_keep_replicas_from_being_ready_while_they_last() -> None:
    result = run("crash-loop:500:1500", requests=heavy_trace())
    at_s, ready = result.timeline.column("at_s"), result.timeline.column("replicas_ready")
    inside = (at_s >= 500.0) & (at_s < 1500.0)
    assert ready[inside].max() == ready[at_s < 500.0].max()
    assert ready[at_s > 1900.0].max() > ready[inside].max()


def test_a_limit_of_gpus_leaves_replicas_unschedulable_while_it_lasts() -> None:
    result = run("gpu-limit:500:1500:2", requests=heavy_trace())
    at_s, ready = result.timeline.column("at_s"), result.timeline.column("replicas_ready")
    inside = (at_s >= 500.0) & (at_s < 1500.0)
    assert ready[inside].max() == 2.0
    assert ready[at_s > 1700.0].max() > 2.0


def test_a_sick_replica_is_slow_only_while_it_is_sick() -> None:
    """The only replica there is: its queue is what the fault makes it."""
    one = policy_named("fixed:1", PolicyConfig())
    quiet = trace(peak_per_s=4.0)
    well = run(policy=one, requests=quiet)
    sick = run("sick-replica:1000:1060:5", policy=one, requests=quiet)
    running = [r.timeline.column("running") for r in (well, sick)]
    at_s = well.timeline.column("at_s")
    inside = (at_s > 1030.0) & (at_s < 1060.0)
    assert running[1][inside].min() > 2.0 * running[0][inside].max()
    np.testing.assert_array_equal(running[0][at_s > 1200.0], running[1][at_s > 1200.0])


def test_faults_of_a_kind_may_overlap() -> None:
    result = run("gpu-limit:500:1500:3", "gpu-limit:700:1000:2", "crash-loop:2000:2001")
    at_s = result.timeline.column("at_s")
    assert set(result.timeline.faults[(at_s > 520.0) & (at_s < 1480.0)]) == {"gpu-limit"}
    ready = result.timeline.column("replicas_ready")
    assert ready[(at_s > 700.0) & (at_s < 1500.0)].max() <= 3.0
    assert all(a <= b for a, b in pairwise(at_s))


@pytest.mark.parametrize(
    ("name", "variant"),
    [(peer.name, variant) for peer in PEERS.values() for variant in peer.variants],
)
def test_every_peer_lives_through_every_fault(name: str, variant: str) -> None:
    """Nothing in its place is not a crash: series that end, no answer, replicas that never come."""
    result = run(
        "scrape-gap:60:120", "scrape-gap:130:160:0.5", "blind-label:180:240",
        "prometheus-outage:300:400", "sick-replica:420:500:5", "crash-loop:100:300",
        "gpu-limit:200:400:1",
        requests=trace(duration_s=600.0, at_s=100.0),
        policy=peer_policy(name, PolicyConfig(), variant=variant),
    )  # fmt: skip
    score = result.score
    assert score.completed + score.rejected + score.cut_by_scale_down == score.requests
    assert 1 <= score.replicas_min <= score.replicas_max <= 12
