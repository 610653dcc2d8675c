"""How a policy that is compared is described: its main knob, its variants, how it is built.

A module of this package describes its peers in a tuple ``PEERS``; ``simulations.peers`` gathers
them.  ``variants`` are ``("shipped",)``, or ``("shipped", "corrected")`` for a peer with a known
defect: the first reproduces it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from simulations.controller import Context, Controller
from simulations.scenario import SHIPPED, Behaviour

CORRECTED = "corrected"


class Group(StrEnum):
    """Whom a policy is compared with."""

    METRIC = "metric"  # decides from metrics alone
    PROFILE = "profile"  # is handed the true capacity of a replica
    OURS = "ours"
    BOUND = "bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A peer as it is to run."""

    knob: float
    variant: str = SHIPPED
    behaviour: Behaviour = Behaviour.OWN


Build: TypeAlias = Callable[[Setting, Context], Controller]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One policy that is compared.

    ``knob`` names its main setting in its own words, with what the values mean; ``knob_default`` is
    what it ships, ``knob_values`` ascend and are what a sweep tries.  ``behaviours`` has OURS too
    where an HPA moves the count, and the peer is also run with the behaviour that we ship.
    """

    name: str
    group: Group
    knob: str
    knob_default: float
    knob_values: tuple[float, ...]
    build: Build
    variants: tuple[str, ...] = (SHIPPED,)
    behaviours: tuple[Behaviour, ...] = (Behaviour.OWN,)
