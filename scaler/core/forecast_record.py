"""The record of the forecasts: noted when made, settled when their time has come.

Everything that is learned from errors is here: the weights of the candidates, the quantiles of the
error at the lead, and those of the highest minute until the horizon.
"""

import math
from dataclasses import dataclass, field, replace

from scaler.core.config import ForecastConfig
from scaler.core.forecast_candidates import (
    EVERY,
    MINUTE_S,
    Candidate,
    Known,
    Weights,
    available,
    predict,
    predict_each,
)
from scaler.core.forecast_levels import brief
from scaler.core.forecast_quantiles import Residuals, learned
from scaler.core.forecast_scores import Pending, Scores, make_pending, scored
from scaler.core.made import maker

ROW_S = 60.0  # forecasts are noted once a minute
ROWS_MAX = 16  # and no more at a time: a longer lead notes them further apart
PEAK_ROWS_MAX = 8
GOLDEN = 0.6180339887498949  # fractions of its multiples fill the unit evenly (Weyl)
PATH = (0.4, 0.7, 1.0)  # parts of the horizon at which the path is looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakPending:
    """A forecast of the highest minute from ``noted_at_s`` to ``due_at_s``."""

    noted_at_s: float
    due_at_s: float
    mean: float
    margin: float
    spread: float


make_peak_pending = maker(PeakPending)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Forecasts of the highest minute within the horizon: those waiting, and the errors seen.

    ``ahead`` is the highest mean on the way to the lead, ``within`` on the way to the horizon, both
    when last looked at; ``margin`` is the configured quantile of the error in spreads.
    """

    pending: tuple[PeakPending, ...] = ()
    residuals: Residuals = field(default_factory=Residuals)
    margin: float = 1.0
    ahead: float = 0.0
    within: float = 0.0


make_peaks = maker(Peaks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Forecasts waiting for their time, and what was learned from those whose time has come.

    ``noted_at_s`` and ``scored_at_s`` are when a forecast was last noted and scored; ``margin`` is
    the configured quantile of the error in spreads.
    """

    pending: tuple[Pending, ...] = ()
    noted_at_s: float | None = None
    scored_at_s: float | None = None
    scores: Scores = field(default_factory=Scores)
    residuals: Residuals = field(default_factory=Residuals)
    margin: float = 1.0
    peaks: Peaks = field(default_factory=Peaks)


