"""Speed and memory of the simulated fleet: requests per second by replicas, and bytes a request.

    python -m benchmarks.bench_engine [TRACE ...] [--requests N]

First every trace at load factor 4 on 16 replicas, then the first trace in faster or slower time, so
that 1, 4, 16 and 64 replicas carry the same load each.  The loop is that of a simulation without a
policy: load a tick's arrivals, advance 15 s, read status and counters, take the outcomes.  Reading
the trace and loading the compiled code are not counted.  ``cpu`` is the process time of the loop;
on a machine that does nothing else it is the wall time.
"""

import argparse
import math
import resource
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.perf_data import DATA
from simulations.cluster import Fleet
from simulations.engine import load_kernel
from simulations.replica import ReplicaModel, Routing, StepTime
from simulations.trace_chunks import Requests, join
from simulations.traces import read_trace, scale

TICK_S = 15.0
LOAD_FACTOR = 4.0
LOAD_PER_REPLICA = 2.5  # requests a second, of 1,155 prompt and 211 output tokens: some 15 running

# Step 22 ms + 0.12 ms a sequence + 0.1 ms a prefill token: 70B on four GPUs in round numbers.
MODEL = ReplicaModel(
    name="70b-like",
    step=StepTime(
        overhead_s=0.002,
        decode_base_s=0.020,
        decode_per_seq_s=1.2e-4,
        decode_per_kv_token_s=2e-8,
        mixed_base_s=0.020,
        mixed_per_seq_s=1.2e-4,
        mixed_per_kv_token_s=3e-8,
        prefill_per_token_s=1.0e-4,
        prefill_attention_s=1e-9,
    ),
    kv_blocks=25_000,
    gpus_per_replica=4,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of the loop; times are process time."""

    requests: int
    loop_s: float
    kernel_s: float
    ticks: int
    running_mean: float
    ttft_p99_s: float


def drive(trace: Requests, *, replicas: int, routing: Routing = Routing.LEAST_REQUESTS) -> Measured:
    """The loop over a trace at its own speed, until the last request has ended."""
    fleet = Fleet(model=MODEL, seed=1, routing=routing, max_slots=replicas)
    fleet.start_warm(replicas)
    kernel_s, ticks, residence_s, ttft = 0.0, 0, 0.0, []
    begin = time.process_time()
    loaded, now_s = 0, 0.0
    while loaded < len(trace) or not fleet.idle:
        now_s += TICK_S
        until = int(np.searchsorted(trace.arrival_s, now_s, side="right"))
        fleet.load(
            arrival_at_s=trace.arrival_s[loaded:until],
            prompt_tokens=trace.prompt_tokens[loaded:until],
            output_tokens=trace.output_tokens[loaded:until],
        )
        loaded = until
        before = time.process_time()
        fleet.advance(now_s)
        kernel_s += time.process_time() - before
        fleet.counters()
        fleet.replica_status(now_s, since_s=now_s - TICK_S)
        rows = fleet.take_outcomes()
        ttft.append(rows["first_token_at_s"] - rows["arrival_at_s"])
        residence_s += float(np.sum(rows["finished_at_s"] - rows["scheduled_at_s"]))
        ticks += 1
    return Measured(
        requests=len(trace),
        loop_s=time.process_time() - begin,
        kernel_s=kernel_s,
        ticks=ticks,
        running_mean=residence_s / now_s / replicas,
        ttft_p99_s=float(np.quantile(np.concatenate(ttft), 0.99)),
    )


def best_of(trace: Requests, *, replicas: int, runs: int = 3) -> Measured:
    """The run with the least process time: the others shared the machine."""
    return min((drive(trace, replicas=replicas) for _ in range(runs)), key=lambda m: m.loop_s)


def in_time(trace: Requests, *, factor: float) -> Requests:
    """The trace ``factor`` times as fast."""
    return Requests(
        arrival_s=trace.arrival_s / factor,
        prompt_tokens=trace.prompt_tokens,
        output_tokens=trace.output_tokens,
        tenant=trace.tenant,
    )


def bytes_per_request(trace: Requests) -> float:
    """What a fleet holds after a whole trace was loaded at once and run, over its requests."""
    tracemalloc.start()
    fleet = Fleet(model=MODEL, seed=1)
    fleet.start_warm(16)
    fleet.load(
        arrival_at_s=trace.arrival_s,
        prompt_tokens=trace.prompt_tokens,
        output_tokens=trace.output_tokens,
    )
    fleet.advance(float(trace.arrival_s[-1]) + 3600.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / len(trace)


def first_requests(path: Path, count: int, *, load_factor: float) -> Requests:
    """The first ``count`` requests of a trace at a load factor."""
    chunks, rows = [], 0
    for chunk in scale(read_trace(path), load_factor=load_factor, seed=1):
        chunks.append(chunk)
        rows += len(chunk)
        if rows >= count:
            break
    return join(chunks).pick(slice(0, count))


def stream(path: Path, count: int) -> None:
    """Many requests through one fleet in bounded memory, the trace read and scaled as it goes."""
    once = sum(len(chunk) for chunk in read_trace(path))
    factor = count / once
    fleet = Fleet(model=MODEL, seed=1, max_slots=64)
    fleet.start_warm(math.ceil(4 * factor))  # four replicas carry the trace at its busiest
    begin, done = time.process_time(), 0
    for chunk in scale(read_trace(path), load_factor=factor, seed=1):
        fleet.load(
            arrival_at_s=chunk.arrival_s,
            prompt_tokens=chunk.prompt_tokens,
            output_tokens=chunk.output_tokens,
        )
        while fleet.now_s + TICK_S < chunk.arrival_s[-1]:
            fleet.advance(fleet.now_s + TICK_S)
            done += len(fleet.take_outcomes())
    fleet.advance(fleet.now_s + 1e6)
    done += len(fleet.take_outcomes())
    took_s = time.process_time() - begin
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"stream: {done:,} requests over {len(fleet.replicas())} replicas in {took_s:.1f} s,"
        f" reading and scaling the trace included; peak memory of the process {peak_mb:,.0f} MB"
    )


def show(name: str, replicas: int, m: Measured) -> None:
    """One line of the table."""
    print(
        f"{name:34} {replicas:8d}  {m.requests / m.loop_s:11,.0f}  {m.requests / m.kernel_s:11,.0f}"
        f"  {(m.loop_s - m.kernel_s) / m.ticks * 1e6:7.0f}  {m.running_mean:7.1f}"
        f"  {m.ttft_p99_s:8.2f} s"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = ("azure-2024-shape-conv-48h", "servegen-tenants-48h", "servegen-large-48h")
    default = [DATA / "traces" / f"{name}.csv.gz" for name in names]
    parser.add_argument("traces", nargs="*", type=Path, default=default)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--stream", type=int, default=0, help="pass so many requests through")
    arguments = parser.parse_args()
    load_kernel()
    print(
        f"{'requests/s of process time':34} replicas   whole loop  kernel only  us/tick"
        "  running   ttft p99"
    )
    for path in arguments.traces:
        trace = first_requests(path, arguments.requests, load_factor=LOAD_FACTOR)
        show(f"{path.name.removesuffix('.csv.gz')} x4", 16, best_of(trace, replicas=16))
    trace = first_requests(arguments.traces[0], arguments.requests, load_factor=1.0)
    for replicas in (1, 4, 16, 64):
        factor = LOAD_PER_REPLICA * replicas * float(trace.arrival_s[-1]) / len(trace)
        measured = best_of(in_time(trace, factor=factor), replicas=replicas)
        show(f"{LOAD_PER_REPLICA} requests/s a replica", replicas, measured)
    print(f"memory: {bytes_per_request(trace):.0f} bytes a request held")
    if arguments.stream:
        stream(arguments.traces[-2], arguments.stream)


if __name__ == "__main__":
    main()
