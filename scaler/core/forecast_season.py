"""The shape of a day and of a week: what the clock alone says of the demand.

A profile is a mean per slot of the cycle.  Its forecast is today's level, relative to the profile,
times the profile at the time asked for (the multiplicative season of Winters 1960).
"""

from dataclasses import dataclass
from math import exp, floor

import numpy as np
from numpy.typing import NDArray

from scaler.core.config import ForecastConfig
from scaler.core.forecast_levels import Forecaster, brief
from scaler.core.made import maker

DAY_S = 86400.0
WEEK_S = 7.0 * DAY_S
DAY_SLOTS = 48  # half hours
WEEK_SLOTS = 168  # hours
UNKNOWN = -1.0
RATIO_TIME_CONSTANT_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Mean value by slot of the cycle, the slot under way, and today's level relative to it.

    ``slots`` holds ``UNKNOWN`` until a slot was seen; ``level`` is the latest smoothed value, the
    forecast while the profile is not known.
    """

    slots: tuple[float, ...]
    at_s: float
    level: float
    ratio: float = UNKNOWN
    slot: int = -1
    slot_sum: float = 0.0
    slot_s: float = 0.0


make_profile = maker(Profile)


def seasonal(cycle_s: float, slots: int) -> Forecaster[Profile]:
    """A forecaster that learns a profile of ``slots`` equal parts of ``cycle_s``."""
    width_s = cycle_s / slots

    def init(value: float, at_s: float) -> Profile:
        return make_profile(slots=(UNKNOWN,) * slots, at_s=at_s, level=value)

    def update(state: Profile, value: float, at_s: float, config: ForecastConfig) -> Profile:
        elapsed_s = at_s - state.at_s
        if elapsed_s <= 0.0:
            return state
        middle_s = at_s - 0.5 * min(elapsed_s, width_s)
        known, slot = state.slots, int(middle_s % cycle_s / width_s) % slots
        total, total_s = state.slot_sum, state.slot_s
        if slot != state.slot:
            if total_s > 0.5 * width_s:  # a slot half seen is not a mean of it
                known = _mixed(known, state.slot, total / total_s, config.season_gain)
            total = total_s = 0.0
        seen_s = min(elapsed_s, width_s)
        gain = 1.0 - exp(-elapsed_s / RATIO_TIME_CONSTANT_S)
        base = shape(known, at_s / width_s)
        ratio = UNKNOWN
        if base > 0.0:
            before = state.level / base if state.ratio < 0.0 else state.ratio
            ratio = before + gain * (value / base - before)
        return make_profile(
            slots=known,
            at_s=at_s,
            level=state.level + gain * (value - state.level),
            ratio=ratio,
            slot=slot,
            slot_sum=total + value * seen_s,
            slot_s=total_s + seen_s,
        )

    def predict(state: Profile, lead_s: float, _config: ForecastConfig) -> tuple[float, ...]:
        then = shape(state.slots, (state.at_s + lead_s) / width_s)
        return (state.level if then < 0.0 or state.ratio < 0.0 else state.ratio * then,)

    return Forecaster(init=init, update=update, predict=predict)


def profile_of(
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    cycle_s: float,
    slots: int,
    config: ForecastConfig,
) -> tuple[float, ...]:
    """The slots that ``update`` would have learned from a series in order of time.

    Each stay in a slot counts as the plain mean of its values, and not at all where fewer than half
    of the usual number of values was seen.
    """
    stays = np.floor(times * slots / cycle_s).astype(np.int64)
    names, starts, counts = np.unique(stays, return_index=True, return_counts=True)
    means = np.add.reduceat(values, starts) / counts
    known = [UNKNOWN] * slots
    enough = 0.5 * float(np.median(counts))
    for name, mean, count in zip(names.tolist(), means.tolist(), counts.tolist(), strict=True):
        if count >= enough:
            slot = name % slots
            before = known[slot]
            known[slot] = mean if before < 0.0 else before + config.season_gain * (mean - before)
    return tuple(map(brief, known))


def knows(state: Profile) -> bool:
    """Whether there is a profile to forecast from."""
    return state.ratio >= 0.0


def releveled(state: Profile, level: float) -> Profile:
    """``state`` in a new regime: the shape stays, today's level is ``level``."""
    return make_profile(
        slots=state.slots,
        at_s=state.at_s,
        level=level,
        slot=state.slot,
        slot_sum=state.slot_sum,
        slot_s=state.slot_s,
    )


def shape(slots: tuple[float, ...], place: float) -> float:
    """The profile at ``place`` slots from its beginning, linear between the middles of two slots.

    ``UNKNOWN`` where either of the two is.
    """
    below = floor(place - 0.5)
    share = place - 0.5 - below
    first, second = slots[below % len(slots)], slots[(below + 1) % len(slots)]
    if first < 0.0 or second < 0.0:
        return UNKNOWN
    return first + (second - first) * share


def _mixed(slots: tuple[float, ...], slot: int, mean: float, gain: float) -> tuple[float, ...]:
    """``slots`` with one more mean of one slot: the first is taken as it is."""
    before = slots[slot]
    after = mean if before < 0.0 else before + gain * (mean - before)
    return (*slots[:slot], brief(after), *slots[slot + 1 :])
