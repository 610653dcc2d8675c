"""Observation -> demand, capacity, forecast: everything derived before any signal proposes."""

import math
from dataclasses import dataclass

from scaler.core.capacity import CapacityState, capacity_of, update_capacity
from scaler.core.config import PolicyConfig
from scaler.core.demand import DemandState, demand_of, update_demand
from scaler.core.forecast import FORECASTERS, ForecastState, Outlook, look_ahead
from scaler.core.model import Capacity, Demand, Forecast, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What the three estimators remember."""

    demand: DemandState
    capacity: CapacityState
    forecast: ForecastState


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """What was derived; ``load`` is the demand in replicas' worth of busy time."""

    demand: Demand
    capacity: Capacity
    forecast: Forecast
    load: float
    now_s: float


def estimate(
    observation: Observation,
    learned: Learned,
    config: PolicyConfig,
    *,
    start_up_s: float,
    now_s: float,
) -> tuple[Estimates, Learned]:
    """Learn from ``observation``, then estimate; the lead is a start-up and one control period."""
    demand_state = update_demand(observation, learned.demand, config.demand)
    capacity_state = update_capacity(observation, learned.capacity, config.capacity)
    demand = demand_of(observation, demand_state, config.demand)
    capacity = capacity_of(demand, capacity_state, config)
    lead_s = start_up_s + config.tick_s
    load = demand.requests_per_s * capacity.request_cost_s
    scale = math.exp(capacity_state.log_scale)
    outlook, forecast_state = look_ahead(
        load / scale,  # the series must not jump when the learned scale moves
        learned.forecast,
        config.forecast,
        forecaster=FORECASTERS[config.forecaster],
        lead_s=lead_s,
        now_s=now_s,
    )
    estimates = Estimates(
        demand=demand,
        capacity=capacity,
        forecast=_forecast(outlook, scale=scale, lead_s=lead_s),
        load=load,
        now_s=now_s,
    )
    return estimates, Learned(demand=demand_state, capacity=capacity_state, forecast=forecast_state)


def _forecast(outlook: Outlook, *, scale: float, lead_s: float) -> Forecast:
    """The outlook in replicas' worth of busy time."""
    return Forecast(
        lead_s=lead_s,
        load_mean=outlook.mean * scale,
        load_upper=outlook.upper * scale,
        skill=outlook.skill,
        used=outlook.used,
    )
