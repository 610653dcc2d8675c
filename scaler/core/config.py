"""PolicyConfig: every setting of the policy, declared once.

A field made by ``setting`` carries its default, its range, whether the tuner may move it, and the
reason for the default.  The configuration file's models, the trigger metadata keys, the README
table,
the JSON Schema and the tuner's search space are all read from these declarations.
"""

from dataclasses import dataclass, field

from scaler.core.config_estimators import (
    CapacityConfig,
    DemandConfig,
    ForecastConfig,
    ForecasterName,
    StartUpConfig,
)
from scaler.core.model import Mode, Role
from scaler.core.settings import setting

__all__ = [
    "BoundsConfig",
    "BudgetConfig",
    "CapacityConfig",
    "DemandConfig",
    "ForecastConfig",
    "ForecasterName",
    "FreshnessConfig",
    "HoldDownConfig",
    "HpaConfig",
    "PolicyConfig",
    "SignalConfig",
    "SloConfig",
    "StartUpConfig",
    "ZeroConfig",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SloConfig:
    """Service level objectives of one target."""

    ttft_s: float = setting(
        2.0,
        low=0.01,
        high=600.0,
        key="ttftSloSeconds",
        why="time to first token users of chat accept; a bucket bound of vLLM lies near it",
    )
    tpot_s: float = setting(
        0.0,
        low=0.0,
        high=60.0,
        key="tpotSloSeconds",
        why="mean time per output token; 0 means that no objective is set",
    )
    attainment_target_ratio: float = setting(
        0.99,
        low=0.5,
        high=0.9999,
        key="sloAttainmentTarget",
        why="share of requests within the objectives: the one dial between thrifty and safe",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundsConfig:
    """Limits of the answer.  KEDA's own limits apply afterwards as well."""

    replicas_min: int = setting(
        1, low=0, high=10000, why="0 lets the target go to zero after proven idleness"
    )
    replicas_max: int = setting(
        100, low=1, high=10000, why="KEDA's default of maxReplicaCount; its own value wins"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessConfig:
    """When a signal is too old, and what is done without signals."""

    stale_after_s: float = setting(
        45.0, low=1.0, high=3600.0, why="three scrapes of 15 s without a new sample"
    )
    gpu_stale_after_s: float = setting(
        90.0, low=1.0, high=3600.0, why="DCGM collects every 30 s on top of the scrape interval"
    )
    coverage_min_ratio: float = setting(
        0.8, low=0.0, high=1.0, why="share of ready replicas that must answer to judge the whole"
    )
    grace_s: float = setting(
        120.0, low=0.0, high=3600.0, why="a restart of Prometheus or a rollout of the exporter"
    )
    floor_replicas: int = setting(
        0, low=0, high=10000, why="least count when blind for longer than the grace; 0: current"
    )
    wake_when_blind: bool = setting(
        False,
        why="blind at zero is answered UNAVAILABLE, so KEDA stays at zero",
        key="wakeWhenBlind",
    )
    expect_s: float = setting(
        86400.0, low=0.0, high=1e7, why="a signal not seen for a day is no longer missed"
    )
    decision_expiry_ticks: int = setting(
        3, low=2, high=20, why="a decision older than this is not answered: the loop is dead"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalConfig:
    """Where a signal begins to ask for replicas."""

    kv_usage_target_ratio: float = setting(
        0.9, low=0.3, high=1.0, tune=True, why="beyond it vLLM starts to preempt"
    )
    ttft_pressure_ratio: float = setting(
        0.9,
        low=0.05,
        high=1.0,
        tune=True,
        why="TTFT percentile as a share of its objective at which scale-down stops",
    )
    latency_burn_factor: float = setting(
        10.0,
        low=1.0,
        high=1000.0,
        tune=True,
        why="misses at so many times the allowed share are no matter of margins any more",
    )
    latency_step_ratio: float = setting(
        0.1,
        low=0.05,
        high=1.0,
        tune=True,
        why="replicas added per start-up while an objective is missed",
    )
    latency_requests_min: float = setting(
        20.0, low=1.0, high=1e4, why="fewer requests say nothing of a percentile"
    )
    gpu_util_target_ratio: float = setting(
        0.0, low=0.0, high=1.0, key="gpuUtilTargetRatio", why="0: DCGM corroborates and vetoes only"
    )
    gpu_busy_ratio: float = setting(
        0.95,
        low=0.1,
        high=1.0,
        tune=True,
        why="mean utilisation above which the count is not lowered",
    )
    gpu_blind_target_ratio: float = setting(
        0.8, low=0.1, high=1.0, why="target while vLLM's own signals are blind"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetConfig:
    """The error budget: what misses may cost, from what was spent of it."""

    price_factor: float = setting(
        1.5,
        low=0.01,
        high=10000.0,
        tune=True,
        why="replica time that a miss costs, in requests, while 1 % may miss and that is spent",
    )
    gain_factor: float = setting(
        2.5,
        low=0.0,
        high=20.0,
        tune=True,
        why="half of it spent makes a miss 3.5 times cheaper; more lets one event spend it all",
    )
    memory_s: float = setting(
        86400.0, low=600.0, high=1e7, tune=True, why="a day: every hour of it has its turn"
    )
    prior_s: float = setting(
        3600.0, low=0.0, high=1e6, tune=True, why="a first bad minute must not set the price"
    )
    prior_spent_ratio: float = setting(
        1.7,
        low=0.0,
        high=10.0,
        tune=True,
        why="begins careful, a miss at nine requests: nothing is known in the first hour",
    )
    backlog_price_factor: float = setting(
        6.0,
        low=0.0,
        high=10000.0,
        tune=True,
        why="least price of a miss while requests wait: all that arrive behind them miss as well",
    )
    overspent_max_ratio: float = setting(
        0.7, low=0.0, high=10.0, tune=True, why="misses that no count avoids must not cost a fleet"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDownConfig:
    """When a lower count may be published."""

    window_s: float = setting(
        600.0,
        low=0.0,
        high=7200.0,
        tune=True,
        why="no reversal within ten minutes; 300 s saves 1 % and reverses five times as often",
    )
    level_s: float = setting(
        240.0,
        low=15.0,
        high=7200.0,
        tune=True,
        why="down follows the level of minutes: one spike is no reason to keep a replica",
    )
    start_up_factor: float = setting(
        1.5, low=0.0, high=20.0, tune=True, why="hold at least so many start-up times"
    )
    margin_ratio: float = setting(
        0.08,
        low=0.0,
        high=1.0,
        tune=True,
        why="the remaining replicas carry the load with this to spare",
    )
    sigma_min_factor: float = setting(
        2.0,
        low=0.0,
        high=5.0,
        tune=True,
        why="least standard deviations above the level, however cheap a miss: else it comes back",
    )
    release_s: float = setting(
        5400.0,
        low=0.0,
        high=86400.0,
        tune=True,
        why="a load gone in minutes comes back: what is kept for it fades by a third in 36 min",
    )
    ease_spent_ratio: float = setting(
        1.0,
        low=0.0,
        high=10.0,
        tune=True,
        why="margins and release are whole where so much of the budget is spent; 0: always",
    )
    ease_min_ratio: float = setting(
        0.65,
        low=0.0,
        high=1.0,
        tune=True,
        why="what is left of them while nothing is spent; at 0.5 counts reverse twice as often",
    )
    drift_ratio: float = setting(
        0.05,
        low=0.0,
        high=1.0,
        why="a fall without a fallen load must be clear of the drift of what is learned",
    )
    scatter_factor: float = setting(
        2.0,
        low=0.0,
        high=20.0,
        why="a fall must be clear of so many standard deviations of the level's own noise",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroConfig:
    """Going to zero and coming back."""

    idle_proof_s: float = setting(
        600.0, low=0.0, high=86400.0, tune=True, why="idleness the daemon itself has seen"
    )
    wake_replicas: int = setting(1, low=1, high=1000, why="replicas asked for on the first request")


@dataclass(frozen=True, slots=True, kw_only=True)
class HpaConfig:
    """What is known of the HPA behind the target.  The watched objects overrule these."""

    kubernetes_minor: int = setting(
        30, low=23, high=99, why="oldest supported; tolerance and its exact edge depend on it"
    )
    tolerance_up_ratio: float = setting(
        0.1, low=0.0, high=1.0, why="cluster default; 0 where the ScaledObject sets it and 1.35+"
    )
    tolerance_down_ratio: float = setting(0.1, low=0.0, high=1.0, why="as above")
    shortage_price_ratio: float = setting(
        3.0,
        low=0.0,
        high=100.0,
        tune=True,
        why="one replica too few costs as much as three too many: misses against idle GPUs",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Everything ``decide`` may depend on beside its observation and its state."""

    mode: Mode = setting(Mode.ACTIVE, why="advisory decides and records, and publishes current")
    role: Role = setting(
        Role.MIXED, key="role", why="prefill: TTFT and prompts; decode: ITL and outputs"
    )
    tick_s: float = setting(15.0, low=1.0, high=300.0, why="scrape interval and HPA sync are 15 s")
    forecaster: ForecasterName = setting(
        ForecasterName.BLEND, why="every candidate, by its score against persistence"
    )
    slo: SloConfig = field(default_factory=SloConfig)
    bounds: BoundsConfig = field(default_factory=BoundsConfig)
    freshness: FreshnessConfig = field(default_factory=FreshnessConfig)
    demand: DemandConfig = field(default_factory=DemandConfig)
    capacity: CapacityConfig = field(default_factory=CapacityConfig)
    start_up: StartUpConfig = field(default_factory=StartUpConfig)
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    signals: SignalConfig = field(default_factory=SignalConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    hold_down: HoldDownConfig = field(default_factory=HoldDownConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    hpa: HpaConfig = field(default_factory=HpaConfig)
