"""Latency of the gRPC server under KEDA's call pattern, measured from another process.

A ScaledObject with KEDA's defaults is read once a 30 s poll and twice by the 15 s HPA syncs; each
read is GetMetricSpec, GetMetrics, IsActive in turn, on the one connection that all share.  So
1,000 triggers make 300 calls a second.  Reads start on schedule whether or not earlier ones have
ended.  The server publishes all triggers anew every tick meanwhile; ``--busy N`` adds processes
that never rest, to take the cores away.  The measuring process asks for priority, where it may: the
caller is elsewhere in earnest.  Every trigger is read once before the clock starts.

    python -m benchmarks.bench_grpc --duration-s 20 --busy 2
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import grpc.aio

from scaler._generated import externalscaler_pb2 as pb
from scaler._generated import externalscaler_pb2_grpc
from scaler.config import GrpcConfig, ScalerConfig
from scaler.service.board import METRIC_NAME, AnswerState, Board, Published
from scaler.service.clock import SystemClock
from scaler.service.external_scaler import ExternalScaler
from scaler.service.identity import key_parser
from scaler.service.server import ScalerServer

READS_PER_TRIGGER_PER_S = 1 / 30 + 1 / 15
CALLS = ("GetMetricSpec", "GetMetrics", "IsActive")


def reference(number: int) -> pb.ScaledObjectRef:
    """The trigger of one ScaledObject, with the metadata of a usual one."""
    metadata = {
        "scalerAddress": "vllm-scaler.vllm-scaler.svc:9090",
        "target": f"deployment/vllm-{number}",
        "modelName": f"model-{number}",
        "ttftSloSeconds": "2",
        "tpotSloSeconds": "0.08",
        "sloAttainmentTarget": "0.99",
    }
    return pb.ScaledObjectRef(
        name=f"vllm-{number}", namespace=f"team-{number % 20}", scalerMetadata=metadata
    )


async def serve(triggers: int, tick_s: float) -> None:
    """Serve ``triggers`` triggers, published anew every tick, until the parent hangs up."""
    clock = SystemClock()
    board = Board(admit=lambda _key: None, expiry_s=60.0)
    parse = key_parser(ScalerConfig)
    refs = [reference(number) for number in range(triggers)]
    keys = [parse(ref.namespace, ref.name, dict(ref.scalerMetadata)) for ref in refs]
    servicer = ExternalScaler(board=board, parse=parse, clock=clock)
    server = ScalerServer(servicer, GrpcConfig(address="127.0.0.1:0"))
    print(await server.start(), flush=True)
    hung_up = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    while not hung_up.done():
        now_s = clock.now_s()
        board.publish({key: _published(now_s, place) for place, key in enumerate(keys)})
        await asyncio.wait([hung_up], timeout=tick_s)
    await server.stop()


def _published(now_s: float, place: int) -> Published:
    replicas = 1 + place % 40
    return Published(
        at_s=now_s,
        state=AnswerState.GOOD,
        integer=replicas,
        double=float(replicas),
        active=True,
        reason="",
    )


async def drive(port: int, triggers: int, duration_s: float) -> dict[str, list[float]]:
    """Read on schedule for ``duration_s``; seconds of each call by method."""
    took_s: dict[str, list[float]] = defaultdict(list)
    refs = [reference(number) for number in range(triggers)]
    gap_s = 1 / (triggers * READS_PER_TRIGGER_PER_S)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        await _read(stub, refs[0], defaultdict(list))  # connect
        start_s = time.perf_counter()
        reads = []
        for number in range(int(duration_s / gap_s)):
            await asyncio.sleep(start_s + number * gap_s - time.perf_counter())
            reads.append(asyncio.create_task(_read(stub, refs[number % triggers], took_s)))
        await asyncio.gather(*reads)
    return took_s


async def warm_up(port: int, triggers: int) -> None:
    """Read every trigger once: the server parses its metadata then."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        for number in range(triggers):
            await _read(stub, reference(number), defaultdict(list))


async def _read(
    stub: externalscaler_pb2_grpc.ExternalScalerStub,
    ref: pb.ScaledObjectRef,
    took_s: dict[str, list[float]],
) -> None:
    request = pb.GetMetricsRequest(scaledObjectRef=ref, metricName=METRIC_NAME)
    for method, message in zip(CALLS, (ref, request, ref), strict=True):
        began_s = time.perf_counter()
        await getattr(stub, method)(message, timeout=10.0)
        took_s[method].append(time.perf_counter() - began_s)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A child that reads its standard input to the end, closed when the block ends."""
    child = subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def cpu_s(process_id: int) -> float:
    """User and system time of a process (fields 14 and 15 of its stat)."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(triggers: int, duration_s: float, tick_s: float) -> dict[str, object]:
    """One run: rates, latencies by method in milliseconds, the server's CPU and memory."""
    with running(
        __file__, "--serve", "--triggers", str(triggers), "--tick-s", str(tick_s)
    ) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)
        asyncio.run(warm_up(port, triggers))
        before_s, began_s = cpu_s(child.pid), time.perf_counter()
        took_s = asyncio.run(drive(port, triggers, duration_s))
        wall_s, used_s = time.perf_counter() - began_s, cpu_s(child.pid) - before_s
        pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
    calls = sum(map(len, took_s.values()))
    return {
        "triggers": triggers,
        "calls_per_s": round(calls / wall_s, 1),
        "server_cpu_cores": round(used_s / wall_s, 3),
        "server_cpu_ms_per_call": round(1000 * used_s / calls, 3),
        "server_rss_mib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        "milliseconds": {
            method: {
                name: round(1000 * quantile(took_s[method], share), 2)
                for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            }
            for method in CALLS
        },
    }


def main() -> None:
    """Parse the arguments, run once, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--triggers", type=int, default=1000)
    parser.add_argument("--duration-s", type=float, default=20.0)
    parser.add_argument("--tick-s", type=float, default=15.0)
    parser.add_argument("--busy", type=int, default=0, help="processes that never rest")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.triggers, given.tick_s))
        return
    burners = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(given.busy)
    ]
    try:
        found = measure(given.triggers, given.duration_s, given.tick_s)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    print(json.dumps({**found, "busy": given.busy}, indent=2))


if __name__ == "__main__":
    main()
