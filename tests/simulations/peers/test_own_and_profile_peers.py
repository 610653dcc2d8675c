"""Peers with an actuator of their own, and those handed a profile, in whole small runs."""

import dataclasses
import functools
import itertools

import pytest

from scaler.core.config import PolicyConfig
from scaler.core.hpa_spec import parse_behavior
from simulations.peers import PEERS, Behaviour, Group, peer_policy
from simulations.presets import PRESETS
from simulations.replica import StartUp, constant
from simulations.run import Result, simulate
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Scenario
from simulations.timing import drawn_timing
from simulations.trace_chunks import Requests
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate

OWN_ACTUATOR = (
    *("knative-kpa", "aibrix-apa", "kubeai", "sageserve-reactive", "chiron-lite"),
    "dynamo",
)
PROFILE = ("token-rate", "wva-tokens", "llmd-tokens", "dynamo", "inferno")
NAMES = tuple(dict.fromkeys((*OWN_ACTUATOR, *PROFILE)))
# At these values of their knobs the peers keep this load, which their shipped ones need not.
TUNED = {
    "knative-kpa": 24.0,
    "aibrix-apa": 0.1,
    "kubeai": 16.0,
    "sageserve-reactive": 0.07,
    "chiron-lite": 24.0,
    "token-rate": 0.5,
    "wva-tokens": 0.3,
    "llmd-tokens": 0.1,
    "dynamo": 0.6,
    "inferno": 0.5,
}
MODEL = dataclasses.replace(
    PRESETS["llama-3.1-8b-h100-tp1"].model,
    start_up=StartUp(weights=constant(30.0), compile=constant(28.0)),
)
SPEC = ScaledObjectSpec(
    polling_interval_s=15.0,
    replicas_min=1,
    replicas_max=12,
    behavior=parse_behavior({"scaleDown": {"stabilizationWindowSeconds": 60, "tolerance": 0}}),
)


PROMPTS = Lengths(median_tokens=800.0, p95_tokens=2000.0, longest_tokens=4000)
TRACES = {
    "day": TraceSpec(  # up to five times the load and back within an hour
        shape=Shape.DIURNAL,
        duration_s=3600.0,
        period_s=3600.0,
        rate_per_s=10.0,
        peak_per_s=50.0,
        prompt=PROMPTS,
    ),
    "step": TraceSpec(  # more than what is there carries
        shape=Shape.STEP,
        duration_s=1200.0,
        rate_per_s=10.0,
        peak_per_s=80.0,
        at_s=600.0,
        prompt=PROMPTS,
    ),
    "mix": TraceSpec(  # from long prompts with short answers to the reverse
        shape=Shape.MIX_SHIFT,
        duration_s=1800.0,
        rate_per_s=30.0,
        at_s=600.0,
        hold_s=300.0,
        prompt=Lengths(median_tokens=3000.0, p95_tokens=4000.0, longest_tokens=6000),
        output=Lengths(median_tokens=20.0, p95_tokens=40.0),
        later_prompt=Lengths(median_tokens=100.0, p95_tokens=200.0),
        later_output=Lengths(median_tokens=500.0, p95_tokens=900.0),
    ),
}


@functools.cache
def _trace(shape: str = "day") -> tuple[Requests, ...]:
    return tuple(generate(TRACES[shape], seed=3))


@functools.cache
def _run(
    name: str,
    knob: float | None = None,
    variant: str = "shipped",
    behaviour: Behaviour = Behaviour.OWN,
    shape: str = "day",
) -> Result:
    policy = peer_policy(name, PolicyConfig(), variant=variant, knob=knob, behaviour=behaviour)
    scenario = Scenario(
        requests=_trace(shape),
        model=MODEL,
        scaled_object=SPEC,
        policy=policy,
        replicas_first=2,
        timing=drawn_timing(1, tick_s=15.0, poll_s=15.0, sync_s=15.0),
        seed=1,
        timeline=False,
    )
    return simulate(scenario)


def test_they_are_in_the_registry_in_their_groups() -> None:
    for name in NAMES:
        peer = PEERS[name]
        assert peer.group is (Group.PROFILE if name in PROFILE else Group.METRIC)
        assert peer.knob_default > 0.0
        assert list(peer.knob_values) == sorted(set(peer.knob_values))
        assert peer.knob_values[0] <= peer.knob_default <= peer.knob_values[-1]
        assert (Behaviour.OURS in peer.behaviours) is (name not in OWN_ACTUATOR)


