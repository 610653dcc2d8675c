"""The board alone: what is looked up, what is noted, who is told."""

from collections.abc import Mapping

from scaler.service.board import (
    ASKED_MAX,
    AnswerState,
    Board,
    NoAnswer,
    Published,
    Silence,
    TriggerKey,
)


def key(name: str) -> TriggerKey:
    return TriggerKey(namespace="llm", name=name, metadata=())


def entry(at_s: float, state: AnswerState = AnswerState.GOOD) -> Published:
    return Published(at_s=at_s, state=state, integer=2, double=2.0, active=True, reason="why")


def test_an_entry_is_answered_from_until_it_is_older_than_the_expiry() -> None:
    board = Board(admit=lambda _key: None, expiry_s=45.0)
    board.publish({key("a"): entry(100.0)})
    assert board.look_up(key("a"), 145.0) == entry(100.0)
    assert board.look_up(key("a"), 145.5) == NoAnswer(
        silence=Silence.EXPIRED, age_s=45.5, reason="why"
    )
    assert board.look_up(key("a"), 99.0) == entry(100.0)  # decided on a clock a little ahead


def test_silence_says_which_kind_it_is() -> None:
    board = Board(admit=lambda _key: None, expiry_s=45.0)
    board.publish({key("p"): entry(0.0, AnswerState.PENDING)})
    board.publish({key("u"): entry(0.0, AnswerState.UNKNOWN)})
    kinds = {name: board.look_up(key(name), 1.0) for name in ("p", "u", "x")}
    assert {
        name: found.silence for name, found in kinds.items() if isinstance(found, NoAnswer)
    } == {
        "p": Silence.PENDING,
        "u": Silence.UNKNOWN,
        "x": Silence.UNKNOWN_TRIGGER,
    }


def test_unknown_triggers_are_admitted_and_asked_ones_are_taken_once() -> None:
    admitted: list[TriggerKey] = []
    board = Board(admit=admitted.append, expiry_s=45.0)
    board.publish({key("a"): entry(0.0)})
    board.look_up(key("a"), 0.0)
    board.note(key("b"))
    assert admitted == [key("b")]
    assert board.take_asked() == {key("a"), key("b")}
    assert board.take_asked() == frozenset()


def test_noting_is_bounded() -> None:
    board = Board(admit=lambda _key: None, expiry_s=45.0)
    for number in range(ASKED_MAX + 10):
        board.note(key(str(number)))
    assert len(board.take_asked()) == ASKED_MAX


def test_listeners_hear_each_publish_until_taken_off() -> None:
    heard: list[Mapping[TriggerKey, Published]] = []
    board = Board(admit=lambda _key: None, expiry_s=45.0)
    take_off = board.listen(heard.append)
    board.publish({key("a"): entry(0.0)})
    take_off()
    board.publish({key("b"): entry(0.0)})
    assert heard == [{key("a"): entry(0.0)}]
    board.drop(key("a"))
    board.drop(key("a"))  # gone already: nothing to do
    assert set(board.entries) == {key("b")}
