"""Two daemons: one decides, the other serves; a killed leader never lowers a count."""

import asyncio
import signal

import pytest

from tests.e2e.harness import Cluster, Engine, Keda, Process, free_port, until

# Ticks of a second and a lease of three keep the test short; the ratios are the shipped ones.
QUICK = {"policy": {"tick_s": 1.0, "hold_down": {"window_s": 5.0}, "start_up": {"prior_s": 2.0}}}
LEASE = {"lease_name": "vllm-scaler", "lease_namespace": "vllm-scaler", "lease_duration_s": 3.0}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
async def cluster():
    made = Cluster()
    await made.start()
    yield made
    await made.stop()


def daemon(cluster, folder, name, policy=QUICK, **state):
    settings = {
        **policy,
        "kubernetes": {"use": "always", "server": cluster.api.url},
        "state": {**LEASE, **state},
    }
    return Process(folder, name, settings)


async def leader_of(processes):
    leading = [process for process in processes if await process.metric("vllm_scaler_leader") == 1]
    return leading[0] if len(leading) == 1 else None


async def test_failover_continues_from_the_last_state_and_never_lowers_a_count(cluster, tmp_path):
    # The queue asks for more than the 8 that run, until the capacity is learned; the hold-down
    # keeps that for longer than the failover takes.  Whoever has not the state answers fewer.
    await cluster.deploy("chat", replicas=8)
    cluster.load("chat", requests_per_s=10.0, running=30.0, waiting=20.0)
    holding = {"policy": {**QUICK["policy"], "hold_down": {"window_s": 120.0}}}
    daemons = [daemon(cluster, tmp_path, name, policy=holding) for name in ("first", "second")]
    clients = []
    try:
        for one in daemons:
            await one.start()
            clients.append(Keda(one.grpc_port))

        async def both_agree():
            values = [await client.read("chat") for client in clients]
            return values[0] if values[0] == values[1] and isinstance(values[0], int) else None

        await until(both_agree, "both daemons answer the same count", 30.0)
        leader = await until(lambda: leader_of(daemons), "exactly one leader", 10.0)
        other = daemons[1 - daemons.index(leader)]
        before = await until(both_agree, "agreement before the fault", 10.0)

        await leader.end(signal.SIGKILL)
        survivor = clients[daemons.index(other)]
        seen = []

        async def took_over():
            seen.append(await survivor.read("chat"))
            return await other.metric("vllm_scaler_leader") == 1 and isinstance(seen[-1], int)

        await until(took_over, "the other daemon decides", 20.0)
        for _ in range(20):
            seen.append(await survivor.read("chat"))
            await asyncio.sleep(0.1)
        counts = [value for value in seen if isinstance(value, int)]
        assert set(seen) - set(counts) <= {"UNAVAILABLE"}
        assert counts
        assert min(counts) >= before

        await leader.start()
        await until(both_agree, "the restarted daemon follows", 20.0)
        assert await leader.metric("vllm_scaler_leader") in (0.0, None)
        status, text = await leader.get("/api/targets")
        assert status == 200, text  # a follower passes on the leader's
        assert '"chat"' in text
    finally:
        for client in clients:
            await client.close()
        for one in daemons:
            await one.end()


async def test_a_graceful_end_hands_over_within_a_few_ticks(cluster, tmp_path):
    await cluster.deploy("chat", replicas=3)
    cluster.load("chat", requests_per_s=2.0, running=10.0)
    daemons = [daemon(cluster, tmp_path, name) for name in ("first", "second")]
    clients = [Keda(one.grpc_port) for one in daemons]
    try:
        await daemons[0].start()
        await until(daemons[0].ready, "the first is ready", 20.0)
        await daemons[1].start()
        await until(daemons[1].ready, "the second serves the snapshot", 20.0)
        assert await daemons[0].end() == 0  # SIGTERM: the Lease is released

        async def leads():
            return await daemons[1].metric("vllm_scaler_leader") == 1

        await until(leads, "the second takes the released Lease", 5.0)
        assert isinstance(await clients[1].read("chat"), int)
    finally:
        for client in clients:
            await client.close()
        for one in daemons:
            await one.end()


async def test_without_kubernetes_a_checkpoint_survives_a_crash(tmp_path):
    cluster = Cluster()
    await cluster.add_pod("chat", 0)
    await cluster.add_pod("chat", 1)
    target = {
        "namespace": "llm",
        "target": "deployment/chat",
        "mode": "active",
        "pods": [
            {"name": name, "host": "127.0.0.1", "port": port}
            for name, port in cluster.ports.items()
        ],
    }
    settings = {
        **QUICK,
        "kubernetes": {"use": "never"},
        "targets": [target],
        "state": {"checkpoint_file": str(tmp_path / "state.json"), "checkpoint_every_s": 1.0},
    }
    settings["policy"] = {**QUICK["policy"], "hold_down": {"window_s": 600.0}}
    process = Process(tmp_path, "alone", settings)
    client = Keda(process.grpc_port)
    metadata = {"target": "deployment/chat"}
    try:
        cluster.load("chat", requests_per_s=4.0, running=50.0, waiting=200.0)
        await process.start()
        assert await client.read("deployment.chat", metadata) in ("UNAVAILABLE", 2)

        async def high():
            value = await client.read("deployment.chat", metadata)
            return value if isinstance(value, int) and value > 2 else None

        peak = await until(high, "a backlog raises the count", 20.0)
        cluster.load("chat", requests_per_s=4.0, running=10.0, waiting=0.0)

        async def saved():
            return (tmp_path / "state.json").exists()

        await until(saved, "a checkpoint", 10.0)
        peak = max(peak, await until(high, "held", 5.0))
        await process.end(signal.SIGKILL)
        await process.start()
        answers = []

        async def answered():
            answers.append(await client.read("deployment.chat", metadata))
            return isinstance(answers[-1], int)

        await until(answered, "answers again", 20.0)
        assert set(answers[:-1]) <= {"UNAVAILABLE"}  # errors, never zeros, until it has seen
        assert answers[-1] >= 2
        held = await until(high, "the peak before the crash is still held", 10.0)
        assert held == peak
        assert "continues from checkpoint" in process.log.read_text(encoding="utf-8")
    finally:
        await client.close()
        await process.end()
        await cluster.stop()


async def test_a_taken_port_is_said_in_one_line(tmp_path):
    process = Process(tmp_path, "taken", {**QUICK, "kubernetes": {"use": "never"}})
    other = Process(tmp_path, "other", {**QUICK, "kubernetes": {"use": "never"}})
    other.grpc_port = process.grpc_port
    other.settings["grpc"] = {"address": f"127.0.0.1:{process.grpc_port}"}
    other.write()
    await process.start()
    await until(process.ready, "the first listens", 20.0)
    await other.start()
    assert await other.end(0) == 2
    assert "error: grpc.address" in other.log.read_text(encoding="utf-8")
    assert "Traceback" not in other.log.read_text(encoding="utf-8")
    await process.end()


def test_harness_engine_counts_what_it_says():
    engine = Engine()
    engine.load(requests_per_s=0.0, running=3.0)
    assert 'vllm:num_requests_running{engine="0",model_name="llama-3.1-8b"} 3.0' in engine.page()
    assert free_port() > 0
