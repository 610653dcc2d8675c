"""The shipped dashboards and the expressions in them."""

import json
from collections.abc import Iterator
from typing import Any

from tests.manifests.built import MANIFESTS

FOLDER = MANIFESTS / "monitoring" / "dashboards"
NAMES = ("vllm-serving", "vllm-scaler")
# What Grafana puts in place of the variables when everything is chosen.
_VARIABLES = {
    "$__rate_interval": "5m",
    "$namespace": ".+",
    "$model_name": ".+",
    "$workload": ".+",
    "$target_namespace": ".+",
    "$target": ".+",
    "$lead": "3m",
}


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def panels(name: str) -> list[dict[str, Any]]:
    """Its panels, without the rows that group them."""
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """``dashboard: panel`` and each expression, with variables replaced."""
    for name in NAMES:
        for panel in panels(name):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", replaced(target["expr"])


def replaced(expression: str) -> str:
    """An expression as Grafana would send it; the longest variable first."""
    for variable in sorted(_VARIABLES, key=len, reverse=True):
        expression = expression.replace(variable, _VARIABLES[variable])
    assert "$" not in expression, f"an unknown variable: {expression}"
    return expression
