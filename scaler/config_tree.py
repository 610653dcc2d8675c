"""The tree of settings of the daemon: every setting declared once, with default, range and reason.

``scaler.config`` loads it; the policy's part is declared in ``scaler.core.config``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from scaler.core.config import PolicyConfig
from scaler.core.model import Mode
from scaler.core.settings import setting


class SourceType(StrEnum):
    """Where metrics are read."""

    PROMETHEUS = "prometheus"
    SCRAPE = "scrape"


class RecordingRules(StrEnum):
    """Whether grouped queries read our recording rules."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"  # readable on a terminal, JSON elsewhere
    JSON = "json"
    TEXT = "text"


class Presence(StrEnum):
    """Whether to use something that may not be there."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """TLS of the gRPC server; files are re-read when they change."""

    cert_file: str = setting("", why="server certificate; empty: plaintext, as KEDA's default")
    key_file: str = setting("", why="its private key")
    client_ca_file: str = setting("", why="set: clients must present a certificate of this CA")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcConfig:
    """The server KEDA calls."""

    address: str = setting("0.0.0.0:9090", why="KEDA's custom for external scalers")
    reflection: bool = setting(False, why="for debugging with grpcurl; needs the extra")
    connection_age_max_s: float = setting(
        300.0,
        low=10.0,
        high=86400.0,
        why="makes KEDA's round robin find new replicas of the daemon",
    )
    tls: TlsConfig = field(default_factory=TlsConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """Metrics, health, API and the live page."""

    address: str = setting("0.0.0.0:8080", why="metrics and health are scraped in the cluster only")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindConfig:
    """A further kind that has the scale subresource."""

    kind: str = setting("", why="as in scaleTargetRef, e.g. RayCluster")
    api_version: str = setting("", why="group/version")
    plural: str = setting("", why="resource name in the API path")


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesConfig:
    """The Kubernetes API, if there is one."""

    use: Presence = setting(Presence.AUTO, why="auto: in a cluster or with a kubeconfig")
    server: str = setting("", why="explicit API URL; empty: in-cluster or kubeconfig")
    ca_file: str = setting("", why="CA of the explicit server")
    token_file: str = setting("", why="bearer token of the explicit server, re-read")
    namespaces: tuple[str, ...] = setting((), why="empty: cluster-wide")
    service_names: tuple[str, ...] = setting(
        ("vllm-scaler",), why="first label of scalerAddress in triggers that are ours"
    )
    metrics_port: int = setting(8000, low=1, high=65535, why="vLLM's port when no port is named")
    kinds: tuple[KindConfig, ...] = setting((), why="only listed kinds beside the three known ones")
    events: bool = setting(True, why="operators read kubectl describe")
    stale_after_s: float = setting(
        90.0, low=5.0, high=3600.0, why="no live watch and no relist for so long: the API is down"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One source of metrics; fields that do not fit the type are refused."""

    type: SourceType = setting(SourceType.PROMETHEUS, why="what the source speaks")
    name: str = setting("", why="shown in metrics and log lines; empty: type and position")
    engine: str = setting("vllm", why="names of the engine's metrics; others are untested data")
    url: str = setting("", why="base URL of a Prometheus-compatible API")
    namespaces: tuple[str, ...] = setting(("*",), why="namespaces it serves, globs")
    ca_file: str = setting("", why="CA of the server")
    cert_file: str = setting("", why="client certificate")
    key_file: str = setting("", why="its key")
    token_file: str = setting("", why="bearer token, re-read when it changes")
    username: str = setting("", why="basic authentication")
    password_file: str = setting("", why="basic authentication")
    headers: Mapping[str, str] = setting({}, why="e.g. X-Scope-OrgID of a tenant")
    timeout_s: float = setting(
        8.0, low=0.1, high=60.0, why="half a tick, so that a retry fits in one"
    )
    window_s: float = setting(
        60.0, low=15.0, high=600.0, why="four scrapes of 15 s for percentiles"
    )
    recording_rules: RecordingRules = setting(RecordingRules.AUTO, why="used where installed")
    concurrency: int = setting(64, low=1, high=1024, why="pods scraped at a time")
    dcgm_urls: tuple[str, ...] = setting((), why="DCGM exporters read directly")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticPod:
    """One fixed metrics endpoint of a target."""

    name: str = setting("", why="stands for the pod's name")
    host: str = setting("", why="host or IP")
    port: int = setting(8000, low=1, high=65535, why="vLLM's default")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """A target known without a trigger: advisory runs, or no Kubernetes API."""

    namespace: str = setting("default", why="where the target lives")
    target: str = setting("", why="kind/name, e.g. deployment/vllm-llama-70b")
    metadata: Mapping[str, str] = setting({}, why="the same keys as a trigger's metadata")
    mode: Mode = setting(
        Mode.ADVISORY, why="without a trigger nothing is scaled: see decisions first"
    )
    pods: tuple[StaticPod, ...] = setting((), why="fixed endpoints, where no API lists the pods")
    frozen_until: str = setting("", why="RFC 3339 time at which mode frozen ends by itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileConfig:
    """Named settings a trigger may choose, and what metadata may not set."""

    policy: Mapping[str, Any] = setting({}, why="paths of the policy tree, e.g. slo.ttft_s: 3")
    gateway_query: str = setting("", why="PromQL of a request counter in front; the operator's")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsConfig:
    """The decision log: one record a tick and target, in rotated files.

    About 5 kB a record with every signal, 28 MB a target and day at 15 s; a rotated file is
    compressed to about an eighth of it.
    """

    directory: str = setting("", why="empty: no decision log")
    file_bytes_max: int = setting(
        64_000_000, low=10_000, high=10**12, why="rotated and compressed at this size"
    )
    files_max: int = setting(20, low=1, high=10000, why="oldest files are deleted")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateConfig:
    """What survives a restart, and who decides when there are several daemons."""

    checkpoint_file: str = setting("", why="state on a volume; empty: none")
    checkpoint_every_s: float = setting(60.0, low=1.0, high=3600.0, why="what a crash may forget")
    lease_name: str = setting("", why="set: replicas of the daemon elect a leader by this Lease")
    lease_namespace: str = setting("", why="empty: the daemon's own namespace")
    lease_duration_s: float = setting(
        15.0, low=2.0, high=300.0, why="a dead leader is replaced by then"
    )
    peer_address: str = setting("", why="host:port other replicas reach our HTTP port at")
    forget_after_s: float = setting(
        600.0, low=10.0, high=86400.0, why="state of a deleted target expires"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryConfig:
    """The daemon's own demand series, read back from its Prometheus sources after a start."""

    read_days: float = setting(
        14.0, low=0.0, high=90.0, why="two of every day of the week; 0: nothing is read back"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """Log lines on standard error."""

    level: str = setting("info", why="debug, info, warning or error")
    format: LogFormat = setting(LogFormat.AUTO, why="people read terminals, machines read files")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerConfig:
    """Everything the daemon may be told."""

    grpc: GrpcConfig = field(default_factory=GrpcConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    kubernetes: KubernetesConfig = field(default_factory=KubernetesConfig)
    sources: tuple[SourceConfig, ...] = setting((), why="empty: scrape the pods directly")
    targets: tuple[TargetConfig, ...] = setting((), why="beside those of ScaledObjects")
    profiles: Mapping[str, ProfileConfig] = setting({}, why="named settings for triggers")
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    state: StateConfig = field(default_factory=StateConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    log: LogConfig = field(default_factory=LogConfig)
