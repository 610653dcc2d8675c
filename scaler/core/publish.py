"""The last stages: modes, what the HPA can be made to do, and the Decision itself."""

from dataclasses import dataclass
from functools import lru_cache

from scaler.core.config import HpaConfig, PolicyConfig
from scaler.core.hpa_encoding import Resolution, Resolved, resolve_unreachable
from scaler.core.hpa_spec import BAND_SINCE, ToleranceRule, Tolerances, Version
from scaler.core.made import gatherer, maker
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
    Replicas,
    Stage,
    Verdict,
)
from scaler.core.stages import Steps, count_of, limits, then

POLICY_VERSION = "6"  # part of every record: replay compares decisions across versions


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


make_draft = maker(Draft)
_make_decision = gatherer(
    Decision,
    ("observation", "verdict", "active", "proposals", "blind", "demand", "capacity", "forecast"),
)


def publish(draft: Draft) -> Decision:
    """Make the decision: what is wanted, what can be reached, what is published."""
    mode, replicas = draft.config.mode, draft.observation.replicas
    steps, encoded = _reach(draft)
    would_be = count_of(steps)
    if mode is not Mode.ACTIVE and not isinstance(replicas, NoData):
        steps = then(steps, Stage.FROZEN, replicas.wanted, ())
        encoded = _resolved(replicas.wanted, replicas, draft.config.hpa).encoded.double
    return _make_decision(
        draft,
        at_s=draft.now_s,
        replicas_desired=count_of(steps),
        would_be=would_be,
        encoded=encoded,
        decided_by=steps[-1].stage,
        steps=steps,
        mode=mode,
        policy_version=POLICY_VERSION,
    )


def _reach(draft: Draft) -> tuple[Steps, float]:
    """Steps that end in a count the HPA can be brought to, and the value that brings it there.

    A count that the HPA's tolerance swallows is replaced: rounded up, or held, by price.

    One replica too few costs ``shortage_price_ratio`` times one too many.  Within the bounds of the
    target the plain count is kept: the HPA enforces those without looking at the value.
    """
    replicas, config = draft.observation.replicas, draft.config
    desired = count_of(draft.steps)
    known = None if isinstance(replicas, NoData) or replicas.inferred else replicas
    resolved = _resolved(desired, known, config.hpa)
    if resolved.resolution is Resolution.AS_ASKED or known is None:
        return draft.steps, resolved.encoded.double
    allowed = limits(config, known.replicas_min, known.replicas_max)
    if not allowed.low <= resolved.replicas <= allowed.high:
        return draft.steps, float(desired)
    steps = then(
        draft.steps,
        Stage.UNREACHABLE_STEP,
        resolved.replicas,
        (("asked", float(desired)), ("status_replicas", float(known.current))),
    )
    return steps, resolved.encoded.double


def _resolved(desired: int, replicas: Replicas | None, hpa: HpaConfig) -> Resolved:
    """The value for the HPA behind the target; the plain count where its status is not known."""
    if replicas is None:
        return _encode(hpa, desired=desired, status=None, spec=None, replicas_max=None)
    return _encode(
        hpa,
        desired=desired,
        status=replicas.current,
        spec=replicas.wanted,
        replicas_max=replicas.replicas_max,
    )


@lru_cache(maxsize=4096)  # of counts and settings: a target asks the same from tick to tick
def _encode(
    hpa: HpaConfig,
    *,
    desired: int,
    status: int | None,
    spec: int | None,
    replicas_max: int | None,
) -> Resolved:
    return resolve_unreachable(
        desired=desired,
        status_replicas=status,
        spec_replicas=spec,
        tolerances=tolerances_of(hpa),
        cost_over=1.0,
        cost_under=hpa.shortage_price_ratio,
        replicas_max=replicas_max,
    )


def tolerances_of(hpa: HpaConfig) -> Tolerances:
    """The HPA's tolerances under the version's own rule; before 1.33 both ways share one."""
    if Version(1, hpa.kubernetes_minor) < BAND_SINCE:
        ratio = hpa.tolerance_up_ratio
        return Tolerances(down=ratio, up=ratio, rule=ToleranceRule.ABSOLUTE)
    return Tolerances(down=hpa.tolerance_down_ratio, up=hpa.tolerance_up_ratio)
