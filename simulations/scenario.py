"""All that a simulated run depends on: equal scenarios, equal results."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from scaler.core.config import ForecasterName, HpaConfig, PolicyConfig
from scaler.errors import ScenarioError
from simulations.lifecycle import GpuPool
from simulations.replica import ReplicaModel, Routing
from simulations.scaled_object import ClusterSpec, ScaledObjectSpec, hpa_spec
from simulations.streams import generator
from simulations.trace_chunks import Requests

REPLICAS_LIMIT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When the parts of the chain act; each keeps its own time, from its phase on.

    Every replica is scraped at the same instant, where Prometheus spreads its targets over the
    interval.  The decision's period is ``PolicyConfig.tick_s``, KEDA's and the HPA's are those of
    the ScaledObject and the cluster.
    """

    scrape_every_s: float = 15.0
    dcgm_every_s: float = 30.0  # the exporter's default
    scrape_phase_s: float = 0.0
    dcgm_phase_s: float = 0.0
    tick_phase_s: float = 0.0
    poll_phase_s: float = 0.0
    sync_phase_s: float = 0.0


def drawn_timing(seed: int, *, tick_s: float, poll_s: float, sync_s: float) -> Timing:
    """Phases drawn from the seed: no part waits for another, and no run is lucky by design."""
    plain = Timing()
    drawn = generator(seed, "phases").random(5)
    return Timing(
        scrape_phase_s=float(drawn[0]) * plain.scrape_every_s,
        dcgm_phase_s=float(drawn[1]) * plain.dcgm_every_s,
        tick_phase_s=float(drawn[2]) * tick_s,
        poll_phase_s=float(drawn[3]) * poll_s,
        sync_phase_s=float(drawn[4]) * sync_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What decides the count: ``decide`` under ``config``, or nobody where a count is fixed.

    The objectives in ``config`` are also what a run is scored by.
    """

    name: str
    config: PolicyConfig
    replicas_fixed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One policy on one trace.

    ``requests`` are the trace's chunks in order of arrival and may be iterated more than once;
    ``load_factor`` superposes or thins them.  Only arrivals before ``until_s`` are played, and a
    run goes on until all of them have ended.  ``replicas_first`` are ready at 0 s.
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

    def __post_init__(self) -> None:
        """Raise ScenarioError for what cannot be run."""
        low, high = self.scaled_object.replicas_min, self.scaled_object.replicas_max
        if low < 1:  # from zero only a gateway's counter wakes a target, and none is simulated
            raise ScenarioError(f"min_replicas = {low}, must be in [1, {high}]")
        if not low <= high <= REPLICAS_LIMIT:
            raise ScenarioError(f"max_replicas = {high}, must be in [{low}, {REPLICAS_LIMIT}]")
        if not low <= self.replicas_first <= high and self.policy.replicas_fixed is None:
            raise ScenarioError(
                f"initial_replicas = {self.replicas_first}, must be in [{low}, {high}]"
            )
        if self.seed < 0:
            raise ScenarioError(f"seed = {self.seed}, must be at least 0")
        if self.until_s is not None and not self.until_s > 0.0:
            raise ScenarioError(f"until_s = {self.until_s}, must be above 0")
        self._check_gpus()

    def _check_gpus(self) -> None:
        """A pool without room for the replicas of the beginning would never serve anything."""
        first = self.policy.replicas_fixed or self.replicas_first
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
    kind, _, count = name.partition(":")
    if kind == "fixed" and count.isascii() and count.isdecimal():
        if 1 <= int(count) <= REPLICAS_LIMIT:
            return Policy(name=name, config=config, replicas_fixed=int(count))
        raise ScenarioError(f"policy = {name}, N in fixed:N must be in [1, {REPLICAS_LIMIT}]")
    raise ScenarioError(f"policy = {name}, must be predictive, reactive or fixed:N")


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
