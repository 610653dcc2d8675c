"""The simulator as a library: the README's example, and a timeline as arrays and as a table."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import simulations
from simulations.frames import WORDS, columns, table
from simulations.timeline import COLUMNS, Timeline
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate
from simulations.traces import write_trace

EXAMPLE = Path(__file__).with_name("library_use.py")


def timeline() -> Timeline:
    """Three ticks; in the second nothing was seen of the queue."""
    numbers = np.arange(3.0 * len(COLUMNS)).reshape(3, len(COLUMNS))
    numbers[1, COLUMNS.index("waiting")] = np.nan
    return Timeline(
        numbers=numbers,
        decided_by=np.array(["work", "blind", "keep"]),
        faults=np.array(["", "scrape-gap", ""]),
    )


def test_the_example_runs_as_it_is_printed(tmp_path: Path) -> None:
    spec = TraceSpec(
        shape=Shape.CONSTANT, duration_s=300.0, rate_per_s=2.0,
        prompt=Lengths(median_tokens=300.0, p95_tokens=900.0, longest_tokens=2000),
    )  # fmt: skip
    write_trace(tmp_path / "trace.csv.gz", generate(spec, seed=1))
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE), str(tmp_path / "trace.csv.gz")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ".", "PATH": ""},
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    shape = r"(predictive|keda-queue): \d+\.\d\d% within .*, \d+\.\d GPU-hours, peak \d+ replicas"
    assert [bool(re.fullmatch(shape, line)) for line in lines] == [True, True]


def test_columns_are_named_arrays_and_no_copies() -> None:
    made, line = columns(timeline()), timeline()
    assert tuple(made) == (*COLUMNS, *WORDS)
    assert {len(values) for values in made.values()} == {3}
    assert made["at_s"].tolist() == [0.0, len(COLUMNS), 2.0 * len(COLUMNS)]
    assert np.shares_memory(columns(line)["at_s"], line.numbers)
    assert made["decided_by"].tolist() == ["work", "blind", "keep"]


def test_a_table_has_null_for_what_was_not_seen() -> None:
    made = table(timeline())
    assert made.column_names == [*COLUMNS, *WORDS]
    waiting = made.column("waiting").to_pylist()
    place = COLUMNS.index("waiting")
    assert waiting == [place, None, 2.0 * len(COLUMNS) + place]
    assert made.column("faults").to_pylist() == ["", "scrape-gap", ""]
    assert made.column("at_s").null_count == 0


@pytest.mark.parametrize("name", simulations.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(simulations, name).__name__ == name


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = simulations.nothing
