"""Two or three daemons: one decides, the others serve its snapshot.

The leader is chosen by a Lease.  After each tick it keeps a snapshot (tick, answers, states); the
others pull it over HTTP and put the answers on their boards, so two answers differ for at most one
tick.  A new leader continues from the last states it pulled and lowers nothing before it has seen
the load itself, so a failover never lowers a count.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, replace

import aiohttp
import msgspec
import structlog

from scaler.core.policy import PolicyState
from scaler.service.board import Board, Published, TriggerKey
from scaler.service.clock import Clock
from scaler.service.codec import SCHEMA_VERSION, encode_in_parts
from scaler.service.loop import TickReport
from scaler.service.registry import Registry
from scaler.signals.turns import at_once

log = structlog.get_logger(__name__)

SNAPSHOT_PATH = "/internal/snapshot"
PULL_EVERY_S = 1.0  # well below a tick, so that a follower lags by a fraction of one
PULL_TIMEOUT_S = 5.0
SNAPSHOT_BYTES_MAX = 256 << 20  # 20,000 triggers of 10 kB
TICK_HEADER = "X-Tick"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of the board."""

    key: TriggerKey
    published: Published


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a follower serves and a successor continues from.

    ``at_s`` is the leader's time of the tick, ``served_at_s`` the one when the snapshot left: their
    difference is an age that holds on any clock.
    """

    schema: int
    tick: int
    at_s: float
    served_at_s: float
    answers: tuple[Answer, ...]
    states: Mapping[str, PolicyState]


class Publisher:
    """The leader's side: keeps the last tick as a snapshot."""

    def __init__(self, registry: Registry, board: Board, clock: Clock) -> None:
        self._registry = registry
        self._board = board
        self._clock = clock
        self._tick = 0
        self._at_s = 0.0

    @property
    def tick(self) -> str:
        """Identity of the snapshot: changes with every tick of this leader."""
        return f"{self._tick}@{self._at_s!r}"

    def take(self, report: TickReport) -> None:
        """Note one tick; the bytes are made when somebody asks."""
        self._tick, self._at_s = report.tick, report.at_s

    def snapshot(self) -> bytes:
        """The snapshot as JSON."""
        return at_once(self.encoding())

    def encoding(self) -> Generator[None, None, bytes]:
        """``snapshot``, of one moment, a state at a time."""
        made = Snapshot(
            schema=SCHEMA_VERSION,
            tick=self._tick,
            at_s=self._at_s,
            served_at_s=self._clock.now_s(),
            answers=tuple(
                Answer(key=key, published=entry) for key, entry in self._board.entries.items()
            ),
            states=self._registry.states(),
        )
        parts: list[bytes] = []
        for part in encode_in_parts(made, "states"):
            parts.append(part)
            yield
        return b"".join(parts)


class Follower:
    """The others' side: pulls the leader's snapshot and serves it."""

    def __init__(
        self,
        registry: Registry,
        board: Board,
        clock: Clock,
        *,
        leader_address: Callable[[], str],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._board = board
        self._clock = clock
        self._leader_address = leader_address
        self._sleep = sleep
        self._have = ""
        self.serving = False  # a snapshot has been taken
        self.pulls = 0
        self.failures = 0

    async def run(self) -> None:
        """Pull for ever; while this daemon leads ``leader_address`` is empty: nothing is pulled."""
        timeout = aiohttp.ClientTimeout(total=PULL_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                address = self._leader_address()
                if address:
                    await self._guarded_pull(session, address)
                else:
                    self._have = ""
                await self._sleep(PULL_EVERY_S)

    async def _guarded_pull(self, session: aiohttp.ClientSession, address: str) -> None:
        try:
            await self.pull(session, address)
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, OSError) as error:
            self.failures += 1
            log.warning("snapshot not pulled", leader=address, reason=str(error) or repr(error))

    async def pull(self, session: aiohttp.ClientSession, address: str) -> bool:
        """Pull once; True when something new was taken."""
        self.pulls += 1
        url = f"http://{address}{SNAPSHOT_PATH}"
        async with session.get(url, headers={TICK_HEADER: self._have}) as response:
            if response.status == 304:
                return False
            response.raise_for_status()
            data = await _whole(response)
            tick = response.headers.get(TICK_HEADER, "")
        snapshot = await asyncio.to_thread(msgspec.json.decode, data, type=Snapshot)
        if snapshot.schema != SCHEMA_VERSION:
            log.warning("snapshot has another schema", found=snapshot.schema)
            return False
        self._have = tick
        self._serve(snapshot)
        return True

    def _serve(self, snapshot: Snapshot) -> None:
        """Put the answers on the board, their ages moved to our clock, and keep the states."""
        shift_s = self._clock.now_s() - snapshot.served_at_s
        answers = {
            answer.key: replace(answer.published, at_s=answer.published.at_s + shift_s)
            for answer in snapshot.answers
        }
        for key in self._board.entries.keys() - answers.keys():
            self._board.drop(key)
        self._board.publish(answers)
        self._registry.adopt(snapshot.states)
        self.serving = True


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body of a response, unless it is larger than any snapshot."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > SNAPSHOT_BYTES_MAX:
            raise aiohttp.ClientPayloadError(f"snapshot of more than {SNAPSHOT_BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)
