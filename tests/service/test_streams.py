"""What one stream tells, as scripts of states: the present one, then each change to active."""

import asyncio

import pytest

from scaler.service.board import AnswerState, Board, Published, TriggerKey
from scaler.service.streams import ActivityStreams, Follower, StreamTimes

KEY = TriggerKey(namespace="llm", name="chat", metadata=())
STATES = {"on": True, "off": False, "?": None}


async def told(script: str) -> list[bool]:
    """Messages of a stream whose client reads each as soon as it may."""
    follower = Follower()
    messages: list[bool] = []
    reader = asyncio.create_task(read_all(follower, messages))
    for word in script.split():
        follower.see(STATES[word])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    follower.end()
    await reader
    return messages


async def read_all(follower: Follower, messages: list[bool]) -> None:
    while (state := await follower.next()) is not None:
        messages.append(state)


@pytest.mark.parametrize(
    ("script", "messages"),
    [
        ("on", [True]),
        ("off", [False]),
        ("? ? off", [False]),
        ("on on on", [True]),
        ("on off off on", [True, True]),
        ("off on off on", [False, True, True]),
        ("on ? on", [True, True]),  # it may stand at zero by now
        ("off ? off", [False]),
        ("?", []),
    ],
)
async def test_a_stream_tells(script: str, messages: list[bool]) -> None:
    assert await told(script) == messages


@pytest.mark.parametrize(
    ("script", "first"), [("off on", True), ("on off", False), ("on off on", True)]
)
async def test_a_slow_reader_finds_the_latest_first_state(script: str, *, first: bool) -> None:
    follower = Follower()
    for word in script.split():
        follower.see(STATES[word])
    assert await follower.next() is first
    follower.end()
    assert await follower.next() is None


async def test_an_activation_that_passed_unread_is_not_told() -> None:
    follower = Follower()
    follower.see(STATES["off"])
    assert await follower.next() is False
    follower.see(STATES["on"])
    follower.see(STATES["off"])
    waiting = asyncio.create_task(follower.next())
    await asyncio.sleep(0)
    follower.end()
    assert await waiting is None


async def test_followers_hear_their_own_trigger_and_leave_no_trace() -> None:
    board = Board(admit=lambda _key: None, expiry_s=45.0)
    streams = ActivityStreams(board)
    entry = Published(
        at_s=0.0, state=AnswerState.GOOD, integer=1, double=1.0, active=True, reason=""
    )
    other = TriggerKey(namespace="llm", name="other", metadata=())
    with streams.follow(KEY, None) as one, streams.follow(KEY, None) as two:
        with streams.follow(other, None) as stranger:
            board.publish({KEY: entry})
            assert [await one.next(), await two.next()] == [True, True]
            stranger.end()
            assert await stranger.next() is None
        assert streams.following == 2
    assert streams.following == 0
    streams.close()
    with streams.follow(KEY, True) as late:
        assert await late.next() is None


def test_terms_are_spread_over_a_tenth_and_stay_the_same() -> None:
    times = StreamTimes(term_s=1000.0)
    terms = [times.term_of_s(f"chat-{number}") for number in range(200)]
    assert min(terms) >= 900.0
    assert max(terms) <= 1000.0
    assert max(terms) - min(terms) > 50.0
    assert terms[0] == times.term_of_s("chat-0")
