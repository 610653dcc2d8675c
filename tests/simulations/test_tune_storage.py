"""The file of a search: one at a time, and whole again after a process was killed."""

import json
from pathlib import Path
from typing import Any

import pytest

from scaler.core.config import PolicyConfig
from scaler.errors import ScalerError, ScenarioError
from simulations.tune_search import Asked, Study, Tried
from simulations.tune_space import defaults, space
from simulations.tune_storage import Turn, mend
from tests.simulations.tune_cases import outcome

optuna = pytest.importorskip("optuna", reason="the search needs the extra tune")
SPACE = space(PolicyConfig())
FILES = ["s.journal", "s.db"]
BATCH = 24  # more than are drawn at random before the estimator has its say


def study(folder: Path, name: str = "s.journal", *, problem: str = "x") -> Study:
    return Study(SPACE, file=folder / name, problem=problem, seed=3)


def told(asked: Asked, *, exceeded: float = 0.0) -> Tried:
    train = outcome(0.9 + asked.number * 1e-3, 100.0 + asked.number)
    return Tried(
        number=asked.number,
        values=asked.values,
        train=train,
        screening=train,
        steady=train,
        exceeded=exceeded,
        by_trace=(train,),
    )


def begun(folder: Path, name: str = "s.journal", *, count: int = BATCH) -> Study:
    """A study with a batch told of, so that the next one depends on something."""
    made = study(folder, name)
    for asked in made.ask(count, leading=[]):
        made.tell(told(asked, exceeded=0.2 if asked.number % 3 else 0.0))
    return made


@pytest.mark.parametrize("name", FILES)
def test_what_was_told_is_read_back(tmp_path: Path, name: str) -> None:
    first = begun(tmp_path, name, count=2)
    first.keep("held out 3", [[[1, 2, 3.5, 4, 5]]])
    first.close()
    again = study(tmp_path, name)
    assert again.tried == first.tried
    assert again.kept("held out 3") == [[[1, 2, 3.5, 4, 5]]]
    assert again.unfinished() == []


def test_a_batch_that_was_asked_for_in_two_parts_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = begun(tmp_path / "whole").ask(8, leading=[])
    first = begun(tmp_path)
    part = first.ask(3, leading=[])
    first.close()
    again = study(tmp_path)
    assert again.unfinished() == part
    assert part + again.ask(5, leading=[]) == whole


def test_a_trial_that_was_half_asked_for_is_asked_for_anew(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = begun(tmp_path / "whole").ask(2, leading=[])
    begun(tmp_path).close()
    killed = _optunas(tmp_path / "s.journal")
    killed.ask().suggest_float(SPACE[0].path, SPACE[0].low, SPACE[0].high, log=SPACE[0].log)
    del killed
    again = study(tmp_path)
    assert again.unfinished() == []
    assert again.ask(2, leading=[]) == whole


def test_a_turn_is_not_taken_for_optunas_own_lock(tmp_path: Path) -> None:
    going_on = begun(tmp_path)
    lock = optuna.storages.journal.JournalFileSymlinkLock(str(tmp_path / "s.journal"))
    assert not Path(lock._lock_file).exists()
    going_on.close()
    assert not Path(lock._lock_file).exists()


def test_what_flaps_is_infeasible_to_the_estimator(tmp_path: Path) -> None:
    begun(tmp_path).close()
    trials = _optunas(tmp_path / "s.journal").get_trials()
    assert [trial.constraints for trial in trials[:3]] == [
        {"flapping": 0.0},
        {"flapping": 0.2},
        {"flapping": 0.2},
    ]


def _optunas(file: Path) -> Any:
    backend = optuna.storages.journal.JournalFileBackend(str(file))
    return optuna.load_study(study_name="tune", storage=optuna.storages.JournalStorage(backend))


def test_half_a_line_at_the_end_is_cut_off(tmp_path: Path) -> None:
    begun(tmp_path).close()
    file = tmp_path / "s.journal"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code": 5, "worker_i')
    again = study(tmp_path)
    opened = file.read_bytes()
    assert opened.startswith(whole)
    assert all(json.loads(line) for line in opened.splitlines())
    last = again.ask(1, leading=[])[0]
    again.tell(told(last))
    again.close()
    assert study(tmp_path).tried[-1] == told(last), "what comes after it can be read"


@pytest.mark.parametrize("text", ["arrival_s,prompt_tokens\n1,2", '{"a": 1}\n{"b"', "", "x"])
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    mend(tmp_path / "f")
    assert (tmp_path / "f").read_text() == text
    mend(tmp_path / "missing")


@pytest.mark.parametrize("name", FILES)
def test_two_searches_do_not_share_a_file(tmp_path: Path, name: str) -> None:
    first = study(tmp_path, name)
    with pytest.raises(ScalerError, match=f"{name} is in use by another scaler tune"):
        study(tmp_path, name)
    first.close()
    study(tmp_path, name).close()


def test_a_search_of_something_else_is_refused_and_left_to_others(tmp_path: Path) -> None:
    study(tmp_path).close()
    with pytest.raises(ScenarioError, match="holds the search of something else"):
        study(tmp_path, problem="y")
    Turn(tmp_path / "s.journal").end()
    study(tmp_path)


def test_a_foreign_study_is_refused(tmp_path: Path) -> None:
    entry = {"op_code": 0, "worker_id": "w", "study_name": "tune", "directions": [1]}
    (tmp_path / "s.journal").write_text(json.dumps(entry) + "\n")
    with pytest.raises((ScalerError, ScenarioError), match="--storage"):
        study(tmp_path)


def test_the_defaults_come_first(tmp_path: Path) -> None:
    assert study(tmp_path).ask(1, leading=[])[0].values == defaults(SPACE)
