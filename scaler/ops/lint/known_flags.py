"""Flags of ``vllm serve``: those that versions were recorded with, and those that came and went."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

Release: TypeAlias = tuple[int, int, int]
RECORDED: Mapping[Release, str] = {
    (0, 32, 0): "vllm-flags-0.32.0.json",
    (0, 33, 0): "vllm-flags-0.33.0.json",
}
"""Versions whose own argument parser was asked for all its flags."""
_SHORT = {
    "-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size", "-q": "--quantization", "-n": "--nnodes", "-r": "--node-rank",
    "-cc": "--compilation-config", "-O": "--optimization-level",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """When a flag existed among the versions that were looked at: ``since <= version < gone_by``.

    ``gone_by`` is None for one that is still there; ``never`` marks one that no version had.
    """

    since: Release
    gone_by: Release | None
    back_in: Release | None
    never: bool
    instead: str

    def exists_in(self, release: Release) -> bool:
        """Whether a version has the flag."""
        if self.never or release < self.since:
            return False
        if self.back_in and release >= self.back_in:
            return True
        return self.gone_by is None or release < self.gone_by


@cache
def recorded(release: Release) -> Mapping[str, Mapping[str, Any]]:
    """All flags of a recorded version: ``takes_value`` and, where there are, ``choices``."""
    read = _read(RECORDED[release])["flags"]
    assert isinstance(read, dict)
    return read


@cache
def histories() -> Mapping[str, History]:
    """Flags that guides use and that not every version has."""
    return {
        name: History(
            since=release(entry.get("since", "0.0")),
            gone_by=release(entry["gone_by"]) if "gone_by" in entry else None,
            back_in=release(entry["back_in"]) if "back_in" in entry else None,
            never=bool(entry.get("never")),
            instead=str(entry["instead"]),
        )
        for name, entry in _read("vllm-flag-history.json").items()
    }


def newest() -> Release:
    """The newest version whose flags are recorded."""
    return max(RECORDED)


def release(text: str) -> Release:
    """``0.11.2`` or ``0.17`` as numbers."""
    parts = [int(part) for part in text.split(".")]
    return parts[0], parts[1], parts[2] if len(parts) > 2 else 0


def full_name(written: str) -> str:
    """A flag as the parser reads it: hyphens, the long form, without a dotted path into a value."""
    if written in _SHORT:
        return _SHORT[written]
    name = re.sub(r"(?<=[A-Za-z0-9])_", "-", written.partition(".")[0])
    return _SHORT.get(name, name)


def takes_value(name: str) -> bool | None:
    """Whether a flag takes a value, None where it is not known."""
    for version in sorted(RECORDED, reverse=True):
        entry = recorded(version).get(name)
        if entry is not None:
            return bool(entry["takes_value"])
    return None


def _read(name: str) -> dict[str, Any]:
    text = (files("scaler.ops.lint") / "data" / name).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