@pytest.mark.parametrize("name", NAMES)
def test_every_peer_follows_the_load_when_tuned(name: str) -> None:
    variant = "corrected" if "corrected" in PEERS[name].variants else "shipped"
    result = _run(name, TUNED[name], variant)
    score = result.score
    assert score.requests == sum(len(chunk) for chunk in _trace())
    assert score.completed + score.cut_by_scale_down == score.requests
    assert score.slo_attainment_ratio > 0.97
    assert score.replicas_max > score.replicas_min
    assert score.replicas_mean < 8.0, "no peer may keep the load by standing at the maximum"
    risen = [change for change in result.changes if change.after > change.before]
    fallen = [change for change in result.changes if change.after < change.before]
    assert risen
    assert fallen


@pytest.mark.parametrize("name", NAMES)
def test_the_knob_moves_the_cost(name: str) -> None:
    """A value with more room costs more."""
    variant = "corrected" if "corrected" in PEERS[name].variants else "shipped"
    tight = _run(name, TUNED[name], variant).score
    roomy = _run(name, 0.6 * TUNED[name], variant).score
    assert roomy.gpu_hours > tight.gpu_hours


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name in NAMES for variant in PEERS[name].variants if variant != "shipped"],
)
def test_every_variant_is_a_policy_of_its_own(name: str, variant: str) -> None:
    """It differs where there is reason to: more load than is carried, or other lengths."""
    differs = False
    for shape in ("step", "mix"):
        result = _run(name, TUNED[name], variant, shape=shape)
        differs |= result.changes != _run(name, TUNED[name], shape=shape).changes
        assert 1 <= result.score.replicas_min <= result.score.replicas_max <= 12
    assert differs


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN_ACTUATOR])
def test_the_behaviour_is_the_peers_or_ours(name: str) -> None:
    own = _run(name, TUNED[name])
    ours = _run(name, TUNED[name], behaviour=Behaviour.OURS)
    assert own.changes != ours.changes


@pytest.mark.parametrize("name", NAMES)
def test_equal_runs_are_equal(name: str) -> None:
    first = _run(name)
    _run.cache_clear()
    again = _run(name)
    assert first.changes == again.changes
    assert first.score == again.score


def test_knative_halves_at_most_a_step() -> None:
    for change in _run("knative-kpa", TUNED["knative-kpa"]).changes:
        assert change.after >= change.before // 2 or change.before <= 3


def test_dynamo_waits_for_a_replica_that_starts() -> None:
    """After a step up nothing is decided until the replica is ready, 60 s later."""
    changes = _run("dynamo", TUNED["dynamo"]).changes
    for before, after in itertools.pairwise(changes):
        if before.after > before.before:
            assert after.at_s - before.at_s >= 60.0


@pytest.mark.parametrize(
    ("name", "variant"), [("sageserve-reactive", "shipped"), ("chiron-lite", "corrected")]
)
def test_an_arbiter_that_holds_changes_one_replica_in_155_s(name: str, variant: str) -> None:
    changes = _run(name, TUNED[name], variant).changes
    assert len(changes) > 5
    assert {abs(change.after - change.before) for change in changes} == {1}
    gaps = [after.at_s - before.at_s for before, after in itertools.pairwise(changes)]
    assert min(gaps) > 154.99


def test_without_its_hold_chiron_runs_to_the_maximum_while_replicas_start() -> None:
    shipped = _run("chiron-lite", TUNED["chiron-lite"])
    corrected = _run("chiron-lite", TUNED["chiron-lite"], "corrected")
    assert shipped.score.replicas_max == SPEC.replicas_max
    assert corrected.score.replicas_max < SPEC.replicas_max // 2
    assert shipped.score.gpu_hours > 2.0 * corrected.score.gpu_hours


def test_llmds_rule_adds_one_replica_in_three_minutes() -> None:
    changes = _run("llmd-tokens", TUNED["llmd-tokens"]).changes
    ups = [change for change in changes if change.after > change.before]
    assert all(change.after == change.before + 1 for change in ups)
    gaps = [after.at_s - before.at_s for before, after in itertools.pairwise(ups)]
    assert min(gaps, default=180.0) >= 180.0


def test_completions_taken_for_arrivals_keep_an_overloaded_fleet_small() -> None:
    """Inferno as shipped sizes for what is served, corrected for what comes."""
    shipped = _run("inferno", 1.0, shape="step").score
    corrected = _run("inferno", 1.0, "corrected", shape="step").score
    assert corrected.slo_attainment_ratio > shipped.slo_attainment_ratio
    assert corrected.ttft_s.p99 < shipped.ttft_s.p99


def test_a_queue_trigger_sees_the_load_that_token_counters_do_not() -> None:
    plain = _run("token-rate", 0.9, shape="step").score
    queue = _run("token-rate", 0.9, "queue", shape="step").score
    assert queue.slo_attainment_ratio > plain.slo_attainment_ratio
