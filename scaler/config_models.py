"""pydantic models built from the declarations of settings, and faults in our own words."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from scaler.core.settings import Setting

Tree = TypeVar("Tree")
SHOWN_CHARS_MAX = 200  # of a value in a fault


@cache
def model_of(cls: type[Any]) -> type[BaseModel]:
    """The pydantic model of a settings dataclass: same fields, ranges as constraints, no extras."""
    hints = typing.get_type_hints(cls)
    fields: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        annotation = _annotation(hints[item.name])
        if "setting" not in item.metadata:
            fields[item.name] = (annotation, Field(default_factory=annotation))
            continue
        declared: Setting = item.metadata["setting"]
        limits: dict[str, Any] = {"ge": declared.low, "le": declared.high}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        if item.default_factory is not dataclasses.MISSING:
            given["default_factory"] = item.default_factory
        else:
            given["default"] = item.default
        fields[item.name] = (annotation, Field(description=declared.why, **given))
    config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)
    return create_model(
        cls.__name__, __config__=config, __doc__=(cls.__doc__ or "").split("\n")[0], **fields
    )


def _annotation(hint: Any) -> Any:
    """``hint`` with settings dataclasses replaced by their models and tuples by lists."""
    if dataclasses.is_dataclass(hint):
        return model_of(typing.cast("Any", hint))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return list[_annotation(arguments[0])]  # type: ignore[misc]
    if origin is not None and issubclass(origin, Mapping):
        return dict[str, _annotation(arguments[1])]  # type: ignore[misc]
    assert not isinstance(hint, types.UnionType), f"settings have one type, not {hint}"
    if hint in (int, float):
        return Annotated[hint, BeforeValidator(_no_truth)]
    return hint


def _no_truth(value: Any) -> Any:
    """``value`` unless it is true or false: YAML reads yes, on and no so, and they are no count."""
    if isinstance(value, bool):
        raise ValueError("a number belongs here")  # noqa: TRY004 - pydantic takes it for a fault
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Built(Generic[Tree]):
    """What could be made of a tree of settings: None only where the faults leave nothing to make.

    Wrong values are left at their defaults, so that what they do not touch can be judged too.
    """

    tree: Tree | None
    faults: tuple[str, ...]
    doubtful: tuple[str, ...]  # groups, as ``policy.bounds.``, in which a value is wrong

    def doubts(self, fault: str) -> bool:
        """Whether a fault between settings may come from a default in place of a wrong value."""
        return any(group in fault for group in self.doubtful)


def build_rest(cls: type[Tree], tree: Mapping[str, Any]) -> Built[Tree]:
    """``cls`` from nested mappings, without the values that are wrong."""
    faults: list[str] = []
    made = build(cls, tree, faults)
    if made is not None:
        return Built(tree=made, faults=(), doubtful=())
    places = _wrong_places(cls, tree)
    doubtful = tuple(_group(loc) for loc, known in places if known)
    rest = _without(tree, [loc for loc, _ in places])
    return Built(tree=build(cls, rest, []), faults=tuple(faults), doubtful=doubtful)


def _wrong_places(cls: type[Any], tree: Mapping[str, Any]) -> list[tuple[tuple[Any, ...], bool]]:
    """Where each fault is, and whether there is a setting of that name."""
    try:
        model_of(typing.cast("Any", cls)).model_validate(_named(tree))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        return [(item["loc"], item["type"] != "extra_forbidden") for item in found]
    return []


def _group(loc: tuple[Any, ...]) -> str:
    return "".join(f"{part}." for part in loc[:-1]) or f"{loc[0]}."


def _without(tree: Any, locs: Sequence[tuple[Any, ...]]) -> Any:
    """``tree`` without the entries of mappings at ``locs``; items of lists keep their places."""
    inner: dict[Any, list[tuple[Any, ...]]] = {}
    for loc in locs:
        inner.setdefault(loc[0], []).append(loc[1:])
    if isinstance(tree, Mapping):
        kept = _named(tree)
        return {
            key: _without(value, inner[key]) if key in inner else value
            for key, value in kept.items()
            if () not in inner.get(key, [])
        }
    if isinstance(tree, list):
        return [
            _without(item, [loc for loc in inner[place] if loc]) if place in inner else item
            for place, item in enumerate(tree)
        ]
    return tree


class NestingError(Exception):
    """A dotted path leads through something that is no group of settings."""


def nested(paths: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested mappings; mappings in the input are kept, and merged with paths.

    Raises:
        NestingError: naming a path that leads through a value.
    """
    tree: dict[str, Any] = {}
    for path, value in _leaves(paths):
        node = tree
        *groups, last = path
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise NestingError(f"{'.'.join(path)} = {value!r}, {group} is no group of settings")
        if isinstance(node.get(last), dict) or (last in node and value == {}):
            raise NestingError(f"{'.'.join(path)} = {value!r}, must be a group of settings")
        node[last] = value
    return tree


