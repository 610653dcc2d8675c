"""Every PromQL expression of a bundle: rules, dashboards, KEDA triggers, adapters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scaler.ops.lint.bundle import Bundle
from scaler.ops.lint.model import Finding, Place, Rule, Severity, found
from scaler.ops.lint.nodes import items, mapping, text, walk
from scaler.ops.lint.promql import Expression, PromqlError, parse
from scaler.ops.lint.reading import Document

UNPARSABLE = Rule(
    id="promql-unreadable",
    mistake=0,
    severity=Severity.ERROR,
    says="the expression is not PromQL",
    fix="try it in Prometheus; nothing in it was checked",
    heuristic=True,
)


class Purpose(StrEnum):
    """What an expression is for."""

    ALERT = "alert"
    RECORD = "record"
    PANEL = "panel"
    TRIGGER = "trigger"
    ADAPTER = "adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One expression; ``held_by`` is what it stands in: the rule, the panel, the trigger."""

    document: Document
    place: Place
    purpose: Purpose
    source: str
    tree: Expression
    held_by: Mapping[str, Any]


def queries(bundle: Bundle) -> tuple[list[Query], list[Finding]]:
    """Every expression, and a finding for each that cannot be read."""
    read, findings = [], []
    for document, path, purpose, source, held_by in _sources(bundle):
        place = document.place.below(path)
        try:
            tree = parse(source)
        except PromqlError as error:
            findings.append(found(UNPARSABLE, place, f"{error}: {source[:120]}"))
            continue
        read.append(
            Query(
                document=document,
                place=place,
                purpose=purpose,
                source=source,
                tree=tree,
                held_by=held_by,
            )
        )
    return read, findings


Source = tuple[Document, str, Purpose, str, Mapping[str, Any]]


def _sources(bundle: Bundle) -> Iterator[Source]:
    for document in bundle.documents:
        if document.kind == "ScaledObject":
            yield from _triggers(document)
        else:
            yield from _expressions(document)


def _triggers(document: Document) -> Iterator[Source]:
    for place, trigger in enumerate(items(document.body, "spec", "triggers")):
        query = text(trigger, "metadata", "query")
        if text(trigger, "type") == "prometheus" and query:
            path = f"spec.triggers.{place}.metadata.query"
            yield document, path, Purpose.TRIGGER, query, mapping(trigger)


def _expressions(document: Document) -> Iterator[Source]:
    """Rules by ``alert`` or ``record``, panels by ``expr`` alone, adapters by their two queries."""
    for path, node in walk(document.body):
        if not isinstance(node, Mapping):
            continue
        if isinstance(node.get("expr"), str | int) and text(node, "expr").strip():
            purpose = Purpose.PANEL
            if "alert" in node:
                purpose = Purpose.ALERT
            elif "record" in node:
                purpose = Purpose.RECORD
            yield document, f"{path}.expr", purpose, text(node, "expr"), node
        if isinstance(node.get("seriesQuery"), str):
            source = text(node, "seriesQuery")
            yield document, f"{path}.seriesQuery", Purpose.ADAPTER, source, node
