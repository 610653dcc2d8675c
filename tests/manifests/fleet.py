"""A real Prometheus that holds what a small fleet would have given it, with the shipped rules.

Pages of vLLM are the captured ones, in the order in which one server gave them, so that counters
grow as they did; DCGM pages and those of kube-state-metrics are composed.  The samples are written
as blocks that end now; the rules are evaluated live on them.
"""

import contextlib
import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from scaler.service.metrics_table import PREFIX, PROCESS_METRICS, TARGET_LABELS, TARGET_METRICS
from tests.manifests.built import DATA, OUTSIDE_DATA, required
from tests.manifests.rules import groups

FIXTURES = OUTSIDE_DATA / "fixtures"
RUN = ("idle", "light", "ramp", "saturated", "draining", "idle-after", "rejecting")
SCRAPES_A_PAGE = 3
SCRAPE_S = 15
TARGET = {"namespace": "llm", "pod": "", "job": "vllm", "instance": "10.0.0.1:8000"}
PODS = ("vllm-llama-7c9f8d6b5-bcdfg", "vllm-llama-7c9f8d6b5-hjklm", "vllm-405b-0")
SCALER_LABELS = {
    "target_namespace": "llm", "target": "deployment/vllm-llama", "trigger": "0a1b2c",
    "signal": "queue", "cause": "missing", "stage": "queue", "mode": "active", "hash": "0123",
    "bound": "mean", "quantile": "mean", "method": "GetMetrics", "code": "OK", "source": "cluster",
    "outcome": "ok",
}  # fmt: skip
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_LIMIT_S = 20.0

Sample = tuple[str, dict[str, str], float]


def samples(page: str) -> Iterator[Sample]:
    """Name, labels and value of each line of a page."""
    for line in page.splitlines():
        found = _SAMPLE.match(line)
        if found and not line.startswith("#"):
            yield found[1], dict(_LABEL.findall(found[2] or "")), float(found[3])


def vllm_page(state: str) -> str:
    """A captured page of vLLM 0.32.0."""
    return (FIXTURES / "vllm" / f"0.32.0-{state}.prom").read_text(encoding="utf-8")


def dcgm_page() -> str:
    """The composed page of a DCGM exporter, profiling fields included."""
    return (FIXTURES / "dcgm" / "sample.prom").read_text(encoding="utf-8")


def scaler_samples(tick: int) -> Iterator[Sample]:
    """One sample for each metric that the daemon's own table declares."""
    own = {"job": "vllm-scaler", "namespace": "vllm-scaler", "pod": "vllm-scaler-0"}
    for target in TARGET_METRICS:
        labels = {key: SCALER_LABELS[key] for key in (*TARGET_LABELS, *target.labels)}
        yield PREFIX + target.name, {**own, **labels}, 1.0
    for metric in PROCESS_METRICS:
        labels = own | {key: SCALER_LABELS[key] for key in metric.labels}
        name = PREFIX + metric.name
        if metric.kind == "histogram":
            for bound in ("0.1", "+Inf"):
                yield f"{name}_bucket", {**labels, "le": bound}, float(tick)
        else:
            yield name, labels, float(tick) if metric.kind == "counter" else 1.0


def scrape(tick: int) -> Iterator[Sample]:
    """Everything that is scraped at one moment."""
    state = RUN[min(tick // SCRAPES_A_PAGE, len(RUN) - 1)]
    for pod in PODS:
        target = TARGET | {"pod": pod}
        yield "up", target, 1.0
        for name, labels, value in samples(vllm_page(state)):
            yield name, {**labels, **target}, value
    yield "up", {"job": "dcgm-exporter", "instance": "n1:9400"}, 1.0
    yield "up", {"job": "vllm-scaler", "instance": "10.0.0.9:8080"}, 1.0
    exporter = {"namespace": "gpu-operator", "pod": "dcgm-exporter-x", "job": "dcgm-exporter"}
    for name, labels, value in samples(dcgm_page()):
        held = iter(PODS[:2] if labels.get("gpu") == "0" else PODS[2:])
        kept = {key: text for key, text in labels.items() if key not in ("namespace", "pod")}
        if "pod" in labels:
            kept |= {"exported_namespace": "llm", "exported_pod": next(held)}
        yield name, {**kept, **exporter}, value
    gateway = {"namespace": "llm", "pod": "litellm-0", "job": "litellm"}
    requested = {"requested_model": "tiny-llama"}
    yield "litellm_proxy_total_requests_metric_total", gateway | requested, float(tick)
    for name, labels, value in samples((DATA / "kube-state-metrics.prom").read_text()):
        yield name, labels, value
    yield from scaler_samples(tick)


class Fleet:
    """The program with blocks and rules; stopped when left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._at_s: float | None = None  # when every query is answered; at first: now
        self.url = f"http://127.0.0.1:{_free_port()}"

    def __enter__(self) -> Self:
        self._write_blocks()
        config = {"global": {"evaluation_interval": "1s"}, "rule_files": ["rules.yml"]}
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        recording = [
            {"name": group["name"], "interval": "1s", "rules": group["rules"]}
            for group in groups()
            if "record" in group["rules"][0]
        ]
        (self._folder / "rules.yml").write_text(yaml.safe_dump({"groups": recording}))
        command = [
            required("prometheus"),
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        with contextlib.ExitStack() as stopping:  # a fleet that never starts is stopped as well
            stopping.callback(self.__exit__)
            self._wait_until_it_has_recorded()
            stopping.pop_all()
        self._at_s = time.time()  # the samples grow old while tests run
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10.0)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The rows of an instant query; an expression Prometheus refuses fails the test."""
        at = {} if self._at_s is None else {"time": str(self._at_s)}
        data = urllib.parse.urlencode({"query": expression, **at}).encode()
        request = urllib.request.Request(f"{self.url}/api/v1/query", data=data)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                answer = json.load(reply)
        except urllib.error.HTTPError as fault:
            raise AssertionError(f"{expression}: {fault.read().decode()}") from fault
        rows: list[dict[str, Any]] = answer["data"]["result"]
        return rows

    def _write_blocks(self) -> None:
        ticks = len(RUN) * SCRAPES_A_PAGE
        start_s = int(time.time()) - (ticks - 1) * SCRAPE_S
        lines = []
        for tick in range(ticks):
            at_s = start_s + tick * SCRAPE_S
            for name, labels, value in scrape(tick):
                lines.append(f"{name}{_braced(labels)} {value} {at_s}")
        text = self._folder / "samples.om"
        text.write_text("\n".join([*lines, "# EOF", ""]))
        program = required("promtool")
        command = [program, "tsdb", "create-blocks-from", "openmetrics", str(text)]
        done = subprocess.run(
            [*command, str(self._folder / "data")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def _wait_until_it_has_recorded(self) -> None:
        end_s = time.monotonic() + _LIMIT_S
        while time.monotonic() < end_s:
            if self._is_ready() and all(self.query(rule) for rule in _last_of_each_group()):
                return
            time.sleep(0.1)
        raise AssertionError((self._folder / "log").read_text()[-2000:])

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:  # not listening yet, or 503 while it reads its blocks
            return False


def _last_of_each_group() -> list[str]:
    return [group["rules"][-1]["record"] for group in groups() if "record" in group["rules"][-1]]


def _braced(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
