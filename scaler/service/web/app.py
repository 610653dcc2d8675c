"""The HTTP port: metrics, health, a read-only API, the live page, the snapshot for followers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from yarl import URL

from scaler.service.clock import Clock
from scaler.service.history import History
from scaler.service.moments import Moments
from scaler.service.registry import Entry, Registry
from scaler.service.replication import SNAPSHOT_PATH, TICK_HEADER, Publisher
from scaler.service.telemetry import Telemetry
from scaler.service.web.assets import assets
from scaler.service.web.views import basis, detail, past, summary
from scaler.signals.turns import in_turns

PROXY_TIMEOUT_S = 5.0
PASSED_ON = "X-Passed-On"  # by a daemon that follows: it is not passed on again
ALIVE_TICKS = 10.0  # without a tick for so long the loop is dead and the process is restarted
_DATA_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
ELSEWHERE = "its decision log has the rest: scaler explain --log DIR, as in records.directory"
SLICE = 25  # targets summarised between two turns of the event loop: under 1 ms


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
    moments: Moments
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
            web.get("/api/targets/{namespace:[^/]+}/{name:[^/]+}", handlers.target),
            web.get(SNAPSHOT_PATH, handlers.snapshot),
            *(web.get(asset.path, asset.answer) for asset in assets()),
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
        """One target: the latest decision, its explanation, and the last day.

        With ``?basis=1`` also what the decision was made from, so that it can be made again; with
        ``?at=SECONDS`` the decision that stood then instead, as far as it is remembered.
        """
        return await self._own_or_leaders(request, self._target)

    async def _own_or_leaders(
        self, request: web.Request, own: Callable[[web.Request], Awaitable[web.Response]]
    ) -> web.StreamResponse:
        address = self._parts.leader_address()
        if not address:
            return await own(request)
        if PASSED_ON in request.headers:  # each of two daemons takes the other for the leader
            return _json({"error": "no daemon decides at present"}, status=503)
        timeout = aiohttp.ClientTimeout(total=PROXY_TIMEOUT_S)
        url = URL(f"http://{address}{request.raw_path}", encoded=True)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, headers={PASSED_ON: "1"}) as answer,
            ):
                body = await answer.read()
                return web.Response(
                    status=answer.status,
                    body=body,
                    content_type=answer.content_type,
                    headers=_DATA_HEADERS,
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            return _json({"error": f"the deciding daemon does not answer: {error!r}"}, status=502)

    async def _targets(self, _request: web.Request) -> web.Response:
        """A slice at a time: calls of KEDA are answered in between."""
        now_s = self._parts.clock.now_s()
        targets: list[dict[str, Any]] = []
        for place, entry in enumerate(tuple(self._parts.registry.entries.values())):
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            targets.append(summary(entry, now_s))
        return _json({"now_s": now_s, "tick_s": self._tick_s, "targets": targets})

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
        if "at" in request.query:
            return self._past(found[0], request.query["at"])
        now_s = self._parts.clock.now_s()
        told = detail(found[0], self._parts.history, now_s, tick_s=self._tick_s)
        told["remembered_from_s"] = self._parts.moments.begin_s(found[0].key)
        if "basis" in request.query:
            told["basis"] = basis(found[0])
        return _json({**told, "tick_s": self._tick_s})

    def _past(self, entry: Entry, text: str) -> web.Response:
        """The decision that stood at a time; 404 where none is remembered."""
        try:
            at_s = float(text)
        except ValueError:
            at_s = float("nan")
        if not isfinite(at_s):
            return _json({"error": f"at = {text}, must be seconds since 1970"}, status=400)
        kept = self._parts.moments.find(entry.key, at_s)
        if kept is None:
            begin_s = self._parts.moments.begin_s(entry.key)
            return _json({"error": _forgotten(begin_s), "remembered_from_s": begin_s}, status=404)
        return _json({**past(entry, kept), "asked_at_s": at_s, "tick_s": self._tick_s})

    @property
    def _tick_s(self) -> float:
        return self._parts.registry.config.policy.tick_s

    async def snapshot(self, request: web.Request) -> web.Response:
        """The last tick for followers; 304 when they have it, 503 while this daemon follows."""
        if self._parts.leader_address():
            return web.Response(status=503, text="not the leader\n")
        tick = self._parts.publisher.tick
        if request.headers.get(TICK_HEADER) == tick:
            return web.Response(status=304, headers={TICK_HEADER: tick})
        return web.Response(
            body=await in_turns(self._parts.publisher.encoding()),
            content_type="application/json",
            headers={TICK_HEADER: tick},
        )


def _forgotten(begin_s: float | None) -> str:
    since = "nothing yet"
    if begin_s is not None:
        begin = datetime.fromtimestamp(begin_s, UTC).isoformat(timespec="seconds")
        since = f"what it decided since {begin.replace('+00:00', 'Z')}"
    return f"the daemon remembers {since}; {ELSEWHERE}"


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(value),
        content_type="application/json",
        headers=_DATA_HEADERS,
    )
