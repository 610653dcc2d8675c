"""Faults that concern more than one setting, or what a type and a range cannot say."""

from collections.abc import Collection, Iterator
from datetime import datetime

from scaler.config_models import NestingError, build, nested
from scaler.config_tree import ProfileConfig, ScalerConfig, SourceConfig, SourceType, TargetConfig
from scaler.core.config import BoundsConfig, PolicyConfig
from scaler.errors import ConfigError
from scaler.trigger import DAEMON_WIDE, overlaid, parse

LEVELS = ("debug", "info", "warning", "error")


def cross_faults(config: ScalerConfig) -> list[str]:
    """Every such fault of a configuration whose settings are each in range."""
    profiles = {
        name: list(_profile_faults(config, name, profile))
        for name, profile in config.profiles.items()
    }
    usable = {name for name, faults in profiles.items() if not faults}
    return [
        *_bounds_faults("policy.", config.policy.bounds),
        *_server_faults(config),
        *(
            f"sources.{place}.{fault}"
            for place, source in enumerate(config.sources)
            for fault in _source_faults(source)
        ),
        *(f"profiles.{name}.{fault}" for name in profiles for fault in profiles[name]),
        *(
            f"targets.{place}.{fault}"
            for place, target in enumerate(config.targets)
            for fault in _target_faults(config, target, usable)
        ),
    ]


def _bounds_faults(prefix: str, bounds: BoundsConfig) -> Iterator[str]:
    if bounds.replicas_min > bounds.replicas_max:
        yield (
            f"{prefix}bounds.replicas_min = {bounds.replicas_min}, must be at most "
            f"{prefix}bounds.replicas_max = {bounds.replicas_max}"
        )


def _server_faults(config: ScalerConfig) -> Iterator[str]:
    tls = config.grpc.tls
    if bool(tls.cert_file) != bool(tls.key_file):
        yield "grpc.tls.cert_file and grpc.tls.key_file must be given together"
    if tls.client_ca_file and not tls.cert_file:
        yield "grpc.tls.client_ca_file needs grpc.tls.cert_file and grpc.tls.key_file"
    addresses = {"grpc.address": config.grpc.address, "http.address": config.http.address}
    if config.state.peer_address:
        addresses["state.peer_address"] = config.state.peer_address
    for key, address in addresses.items():
        host, _, port = address.rpartition(":")
        numbered = port.isascii() and port.isdecimal() and int(port) <= 65535
        if not numbered or (not host and key != "http.address"):
            yield f"{key} = {address!r}, must be host:port, port in [0, 65535]"
    if config.log.level not in LEVELS:
        yield f"log.level = {config.log.level!r}, must be one of {', '.join(LEVELS)}"


def _source_faults(source: SourceConfig) -> Iterator[str]:
    if source.type is SourceType.PROMETHEUS and not source.url.startswith(("http://", "https://")):
        yield f"url = {source.url!r}, must be an http or https URL"


def _profile_faults(config: ScalerConfig, name: str, profile: ProfileConfig) -> Iterator[str]:
    try:
        tree = nested(profile.policy)
    except NestingError as error:
        yield f"policy.{error}"
        return
    faults: list[str] = []
    build(PolicyConfig, tree, faults, prefix="policy.")
    yield from faults
    if faults:
        return
    for path in DAEMON_WIDE:
        group, _, leaf = path.rpartition(".")
        if leaf in (tree.get(group, {}) if group else tree):
            yield f"policy.{path} is the same for all targets, must be given as policy.{path}"
    yield from _bounds_faults("policy.", overlaid(config, name, {}).bounds)


def _target_faults(
    config: ScalerConfig, target: TargetConfig, profiles: Collection[str]
) -> Iterator[str]:
    """Faults of one target; a profile that is there and faulty has been told of already."""
    if not target.target:
        yield "target = '', must be KIND/NAME"
    named = target.metadata.get("profile", "")
    if named in profiles or named not in config.profiles:
        try:
            parse({**target.metadata, "target": target.target}, config)
        except ConfigError as error:
            yield from error.faults
    if target.frozen_until and not _is_moment(target.frozen_until):
        yield (
            f"frozen_until = {target.frozen_until!r}, must be a time with its zone, "
            "such as 2027-01-15T08:00:00Z"
        )


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
