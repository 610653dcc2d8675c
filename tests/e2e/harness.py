"""A small cluster on loopback for whole-daemon tests: engines, a Kubernetes API, daemons, KEDA.

The daemons are real processes of the console script; engines serve metric pages over HTTP; the
Kubernetes API is the demonstration's.  Waiting is polling against a limit, never a fixed sleep.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import grpc
import yaml
from aiohttp import web

from scaler._generated import externalscaler_pb2 as pb
from scaler._generated import externalscaler_pb2_grpc as stubs
from scaler.demo.kube_api import KubeApi
from scaler.demo.kube_objects import PodTimes, deployment, node, pod, scaled_object
from scaler.demo.kube_store import Store
from scaler.service.board import METRIC_NAME

NAMESPACE = "llm"
MODEL = "llama-3.1-8b"
PROMPT_TOKENS, OUTPUT_TOKENS = 500.0, 100.0
POLL_S = 0.1
Made = TypeVar("Made")


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Awaitable[Made | None]], what: str, limit_s: float) -> Made:
    """The first true result of ``condition``; fails naming ``what`` after ``limit_s``."""
    deadline_s = time.monotonic() + limit_s
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < deadline_s, f"not within {limit_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


@dataclass
class Engine:
    """One replica's counters, advanced by real time at ``requests_per_s``."""

    model: str = MODEL
    requests_per_s: float = 0.0
    running: float = 0.0
    waiting: float = 0.0
    finished: float = 0.0
    at_s: float = field(default_factory=time.monotonic)

    def load(self, *, requests_per_s: float, running: float, waiting: float = 0.0) -> None:
        """Change the load from now on."""
        self._advance()
        self.requests_per_s, self.running, self.waiting = requests_per_s, running, waiting

    def _advance(self) -> None:
        now_s = time.monotonic()
        self.finished += self.requests_per_s * (now_s - self.at_s)
        self.at_s = now_s

    def page(self) -> str:
        """The metrics page, with vLLM's names."""
        self._advance()
        labels = f'engine="0",model_name="{self.model}"'
        done = self.finished
        buckets = "".join(
            f'vllm:time_to_first_token_seconds_bucket{{{labels},le="{bound}"}} {done}\n'
            for bound in ("0.25", "1.0", "2.5", "+Inf")
        )
        return (
            f"vllm:num_requests_running{{{labels}}} {self.running}\n"
            f"vllm:num_requests_waiting{{{labels}}} {self.waiting}\n"
            f"vllm:kv_cache_usage_perc{{{labels}}} {min(self.running / 100.0, 1.0)}\n"
            f'vllm:request_success_total{{{labels},finished_reason="stop"}} {done}\n'
            f"vllm:prompt_tokens_total{{{labels}}} {done * PROMPT_TOKENS}\n"
            f"vllm:generation_tokens_total{{{labels}}} {done * OUTPUT_TOKENS}\n"
            f"vllm:request_prompt_tokens_sum{{{labels}}} {done * PROMPT_TOKENS}\n"
            f"vllm:request_generation_tokens_sum{{{labels}}} {done * OUTPUT_TOKENS}\n"
            f"vllm:num_preemptions_total{{{labels}}} 0.0\n" + buckets
        )


