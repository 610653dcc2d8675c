"""The shipped rules, and the series names and expressions in them."""

import re
from functools import cache
from typing import Any

import yaml

from tests.manifests.built import MANIFESTS

MONITORING = MANIFESTS / "monitoring"
RULE_FILES = (
    "recording-rules", "alerts-serving", "alerts-gpu", "alerts-capacity", "alerts-scaler",
)  # fmt: skip
_WORDS = frozenset({
    "sum", "avg", "count", "max", "min", "by", "on", "and", "or", "unless", "without",
    "ignoring", "group_left", "group_right", "rate", "increase", "changes", "absent", "time",
    "bool", "offset", "vector", "scalar", "clamp_min", "clamp_max", "topk", "sort_desc",
    "label_replace", "histogram_quantile", "max_over_time", "min_over_time", "avg_over_time",
    "quantile",
})  # fmt: skip


@cache
def groups() -> tuple[dict[str, Any], ...]:
    """Every group of every rule file."""
    found = []
    for name in RULE_FILES:
        text = (MONITORING / f"{name}.yaml").read_text(encoding="utf-8")
        found += yaml.safe_load(text)["spec"]["groups"]
    return tuple(found)


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules of a kind: ``record`` or ``alert``."""
    return [rule for group in groups() for rule in group["rules"] if kind in rule]


def names_in(expression: str) -> set[str]:
    """The names of series that an expression reads."""
    named = {name for name, _ in _parts(expression) if name}
    for matched in re.findall(r'__name__=~"([^"]+)"', expression):
        named |= set(matched.split("|"))
    return named


def selectors_in(expression: str) -> set[str]:
    """The vector selectors of an expression, label matchers included."""
    return {name + matchers for name, matchers in _parts(expression)}


def _parts(expression: str) -> set[tuple[str, str]]:
    """(name, matchers) of each selector; what stands in quotes is put aside while looking."""
    texts: list[str] = []

    def aside(found: re.Match[str]) -> str:
        texts.append(found[0])
        return f"\x00{len(texts) - 1}\x00"

    bare = re.sub(r'"(?:[^"\\]|\\.)*"', aside, expression)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\[[^\]]*\]|\boffset \w+|\b\d[\w.]*", lambda one: _kept(one[0]), bare)
    found = set()
    for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)?\s*(\{[^}]*\})?", bare):
        if (name or matchers) and name not in _WORDS:
            restored = re.sub(r"\x00(\d+)\x00", lambda one: texts[int(one[1])], matchers)
            found.add((name, restored))
    return found


def _kept(text: str) -> str:
    """Ranges, offsets and numbers are dropped; the places of quoted texts are numbers as well."""
    return text if text.isdecimal() else " "
