"""Regenerating leaves no diff: stubs, reference tables and schemas match their declarations."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from scaler.config import as_tree, from_tree
from scaler.reference import generate as reference

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", sorted(reference.files()))
def test_reference_file_is_what_its_declarations_say(name):
    on_disk = (reference.HERE / name).read_text(encoding="utf-8")
    assert on_disk == reference.files()[name], "run `make generate` and review the diff"


def test_schema_accepts_what_the_loader_accepts_and_refuses_what_it_refuses():
    schema = json.loads((reference.HERE / "config.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(as_tree(from_tree({})), schema)
    wrong = yaml.safe_load("policy: {slo: {ttft_s: -1}}")
    with pytest.raises(jsonschema.ValidationError, match="minimum"):
        jsonschema.validate(wrong, schema)
    with pytest.raises(jsonschema.ValidationError, match="ttft"):
        jsonschema.validate({"policy": {"slo": {"ttft": 1}}}, schema)
