"""Small targets with every number in sight, for the advisory report."""

from typing import Any

import numpy as np

from scaler.ops.advisory_rows import ROW, Watched

BEGAN_AT_S = 1_800_000_000.0


def watched(rows: int, *, tick_s: float = 15.0, gpus: int = 2, **columns: Any) -> Watched:
    """A target of ``rows`` decisions; five replicas live and wanted where nothing is given."""
    given: dict[str, Any] = {
        "at_s": BEGAN_AT_S + tick_s * np.arange(rows),
        "would_be": 5.0, "live": 5.0, "ready": 5.0, "load": 3.0, "needs": 4.0,
        "forecast_lead_s": 60.0, "forecast_mean": 3.0, "forecast_upper": 4.0, "ttft_p95_s": 0.4,
        "waiting": 0.0, "missed_ratio": 0.0, "blind": 0.0, "active": 0.0,
    } | columns  # fmt: skip
    assert set(given) == set(ROW)
    made = {name: np.broadcast_to(np.asarray(value, float), rows) for name, value in given.items()}
    steps = np.diff(made["at_s"], append=made["at_s"][-1] + tick_s)
    steps = np.where(steps > 3.0 * tick_s, tick_s, steps)
    return Watched(
        namespace="llm", name="chat", id="0", tick_s=tick_s, ttft_slo_s=2.0, allowed_ratio=0.01,
        gpus_per_replica=gpus, columns=made, step_s=steps, decided_by=["work"] * rows,
        why=[f"why {place}" for place in range(rows)],
    )  # fmt: skip


def held(*parts: tuple[int, float]) -> Any:
    """A column of stretches: so many rows of a value, one after another."""
    return np.concatenate([np.full(rows, value) for rows, value in parts])
