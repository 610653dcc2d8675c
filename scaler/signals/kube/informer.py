"""One resource of the API, kept in memory: list, then watch from there, again and again.

The protocol is that of client-go's reflector: a paged list gives a resource version, a watch
continues from it, bookmarks move it on, 410 Gone starts over.  What was known stays known while the
server is away; only its age grows.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Generic, TypeVar

import msgspec
import structlog

from scaler.signals.kube import wire
from scaler.signals.kube.client import KubeClient, KubeError, Query
from scaler.signals.turns import Turns

Record = TypeVar("Record")

PAGES_MAX = 4000  # a server that never ends its list is broken
MALFORMED_TOLD_MAX = 100  # distinct bad objects named in the log, per list

_log = structlog.get_logger(__name__)
_list = msgspec.json.Decoder(wire.ObjectList)
_event = msgspec.json.Decoder(wire.WatchEvent)
_status = msgspec.json.Decoder(wire.Status)
_meta = msgspec.json.Decoder(wire.MetaOnly)


class Health(StrEnum):
    """How the connection for one resource is."""

    STARTING = "starting"  # nothing listed yet
    LIVE = "live"  # a watch is open
    BROKEN = "broken"  # no watch; the last state is kept
    FORBIDDEN = "forbidden"  # 401 or 403: the service account may not read it
    NOT_INSTALLED = "not_installed"  # 404: the cluster does not have this kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Time limits of watching.

    ``watch_s`` and ``silence_slack_s`` run on the machine's clock, the others on the caller's.
    """

    page_items: int = 250  # decoding a page of pods takes about 5 ms of the event loop
    watch_s: float = (
        30.0  # the server ends a watch after this; it bounds how long a dead one is believed
    )
    silence_slack_s: float = 10.0  # and this much later we end it
    backoff_min_s: float = 0.5
    backoff_max_s: float = 30.0
    denied_retry_s: float = 60.0  # forbidden or not installed: someone has to act first
    resync_s: float = 600.0  # a full list, should an event ever have been lost
    stale_after_s: float = 90.0  # then the state is no longer answered from


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """Clock, sleep and randomness of the shell, so that tests run on their own time."""

    now_s: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    # Jitter only spreads load; nothing secret depends on it.
    uniform: Callable[[float, float], float] = random.uniform


