"""The whole daemon at scale: start to first answer, latency under KEDA's call rate, memory.

    python -m benchmarks.daemon [--targets 1000] [--pods 10] [--duration-s 60]

Four processes on loopback: the real ``scaler serve``; a Kubernetes API with the objects of all
targets; an API that answers as Prometheus would; and this one, which calls as KEDA does (each
trigger read every 30 s by the poll loop and every 15 s for the HPA, three calls a read).
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict, deque
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import grpc
import yaml

from benchmarks import collect
from benchmarks.bench_grpc import CALLS, READS_PER_TRIGGER_PER_S, cpu_s, quantile
from scaler._generated import externalscaler_pb2 as pb
from scaler._generated import externalscaler_pb2_grpc as stubs
from scaler.demo.kube_api import KubeApi
from scaler.demo.kube_objects import PodTimes, deployment, node, pod, scaled_object
from scaler.demo.kube_store import Store
from scaler.service.board import METRIC_NAME
from scaler.signals.samples import TargetRef

FIRST_ANSWER_LIMIT_S = 120.0
ALLOCATOR = {  # as in the Dockerfile
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_TRIM_THRESHOLD_": "1048576",
}
LOOK_EVERY_S = 0.05  # at least, however few triggers there are


def serve_kubernetes(pipe: Pipe, targets: int, pods: int) -> None:
    """The Kubernetes API process: the objects of every target, until told to end."""

    async def main() -> None:
        store = Store(time.time)
        for number in range(50):
            store.apply(node(f"gpu-{number}"))
        long_ago = PodTimes(created_at_s=time.time() - 3600.0)
        for ref in collect.targets_of(targets, pods):
            store.apply(deployment(ref.namespace, ref.name, replicas=pods, current=pods))
            made = scaled_object(
                ref.namespace, ref.name, target=ref.name, metadata={"modelName": ref.model_name}
            )
            made["spec"] |= {"minReplicaCount": 1, "maxReplicaCount": 40}
            store.apply(made)
            for one in ref.pods or ():
                store.apply(pod(ref.namespace, one.name, app=ref.name, times=long_ago))
        api = KubeApi(store)
        await api.start()
        pipe.send(api.url)
        await asyncio.to_thread(pipe.recv)
        await api.stop()

    asyncio.run(main())


def reference(ref: TargetRef) -> pb.ScaledObjectRef:
    """What KEDA sends for a target."""
    return pb.ScaledObjectRef(
        namespace=ref.namespace,
        name=ref.name,
        scalerMetadata={
            "scalerAddress": "vllm-scaler.vllm-scaler.svc:9090",
            "modelName": ref.model_name,
        },
    )


async def read(
    stub: stubs.ExternalScalerStub, ref: pb.ScaledObjectRef, took_s: dict[str, list[float]]
) -> int | None:
    """One read as KEDA makes it; the count, None for an error."""
    request = pb.GetMetricsRequest(scaledObjectRef=ref, metricName=METRIC_NAME)
    value = None
    for method, message in zip(CALLS, (ref, request, ref), strict=True):
        began_s = time.perf_counter()
        try:
            answer = await getattr(stub, method)(message, timeout=10.0)
        except grpc.aio.AioRpcError:
            return None
        took_s[method].append(time.perf_counter() - began_s)
        if method == "GetMetrics":
            value = answer.metricValues[0].metricValue
    return value


async def first_answers(
    stub: stubs.ExternalScalerStub, refs: list[pb.ScaledObjectRef], began_s: float
) -> tuple[float, float]:
    """Seconds from the start to the first answer of one target, and to that of all.

    At KEDA's pace until the first: a caller that never rests would keep a core from the daemon.
    """
    gap_s = min(1.0 / (len(refs) * READS_PER_TRIGGER_PER_S), LOOK_EVERY_S)
    first_s = 0.0
    missing = deque(refs)
    while missing and time.perf_counter() - began_s < FIRST_ANSWER_LIMIT_S:
        if await read(stub, missing[0], defaultdict(list)) is None:
            missing.rotate(-1)
            await asyncio.sleep(gap_s)
            continue
        first_s = first_s or time.perf_counter() - began_s
        missing.popleft()
    assert not missing, f"{len(missing)} targets were never answered"
    return first_s, time.perf_counter() - began_s


async def drive(
    stub: stubs.ExternalScalerStub, refs: list[pb.ScaledObjectRef], duration_s: float
) -> dict[str, list[float]]:
    """KEDA's schedule for ``duration_s``; seconds of every call by method."""
    took_s: dict[str, list[float]] = defaultdict(list)
    gap_s = 1.0 / (len(refs) * READS_PER_TRIGGER_PER_S)
    start_s = time.perf_counter()
    reads = []
    for number in range(int(duration_s / gap_s)):
        await asyncio.sleep(start_s + number * gap_s - time.perf_counter())
        reads.append(asyncio.create_task(read(stub, refs[number % len(refs)], took_s)))
    values = await asyncio.gather(*reads)
    failed = sum(value is None for value in values)
    print(f"reads {len(values)}, failed {failed}")
    return took_s


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def own_metrics(port: int) -> dict[str, float]:
    """The daemon's own plain metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30.0) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def memory_mib(process_id: int, field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of a process."""
    text = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith(field))
    return float(line.split()[1]) / 1024.0


