"""YAML with comments, for files that people will read and keep."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import yaml

Node: TypeAlias = "Mapping[str, Node] | Sequence[Node] | str | int | float | bool"


def dump(document: Mapping[str, Node], comments: Mapping[str, str]) -> str:
    """``document`` in block style; ``comments`` stand behind the lines at their dotted paths."""
    assert set(comments) <= set(_paths(document, "")), "a comment belongs to a line"
    return "\n".join(_lines(document, "", comments)) + "\n"


def _paths(node: Node, path: str) -> Iterator[str]:
    yield path
    for key, value in _items(node):
        yield from _paths(value, f"{path}.{key}" if path else key)


def _items(node: Node) -> Iterator[tuple[str, Node]]:
    if isinstance(node, Mapping):
        yield from node.items()
    elif not isinstance(node, str) and isinstance(node, Sequence):
        yield from ((str(place), value) for place, value in enumerate(node))


def _lines(node: Node, path: str, comments: Mapping[str, str]) -> Iterator[str]:
    """Lines of a mapping or a list that is not empty, without indentation."""
    for key, value in _items(node):
        inner = f"{path}.{key}" if path else key
        head = f"{key}:" if isinstance(node, Mapping) else "-"
        said = f" # {comments[inner]}" if inner in comments else ""
        if isinstance(value, str) and "\n" in value:
            yield f"{head} |-{said}"
            yield from (f"  {line}" if line else "" for line in value.split("\n"))
        elif isinstance(value, str | int | float) or not value:
            yield f"{head} {_scalar(value)}{said}"
        elif head == "-":
            first, *rest = _lines(value, inner, comments)
            yield f"- {first}"
            yield from (f"  {line}" if line else "" for line in rest)
        else:
            yield f"{head}{said}"
            yield from (f"  {line}" if line else "" for line in _lines(value, inner, comments))


def _scalar(value: Node) -> str:
    """One value on one line, in quotes where YAML would read it as something else."""
    text: str = yaml.safe_dump(value, width=10**6, default_flow_style=True, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
