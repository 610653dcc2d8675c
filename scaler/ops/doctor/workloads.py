"""The workload of a target and its pods, read once."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from scaler.config import KindConfig
from scaler.ops.doctor.kube import why
from scaler.signals.kube.client import KubeClient, KubeError
from scaler.signals.kube.parse import (
    LWS_WORKER_LABEL,
    PodConventions,
    pod_record,
    scale_record,
    workload_record,
)
from scaler.signals.kube.records import PodRecord, Workload
from scaler.signals.kube.scale import ExtraKind
from scaler.signals.kube.selectors import matches
from scaler.signals.samples import PodRef, TargetRef

_ROOTS = {
    "deployment": "/apis/apps/v1/namespaces/{}/deployments/{}",
    "statefulset": "/apis/apps/v1/namespaces/{}/statefulsets/{}",
    "leaderworkerset": "/apis/leaderworkerset.x-k8s.io/v1/namespaces/{}/leaderworkersets/{}",
}
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A workload with its pods; ``missing`` says why either is not known (then both are not)."""

    wanted: int | None = None
    pods: tuple[PodRef, ...] | None = None
    missing: str = ""


@dataclass(slots=True, kw_only=True)
class Workloads:
    """Reads workloads, and the pods of each namespace once for all of them."""

    client: KubeClient
    metrics_port: int
    kinds: Sequence[KindConfig] = ()
    in_flight: int = 8
    _pods: dict[str, "asyncio.Task[list[PodRecord]]"] = field(default_factory=dict)

    async def find(self, targets: Sequence[TargetRef]) -> Mapping[str, Found]:
        """What the API has of each target, by its key; a fault of one spoils no other."""
        slots = asyncio.Semaphore(self.in_flight)

        async def one(target: TargetRef) -> Found:
            async with slots:
                try:
                    return await self._one(target)
                except (KubeError, msgspec.DecodeError, ValueError) as fault:
                    return Found(missing=why(fault))

        found = await asyncio.gather(*(one(target) for target in targets))
        return {target.key: seen for target, seen in zip(targets, found, strict=True)}

    async def _one(self, target: TargetRef) -> Found:
        workload = await self._workload(target)
        if workload is None:
            return Found(missing=f"kind {target.kind} is neither known nor in kubernetes.kinds")
        pods = [
            pod
            for pod in await self._all_pods(target.namespace)
            if matches(workload.selector, dict(pod.labels))
        ]
        return Found(wanted=workload.wanted, pods=tuple(_ref(pod) for pod in pods))

    async def _workload(self, target: TargetRef) -> Workload | None:
        conventions = PodConventions(port_default=self.metrics_port)
        if root := _ROOTS.get(target.kind):
            raw = await self.client.get(root.format(target.namespace, target.name))
            return workload_record(raw, target.kind, conventions)
        for kind in self.kinds:
            if kind.kind.lower() == target.kind:
                extra = ExtraKind(api_version=kind.api_version, kind=kind.kind, plural=kind.plural)
                return scale_record(await self.client.get(extra.path(target)), target)
        return None

    async def _all_pods(self, namespace: str) -> list[PodRecord]:
        if namespace not in self._pods:
            self._pods[namespace] = asyncio.create_task(self._list(namespace))
        return await self._pods[namespace]

    async def _list(self, namespace: str) -> list[PodRecord]:
        conventions = PodConventions(port_default=self.metrics_port)
        found: list[PodRecord] = []
        token = ""
        while True:
            query = [("limit", str(_PAGE)), *([("continue", token)] if token else [])]
            page = json.loads(await self.client.get(f"/api/v1/namespaces/{namespace}/pods", query))
            for item in page.get("items") or ():
                pod = pod_record(json.dumps(item).encode(), conventions)
                if pod is not None:
                    found.append(pod)
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return found


def _ref(pod: PodRecord) -> PodRef:
    return PodRef(
        name=pod.name,
        address=pod.address,
        port=pod.port,
        ready=pod.ready_at_s is not None and not pod.deleting,
        leader=dict(pod.labels).get(LWS_WORKER_LABEL, "0") == "0",
    )
