"""How good the forecasts are: every development trace and generator, four leads, against the truth.

    python -m benchmarks.forecasts [--only NAME ...] [--reference]

A series is the work that arrives in each 15 s tick, in replicas' worth: prompt and output tokens
with the weights of the 70B preset on four GPUs, traces at load factor 4, so that counts are as
noisy as in the base case.  The truth of a forecast is the mean of the minute that ends when its
lead is over.  Columns:

    mae      absolute error, over that of persistence (the last value smoothed over 30 s)
    pinball  loss of the 0.9 quantile, over that of persistence with the margin that hindsight finds
             best for the trace (a multiple of the square root of the level)
    cover    share of minutes at or below the forecast 0.8, 0.9 and 0.99 quantiles
    peak     share of horizons (three leads) whose highest minute is at or below its 0.9 quantile
    margin   mean distance of the 0.9 quantile from the mean, over the mean load

The first hour of each series is not counted.  Then, for the generators that switch, how long the
forecast takes to be within 20 % of a new level, and what a call costs.

``--reference`` fits statsmodels' damped Holt model (additive, no season) to the last six hours of
minutes at every tenth minute and compares both at those instants; it is a development
aid and no dependency: without statsmodels it is left out.
"""

import argparse
import csv
import gzip
import importlib
import math
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.perf_data import DATA
from scaler.core.config import ForecastConfig, ForecasterName
from scaler.core.forecast import FORECASTERS, ForecastState, Outlook, look_ahead, prime
from scaler.service.codec import encode
from simulations.presets import PRESETS
from simulations.trace_chunks import Requests
from simulations.trace_generate import Shape, TraceSpec, generate
from simulations.traces import read_trace, scale

TICK_S = 15.0
HOUR_S = 3600.0
LEADS_S = (60.0, 150.0, 315.0, 615.0)
LOAD_FACTOR = 4.0
WARM_TICKS = 240
MINUTE_TICKS = 4
EPOCH_S = 1.7e9 - 1.7e9 % 604800.0  # a week begins with every series, as in the traces
STEP = PRESETS["llama-3.1-70b-h100-tp4"].model.step
PROMPT_S = STEP.prefill_per_token_s
# A decoded token in a batch of 128 with a context of 1000 tokens.
OUTPUT_S = STEP.decode_base_s / 128.0 + STEP.decode_per_seq_s + 1000.0 * STEP.decode_per_kv_token_s
REQUEST_S = 0.23  # what a request of the Azure mix costs by these weights
TRACES = (
    "azure-2024-shape-conv-48h",
    "azure-2024-shape-conv-weekend-24h",
    "servegen-tenants-48h",
    "servegen-large-48h",
    "servegen-onoff-48h",
)
Floats = npt.NDArray[np.float64]


def generated() -> dict[str, TraceSpec]:
    """The generators, by name."""

    def spec(shape: Shape, hours: float, low: float, high: float = 0.0, **rest: Any) -> TraceSpec:
        return TraceSpec(
            shape=shape, duration_s=hours * HOUR_S, rate_per_s=low, peak_per_s=high, **rest
        )

    return {
        "constant-40": spec(Shape.CONSTANT, 24, 40.0),
        "constant-4": spec(Shape.CONSTANT, 24, 4.0),
        "diurnal": spec(Shape.DIURNAL, 72, 10.0, 60.0),
        "ramp": spec(Shape.RAMP, 6, 4.0, 60.0),
        "step-up": spec(Shape.STEP, 12, 10.0, 50.0, at_s=6 * HOUR_S),
        "step-down": spec(Shape.STEP, 12, 50.0, 10.0, at_s=6 * HOUR_S),
        "flash-crowd": spec(Shape.FLASH_CROWD, 12, 5.0, 50.0, at_s=6 * HOUR_S, hold_s=600.0),
        "on-off-10min": spec(Shape.ON_OFF, 24, 10.0, 50.0, period_s=600.0, hold_s=300.0),
        "on-off-1h": spec(Shape.ON_OFF, 24, 10.0, 50.0, period_s=3600.0, hold_s=900.0),
        "on-off-3h": spec(Shape.ON_OFF, 48, 10.0, 50.0, period_s=10800.0, hold_s=3600.0),
        "mix-shift": spec(Shape.MIX_SHIFT, 12, 30.0, at_s=6 * HOUR_S, hold_s=1800.0),
    }


