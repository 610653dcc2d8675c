"""What replicas were seen to carry, while what they could carry is not known well.

A fleet that serves its load within the objective is proof that so many replicas are enough, however
wrong the prior is.  An engine four times as fast as the prior believes would otherwise be asked for
four times its replicas at first sight, and keep them for a hold.

The proof is of what was served (prompt and output tokens at the prior's prices, not requests that
have only arrived: a batch that still fills shows nothing yet), so it stays right when the mix
moves.  It bounds the cost of a request from above while the step times are on their way to what
was measured, or their interval is wide; after that the estimate knows better than the largest of
many noisy seconds.
"""

from dataclasses import dataclass, replace

from scaler.core.budget import missed_ratio
from scaler.core.capacity import CapacityState, carried, unlearned_work
from scaler.core.config import PolicyConfig
from scaler.core.made import maker
from scaler.core.model import Capacity, Demand, NoData, Observation
from scaler.core.window import decay

_REQUESTS_MIN = 20.0  # first tokens in a window before it shows that the objective is met
_WAITING_MAX = 0.5  # requests waiting per replica, as a full step leaves them behind
_WIDE = 1.25  # of the interval's upper end over the cost
_MEMORY_S = 900.0  # a moment that does not show it takes nothing back; the estimate takes over


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Work a second that one replica among very many was shown to carry, at the prior's prices."""

    work: float = 0.0
    seen_at_s: float | None = None


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
    if isinstance(work, NoData) or isinstance(replicas, NoData) or replicas.ready <= 0:
        return before
    if before.seen_at_s is not None and work.seen_at_s <= before.seen_at_s:
        return before
    carries = before.work * decay(work.interval_s, _MEMORY_S)
    if _within_objectives(observation, policy):
        flow = state.flow
        served = unlearned_work(flow.prompt_per_s, flow.output_per_s, demand, policy)
        share = carried(replicas.ready, capacity, policy.capacity) / replicas.ready
        carries = max(carries, served / share)
    return make_shown(work=carries, seen_at_s=work.seen_at_s)


def bounded(capacity: Capacity, shown: Shown, *, unlearned_cost_s: float) -> Capacity:
    """The capacity, with no request dearer than what was shown allows."""
    if shown.work <= 0.0:
        return capacity
    most_s = unlearned_cost_s / shown.work
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
