"""Every peer that an HPA drives, in a run on a step of load."""

import dataclasses

import pytest

from scaler.core.config import PolicyConfig
from scaler.core.hpa_spec import parse_behavior
from simulations import Scenario, simulate
from simulations.faults import parse_fault
from simulations.peers import CORRECTED, PEERS, SHIPPED, Behaviour, peer_policy
from simulations.presets import PRESETS
from simulations.replica import StartUp, constant
from simulations.run import Result
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import drawn_timing
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate

MODEL = dataclasses.replace(
    PRESETS["llama-3.1-8b-h100-tp1"].model,
    start_up=StartUp(weights=constant(30.0), compile=constant(28.0)),  # and 2 s of scheduling
)
TRACE = list(
    generate(
        TraceSpec(
            shape=Shape.STEP,
            duration_s=1800.0,
            rate_per_s=4.0,
            peak_per_s=40.0,
            at_s=600.0,
            prompt=Lengths(median_tokens=800.0, p95_tokens=2000.0, longest_tokens=4000),
        ),
        seed=3,
    )
)
AT_ONCE = parse_behavior(
    {"scaleUp": {"tolerance": 0}, "scaleDown": {"stabilizationWindowSeconds": 0, "tolerance": 0}}
)
HPA_DRIVEN = [
    (name, variant, behaviour)
    for name, peer in PEERS.items()
    if Behaviour.OURS in peer.behaviours
    and peer.build.__module__.startswith("simulations.peers.hpa")
    for variant in peer.variants
    for behaviour in peer.behaviours
]


def _run(
    name: str, *, knob: float | None = None, fault: str | None = None, **form: object
) -> Result:
    policy = peer_policy(name, PolicyConfig(), knob=knob, **form)  # type: ignore[arg-type]
    return simulate(
        Scenario(
            requests=TRACE,
            model=MODEL,
            scaled_object=ScaledObjectSpec(replicas_min=1, replicas_max=12, behavior=AT_ONCE),
            policy=policy,
            timing=drawn_timing(1, tick_s=15.0, poll_s=15.0, sync_s=15.0),
            seed=1,
            timeline=False,
            faults=() if fault is None else (parse_fault(fault),),
        )
    )


@pytest.mark.parametrize(("name", "variant", "behaviour"), HPA_DRIVEN)
def test_a_run_is_whole_and_the_same_again(name: str, variant: str, behaviour: Behaviour) -> None:
    one, other = (_run(name, variant=variant, behaviour=behaviour) for _ in range(2))
    assert one.score == other.score
    assert one.changes == other.changes
    assert one.score.completed == one.score.requests == sum(len(chunk) for chunk in TRACE)
    assert one.score.replicas_min >= 1
    assert one.score.replicas_max <= 12


def test_there_are_the_peers_that_there_should_be() -> None:
    assert {name for name, _, _ in HPA_DRIVEN} >= {
        "keda-queue", "keda-queue-kv", "hpa-gpu-util", "running-requests", "kaito",
        "wva-saturation", "llmd-slo", "queue-guard", "phpa-holt-winters", "seed-keda", "seed-hpa",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("keda-queue", 0.25, 30.0),
        ("keda-queue-kv", 0.05, 0.9),
        ("hpa-gpu-util", 0.3, 0.98),
        ("running-requests", 8.0, 128.0),
        ("queue-guard", 8.0, 128.0),
        ("llmd-slo", 0.2, 1.3),
    ],
)
def test_a_lower_knob_attains_more(name: str, low: float, high: float) -> None:
    """Not always by more GPU-hours: who is late lets a queue grow and overshoots."""
    early, late = _run(name, knob=low).score, _run(name, knob=high).score
    assert early.slo_attainment_ratio > late.slo_attainment_ratio


def test_the_seeds_defect_keeps_it_at_two() -> None:
    shipped = _run("seed-keda", variant=SHIPPED)
    corrected = _run("seed-keda", variant=CORRECTED, knob=32.0)
    after_start = [change.after for change in shipped.changes]
    assert max(after_start, default=1) == 2
    assert corrected.score.replicas_max > 2


def test_both_behaviours_are_followed() -> None:
    """The guide's HPA adds one in two minutes; ours, in this run, four or all in 15 s."""
    own, ours = (
        _run("seed-hpa", knob=0.5, behaviour=behaviour).changes
        for behaviour in (Behaviour.OWN, Behaviour.OURS)
    )
    rises = [change for change in own if change.after > change.before]
    assert (rises[0].before, rises[0].after) == (1, 2)
    assert rises[1].at_s - rises[0].at_s >= 120.0
    assert max(change.after - change.before for change in ours) > 1


def test_an_outage_of_prometheus_holds_and_a_wrong_label_is_an_empty_queue() -> None:
    """Ten times the load comes at 600 s."""
    plain = _run("running-requests", knob=8.0)
    assert any(610.0 < change.at_s < 900.0 for change in plain.changes)
    out = _run("running-requests", knob=8.0, fault="prometheus-outage:610:900")
    assert not any(610.0 < change.at_s < 900.0 for change in out.changes)
    assert any(change.at_s >= 900.0 for change in out.changes)
    blind = _run("running-requests", knob=8.0, fault="blind-label:900:1500")
    fallen = [change for change in blind.changes if 900.0 < change.at_s < 1500.0]
    assert fallen[-1].after == 1, "KEDA takes no series for 0, so the count goes to its minimum"
    assert fallen[-1].at_s >= 1200.0, "after the 300 s of the HPA's window"
