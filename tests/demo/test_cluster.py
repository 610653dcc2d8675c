"""The demonstration's cluster: pods live as the fleet's replicas do, ports open when they serve."""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import yaml

from scaler.demo import objects
from scaler.demo.clock import VirtualClock
from scaler.demo.cluster import DemoCluster
from scaler.demo.kube_store import Store
from scaler.demo.scenario import Scenario
from scaler.demo.served_fleet import ServedFleet
from simulations.presets import PRESETS
from simulations.replica import StartUp, constant
from simulations.trace_chunks import Requests

START_AT_S = 1_800_000_000.0
MODEL = dataclasses.replace(
    PRESETS["llama-3.1-70b-h100-tp4"].model,
    start_up=StartUp(scheduling=constant(2.0), weights=constant(20.0), compile=constant(18.0)),
)  # 40 s from a GPU to ready
MANIFEST = Path(__file__).parents[2] / "manifests/vllm/components/scaled-object/scaledobject.yaml"


def scenario(*, nodes: int = 2, output_tokens: int = 50, rate_per_s: float = 1.0) -> Scenario:
    count = int(300 * rate_per_s)
    requests = Requests(
        arrival_s=np.arange(count) / rate_per_s,
        prompt_tokens=np.full(count, 500, dtype=np.int32),
        output_tokens=np.full(count, output_tokens, dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )
    return Scenario(
        requests=requests, duration_s=300.0, model=MODEL, nodes=nodes, replicas_max=2 * nodes
    )


@dataclass(frozen=True, kw_only=True)
class Rig:
    clock: VirtualClock
    store: Store
    cluster: DemoCluster
    fleet: ServedFleet

    async def until(self, at_s: float) -> None:
        await self.clock.run_until(START_AT_S + at_s)

    def want(self, replicas: int) -> None:
        """As a write to the scale subresource."""
        type_ = self.store.type_of("apps/v1", "Deployment")
        self.store.merge(type_, "llm", "vllm-llama-70b", {"spec": {"replicas": replicas}})

    def pods(self) -> list[dict[str, Any]]:
        return self.store.list(self.store.type_of("v1", "Pod"))

    def deployment(self) -> dict[str, Any]:
        type_ = self.store.type_of("apps/v1", "Deployment")
        return self.store.get(type_, "llm", "vllm-llama-70b")


@contextlib.asynccontextmanager
async def living(played: Scenario) -> AsyncIterator[Rig]:
    clock = VirtualClock(start_at_s=START_AT_S, speed=math.inf)
    store = Store(clock.now_s)
    fleet = ServedFleet(played, start_at_s=START_AT_S)
    cluster = DemoCluster(played, fleet=fleet, store=store, sleeper=clock.sleeper("cluster"))
    await cluster.start()
    task = asyncio.create_task(cluster.run())
    try:
        yield Rig(clock=clock, store=store, cluster=cluster, fleet=fleet)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cluster.endpoints.stop()


def is_ready(pod: dict[str, Any]) -> bool:
    states = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
    return states.get("Ready") == "True"


async def get(pod: dict[str, Any]) -> aiohttp.ClientResponse:
    port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
    url = f"http://{pod['status']['podIP']}:{port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        await response.read()
        return response


async def test_a_loading_replica_refuses_and_a_ready_one_serves() -> None:
    async with living(scenario()) as rig:
        rig.want(3)
        await rig.until(30.0)
        (loading,) = [pod for pod in rig.pods() if not is_ready(pod)]
        assert loading["spec"]["nodeName"], "it has its GPUs"
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(loading)
        await rig.until(45.0)
        assert all(is_ready(pod) for pod in rig.pods())
        name = loading["metadata"]["name"]
        response = await get(next(p for p in rig.pods() if p["metadata"]["name"] == name))
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
        assert rig.deployment()["status"] == {"replicas": 3, "readyReplicas": 3}


async def test_times_of_a_start_are_the_fleets() -> None:
    async with living(scenario()) as rig:
        await rig.until(10.0)
        rig.want(3)
        await rig.until(60.0)
        newest = max(rig.pods(), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        conditions = {c["type"]: c["lastTransitionTime"] for c in newest["status"]["conditions"]}
        # 1,800,000,000 is 2027-01-15T08:00:00Z; wanted at 10 s, seen a second later, 40 s to ready.
        assert newest["metadata"]["creationTimestamp"] == "2027-01-15T08:00:11Z"
        assert conditions["PodScheduled"] == "2027-01-15T08:00:11Z"
        assert conditions["Ready"] == "2027-01-15T08:00:51Z"


async def test_without_a_free_gpu_a_pod_is_unschedulable() -> None:
    async with living(scenario(nodes=1)) as rig:  # 8 GPUs, two replicas of 4
        rig.want(3)
        await rig.until(60.0)
        (waiting,) = [pod for pod in rig.pods() if pod["status"]["phase"] == "Pending"]
        assert waiting["status"]["conditions"][0]["reason"] == "Unschedulable"
        assert "nodeName" not in waiting["spec"]
        assert rig.deployment()["status"] == {"replicas": 3, "readyReplicas": 2}


async def test_a_victim_drains_still_serving_its_page_and_is_gone_then() -> None:
    async with living(scenario(output_tokens=400)) as rig:  # 400 tokens take over 11 s
        await rig.until(60.0)
        rig.want(1)
        await rig.until(62.0)
        (victim,) = [pod for pod in rig.pods() if "deletionTimestamp" in pod["metadata"]]
        assert (await get(victim)).status == 200
        assert rig.deployment()["status"] == {"replicas": 1, "readyReplicas": 1}
        await rig.until(110.0)
        (left,) = rig.pods()
        assert left["metadata"]["name"] != victim["metadata"]["name"]
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(victim)


async def test_gpus_of_a_replica_that_is_gone_are_given_to_the_next() -> None:
    async with living(scenario(nodes=1)) as rig:
        rig.want(1)
        await rig.until(100.0)
        rig.want(2)
        await rig.until(200.0)
        assert len(rig.pods()) == 2
        assert all(is_ready(pod) for pod in rig.pods())
        url = rig.cluster.dcgm_url
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            text = await response.text()
        lines = [line for line in text.splitlines() if line.startswith("DCGM_FI_DEV_GPU_UTIL{")]
        assert len(lines) == 8
        for pod in rig.pods():
            assert sum(f'pod="{pod["metadata"]["name"]}"' in line for line in lines) == 4


def test_the_scaled_object_is_the_shipped_one() -> None:
    shipped = yaml.safe_load(MANIFEST.read_text())
    store = Store(lambda: START_AT_S)
    played = scenario()
    objects.set_up(store, played)
    own = store.get(store.type_of("keda.sh/v1alpha1", "ScaledObject"), "llm", "vllm-llama-70b")
    differing = {"scaleTargetRef", "triggers", "maxReplicaCount"}
    assert {k: v for k, v in own["spec"].items() if k not in differing} == {
        k: v for k, v in shipped["spec"].items() if k not in differing
    }
    (trigger,) = own["spec"]["triggers"]
    (theirs,) = shipped["spec"]["triggers"]
    assert trigger["metadata"]["scalerAddress"] == theirs["metadata"]["scalerAddress"]
    assert trigger["metadata"].keys() <= theirs["metadata"].keys()
    assert own["spec"]["maxReplicaCount"] == played.replicas_max
