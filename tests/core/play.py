"""Time scripts: a table of what is seen at each tick, and of what is to be decided from it.

    at_s  ready  rate  waiting | want  decided_by
       0      2     3        0 |    2  work
      15      2     6       40 |    4  queue        # a comment

Left of the bar is the observation, right of it what is expected; every column but ``at_s`` may be
left out.  A dot takes the default on the left and checks nothing on the right; a dash on the left
means that the signal has no data.  A line of three dots repeats the row above it, expectations
included, at every tick before the row below it.

| left column | meaning | default |
|---|---|---|
| ready, starting, unschedulable, crash_looping | replicas by state | 1, 0, 0, 0 |
| starting_s | age of every starting replica | 30 |
| wanted, current | spec.replicas, status.replicas; a dash: no Kubernetes API | all of the above |
| min, max | of the ScaledObject | not known |
| rate, running, waiting | requests per second, gauges; a dash: counters or gauges missing | 0 |
| kv, gpu | mean use; a dash: no data | 0, a dash |
| ttft, itl | counts per bucket (``TTFT_BOUNDS_S``, ``ITL_BOUNDS_S``): 90:10:0:0:0 | none, a dash |
| gateway | requests that came to the gateway in the interval | a dash |
| engines | a dash with a cause (``-stale``): no engine signal at all | seen |

| right column | meaning |
|---|---|
| want, decided_by, verdict, active | of the decision; ``want`` is ``replicas_desired`` |
| would_be | what an active target would publish |
| the name of a signal | what that signal alone proposes; ``none`` when it proposes nothing |

One request costs 0.625 s of a replica under ``CONFIG`` and nothing is learned, so a rate of r is a
load of 0.625 r, and n replicas carry a load of n: no margin is left for any doubt.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from scaler.core.config import (
    BudgetConfig,
    CapacityConfig,
    DemandConfig,
    ForecastConfig,
    ForecasterName,
    HoldDownConfig,
    HpaConfig,
    PolicyConfig,
)
from scaler.core.model import (
    Cause,
    Decision,
    Gateway,
    Gpu,
    KvCache,
    Latency,
    NoData,
    Observation,
    Queue,
    Replicas,
    Work,
)
from scaler.core.policy import PolicyState, decide

TICK_S = 15.0
TTFT_BOUNDS_S = (0.5, 1.0, 2.5, 5.0)  # the objective of 2 s lies inside the third bucket
ITL_BOUNDS_S = (0.02, 0.04, 0.08)

CONFIG = PolicyConfig(
    forecaster=ForecasterName.LAST,
    forecast=ForecastConfig(quantile_ratio=0.5),  # the median: no margin for noise
    demand=DemandConfig(rate_time_constant_s=5.0),  # 95 % of the newest tick: 1 - exp(-15 / 5)
    capacity=CapacityConfig(
        overhead_s=0.0625,
        per_sequence_s=0.0,
        per_kv_token_s=0.0,
        per_prefill_token_s=5e-4,  # 1000 prompt tokens: 0.5 s
        sequences_max=100.0,  # 200 steps of 0.0625 s shared by 100 sequences: 0.125 s
        kv_capacity_tokens=1e9,
        load_max_ratio=1.0,
        prior_uncertainty_factor=1.0,
    ),
    # A miss costs the replica time of one request: drains are sqrt(load * backlog / kept).
    budget=BudgetConfig(prior_s=7200.0, prior_spent_ratio=0.5, backlog_price_factor=1.0),
    hold_down=HoldDownConfig(
        window_s=300.0,
        level_s=15.0,
        margin_ratio=0.1,
        sigma_min_factor=0.0,
        scatter_factor=0.0,
        release_s=0.0,
        drift_ratio=0.0,
        ease_spent_ratio=0.0,  # margins are whole whatever was spent
    ),
    hpa=HpaConfig(tolerance_up_ratio=0.0, tolerance_down_ratio=0.0),
)
# 30 % to spare on the way down, and hardly any of it while no miss is counted.
EASED = replace(
    CONFIG,
    hold_down=replace(
        CONFIG.hold_down,
        level_s=240.0,
        margin_ratio=0.3,
        ease_spent_ratio=2.0,
        ease_min_ratio=0.0,
    ),
)
ABSENT = NoData(cause=Cause.ABSENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """Every decision of a script, and the state it ended in."""

    decisions: tuple[Decision, ...]
    state: PolicyState


def play(
    script: str,
    config: PolicyConfig = CONFIG,
    state: PolicyState | None = None,
    *,
    follow_s: float = 0,
) -> Played:
    """Play ``script`` through ``decide`` and assert what its right side expects.

    With ``follow_s`` the replicas obey: the count of one tick is wanted in the next, and a replica
    is ready ``follow_s`` after it was first wanted; ``ready`` of the first row is where they begin.
    """
    now = state or PolicyState()
    decisions: list[Decision] = []
    born_at_s: list[float] = []
    for row in rows(script):
        at_s, left = float(row.left["at_s"]), row.left
        if follow_s:
            if decisions:
                count = decisions[-1].replicas_desired
                born_at_s = (born_at_s + [at_s] * count)[:count]
            else:
                born_at_s = [at_s - follow_s] * int(left["ready"])
            ages_s = [at_s - born_s for born_s in born_at_s]
            observed = observation(left)
            observed = replace(observed, replicas=_obedient(ages_s, at_s=at_s, start_s=follow_s))
        else:
            observed = observation(left)
        decision, now = decide(observed, now, config, at_s)
        _check(row, decision)
        decisions.append(decision)
    assert decisions, "a script without rows proves nothing"
    return Played(decisions=tuple(decisions), state=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a script."""

    text: str
    left: Mapping[str, str]
    right: Mapping[str, str]


