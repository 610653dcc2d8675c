"""Which candidate to believe: every forecast is kept until its time has come, then scored.

A candidate's loss is its absolute error and, as much, its pinball loss at the asked quantile (what
too little costs against too much); both fade.  A weight is the loss relative to the best one's to
a high negative power: among equals a mean, which is better than each, and as soon as one leads, its
leader (between the average of Bates and Granger 1969 and following the leader).
"""

from dataclasses import dataclass
from itertools import compress
from math import exp

from scaler.core.config import ForecastConfig
from scaler.core.forecast_candidates import COUNT, Weights
from scaler.core.made import maker

WEIGHT_MIN = 0.02  # a smaller share is dropped: it moves nothing and costs time
ROWS_MIN = 3.0  # forecasts that must have come due before the blend may be used
HYSTERESIS_RATIO = 0.02  # so much worse than persistence before a blend in use is dropped
LAST_ONLY: Weights = (1.0, *(0.0,) * (COUNT - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A forecast whose time has not come: what each candidate said, their blend, and its use."""

    due_at_s: float
    each: tuple[float, ...]
    blend: float
    mean: float  # the blend, or persistence while the blend is not used
    margin: float  # of the configured quantile above the mean
    spread: float  # what errors are measured in


make_pending = maker(Pending)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Fading sums of losses, and the weights made of them.

    ``losses`` are by candidate, ``error`` and ``pinball`` of the blend; ``error_last`` and
    ``pinball_last`` of persistence.
    """

    weights: Weights = LAST_ONLY
    rows: float = 0.0
    losses: tuple[float, ...] = (0.0,) * COUNT
    error: float = 0.0
    error_last: float = 0.0
    pinball: float = 0.0
    pinball_last: float = 0.0
    used: bool = False

    @property
    def skill(self) -> float:
        """1 - the blend's error over persistence's; 0 while nothing is known or nothing moves."""
        return 1.0 - self.error / self.error_last if self.error_last > 0.0 else 0.0


make_scores = maker(Scores)


def pinball(error: float, ratio: float) -> float:
    """Loss of a quantile missed by ``error`` (value - forecast): Koenker and Bassett 1978."""
    return ratio * error if error > 0.0 else (ratio - 1.0) * error


def scored(
    scores: Scores,
    due: Pending,
    value: float,
    *,
    allowed: tuple[bool, ...],
    elapsed_s: float,
    config: ForecastConfig,
) -> Scores:
    """``scores`` after the time of ``due`` came and the series was at ``value``.

    ``elapsed_s`` is the time since the last score; only ``allowed`` candidates get a weight.
    """
    kept = exp(-elapsed_s / config.score_time_constant_s)
    ratio, above = config.quantile_ratio, value - due.margin
    under = ratio - 1.0  # the pinball loss is written out: a call for each candidate costs as much
    losses = tuple(
        [
            kept * loss
            + abs(value - each)
            + (above - each) * (ratio if above - each > 0.0 else under)
            for loss, each in zip(scores.losses, due.each, strict=True)
        ]
    )
    error = kept * scores.error + abs(value - due.blend)
    error_last = kept * scores.error_last + abs(value - due.each[0])
    slack = HYSTERESIS_RATIO if scores.used else 0.0
    rows = kept * scores.rows + 1.0
    return make_scores(
        weights=weights_of(losses, allowed, config.weight_power_factor),
        rows=rows,
        losses=losses,
        error=error,
        error_last=error_last,
        pinball=kept * scores.pinball + pinball(above - due.blend, ratio),
        pinball_last=kept * scores.pinball_last + pinball(above - due.each[0], ratio),
        used=rows >= ROWS_MIN and error < (1.0 + slack) * error_last,
    )


def weights_of(losses: tuple[float, ...], allowed: tuple[bool, ...], power: float) -> Weights:
    """Shares of the ``allowed`` candidates, summing to one; persistence is always allowed.

    Without any loss at all persistence has it all.
    """
    least = min(compress(losses, allowed))
    if least <= 0.0:
        return LAST_ONLY
    raw = [
        (least / loss) ** power if may else 0.0 for loss, may in zip(losses, allowed, strict=True)
    ]
    floor = WEIGHT_MIN * sum(raw)
    kept = [share if share >= floor else 0.0 for share in raw]
    total = sum(kept)
    return tuple([share / total for share in kept])
