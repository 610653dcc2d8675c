"""Times as people write and read them: of a daemon's log, and of a simulated run.

A run counts its seconds from 0; a daemon's clock is the seconds since 1970, in UTC.
"""

import re
from datetime import UTC, datetime, timedelta

from scaler.errors import ConfigError

SIMULATED_MAX_S = 1e8  # three years from 0 s; the clock of a daemon is far beyond
_DAY_S = 86400.0
_OF_DAY = re.compile(r"(\d{1,4}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")
_OF_RUN = re.compile(r"(\d+)h(\d{2})m(\d{2})s")
ALLOWED = "an RFC 3339 time, HH:MM:SS of the log's days, or seconds of a simulated run"


def spelled(at_s: float) -> str:
    """``2026-11-21T03:12:00Z``, or ``3h12m00s`` of a simulated run."""
    if at_s >= SIMULATED_MAX_S:
        moment = datetime.fromtimestamp(at_s, UTC)
        return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    minutes, seconds = divmod(round(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m{seconds:02d}s"


def parsed(option: str, text: str, *, begin_s: float, end_s: float) -> float:
    """The time that ``text`` says, on the clock of a log from ``begin_s`` to ``end_s``.

    A time of the day is that of the log's last day which has it, and of a simulated run the time
    since its beginning (``25:30:00`` too); a time without an offset is UTC.

    Raises:
        ConfigError: ``text`` is no time, or none of the log.
    """
    found = _parsed(option, text.strip(), begin_s, end_s)
    if not begin_s <= found <= end_s:
        raise ConfigError(
            f"{option} = {text}, must be in [{spelled(begin_s)}, {spelled(end_s)}],"
            " the times of the log"
        )
    return found


def _parsed(option: str, text: str, begin_s: float, end_s: float) -> float:
    simulated = end_s < SIMULATED_MAX_S
    if (of_day := _OF_DAY.fullmatch(text) or _OF_RUN.fullmatch(text)) is not None:
        hours, minutes, seconds = (float(part or 0.0) for part in of_day.groups())
        if simulated and minutes < 60.0 and seconds < 60.0:
            return 3600.0 * hours + 60.0 * minutes + seconds
        if hours < 24.0 and minutes < 60.0 and seconds < 60.0:
            since_s = 3600.0 * hours + 60.0 * minutes + seconds
            days = (end_s - since_s) // _DAY_S
            return since_s + _DAY_S * max(days, (begin_s - begin_s % _DAY_S) // _DAY_S)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} = {text!r}, must be {ALLOWED}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1.0)
