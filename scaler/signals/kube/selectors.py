"""Label selectors: parsing and matching as Kubernetes does it."""

import re
from collections.abc import Mapping

from scaler.signals.kube import wire
from scaler.signals.kube.records import Requirement, Selector

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^)]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<operator>==?|!=)\s*(?P<value>\S*)$")
_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")


def selector_of(selector: wire.LabelSelector) -> Selector:
    """``spec.selector`` of a workload."""
    return Selector(
        equal=tuple(sorted((selector.match_labels or {}).items())),
        requirements=tuple(
            Requirement(
                key=one.key, operator=one.operator.lower(), values=tuple(sorted(one.values or ()))
            )
            for one in selector.match_expressions or ()
        ),
    )


def parse_selector(text: str) -> Selector:
    """The text form, as in ``status.selector`` of /scale: ``a=b,c in (x, y),!d``.

    Raises ValueError naming the part that is not understood.
    """
    parts = [part.strip() for part in _OUTSIDE_PARENTHESES.split(text) if part.strip()]
    required = [_requirement(part) for part in parts]
    return Selector(
        equal=tuple(sorted((one.key, one.values[0]) for one in required if one.operator == "=")),
        requirements=tuple(one for one in required if one.operator != "="),
    )


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether the labels satisfy every requirement; an empty selector matches nothing."""
    if not selector.equal and not selector.requirements:
        return False
    return all(labels.get(key) == value for key, value in selector.equal) and all(
        _satisfies(one, labels) for one in selector.requirements
    )


def _satisfies(required: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(required.key)
    match required.operator:
        case "in":
            return value is not None and value in required.values
        case "notin":  # a label that is not there satisfies it
            return value is None or value not in required.values
        case "exists":
            return value is not None
        case "doesnotexist":
            return value is None
        case _:  # an operator of a newer API: claiming no pod is safer than claiming all
            return False


def _requirement(part: str) -> Requirement:
    if found := _SET.match(part):
        values = tuple(sorted(value.strip() for value in found["values"].split(",")))
        return Requirement(key=found["key"], operator=found["operator"], values=values)
    if found := _EQUAL.match(part):
        operator = "notin" if found["operator"] == "!=" else "="
        return Requirement(key=found["key"], operator=operator, values=(found["value"],))
    name = part.removeprefix("!").strip()
    if not name or re.search(r"[\s=!()]", name):
        raise ValueError(f"label selector: {part!r} is not understood")
    return Requirement(
        key=name, operator="doesnotexist" if part.startswith("!") else "exists", values=()
    )
