"""What can be seen: which signals are usable, which are missing, and which used to be there."""

from dataclasses import dataclass

from scaler.core.config import FreshnessConfig
from scaler.core.model import Blindness, Cause, NoData, Observation, Signal

COVERAGE_FULL_RATIO = 0.999  # below it a replica is missing, in any fleet up to 1000

Seen = tuple[tuple[Signal, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Blindness of one observation.

    ``engines`` is False when neither the queue nor the work counters could be read: nothing is
    known of the load.  ``lost`` counts signals that were there lately and are not now, or cover a
    part of the replicas only: what is not seen may be where the load is.
    """

    engines: bool
    blind: tuple[Blindness, ...]
    lost: int
    seen: Seen


def look(observation: Observation, seen: Seen, config: FreshnessConfig) -> Sight:
    """Sort the signals into usable and blind; remember when each was last usable."""
    now_s = observation.seen_at_s
    last = dict(seen)
    blind: list[Blindness] = []
    lost = 0
    for signal, value in zip(_SIGNALS, _values(observation), strict=True):
        if not isinstance(value, NoData):
            last[signal] = now_s
            continue
        blind.append(Blindness(signal=signal, cause=value.cause, detail=value.detail))
        seen_at_s = last.get(signal)
        if seen_at_s is not None and now_s - seen_at_s <= config.expect_s:
            lost += 1
    for signal, total in ((Signal.WORK, observation.work), (Signal.QUEUE, observation.queue)):
        if not isinstance(total, NoData) and total.coverage_ratio < COVERAGE_FULL_RATIO:
            blind.append(_partial(signal, total.coverage_ratio))
            lost += 1
    missing = [isinstance(value, NoData) for value in (observation.queue, observation.work)]
    engines = not all(missing)
    if any(missing) and lost == 0:
        lost = 1  # never seen yet, and nothing may be lowered without it
    return Sight(engines=engines, blind=tuple(blind), lost=lost, seen=tuple(last.items()))


def _partial(signal: Signal, coverage_ratio: float) -> Blindness:
    """A sum over replicas that some ready replica is missing from.

    Means and percentiles of the others stand for it; a sum without it is too small.
    """
    return Blindness(
        signal=signal,
        cause=Cause.PARTIAL,
        detail=f"covers {coverage_ratio:.0%} of the ready replicas",
    )


_SIGNALS = (Signal.WORK, Signal.QUEUE, Signal.KV_CACHE, Signal.TTFT, Signal.ITL, Signal.GPU)


def _values(observation: Observation) -> tuple[object, ...]:
    """The signals of ``observation`` in the order of ``_SIGNALS``."""
    return (
        observation.work,
        observation.queue,
        observation.kv_cache,
        observation.ttft,
        observation.itl,
        observation.gpu,
    )
