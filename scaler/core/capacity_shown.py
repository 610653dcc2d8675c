"""What replicas were seen to carry, while what they could carry is not known well.

A fleet that serves its load within the objective is proof that so many replicas are enough, however
wrong the prior is.  An engine four times as fast as the prior believes would otherwise be asked for
four times its replicas at first sight, and keep them for a hold.

The proof is of what was served (tokens of prompts and of outputs, each for itself, not requests
that have only arrived: a batch that still fills shows nothing yet), in two intervals in a row, so
that no single sample proves anything.  It allows as many requests of another mix as both kinds
leave room for, whatever the two cost.  It bounds the cost of a request from above while the step
times are on their way to what was measured, or their interval is wide; after that the estimate
knows better than the largest of many noisy seconds.
"""

import math
from dataclasses import dataclass, replace

from scaler.core.budget import missed_ratio
from scaler.core.capacity import CapacityState, carried
from scaler.core.config import PolicyConfig
from scaler.core.made import maker
from scaler.core.model import Capacity, Demand, NoData, Observation
from scaler.core.window import decay

_REQUESTS_MIN = 20.0  # first tokens in a window before it shows that the objective is met
_WAITING_MAX = 0.5  # requests waiting per replica, as a full step leaves them behind
_WIDE = 1.25  # of the interval's upper end over the cost
_COVERED_MIN = 0.5  # of the replica time that is there
_SHARE_MIN = 0.5  # the law of pooling is not known better than the rest
_MEMORY_S = 900.0  # a moment that does not show it takes nothing back; the estimate takes over


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Tokens a second that one replica among very many was shown to carry: prompt and output.

    ``prompt_now`` and ``output_now`` are those of the newest interval alone, ``key`` says of which
    replicas.
    """

    prompt_per_s: float = 0.0
    output_per_s: float = 0.0
    prompt_now: float = 0.0
    output_now: float = 0.0
    alone: bool = False  # of the first interval: the next one takes its place
    seen_at_s: float | None = None
    key: str = ""


make_shown = maker(Shown)


def is_unsure(capacity: Capacity, state: CapacityState) -> bool:
    """Whether the published step times are not yet what was measured, or that says little."""
    moving = not state.steps.doubt or state.multiples != state.steps.estimate
    return moving or capacity.request_cost_high_s > _WIDE * capacity.request_cost_s


def see_shown(
    observation: Observation,
    before: Shown,
    state: CapacityState,
    policy: PolicyConfig,
    *,
    demand: Demand,
    capacity: Capacity,
) -> Shown:
    """What has been shown after one observation.

    ``state`` is the capacity's, with this observation in it: its flows are means of a minute.
    """
    work, replicas = observation.work, observation.replicas
    if before.key != state.key:
        before = Shown(key=state.key)
    if isinstance(work, NoData) or isinstance(replicas, NoData) or replicas.ready <= 0:
        return before
    last_s = before.seen_at_s
    if last_s is not None and work.seen_at_s <= last_s:
        return before
    seen_at_s = min(work.seen_at_s, observation.seen_at_s)
    least_s = max(work.replica_s, replicas.ready * work.interval_s * _COVERED_MIN)
    now = (work.prompt_tokens / least_s, work.output_tokens / least_s)
    left = 0.0 if last_s is None else decay(seen_at_s - last_s, _MEMORY_S)
    most = (left * before.prompt_per_s, left * before.output_per_s)
    alone = before.alone
    if _within_objectives(observation, policy):
        flow = state.flow
        share = max(carried(replicas.ready, capacity, policy.capacity) / replicas.ready, _SHARE_MIN)
        again = now if last_s is None else (before.prompt_now, before.output_now)
        found = (
            min(flow.prompt_per_s, now[0], again[0]) / share,
            min(flow.output_per_s, now[1], again[1]) / share,
        )
        if alone or dearest_s(demand, found) < dearest_s(demand, most):
            most = found
        alone = last_s is None
    return make_shown(
        prompt_per_s=most[0],
        output_per_s=most[1],
        prompt_now=now[0],
        output_now=now[1],
        alone=alone,
        seen_at_s=seen_at_s,
        key=state.key,
    )


def dearest_s(demand: Demand, shown: tuple[float, float]) -> float:
    """What a request costs at most, if a replica carries so many tokens a second of each kind.

    Whatever the prices of the two: as many requests as both kinds leave room for.
    """
    prompt_per_s, output_per_s = shown
    prompt = demand.prompt_tokens_per_request * (1.0 - demand.cached_ratio)
    output = demand.output_tokens_per_request
    most_s = output_s = 0.0
    if prompt > 0.0:
        most_s = prompt / prompt_per_s if prompt_per_s > 0.0 else math.inf
    if output > 0.0:
        output_s = output / output_per_s if output_per_s > 0.0 else math.inf
    most_s = most_s if most_s > output_s else output_s
    return most_s if most_s > 0.0 else math.inf


def bounded(capacity: Capacity, shown: Shown, demand: Demand) -> Capacity:
    """The capacity, with no request dearer than what was shown allows."""
    most_s = dearest_s(demand, (shown.prompt_per_s, shown.output_per_s))
    if capacity.request_cost_high_s <= most_s:
        return capacity
    return replace(
        capacity,
        request_cost_s=min(capacity.request_cost_s, most_s),
        request_cost_low_s=min(capacity.request_cost_low_s, most_s),
        request_cost_high_s=most_s,
    )


def _within_objectives(observation: Observation, policy: PolicyConfig) -> bool:
    """Whether the replicas that are there meet the objectives with nothing left over."""
    queue, work, ttft, itl = observation.queue, observation.work, observation.ttft, observation.itl
    replicas, slo = observation.replicas, policy.slo
    assert not isinstance(work, NoData)
    assert not isinstance(replicas, NoData)
    if isinstance(queue, NoData) or isinstance(ttft, NoData) or ttft.total < _REQUESTS_MIN:
        return False
    if queue.requests_waiting > _WAITING_MAX * replicas.ready or work.preemptions > 0.0:
        return False
    allowed = 1.0 - slo.attainment_target_ratio
    if replicas.start_up_s or missed_ratio(ttft, slo.ttft_s) > allowed:
        return False
    if slo.tpot_s <= 0.0:
        return True
    return not isinstance(itl, NoData) and missed_ratio(itl, slo.tpot_s) <= allowed
