"""The HPA beyond the golden rows: memory over several syncs, defaults, versions, parsing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.hpa import (
    Behavior,
    ExternalMetric,
    GivenProposal,
    HpaInput,
    HpaSpec,
    HpaState,
    Metric,
    MetricFailed,
    PolicyType,
    Reason,
    Recommendation,
    ScalingPolicy,
    ScalingRules,
    SelectPolicy,
    TargetType,
    ToleranceRule,
    Tolerances,
    Version,
    average_value_proposal,
    parse_behavior,
    parse_quantity,
    parse_version,
    propose,
    sync,
    tolerances_for,
)
from scaler.core.hpa_spec import DOWN_DEFAULT, UP_DEFAULT
from scaler.errors import ConfigError


def metric(value: float, target_type: TargetType = TargetType.AVERAGE_VALUE) -> ExternalMetric:
    """A value in units of target 1."""
    return ExternalMetric(
        target_type=target_type, target_milli=1000, values_milli=(round(value * 1000),)
    )


def at(replicas: int, *metrics: Metric, ready: int | None = None) -> HpaInput:
    return HpaInput(
        spec_replicas=replicas,
        status_replicas=replicas,
        ready_pods=replicas if ready is None else ready,
        metrics=metrics,
    )


def play(spec: HpaSpec, replicas: int, script: str) -> None:
    """Each line of the script: time, value, replicas after the sync, reason."""
    state = HpaState()
    for line in script.strip().splitlines()[1:]:
        now, value, want, reason = line.split()
        seen = at(replicas, metric(float(value)))
        result, state = sync(spec, state, seen, now_s=float(now))
        assert (result.replicas, result.reason) == (int(want), Reason(reason)), line
        replicas = result.replicas


def behavior(**sides: object) -> Behavior:
    found = parse_behavior(sides)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("values", [(2.0, 5.0), (5.0, 2.0), (5.0, 5.0)])
def test_the_largest_of_several_metrics_counts(values: tuple[float, float]) -> None:
    assert propose(at(3, *map(metric, values)), tolerances=Tolerances()) == 5


def test_default_path_doubles_and_holds_five_minutes() -> None:
    # As observed: "metric 1 -> 40: 4, then 8, 16, 32, 40 at 15 s steps", and down after 300 s.
    play(
        HpaSpec(replicas_max=50),
        1,
        """
        at_s value want reason
           0     1    1 DesiredWithinRange
          15    40    4 ScaleUpLimit
          30    40    8 ScaleUpLimit
          45    40   16 ScaleUpLimit
          60    40   32 ScaleUpLimit
          75    40   40 DesiredWithinRange
          90     5   40 DesiredWithinRange
         375     5   40 DesiredWithinRange
         376     5    5 DesiredWithinRange
        """,
    )


def test_any_behavior_changes_the_way_up_as_well() -> None:
    # As observed: "1 -> 6, behavior given for scale-down only: 5, then 6 after a limited sync".
    play(
        HpaSpec(behavior=behavior(scaleDown={"stabilizationWindowSeconds": 0})),
        1,
        """
        at_s value want reason
           0     6    5 ScaleUpLimit
          14     6    5 ScaleUpLimit
          15     6    6 DesiredWithinRange
          30     2    2 DesiredWithinRange
        """,
    )


def test_one_pod_in_two_minutes() -> None:
    down = {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
    }
    play(
        HpaSpec(behavior=behavior(scaleDown=down)),
        5,
        """
        at_s value want reason
           0     2    4 ScaleDownLimit
         119     2    4 ScaleDownLimit
         120     2    3 ScaleDownLimit
         240     2    2 DesiredWithinRange
        """,
    )


def test_an_event_is_forgotten_by_its_own_directions_longest_period() -> None:
    """Down events outlive their 15 s until the next one takes their place.

    A policy of scale-up with 60 s counts them: with both kept the limit at 40 s would be 8 + 4.
    """
    block = behavior(
        scaleUp={"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]},
        scaleDown={"stabilizationWindowSeconds": 0},
    )
    spec, state = HpaSpec(behavior=block), HpaState()
    _, state = sync(spec, state, at(8, metric(6)), now_s=0.0)
    assert [event.replicas for event in state.scale_downs] == [2]
    _, state = sync(spec, state, at(6, metric(4)), now_s=20.0)
    assert [(event.at_s, event.replicas) for event in state.scale_downs] == [(20.0, 2)]
    result, state = sync(spec, state, at(4, metric(20)), now_s=40.0)
    assert result.replicas == 7  # start of the period is 4 + 2, and one pod may be added
    assert [event.replicas for event in state.scale_ups] == [3]


def test_events_within_the_period_add_up() -> None:
    block = behavior(scaleDown={"stabilizationWindowSeconds": 0})
    spec, state = HpaSpec(behavior=block), HpaState()
    _, state = sync(spec, state, at(8, metric(6)), now_s=0.0)
    _, state = sync(spec, state, at(6, metric(4)), now_s=10.0)
    assert [event.replicas for event in state.scale_downs] == [2, 2]


def test_a_bound_is_remembered_as_a_change() -> None:
    spec, state = HpaSpec(replicas_min=3, behavior=Behavior()), HpaState()
    result, state = sync(spec, state, at(1, metric(1)), now_s=0.0)
    assert (result.replicas, result.reason, result.proposal) == (3, Reason.BELOW_MIN, None)
    assert [event.replicas for event in state.scale_ups] == [2]


def test_a_failed_sync_records_nothing_but_the_first_size() -> None:
    result, state = sync(HpaSpec(), HpaState(), at(4, MetricFailed()), now_s=7.0)
    assert (result.replicas, result.stabilised) == (4, None)
    assert state.recommendations == (Recommendation(at_s=7.0, replicas=4),)
    _, again = sync(HpaSpec(), state, at(4, MetricFailed()), now_s=22.0)
    assert again == state


def test_old_records_come_back_when_the_window_grows() -> None:
    """One slot is reused at a time, so an old record may outlive its window."""
    short = HpaSpec(behavior=behavior(scaleDown={"stabilizationWindowSeconds": 0}))
    records = tuple(Recommendation(at_s=t, replicas=9) for t in (0.0, 10.0))
    _, state = sync(short, HpaState(recommendations=records), at(2, metric(2)), now_s=100.0)
    assert state.recommendations == (records[0], Recommendation(at_s=100.0, replicas=2))
    grown = HpaSpec(behavior=behavior())  # the default of 300 s
    result, _ = sync(grown, state, at(9, metric(2)), now_s=115.0)
    assert result.replicas == 9


def test_an_answer_without_values_is_a_failure() -> None:
    empty = ExternalMetric(target_milli=1000, values_milli=())
    assert propose(at(3, empty), tolerances=Tolerances()) is None


def test_one_failed_metric_allows_up_and_forbids_down() -> None:
    good = [GivenProposal(replicas=count) for count in (2, 3, 4)]
    found = [propose(at(3, MetricFailed(), one), tolerances=Tolerances()) for one in good]
    assert found == [None, 3, 4]


def test_a_negative_proposal_counts_as_zero() -> None:
    assert propose(at(3, metric(-4.0)), tolerances=Tolerances()) == 0


def test_a_sum_is_cut_at_the_largest_integer() -> None:
    largest = 2**63 - 1  # uncut, the ratio would be 2
    twice = ExternalMetric(target_milli=largest, values_milli=(largest, largest))
    assert propose(at(1, twice), tolerances=Tolerances()) == 1


def test_value_type_without_any_pod_is_an_error_outside_the_band_only() -> None:
    def seen(value: float) -> HpaInput:
        return HpaInput(
            spec_replicas=2,
            status_replicas=0,
            ready_pods=0,
            metrics=(metric(value, TargetType.VALUE),),
        )

    assert propose(seen(5.0), tolerances=Tolerances()) is None
    assert propose(seen(1.05), tolerances=Tolerances()) == 2


@pytest.mark.parametrize(
    ("status", "value", "want"),
    [
        # Measured on a running cluster (keda 2.20.2, Kubernetes 1.36.2).
        (1, 1.05, 1), (1, 1.1, 1), (1, 1.101, 2), (2, 2.2, 2), (2, 2.201, 3),
        (3, 2.699, 3), (3, 2.7, 3), (3, 3.3, 3), (3, 3.301, 4), (9, 8.09, 9),
        (9, 9.9, 9), (9, 9.901, 10), (10, 8.001, 9), (10, 8.999, 9), (10, 10.5, 10),
        (10, 11.001, 12), (20, 17.001, 18), (20, 18.001, 20), (20, 22.001, 23), (20, 22.5, 23),
        (5, 4.0, 4), (8, 9.0, 9), (11, 13.0, 13), (15, 16.0, 15), (21, 23.0, 21),
        (30, 33.0, 30), (30, 34.0, 34), (50, 45.0, 50), (50, 44.0, 44), (100, 110.0, 100),
    ],
)  # fmt: skip
def test_measured_pairs(status: int, value: float, want: int) -> None:
    found = average_value_proposal(
        usage_milli=round(value * 1000),
        target_milli=1000,
        status_replicas=status,
        tolerances=tolerances_for(Version(1, 36, 2)),
    )
    assert found == want


@pytest.mark.parametrize(
    ("kubernetes", "gate", "expected"),
    [
        ("1.32", None, Tolerances(rule=ToleranceRule.ABSOLUTE)),
        ("1.32", True, Tolerances(rule=ToleranceRule.ABSOLUTE)),  # the field does not exist
        ("1.33", None, Tolerances()),
        ("1.34.9", None, Tolerances()),
        ("1.34.9", True, Tolerances(up=0.0, down=0.05)),
        ("1.35", None, Tolerances(up=0.0, down=0.05)),
        ("1.36.2", False, Tolerances()),
    ],
)
def test_tolerance_by_version(kubernetes: str, gate: bool | None, expected: Tolerances) -> None:
    block = behavior(scaleUp={"tolerance": "0"}, scaleDown={"tolerance": "50m"})
    assert tolerances_for(parse_version(kubernetes), block, gate=gate) == expected


def test_tolerance_of_one_direction_leaves_the_other() -> None:
    block = behavior(scaleUp={"tolerance": 0})
    assert tolerances_for(Version(1, 35), block) == Tolerances(up=0.0, down=0.1)
    assert tolerances_for(Version(1, 35), None, cluster_default=0.2) == Tolerances(up=0.2, down=0.2)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.33.2", Version(1, 33, 2)),
        ("1.33", Version(1, 33)),
        ("v1.29.6-gke.1254000", Version(1, 29, 6)),
        ("1.30+", Version(1, 30)),
    ],
)
def test_versions(text: str, version: Version) -> None:
    assert parse_version(text) == version


def test_a_version_that_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match="version = 'main'"):
        parse_version("main")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0), ("0.05", 0.05), ("50m", 0.05), ("5e-2", 0.05), ("1", 1.0), ("2k", 2000.0),
        ("1Ki", 1024.0), ("500u", 0.0005), ("2n", 2e-9), (".5", 0.5), ("0.0000000001", 1e-9),
        ("-1", -1.0),
    ],
)  # fmt: skip
def test_quantities(text: str, value: float) -> None:
    assert parse_quantity(text) == value


def test_behavior_absent_and_empty_are_different() -> None:
    assert parse_behavior(None) is None
    assert parse_behavior({}) == Behavior(up=UP_DEFAULT, down=DOWN_DEFAULT)
    assert parse_behavior({"scaleUp": {"policies": []}}) == Behavior()


def test_behavior_in_full() -> None:
    found = parse_behavior(
        {
            "scaleUp": {
                "selectPolicy": "Min",
                "stabilizationWindowSeconds": 60,
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}],
                "tolerance": "0.05",
            },
            "scaleDown": {"selectPolicy": "Disabled"},
        },
        downscale_stabilisation_s=120.0,
    )
    assert found == Behavior(
        up=ScalingRules(
            select=SelectPolicy.MIN,
            stabilisation_s=60.0,
            policies=(ScalingPolicy(type=PolicyType.PERCENT, value=100, period_s=60.0),),
            tolerance=0.05,
        ),
        down=ScalingRules(
            select=SelectPolicy.DISABLED,
            stabilisation_s=120.0,
            policies=DOWN_DEFAULT.policies,
        ),
    )


def test_every_fault_of_a_behavior_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_behavior(
            {
                "scaleUp": {
                    "selectPolicy": "Fastest",
                    "stabilizationWindowSeconds": 3601,
                    "policies": [
                        {"type": "Pods", "value": 0, "periodSeconds": 1801},
                        {"type": "Pods"},
                        "Pods",
                    ],
                    "tolerance": "a lot",
                },
                "scaleDown": {"policies": "Pods", "tolerance": "-0.1"},
            }
        )
    assert [fault.split(", must")[0] for fault in caught.value.faults] == [
        "behavior.scaleUp.selectPolicy = 'Fastest'",
        "behavior.scaleUp.stabilizationWindowSeconds = 3601",
        "behavior.scaleUp.policies[0].value = 0",
        "behavior.scaleUp.policies[0].periodSeconds = 1801",
        "behavior.scaleUp.policies[1].value is missing",
        "behavior.scaleUp.policies[1].periodSeconds is missing",
        "behavior.scaleUp.policies[2] = 'Pods'",
        "behavior.scaleUp.tolerance = 'a lot'",
        "behavior.scaleDown.policies = 'Pods'",
        "behavior.scaleDown.tolerance = '-0.1'",
    ]


def test_a_direction_that_is_no_mapping() -> None:
    with pytest.raises(ConfigError, match=r"behavior\.scaleUp = 7, must be a mapping"):
        parse_behavior({"scaleUp": 7})


RULES = st.builds(
    ScalingRules,
    select=st.sampled_from(SelectPolicy),
    stabilisation_s=st.sampled_from([0.0, 60.0, 300.0]),
    policies=st.lists(
        st.builds(
            ScalingPolicy,
            type=st.sampled_from(PolicyType),
            value=st.integers(1, 200),
            period_s=st.sampled_from([15.0, 60.0, 120.0]),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
)
SPECS = st.builds(
    HpaSpec,
    replicas_min=st.integers(1, 5),
    replicas_max=st.integers(5, 60),
    behavior=st.none() | st.builds(Behavior, up=RULES, down=RULES),
)
READS = st.lists(st.none() | st.floats(0.0, 100.0), min_size=1, max_size=40)


@given(spec=SPECS, start=st.integers(1, 60), reads=READS)
def test_over_any_history(spec: HpaSpec, start: int, reads: list[float | None]) -> None:
    """Bounds hold, failures change nothing, memory stays as short as its windows."""
    state, replicas = HpaState(), min(start, spec.replicas_max)
    for index, read in enumerate(reads):
        seen = at(replicas, MetricFailed() if read is None else metric(read))
        result, state = sync(spec, state, seen, now_s=15.0 * index)
        assert spec.replicas_min <= result.replicas <= spec.replicas_max
        if read is None and replicas >= spec.replicas_min:
            assert result.replicas == replicas
        replicas = result.replicas
    # 300 s of syncs at 15 s are 21 records, and the first size; 120 s of events are 9.
    assert len(state.recommendations or ()) <= 23
    assert len(state.scale_ups) <= 10
    assert len(state.scale_downs) <= 10
