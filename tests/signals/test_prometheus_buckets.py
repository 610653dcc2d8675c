"""Summed histograms: bounds from the answer, counts per bucket, honest about what has no sum."""

import math

import pytest

from scaler.core.model import Cause, Latency, NoData
from scaler.signals.faults import SourceError
from scaler.signals.prometheus_answer import Cell
from scaler.signals.prometheus_buckets import BucketTable
from scaler.signals.samples import TargetRef

INF = "+Inf"


def row(le: str, value: float, *, model: str = "m", family: str = "0", workload: str = "w") -> Cell:
    labels = {
        "namespace": "llm",
        "workload": workload,
        "model_name": model,
        "le": le,
        "family": family,
    }
    return Cell(labels, 1000.0, value)


def latency(*rows: Cell, model: str = "") -> Latency | NoData:
    table = BucketTable()
    for one in rows:
        table.add(one, "namespace")
    target = TargetRef(namespace="llm", kind="deployment", name="w", model_name=model)
    return table.latency(target, seen_at_s=990.0, coverage_ratio=0.5, window_s=60.0)


def cause(value: Latency | NoData) -> Cause:
    assert isinstance(value, NoData)
    return value.cause


def counts(value: Latency | NoData) -> tuple[float, ...]:
    assert isinstance(value, Latency)
    return value.counts


def test_cumulative_counts_become_single_ones_in_the_order_of_bounds() -> None:
    # cumulative 2, 5, 6 -> 2, 5-2, 6-5
    found = latency(row(INF, 6.0), row("0.5", 5.0), row("0.1", 2.0))
    assert found == Latency(
        seen_at_s=990.0,
        coverage_ratio=0.5,
        window_s=60.0,
        bounds_s=(0.1, 0.5),
        counts=(2.0, 3.0, 1.0),
    )


def test_one_and_one_point_zero_are_one_bound() -> None:
    # 2 + 3 at or below 1 s, 4 + 4 in all
    assert counts(latency(row("1", 2.0), row("1.0", 3.0), row(INF, 8.0))) == (5.0, 3.0)


def test_the_model_that_was_asked_for() -> None:
    rows = (row("1", 1.0), row(INF, 1.0), row("1", 7.0, model="n"), row(INF, 9.0, model="n"))
    assert counts(latency(*rows, model="n")) == (7.0, 2.0)
    assert counts(latency(*rows)) == (8.0, 2.0)  # 1 + 7, (1 + 9) - 8
    missed = latency(*rows, model='x"} or')
    assert cause(missed) is Cause.NO_MATCH
    assert isinstance(missed, NoData)
    assert "'m', 'n'" in missed.detail


def test_models_with_different_bounds_are_not_added() -> None:
    rows = (row("1", 1.0), row(INF, 1.0), row("2", 7.0, model="n"), row(INF, 9.0, model="n"))
    assert cause(latency(*rows)) is Cause.PARTIAL


def test_the_preferred_of_two_names_counts_alone() -> None:
    old = (row("1", 50.0, family="1"), row("3", 60.0, family="1"), row(INF, 60.0, family="1"))
    assert counts(latency(row("1", 1.0), row(INF, 2.0), *old)) == (1.0, 1.0)
    assert counts(latency(*old)) == (50.0, 10.0, 0.0)


def test_extrapolation_noise_is_smoothed_and_a_real_fall_is_not_trusted() -> None:
    # 99.5 after 100 is within 1 % of 100
    assert counts(latency(row("1", 100.0), row("2", 99.5), row(INF, 100.0))) == (100.0, 0.0, 0.0)
    assert cause(latency(row("1", 100.0), row("2", 60.0), row(INF, 100.0))) is Cause.PARTIAL


def test_nothing_observed_is_a_histogram_of_zeros_not_no_data() -> None:
    found = latency(row("1", 0.0), row(INF, 0.0))
    assert isinstance(found, Latency)
    assert found.total == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_count_that_is_no_number(value: float) -> None:
    assert cause(latency(row("1", value), row(INF, 3.0))) is Cause.NOT_A_NUMBER


def test_no_bucket_for_infinity() -> None:
    assert cause(latency(row("1", 1.0))) is Cause.MALFORMED


def test_no_rows_or_those_of_another_workload() -> None:
    assert cause(latency()) is Cause.EMPTY
    assert cause(latency(row(INF, 1.0, workload="v"), row(INF, 1.0, workload=""))) is Cause.EMPTY


def test_a_bound_that_is_no_number_spoils_the_answer() -> None:
    with pytest.raises(SourceError, match="le = 'many', must be a number"):
        latency(row("many", 1.0))