def rows(script: str) -> tuple[Row, ...]:
    """The lines of a script, cells by column name; faults of the script are assertions."""
    lines = [line.split("#")[0].rstrip() for line in script.splitlines()]
    lines = [line for line in lines if line.strip()]
    left_names, right_names = (part.split() for part in lines[0].split("|"))
    unknown = set(left_names) - _LEFT | set(right_names) - _RIGHT
    assert not unknown, f"columns the player does not know: {unknown}"
    made: list[Row] = []
    repeat = False
    for line in lines[1:]:
        if line.strip() == "...":
            repeat = True
            continue
        left, right = (part.split() for part in line.split("|"))
        assert len(left) == len(left_names), f"cells do not match the columns: {line}"
        assert len(right) == len(right_names), f"cells do not match the columns: {line}"
        row = Row(
            text=line.strip(),
            left={k: v for k, v in zip(left_names, left, strict=True) if v != "."},
            right={k: v for k, v in zip(right_names, right, strict=True) if v != "."},
        )
        if repeat:
            made += _repeated(made[-1], until_s=float(row.left["at_s"]))
        repeat = False
        made.append(row)
    return tuple(made)


def _repeated(row: Row, *, until_s: float) -> list[Row]:
    """``row`` at every tick after it and before ``until_s``."""
    begin_s = float(row.left["at_s"])
    ticks = math.ceil((until_s - begin_s) / TICK_S) - 1
    return [
        replace(row, left={**row.left, "at_s": str(begin_s + TICK_S * (i + 1))})
        for i in range(ticks)
    ]


def observation(cells: Mapping[str, str]) -> Observation:
    """The observation of a row."""
    at_s = float(cells["at_s"])
    if cells.get("engines", "seen").startswith("-"):
        cause = NoData(cause=Cause(cells["engines"][1:] or "unreachable"))
        return Observation(
            seen_at_s=at_s,
            replicas=_replicas(cells, at_s),
            queue=cause,
            kv_cache=cause,
            ttft=cause,
            itl=cause,
            work=cause,
            gpu=_gpu(cells, at_s),
            gateway=_gateway(cells, at_s),
        )
    return Observation(
        seen_at_s=at_s,
        replicas=_replicas(cells, at_s),
        queue=_queue(cells, at_s),
        kv_cache=_kv_cache(cells, at_s),
        ttft=_latency(cells.get("ttft", "0:0:0:0:0"), TTFT_BOUNDS_S, at_s),
        itl=_latency(cells.get("itl", "-"), ITL_BOUNDS_S, at_s),
        work=_work(cells, at_s),
        gpu=_gpu(cells, at_s),
        gateway=_gateway(cells, at_s),
    )


