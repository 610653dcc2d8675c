"""Whether a policy changes the count more often than the settings it would replace.

Attainment against GPU-hours does not show flapping: a replica that goes and comes back costs
neither.  Starts it does cost, and the trust of whoever watches.  So a trial may have as many
changes and reversals as the shipped settings have on the same load, and a little more.
"""

from dataclasses import dataclass

from simulations.tune_parts import DAY_S, Outcome

ALLOWED_SHARE = 0.25  # more than the shipped settings; where that is less, so many a day or one
CHANGES_PER_DAY = 6.0
REVERSALS_PER_DAY = 2.0
NEEDLESS = 2.0  # changes and reversals under a slow load, more than the shipped settings'


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """How often the count may change on a part, and under a slow load."""

    changes: float
    reversals: float
    needless: float

    def exceeded(self, seen: Outcome, steady: Outcome | None = None) -> float:
        """By what share the worst of them is exceeded; 0 and less where none is."""
        shares = [_beyond(seen.changes, self.changes), _beyond(seen.reversals, self.reversals)]
        if steady is not None:
            shares.append(_beyond(steady.changes + steady.reversals, self.needless))
        return max(shares)


def calm(shipped: Outcome, steady: Outcome, *, seconds: float) -> Calm:
    """What is allowed on a part of so many seconds where the shipped settings came to this."""
    days = seconds / DAY_S
    return Calm(
        changes=_allowed(shipped.changes, CHANGES_PER_DAY * days),
        reversals=_allowed(shipped.reversals, REVERSALS_PER_DAY * days),
        needless=steady.changes + steady.reversals + NEEDLESS,
    )


def _allowed(seen: int, more: float) -> float:
    return max(seen * (1.0 + ALLOWED_SHARE), seen + max(more, 1.0))


def _beyond(seen: int, allowed: float) -> float:
    return seen / allowed - 1.0
