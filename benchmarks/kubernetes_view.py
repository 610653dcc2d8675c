"""What 1,000 targets of 10 pods cost in the Kubernetes view: memory, time to sync, time to read.

    python -m benchmarks.kubernetes_view [--targets 1000] [--pods 10]

The API server runs in a process of its own, so that only the view is measured.  Pods carry what
real ones do and the view does not read (volumes, environment): about 5 KB of JSON each.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from scaler.demo.kube_api import KubeApi
from scaler.demo.kube_objects import PodTimes, deployment, node, pod, scaled_object
from scaler.demo.kube_store import Store

PADDING = {
    "env": [{"name": f"SETTING_{number}", "value": "x" * 60} for number in range(40)],
    "volumeMounts": [
        {"name": f"volume-{number}", "mountPath": f"/mnt/{number}"} for number in range(12)
    ],
}


def rss_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def serve(pipe: Pipe, targets: int, pods: int) -> None:
    """The API server process: fill, listen, tell the port, stay until told to end."""

    async def main() -> None:
        now_s = time.time()
        store = Store(time.time)
        for number in range(50):
            store.apply(node(f"gpu-{number}"))
        for target in range(targets):
            namespace, name = f"team-{target % 20}", f"vllm-{target:04d}"
            store.apply(deployment(namespace, name, replicas=pods))
            store.apply(scaled_object(namespace, name, target=name))
            for number in range(pods):
                times = PodTimes(created_at_s=now_s - 900.0, ready_at_s=now_s - 700.0)
                made = pod(namespace, f"{name}-{number}", app=name, times=times, node="gpu-1")
                made["spec"]["containers"][0].update(PADDING)
                store.apply(made)
        api = KubeApi(store)
        await api.start()
        size = len(json.dumps(made))
        pipe.send((api.port, size))
        await asyncio.to_thread(pipe.recv)
        await api.stop()

    asyncio.run(main())


async def measure(port: int, targets: int, pods: int) -> dict[str, float]:
    """Sync a view and read every target."""
    before_mib = rss_mib()
    # Imported here, so that the memory of the imports is seen apart.
    from scaler.signals.kube.client import Access, Connection, KubeClient  # noqa: PLC0415
    from scaler.signals.kube.informer import Pacing  # noqa: PLC0415
    from scaler.signals.kube.records import TargetState  # noqa: PLC0415
    from scaler.signals.kube.view import KubernetesView  # noqa: PLC0415

    client = KubeClient(Connection(access=Access.EXPLICIT, url=f"http://127.0.0.1:{port}"))
    await client.open()
    imported_mib = rss_mib()
    view = KubernetesView(client, pacing=Pacing(now_s=time.time))
    blocked = asyncio.create_task(longest_block_s())
    began_s = time.perf_counter()
    await view.start()
    await view.wait_tried()
    synced_s = time.perf_counter() - began_s
    refs = [trigger.target for trigger in view.scaled_objects().values()]
    assert len(refs) == targets
    began_s = time.perf_counter()
    states = [view.target(ref) for ref in refs]
    read_s = time.perf_counter() - began_s
    assert all(isinstance(one, TargetState) and one.replicas.ready == pods for one in states)
    blocked.cancel()
    (block_s,) = await asyncio.gather(blocked)
    synced_mib = rss_mib()
    await view.stop()
    await client.close()
    return {
        "rss_before_mib": round(before_mib, 1),
        "rss_imports_mib": round(imported_mib - before_mib, 1),
        "rss_view_mib": round(synced_mib - imported_mib, 1),
        "sync_s": round(synced_s, 2),
        "read_all_targets_s": round(read_s, 4),
        "longest_block_s": round(block_s, 4),
    }


async def longest_block_s() -> float:
    """The longest time the event loop did nothing else, until cancelled."""
    longest_s = 0.0
    try:
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.perf_counter() - began_s - 0.001)
    except asyncio.CancelledError:
        return longest_s


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=10)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, arguments.targets, arguments.pods))
    server.start()
    try:
        port, size = ours.recv()
        result = asyncio.run(measure(port, arguments.targets, arguments.pods))
        json.dump(result | {"pod_json_bytes": size}, sys.stdout, indent=2)
        print()
        ours.send("end")
    finally:
        server.join(10.0)
        if server.is_alive():
            server.terminate()


if __name__ == "__main__":
    main()