class Cluster:
    """Engines behind pages, and the Kubernetes API that knows their pods."""

    def __init__(self) -> None:
        self.store = Store(time.time)
        self.api = KubeApi(self.store)
        self.engines: dict[str, Engine] = {}
        self.ports: dict[str, int] = {}
        self._runners: dict[str, web.AppRunner] = {}

    async def start(self) -> None:
        await self.api.start()
        self.store.apply(node("gpu-1"))

    async def stop(self) -> None:
        for runner in self._runners.values():
            await runner.cleanup()
        await self.api.stop()

    async def deploy(
        self,
        name: str,
        *,
        replicas: int,
        model: str = MODEL,
        metadata: Mapping[str, str] | None = None,
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        """A Deployment of ready replicas with a ScaledObject of the same name."""
        for place in range(replicas):
            await self.add_pod(name, place, model)
        self.set_scale(name, replicas)
        limits = {"minReplicaCount": 1, "maxReplicaCount": 20}
        self.store.apply(
            scaled_object(
                NAMESPACE, name, target=name, metadata=metadata, spec={**limits, **(spec or {})}
            )
        )

    async def add_pod(self, app: str, place: int, model: str = MODEL) -> None:
        """One more ready replica with its page."""
        name = f"{app}-5d8f7c9b6-{'bcdfg'[place % 5]}{place:02d}xz".replace("0", "2").replace(
            "1", "4"
        )
        engine = self.engines[name] = Engine(model=model)
        app_ = web.Application()

        async def page(_request: web.Request) -> web.Response:
            return web.Response(text=engine.page())

        app_.router.add_get("/metrics", page)
        runner = self._runners[name] = web.AppRunner(app_, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = self.ports[name] = runner.addresses[0][1]
        long_ago_s = time.time() - 3600.0
        self.store.apply(
            pod(
                NAMESPACE, name, app=app, times=PodTimes(created_at_s=long_ago_s),
                address="127.0.0.1", port=port,
            )
        )  # fmt: skip

    def set_scale(self, name: str, replicas: int) -> None:
        self.store.apply(deployment(NAMESPACE, name, replicas=replicas, current=replicas))

    def load(self, app: str, **load: float) -> None:
        """The same load on every replica of a Deployment."""
        for name, engine in self.engines.items():
            if name.startswith(f"{app}-"):
                engine.load(**load)


class Process:
    """One daemon as a real process."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.grpc_port, self.http_port = free_port(), free_port()
        self.config = folder / f"{name}.yaml"
        self.log = folder / f"{name}.log"
        self.settings = {
            **settings,
            "grpc": {"address": f"127.0.0.1:{self.grpc_port}"},
            "http": {"address": f"127.0.0.1:{self.http_port}"},
            "state": {
                **settings.get("state", {}), "peer_address": f"127.0.0.1:{self.http_port}",
            },
        }  # fmt: skip
        self.write()
        self._process: asyncio.subprocess.Process | None = None

    def write(self) -> None:
        """Write the settings to the configuration file."""
        self.config.write_text(yaml.safe_dump(self.settings), encoding="utf-8")

    async def start(self) -> None:
        environ = {key: value for key, value in os.environ.items() if "VLLM_SCALER" not in key}
        environ.pop("KUBERNETES_SERVICE_HOST", None)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from scaler.cli import main; main()",
                "serve", "--config", str(self.config),
                stderr=log, stdout=log, env=environ,
            )  # fmt: skip

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    async def ready(self) -> bool:
        """Whether /readyz says so."""
        return (await self.get("/readyz"))[0] == 200

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the HTTP port; status 0 while nobody listens."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session,
                session.get(f"http://127.0.0.1:{self.http_port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def metric(self, name: str) -> float | None:
        """The first sample of one of the daemon's own metrics."""
        _, text = await self.get("/metrics")
        for line in text.splitlines():
            if line.startswith((f"{name} ", f"{name}{{")):
                return float(line.rsplit(" ", 1)[1])
        return None


class Keda:
    """Calls as KEDA calls: one channel, GetMetricSpec, GetMetrics, IsActive."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._stub = stubs.ExternalScalerStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def read(self, name: str, metadata: Mapping[str, str] | None = None) -> int | str:
        """The replica count, or the name of the status code."""
        sent = {"scalerAddress": "vllm-scaler.vllm-scaler.svc:9090", **(metadata or {})}
        ref = pb.ScaledObjectRef(namespace=NAMESPACE, name=name, scalerMetadata=sent)
        request = pb.GetMetricsRequest(scaledObjectRef=ref, metricName=METRIC_NAME)
        try:
            await self._stub.GetMetricSpec(ref, timeout=5.0)
            answer = await self._stub.GetMetrics(request, timeout=5.0)
            active = await self._stub.IsActive(ref, timeout=5.0)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        assert active.result or answer.metricValues[0].metricValue == 0
        return int(answer.metricValues[0].metricValue)


class Prometheus:
    """Debian's Prometheus, scraping the engines of a cluster every second; can be killed."""

    def __init__(self, program: str, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._program = program
        self._cluster = cluster
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start on the same port and data; the targets are those of now."""
        targets = [
            {
                "targets": [f"127.0.0.1:{port}"],
                "labels": {"namespace": NAMESPACE, "pod": name},
            }
            for name, port in self._cluster.ports.items()
        ]
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "vllm", "static_configs": targets}],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        with (self.folder / "prometheus.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program,
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        """As a node that goes down."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def reload(self) -> None:
        """Kill and start again: new targets are scraped."""
        await self.kill()
        await self.start()
