"""Quantiles of scaled errors, and the shift that keeps their coverage."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.config import ForecastConfig
from scaler.core.forecast_quantiles import (
    BINS,
    MEMORIES_MAX,
    SHIFT_MAX,
    STEP,
    WEIGHT_MAX,
    Residuals,
    learned,
)

CONFIG = ForecastConfig()
STILL = replace(CONFIG, coverage_step_ratio=0.0)
OLD = Residuals(age_s=1e6)


def fed(
    errors: list[float],
    config: ForecastConfig = STILL,
    *,
    residuals: Residuals | None = None,
    elapsed_s: float = 60.0,
) -> Residuals:
    now = residuals or Residuals()
    for error in errors:
        missed = error > now.quantile(config.quantile_ratio)
        now = learned(now, error, missed=missed, elapsed_s=elapsed_s, config=config)
    return now


@pytest.mark.parametrize(("ratio", "normal"), [(0.5, 0.0), (0.8, 0.84), (0.9, 1.28), (0.99, 2.33)])
def test_the_prior_is_about_a_standard_normal(ratio: float, normal: float) -> None:
    assert Residuals().quantile(ratio) == pytest.approx(normal, abs=0.45)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("scale", [0.3, 3.0, 60.0])
def test_the_quantiles_are_those_of_the_errors(scale: float, ratio: float) -> None:
    """Bins are up to a third of the error wide; 4000 draws leave a few per cent."""
    errors = np.random.default_rng(1).gumbel(0.0, scale, 4000)
    residuals = fed(errors.tolist(), replace(STILL, error_time_constant_s=1e6))
    assert residuals.quantile(ratio) == pytest.approx(np.quantile(errors, ratio), abs=0.25 * scale)


@given(
    errors=st.lists(st.floats(-1e12, 1e12), max_size=60),
    low=st.floats(0.001, 0.999),
    high=st.floats(0.001, 0.999),
)
def test_quantiles_are_finite_and_rise_with_the_ratio(
    errors: list[float], low: float, high: float
) -> None:
    residuals = fed(errors, CONFIG)
    low, high = min(low, high), max(low, high)
    assert math.isfinite(residuals.quantile(high))
    assert residuals.quantile(low) <= residuals.quantile(high)
    assert len(residuals.counts) == BINS
    assert residuals.total == pytest.approx(sum(residuals.counts))


def test_an_error_beyond_all_bins_counts_in_the_last() -> None:
    residuals = fed([1e9] * 500)
    assert residuals.quantile(0.9) == pytest.approx(math.sinh(BINS // 2 * STEP), rel=0.3)


def test_errors_of_a_working_day_ago_count_a_third() -> None:
    """After one time constant the old half weighs exp(-1): 0.27 of all, so the 0.8 is new."""
    old = fed([40.0] * 200, residuals=OLD, elapsed_s=0.0)
    both = fed([0.5], residuals=old, elapsed_s=28800.0)
    both = fed([0.5] * 199, residuals=both, elapsed_s=0.0)
    assert both.quantile(0.7) < 1.0
    assert both.quantile(0.8) > 20.0


def test_a_young_record_forgets_its_first_errors_sooner() -> None:
    """An hour of errors of 40, then an hour of 0.5: half an hour's memory has forgotten them."""
    young = fed([0.5] * 60, residuals=fed([40.0] * 60))
    assert young.quantile(0.8) < 1.0
    assert fed([0.5] * 60, residuals=fed([40.0] * 60, residuals=OLD)).quantile(0.8) > 20.0


def test_weights_that_grow_too_large_are_brought_back() -> None:
    near = replace(OLD, weight=0.9 * WEIGHT_MAX, total=WEIGHT_MAX)
    after = learned(near, 1.0, missed=False, elapsed_s=28800.0, config=CONFIG)
    assert after.weight == 1.0
    assert after.total < 10.0
    long = learned(after, 1.0, missed=False, elapsed_s=1e30, config=CONFIG)
    assert long.weight <= math.exp(MEMORIES_MAX)


def test_a_miss_raises_what_is_asked_for_nine_times_as_much_as_a_hit_lowers_it() -> None:
    """0.003 * 0.9 / 0.09 up, 0.003 * 0.1 / 0.09 down: in balance at one miss in ten."""
    missed = learned(Residuals(), 5.0, missed=True, elapsed_s=60.0, config=CONFIG)
    hit = learned(Residuals(), 0.0, missed=False, elapsed_s=60.0, config=CONFIG)
    assert missed.shift == pytest.approx(0.03)
    assert hit.shift == pytest.approx(-0.003 * 0.1 / 0.09)
    assert missed.shift + 9.0 * hit.shift == pytest.approx(0.0)
    wide = replace(CONFIG, coverage_step_ratio=0.2)
    assert fed([1e6] * 100, wide).shift == SHIFT_MAX
    assert fed([-1e6] * 2000, wide).shift == pytest.approx(-SHIFT_MAX)


def test_coverage_is_kept_where_errors_grow_without_end() -> None:
    """Each error is 0.5 % larger than the last scale: fading counts alone lag behind."""
    random = np.random.default_rng(2)
    errors = (random.normal(0.0, 1.0, 1500) * 1.002 ** np.arange(1500)).tolist()

    def held(config: ForecastConfig) -> float:
        now, hits = Residuals(), []
        for error in errors:
            hits.append(error <= now.quantile(0.9))
            now = learned(now, error, missed=not hits[-1], elapsed_s=60.0, config=config)
        return float(np.mean(hits[300:]))

    assert held(replace(CONFIG, coverage_step_ratio=0.02)) == pytest.approx(0.9, abs=0.02)
    assert held(STILL) < held(CONFIG) < 0.9
