"""A fault of the world on its way to becoming ``NoData``."""

from scaler.core.model import Cause, NoData
from scaler.errors import SignalError


class SourceError(SignalError):
    """A request to a source failed.

    ``detail`` says what happened and how to mend it, without credentials.  ``passing`` marks
    faults that a second attempt may not meet again.
    """

    def __init__(self, cause: Cause, detail: str, *, passing: bool = False) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail
        self.passing = passing

    def no_data(self) -> NoData:
        """The same as the value of a signal."""
        return NoData(cause=self.cause, detail=self.detail)


def brief(text: str, limit: int = 200) -> str:
    """One line of at most ``limit`` characters of somebody else's text, for a detail."""
    line = " ".join(text.split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
