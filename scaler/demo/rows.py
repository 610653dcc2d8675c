"""One row for each tick: what the load was, what the daemon saw and decided."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from scaler.core.explain import headline
from scaler.core.model import Decision, NoData
from scaler.service.history import COLUMNS, row_of
from scaler.service.loop import TickReport

UNSEEN = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One decision.

    Counts are None where the daemon could not see them.  ``t_s`` counts from the demonstration's
    beginning, ``load_per_s`` is what really arrived since the row before.
    """

    t_s: float
    target: str
    load_per_s: float
    desired: int
    published: float  # the encoded value that KEDA reads
    wanted: int | None  # what the HPA has set
    ready: int | None
    starting: int | None
    unschedulable: int | None
    waiting: int | None
    ttft_p95_s: float | None
    decided_by: str
    headline: str

    def line(self) -> str:
        """The row for scripts: ``t=... target=... desired=N ready=N starting=N waiting=N by=...``.

        What follows ``by`` may grow.
        """
        fields = {
            "t": f"{self.t_s:.0f}",
            "target": self.target,
            "desired": self.desired,
            "ready": _shown(self.ready),
            "starting": _shown(self.starting),
            "waiting": _shown(self.waiting),
            "by": self.decided_by,
            "load_per_s": f"{self.load_per_s:.1f}",
            "wanted": _shown(self.wanted),
            "published": f"{self.published:.3f}",
            "ttft_p95_s": UNSEEN if self.ttft_p95_s is None else f"{self.ttft_p95_s:.2f}",
        }
        return " ".join(f"{name}={value}" for name, value in fields.items())


class Rows:
    """A sink of the daemon's loop that makes a row of every decision.

    A row that cannot be shown must not harm the loop: the error is set in ``failed``.
    """

    def __init__(
        self,
        show: Callable[[Row], None],
        *,
        start_at_s: float,
        arrivals: Callable[[float, float], int],
    ) -> None:
        self.all: list[Row] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._show = show
        self._start_at_s = start_at_s
        self._arrivals = arrivals
        self._last_at_s = start_at_s

    def take(self, report: TickReport) -> None:
        """Take in one tick: see ``scaler.service.loop.Sink``."""
        span_s = report.at_s - self._last_at_s
        load_per_s = self._arrivals(self._last_at_s, report.at_s) / span_s if span_s > 0.0 else 0.0
        for entry in report.entries:
            decision = entry.decision
            if decision is None or decision.at_s != report.at_s:
                continue
            target = f"{entry.key.namespace}/{entry.key.name}"
            row = _row(decision, target, t_s=report.at_s - self._start_at_s, load_per_s=load_per_s)
            self.all.append(row)
            self._shown(row)
        self._last_at_s = report.at_s

    def _shown(self, row: Row) -> None:
        try:
            self._show(row)
        except OSError as error:
            if not self.failed.done():
                self.failed.set_exception(error)


def _row(decision: Decision, target: str, *, t_s: float, load_per_s: float) -> Row:
    seen = dict(zip(COLUMNS, row_of(decision), strict=True))
    replicas = decision.observation.replicas
    return Row(
        t_s=t_s,
        target=target,
        load_per_s=load_per_s,
        desired=decision.would_be,
        published=decision.encoded,
        wanted=_count(seen["wanted"]),
        ready=_count(seen["ready"]),
        starting=_count(seen["starting"]),
        unschedulable=None if isinstance(replicas, NoData) else replicas.unschedulable,
        waiting=_count(seen["waiting"]),
        ttft_p95_s=None if math.isnan(seen["ttft_p95_s"]) else seen["ttft_p95_s"],
        decided_by=decision.decided_by.value,
        headline=headline(decision),
    )


def _count(value: float) -> int | None:
    return None if math.isnan(value) else round(value)


def _shown(value: int | None) -> str:
    return UNSEEN if value is None else str(value)
