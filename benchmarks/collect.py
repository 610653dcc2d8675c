"""What one collection costs: CPU, memory, and how long it keeps the event loop from running.

A server in a process of its own answers as Prometheus would for ``--targets`` targets of ``--pods``
pods each (no compression, answers made before the clock starts).

    python benchmarks/collect.py --targets 1000 --pods 10
"""

import argparse
import asyncio
import dataclasses
import gc
import json
import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from scaler.config import RecordingRules
from scaler.signals.dcgm import DcgmReader
from scaler.signals.prometheus import PrometheusSource
from scaler.signals.prometheus_queries import queries
from scaler.signals.promql import Scope
from scaler.signals.readers import Readers
from scaler.signals.samples import PodRef, PodSample, TargetRef, TargetSamples
from scaler.signals.settings import PrometheusSettings
from scaler.signals.vllm import VllmReader

BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
NEVER_THERE = re.compile("gpu_cache|gpu_prefix|GR_ENGINE")  # names of other versions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=10)
    parser.add_argument("--ticks", type=int, default=5)
    parser.add_argument("--tuned", action="store_true", help="as the daemon tunes its interpreter")
    parser.add_argument("--samples", action="store_true", help="count what is asked of Prometheus")
    given = parser.parse_args()
    if given.samples:
        count_samples(list(targets_of(given.targets, given.pods)))
        return
    if given.tuned:
        sys.setswitchinterval(0.0005)
        gc.freeze()
        gc.set_threshold(50_000, 20, 1000)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, given.targets, given.pods), daemon=True
    )
    server.start()
    url: str = ours.recv()
    try:
        asyncio.run(measure(url, given))
    finally:
        server.terminate()


async def measure(url: str, given: argparse.Namespace) -> None:
    """Run some collections and print what they cost."""
    targets = list(targets_of(given.targets, given.pods))
    settings = PrometheusSettings(
        url=url, recording_rules=RecordingRules.NEVER, timeout_s=60.0, attempt_timeout_s=30.0
    )
    source = PrometheusSource(settings, Readers(engine=VllmReader(), gpu=DcgmReader()))
    lags: list[float] = []
    watching = asyncio.create_task(watch(lags))
    idle_mib = rss_mib()
    for tick in range(given.ticks):
        found: Mapping[str, TargetSamples] = {}
        await asyncio.sleep(0.05)  # what this program itself did is not the collection's
        lags.clear()
        began_s, cpu_s = time.perf_counter(), time.process_time()
        found = await source.collect(targets, time.time())
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        good = sum(isinstance(p, PodSample) for one in found.values() for p in one.pods.values())
        ordered = sorted(lags)
        print(
            f"tick {tick}: {good} samples, {source.attempts} requests so far, wall {wall_s:.2f} s, "
            f"cpu {cpu_s * 1000:.0f} ms, rss {rss_mib():.0f} MiB (before {idle_mib:.0f}), "
            f"loop lag ms p50 {ordered[len(ordered) // 2] * 1000:.2f} "
            f"p99 {ordered[int(len(ordered) * 0.99)] * 1000:.2f} max {ordered[-1] * 1000:.2f}"
        )
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    print(f"peak rss {peak_mib:.0f} MiB")
    watching.cancel()
    await source.close()


def count_samples(refs: list[TargetRef]) -> None:
    """Print how many samples Prometheus answers with in one collection, by query."""
    settings = PrometheusSettings(url="http://prometheus.invalid")
    scope = Scope(namespaces=tuple(sorted({ref.namespace for ref in refs})))
    readers = Readers(engine=VllmReader(), gpu=DcgmReader())
    asked = dataclasses.asdict(queries(refs, scope, settings, readers, recorded=False))
    counts = {
        name: len(json.loads(answer(query, refs))["data"]["result"])
        for name, query in asked.items()
        if isinstance(query, str) and query
    }
    print(json.dumps({**counts, "all": sum(counts.values())}))


