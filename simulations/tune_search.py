"""The search itself: an Optuna study that is asked for a batch of trials and told of them.

What a batch tries depends on the seed and on what earlier batches came to, never on how long a
trial took: the sampler of each batch is seeded by its first trial, so that a search that was
stopped goes on as if it had not been, and more processes find the same.  Half of a batch comes from
the tree-structured Parzen estimator (Bergstra et al. 2011; for several objectives Ozaki et al.
2022), half are small moves away from what leads.
"""

import contextlib
import dataclasses
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
from simulations.tune_storage import Turn, storage

BATCH = 8
STUDY = "tune"
PROBLEM = "problem"  # the key under which a study keeps what it searches
CONSTRAINT = "flapping"
TRIAL = "trial "  # and its number: the key of what a trial came to
NUMBER = "number"  # the key under which Optuna's trial keeps ours
STARTUP_TRIALS = 16  # before the estimator has something to go by


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One trial that was told of; ``train`` is None where it was given up at the screening.

    ``steady`` is what it came to under a slow load, None where it was not tried; ``exceeded`` by
    what share it changes the count too often, 0 and less where it does not.  ``by_trace`` is the
    part of ``train`` on each trace.
    """

    number: int
    values: Values
    train: Outcome | None
    screening: Outcome | None
    steady: Outcome | None = None
    exceeded: float = 0.0
    by_trace: tuple[Outcome, ...] = ()


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
            self._turn = Turn(file)
            try:
                self._open(file, problem)
            except BaseException:  # also Ctrl-C: nobody has the object yet who could close the file
                self.close()
                raise

    def _open(self, file: Path, problem: str) -> None:
        self._storage = storage(self._optuna, file)
        self._study = self._optuna.create_study(
            storage=self._storage,
            study_name=STUDY,
            directions=["maximize", "minimize"],  # attainment, GPU-hours
            load_if_exists=True,
        )
        known = self._study.user_attrs.get(PROBLEM)
        if known is None:
            if len(self._study.directions) != 2 or self._study.get_trials(deepcopy=False):
                raise ValueError("a study of Optuna that another program made")
            self._study.set_user_attr(PROBLEM, problem)
        elif known != problem:
            raise ScenarioError(
                f"--storage {file} holds the search of something else (other traces, options,"
                " settings, or another version): give another file"
            )
        self._forget_cut_short()
        self._theirs = {
            trial.user_attrs[NUMBER]: trial.number
            for trial in self._study.get_trials(deepcopy=False)
            if NUMBER in trial.user_attrs
        }
        self._tried = self._told()

    def _forget_cut_short(self) -> None:
        """Give up what was being asked for when a process was killed; it is asked for anew."""
        states = self._optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if NUMBER not in trial.user_attrs:
                self._study.tell(trial.number, state=states.FAIL)

    def close(self) -> None:
        """Let others use the file."""
        self._turn.end()

    @property
    def tried(self) -> tuple[Tried, ...]:
        """Every trial told of, in the order in which they were asked."""
        return tuple(self._tried[number] for number in sorted(self._tried))

    def unfinished(self) -> list[Asked]:
        """What was asked for when a search was stopped, to be run before anything else is."""
        running = self._optuna.trial.TrialState.RUNNING
        return [
            Asked(number=trial.user_attrs[NUMBER], values=self._tidied(trial.params))
            for trial in self._study.get_trials(deepcopy=False, states=(running,))
        ]

    def ask(self, count: int, *, leading: Sequence[Values]) -> list[Asked]:
        """The next trials, ``leading`` the settings worth moving a little; the defaults first.

        Each depends on those told of, those asked for and its number alone: a batch of which a
        part was asked for goes on the same.
        """
        first = len(self._theirs)
        with _quiet(self._optuna):
            return [self._one(first + place, leading) for place in range(count)]

    def _one(self, number: int, leading: Sequence[Values]) -> Asked:
        samplers = self._optuna.samplers
        sampler = samplers.TPESampler(
            seed=word(self._seed, f"trial {number}") % 2**32,
            n_startup_trials=STARTUP_TRIALS,
            constant_liar=True,  # the batch is not to try one place eight times
        )
        if (begun := self._begun(number, leading)) is not None:
            sampler = samplers.PartialFixedSampler(begun, sampler)
        self._study.sampler = sampler
        trial = self._study.ask(self._distributions())
        trial.set_user_attr(NUMBER, number)  # at last: what lacks it was cut short
        self._theirs[number] = trial.number
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

    def tell(self, tried: Tried) -> None:
        """What a trial came to."""
        self._study.set_user_attr(f"{TRIAL}{tried.number}", _said(tried))
        number = self._theirs[tried.number]
        with _quiet(self._optuna):
            if tried.train is None:
                pruned = self._optuna.trial.TrialState.PRUNED
                self._study.tell(number, state=pruned)
            else:
                self._trial(number).set_constraint(CONSTRAINT, tried.exceeded)
                self._study.tell(number, (tried.train.attained_ratio, tried.train.gpu_hours))
        self._tried[tried.number] = tried

    def _trial(self, number: int) -> Any:
        """Optuna's own trial, also where another process asked for it.

        Making one samples; the estimator is not to do that for nothing.
        """
        self._study.sampler = self._optuna.samplers.RandomSampler(seed=0)
        study = self._storage.get_study_id_from_name(STUDY)
        return self._optuna.trial.Trial(
            self._study, self._storage.get_trial_id_from_study_id_trial_number(study, number)
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
            (number := trial.user_attrs[NUMBER]): _tried(number, attributes[f"{TRIAL}{number}"])
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


def _said(tried: Tried) -> dict[str, Any]:
    return {
        "values": dict(tried.values),
        "train": plain(tried.train),
        "screen": plain(tried.screening),
        "steady": plain(tried.steady),
        "exceeded": tried.exceeded,
        "by_trace": [plain(one) for one in tried.by_trace],
    }


def _tried(number: int, said: Mapping[str, Any]) -> Tried:
    return Tried(
        number=number,
        values=said["values"],
        train=outcome(said["train"]),
        screening=outcome(said["screen"]),
        steady=outcome(said["steady"]),
        exceeded=said["exceeded"],
        by_trace=tuple(seen for one in said["by_trace"] if (seen := outcome(one)) is not None),
    )


def plain(seen: Outcome | None) -> list[float] | None:
    """An outcome as JSON; ``outcome`` reads it."""
    return None if seen is None else [*dataclasses.astuple(seen)]


def outcome(said: Sequence[float] | None) -> Outcome | None:
    """What ``plain`` made of an outcome."""
    if said is None:
        return None
    requests, good, gpu_hours, changes, reversals = said
    return Outcome(
        requests=int(requests),
        good=int(good),
        gpu_hours=float(gpu_hours),
        changes=int(changes),
        reversals=int(reversals),
    )


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")  # an extra, and slow to load
    except ImportError as missing:
        raise ScalerError(
            f"scaler tune needs {missing.name}: pip install 'vllm-scaler[tune]'"
        ) from missing


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
