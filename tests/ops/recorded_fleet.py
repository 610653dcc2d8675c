"""A simulated fleet's pages as the history of a real Prometheus, for recording and calibrating."""

import dataclasses
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import requests

from scaler.core.config import PolicyConfig
from scaler.core.hpa_spec import parse_version
from scaler.ops.manifest import ManifestRequest, scaled_object
from simulations.controller import Context, View
from simulations.daemon_controller import DaemonController
from simulations.engine_layout import ITL_BOUNDS_S, TTFT_BOUNDS_S
from simulations.fleet_counters import FleetCounters
from simulations.replica import ReplicaModel, StartUp, constant
from simulations.replica_files import load_replica_model
from simulations.run import Result, simulate
from simulations.scaled_object import ClusterSpec, parse_scaled_object
from simulations.scenario import Policy, Scenario
from simulations.trace_chunks import Requests

PROGRAMS = shutil.which("prometheus") and shutil.which("promtool")
EPOCH_S = 1_760_000_000.0  # where 0 s of the simulation is
LENGTH_BOUNDS = (
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000,
)  # fmt: skip  # of vLLM for a model of 131,072 tokens
NAMESPACE, WORKLOAD, MODEL = "llm", "vllm-chat", "chat-70b"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def requests_of_day(hours: float, *, peak_per_s: float, seed: int = 5) -> Requests:
    """Two waves over the time, lognormal lengths."""
    random = np.random.default_rng(seed)
    count = random.poisson(hours * 3600.0 * peak_per_s)
    arrival_s = np.sort(random.uniform(0.0, hours * 3600.0, count))
    wave = 0.55 - 0.45 * np.cos(2.0 * np.pi * arrival_s / (hours * 1800.0))
    arrival_s = arrival_s[random.random(count) < wave]
    size = arrival_s.size
    return Requests(
        arrival_s=arrival_s,
        prompt_tokens=random.lognormal(6.5, 0.9, size).clip(8, 8000).astype(np.int32),
        output_tokens=random.lognormal(5.0, 0.7, size).clip(2, 2000).astype(np.int32),
        tenant=np.zeros(size, dtype=np.int32),
    )


def scenario(played: Sequence[Requests], model: ReplicaModel | None = None) -> Scenario:
    """The shipped policy, two replicas at first."""
    kubernetes = parse_version("1.36")
    shipped = scaled_object(
        ManifestRequest(
            target="deployment/x",
            namespace="x",
            replicas_min=1,
            replicas_max=16,
            kubernetes=kubernetes,
        )
    )
    return Scenario(
        requests=played,
        model=model or chat_model(),
        scaled_object=parse_scaled_object(shipped),
        cluster=ClusterSpec(kubernetes=kubernetes),
        policy=Policy(name="predictive", config=PolicyConfig()),
        replicas_first=2,
        seed=3,
        timeline=False,
    )


def chat_model() -> ReplicaModel:
    """The 70B preset, always 120 s to ready."""
    none = constant(0.0)
    start_up = StartUp(scheduling=none, image=none, weights=constant(120.0), compile=none)
    return dataclasses.replace(load_replica_model("llama-3.1-70b-h100-tp4"), start_up=start_up)


@dataclass
class Kept:
    """The scrapes of a run, and the counts Kubernetes showed."""

    scrapes: list[FleetCounters] = field(default_factory=list)


def run(made: Scenario) -> tuple[Result, Kept]:
    """The result of a run, and its scrapes."""
    kept = Kept()

    class Watched(DaemonController):
        def scraped(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None) -> None:
            kept.scrapes.append(counters)
            super().scraped(counters, gpu_ratio)

    def factory(context: Context) -> DaemonController:
        return Watched(context)

    policy = dataclasses.replace(made.policy, controller=factory)
    return simulate(dataclasses.replace(made, policy=policy)), kept


def replay(made: Scenario, view: View | None = None) -> Result:
    """The same without keeping anything."""
    assert view is None
    return simulate(made)


