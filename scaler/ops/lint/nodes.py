"""Reading YAML of unknown shape: what is not as expected counts as not there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scaler.core.hpa_spec import parse_quantity
from scaler.errors import ConfigError
from scaler.ops.lint.model import Node


def at(node: Node, *path: str) -> Node:
    """What stands at a path of keys, None where any of it is missing."""
    for key in path:
        if not isinstance(node, Mapping):
            return None
        node = node.get(key)
    return node


def mapping(node: Node, *path: str) -> Mapping[str, Any]:
    """The mapping at a path, an empty one where there is none."""
    found = at(node, *path)
    return found if isinstance(found, Mapping) else {}


def items(node: Node, *path: str) -> Sequence[Any]:
    """The list at a path, an empty one where there is none."""
    found = at(node, *path)
    return found if isinstance(found, list) else []


def text(node: Node, *path: str) -> str:
    """The scalar at a path as text, empty where there is none."""
    found = at(node, *path)
    return str(found) if isinstance(found, str | int | float) else ""


def number(node: Node, *path: str) -> float | None:
    """The number at a path, also from a text or a quantity; None where there is none."""
    found = at(node, *path)
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return None
    try:
        return parse_quantity(str(found))
    except ConfigError:
        return None


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every node with its dotted path, the outermost first."""
    yield path, node
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from walk(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from walk(value, f"{path}.{place}" if path else str(place))
