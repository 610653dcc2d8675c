"""What can be seen: which signals are usable, which are missing, and which used to be there."""

from dataclasses import dataclass

from scaler.core.config import FreshnessConfig
from scaler.core.made import maker
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


make_sight = maker(Sight)


def look(observation: Observation, seen: Seen, config: FreshnessConfig) -> Sight:
    """Sort the signals into usable and blind; remember when each was last usable."""
    now_s, work, queue = observation.seen_at_s, observation.work, observation.queue
    blind: list[Blindness] = []
    lost = 0
    values = _values(observation)
    unseen: list[Signal] = []
    if NoData in map(type, values):
        for signal, value in zip(_SIGNALS, values, strict=True):
            if isinstance(value, NoData):
                unseen.append(signal)
                blind.append(Blindness(signal=signal, cause=value.cause, detail=value.detail))
                lost += _is_expected(signal, seen, now_s, config)
    seen = _seen_now(seen, unseen, now_s)
    for signal, total in ((_WORK, work), (_QUEUE, queue)):
        if not isinstance(total, NoData) and total.coverage_ratio < COVERAGE_FULL_RATIO:
            blind.append(_partial(signal, total.coverage_ratio))
            lost += 1
    no_queue, no_work = isinstance(queue, NoData), isinstance(work, NoData)
    if (no_queue or no_work) and lost == 0:
        lost = 1  # never seen yet, and nothing may be lowered without it
    return make_sight(engines=not (no_queue and no_work), blind=tuple(blind), lost=lost, seen=seen)


def _is_expected(signal: Signal, seen: Seen, now_s: float, config: FreshnessConfig) -> bool:
    """Whether ``signal`` was usable lately."""
    return any(name is signal and now_s - at_s <= config.expect_s for name, at_s in seen)


def _seen_now(seen: Seen, blind: list[Signal], now_s: float) -> Seen:
    """``seen`` with every signal that is not ``blind`` seen now, new ones at the end."""
    if not blind and len(seen) == len(_SIGNALS):  # nearly always
        return tuple([(name, now_s) for name, _ in seen])
    again = [(name, at_s if name in blind else now_s) for name, at_s in seen]
    if len(again) < len(_SIGNALS):
        known = [name for name, _ in seen]
        again += [(name, now_s) for name in _SIGNALS if name not in blind and name not in known]
    return tuple(again)


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
_WORK, _QUEUE = _SIGNALS[:2]


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
