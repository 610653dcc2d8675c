"""Measurements in files: profiles of engine steps, and results of ``vllm bench serve``."""

import csv
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scaler.errors import ConfigError

Floats = npt.NDArray[np.float64]

PROFILE_COLUMNS = (
    "prefill_tokens", "prefill_context", "decode_seqs", "decode_context_per_seq", "step_ms",
)  # fmt: skip
_GROUP_COLUMNS = ("model", "gpu", "tp", "dtype")
_DETAILS = ("start_times", "input_lens", "output_lens", "ttfts", "itls")
_TOTALS = ("completed", "duration", "total_input_tokens", "total_output_tokens", "mean_tpot_ms")


def read_profile(path: Path, wanted: Mapping[str, str]) -> dict[str, Floats]:
    """The columns of the profile's steps, of the one group that ``wanted`` picks.

    Raises:
        ConfigError: the file is none, or holds several groups that nothing tells apart.
    """
    rows = _csv(path)
    missing = [name for name in PROFILE_COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise ConfigError(f"{path}: column {missing[0]} is missing, must have {PROFILE_COLUMNS}")
    rows = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    groups = {
        ", ".join(f"{key}={row[key]}" for key in _GROUP_COLUMNS if key in row) for row in rows
    }
    if len(groups) != 1:
        picked = ", ".join(f"{key}={value}" for key, value in wanted.items()) or "nothing"
        raise ConfigError(
            f"{path}: --where {picked} picks {len(groups)} kinds of replica, must be one;"
            f" they are {'; '.join(sorted(groups)) or 'none'}"
        )
    return {name: _numbers(path, rows, name) for name in PROFILE_COLUMNS}


def _csv(path: Path) -> list[dict[str, str]]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            return list(csv.DictReader(file))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _numbers(path: Path, rows: Sequence[Mapping[str, str]], name: str) -> Floats:
    values = []
    for line, row in enumerate(rows, 2):
        try:
            value = float(row[name])
        except (TypeError, ValueError):
            value = math.nan
        if not value >= 0.0 or math.isinf(value):
            raise ConfigError(f"{path}: row {line}: {name} = {row[name]!r}, must be a number >= 0")
        values.append(value)
    return np.array(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One result file: totals, and the requests where they were saved in detail."""

    name: str
    completed: float
    duration_s: float
    prompt_tokens: float
    output_tokens: float
    tpot_s: float
    requests: Mapping[str, Floats] | None

    @property
    def concurrency(self) -> float:
        """Sequences decoding at a time: tokens per second by seconds per token (Little 1961)."""
        return self.output_tokens / self.duration_s * self.tpot_s


def read_bench(path: Path) -> BenchResult:
    """A result of ``vllm bench serve --save-result``, with ``--save-detailed`` also its requests.

    Raises:
        ConfigError: naming the file and the key that is missing or wrong.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold one JSON object, as vllm bench writes it")
    numbers = {}
    for key in _TOTALS:
        value = found.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(f"{path}: {key} = {value!r}, must be a number above 0")
        numbers[key] = float(value)
    return BenchResult(
        name=path.name,
        completed=numbers["completed"],
        duration_s=numbers["duration"],
        prompt_tokens=numbers["total_input_tokens"],
        output_tokens=numbers["total_output_tokens"],
        tpot_s=numbers["mean_tpot_ms"] / 1e3,
        requests=_requests(path, found),
    )


def _requests(path: Path, found: Mapping[str, Any]) -> dict[str, Floats] | None:
    """Requests in order of arrival; those that failed are left out."""
    lists = [found.get(key) for key in _DETAILS]
    if not all(isinstance(one, list) for one in lists):
        return None
    if len({len(one or ()) for one in lists}) != 1:
        raise ConfigError(f"{path}: {', '.join(_DETAILS)} must be equally long")
    try:
        rows = [
            (start, prompt, output, ttft, ttft + sum(itls))
            for start, prompt, output, ttft, itls in zip(*lists, strict=True)
            if output >= 1 and ttft > 0.0
        ]
        table = np.array(sorted(rows), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {', '.join(_DETAILS)} must hold numbers: {error}") from error
    if not rows:
        return None
    names = ("arrival_s", "prompt_tokens", "output_tokens", "ttft_s", "e2e_s")
    return {name: table[:, place] for place, name in enumerate(names)}
