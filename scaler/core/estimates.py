"""Observation -> demand, capacity, forecast: everything derived before any signal proposes."""

from dataclasses import dataclass

from scaler.core.capacity import CapacityState, capacity_of, unit_cost_s, update_capacity
from scaler.core.capacity_prior import repriced
from scaler.core.capacity_shown import Shown, bounded, is_unsure, see_shown
from scaler.core.config import ForecasterName, PolicyConfig
from scaler.core.demand import DemandState, demand_of, update_demand
from scaler.core.forecast import FORECASTERS, ForecastState, Outlook, look_ahead
from scaler.core.made import maker
from scaler.core.model import Capacity, Demand, Forecast, Observation, make_forecast
from scaler.core.sizing import Margins, cost_sigma, make_margins
from scaler.core.window import normal_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What the three estimators remember, and what replicas were shown to carry meanwhile."""

    demand: DemandState
    capacity: CapacityState
    forecast: ForecastState
    shown: Shown = Shown()


make_learned = maker(Learned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """How far and how carefully to look: lead and hold in seconds, and the margin in sigmas."""

    lead_s: float
    hold_s: float
    sigmas: float


make_ahead = maker(Ahead)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """What was derived; ``load`` is the demand in replicas' worth of busy time.

    ``scale`` makes it of the same work in the unit of the remembered series: the prices of the
    prior with which they began, which neither learning nor a reload moves.
    """

    demand: Demand
    capacity: Capacity
    forecast: Forecast
    margins: Margins
    load: float
    scale: float
    now_s: float


make_estimates = maker(Estimates)


def estimate(
    observation: Observation,
    learned: Learned,
    config: PolicyConfig,
    *,
    ahead: Ahead,
    now_s: float,
) -> tuple[Estimates, Learned]:
    """Learn from ``observation``, then estimate."""
    demand_state = update_demand(observation, learned.demand, config.demand)
    demand = demand_of(observation, demand_state, config.demand)
    capacity_state = update_capacity(
        observation,
        repriced(learned.capacity, demand, config),
        config.capacity,
        ttft_s=config.slo.ttft_s,
    )
    unit_s = unit_cost_s(demand, capacity_state, config)
    capacity, shown = _carried(observation, demand, capacity_state, learned.shown, config)
    load = demand.requests_per_s * capacity.request_cost_s
    scale = capacity.request_cost_s / unit_s
    if config.forecaster is ForecasterName.LAST or demand_state.seen_at_s is None:
        # Before the first sample the load is not zero but unknown: a series that began at zero
        # would be a ramp, and its errors would be remembered for hours.
        made, forecast_state = _persistence(load, ahead), learned.forecast
    else:
        # The series must not jump when the learned cost moves: it has the first prior's weights.
        outlook, forecast_state = look_ahead(
            demand.arrived_per_s * unit_s,
            learned.forecast,
            config.forecast,
            forecaster=FORECASTERS[config.forecaster],
            lead_s=ahead.lead_s,
            now_s=now_s,
            horizon_s=ahead.hold_s,
        )
        made = make_forecast(
            lead_s=ahead.lead_s,
            load_mean=outlook.mean * scale,
            load_upper=_upper(outlook, config, sigmas=ahead.sigmas) * scale,
            skill=outlook.skill,
            used=outlook.used,
            load_horizon=outlook.horizon_mean * scale if outlook.used else 0.0,
        )
    estimates = make_estimates(
        demand=demand,
        capacity=capacity,
        forecast=made,
        margins=make_margins(
            sigmas=ahead.sigmas,
            forecast=made.load_upper - made.load_mean,
            capacity_ratio=cost_sigma(capacity),
        ),
        load=load,
        scale=scale,
        now_s=now_s,
    )
    return estimates, make_learned(
        demand=demand_state, capacity=capacity_state, forecast=forecast_state, shown=shown
    )


def _carried(
    observation: Observation,
    demand: Demand,
    state: CapacityState,
    shown: Shown,
    config: PolicyConfig,
) -> tuple[Capacity, Shown]:
    """What a replica carries as learned, or as shown while that is unsure."""
    capacity = capacity_of(demand, state, config)
    if not is_unsure(capacity, state):
        return capacity, Shown()
    shown = see_shown(observation, shown, state, config, demand=demand, capacity=capacity)
    return bounded(capacity, shown, demand), shown


def _upper(outlook: Outlook, config: PolicyConfig, *, sigmas: float) -> float:
    """The load ``sigmas`` above the mean.

    The configured quantile is the one whose coverage is kept; others are read off a normal
    distribution through it, because the far tail of a few hours' errors is a handful of them.
    """
    configured = normal_quantile(config.forecast.quantile_ratio)
    if configured <= 0.0:
        return outlook.mean
    sigma = max(outlook.upper - outlook.mean, 0.0) / configured
    return outlook.mean + sigmas * min(sigma, config.forecast.sigma_max_ratio * outlook.mean)


def _persistence(load: float, ahead: Ahead) -> Forecast:
    """The load of the moment taken for the future, without a margin for its error."""
    return make_forecast(
        lead_s=ahead.lead_s, load_mean=load, load_upper=load, skill=0.0, used=False
    )
