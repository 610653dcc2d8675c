"""From the configuration to the parts of the daemon: sources, cluster, TLS, lease."""

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from scaler.config import (
    KubernetesConfig,
    Presence,
    ScalerConfig,
    SourceConfig,
    SourceType,
)
from scaler.errors import ConfigError
from scaler.service.clock import Clock
from scaler.service.long_history import LongHistory
from scaler.signals.dcgm import DcgmReader
from scaler.signals.kube.client import Access, Connection, KubeClient, in_cluster
from scaler.signals.kube.informer import Pace, Pacing
from scaler.signals.kube.parse import PodConventions
from scaler.signals.kube.scale import ExtraKind
from scaler.signals.kube.view import KubernetesView, Scope
from scaler.signals.profiles import PROFILES
from scaler.signals.prometheus import PrometheusSource
from scaler.signals.readers import Readers
from scaler.signals.scrape import ScrapeSource
from scaler.signals.settings import ScrapeSettings, prometheus_settings
from scaler.signals.sources import RoutedSource, SourceSet
from scaler.signals.vllm import VllmReader

DEFAULT_SOURCE = SourceConfig(type=SourceType.SCRAPE, name="scrape")
HISTORY_ATTEMPT_S = 30.0  # for one chunk of the past, which nobody waits for


def build_sources(config: ScalerConfig) -> SourceSet:
    """The configured sources; direct scraping of the targets' pods when none is configured.

    Raises:
        ConfigError: with every fault of every source.
    """
    faults: list[str] = []
    made: list[RoutedSource] = []
    for place, source in enumerate(config.sources or (DEFAULT_SOURCE,)):
        name = _name(source, place)
        if name in {other.name for other in made}:
            faults.append(f"sources.{place}.name = {name!r}, must differ from the others")
            continue
        if source.engine not in PROFILES:
            known = ", ".join(PROFILES)
            faults.append(f"sources.{place}.engine = {source.engine!r}, must be one of {known}")
            continue
        try:
            made.append(_source(source, name))
        except ConfigError as error:
            faults.extend(f"sources.{place}.{fault}" for fault in error.faults)
    if faults:
        raise ConfigError(*faults)
    timeout_s = max(source.timeout_s for source in config.sources or (DEFAULT_SOURCE,))
    return SourceSet(made, timeout_s=timeout_s + 1.0)


def _name(source: SourceConfig, place: int) -> str:
    return source.name or f"{source.type.value}-{place}"


def _source(source: SourceConfig, name: str) -> RoutedSource:
    if source.type is SourceType.PROMETHEUS:
        return PrometheusSource(prometheus_settings(source, name), _readers(source))
    settings = ScrapeSettings(
        name=name,
        namespaces=source.namespaces,
        timeout_s=source.timeout_s,
        pages_in_flight=source.concurrency,
        dcgm_urls=source.dcgm_urls,
    )
    return ScrapeSource(settings, _readers(source))


def _readers(source: SourceConfig) -> Readers:
    return Readers(engine=VllmReader(PROFILES[source.engine]), gpu=DcgmReader())


def build_long_history(
    config: ScalerConfig, clock: Clock, *, leads: Callable[[], bool]
) -> LongHistory:
    """The reader of our own past, over connections of its own: no collection waits for it."""
    gentle = [
        replace(
            prometheus_settings(source, _name(source, place), attempt_timeout_s=HISTORY_ATTEMPT_S),
            queries_in_flight=1,
        )
        for place, source in enumerate(config.sources)
        if source.type is SourceType.PROMETHEUS and config.history.read_days > 0.0
    ]
    readers = Readers(engine=VllmReader(), gpu=DcgmReader())  # a history has no samples to read
    return LongHistory(
        [PrometheusSource(one, readers) for one in gentle],
        clock,
        read_days=config.history.read_days,
        leads=leads,
    )


def build_client(config: KubernetesConfig) -> KubeClient | None:
    """A client of the Kubernetes API; None where none is to be used.

    Raises:
        ConfigError: when one must be used and nothing says where it is.
    """
    if config.use is Presence.NEVER:
        return None
    if config.server:
        explicit = Connection(
            access=Access.EXPLICIT,
            url=config.server,
            ca_file=config.ca_file,
            token_file=config.token_file,
        )
        return KubeClient(explicit)
    found = in_cluster()
    if found is None and os.environ.get("KUBECONFIG"):
        found = Connection(access=Access.KUBECONFIG, kubeconfig=os.environ["KUBECONFIG"])
    if found is None and config.use is Presence.ALWAYS:
        raise ConfigError(
            "kubernetes.use = always, but this is no pod, KUBECONFIG is not set "
            "and kubernetes.server is empty"
        )
    return KubeClient(found) if found is not None else None


def build_view(client: KubeClient, config: KubernetesConfig, clock: Clock) -> KubernetesView:
    """The view of the cluster the configuration describes."""
    return KubernetesView(
        client,
        pacing=Pacing(now_s=clock.now_s),
        scope=Scope(
            namespaces=config.namespaces,
            scaler_names=config.service_names,
            extra_kinds=tuple(
                ExtraKind(api_version=extra.api_version, kind=extra.kind, plural=extra.plural)
                for extra in config.kinds
            ),
            conventions=PodConventions(port_default=config.metrics_port),
            watch_nodes=not config.namespaces,
        ),
        pace=Pace(stale_after_s=config.stale_after_s),
    )


def host_and_port(address: str, key: str) -> tuple[str, int]:
    """``host:port`` split; an empty host listens everywhere.

    Raises:
        ConfigError: when the port is missing or not a number.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{key} = {address!r}, must be host:port")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - said by the configuration


def own_identity(peer_address: str) -> str:
    """Who holds the lease: the host's name, and where others reach its HTTP port."""
    return f"{socket.gethostname()}|{peer_address}"


def peer_of(identity: str) -> str:
    """The address in a holder's identity; empty when it has none."""
    return identity.partition("|")[2]


def addresses(sources: Sequence[SourceConfig]) -> tuple[str, ...]:
    """Where metrics are read, for the start-up line."""
    return tuple(source.url or source.type.value for source in sources or (DEFAULT_SOURCE,))


def own_namespace() -> str:
    """The daemon's own namespace: of its pod, else ``default``."""
    path = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return os.environ.get("POD_NAMESPACE", "default")
