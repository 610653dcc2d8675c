"""Everything that is looked at, at the same time and within time limits."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scaler.config import ScalerConfig, SourceConfig, SourceType
from scaler.errors import ConfigError
from scaler.ops.doctor import daemon, kube, prometheus
from scaler.ops.doctor.evidence import (
    Certificate,
    Cluster,
    Evidence,
    Peer,
    ScaledObject,
    Source,
    Target,
    Unseen,
)
from scaler.ops.doctor.workloads import Found, Workloads
from scaler.service.build import build_sources
from scaler.signals.kube.client import Access, Connection, in_cluster
from scaler.signals.samples import PodRef, TargetRef, TargetSamples
from scaler.signals.settings import prometheus_settings
from scaler.trigger import parse

ALL = "all"
_CALLED_AT_A_TIME = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be looked at.

    ``target`` is ``namespace/name`` of a ScaledObject or a workload, or ``all``.  ``urls`` are the
    HTTP ports of the daemons, ``scaler_address`` replaces what the triggers name, ``grpc_tls`` is
    for triggers that call over TLS.  ``account`` is ``namespace:name`` of the service account whose
    permissions are asked for.
    """

    config: ScalerConfig
    target: str = ALL
    urls: tuple[str, ...] = ()
    kubeconfig: str = ""
    context: str = ""
    scaler_address: str = ""
    grpc_tls: daemon.GrpcTls = field(default_factory=daemon.GrpcTls)
    account: str = ""
    timeout_s: float = 10.0


async def gather(request: Request) -> Evidence:
    """Look at the installation.

    Raises:
        ConfigError: where the configuration or the kubeconfig is wrong, or no target is of the
            name asked for.
    """
    link = connection(request)
    client = None if link is None else kube.DatedClient(link)
    try:
        if client is not None:
            await client.open()
        cluster = await _cluster(client, request)
        peers = await _peers(request)
        known = _targets(cluster, peers, request)
        targets = await _with_pods(known, client, request)
        sampled, sources, called, certificates = await asyncio.gather(
            _samples(targets, request),
            _sources(targets, request),
            _all_called(targets, request),
            _certificates(cluster, targets, link, request),
        )
    finally:
        if client is not None:
            await client.close()
    return Evidence(
        now_s=time.time(),
        targets=tuple(
            replace(one, samples=sampled.get(place, one.samples), called=answers.called)
            for place, (one, answers) in enumerate(zip(targets, called, strict=True))
        ),
        cluster=cluster,
        sources=sources,
        peers=peers,
        certificates=certificates,
        policy=request.config.policy,
        outside=not os.environ.get("KUBERNETES_SERVICE_HOST"),
        account=request.account,
    )


def connection(request: Request) -> Connection | None:
    """How to reach the API server: as asked for, else as the daemon would, else as kubectl."""
    limit_s, config = request.timeout_s, request.config.kubernetes
    if request.kubeconfig or request.context:
        return Connection(
            access=Access.KUBECONFIG,
            kubeconfig=request.kubeconfig,
            context=request.context,
            request_timeout_s=limit_s,
        )
    if config.server:
        return Connection(
            access=Access.EXPLICIT,
            url=config.server,
            ca_file=config.ca_file,
            token_file=config.token_file,
            request_timeout_s=limit_s,
        )
    if (inside := in_cluster()) is not None:
        return replace(inside, request_timeout_s=limit_s)
    usual = os.environ.get("KUBECONFIG", "") or str(Path.home() / ".kube" / "config")
    if not Path(usual.split(os.pathsep)[0]).is_file():
        return None
    return Connection(access=Access.KUBECONFIG, kubeconfig=usual, request_timeout_s=limit_s)


