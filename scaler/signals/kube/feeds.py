"""The running informers: one for each resource and place, started as targets need them."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec
import structlog

from scaler.core.model import Cause, NoData
from scaler.signals.kube.client import KubeClient
from scaler.signals.kube.informer import Health, Informer, Pace, Pacing

EVERYWHERE = ""  # the place of a cluster-wide informer

_log = structlog.get_logger(__name__)


class Resource(Enum):
    """What is watched: API root and plural."""

    SCALED_OBJECTS = ("/apis/keda.sh/v1alpha1", "scaledobjects")
    DEPLOYMENTS = ("/apis/apps/v1", "deployments")
    STATEFUL_SETS = ("/apis/apps/v1", "statefulsets")
    LEADER_WORKER_SETS = ("/apis/leaderworkerset.x-k8s.io/v1", "leaderworkersets")
    PODS = ("/api/v1", "pods")
    NODES = ("/api/v1", "nodes")

    def path(self, namespace: str) -> str:
        """The path of the list, in one namespace or everywhere."""
        root, plural = self.value
        return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


WORKLOADS = {
    "deployment": Resource.DEPLOYMENTS,
    "statefulset": Resource.STATEFUL_SETS,
    "leaderworkerset": Resource.LEADER_WORKER_SETS,
}
# The server leaves out ended pods; on a batch cluster they outnumber the others.
QUERIES = {
    Resource.PODS: (("fieldSelector", "status.phase!=Succeeded,status.phase!=Failed"),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedHealth:
    """How one resource in one place is, for metrics, ``doctor`` and the live page."""

    resource: str
    namespace: str  # empty: everywhere
    health: Health
    error: str
    seen_at_s: float | None
    objects: int
    lists: int
    watches: int
    malformed: int


class Feeds:
    """Informers by resource and namespace, each with its task."""

    def __init__(self, client: KubeClient, *, pacing: Pacing, pace: Pace) -> None:
        self._client = client
        self._pacing = pacing
        self._pace = pace
        self._running: dict[tuple[Resource, str], tuple[Informer[Any], asyncio.Task[None]]] = {}

    def ensure(
        self,
        resource: Resource,
        namespace: str,
        *,
        decode: Callable[[msgspec.Raw], Any],
        changed: Callable[[str, Any, Any], None],
    ) -> None:
        """Start an informer unless it runs already."""
        if (resource, namespace) in self._running:
            return
        informer: Informer[Any] = Informer(
            self._client,
            path=resource.path(namespace),
            query=QUERIES.get(resource, ()),
            decode=decode,
            changed=changed,
            pacing=self._pacing,
            pace=self._pace,
        )
        task = asyncio.create_task(informer.run(), name=f"watch {informer.path}")
        task.add_done_callback(_tell_end)
        task.add_done_callback(lambda _: informer.tried.set())
        self._running[resource, namespace] = informer, task

    def drop(self, resource: Resource, namespace: str) -> None:
        """Stop an informer; what it knew is forgotten."""
        _, task = self._running.pop((resource, namespace))
        task.cancel()

    def find(self, resource: Resource, namespace: str) -> Informer[Any] | None:
        """The informer that knows a namespace: the cluster-wide one once it is synced."""
        everywhere = self._running.get((resource, EVERYWHERE))
        here = self._running.get((resource, namespace))
        if everywhere is not None and (here is None or everywhere[0].synced.is_set()):
            return everywhere[0]
        return here[0] if here is not None else None

    def of(self, resource: Resource) -> Iterator[tuple[str, Informer[Any]]]:
        """Namespace and informer of every place where the resource is watched."""
        for (one, namespace), (informer, _) in tuple(self._running.items()):
            if one is resource:
                yield namespace, informer

    def read(
        self, resource: Resource, namespace: str, now_s: float
    ) -> tuple[Informer[Any], float] | NoData:
        """The informer of a namespace and when it was right, or why it cannot be used."""
        informer = self.find(resource, namespace)
        if informer is None:
            detail = f"{resource.path(namespace)} is not watched"
            return NoData(cause=Cause.UNSUPPORTED, detail=detail)
        seen_at_s = informer.seen_at_s(now_s)
        if informer.health is Health.NOT_INSTALLED:
            return NoData(cause=Cause.UNSUPPORTED, detail=informer.error)
        if seen_at_s is None:
            cause = Cause.UNREACHABLE if informer.error else Cause.NEVER
            return NoData(
                cause=cause, detail=informer.error or f"{informer.path} is not listed yet"
            )
        age_s = now_s - seen_at_s
        if age_s > self._pace.stale_after_s:
            detail = f"last seen {age_s:.0f} s ago: {informer.error}"
            return NoData(cause=Cause.UNREACHABLE, detail=detail)
        return informer, seen_at_s

    def health(self) -> tuple[FeedHealth, ...]:
        """Every informer as it is now."""
        now_s = self._pacing.now_s()
        return tuple(
            FeedHealth(
                resource=resource.value[1],
                namespace=namespace,
                health=informer.health,
                error=informer.error,
                seen_at_s=informer.seen_at_s(now_s),
                objects=len(informer.items),
                lists=informer.lists,
                watches=informer.watches,
                malformed=informer.malformed,
            )
            for (resource, namespace), (informer, _) in self._running.items()
        )

    async def all_tried(self) -> None:
        """Return when every informer that runs now has listed or failed once."""
        for informer, _ in tuple(self._running.values()):
            await informer.tried.wait()

    async def close(self) -> None:
        """Stop all informers."""
        tasks = [task for _, task in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_end(task: asyncio.Task[None]) -> None:
    """An informer ends by cancellation only; a defect of ours is loud, and its data turns stale."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("kubernetes_watch_died", task=task.get_name(), error=repr(error))
