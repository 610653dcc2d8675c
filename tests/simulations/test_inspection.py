"""Looking into a run while it goes on, and ending it early."""

import itertools
import math
from pathlib import Path

import pytest

from simulations.engine_layout import Records
from simulations.inspection import Standing
from simulations.run import simulate
from simulations.scenario import Scenario
from tests.simulations.tune_cases import requests, scenario


class _Looks:
    """Looks every so many seconds; ends the run at a time."""

    def __init__(self, *, every_s: float, until_s: float = math.inf) -> None:
        self.next_at_s = every_s
        self._every_s = every_s
        self._until_s = until_s
        self.seen: list[Standing] = []
        self.requests = 0

    def ended(self, outcomes: Records) -> None:
        self.requests += len(outcomes)

    def look(self, standing: Standing) -> bool:
        self.next_at_s += self._every_s
        self.seen.append(standing)
        return standing.at_s < self._until_s


@pytest.fixture(name="one", scope="module")
def _one(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    folder = tmp_path_factory.mktemp("traces")
    return scenario(folder, "one.csv.gz", requests(5, rate_per_s=10.0))


def test_looking_changes_nothing_and_hears_of_every_request(one: Scenario) -> None:
    looks = _Looks(every_s=100.0)
    result = simulate(one, inspector=looks)
    alone = simulate(one)
    assert (result.score, result.changes, result.end_s) == (alone.score, alone.changes, alone.end_s)
    assert looks.requests == result.score.requests
    times = [standing.at_s for standing in looks.seen]
    # A tick comes every 15 s: each look is the first one from its time on.
    assert all(0.0 <= at_s - 100.0 * (n + 1) < 15.0 for n, at_s in enumerate(times))
    hours = [standing.gpu_hours for standing in looks.seen]
    assert all(before < after for before, after in itertools.pairwise(hours))
    assert looks.seen[-1].changes[-1] == result.changes[-1]


def test_a_run_ends_where_it_is_not_worth_the_rest(one: Scenario, tmp_path: Path) -> None:
    looks = _Looks(every_s=100.0, until_s=300.0)
    result = simulate(one, inspector=looks)
    assert len(looks.seen) == 3
    assert 300.0 <= result.end_s < 315.0
    assert 0 < looks.requests == result.score.requests < simulate(one).score.requests
