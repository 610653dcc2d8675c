"""The objects of a small Kubernetes API server: versions, history for watches, optimistic locking.

One resource version counts all writes, as in etcd.  The history is bounded; a watch from before its
beginning gets 410 Gone, as it does from a real server after compaction.
"""

import asyncio
import copy
import itertools
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]  # an object of the API, as JSON

HISTORY_MAX = 20_000


class StoreError(Exception):
    """A refusal, with the HTTP status and the reason a real server gives."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceType:
    """A kind of object and where its paths are."""

    api_version: str  # group/version, or v1
    kind: str
    plural: str
    namespaced: bool = True
    has_scale: bool = False

    @property
    def root(self) -> str:
        """The beginning of its paths."""
        return (
            f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        )


RESOURCE_TYPES = (
    ResourceType(api_version="v1", kind="Pod", plural="pods"),
    ResourceType(api_version="v1", kind="Node", plural="nodes", namespaced=False),
    ResourceType(api_version="v1", kind="Event", plural="events"),
    ResourceType(api_version="apps/v1", kind="Deployment", plural="deployments", has_scale=True),
    ResourceType(api_version="apps/v1", kind="StatefulSet", plural="statefulsets", has_scale=True),
    ResourceType(
        api_version="leaderworkerset.x-k8s.io/v1",
        kind="LeaderWorkerSet",
        plural="leaderworkersets",
        has_scale=True,
    ),
    ResourceType(api_version="keda.sh/v1alpha1", kind="ScaledObject", plural="scaledobjects"),
    ResourceType(api_version="coordination.k8s.io/v1", kind="Lease", plural="leases"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One write: ``old`` is None of a new object, ``new`` of a deleted one."""

    version: int
    plural: str
    old: Object | None
    new: Object | None


