"""The nouns of the lint: a rule, a place, a finding."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

Node: TypeAlias = Any
"""What YAML may hold anywhere; ``scaler.ops.lint.nodes`` reads it without trusting its shape."""


class Severity(StrEnum):
    """How bad: it breaks or misleads for certain; it will hurt; it is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


SEVERITIES: Mapping[Severity, int] = {level: place for place, level in enumerate(Severity)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One mistake by its name.

    ``mistake`` is the number of the kind of mistake it belongs to, 0 for what is beside the list.
    A ``heuristic`` rule concludes from what is usual, so that a finding may be wrong.
    """

    id: str
    mistake: int
    severity: Severity
    says: str
    fix: str
    heuristic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands: file below the directory, ``Kind/name``, dotted path inside."""

    file: str
    object: str
    path: str = ""

    def below(self, path: str) -> "Place":
        """A place further inside."""
        inner = f"{self.path}.{path}" if self.path and path else self.path or path
        return Place(file=self.file, object=self.object, path=inner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule met: ``evidence`` is the value found, or what is missing."""

    rule: Rule
    severity: Severity
    place: Place
    evidence: str
    fix: str


def found(
    rule: Rule,
    place: Place,
    evidence: str,
    *,
    fix: str = "",
    severity: Severity | None = None,
) -> Finding:
    """A finding with the rule's own severity and fix where no other is given."""
    return Finding(
        rule=rule,
        severity=severity or rule.severity,
        place=place,
        evidence=" ".join(evidence.split()),
        fix=fix or rule.fix,
    )