class Informer(Generic[Record]):
    """The objects behind one path, by ``namespace/name``.

    ``decode`` makes a record of an object, or None of one that is of no interest; ``changed`` is
    told key, old and new record after each change, and never waited for.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        path: str,
        decode: Callable[[msgspec.Raw], Record | None],
        changed: Callable[[str, Record | None, Record | None], None],
        pacing: Pacing,
        pace: Pace,
        query: Query = (),
    ) -> None:
        self.path = path
        self.health = Health.STARTING
        self.error = ""
        self.lists = 0  # completed
        self.watches = 0  # opened
        self.malformed = 0  # objects that could not be read, since start
        self.synced = asyncio.Event()  # set for good by the first complete list
        self.tried = asyncio.Event()  # set by the first list or the first failure
        self._client = client
        self._query = tuple(query)
        self._decode = decode
        self._changed = changed
        self._pacing = pacing
        self._pace = pace
        self._items: dict[str, Record] = {}
        self._version = ""
        self._listed_at_s = float("-inf")
        self._proof_at_s = float("-inf")
        self._fruitless = 0  # attempts since the server last told something

    @property
    def items(self) -> Mapping[str, Record]:
        """What is known; empty before the first list."""
        return self._items

    def seen_at_s(self, now_s: float) -> float | None:
        """When the items were last known to be right: now under a live watch; None before a list.

        A connection that died without a word counts as live for at most ``watch_s`` plus
        ``silence_slack_s``; then its age is that of the last byte.
        """
        if not self.synced.is_set():
            return None
        return now_s if self.health is Health.LIVE else self._proof_at_s

    async def run(self) -> None:
        """Follow the resource until cancelled.  Faults of the world end up in ``health``."""
        while True:
            began_at_s = self._pacing.now_s()
            try:
                if not self._version or began_at_s - self._listed_at_s >= self._pace.resync_s:
                    await self._relist()
                await self._watch()
            except KubeError as error:
                self._failed(error)
            if self._pacing.now_s() - began_at_s >= self._pace.watch_s / 2:
                self._fruitless = 0  # a quiet watch that lasted is a good one
            self._fruitless += 1
            await self._pacing.sleep(self._pause_s())

    async def _relist(self) -> None:
        """Read all pages, then take over the result in one step."""
        found: dict[str, Record] = {}
        page = wire.ObjectList()
        for number in range(PAGES_MAX):
            if number and not page.metadata.continue_:
                break
            page = await self._page(page.metadata.continue_)
            turns = Turns()
            for raw in page.items or ():
                await turns.rest()
                self._read_into(found, raw)
        else:
            raise KubeError(f"LIST {self.path}: more than {PAGES_MAX} pages")
        if not page.metadata.resource_version:  # `{}` would read as a list of nothing
            raise KubeError(f"LIST {self.path}: no list, it has no resourceVersion")
        self._version = page.metadata.resource_version
        self._listed_at_s = self._pacing.now_s()
        self._proved()
        self._take_over(found)
        self.lists += 1
        self.synced.set()
        self.tried.set()

    async def _page(self, continue_: str) -> wire.ObjectList:
        query = [*self._query, ("limit", str(self._pace.page_items))]
        if continue_:
            query.append(("continue", continue_))
        body = await self._client.get(self.path, query)
        try:
            return _list.decode(body)
        except msgspec.DecodeError as error:
            raise KubeError(f"LIST {self.path}: {error}") from error

    def _read_into(self, found: dict[str, Record], raw: msgspec.Raw) -> None:
        try:
            key, record = _key(_meta.decode(raw).metadata), self._decode(raw)
        except (msgspec.DecodeError, ValueError) as error:
            self._tell_malformed(error)
            return
        if record is not None:
            found[key] = record

    def _take_over(self, found: dict[str, Record]) -> None:
        before, self._items = self._items, found
        for key in before.keys() - found.keys():
            self._changed(key, before[key], None)
        for key, record in found.items():
            old = before.get(key)
            if old != record:
                self._changed(key, old, record)

    async def _watch(self) -> None:
        """One watch, to its end."""
        pace = self._pace
        query = [
            *self._query,
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(max(1, round(pace.watch_s)))),
        ]
        limit_s = pace.watch_s + pace.silence_slack_s
        async with self._client.watch(
            self.path, query, silence_max_s=limit_s, total_max_s=limit_s + pace.silence_slack_s
        ) as lines:
            self.watches += 1
            self._recovered()
            try:
                async for line in lines:
                    self._proved()
                    self._apply(line)
                self._proved()  # an orderly end says that nothing else has happened
            except KubeError as error:
                if not isinstance(error.__cause__, TimeoutError):
                    self._proved()  # and so does a cut: only silence may have been going on
                raise
            finally:
                self.health = Health.BROKEN

    def _apply(self, line: bytes) -> None:
        """Take one event; afterwards the version is the event's."""
        try:
            event = _event.decode(line)
            if event.type == "ERROR":
                self._refused(_status.decode(event.object))
            meta = _meta.decode(event.object).metadata
        except msgspec.DecodeError as error:
            self._version = ""  # what was lost can only be found by a list
            raise KubeError(f"WATCH {self.path}: {error}") from error
        if event.type != "BOOKMARK":
            self._take(event, meta)
        if meta.resource_version:
            self._version = meta.resource_version
        self._fruitless = 0

    def _take(self, event: wire.WatchEvent, meta: wire.Meta) -> None:
        key, record = _key(meta), None
        if event.type != "DELETED":
            try:
                record = self._decode(event.object)
            except (msgspec.DecodeError, ValueError) as error:
                self._tell_malformed(error)
        old = self._items.get(key)
        if record is None:
            self._items.pop(key, None)
        else:
            self._items[key] = record
        if old != record:
            self._changed(key, old, record)

    def _refused(self, status: wire.Status) -> None:
        """An ERROR event: whatever it says, the version is of no more use."""
        self._version = ""
        raise KubeError(
            f"WATCH {self.path}: {status.code} {status.reason}: {status.message}",
            status=status.code,
        )

    def _failed(self, error: KubeError) -> None:
        if error.status == HTTPStatus.GONE:
            self._version = ""
        before = self.health, self.error
        self.health, self.error = _health_after(error, synced=self.synced.is_set()), str(error)
        self.tried.set()
        if self.health is not before[0] or not before[1]:  # once, not at every attempt
            _log.warning(
                "kubernetes_unreadable", path=self.path, state=self.health, error=self.error
            )

    def _recovered(self) -> None:
        if self.error:
            _log.info("kubernetes_readable", path=self.path)
        self.health, self.error = Health.LIVE, ""

    def _proved(self) -> None:
        self._proof_at_s = self._pacing.now_s()

    def _tell_malformed(self, error: Exception) -> None:
        self.malformed += 1
        if self.malformed <= MALFORMED_TOLD_MAX:
            _log.warning("kubernetes_object_malformed", path=self.path, error=str(error))

    def _pause_s(self) -> float:
        """Doubling from ``backoff_min_s``, capped, less up to half of itself by chance."""
        pace = self._pace
        if self.health in {Health.FORBIDDEN, Health.NOT_INSTALLED}:
            full_s = pace.denied_retry_s
        else:
            doublings = min(self._fruitless - 1, 30)
            full_s = min(pace.backoff_max_s, pace.backoff_min_s * 2.0**doublings)
        return self._pacing.uniform(full_s / 2, full_s)


def _health_after(error: KubeError, *, synced: bool) -> Health:
    match error.status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return Health.FORBIDDEN
        case HTTPStatus.NOT_FOUND:
            return Health.NOT_INSTALLED
        case _:
            return Health.BROKEN if synced else Health.STARTING


def _key(meta: wire.Meta) -> str:
    return f"{meta.namespace}/{meta.name}"