async def _cluster(client: kube.DatedClient | None, request: Request) -> Cluster | Unseen:
    if client is None:
        return Unseen(reason="no Kubernetes API: give --kubeconfig, or kubernetes.server")
    config = request.config
    seen = await kube.look(
        client,
        namespaces=config.kubernetes.namespaces,
        ours=config.kubernetes.service_names,
        account=request.account,
    )
    state = config.state
    if isinstance(seen, Unseen) or not state.lease_name:
        return seen
    namespace = state.lease_namespace or request.account.partition(":")[0]
    wanted = kube.lease_access(namespace, state.lease_name)
    if not namespace:
        reason = Unseen(reason="the daemon's namespace is not known: give --service-account")
        unseen = tuple(replace(one, allowed=reason) for one in wanted)
        return replace(seen, access=(*seen.access, *unseen))
    more = await kube.permissions(client, wanted, account=request.account)
    return replace(seen, access=(*seen.access, *more))


# Targets


def _targets(
    cluster: Cluster | Unseen, peers: tuple[Peer, ...] | Unseen, request: Request
) -> list[Target]:
    objects: tuple[ScaledObject, ...] = ()
    if isinstance(cluster, Cluster) and not isinstance(cluster.scaled_objects, Unseen):
        objects = cluster.scaled_objects
    found = [
        *(
            _of_trigger(one, place, request.config)
            for one in objects
            for place, trigger in enumerate(one.triggers)
            if trigger.ours
        ),
        *_configured(request.config),
    ]
    if not isinstance(peers, Unseen):
        found += _only_listed(peers, found, request.config)
    if request.target == ALL:
        return found
    chosen = [one for one in found if request.target in _names(one)]
    if not chosen and (isinstance(cluster, Cluster) or found):
        known = ", ".join(sorted({one.name for one in found})[:10]) or "none"
        raise ConfigError(f"target = {request.target!r}, must be one of: {known}")
    return chosen


def _names(target: Target) -> set[str]:
    name = target.label.partition("/")[2]
    own = {f"{target.namespace}/{name}", target.name}
    if target.scaled_object is not None:
        own.add(f"{target.namespace}/{target.scaled_object.name}")
    return own


def _of_trigger(found: ScaledObject, place: int, config: ScalerConfig) -> Target:
    trigger = found.triggers[place]
    made = Target(
        namespace=found.namespace,
        label=trigger.metadata.get("target", "") or found.target,
        scaled_object=found,
        trigger=trigger,
        policy=config.policy,
    )
    return _parsed(made, trigger.metadata, config, pods=None)


def _configured(config: ScalerConfig) -> list[Target]:
    """Targets that the configuration lists, each once."""
    return [
        _parsed(
            Target(namespace=one.namespace, label=one.target, policy=config.policy),
            {**one.metadata, "target": one.target},
            config,
            pods=tuple(PodRef(name=p.name, address=p.host, port=p.port) for p in one.pods) or None,
        )
        for one in config.targets
    ]


def _only_listed(
    peers: Sequence[Peer], found: Sequence[Target], config: ScalerConfig
) -> list[Target]:
    """Targets that only a daemon names: workloads annotated as advisory have no trigger."""
    rows = {
        (row.name.partition("/")[0], row.target.casefold()) for one in peers for row in one.rows
    }
    known = {(one.namespace, one.label.casefold()) for one in found}
    return [
        _parsed(
            Target(namespace=namespace, label=label, policy=config.policy),
            {"target": label},
            config,
            pods=None,
        )
        for namespace, label in sorted(rows - known)
    ]


def _parsed(
    made: Target,
    metadata: Mapping[str, str],
    config: ScalerConfig,
    *,
    pods: tuple[PodRef, ...] | None,
) -> Target:
    try:
        asked = parse(metadata, config)
    except ConfigError as error:
        return replace(made, faults=error.faults)
    kind, _, name = made.label.partition("/")
    profile = config.profiles.get(asked.profile)
    ref = TargetRef(
        namespace=made.namespace,
        kind=kind.lower(),
        name=name,
        model_name=asked.model_name,
        pods=pods,
        gateway_query=profile.gateway_query if profile else "",
    )
    return replace(made, ref=ref, policy=asked.policy)


async def _with_pods(
    targets: Sequence[Target], client: kube.DatedClient | None, request: Request
) -> list[Target]:
    refs = [one.ref for one in targets if one.ref is not None and one.ref.pods is None]
    if client is None or not refs:
        return list(targets)
    config = request.config.kubernetes
    workloads = Workloads(client=client, metrics_port=config.metrics_port, kinds=config.kinds)
    found = await workloads.find(refs)
    return [_joined(one, found) for one in targets]


