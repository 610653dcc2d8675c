"""The example of the README, as a program of its own: one trace, two policies, arrays."""

# ruff: noqa: T201 - a program that prints

import sys
from dataclasses import replace
from pathlib import Path

from scaler.core.config import PolicyConfig
from scaler.ops.manifest import ManifestRequest, scaled_object
from simulations import (
    Scenario,
    columns,
    load_replica_model,
    parse_scaled_object,
    peer_policy,
    read_trace,
    simulate,
)

request = ManifestRequest(target="deployment/chat", namespace="llm", replicas_max=16)
scenario = Scenario(
    requests=read_trace(Path(sys.argv[1])),
    model=load_replica_model("llama-3.1-70b-h100-tp4"),
    scaled_object=parse_scaled_object(scaled_object(request)),
    policy=peer_policy("predictive", PolicyConfig()),
)
for name in ("predictive", "keda-queue"):
    result = simulate(replace(scenario, policy=peer_policy(name, PolicyConfig())))
    ticks = columns(result.timeline)  # a dict of numpy arrays; table() makes an Arrow table
    print(
        f"{name}: {result.score.slo_attainment_ratio:.2%} within the objectives, "
        f"{result.score.gpu_hours:.1f} GPU-hours, peak {ticks['replicas_ready'].max():.0f} replicas"
    )
