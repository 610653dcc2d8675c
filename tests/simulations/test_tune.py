"""The search: reproducible, resumable, blind to what is held out."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaler.core.config import PolicyConfig
from scaler.errors import ScalerError, ScenarioError
from simulations.executor import SerialExecutor, executor
from simulations.run import simulate
from simulations.tune import tune
from simulations.tune_found import Found
from simulations.tune_parts import Role, split, total
from simulations.tune_run import Rivals, TrialJob, hopeless, play
from simulations.tune_search import Study
from simulations.tune_space import applied, space
from tests.simulations.tune_cases import DURATION_S, Silent, outcome, plan, requests, scenario

optuna = pytest.importorskip("optuna", reason="the search needs the extra tune")
ONE = "one.csv.gz"


@pytest.fixture(name="one", scope="module")
def _one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("traces")
    return {ONE: scenario(folder, ONE, requests(5, rate_per_s=10.0))}


@pytest.fixture(name="found", scope="module")
def _found(one: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Found:
    storage = tmp_path_factory.mktemp("study") / "s.journal"
    return tune(plan(one, storage, trials=20), SerialExecutor(), Silent())


def _trials(found: Found) -> list[Any]:
    return [(one["number"], one["settings"], one["train"]) for one in found.front["trials"]]


KILLED = """
import os, signal, sys
from pathlib import Path
from simulations.executor import SerialExecutor
from simulations.tune import tune
from tests.simulations.tune_cases import Silent, plan, requests, scenario

class Killed(Silent):
    def tried(self, tried, front, *, ran):
        if ran == 11:  # in the middle of the second batch
            os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
