"""The startup probe, run as the kubelet runs it, against a small server that talks as vLLM does."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.manifests.built import MANIFESTS

SCRIPT = MANIFESTS / "vllm" / "components" / "warm-up" / "warm_up.py"
COPY = MANIFESTS / "vllm" / "components" / "warm-up-lws" / "warm_up.py"


class Vllm:
    """Endpoints of a server: ``answer`` is what a completion gets."""

    def __init__(self) -> None:
        self.health = 200
        self.status = 200
        self.answer: object = {"choices": [{"text": "one"}]}
        self.asked: list[tuple[dict[str, object], str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                models = {"data": [{"id": "first-model"}]}
                self._reply(server.health, {} if self.path == "/health" else models)

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                server.asked.append((body, self.headers.get("Authorization")))
                self._reply(server.status, server.answer)

            def _reply(self, status: int, body: object) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  base's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def vllm() -> Iterator[Vllm]:
    server = Vllm()
    yield server
    server.close()


def probe(port: int, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", str(SCRIPT)],
        env={"WARM_UP_PORT": str(port), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_server_that_answers_is_warm(vllm: Vllm) -> None:
    done = probe(vllm.port, SERVED_MODEL_NAME="qwen2.5-7b", VLLM_API_KEY="secret")
    assert done.returncode == 0, done.stderr
    ((body, authorization),) = vllm.asked
    assert body["model"] == "qwen2.5-7b"
    assert authorization == "Bearer secret"


def test_without_a_name_the_first_model_is_asked(vllm: Vllm) -> None:
    assert probe(vllm.port).returncode == 0
    ((body, authorization),) = vllm.asked
    assert body["model"] == "first-model"
    assert authorization is None


def test_a_closed_port_is_not_warm() -> None:
    done = probe(9)
    assert done.returncode == 1
    assert "not warm" in done.stderr


def test_a_dead_engine_is_not_asked(vllm: Vllm) -> None:
    vllm.health = 503
    assert probe(vllm.port, SERVED_MODEL_NAME="m").returncode == 1
    assert vllm.asked == []


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_is_not_warm(vllm: Vllm, status: int) -> None:
    vllm.status = status
    assert probe(vllm.port, SERVED_MODEL_NAME="m").returncode == 1


@pytest.mark.parametrize("answer", [{"choices": []}, {}, "text"])
def test_an_answer_without_a_completion_is_not_warm(vllm: Vllm, answer: object) -> None:
    vllm.answer = answer
    done = probe(vllm.port, SERVED_MODEL_NAME="m")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_groups_run_the_same_script() -> None:
    # A component may not read files outside of its folder, so it has a copy.
    assert COPY.read_bytes() == SCRIPT.read_bytes()
