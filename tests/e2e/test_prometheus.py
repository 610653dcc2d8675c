"""The whole daemon against a real Prometheus: load up, load gone, Prometheus gone, wrong label.

A tick, a scrape and a poll are one second each here.  What a replica carries follows from the
prior until something was learned: 500 prompt tokens * 80 us + 100 output tokens * (100 us + 550 *
50 ns + 20 ms / 256 sequences) = 0.061 s of replica time a request.
"""

import asyncio
import json
import os
import shutil
import time

import pytest

from tests.e2e.harness import NAMESPACE, Cluster, Keda, Process, Prometheus, until

HOLD_S = 8.0
SETTINGS = {
    "policy": {
        "tick_s": 1.0,
        "demand": {"rate_time_constant_s": 5.0, "prior_prompt_tokens": 500.0,
                   "prior_output_tokens": 100.0},
        "hold_down": {"window_s": HOLD_S, "level_s": 15.0, "release_s": 5.0},
        "start_up": {"prior_s": 2.0},
        "freshness": {"grace_s": 4.0, "stale_after_s": 6.0},
    },
}  # fmt: skip

pytestmark = [pytest.mark.external, pytest.mark.slow, pytest.mark.timeout(180)]


def program() -> str:
    found = shutil.which("prometheus")
    if found is None:
        message = "the program prometheus is not installed (Debian package prometheus)"
        if os.environ.get("REQUIRE_EXTERNALS"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture
async def cluster():
    made = Cluster()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def stack(cluster, tmp_path):
    """One replica, a Prometheus that scrapes it, and a daemon that asks that Prometheus."""
    await cluster.deploy("chat", replicas=1)
    prometheus = Prometheus(program(), tmp_path, cluster)
    await prometheus.start()
    settings = {
        **SETTINGS,
        "kubernetes": {"use": "always", "server": cluster.api.url},
        "sources": [{"url": prometheus.url, "window_s": 15, "timeout_s": 2}],
    }
    daemon = Process(tmp_path, "daemon", settings)
    client = Keda(daemon.grpc_port)
    yield cluster, prometheus, daemon, client
    await client.close()
    await daemon.end()
    await prometheus.kill()


def reader(client, wanted):
    async def read():
        value = await client.read("chat")
        return value if isinstance(value, int) and wanted(value) else None

    return read


def events(cluster) -> set[str]:
    types = {item.plural: item for item in cluster.store.types}
    return {event["reason"] for event in cluster.store.list(types["events"], NAMESPACE)}


async def status(daemon) -> dict[str, object]:
    _, text = await daemon.get("/api/targets")
    found = [item for item in json.loads(text)["targets"] if item["name"] == "chat"]
    return found[0] if found else {}


async def test_load_up_gone_prometheus_killed_and_back(stack):
    cluster, prometheus, daemon, client = stack
    cluster.load("chat", requests_per_s=1.0, running=2.0)
    await daemon.start()
    # Start to first right answer: one replica carries 1 request/s * 0.061 s.
    assert await until(reader(client, lambda count: count > 0), "a first answer", 20.0) == 1

    # What one replica carries is learned: it serves these 60 requests/s at some 0.04 s each, so 2.4
    # replicas' worth, which 3 carry with little to spare, and those that wait are to be drained.
    cluster.load("chat", requests_per_s=60.0, running=220.0, waiting=60.0)
    grown = await until(reader(client, lambda count: count >= 4), "the load is met", 20.0)
    assert grown <= 20
    for place in range(1, 4):
        await cluster.add_pod("chat", place)
    cluster.set_scale("chat", 4)
    await prometheus.reload()
    cluster.load("chat", requests_per_s=20.0, running=70.0)
    await until(reader(client, lambda count: count >= 4), "4 carry a little more", 20.0)

    # The load is gone: held for the window, then down to the minimum.
    cluster.load("chat", requests_per_s=0.0, running=0.0)
    gone_s = time.monotonic()
    await until(reader(client, lambda count: count == 1), "down to the minimum", 60.0)
    assert time.monotonic() - gone_s >= HOLD_S - 1.0  # the tick that was under way

    # Prometheus is killed with load on: the count is held, and it is said.
    cluster.load("chat", requests_per_s=20.0, running=70.0)
    before = await until(reader(client, lambda count: count >= 4), "load again", 30.0)
    await prometheus.kill()

    async def blind():
        return await daemon.metric("vllm_scaler_blind") == 1.0

    await until(blind, "blindness is exported", 15.0)
    seen = []
    for _ in range(8):  # beyond the grace of 4 s
        seen.append(await client.read("chat"))
        await asyncio.sleep(1.0)
    assert all(isinstance(value, int) and value >= min(before, 4) for value in seen), seen
    assert (await status(daemon))["status"] == "floored"
    assert "SignalsLost" in events(cluster)
    assert '"blind"' in daemon.log.read_text(encoding="utf-8")

    await prometheus.start()

    async def sees():
        return (await status(daemon)).get("status") == "fresh"

    await until(sees, "recovery", 30.0)
    assert await daemon.metric("vllm_scaler_blind") == 0.0

    async def told():
        return "SignalsRecovered" in events(cluster)

    await until(told, "the event of the recovery", 10.0)


async def test_a_wrong_model_label_is_found_and_never_read_as_idle(stack):
    cluster, _, daemon, client = stack
    cluster.load("chat", requests_per_s=5.0, running=15.0)
    await cluster.deploy("other", replicas=2, metadata={"modelName": "llama-3.1-70b"})
    for name in [name for name in cluster.ports if name.startswith("other-")]:
        cluster.ports.pop(name)  # scraped neither: only the label of chat's pods is on the pages
    await daemon.start()
    await until(reader(client, lambda count: count > 0), "the right one answers", 20.0)
    metadata = {"modelName": "llama-3.1-70b", "target": "deployment/chat"}
    assert await client.read("wrong", metadata) == "UNAVAILABLE"

    async def found():
        _, text = await daemon.get("/api/targets")
        causes = [
            cause
            for item in json.loads(text)["targets"]
            if item["name"] == "wrong"
            for cause in item.get("blind", [])
        ]
        return causes if any("no_match" in cause for cause in causes) else None

    await until(found, "the mismatch is named", 15.0)
    assert await client.read("wrong", metadata) == "UNAVAILABLE"
    _, text = await daemon.get(f"/api/targets/{NAMESPACE}/wrong")
    assert "llama-3.1-8b" in text  # what is there instead
