"""Prose for every stage, from the very terms that the stage gives."""

import math
import string
from dataclasses import replace
from statistics import NormalDist

import pytest

from scaler.core.config import (
    BoundsConfig,
    FreshnessConfig,
    HpaConfig,
    PolicyConfig,
    SignalConfig,
    SloConfig,
    ZeroConfig,
)
from scaler.core.explain import _PROSE, headline, narrative, step_line
from scaler.core.model import Decision, Mode, Stage, Step
from tests.core.play import CONFIG, play
from tests.core.test_capacity_prior import played
from tests.core.test_policy_scripts import TREND

ZERO = replace(CONFIG, bounds=BoundsConfig(replicas_min=0), zero=ZeroConfig(idle_proof_s=15.0))
GPU = replace(CONFIG, signals=SignalConfig(gpu_util_target_ratio=0.8))
ITL = replace(CONFIG, slo=SloConfig(tpot_s=0.08))
FROZEN = replace(CONFIG, mode=Mode.FROZEN)
TOLERANT = replace(CONFIG, hpa=HpaConfig())
NO_HOLD = replace(CONFIG, hold_down=replace(CONFIG.hold_down, window_s=0.0, start_up_factor=0.0))
WAKE = replace(ZERO, freshness=FreshnessConfig(wake_when_blind=True))

RAMP = "at_s ready rate | want\n" + "".join(
    f"{15 * i} 40 {2 + 0.1 * i:.2f} | .\n" for i in range(60)
)

# A script whose last decision has a step of the stage, and what the line must say.
SHOWN: dict[Stage, tuple[PolicyConfig, str, str]] = {
    Stage.WORK: (CONFIG, "at_s ready rate | want\n 0 1 4 | 3", "2.50 replicas' worth (4.00"),
    Stage.FORECAST: (TREND, RAMP, "work expected in 195 s is"),
    Stage.QUEUE: (CONFIG, "at_s ready rate waiting | want\n 0 2 8 40 | 8", "40 requests wait"),
    Stage.KV_CACHE: (CONFIG, "at_s ready kv waiting | want\n 0 4 0.99 1 | 5", "99% of 90%"),
    Stage.TTFT: (CONFIG, "at_s rate ttft | want\n 0 1 50:0:0:50:0 | 2", "within 2 s for 50.0%"),
    Stage.ITL: (ITL, "at_s rate itl | want\n 0 1 50:0:0:50 | 2", "within 0.08 s for 50.0%"),
    Stage.GPU: (GPU, "at_s ready running gpu | want\n 0 4 9 1.0 | 5", "GPUs at 100% of 80%"),
    Stage.IDLE: (ZERO, "at_s ready | want\n 0 1 | .\n 15 1 | 0", "nothing was asked for"),
    Stage.WAKE: (ZERO, "at_s ready gateway | want\n 0 0 1 | 1", "requests wait in front"),
    Stage.HOLD_DOWN: (
        CONFIG,
        "at_s ready | want\n 0 5 | 5",
        "held: the count rose 0 s ago",
    ),
    Stage.KEEP: (
        CONFIG,
        "at_s ready rate | want\n 0 4 4.7 | 4",
        "(level 2.94) with 10%, 0.1 sigmas (forecast 0.00, cost ",
    ),
    Stage.VETO: (
        NO_HOLD,
        "at_s ready rate waiting ttft | want\n0 4 . . 0:0:0:0:0 | .\n15 4 2.6 1 94:3:3:0:0 | 4",
        "latency near its objective",
    ),
    Stage.NO_API: (
        NO_HOLD,
        "at_s wanted rate | want\n 0 3 4 | 3\n 15 - 1 | 3",
        "Kubernetes API is down",
    ),
    Stage.BLIND: (
        CONFIG,
        "at_s ready rate engines | want\n 0 3 4 . | 3\n 15 3 0 -stale | 3",
        "data is missing",
    ),
    Stage.FLOOR: (
        CONFIG,
        "at_s ready rate engines | want\n 0 3 4 . | 3\n 150 3 0 -stale | 3",
        "missing for too long",
    ),
    Stage.BOUNDS: (CONFIG, "at_s ready min max | want\n 0 0 2 9 | 2", "limited to 2 to 9"),
    Stage.UNREACHABLE_STEP: (
        TOLERANT,
        "at_s ready rate | want\n 0 20 33 | .",  # 16.5 / 0.8 = 20.6: one more is swallowed
        "swallow the step from 20",
    ),
    Stage.FROZEN: (FROZEN, "at_s ready rate | want\n 0 3 10 | 3", "the current count is published"),
}


def shown(stage: Stage) -> Decision:
    config, script, _ = SHOWN[stage]
    return play(script, config).decisions[-1]


