"""Write the reference files from the declarations; ``make generate`` runs it."""

import json
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from scaler.config_models import model_of
from scaler.config_tree import (
    KindConfig,
    ProfileConfig,
    ScalerConfig,
    SourceConfig,
    StaticPod,
    TargetConfig,
)
from scaler.core.settings import Declared, declared
from scaler.service.metrics_table import reference as metrics_reference
from scaler.trigger import KEDA_KEYS, OWN_KEYS, metadata_settings

HERE = Path(__file__).parent
_INTRO = """# Settings

Generated from the declarations in `scaler/config_tree.py` and `scaler/core/config.py` by
`make generate`.  A setting is given in the YAML file of `scaler serve --config` at its path, or as
an environment variable (`policy.slo.ttft_s` is `VLLM_SCALER_POLICY__SLO__TTFT_S`).  Those with a
key in the last column may also be given in a trigger's metadata or in a profile.  The tuner moves
exactly the settings marked *tuned*.

"""
_LISTS = {
    "sources[]": SourceConfig(),
    "targets[]": TargetConfig(),
    "targets[].pods[]": StaticPod(),
    "profiles.NAME": ProfileConfig(),
    "kubernetes.kinds[]": KindConfig(),
}
_HEAD = """| setting | default | range | tuned | why | trigger metadata |
|---|---|---|---|---|---|
"""


def files() -> dict[str, str]:
    """Every generated file by name, with its content."""
    return {
        "settings.md": _INTRO + _HEAD + "".join(_rows()) + "\n" + _trigger_section(),
        "config.schema.json": _schema(),
        "metrics.md": "# Metrics of the daemon\n\nGenerated from `scaler/service/metrics_table.py`"
        " by `make generate`.\n\n" + metrics_reference(),
    }


def _rows() -> list[str]:
    keys = {item.path: key for key, item in metadata_settings().items()}
    rows = [
        _row(item, keys.get(item.path.removeprefix("policy."), ""))
        for item in declared(ScalerConfig())
    ]
    for place, items in _LISTS.items():
        rows += [_row(item, "") for item in declared(items, f"{place}.")]
    return rows


def _row(item: Declared, key: str) -> str:
    shown = f"`{key}`" if key and item.path.startswith("policy.") else ""
    tuned = "yes" if item.setting.tune else ""
    return (
        f"| `{item.path}` | {_default(item.default)} | {_range(item)} | {tuned} "
        f"| {item.setting.why} | {shown} |\n"
    )


def _default(value: Any) -> str:
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`" if value else ""
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value != "" else ""


def _range(item: Declared) -> str:
    if isinstance(item.type, type) and issubclass(item.type, Enum):
        return ", ".join(f"`{member.value}`" for member in item.type)
    if item.setting.low is None or item.setting.high is None:
        return ""
    return f"{item.setting.low:g} to {item.setting.high:g}"


def _trigger_section() -> str:
    own = ", ".join(f"`{key}`" for key in OWN_KEYS)
    keda = ", ".join(f"`{key}`" for key in sorted(KEDA_KEYS))
    return (
        "## Trigger metadata\n\n"
        f"Beside the keys of the table: {own}.  Accepted and ignored, because KEDA sends them: "
        f"{keda}.  A key ending in `FromEnv` counts as the key without it.  Anything else is "
        "refused with INVALID_ARGUMENT, naming the key.\n"
    )


def _schema() -> str:
    schema = model_of(typing.cast("Any", ScalerConfig)).model_json_schema()
    schema["title"] = "vllm-scaler configuration"
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write every file."""
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
