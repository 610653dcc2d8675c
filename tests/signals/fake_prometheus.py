"""A small real HTTP server that answers like Prometheus, or fails in the ways servers fail."""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class Fault(Enum):
    NONE = auto()
    HANG = auto()  # accepts the request and never answers
    RESET = auto()  # resets the connection
    HALF = auto()  # promises the whole body and sends half of it
    DRIP_BODY = auto()  # a byte every few milliseconds, for ever
    DRIP_HEADERS = auto()  # the same before the body has begun


@dataclass(frozen=True)
class Canned:
    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    fault: Fault = Fault.NONE
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    form: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def query(self) -> str:
        return self.form.get("query", "")


Answering = Callable[[Seen], Canned]


def success(kind: str, result: Any, **more: Any) -> Canned:
    data = {"resultType": kind, "result": result}
    return Canned(body=json.dumps({"status": "success", "data": data, **more}).encode())


def vector(
    rows: Iterable[tuple[Mapping[str, str], Any]], at_s: float = 1000.0, **more: Any
) -> Canned:
    """Rows of labels and value; the value becomes text as Prometheus writes it."""
    return success(
        "vector", [{"metric": dict(labels), "value": [at_s, str(v)]} for labels, v in rows], **more
    )


def error(status: int, kind: str, text: str) -> Canned:
    body = {"status": "error", "errorType": kind, "error": text}
    return Canned(body=json.dumps(body).encode(), status=status)


class FakePrometheus:
    """Serves on loopback until closed; every request is kept in ``seen``."""

    def __init__(self, answering: Answering, tls: ssl.SSLContext | None = None) -> None:
        self.answering = answering
        self.seen: list[Seen] = []
        self.connections = 0
        self._over = threading.Event()
        fake = self

        class Handler(_Handler):
            owner = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.port = self._server.server_address[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def queries(self) -> list[str]:
        return [seen.query for seen in self.seen]

    def wait_over(self, limit_s: float) -> bool:
        return self._over.wait(limit_s)


class _Handler(BaseHTTPRequestHandler):
    owner: FakePrometheus
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.owner.connections += 1

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        self._serve(self.rfile.read(length).decode())

    def do_GET(self) -> None:
        self._serve("")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Tests read ``seen``."""

    def _serve(self, body: str) -> None:
        parts = urlsplit(self.path)
        form = {key: values[0] for key, values in parse_qs(body or parts.query).items()}
        seen = Seen(self.command, parts.path, form, dict(self.headers.items()))
        self.owner.seen.append(seen)
        canned = self.owner.answering(seen)
        try:
            self._send(canned)
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True  # the client gave up, as it should

    def _send(self, canned: Canned) -> None:
        match canned.fault:
            case Fault.HANG:
                self.owner.wait_over(30.0)
                self.close_connection = True
            case Fault.RESET:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
                self.close_connection = True
            case Fault.DRIP_HEADERS:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                self._drip()
            case Fault.DRIP_BODY:
                self._head(canned, length=10**9)
                self._drip()
            case Fault.HALF:
                self._head(canned, length=len(canned.body))
                self.wfile.write(canned.body[: len(canned.body) // 2])
                self.close_connection = True
            case Fault.NONE:
                self._head(canned, length=len(canned.body))
                self.wfile.write(canned.body)

    def _head(self, canned: Canned, *, length: int) -> None:
        self.send_response(canned.status)
        self.send_header("Content-Type", canned.content_type)
        self.send_header("Content-Length", str(length))
        for name, value in canned.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _drip(self) -> None:
        while not self.owner.wait_over(0.005):
            self.wfile.write(b" ")
            self.wfile.flush()
