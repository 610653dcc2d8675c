"""Asking the Kubernetes API: objects as JSON to evidence, permissions, the server's clock."""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from scaler.ops.doctor.evidence import (
    Access,
    Behaviour,
    Cluster,
    Condition,
    Hpa,
    Json,
    Metric,
    Rules,
    ScaledObject,
    ServicePorts,
    Trigger,
    Unseen,
)
from scaler.signals.kube.client import KubeClient, KubeError, Query
from scaler.signals.kube.parse import quantity
from scaler.signals.kube.scaledobjects import host_of, is_ours

READ = ("get", "list", "watch")
_REVIEWS = "/apis/authorization.k8s.io/v1"
_PAGE = 500
_IN_FLIGHT = 8
_FORBIDDEN, _NOT_FOUND = 403, 404


class DatedClient(KubeClient):
    """A client that notes by how much the server's clock is ahead of ours."""

    ahead_s: float | None = None
    host: str = ""

    async def _open(
        self,
        method: str,
        path: str,
        *,
        query: Query,
        body: Mapping[str, Any] | None,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        asked_at_s = time.time()
        response = await super()._open(method, path, query=query, body=body, limits=limits)
        if date := response.headers.get("Date"):
            # Whole seconds, cut off: the middle of the second against the middle of the request.
            said_s = parsedate_to_datetime(date).timestamp() + 0.5
            self.ahead_s = said_s - (asked_at_s + time.time()) / 2.0
        self.host = f"{response.url.scheme}://{response.url.authority}"
        return response


async def look(
    client: DatedClient, *, namespaces: Sequence[str], ours: tuple[str, ...], account: str
) -> Cluster | Unseen:
    """The cluster as it is now; ``namespaces`` empty means all.

    ``ours`` are the names of the scaler's Service, ``account`` (``namespace:name``) whose
    permissions are asked for.
    """
    try:
        version = json.loads(await client.get("/version"))
    except (KubeError, ValueError) as fault:
        return Unseen(reason=str(fault))
    places = tuple(namespaces) or ("",)
    scaled, hpas, access = await asyncio.gather(
        _listed(client, "/apis/keda.sh/v1alpha1", "scaledobjects", places),
        _listed(client, "/apis/autoscaling/v2", "horizontalpodautoscalers", places),
        permissions(client, needed(namespaces), account=account),
    )
    found = (
        scaled if isinstance(scaled, Unseen) else tuple(scaled_object(one, ours) for one in scaled)
    )
    digits = "".join(char for char in str(version.get("minor", "")) if char.isdigit())
    return Cluster(
        url=client.host,
        kubernetes_minor=int(digits) if digits else None,
        ahead_s=Unseen(reason="no Date header") if client.ahead_s is None else client.ahead_s,
        access=access,
        scaled_objects=found,
        hpas=hpas if isinstance(hpas, Unseen) else tuple(hpa(one) for one in hpas),
        services=await _services(client, () if isinstance(found, Unseen) else found),
    )


def needed(namespaces: Sequence[str]) -> tuple[Access, ...]:
    """What the daemon does with the API; as in manifests/scaler/components/rbac-cluster."""
    wanted = [
        *((verb, "keda.sh", "scaledobjects", True) for verb in READ),
        *((verb, "", "pods", True) for verb in READ),
        *((verb, "apps", "deployments", True) for verb in READ),
        *((verb, "apps", "statefulsets", False) for verb in READ),
        *((verb, "leaderworkerset.x-k8s.io", "leaderworkersets", False) for verb in READ),
        ("get", "apps", "deployments/scale", False),
        ("get", "leaderworkerset.x-k8s.io", "leaderworkersets/scale", False),
        ("create", "", "events", False),
    ]
    made = [
        Access(verb=verb, group=group, resource=resource, needed=must, namespace=namespace)
        for namespace in tuple(namespaces) or ("",)
        for verb, group, resource, must in wanted
    ]
    nodes = [Access(verb=verb, group="", resource="nodes", needed=False) for verb in READ]
    return (*made, *(nodes if not namespaces else ()))


def lease_access(namespace: str, name: str) -> tuple[Access, ...]:
    """What the election of a leader needs."""
    group, resource = "coordination.k8s.io", "leases"
    named = [
        Access(verb=verb, group=group, resource=resource, namespace=namespace, name=name)
        for verb in ("get", "update")
    ]
    return Access(verb="create", group=group, resource=resource, namespace=namespace), *named


async def permissions(
    client: KubeClient, asked: Iterable[Access], *, account: str
) -> tuple[Access, ...]:
    """Each permission with the server's answer, for ``account`` or for whoever asks."""
    slots = asyncio.Semaphore(_IN_FLIGHT)

    async def ask(one: Access) -> Access:
        async with slots:
            return await _reviewed(client, one, account)

    return tuple(await asyncio.gather(*(ask(one) for one in asked)))


async def _reviewed(client: KubeClient, one: Access, account: str) -> Access:
    resource, _, sub = one.resource.partition("/")
    attributes = {
        "verb": one.verb,
        "group": one.group,
        "resource": resource,
        "subresource": sub,
        "namespace": one.namespace,
        "name": one.name,
    }
    kind = "SubjectAccessReview" if account else "SelfSubjectAccessReview"
    spec: dict[str, Any] = {"resourceAttributes": {k: v for k, v in attributes.items() if v}}
    if account:
        namespace = account.partition(":")[0]
        spec["user"] = f"system:serviceaccount:{account}"
        spec["groups"] = [
            "system:serviceaccounts",
            f"system:serviceaccounts:{namespace}",
            "system:authenticated",
        ]
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
    try:
        answer = json.loads(await client.create(f"{_REVIEWS}/{kind.lower()}s", body))
        return replace(one, allowed=bool(answer["status"]["allowed"]))
    except (KubeError, ValueError, KeyError, TypeError) as fault:
        return replace(one, allowed=Unseen(reason=why(fault)))


def why(fault: Exception) -> str:
    """A fault of the API in few words; a missing permission is called that."""
    if isinstance(fault, KubeError) and fault.status == _FORBIDDEN:
        return f"no permission ({fault})"
    return str(fault)


async def _listed(
    client: KubeClient, root: str, plural: str, namespaces: Sequence[str]
) -> list[Json] | Unseen:
    """Every object of a kind in these namespaces, page by page."""
    found: list[Json] = []
    try:
        for namespace in namespaces:
            path = f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"
            token = ""
            while True:
                query = [("limit", str(_PAGE)), *([("continue", token)] if token else [])]
                page = json.loads(await client.get(path, query))
                found += page.get("items") or ()
                token = page.get("metadata", {}).get("continue", "")
                if not token:
                    break
    except (KubeError, ValueError) as fault:
        return Unseen(reason=why(fault))
    return found


async def _services(
    client: KubeClient, objects: Sequence[ScaledObject]
) -> tuple[ServicePorts, ...]:
    """The Services that our triggers' addresses name."""
    places: dict[str, str] = {}
    for one in objects:
        for trigger in one.triggers:
            if trigger.ours:
                places.setdefault(trigger.address, one.namespace)
    asked = (_service(client, address, near) for address, near in places.items())
    return tuple(await asyncio.gather(*asked))


async def _service(client: KubeClient, address: str, near: str) -> ServicePorts:
    name, _, rest = host_of(address).partition(".")
    namespace = rest.partition(".")[0]
    if not name or not namespace or name.isdigit():
        reason = "the address names no namespace: KEDA resolves it from its own"
        return ServicePorts(address=address, ports=Unseen(reason=f"{reason}, not from {near}"))
    try:
        body = await client.get(f"/api/v1/namespaces/{namespace}/services/{name}")
        ports = json.loads(body)["spec"].get("ports") or ()
        return ServicePorts(address=address, ports=tuple(int(port["port"]) for port in ports))
    except KubeError as fault:
        missing = fault.status == _NOT_FOUND
        return ServicePorts(address=address, ports=Unseen(reason=why(fault)), missing=missing)
    except (ValueError, KeyError, TypeError) as fault:
        return ServicePorts(address=address, ports=Unseen(reason=f"not a Service: {fault!r}"))


def scaled_object(raw: Json, ours: tuple[str, ...]) -> ScaledObject:
    """A ScaledObject from its JSON."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    ref, advanced = spec.get("scaleTargetRef") or {}, spec.get("advanced") or {}
    config = advanced.get("horizontalPodAutoscalerConfig") or {}
    name = str(meta.get("name", ""))
    annotations = meta.get("annotations") or {}
    prefix = "autoscaling.keda.sh/paused"
    return ScaledObject(
        namespace=str(meta.get("namespace", "")),
        name=name,
        target=_target(ref),
        replicas_min=_number(spec.get("minReplicaCount"), 0),
        replicas_max=_number(spec.get("maxReplicaCount"), 100),
        polling_interval_s=float(_number(spec.get("pollingInterval"), 30)),
        triggers=tuple(_trigger(i, one, ours) for i, one in enumerate(spec.get("triggers") or ())),
        fallback=spec.get("fallback"),
        behaviour=behaviour(config.get("behavior")),
        modifiers=bool(advanced.get("scalingModifiers")),
        paused=annotations.get(prefix) == "true" or f"{prefix}-replicas" in annotations,
        hpa_name=str(status.get("hpaName") or config.get("name") or f"keda-hpa-{name}"),
        conditions=_conditions(status),
    )


def _trigger(index: int, raw: Json, ours: tuple[str, ...]) -> Trigger:
    metadata = {str(key): str(value) for key, value in (raw.get("metadata") or {}).items()}
    type_ = str(raw.get("type", ""))
    return Trigger(
        index=index,
        type=type_,
        metric_type=str(raw.get("metricType") or "AverageValue"),
        metadata=metadata,
        ours=is_ours(type_, metadata, ours),
        authenticated=bool(raw.get("authenticationRef")),
    )


def hpa(raw: Json) -> Hpa:
    """A HorizontalPodAutoscaler of autoscaling/v2 from its JSON."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    owners = [
        str(one.get("name", ""))
        for one in meta.get("ownerReferences") or ()
        if one.get("kind") == "ScaledObject"
    ]
    values = dict(map(_current, status.get("currentMetrics") or ()))
    return Hpa(
        namespace=str(meta.get("namespace", "")),
        name=str(meta.get("name", "")),
        target=_target(spec.get("scaleTargetRef") or {}),
        owner=owners[0] if owners else "",
        replicas_min=_number(spec.get("minReplicas"), 1),
        replicas_max=_number(spec.get("maxReplicas"), 1),
        current=status.get("currentReplicas"),
        desired=status.get("desiredReplicas"),
        metrics=tuple(_metric(one, values) for one in spec.get("metrics") or ()),
        conditions=_conditions(status),
        behaviour=behaviour(spec.get("behavior")),
    )


