"""How a check says what it found: the lint's finding, placed in an installation."""

from scaler.ops.doctor.evidence import Target, Unseen
from scaler.ops.lint.model import Finding, Place, Rule, Severity, found

UNCHECKED = Rule(
    id="not-checked",
    mistake=0,
    severity=Severity.WARNING,
    says="not checked, so nothing is known of it",
    fix="give what is missing and run again",
)


def rule(id_: str, severity: Severity, says: str, fix: str, *, heuristic: bool = False) -> Rule:
    """A rule of the doctor; it belongs to none of the lint's numbered mistakes."""
    return Rule(id=id_, mistake=0, severity=severity, says=says, fix=fix, heuristic=heuristic)


def unchecked(place: Place, what: str, unseen: Unseen, *, fix: str = "") -> Finding:
    """What could not be looked at, told instead of passed."""
    return found(UNCHECKED, place, f"{what} not checked: {unseen.reason}", fix=fix)


def at(part: str, thing: str, path: str = "") -> Place:
    """A part of the installation, a thing in it, a path inside of that."""
    return Place(file=part, object=thing, path=path)


def of(target: Target, path: str = "") -> Place:
    """A target."""
    return at("target", target.name, path)
