"""Long work on the event loop in short turns, so that calls are answered meanwhile.

A call takes some turns of the loop from its first byte to its answer, and meets a piece of the work
at each of them: what the work takes between two rests, times that, is what a call waits.
"""

import asyncio
import gc
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

TURN_S = 0.0003  # of work before the loop turns, which costs a tenth of that; about one decision


class Turns:
    """Counts what a piece of work has kept the event loop for."""

    def __init__(self) -> None:
        self._time_s = asyncio.get_running_loop().time
        self._began_s = self._time_s()

    async def rest(self) -> None:
        """Let the loop turn where it is due; call it after each step of the work."""
        if self._time_s() - self._began_s >= TURN_S:
            await asyncio.sleep(0)
            self._began_s = self._time_s()


def age() -> None:
    """Let the garbage collector see to what is young, and count the rest as old.

    It comes by itself after so many objects more than were freed.  Where as many old ones go as new
    ones are made it never does, until a call makes it visit all of them in one go, for 100 ms.
    """
    gc.collect(0)


async def in_turns(steps: Generator[None, None, T]) -> T:
    """Run a generator to its end, with a rest after any step; what it returns."""
    turns = Turns()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
        await turns.rest()


def at_once(steps: Generator[None, None, T]) -> T:
    """The same without a rest, where no loop waits."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
