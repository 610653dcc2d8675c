"""The policies of a scoreboard: what each is called, compared with, and turned by."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from scaler.errors import ScenarioError
from simulations.controller import Context, Controller
from simulations.frontier import Knob
from simulations.oracle_replay import Step
from simulations.oracle_schedule import ScheduleController
from simulations.peers import PEERS, SHIPPED, Behaviour, Group, Peer
from simulations.scenario import Policy, Scenario, fixed_count, policy_named

OURS = ("predictive", "reactive")
ORACLE = "oracle"
DIAL = Knob(
    name="sloAttainmentTarget",
    values=(0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.993, 0.996, 0.998, 0.999),
    low=0.5,
    high=0.9999,
)
"""What turns our own policies: the one dial between thrifty and safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One policy in one form; ``knob`` None is a policy without one, or not to be searched.

    A search begins near ``knob_begin`` where something is known already.
    """

    policy: str
    group: Group
    variant: str = SHIPPED
    behaviour: Behaviour = Behaviour.OWN
    knob: Knob | None = None
    knob_default: float | None = None
    knob_begin: float | None = None

    @property
    def name(self) -> str:
        """For progress: the policy, and its form where it is not the plain one."""
        form = [part for part in (self.variant, self.behaviour) if part not in (SHIPPED, "own")]
        return f"{self.policy} ({', '.join(form)})" if form else self.policy


def known_policies() -> tuple[str, ...]:
    """Names of all policies but ``fixed:N``."""
    return (*OURS, *PEERS, ORACLE)


def policy_names(asked: str) -> tuple[str, ...]:
    """The names in a list with commas, or ``all``.

    Raises:
        ScenarioError: there is no such policy; the message names the known ones.
    """
    if asked == "all":
        return known_policies()
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    if not names:
        raise ScenarioError(f"policies = {asked!r}, must name at least one of {_known()}")
    for name in names:
        if name not in known_policies() and fixed_count(name) is None:
            raise ScenarioError(f"policies: {name} is unknown, must be one of {_known()}")
    return names


def _known() -> str:
    return f"{', '.join(known_policies())}, fixed:N, or all"


def contenders(names: Sequence[str], *, attainment_share: float) -> tuple[Contender, ...]:
    """Every form of every policy named; the oracle is none, it is known beforehand.

    Ours ship with the attainment that is asked for as their knob.
    """
    made: list[Contender] = []
    for name in names:
        if name in PEERS:
            made += _forms(PEERS[name])
        elif name in OURS:
            ours = Contender(
                policy=name, group=Group.OURS, knob=DIAL, knob_default=attainment_share
            )
            made.append(ours)
        elif name != ORACLE:
            made.append(Contender(policy=name, group=Group.BOUND))
    return tuple(made)


def _forms(peer: Peer) -> list[Contender]:
    knob = Knob(name=peer.knob, values=peer.knob_values)
    return [
        Contender(
            policy=peer.name,
            group=peer.group,
            variant=variant,
            behaviour=behaviour,
            knob=knob,
            knob_default=peer.knob_default,
        )
        for variant in peer.variants
        for behaviour in peer.behaviours
    ]


def scenario_of(base: Scenario, contender: Contender, knob: float | None = None) -> Scenario:
    """``base`` under a contender, its knob at a value or as it ships.

    A knob value of our own policies is the attainment that they are asked for.
    """
    config = base.policy.config
    if contender.policy in OURS and knob is not None:
        slo = dataclasses.replace(config.slo, attainment_target_ratio=knob)
        config = dataclasses.replace(config, slo=slo)
    if contender.policy in PEERS:
        policy = Policy(
            name=contender.policy,
            config=config,
            variant=contender.variant,
            behaviour=contender.behaviour,
            knob=contender.knob_default if knob is None else knob,
        )
    else:
        policy = policy_named(contender.policy, config)
    return dataclasses.replace(base, policy=policy, timeline=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """Makes the controller of a schedule; can be sent to another process."""

    steps: tuple[Step, ...]

    def __call__(self, context: Context) -> Controller:
        """A controller that commands the schedule."""
        del context  # a schedule depends on nothing that a run knows
        return ScheduleController(self.steps)


def oracle_scenario(base: Scenario, schedule: Sequence[Sequence[float]]) -> Scenario:
    """``base`` under the oracle's schedule."""
    steps = tuple((float(at_s), int(count)) for at_s, count in schedule)
    policy = Policy(name=ORACLE, config=base.policy.config, controller=Scheduled(steps=steps))
    return dataclasses.replace(base, policy=policy, timeline=False)
