"""Kept runs: what a key depends on, what it does not, and files that are whole or not there."""

import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from scaler.core.config import PolicyConfig, SloConfig
from scaler.errors import ScalerError, ScenarioError
from simulations import run_cache
from simulations.lifecycle import ordinal_choice, replicaset_choice
from simulations.presets import PRESETS
from simulations.run_cache import RunCache, being_written, key_of, plain, source_hash
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Policy, Scenario
from simulations.sweep import attainable_one, oracle_one
from simulations.sweep_run import Run, run_one
from simulations.sweep_traces import KEPT_MAX, stored_trace
from simulations.traces import TraceReader

HEADER = "arrival_s,prompt_tokens,output_tokens,class\n"
ROWS = "0.5,100,20,a\n1.25,200,30,b\n7,300,40,a\n"


def _trace(folder: Path, name: str = "trace.csv", rows: str = ROWS) -> Path:
    path = folder / name
    path.write_text(HEADER + rows)
    return path


def _run(folder: Path, path: Path | None = None, **changes: object) -> Run:
    settings: dict[str, object] = {
        "requests": stored_trace(path or _trace(folder), folder=folder / "cache"),
        "model": PRESETS["llama-3.1-8b-h100-tp1"].model,
        "scaled_object": ScaledObjectSpec(replicas_min=1, replicas_max=4),
        "policy": Policy(name="predictive", config=PolicyConfig()),
    }
    scenario = Scenario(**{**settings, **changes})  # type: ignore[arg-type]
    return Run(name="a run", scenario=scenario)


def _config(ttft_s: float) -> PolicyConfig:
    return PolicyConfig(slo=SloConfig(ttft_s=ttft_s))


def test_what_a_run_depends_on_is_in_its_key(tmp_path: Path) -> None:
    key = key_of(run_one, _run(tmp_path))
    model = PRESETS["llama-3.1-8b-h100-tp1"].model
    others = {
        "the trace": _run(tmp_path, _trace(tmp_path, "other.csv", ROWS + "8,1,1,a\n")),
        "a row of it": _run(tmp_path, _trace(tmp_path, "row.csv", ROWS.replace("300", "301"))),
        "the seed": _run(tmp_path, seed=1),
        "the load": _run(tmp_path, load_factor=2.0),
        "the time": _run(tmp_path, until_s=5.0),
        "the model": _run(tmp_path, model=dataclasses.replace(model, max_num_seqs=7)),
        "the bounds": _run(tmp_path, scaled_object=ScaledObjectSpec(replicas_min=1)),
        "the policy": _run(tmp_path, policy=Policy(name="other", config=PolicyConfig())),
        "a setting": _run(tmp_path, policy=Policy(name="predictive", config=_config(1.5))),
        "a knob": _run(tmp_path, policy=Policy(name="predictive", config=PolicyConfig(), knob=2.0)),
    }
    keys = {what: key_of(run_one, run) for what, run in others.items()}
    assert key not in keys.values()
    assert len(set(keys.values())) == len(keys), "all of them are different from each other too"
    assert key_of(attainable_one, _run(tmp_path)) != key, "what is done with it counts as well"


