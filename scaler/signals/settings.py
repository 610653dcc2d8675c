"""What an operator may set of a source of samples; each class is one source.

The configuration tree builds these.  A value that cannot work is refused at construction, every
fault at once, so that nothing wrong survives until the first collection.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from scaler.config import RecordingRules, SourceConfig
from scaler.errors import ConfigError
from scaler.signals.samples import PodRef, TargetRef

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
ATTEMPT_TIMEOUT_S = 4.0
BODY_BYTES_MAX = 64 * 1024 * 1024
RECORDED_WINDOW_S = 60.0  # the shipped rules record increase1m and nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSettings:
    """One Prometheus-compatible API.

    ``timeout_s`` bounds a whole collection, ``attempt_timeout_s`` one request in it.  ``settle_s``
    is how far in the past the queries are evaluated, so that a scrape that is being stored is seen
    whole or not at all.  ``headers`` are static (a tenant id) and are never printed.
    ``pod_label`` and ``namespace_label`` differ from the defaults where relabelling named them
    otherwise.

    Raises:
        ConfigError: with every fault found, each naming key, value and allowed range.
    """

    url: str
    name: str = "prometheus"
    namespaces: tuple[str, ...] = ("*",)  # globs; which namespaces it serves
    engine: str = "vllm"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    token_file: str = ""
    username: str = ""
    password_file: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 8.0
    attempt_timeout_s: float = ATTEMPT_TIMEOUT_S
    retry_backoff_s: float = 0.2
    queries_in_flight: int = 2
    failures_to_open: int = 3  # failed collections in a row, after which nothing is retried
    window_s: float = RECORDED_WINDOW_S  # of the histograms
    settle_s: float = 1.0
    recording_rules: RecordingRules = RecordingRules.AUTO
    probe_every_s: float = 300.0  # how often the recording rules are looked for
    gpu: bool = True  # whether DCGM metrics are asked of this source
    max_body_bytes: int = BODY_BYTES_MAX
    pod_label: str = "pod"
    namespace_label: str = "namespace"

    def __post_init__(self) -> None:
        _raise_all(_prometheus_faults(self))

    def serves(self, target: TargetRef) -> bool:
        """Whether this source is asked about a target."""
        return serves(self.namespaces, target.namespace)


def prometheus_settings(
    source: SourceConfig,
    name: str,
    *,
    timeout_s: float | None = None,
    attempt_timeout_s: float = ATTEMPT_TIMEOUT_S,
    max_body_bytes: int = BODY_BYTES_MAX,
) -> PrometheusSettings:
    """The settings of a configured source, whoever asks it; its own ``timeout_s`` unless given.

    Raises:
        ConfigError: with every fault of them.
    """
    return PrometheusSettings(
        url=source.url,
        name=name,
        namespaces=source.namespaces,
        engine=source.engine,
        ca_file=source.ca_file,
        cert_file=source.cert_file,
        key_file=source.key_file,
        token_file=source.token_file,
        username=source.username,
        password_file=source.password_file,
        headers=source.headers,
        timeout_s=source.timeout_s if timeout_s is None else timeout_s,
        attempt_timeout_s=attempt_timeout_s,
        window_s=source.window_s,
        recording_rules=source.recording_rules,
        max_body_bytes=max_body_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeSettings:
    """Reading the pages of pods and DCGM exporters directly.

    ``timeout_s`` bounds a whole collection, ``pod_timeout_s`` one page with its retry.
    ``dcgm_urls`` are pages of DCGM exporters; they are fetched once per collection, not per target.
    ``pods`` are static endpoints, for targets of which no Kubernetes API says which pods they have.

    Raises:
        ConfigError: with every fault found, each naming key, value and allowed range.
    """

    name: str = "scrape"
    namespaces: tuple[str, ...] = ("*",)
    engine: str = "vllm"
    path: str = "/metrics"
    timeout_s: float = 8.0
    pod_timeout_s: float = 4.0
    pages_in_flight: int = 64
    max_page_bytes: int = 8 * 1024 * 1024
    dcgm_urls: tuple[str, ...] = ()
    pods: tuple[PodRef, ...] = ()

    def __post_init__(self) -> None:
        _raise_all(_scrape_faults(self))

    def serves(self, target: TargetRef) -> bool:
        """Whether this source is asked about a target."""
        return serves(self.namespaces, target.namespace)


def serves(globs: tuple[str, ...], namespace: str) -> bool:
    """Whether one of the globs matches the namespace (upper and lower case differ)."""
    return any(fnmatchcase(namespace, glob) for glob in globs)


def _raise_all(faults: Iterator[str]) -> None:
    found = tuple(faults)
    if found:
        raise ConfigError(*found)


def _prometheus_faults(settings: PrometheusSettings) -> Iterator[str]:
    yield from _url_faults("url", settings.url)
    yield from _range_faults("timeout_s", settings.timeout_s, low=0.05, high=300.0)
    yield from _range_faults("attempt_timeout_s", settings.attempt_timeout_s, low=0.05, high=300.0)
    yield from _range_faults("retry_backoff_s", settings.retry_backoff_s, low=0.0, high=60.0)
    yield from _range_faults("queries_in_flight", settings.queries_in_flight, low=1, high=64)
    yield from _range_faults("failures_to_open", settings.failures_to_open, low=1, high=1000)
    yield from _range_faults("window_s", settings.window_s, low=1.0, high=3600.0)
    yield from _range_faults("settle_s", settings.settle_s, low=0.0, high=60.0)
    yield from _range_faults("probe_every_s", settings.probe_every_s, low=1.0, high=86_400.0)
    yield from _range_faults("max_body_bytes", settings.max_body_bytes, low=1024, high=2**31)
    if settings.window_s != int(settings.window_s):
        yield f"window_s = {settings.window_s!r}, must be a whole number of seconds"
    if settings.recording_rules is RecordingRules.ALWAYS and settings.window_s != RECORDED_WINDOW_S:
        yield f"window_s = {settings.window_s!r}, must be 60 with recording_rules = always"
    for key in ("pod_label", "namespace_label"):
        if not _LABEL.fullmatch(getattr(settings, key)):
            yield f"{key} = {getattr(settings, key)!r}, must be a Prometheus label name"
    if bool(settings.cert_file) != bool(settings.key_file):
        yield "cert_file and key_file must be given together"
    if bool(settings.username) != bool(settings.password_file):
        yield "username and password_file must be given together"
    if settings.token_file and settings.username:
        yield "token_file and username cannot both be given: one request has one Authorization"
    yield from _header_faults(settings.headers)


def _scrape_faults(settings: ScrapeSettings) -> Iterator[str]:
    yield from _range_faults("timeout_s", settings.timeout_s, low=0.05, high=300.0)
    yield from _range_faults("pod_timeout_s", settings.pod_timeout_s, low=0.05, high=300.0)
    yield from _range_faults("pages_in_flight", settings.pages_in_flight, low=1, high=1024)
    yield from _range_faults("max_page_bytes", settings.max_page_bytes, low=1024, high=2**30)
    if not settings.path.startswith("/"):
        yield f"path = {settings.path!r}, must begin with /"
    for index, url in enumerate(settings.dcgm_urls):
        yield from _url_faults(f"dcgm_urls[{index}]", url)


def _range_faults(key: str, value: float, *, low: float, high: float) -> Iterator[str]:
    if not low <= value <= high:
        yield f"{key} = {value!r}, must be in [{low:g}, {high:g}]"


def _url_faults(key: str, url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError as fault:
        yield f"{key} is not a URL: {fault}"
        return
    if parts.username is not None or parts.password is not None:
        # The value is left out on purpose: it holds a password.
        yield f"{key} must not carry credentials; use username and password_file"
    elif parts.scheme not in ("http", "https") or not host:
        yield f"{key} = {url!r}, must begin with http:// or https:// and name a host"
    if parts.query or parts.fragment:
        yield f"{key} must not carry a query or a fragment"


def _header_faults(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            yield f"headers: {name!r} is not a header name"
        elif not value.isprintable() or value != value.strip():
            yield f"headers.{name} must be one line of printable text (value not shown)"
