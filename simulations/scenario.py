"""All that a simulated run depends on: equal scenarios, equal results."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from scaler.core.config import ForecasterName, HpaConfig, PolicyConfig
from scaler.errors import ScenarioError
from simulations.faults import Fault
from simulations.lifecycle import GpuPool, VictimOrder
from simulations.replica import ReplicaModel, Routing
from simulations.scaled_object import ClusterSpec, ScaledObjectSpec, hpa_spec
from simulations.sessions import Sessions
from simulations.timing import Timing, drawn_timing
from simulations.trace_chunks import Requests

if TYPE_CHECKING:
    from simulations.controller import ControllerFactory

__all__ = ["Behaviour", "Policy", "Scenario", "Timing", "drawn_timing", "policy_named", "watched"]

REPLICAS_LIMIT = 10_000
DIGITS_MAX = 9  # of a count that is worth reading


class Behaviour(StrEnum):
    """Which ``behavior`` block the HPA of an HPA-driven peer has."""

    OWN = "own"  # what the peer ships
    OURS = "ours"  # that of the scenario's ScaledObject


SHIPPED = "shipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What decides the count: ``decide`` under ``config``, a peer, or nobody (a fixed count).

    The objectives in ``config`` are also what a run is scored by.  A ``name`` that is in
    ``simulations.peers.PEERS`` is built there, in this ``variant`` and with ``knob`` as its main
    setting (None for its default); ``controller`` overrides all of that and should be a function of
    a module, or an object of a class, so that a policy can be sent to another process.
    """

    name: str
    config: PolicyConfig
    replicas_fixed: int | None = None
    variant: str = SHIPPED
    knob: float | None = None
    behaviour: Behaviour = Behaviour.OWN
    controller: "ControllerFactory | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One policy on one trace.

    ``requests`` are the trace's chunks in order of arrival and may be iterated more than once;
    ``load_factor`` superposes or thins them.  Only arrivals before ``until_s`` are played, and a
    run goes on until all of them have ended.  ``replicas_first`` are ready at 0 s.  Without
    ``timeline`` no row a tick is kept, which saves a run that only its score is wanted of the
    observing.  With ``replicas_min`` 0 the daemon's profile asks for a gateway's counter.
    """

    requests: Iterable[Requests]
    model: ReplicaModel
    scaled_object: ScaledObjectSpec
    policy: Policy
    replicas_first: int = 1
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    timing: Timing = field(default_factory=Timing)
    gpus: GpuPool = field(default_factory=GpuPool)
    routing: Routing = Routing.LEAST_REQUESTS
    seed: int = 0
    load_factor: float = 1.0
    until_s: float | None = None
    timeline: bool = True
    faults: tuple[Fault, ...] = ()
    victims: VictimOrder = VictimOrder.REPLICASET
    sessions: Sessions | None = None

    def __post_init__(self) -> None:
        """Raise ScenarioError for what cannot be run."""
        low, high = self.scaled_object.replicas_min, self.scaled_object.replicas_max
        if low < 0:
            raise ScenarioError(f"min_replicas = {low}, must be in [0, {high}]")
        if not max(low, 1) <= high <= REPLICAS_LIMIT:
            raise ScenarioError(f"max_replicas = {high}, must be in [{low}, {REPLICAS_LIMIT}]")
        fixed = self.policy.replicas_fixed
        if fixed is not None and not low <= fixed <= high:
            raise ScenarioError(
                f"policy = fixed:{fixed}, N must be in [{max(low, 1)}, {high}], the bounds of the"
                " count (--min-replicas, --max-replicas)"
            )
        if not low <= self.replicas_first <= high and fixed is None:
            raise ScenarioError(
                f"initial_replicas = {self.replicas_first}, must be in [{low}, {high}]"
            )
        if self.seed < 0:
            raise ScenarioError(f"seed = {self.seed}, must be at least 0")
        if self.until_s is not None and not self.until_s > 0.0:
            raise ScenarioError(f"until_s = {self.until_s}, must be above 0")
        self._check_gpus()

    @property
    def replicas_at_start(self) -> int:
        """Replicas that are ready at 0 s: those of a fixed count, else ``replicas_first``."""
        return self.policy.replicas_fixed or self.replicas_first

    def _check_gpus(self) -> None:
        """A pool without room for the replicas of the beginning would never serve anything."""
        first = self.replicas_at_start
        need = first * self.model.gpus_per_replica
        total = self.gpus.total
        if total is not None and total < need:
            raise ScenarioError(
                f"gpus_total = {total}, must be at least {need}, the GPUs of {first} replicas"
            )


def policy_named(name: str, config: PolicyConfig) -> Policy:
    """The policy ``predictive``, ``reactive`` or ``fixed:N`` under the settings ``config``.

    ``reactive`` takes the last value for the future and leaves no margin for its error, so that the
    forecast asks for what the work of the moment asks for.

    Raises:
        ScenarioError: there is no such policy.
    """
    if name == "predictive":
        return Policy(name=name, config=config)
    if name == "reactive":
        forecast = dataclasses.replace(config.forecast, quantile_ratio=0.5)
        reactive = dataclasses.replace(config, forecaster=ForecasterName.LAST, forecast=forecast)
        return Policy(name=name, config=reactive)
    if (count := fixed_count(name)) is not None:
        return Policy(name=name, config=config, replicas_fixed=count)
    raise ScenarioError(f"policy = {name}, must be predictive, reactive or fixed:N")


def fixed_count(name: str) -> int | None:
    """N of ``fixed:N``; None for a name of another kind.

    Raises:
        ScenarioError: N is no count of replicas.
    """
    kind, colon, count = name.partition(":")
    if kind != "fixed" or not colon:
        return None
    whole = count.isascii() and count.isdecimal() and len(count) <= DIGITS_MAX
    if not whole or not 1 <= int(count) <= REPLICAS_LIMIT:
        raise ScenarioError(
            f"policy = {name}, N in fixed:N must be a whole number in [1, {REPLICAS_LIMIT}]"
        )
    return int(count)


def watched(
    config: PolicyConfig, scaled_object: ScaledObjectSpec, cluster: ClusterSpec
) -> PolicyConfig:
    """``config`` with what the daemon reads from the watched ScaledObject and the API server."""
    tolerances = hpa_spec(scaled_object, cluster).tolerances
    known: HpaConfig = dataclasses.replace(
        config.hpa,
        kubernetes_minor=cluster.kubernetes.minor,
        tolerance_up_ratio=tolerances.up,
        tolerance_down_ratio=tolerances.down,
    )
    return dataclasses.replace(config, hpa=known)
