"""Runs to report on: our policy deciding on a scripted day, without a simulated fleet behind it."""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaler.core.hpa import parse_behavior
from scaler.core.policy import PolicyState, decide
from simulations.attained import Attained
from simulations.faults import Fault, FaultKind
from simulations.report_records import Records
from simulations.run import Result, Spent, Tick
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Policy, Scenario
from simulations.score import Quantiles, ReplicaChange, Score
from simulations.timeline import COLUMNS, Timeline, TimelineWriter
from tests.core.play import CONFIG, TICK_S, observation
from tests.service.page_fleet import day
from tests.simulations.small_fleet import model

TRACE = "<script>alert(1)</script> & day.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    summary: Mapping[str, Any]
    scenario: Scenario
    result: Result
    records: Records


def run(ticks: int, *, faults: tuple[Fault, ...] = (), attained: float = 0.9921) -> Run:
    """``ticks`` decisions on a day with a burst; blind for 40 ticks from a third on."""
    records, writer, state = Records(), TimelineWriter("predictive"), PolicyState()
    counts: list[tuple[float, int]] = []
    for place, cells in enumerate(day(ticks)):
        at_s = TICK_S * (place + 1)
        blind = ticks // 3 <= place < ticks // 3 + 40
        seen = {**cells, "engines": "-stale"} if blind else cells
        made = observation({**seen, "at_s": str(at_s)})
        decision, state = decide(made, state, CONFIG, at_s)
        tick = Tick(at_s=at_s, arrived=place * 90, observation=made, decision=decision)
        records(tick)
        wanted = int(cells["ready"]) + int(cells["starting"])
        writer.add(made, decision, arrived=tick.arrived, wanted=wanted)
        counts.append((at_s, wanted))
    changes = tuple(
        ReplicaChange(at_s=at_s, before=before, after=after)
        for (_, before), (at_s, after) in itertools.pairwise(counts)
        if before != after
    )
    result = Result(
        score=score(attained), timeline=writer.timeline(), changes=changes,
        end_s=TICK_S * ticks, spent=Spent(), attained=minutes(ticks),
    )  # fmt: skip
    return Run(summary=summary(result), scenario=scenario(faults), result=result, records=records)


def minutes(ticks: int) -> Attained:
    """Six requests a second, all within the objectives but a quarter of those of one half hour."""
    count = int(ticks * TICK_S / 60.0)
    arrived, good = np.full(count, 360.0), np.full(count, 360.0)
    good[count // 2 : count // 2 + 30] = 270.0
    return Attained(arrived=arrived, good=good)


def lengthened(made: Run, times: int) -> Run:
    """The same run, so many times in a row: its arrays repeated, its decisions told again."""
    first = made.result.timeline
    numbers = np.tile(first.numbers, (times, 1))
    numbers[:, COLUMNS.index("at_s")] = TICK_S * np.arange(1, len(numbers) + 1)
    timeline = Timeline(
        numbers=numbers,
        decided_by=np.tile(first.decided_by, times),
        faults=np.tile(first.faults, times),
    )
    result = dataclasses.replace(made.result, timeline=timeline, end_s=made.result.end_s * times)
    return dataclasses.replace(made, result=result, summary=summary(result))


def summary(result: Result) -> dict[str, Any]:
    """Of summary.json what a report reads."""
    found = dataclasses.asdict(result.score)
    replicas = {name: found.pop(f"replicas_{name}") for name in ("min", "mean", "max")}
    return {
        **found, "trace": TRACE, "policy": "predictive", "duration_s": result.end_s,
        "replicas": replicas, "wall_s": 1.0,
    }  # fmt: skip


def scenario(faults: tuple[Fault, ...] = ()) -> Scenario:
    """No requests: nothing of it is run."""
    return Scenario(
        requests=(),
        model=dataclasses.replace(model(), gpus_per_replica=4),
        scaled_object=ScaledObjectSpec(
            polling_interval_s=15.0, replicas_min=1, replicas_max=20, behavior=parse_behavior({})
        ),
        policy=Policy(name="predictive", config=CONFIG),
        faults=faults,
    )


def score(attained: float) -> Score:
    spread = Quantiles(p50=0.2, p90=0.5, p95=0.8, p99=1.9, max=12.0)
    return Score(
        requests=1_000_000, completed=999_000, rejected=1000, too_long=0, cut_by_scale_down=0,
        slo_attainment_ratio=attained, first_hour_requests=20_000,
        first_hour_attainment_ratio=attained, gpu_hours=400.0,
        pending_gpu_hours=0.0, replica_hours=100.0,
        ttft_s=spread, tpot_s=spread, queue_s=spread, replicas_min=4, replicas_mean=6.2,
        replicas_max=9, replica_changes=24, reversals=5,
    )  # fmt: skip


GAP = Fault(kind=FaultKind.SCRAPE_GAP, from_s=3000.0, to_s=3600.0, amount=1.0)