def pod_name(uid: int) -> str:
    """A Deployment's pod name."""
    letters = "".join(_ALPHABET[(uid // 27**place) % 27] for place in range(5))
    return f"{WORKLOAD}-5d7c9bdf88-{letters}"


def open_metrics(kept: Kept, made: Scenario, requests_: Requests) -> str:
    """All scrapes as OpenMetrics text with times, family by family."""
    families: dict[str, list[str]] = {}
    lengths = _Lengths(requests_)
    for counters in kept.scrapes:
        at = f"{EPOCH_S + counters.at_s:.3f}"
        for row, uid in enumerate(counters.uids.tolist()):
            if counters.draining[row]:
                continue
            pod = f'namespace="{NAMESPACE}",pod="{pod_name(uid)}"'
            for family, name, labels, value in _series(counters, row, uid, made.model, lengths):
                own = pod if not labels else f"{pod},{labels}"
                families.setdefault(family, []).append(f"{name}{{{own}}} {value} {at}\n")
    text = [f"# TYPE {family} unknown\n" + "".join(lines) for family, lines in families.items()]
    return "".join(text) + "# EOF\n"


class _Lengths:
    """Which requests each replica has finished: those of the trace in order, as they are counted.

    The simulator counts only sums; which replica served a request does not matter to a histogram
    that is summed over the replicas.
    """

    def __init__(self, requests_: Requests) -> None:
        self._requests = requests_
        self._next = 0
        self._done: dict[int, int] = {}
        bounds = np.array(LENGTH_BOUNDS)
        self._places = {
            "request_prompt_tokens": np.searchsorted(bounds, requests_.prompt_tokens),
            "request_generation_tokens": np.searchsorted(bounds, requests_.output_tokens),
        }
        self._counts: dict[tuple[int, str], np.ndarray[Any, Any]] = {}

    def counts(self, uid: int, finished: int) -> Iterator[tuple[str, list[int]]]:
        more = finished - self._done.get(uid, 0)
        self._done[uid] = finished
        chosen = slice(self._next, self._next + more)
        self._next += more
        for name, places in self._places.items():
            counts = self._counts.setdefault(
                (uid, name), np.zeros(len(LENGTH_BOUNDS) + 1, dtype=np.int64)
            )
            counts += np.bincount(places[chosen], minlength=len(LENGTH_BOUNDS) + 1)
            yield name, np.cumsum(counts).tolist()


def _series(
    counters: FleetCounters, row: int, uid: int, model: ReplicaModel, lengths: _Lengths
) -> Iterator[tuple[str, str, str, float]]:
    """Family, name, labels beside the pod's, value."""
    get = counters.values[row]
    own = f'engine="0",model_name="{MODEL}"'
    finished = int(get["finished_stop"] + get["finished_abort"])
    for name, value in (
        ("num_requests_running", get["requests_running"]),
        ("num_requests_waiting", get["requests_waiting"]),
        ("kv_cache_usage_perc", get["blocks_used"] / counters.kv_blocks_usable),
        ("request_success_total", finished),
        ("admission_rejections_total", get["admission_rejections"]),
        ("num_preemptions_total", get["preemptions"]),
        ("prompt_tokens_total", get["prompt_tokens"]),
        ("prompt_tokens_cached_total", get["prompt_tokens_cached"]),
        ("generation_tokens_total", get["generation_tokens"]),
        ("iteration_tokens_total_count", get["iterations"]),
        ("request_prompt_tokens_sum", get["finished_prompt_tokens"]),
        ("request_generation_tokens_sum", get["finished_output_tokens"]),
    ):
        yield f"vllm:{name}", f"vllm:{name}", own, float(value)
    info = f'{own},block_size="{model.block_size}",num_gpu_blocks="{model.kv_blocks}"'
    yield "vllm:cache_config_info", "vllm:cache_config_info", info, 1.0
    for name, bounds, buckets in (
        ("time_to_first_token_seconds", TTFT_BOUNDS_S, np.cumsum(counters.ttft_buckets[row])),
        ("inter_token_latency_seconds", ITL_BOUNDS_S, np.cumsum(counters.itl_buckets[row])),
    ):
        yield from _buckets(name, own, bounds, buckets.tolist())
    for name, cumulative in lengths.counts(uid, finished):
        yield from _buckets(name, own, LENGTH_BOUNDS, cumulative)


def _buckets(
    name: str, own: str, bounds: Sequence[float], counts: Sequence[int]
) -> Iterator[tuple[str, str, str, float]]:
    for bound, count in zip((*map(float, bounds), "+Inf"), counts, strict=True):
        yield f"vllm:{name}_bucket", f"vllm:{name}_bucket", f'{own},le="{bound}"', float(count)


class History:
    """A Prometheus that has the pages in its past and scrapes nothing."""

    def __init__(self, folder: Path, text: str) -> None:
        self._folder = folder
        page = folder / "history.om"
        page.write_text(text)
        blocks = ("tsdb", "create-blocks-from", "openmetrics", str(page), str(folder / "data"))
        subprocess.run(["promtool", *blocks], check=True, capture_output=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> Self:
        config = self._folder / "prometheus.yml"
        config.write_text("global: {scrape_interval: 15s}\n")
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            "--storage.tsdb.retention.time=100y",
            # What was filled in has no staleness markers, which end a series at the next scrape.
            "--query.lookback-delta=20s",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end_s = time.monotonic() + 20.0
        while time.monotonic() < end_s:
            try:
                if requests.get(f"{self.url}/-/ready", timeout=1.0).ok:
                    return self
            except requests.RequestException:
                pass
            time.sleep(0.05)
        raise AssertionError((self._folder / "log").read_text()[-2000:])

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10.0)
