"""What a decision remembers from one tick to the next, and what it makes of it."""

from dataclasses import dataclass, field

from scaler.core.budget import Budget, BudgetState
from scaler.core.capacity import CapacityState
from scaler.core.capacity_shown import Shown
from scaler.core.config import HoldDownConfig, PolicyConfig
from scaler.core.demand import DemandState
from scaler.core.forecast import ForecastState
from scaler.core.made import gatherer
from scaler.core.model import Mode
from scaler.core.sight import Seen
from scaler.core.start_up import StartUpState
from scaler.core.window import decay, within


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """All that a decision remembers.  Goes in, comes out, survives a restart as JSON.

    ``load`` is the last one in replicas' worth.  ``work_level`` is its mean over some minutes, and
    ``work_peak`` what is left of the highest level, as ``peak_of`` lets it fade: both at the
    prices of ``unit_cost_s``, because what a replica carries is learned meanwhile, and a load of an
    hour ago that was believed to be four times as large would keep four times the replicas;
    ``work_settled`` is the highest peak since the count was set, at the same prices;
    ``raised_at_s`` is when the count last rose.
    ``good_at_s`` is the last decision from good data, ``last_count`` what it wanted,
    ``last_ready`` the ready replicas it saw.  ``idle_since_s`` is when an unbroken idleness began,
    ``asked_at_s`` when a gateway last saw a request for the target at zero.
    """

    demand: DemandState = field(default_factory=DemandState)
    capacity: CapacityState = field(default_factory=CapacityState)
    shown: Shown = Shown()
    forecast: ForecastState = field(default_factory=ForecastState)
    start_up: StartUpState = field(default_factory=StartUpState)
    budget: BudgetState = field(default_factory=BudgetState)
    load: float = 0.0
    work_level: float | None = None
    level_at_s: float = 0.0
    work_peak: float = 0.0
    work_settled: float = 0.0
    raised_at_s: float | None = None
    seen: Seen = ()
    good_at_s: float | None = None
    last_count: int | None = None
    last_ready: int = 0
    last_active: bool = True
    idle_since_s: float | None = None
    latency_step_at_s: float | None = None
    ready_rose_at_s: float | None = None
    asked_at_s: float | None = None


make_policy_state = gatherer(
    PolicyState,
    ("demand", "capacity", "shown", "forecast"),
    ("load", "ready_rose_at_s"),
    ("start_up", "asked_at_s"),
)
"""From the ``Learned``, the ``Situation`` and the state before, and the rest as keywords."""


def level_of(work: float, state: PolicyState, config: PolicyConfig, now_s: float) -> float:
    """The load at the prices of ``unit_cost_s``, over ``hold_down.level_s``."""
    if state.work_level is None:
        return work
    kept = decay(now_s - state.level_at_s, config.hold_down.level_s)
    return kept * state.work_level + (1.0 - kept) * work


def peak_of(
    level: float, state: PolicyState, config: PolicyConfig, now_s: float, *, ease: float = 1.0
) -> float:
    """The level, or what is left of a higher one: that fades with ``hold_down.release_s``.

    A load that drifts away falls more slowly than that and is followed at once.  One that is gone
    within minutes is likely to be back: batch clients, deployments, tenants that switch.  ``ease``
    is the part of the release that is left while misses are cheap.
    """
    release_s = ease * config.hold_down.release_s
    if release_s <= 0.0:
        return level
    left = decay(now_s - state.level_at_s, release_s) * state.work_peak
    return max(level, left)


def ease_of(budget: Budget, config: HoldDownConfig) -> float:
    """The part of the margins and the release of the way down that what is spent asks for.

    All of it where ``ease_spent_ratio`` of the budget is spent, in proportion below that: a margin
    guards against misses, and as long as hardly any are counted, they are cheap.
    """
    if config.ease_spent_ratio <= 0.0:
        return 1.0
    return within(budget.spent_ratio / config.ease_spent_ratio, config.ease_min_ratio, 1.0)


def count_before(state: PolicyState, config: PolicyConfig, wanted: int, now_s: float) -> int:
    """The count to hold: what was wanted last, and what is there where we move it.

    Where the mode only looks on, the count that is there is another's.
    """
    if state.last_count is None or watch_broken(state, config, now_s):
        return wanted
    return max(state.last_count, wanted) if config.mode is Mode.ACTIVE else state.last_count


def raised_at_s(state: PolicyState, config: PolicyConfig, now_s: float) -> float:
    """When the count last rose; now after a start or a blindness.

    Without history the present count is the best evidence of what was needed, and a restarted
    daemon must not shrink a fleet it has not watched (Knative starts in panic for the same reason).
    """
    if state.raised_at_s is None or watch_broken(state, config, now_s):
        return now_s
    return state.raised_at_s


def ready_rose_at_s(state: PolicyState, ready: int, now_s: float) -> float | None:
    """When replicas last became ready; at first sight none has, as far as is known."""
    rose = state.last_count is not None and ready > state.last_ready
    return now_s if rose else state.ready_rose_at_s


def watch_broken(state: PolicyState, config: PolicyConfig, now_s: float) -> bool:
    """Whether the time since the last good decision is longer than a blindness is bridged."""
    return state.good_at_s is None or now_s - state.good_at_s > config.freshness.grace_s
