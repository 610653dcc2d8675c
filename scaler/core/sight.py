"""What can be seen: which signals are usable, which are missing, and which used to be there."""

from dataclasses import dataclass

from scaler.core.config import FreshnessConfig
from scaler.core.model import Blindness, NoData, Observation, Signal

Seen = tuple[tuple[Signal, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Blindness of one observation.

    ``engines`` is False when neither the queue nor the work counters could be read: nothing is
    known of the load.  ``lost`` counts signals that were there lately and are not now.
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
    for signal, value in _signals(observation):
        if not isinstance(value, NoData):
            last[signal] = now_s
            continue
        blind.append(Blindness(signal=signal, cause=value.cause, detail=value.detail))
        seen_at_s = last.get(signal)
        if seen_at_s is not None and now_s - seen_at_s <= config.expect_s:
            lost += 1
    missing = [isinstance(value, NoData) for value in (observation.queue, observation.work)]
    engines = not all(missing)
    if any(missing) and lost == 0:
        lost = 1  # never seen yet, and nothing may be lowered without it
    return Sight(engines=engines, blind=tuple(blind), lost=lost, seen=tuple(last.items()))


def _signals(observation: Observation) -> tuple[tuple[Signal, object], ...]:
    return (
        (Signal.WORK, observation.work),
        (Signal.QUEUE, observation.queue),
        (Signal.KV_CACHE, observation.kv_cache),
        (Signal.TTFT, observation.ttft),
        (Signal.ITL, observation.itl),
        (Signal.GPU, observation.gpu),
    )
