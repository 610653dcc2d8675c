"""Strict JSON Schemas of custom resources, made from their CRDs.

An object with declared properties takes no others, as the API server's own strict field validation
has it.  Rules written in CEL (``x-kubernetes-validations``) are not evaluated here.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no stubs installed

Schema = Mapping[str, Any]


@cache
def validators(folder: Path) -> Mapping[tuple[str, str], Draft202012Validator]:
    """A validator for each (apiVersion, kind) of the CRDs in a folder."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        crd = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)["spec"]
        for version in crd["versions"]:
            key = (f"{crd['group']}/{version['name']}", crd["names"]["kind"])
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
            found[key] = Draft202012Validator(schema)
    return found


def strict(node: Any) -> Any:
    """A structural schema of Kubernetes as JSON Schema that refuses unknown fields."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {
        key: strict(value)
        for key, value in node.items()
        if not key.startswith("x-kubernetes-") and key not in ("nullable", "description", "default")
    }
    if isinstance(node.get("properties"), dict):
        # Names of fields may be any word, "default" and "description" among them.
        made["properties"] = {name: strict(field) for name, field in node["properties"].items()}
    if node.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if node.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    free = node.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in made and "additionalProperties" not in made and not free:
        made["additionalProperties"] = False
    return made
