"""The README of the manifests names what there is, and what it names exists."""

import re

import pytest

from tests.manifests.built import MANIFESTS, overlays
from tests.manifests.flags import VERSIONS, faults
from tests.manifests.rules import rules

TEXT = (MANIFESTS / "README.md").read_text(encoding="utf-8")
GUIDES = ("000", "001", "002", "003", "004")
PATH = re.compile(r"`((?:scaler|vllm|storage|gateway|monitoring|overlays|runbooks)/[^`\s]*)`")


def section(guide: str) -> list[list[str]]:
    """The rows of a guide's table."""
    text = TEXT.split(f"### {guide}:", 1)[1].split("\n### ", 1)[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_every_overlay_is_listed_with_its_replica() -> None:
    table = TEXT.split("### Overlays", 1)[1].split("\n## ", 1)[0]
    listed = set(re.findall(r"`([\w.-]+)`", "\n".join(re.findall(r"^\| ([^|]+)\|", table, re.M))))
    top = {name for name in overlays() if "/" not in name}
    assert listed - {"`replica`"} == top


@pytest.mark.parametrize("path", sorted(set(PATH.findall(TEXT))))
def test_paths_exist(path: str) -> None:
    assert (MANIFESTS / path.split(" ", 1)[0]).exists()


def test_links_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    for link in links:
        assert (MANIFESTS / link).is_file(), link


@pytest.mark.parametrize("guide", GUIDES)
def test_every_item_of_a_guide_has_a_place_and_a_reason(guide: str) -> None:
    rows = section(guide)
    assert len(rows) >= 10
    for row in rows:
        assert len(row) == 3, row
        item, place, why = row
        assert item
        assert why, item
        assert place or re.search(r"never existed|default|not deployed", why), item


def test_alerts_named_in_the_tables_exist() -> None:
    known = {rule["alert"] for rule in rules("alert")}
    named = set(re.findall(r"\b(?:VLLM|GPU|Scaler|DCGM)[A-Z]\w+", TEXT)) - {"VLLMTest"}
    assert len(named) > 8
    assert named <= known


def test_the_index_of_runbooks_is_complete() -> None:
    index = (MANIFESTS / "runbooks" / "README.md").read_text(encoding="utf-8")
    pages = {path.stem for path in (MANIFESTS / "runbooks").glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in rules("alert")}
    for rule in rules("alert"):
        name, severity = rule["alert"], rule["labels"]["severity"]
        assert f"| [{name}]({name}.md) | {severity} | {rule['for']} |" in index


def test_runbooks_say_what_to_do() -> None:
    for path in (MANIFESTS / "runbooks").glob("[A-Z]*.md"):
        text = path.read_text(encoding="utf-8")
        if path.stem != "README":
            for part in ("## What it means", "## What to look at", "## What to do"):
                assert len(text.split(part, 1)[1].split("##", 1)[0].strip()) > 30, (path, part)


def test_replacements_of_flags_are_flags() -> None:
    table = TEXT.split("## Flags of the guides", 1)[1].split("\n## ", 1)[0]
    given = set()
    for row in table.splitlines():
        cells = row.strip("|").split("|")
        if row.startswith("| ") and len(cells) == 2:
            given |= set(re.findall(r"`(--[\w-]+)", cells[1]))
    assert "--kv-offloading-size" in given
    for flag in given - {"--local-dir"}:  # that one is hf's
        for version in VERSIONS:
            missing = [one for one in faults({flag: None}, version) if "exist" in one]
            assert not missing
