"""The shipped command line, warm-up and drain on a real vLLM with a tiny model.

Needs ``VLLM`` (the program) and ``VLLM_TEST_MODEL`` (a folder with a model of at least 2,048 tokens
of context; random weights will do).  Flags of size are taken out, as they are for GPUs.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.built import MANIFESTS, overlay, required, vllm_templates

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SCRIPT = MANIFESTS / "vllm" / "components" / "warm-up" / "warm_up.py"
KEY = "secret"
GPU_FLAGS = ("--gpu-memory-utilization", "--max-model-len", "--host", "--port")
START_LIMIT_S = 400.0
LONG_TOKENS = 1800


@dataclass
class Running:
    """A server that was warmed up by the shipped script."""

    port: int
    name: str
    process: subprocess.Popen[bytes]
    answers: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, tokens: int) -> None:
        """One completion; its answer is kept."""
        body = {"model": self.name, "prompt": "a", "max_tokens": tokens, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            self.answers.append(json.load(answer))

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as page:
            return str(page.read().decode())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    folder = os.environ.get("VLLM_TEST_MODEL")
    if not folder:
        pytest.skip("VLLM_TEST_MODEL names no model")
    (_, _, container), *_ = vllm_templates(overlay("qwen2.5-7b"))
    port = _free_port()
    env = {one["name"]: str(one.get("value", KEY)) for one in container["env"]}
    env |= {"HOME": str(tmp_path), "VLLM_CACHE_ROOT": str(tmp_path), "PATH": os.environ["PATH"]}
    arguments = [folder, *container["args"][1:]]
    kept = [one for one in arguments if not one.startswith(GPU_FLAGS)]
    named = [one.replace("$(SERVED_MODEL_NAME)", env["SERVED_MODEL_NAME"]) for one in kept]
    passed = {
        key: value for key, value in os.environ.items() if key.startswith(("VLLM_CPU", "OMP"))
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [required("vllm"), "serve", *named, "--host=127.0.0.1", f"--port={port}",
             "--max-model-len=2048"],
            env={**env, **passed}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait_until_warm(process, port, env["SERVED_MODEL_NAME"], tmp_path / "log")
        yield Running(port=port, name=env["SERVED_MODEL_NAME"], process=process)
    finally:
        process.kill()
        process.wait(30.0)


def test_a_request_outlives_sigterm_and_a_worker_outlives_its_leader(server: Running) -> None:
    assert f'model_name="{server.name}"' in server.metrics()
    asking = threading.Thread(target=server.ask, args=(LONG_TOKENS,))
    asking.start()
    _wait_until_running(server)
    server.process.terminate()  # to this process alone, as the kubelet does
    hook = _worker_hook(server.port)
    asking.join(300.0)
    (answer,) = server.answers
    assert answer["choices"][0]["finish_reason"] == "length", "cut short"
    assert answer["usage"]["completion_tokens"] == LONG_TOKENS
    assert server.process.wait(60.0) is not None
    assert hook.wait(30.0) == 0


def _worker_hook(port: int) -> subprocess.Popen[bytes]:
    """The preStop command of a worker; it must still run while the leader answers."""
    workers = [
        container
        for _, _, container in vllm_templates(overlay("deepseek-v3"))
        if "--headless" in container["args"]
    ]
    command = list(workers[0]["lifecycle"]["preStop"]["exec"]["command"])
    command[-1] = command[-1].replace("/8000", f"/{port}")
    env = {"LWS_LEADER_ADDRESS": "127.0.0.1", "PATH": os.environ["PATH"]}
    return subprocess.Popen(command, env=env)


def _wait_until_warm(process: subprocess.Popen[bytes], port: int, name: str, log: Path) -> None:
    env = {"WARM_UP_PORT": str(port), "SERVED_MODEL_NAME": name, "VLLM_API_KEY": KEY}
    end_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end_s and process.poll() is None:
        probe = subprocess.run([sys.executable, str(SCRIPT)], env=env, check=False)
        if probe.returncode == 0:
            return
        time.sleep(1.0)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


def _wait_until_running(server: Running) -> None:
    end_s = time.monotonic() + 30.0
    while time.monotonic() < end_s:
        running = [one for one in server.metrics().splitlines() if "num_requests_running{" in one]
        if running and running[0].endswith(" 1.0"):
            return
        time.sleep(0.05)
    raise AssertionError("the request never ran")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
