"""The client: credentials, time limits, and what a wrong answer becomes."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
import trustme
import yaml
from aiohttp import web

from scaler.demo.kube_api import Fault, FaultKind
from scaler.demo.kube_objects import node
from scaler.errors import ConfigError
from scaler.signals.kube import client as client_module
from scaler.signals.kube.client import Access, Connection, KubeClient, KubeError, in_cluster
from tests.signals.kube_fixture import cluster


@asynccontextmanager
async def server(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """A server that answers everything by ``handler``."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    scheme = "https" if context else "http"
    try:
        yield f"{scheme}://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_token_file_is_read_for_every_request(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("first\n")
    async with cluster(token="first", token_file=str(token_file)) as world:
        assert b"35" in await world.client.get("/version")
        world.api._token = "second"
        with pytest.raises(KubeError) as caught:
            await world.client.get("/version")
        assert caught.value.status == HTTPStatus.UNAUTHORIZED
        token_file.write_text("second\n")
        assert b"35" in await world.client.get("/version")
        token_file.unlink()
        with pytest.raises(KubeError, match="token"):
            await world.client.get("/version")


async def test_the_certificate_is_checked_against_the_ca_file(tmp_path: Path) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="{}")

    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    other.cert_pem.write_to_path(str(tmp_path / "other.crt"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    async with server(answer, context) as url:
        for name, accepted in {"ca.crt": True, "other.crt": False}.items():
            ca_file = str(tmp_path / name)
            client = KubeClient(Connection(access=Access.EXPLICIT, url=url, ca_file=ca_file))
            if accepted:
                assert await client.get("/version") == b"{}"
            else:
                with pytest.raises(KubeError, match="certificate"):
                    await client.get("/version")
            await client.close()


async def test_a_ca_file_that_is_not_there_is_told_at_start(tmp_path: Path) -> None:
    ca_file = str(tmp_path / "missing.crt")
    client = KubeClient(Connection(access=Access.EXPLICIT, url="https://x", ca_file=ca_file))
    with pytest.raises(ConfigError, match=r"kubernetes\.ca_file = .*missing\.crt"):
        await client.open()
    with pytest.raises(KubeError, match=r"missing\.crt"):  # later it is a fault of the world
        await client.get("/version")


async def test_a_kubeconfig_is_followed_and_read_again_after_a_401(tmp_path: Path) -> None:
    path = tmp_path / "config"

    def write(url: str, token: str) -> None:
        entry = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(entry))

    async with cluster(token="new") as world:
        write(world.api.url, "old")
        client = KubeClient(Connection(access=Access.KUBECONFIG, kubeconfig=str(path)))
        with pytest.raises(KubeError) as caught:
            await client.get("/version")
        assert caught.value.status == HTTPStatus.UNAUTHORIZED
        write(world.api.url, "new")
        assert b"35" in await client.get("/version")
        await client.close()


async def test_a_kubeconfig_without_the_context_is_told_at_start(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("apiVersion: v1\nkind: Config\ncontexts: []\nclusters: []\nusers: []\n")
    connection = Connection(access=Access.KUBECONFIG, kubeconfig=str(path), context="nowhere")
    with pytest.raises(ConfigError, match=r"kubernetes\.kubeconfig = .*config"):
        await KubeClient(connection).open()


def test_a_pod_finds_its_cluster_in_the_environment() -> None:
    assert in_cluster({}) is None
    found = in_cluster({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"})
    assert found is not None
    assert found.url == "https://10.96.0.1:443"
    assert found.token_file == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    v6 = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"})
    assert v6 is not None
    assert v6.url == "https://[fd00::1]:443"


async def test_a_server_that_hangs_is_left_in_time() -> None:
    async with cluster(request_timeout_s=0.05) as world:
        world.api.faults.append(Fault(kind=FaultKind.HANG))
        with pytest.raises(KubeError, match="no answer in time") as caught:
            await world.client.get("/version")
        assert caught.value.status == 0
        with pytest.raises(KubeError, match="no answer in time"):
            async with world.client.watch("/version", (), silence_max_s=60.0, total_max_s=60.0):
                pass  # headers that never come


async def test_a_body_that_trickles_is_left_in_time() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.005)

    async with server(trickle) as url:
        limits = Connection(access=Access.EXPLICIT, url=url, request_timeout_s=0.05)
        client = KubeClient(limits)
        with pytest.raises(KubeError, match="no answer in time"):
            await client.get("/api")
        await client.close()


async def test_answers_without_end_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x" * 1000)
        return response

    monkeypatch.setattr(client_module, "BODY_MAX_BYTES", 50_000)
    monkeypatch.setattr(client_module, "LINE_MAX_BYTES", 50_000)
    async with server(flood) as url:
        client = KubeClient(Connection(access=Access.EXPLICIT, url=url))
        with pytest.raises(KubeError, match="longer than 50000 bytes"):
            await client.get("/api")
        async with client.watch("/api", (), silence_max_s=5.0, total_max_s=5.0) as lines:
            with pytest.raises(KubeError, match="line longer than 50000 bytes"):
                await anext(lines)
        await client.close()


async def test_a_refusal_carries_status_and_words() -> None:
    async with cluster() as world:
        with pytest.raises(KubeError, match='nodes "x" not found') as caught:
            await world.client.get("/api/v1/nodes/x")
        assert caught.value.status == HTTPStatus.NOT_FOUND
        await world.client.create("/api/v1/nodes", node("x"))
        with pytest.raises(KubeError) as twice:
            await world.client.create("/api/v1/nodes", node("x"))
        assert twice.value.status == HTTPStatus.CONFLICT


async def test_a_closed_client_opens_again() -> None:
    async with cluster() as world:
        await world.client.get("/version")
        await world.client.close()
        assert b"35" in await world.client.get("/version")


async def test_an_unfinished_line_is_no_event() -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"a": 1}\n\n{"b"')
        await response.write(b': 2}\n{"c": ')
        return response

    async with server(half) as url:
        client = KubeClient(Connection(access=Access.EXPLICIT, url=url))
        async with client.watch("/api", (), silence_max_s=5.0, total_max_s=5.0) as lines:
            assert [line async for line in lines] == [b'{"a": 1}', b'{"b": 2}']
        await client.close()
