"""The order in which replicas are given up."""

import dataclasses
import math

import numpy as np
import pytest

from scaler.core.config import PolicyConfig
from simulations import Scenario, simulate
from simulations.lifecycle import VictimOrder
from simulations.oracle_schedule import ScheduleController
from simulations.replica import Distribution, DistributionKind, StartUp, constant
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Policy
from simulations.trace_chunks import Requests
from simulations.victims import Phase, PodRank, ordinal_victims, replicaset_victims
from tests.simulations.small_fleet import model

NOW_S = 100_000.0
SLOW_THEN_QUICK = 1  # a seed: the second replica draws the slow start, the third the quick one


def pod(uid: str, **changes: object) -> PodRank:
    """A pod that has been ready for an hour, changed as said."""
    usual = {
        "uid": uid,
        "phase": Phase.RUNNING,
        "ready": True,
        "created_at_s": NOW_S - 3700.0,
        "ready_at_s": NOW_S - 3600.0,
    }
    return PodRank(**(usual | changes))  # type: ignore[arg-type]


def order(*pods: PodRank) -> str:
    return "".join(p.uid for p in replicaset_victims(pods, count=len(pods), now_s=NOW_S))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # Each pair differs in one criterion, and every weaker one speaks for the other order.
        (
            pod("z", phase=Phase.UNASSIGNED, ready=False, deletion_cost=9),
            pod("a", phase=Phase.PENDING, ready=False),
        ),
        (
            pod("z", phase=Phase.PENDING, ready=False, deletion_cost=9),
            pod("a", phase=Phase.RUNNING, ready=False),
        ),
        (pod("z", ready=False, deletion_cost=9), pod("a", ready=True)),
        (pod("z", deletion_cost=-1, ready_at_s=NOW_S - 9e4), pod("a", ready_at_s=NOW_S - 1.0)),
        # 1000 s and 3600 s: log2 of nanoseconds is 39.86 and 41.71, so ranks 39 and 41.
        (pod("z", ready_at_s=NOW_S - 1000.0), pod("a")),
        (
            pod("z", ready=False, restarts=3, created_at_s=NOW_S - 9e4),
            pod("a", ready=False, restarts=1, created_at_s=NOW_S - 1.0),
        ),
        (pod("z", ready=False, created_at_s=NOW_S - 10.0), pod("a", ready=False)),
    ],
)
def test_one_criterion_after_another(first: PodRank, second: PodRank) -> None:
    assert order(second, first) == "za"
    assert order(first, second) == "za"


def test_ages_within_a_power_of_two_are_decided_by_the_uid() -> None:
    # 3000 s and 3600 s: log2 of nanoseconds is 41.45 and 41.71, both rank 41.
    assert math.floor(math.log2(3000e9)) == math.floor(math.log2(3600e9)) == 41
    assert order(pod("b", ready_at_s=NOW_S - 3000.0), pod("a")) == "ab"
    assert order(pod("a", ready_at_s=NOW_S - 3000.0), pod("b")) == "ab"


def test_a_pod_ready_this_instant_goes_before_one_ready_for_a_moment() -> None:
    assert order(pod("a", ready_at_s=NOW_S - 0.5), pod("z", ready_at_s=NOW_S)) == "za"


def test_restarts_count_for_ready_pods_only_if_they_became_ready_together() -> None:
    assert order(pod("b", restarts=5), pod("a")) == "ba"
    # A second apart, the same rank of age: the uid decides before restarts are looked at.
    assert order(pod("b", restarts=5), pod("a", ready_at_s=NOW_S - 3601.0)) == "ab"


def test_pods_alike_in_everything_go_by_uid_whatever_their_order() -> None:
    assert order(pod("b"), pod("c"), pod("a")) == order(pod("c"), pod("a"), pod("b")) == "abc"


def test_only_as_many_as_asked() -> None:
    pods = [pod("a"), pod("b", ready=False), pod("c", phase=Phase.PENDING, ready=False)]
    victims = replicaset_victims(pods, count=2, now_s=NOW_S)
    assert [victim.uid for victim in victims] == ["c", "b"]
    assert replicaset_victims(pods, count=0, now_s=NOW_S) == ()


def test_ordinals_go_from_the_top() -> None:
    assert ordinal_victims([0, 3, 1, 2], count=2) == (3, 2)


def test_the_scenarios_order_is_that_of_the_fleet() -> None:
    """Two replicas more, one of them slow to start; then one fewer, while that one still starts.

    A ReplicaSet gives up the one that is not ready; a group controller the last one, which is.
    """
    none = constant(0.0)
    either = Distribution(kind=DistributionKind.EMPIRICAL, values_s=(20.0, 500.0))
    start_up = StartUp(scheduling=none, image=none, weights=none, compile=either)
    requests = Requests(
        arrival_s=np.arange(0.0, 300.0, 3.0),
        prompt_tokens=np.full(100, 10, dtype=np.int32),
        output_tokens=np.full(100, 10, dtype=np.int32),
        tenant=np.zeros(100, dtype=np.int32),
    )

    def ready_after(order: VictimOrder) -> float:
        scenario = Scenario(
            requests=[requests],
            model=dataclasses.replace(model(), start_up=start_up),
            scaled_object=ScaledObjectSpec(replicas_min=1, replicas_max=4),
            policy=Policy(
                name="schedule",
                config=PolicyConfig(),
                controller=lambda _context: ScheduleController([(10.0, 3), (100.0, 2)]),
            ),
            victims=order,
            seed=SLOW_THEN_QUICK,
        )
        timeline = simulate(scenario).timeline
        at_s, ready = timeline.column("at_s"), timeline.column("replicas_ready")
        assert ready[(at_s > 40.0) & (at_s < 100.0)].max() == 2.0, "one is slow"
        return float(ready[(at_s > 130.0) & (at_s < 290.0)].max())

    assert ready_after(VictimOrder.REPLICASET) == 2.0
    assert ready_after(VictimOrder.ORDINAL) == 1.0
