"""Stages: each takes a count and may change it, and then says so in a ``Step``.

A stage that leaves the count alone adds no step, so the last step is what decided.
"""

from dataclasses import dataclass
from operator import attrgetter

from scaler.core.config import HoldDownConfig, PolicyConfig
from scaler.core.made import maker
from scaler.core.model import NoData, Proposal, Signal, Stage, Step, Terms, make_step
from scaler.core.proposals import Situation, likely_ratio, objective, relief, sized
from scaler.core.sizing import load_sigma, make_margins

Steps = tuple[Step, ...]

_STAGES = {signal: Stage(signal.value) for signal in Signal}
_REPLICAS = attrgetter("replicas")
_GONE_RATIO = 0.1  # of the load since the count was set: less is no fall
_GONE_SIGMAS = 8.0  # of its noise: from the highest of a day to the lowest of the same load
_SETTLES_S = 3600.0  # after a rise or a start: what was asked for in haste or in doubt goes freely


def count_of(steps: Steps) -> int:
    """The count after the last step."""
    return steps[-1].replicas


def then(steps: Steps, stage: Stage, replicas: int, terms: Terms) -> Steps:
    """``steps`` with one more when it changes the count."""
    if replicas == count_of(steps):
        return steps
    return (*steps, make_step(stage=stage, replicas=replicas, terms=terms))


def binding(proposals: tuple[Proposal, ...]) -> Steps:
    """The first step: the largest proposal, the earliest in order among equals."""
    best = max(proposals, key=_REPLICAS)
    return (make_step(stage=_STAGES[best.signal], replicas=best.replicas, terms=best.terms),)


def keep(steps: Steps, at: Situation, *, since_s: float) -> Steps:
    """Go down only as far as the remaining replicas carry the load with a margin: N/(N-1).

    The load is what is left of its highest level over some minutes, or the highest that is forecast
    for the time in which a replica would have to be started again.  The margin is a share of it and
    some standard deviations, or the replica would be wanted back at once; both shrink while misses
    are cheap (``Situation.ease``).
    """
    count = count_of(steps)
    if count >= at.sought:
        return steps
    load = max(at.peak, at.forecast.load_horizon)
    band, eased = _dead_band(at, load, since_s=since_s)
    begun = _carrying(at, load, eased, band=band) < at.sought
    ease = at.ease if begun else eased
    replicas = min(max(count, _carrying(at, load, ease)), at.sought) if begun else at.sought
    terms = (
        ("margin_ratio", ease * at.config.hold_down.margin_ratio),
        ("load", load),
        ("level", at.level),
        ("sigmas", _kept_sigmas(at, ease)),
        ("forecast_margin", at.margins.forecast),
        ("cost_sigma", at.margins.capacity_ratio),
        ("band", 0.0 if begun else band),
    )
    return then(steps, Stage.KEEP, replicas, terms)


def _dead_band(at: Situation, load: float, *, since_s: float) -> tuple[float, float]:
    """What a step down must be clear of before it begins, in load, and the ease it begins with.

    The band is the load's own noise, and grows with the square root of the load, while a replica's
    worth stays one.  Where the load has not fallen since the count was set, only what is believed
    of it has: that replicas carry a little more, or that misses have become cheap.  That moves no
    count, short of a change of belief that is clear of its own drift; but what was asked for in
    haste, or in the doubt of a start, is let go freely, so the drift counts in full from an hour
    after the last rise.
    """
    hold = at.config.hold_down
    sigma = load_sigma(load, at.capacity, over_s=hold.level_s)
    band = hold.scatter_factor * sigma
    if at.peak + max(_GONE_RATIO * load, _GONE_SIGMAS * sigma) <= at.settled:
        return band, at.ease
    return max(band, hold.drift_ratio * load * min(since_s / _SETTLES_S, 1.0)), 1.0


def _carrying(at: Situation, load: float, ease: float, *, band: float = 0.0) -> int:
    """Replicas that carry ``load`` with that part of the margin of the way down."""
    margins = make_margins(
        sigmas=_kept_sigmas(at, ease),
        forecast=at.margins.forecast,
        capacity_ratio=at.margins.capacity_ratio,
    )
    return sized(at, load * (1.0 + ease * at.config.hold_down.margin_ratio) + band, margins)


def _kept_sigmas(at: Situation, ease: float) -> float:
    return max(at.margins.sigmas, ease * at.config.hold_down.sigma_min_factor)


