"""Every row of hpa-golden-cases.csv through the function that implements its layer.

Rows ``U...`` restate expectations of Kubernetes' own tests, rows ``D...`` are derived from its
source and from a running cluster.  A row that holds with either tolerance formula is run with both.
"""

import csv
from pathlib import Path

import pytest

from scaler.core.hpa import (
    Behavior,
    ExternalMetric,
    GivenProposal,
    HpaInput,
    HpaSpec,
    HpaState,
    Metric,
    MetricFailed,
    Reason,
    Recommendation,
    ScaleEvent,
    ScalingRules,
    TargetType,
    ToleranceRule,
    Tolerances,
    parse_behavior,
    propose,
    sync,
)
from scaler.core.hpa_limits import (
    limit_legacy,
    limit_with_behavior,
    stabilise_legacy,
    stabilise_with_behavior,
)

NOW_S = 100_000.0
Row = dict[str, str]
FILE = Path(__file__).parent.parent / "data" / "hpa-golden-cases.csv"
with FILE.open(newline="", encoding="utf-8") as opened:
    ROWS = list(csv.DictReader(opened))
RULES = {
    "abs": (ToleranceRule.ABSOLUTE,),
    "band": (ToleranceRule.BAND,),
    "both": tuple(ToleranceRule),
}


def of_layer(*layers: str) -> list[Row]:
    return [row for row in ROWS if row["layer"] in layers]


def cases(*layers: str) -> pytest.MarkDecorator:
    found = of_layer(*layers)
    assert found, layers
    return pytest.mark.parametrize("row", found, ids=[row["case_id"] for row in found])


def whole(text: str, *, default: int) -> int:
    return int(text) if text else default


def pairs(text: str) -> list[tuple[float, int]]:
    """``age:value|age:value`` as (time, value)."""
    items = (item.split(":") for item in text.split("|") if item)
    return [(NOW_S - float(age), int(value)) for age, value in items]


def rules(text: str) -> dict[str, object] | None:
    """One direction of a behavior block in Kubernetes' words, from the column's short form."""
    if text == "default":
        return None
    block: dict[str, object] = {}
    policies = []
    for part in text.split(";"):
        if part.startswith("select="):
            block["selectPolicy"] = part.removeprefix("select=")
        elif part.startswith("stab="):
            block["stabilizationWindowSeconds"] = int(part.removeprefix("stab="))
        else:
            kind, _, rest = part.partition(":")
            value, _, period = rest.partition("/")
            policies.append({"type": kind, "value": int(value), "periodSeconds": int(period)})
    if policies:
        block["policies"] = policies
    return block


def behavior(row: Row) -> Behavior | None:
    up, down = row["behavior_up"], row["behavior_down"]
    assert (up == "legacy") == (down == "legacy")
    if up == "legacy":
        return None
    return parse_behavior({"scaleUp": rules(up), "scaleDown": rules(down)})  # type: ignore[dict-item]


def tolerances(row: Row) -> list[Tolerances]:
    down, up = float(row["tol_down"]), float(row["tol_up"])
    return [Tolerances(down=down, up=up, rule=rule) for rule in RULES[row["tol_impl"]]]


def metrics(row: Row) -> tuple[Metric, ...]:
    first: Metric
    if row["values_milli"] == "error":
        first = MetricFailed()
    elif row["values_milli"]:
        first = ExternalMetric(
            target_type=TargetType(row["target_type"]),
            target_milli=int(row["target_milli"]),
            values_milli=tuple(int(value) for value in row["values_milli"].split(";")),
        )
    else:
        first = GivenProposal(replicas=int(row["proposal_in"]))
    others = [
        MetricFailed()
        if item == "error"
        else GivenProposal(replicas=int(item.removeprefix("proposal=")))
        for item in row["other_metrics"].split("|")
        if item
    ]
    return (first, *others)


