"""Progress lines: late, seldom, on standard error, and gone at the end."""

import threading
import time

import pytest

from scaler.cli import progress


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_nothing_is_shown_in_the_first_two_seconds_and_then_every_ten(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[float] = []
    with progress.shown() as show:
        for second in range(25):
            clock[0] = 100.0 + second
            show(lambda elapsed_s: f"{elapsed_s:.0f} s")
            shown += [second] if capsys.readouterr().err else []
    assert shown == [2, 12, 22]


def test_a_short_wait_is_not_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown() as show:
        show.say("compiling")
    assert capsys.readouterr().err == ""


def test_a_long_wait_is_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SHOW_AFTER_S", 0.0)
    with progress.shown() as show:
        show.say("compiling")
        timer = show._said  # type: ignore[attr-defined]  # of the plain kind: no terminal here
        timer.join(5.0)
    assert capsys.readouterr().err == "compiling\n"


def test_no_line_is_half_written_when_the_interpreter_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that holds standard error at the end of a process aborts it."""
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def slowly(*_: object, **__: object) -> None:
        begun.set()
        may_end.wait(5.0)
        ended.set()

    monkeypatch.setattr(progress, "SHOW_AFTER_S", 0.0)
    monkeypatch.setattr(progress.click, "echo", slowly)
    with progress.shown() as show:
        show.say("compiling")
        assert begun.wait(5.0)
        may_end.set()
    assert ended.is_set()


@pytest.mark.parametrize(
    ("done_ratio", "text"),
    [(0.0, ""), (0.005, ""), (0.25, ", 30 s left"), (1.0, ""), (float("nan"), "")],
)
def test_time_left(done_ratio: float, text: str) -> None:
    assert progress.time_left(done_ratio, 10.0) == text  # 10 s for a quarter: 30 s for the rest