def test_what_changes_no_result_is_not_in_its_key(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = _trace(tmp_path / "elsewhere", "renamed.csv")
    named = dataclasses.replace(_run(tmp_path, moved), name="another name", clock=float)
    assert key_of(run_one, named) == key_of(run_one, _run(tmp_path))


def test_a_key_needs_values_that_say_what_they_are() -> None:
    with pytest.raises(AssertionError, match="object has no place in a key"):
        plain(object())


def test_a_function_counts_by_its_name_and_source() -> None:
    one, other = plain(replicaset_choice), plain(ordinal_choice)
    assert one != other
    assert one == plain(replicaset_choice)
    with pytest.raises(AssertionError, match="no name of its own"):
        plain(lambda: None)


class _Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class _Thing:
    of: Mapping[str, object]
    note: str = field(default="", compare=False)


@dataclass(frozen=True)
class _Other:
    of: Mapping[str, object]


def test_equal_values_are_equal_json_and_others_are_not() -> None:
    thing = _Thing({"b": (1, 2.5), "a": [math.nan, _Colour.RED, None, True]}, note="of no matter")
    same = _Thing({"a": (math.nan, _Colour.RED, None, True), "b": [1, 2.5]})
    assert json.dumps(plain(thing)) == json.dumps(plain(same))
    assert plain(_Thing({"b": 1})) != plain(_Thing({"b": 1.0})), "a count is no measure"
    assert plain(_Thing({"b": "1"})) != plain(_Thing({"b": 1}))
    assert plain(_Thing({})) != plain(_Other({})), "the type counts"


def test_the_source_that_a_function_reaches_is_in_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of three modules: one imports another inside a function, the third for types."""
    package = tmp_path / "reached"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from reached import three\n"
        "def call():\n    from reached import two\n    return two\n"
    )
    (package / "two.py").write_text("VALUE = 1\n")
    (package / "three.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(run_cache, "PACKAGES", ("reached",))

    def now() -> str:
        source_hash.cache_clear()
        return source_hash("reached.one")

    before = now()
    (package / "three.py").write_text("VALUE = 2\n")
    assert now() == before
    (package / "two.py").write_text("VALUE = 2\n")
    changed = now()
    assert changed != before
    (package / "__init__.py").write_text("# a package's own code runs too\n")
    assert now() not in (before, changed)
    source_hash.cache_clear()


def test_a_run_reaches_the_core_and_the_peers_but_no_report_nor_the_oracle() -> None:
    """And the oracle no policy: a changed policy leaves it, and what is attainable, kept."""
    run = set(run_cache._reached(run_one.__module__))
    assert {"scaler.core.policy", "simulations.peers", "simulations.engine"} <= run
    assert not any("report" in n or "oracle" in n or n.startswith("scaler.cli") for n in run)
    oracle = set(run_cache._reached(oracle_one.__module__))
    assert {"simulations.oracle", "simulations.engine"} <= oracle
    assert not {"scaler.core.policy", "simulations.peers", "simulations.run"} & oracle


def test_what_is_put_is_found_and_nothing_else(tmp_path: Path) -> None:
    cache = RunCache(tmp_path)
    assert cache.get("ab12") is None
    cache.put("ab12", "a run", {"gpu_hours": 1.25})
    assert cache.get("ab12") == {"gpu_hours": 1.25}
    assert RunCache(tmp_path).get("ab12") == {"gpu_hours": 1.25}, "by the next command too"
    assert cache.get("ab13") is None
    keeps_nothing = RunCache(None)
    keeps_nothing.put("ab12", "a run", {"gpu_hours": 1.25})
    assert keeps_nothing.get("ab12") is None


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"key": "other", "result": {}}',
        '{"key": "ab12"}',
        '{"key": "ab12", "result": 3}',
    ],
)
def test_a_damaged_file_is_a_run_that_is_not_there(tmp_path: Path, damage: str) -> None:
    cache = RunCache(tmp_path)
    cache.put("ab12", "a run", {"gpu_hours": 1.0})
    (file,) = (tmp_path / "runs").rglob("*.json")
    file.write_text(damage)
    assert cache.get("ab12") is None
    cache.put("ab12", "a run", {"gpu_hours": 2.0})
    assert cache.get("ab12") == {"gpu_hours": 2.0}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError), being_written(path) as draft:
        draft.write_text("half" + "\udc80", encoding="utf-8")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path], "no draft stays"
    with path.open() as reader:
        with being_written(path) as draft:
            draft.write_text("after")
            assert path.read_text() == "before"
        assert reader.read() == "before", "who reads meanwhile has the old one, whole"
    assert path.read_text() == "after"


def test_a_folder_that_cannot_be_written_is_the_worlds_fault(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(ScalerError, match="runs"):
        RunCache(tmp_path).put("ab12", "a run", {})


# Traces


def test_a_stored_trace_is_the_trace(tmp_path: Path) -> None:
    path = _trace(tmp_path)
    for _ in range(2):  # made, then found
        stored = stored_trace(path, folder=tmp_path / "cache")
        (one,), (other,) = list(stored), list(TraceReader(path=path))
        for column in ("arrival_s", "prompt_tokens", "output_tokens", "tenant"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column))
            assert getattr(one, column).dtype == getattr(other, column).dtype
    assert stored.name == "trace.csv"


def test_a_copy_that_has_gone_is_made_again(tmp_path: Path) -> None:
    stored = stored_trace(_trace(tmp_path), folder=tmp_path / "cache")
    for file in (tmp_path / "cache" / "traces").iterdir():
        file.unlink()
    assert sum(len(chunk) for chunk in stored) == 3


@pytest.mark.parametrize("kept_bytes", [None, 0, 140])
def test_a_copy_that_is_torn_is_made_again(tmp_path: Path, kept_bytes: int | None) -> None:
    """Its note alone is left, or an empty file, or one that ends in the middle of the rows."""
    stored = stored_trace(_trace(tmp_path), folder=tmp_path / "cache")
    (copy,) = (tmp_path / "cache" / "traces").glob("*.npy")
    content = copy.read_bytes()
    copy.unlink()
    if kept_bytes is not None:
        assert kept_bytes < len(content)
        copy.write_bytes(content[:kept_bytes])
    assert sum(len(chunk) for chunk in stored) == 3
    assert copy.read_bytes() == content


def test_a_copy_is_not_made_again_of_another_trace(tmp_path: Path) -> None:
    path = _trace(tmp_path)
    stored = stored_trace(path, folder=tmp_path / "cache")
    (copy,) = (tmp_path / "cache" / "traces").glob("*.npy")
    copy.unlink()
    _trace(tmp_path, rows=ROWS + "8,1,3,a\n")
    with pytest.raises(ScenarioError, match="has changed since it was read"):
        list(stored)


def test_skipped_rows_are_counted_also_from_the_copy(tmp_path: Path) -> None:
    path = _trace(tmp_path, rows=ROWS + "8,-1,3,a\n")
    for _ in range(2):
        stored = stored_trace(path, folder=tmp_path / "cache", skip_bad_rows=True)
        assert stored.rows_skipped == 1
    with pytest.raises(ScenarioError, match="line 5"):
        stored_trace(path, folder=tmp_path / "cache")


def test_a_trace_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"no\.csv: cannot be read: No such file"):
        stored_trace(tmp_path / "no.csv", folder=tmp_path)


def test_the_oldest_copies_go(tmp_path: Path) -> None:
    for place in range(KEPT_MAX + 3):
        path = _trace(tmp_path, rows=ROWS + f"8,{place + 1},1,a\n")
        stored_trace(path, folder=tmp_path / "cache")
    kept = list((tmp_path / "cache" / "traces").glob("*.npy"))
    assert len(kept) == KEPT_MAX
