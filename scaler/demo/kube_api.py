"""A small Kubernetes API server over HTTP: what the scaler asks of a cluster, and its faults.

Lists with paging and selectors, watches with bookmarks and 410, scale subresources, merge patches,
optimistic locking; and, on demand, servers that hang, fail, refuse, are slow or drop their watches.
It is driven by the real ``kubernetes`` client in tests and in the demonstration.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from aiohttp import web

from scaler.demo.kube_store import (
    Change,
    Object,
    ResourceType,
    Store,
    StoreError,
    select_fields,
    select_labels,
)

BOOKMARK_S = 60.0  # as the real server, about once a minute
WATCH_S = 1800.0  # of a watch without timeoutSeconds
MINOR = "35"


class FaultKind(StrEnum):
    """How a request goes wrong."""

    HANG = "hang"  # accepted, never answered
    STATUS = "status"  # refused with a status
    SLOW = "slow"  # answered after a while
    GARBAGE = "garbage"  # 200 with something that is not JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to requests whose ``METHOD path`` matches the pattern."""

    kind: FaultKind
    pattern: str = ".*"
    status: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR
    delay_s: float = 0.0
    text: str = '{"kind": "List", "items": [{'  # of GARBAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """One open watch: what it selects, and where it has got to."""

    type: ResourceType
    namespace: str
    labels: str
    fields: str

    def selects(self, obj: Object | None) -> bool:
        """Whether the object is part of what is watched."""
        if obj is None:
            return False
        meta = obj["metadata"]
        return (
            self.namespace in {"", meta.get("namespace", "")}
            and select_labels(self.labels, meta.get("labels") or {})
            and select_fields(self.fields, obj)
        )