def _joined(target: Target, found: Mapping[str, Found]) -> Target:
    if target.ref is None or target.ref.key not in found:
        return target
    seen = found[target.ref.key]
    ref = replace(target.ref, pods=seen.pods)
    return replace(target, ref=ref, wanted=seen.wanted, missing=seen.missing)


# What is asked about them


async def _samples(
    targets: Sequence[Target], request: Request
) -> dict[int, TargetSamples | Unseen]:
    """What the daemon would collect, by its own code with its own settings."""
    refs = [one.ref for one in targets if one.ref is not None]
    if not refs:
        return {}
    sources = build_sources(request.config)
    try:
        found = await sources.collect(refs, time.time())
    finally:
        await sources.close()
    return {place: found[one.ref.key] for place, one in enumerate(targets) if one.ref is not None}


async def _sources(targets: Sequence[Target], request: Request) -> tuple[Source, ...]:
    refs = [one.ref for one in targets if one.ref is not None]
    asked = [
        prometheus.look(prometheus_settings(source, name), refs)
        for name, source in named(request.config.sources)
        if source.type is SourceType.PROMETHEUS
    ]
    return tuple(await asyncio.gather(*asked))


def named(sources: Sequence[SourceConfig]) -> list[tuple[str, SourceConfig]]:
    """Sources with the names that the daemon gives them."""
    return [(one.name or f"{one.type.value}-{at}", one) for at, one in enumerate(sources)]


async def _peers(request: Request) -> tuple[Peer, ...] | Unseen:
    if not request.urls:
        return Unseen(reason="give --url of each daemon")
    asked = (daemon.peer(url, timeout_s=request.timeout_s) for url in request.urls)
    return tuple(await asyncio.gather(*asked))


async def _all_called(targets: Sequence[Target], request: Request) -> list[Target]:
    """Every target with the answers to KEDA's questions, a few targets at a time."""
    slots = asyncio.Semaphore(_CALLED_AT_A_TIME)

    async def one(target: Target) -> Target:
        async with slots:
            return await _called(target, request)

    return list(await asyncio.gather(*(one(target) for target in targets)))


async def _called(target: Target, request: Request) -> Target:
    found, trigger = target.scaled_object, target.trigger
    if found is None or trigger is None:
        return target
    called = await daemon.call(
        trigger,
        namespace=found.namespace,
        name=found.name,
        override=request.scaler_address,
        tls=request.grpc_tls,
        timeout_s=min(5.0, request.timeout_s),
    )
    return replace(target, called=called)


async def _certificates(
    cluster: Cluster | Unseen,
    targets: Sequence[Target],
    link: Connection | None,
    request: Request,
) -> tuple[Certificate, ...]:
    asked = [
        daemon.certificate(
            source.url,
            of=f"source {name} {source.url}",
            setting=f"sources.{name}.ca_file",
            ca_file=source.ca_file,
            timeout_s=request.timeout_s,
        )
        for name, source in named(request.config.sources)
        if source.url.startswith("https:")
    ]
    if link is not None and link.ca_file and isinstance(cluster, Cluster):
        asked.append(
            daemon.certificate(
                cluster.url,
                of=f"Kubernetes API {cluster.url}",
                setting="kubernetes.ca_file",
                ca_file=link.ca_file,
                timeout_s=request.timeout_s,
            )
        )
    reached = bool(request.scaler_address or os.environ.get("KUBERNETES_SERVICE_HOST"))
    if request.grpc_tls.given and reached:
        triggers = [one.trigger for one in targets if one.trigger and daemon.uses_tls(one.trigger)]
        asked += [
            daemon.grpc_certificate(
                request.scaler_address or address,
                named=daemon.host_of(address),
                tls=request.grpc_tls,
                timeout_s=request.timeout_s,
            )
            for address in sorted({one.address for one in triggers})
        ]
    return tuple(await asyncio.gather(*asked))
