"""The forecast of the demand at the lead time, and of its highest point in the time beyond.

The series is demand weighted in tokens per second: the mean since the last tick, not smoothed.  A
forecaster never sees replica counts.  Candidates (``forecast_candidates``) are weighted by their
scores against persistence (``forecast_scores``); while their blend is no better, persistence
stands.  The quantiles come from the errors seen (``forecast_quantiles``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import and_

import numpy as np
from numpy.typing import NDArray

from scaler.core.config import ForecastConfig, ForecasterName
from scaler.core.forecast_candidates import (
    EVERY,
    SHORT,
    Candidate,
    Known,
    available,
    first_known,
    learn,
    predict,
    predict_each,
    resumed,
)
from scaler.core.forecast_cycle import MINUTE_S, MINUTES
from scaler.core.forecast_quantiles import Residuals, learned
from scaler.core.forecast_regime import spread_of
from scaler.core.forecast_scores import LAST_ONLY, Pending, Scores, scored
from scaler.core.forecast_season import DAY_S, DAY_SLOTS, WEEK_S, WEEK_SLOTS, profile_of

GAP_MAX_S = 600.0  # after a longer silence what came due is forgotten, not scored
ROW_S = 60.0  # forecasts are noted once a minute
ROWS_MAX = 16  # and no more at a time: a longer lead notes them further apart
GOLDEN = 0.6180339887498949  # fractions of its multiples fill the unit evenly (Weyl)
REPLAY_S = 21600.0  # six hours: all that the minutes hold
PRIME_LEAD_S = 195.0  # start-up and tick before either was measured
PATH = (0.25, 0.5, 0.75, 1.0)  # parts of the horizon at which the path is looked at
SPREAD_LEAST = 1e-9

FORECASTERS: dict[ForecasterName, tuple[Candidate, ...]] = {
    ForecasterName.LAST: (Candidate.LAST,),
    ForecasterName.TREND: SHORT,
    ForecasterName.BLEND: EVERY,
}
"""Which candidates take part.  LAST alone is the last value as it was given, not smoothed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakPending:
    """A forecast of the highest minute from ``noted_at_s`` to ``due_at_s``."""

    noted_at_s: float
    due_at_s: float
    mean: float
    margin: float
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Forecasts of the highest minute within the horizon: those waiting, and the errors seen.

    ``ahead`` is the highest mean on the way to the lead, ``within`` on the way to the horizon, both
    when last looked at.
    """

    pending: tuple[PeakPending, ...] = ()
    residuals: Residuals = field(default_factory=Residuals)
    ahead: float = 0.0
    within: float = 0.0
    margin: float = 1.0  # spreads between the mean and the configured quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastState:
    """All that the forecaster remembers, its size bounded; ``known`` is None before any value.

    ``noted_at_s`` and ``scored_at_s`` are when a forecast was last noted and scored; ``margin`` is
    the configured quantile of the error in spreads.
    """

    known: Known | None = None
    pending: tuple[Pending, ...] = ()
    noted_at_s: float | None = None
    scored_at_s: float | None = None
    scores: Scores = field(default_factory=Scores)
    residuals: Residuals = field(default_factory=Residuals)
    margin: float = 1.0
    peaks: Peaks = field(default_factory=Peaks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A prediction of the series at the lead time, and of its peaks until then and beyond.

    ``mean`` and ``upper`` (the configured quantile) are of the value at the lead; ``peak_mean`` is
    the highest mean from now to the lead, ``horizon_mean`` from now to ``horizon_s``, and
    ``horizon_upper`` the configured quantile of the highest minute until then.
    """

    mean: float
    upper: float
    skill: float
    used: bool
    weights: tuple[float, ...]
    spread: float
    residuals: Residuals
    peak_mean: float
    horizon_s: float
    horizon_mean: float
    horizon_upper: float
    horizon_residuals: Residuals

    def quantile(self, ratio: float) -> float:
        """The value at the lead that is exceeded with probability 1 - ``ratio``."""
        return max(self.mean + self.residuals.quantile(ratio) * self.spread, 0.0)

    def peak(self, ratio: float) -> float:
        """The minute that no minute until the horizon exceeds, with probability ``ratio``."""
        off = self.horizon_residuals.quantile(ratio) * self.spread
        return max(self.horizon_mean + off, 0.0)


