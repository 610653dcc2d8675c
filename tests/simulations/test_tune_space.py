"""The search space is what is declared tunable, and values stay inside it."""

import numpy as np
import pytest

from scaler.config import as_tree
from scaler.core.config import PolicyConfig
from scaler.core.settings import declared, tunable
from simulations.tune_space import applied, changed, defaults, mutated, space

BASE = PolicyConfig()
SPACE = space(BASE)
BY_PATH = {item.path: item for item in SPACE}


def test_exactly_the_tunable_settings_are_searched() -> None:
    assert [item.path for item in SPACE] == [item.path for item in tunable(BASE)]
    fixed = {item.path for item in declared(BASE)} - set(BY_PATH)
    assert {"slo.ttft_s", "slo.attainment_target_ratio", "bounds.replicas_max"} <= fixed


def test_ranges_are_those_declared_and_hold_the_default() -> None:
    for item, known in zip(SPACE, tunable(BASE), strict=True):
        assert item.high == known.setting.high
        assert known.setting.low <= item.low <= item.default <= item.high, item.path


@pytest.mark.parametrize(
    ("path", "log", "low"),
    [
        ("budget.price_factor", True, 0.01),  # 0.01 to 10,000: six decades
        ("forecast.quantile_ratio", False, 0.5),  # 0.5 to 0.999
        ("hold_down.start_up_factor", False, 0.0),  # 0 to 20, 13 times the default of 1.5
        ("zero.idle_proof_s", True, 20.0),  # 0 to 86400, 144 times 600: from 600 / 30
    ],
)
def test_ranges_over_decades_are_searched_by_their_logarithm(
    path: str, *, log: bool, low: float
) -> None:
    assert (BY_PATH[path].log, BY_PATH[path].low) == (log, pytest.approx(low))


def test_shares_of_a_range() -> None:
    price = BY_PATH["budget.price_factor"]  # log: the middle of 0.01 to 10,000 is 10
    assert (price.at(0.0), price.at(0.5), price.at(1.0)) == (0.01, 10.0, 10_000.0)
    assert price.share(10.0) == pytest.approx(0.5)
    assert (price.at(-3.0), price.at(9.0)) == (0.01, 10_000.0)
    assert price.tidied(1.23456789) == 1.235


def test_the_defaults_applied_are_the_settings_begun_with() -> None:
    assert applied(BASE, defaults(SPACE)) == BASE


def test_applied_changes_what_it_is_given_alone() -> None:
    tuned = applied(BASE, {**defaults(SPACE), "zero.idle_proof_s": 123.0})
    assert tuned.zero.idle_proof_s == 123.0
    tree, was = as_tree(tuned), as_tree(BASE)
    tree["zero"]["idle_proof_s"] = was["zero"]["idle_proof_s"]
    assert tree == was


def test_a_mutation_moves_a_few_settings_inside_their_ranges() -> None:
    moved = []
    for seed in range(50):
        values = mutated(SPACE, defaults(SPACE), np.random.default_rng(seed))
        assert list(values) == [item.path for item in SPACE]
        assert all(item.low <= values[item.path] <= item.high for item in SPACE)
        moved.append(len(changed(SPACE, values)))
    assert min(moved) >= 1
    # A fifth of the settings, give or take: 50 draws of some 40 settings have a mean near 8.
    assert 0.15 * len(SPACE) < np.mean(moved) < 0.25 * len(SPACE)


def test_a_mutation_takes_some_settings_back_to_their_default() -> None:
    far = {item.path: item.at(0.9 if item.share(item.default) < 0.5 else 0.1) for item in SPACE}
    back = [
        len(SPACE) - len(changed(SPACE, mutated(SPACE, far, np.random.default_rng(seed))))
        for seed in range(50)
    ]
    # 15 % of the four fifths that are not moved: 12 %.
    assert 0.08 * len(SPACE) < np.mean(back) < 0.16 * len(SPACE)