def _replicas(cells: Mapping[str, str], at_s: float) -> Replicas | NoData:
    if cells.get("wanted") == "-":
        return NoData(cause=Cause.UNREACHABLE)
    ready, starting = int(cells.get("ready", 1)), int(cells.get("starting", 0))
    unschedulable = int(cells.get("unschedulable", 0))
    crash_looping = int(cells.get("crash_looping", 0))
    wanted = int(cells.get("wanted", ready + starting + unschedulable + crash_looping))
    return Replicas(
        seen_at_s=at_s,
        wanted=wanted,
        current=int(cells.get("current", wanted)),
        ready=ready,
        starting_age_s=(float(cells.get("starting_s", 30)),) * starting,
        unschedulable=unschedulable,
        crash_looping=crash_looping,
        replicas_min=int(cells["min"]) if "min" in cells else None,
        replicas_max=int(cells["max"]) if "max" in cells else None,
    )


def _obedient(ages_s: list[float], *, at_s: float, start_s: float) -> Replicas:
    young = tuple(age_s for age_s in ages_s if age_s < start_s)
    return Replicas(
        seen_at_s=at_s,
        wanted=len(ages_s),
        current=len(ages_s),
        ready=len(ages_s) - len(young),
        starting_age_s=young,
    )


def _queue(cells: Mapping[str, str], at_s: float) -> Queue | NoData:
    running, waiting = cells.get("running", "0"), cells.get("waiting", "0")
    if "-" in (running, waiting):
        return ABSENT
    return Queue(
        seen_at_s=at_s,
        coverage_ratio=1.0,
        requests_running=float(running),
        requests_waiting=float(waiting),
    )


def _kv_cache(cells: Mapping[str, str], at_s: float) -> KvCache | NoData:
    kv = cells.get("kv", "0")
    if kv == "-":
        return ABSENT
    return KvCache(
        seen_at_s=at_s, coverage_ratio=1.0, usage_mean_ratio=float(kv), usage_max_ratio=float(kv)
    )


def _latency(cell: str, bounds_s: tuple[float, ...], at_s: float) -> Latency | NoData:
    if cell == "-":
        return ABSENT
    return Latency(
        seen_at_s=at_s,
        coverage_ratio=1.0,
        window_s=60.0,
        bounds_s=bounds_s,
        counts=tuple(float(count) for count in cell.split(":")),
    )


def _work(cells: Mapping[str, str], at_s: float) -> Work | NoData:
    """Arrivals alone: without lengths and steps neither the mix nor the capacity moves."""
    rate = cells.get("rate", "0")
    if rate == "-":
        return ABSENT
    return Work(
        seen_at_s=at_s,
        coverage_ratio=1.0,
        interval_s=TICK_S,
        replica_s=TICK_S * int(cells.get("ready", 1)),
        requests_arrived=float(rate) * TICK_S,
        requests_finished=float(rate) * TICK_S,
        requests_rejected=0.0,
        prompt_tokens=0.0,
        cached_tokens=0.0,
        output_tokens=0.0,
        preemptions=0.0,
        engine_steps=0.0,
    )


def _gpu(cells: Mapping[str, str], at_s: float) -> Gpu | NoData:
    gpu = cells.get("gpu", "-")
    if gpu == "-":
        return ABSENT
    return Gpu(
        seen_at_s=at_s,
        coverage_ratio=1.0,
        utilisation_mean_ratio=float(gpu),
        utilisation_max_ratio=float(gpu),
    )


def _gateway(cells: Mapping[str, str], at_s: float) -> Gateway | NoData:
    gateway = cells.get("gateway", "-")
    if gateway == "-":
        return NoData(cause=Cause.UNSUPPORTED)
    return Gateway(seen_at_s=at_s, interval_s=TICK_S, requests_arrived=float(gateway))


def _check(row: Row, decision: Decision) -> None:
    alone = {str(proposal.signal): proposal.replicas for proposal in decision.proposals}
    found = {
        "want": str(decision.replicas_desired),
        "would_be": str(decision.would_be),
        "decided_by": str(decision.decided_by),
        "verdict": str(decision.verdict),
        "active": "yes" if decision.active else "no",
        **{signal: str(alone.get(signal, "none")) for signal in _SIGNALS},
    }
    got = {name: found[name] for name in row.right}
    assert got == dict(row.right), f"{row.text}\n  steps: {decision.steps}"


_SIGNALS = ("work", "forecast", "queue", "kv_cache", "ttft", "itl", "gpu")
_RIGHT = {"want", "would_be", "decided_by", "verdict", "active", *_SIGNALS}
_LEFT = {
    "at_s", "ready", "starting", "starting_s", "unschedulable", "crash_looping", "wanted",
    "current", "min", "max", "rate", "running", "waiting", "kv", "gpu", "ttft", "itl", "gateway",
    "engines",
}  # fmt: skip