def look_ahead(
    value: float,
    state: ForecastState,
    config: ForecastConfig,
    *,
    forecaster: tuple[Candidate, ...],
    lead_s: float,
    now_s: float,
    horizon_s: float | None = None,
) -> tuple[Outlook, ForecastState]:
    """Learn ``value``, predict the series at ``now_s + lead_s``, then score what has come due.

    ``value`` is the mean since the last call.  Weights, quantiles and noise are those known before
    it: a value moves the levels only, so a larger one is never forecast lower, and no forecast is
    scored by what it has seen.  ``horizon_s`` defaults to three leads.
    """
    span_s = min(3.0 * lead_s if horizon_s is None else horizon_s, MINUTES * MINUTE_S)
    known, state = _learned(value, state, config, now_s)
    scores, peaks = state.scores, state.peaks
    alone = len(forecaster) == 1
    last = value if alone else known.last
    blend = predict(known, scores.weights, lead_s, config)
    mean = blend if scores.used and not alone else last
    noise_s = (state.known or known).regime.noise_s
    spread = max(spread_of(mean, noise_s, MINUTE_S), SPREAD_LEAST)
    peak_mean = max(mean, last, peaks.ahead)
    within = max(peak_mean, peaks.within)
    median = config.quantile_ratio <= 0.5  # no margin is asked for
    outlook = Outlook(
        mean=mean,
        upper=mean if median else mean + max(state.margin, 0.0) * spread,
        skill=scores.skill,
        used=scores.used,
        weights=scores.weights,
        spread=spread,
        residuals=state.residuals,
        peak_mean=peak_mean,
        horizon_s=span_s,
        horizon_mean=within,
        horizon_upper=within if median else within + max(peaks.margin, 0.0) * spread,
        horizon_residuals=peaks.residuals,
    )
    after = _scored(_with_known(state, known), config, forecaster, now_s)
    if _row_is_due(state.noted_at_s, lead_s, now_s):
        after = _noted(after, outlook, blend, config, lead_s=lead_s, now_s=now_s)
    return outlook, after


def _learned(
    value: float, state: ForecastState, config: ForecastConfig, now_s: float
) -> tuple[Known, ForecastState]:
    """What the candidates know after ``value``; after a long silence the state forgets, too."""
    known = state.known
    if known is None:
        return first_known(value, now_s), state
    elapsed_s = now_s - known.at_s
    if elapsed_s <= 0.0:
        return known, state
    if elapsed_s <= GAP_MAX_S:
        return learn(known, value, now_s, config), state
    peaks = Peaks(residuals=state.peaks.residuals, margin=state.peaks.margin)
    forgetful = replace(state, pending=(), noted_at_s=None, peaks=peaks)
    return resumed(known, value, now_s), forgetful


def _row_is_due(noted_at_s: float | None, lead_s: float, now_s: float) -> bool:
    """Whether it is time to note a forecast: once a minute on average, at uneven times.

    Even times would meet a load that switches every few minutes always at the same phase.
    """
    if noted_at_s is None:
        return True
    uneven = 0.625 + 0.75 * (noted_at_s / ROW_S * GOLDEN % 1.0)
    return now_s - noted_at_s >= uneven * max(ROW_S, lead_s / ROWS_MAX)


def _with_known(state: ForecastState, known: Known) -> ForecastState:
    """``state`` with what the candidates remember now."""
    return ForecastState(
        known=known,
        pending=state.pending,
        noted_at_s=state.noted_at_s,
        scored_at_s=state.scored_at_s,
        scores=state.scores,
        residuals=state.residuals,
        margin=state.margin,
        peaks=state.peaks,
    )


def _scored(
    state: ForecastState,
    config: ForecastConfig,
    forecaster: tuple[Candidate, ...],
    now_s: float,
) -> ForecastState:
    """``state`` after every forecast that has come due was compared with what came."""
    known = state.known
    assert known is not None, "a value was learned before any forecast is scored"
    pending = state.pending
    if not pending or pending[0].due_at_s > now_s:
        return _peaks_scored(state, known, config, now_s)
    value = known.last
    allowed = tuple(name in forecaster for name in EVERY)
    allowed = tuple(map(and_, allowed, available(known)))
    scores, residuals = state.scores, state.residuals
    elapsed_s = 0.0 if state.scored_at_s is None else now_s - state.scored_at_s
    while pending and pending[0].due_at_s <= now_s:
        due, pending = pending[0], pending[1:]
        scores = scored(scores, due, value, allowed=allowed, elapsed_s=elapsed_s, config=config)
        error = value - due.mean
        residuals = learned(
            residuals,
            error / due.spread,
            missed=error > due.margin,
            ratio=config.quantile_ratio,
            elapsed_s=elapsed_s,
            memory_s=config.error_time_constant_s,
            shift_step=config.coverage_step_ratio,
        )
        elapsed_s = 0.0
    state = replace(
        state,
        pending=pending,
        scored_at_s=now_s,
        scores=scores,
        residuals=residuals,
        margin=residuals.quantile(config.quantile_ratio),
    )
    return _peaks_scored(state, known, config, now_s)


