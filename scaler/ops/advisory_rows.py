"""What an advisory report is made from, a row a decision: a decision log, or a daemon's day."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaler.core.budget import missed_ratio
from scaler.core.capacity import replicas_for
from scaler.core.config import PolicyConfig
from scaler.core.explain import step_line
from scaler.core.model import Decision, Mode, NoData, Stage, Step, Verdict
from scaler.errors import SignalError
from scaler.ops.explain_daemon import latest
from scaler.ops.replay import Head, read_heads, read_logs
from scaler.service.codec import StateRecord
from scaler.service.history import COLUMNS, row_of

Floats = NDArray[np.float64]
UNSEEN = float("nan")
GAP_TICKS = 3.0  # a row stands for no longer than so many ticks: beyond nobody watched
START_UP_S = 180.0  # where no decision says how long a start takes
DAY_S = 86400.0

ROW = (
    "at_s", "would_be", "live", "ready", "load", "needs", "forecast_lead_s", "forecast_mean",
    "forecast_upper", "ttft_p95_s", "waiting", "missed_ratio", "blind", "active",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A target's rows in order of time, columns by the names of ``ROW``; NaN is not known.

    ``would_be`` is what the policy asked for, ``live`` spec.replicas; ``needs`` the fewest replicas
    that carry the load within the objectives by the learned capacity; ``missed_ratio`` the measured
    share of requests beyond the TTFT objective; ``blind`` and ``active`` are 0 or 1.  ``step_s`` is
    for how long each row stands.  ``note`` says what the source cannot tell, empty where it can.
    """

    namespace: str
    name: str
    id: str
    tick_s: float
    ttft_slo_s: float
    allowed_ratio: float
    gpus_per_replica: int
    columns: dict[str, Floats]
    step_s: Floats
    decided_by: list[str]
    why: list[str]
    note: str = ""
    measured: bool = True  # False where ``missed_ratio`` is only whether a percentile was missed

    @property
    def attained_ratio(self) -> Floats:
        """The measured share of requests within the TTFT objective; NaN where it is not known."""
        missed = self.columns["missed_ratio"]
        return 1.0 - missed if self.measured else np.full_like(missed, UNSEEN)

    def __getitem__(self, name: str) -> Floats:
        """One column of ``ROW``."""
        return self.columns[name]


class _Rows:
    """Gathers the decisions of one trigger."""

    def __init__(self, policy: PolicyConfig) -> None:
        self.policy = policy
        self.gpus = 0
        self.rows: list[tuple[float, ...]] = []
        self.decided_by: list[str] = []
        self.why: list[str] = []
        self._counts: tuple[float, float] | None = None

    def add(self, decision: Decision) -> None:
        """Take in a decision under the policy that was last seen."""
        replicas = decision.observation.replicas
        if not isinstance(replicas, NoData):
            self.gpus = max(self.gpus, replicas.gpus_per_replica)
        row = _row(decision, self.policy)
        self.rows.append(row)
        self.decided_by.append(_decider(decision).stage.value)
        counts = row[1], row[2]
        changed = counts != self._counts or not self.why
        self.why.append(_why(decision) if changed else self.why[-1])
        self._counts = counts


def _row(decision: Decision, policy: PolicyConfig) -> tuple[float, ...]:
    shown = dict(zip(COLUMNS, row_of(decision), strict=True))
    needs = missed = UNSEEN
    if decision.capacity is not None and math.isfinite(shown["load"]):
        needs = float(replicas_for(shown["load"], decision.capacity, policy.capacity))
    ttft = decision.observation.ttft
    if not isinstance(ttft, NoData) and ttft.total > 0.0:
        missed = missed_ratio(ttft, policy.slo.ttft_s)
    blind = decision.verdict not in (Verdict.FRESH, Verdict.UNKNOWN) or decision.demand is None
    known = {
        **shown,
        "would_be": float(decision.would_be),
        "live": shown["wanted"],
        "needs": needs,
        "missed_ratio": missed,
        "blind": float(blind),
        "active": float(decision.mode is Mode.ACTIVE),
    }
    return tuple(known[name] for name in ROW)


def _decider(decision: Decision) -> Step:
    """What fixed the count that an active target would publish."""
    return [step for step in decision.steps if step.stage is not Stage.FROZEN][-1]


def _why(decision: Decision) -> str:
    return step_line(_decider(decision)).split(maxsplit=1)[1]


