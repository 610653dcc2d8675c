"""A real Prometheus on loopback that scrapes pages a test serves, as a cluster's would be seen."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import requests
import yaml

PROMETHEUS = shutil.which("prometheus")
SCRAPE_EVERY_S = 1
_START_LIMIT_S = 20.0


@dataclass(frozen=True)
class Scraped:
    """One pod: the page it serves and the labels that its scrape job gives it."""

    path: str
    labels: Mapping[str, str]
    job: str = "pods"
    honor_labels: bool = False


class PageServer:
    """Serves the text in ``pages`` by path; a path that is not there is a 404 (a failed scrape)."""

    def __init__(self, pages: Mapping[str, str]) -> None:
        self.pages = dict(pages)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = server.pages.get(self.path)
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", "text/plain; version=1.0.0; charset=utf-8")
                self.end_headers()
                self.wfile.write((page or "").encode())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RealPrometheus:
    """The program, scraping every second; stopped and its data removed with the test."""

    def __init__(
        self, folder: Path, address: str, scraped: Sequence[Scraped], rules: str = ""
    ) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{_free_port()}"
        config = {
            "global": {"scrape_interval": f"{SCRAPE_EVERY_S}s", "evaluation_interval": "1s"},
            "scrape_configs": [_job(index, address, one) for index, one in enumerate(scraped)],
        }
        if rules:
            (folder / "rules.yml").write_text(rules)
            config["rule_files"] = [str(folder / "rules.yml")]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Self:
        assert PROMETHEUS is not None, "tests that need it are skipped without it"
        command = [
            PROMETHEUS,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10.0)

    def wait_for(self, query: str, rows: int) -> None:
        """Until the query has so many rows."""
        end_s = time.monotonic() + _START_LIMIT_S
        seen: object = None
        while time.monotonic() < end_s:
            try:
                seen = self.query(query)
                if len(self.query(query)) == rows:
                    return
            except requests.RequestException as fault:
                seen = fault
            time.sleep(0.02)
        raise AssertionError(f"{query} never had {rows} rows: {seen}; {self._log()}")

    def query(self, query: str) -> list[dict[str, Any]]:
        return self._ask({"query": query})

    def query_at(self, query: str, *, ahead_s: float) -> list[dict[str, Any]]:
        """As of some time in the future: nothing has been scraped since."""
        return self._ask({"query": query, "time": f"{time.time() + ahead_s:.3f}"})

    def _ask(self, form: Mapping[str, str]) -> list[dict[str, Any]]:
        reply = requests.post(f"{self.url}/api/v1/query", data=form, timeout=5.0)
        answer = reply.json()
        assert answer["status"] == "success", answer
        rows: list[dict[str, Any]] = answer["data"]["result"]
        return rows

    def _log(self) -> str:
        return (self.folder / "log").read_text()[-2000:]


def _job(index: int, address: str, one: Scraped) -> dict[str, Any]:
    return {
        "job_name": f"{one.job}-{index}",
        "metrics_path": one.path,
        "honor_labels": one.honor_labels,
        "static_configs": [{"targets": [address], "labels": dict(one.labels)}],
    }


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
