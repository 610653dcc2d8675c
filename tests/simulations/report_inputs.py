"""Inputs of the reports of comparisons, searches and advisory days, small and made by hand."""

from typing import Any

import numpy as np

from simulations.report_advisory import Advisory, Disagreement, Series, Target
from simulations.report_tune import Front, Interval, Outcome, Recommended, SearchedSetting, Trial
from simulations.tune_choice import Candidate, Choice, Verdict
from simulations.tune_words import advice
from tests.simulations.tune_cases import outcome as summed

TRACES = ("day.csv.gz", "burst.csv.gz")
ORACLE = {"day.csv.gz": 100.0, "burst.csv.gz": 200.0}


def entry(trace: str, policy: str, group: str, hours: float, **more: Any) -> dict[str, Any]:
    """One entry of a scoreboard."""
    attained = more.pop("attained", 0.991)
    return {
        "trace": trace, "policy": policy, "variant": "shipped", "group": group, "behaviour": "own",
        "slo_attainment_ratio": attained, "gpu_hours": hours, "requests": 1_000_000,
        "slo_attainable_ratio": 0.9995, "attainment_target": 0.9895,
        "target_reached": attained >= 0.9865, "oracle_gpu_hours": ORACLE[trace],
        "oracle_bound_gpu_hours": 0.9 * ORACLE[trace], "knob": "target", "knob_value": 10.0,
        "ttft_s": {"p95": 0.8, "p99": 1.7}, "replicas": {"min": 1, "mean": 4.5, "max": 9},
        "replica_changes": 40, "reversals": 9, **more,
    }  # fmt: skip


def frontier(trace: str, policy: str, group: str, hours: float | None) -> dict[str, Any]:
    """One with a curve of four points around its GPU-hours at the target."""
    middle = hours or 2.5 * ORACLE[trace]
    reached = 0.99 if hours else 0.95
    points = [[10.0 * place, reached - 0.02 * (2 - place), middle * (0.8 + 0.1 * place)]
              for place in range(3)]  # fmt: skip
    points.append([30.0, min(reached + 0.009, 0.9995), middle * 1.2])
    return entry(
        trace, policy, group, middle, variant="frontier", attained=reached,
        gpu_hours_at_target=hours, knob_values=[point[0] for point in points], points=points,
    )  # fmt: skip


def scoreboard() -> list[dict[str, Any]]:
    """Two traces; ours needs 1.2 and 1.1 times the oracle, the best metric peer 1.6 and 1.5."""
    made = []
    for trace, ours, metric, profile in (
        ("day.csv.gz", 120.0, 160.0, 130.0),
        ("burst.csv.gz", 220.0, 300.0, 210.0),
    ):
        made += [
            entry(trace, "oracle", "bound", ORACLE[trace]),
            entry(trace, "predictive", "ours", ours),
            frontier(trace, "predictive", "ours", 0.95 * ours),
            entry(trace, "keda-queue", "metric", 90.0, attained=0.9),  # cheap, and misses
            frontier(trace, "keda-queue", "metric", metric),
            frontier(trace, "hpa-gpu-util", "metric", None),  # no knob reaches the target
            frontier(trace, "token-rate", "profile", profile),
        ]
    return made


def front() -> Front:
    """Forty trials over two settings; the tenth is recommended, and holds on held-out days."""
    trials = [trial(place) for place in range(40)]
    return Front(
        traces=["day", "burst"],
        attainment_target_ratio=0.99,
        train_hours=96.0,
        held_out_hours=48.0,
        settings=[searched("hold_down.window_s", 60.0, 900.0, 300.0, 0.7),
                  searched("forecast.quantile_ratio", 0.5, 0.99, 0.9, 0.3)],
        defaults=Trial(
            number=-1, settings={"hold_down.window_s": 300.0, "forecast.quantile_ratio": 0.9},
            train=outcome(0.992, 5000.0), held_out=outcome(0.991, 2600.0), on_front=False,
            flaps=False,
        ),
        trials=trials,
        recommended=Recommended(
            trial=10, slo_attainment_ratio=Interval(low=0.9889, high=0.9931),
            gpu_hours=Interval(low=2210.0, high=2500.0), level_ratio=0.9,
        ),
        patches={"patch.yaml": "policy:\n  hold_down:\n    window_s: 410\n"},
        seed=3,
        advice=_advice(trials[10]),
        findings=["The front carries over."],
        by_trace=[],
    )  # fmt: skip


