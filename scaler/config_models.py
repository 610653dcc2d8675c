"""pydantic models built from the declarations of settings, and faults in our own words."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from scaler.core.settings import Setting

Tree = TypeVar("Tree")


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
    return hint


def build(
    cls: type[Tree], tree: Mapping[str, Any], faults: list[str], prefix: str = ""
) -> Tree | None:
    """``cls`` from nested mappings; None with every fault added to ``faults`` when it is wrong."""
    try:
        model = model_of(typing.cast("Any", cls)).model_validate(dict(tree))
    except ValidationError as error:
        faults.extend(faults_of(error, cls, prefix=prefix))
        return None
    return typing.cast("Tree", _dataclass(cls, model))


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
    if item["type"] == "extra_forbidden":
        return unknown_key(path, _names_beside(item["loc"], cls), prefix)
    owner = _declared_at(item["loc"], cls)
    groups = ("model_type", "dict_type", "model_attributes_type")
    plain = "a group of settings" if item["type"] in groups else item["msg"].lower()
    wanted = _wanted(owner) if owner else plain
    return f"{path} = {item['input']!r}, must be {wanted}"


def _wanted(owner: tuple[Any, Setting]) -> str:
    """What is allowed, from the declaration: type, range or the values of an enumeration."""
    hint, declared = owner
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(str(member.value) for member in hint)
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}
    kind = names.get(hint, "a list" if typing.get_origin(hint) is tuple else "a mapping")
    if declared.low is None or declared.high is None:
        return kind
    return f"{kind} in [{declared.low:g}, {declared.high:g}]"


def _declared_at(loc: Iterable[Any], cls: type[Any]) -> tuple[Any, Setting] | None:
    """Type and declaration of the setting at ``loc``; None for a group or an item of a list."""
    found: tuple[Any, Setting] | None = None
    current: Any = cls
    for part in loc:
        if not dataclasses.is_dataclass(current):
            if isinstance(part, int) or typing.get_origin(current) is not None:
                current = typing.get_args(current)[-2 if isinstance(part, int) else -1]
            continue
        fields = {item.name: item for item in dataclasses.fields(current)}
        if part not in fields:
            return None
        hint = typing.get_type_hints(current)[part]
        metadata = fields[part].metadata
        found = (hint, metadata["setting"]) if "setting" in metadata else None
        current = hint
    return found


def _names_beside(loc: tuple[Any, ...], cls: type[Any]) -> tuple[str, ...]:
    """Names of the settings in the group that holds ``loc``."""
    current: Any = cls
    for part in loc[:-1]:
        if dataclasses.is_dataclass(current):
            current = typing.get_type_hints(current).get(part)
        elif typing.get_origin(current) is not None:
            current = typing.get_args(current)[-2 if isinstance(part, int) else -1]
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
