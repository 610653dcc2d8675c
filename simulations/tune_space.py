"""The search space of the tuner: exactly the settings declared with ``tune=True``."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaler.core.config import PolicyConfig
from scaler.core.settings import Declared, tunable

DECADES_FROM = 30.0  # a range that spans more than this factor is searched by its logarithm
DIGITS = 4  # significant ones of a value that is tried, so that what is printed is what was tried
MUTATION_SHARE = 0.15  # of a range: one standard deviation of a mutation
MUTATED_SHARE = 0.2  # of the settings, in one mutation
RETURNED_SHARE = 0.15  # of the settings that are not at their default

Values = Mapping[str, float]
"""Values of settings by dotted path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One setting as it is searched.

    ``low`` is where the search begins: the declared limit, or for a range from 0 that is searched
    by its logarithm, ``DECADES_FROM`` below the default.
    """

    path: str
    low: float
    high: float
    default: float
    log: bool
    whole: bool
    why: str

    def tidied(self, value: float) -> float:
        """``value`` as it is tried: few digits, whole where it must be, inside the range."""
        if self.whole:
            return float(round(value))
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def share(self, value: float) -> float:
        """Where ``value`` lies in the range, 0 to 1."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(max(value, self.low)) - low) / (high - low)

    def at(self, share: float) -> float:
        """The value at a share of the range; shares outside are taken for the nearer end."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        scaled = low + min(max(share, 0.0), 1.0) * (high - low)
        return self.tidied(math.exp(scaled) if self.log else scaled)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


def space(base: PolicyConfig) -> tuple[Dimension, ...]:
    """Every tunable setting; the defaults are those of ``base``."""
    return tuple(_dimension(item) for item in tunable(base))


def _dimension(item: Declared) -> Dimension:
    low, high = item.setting.low, item.setting.high
    assert low is not None, f"{item.path} is tunable and has no lower limit"
    assert high is not None, f"{item.path} is tunable and has no upper limit"
    default = float(item.default)
    if low > 0.0:
        log, begin = high / low >= DECADES_FROM, low
    else:
        log = low == 0.0 and 0.0 < default <= high / DECADES_FROM
        begin = default / DECADES_FROM if log else low
    return Dimension(
        path=item.path,
        low=begin,
        high=high,
        default=default,
        log=log,
        whole=item.type is int,
        why=item.setting.why,
    )


def defaults(dimensions: tuple[Dimension, ...]) -> dict[str, float]:
    """The values that the search begins with."""
    return {dimension.path: dimension.default for dimension in dimensions}


def applied(base: PolicyConfig, values: Values) -> PolicyConfig:
    """``base`` with ``values`` at their paths of two parts."""
    whole = {item.path for item in tunable(base) if item.type is int}
    groups: dict[str, dict[str, float]] = {}
    for path, value in values.items():
        group, _, leaf = path.rpartition(".")
        groups.setdefault(group, {})[leaf] = int(value) if path in whole else value
    return dataclasses.replace(
        base,
        **{
            group: dataclasses.replace(getattr(base, group), **leaves)
            for group, leaves in groups.items()
        },
    )


def mutated(
    dimensions: tuple[Dimension, ...], values: Values, draws: np.random.Generator
) -> dict[str, float]:
    """``values`` with a few settings moved by a little, in the scale they are searched in.

    Forty settings far from their defaults are seldom a policy at all; close to something that
    works there is always something to learn.  Some go back to their default: what does not matter
    is not to be changed.
    """
    count = len(dimensions)
    moved = draws.random(count) < MUTATED_SHARE
    moved[draws.integers(count)] = True
    moves = draws.normal(0.0, MUTATION_SHARE, count).tolist()
    returned = draws.random(count) < RETURNED_SHARE
    made = {}
    for place, item in enumerate(dimensions):
        value = values[item.path]
        if moved[place]:
            value = item.at(item.share(value) + moves[place])
        elif returned[place]:
            value = item.default
        made[item.path] = value
    return made


def changed(dimensions: tuple[Dimension, ...], values: Values) -> dict[str, float]:
    """Those of ``values`` that are not the default."""
    return {
        item.path: values[item.path] for item in dimensions if values[item.path] != item.default
    }
