"""Settings of what is estimated: demand, capacity, start-up, forecast.

Declared as ``scaler.core.config`` says, which gathers them in the tree.
"""

from dataclasses import dataclass
from enum import StrEnum

from scaler.core.settings import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandConfig:
    """From counters to rates."""

    rate_time_constant_s: float = setting(
        60.0,
        low=5.0,
        high=600.0,
        tune=True,
        why="a minute of smoothing: shorter swings are buffered by the running batch",
    )
    mix_time_constant_s: float = setting(
        150.0,
        low=30.0,
        high=7200.0,
        tune=True,
        why="a shift of lengths is met within 15 minutes; tenants come and go",
    )
    prior_prompt_tokens: float = setting(
        1000.0, low=1.0, high=1e6, why="chat traces of Azure 2023 have a median prompt of 1020"
    )
    prior_output_tokens: float = setting(
        200.0, low=1.0, high=1e6, why="chat traces of Azure 2023 have a median output of 129"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityConfig:
    """Prior of one replica's step time, and how fast evidence moves it.

    step = overhead_s + per_sequence_s * sequences + per_kv_token_s * kv_tokens
           + per_prefill_token_s * prefill_tokens
    """

    overhead_s: float = setting(
        0.02, low=1e-4, high=10.0, why="an empty step takes 5 to 45 ms on data-centre GPUs"
    )
    per_sequence_s: float = setting(
        1e-4, low=0.0, high=1.0, why="0.006 to 0.3 ms for each decoding sequence"
    )
    per_kv_token_s: float = setting(
        5e-8, low=0.0, high=1e-3, why="attention over the context: 6 to 350 ns for each token"
    )
    per_prefill_token_s: float = setting(
        8e-5, low=1e-7, high=1.0, why="0.02 to 0.22 ms for each prompt token"
    )
    prior_uncertainty_factor: float = setting(
        3.0, low=1.0, high=100.0, why="the prior is right within this factor, either way"
    )
    correction_max_ratio: float = setting(
        0.1, low=0.001, high=0.5, tune=True, why="one observation moves the estimate at most so far"
    )
    memory_s: float = setting(
        432000.0,
        low=600.0,
        high=1e7,
        tune=True,
        why="what was learned fades in five days: versions change, and the weekend is bridged",
    )
    sequences_max: float = setting(
        256.0, low=1.0, high=1e5, why="vLLM's --max-num-seqs; more or less is learned when seen"
    )
    step_tokens_max: float = setting(
        2048.0, low=1.0, high=1e6, why="vLLM's --max-num-batched-tokens; more is learned when seen"
    )
    kv_capacity_tokens: float = setting(
        400000.0, low=1000.0, high=1e9, why="used where cache_config_info is not exported"
    )
    load_max_ratio: float = setting(
        0.0,
        low=0.0,
        high=1.0,
        why="share one replica is loaded to; 0: from the objectives and the learned step times",
    )
    load_max_gain: float = setting(
        0.6,
        low=0.0,
        high=2.0,
        tune=True,
        why="n replicas pool their queues: square-root staffing, a little more as simulated",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUpConfig:
    """How long a replica takes from being wanted to being ready."""

    prior_s: float = setting(
        180.0, low=1.0, high=7200.0, why="weights and compile cache on a volume: 1.4 to 5 minutes"
    )
    quantile_ratio: float = setting(
        0.9, low=0.5, high=1.0, tune=True, why="a late replica costs more than an early one"
    )
    expiry_s: float = setting(
        1800.0, low=60.0, high=36000.0, why="a replica still starting after this is not counted"
    )
    samples_max: int = setting(32, low=1, high=1000, why="observed starts kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastConfig:
    """Looking ahead by the lead time."""

    quantile_ratio: float = setting(
        0.9, low=0.5, high=0.999, tune=True, why="demand above it is met late one time in ten"
    )
    level_time_constant_s: float = setting(
        90.0, low=10.0, high=3600.0, tune=True, why="six ticks; slower levels are multiples of it"
    )
    trend_time_constant_s: float = setting(
        1800.0, low=30.0, high=36000.0, tune=True, why="a trend of demand lasts half an hour"
    )
    trend_damping_s: float = setting(
        3600.0, low=30.0, high=36000.0, tune=True, why="no ramp goes on for ever (Gardner 1985)"
    )
    sigma_max_ratio: float = setting(
        0.5,
        low=0.0,
        high=10.0,
        tune=True,
        why="a first ramp looks like any error; no steady service swings by half at one sigma",
    )
    season_gain: float = setting(
        0.3, low=0.05, high=1.0, tune=True, why="weight of the newest day or week in its profile"
    )
    change_limit_factor: float = setting(
        7.0,
        low=3.0,
        high=1000.0,
        tune=True,
        why="standard deviations that add up to a new level: two ticks of a large step",
    )
    change_drift_factor: float = setting(
        1.0, low=0.25, high=5.0, tune=True, why="standard deviations a tick that are forgiven"
    )
    score_time_constant_s: float = setting(
        5400.0,
        low=300.0,
        high=1e6,
        tune=True,
        why="the last hours decide which candidate is believed",
    )
    weight_power_factor: float = setting(
        24.0,
        low=1.0,
        high=100.0,
        tune=True,
        why="a candidate 10 % worse than the best counts a tenth of it",
    )
    error_time_constant_s: float = setting(
        28800.0, low=1800.0, high=1e6, tune=True, why="a working day of errors makes the quantiles"
    )
    coverage_step_ratio: float = setting(
        0.003, low=0.0, high=0.2, tune=True, why="larger steps swing at leads of ten minutes"
    )


class ForecasterName(StrEnum):
    """Which forecaster looks ahead."""

    LAST = "last"  # the load of the moment: no forecast
    TREND = "trend"  # levels and damped trends
    BLEND = "blend"  # these, day, week and short cycles, by their scores
