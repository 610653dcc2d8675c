"""What was learned with one prior, under settings that have another.

Multiples are of the prior's step times, and the series of work that the policy and the forecaster
remember are at the prior's prices.  A prior that is reloaded would change what all of it means: a
third of the step times made a third of every learned one, and left levels and forecasts three times
too high for as long as they are remembered.  So the state names the prior that it was learned with,
and what it knows in seconds stays as it was,
once it has seen some minutes of the engine:

    multiple * prior after = multiple * prior before
    unit after * prior's cost of a request after = unit before * prior's cost of a request before

The second is at the mix of the moment; ``CapacityState.unit`` makes the remembered series go on in
the unit in which they began, so that none of them has to be rewritten.
"""

from dataclasses import replace

from scaler.core.capacity import CapacityState, unlearned_cost_s
from scaler.core.capacity_steps import (
    MULTIPLE_MAX,
    MULTIPLE_MIN,
    PRIOR_NAMES,
    Filter,
    Four,
    make_filter,
    prior_of,
    within_limits,
    within_prior,
)
from scaler.core.config import CapacityConfig, PolicyConfig
from scaler.core.model import Demand
from scaler.core.window import within

_FIRST_S = 600.0  # of each replica's time


def repriced(state: CapacityState, demand: Demand, policy: PolicyConfig) -> CapacityState:
    """``state`` under the prior of ``policy``; as it is when it was learned with that.

    In the first minutes of an engine what is believed is still on its way from the old prior to
    what was seen, so the new prior is believed as it is, and learning begins again from it.
    """
    prior = prior_of(policy.capacity)
    if state.prior == prior:
        return state
    if state.prior is None:
        return replace(state, prior=prior)
    before = dict(zip(PRIOR_NAMES, state.prior, strict=True))
    then = replace(policy, capacity=replace(policy.capacity, **before))
    unit = state.unit * unlearned_cost_s(demand, then) / unlearned_cost_s(demand, policy)
    least_s = _FIRST_S * max(state.gauges.ready, 1.0)
    if not state.steps.doubt or state.evidence_s < least_s:
        first = Filter()
        return replace(
            state, prior=prior, unit=unit, evidence_s=0.0, multiples=first.estimate, steps=first
        )
    b0, b1, b2, b3, *_ = state.prior
    p0, p1, p2, p3, *_ = prior
    x0, x1, x2, x3 = state.steps.estimate
    by = (_ratio(b0, p0, x0), _ratio(b1, p1, x1), _ratio(b2, p2, x2), _ratio(b3, p3, x3))
    return replace(
        state,
        prior=prior,
        unit=unit,
        multiples=_times(state.multiples, by),
        steps=_converted(state.steps, by, policy.capacity),
    )


def _ratio(before_s: float, after_s: float, multiple: float) -> float:
    """What makes a multiple of the one prior one of the other, within the limits of multiples.

    A step time of nothing has no multiples: those of the other are kept.
    """
    if before_s <= 0.0 or after_s <= 0.0:
        return 1.0
    return within(before_s / after_s, MULTIPLE_MIN / multiple, MULTIPLE_MAX / multiple)


def _times(multiples: Four, by: Four) -> Four:
    x0, x1, x2, x3 = multiples
    return within_limits((x0 * by[0], x1 * by[1], x2 * by[2], x3 * by[3]))


def _converted(steps: Filter, by: Four, config: CapacityConfig) -> Filter:
    """The filter, after some samples, in multiples of the new prior."""
    r0, r1, r2, r3 = by
    pairs = (
        *(r0 * r0, r0 * r1, r0 * r2, r0 * r3),
        *(r1 * r1, r1 * r2, r1 * r3),
        *(r2 * r2, r2 * r3),
        r3 * r3,
    )
    doubt = tuple([old * pair for old, pair in zip(steps.doubt, pairs, strict=True)])
    return make_filter(
        estimate=_times(steps.estimate, by),
        doubt=within_prior(doubt, config),
        outliers=steps.outliers,
    )
