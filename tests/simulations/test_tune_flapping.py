"""What changes the count too often is not recommended, however well it does."""

import dataclasses
import itertools

import numpy as np
import pytest

from scaler.core.config import PolicyConfig
from simulations.scenario import Scenario
from simulations.score import ReplicaChange
from simulations.trace_chunks import Requests
from simulations.tune_blocks import reversed_at_s
from simulations.tune_choice import Candidate, Refusal, Verdict, choose, front, leading
from simulations.tune_flapping import calm
from simulations.tune_parts import DAY_S, Outcome
from simulations.tune_run import Rivals
from simulations.tune_steady import SlowLoad, steady
from tests.simulations.tune_cases import outcome, requests, scenario

HOUR_S = 3600.0


def moving(changes: int, reversals: int) -> Outcome:
    return Outcome(requests=100, good=99, gpu_hours=1.0, changes=changes, reversals=reversals)


@pytest.mark.parametrize(
    ("seen", "slow", "exceeded"),
    [
        ((18, 5), (5, 1), 0.0),  # as often as the shipped settings, which is within
        ((24, 7), (7, 1), 0.0),  # 18 + 6 a day, 5 + 2 a day, and 6 + 2 under the slow load
        ((25, 7), (5, 1), 25 / 24 - 1),
        ((24, 8), (5, 1), 8 / 7 - 1),
        ((24, 7), (8, 1), 9 / 8 - 1),
        ((48, 8), (5, 1), 1.0),  # the worst of them counts
    ],
)
def test_a_little_more_than_the_shipped_settings_is_allowed(
    seen: tuple[int, int], slow: tuple[int, int], exceeded: float
) -> None:
    allowed = calm(moving(18, 5), moving(5, 1), seconds=DAY_S)
    found = allowed.exceeded(moving(*seen), moving(*slow))
    assert max(found, 0.0) == pytest.approx(exceeded)


def test_of_much_a_quarter_more_is_allowed_and_of_nothing_one() -> None:
    allowed = calm(moving(100, 40), moving(0, 0), seconds=DAY_S)
    assert (allowed.changes, allowed.reversals, allowed.needless) == (125.0, 50.0, 2.0)
    allowed = calm(moving(0, 0), moving(0, 0), seconds=600.0)
    assert (allowed.changes, allowed.reversals) == (1.0, 1.0)


def test_what_flaps_is_not_on_the_front_and_beats_nobody() -> None:
    def trial(number: int, attained: float, hours: float, exceeded: float) -> Candidate:
        train = outcome(attained, hours)
        return Candidate(number=number, values={}, train=train, exceeded=exceeded)

    flapping = trial(1, 0.999, 50.0, 0.1)
    quiet = trial(2, 0.99, 80.0, -0.1)
    assert front([flapping, quiet]) == (quiet,)
    assert leading([flapping, quiet], target_ratio=0.99, count=6) == [quiet]


def test_flapping_on_the_held_out_part_is_refused() -> None:
    def unseen(number: int, hours: float, reversals: int) -> Candidate:
        both = dataclasses.replace(outcome(0.995, hours), changes=20, reversals=reversals)
        return Candidate(number=number, values={}, train=both, held_out=both)

    shipped, flapping, quiet = unseen(0, 100.0, 5), unseen(1, 70.0, 30), unseen(2, 80.0, 7)
    assert shipped.held_out is not None
    allowed = calm(shipped.held_out, moving(5, 1), seconds=DAY_S)
    found = choose([flapping, quiet, shipped], shipped, target_ratio=0.99, calm=allowed)
    assert (found.chosen, found.verdict) == (quiet, Verdict.AFTER_REFUSALS)
    assert [(one.number, one.reason) for one in found.refused] == [(1, Refusal.FLAPS)]


def test_only_what_may_join_the_front_meets_the_slow_load() -> None:
    allowed = calm(moving(18, 5), moving(5, 1), seconds=DAY_S)
    rivals = Rivals(front=(outcome(0.99, 100.0),), calm=allowed)
    assert rivals.outdone(outcome(0.99, 101.0))
    assert not rivals.outdone(outcome(0.99, 99.0))
    assert not rivals.outdone(outcome(0.991, 150.0))
    assert rivals.outdone(dataclasses.replace(outcome(0.999, 10.0), reversals=8))


def test_reversals_are_counted_when_they_are_made() -> None:
    counts = [1, 2, 3, 2, 3, 2, 1]
    changes = [
        ReplicaChange(at_s=100.0 * place, before=before, after=after)
        for place, (before, after) in enumerate(itertools.pairwise(counts))
    ]
    # up, up, down, up, down, down: the third, fourth and fifth turn.
    assert [*reversed_at_s(changes)] == [200.0, 300.0, 400.0]


# The slow load


@pytest.fixture(name="one", scope="module")
def _one(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    folder = tmp_path_factory.mktemp("traces")
    return scenario(folder, "one.csv.gz", requests(5, rate_per_s=10.0))


def _load(one: Scenario, seed: int = 1) -> Requests:
    (chunk,) = SlowLoad(like=one.requests, highest_per_s=8.0, duration_s=4 * HOUR_S, seed=seed)
    return chunk


def test_the_slow_load_rises_and_falls_along_a_line(one: Scenario) -> None:
    arrival_s = _load(one).arrival_s
    counts, _ = np.histogram(arrival_s, bins=8, range=(0.0, 4 * HOUR_S))
    # From 2 a second to 8 in four half hours, and back: means of 2.75, 4.25, 5.75, 7.25.
    expected = 1800.0 * np.array([2.75, 4.25, 5.75, 7.25, 7.25, 5.75, 4.25, 2.75])
    assert np.all(np.abs(counts - expected) < 4.0 * np.sqrt(expected))
    assert np.all(np.diff(arrival_s) >= 0.0)


def test_the_slow_load_is_the_same_each_time_and_has_the_trace_s_lengths(one: Scenario) -> None:
    load, again, other = _load(one), _load(one), _load(one, seed=2)
    assert np.array_equal(load.arrival_s, again.arrival_s)
    assert len(load) != len(other)
    known = set(next(iter(one.requests)).prompt_tokens.tolist())
    assert set(load.prompt_tokens.tolist()) <= known


def test_a_policy_that_drops_a_replica_at_once_changes_more_under_the_slow_load(
    one: Scenario,
) -> None:
    base = one.policy.config
    # Every setting of the way down at its least, also one that is added later: each alone may calm.
    least = {
        field.name: field.metadata["setting"].low for field in dataclasses.fields(base.hold_down)
    }
    hasty = dataclasses.replace(base.hold_down, **least)

    def needless(config: PolicyConfig) -> int:
        under = dataclasses.replace(one.policy, config=config)
        met = steady(
            dataclasses.replace(one, policy=under), highest_per_s=24.0, searched_s=4 * HOUR_S
        )
        return met.changes + met.reversals

    shipped, worse = needless(base), needless(dataclasses.replace(base, hold_down=hasty))
    assert worse > shipped + 2