class KubeApi:
    """The server.  ``store`` is written to in-process; ``faults`` may change at any time."""

    def __init__(self, store: Store, *, token: str = "", bookmark_s: float = BOOKMARK_S) -> None:
        self.store = store
        self.faults: list[Fault] = []
        self.requests: list[str] = []  # METHOD path?query, of all requests
        self.port = 0
        self._token = token
        self._bookmark_s = bookmark_s
        self._runner: web.AppRunner | None = None
        self._drops = 0  # how often all watches have been dropped
        self._stopping = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen on a loopback port; on the same one again after ``stop``."""
        self._stopping.clear()
        app = web.Application(middlewares=[self._guard], client_max_size=4 * 2**20)
        app.router.add_get("/version", self._version)
        for type_ in self.store.types:
            self._add_routes(app, type_)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port and every connection, as a killed server does."""
        self._stopping.set()
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def drop_watches(self) -> None:
        """Cut every open watch in the middle."""
        self._drops += 1
        self.store.wake()

    def _add_routes(self, app: web.Application, type_: ResourceType) -> None:
        everywhere = f"{type_.root}/{type_.plural}"
        within = f"{type_.root}/namespaces/{{namespace}}/{type_.plural}"
        if type_.namespaced:
            app.router.add_get(everywhere, self._bound(type_, self._list_or_watch))
        place = within if type_.namespaced else everywhere
        app.router.add_get(place, self._bound(type_, self._list_or_watch))
        app.router.add_post(place, self._bound(type_, self._create))
        for method, handler in (
            ("GET", self._get),
            ("PUT", self._replace),
            ("PATCH", self._merge),
            ("DELETE", self._delete),
        ):
            app.router.add_route(method, f"{place}/{{name}}", self._bound(type_, handler))
        if type_.has_scale:
            path = f"{place}/{{name}}/scale"
            app.router.add_get(path, self._bound(type_, self._get_scale))
            app.router.add_put(path, self._bound(type_, self._set_scale))
            app.router.add_patch(path, self._bound(type_, self._set_scale))

    @staticmethod
    def _bound(
        type_: ResourceType,
        handler: Callable[[web.Request, ResourceType], Awaitable[web.StreamResponse]],
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await handler(request, type_)

        return handle

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Faults first, then authentication; refusals as Status objects."""
        self.requests.append(f"{request.method} {request.path_qs}")
        spoiled = await self._spoil(request)
        if spoiled is not None:
            return spoiled
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            return _status(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")
        try:
            return await handler(request)
        except StoreError as error:
            return _status(error.status, error.reason, str(error))
        except json.JSONDecodeError as error:
            return _status(HTTPStatus.BAD_REQUEST, "BadRequest", str(error))
        except web.HTTPNotFound:
            message = "the server could not find the requested resource"
            return _status(HTTPStatus.NOT_FOUND, "NotFound", message)

    async def _spoil(self, request: web.Request) -> web.StreamResponse | None:
        line = f"{request.method} {request.path_qs}"
        fault = next((one for one in self.faults if re.search(one.pattern, line)), None)
        if fault is None:
            return None
        match fault.kind:
            case FaultKind.HANG:
                await self._stopping.wait()
            case FaultKind.STATUS:
                return _status(fault.status, fault.status.phrase.replace(" ", ""), "injected")
            case FaultKind.SLOW:
                await asyncio.sleep(fault.delay_s)
            case FaultKind.GARBAGE:
                return web.Response(text=fault.text, content_type="text/html")
        return None

    async def _version(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"major": "1", "minor": MINOR, "gitVersion": f"v1.{MINOR}.0"})

    async def _list_or_watch(self, request: web.Request, type_: ResourceType) -> web.StreamResponse:
        watching = Watching(
            type=type_,
            namespace=request.match_info.get("namespace", ""),
            labels=request.query.get("labelSelector", ""),
            fields=request.query.get("fieldSelector", ""),
        )
        if request.query.get("watch") in {"true", "1"}:
            return await self._watch(request, watching)
        return self._page(request.query, watching)

    def _page(self, query: Mapping[str, str], watching: Watching) -> web.Response:
        """A page of a list; ``continue`` is the version of the first page and the offset."""
        version, offset = self.store.version, 0
        if token := query.get("continue"):
            version, offset = (int(part) for part in token.split(":"))
            self.store.changes_after(version, watching.type.plural)  # 410 after a compaction
        listed = self.store.list(watching.type, watching.namespace)
        found = [one for one in listed if watching.selects(one)]
        end = offset + int(query.get("limit", "0") or 0) or len(found)
        meta = {"resourceVersion": str(version)}
        if end < len(found):
            meta["continue"] = f"{version}:{end}"
        body = {
            "kind": f"{watching.type.kind}List",
            "apiVersion": watching.type.api_version,
            "metadata": meta,
            "items": found[offset:end],
        }
        return web.json_response(body)

    async def _watch(self, request: web.Request, watching: Watching) -> web.StreamResponse:
        """Events from a version on, until ``timeoutSeconds``, a drop or the client's end."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        with contextlib.suppress(ConnectionResetError):  # the client has gone
            await response.prepare(request)
            await self._follow(request, response, watching)
        return response

    async def _follow(
        self, request: web.Request, response: web.StreamResponse, watching: Watching
    ) -> None:
        loop = asyncio.get_running_loop()
        version = int(request.query.get("resourceVersion") or 0) or self.store.version
        ends_at_s = loop.time() + float(request.query.get("timeoutSeconds", WATCH_S))
        bookmarks = request.query.get("allowWatchBookmarks") == "true"
        bookmark_at_s = loop.time() + self._bookmark_s
        drops = self._drops
        while True:
            reached = self.store.version  # writes may come while events are sent
            try:
                for change in self.store.changes_after(version, watching.type.plural):
                    await _send(response, _event(watching, change))
            except StoreError as error:
                return await _send(response, {"type": "ERROR", "object": _status_object(error)})
            version = max(version, reached)
            if self._drops != drops:
                return _cut(request)
            now_s = loop.time()
            if bookmarks and now_s >= min(bookmark_at_s, ends_at_s):
                await _send(response, _bookmark(watching.type, version))
                bookmark_at_s = now_s + self._bookmark_s
            if now_s >= ends_at_s:
                return None
            await self.store.wait(min(bookmark_at_s, ends_at_s) - now_s)

    async def _get(self, request: web.Request, type_: ResourceType) -> web.StreamResponse:
        return web.json_response(self.store.get(type_, *_place(request)))

    async def _create(self, request: web.Request, type_: ResourceType) -> web.StreamResponse:
        namespace = request.match_info.get("namespace", "")
        created = self.store.create(type_, namespace, await request.json())
        return web.json_response(created, status=HTTPStatus.CREATED)

    async def _replace(self, request: web.Request, type_: ResourceType) -> web.StreamResponse:
        return web.json_response(self.store.replace(type_, *_place(request), await request.json()))

    async def _merge(self, request: web.Request, type_: ResourceType) -> web.StreamResponse:
        return web.json_response(self.store.merge(type_, *_place(request), await request.json()))

    async def _delete(self, request: web.Request, type_: ResourceType) -> web.StreamResponse:
        return web.json_response(self.store.delete(type_, *_place(request)))

    async def _get_scale(self, request: web.Request, type_: ResourceType) -> web.StreamResponse:
        return web.json_response(_scale(self.store.get(type_, *_place(request))))

    async def _set_scale(self, request: web.Request, type_: ResourceType) -> web.StreamResponse:
        replicas = int((await request.json()).get("spec", {}).get("replicas", 0))
        patch = {"spec": {"replicas": replicas}}
        return web.json_response(_scale(self.store.merge(type_, *_place(request), patch)))


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info.get("namespace", ""), request.match_info["name"]


def _event(watching: Watching, change: Change) -> Object | None:
    """What a watch sees of a change: an object may also enter or leave its selection."""
    had, has = watching.selects(change.old), watching.selects(change.new)
    if has:
        return {"type": "MODIFIED" if had else "ADDED", "object": change.new}
    if not had or change.old is None:
        return None
    gone = {**change.old, "metadata": {**change.old["metadata"]}}
    gone["metadata"]["resourceVersion"] = str(change.version)
    return {"type": "DELETED", "object": gone}


def _bookmark(type_: ResourceType, version: int) -> Object:
    meta = {"resourceVersion": str(version), "creationTimestamp": None}
    obj = {"kind": type_.kind, "apiVersion": type_.api_version, "metadata": meta}
    return {"type": "BOOKMARK", "object": obj}


async def _send(response: web.StreamResponse, event: Object | None) -> None:
    if event is not None:
        await response.write(json.dumps(event).encode() + b"\n")


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _scale(obj: Object) -> Object:
    """The scale subresource of a workload."""
    spec, status = obj["spec"], obj.get("status", {})
    meta = {
        name: obj["metadata"][name]
        for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if name in obj["metadata"]
    }
    labels = spec.get("selector", {}).get("matchLabels", {})
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": spec.get("replicas", 1)},
        "status": {
            "replicas": status.get("replicas", 0),
            "selector": status.get("hpaPodSelector")
            or ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        },
    }


def _status_object(error: StoreError) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(error),
        "reason": error.reason,
        "code": int(error.status),
    }


def _status(status: HTTPStatus, reason: str, message: str) -> web.Response:
    body: Any = _status_object(StoreError(status, reason, message))
    return web.json_response(body, status=int(status))
