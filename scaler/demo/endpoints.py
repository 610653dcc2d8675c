"""HTTP ports of pods: bound when the pod is made, open when its engine serves, closed when it ends.

A bound port that nobody listens on refuses connections, as that of a loading vLLM does.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from scaler.demo.vllm_page import CONTENT_TYPE

HOST = "127.0.0.1"
DCGM_CONTENT_TYPE = "text/plain; charset=utf-8"


@dataclass(slots=True, kw_only=True)
class _Port:
    uid: int
    socket: socket.socket
    site: web.SockSite | None = None


@dataclass(slots=True, kw_only=True)
class Endpoints:
    """The ports of all pods, and of the DCGM exporter.

    ``page`` writes the metrics page of a replica, None if its process has just ended; ``gpu_page``
    writes the exporter's.
    """

    page: Callable[[int], str | None]
    gpu_page: Callable[[], str]
    dcgm_url: str = ""
    _ports: dict[int, _Port] = field(default_factory=dict)  # by port number
    _numbers: dict[int, int] = field(default_factory=dict)  # port number by replica
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Open the DCGM exporter's port."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        app.router.add_get("/dcgm/metrics", self._dcgm)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        bound = _bound()
        await web.SockSite(self._runner, bound).start()
        self.dcgm_url = f"http://{HOST}:{bound.getsockname()[1]}/dcgm/metrics"

    async def stop(self) -> None:
        """Close every port."""
        if self._runner is not None:
            await self._runner.cleanup()
        for port in self._ports.values():
            port.socket.close()

    def bind(self, uid: int) -> int:
        """The port number of a new pod; connections are refused."""
        bound = _bound()
        number: int = bound.getsockname()[1]
        self._ports[number] = _Port(uid=uid, socket=bound)
        self._numbers[uid] = number
        return number

    async def open(self, uid: int) -> None:
        """Serve the pod's pages from now on; again changes nothing."""
        port = self._ports[self._numbers[uid]]
        if port.site is None:
            assert self._runner is not None, "start comes first"
            port.site = web.SockSite(self._runner, port.socket)
            await port.site.start()

    def serving(self) -> dict[int, int]:
        """Port number of each replica whose port is open."""
        return {port.uid: number for number, port in self._ports.items() if port.site is not None}

    async def close(self, uid: int) -> None:
        """The pod is gone, and its port free."""
        port = self._ports.pop(self._numbers.pop(uid))
        if port.site is not None:
            await port.site.stop()
        port.socket.close()

    async def _metrics(self, request: web.Request) -> web.Response:
        """The page of the pod whose port was asked."""
        text = self.page(self._uid(request))
        if text is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, request: web.Request) -> web.Response:
        self._uid(request)
        return web.Response()

    async def _dcgm(self, _request: web.Request) -> web.Response:
        body = self.gpu_page().encode()
        return web.Response(body=body, headers={"Content-Type": DCGM_CONTENT_TYPE})

    def _uid(self, request: web.Request) -> int:
        assert request.transport is not None
        port = self._ports.get(request.transport.get_extra_info("sockname")[1])
        if port is None:
            raise web.HTTPNotFound
        return port.uid


def _bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind((HOST, 0))
    return made
