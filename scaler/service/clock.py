"""Time as a dependency: the Clock protocol and the only real clock of the daemon."""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since the Unix epoch, never going backwards within one process."""

    def now_s(self) -> float:
        """The present."""
        ...


class SystemClock:
    """The machine's clock: wall time at start, advanced by the monotonic clock.

    A step of the wall clock (NTP, an operator) would otherwise make ages negative or expire every
    decision at once.
    """

    def __init__(self) -> None:
        self._wall_s = time.time()
        self._monotonic_s = time.monotonic()

    def now_s(self) -> float:
        """Wall time at start plus the monotonic time since."""
        return self._wall_s + (time.monotonic() - self._monotonic_s)
