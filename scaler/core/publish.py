"""The last stages: modes, what the HPA can be made to do, and the Decision itself."""

from dataclasses import dataclass

from scaler.core.config import PolicyConfig
from scaler.core.model import (
    Blindness,
    Capacity,
    Decision,
    Demand,
    Forecast,
    Mode,
    NoData,
    Observation,
    Proposal,
    Stage,
    Verdict,
)
from scaler.core.stages import Steps, count_of, then

POLICY_VERSION = "1"  # part of every record: replay compares decisions across versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A decision before modes and encoding."""

    observation: Observation
    config: PolicyConfig
    now_s: float
    verdict: Verdict
    steps: Steps
    active: bool
    proposals: tuple[Proposal, ...]
    blind: tuple[Blindness, ...]
    demand: Demand | None = None
    capacity: Capacity | None = None
    forecast: Forecast | None = None


def publish(draft: Draft) -> Decision:
    """Make the decision: what is wanted, what can be reached, what is published."""
    mode = draft.config.mode
    replicas = draft.observation.replicas
    steps = draft.steps
    would_be = count_of(steps)
    if mode is not Mode.ACTIVE and not isinstance(replicas, NoData):
        steps = then(steps, Stage.FROZEN, replicas.wanted, ())
    desired = count_of(steps)
    return Decision(
        at_s=draft.now_s,
        verdict=draft.verdict,
        replicas_desired=desired,
        would_be=would_be,
        active=draft.active,
        encoded=float(desired),
        decided_by=steps[-1].stage,
        steps=steps,
        proposals=draft.proposals,
        blind=draft.blind,
        demand=draft.demand,
        capacity=draft.capacity,
        forecast=draft.forecast,
        observation=draft.observation,
        mode=mode,
        policy_version=POLICY_VERSION,
    )