def _peaks_scored(
    state: ForecastState, known: Known, config: ForecastConfig, now_s: float
) -> ForecastState:
    """``state`` after the oldest forecast of a peak was compared, if its time has come.

    One a call is enough: they are noted further apart than ticks.
    """
    peaks = state.peaks
    if not peaks.pending or peaks.pending[0].due_at_s > now_s:
        return state
    due, *rest = peaks.pending
    minutes = math.ceil(max(known.cycle.ended_at_s - due.noted_at_s, 1.0) / MINUTE_S)
    highest = max(known.cycle.minutes[-minutes:], default=due.mean)
    residuals = learned(
        peaks.residuals,
        (highest - due.mean) / due.spread,
        missed=highest - due.mean > due.margin,
        ratio=config.quantile_ratio,
        elapsed_s=ROW_S if not rest else rest[0].noted_at_s - due.noted_at_s,
        memory_s=config.error_time_constant_s,
        shift_step=config.coverage_step_ratio,
    )
    return replace(
        state,
        peaks=replace(
            peaks,
            pending=tuple(rest),
            residuals=residuals,
            margin=residuals.quantile(config.quantile_ratio),
        ),
    )


def _noted(
    state: ForecastState,
    outlook: Outlook,
    blend: float,
    config: ForecastConfig,
    *,
    lead_s: float,
    now_s: float,
) -> ForecastState:
    """``state`` with this forecast noted for its day of judgement, and the path looked at anew."""
    known = state.known
    assert known is not None, "a value was learned before any forecast is noted"
    row = Pending(
        due_at_s=now_s + lead_s,
        each=predict_each(known, lead_s, config),
        blend=blend,
        mean=outlook.mean,
        margin=outlook.upper - outlook.mean,
        spread=outlook.spread,
    )
    weights = state.scores.weights if outlook.used else LAST_ONLY
    span_s = outlook.horizon_s
    ahead = predict(known, weights, 0.5 * lead_s, config)
    within = max(predict(known, weights, part * span_s, config) for part in PATH)
    peaks = replace(state.peaks, ahead=ahead, within=within)
    last_s = peaks.pending[-1].noted_at_s if peaks.pending else -math.inf
    if now_s - last_s >= span_s / ROWS_MAX:
        waiting = PeakPending(
            noted_at_s=now_s,
            due_at_s=now_s + span_s,
            mean=outlook.horizon_mean,
            margin=outlook.horizon_upper - outlook.horizon_mean,
            spread=outlook.spread,
        )
        peaks = replace(peaks, pending=(*peaks.pending, waiting))
    return replace(
        state, pending=(*state.pending, row)[: 2 * ROWS_MAX], noted_at_s=now_s, peaks=peaks
    )


def prime(
    history: Sequence[tuple[float, float]],
    config: ForecastConfig,
    *,
    forecaster: tuple[Candidate, ...] = EVERY,
    lead_s: float = PRIME_LEAD_S,
) -> ForecastState:
    """The state after a series (at_s, value) that was exported earlier, in any order.

    The shapes of day and week come from all of it by plain means; the last ``REPLAY_S`` are then
    replayed, so that candidates are scored and errors known.  What is not finite or below zero is
    left out.  An empty history gives an empty state.
    """
    times, values = _sound(history)
    state = ForecastState()
    if times.size == 0:
        return state
    first = int(np.searchsorted(times, times[-1] - REPLAY_S))
    if first > 0:
        day = profile_of(times[:first], values[:first], DAY_S, DAY_SLOTS, config)
        week = profile_of(times[:first], values[:first], WEEK_S, WEEK_SLOTS, config)
        before = first_known(float(values[first]), float(times[first]))
        before = replace(
            before, day=replace(before.day, slots=day), week=replace(before.week, slots=week)
        )
        state = replace(state, known=before)
    for at_s, value in zip(times[first:].tolist(), values[first:].tolist(), strict=True):
        _, state = look_ahead(
            value, state, config, forecaster=forecaster, lead_s=lead_s, now_s=at_s
        )
    return state


def _sound(
    history: Sequence[tuple[float, float]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and values in order of time, without what no demand can be."""
    rows = np.asarray(history, dtype=np.float64).reshape(-1, 2)
    rows = rows[np.isfinite(rows).all(axis=1) & (rows[:, 1] >= 0.0)]
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return rows[:, 0], rows[:, 1]
