"""The HTTP port: metrics, health, a read-only API, the live page, the snapshot for followers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from scaler.core.explain import headline, narrative
from scaler.core.model import NoData, Stage
from scaler.service.clock import Clock
from scaler.service.history import COLUMNS, History
from scaler.service.registry import Entry, Registry
from scaler.service.replication import SNAPSHOT_PATH, TICK_HEADER, Publisher
from scaler.service.telemetry import Telemetry

PROXY_TIMEOUT_S = 5.0
ALIVE_TICKS = 10.0  # without a tick for so long the loop is dead and the process is restarted
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_ASSETS = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the HTTP port shows.

    ``leader_address`` is empty while this daemon leads; else the API of the leader is passed on.
    ``ready`` and
    ``alive_at_s`` say whether answers are real and when the loop last made progress.
    """

    registry: Registry
    telemetry: Telemetry
    history: History
    publisher: Publisher
    clock: Clock
    ready: Callable[[], bool]
    alive_at_s: Callable[[], float]
    leader_address: Callable[[], str] = lambda: ""


def make_app(parts: Parts) -> web.Application:
    """The aiohttp application."""
    app = web.Application()
    handlers = _Handlers(parts)
    app.add_routes(
        [
            web.get("/metrics", handlers.metrics),
            web.get("/healthz", handlers.healthz),
            web.get("/readyz", handlers.readyz),
            web.get("/api/targets", handlers.targets),
            web.get("/api/targets/{namespace}/{name}", handlers.target),
            web.get(SNAPSHOT_PATH, handlers.snapshot),
            *(web.get(path, handlers.asset) for path in _ASSETS),
        ]
    )
    return app


class _Handlers:
    """Requests read what the loop left in memory; nothing here changes anything."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def metrics(self, _request: web.Request) -> web.Response:
        """Our own metrics, rendered in a thread: a thousand targets take a while."""
        body = await asyncio.to_thread(generate_latest, self._parts.telemetry.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(self, _request: web.Request) -> web.Response:
        """Alive: the loop has made progress lately."""
        parts = self._parts
        silent_s = parts.clock.now_s() - parts.alive_at_s()
        if silent_s > ALIVE_TICKS * parts.registry.config.policy.tick_s:
            return web.Response(
                status=503, text=f"the loop made no progress for {silent_s:.0f} s\n"
            )
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        """Ready: calls are answered from real observations, ours or the leader's."""
        if self._parts.ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="no snapshot yet\n")

    async def targets(self, request: web.Request) -> web.StreamResponse:
        """All targets, a summary each."""
        return await self._own_or_leaders(request, self._targets)

    async def target(self, request: web.Request) -> web.StreamResponse:
        """One target: the latest decision, its explanation, and the last hours."""
        return await self._own_or_leaders(request, self._target)

    async def _own_or_leaders(
        self, request: web.Request, own: Callable[[web.Request], Awaitable[web.Response]]
    ) -> web.StreamResponse:
        address = self._parts.leader_address()
        if not address:
            return await own(request)
        timeout = aiohttp.ClientTimeout(total=PROXY_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://{address}{request.rel_url}") as answer,
            ):
                body = await answer.read()
                return web.Response(
                    status=answer.status, body=body, content_type=answer.content_type
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            return _json({"error": f"the deciding daemon does not answer: {error!r}"}, status=502)

    async def _targets(self, _request: web.Request) -> web.Response:
        entries = self._parts.registry.entries.values()
        now_s = self._parts.clock.now_s()
        return _json({"now_s": now_s, "targets": [summary(entry, now_s) for entry in entries]})

    async def _target(self, request: web.Request) -> web.Response:
        wanted = (request.match_info["namespace"], request.match_info["name"])
        trigger = request.query.get("trigger", "")
        found = [
            entry
            for entry in self._parts.registry.entries.values()
            if (entry.key.namespace, entry.key.name) == wanted and trigger in ("", entry.id)
        ]
        if not found:
            return _json({"error": f"no target {'/'.join(wanted)}"}, status=404)
        entry = found[0]
        now_s = self._parts.clock.now_s()
        detail: dict[str, Any] = {
            **summary(entry, now_s),
            "now_s": now_s,
            "decision": entry.decision,
            "explanation": narrative(entry.decision) if entry.decision else (),
            "history": {
                "columns": COLUMNS,
                "stages": [stage.value for stage in Stage],
                "rows": self._parts.history.rows(entry.key),
            },
            "ttft_slo_s": entry.policy.slo.ttft_s,
        }
        return _json(detail)

    async def snapshot(self, request: web.Request) -> web.Response:
        """The last tick for followers; 304 when they have it, 503 while this daemon follows."""
        if self._parts.leader_address():
            return web.Response(status=503, text="not the leader\n")
        tick = self._parts.publisher.tick
        if request.headers.get(TICK_HEADER) == tick:
            return web.Response(status=304, headers={TICK_HEADER: tick})
        return web.Response(
            body=self._parts.publisher.snapshot(),
            content_type="application/json",
            headers={TICK_HEADER: tick},
        )

    async def asset(self, request: web.Request) -> web.Response:
        """The live page and its files, from the package: nothing is fetched from elsewhere."""
        name, content_type = _ASSETS[request.path]
        body = resources.files("scaler.service.web").joinpath(name).read_bytes()
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS)


def summary(entry: Entry, now_s: float) -> dict[str, Any]:
    """One target in a line of the list."""
    found: dict[str, Any] = {
        "namespace": entry.key.namespace,
        "name": entry.key.name,
        "trigger": entry.id,
        "target": entry.label,
        "origin": entry.origin.value,
        "mode": entry.policy.mode.value,
        "config_hash": entry.hash,
        "faults": list(entry.faults),
        "status": "faulty" if entry.faults else "pending",
    }
    decision = entry.decision
    if decision is None:
        return found
    replicas = decision.observation.replicas
    counts: dict[str, int] = {}
    if not isinstance(replicas, NoData):
        counts = {
            "wanted": replicas.wanted,
            "ready": replicas.ready,
            "starting": replicas.starting,
            "unschedulable": replicas.unschedulable,
        }
    return {
        **found,
        "wanted": None,
        "ready": None,
        **counts,
        "status": decision.verdict.value,
        "age_s": now_s - decision.at_s,
        "desired": decision.would_be,
        "published": decision.replicas_desired,
        "decided_by": decision.decided_by.value,
        "blind": [f"{item.signal}: {item.cause}" for item in decision.blind],
        "headline": headline(decision),
    }


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )
