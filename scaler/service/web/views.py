"""What the API says of a target: a summary for the list, everything for one."""

from typing import Any

import msgspec

from scaler.core.explain import headline, narrative, step_line
from scaler.core.model import Decision, NoData, Observation, Replicas, Stage
from scaler.service.history import COLUMNS, STEP, History
from scaler.service.moments import Kept
from scaler.service.registry import Entry


def summary(entry: Entry, now_s: float) -> dict[str, Any]:
    """One target in a line of the list; a trigger with faults is faulty whatever was decided."""
    found: dict[str, Any] = {
        "namespace": entry.key.namespace,
        "name": entry.key.name,
        "trigger": entry.id,
        "target": entry.label,
        "origin": entry.origin.value,
        "mode": entry.policy.mode.value,
        "config_hash": entry.hash,
        "faults": list(entry.faults),
        "status": "pending",
    }
    if entry.decision is not None:
        found |= _decided(entry.decision, now_s)
    if entry.faults:
        found["status"] = "faulty"
    return found


def _decided(decision: Decision, now_s: float) -> dict[str, Any]:
    return {
        **_counts(decision.observation.replicas),
        "status": decision.verdict.value,
        "age_s": now_s - decision.at_s,
        "data_age_s": _data_age_s(decision.observation, now_s),
        "desired": decision.would_be,
        "published": decision.replicas_desired,
        "decided_by": decision.decided_by.value,
        "bound_by": decision.steps[0].stage.value,
        "blind": [f"{item.signal}: {item.cause}" for item in decision.blind],
        "headline": headline(decision),
    }


def _counts(replicas: Replicas | NoData) -> dict[str, int | None]:
    """Replicas by state; a count is null where Kubernetes did not say."""
    if isinstance(replicas, NoData):
        return {"wanted": None, "ready": None, "starting": None, "unschedulable": None}
    return {
        "wanted": replicas.wanted,
        "ready": replicas.ready,
        "starting": replicas.starting,
        "unschedulable": replicas.unschedulable,
        "replicas_min": replicas.replicas_min,
        "replicas_max": replicas.replicas_max,
    }


def _data_age_s(seen: Observation, now_s: float) -> float | None:
    """Age of the oldest signal that the decision used; None when it saw no signal at all."""
    signals = (seen.queue, seen.work, seen.kv_cache, seen.ttft, seen.itl, seen.gpu)
    times = [signal.seen_at_s for signal in signals if not isinstance(signal, NoData)]
    return now_s - min(times) if times else None


def detail(entry: Entry, history: History, now_s: float, *, tick_s: float) -> dict[str, Any]:
    """One target with the latest decision, its explanation, and the last day."""
    decision = entry.decision
    return {
        **summary(entry, now_s),
        "now_s": now_s,
        "decision": decision,
        "steps": _steps(decision) if decision else (),
        "explanation": narrative(decision) if decision else (),
        "history": {
            "columns": (*COLUMNS, STEP),
            "stages": [stage.value for stage in Stage],
            "rows": history.rows(entry.key, tick_s=tick_s),
        },
        "ttft_slo_s": entry.policy.slo.ttft_s,
    }


def past(entry: Entry, kept: Kept) -> dict[str, Any]:
    """A past decision and its explanation; its measurements are not kept, its replicas are."""
    decision = kept.decision
    told = msgspec.to_builtins(decision)
    del told["observation"]
    return {
        "namespace": entry.key.namespace,
        "name": entry.key.name,
        "trigger": entry.id,
        **_counts(decision.observation.replicas),
        "status": decision.verdict.value,
        "desired": decision.would_be,
        "published": decision.replicas_desired,
        "at_s": decision.at_s,
        "next_at_s": kept.next_at_s,
        "remembered_from_s": kept.begin_s,
        "decision": told,
        "headline": headline(decision),
        "steps": _steps(decision),
        "explanation": narrative(decision),
    }


def basis(entry: Entry) -> dict[str, Any] | None:
    """What the latest decision was made from beside its observation; None before there is one."""
    if entry.basis is None:
        return None
    return {"policy": entry.basis.policy, "state": entry.basis.before}


def _steps(decision: Decision) -> list[dict[str, Any]]:
    """The way to the number: the count after each stage, and why."""
    return [
        {"replicas": step.replicas, "reason": step_line(step).split(maxsplit=1)[1]}
        for step in decision.steps
    ]
