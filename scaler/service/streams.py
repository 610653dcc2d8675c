"""Streams of activity: who follows which trigger, and what each is still to be told."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from zlib import crc32

from scaler.service.board import AnswerState, Board, Published, TriggerKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTimes:
    """Bounds of a stream.

    ``term_s`` is how long one is held before it ends with OK: KEDA forgets its growing reconnect
    pause only after an OK, and a connection past its age is cut without one.
    ``write_s`` is how long a client may leave a message unread.
    """

    term_s: float = 7200.0
    write_s: float = 20.0

    def term_of_s(self, name: str) -> float:
        """The term of one object's stream, spread over a tenth so that not all end at once."""
        return self.term_s * (0.9 + 0.1 * crc32(name.encode()) / 2**32)


class Follower:
    """One stream's view of a trigger: the first known state, then each change to active.

    A change to inactive is not told: KEDA up to 2.17 would act on it at once, for all triggers of
    the object.  A change from unknown to active is: the target may stand at zero.
    A slow reader finds the latest state, never a queue.
    """

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._seen: bool | None = None
        self._due: bool | None = None
        self._told = False
        self._ended = False

    def see(self, state: bool | None) -> None:  # noqa: FBT001 (the state itself, not an option)
        """Take in the trigger's state; None is unknown."""
        if state is not None and not self._told:
            self._due = state
        elif state and not self._seen:
            self._due = True
        elif state is False:
            self._due = None
        self._seen = state
        if self._due is not None:
            self._wake.set()

    def end(self) -> None:
        """Nothing more is to be told."""
        self._ended = True
        self._wake.set()

    async def next(self) -> bool | None:
        """Wait for the next state to tell; None when the stream is to end."""
        while not self._ended:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, None
            if due is not None and not self._ended:
                self._told = True
                return due
        return None


class ActivityStreams:
    """All followers, fed by the board; they live in the thread of the event loop."""

    def __init__(self, board: Board) -> None:
        self._followers: dict[TriggerKey, set[Follower]] = {}
        self.closed = asyncio.Event()
        board.listen(self._on_publish)

    @contextmanager
    def follow(self, key: TriggerKey, present: bool | None) -> Iterator[Follower]:  # noqa: FBT001 (a state)
        """Follow ``key`` from its ``present`` state for the length of the block."""
        follower = Follower()
        follower.see(present)
        if self.closed.is_set():
            follower.end()
        followers = self._followers.setdefault(key, set())
        followers.add(follower)
        try:
            yield follower
        finally:
            followers.discard(follower)
            if not followers and self._followers.get(key) is followers:
                del self._followers[key]

    @property
    def following(self) -> int:
        """Followers at present."""
        return sum(map(len, self._followers.values()))

    def close(self) -> None:
        """End all streams, present and to come."""
        self.closed.set()
        for followers in self._followers.values():
            for follower in followers:
                follower.end()

    def _on_publish(self, entries: Mapping[TriggerKey, Published]) -> None:
        for key in self._followers.keys() & entries.keys():
            entry = entries[key]
            state = entry.active if entry.state is AnswerState.GOOD else None
            for follower in self._followers[key]:
                follower.see(state)
