"""Seven recorded runs of KEDA 2.20.2 and Kubernetes 1.36.2, given again by the model.

The model is fed the scaler's answers as they were given, at the times they were given, and nothing
else: its own count is the count of the next step.  (A Deployment's status follows its spec within
the sampling time of the recordings.)
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from scaler.core.hpa import parse_version
from simulations.actuation import Answer, Failure, KedaActuator, KedaState, Read, Scale
from simulations.scaled_object import ClusterSpec, parse_scaled_object

FOLDER = Path(__file__).parent.parent / "data" / "keda"
RUNS = sorted(path.stem for path in FOLDER.glob("r*.json"))
HPA_SYNC_S = 15.0
SAMPLING_S = 1.0  # replicas were sampled each 0.4 s, by a loop that was itself late at times
RETRY_S = 0.1  # KEDA repeats a failed read at once: two rows, one read


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One read of the scaler, by KEDA's poll loop or for the HPA."""

    at_s: float
    path: str
    answer: Read


def rows(run: str) -> list[tuple[float, str, str]]:
    with (FOLDER / f"{run}.csv").open(newline="", encoding="utf-8") as opened:
        return [(float(at), event, value) for at, event, value in list(csv.reader(opened))[1:]]


def calls(run: str) -> list[Call]:
    found: list[Call] = []
    recorded = rows(run)
    for index, (at_s, event, value) in enumerate(recorded):
        if not event.startswith("metric_"):
            continue
        path = event.removeprefix("metric_")
        if value == "UNAVAILABLE":
            retry = (
                found
                and found[-1].path == path
                and found[-1].answer is Failure.METRICS
                and at_s - found[-1].at_s < RETRY_S
            )
            if not retry:
                found.append(Call(at_s=at_s, path=path, answer=Failure.METRICS))
            continue
        active = next(said == "1" for _, name, said in recorded[index:] if name == f"active_{path}")
        answer = Answer(integer=0, double=float(value), active=active)
        found.append(Call(at_s=at_s, path=path, answer=answer))
    return found


def spec_path(run: str) -> list[tuple[float, int]]:
    return [(at_s, int(value)) for at_s, event, value in rows(run) if event == "spec_replicas"]


def actuator(settings: dict[str, object]) -> KedaActuator:
    document = {
        "spec": {
            "pollingInterval": settings["polling_interval_s"],
            "cooldownPeriod": settings["cooldown_s"],
            "minReplicaCount": settings["min_replicas"],
            "maxReplicaCount": settings["max_replicas"],
            "fallback": settings["fallback"],
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": settings["behavior"]}},
            "triggers": [{"type": "external", "metricType": settings["metric_type"]}],
        }
    }
    cluster = ClusterSpec(
        kubernetes=parse_version(str(settings["kubernetes"])),
        keda=parse_version(str(settings["keda"])),
        hpa_sync_s=float(str(settings["hpa_sync_s"])),
    )
    return KedaActuator.of(parse_scaled_object(document), cluster)  # type: ignore[arg-type]


def step(keda: KedaActuator, state: KedaState, call: Call, replicas: int) -> tuple[int, KedaState]:
    scale = Scale(spec_replicas=replicas, status_replicas=replicas, ready_pods=replicas)
    if call.path == "poll":
        polled = keda.poll(state, now_s=call.at_s, answer=call.answer, scale=scale)
        return polled.replicas, polled.state
    assert keda.asks(scale), "the recorded HPA asked, so the model must be at a count where it asks"
    synced = keda.hpa_sync(state, now_s=call.at_s, answer=call.answer, scale=scale)
    return synced.replicas, synced.state


def replayed(run: str) -> list[tuple[float, int]]:
    settings = json.loads((FOLDER / f"{run}.json").read_text(encoding="utf-8"))
    keda = actuator(settings)
    state = keda.start(now_s=0.0)
    at_s, replicas = spec_path(run)[0]
    path = [(at_s, replicas)]
    for call in calls(run):
        replicas, state = step(keda, state, call, replicas)
        if replicas != path[-1][1]:
            path.append((call.at_s, replicas))
    return path


@pytest.mark.parametrize("run", RUNS)
def test_the_model_takes_the_recorded_path(run: str) -> None:
    recorded, modelled = spec_path(run), replayed(run)
    assert [replicas for _, replicas in modelled] == [replicas for _, replicas in recorded]
    late_s = [seen - made for (seen, _), (made, _) in zip(recorded, modelled, strict=True)]
    assert all(abs(late) < HPA_SYNC_S for late in late_s)
    assert all(0.0 <= late <= SAMPLING_S for late in late_s), late_s


def test_all_seven_runs_are_there() -> None:
    assert [run[:2] for run in RUNS] == ["r1", "r2", "r3", "r4", "r5", "r6", "r7"]
    changes = {run[:2]: len(spec_path(run)) for run in RUNS}
    assert changes == {"r1": 9, "r2": 30, "r3": 9, "r4": 12, "r5": 7, "r6": 11, "r7": 12}


def test_without_the_fallback_the_fifth_run_would_differ() -> None:
    """The fallback count of 6 reaches the path; a model without it would stay at 5 and 8."""
    settings = json.loads((FOLDER / "r5-errors-fallback.json").read_text(encoding="utf-8"))
    bare = actuator(settings | {"fallback": None})
    state, replicas, seen = bare.start(now_s=0.0), 1, [1]
    for call in calls("r5-errors-fallback"):
        replicas, state = step(bare, state, call, replicas)
        seen.append(replicas)
    assert 6 not in seen