async def measure(given: argparse.Namespace, kubernetes: str, prometheus: str) -> dict[str, float]:
    """Start the daemon and measure it."""
    grpc_port, http_port = free_port(), free_port()
    settings = {
        "grpc": {"address": f"127.0.0.1:{grpc_port}"},
        "http": {"address": f"127.0.0.1:{http_port}"},
        "kubernetes": {"use": "always", "server": kubernetes},
        "sources": [{"url": prometheus}],
        "log": {"level": "warning"},
    }
    targets = list(collect.targets_of(given.targets, given.pods))
    refs = [reference(ref) for ref in targets]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        began_s = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from scaler.cli import main; main()",
            "serve", "--config", str(config), env={**os.environ, **ALLOCATOR},
        )  # fmt: skip
        try:
            options = [
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.initial_reconnect_backoff_ms", 50),
            ]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}", options) as channel:
                stub = stubs.ExternalScalerStub(channel)
                first_s, all_s = await first_answers(stub, refs, began_s)
                before_s = cpu_s(process.pid)
                took_s = await drive(stub, refs, given.duration_s)
            used = (cpu_s(process.pid) - before_s) / given.duration_s
            own = own_metrics(http_port)
            return {
                "start_to_first_answer_s": first_s,
                "start_to_all_answers_s": all_s,
                **{
                    f"{method}_p{int(share * 100)}_ms": quantile(took_s[method], share) * 1000.0
                    for method in CALLS
                    for share in (0.5, 0.99)
                },
                "daemon_cpu_cores": used,
                "rss_mib": memory_mib(process.pid, "VmRSS"),
                "rss_peak_mib": memory_mib(process.pid, "VmHWM"),
                "samples_per_tick": own['vllm_scaler_source_samples{source="prometheus-0"}'],
                "decide_s_per_tick": own["vllm_scaler_decide_duration_seconds_sum"]
                / own["vllm_scaler_decide_duration_seconds_count"],
                "tick_s": own["vllm_scaler_tick_duration_seconds_sum"]
                / own["vllm_scaler_tick_duration_seconds_count"],
            }
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=10)
    parser.add_argument("--duration-s", type=float, default=60.0)
    given = parser.parse_args()
    children, ports, pipes = [], [], []
    for serve in (serve_kubernetes, collect.serve):
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.Process(
            target=serve, args=(theirs, given.targets, given.pods), daemon=True
        )
        child.start()
        children.append(child)
        pipes.append(ours)
        ports.append(ours.recv())
    try:
        found = asyncio.run(measure(given, *ports))
        print(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=1))
    finally:
        for child in children:
            child.terminate()


if __name__ == "__main__":
    main()
