"""One self-contained HTML page: scripts, styles and data inside, nothing fetched from anywhere.

Scripts are the modules of ``scaler.charts`` and ``simulations.report_assets``, joined in order of
dependence into one; the page's own policy lets exactly these bytes run, and no request leave.
"""

import base64
import hashlib
import html
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from scaler import charts

KIT = ("dom.js", "theme.js", "scales.js", "series.js", "canvas.js", "export.js")
TIME_CHARTS = (*KIT, "panels.js", "overview.js", "charts.js")
XY_CHARTS = (*KIT, "scatter.js")
DIGITS = 5  # significant; a screen shows three or four
_IMPORT = re.compile(r'^import\s[^;]*?from\s"\./[\w.]+";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|let|class|function|async) )", re.MULTILINE)


def page(
    *,
    title: str,
    data: Mapping[str, Any],
    kit: Sequence[str],
    scripts: Sequence[str],
) -> str:
    """The page: ``kit`` names files of ``scaler.charts``, ``scripts`` of ``report_assets``.

    ``data`` is JSON-like, its NaN become null; scripts find it through ``payload()``.
    """
    style = charts.asset("charts.css").decode() + _own("report.css")
    script = joined([*(charts.asset(name).decode() for name in kit), *map(_own, scripts)])
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=True)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="vllm-scaler">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
<main id="main"><p class="empty">This report needs JavaScript. It loads nothing.</p></main>
<script type="application/octet-stream" id="data">{packed(data)}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def joined(modules: Sequence[str]) -> str:
    """Modules in order of dependence as one: each sees the names of those before it."""
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", text)) for text in modules)


def packed(data: Mapping[str, Any]) -> str:
    """Deflated JSON in base64: the columns of two days take about a megabyte."""
    text = json.dumps(finite(data), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode("ascii")


def finite(value: Any) -> Any:
    """``value`` with null where a number is not finite: JSON knows no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def column(values: npt.NDArray[np.float64], digits: int = DIGITS) -> list[float | int | None]:
    """A column as JSON has it shortest: whole numbers as integers, null where nothing was seen."""
    return [_short(value, digits) for value in values.tolist()]


def _short(value: float, digits: int) -> float | int | None:
    if not math.isfinite(value):
        return None
    if value.is_integer():
        return int(value)
    return float(f"{value:.{digits}g}")


def _own(name: str) -> str:
    folder = resources.files("simulations.report_assets")
    return folder.joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
