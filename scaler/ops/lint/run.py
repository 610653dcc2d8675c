"""The lint: every rule over everything below a directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaler.errors import ConfigError
from scaler.ops.lint import reading
from scaler.ops.lint.bundle import Bundle, bundles
from scaler.ops.lint.flag_rules import RULES as FLAG_RULES
from scaler.ops.lint.flag_rules import check as check_flag
from scaler.ops.lint.metric_rules import RULES as METRIC_RULES
from scaler.ops.lint.metric_rules import check as check_metric
from scaler.ops.lint.model import SEVERITIES, Finding, Rule, Severity
from scaler.ops.lint.monitor_rules import RULES as MONITOR_RULES
from scaler.ops.lint.monitor_rules import check as check_monitor
from scaler.ops.lint.pod_rules import RULES as POD_RULES
from scaler.ops.lint.pod_rules import check as check_pod
from scaler.ops.lint.queries import UNPARSABLE, queries
from scaler.ops.lint.query_rules import RULES as QUERY_RULES
from scaler.ops.lint.query_rules import check as check_query
from scaler.ops.lint.scaling_rules import RULES as SCALING_RULES
from scaler.ops.lint.scaling_rules import check as check_scaling
from scaler.ops.lint.secret_rules import RULES as SECRET_RULES
from scaler.ops.lint.secret_rules import check as check_secret
from scaler.ops.lint.storage_rules import RULES as STORAGE_RULES
from scaler.ops.lint.storage_rules import check as check_storage
from scaler.ops.lint.trigger_rules import RULES as TRIGGER_RULES
from scaler.ops.lint.trigger_rules import check as check_trigger

RULES: tuple[Rule, ...] = (
    reading.UNREADABLE,
    reading.TEMPLATE,
    reading.SHAPELESS,
    UNPARSABLE,
    *METRIC_RULES,
    *QUERY_RULES,
    *MONITOR_RULES,
    *SCALING_RULES,
    *TRIGGER_RULES,
    *POD_RULES,
    *STORAGE_RULES,
    *FLAG_RULES,
    *SECRET_RULES,
)
"""Every rule there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found, the worst first, in how many files and objects."""

    findings: tuple[Finding, ...]
    files: int
    objects: int

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(one.severity is severity for one in self.findings)


def lint(directory: Path, *, gpus_total: int | None = None) -> Report:
    """Check every manifest below ``directory``; ``gpus_total`` is what the cluster has, if known.

    Raises:
        ConfigError: there is no such directory, or no YAML in it.
    """
    if gpus_total is not None and gpus_total < 0:
        raise ConfigError(f"gpus-total = {gpus_total}, must be at least 0")
    read = reading.read(directory)
    findings = [
        *read.findings,
        *(
            finding
            for bundle in bundles(read.documents, gpus_total=gpus_total)
            for finding in _findings(bundle)
        ),
    ]
    unique = dict.fromkeys(findings)  # one query may be wrong in one way in two places of its text
    ordered = sorted(unique, key=_order)
    return Report(findings=tuple(ordered), files=read.files, objects=len(read.documents))


def as_row(finding: Finding) -> Mapping[str, Any]:
    """A finding as machines read it."""
    return {
        "rule": finding.rule.id,
        "severity": finding.severity.value,
        "mistake": finding.rule.mistake or None,
        "heuristic": finding.rule.heuristic,
        "file": finding.place.file,
        "object": finding.place.object,
        "path": finding.place.path,
        "evidence": finding.evidence,
        "says": finding.rule.says,
        "fix": finding.fix,
    }


def as_line(finding: Finding) -> str:
    """A finding as people read it."""
    place = finding.place
    where = " ".join(part for part in (place.file, place.object, place.path) if part)
    return (
        f"{finding.severity.value}: {where}: {finding.evidence}: {finding.rule.says}; "
        f"fix: {finding.fix} [{finding.rule.id}]"
    )


def _findings(bundle: Bundle) -> list[Finding]:
    asked, findings = queries(bundle)
    for ask in (check_metric, check_query, check_scaling, check_trigger):
        findings.extend(ask(bundle, asked))
    for inspect in (check_monitor, check_pod, check_storage, check_flag, check_secret):
        findings.extend(inspect(bundle))
    return findings


def _order(finding: Finding) -> tuple[int, str, str, str, str]:
    place = finding.place
    severity = SEVERITIES[finding.severity]
    return severity, place.file, place.object, place.path, finding.rule.id