def _advice(best: Trial) -> str:
    """What the search says of it, beside the shipped settings of ``front``."""
    attained, hours = best["train"]["slo_attainment_ratio"], best["train"]["gpu_hours"]
    assert best["held_out"] is not None
    unseen = best["held_out"]
    chosen = Candidate(
        number=best["number"], values=best["settings"], train=summed(attained, hours),
        held_out=summed(unseen["slo_attainment_ratio"], unseen["gpu_hours"]),
    )  # fmt: skip
    shipped = Candidate(
        number=-1, values={}, train=summed(0.992, 5000.0), held_out=summed(0.991, 2600.0)
    )
    choice = Choice(chosen=chosen, verdict=Verdict.CONFIRMED, refused=())
    return advice(choice, [chosen, shipped], shipped, target_ratio=0.99, attainable_ratio=0.999)


def trial(place: int) -> Trial:
    on_front = place % 5 == 0
    return Trial(
        number=place,
        settings={"hold_down.window_s": 60.0 + 20.0 * place,
                  "forecast.quantile_ratio": 0.5 + 0.49 * ((place * 7) % 40) / 39},
        train=outcome(0.98 + 0.0012 * place / (1 + 0.05 * place), 4000.0 + 60.0 * place),
        held_out=outcome(0.9905, 2340.0 + place) if on_front else None,
        on_front=on_front,
        flaps=False,
    )  # fmt: skip


def outcome(attained: float, hours: float) -> Outcome:
    return Outcome(slo_attainment_ratio=attained, gpu_hours=hours, replica_changes=20, reversals=6)


def searched(
    name: str, low: float, high: float, default: float, importance: float
) -> SearchedSetting:
    return SearchedSetting(
        name=name, low=low, high=high, default=default, why="for a reason",
        importance_ratio=importance,
    )  # fmt: skip


BEGAN_AT_S = 1_900_000_000.0


def advisory() -> Advisory:
    """Two targets over two days: one may go, one may not."""
    return Advisory(
        from_at_s=BEGAN_AT_S, to_at_s=BEGAN_AT_S + 2 * 86400.0, tick_s=15.0,
        targets=[
            target("chat", "go", would=300.0, live=400.0),
            target("code", "no-go", would=500.0, live=400.0),
        ],
    )  # fmt: skip


def target(name: str, verdict: Any, *, would: float, live: float) -> Target:
    at_s = BEGAN_AT_S + np.arange(0.0, 2 * 86400.0, 15.0)
    load = 6.0 + 4.0 * np.sin((at_s - BEGAN_AT_S) / 86400.0 * 2.0 * np.pi)
    wanted, there = np.ceil(load / 0.8), np.full(len(at_s), 12.0)
    return Target(
        namespace="llm", name=name, ttft_slo_s=2.0, gpus_per_replica=4, gpu_hours_would=would,
        gpu_hours_live=live, missed_minutes_would=4.0, missed_minutes_live=6.0, blind_minutes=2.0,
        verdict=verdict, reasons=["a reason in words"],
        disagreements=[
            Disagreement(at_s=BEGAN_AT_S + 3600.0 * place, until_s=BEGAN_AT_S + 3600.0 * place
                         + 600.0 * (place + 1), would_be=5, live=12, why="work: little arrives")
            for place in range(4)
        ],
        series=Series(
            at_s=at_s, would_be=wanted, live=there, ready=there, load=load,
            forecast_lead_s=np.full(len(at_s), 195.0), forecast_mean=load,
            forecast_upper=1.2 * load, ttft_p95_s=0.3 + 0.02 * load, waiting=np.zeros(len(at_s)),
            decided_by=["work" if place % 400 else "keep" for place in range(len(at_s))],
        ),
    )  # fmt: skip
