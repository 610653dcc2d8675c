"""What was seen of an installation: plain values that the checks judge, and nothing else.

Whatever could not be looked at is an ``Unseen`` with the reason, never an empty value: a check
that finds one says so instead of passing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from scaler.core.config import PolicyConfig
from scaler.signals.samples import TargetRef, TargetSamples


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """Something that could not be looked at, and why."""

    reason: str


Json: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One permission the daemon needs; ``allowed`` is unseen where the server would not say."""

    verb: str
    group: str
    resource: str  # with the subresource, as in deployments/scale
    namespace: str = ""  # empty: in all
    name: str = ""
    needed: bool = True  # False: one kind of target or one comfort is lost without it
    allowed: "bool | Unseen" = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One trigger of a ScaledObject, ours or not."""

    index: int
    type: str
    metric_type: str
    metadata: Mapping[str, str]
    ours: bool
    authenticated: bool = False  # has an authenticationRef

    @property
    def address(self) -> str:
        """Where KEDA calls; empty of triggers that call nobody."""
        return self.metadata.get("scalerAddress", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One direction of an HPA's behaviour; None stands for what is not written."""

    window_s: float | None = None
    tolerance_ratio: float | None = None
    policies: tuple[str, ...] | None = None  # "Percent 100 in 15 s", sorted


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """``behavior`` as written in a ScaledObject or kept by the API server."""

    up: Rules | None = None
    down: Rules | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One entry of status.conditions."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledObject:
    """A ScaledObject; KEDA's defaults are filled in.  ``target`` is ``kind/name``, lower case."""

    namespace: str
    name: str
    target: str
    replicas_min: int = 0
    replicas_max: int = 100
    polling_interval_s: float = 30.0
    triggers: tuple[Trigger, ...] = ()
    fallback: Json | None = None
    behaviour: Behaviour | None = None
    modifiers: bool = False
    paused: bool = False
    hpa_name: str = ""
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of an HPA, and its value of the last sync where there was one.

    Of an AverageValue the HPA shows the value divided by the replicas.
    """

    type: str
    name: str
    target_type: str
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hpa:
    """A HorizontalPodAutoscaler; ``owner`` is the name of the ScaledObject that made it."""

    namespace: str
    name: str
    target: str
    owner: str = ""
    replicas_min: int = 1
    replicas_max: int = 1
    current: int | None = None
    desired: int | None = None
    metrics: tuple[Metric, ...] = ()
    conditions: tuple[Condition, ...] = ()
    behaviour: Behaviour | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePorts:
    """The ports of the Service that a scalerAddress names."""

    address: str
    ports: tuple[int, ...] | Unseen
    missing: bool = False  # the API says that there is no such Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the Kubernetes API told."""

    url: str = ""
    kubernetes_minor: int | None = None
    ahead_s: float | Unseen = field(default_factory=lambda: Unseen(reason="no Date header"))
    access: tuple[Access, ...] = ()
    scaled_objects: tuple[ScaledObject, ...] | Unseen = ()
    hpas: tuple[Hpa, ...] | Unseen = ()
    services: tuple[ServicePorts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One query of the daemon's profile: its rows, or the fault in the server's or our words."""

    rows: int = 0
    fault: str = ""
    names: frozenset[str] = frozenset()  # metric names in the answer, where it has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one configured Prometheus answered about the namespaces it serves.

    Times are on the server's clock.  ``sampled_at_s`` is when each pod was last scraped,
    ``scrape_every_s`` the interval between its scrapes over the last five minutes.
    """

    name: str
    url: str
    namespaces: tuple[str, ...] = ()
    fault: str = ""  # why it could not be asked at all
    now_s: float = 0.0
    ahead_s: float | Unseen = 0.0  # of our clock; unseen where the server did not say
    queries: Mapping[str, Asked] = field(default_factory=dict)
    sampled_at_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    scrapes_in_5m: Mapping[tuple[str, str], float] = field(default_factory=dict)
    elsewhere: Mapping[str, float] | Unseen = field(default_factory=dict)
    # Series of the engines by namespace label, in all of the server; "" has no such label.
    without_pod: float | Unseen = 0.0  # of these, series without a pod label
    ruled: frozenset[str] | Unseen = frozenset()  # namespaces that the recording rules cover
    window_s: float = 60.0
    rules_wanted: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The certificate of a TLS server; ``fault`` is why the handshake failed."""

    of: str
    setting: str
    expires_in_s: float | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one daemon answered on gRPC, as KEDA asks; ``took_s`` is of the slowest call."""

    peer: str  # ip:port
    took_s: float = 0.0
    faults: Mapping[str, str] = field(default_factory=dict)  # "CODE: message" by method
    metric_name: str = ""
    target_size: float = 0.0
    value: float | None = None
    active: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """The answers behind the scalerAddress of one trigger, one for each address it has."""

    address: str
    answers: tuple[Answer, ...] | Unseen = ()
    fault: str = ""  # why nobody could be called: not resolved, refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One target in a daemon's list."""

    name: str  # namespace/name of the ScaledObject or the configured target
    target: str  # kind/name
    status: str
    ready: int | None = None  # replicas, as the daemon counts them
    mode: str = "active"
    faults: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    desired: int | None = None
    published: int | None = None
    age_s: float | None = None
    headline: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One daemon's HTTP port."""

    url: str
    fault: str = ""
    ready: bool = False
    leads: bool | None = None
    tick_s: float = 15.0
    rows: tuple[Row, ...] = ()
    decided_at_s: Mapping[str, float] = field(default_factory=dict)  # by namespace/kind/name
    desired: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One target with everything that belongs to it.

    ``samples`` are what the daemon's own code collects for it, with the daemon's configuration.
    ``faults`` are those of the trigger's metadata.
    """

    namespace: str
    label: str  # kind/name
    scaled_object: ScaledObject | None = None
    trigger: Trigger | None = None
    ref: TargetRef | None = None
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    faults: tuple[str, ...] = ()
    wanted: int | None = None  # spec.replicas
    missing: str = ""  # why the workload or its pods are not known
    samples: TargetSamples | Unseen = field(default_factory=lambda: Unseen(reason="not collected"))
    called: Called | None = None

    @property
    def name(self) -> str:
        """``namespace/kind/name``, for people."""
        return f"{self.namespace}/{self.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that was gathered at ``now_s`` of our clock."""

    now_s: float
    targets: tuple[Target, ...] = ()
    cluster: Cluster | Unseen = field(default_factory=lambda: Unseen(reason="no Kubernetes API"))
    sources: tuple[Source, ...] = ()
    peers: tuple[Peer, ...] | Unseen = field(default_factory=lambda: Unseen(reason="no --url"))
    certificates: tuple[Certificate, ...] = ()
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    outside: bool = False  # of the cluster: addresses of pods and Services may not be reached
    account: str = ""  # whose permissions were asked for; empty: those of who runs this
