"""Searches over several traces and forms together: what is a point, who goes first, who goes on."""

import dataclasses
from pathlib import Path

import pytest

from simulations.executor import SerialExecutor
from simulations.frontier import Knob, Point
from simulations.peers import Group
from simulations.scoreboard_policies import Contender
from simulations.scoreboard_search import (
    Arena,
    Hunt,
    by_policy,
    cheapest,
    finish,
    hunt,
    promising,
    ranked,
)
from simulations.sweep import Sweep
from tests.simulations.scoreboard_jobs import scenario

KNOB = Knob(name="queue", values=(1.0, 2.0, 4.0))


def _form(policy: str = "keda-queue", variant: str = "shipped") -> Contender:
    return Contender(policy=policy, group=Group.METRIC, variant=variant, knob=KNOB)


def _hunt(folder: Path, variant: str, *points: tuple[float, float]) -> Hunt:
    """A search that has come to (distance from the target, GPU-hours)."""
    arena = Arena(trace="step.csv", base=scenario(folder), attainable_ratio=1.0)
    made = hunt(_form(variant=variant), [arena], attainment_share=0.99)
    found = tuple(
        Point(knob=float(place), attainment_ratio=distance, gpu_hours=hours)
        for place, (distance, hours) in enumerate(points)
    )
    return dataclasses.replace(made, search=dataclasses.replace(made.search, points=found))


class _Told(Sweep):
    """Answers every run with what its trace's table says."""

    def __init__(self, tables: dict[str, tuple[float, float]]) -> None:
        super().__init__(SerialExecutor(), None)  # type: ignore[arg-type]  # nothing is looked up
        self._tables = tables

    def results(self, function, jobs):  # type: ignore[no-untyped-def, override]
        del function
        answers = []
        for job in jobs:
            attained, hours = self._tables[job.scenario.requests.name]
            knob = job.scenario.policy.knob
            answers.append(
                {"slo_attainment_ratio": attained - 0.01 * knob, "gpu_hours": hours / knob}
            )
        return answers


def test_a_value_is_as_good_as_on_the_worst_of_the_traces(tmp_path: Path) -> None:
    """Attained are 1.02 - 0.01 k of 1 and 0.97 - 0.01 k of 0.96: targets 0.99 and 0.9504.

    Distances at k = 1: 1.01 - 0.99 = 0.02 and 0.96 - 0.9504 = 0.0096; at k = 2 the second is
    -0.0004, within 0.003 of its target; at k = 4 it is -0.0204.  GPU-hours add up: 30 / k.
    """
    arenas = [
        Arena(trace="easy.csv", base=scenario(tmp_path, "easy.csv"), attainable_ratio=1.0),
        Arena(trace="hard.csv", base=scenario(tmp_path, "hard.csv"), attainable_ratio=0.96),
    ]
    tables = {"easy.csv": (1.02, 10.0), "hard.csv": (0.97, 20.0)}
    begun = hunt(_form(), arenas, attainment_share=0.99)
    (done,) = finish([begun], _Told(tables), clock=None)
    points = {point.knob: point for point in done.search.points}
    assert points[1.0].attainment_ratio == pytest.approx(0.0096)
    assert points[2.0].attainment_ratio == pytest.approx(-0.0004)
    assert points[4.0].attainment_ratio == pytest.approx(-0.0204)
    assert [points[knob].gpu_hours for knob in (1.0, 2.0, 4.0)] == [30.0, 15.0, 7.5]
    assert done.rows[2.0][1]["gpu_hours"] == 10.0, "the summaries stay, by trace"
    best = done.search.best
    assert 2.0 <= best.knob < 2.3, "0.96 - 0.01 k is 0.003 below its target at k = 2.26"


def test_forms_that_reach_the_target_go_before_those_that_come_near(tmp_path: Path) -> None:
    dear = _hunt(tmp_path, "dear", (0.001, 200.0), (0.005, 300.0))
    fair = _hunt(tmp_path, "fair", (0.0, 105.0))
    cheap = _hunt(tmp_path, "cheap", (-0.001, 100.0))  # within 0.003 of the target
    near = _hunt(tmp_path, "near", (-0.01, 50.0))
    far = _hunt(tmp_path, "far", (-0.3, 10.0))
    nothing = _hunt(tmp_path, "nothing")
    forms = [nothing, far, dear, near, cheap, fair]
    names = [one.contender.variant for one in ranked(forms)]
    assert names == ["cheap", "fair", "dear", "near", "far", "nothing"]
    assert cheapest(forms) is cheap
    assert cheapest([nothing, far, near]) is near
    assert promising(forms) == [cheap, fair], "100 and 105; 200 is more than a tenth above"
    assert promising([cheap, dear]) == [cheap]
    assert promising([far, near, nothing]) == [near, far], "nobody reaches it: two go on"


def test_forms_of_a_policy_on_a_trace_are_together(tmp_path: Path) -> None:
    one, other = _hunt(tmp_path, "shipped"), _hunt(tmp_path, "corrected")
    third = dataclasses.replace(one, contender=_form("kaito"))
    grouped = by_policy([one, third, other])
    assert list(grouped.items()) == [
        (("keda-queue", "step.csv"), [one, other]),
        (("kaito", "step.csv"), [third]),
    ]


def test_a_hopeless_form_is_not_refined(tmp_path: Path) -> None:
    """Three times the GPU-hours of the other form: only the first values are run."""

    class Two(_Told):
        def results(self, function, jobs):  # type: ignore[no-untyped-def, override]
            answers = super().results(function, jobs)
            for job, answer in zip(jobs, answers, strict=True):
                if job.scenario.policy.variant == "corrected":
                    answer["gpu_hours"] *= 3.0
            return answers

    arena = Arena(trace="step.csv", base=scenario(tmp_path), attainable_ratio=1.0)
    begun = [
        hunt(_form("keda-inference-scaler", variant), [arena], attainment_share=0.99)
        for variant in ("shipped", "corrected")
    ]
    good, poor = finish(begun, Two({"step.csv": (1.015, 100.0)}), clock=None)
    assert len(poor.search.points) == len(KNOB.values) < len(good.search.points)
    assert good.search.gpu_hours == pytest.approx(100.0 / 2.5, rel=0.05)  # 1.015 - 0.025 = 0.99
