"""ScalerConfig: the one tree of settings of the daemon; every fault reported at once.

Precedence, lowest first: defaults, YAML file, environment (``VLLM_SCALER_POLICY__SLO__TTFT_S=3``),
and for one target its profile, then its trigger metadata.  Loaded once, frozen; its hash is in
every record.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scaler.config_faults import cross_faults
from scaler.config_models import build_rest, faults_of, model_of, nested, unknown_key
from scaler.config_tree import (
    GrpcConfig,
    HistoryConfig,
    HttpConfig,
    KindConfig,
    KubernetesConfig,
    LogConfig,
    LogFormat,
    Presence,
    ProfileConfig,
    RecordingRules,
    RecordsConfig,
    ScalerConfig,
    SourceConfig,
    SourceType,
    StateConfig,
    StaticPod,
    TargetConfig,
    TlsConfig,
)
from scaler.core.settings import declared
from scaler.errors import ConfigError

ENV_PREFIX = "VLLM_SCALER_"
FILE_BYTES_MAX = 1 << 20  # a configuration is a few kilobytes; more is the wrong file
_DATA_FOLDER = "VLLM_SCALER_DATA"  # of tests and benchmarks
# Kubernetes puts the Services of a namespace into the environment of its pods: one that is called
# vllm-scaler becomes VLLM_SCALER_SERVICE_HOST, VLLM_SCALER_PORT_9090_TCP_ADDR and so on.
_SERVICE_LINK = re.compile(
    r"(?!.*__).*_(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)"
)


def load(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> ScalerConfig:
    """The configuration from defaults, file and environment.

    Raises:
        ConfigError: with every fault found, each naming key, value and what is allowed.
    """
    tree = _read(path) if path else {}
    faults: list[str] = []
    _overlay_environment(tree, os.environ if environ is None else environ, faults)
    return from_tree(tree, faults=faults)


def from_tree(tree: Mapping[str, Any], *, faults: list[str] | None = None) -> ScalerConfig:
    """A configuration from nested mappings, as read from YAML.

    Raises:
        ConfigError: with every fault, those passed in included.
    """
    found = list(faults or [])
    built = build_rest(ScalerConfig, tree)
    found.extend(built.faults)
    if built.tree is not None:
        found.extend(fault for fault in cross_faults(built.tree) if not built.doubts(fault))
    if found or built.tree is None:
        raise ConfigError(*found)
    return built.tree


class _Loader(yaml.SafeLoader):
    """YAML whose times stay text, as the settings want them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, shape) for tag, shape in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes: not a configuration")
        loaded = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply to be a configuration") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, holds {type(loaded).__name__}")
    return loaded


def _overlay_environment(
    tree: dict[str, Any], environ: Mapping[str, str], faults: list[str]
) -> None:
    """Put ``VLLM_SCALER_A__B`` at tree["a"]["b"]; values are read as YAML where no text is due."""
    texts = {item.path for item in declared(ScalerConfig()) if item.type is str}
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or name == _DATA_FOLDER or _SERVICE_LINK.fullmatch(name):
            continue
        parts = name.removeprefix(ENV_PREFIX).lower().split("__")
        node: Any = tree
        for part in parts[:-1]:
            node = node.setdefault(part, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            faults.append(f"{name}: {'.'.join(parts[:-1])} is not a group of settings")
            continue
        text = environ[name]
        node[parts[-1]] = text if ".".join(parts) in texts else _from_yaml(text)


def _from_yaml(text: str) -> Any:
    """The value ``text`` stands for; text that is no YAML stands for itself."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError):
        return text


def as_tree(config: Any) -> dict[str, Any]:
    """A settings dataclass as nested plain values, for printing and hashing."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))  # type: ignore[no-any-return]


def config_hash(config: Any) -> str:
    """Twelve hexadecimal digits that identify the settings: equal settings, equal hash."""
    text = json.dumps(config, default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    """A dataclass by its fields, which need no copy to be written; all else as text."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return str(value)


__all__ = [
    "GrpcConfig",
    "HistoryConfig",
    "HttpConfig",
    "KindConfig",
    "KubernetesConfig",
    "LogConfig",
    "LogFormat",
    "Presence",
    "ProfileConfig",
    "RecordingRules",
    "RecordsConfig",
    "ScalerConfig",
    "SourceConfig",
    "SourceType",
    "StateConfig",
    "StaticPod",
    "TargetConfig",
    "TlsConfig",
    "as_tree",
    "config_hash",
    "faults_of",
    "from_tree",
    "load",
    "model_of",
    "nested",
    "unknown_key",
]
