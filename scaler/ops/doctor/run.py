"""The doctor: everything gathered once, every check over it, the worst first."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scaler.ops.doctor import keda_checks, service_checks, source_checks, target_checks
from scaler.ops.doctor.evidence import Evidence
from scaler.ops.doctor.findings import UNCHECKED
from scaler.ops.doctor.gather import Request, gather
from scaler.ops.lint.model import SEVERITIES, Finding, Severity

CHECKS = (target_checks.check, source_checks.check, keda_checks.check, service_checks.check)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found, the worst first, over how much."""

    findings: tuple[Finding, ...]
    targets: int
    sources: int
    daemons: int

    def count(self, severity: Severity) -> int:
        """Findings of one severity; what was not checked is counted apart."""
        return sum(one.severity is severity and one.rule is not UNCHECKED for one in self.findings)

    @property
    def unchecked(self) -> int:
        """Checks that could not be made."""
        return sum(one.rule is UNCHECKED for one in self.findings)

    def summary(self) -> str:
        """One line."""
        counts = ", ".join(f"{self.count(severity)} {severity.value}" for severity in Severity)
        return (
            f"{self.targets} targets, {self.sources} Prometheus, {self.daemons} daemons: "
            f"{counts}, {self.unchecked} not checked"
        )


def examine(request: Request) -> Report:
    """Look at a live installation and judge it.

    Raises:
        ConfigError: where the configuration or the kubeconfig is wrong, or no target is of the
            name asked for.
    """
    return judge(asyncio.run(gather(request)))


def judge(evidence: Evidence) -> Report:
    """Every check over what was seen."""
    findings = dict.fromkeys(one for check in CHECKS for one in check(evidence))
    return Report(
        findings=tuple(sorted(findings, key=_order)),
        targets=len(evidence.targets),
        sources=len(evidence.sources),
        daemons=len(evidence.peers) if isinstance(evidence.peers, tuple) else 0,
    )


def as_row(finding: Finding) -> Mapping[str, Any]:
    """A finding as machines read it."""
    return {
        "rule": finding.rule.id,
        "severity": finding.severity.value,
        "checked": finding.rule is not UNCHECKED,
        "heuristic": finding.rule.heuristic,
        "part": finding.place.file,
        "object": finding.place.object,
        "path": finding.place.path,
        "evidence": finding.evidence,
        "says": finding.rule.says,
        "fix": finding.fix,
    }


def _order(finding: Finding) -> tuple[int, bool, str, str, str]:
    place = finding.place
    severity = SEVERITIES[finding.severity]
    return severity, finding.rule is UNCHECKED, place.file, place.object, finding.rule.id