def seen(row: Row) -> HpaInput:
    return HpaInput(
        spec_replicas=int(row["spec_replicas"]),
        status_replicas=int(row["status_replicas"]),
        ready_pods=int(row["ready_pods"]),
        metrics=metrics(row),
    )


def state(row: Row) -> HpaState:
    text = row["recommendations"]
    records = tuple(
        Recommendation(at_s=at_s, replicas=value)
        for at_s, value in pairs("" if text in {"unset", "empty"} else text)
    )
    return HpaState(
        recommendations=None if text == "unset" else records,
        scale_ups=tuple(ScaleEvent(at_s=at, replicas=n) for at, n in pairs(row["up_events"])),
        scale_downs=tuple(ScaleEvent(at_s=at, replicas=n) for at, n in pairs(row["down_events"])),
    )


def spec(row: Row, tolerance: Tolerances) -> HpaSpec:
    return HpaSpec(
        replicas_min=whole(row["min_replicas"], default=0),
        replicas_max=whole(row["max_replicas"], default=2**31 - 1),
        behavior=behavior(row),
        tolerances=tolerance,
    )


def test_every_row_has_a_layer_that_is_tested() -> None:
    layers = {"calc", "legacy_stab", "behavior_stab", "legacy_clamp", "behavior_rate", "reconcile"}
    assert {row["layer"] for row in ROWS} == layers
    assert len(ROWS) == 164


@cases("calc")
def test_proposal(row: Row) -> None:
    for tolerance in tolerances(row):
        assert propose(seen(row), tolerances=tolerance) == int(row["expect_proposal"])


@cases("legacy_stab")
def test_stabilisation_without_behavior(row: Row) -> None:
    stabilised = stabilise_legacy(
        state(row).recommendations or (),
        proposal=int(row["proposal_in"]),
        window_s=300.0,
        now_s=NOW_S,
    )
    assert stabilised == int(row["expect_replicas"])


@cases("behavior_stab")
def test_stabilisation_with_behavior(row: Row) -> None:
    block = behavior(row)
    assert block is not None
    stabilised = stabilise_with_behavior(
        state(row).recommendations or (),
        behavior=block,
        current=int(row["spec_replicas"]),
        proposal=int(row["proposal_in"]),
        now_s=NOW_S,
    )
    assert stabilised == int(row["expect_replicas"])


@cases("legacy_clamp")
def test_limits_without_behavior(row: Row) -> None:
    limited = limit_legacy(
        current=int(row["spec_replicas"]),
        desired=int(row["proposal_in"]),
        replicas_min=int(row["min_replicas"]),
        replicas_max=int(row["max_replicas"]),
    )
    assert limited.replicas == int(row["expect_replicas"])
    assert limited.reason == Reason(row["expect_reason"])


@cases("behavior_rate")
def test_limits_with_behavior(row: Row) -> None:
    limited = limit_with_behavior(
        spec(row, Tolerances()),
        state(row),
        current=int(row["spec_replicas"]),
        desired=int(row["proposal_in"]),
        now_s=NOW_S,
    )
    assert limited.replicas == int(row["expect_replicas"])
    assert limited.reason == Reason(row["expect_reason"])


@cases("reconcile")
def test_whole_sync(row: Row) -> None:
    for tolerance in tolerances(row):
        result, _ = sync(spec(row, tolerance), state(row), seen(row), now_s=NOW_S)
        assert result.replicas == int(row["expect_replicas"])
        assert result.reason == Reason(row["expect_reason"])
        if row["expect_proposal"] and result.proposal is not None:
            assert result.proposal == int(row["expect_proposal"])


def test_the_rows_leave_no_direction_of_behavior_unread() -> None:
    blocks = [block for block in map(behavior, of_layer("behavior_rate")) if block is not None]
    sides: list[ScalingRules] = [side for block in blocks for side in (block.up, block.down)]
    assert {policy.type for side in sides for policy in side.policies} == {"Pods", "Percent"}