def veto(steps: Steps, at: Situation) -> Steps:
    """Not fewer than now while GPUs are busy without a reason, or latency is near its objective.

    Latency counts up to the count at which load can have no part in it: long prompts on idle
    replicas must not hold a fleet at its peak for good.
    """
    if count_of(steps) >= at.wanted:
        return steps
    terms = _unexplained_gpu(at)
    if terms:
        return then(steps, Stage.VETO, at.wanted, terms)
    terms = _near_objective(at, Signal.TTFT) or _near_objective(at, Signal.ITL)
    if not terms:
        return steps
    replicas = max(count_of(steps), min(at.wanted, relief(at)))
    return then(steps, Stage.VETO, replicas, terms)


def _unexplained_gpu(at: Situation) -> Terms:
    """GPUs busy while the engines report next to nothing: somebody is served whom we do not see.

    Utilisation near 1 with requests running is no evidence: vLLM's decode loop keeps the GPU busy
    with one
    request as with two hundred.  So a veto needs busy GPUs and fewer running requests than
    replicas.
    """
    gpu, queue = at.observation.gpu, at.observation.queue
    if isinstance(gpu, NoData) or isinstance(queue, NoData):
        return ()
    quiet = queue.requests_running < 0.5 * at.ready
    if not quiet or gpu.utilisation_mean_ratio < at.config.signals.gpu_busy_ratio:
        return ()
    return (
        ("gpu_utilisation_mean_ratio", gpu.utilisation_mean_ratio),
        ("requests_running", queue.requests_running),
    )


def _near_objective(at: Situation, signal: Signal) -> Terms:
    """Fewer requests than the target are within a share of the objective: the tail is close."""
    found = objective(at, signal)
    if found is None:
        return ()
    latency, objective_s = found
    pressed_s = at.config.signals.ttft_pressure_ratio * objective_s
    likely = likely_ratio(latency, pressed_s)
    if likely >= at.config.slo.attainment_target_ratio:
        return ()
    return (("pressed_s", pressed_s), ("attainment_pressed_ratio", likely))


def hold_span_s(config: HoldDownConfig, start_up_s: float) -> float:
    """How long a higher count is kept: the window, or some start-up times, whichever is longer.

    Dropping a replica that is needed again costs a start-up of missed objectives, keeping it
    costs the replica: the hold grows with what a mistake costs.
    """
    return max(config.window_s, config.start_up_factor * start_up_s)


def hold_down(steps: Steps, at: Situation, *, since_s: float, span_s: float) -> Steps:
    """Not fewer than before within ``span_s`` of the last rise, ``since_s`` ago."""
    if since_s > span_s or count_of(steps) >= at.before:
        return steps
    terms = (("span_s", span_s), ("since_s", since_s))
    return then(steps, Stage.HOLD_DOWN, at.before, terms)


def lost_signal(steps: Steps, at: Situation, lost: int) -> Steps:
    """Not fewer than now while a signal that used to be there is missing."""
    if lost == 0 or count_of(steps) >= at.wanted:
        return steps
    return then(steps, Stage.BLIND, at.wanted, (("signals_lost", float(lost)),))


def no_api(steps: Steps, at: Situation) -> Steps:
    """Without the Kubernetes API the count may rise with the load and never fall."""
    if not isinstance(at.observation.replicas, NoData) or count_of(steps) >= at.wanted:
        return steps
    return then(steps, Stage.NO_API, at.wanted, (("last_count", float(at.wanted)),))


def bound(steps: Steps, *, low: int, high: int) -> Steps:
    """Within the bounds; the minimum wins where they cross."""
    count = count_of(steps)
    if low <= count <= high:
        return steps
    replicas = max(min(count, high), low)
    return then(
        steps, Stage.BOUNDS, replicas, (("replicas_min", float(low)), ("replicas_max", float(high)))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Least and greatest count a target may have."""

    low: int
    high: int


make_limits = maker(Limits)


def limits(config: PolicyConfig, replicas_min: int | None, replicas_max: int | None) -> Limits:
    """Bounds to apply: the object's own where they are known, else the configured ones."""
    low = config.bounds.replicas_min if replicas_min is None else replicas_min
    high = config.bounds.replicas_max if replicas_max is None else replicas_max
    return make_limits(low=max(low, 0), high=max(high, 1))
