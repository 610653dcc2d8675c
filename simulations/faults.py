"""What goes wrong in a run, on purpose: declared in the scenario, injected at the seam.

A fault takes something away from what is seen (a scrape, a label, Prometheus itself) or from the
fleet (a replica's speed, starts, GPUs), from ``from_s`` until ``to_s``.  Whatever moves the count
is told nothing but what its counterpart in a cluster would notice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from scaler.errors import ScenarioError


class FaultKind(StrEnum):
    """What goes wrong."""

    SCRAPE_GAP = "scrape-gap"  # pods cannot be reached by Prometheus: their series end
    BLIND_LABEL = "blind-label"  # the pods report another model_name than the one asked for
    PROMETHEUS_OUTAGE = "prometheus-outage"  # no query is answered, nothing is recorded
    SICK_REPLICA = "sick-replica"  # the oldest ready replica becomes slow
    CRASH_LOOP = "crash-loop"  # replicas that end their start-up crash
    GPU_LIMIT = "gpu-limit"  # no GPUs beyond a number: further replicas stay unschedulable


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """The number that a kind of fault takes; ``default`` None asks for it."""

    meaning: str
    default: float | None
    low: float
    high: float


AMOUNTS: Mapping[FaultKind, Amount] = MappingProxyType(
    {
        FaultKind.SCRAPE_GAP: Amount(
            meaning="share of the replicas", default=1.0, low=0.01, high=1.0
        ),
        FaultKind.SICK_REPLICA: Amount(
            meaning="factor on its steps", default=4.0, low=1.0, high=1000.0
        ),
        FaultKind.CRASH_LOOP: Amount(
            meaning="share of the starts", default=1.0, low=0.01, high=1.0
        ),
        FaultKind.GPU_LIMIT: Amount(meaning="GPUs that there are", default=None, low=0.0, high=1e6),
    }
)
"""Kinds that are not here take no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault in [from_s, to_s); ``amount`` means what ``AMOUNTS`` says, NaN where nothing."""

    kind: FaultKind
    from_s: float
    to_s: float
    amount: float = math.nan

    def __post_init__(self) -> None:
        """Raise ScenarioError for what cannot happen."""
        if not 0.0 <= self.from_s < self.to_s < math.inf:
            raise ScenarioError(
                f"fault {self.kind} = [{self.from_s:g}, {self.to_s:g}), must be 0 <= from < to"
            )
        amount = AMOUNTS.get(self.kind)
        if amount is not None and not amount.low <= self.amount <= amount.high:
            raise ScenarioError(
                f"fault {self.kind}: {amount.meaning} = {self.amount:g},"
                f" must be in [{amount.low:g}, {amount.high:g}]"
            )

    def __str__(self) -> str:
        """As ``parse_fault`` reads it."""
        text = f"{self.kind}:{self.from_s:g}:{self.to_s:g}"
        return text if math.isnan(self.amount) else f"{text}:{self.amount:g}"

    def holds(self, now_s: float) -> bool:
        """Whether it is there at ``now_s``."""
        return self.from_s <= now_s < self.to_s


FORM = "KIND:FROM_S:TO_S[:AMOUNT]"


def parse_fault(text: str) -> Fault:
    """The fault that ``KIND:FROM_S:TO_S[:AMOUNT]`` describes; raises ScenarioError."""
    name, *numbers = text.split(":")
    try:
        kind = FaultKind(name)
    except ValueError:
        kinds = ", ".join(FaultKind)
        raise ScenarioError(f"fault = {text!r}, must be {FORM} with KIND one of {kinds}") from None
    try:
        from_s, to_s, *rest = [float(number) for number in numbers]
    except ValueError:
        raise ScenarioError(f"fault = {text!r}, must be {FORM} in numbers") from None
    amount = AMOUNTS.get(kind)
    if len(rest) > (amount is not None):
        raise ScenarioError(f"fault = {text!r} has too many numbers, must be {FORM}")
    if amount is None:
        return Fault(kind=kind, from_s=from_s, to_s=to_s)
    if not rest and amount.default is None:
        raise ScenarioError(f"fault = {text!r} needs an AMOUNT, the {amount.meaning}")
    value = rest[0] if rest else amount.default
    assert value is not None
    return Fault(kind=kind, from_s=from_s, to_s=to_s, amount=value)
