"""Frozen dataclasses, made at a fraction of their price.

A frozen dataclass sets each field through ``object.__setattr__``, and the call of a class packs its
keywords into a dictionary: a noun of twelve fields takes 1.5 us, and a decision makes fifty nouns.
A function that fills the slots of a twin, which is not frozen, and then hands the twin out as the
class that was asked for, takes 0.2 us.
"""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, ParamSpec, TypeVar

Fields = ParamSpec("Fields")
Noun = TypeVar("Noun")


def maker(noun: Callable[Fields, Noun]) -> Callable[Fields, Noun]:
    """A function that takes what ``noun``, a frozen and slotted dataclass, takes, and makes one.

    Fields with a default factory must be given: the function has no factories.  What it makes
    cannot be told from what the class makes.
    """
    made: Callable[Fields, Noun] = gatherer(noun)
    return made


def gatherer(noun: Callable[Fields, Noun], *parts: tuple[str, ...]) -> Callable[..., Noun]:
    """``maker`` for a noun of many fields, some of which are taken over from other nouns.

    The function takes a noun for each of ``parts``, which names the fields to take over from it,
    and all the other fields as keywords: one that is forgotten is an error, not its default.  A
    call whose positions and twice whose keywords are more than 30 would not do: CPython packs so
    many into a dictionary and unpacks them again, which takes as long as five nouns.
    """
    values, known = {name: name for name in _slots(noun)}, {}
    for place, part in enumerate(parts):
        for name in part:
            assert values[name] == name, f"{name} is taken over twice"
            values[name] = f"_part{place}.{name}"
    parameters = [f"_part{place}" for place in range(len(parts))] + ["*"]
    for item in fields(noun):  # type: ignore[arg-type]  # _slots has found it to be a dataclass
        if values[item.name] == item.name:
            known[f"_{item.name}"] = item.default
            default = "" if parts or item.default is MISSING else f" = _{item.name}"
            parameters.append(f"{item.name}{default}")
    return _compiled(noun, parameters, values, known)


def changer(noun: Callable[Fields, Noun]) -> Callable[..., Noun]:
    """``dataclasses.replace`` for a noun as ``maker`` takes it, at a fraction of its price.

    The function takes one such noun, and the fields that another one has otherwise.
    """
    names = _slots(noun)
    values = {name: f"_of.{name} if {name} is _kept else {name}" for name in names}
    parameters = ["_of", "*", *[f"{name} = _kept" for name in names]]
    return _compiled(noun, parameters, values, {"_kept": object()})


def _compiled(
    noun: Callable[Fields, Noun],
    parameters: list[str],
    values: dict[str, str],
    known: dict[str, Any],
) -> Callable[..., Noun]:
    """The function of ``parameters`` that gives each slot of a ``noun`` its value."""
    lines = [
        f"def make({', '.join(parameters)}):",
        "    made = _twin()",
        *[f"    made.{name} = {value}" for name, value in values.items()],
        "    made.__class__ = _noun",
        "    return made",
    ]
    known |= {"_noun": noun, "_twin": type("Twin", (), {"__slots__": _slots(noun)})}
    name = f"<maker of {getattr(noun, '__name__', noun)}>"
    exec(compile("\n".join(lines), name, "exec"), known)  # noqa: S102 - as dataclasses do: only names of fields are in it
    made: Callable[..., Noun] = known["make"]
    return made


def _slots(noun: object) -> tuple[str, ...]:
    assert isinstance(noun, type)
    assert not hasattr(noun, "__post_init__"), noun
    slots: tuple[str, ...] = noun.__dict__["__slots__"]
    return slots
