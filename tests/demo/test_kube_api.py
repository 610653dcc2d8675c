"""The small API server, driven by the typed API of the real ``kubernetes`` package."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest
from kubernetes.aio import client as kube
from kubernetes.aio import watch

from scaler.demo.kube_api import Fault, FaultKind, KubeApi
from scaler.demo.kube_objects import PodState, PodTimes, deployment, node, pod
from scaler.demo.kube_store import (
    HISTORY_MAX,
    RESOURCE_TYPES,
    Store,
    StoreError,
    select_fields,
    select_labels,
)

NOW_S = 1_800_000_000.0
POD = RESOURCE_TYPES[0]


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Store, KubeApi, Any]]:
    store = Store(lambda: NOW_S)
    api = KubeApi(store, bookmark_s=0.01)
    await api.start()
    connection = kube.ApiClient(kube.Configuration(host=api.url))
    try:
        yield store, api, connection
    finally:
        await connection.close()
        await api.stop()


def put_pods(store: Store, count: int) -> None:
    for number in range(count):
        app = "llama" if number % 2 == 0 else "qwen"
        times = PodTimes(created_at_s=NOW_S)
        store.apply(pod("ml", f"pod-{number}", app=app, times=times))


async def test_typed_lists_with_selectors_and_pages() -> None:
    async with serving() as (store, _, connection):
        put_pods(store, 5)
        core = kube.CoreV1Api(connection)
        everything = await core.list_pod_for_all_namespaces()
        assert [one.metadata.name for one in everything.items] == [f"pod-{n}" for n in range(5)]
        assert everything.items[0].status.conditions[0].type == "PodScheduled"
        some = await core.list_namespaced_pod("ml", label_selector="app=qwen")
        assert [one.metadata.name for one in some.items] == ["pod-1", "pod-3"]
        assert not (await core.list_namespaced_pod("other")).items
        page = await core.list_namespaced_pod("ml", limit=2)
        names = [one.metadata.name for one in page.items]
        while page.metadata._continue:
            page = await core.list_namespaced_pod("ml", limit=2, _continue=page.metadata._continue)
            names += [one.metadata.name for one in page.items]
        assert names == [f"pod-{n}" for n in range(5)]


async def test_a_typed_watch_sees_objects_come_change_and_go() -> None:
    async with serving() as (store, _, connection):
        put_pods(store, 1)
        core = kube.CoreV1Api(connection)
        seen: list[tuple[str, str]] = []
        listed = await core.list_namespaced_pod("ml")

        async def follow() -> None:
            async with watch.Watch() as stream:
                arguments = {"resource_version": listed.metadata.resource_version}
                async for event in stream.stream(
                    core.list_namespaced_pod, "ml", label_selector="app=llama", **arguments
                ):
                    seen.append((event["type"], event["object"].metadata.name))
                    if event["type"] == "DELETED" and event["object"].metadata.name == "pod-0":
                        return

        task = asyncio.create_task(follow())
        put_pods(store, 3)  # pod-0 is written again, pod-1 is not selected
        moved = pod("ml", "pod-2", app="qwen", times=PodTimes(created_at_s=NOW_S))
        store.apply(moved)  # leaves the selection
        store.delete(POD, "ml", "pod-0")
        async with asyncio.timeout(10.0):
            await task
        assert seen == [
            ("MODIFIED", "pod-0"),
            ("ADDED", "pod-2"),
            ("DELETED", "pod-2"),
            ("DELETED", "pod-0"),
        ]


async def test_a_watch_from_before_the_history_is_gone() -> None:
    async with serving() as (store, _, connection):
        put_pods(store, 2)
        store.compact()
        core = kube.CoreV1Api(connection)
        async with watch.Watch() as stream:
            events = stream.stream(core.list_pod_for_all_namespaces, resource_version="1")
            with pytest.raises(kube.ApiException) as caught:
                await anext(aiter(events))
        assert caught.value.status == HTTPStatus.GONE


async def test_the_history_is_bounded_and_has_no_holes() -> None:
    store = Store(lambda: NOW_S)
    for number in range(HISTORY_MAX + 10):
        store.apply(node("gpu-1", gpus=number))
    with pytest.raises(StoreError, match="too old resource version: 9 "):
        store.changes_after(9, "nodes")
    assert len(list(store.changes_after(10, "nodes"))) == HISTORY_MAX
    assert len(list(store.changes_after(store.version - 3, "nodes"))) == 3
    assert not list(store.changes_after(store.version, "nodes"))


async def test_scale_is_read_and_written() -> None:
    async with serving() as (store, _, connection):
        store.apply(deployment("ml", "llama", replicas=2))
        apps = kube.AppsV1Api(connection)
        scale = await apps.read_namespaced_deployment_scale("llama", "ml")
        assert (scale.spec.replicas, scale.status.replicas) == (2, 2)
        assert scale.status.selector == "app=llama"
        scale.spec.replicas = 5
        await apps.replace_namespaced_deployment_scale("llama", "ml", scale)
        found = await apps.read_namespaced_deployment("llama", "ml")
        assert (found.spec.replicas, found.status.replicas) == (5, 2)
        assert found.metadata.generation == 2
        await apps.patch_namespaced_deployment_scale("llama", "ml", {"spec": {"replicas": 3}})
        assert (await apps.read_namespaced_deployment("llama", "ml")).spec.replicas == 3


async def test_writing_status_alone_keeps_the_generation() -> None:
    store = Store(lambda: NOW_S)
    store.apply(deployment("ml", "llama", replicas=2, current=1))
    again = store.apply(deployment("ml", "llama", replicas=2, current=2))
    assert again["metadata"]["generation"] == 1
    assert again["metadata"]["resourceVersion"] == "2"


async def test_writes_are_guarded_by_the_resource_version() -> None:
    async with serving() as (_, _, connection):
        leases = kube.CoordinationV1Api(connection)
        lease = kube.V1Lease(
            metadata=kube.V1ObjectMeta(name="one"), spec=kube.V1LeaseSpec(holder_identity="a")
        )
        made = await leases.create_namespaced_lease("keda", lease)
        with pytest.raises(kube.ApiException) as twice:
            await leases.create_namespaced_lease("keda", lease)
        assert twice.value.status == HTTPStatus.CONFLICT
        made.spec.holder_identity = "b"
        await leases.replace_namespaced_lease("one", "keda", made)
        with pytest.raises(kube.ApiException) as stale:
            await leases.replace_namespaced_lease("one", "keda", made)
        assert stale.value.status == HTTPStatus.CONFLICT
        with pytest.raises(kube.ApiException) as missing:
            await leases.read_namespaced_lease("two", "keda")
        assert missing.value.status == HTTPStatus.NOT_FOUND


async def test_faults_touch_only_what_they_name() -> None:
    async with serving() as (store, api, connection):
        put_pods(store, 1)
        core = kube.CoreV1Api(connection)
        api.faults.append(
            Fault(kind=FaultKind.STATUS, pattern="GET .*/nodes", status=HTTPStatus.FORBIDDEN)
        )
        with pytest.raises(kube.ApiException) as caught:
            await core.list_node()
        assert caught.value.status == HTTPStatus.FORBIDDEN
        assert len((await core.list_pod_for_all_namespaces()).items) == 1


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", True),
        ("app=llama", True),
        ("app==llama,tier!=web", True),
        ("app!=llama", False),
        ("app in (qwen, llama)", True),
        ("app notin (qwen,llama)", False),
        ("app", True),
        ("!app", False),
        ("!tier,app", True),
        ("tier", False),
    ],
)
def test_label_selectors(selector: str, selected: bool) -> None:
    assert select_labels(selector, {"app": "llama"}) is selected


def test_field_selectors() -> None:
    running = pod("ml", "a", app="x", times=PodTimes(created_at_s=NOW_S), state=PodState.READY)
    assert select_fields("status.phase!=Succeeded,status.phase!=Failed", running)
    assert select_fields("metadata.name=a,spec.nodeName==gpu-1", running)
    assert not select_fields("status.phase=Pending", running)
    assert not select_fields("metadata.name!=a", running)
