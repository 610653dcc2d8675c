"""summary.json: what a run came to, as one JSON object."""

import math
from typing import Any

from scaler.config import config_hash
from simulations.attainable import request_tokens_max
from simulations.run import Result
from simulations.scenario import Scenario, watched
from simulations.score import Quantiles


def summary(scenario: Scenario, result: Result) -> dict[str, Any]:
    """The numbers of a run; the last three are of the machine, not of the scenario."""
    score, spent = result.score, result.spent
    policy = watched(scenario.policy.config, scenario.scaled_object, scenario.cluster)
    return {
        "policy": scenario.policy.name,
        "seed": scenario.seed,
        "config_hash": config_hash(policy),
        "replica_model": scenario.model.name,
        "load_factor": scenario.load_factor,
        "duration_s": result.end_s,
        "requests": score.requests,
        "completed": score.completed,
        "rejected": score.rejected,
        "too_long": score.too_long,
        "request_tokens_max": request_tokens_max(scenario.model),
        "cut_by_scale_down": score.cut_by_scale_down,
        "slo_attainment_ratio": score.slo_attainment_ratio,
        "first_hour": {
            "replicas": scenario.replicas_at_start,
            "requests": score.first_hour_requests,
            "slo_attainment_ratio": _number(score.first_hour_attainment_ratio),
        },
        "gpu_hours": score.gpu_hours,
        "pending_gpu_hours": score.pending_gpu_hours,
        "replica_hours": score.replica_hours,
        "ttft_s": _quantiles(score.ttft_s, "p50", "p90", "p95", "p99", "max"),
        "tpot_s": _quantiles(score.tpot_s, "p50", "p95", "p99"),
        "queue_s": _quantiles(score.queue_s, "p95", "p99"),
        "replicas": {
            "min": score.replicas_min,
            "mean": score.replicas_mean,
            "max": score.replicas_max,
        },
        "replica_changes": score.replica_changes,
        "reversals": score.reversals,
        "wall_s": spent.wall_s,
        "decide_wall_s": spent.decide_wall_s,
        "simulated_requests_per_s": score.requests / spent.wall_s if spent.wall_s else None,
    }


def _quantiles(found: Quantiles, *names: str) -> dict[str, float | None]:
    """By name; null where no request has the latency, because JSON knows no NaN."""
    values = {name: getattr(found, name) for name in names}
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
