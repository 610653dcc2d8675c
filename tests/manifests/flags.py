"""Command lines of vLLM servers, and the flags that versions of vLLM have."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from scaler.ops.lint import known_flags
from tests.manifests.built import DATA

VERSIONS = ("0.32.0", "0.33.0")


@cache
def known(version: str) -> Mapping[str, Mapping[str, Any]]:
    """The flags of ``vllm serve`` as its own argument parser lists them."""
    return known_flags.recorded(known_flags.release(version))


@cache
def environment() -> frozenset[str]:
    """The variables that vLLM 0.33.0 reads."""
    return frozenset(json.loads((DATA / "vllm-environment-0.33.0.json").read_text("utf-8")))


def parsed(arguments: Sequence[str]) -> dict[str, str | None]:
    """Flags and their values; every flag here is written as one word, ``--flag=value``."""
    found: dict[str, str | None] = {}
    for word in arguments:
        if word.startswith("--"):
            flag, _, value = word.partition("=")
            assert flag not in found, f"{flag} is given twice: the last one wins in silence"
            found[flag] = value if "=" in word else None
    return found


def faults(flags: Mapping[str, str | None], version: str) -> list[str]:
    """What a version of vLLM would refuse; an unknown flag ends the process with status 2."""
    found = []
    for flag, value in flags.items():
        entry = known(version).get(flag)
        if entry is None:
            found.append(f"{flag} does not exist in {version}")
        elif entry["takes_value"] != (value is not None):
            found.append(f"{flag} {'needs a' if entry['takes_value'] else 'takes no'} value")
        elif "choices" in entry and value not in entry["choices"]:
            found.append(f"{flag}={value} is none of {entry['choices']}")
    return found
