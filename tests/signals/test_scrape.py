"""Direct scraping against real servers on loopback, and the ways in which pods fail."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from scaler.core.model import Cause, NoData, Signal
from scaler.signals.samples import GpuSample, PodRef, PodSample, TargetRef, TargetSamples
from scaler.signals.scrape import ScrapeSource
from scaler.signals.settings import ScrapeSettings
from tests.signals.plain_readers import SM_ACTIVE, plain

NOW_S = 1000.0
OVER = web.AppKey("over", asyncio.Event)  # the test is over: hung handlers may go
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def page(running: int = 3, waiting: int = 4, model: str = "m") -> str:
    return (
        "# TYPE vllm:num_requests_running gauge\n"
        f'vllm:num_requests_running{{engine="0",model_name="{model}"}} {running}\n'
        "# TYPE vllm:num_requests_waiting gauge\n"
        f'vllm:num_requests_waiting{{engine="0",model_name="{model}"}} {waiting}\n'
    )


DCGM = f"""# TYPE {SM_ACTIVE} gauge
{SM_ACTIVE}{{gpu="0",namespace="llm",pod="a-0"}} 0.25
{SM_ACTIVE}{{gpu="1",namespace="llm",pod="a-0"}} 0.75
{SM_ACTIVE}{{gpu="2",namespace="else",pod="a-1"}} 1.0
{SM_ACTIVE}{{gpu="3",namespace="llm",pod="a-0-1"}} 0.5
{SM_ACTIVE}{{gpu="4"}} 0.1
"""


def says(text: str, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status)

    return handler


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    app = web.Application()
    app[OVER] = asyncio.Event()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port: int = runner.addresses[0][1]
    try:
        yield port
    finally:
        app[OVER].set()
        await runner.cleanup()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def pod(port: int, name: str = "a-0", **more: Any) -> PodRef:
    return PodRef(name=name, address="127.0.0.1", port=port, **more)


def target(*pods: PodRef, model: str = "") -> TargetRef:
    return TargetRef(
        namespace="llm", kind="statefulset", name="a", pods=pods or None, model_name=model
    )


async def collect(*targets: TargetRef, **changes: Any) -> dict[str, TargetSamples]:
    source = ScrapeSource(ScrapeSettings(**changes), plain())
    try:
        return dict(await source.collect(targets, NOW_S))
    finally:
        await source.close()


async def scraped(handler: Handler, *, ready: bool = True, **changes: Any) -> PodSample | NoData:
    async with serving(handler) as port:
        one = target(pod(port, ready=ready))
        return (await collect(one, **changes))[one.key].pods["a-0"]


async def fault(handler: Handler, **changes: Any) -> NoData:
    found = await scraped(handler, **changes)
    assert isinstance(found, NoData)
    return found


async def test_a_page_becomes_a_sample_of_its_moment() -> None:
    found = await scraped(says(page()))
    assert isinstance(found, PodSample)
    assert (found.pod, found.running, found.waiting, found.model_names) == ("a-0", 3.0, 4.0, ("m",))
    assert NOW_S <= found.at_s < NOW_S + 8.0


async def test_only_leaders_are_asked_and_shared_pods_once() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(text=page())

    async with serving(handler) as port:
        pods = (pod(port), pod(closed_port(), "a-0-1", leader=False))
        first, second = target(*pods, model="m"), target(*pods)
        found = await collect(first, second, path="/custom")
    assert asked == ["/custom"]
    assert list(found[first.key].pods) == list(found[second.key].pods) == ["a-0"]


async def test_a_closed_port_is_a_start_while_the_pod_is_not_ready_and_an_outage_after() -> None:
    starting, down = (target(pod(closed_port(), ready=ready)) for ready in (False, True))
    found = (await collect(starting))[starting.key].pods["a-0"]
    assert isinstance(found, NoData)
    assert found.cause is Cause.REFUSED
    found = (await collect(down))[down.key].pods["a-0"]
    assert isinstance(found, NoData)
    assert found.cause is Cause.UNREACHABLE
    assert "refuses connections" in found.detail


async def test_a_pod_without_an_address() -> None:
    for ready, cause in ((False, Cause.REFUSED), (True, Cause.UNREACHABLE)):
        one = target(PodRef(name="a-0", ready=ready))
        found = (await collect(one))[one.key].pods["a-0"]
        assert isinstance(found, NoData)
        assert found.cause is cause
        assert "no address" in found.detail


@pytest.mark.parametrize("address", ["bad host", "a/b", "x@y", "[::1", ""])
async def test_an_address_that_is_none_is_a_fault_of_its_pod(address: str) -> None:
    one = target(PodRef(name="a-0", address=address, port=closed_port()))
    found = (await collect(one, pod_timeout_s=2.0))[one.key].pods["a-0"]
    assert isinstance(found, NoData)
    assert found.cause is Cause.UNREACHABLE


@pytest.mark.parametrize("status", [302, 404, 500, 503])
async def test_another_status(status: int) -> None:
    found = await fault(says("x", status))
    assert found.cause is Cause.UNREACHABLE
    assert f"answered {status}; is it the metrics port" in found.detail


async def test_a_page_without_end_is_given_up() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"# padding\n" * 1000)

    found = await fault(endless, max_page_bytes=100_000)
    assert found.cause is Cause.MALFORMED
    assert "longer than 100000 bytes; raise max_page_bytes" in found.detail


async def test_a_binary_page() -> None:
    async def binary(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"\x89PNG\xff\xfe")

    assert (await fault(binary)).cause is Cause.MALFORMED


async def test_a_page_the_reader_cannot_read() -> None:
    assert (await fault(says("vllm:num_requests_running{engine= 3"))).cause is Cause.MALFORMED


async def hang(request: web.Request) -> web.StreamResponse:
    await request.app[OVER].wait()
    return web.Response()


@pytest.mark.parametrize(
    "limits", [{"pod_timeout_s": 0.05}, {"pod_timeout_s": 60.0, "timeout_s": 0.05}]
)
async def test_a_hung_pod_costs_its_limit_or_that_of_the_collection(
    limits: dict[str, float],
) -> None:
    async with asyncio.timeout(5.0):
        found = await fault(hang, **limits)
    assert found.cause is Cause.UNREACHABLE
    assert "no whole page within" in found.detail


async def test_a_hung_pod_does_not_lose_the_others() -> None:
    async with serving(hang) as hung, serving(says(page())) as good:
        one = target(pod(hung, "a-0"), pod(good, "a-1"))
        found = (await collect(one, pod_timeout_s=0.2, pages_in_flight=2))[one.key].pods
    assert isinstance(found["a-0"], NoData)
    assert isinstance(found["a-1"], PodSample)


async def test_a_connection_that_breaks_is_tried_once_more() -> None:
    asked = 0

    async def first_breaks(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text=page())

    assert isinstance(await scraped(first_breaks), PodSample)
    assert asked == 2


async def test_a_connection_that_always_breaks_is_not_tried_a_third_time() -> None:
    asked = 0

    async def breaks(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    assert (await fault(breaks)).cause is Cause.UNREACHABLE
    assert asked == 2


async def test_no_more_pages_are_in_flight_than_allowed() -> None:
    running = most = 0
    full = asyncio.Event()

    async def handler(_: web.Request) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await full.wait()
        running -= 1
        return web.Response(text=page())

    async with serving(handler) as port:
        one = target(*(pod(port, f"a-{index}") for index in range(9)))
        await collect(one, pages_in_flight=3)
    assert most == 3


async def test_another_model_is_no_match() -> None:
    async with serving(says(page(model="other"))) as port:
        one = target(pod(port), model="m")
        found = (await collect(one))[one.key].pods["a-0"]
    assert isinstance(found, NoData)
    assert found.cause is Cause.NO_MATCH


async def test_gpus_of_a_targets_pods_workers_included() -> None:
    asked = 0

    async def exporter(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(text=DCGM)

    async with serving(says(page())) as port, serving(exporter) as dcgm:
        one = target(pod(port), pod(port, "a-0-1", leader=False))
        other = TargetRef(namespace="x", kind="statefulset", name="a", pods=one.pods)
        url = f"http://127.0.0.1:{dcgm}/metrics"
        found = await collect(one, other, dcgm_urls=(url,))
    gpus = found[one.key].gpus
    assert asked == 1
    good = {name: gpu for name, gpu in gpus.items() if isinstance(gpu, GpuSample)}
    assert len(good) == len(gpus)
    ratios = {name: gpu.utilisation_ratio for name, gpu in good.items()}
    assert ratios == {"a-0": 0.75, "a-0-1": 0.5}
    assert found[other.key].gpus == {}


async def test_a_dead_exporter_is_a_fault_of_the_gpu_signal_alone() -> None:
    async with serving(says(page())) as port:
        one = target(pod(port))
        url = f"http://127.0.0.1:{closed_port()}/metrics"
        found = (await collect(one, dcgm_urls=(url,)))[one.key]
    assert found.faults.keys() == {Signal.GPU}
    assert found.faults[Signal.GPU].cause is Cause.UNREACHABLE
    assert isinstance(found.pods["a-0"], PodSample)


async def test_without_addresses_and_endpoints_it_says_what_is_missing() -> None:
    one = target()
    failure = (await collect(one))[one.key].failure
    assert failure is not None
    assert failure.cause is Cause.UNSUPPORTED
    assert "Kubernetes API or static endpoints" in failure.detail


async def test_static_endpoints_of_two_models_are_told_apart() -> None:
    async with serving(says(page(model="m"))) as first, serving(says(page(model="n"))) as second:
        endpoints = (pod(first, "x"), pod(second, "y"))
        wanted, unknown = target(model="n"), target(model="z")
        found = await collect(wanted, unknown, pods=endpoints)
    assert list(found[wanted.key].pods) == ["y"]
    assert {p.cause for p in found[unknown.key].pods.values() if isinstance(p, NoData)} == {
        Cause.NO_MATCH
    }


async def test_an_unserved_namespace_is_not_scraped() -> None:
    async with serving(says(page())) as port:
        one = target(pod(port))
        source = ScrapeSource(ScrapeSettings(namespaces=("other",)), plain())
        assert not source.serves(one)
        await source.close()


async def test_every_page_has_a_connection_of_its_own() -> None:
    peers: set[object] = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(text=page())

    async with serving(handler) as port:
        source = ScrapeSource(ScrapeSettings(), plain())
        for _ in range(3):
            await source.collect([target(pod(port))], NOW_S)
        await source.close()
    assert len(peers) == 3
