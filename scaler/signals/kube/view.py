"""KubernetesView: ScaledObjects, targets, pods and nodes, read from memory.

Nothing here waits for the API server but the tasks that watch it.  While it is away the last state
is answered with its age; after ``Pace.stale_after_s`` the answer is ``NoData(UNREACHABLE)``.

Permissions (a ClusterRole; a Role in each namespace where ``namespaces`` are listed):

=============================  ===========================  =================  =====================
apiGroup                       resources                    verbs              without it
=============================  ===========================  =================  =====================
keda.sh                        scaledobjects                list, watch        targets from the
                                                                               config and calls only
apps                           deployments, statefulsets    list, watch        no data for the kind
leaderworkerset.x-k8s.io       leaderworkersets             list, watch        no data for the kind
(core)                         pods                         list, watch        no data
(core), cluster-wide           nodes                        list, watch        GPU product and
                                                                               allocatable unknown
listed extra kinds             <plural>/scale               get                no data for the kind
=============================  ===========================  =================  =====================

``/version`` is readable by every service account.  Lease and events are described in
``scaler.service.lease`` and ``scaler.service.events``.  No verb writes to a workload.

Pods are watched only in namespaces that have a target, until those are more than
``POD_PLACES_MAX``; then one cluster-wide watch replaces them.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from scaler.core.model import Cause, NoData
from scaler.signals.kube.catalogue import Catalogue, key_of
from scaler.signals.kube.client import KubeClient
from scaler.signals.kube.feeds import EVERYWHERE, WORKLOADS, FeedHealth, Feeds, Resource
from scaler.signals.kube.informer import Pace, Pacing
from scaler.signals.kube.membership import Membership
from scaler.signals.kube.parse import (
    PodConventions,
    node_record,
    pod_record,
    workload_record,
)
from scaler.signals.kube.records import (
    NodeRecord,
    PodRecord,
    ScaledObject,
    ScaledTrigger,
    TargetState,
    TriggerId,
    Workload,
    place_of,
)
from scaler.signals.kube.replicas import Nodes, Surroundings, groups_of, nodes_of, state_of
from scaler.signals.kube.scale import ExtraKind, ScalePoller
from scaler.signals.kube.scaledobjects import SCALER_NAMES, scaled_object_record
from scaler.signals.kube.starts import StartUps
from scaler.signals.kube.version import VersionPoller
from scaler.signals.samples import TargetRef

POD_PLACES_MAX = 40  # one connection each, of the client's 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is looked at: namespaces (none: the whole cluster), triggers, kinds, conventions."""

    namespaces: tuple[str, ...] = ()
    scaler_names: tuple[str, ...] = SCALER_NAMES
    extra_kinds: tuple[ExtraKind, ...] = ()
    scale_every_s: float = 15.0  # the HPA's own period
    conventions: PodConventions = field(default_factory=PodConventions)
    watch_nodes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What has changed since the last call of a subscriber; targets by ``place_of``."""

    triggers: frozenset[TriggerId]
    targets: frozenset[str]


class KubernetesView:
    """The cluster as the scaler sees it; questions are answered from memory."""

    def __init__(
        self,
        client: KubeClient,
        *,
        pacing: Pacing,
        scope: Scope | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._scope = scope or Scope()
        self._pacing = pacing
        self._feeds = Feeds(client, pacing=pacing, pace=pace or Pace())
        self._scales = ScalePoller(
            client,
            kinds=self._scope.extra_kinds,
            changed=self._workload_changed,
            pacing=pacing,
            every_s=self._scope.scale_every_s,
            stale_after_s=(pace or Pace()).stale_after_s,
        )
        self._version = VersionPoller(client, pacing=pacing)
        self._catalogue = Catalogue()
        self._membership = Membership()
        self._starts = StartUps(pacing.now_s())
        self._listeners: list[Callable[[Changes], None]] = []
        self._wanted: dict[str, TargetRef] = {}  # from the config and from calls
        self._known_nodes: Nodes | None = None  # made when asked for, until a node changes
        self._capacity_keys: dict[str, str] = {}  # the last ones, for targets at zero
        self._changed_triggers: set[TriggerId] = set()
        self._changed_targets: set[str] = set()
        self._stale_selection = False  # targets or selectors have changed
        self._settling: asyncio.Handle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to watch; returns at once, whatever state the API server is in."""
        for namespace in self._scope.namespaces or (EVERYWHERE,):
            self._watch_scaled_objects(namespace)
            for kind in WORKLOADS:
                self._watch_workloads(kind, namespace)
        if self._scope.watch_nodes:
            self._feeds.ensure(
                Resource.NODES, EVERYWHERE, decode=self._node, changed=self._node_changed
            )
        self._tasks = [
            asyncio.create_task(self._scales.run(), name="scale subresources"),
            asyncio.create_task(self._version.run(), name="kubernetes version"),
        ]

    async def stop(self) -> None:
        """Stop watching; the client stays open for its other users."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._feeds.close()
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None

    async def wait_tried(self) -> None:
        """Return when everything has been listed, or has failed, once."""
        await self._feeds.all_tried()
        self._settle()
        await self._feeds.all_tried()  # the pods of the targets just found

    def scaled_objects(self) -> Mapping[TriggerId, ScaledTrigger]:
        """Our triggers; the last known ones while the API server is away.

        A mapping that never changes: with the triggers comes another one (``Catalogue.rebuild``).
        """
        return self._catalogue.triggers

    def scaled_objects_seen_at_s(self) -> float | None:
        """When the triggers were last known to be right everywhere; None before that."""
        now_s = self._pacing.now_s()
        seen = [one.seen_at_s(now_s) for _, one in self._feeds.of(Resource.SCALED_OBJECTS)]
        known = [at_s for at_s in seen if at_s is not None]
        return min(known) if known and len(known) == len(seen) else None

    def advisory_targets(self) -> tuple[TargetRef, ...]:
        """Workloads annotated ``vllm-scaler.io/advisory: "true"``."""
        return self._catalogue.advisory()

    @property
    def kubernetes_minor(self) -> int | None:
        """33 of Kubernetes 1.33; None until it is known."""
        return self._version.minor

    def want(self, targets: Iterable[TargetRef]) -> None:
        """Follow these targets beside those of ScaledObjects and annotations.

        Replaces what the last call asked for.
        """
        wanted = {place_of(target): target for target in targets}
        if wanted.keys() != self._wanted.keys():
            self._stale_selection = True
            self._settle_soon()
        self._wanted = wanted

    def target(self, ref: TargetRef, *, since_s: float = float("-inf")) -> TargetState | NoData:
        """The state of a target, or why it is not known.

        ``start_up_s`` has the start-ups seen after ``since_s``: a caller that passes the
        ``seen_at_s`` of its last observation gets each of them once.
        """
        now_s = self._pacing.now_s()
        if place_of(ref) not in self._catalogue.targets:
            return NoData(cause=Cause.NEVER, detail=f"{place_of(ref)} is not followed yet")
        found = self._workload(ref, now_s)
        pods = self._feeds.read(Resource.PODS, ref.namespace, now_s)
        if isinstance(found, NoData):
            return found
        if isinstance(pods, NoData):
            return pods
        limits = self._catalogue.limits.get(place_of(ref))
        state = state_of(
            ref,
            found[0],
            self._membership.pods(place_of(ref)).values(),
            Surroundings(
                nodes=self._nodes(now_s),
                start_up_s=self._starts.since(place_of(ref), since_s),
                replicas_min=limits.replicas_min if limits else None,
                replicas_max=limits.replicas_max if limits else None,
                key_before=self._capacity_keys.get(place_of(ref), ""),
            ),
            seen_at_s=min(found[1], pods[1]),
            now_s=now_s,
        )
        self._capacity_keys[place_of(ref)] = state.capacity_key
        return state

    def subscribe(self, callback: Callable[[Changes], None]) -> Callable[[], None]:
        """Call back after changes, several at a time; the result ends the subscription."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def health(self) -> tuple[FeedHealth, ...]:
        """Every watch as it is now."""
        return self._feeds.health()

    # What the watches report

    def _watch_scaled_objects(self, namespace: str) -> None:
        names = self._scope.scaler_names
        self._feeds.ensure(
            Resource.SCALED_OBJECTS,
            namespace,
            decode=lambda raw: scaled_object_record(raw, names),
            changed=self._scaled_object_changed,
        )

    def _watch_workloads(self, kind: str, namespace: str) -> None:
        conventions = self._scope.conventions
        self._feeds.ensure(
            WORKLOADS[kind],
            namespace,
            decode=lambda raw: workload_record(raw, kind, conventions),
            changed=self._workload_changed,
        )

    def _watch_pods(self, namespace: str) -> None:
        conventions = self._scope.conventions
        self._feeds.ensure(
            Resource.PODS,
            namespace,
            decode=lambda raw: pod_record(raw, conventions),
            changed=self._pod_changed,
        )

    def _node(self, raw: msgspec.Raw) -> NodeRecord:
        return node_record(raw, self._scope.conventions)

    def _scaled_object_changed(
        self, _key: str, old: ScaledObject | None, new: ScaledObject | None
    ) -> None:
        for one in (old, new):
            if one is not None:
                self._changed_triggers.update(trigger.id for trigger in one.triggers)
                self._changed_targets.add(place_of(one.scale_target))
        self._stale_selection = True
        self._settle_soon()

    def _workload_changed(self, _key: str, old: Workload | None, new: Workload | None) -> None:
        self._stale_selection |= self._catalogue.put(old, new)
        for one in (old, new):
            if one is not None:
                self._changed_targets.add(key_of(one))
        self._settle_soon()

    def _pod_changed(self, _key: str, old: PodRecord | None, new: PodRecord | None) -> None:
        self._changed_targets |= self._membership.replace(old, new)
        self._settle_soon()

    def _node_changed(self, _key: str, _old: NodeRecord | None, _new: NodeRecord | None) -> None:
        self._known_nodes = None

    # Settling: many changes, one pass

    def _settle_soon(self) -> None:
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        """Bring targets, watched places and membership up to date, then tell the subscribers."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        before = self._catalogue.targets.keys()
        if self._stale_selection:
            self._stale_selection = False
            self._select()
        self._place_pod_watches()
        self._observe_starts()
        changes = Changes(
            triggers=frozenset(self._changed_triggers),
            targets=frozenset(self._changed_targets & (before | self._catalogue.targets.keys())),
        )
        self._changed_triggers.clear()
        self._changed_targets.clear()
        if changes.triggers or changes.targets:
            loop = asyncio.get_running_loop()
            for listener in tuple(self._listeners):
                loop.call_soon(listener, changes)  # a fault of a listener must not end a watch

    def _select(self) -> None:
        """Which targets there are, and which pods are theirs."""
        objects = (
            one
            for _, informer in self._feeds.of(Resource.SCALED_OBJECTS)
            for one in informer.items.values()
        )
        self._changed_targets |= self._catalogue.rebuild(objects, self._wanted.values())
        targets = self._catalogue.targets
        self._scales.follow(targets.values())
        self._starts.keep(targets)
        self._capacity_keys = {
            key: value for key, value in self._capacity_keys.items() if key in targets
        }
        self._choose_pods()

    def _choose_pods(self) -> None:
        selectors = self._catalogue.selectors()
        pods = (pod for _, one in self._feeds.of(Resource.PODS) for pod in one.items.values())
        self._membership.select(selectors, pods)
        self._changed_targets |= selectors.keys()

    def _place_pod_watches(self) -> None:
        """Start and stop pod watches; a replaced one stays until the cluster-wide one is synced."""
        wanted = {target.namespace for target in self._catalogue.targets.values()}
        running = dict(self._feeds.of(Resource.PODS))
        if self._scope.namespaces:
            wanted &= set(self._scope.namespaces)
        elif len(wanted) > POD_PLACES_MAX or EVERYWHERE in running:
            synced = EVERYWHERE in running and running[EVERYWHERE].synced.is_set()
            wanted = {EVERYWHERE} if synced else {EVERYWHERE, *running}
        for namespace in wanted - running.keys():
            self._watch_pods(namespace)
        for namespace in running.keys() - wanted:
            self._feeds.drop(Resource.PODS, namespace)
        if running.keys() - wanted:
            self._choose_pods()

    def _observe_starts(self) -> None:
        now_s = self._pacing.now_s()
        workloads, targets = self._catalogue.workloads, self._catalogue.targets
        for key in self._changed_targets & targets.keys() & workloads.keys():
            groups = groups_of(workloads[key], self._membership.pods(key).values())
            self._starts.observe(key, groups, now_s)

    # Reading

    def _workload(self, ref: TargetRef, now_s: float) -> tuple[Workload, float] | NoData:
        if ref.kind not in WORKLOADS:
            return self._scales.look_up(ref, now_s)
        read = self._feeds.read(WORKLOADS[ref.kind], ref.namespace, now_s)
        if isinstance(read, NoData):
            return read
        workload = self._catalogue.workloads.get(place_of(ref))
        if workload is None:
            return NoData(cause=Cause.ABSENT, detail=f"{place_of(ref)} does not exist")
        return workload, read[1]

    def _nodes(self, now_s: float) -> Nodes | None:
        """None where nodes may not be read or are out of date."""
        read = self._feeds.read(Resource.NODES, EVERYWHERE, now_s)
        if isinstance(read, NoData):
            return None
        if self._known_nodes is None:
            self._known_nodes = nodes_of(read[0].items.values())
        return self._known_nodes
