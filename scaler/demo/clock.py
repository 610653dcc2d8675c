"""Accelerated time that stands still while anybody works.

The clock moves on to the next wake-up only when everyone who shares it sleeps, and wakes one
sleeper at a time.  So a slow machine makes the demonstration slower and never different: no sample
is stale, and no start-up long, because a page took its time.
"""

import asyncio
import heapq
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scaler.errors import ScalerError

STUCK_S = 60.0  # of the machine's time; nobody here works as long
CATCH_UP_S = 0.5  # of the machine's time: what a busy moment cost is made up for, up to this


class VirtualClock:
    """Seconds since the epoch, ``speed`` times as fast as the machine's while there is no work.

    ``speed`` may be infinite: then only work takes time.  It is a ``scaler.service.clock.Clock``.
    ``pause`` spends the machine's time.
    """

    def __init__(
        self,
        *,
        start_at_s: float,
        speed: float,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        assert speed > 0.0, "time moves forward"
        self._now_s = start_at_s
        self._speed = speed
        self._pause = pause
        self._sleeping: list[tuple[float, int, str, asyncio.Future[None]]] = []
        self._serial = 0
        self._awake: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._due_s: float | None = None  # when the present is due, on the event loop's clock

    def now_s(self) -> float:
        """The present."""
        return self._now_s

    def sleeper(self, name: str) -> "Sleeper":
        """A new participant, awake: time waits for its first sleep."""
        assert name not in self._awake, f"{name} takes part already"
        self._awake[name] = None
        return Sleeper(clock=self, name=name)

    async def run_until(self, end_at_s: float) -> None:
        """Let time pass up to ``end_at_s``.

        Raises:
            ScalerError: when somebody neither sleeps nor ends.
        """
        while True:
            await self._all_asleep()
            due_s = self._sleeping[0][0] if self._sleeping else math.inf
            await self._pace(min(due_s, end_at_s) - self._now_s)
            self._now_s = max(self._now_s, min(due_s, end_at_s))
            if due_s > end_at_s:
                return
            _, _, name, waking = heapq.heappop(self._sleeping)
            if not waking.done():  # else cancelled in its sleep
                self._awake[name] = None
                waking.set_result(None)

    async def sleep(self, name: str, duration_s: float) -> None:
        """Sleep as the participant ``name``; see ``Sleeper``."""
        waking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._serial += 1
        heapq.heappush(self._sleeping, (self._now_s + duration_s, self._serial, name, waking))
        self.rest(name)
        await waking

    def rest(self, name: str) -> None:
        """Time need not wait for ``name`` any more."""
        self._awake.pop(name, None)
        self._changed.set()

    async def _all_asleep(self) -> None:
        try:
            async with asyncio.timeout(STUCK_S):
                while self._awake:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            names = ", ".join(self._awake)
            raise ScalerError(f"no progress for {STUCK_S:.0f} s: {names} is still busy") from None

    async def _pace(self, step_s: float) -> None:
        """Spend the machine's time that ``step_s`` of ours takes."""
        now_s = asyncio.get_running_loop().time()
        due_s = now_s if self._due_s is None else self._due_s
        self._due_s = max(due_s, now_s - CATCH_UP_S) + step_s / self._speed
        await self._pause(max(self._due_s - now_s, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleeper:
    """One participant's hold on the clock: while it is awake time stands still."""

    clock: VirtualClock
    name: str

    async def sleep(self, duration_s: float) -> None:
        """Be asleep for ``duration_s`` of the clock's time."""
        await self.clock.sleep(self.name, max(duration_s, 0.0))

    async def sleep_until(self, at_s: float) -> None:
        """Be asleep until ``at_s``, at once awake again if that has passed."""
        await self.sleep(at_s - self.clock.now_s())

    def leave(self) -> None:
        """Take no more part."""
        self.clock.rest(self.name)
