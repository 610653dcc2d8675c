"""The search itself: an Optuna study that is asked for a batch of trials and told of them.

What a batch tries depends on the seed and on what earlier batches came to, never on how long a
trial took: the sampler of each batch is seeded by its first trial, so that a search that was
stopped goes on as if it had not been, and more processes find the same.  Half of a batch comes from
the tree-structured Parzen estimator (Bergstra et al. 2011; for several objectives Ozaki et al.
2022), half are small moves away from what leads.
"""

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaler.errors import ScalerError, ScenarioError
from simulations.streams import generator, word
from simulations.tune_parts import Outcome
from simulations.tune_space import Dimension, Values, defaults, mutated

BATCH = 8
STUDY = "tune"
SQLITE = (".db", ".sqlite", ".sqlite3")
PROBLEM = "problem"  # the key under which a study keeps what it searches
TRIAL = "trial "  # and its number: the key of what a trial came to
STARTUP_TRIALS = 16  # before the estimator has something to go by


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One trial that was told of; ``train`` is None where it was given up at the screening."""

    number: int
    values: Values
    train: Outcome | None
    screening: Outcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One trial to run."""

    number: int
    values: Values


class Study:
    """A resumable search; only one process may have its file at a time."""

    def __init__(
        self, dimensions: tuple[Dimension, ...], *, file: Path, problem: str, seed: int
    ) -> None:
        """Open the study in ``file``, or begin it.

        Raises:
            ScalerError: Optuna is not installed, or the file cannot be used.
            ScenarioError: the file holds the search of something else than ``problem``.
        """
        self._optuna = _optuna()
        self._dimensions = dimensions
        self._seed = seed
        with _readable(file, self._optuna), _quiet(self._optuna):
            self._study = self._optuna.create_study(
                storage=_storage(self._optuna, file),
                study_name=STUDY,
                directions=["maximize", "minimize"],  # attainment, GPU-hours
                load_if_exists=True,
            )
            known = self._study.user_attrs.get(PROBLEM)
            if known is None:
                self._study.set_user_attr(PROBLEM, problem)
            elif known != problem:
                raise ScenarioError(
                    f"--storage {file} holds the search of something else (other traces, options,"
                    " settings, or another version): give another file"
                )
            self._tried = self._told()

    @property
    def tried(self) -> tuple[Tried, ...]:
        """Every trial told of, in the order in which they were asked."""
        return tuple(self._tried[number] for number in sorted(self._tried))

    def unfinished(self) -> list[Asked]:
        """What was asked for when a search was stopped, to be run before anything else is."""
        running = self._optuna.trial.TrialState.RUNNING
        return [
            Asked(number=trial.number, values=self._tidied(trial.params))
            for trial in self._study.get_trials(deepcopy=False, states=(running,))
        ]

    def ask(self, count: int, *, leading: Sequence[Values]) -> list[Asked]:
        """The next trials, ``leading`` the settings worth moving a little; the defaults first."""
        first = len(self._study.trials)
        tpe = self._optuna.samplers.TPESampler
        with _quiet(self._optuna):
            self._study.sampler = tpe(
                seed=word(self._seed, f"trial {first}") % 2**32,
                n_startup_trials=STARTUP_TRIALS,
                constant_liar=True,  # the batch is not to try one place eight times
            )
            return [self._one(first + place, leading) for place in range(count)]

    def _one(self, number: int, leading: Sequence[Values]) -> Asked:
        if (begun := self._begun(number, leading)) is not None:
            self._study.enqueue_trial(begun)
        trial = self._study.ask(self._distributions())
        assert trial.number == number, "one process has the study"
        return Asked(number=number, values=self._tidied(trial.params))

    def _tidied(self, params: Values) -> dict[str, float]:
        return {item.path: item.tidied(params[item.path]) for item in self._dimensions}

    def _begun(self, number: int, leading: Sequence[Values]) -> dict[str, float] | None:
        """What a trial tries, or None where the estimator is to say."""
        if number == 0:
            return defaults(self._dimensions)
        if number >= STARTUP_TRIALS and number % 2:
            return None
        draws = generator(self._seed, "mutation", number)
        parents = leading or (defaults(self._dimensions),)
        return mutated(self._dimensions, parents[int(draws.integers(len(parents)))], draws)

    def tell(self, asked: Asked, *, train: Outcome | None, screening: Outcome | None) -> None:
        """What a trial came to."""
        said = {"values": dict(asked.values), "train": _plain(train), "screen": _plain(screening)}
        self._study.set_user_attr(f"{TRIAL}{asked.number}", said)
        with _quiet(self._optuna):
            if train is None:
                pruned = self._optuna.trial.TrialState.PRUNED
                self._study.tell(asked.number, state=pruned)
            else:
                self._study.tell(asked.number, (train.attained_ratio, train.gpu_hours))
        self._tried[asked.number] = Tried(
            number=asked.number, values=asked.values, train=train, screening=screening
        )

    def kept(self, name: str) -> Any:
        """What was kept under a name, None without."""
        return self._study.user_attrs.get(name)

    def keep(self, name: str, value: Any) -> None:
        """Keep a JSON value with the study."""
        self._study.set_user_attr(name, value)

    def _told(self) -> dict[int, Tried]:
        """What the file holds; a trial that was noted and not yet told of is still under way."""
        states = self._optuna.trial.TrialState
        done = self._study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        attributes = self._study.user_attrs  # all of them are read each time
        return {
            trial.number: _tried(trial.number, attributes[f"{TRIAL}{trial.number}"])
            for trial in done
        }

    def _distributions(self) -> dict[str, Any]:
        known = self._optuna.distributions
        return {
            item.path: (
                known.IntDistribution(int(item.low), int(item.high), log=item.log)
                if item.whole
                else known.FloatDistribution(item.low, item.high, log=item.log)
            )
            for item in self._dimensions
        }


def _tried(number: int, said: Mapping[str, Any]) -> Tried:
    return Tried(
        number=number,
        values=said["values"],
        train=_outcome(said["train"]),
        screening=_outcome(said["screen"]),
    )


def _plain(outcome: Outcome | None) -> list[float] | None:
    return None if outcome is None else [outcome.requests, outcome.good, outcome.gpu_hours]


def _outcome(said: Sequence[float] | None) -> Outcome | None:
    if said is None:
        return None
    return Outcome(requests=int(said[0]), good=int(said[1]), gpu_hours=float(said[2]))


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")  # an extra, and slow to load
    except ImportError as missing:
        raise ScalerError(
            f"scaler tune needs {missing.name}: pip install 'vllm-scaler[tune]'"
        ) from missing


def _storage(optuna: Any, file: Path) -> Any:
    """SQLite by the file's ending, a journal otherwise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix in SQLITE:
        return f"sqlite:///{file.resolve()}"
    journal = importlib.import_module("optuna.storages.journal")
    return optuna.storages.JournalStorage(journal.JournalFileBackend(str(file)))


@contextlib.contextmanager
def _readable(file: Path, optuna: Any) -> Iterator[None]:
    """Says in one line that a file is no study."""
    databases = importlib.import_module("sqlalchemy.exc")
    broken = (ValueError, KeyError, optuna.exceptions.OptunaError, databases.SQLAlchemyError)
    try:
        yield
    except OSError as error:
        raise ScalerError(f"--storage {file}: {error.strerror or error}") from error
    except broken as error:
        reason = " ".join(str(error).split())[:120]
        raise ScalerError(f"--storage {file} is not the file of a search: {reason}") from error


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's log lines and its notes on what may change in it."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
