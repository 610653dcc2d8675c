"""The doctor against two real daemons: alike, and each for itself."""

import asyncio
from pathlib import Path

import pytest

from scaler.config import from_tree
from scaler.ops.doctor.gather import Request, gather
from scaler.ops.doctor.run import Report, judge
from scaler.ops.lint.model import Finding
from tests.e2e.harness import Cluster, Keda, Process, until

QUICK = {"policy": {"tick_s": 2.0}}
UNSETTLED = {
    "daemon-unreachable", "daemon-not-ready", "daemon-sees-nothing", "scaler-does-not-answer",
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def examined(cluster: Cluster, daemons: list[Process]) -> Report:
    kubernetes = {"use": "always", "server": cluster.api.url}
    request = Request(
        config=from_tree({**QUICK, "kubernetes": kubernetes}),
        urls=tuple(f"http://127.0.0.1:{one.http_port}" for one in daemons),
        scaler_address=f"127.0.0.1:{daemons[0].grpc_port}",
        timeout_s=10.0,
    )
    return judge(await gather(request))


@pytest.mark.parametrize("leases", [("shared", "shared"), ("one", "another")])
async def test_daemons_of_one_lease_agree_and_of_two_are_found(
    leases: tuple[str, str], tmp_path: Path
) -> None:
    cluster = Cluster()
    await cluster.start()
    await cluster.deploy("chat", replicas=3)
    cluster.load("chat", requests_per_s=5.0, running=15.0)
    daemons = [
        Process(
            tmp_path,
            f"daemon-{place}",
            {
                **QUICK,
                "kubernetes": {"use": "always", "server": cluster.api.url},
                "state": {"lease_name": lease, "lease_namespace": "x", "lease_duration_s": 3.0},
            },
        )
        for place, lease in enumerate(leases)
    ]
    clients = [Keda(one.grpc_port) for one in daemons]
    try:
        for one in daemons:
            await one.start()

        async def both_answer() -> bool:
            values = await asyncio.gather(*(client.read("chat") for client in clients))
            return all(isinstance(value, int) for value in values)

        await until(both_answer, "both daemons answer", 60.0)

        async def settled() -> dict[str, Finding] | None:
            """A slow machine leaves a decision to grow old now and then."""
            found = {one.rule.id: one for one in (await examined(cluster, daemons)).findings}
            return None if set(found) & UNSETTLED else found

        found = await until(settled, "nothing but what stays is found", 60.0)
    finally:
        for client in clients:
            await client.close()
        for one in daemons:
            await one.end()
        await cluster.stop()
    assert not set(found) & {"daemons-disagree", "target-unknown-to-daemon", "ready-differs"}
    if leases[0] == leases[1]:
        assert "leaders" not in found
    else:
        assert found["leaders"].evidence.startswith("2 of 2 lead: http://127.0.0.1:")
