"""Readers of the measured performance data, and replays of recorded runs in the simulator.

The data are in the folder named by VLLM_SCALER_DATA (default: ``shared`` beside the checkout).
"""

import csv
import gzip
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simulations.calibration_replay import MeasuredRequests
from simulations.cluster import Fleet
from simulations.fitting import Profile, SteadyStates
from simulations.replica import ReplicaModel, Routing

Floats = npt.NDArray[np.float64]

DATA = Path(os.environ.get("VLLM_SCALER_DATA", Path(__file__).resolve().parents[2] / "shared"))
PERF = DATA / "perf"


def rows_of(name: str) -> list[dict[str, str]]:
    """All rows of a CSV file of the performance data."""
    path = PERF / name
    opener: Callable[..., Iterable[str]] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:  # type: ignore[attr-defined]
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> Floats:
    """One column as numbers; empty cells are NaN."""
    return np.array([float(row[name] or "nan") for row in rows])


def iteration_profile(gpu: str) -> Profile:
    """Engine steps of Llama-3.1-8B on one GPU, kernel time only."""
    rows = [r for r in rows_of("vllm_iteration_profile.csv.gz") if r["gpu"] == gpu]
    seqs = column(rows, "decode_seqs")
    return Profile(
        prefill_tokens=column(rows, "prefill_tokens"),
        prefill_context_tokens=column(rows, "prefill_context"),
        decode_seqs=seqs,
        decode_kv_tokens=seqs * column(rows, "decode_context_per_seq"),
        step_s=column(rows, "step_ms") / 1e3,
    )


def steady_states(*, model: str, gpu: str, precision: str, tp: int) -> SteadyStates:
    """Rows of one vLLM deployment whose requests did not queue for KV blocks (TTFT under 5 s)."""
    rows = [
        r
        for r in rows_of("e2e_steady_state.csv.gz")
        if (r["backend"], r["model"], r["gpu"], r["precision"], r["tp_size"], r["pp_size"])
        == ("vllm", model, gpu, precision, str(tp), "1")
        and r["attention_dp_size"] in ("", "1")
        and r["moe_ep_size"] in ("", "1")
        and float(r["ttft_ms"]) < 5000.0
    ]
    return SteadyStates(
        concurrency=column(rows, "batch_size"),
        prompt_tokens=column(rows, "isl"),
        output_tokens=column(rows, "osl"),
        tpot_s=column(rows, "tpot_ms") / 1e3,
    )


def recorded_run(name: str) -> MeasuredRequests:
    """A run of ``vllm_runs`` or ``vllm_cpu_runs``, in order of arrival, completed requests only."""
    rows = rows_of(name)
    rows = [r for r in rows if r.get("status", "200") == "200" and float(r["output_tokens"]) >= 1]
    rows.sort(key=lambda r: float(r["arrival_s"]))
    return MeasuredRequests(
        arrival_s=column(rows, "arrival_s"),
        prompt_tokens=column(rows, "prompt_tokens"),
        output_tokens=column(rows, "output_tokens"),
        ttft_s=column(rows, "ttft_s"),
        e2e_s=column(rows, "e2e_s"),
    )


def lmbenchmark_run(*, experiment: str, workload: str, qps: str) -> MeasuredRequests:
    """One rate of one experiment."""
    rows = [
        r
        for r in rows_of("vllm_runs/lmbenchmark_requests.csv.gz")
        if (r["experiment"], r["workload"], r["qps"]) == (experiment, workload, qps)
        and float(r["output_tokens"]) >= 1
    ]
    rows.sort(key=lambda r: float(r["arrival_s"]))
    ttft_s = column(rows, "ttft_s")
    return MeasuredRequests(
        arrival_s=column(rows, "arrival_s"),
        prompt_tokens=column(rows, "prompt_tokens"),
        output_tokens=column(rows, "output_tokens"),
        ttft_s=ttft_s,
        e2e_s=ttft_s + column(rows, "decode_s"),
    )


def replay(
    run: MeasuredRequests,
    model: ReplicaModel,
    *,
    replicas: int = 1,
    routing: Routing = Routing.LEAST_REQUESTS,
) -> MeasuredRequests:
    """The same requests through the simulator."""
    fleet = Fleet(model=model, seed=0, routing=routing)
    fleet.start_warm(replicas)
    fleet.load(
        arrival_at_s=run.arrival_s - run.arrival_s[0],
        prompt_tokens=run.prompt_tokens,
        output_tokens=run.output_tokens,
    )
    fleet.advance(1e7)
    rows = fleet.take_outcomes()
    assert len(rows) == run.arrival_s.size
    return MeasuredRequests(
        arrival_s=run.arrival_s,
        prompt_tokens=run.prompt_tokens,
        output_tokens=run.output_tokens,
        ttft_s=rows["first_token_at_s"] - rows["arrival_at_s"],
        e2e_s=rows["finished_at_s"] - rows["arrival_at_s"],
    )


def log_errors(simulated: MeasuredRequests, measured: MeasuredRequests) -> float:
    """Mean of |ln(simulated / measured)| over TTFT and end-to-end time: what fits minimise."""
    ttft = np.abs(np.log(simulated.ttft_s / measured.ttft_s))
    e2e = np.abs(np.log(simulated.e2e_s / measured.e2e_s))
    return float(np.mean(ttft) + np.mean(e2e))


def pattern_search(
    loss: Callable[[Floats], float], start: Floats, *, factor: float = 2.0, tolerance: float = 1.005
) -> Floats:
    """Positive parameters of a small loss: each is multiplied and divided in turn, ever less."""
    best, best_loss = start.copy(), loss(start)
    while factor > tolerance:
        improved = False
        for i in range(start.size):
            for move in (factor, 1.0 / factor):
                tried = best.copy()
                tried[i] *= move
                tried_loss = loss(tried)
                if tried_loss < best_loss:
                    best, best_loss, improved = tried, tried_loss, True
        if not improved:
            factor = np.sqrt(factor)
    return best
