"""How long a replica takes to become ready, learned from the starts that were seen."""

from dataclasses import dataclass
from functools import lru_cache

from scaler.core.config import StartUpConfig
from scaler.core.model import NoData, Observation
from scaler.core.window import quantile

PRIOR_SAMPLES = 3  # starts needed before the prior no longer counts


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUpState:
    """The latest start-up times, oldest first."""

    samples_s: tuple[float, ...] = ()


def update_start_up(
    observation: Observation, state: StartUpState, config: StartUpConfig
) -> StartUpState:
    """``state`` with the starts that completed since the last observation."""
    replicas = observation.replicas
    if isinstance(replicas, NoData) or not replicas.start_up_s:
        return state
    seen = tuple(sample for sample in replicas.start_up_s if 0.0 <= sample <= config.expiry_s)
    return StartUpState(samples_s=(*state.samples_s, *seen)[-config.samples_max :])


def start_up_s(state: StartUpState, config: StartUpConfig) -> float:
    """A high quantile of the observed starts; the prior stands in for the first missing ones."""
    return _high(state.samples_s, config.prior_s, config.quantile_ratio)


@lru_cache(maxsize=4096)  # replicas start seldom: a target asks the same from tick to tick
def _high(samples_s: tuple[float, ...], prior_s: float, ratio: float) -> float:
    missing = max(PRIOR_SAMPLES - len(samples_s), 0)
    return quantile((*samples_s, *(prior_s,) * missing), ratio)
