"""Observation -> Demand: what arrives, in requests and tokens per second.

Arrivals are the balance of finished, running, waiting and rejected requests.  Token rates are
arrivals times the recent mean lengths, because vLLM's token counters show served work: under
overload they
flatten while demand grows.
"""

from dataclasses import dataclass

from scaler.core.config import DemandConfig
from scaler.core.made import maker
from scaler.core.model import Demand, NoData, Observation, Work, make_demand
from scaler.core.window import decay

PRIOR_REQUESTS = 10.0  # the prior mix weighs as much as this many finished requests


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandState:
    """Arrival rate, smoothed and as it was, and the fading sums behind the mean lengths."""

    seen_at_s: float | None = None
    requests_per_s: float = 0.0
    arrived_per_s: float = 0.0  # of the newest interval alone
    finished: float = 0.0
    finished_prompt_tokens: float = 0.0
    finished_output_tokens: float = 0.0
    served_tokens: float = 0.0  # prompt tokens, computed or cached
    cached_tokens: float = 0.0


make_demand_state = maker(DemandState)


def update_demand(
    observation: Observation, state: DemandState, config: DemandConfig
) -> DemandState:
    """The state after one observation; unchanged when it brings no new work sample.

    A sample stamped after its observation counts as seen then, or it would keep out all that follow
    until its time has come.
    """
    work = observation.work
    if isinstance(work, NoData):
        return state
    if state.seen_at_s is not None and work.seen_at_s <= state.seen_at_s:
        return state
    first = state.seen_at_s is None
    kept = 0.0 if first else decay(work.interval_s, config.rate_time_constant_s)
    mix = decay(work.interval_s, config.mix_time_constant_s)
    counted = float(_with_lengths(work))
    arrived_per_s = work.requests_arrived / work.interval_s
    return make_demand_state(
        seen_at_s=min(work.seen_at_s, observation.seen_at_s),
        requests_per_s=kept * state.requests_per_s + (1.0 - kept) * arrived_per_s,
        arrived_per_s=arrived_per_s,
        finished=mix * state.finished + counted * work.requests_finished,
        finished_prompt_tokens=mix * state.finished_prompt_tokens
        + counted * work.finished_prompt_tokens,
        finished_output_tokens=mix * state.finished_output_tokens
        + counted * work.finished_output_tokens,
        served_tokens=mix * state.served_tokens + work.prompt_tokens + work.cached_tokens,
        cached_tokens=mix * state.cached_tokens + work.cached_tokens,
    )


def _with_lengths(work: Work) -> bool:
    """Whether the sample knows both how many requests finished and how long they were."""
    has_lengths = work.finished_prompt_tokens + work.finished_output_tokens > 0.0
    return has_lengths and work.requests_finished > 0.0


def demand_of(observation: Observation, state: DemandState, config: DemandConfig) -> Demand:
    """Demand now.  Lengths fall back to the prior until requests have finished."""
    requests = state.finished + PRIOR_REQUESTS
    prompt = state.finished_prompt_tokens + PRIOR_REQUESTS * config.prior_prompt_tokens
    output = state.finished_output_tokens + PRIOR_REQUESTS * config.prior_output_tokens
    cached_share = state.cached_tokens / state.served_tokens if state.served_tokens > 0.0 else 0.0
    prompt_mean, output_mean = prompt / requests, output / requests
    rate = max(state.requests_per_s, 0.0)  # a balance of counters may come out below zero
    queue = observation.queue
    in_flight = waiting = 0.0
    if not isinstance(queue, NoData):
        waiting = queue.requests_waiting
        in_flight = queue.requests_running + waiting
    return make_demand(
        requests_per_s=rate,
        arrived_per_s=max(state.arrived_per_s, 0.0),
        prompt_tokens_per_s=rate * prompt_mean * (1.0 - cached_share),
        cached_tokens_per_s=rate * prompt_mean * cached_share,
        output_tokens_per_s=rate * output_mean,
        prompt_tokens_per_request=prompt_mean,
        output_tokens_per_request=output_mean,
        cached_ratio=cached_share,
        requests_in_flight=in_flight,
        backlog_requests=waiting,
    )
