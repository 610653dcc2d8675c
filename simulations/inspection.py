"""Looking into a run while it goes on, and ending it early where it is not worth the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from simulations.engine_layout import Records
from simulations.score import ReplicaChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a run stands at ``at_s``; all requests that had ended by then were handed over before.

    ``gpu_hours`` are those spent so far, ``changes`` those of spec.replicas so far.
    """

    at_s: float
    gpu_hours: float
    changes: Sequence[ReplicaChange]


class Inspector(Protocol):
    """Hears of requests as they end, and looks at times of its own choosing."""

    @property
    def next_at_s(self) -> float:
        """When it looks next: at the first tick of the daemon from then on; infinity for never."""

    def ended(self, outcomes: Records) -> None:
        """Requests that have ended since it heard last; the array is used again afterwards."""

    def look(self, standing: Standing) -> bool:
        """Whether the run goes on; what has not ended where it does not is not in the result."""
