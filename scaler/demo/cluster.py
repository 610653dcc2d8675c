"""The demonstration's cluster: a Deployment's replicas as pods of the Kubernetes stand-in.

Once a second of the clock it does what controllers, scheduler and kubelet do: takes the count from
the Deployment, lets the fleet live up to now, and writes what became of its replicas.
"""

import asyncio
import hashlib
from dataclasses import dataclass

from scaler.demo import objects
from scaler.demo.clock import Sleeper
from scaler.demo.dcgm_page import GpuMeter, Placed, dcgm_page
from scaler.demo.endpoints import HOST, Endpoints
from scaler.demo.kube_objects import PodState, PodTimes, pod
from scaler.demo.kube_store import Object, Store
from scaler.demo.scenario import GPUS_PER_NODE, Scenario
from scaler.demo.served_fleet import ServedFleet
from scaler.demo.vllm_page import PageWriter, ReplicaNumbers
from simulations.lifecycle import Phase, ReplicaView

STEP_S = 1.0
SETTLE_S = 0.05  # of the machine's time: watches bring a change to the daemon well within it
WARM_CREATED_S, WARM_READY_S = 600.0, 300.0  # before the beginning, of the first replicas
TEMPLATE_HASH = "7c9f8d6b5"
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes names pods with

_STATES = {
    Phase.PENDING: PodState.UNSCHEDULABLE,
    Phase.STARTING: PodState.LOADING,
    Phase.CRASH_LOOPING: PodState.CRASH_LOOP,
    Phase.READY: PodState.READY,
    Phase.DRAINING: PodState.TERMINATING,
}


@dataclass(slots=True, kw_only=True)
class _Pod:
    """What is known of a replica's pod beside the fleet's view of it."""

    name: str
    port: int
    state: PodState
    times: PodTimes
    node: str = ""
    gpus: tuple[int, ...] = ()


