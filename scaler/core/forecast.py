"""The forecast of the demand at the lead time, and of its highest point in the time beyond.

The series is demand weighted in tokens per second: the mean since the last tick, not smoothed.  A
forecaster never sees replica counts.  Candidates (``forecast_candidates``) are weighted by their
scores against persistence (``forecast_scores``); while their blend is no better, persistence
stands.  The quantiles come from the errors seen (``forecast_quantiles``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from scaler.core.config import ForecastConfig, ForecasterName
from scaler.core.forecast_candidates import (
    EVERY,
    MINUTE_S,
    SHORT,
    Candidate,
    Known,
    Weights,
    first_known,
    learn,
    predict,
    resumed,
)
from scaler.core.forecast_cycle import MINUTES
from scaler.core.forecast_quantiles import Residuals
from scaler.core.forecast_record import (
    Record,
    Said,
    forgotten,
    make_said,
    noted,
    row_is_due,
    settled,
)
from scaler.core.forecast_regime import spread_of
from scaler.core.forecast_scores import LAST_ONLY
from scaler.core.forecast_season import DAY_S, DAY_SLOTS, WEEK_S, WEEK_SLOTS, profile_of
from scaler.core.made import maker

GAP_MAX_S = 600.0  # after a longer silence what came due is forgotten, not scored
HORIZON_MAX_S = MINUTES * MINUTE_S
HORIZON_LEADS = 3.0  # the horizon where none is given
REPLAY_S = 21600.0  # six hours: all that the minutes hold
PRIME_LEAD_S = 195.0  # start-up and tick before either was measured
SPREAD_LEAST = 1e-9

FORECASTERS: dict[ForecasterName, tuple[Candidate, ...]] = {
    ForecasterName.LAST: (Candidate.LAST,),
    ForecasterName.TREND: SHORT,
    ForecasterName.BLEND: EVERY,
}
"""Which candidates take part.  LAST alone is the last value as it was given, not smoothed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastState:
    """All that the forecaster remembers, its size bounded; ``known`` is None before any value."""

    known: Known | None = None
    record: Record = field(default_factory=Record)


make_forecast_state = maker(ForecastState)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A prediction of the series at the lead time, and of its peaks until then and beyond.

    ``mean`` and ``upper`` (the configured quantile) are of the value at the lead; ``peak_mean`` is
    the highest mean from now to the lead, ``horizon_mean`` from now to ``horizon_s``, and
    ``horizon_upper`` the configured quantile of the highest minute until then.  Errors are in
    ``spread``, the standard deviation of a minute's arrivals.
    """

    mean: float
    upper: float
    skill: float
    used: bool
    weights: Weights
    spread: float
    peak_mean: float
    horizon_s: float
    horizon_mean: float
    horizon_upper: float
    residuals: Residuals
    horizon_residuals: Residuals

    def quantile(self, ratio: float) -> float:
        """The value at the lead that is exceeded with probability 1 - ``ratio``."""
        return max(self.mean + self.residuals.quantile(ratio) * self.spread, 0.0)

    def peak(self, ratio: float) -> float:
        """What no minute until the horizon exceeds, with probability ``ratio``."""
        off = self.horizon_residuals.quantile(ratio) * self.spread
        return max(self.horizon_mean + off, 0.0)


make_outlook = maker(Outlook)


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
    scored by what it has seen.  ``horizon_s`` defaults to three leads, and is six hours at most.
    """
    horizon_s = HORIZON_LEADS * lead_s if horizon_s is None else horizon_s
    known, record = _learned(value, state, config, now_s)
    scores, peaks = record.scores, record.peaks
    blend = predict(known, scores.weights, lead_s, config)
    last = known.last
    if len(forecaster) == 1:
        last = mean = value
    else:
        mean = blend if scores.used else last
    noise_s = (state.known or known).regime.noise_s
    spread = max(spread_of(mean, noise_s, MINUTE_S), SPREAD_LEAST)
    peak_mean = max(mean, last, peaks.ahead)
    within = max(peak_mean, peaks.within)
    margin = peak_margin = 0.0
    if config.quantile_ratio > 0.5:  # no margin is asked for at the median
        margin = record.margin * spread if record.margin > 0.0 else 0.0
        peak_margin = peaks.margin * spread if peaks.margin > 0.0 else 0.0
    outlook = make_outlook(
        mean=mean,
        upper=mean + margin,
        skill=scores.skill,
        used=scores.used,
        weights=scores.weights,
        spread=spread,
        peak_mean=peak_mean,
        horizon_s=min(horizon_s, HORIZON_MAX_S),
        horizon_mean=within,
        horizon_upper=within + peak_margin,
        residuals=record.residuals,
        horizon_residuals=peaks.residuals,
    )
    record = settled(record, known, config, forecaster=forecaster, now_s=now_s)
    if row_is_due(record.noted_at_s, lead_s, now_s):
        said = _said(outlook, blend, lead_s)
        record = noted(record, said, known, config, now_s=now_s)
    return outlook, make_forecast_state(known=known, record=record)


def _learned(
    value: float, state: ForecastState, config: ForecastConfig, now_s: float
) -> tuple[Known, Record]:
    """What is known after ``value``; after a long silence the record forgets what waited."""
    known = state.known
    if known is None:
        return first_known(value, now_s), state.record
    elapsed_s = now_s - known.at_s
    if elapsed_s <= 0.0:
        return known, state.record
    if elapsed_s <= GAP_MAX_S:
        return learn(known, value, now_s, config), state.record
    return resumed(known, value, now_s), forgotten(state.record)


def _said(outlook: Outlook, blend: float, lead_s: float) -> Said:
    return make_said(
        blend=blend,
        mean=outlook.mean,
        margin=outlook.upper - outlook.mean,
        spread=outlook.spread,
        weights=outlook.weights if outlook.used else LAST_ONLY,
        peak_mean=outlook.peak_mean,
        peak_margin=outlook.horizon_upper - outlook.horizon_mean,
        lead_s=lead_s,
        horizon_s=outlook.horizon_s,
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
