"""What commands that read Prometheus history share: where it is, which target, which window."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from scaler.config import load
from scaler.config_tree import RecordingRules, ScalerConfig, SourceConfig, SourceType
from scaler.core.config import PolicyConfig
from scaler.errors import ConfigError
from scaler.ops.record_history import Asked
from scaler.signals.dcgm import DcgmReader
from scaler.signals.profiles import PROFILES
from scaler.signals.readers import Readers
from scaler.signals.samples import TargetRef
from scaler.signals.settings import PrometheusSettings, prometheus_settings, serves
from scaler.signals.vllm import VllmReader
from scaler.trigger import parse

F = TypeVar("F", bound=Callable[..., Any])
KINDS = ("deployment", "statefulset", "leaderworkerset")
_TIMEOUT_S = 120.0  # of one request: hours of history are no instant
_BODY_BYTES_MAX = 1 << 30

_OPTIONS = (
    click.option(
        "--prometheus-url", metavar="URL", help="A Prometheus-compatible API; or give --config."
    ),
    click.option(
        "--config",
        "config_path",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The daemon's configuration: its Prometheus source (with TLS and credentials) for the"
        " target's namespace, and its policy.",
    ),
    click.option(
        "--target",
        metavar="NAMESPACE/[KIND/]NAME",
        help="The workload, a deployment unless KIND is given; or --namespace and --model-name.",
    ),
    click.option("-n", "--namespace", help="Of the workload, where --target does not say it."),
    click.option("--model-name", default="", help="model_name of the metrics."),
    click.option("--from", "from_", metavar="TIME", help="RFC 3339, or seconds since 1970."),
    click.option("--to", "to", metavar="TIME", help="The same; not included."),
    click.option(
        "--set",
        "given",
        multiple=True,
        metavar="KEY=VALUE",
        help="Trigger metadata, such as profile=chat or ttftSloSeconds=2. Repeatable.",
    ),
    click.option(
        "--tick-s", type=float, help="How often the daemon looks; the policy's unless given."
    ),
    click.option(
        "--chunk-s",
        type=float,
        default=3600.0,
        show_default=True,
        help="History fetched by one request of each query; less where the server refuses.",
    ),
    click.option("--pod-label", default="pod", show_default=True),
    click.option("--namespace-label", default="namespace", show_default=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the history is, what is asked of it, and who reads it."""

    asked: Asked
    readers: Readers
    policy: PolicyConfig


def history_options(function: F) -> F:
    """Adds the options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def source_of(
    *,
    prometheus_url: str | None,
    config_path: Path | None,
    target: str | None,
    namespace: str | None,
    model_name: str,
    from_: str | None,
    to: str | None,
    given: tuple[str, ...],
    tick_s: float | None,
    chunk_s: float,
    pod_label: str,
    namespace_label: str,
) -> Source:
    """What the options describe.

    Raises:
        ConfigError: naming the option, its value and what is allowed.
    """
    config = load(config_path, environ={}) if config_path else ScalerConfig()
    wanted = _target(target, namespace, model_name)
    settings = _settings(config, wanted, prometheus_url)
    policy = parse(_metadata(given), config).policy
    tick_s = policy.tick_s if tick_s is None else tick_s
    if not 1.0 <= tick_s <= 300.0:
        raise ConfigError(f"--tick-s = {tick_s:g}, must be in [1, 300]")
    readers = Readers(engine=VllmReader(PROFILES[settings.engine]), gpu=DcgmReader())
    asked = Asked(
        target=wanted,
        settings=dataclasses.replace(
            settings, pod_label=pod_label, namespace_label=namespace_label
        ),
        from_s=_time("--from", from_),
        to_s=_time("--to", to),
        tick_s=tick_s,
        chunk_s=chunk_s,
    )
    return Source(asked=asked, readers=readers, policy=policy)


def _time(option: str, text: str | None) -> float:
    """Seconds since 1970 of either form."""
    if text is None:
        raise ConfigError(f"{option} is missing: RFC 3339, or seconds since 1970")
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ConfigError(
            f"{option} = {text!r}, must be RFC 3339 with a zone (2026-03-02T00:00:00Z),"
            " or seconds since 1970"
        )
    return at.timestamp()


def _target(text: str | None, namespace: str | None, model_name: str) -> TargetRef:
    """The workload by its name; without one where it is to be found by its model."""
    if text is None:
        if not namespace or not model_name:
            raise ConfigError(
                "--target is missing: give NAMESPACE/NAME, or --namespace and --model-name"
            )
        return TargetRef(namespace=namespace, kind=KINDS[0], name="", model_name=model_name)
    parts = text.split("/")
    if namespace and parts[0] != namespace:
        parts = [namespace, *parts]
    if len(parts) == 2:
        parts.insert(1, KINDS[0])
    if len(parts) != 3 or not all(parts) or parts[1] not in KINDS:
        raise ConfigError(
            f"--target = {text!r}, must be NAMESPACE/NAME or NAMESPACE/KIND/NAME, KIND one of"
            f" {', '.join(KINDS)}"
        )
    return TargetRef(namespace=parts[0], kind=parts[1], name=parts[2], model_name=model_name)


def _metadata(given: tuple[str, ...]) -> dict[str, str]:
    faults = [f"--set {item!r}, must be KEY=VALUE" for item in given if "=" not in item]
    if faults:
        raise ConfigError(*faults)
    return dict(item.split("=", 1) for item in given)


def _settings(config: ScalerConfig, target: TargetRef, url: str | None) -> PrometheusSettings:
    """The first Prometheus source of the configuration that serves the target, or the URL alone."""
    if url is not None:
        return _prometheus(SourceConfig(url=url))
    for source in config.sources:
        if source.type is SourceType.PROMETHEUS and serves(source.namespaces, target.namespace):
            if source.engine not in PROFILES:
                known = ", ".join(PROFILES)
                raise ConfigError(f"engine = {source.engine!r}, must be one of {known}")
            return _prometheus(source)
    raise ConfigError(
        "--prometheus-url is missing: give it, or a --config with a Prometheus source that serves"
        f" namespace {target.namespace!r}"
    )


def _prometheus(source: SourceConfig) -> PrometheusSettings:
    """With the limits of a long read, from the histograms themselves: no recording rules."""
    return prometheus_settings(
        dataclasses.replace(source, recording_rules=RecordingRules.AUTO),
        source.name or "prometheus",
        timeout_s=_TIMEOUT_S,
        attempt_timeout_s=_TIMEOUT_S,
        max_body_bytes=_BODY_BYTES_MAX,
    )
