"""report.html of ``scaler simulate``: what a run came to, for one minute or for an afternoon."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from simulations.attained import NONE, Attained
from simulations.faults import Fault
from simulations.report_page import TIME_CHARTS, column, page
from simulations.report_records import Records
from simulations.report_verdict import verdict
from simulations.run import Result
from simulations.scenario import Scenario
from simulations.timeline import COLUMNS, Timeline

ROWS_MAX = 24_000
"""Rows of a report: four days of ticks of 15 s; a longer run is shown by every second row, ..."""
DRAWN = (
    "arrivals_per_s", "waiting", "running", "kv_cache_ratio", "gpu_util_ratio", "ttft_p95_s",
    "load", "forecast_lead_s", "forecast_load_mean", "forecast_load_upper", "replicas_desired",
    "replicas_wanted", "replicas_ready", "replicas_starting", "replicas_unschedulable",
)  # fmt: skip

SCRIPTS = ("frame.js", "table.js", "simulation_tables.js", "why.js", "simulation.js")
ATTAINED_WINDOW_S = 300.0
"""Over so long the share within the objectives is taken: some thousand requests, or a start-up."""
OF_THE_MACHINE = frozenset({"wall_s", "decide_wall_s", "simulated_requests_per_s"})
"""Keys of summary.json that are left out: the rest depends on the scenario alone."""


def render_simulation(
    summary: Mapping[str, Any],
    scenario: Scenario,
    result: Result,
    records: Records | None = None,
) -> str:
    """The report as one HTML page that fetches nothing.

    ``summary`` is the object of summary.json; of its keys the page needs ``trace`` and ``policy``
    and shows every other one it knows.  ``records`` watched the run (``simulate(scenario,
    watch=records)``); without them, as for a peer's run, a click on a time shows what was seen and
    no arithmetic.  Equal arguments give equal bytes.
    """
    slo = scenario.policy.config.slo
    made = verdict(
        summary,
        ttft_slo_s=slo.ttft_s,
        tpot_slo_s=slo.tpot_s,
        target_ratio=slo.attainment_target_ratio,
        gpus_per_replica=scenario.model.gpus_per_replica,
    )
    data = {
        "verdict": dataclasses.asdict(made),
        "summary": {key: value for key, value in summary.items() if key not in OF_THE_MACHINE},
        "objectives": {
            "ttft_s": slo.ttft_s,
            "tpot_s": slo.tpot_s,
            "attainment_ratio": slo.attainment_target_ratio,
        },
        "gpus_per_replica": scenario.model.gpus_per_replica,
        "replicas_min": scenario.scaled_object.replicas_min,
        "replicas_max": scenario.scaled_object.replicas_max,
        "tick_s": scenario.policy.config.tick_s,
        "end_s": result.end_s,
        "timeline": timeline_data(result.timeline, attained=result.attained),
        "attained_window_s": ATTAINED_WINDOW_S,
        "changes": [[round(c.at_s, 3), c.before, c.after] for c in result.changes],
        "faults": list(_faults(scenario.faults, result.end_s)),
        "records": None if records is None else records.as_data(),
    }
    title = f"{summary['policy']} on {summary['trace']}"
    return page(
        title=title,
        data=data,
        kit=TIME_CHARTS,
        scripts=SCRIPTS,
    )


def timeline_data(
    timeline: Timeline, rows_max: int = ROWS_MAX, *, attained: Attained = NONE
) -> dict[str, Any]:
    """The columns that are drawn, at most ``rows_max`` rows of them, evenly."""
    every = max(1, -(-len(timeline.numbers) // rows_max))
    rows = timeline.numbers[::every]
    stages, places = _coded(timeline.decided_by[::every].tolist())
    columns = {name: column(rows[:, COLUMNS.index(name)]) for name in DRAWN}
    if len(attained.arrived):
        columns["attained_ratio"] = column(attained.share(rows[:, 0], ATTAINED_WINDOW_S))
    return {
        "at_s": column(rows[:, 0], 9),
        "columns": columns,
        "stages": stages,
        "stage": places,
        "every": every,
    }


def _coded(names: list[str]) -> tuple[list[str], list[int]]:
    """Names once, and the place of each."""
    known: dict[str, int] = {}
    places = [known.setdefault(name, len(known)) for name in names]
    return list(known), places


def _faults(faults: tuple[Fault, ...], end_s: float) -> Iterator[dict[str, Any]]:
    for fault in faults:
        yield {
            "at_s": fault.from_s,
            "until_s": min(fault.to_s, end_s),
            "kind": "fault",
            "label": fault.kind.value.replace("-", " "),
        }
