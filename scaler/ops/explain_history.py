"""The last day of a target as a running daemon remembers it: counts and stages, no arithmetic."""

from typing import Any

from scaler.core.model import Stage
from scaler.errors import SignalError
from scaler.ops.explain import CountChange, Window
from scaler.ops.times import parsed


def history_window(detail: dict[str, Any], from_text: str | None, to_text: str | None) -> Window:
    """Every change of the wanted count between two times.

    What is older than an hour and a half is known by five minutes.

    Raises:
        ConfigError: a time is none of the daemon's memory.
        SignalError: it remembers nothing of that time.
    """
    history = detail["history"]
    place = {name: number for number, name in enumerate(history["columns"])}
    rows = [row for row in history["rows"] if row[place["desired"]] is not None]
    if not rows:
        raise SignalError("the daemon remembers no decision on this target yet")
    begin_s, end_s = rows[0][place["at_s"]], rows[-1][place["at_s"]]

    def at(option: str, text: str | None, default_s: float) -> float:
        return default_s if text is None else parsed(option, text, begin_s=begin_s, end_s=end_s)

    from_at_s, to_at_s = at("--from", from_text, begin_s), at("--to", to_text, end_s)
    rows = [row for row in rows if from_at_s <= row[place["at_s"]] <= to_at_s]
    if not rows:
        raise SignalError("the daemon remembers no decision of that time")
    stages = [Stage(name) for name in history["stages"]]
    counts = [int(row[place["desired"]]) for row in rows]
    changes = tuple(
        _change(row, before, after, stages[int(row[place["decided_by"]])], place)
        for row, before, after in zip(rows[1:], counts, counts[1:], strict=False)
        if before != after
    )
    return Window(
        from_at_s=from_at_s,
        to_at_s=to_at_s,
        decisions=len(rows),
        replicas_first=counts[0],
        replicas_min=min(counts),
        replicas_max=max(counts),
        changes=changes,
    )


def _change(
    row: list[float | None], before: int, after: int, stage: Stage, place: dict[str, int]
) -> CountChange:
    """What the row says: a number where one is known."""
    known = {name: row[place[name]] for name in ("load", "forecast_upper", "waiting", "ready")}
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in known.items() if value is not None)
    at_s = row[place["at_s"]]
    assert at_s is not None
    return CountChange(
        at_s=at_s,
        before=before,
        after=after,
        decided_by=stage,
        headline=f"{stage} ({numbers})",
    )
