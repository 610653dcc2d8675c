"""The HPA's Pods metric, by the rules of ``calcPlainMetricReplicas`` done by hand."""

import dataclasses

import pytest

from scaler.core.hpa import GivenProposal, MetricFailed, Tolerances
from simulations.peers.hpa_pods import pods_metric
from tests.simulations.scrapes import replicas

NONE = Tolerances(up=0.0, down=0.0)


@pytest.mark.parametrize(
    ("values", "proposal"),
    [
        ([0.7, 0.7], 2),
        ([0.77, 0.77], 2),  # 1.1: the edge of the tolerance
        ([0.8, 0.78], 3),  # 0.79 / 0.7 * 2 = 2.26
        ([0.64, 0.64], 2),  # 0.914: inside
        ([0.1, 0.3], 1),  # 0.2 / 0.7 * 2 = 0.57
        ([0.0, 0.0], 0),
        ([1.0, 1.0, 1.0], 5),  # 1 / 0.7 * 3 = 4.29
    ],
)
def test_every_pod_has_a_value(values: list[float], proposal: int) -> None:
    metric = pods_metric(
        dict(enumerate(values)),
        target=0.7,
        replicas=replicas(len(values)),
        tolerances=Tolerances(),
    )
    assert metric == GivenProposal(replicas=proposal)


def test_without_any_value_the_read_fails() -> None:
    made = pods_metric({}, target=1.0, replicas=replicas(3), tolerances=NONE)
    assert isinstance(made, MetricFailed)


@pytest.mark.parametrize(
    ("values", "current", "proposal"),
    [
        # Up, missing pods at 0: (1.4 + 1.4 + 0 + 0) / 4 = 0.7, which is the target: no change.
        ([1.4, 1.4], 4, 4),
        # 4.2 + 4.2 + 0 = 8.4 / 3 = 2.8 / 0.7 = 4 of 3 pods: 12.
        ([4.2, 4.2], 3, 12),
        # 2.8 / 3 pods = 0.93 / 0.7 = 1.33 of 3 pods: 4.
        ([1.4, 1.4], 3, 4),
        # Up, but with the missing one at 0 it would be down: no change.
        ([0.8], 2, 2),
        ([0.8], 4, 4),  # 0.2 / 0.7 * 4 would be 2
        # Down, the missing pod at the target: (0.1 + 0.1 + 0.7) / 3 = 0.3 / 0.7 * 3 = 1.29: 2.
        ([0.1, 0.1], 3, 2),
        # Down, but inside the tolerance with the missing: (0.5 + 9 * 0.7) / 10 = 0.68.
        ([0.5], 10, 10),
    ],
)
def test_pods_that_load_their_model_have_no_value(
    values: list[float], current: int, proposal: int
) -> None:
    made = pods_metric(
        dict(enumerate(values)),
        target=0.7,
        replicas=replicas(current, ready=len(values)),
        tolerances=Tolerances(),
    )
    assert made == GivenProposal(replicas=proposal)


def test_pods_without_a_node_count_as_idle_on_the_way_up_and_not_at_all_down() -> None:
    up = pods_metric({0: 2.1}, target=0.7, replicas=replicas(2, unschedulable=1), tolerances=NONE)
    assert up == GivenProposal(replicas=3)  # 2.1 / 2 / 0.7 * 2
    down = pods_metric(
        {0: 0.3, 1: 0.3}, target=0.7, replicas=replicas(3, unschedulable=1), tolerances=NONE
    )
    assert down == GivenProposal(replicas=1)  # 0.3 / 0.7 * 2 = 0.86


def test_a_proposal_never_turns_against_the_ratio() -> None:
    # Two of three pods: 0.8 / 0.7 * 2 = 2.29 would be 3; with one missing
    # (0.8 * 2 + 0) / 3 = 0.53 turns to down: stays.
    made = replicas(3, ready=2)
    assert pods_metric(
        {0: 0.8, 1: 0.8}, target=0.7, replicas=made, tolerances=NONE
    ) == GivenProposal(replicas=3)
    # 1.4 of 2 of 3 pods: 0.93 / 0.7 * 3 = 4, below a spec of 9: no step down on a ratio above 1.
    made = dataclasses.replace(made, wanted=9)
    assert pods_metric(
        {0: 1.4, 1: 1.4}, target=0.7, replicas=made, tolerances=NONE
    ) == GivenProposal(replicas=9)