async def watch(lags: list[float]) -> None:
    """How much later than asked the event loop comes back."""
    while True:
        began_s = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(max(time.perf_counter() - began_s - 0.001, 0.0))


def rss_mib() -> float:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def targets_of(targets: int, pods: int) -> Iterator[TargetRef]:
    """Deployments in a namespace of ten each."""
    for index in range(targets):
        names = (f"vllm-model-{index}-7c9f8d6b5-{suffix(pod)}" for pod in range(pods))
        yield TargetRef(
            namespace=f"team-{index // 10}",
            kind="deployment",
            name=f"vllm-model-{index}",
            model_name=f"model-{index}",
            pods=tuple(PodRef(name=name) for name in names),
        )


def suffix(pod: int) -> str:
    """Five letters as ReplicaSets make them."""
    letters = "bcdfghjklmnpqrstvwxz2456789"
    return "".join(letters[(pod // len(letters) ** place) % len(letters)] for place in range(5))


def serve(ready: Connection, targets: int, pods: int) -> None:
    """Answer until terminated."""
    refs = list(targets_of(targets, pods))
    answers: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            query = form["query"][0]
            if self.path.endswith("query_range"):  # it has never seen our own series
                self._say(packed("matrix", []))
                return
            timed = query == "time()" or "timestamp(" in query
            if timed or query not in answers:
                answers[query] = answer(query, refs)
            self._say(answers[query])

        def _say(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(f"http://127.0.0.1:{server.server_address[1]}")
    server.serve_forever()


def answer(query: str, refs: list[TargetRef]) -> bytes:
    """The JSON of one query."""
    now_s = time.time()
    if query == "time()":
        return packed("scalar", [now_s, str(now_s)])
    rows = buckets(refs) if "_bucket" in query else gauges(query, refs, now_s)
    return packed("vector", [{"metric": labels, "value": [now_s, v]} for labels, v in rows])


def packed(kind: str, result: Any) -> bytes:
    """The envelope of the API."""
    body = {"status": "success", "data": {"resultType": kind, "result": result}}
    return json.dumps(body, separators=(",", ":")).encode()


def buckets(refs: list[TargetRef]) -> Iterator[tuple[Mapping[str, str], str]]:
    """Growth of a histogram of every workload."""
    for ref in refs:
        labels = {"namespace": ref.namespace, "workload": ref.name, "model_name": ref.model_name}
        for place, le in enumerate((*map(str, BOUNDS), "+Inf")):
            yield {**labels, "family": "0", "le": le}, f"{place * 17.3:.4f}"


def gauges(
    query: str, refs: list[TargetRef], now_s: float
) -> Iterator[tuple[Mapping[str, str], str]]:
    """One row for each metric in the query, of every pod."""
    times = "timestamp(" in query
    found = re.search('{__name__=~"([^"]+)"', query)
    alternatives = found[1].split("|") if found and not times else [""]
    names = [name for name in alternatives if not NEVER_THERE.search(name)]
    for ref in refs:
        for pod in ref.pods or ():
            where = {"namespace": ref.namespace, "pod": pod.name}
            for name in names:
                labels = where if times else {"__name__": name, **where, **extra(name, ref)}
                yield labels, f"{now_s - 5.0:.3f}" if times else "0.5"


def extra(name: str, ref: TargetRef) -> Mapping[str, str]:
    """Labels that the real query would give beside the pod's."""
    if "cache_config" in name:
        return {"block_size": "16", "num_gpu_blocks": "27000", "engine": "0"}
    if "sleep" in name:
        return {"sleep_state": "awake", "engine": "0"}
    if "by_reason" in name:
        return {"model_name": ref.model_name, "reason": "capacity"}
    if "DCGM" in name or "process" in name:
        return {}
    return {"model_name": ref.model_name}


if __name__ == "__main__":
    main()