def behaviour(raw: Json | None) -> Behaviour | None:
    """``behavior``; None where there is none."""
    if not raw:
        return None
    return Behaviour(up=_rules(raw.get("scaleUp")), down=_rules(raw.get("scaleDown")))


def _rules(raw: Json | None) -> Rules | None:
    if raw is None:
        return None
    window = raw.get("stabilizationWindowSeconds")
    policies = raw.get("policies")
    return Rules(
        window_s=None if window is None else float(window),
        tolerance_ratio=_quantity(raw.get("tolerance")),
        policies=None
        if policies is None
        else tuple(
            sorted(
                f"{one.get('type')} {one.get('value')} in {one.get('periodSeconds')} s"
                for one in policies
            )
        ),
    )


def _metric(raw: Json, values: Mapping[str, float | None]) -> Metric:
    kind = str(raw.get("type", ""))
    part = raw.get(kind[:1].lower() + kind[1:]) or {}
    name = str((part.get("metric") or {}).get("name") or part.get("name") or kind)
    target = str((part.get("target") or {}).get("type", ""))
    return Metric(type=kind, name=name, target_type=target, value=values.get(name))


def _current(raw: Json | None) -> tuple[str, float | None]:
    """Name and total value of one entry of status.currentMetrics; entries may be empty."""
    external = (raw or {}).get("external") or {}
    current = external.get("current") or {}
    return (
        str((external.get("metric") or {}).get("name", "")),
        _quantity(current.get("averageValue", current.get("value"))),
    )


def _conditions(status: Json) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            type=str(one.get("type", "")),
            status=str(one.get("status", "")),
            reason=str(one.get("reason", "")),
            message=str(one.get("message", "")),
        )
        for one in status.get("conditions") or ()
    )


def _target(ref: Json) -> str:
    return f"{str(ref.get('kind') or 'Deployment').lower()}/{ref.get('name', '')}"


def _number(value: Any, default: int) -> int:
    return default if value is None else int(value)


def _quantity(value: Any) -> float | None:
    try:
        return None if value is None else quantity(value)
    except ValueError:  # a suffix such as k: no count of replicas or ratio has one
        return None
