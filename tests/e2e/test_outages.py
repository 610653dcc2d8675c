"""The Kubernetes API killed and back; calls that are no ticks; nothing that flaps."""

import asyncio
import json

import pytest

from tests.e2e.harness import Cluster, Keda, Process, until

SETTINGS = {
    "policy": {
        "tick_s": 1.0,
        "demand": {"rate_time_constant_s": 5.0},
        "hold_down": {"window_s": 3.0, "level_s": 15.0, "release_s": 5.0},
        "start_up": {"prior_s": 2.0},
    },
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
async def stack(tmp_path):
    cluster = Cluster()
    await cluster.start()
    await cluster.deploy("chat", replicas=4)
    cluster.load("chat", requests_per_s=5.0, running=15.0)
    settings = {
        **SETTINGS,
        "kubernetes": {"use": "always", "server": cluster.api.url, "stale_after_s": 5.0},
    }
    daemon = Process(tmp_path, "daemon", settings)
    client = Keda(daemon.grpc_port)
    await daemon.start()
    yield cluster, daemon, client
    await client.close()
    await daemon.end()
    await cluster.stop()


async def status(daemon) -> str:
    _, text = await daemon.get("/api/targets")
    targets = json.loads(text)["targets"] if text else []
    return str(targets[0]["status"]) if targets else ""


async def decided_by(daemon) -> str:
    _, text = await daemon.get("/api/targets")
    targets = json.loads(text)["targets"] if text else []
    return str(targets[0]["decided_by"]) if targets else ""


async def answered(client) -> int | None:
    value = await client.read("chat")
    return value if isinstance(value, int) else None


async def test_without_the_kubernetes_api_the_load_decides_and_nothing_is_lowered(stack):
    cluster, daemon, client = stack

    async def fresh():
        return await answered(client) if await status(daemon) == "fresh" else None

    cluster.load("chat", requests_per_s=15.0, running=40.0)
    await until(fresh, "a fresh answer", 20.0)
    await cluster.api.stop()

    async def load_only():
        return await status(daemon) == "load_only"

    await until(load_only, "the outage is noticed", 30.0)
    before = await answered(client)
    assert before is not None
    assert before > 1
    cluster.load("chat", requests_per_s=0.0, running=0.0)  # idle, and still not lowered
    seen = []

    async def lower_but_for_the_outage():
        seen.append(await client.read("chat"))
        return await decided_by(daemon) == "no_api"

    await until(lower_but_for_the_outage, "the load alone would lower the count", 40.0)
    for _ in range(5):  # beyond the hold of 3 s
        seen.append(await client.read("chat"))
        await asyncio.sleep(1.0)
    assert all(isinstance(value, int) and value >= before for value in seen), seen
    assert await decided_by(daemon) == "no_api"
    cluster.load("chat", requests_per_s=40.0, running=60.0, waiting=40.0)

    async def higher():
        value = await answered(client)
        return value if value is not None and value > max(seen) else None

    await until(higher, "load still raises the count", 20.0)
    await cluster.api.start()
    await until(fresh, "recovery", 30.0)


async def test_constant_load_gives_one_value_and_calls_are_no_ticks(stack):
    cluster, daemon, client = stack
    cluster.load("chat", requests_per_s=2.0, running=6.0)
    await until(lambda: answered(client), "an answer", 20.0)

    async def settled():
        value = await answered(client)
        return value if value in (1, 2) else None

    settled_at = await until(settled, "the hold is over", 60.0)
    ticks = await daemon.metric("vllm_scaler_tick_duration_seconds_count")
    collections = await daemon.metric("vllm_scaler_source_collections_total")
    values = {await client.read("chat") for _ in range(300)}
    assert values == {settled_at}
    ticks_now = await daemon.metric("vllm_scaler_tick_duration_seconds_count")
    assert ticks is not None
    assert ticks_now is not None
    assert ticks_now - ticks <= 8.0  # about a second or two passed, not 300 ticks
    after = await daemon.metric("vllm_scaler_source_collections_total")
    assert collections is not None
    assert after is not None
    assert after - collections == pytest.approx(ticks_now - ticks, abs=1.0)
