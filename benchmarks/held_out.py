"""Traffic that nothing was tuned on: ours as shipped against peers, tuned elsewhere and here.

    python -m benchmarks.held_out [--jobs N] [--cache DIR] [--out DIR] [--policies ...]

The defaults of the policy were chosen on the first 12 hours of the five development traces.  Here
are days that those hours do not hold: hours 24 to 48 of the four traces that go on, and days drawn
from the weekly rates beside them, with token lengths of another trace.  Each is played at a load
whose busiest ten minutes need some 15 replicas, in the base case.

Peers are in the table three times: as shipped; ``tuned``, with the form and the knob that are
cheapest over the first 12 hours of all development traces, which is what an operator can know
beforehand; ``frontier``, with the knob chosen in hindsight on the very day.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.arena import (
    BASE_MODEL,
    HOUR_S,
    RECORDED,
    Development,
    base_scenario,
    trace_of,
)
from benchmarks.forecasts import rate_series
from benchmarks.perf_data import DATA
from benchmarks.scoreboard import SCREEN_S, arguments, geometric_mean, played, verdict
from simulations.oracle_work import BaseShare, least_work
from simulations.presets import PRESETS
from simulations.report_scoreboard import hours_at_target
from simulations.scoreboard import Kind, Plan
from simulations.scoreboard_policies import policy_names
from simulations.trace_chunks import Requests, join
from simulations.traces import cut_out, read_trace

POLICIES = "predictive,kaito,llmd-slo,running-requests,token-rate,llmd-tokens"
DAY_S = 24 * HOUR_S
PEAK_S = 600.0
PEAK_BUSY = 10.0  # replicas' least work in the busiest ten minutes: some 15 of them, with a margin
DRAW_SEED = 11
LENGTHS_ROWS = 200_000

Floats = npt.NDArray[np.float64]
Entry = Mapping[str, Any]


def main() -> int:
    """Run, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    asked = arguments(parser, out="build/held-out", policies=POLICIES, of="days")
    chosen = [day for day in DAYS if not asked.traces or asked.traces in day.name]
    board = played(
        asked,
        lambda: Plan(
            policies=policy_names(asked.policies),
            traces=tuple(_base(day, asked.cache) for day in chosen),
            training=tuple(base_scenario(one, asked.cache, quick=True) for one in RECORDED),
            kinds=frozenset({Kind.SHIPPED, Kind.TUNED, Kind.FRONTIER}),
            screen_until_s=SCREEN_S,
            with_oracle=not asked.no_oracle,
            clock=time.perf_counter,
        ),
    )
    print(verdict(board.entries))
    print(transfer(board.entries))
    return 0


# The days


def _later(name: str) -> Iterator[Requests]:
    """The second day of a development trace."""
    return cut_out(read_trace(DATA / "traces" / name), from_s=DAY_S, until_s=2.0 * DAY_S)


def _drawn(series: str, day: int, lengths: str) -> Iterator[Requests]:
    """A day of a weekly rate: Poisson arrivals, pairs of lengths drawn together from a trace.

    Rates are scaled to a mean of 10 requests a second; the load is set when it is played.
    """
    rates, step_s = next((found, step) for name, found, step in rate_series() if name == series)
    sample = _first_rows(lengths)
    random = np.random.default_rng(DRAW_SEED)
    begin_s = day * DAY_S
    middles_s = (np.arange(rates.size) + 0.5) * step_s
    scale = 10.0 / rates.mean()
    for from_s in np.arange(0.0, DAY_S, 60.0):
        rate = float(np.interp(begin_s + from_s + 30.0, middles_s, rates)) * scale
        count = int(random.poisson(rate * 60.0))
        rows = random.integers(len(sample), size=count)
        if count:
            yield dataclasses.replace(
                sample.pick(rows),
                arrival_s=np.sort(from_s + 60.0 * random.random(count)),
                tenant=np.zeros(count, dtype=np.int32),
            )


def _first_rows(name: str) -> Requests:
    chunks: list[Requests] = []
    for chunk in read_trace(DATA / "traces" / f"{name}.csv.gz"):
        chunks.append(chunk)
        if sum(map(len, chunks)) >= LENGTHS_ROWS:
            break
    return join(chunks)


def _day(name: str, draw: Callable[[], Iterable[Requests]]) -> Development:
    return Development(name=f"held-out-{name}.csv.gz", draw=draw)


DAYS = (
    *(
        _day(f"{short}-second-day", functools.partial(_later, name))
        for short, name in (
            ("azure", "azure-2024-shape-conv-48h.csv.gz"),
            ("tenants", "servegen-tenants-48h.csv.gz"),
            ("large", "servegen-large-48h.csv.gz"),
            ("onoff", "servegen-onoff-48h.csv.gz"),
        )
    ),
    _day("week-azure-friday", functools.partial(_drawn, "week-azure", 5, "servegen-large-48h")),
    _day("week-small", functools.partial(_drawn, "week-servegen-small", 3, "azure-2023-conv")),
    _day("week-mid", functools.partial(_drawn, "week-servegen-mid", 4, "servegen-tenants-48h")),
    _day("week-large", functools.partial(_drawn, "week-servegen-large", 2, "servegen-onoff-48h")),
)


def _base(day: Development, folder: Path) -> Any:
    """The base case, at the load that the day is played at."""
    requests = join(list(trace_of(day, folder)))
    return base_scenario(
        dataclasses.replace(day, load_factor=PEAK_BUSY / _busiest(requests)), folder
    )


def _busiest(requests: Requests) -> float:
    """Least work of the busiest ten minutes, in replicas; the busiest hundredth is left out."""
    work = least_work(requests, PRESETS[BASE_MODEL].model, BaseShare())
    place = (requests.arrival_s // PEAK_S).astype(np.int64)
    busy = np.bincount(place, work.prefill_s + work.decode_s) / PEAK_S
    return float(np.quantile(busy, 0.99))


# What it says

OURS = ("predictive", "shipped")


def transfer(entries: Sequence[Entry]) -> str:
    """Each peer's best settings for other traffic on this one: attained, and hours over ours."""
    lines = ["peers tuned on the development traces: days on target; GPU-hours over ours there"]
    ours = {e["trace"]: e for e in entries if (e["policy"], e["variant"]) == OURS}
    on = sum(bool(e["target_reached"]) for e in ours.values())
    lines.append(f"  {'predictive, as shipped':<28} {on} of {len(ours)}")
    for policy in dict.fromkeys(e["policy"] for e in entries if e["variant"] == "tuned"):
        rows = [e for e in entries if e["policy"] == policy and e["variant"] == "tuned"]
        least = min(e["slo_attainment_ratio"] / e["slo_attainable_ratio"] for e in rows)
        reached = [e for e in rows if e["target_reached"]]
        ratios = [
            hours / float(ours[e["trace"]]["gpu_hours"])
            for e in reached
            if (hours := hours_at_target(e)) is not None
        ]
        mean = geometric_mean(ratios)
        lines.append(
            f"  {policy:<28} {len(reached)} of {len(rows)}; "
            f"{'-' if mean is None else f'{mean:.3f}'}; least attained {least:.4f},"
            f" knob {rows[0]['knob']} = {json.dumps(rows[0]['knob_value'])}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
