"""What the demonstration shows: a live table on a terminal, one line a tick elsewhere."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scaler.demo.rows import UNSEEN, Row
from scaler.demo.run import Summary

ROWS_SHOWN_MAX = 200
LINES_AROUND = 9  # of the terminal: title, header, borders, the headline below

Shower = Callable[[Row], None]


@contextmanager
def live_table(
    console: Console, *, title: str, slo_s: float, subtitle: Callable[[], str]
) -> Iterator[Shower]:
    """A table that stays in place and takes in one row after the other.

    ``subtitle`` is asked for at each row: an address may be known only after the beginning.
    """
    rows: deque[Row] = deque(maxlen=ROWS_SHOWN_MAX)
    waiting = Text("waiting for the first decision ...", style="dim")
    with Live(waiting, console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def show(row: Row) -> None:
            rows.append(row)
            fitting = max(console.height - LINES_AROUND, 3)
            seen = list(rows)[-fitting:]
            live.update(_screen(seen, title=title, subtitle=subtitle(), slo_s=slo_s), refresh=True)

        yield show


def _screen(rows: list[Row], *, title: str, subtitle: str, slo_s: float) -> RenderableType:
    table = Table(expand=True, box=None, pad_edge=False, header_style="bold")
    for name in ("time", "req/s", "waiting", "TTFT p95", "desired", "published", "set by HPA",
                 "ready", "starting"):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("decided by", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, slo_s=slo_s))
    latest = Text(rows[-1].headline, overflow="ellipsis", style="italic")
    return Panel(Group(table, Text(), latest), title=title, subtitle=subtitle)


def _cells(row: Row, *, slo_s: float) -> tuple[RenderableType, ...]:
    hours, rest = divmod(round(row.t_s), 3600)
    return (
        f"{hours}:{rest // 60:02d}:{rest % 60:02d}",
        f"{row.load_per_s:.1f}",
        _number(row.waiting, style="yellow" if row.waiting else ""),
        _ttft(row.ttft_p95_s, slo_s=slo_s),
        Text(str(row.desired), style="bold"),
        f"{row.published:.3f}",
        _number(row.wanted),
        _number(row.ready, style="green"),
        _starting(row),
        row.decided_by,
    )


def _number(value: int | None, *, style: str = "") -> Text:
    return Text(UNSEEN, style="red") if value is None else Text(str(value), style=style)


def _starting(row: Row) -> Text:
    """Replicas on their way, and those for which there is no GPU."""
    shown = _number(row.starting, style="cyan" if row.starting else "dim")
    if row.unschedulable:
        shown.append(f" +{row.unschedulable} unschedulable", style="red")
    return shown


def _ttft(value_s: float | None, *, slo_s: float) -> Text:
    if value_s is None:
        return Text("-", style="dim")
    return Text(f"{value_s:.2f} s", style="red" if value_s > slo_s else "")


def summary_lines(summary: Summary, *, replicas_max: int, slo_s: float) -> tuple[str, ...]:
    """The end of a demonstration in a few lines."""
    score = summary.score
    saved_ratio = 1.0 - score.gpu_hours / summary.gpu_hours_always_max
    in_time = f"first token within {slo_s:g} s: {score.within_ratio:.2%}"
    always = f"always at {replicas_max} replicas ({summary.gpu_hours_always_max:.1f})"
    asked = f"calls of the stand-in for KEDA and the HPA: {summary.calls}"
    return (
        f"played {summary.played_s / 60.0:.1f} min of traffic in {summary.wall_s:.0f} s",
        f"requests: {score.arrived}, {in_time} of {score.answered} answered",
        f"replicas: {summary.replica_changes} changes, {summary.replicas_highest} at most",
        f"GPU-hours: {score.gpu_hours:.1f}, {saved_ratio:.0%} less than {always}",
        f"{asked}, failed reads: {summary.failed_reads}",
    )