make_record = maker(Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What is to be noted: the weighted mean of the candidates, what was used, and its margins."""

    blend: float
    mean: float
    margin: float
    spread: float
    weights: Weights
    peak_mean: float
    peak_margin: float
    lead_s: float
    horizon_s: float


make_said = maker(Said)


def row_is_due(noted_at_s: float | None, lead_s: float, now_s: float) -> bool:
    """Whether it is time to note a forecast: once a minute on average, at uneven times.

    Even times would meet a load that switches every few minutes always at the same phase.
    """
    if noted_at_s is None:
        return True
    uneven = 0.625 + 0.75 * (noted_at_s / ROW_S * GOLDEN % 1.0)
    return now_s - noted_at_s >= uneven * max(ROW_S, lead_s / ROWS_MAX)


def forgotten(record: Record) -> Record:
    """``record`` after a long silence: what came due meanwhile is not scored."""
    peaks = make_peaks(residuals=record.peaks.residuals, margin=record.peaks.margin)
    return replace(record, pending=(), noted_at_s=None, scored_at_s=None, peaks=peaks)


def settled(
    record: Record,
    known: Known,
    config: ForecastConfig,
    *,
    forecaster: tuple[Candidate, ...],
    now_s: float,
) -> Record:
    """``record`` after every forecast that has come due was compared with what came."""
    pending, peaks = record.pending, record.peaks.pending
    if pending and pending[0].due_at_s <= now_s:
        record = _scored(record, known, config, forecaster=forecaster, now_s=now_s)
    if peaks and peaks[0].due_at_s <= now_s:
        record = _with_peaks(record, _peak_settled(record.peaks, known, config))
    return record


def _with_peaks(record: Record, peaks: Peaks) -> Record:
    return make_record(
        pending=record.pending,
        noted_at_s=record.noted_at_s,
        scored_at_s=record.scored_at_s,
        scores=record.scores,
        residuals=record.residuals,
        margin=record.margin,
        peaks=peaks,
    )


def _scored(
    record: Record,
    known: Known,
    config: ForecastConfig,
    *,
    forecaster: tuple[Candidate, ...],
    now_s: float,
) -> Record:
    value, pending = known.came, record.pending
    there = available(known)
    allowed = there
    if forecaster != EVERY:
        allowed = tuple(
            [may and name in forecaster for name, may in zip(EVERY, there, strict=True)]
        )
    scores, residuals = record.scores, record.residuals
    elapsed_s = 0.0 if record.scored_at_s is None else now_s - record.scored_at_s
    while pending and pending[0].due_at_s <= now_s:
        due, pending = pending[0], pending[1:]
        scores = scored(scores, due, value, allowed=allowed, elapsed_s=elapsed_s, config=config)
        residuals = learned(
            residuals,
            (value - due.mean) / due.spread,
            missed=value - due.mean > due.margin,
            elapsed_s=elapsed_s,
            config=config,
        )
        elapsed_s = 0.0
    return make_record(
        pending=pending,
        noted_at_s=record.noted_at_s,
        scored_at_s=now_s,
        scores=scores,
        residuals=residuals,
        margin=residuals.quantile(config.quantile_ratio),
        peaks=record.peaks,
    )


def _peak_settled(peaks: Peaks, known: Known, config: ForecastConfig) -> Peaks:
    """``peaks`` after the oldest of them was compared; one a tick is enough, they are far apart."""
    due, *rest = peaks.pending
    minutes = math.ceil(max(known.cycle.at_s - due.noted_at_s, 1.0) / MINUTE_S)
    highest = max(known.cycle.minutes[-minutes:], default=due.mean)
    residuals = learned(
        peaks.residuals,
        (highest - due.mean) / due.spread,
        missed=highest - due.mean > due.margin,
        elapsed_s=rest[0].noted_at_s - due.noted_at_s if rest else ROW_S,
        config=config,
    )
    return make_peaks(
        pending=tuple(rest),
        residuals=residuals,
        margin=residuals.quantile(config.quantile_ratio),
        ahead=peaks.ahead,
        within=peaks.within,
    )


def noted(
    record: Record, said: Said, known: Known, config: ForecastConfig, *, now_s: float
) -> Record:
    """``record`` with a forecast noted for its day of judgement, and the path looked at anew."""
    row = make_pending(
        due_at_s=now_s + said.lead_s,
        each=tuple(map(brief, predict_each(known, said.lead_s, config))),
        blend=brief(said.blend),
        mean=brief(said.mean),
        margin=brief(said.margin),
        spread=brief(said.spread),
    )
    ahead = predict(known, said.weights, 0.5 * said.lead_s, config)
    within = max([predict(known, said.weights, part * said.horizon_s, config) for part in PATH])
    peaks = record.peaks
    waiting = peaks.pending
    last_s = waiting[-1].noted_at_s if waiting else -math.inf
    if now_s - last_s >= said.horizon_s / PEAK_ROWS_MAX:
        peak = make_peak_pending(
            noted_at_s=now_s,
            due_at_s=now_s + said.horizon_s,
            mean=brief(max(said.peak_mean, within)),
            margin=brief(said.peak_margin),
            spread=brief(said.spread),
        )
        waiting = (*waiting, peak)[: 2 * PEAK_ROWS_MAX]
    return make_record(
        pending=(*record.pending, row)[: 2 * ROWS_MAX],
        noted_at_s=now_s,
        scored_at_s=record.scored_at_s,
        scores=record.scores,
        residuals=record.residuals,
        margin=record.margin,
        peaks=make_peaks(
            pending=waiting,
            residuals=peaks.residuals,
            margin=peaks.margin,
            ahead=ahead,
            within=within,
        ),
    )