def every_series(only: Iterable[str]) -> Iterator[tuple[str, Floats]]:
    """Name and work by tick of each series that is asked for, or of all."""
    wanted = set(only)
    for name in TRACES:
        if not wanted or name in wanted:
            path = DATA / "traces" / f"{name}.csv.gz"
            work = work_of(scale(read_trace(path), load_factor=LOAD_FACTOR, seed=1))
            yield name, work[: round(48 * HOUR_S / TICK_S)]  # later copies of a trace end later
    for name, spec in generated().items():
        if not wanted or name in wanted:
            yield name, work_of(generate(spec, seed=1))
    for name, rates, step_s in rate_series():
        if not wanted or name in wanted:
            yield name, drawn(rates, step_s)
    if not wanted or "trapezoids" in wanted:
        yield "trapezoids", drawn(trapezoids(), TICK_S)


def work_of(chunks: Iterable[Requests]) -> Floats:
    """Replicas' worth of work by tick; the last tick may be cut short and is left out."""
    ticks: list[Floats] = [np.zeros(1)]
    for chunk in chunks:
        place = (chunk.arrival_s // TICK_S).astype(np.int64)
        cost_s = chunk.prompt_tokens * PROMPT_S + chunk.output_tokens * OUTPUT_S
        ticks.append(np.bincount(place, cost_s).astype(np.float64))
    total = np.zeros(max(part.size for part in ticks))
    for part in ticks:
        total[: part.size] += part
    return total[:-1] / TICK_S


def rate_series() -> Iterator[tuple[str, Floats, float]]:
    """The seven-day rates: name, requests per second, seconds a row; gaps are bridged."""
    folder = DATA / "traces" / "rates"
    with gzip.open(folder / "azure-2024-week-conv.csv.gz", "rt") as file:
        week = [float(row["requests_per_min"]) / 60.0 for row in csv.DictReader(file)]
    yield "week-azure", np.array(week), 60.0
    with gzip.open(folder / "servegen-language-10min.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    for model in ("small", "mid", "large"):
        rates = np.array([float(row[f"m_{model}_rps"]) for row in rows])
        there = np.flatnonzero(rates > 0.05 * np.median(rates))
        bridged = np.interp(np.arange(rates.size), there, rates[there])
        yield f"week-servegen-{model}", bridged * 40.0 / bridged.mean(), 600.0


def trapezoids() -> Floats:
    """A day of ramps of 20 to 40 minutes from 10 to 60 requests per second and back."""
    random = np.random.default_rng(3)
    at_s = np.arange(0.0, 24 * HOUR_S, TICK_S)
    rates, start_s = np.full(at_s.size, 10.0), HOUR_S
    while start_s < at_s[-1]:
        ramp_s = random.uniform(1200.0, 2400.0)
        up = np.clip((at_s - start_s) / ramp_s, 0.0, 1.0)
        down = np.clip((at_s - start_s - ramp_s - HOUR_S) / ramp_s, 0.0, 1.0)
        rates += 50.0 * (up - down)
        start_s += 2.0 * ramp_s + HOUR_S + random.uniform(3000.0, 9000.0)
    return rates


def drawn(rates: Floats, step_s: float) -> Floats:
    """Work of Poisson arrivals under ``rates``, each with an exponential cost."""
    random = np.random.default_rng(1)
    middles = np.arange(0.5 * TICK_S, rates.size * step_s, TICK_S)
    counts = random.poisson(
        np.interp(middles / step_s - 0.5, np.arange(rates.size), rates) * TICK_S
    )
    return random.gamma(np.maximum(counts, 1e-9), REQUEST_S) / TICK_S


# Judging


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One series at one lead; see the module's text for the columns."""

    name: str
    lead_s: float
    mae: float
    pinball: float
    cover: tuple[float, float, float]
    peak: float
    margin: float
    outlooks: list[Outlook]
    call_s: float
    state_floats: int
    state_bytes: int


def judge(name: str, work: Floats, lead_s: float, forecaster: ForecasterName) -> Judged:
    """Run one forecaster along a series and compare it with what came."""
    began_s = time.process_time()
    outlooks, state = follow(work, lead_s, forecaster)
    call_s = (time.process_time() - began_s) / work.size
    mean = np.array([outlook.mean for outlook in outlooks])
    upper = np.array([outlook.upper for outlook in outlooks])
    truth = ahead(minutes_ended(work), lead_s)
    last = persistence(work)
    seen = np.isfinite(truth)
    seen[:WARM_TICKS] = False
    few = np.flatnonzero(seen)[::MINUTE_TICKS]
    low, high = (np.array([outlooks[i].quantile(q) for i in few.tolist()]) for q in (0.8, 0.99))
    best = hindsight(truth[seen], last[seen])
    return Judged(
        name=name,
        lead_s=lead_s,
        mae=float(np.abs(truth - mean)[seen].mean() / np.abs(truth - last)[seen].mean()),
        pinball=float(pinball(truth[seen], upper[seen]) / pinball(truth[seen], best)),
        cover=(
            float(np.mean(truth[few] <= low)),
            float(np.mean(truth[seen] <= upper[seen])),
            float(np.mean(truth[few] <= high)),
        ),
        peak=peak_coverage(work, outlooks),
        margin=float((upper - mean)[seen].mean() / work.mean()),
        outlooks=outlooks,
        call_s=call_s,
        state_floats=floats(state),
        state_bytes=len(encode(state)),
    )


def follow(
    work: Floats, lead_s: float, forecaster: ForecasterName
) -> tuple[list[Outlook], ForecastState]:
    """The outlook of every tick, and the last state."""
    state, config, outlooks = ForecastState(), ForecastConfig(), []
    for place, value in enumerate(work.tolist()):
        outlook, state = look_ahead(
            value,
            state,
            config,
            forecaster=FORECASTERS[forecaster],
            lead_s=lead_s,
            now_s=EPOCH_S + (place + 1) * TICK_S,
        )
        outlooks.append(outlook)
    return outlooks, state


def whole_minutes(work: Floats) -> Floats:
    """The means of whole minutes, one after another."""
    return work[: work.size // MINUTE_TICKS * MINUTE_TICKS].reshape(-1, MINUTE_TICKS).mean(axis=1)


def minutes_ended(work: Floats) -> Floats:
    """The mean of the minute that ends with each tick."""
    kernel = np.full(MINUTE_TICKS, 1.0 / MINUTE_TICKS)
    return np.convolve(work, kernel)[: work.size]


def ahead(series: Floats, lead_s: float) -> Floats:
    """``series`` a lead later; NaN beyond its end."""
    ticks = round(lead_s / TICK_S)
    return np.concatenate((series[ticks:], np.full(min(ticks, series.size), np.nan)))


def persistence(work: Floats) -> Floats:
    """The last value smoothed with a time constant of 30 s."""
    gain, level = 1.0 - math.exp(-TICK_S / 30.0), float(work[0])
    levels = []
    for value in work.tolist():
        level += gain * (value - level)
        levels.append(level)
    return np.array(levels)


def hindsight(truth: Floats, last: Floats) -> Floats:
    """Persistence and the multiple of the level's root that covers 90 % of this very series."""
    root = np.sqrt(np.maximum(last, 1e-9))
    return last + np.quantile((truth - last) / root, 0.9) * root


def pinball(truth: Floats, upper: Floats) -> float:
    """Mean loss of the 0.9 quantile."""
    off = truth - upper
    return float(np.where(off > 0.0, 0.9 * off, -0.1 * off).mean())


def peak_coverage(work: Floats, outlooks: list[Outlook]) -> float:
    """Share of horizons whose highest whole minute was at or below what was foreseen."""
    whole = whole_minutes(work)
    span = round(outlooks[0].horizon_s / 60.0)
    starts = range(WARM_TICKS // MINUTE_TICKS, whole.size - span)
    held = [
        whole[start : start + span].max() <= outlooks[MINUTE_TICKS * start - 1].horizon_upper
        for start in starts
    ]
    return float(np.mean(held)) if held else math.nan


def floats(value: Any) -> int:
    """Numbers in a state."""
    if isinstance(value, tuple):
        return sum(floats(item) for item in value)
    names = getattr(value, "__dataclass_fields__", ())
    return isinstance(value, float) + sum(floats(getattr(value, name)) for name in names)


# Printing


def catch_s(judged: Judged, levels: tuple[float, float], at_s: float) -> float:
    """Seconds after ``at_s`` until the mean is within 20 % of the step towards the new level."""
    before, after = levels
    for place, outlook in enumerate(judged.outlooks):
        if (place + 1) * TICK_S > at_s and abs(outlook.mean - after) <= 0.2 * abs(after - before):
            return (place + 1) * TICK_S - at_s
    return math.inf


def row(judged: Judged) -> str:
    """One line of the table."""
    low, middle, high = judged.cover
    mark = "" if 0.87 <= middle <= 0.93 and judged.mae <= 1.02 else "  !"
    return (
        f"{judged.name:<34}{judged.lead_s:5.0f} {judged.mae:6.3f} {judged.pinball:8.3f}"
        f"   {low:.3f} {middle:.3f} {high:.3f} {judged.peak:6.3f} {judged.margin:7.3f}{mark}"
    )


def summary(judged: list[Judged]) -> None:
    """Geometric means by lead, the worst, and the costs."""
    for lead_s in LEADS_S:
        of_lead = [item for item in judged if item.lead_s == lead_s]
        mae, loss = (
            math.exp(float(np.mean([math.log(getattr(item, name)) for item in of_lead])))
            for name in ("mae", "pinball")
        )
        worst = max(item.mae for item in of_lead)
        held = sum(0.87 <= item.cover[1] <= 0.93 for item in of_lead)
        print(
            f"lead {lead_s:4.0f} s: mae {mae:.3f}, worst {worst:.3f}; pinball {loss:.3f};"
            f" coverage within 0.87 to 0.93 on {held} of {len(of_lead)}"
        )
    call_us = 1e6 * float(np.median([item.call_s for item in judged]))
    numbers = max(item.state_floats for item in judged)
    size = max(item.state_bytes for item in judged)
    print(f"a call: {call_us:.1f} us in the mean; a state: {numbers} numbers, {size} bytes of JSON")


def steps(judged: list[Judged]) -> None:
    """How soon each step of the generators is caught."""
    for item in judged:
        if item.name.startswith("step-") and item.lead_s == LEADS_S[1]:
            end = item.outlooks[-1].mean
            before = item.outlooks[round(6 * HOUR_S / TICK_S) - 1].mean
            print(f"{item.name}: caught in {catch_s(item, (before, end), 6 * HOUR_S):.0f} s")


def reference(name: str, work: Floats, lead_s: float, ours: Judged) -> str:
    """Both at every tenth minute: statsmodels' damped Holt of the last six hours, and ours."""
    models = importlib.import_module("statsmodels.tsa.holtwinters")
    minutes = whole_minutes(work)
    truth = ahead(minutes_ended(work), lead_s)
    theirs, mine, last, levels = [], [], [], persistence(work)
    for minute in range(360, minutes.size, 10):
        tick = MINUTE_TICKS * minute - 1
        if not math.isfinite(truth[tick]):
            break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that does not converge is part of the result
            fit = models.ExponentialSmoothing(
                minutes[minute - 360 : minute], trend="add", damped_trend=True,
                initialization_method="estimated",
            ).fit()  # fmt: skip
        steps_ahead = lead_s / 60.0
        path = np.asarray(fit.forecast(math.ceil(steps_ahead) + 1))
        theirs.append(abs(np.interp(steps_ahead, np.arange(1, path.size + 1), path) - truth[tick]))
        mine.append(abs(ours.outlooks[tick].mean - truth[tick]))
        last.append(abs(levels[tick] - truth[tick]))
    return (
        f"{name:<34}{lead_s:5.0f}  statsmodels {np.mean(theirs) / np.mean(last):.3f}"
        f"  ours {np.mean(mine) / np.mean(last):.3f}  ({len(mine)} instants)"
    )


def priming(work: Floats) -> str:
    """What reading a long history back costs: the series repeated to fourteen days of minutes."""
    minutes = whole_minutes(work)
    long = np.resize(minutes, 14 * 1440).tolist()
    history = [(EPOCH_S + 60.0 * place, value) for place, value in enumerate(long)]
    began_s = time.process_time()
    prime(history, ForecastConfig())
    return f"prime(): 14 days of minutes in {1e3 * (time.process_time() - began_s):.0f} ms"


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME")
    parser.add_argument("--forecaster", type=ForecasterName, default=ForecasterName.BLEND)
    parser.add_argument("--reference", action="store_true")
    given = parser.parse_args()
    judged, compared, work = [], [], np.zeros(1)
    print(f"{'series':<34} lead    mae  pinball   cover 0.8   0.9  0.99   peak  margin")
    for name, work in every_series(given.only):
        for lead_s in LEADS_S:
            item = judge(name, work, lead_s, given.forecaster)
            print(row(item), flush=True)
            judged.append(item)
            if given.reference and lead_s in LEADS_S[1:3] and name in TRACES:
                compared.append(reference(name, work, lead_s, item))
    summary(judged)
    steps(judged)
    print("\n".join([priming(work), *compared]))


if __name__ == "__main__":
    main()