class Store:
    """Objects by plural, namespace and name.  Used from one event loop."""

    def __init__(
        self, now_s: Callable[[], float], types: tuple[ResourceType, ...] = RESOURCE_TYPES
    ) -> None:
        self.types = types
        self._now_s = now_s
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._version = 0
        self._history: deque[Change] = deque(maxlen=HISTORY_MAX)
        self._compacted = 0  # the last version that has left the history
        self._news: asyncio.Future[None] | None = None

    @property
    def version(self) -> int:
        """The version of the last write."""
        return self._version

    def apply(self, obj: Mapping[str, Any]) -> Object:
        """Create or replace an object, whatever its version; the stored form."""
        type_ = self.type_of(str(obj["apiVersion"]), str(obj["kind"]))
        written = copy.deepcopy(dict(obj))
        key = _key(type_, written)
        old = self._objects.get(key)
        meta = written.setdefault("metadata", {})
        self._inherit(meta, old)
        if old is not None and _without_meta(old) == _without_meta(written):
            meta["generation"] = old["metadata"]["generation"]
        return self._write(type_, key, old, written)

    def create(self, type_: ResourceType, namespace: str, obj: Object) -> Object:
        """Store a new object.  Raises StoreError 409 AlreadyExists."""
        meta = obj.setdefault("metadata", {})
        if "generateName" in meta and not meta.get("name"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        if type_.namespaced:
            meta["namespace"] = namespace
        key = _key(type_, obj)
        if key in self._objects:
            message = f'{type_.plural} "{meta["name"]}" already exists'
            raise StoreError(HTTPStatus.CONFLICT, "AlreadyExists", message)
        return self.apply({"apiVersion": type_.api_version, "kind": type_.kind, **obj})

    def replace(self, type_: ResourceType, namespace: str, name: str, obj: Object) -> Object:
        """Store an object over its old version.  Raises StoreError 404, or 409 Conflict."""
        old = self.get(type_, namespace, name)
        version = obj.get("metadata", {}).get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            message = f'{type_.plural} "{name}": the object has been modified'
            raise StoreError(HTTPStatus.CONFLICT, "Conflict", message)
        obj["metadata"] = {**obj.get("metadata", {}), "name": name}
        if type_.namespaced:
            obj["metadata"]["namespace"] = namespace
        return self.apply({"apiVersion": type_.api_version, "kind": type_.kind, **obj})

    def merge(self, type_: ResourceType, namespace: str, name: str, patch: Object) -> Object:
        """Apply a JSON merge patch (RFC 7386).  Raises StoreError 404, or 409 Conflict."""
        merged = _merged(self.get(type_, namespace, name), patch)
        if "resourceVersion" not in patch.get("metadata", {}):
            merged["metadata"].pop("resourceVersion", None)
        return self.replace(type_, namespace, name, merged)

    def delete(self, type_: ResourceType, namespace: str, name: str) -> Object:
        """Remove an object.  Raises StoreError 404."""
        old = self.get(type_, namespace, name)
        key = (type_.plural, namespace, name)
        del self._objects[key]
        gone = copy.deepcopy(old)
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._record(Change(version=self._version, plural=type_.plural, old=gone, new=None))
        return gone

    def get(self, type_: ResourceType, namespace: str, name: str) -> Object:
        """The stored object, not to be written to.  Raises StoreError 404."""
        found = self._objects.get((type_.plural, namespace, name))
        if found is None:
            message = f'{type_.plural} "{name}" not found'
            raise StoreError(HTTPStatus.NOT_FOUND, "NotFound", message)
        return found

    def list(self, type_: ResourceType, namespace: str = "") -> "list[Object]":
        """Objects of a type, of one namespace or of all, ordered by namespace and name."""
        return [
            obj
            for (plural, where, _), obj in sorted(self._objects.items(), key=lambda item: item[0])
            if plural == type_.plural and namespace in {"", where}
        ]

    def type_of(self, api_version: str, kind: str) -> ResourceType:
        """The type of an object.  Raises StoreError 404 for one that is not installed."""
        for type_ in self.types:
            if (type_.api_version, type_.kind) == (api_version, kind):
                return type_
        message = f"no kind {kind} in {api_version}"
        raise StoreError(HTTPStatus.NOT_FOUND, "NotFound", message)

    def changes_after(self, version: int, plural: str) -> Iterator[Change]:
        """Writes after a version.  Raises StoreError 410 when the history does not reach it."""
        if version < self._compacted:
            message = f"too old resource version: {version} ({self._compacted})"
            raise StoreError(HTTPStatus.GONE, "Expired", message)
        first = self._history[0].version if self._history else 0  # the history has no gaps
        later = tuple(itertools.islice(self._history, max(0, version + 1 - first), None))
        return (one for one in later if one.plural == plural)

    def compact(self) -> None:
        """Forget the history; a watch from before now gets 410."""
        self._version += 1  # so that even a watch that is up to date is too old
        self._compacted = self._version
        self._history.clear()
        self.wake()

    async def wait(self, limit_s: float) -> None:
        """Return after the next write, or ``limit_s``."""
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._news}, timeout=limit_s)

    def wake(self) -> None:
        """Let everyone who waits look again."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        self._news = None

    def timestamp(self) -> str:
        """Now, as Kubernetes writes it."""
        return timestamp(self._now_s())

    def _inherit(self, meta: Object, old: Object | None) -> None:
        """What the server keeps or makes itself."""
        kept = old["metadata"] if old is not None else {}
        meta["uid"] = kept.get("uid") or meta.get("uid") or str(uuid.uuid4())
        meta["creationTimestamp"] = (
            kept.get("creationTimestamp") or meta.get("creationTimestamp") or self.timestamp()
        )
        meta["generation"] = int(kept.get("generation", 0)) + 1

    def _write(
        self, type_: ResourceType, key: tuple[str, str, str], old: Object | None, new: Object
    ) -> Object:
        self._version += 1
        new["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = new
        self._record(Change(version=self._version, plural=type_.plural, old=old, new=new))
        return new

    def _record(self, change: Change) -> None:
        if len(self._history) == HISTORY_MAX:
            self._compacted = self._history[0].version
        self._history.append(change)
        self.wake()


def timestamp(at_s: float) -> str:
    """Seconds since the epoch to RFC 3339 with whole seconds, as in object metadata."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def select_labels(text: str, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a ``labelSelector`` parameter."""
    parts = re.split(r",(?![^(]*\))", text)
    return all(_satisfies(part.strip(), labels) for part in parts)


def select_fields(text: str, obj: Object) -> bool:
    """Whether an object satisfies a ``fieldSelector`` parameter."""
    for part in filter(None, text.split(",")):
        path, operator, value = re.split(r"(!=|==?)", part, maxsplit=1)
        found: Any = obj
        for name in path.split("."):
            found = found.get(name, "") if isinstance(found, dict) else ""
        if (str(found) == value) == (operator == "!="):
            return False
    return True


def _satisfies(part: str, labels: Mapping[str, str]) -> bool:
    if not part:
        return True
    if found := re.match(r"(\S+)\s+(in|notin)\s*\(([^)]*)\)$", part):
        values = {value.strip() for value in found[3].split(",")}
        return (labels.get(found[1]) in values) == (found[2] == "in")
    if found := re.match(r"([^!=]+)(!=|==?)(.*)$", part):
        return (labels.get(found[1].strip()) == found[3].strip()) != (found[2] == "!=")
    return (part.removeprefix("!") in labels) != part.startswith("!")


def _merged(target: Any, patch: Any) -> Any:  # JSON of any shape
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _key(type_: ResourceType, obj: Mapping[str, Any]) -> tuple[str, str, str]:
    meta = obj.get("metadata", {})
    namespace = str(meta.get("namespace", "default")) if type_.namespaced else ""
    return type_.plural, namespace, str(meta["name"])


def _without_meta(obj: Object) -> Any:
    return obj.get("spec")