class DemoCluster:
    """Deployment controller, scheduler, kubelet and endpoints in one."""

    def __init__(
        self, scenario: Scenario, *, fleet: ServedFleet, store: Store, sleeper: Sleeper
    ) -> None:
        self._scenario = scenario
        self._fleet = fleet
        self._store = store
        self._sleeper = sleeper
        self._pods: dict[int, _Pod] = {}
        self._free = {name: set(range(GPUS_PER_NODE)) for name in objects.node_names(scenario)}
        self._writer = PageWriter(scenario.model, scenario.model_name)
        self._meter = GpuMeter(scenario.model)
        self.endpoints = Endpoints(page=self._page, gpu_page=self._gpu_page)
        objects.set_up(store, scenario)

    @property
    def dcgm_url(self) -> str:
        """Where the exporter's page is."""
        return self.endpoints.dcgm_url

    async def start(self) -> None:
        """Open the ports of the replicas that are there at the beginning."""
        await self.endpoints.start()
        await self._mirror()

    async def run(self) -> None:
        """Live until cancelled."""
        while True:
            await self._sleeper.sleep(STEP_S)
            if await self._step():
                await asyncio.sleep(SETTLE_S)

    async def _step(self) -> bool:
        """One round of all controllers; whether anything was written."""
        before = self._store.version
        self._fleet.advance(self._now_s)
        wanted = int(self._deployment()["spec"]["replicas"])
        self._fleet.set_replicas(wanted)
        await self._mirror()
        return self._store.version != before

    async def _mirror(self) -> None:
        """Make the pods what the fleet's replicas are."""
        views = {view.uid: view for view in self._fleet.replicas()}
        for uid in self._pods.keys() - views.keys():
            await self._remove(uid)
        for view in views.values():
            if view.uid not in self._pods:
                self._create(view)
            elif self._pods[view.uid].state is not _STATES[view.phase]:
                self._change(view)
            if view.phase in {Phase.READY, Phase.DRAINING}:
                await self.endpoints.open(view.uid)
        self._write_status(list(views.values()))

    def _create(self, view: ReplicaView) -> None:
        scenario = self._scenario
        warm = view.ready_at_s == 0.0
        made = _Pod(
            name=f"{scenario.target}-{TEMPLATE_HASH}-{_suffix(view.uid)}",
            port=self.endpoints.bind(view.uid),
            state=PodState.UNSCHEDULABLE,
            times=PodTimes(created_at_s=self._now_s - (WARM_CREATED_S if warm else 0.0)),
        )
        self._pods[view.uid] = made
        self._change(view)

    def _change(self, view: ReplicaView) -> None:
        """The pod enters another state, now."""
        found = self._pods[view.uid]
        found.state = _STATES[view.phase]
        if found.state is not PodState.UNSCHEDULABLE and not found.node:
            self._place(found)
        ready_at_s = None
        if view.ready_at_s is not None:
            early_s = WARM_READY_S if view.ready_at_s == 0.0 else 0.0
            ready_at_s = self._fleet.start_at_s + view.ready_at_s - early_s
        found.times = PodTimes(
            created_at_s=found.times.created_at_s,
            scheduled_at_s=found.times.scheduled_at_s,
            ready_at_s=ready_at_s,
        )
        self._store.apply(self._object(found, restarts=view.restarts))

    def _place(self, found: _Pod) -> None:
        """On the first node with room: the fleet has counted that there is one."""
        need = self._scenario.model.gpus_per_replica
        found.node = next(name for name, free in self._free.items() if len(free) >= need)
        found.gpus = tuple(sorted(self._free[found.node])[:need])
        self._free[found.node].difference_update(found.gpus)
        created_at_s = found.times.created_at_s
        warm = created_at_s < self._fleet.start_at_s
        found.times = PodTimes(
            created_at_s=created_at_s,
            scheduled_at_s=created_at_s + 1.0 if warm else self._now_s,
        )

    async def _remove(self, uid: int) -> None:
        gone = self._pods.pop(uid)
        if gone.node:
            self._free[gone.node].update(gone.gpus)
        await self.endpoints.close(uid)
        type_ = self._store.type_of("v1", "Pod")
        self._store.delete(type_, self._scenario.namespace, gone.name)

    def _object(self, found: _Pod, *, restarts: int) -> Object:
        scenario = self._scenario
        return pod(
            scenario.namespace,
            found.name,
            app=scenario.target,
            times=found.times,
            state=found.state,
            template_hash=TEMPLATE_HASH,
            node=found.node,
            address=HOST,
            port=found.port,
            gpus=scenario.model.gpus_per_replica,
            restarts=restarts,
        )

    def _deployment(self) -> Object:
        type_ = self._store.type_of("apps/v1", "Deployment")
        return self._store.get(type_, self._scenario.namespace, self._scenario.target)

    def _write_status(self, views: list[ReplicaView]) -> None:
        status = {
            "replicas": sum(view.phase is not Phase.DRAINING for view in views),
            "readyReplicas": sum(view.phase is Phase.READY for view in views),
        }
        if self._deployment()["status"] != status:
            type_ = self._store.type_of("apps/v1", "Deployment")
            place = self._scenario.namespace, self._scenario.target
            self._store.merge(type_, *place, {"status": status})

    # Pages

    def _page(self, uid: int) -> str | None:
        """The page of a replica; None if its drain has ended since the last step."""
        counters = self._fleet.counters(self._now_s)
        if uid not in counters.uids:
            return None
        ready_at_s = self._pods[uid].times.ready_at_s
        assert ready_at_s is not None, "only a serving replica is asked"
        return self._writer.page(ReplicaNumbers.of(counters, uid, started_at_s=ready_at_s))

    def _gpu_page(self) -> str:
        now_s = self._now_s
        uses = self._meter.uses(self._fleet.counters(now_s), now_s)
        placed = (
            Placed(
                uid=uid,
                namespace=self._scenario.namespace,
                pod=one.name,
                node=one.node,
                gpus=one.gpus,
            )
            for uid, one in self._pods.items()
            if one.node
        )
        return dcgm_page(placed, uses, nodes=dict.fromkeys(self._free, GPUS_PER_NODE))

    @property
    def _now_s(self) -> float:
        return self._sleeper.clock.now_s()


def _suffix(uid: int) -> str:
    """Five characters without meaning, always the same for a replica."""
    digest = hashlib.sha256(f"pod-{uid}".encode()).digest()
    return "".join(_SUFFIX[byte % len(_SUFFIX)] for byte in digest[:5])
