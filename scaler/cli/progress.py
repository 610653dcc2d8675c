"""Progress of a command on standard error: from two seconds on, and never in the way of its output.

    with shown() as progress:
        for chunk in chunks:
            progress(lambda elapsed_s: f"{rows:,} rows, {rows / elapsed_s:,.0f} rows/s")

On a terminal one line is rewritten; elsewhere, as in a log, a line comes every ten seconds.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import click

SHOW_AFTER_S = 2.0
PLAIN_EVERY_S = 10.0
TERMINAL_EVERY_S = 0.2

Text: TypeAlias = Callable[[float], str]
"""What to show, made from the seconds since the beginning only when it is shown."""


class Progress(Protocol):
    """Shows how far a command is."""

    def __call__(self, text: Text) -> None:
        """Show ``text`` if it is time to."""

    def say(self, what: str) -> None:
        """Say what is done before the first call."""


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """A progress line that is gone at the end."""
    if not sys.stderr.isatty():
        lines = _Lines()
        try:
            yield lines
        finally:
            lines.stop()
        return
    from rich.console import Console  # noqa: PLC0415 - only where there is a terminal
    from rich.status import Status  # noqa: PLC0415

    status = Status("", console=Console(stderr=True))
    try:
        yield _Live(status)
    finally:
        status.stop()


def time_left(done_ratio: float, elapsed_s: float) -> str:
    """``, 34 s left`` if the rest goes as what is done; nothing while that says too little."""
    if not 0.01 < done_ratio < 1.0:
        return ""
    return f", {elapsed_s * (1.0 / done_ratio - 1.0):,.0f} s left"


class _Pace:
    """When to show something next."""

    def __init__(self, every_s: float) -> None:
        self._began_s = time.monotonic()
        self._every_s = every_s
        self._due_s = self._began_s + SHOW_AFTER_S

    def due(self) -> float | None:
        """Seconds since the beginning, or None while it is too early."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return None
        self._due_s = now_s + self._every_s
        return now_s - self._began_s


class _Lines:
    """One line every few seconds."""

    def __init__(self) -> None:
        self._pace = _Pace(PLAIN_EVERY_S)
        self._said: threading.Timer | None = None

    def __call__(self, text: Text) -> None:
        self.stop()
        if (elapsed_s := self._pace.due()) is not None:
            click.echo(text(elapsed_s), err=True)

    def say(self, what: str) -> None:
        """Said only if it takes long: whoever does it cannot look at a clock meanwhile."""
        self.stop()
        self._said = threading.Timer(SHOW_AFTER_S, click.echo, (what,), {"err": True})
        self._said.daemon = True
        self._said.start()

    def stop(self) -> None:
        """What was to be said is over."""
        if self._said is not None:
            self._said.cancel()
            # Not to be in the middle of a line when the interpreter ends: that would abort it.
            self._said.join()
            self._said = None


class _Live:
    """A line that is rewritten."""

    def __init__(self, status: Any) -> None:
        self._pace = _Pace(TERMINAL_EVERY_S)
        self._status = status

    def __call__(self, text: Text) -> None:
        if (elapsed_s := self._pace.due()) is not None:
            self._status.start()
            self._status.update(text(elapsed_s))

    def say(self, what: str) -> None:
        self._status.update(what)
        self._status.start()