def test_every_stage_has_prose_and_a_script_that_shows_it() -> None:
    assert set(_PROSE) == set(Stage)
    assert set(SHOWN) == set(Stage)


@pytest.mark.parametrize("stage", list(Stage))
def test_prose_is_made_from_the_terms_the_stage_gives(stage: Stage) -> None:
    decision = shown(stage)
    step = next(item for item in decision.steps if item.stage is stage)
    named = {name for _, name, _, _ in string.Formatter().parse(_PROSE[stage]) if name}
    assert named <= set(dict(step.terms))
    assert SHOWN[stage][2] in step_line(step)
    assert step_line(step).startswith(f"{step.replicas:>3}  {stage}: ")


@pytest.mark.parametrize("stage", list(Stage))
def test_a_narrative_has_every_step_every_proposal_and_what_was_not_seen(stage: Stage) -> None:
    decision = shown(stage)
    lines = narrative(decision)
    assert len(lines) == 1 + len(decision.steps) + len(decision.proposals) + len(decision.blind)
    assert lines[0] == headline(decision)
    assert lines[1 : 1 + len(decision.steps)] == tuple(
        f"  {step_line(step)}" for step in decision.steps
    )


def test_the_headline_says_count_reason_and_what_is_blind() -> None:
    assert headline(shown(Stage.WORK)) == (
        "3 replicas wanted, now 1 (1 ready); work: arriving work 2.50 replicas' worth "
        "(4.00 requests/s of 0.625 s), 0.1 sigmas to spare; blind: itl (absent), gpu (absent)"
    )
    unseen = headline(shown(Stage.NO_API))
    assert unseen.startswith("3 replicas wanted, now unknown; no_api: ")
    assert "answer is load_only" in unseen
    held = headline(shown(Stage.BLIND))
    assert "answer is held" in held
    assert "work (stale)" in held
    whole = play("at_s ready rate gpu itl | want\n 0 1 4 0.5 9:0:0:0 | 3", CONFIG).decisions[-1]
    assert "blind" not in headline(whole)


def test_one_replica_is_not_called_replicas() -> None:
    told = {headline(shown(stage)).partition(" wanted, ")[0] for stage in Stage}
    assert "1 replica" in told
    assert "1 replicas" not in told


def test_waking_blind_says_why() -> None:
    decision = play("at_s ready engines | want\n 0 0 -refused | 1", WAKE).decisions[-1]
    assert "data has been missing for too long" in headline(decision)


def test_a_record_with_other_terms_is_still_told() -> None:
    step = Step(stage=Stage.KEEP, replicas=12, terms=(("spare_ratio", 0.25),))
    assert step_line(step) == " 12  keep: spare_ratio=0.25"


def carries(count: int, decision: Decision, config: PolicyConfig) -> bool:
    """The arithmetic of ``core.sizing`` by hand, from what a record holds of a step of KEEP.

    count >= load + sigmas * sqrt(forecast ** 2 + slack(count) ** 2 + cost ** 2)
    """
    step = next(step for step in decision.steps if step.stage is Stage.KEEP)
    terms, capacity, forecast = dict(step.terms), decision.capacity, decision.forecast
    assert capacity is not None
    assert forecast is not None
    load = terms["load"] * (1.0 + terms["margin_ratio"]) + terms["band"]
    cost = math.log(capacity.request_cost_high_s / capacity.request_cost_s) / 1.645
    assert terms["cost_sigma"] == pytest.approx(cost, rel=1e-3)  # 1.645, rounded
    assert terms["forecast_margin"] == pytest.approx(forecast.load_upper - forecast.load_mean)
    slack = (1.0 - capacity.load_max_ratio) * count ** (1.0 - config.capacity.load_max_gain)
    slack *= terms["sigmas"] / NormalDist().inv_cdf(config.slo.attainment_target_ratio)
    cost = terms["sigmas"] * terms["cost_sigma"] * load
    return count - math.hypot(terms["forecast_margin"], slack, cost) >= load


def test_the_count_that_is_kept_can_be_reckoned_from_the_record() -> None:
    """An hour after a fall to half, in which every count is kept: fewer would not carry it."""
    config = PolicyConfig()
    decisions, _ = played(config, varied=True)
    kept = [one for one in decisions if one.decided_by is Stage.KEEP]
    begun = [one for one in kept if dict(one.steps[-1].terms)["band"] == 0.0]
    assert len({one.would_be for one in kept}) >= 4
    assert [one for one in kept if carries(one.would_be - 1, one, config)] == []
    assert begun
    assert [one for one in begun if not carries(one.would_be, one, config)] == []
