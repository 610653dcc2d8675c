"""The daemon beside a real vLLM: loading, idle, light, queueing, a full KV cache, drain, gone.

The daemon scrapes the server every second.  The server has 15 usable blocks of 128 tokens and 8
sequences at most, so that the numbers of requests and tokens below decide what waits and why.
Prompts are random and outputs have a fixed length: counts are exact, durations are not looked at.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import NAMESPACE, Keda, Process, until
from tests.vllm.server import BLOCK_TOKENS, BLOCKS, SEQUENCES_MAX, Answer, Server

HOLD_S, GRACE_S, STALE_S = 8.0, 4.0, 6.0
USABLE_BLOCKS = BLOCKS - 1
NAME, METADATA = "deployment.chat", {"target": "deployment/chat"}

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]  # the installation may be in it


def settings(port: int, records: Path) -> dict[str, Any]:
    """One replica at a fixed address, no Kubernetes API."""
    pods = [{"name": "chat-0", "host": "127.0.0.1", "port": port}]
    return {
        "policy": {
            "tick_s": 1.0,
            "demand": {"rate_time_constant_s": 5.0},
            "hold_down": {"window_s": HOLD_S},
            "start_up": {"prior_s": 2.0},
            "freshness": {"grace_s": GRACE_S, "stale_after_s": STALE_S},
        },
        "kubernetes": {"use": "never"},
        "records": {"directory": str(records)},
        "targets": [
            {
                "namespace": NAMESPACE,
                "target": METADATA["target"],
                "mode": "active",
                "pods": pods,
            }
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The server, the daemon, a client that calls as KEDA does, and the daemon's decision log."""

    server: Server
    daemon: Process
    keda: Keda
    log: Path

    async def count(self) -> int | str:
        """The published count, or the name of the status code."""
        return await self.keda.read(NAME, METADATA)

    async def status(self) -> dict[str, Any]:
        """What the daemon says of the target."""
        _, text = await self.daemon.get(f"/api/targets/{NAMESPACE}/{NAME}")
        found: dict[str, Any] = json.loads(text)
        return found

    def decisions(self, since_s: float = 0.0) -> list[dict[str, Any]]:
        """The decisions logged from ``since_s`` (Unix time) on; there is one trigger."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        records = [record for record in map(json.loads, lines) if record["kind"] == "decision"]
        assert len({record["id"] for record in records}) <= 1
        decisions = [record["decision"] for record in records]
        return [decision for decision in decisions if decision["at_s"] >= since_s]

    async def logged(
        self, wanted: Callable[[dict[str, Any]], bool], what: str, *, since_s: float, limit_s: float
    ) -> dict[str, Any]:
        """The first decision from ``since_s`` on that is as wanted."""

        async def found() -> dict[str, Any] | None:
            return next(filter(wanted, self.decisions(since_s)), None)

        return await until(found, what, limit_s)


@pytest.fixture
async def stack(vllm_programs, tiny_model, tmp_path):
    server = Server(vllm_programs, tiny_model, tmp_path)
    daemon = Process(tmp_path, "daemon", settings(server.port, tmp_path / "records"))
    keda = Keda(daemon.grpc_port)
    made = Stack(
        server=server, daemon=daemon, keda=keda, log=tmp_path / "records" / "decisions.jsonl"
    )
    yield made
    await keda.close()
    await daemon.end()
    await server.kill()


async def test_loading_idle_light_queue_full_cache_drain_gone(stack):
    await loading(stack)
    await idle(stack)
    await light(stack)
    await queueing(stack)
    await full_cache(stack)
    await load_gone(stack)
    await everything_counted(stack)
    await drained(stack)


async def loading(stack: Stack) -> None:
    """The port is closed: never a number, and the cause says so."""
    await stack.daemon.start()
    await until(stack.daemon.ready, "the daemon listens", 20.0)
    await stack.server.start()
    answers = []

    async def served() -> bool:
        answers.append(await stack.count())
        return await stack.server.ready()

    await until(served, "vLLM serves", 400.0)
    assert "UNAVAILABLE" in answers[:-1]
    assert set(answers[:-1]) == {"UNAVAILABLE"}  # the last may be the first of a ready server
    blind = [decision for decision in stack.decisions() if decision["verdict"] == "unknown"]
    causes = {str(decision["observation"]["queue"]["cause"]) for decision in blind}
    said("loading", polls=len(answers), causes=causes)
    assert causes <= {"refused", "unreachable"}
    assert "refuses connections" in blind[-1]["observation"]["queue"]["detail"]


async def idle(stack: Stack) -> None:
    """One replica, and zero is a number that was read."""

    async def one() -> bool:
        return await stack.count() == 1

    await until(one, "an idle target has one replica", 10.0)
    decision = await stack.logged(
        lambda decision: "requests_arrived" in decision["observation"]["work"],
        "a rate, from two pages", since_s=0.0, limit_s=10.0,
    )  # fmt: skip
    seen = decision["observation"]
    assert decision["verdict"] == "fresh"
    assert (await stack.status())["status"] == "fresh"
    assert seen["queue"]["requests_running"] == seen["queue"]["requests_waiting"] == 0.0
    assert seen["kv_cache"]["usage_mean_ratio"] == 0.0
    assert seen["work"]["requests_arrived"] == 0.0
    # 16 blocks * 128 tokens, as the page says; the null block is among them.
    assert seen["kv_cache"]["capacity_tokens"] in (
        BLOCKS * BLOCK_TOKENS, USABLE_BLOCKS * BLOCK_TOKENS,
    )  # fmt: skip
    said("idle", capacity_tokens=seen["kv_cache"]["capacity_tokens"])


async def light(stack: Stack) -> None:
    """Two requests of 664 tokens: 1 block each in the beginning, 6 in the end; none waits."""
    seen = await observed(stack, requests=2, prompt_tokens=64, output_tokens=600)
    assert max(running(seen)) == 2.0
    assert max(waiting(seen)) == 0.0
    busy = [used for used in blocks(seen) if used > 0]
    assert busy == sorted(busy), busy  # the requests only grow
    assert 2 <= min(busy) <= max(busy) <= 12


async def queueing(stack: Stack) -> None:
    """40 requests of 250 tokens at once, 2 blocks each: 7 run in 15 blocks, not 8, and 33 wait."""
    before = stack.decisions()[-1]["replicas_desired"]
    since_s = time.time()
    seen = await observed(stack, requests=40, prompt_tokens=130, output_tokens=120)
    assert max(running(seen)) == USABLE_BLOCKS // 2 < SEQUENCES_MAX
    assert max(blocks(seen)) == 14
    # Two batches of 7 may be done before the queue is first looked at.
    assert 33 - 14 <= max(waiting(seen)) <= 33
    assert sum(item["work"]["preemptions"] for item in seen) == 0.0

    decisions = stack.decisions(since_s)
    peak = max(decisions, key=lambda decision: decision["replicas_desired"])
    queues = [proposal(decision, "queue") for decision in decisions]
    longest = max(queues, key=lambda item: item["terms"]["requests_waiting"])
    said("queueing", before=before, peak=peak["replicas_desired"], by=peak["decided_by"],
         queue_alone=longest)  # fmt: skip
    assert longest["terms"]["requests_waiting"] == max(waiting(seen))
    assert longest["replicas"] > 1
    assert peak["replicas_desired"] > before
    assert peak["replicas_desired"] >= longest["replicas"]
    assert peak["decided_by"] in ("work", "forecast", "queue", "ttft")
    assert await stack.count() == peak["replicas_desired"]  # what KEDA gets, held


async def full_cache(stack: Stack) -> None:
    """8 requests of 600 tokens, 5 blocks each: 40 do not fit in 15, so some are preempted."""
    since_s = time.time()
    seen = await observed(stack, requests=8, prompt_tokens=100, output_tokens=500)
    assert max(blocks(seen)) >= 14
    page = await stack.server.samples("vllm:num_preemptions_total")
    preempted = sum(item["work"]["preemptions"] for item in seen)
    assert preempted == sum(page.values()) > 0.0

    proposals = [proposal(decision, "kv_cache") for decision in stack.decisions(since_s)]
    full = [item for item in proposals if item["terms"]["usage_mean_ratio"] > 0.9]
    said("full cache", preempted=preempted, kv_alone=full[0])
    # ceil(0.93 / 0.9) = ceil(1.0 / 0.9) = 2, and requests feel it.
    assert {(item["replicas"], item["terms"]["felt"]) for item in full} == {(2, 1.0)}


async def load_gone(stack: Stack) -> None:
    """The count is held for the window after the last decision that asked for it, then falls."""
    peak = stack.decisions()[-1]["replicas_desired"]

    async def lower() -> bool:
        value = await stack.count()
        return isinstance(value, int) and value < peak

    await until(lower, "fewer when the load is gone", 60.0)
    decisions = stack.decisions()
    asked_at_s = max(
        decision["at_s"]
        for decision in decisions
        if decision["replicas_desired"] == peak and decision["decided_by"] != "hold_down"
    )
    fell = next(
        decision
        for decision in decisions
        if decision["at_s"] > asked_at_s and decision["replicas_desired"] < peak
    )
    held_s = fell["at_s"] - asked_at_s
    said("load gone", peak=peak, held_s=held_s, then=fell["replicas_desired"])
    assert held_s >= HOLD_S - 0.5  # ticks are up to half a second late
    assert fell["replicas_desired"] >= 1


async def everything_counted(stack: Stack) -> None:
    """Arrivals by the balance, and tokens, are those of the 50 requests that were sent."""
    work = [
        item["observation"]["work"]
        for item in stack.decisions()
        if "requests_arrived" in item["observation"]["work"]
    ]
    names = ("requests_arrived", "requests_finished", "output_tokens", "finished_prompt_tokens",
             "finished_output_tokens")  # fmt: skip
    counted = {name: sum(item[name] for item in work) for name in names}
    said("counted", sent=stack.server.sent, **counted)
    assert stack.server.sent == 2 + 40 + 8
    assert counted == {
        "requests_arrived": 50.0,
        "requests_finished": 50.0,
        "output_tokens": 2 * 600.0 + 40 * 120.0 + 8 * 500.0,
        "finished_prompt_tokens": 2 * 64.0 + 40 * 130.0 + 8 * 100.0,
        "finished_output_tokens": 2 * 600.0 + 40 * 120.0 + 8 * 500.0,
    }


async def drained(stack: Stack) -> None:
    """SIGTERM with requests in flight: still read while it drains; gone, the count is held."""
    since_s = time.time()
    asking = asyncio.create_task(
        stack.server.ask(requests=40, prompt_tokens=130, output_tokens=120)
    )
    await stack.logged(at_work, "requests in flight are seen", since_s=since_s, limit_s=10.0)
    stack.server.terminate()
    ended_s = time.time()
    await stack.logged(at_work, "read while draining", since_s=ended_s + 1.0, limit_s=10.0)
    (late,) = await stack.server.ask(requests=1, prompt_tokens=10, output_tokens=10)
    assert (late.status, late.finish_reason) != (200, "length")  # it takes no more
    assert set(await asking) == {Answer(status=200, finish_reason="length", output_tokens=120)}
    assert await stack.server.ended() == 0

    fresh = [item for item in stack.decisions(ended_s) if item["verdict"] == "fresh"]
    await stack.logged(
        lambda decision: decision["verdict"] == "floored", "blind beyond the grace",
        since_s=ended_s, limit_s=30.0,
    )  # fmt: skip
    answer = await stack.count()
    verdicts = [item["verdict"] for item in stack.decisions(ended_s)]
    arrived = sum(
        item["observation"]["work"].get("requests_arrived", 0.0)
        for item in stack.decisions(since_s)
    )
    said("drained", late=late, read_while_draining=len(fresh), arrived=arrived, answer=answer)
    assert sorted(set(verdicts), key=verdicts.index) == ["fresh", "held", "floored"]
    assert isinstance(answer, int)
    assert answer >= fresh[-1]["replicas_desired"] >= 1  # missing data never scales down
    assert 40.0 <= arrived <= 41.0  # the late one may be counted, as aborted


async def observed(
    stack: Stack, *, requests: int, prompt_tokens: int, output_tokens: int
) -> list[dict[str, Any]]:
    """Send requests at once; what the daemon observed until all were done and it knew.

    All answers are whole, all decisions fresh, and just these requests were counted.
    """
    since_s = time.time()
    answers = await stack.server.ask(
        requests=requests, prompt_tokens=prompt_tokens, output_tokens=output_tokens
    )
    whole = Answer(status=200, finish_reason="length", output_tokens=output_tokens)
    assert answers == [whole] * requests
    await stack.logged(
        lambda decision: not at_work(decision), "the end of the work is seen",
        since_s=time.time(), limit_s=10.0,
    )  # fmt: skip
    decisions = stack.decisions(since_s)
    seen = [decision["observation"] for decision in decisions]
    desired = [(item["replicas_desired"], item["decided_by"]) for item in decisions]
    said("observed", running=running(seen), waiting=waiting(seen), blocks=blocks(seen))
    said("decided", desired=desired)
    assert {decision["verdict"] for decision in decisions} == {"fresh"}
    assert sum(item["work"]["requests_arrived"] for item in seen) == requests
    return seen


def running(seen: list[dict[str, Any]]) -> list[float]:
    return [item["queue"]["requests_running"] for item in seen]


def waiting(seen: list[dict[str, Any]]) -> list[float]:
    return [item["queue"]["requests_waiting"] for item in seen]


def blocks(seen: list[dict[str, Any]]) -> list[int]:
    """KV blocks in use; vLLM's ratio is over the usable ones."""
    used = [item["kv_cache"]["usage_mean_ratio"] * USABLE_BLOCKS for item in seen]
    assert used == pytest.approx([round(item) for item in used]), "not of 15 blocks"
    return [round(item) for item in used]


def at_work(decision: dict[str, Any]) -> bool:
    """Whether the decision saw requests in the engine."""
    queue = decision["observation"]["queue"]
    return bool(queue.get("requests_running", 0.0) + queue.get("requests_waiting", 0.0))


def proposal(decision: dict[str, Any], signal: str) -> dict[str, Any]:
    """What one signal alone asked for, its terms by name."""
    (found,) = [item for item in decision["proposals"] if item["signal"] == signal]
    return {"replicas": found["replicas"], "terms": dict(found["terms"])}


def said(phase: str, **numbers: object) -> None:
    """What was seen, for whoever reads the run."""
    text = ", ".join(f"{name}={value}" for name, value in numbers.items())
    print(f"\n{phase}: {text}")  # noqa: T201 - `make test-vllm` shows what was measured
