"""Trigger metadata: strings from KEDA parsed into a target and a policy, at the door.

Metadata wins over the profile, the profile over the daemon's policy.  Nothing given here can
become part of a query: PromQL is the operator's, in the profiles of the configuration.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from scaler.config_models import build, nested, unknown_key
from scaler.config_tree import ScalerConfig
from scaler.core.config import PolicyConfig
from scaler.core.settings import Declared, declared
from scaler.errors import ConfigError

KEDA_KEYS = frozenset(
    {"scalerAddress", "enableTLS", "unsafeSsl", "tlsCertFile", "caCert", "tlsClientCert",
     "tlsClientKey", "metricName", "metricType", "useCachedMetrics"}
)  # fmt: skip
"""Keys that are KEDA's own: they arrive with every call and mean nothing to us."""
KNOWN_KINDS = ("deployment", "statefulset", "leaderworkerset")
OWN_KEYS = ("target", "modelName", "profile")
FROM_ENV = "FromEnv"
VALUE_CHARS_MAX = 512
DAEMON_WIDE = ("tick_s", "freshness.decision_expiry_ticks")
"""Policy settings that one loop and one board have for all targets: no profile may set them."""
OPERATOR_ONLY = (
    *DAEMON_WIDE, "mode", "bounds.", "hpa.kubernetes_minor", "hpa.tolerance_",
)  # fmt: skip
"""Settings a trigger may not set: bounds are the ScaledObject's own, the rest is the operator's."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAME_CHARS_MAX = 253  # a DNS subdomain (RFC 1123), as Kubernetes demands of names


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What a trigger's metadata asks for."""

    kind: str  # empty: the ScaledObject's scaleTargetRef
    name: str
    model_name: str
    profile: str
    policy: PolicyConfig


@cache
def metadata_settings() -> Mapping[str, Declared]:
    """Every policy setting a trigger may give, by its metadata key."""
    return {
        item.metadata_key: item
        for item in declared(PolicyConfig())
        if not item.path.startswith(OPERATOR_ONLY)
    }


@cache
def operators_settings() -> Mapping[str, str]:
    """Paths of the settings that a trigger may not give, by the key they would have."""
    return {
        item.metadata_key: item.path
        for item in declared(PolicyConfig())
        if item.path.startswith(OPERATOR_ONLY)
    }


def relevant(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The entries that are ours, sorted: the part of the metadata that tells triggers apart.

    KEDA resolves ``keyFromEnv`` and keeps the name: it counts as ``key`` unless that is given too.
    """
    own: dict[str, str] = {}
    for key, value in metadata.items():
        if key in KEDA_KEYS:
            continue
        plain = key.removesuffix(FROM_ENV)
        if plain in KEDA_KEYS or (plain != key and plain in metadata):
            continue
        own[plain] = value
    return tuple(sorted(own.items()))


def parse(metadata: Mapping[str, str], config: ScalerConfig) -> Trigger:
    """The trigger that ``metadata`` describes under ``config``.

    Raises:
        ConfigError: with every fault, each naming the key, the value and what is allowed.
    """
    faults: list[str] = []
    own = dict(relevant(metadata))
    settings = metadata_settings()
    tree: dict[str, Any] = {}
    for key, text in own.items():
        if len(text) > VALUE_CHARS_MAX:
            faults.append(f"{key} is longer than {VALUE_CHARS_MAX} characters")
        elif key in settings:
            tree[settings[key].path] = _typed(key, text, settings[key], faults)
        elif key in operators_settings():
            path = operators_settings()[key]
            faults.append(f"{key} = {text!r}, must be set by the operator: policy.{path}")
        elif key not in OWN_KEYS:
            faults.append(unknown_key(key, (*OWN_KEYS, *settings)))
    kind, name = _target(own.get("target", ""), config, faults)
    profile = own.get("profile", "")
    if profile and profile not in config.profiles:
        known = ", ".join(sorted(config.profiles)) or "none are configured"
        faults.append(f"profile = {profile!r}, must be one of: {known}")
    if faults:
        raise ConfigError(*faults)
    return Trigger(
        kind=kind,
        name=name,
        model_name=own.get("modelName", ""),
        profile=profile,
        policy=overlaid(config, profile, tree),
    )


def overlaid(config: ScalerConfig, profile: str, given: Mapping[str, Any]) -> PolicyConfig:
    """The daemon's policy, overlaid by the profile, overlaid by ``given`` (typed, by path)."""
    policy = config.policy
    if profile:
        tree = nested(config.profiles[profile].policy)
        built = build(PolicyConfig, tree, [])
        assert built is not None, "profiles are checked when the configuration is loaded"
        policy = _replaced(policy, {path: _at(built, path) for path in _paths(tree)})
    return _replaced(policy, given)


def _paths(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths of the leaves of nested mappings."""
    found: list[str] = []
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        found += _paths(value, f"{prefix}{key}.") if inner else [f"{prefix}{key}"]
    return found


def _at(settings: Any, path: str) -> Any:
    """The value at a dotted path of a settings dataclass."""
    for part in path.split("."):
        settings = getattr(settings, part)
    return settings


def _replaced(policy: PolicyConfig, values: Mapping[str, Any]) -> PolicyConfig:
    """``policy`` with values put at dotted paths of at most two parts."""
    groups: dict[str, dict[str, Any]] = {}
    changes: dict[str, Any] = {}
    for path, value in values.items():
        group, _, leaf = path.rpartition(".")
        target = groups.setdefault(group, {}) if group else changes
        target[leaf] = value
    for group, leaves in groups.items():
        changes[group] = dataclasses.replace(getattr(policy, group), **leaves)
    return dataclasses.replace(policy, **changes)


def _typed(key: str, text: str, item: Declared, faults: list[str]) -> Any:
    """The value of one setting from its text, checked by the model of its own declaration."""
    found: list[str] = []
    made = build(PolicyConfig, nested({item.path: text.strip()}), found)
    if made is None:
        allowed = found[0].split(", must be ", 1)[-1]
        faults.append(f"{key} = {text!r}, must be {allowed}")
        return None
    return _at(made, item.path)


def _target(text: str, config: ScalerConfig, faults: list[str]) -> tuple[str, str]:
    """``kind/name`` split and checked; two empty strings when no target is given."""
    if not text:
        return "", ""
    kind, _, name = text.partition("/")
    kinds = (*KNOWN_KINDS, *(extra.kind.lower() for extra in config.kubernetes.kinds))
    named = len(name) <= NAME_CHARS_MAX and _NAME.fullmatch(name)
    if kind.lower() not in kinds or not named:
        faults.append(f"target = {text!r}, must be KIND/NAME with KIND one of {', '.join(kinds)}")
        return "", ""
    return kind.lower(), name