one = scenario(folder, "one.csv.gz", requests(5, rate_per_s=10.0))
tune(plan({"one.csv.gz": one}, folder / "s.journal", trials=20), SerialExecutor(), Killed())
"""


def test_the_defaults_are_the_first_trial(found: Found) -> None:
    first = found.front["trials"][0]
    assert first["number"] == 0
    assert first["settings"] == {item["name"]: item["default"] for item in found.front["settings"]}
    assert found.front["defaults"] == first
    assert first["held_out"] is not None


def test_both_parts_of_every_member_of_the_front_are_reported(found: Found) -> None:
    members = [one for one in found.front["trials"] if one["on_front"]]
    assert members
    assert all(one["held_out"] is not None for one in members)
    assert (found.front["train_hours"], found.front["held_out_hours"]) == pytest.approx(
        (800.0 / 3600.0, 400.0 / 3600.0)
    )
    assert len(found.front["trials"]) + found.given_up == 20


def test_the_same_seed_finds_the_same(one: dict[str, Any], found: Found, tmp_path: Path) -> None:
    again = tune(plan(one, tmp_path / "s.journal", trials=20), SerialExecutor(), Silent())
    assert again == found
    other = tune(plan(one, tmp_path / "o.journal", trials=3, seed=1), SerialExecutor(), Silent())
    assert _trials(other)[0] == _trials(found)[0], "the defaults"
    assert _trials(other)[1] != _trials(found)[1]


def test_more_processes_find_the_same(one: dict[str, Any], found: Found, tmp_path: Path) -> None:
    with executor(workers=2) as two:
        first = tune(plan(one, tmp_path / "s.journal", trials=8), two, Silent())
    alone = [trial for trial in _trials(found) if trial[0] < 8]
    assert _trials(first) == alone


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(
    one: dict[str, Any], found: Found, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    repository = Path(__file__).resolve().parents[2]
    killed = subprocess.run(command, check=False, cwd=repository, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    asked = plan(one, tmp_path / "s.journal", trials=20)
    watcher = Silent()
    resumed = tune(asked, SerialExecutor(), watcher)
    assert watcher.ran == list(range(1, 10)), "eleven were kept"
    assert resumed == found
    again = Silent()
    assert tune(asked, SerialExecutor(), again) == resumed
    assert (again.ran, again.confirmed) == ([], 0), "all of it was kept"


@pytest.mark.parametrize("name", ["s.journal", "s.db"])
def test_more_trials_continue_a_search(one: dict[str, Any], tmp_path: Path, name: str) -> None:
    tune(plan(one, tmp_path / name, trials=2), SerialExecutor(), Silent())
    watcher = Silent()
    more = tune(plan(one, tmp_path / name, trials=4), SerialExecutor(), watcher)
    assert watcher.ran == [1, 2]
    assert [one["number"] for one in more.front["trials"]] == [0, 1, 2, 3]


def test_the_search_does_not_see_what_is_held_out(found: Found, tmp_path: Path) -> None:
    changed = requests(5, rate_per_s=10.0, late_rate_per_s=2.0)
    other = tune(
        plan({ONE: scenario(tmp_path, ONE, changed)}, tmp_path / "s.journal", trials=20),
        SerialExecutor(),
        Silent(),
    )
    # The target alone is of the whole trace: what unlimited replicas attain, here of all requests.
    assert other.attainable_ratio == found.attainable_ratio == 1.0
    assert _trials(other) == _trials(found)
    assert other.front["defaults"]["held_out"] != found.front["defaults"]["held_out"]


def test_of_two_traces_one_is_held_out(one: dict[str, Any], tmp_path: Path) -> None:
    two = scenario(tmp_path, "two.csv.gz", requests(6))
    found = tune(
        plan({**one, "two.csv.gz": two}, tmp_path / "s.journal", trials=1),
        SerialExecutor(),
        Silent(),
    )
    first = found.front["defaults"]
    alone = simulate(one[ONE]).score
    assert first["train"]["gpu_hours"] == pytest.approx(alone.gpu_hours)
    unseen = simulate(two).score
    assert first["held_out"] is not None
    assert first["held_out"]["gpu_hours"] == pytest.approx(unseen.gpu_hours)
    assert first["held_out"]["slo_attainment_ratio"] == unseen.slo_attainment_ratio
    searched, held_out = found.front["by_trace"]
    assert (searched["trace"], searched["held_out"]) == (ONE, False)
    assert (held_out["trace"], held_out["held_out"]) == ("two.csv.gz", True)
    assert searched["shipped"]["gpu_hours"] == pytest.approx(alone.gpu_hours)
    assert held_out["shipped"]["reversals"] == unseen.reversals
    assert any(text.startswith("Over 2 traces") for text in found.front["findings"])


def test_a_storage_of_another_search_is_refused(one: dict[str, Any], tmp_path: Path) -> None:
    storage = tmp_path / "s.journal"
    tune(plan(one, storage, trials=1), SerialExecutor(), Silent())
    other = {ONE: replace(one[ONE], load_factor=2.0)}
    with pytest.raises(ScenarioError, match="something else"):
        tune(plan(other, storage, trials=1), SerialExecutor(), Silent())


@pytest.mark.parametrize("name", ["s.journal", "s.db"])
def test_a_file_that_is_no_search_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("arrival_s,prompt_tokens\n1,2\n")
    with pytest.raises(ScalerError, match="is not the file of a search"):
        Study(space(PolicyConfig()), file=tmp_path / name, problem="x", seed=0)


def test_trials_have_a_range(one: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"--trials = 0, must be in \[1, 100000\]"):
        plan(one, tmp_path / "s", trials=0)


# One trial


def _job(scenario_: Any, role: Role, **more: Any) -> TrialJob:
    return TrialJob(
        name="x",
        scenarios=(scenario_,),
        splits=split({ONE: DURATION_S}),
        role=role,
        config=scenario_.policy.config,
        **more,
    )


def test_blocks_add_up_to_the_run(one: dict[str, Any]) -> None:
    rows = play(_job(one[ONE], Role.HELD_OUT)).rows[0]
    whole, score = total(rows), simulate(one[ONE]).score
    assert len(rows) == 12
    assert whole.requests == score.requests
    assert whole.attained_ratio == score.slo_attainment_ratio
    assert whole.gpu_hours == pytest.approx(score.gpu_hours)
    # 10 requests a second for 100 s up to 800 s; no block is without a GPU.
    assert [row.requests for row in rows[:8]] == pytest.approx([1000] * 8, rel=0.15)
    assert min(row.gpu_hours for row in rows) > 0.0


def test_what_is_searched_is_the_beginning_of_the_whole_run(one: dict[str, Any]) -> None:
    searched = play(_job(one[ONE], Role.TRAIN)).rows[0]
    whole = play(_job(one[ONE], Role.HELD_OUT)).rows[0]
    assert len(searched) == 8
    assert searched[:7] == whole[:7]


def test_a_hopeless_trial_is_given_up_after_the_screening(one: dict[str, Any]) -> None:
    base = one[ONE].policy.config
    shipped = play(_job(one[ONE], Role.TRAIN))
    assert shipped.screening is not None
    # Two of eight blocks are a third, rounded down.  Who waits at the time has missed already.
    ended = total(shipped.rows[0][:2])
    assert shipped.screening.requests == ended.requests
    assert shipped.screening.gpu_hours == ended.gpu_hours
    assert 0 < shipped.screening.good <= ended.good
    thrifty = replace(
        _job(one[ONE], Role.TRAIN, rivals=Rivals(screened=(outcome(1.0, 0.01),))),
        config=applied(base, {"hold_down.window_s": 0.0}),
    )
    given_up = play(thrifty)
    assert (given_up.given_up, given_up.rows) == (True, ())
    assert given_up.screening is not None


@pytest.mark.parametrize(
    ("own", "rivals", "expected"),
    [
        ((0.90, 10.0), [], False),  # nobody to be compared with
        ((0.90, 10.0), [(0.99, 20.0)], True),  # cheap, and nine points below the defaults
        ((0.97, 10.0), [(0.99, 20.0)], False),
        ((0.97, 20.0), [(0.99, 20.0)], True),  # two points for the same GPU-hours
        ((0.985, 20.0), [(0.99, 20.0)], False),  # half a point may be made good
        ((0.99, 20.0), [(0.99, 17.0)], True),  # 15 % more GPU-hours for nothing
        ((0.99, 20.0), [(0.99, 17.1)], False),
        ((0.991, 40.0), [(0.995, 30.0), (0.99, 27.0)], True),  # one attains it for two thirds
        ((0.991, 40.0), [(0.989, 20.0)], False),  # and here none attains it
        ((0.98, 20.0), [(0.98, 30.0), (0.995, 19.0)], True),  # beaten by the second
    ],
)
def test_what_is_hopeless(
    own: tuple[float, float], rivals: list[tuple[float, float]], *, expected: bool
) -> None:
    compared = [outcome(*rival) for rival in rivals]
    assert hopeless(outcome(*own), compared, target_ratio=0.99) is expected
