"""The share of requests within the objectives over time, by when they arrived."""

from dataclasses import dataclass

import numpy as np

from simulations import engine
from simulations.engine_layout import Records
from simulations.trace_chunks import Floats

EVERY_S = engine.MINUTE_S
_BINS_FIRST = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Attained:
    """Requests by the minute in which they arrived, from 0 s on; ``good`` met the objectives."""

    arrived: Floats
    good: Floats

    def share(self, at_s: Floats, window_s: float) -> Floats:
        """The share of good ones among those that arrived in ``window_s`` before each time.

        NaN where none arrived.  Inside a minute arrivals count as evenly spread.
        """
        found: list[Floats] = []
        edges_s = np.arange(len(self.arrived) + 1) * EVERY_S
        for counts in (self.good, self.arrived):
            total = np.concatenate(([0.0], np.cumsum(counts)))
            ends, begins = (
                np.interp(at_s, edges_s, total),
                np.interp(at_s - window_s, edges_s, total),
            )
            found.append(ends - begins)
        good, arrived = found
        ratio: Floats = np.divide(
            good, arrived, out=np.full(len(at_s), np.nan), where=arrived > 1e-9
        )
        return np.minimum(ratio, 1.0)


NONE = Attained(arrived=np.zeros(0), good=np.zeros(0))


class AttainedTally:
    """Takes outcomes in as they come; two numbers a minute are kept."""

    def __init__(self, *, ttft_slo_s: float, tpot_slo_s: float) -> None:
        """``tpot_slo_s`` 0 sets no objective."""
        self._ttft_slo_s = ttft_slo_s
        self._tpot_slo_s = tpot_slo_s
        self._counts = np.zeros((2, _BINS_FIRST))
        self._used = 0

    def add(self, outcomes: Records) -> None:
        """Take in requests that have ended; the rule is that of ``simulations.score.Tally``."""
        if not len(outcomes):
            return
        self._room_for(int(outcomes["arrival_at_s"].max() / EVERY_S))
        engine.count_by_minute(outcomes, self._counts, self._ttft_slo_s, self._tpot_slo_s)

    def attained(self) -> Attained:
        """All that was taken in so far."""
        arrived, good = self._counts[:, : self._used].copy()
        return Attained(arrived=arrived, good=good)

    def _room_for(self, minute: int) -> None:
        self._used = max(self._used, minute + 1)
        missing = self._used - self._counts.shape[1]
        if missing > 0:
            more = max(missing, self._counts.shape[1])
            self._counts = np.pad(self._counts, ((0, 0), (0, more)))
