"""Which metrics vLLM has, had and never had, by name."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from scaler.ops.lint.known_flags import Release, release

_ENDS = ("_bucket", "_sum", "_count", "_created")
PREFIX = "vllm:"


@cache
def _data() -> Mapping[str, Any]:
    text = (files("scaler.ops.lint") / "data" / "vllm-metrics.json").read_text(encoding="utf-8")
    found: Mapping[str, Any] = json.loads(text)
    return found


def base(name: str) -> str:
    """A histogram's name without the ending of one of its series."""
    for end in _ENDS:
        if name.endswith(end):
            return name.removesuffix(end)
    return name


def never_existed(name: str) -> str | None:
    """What to read instead of a name that no version exports; None for any other name."""
    instead = _data()["never"].get(name) or _data()["never"].get(base(name))
    return str(instead) if instead else None


def gone(name: str) -> tuple[Release, str] | None:
    """From which version on a name is gone, and what replaces it; None for any other name."""
    entry = _data()["gone"].get(base(name))
    return (release(entry["gone_by"]), str(entry["instead"])) if entry else None


def exists(name: str) -> bool:
    """Whether the newest version may export a name."""
    known = _data()
    stem = base(name)  # of a counter's _created too, which stands beside its _total
    return not {stem, f"{stem}_total"}.isdisjoint(known["present"]) or name.startswith(
        tuple(known["present_prefixes"])
    )


def with_colon(name: str) -> str:
    """``vllm_x`` as vLLM itself would write it; other names as they are."""
    return PREFIX + name.removeprefix("vllm_") if name.startswith("vllm_") else name