def watched_log(
    path: Path,
    *,
    days: float,
    target: str | None = None,
    tell: Callable[[int], None] = lambda _count: None,
) -> list[Watched]:
    """Every target's rows of the last ``days`` of a log; ``tell`` is told how many there are.

    Raises:
        SignalError: the log cannot be read, or has no decision of ``target``.
    """

    def belongs(head: Head) -> bool:
        return target is None or f"{head.namespace}/{head.name}" == target

    times = [head.at_s for head in read_heads(path) if head.at_s is not None and belongs(head)]
    if not times:
        raise SignalError(f"{path} has no decision{f' of {target}' if target else ''}")
    from_at_s = max(times) - days * DAY_S

    def wanted(head: Head) -> bool:
        return belongs(head) and (head.at_s is None or head.at_s >= from_at_s)

    found: dict[tuple[str, str, str], _Rows] = {}
    for count, record in enumerate(read_logs(path, wanted), 1):
        tell(count)
        key = (record.namespace, record.name, record.id)
        if isinstance(record, StateRecord):
            found.setdefault(key, _Rows(record.policy)).policy = record.policy
        else:
            found.setdefault(key, _Rows(PolicyConfig())).add(record.decision)
    return [_made(key, rows) for key, rows in found.items() if rows.rows]


def _made(key: tuple[str, str, str], rows: _Rows) -> Watched:
    numbers = np.array(rows.rows, dtype=np.float64)
    policy = rows.policy
    return Watched(
        namespace=key[0],
        name=key[1],
        id=key[2],
        tick_s=policy.tick_s,
        ttft_slo_s=policy.slo.ttft_s,
        allowed_ratio=1.0 - policy.slo.attainment_target_ratio,
        gpus_per_replica=rows.gpus,
        columns={name: numbers[:, place] for place, name in enumerate(ROW)},
        step_s=_steps(numbers[:, 0], policy.tick_s),
        decided_by=rows.decided_by,
        why=rows.why,
    )


def _steps(at_s: Floats, tick_s: float) -> Floats:
    """A row stands until the next; a tick where nobody watched after it, and at the end."""
    steps = np.diff(at_s, append=at_s[-1] + tick_s)
    steps[steps > GAP_TICKS * tick_s] = tick_s
    made: Floats = np.maximum(steps, 0.0)
    return made


def watched_daemon(detail: dict[str, Any], *, days: float) -> Watched:
    """The rows of what a running daemon remembers of a target: a day, older rows by five minutes.

    What replicas carry is that of the latest decision, and a miss is told by the 95th percentile.

    Raises:
        SignalError: it remembers nothing, or does not tell what it decides from.
    """
    found = latest(detail)
    decision, basis = found.decision, found.basis
    if basis is None or not detail["history"]["rows"]:
        raise SignalError("the daemon does not tell what it decides from: is it another version?")
    history, config = detail["history"], basis.config
    rows = np.array(history["rows"], dtype=np.float64)
    place = {name: number for number, name in enumerate(history["columns"])}
    kept = rows[:, place["at_s"]] >= rows[-1, place["at_s"]] - days * DAY_S
    old = {name: rows[kept, number] for name, number in place.items()}
    needs = np.full(len(old["at_s"]), UNSEEN)
    if decision.capacity is not None:
        for number in np.flatnonzero(np.isfinite(old["load"])):
            load = float(old["load"][number])
            needs[number] = replicas_for(load, decision.capacity, config.capacity)
    replicas = decision.observation.replicas
    columns = {
        **{name: old[name] for name in ROW if name in old},
        "would_be": old["desired"],
        "live": old["wanted"],
        "needs": needs,
        "missed_ratio": np.where(old["ttft_p95_s"] > config.slo.ttft_s, 1.0, 0.0),
        "blind": (~np.isfinite(old["load"])).astype(np.float64),
        "active": np.full(len(needs), float(decision.mode is Mode.ACTIVE)),
    }
    stages = [history["stages"][int(number)] for number in old["decided_by"]]
    return Watched(
        namespace=detail["namespace"],
        name=detail["name"],
        id=detail["trigger"],
        tick_s=config.tick_s,
        ttft_slo_s=config.slo.ttft_s,
        allowed_ratio=1.0 - config.slo.attainment_target_ratio,
        gpus_per_replica=0 if isinstance(replicas, NoData) else replicas.gpus_per_replica,
        columns=columns,
        step_s=old["step_s"],
        decided_by=stages,
        why=stages,
        measured=False,
        note="from the daemon's memory of a day: what replicas carry is the latest estimate,"
        " and the live fleet's misses are told by the 95th percentile of TTFT",
    )