def _leaves(
    paths: Mapping[Any, Any], prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths of the values that are no mappings, split at their dots."""
    for key, value in paths.items():
        path = (*prefix, *str(key).split("."))
        if isinstance(value, Mapping):
            yield from _leaves(value, path)
        else:
            yield path, value


def build(
    cls: type[Tree], tree: Mapping[str, Any], faults: list[str], prefix: str = ""
) -> Tree | None:
    """``cls`` from nested mappings; None with every fault added to ``faults`` when it is wrong."""
    try:
        model = model_of(typing.cast("Any", cls)).model_validate(_named(tree))
    except ValidationError as error:
        faults.extend(faults_of(error, cls, prefix=prefix))
        return None
    return typing.cast("Tree", _dataclass(cls, model))


def _named(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """``tree`` with text as keys: YAML reads ``1:`` and ``yes:`` as something else."""
    return {str(key): value for key, value in tree.items()}


def _dataclass(cls: Any, model: Any) -> Any:
    """The dataclass of a validated model, recursively."""
    hints = typing.get_type_hints(cls)
    values = {name: _value(hints[name], getattr(model, name)) for name in type(model).model_fields}
    return cls(**values)


def _value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_value(arguments[0], item) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return {key: _value(arguments[1], item) for key, item in value.items()}
    return value


def faults_of(error: ValidationError, cls: type[Any], prefix: str = "") -> list[str]:
    """Every fault of a validation as ``key = value, must be ...``."""
    return [_fault(dict(item), cls, prefix) for item in error.errors(include_url=False)]


def _fault(item: dict[str, Any], cls: type[Any], prefix: str) -> str:
    path = prefix + ".".join(str(part) for part in item["loc"])
    if item["type"] in ("extra_forbidden", "invalid_key"):  # the latter: YAML reads 1: as a number
        return unknown_key(path, _names_beside(item["loc"], cls), prefix)
    shown = repr(item["input"])
    if len(shown) > SHOWN_CHARS_MAX:
        shown = f"{shown[:SHOWN_CHARS_MAX]}..."
    return f"{path} = {shown}, must be {_wanted(_declared_at(item['loc'], cls))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What belongs at a place of the tree; ``setting`` is None for groups and items."""

    hint: Any
    setting: Setting | None = None


def _wanted(place: _Place) -> str:
    """What is allowed, from the declaration: type, range or the values of an enumeration."""
    hint, declared = place.hint, place.setting
    if dataclasses.is_dataclass(hint):
        return "a group of settings"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(str(member.value) for member in hint)
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}
    kind = names.get(hint, "a list" if typing.get_origin(hint) is tuple else "a mapping")
    if declared is None or declared.low is None or declared.high is None:
        return kind
    return f"{kind} in [{declared.low:g}, {declared.high:g}]"


def _declared_at(loc: Iterable[Any], cls: type[Any]) -> _Place:
    """Type and declaration of what belongs at ``loc``: a setting, a group or an item of one."""
    place = _Place(hint=cls)
    for part in loc:
        if not dataclasses.is_dataclass(place.hint):
            arguments = typing.get_args(place.hint)
            if arguments and part != "[key]":
                place = _Place(hint=arguments[0 if isinstance(part, int) else -1])
            continue
        fields = {item.name: item for item in dataclasses.fields(place.hint)}
        hint = typing.get_type_hints(place.hint)[part]
        place = _Place(hint=hint, setting=fields[part].metadata.get("setting"))
    return place


def _names_beside(loc: tuple[Any, ...], cls: type[Any]) -> tuple[str, ...]:
    """Names of the settings in the group that holds ``loc``."""
    current: Any = cls
    for part in loc[:-1]:
        if dataclasses.is_dataclass(current):
            current = typing.get_type_hints(current).get(part)
        elif typing.get_origin(current) is not None:
            current = typing.get_args(current)[0 if isinstance(part, int) else -1]
    if not dataclasses.is_dataclass(current):
        return ()
    return tuple(item.name for item in dataclasses.fields(current))


def unknown_key(path: str, known: Iterable[str], prefix: str = "") -> str:
    """``unknown key 'x'``, with the nearest known one when there is one."""
    known = tuple(known)
    last = path.removeprefix(prefix).rsplit(".", 1)[-1]
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else "known are " + ", ".join(known)
    return f"unknown key {path!r}; {hint}"
