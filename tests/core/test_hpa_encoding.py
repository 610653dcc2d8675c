"""The encoder of the published value, held exhaustively against the HPA's arithmetic.

The unreachable pairs are stated exactly, in integers.  With target 1, status S, wanted D, and
tolerance 0.1 a step up is swallowed iff D <= 1.1 S (iff D < 1.1 S up to Kubernetes 1.32), a step
down iff D - 0.99 >= 0.9 S.
"""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.hpa import Tolerances, Version, average_value_proposal, tolerances_for
from scaler.core.hpa_encoding import (
    Encoded,
    Encoding,
    Resolution,
    encode,
    keda_milli,
    next_reachable_up,
    reachable,
    resolve_unreachable,
)

LARGEST = 200
OLD = tolerances_for(Version(1, 32))
NEW = tolerances_for(Version(1, 33))
NONE = Tolerances(down=0.0, up=0.0)
NONE_OLD = tolerances_for(Version(1, 32), cluster_default=0.0)
KEDAS = (Version(2, 17), Version(2, 19), Version(2, 20), Version(2, 20, 2))


def swallowed_new(status: int, desired: int) -> bool:
    if desired > status:
        return 10 * desired <= 11 * status
    return desired < status and 100 * desired - 99 >= 90 * status


def swallowed_old(status: int, desired: int) -> bool:
    if desired > status:
        return 10 * desired < 11 * status
    return desired < status and 100 * desired - 99 >= 90 * status


def swallowed_never(_status: int, _desired: int) -> bool:
    return False


Swallowed = Callable[[int, int], bool]
CASES = pytest.mark.parametrize(
    ("tolerances", "swallowed"),
    [
        (NEW, swallowed_new),
        (OLD, swallowed_old),
        (NONE, swallowed_never),
        (NONE_OLD, swallowed_never),
    ],
    ids=["band 0.1", "absolute 0.1", "band 0", "absolute 0"],
)


def heard(value: Encoded, status: int, tolerances: Tolerances, keda: Version = KEDAS[-1]) -> int:
    """What the HPA proposes for the value as this KEDA hands it on."""
    return average_value_proposal(
        usage_milli=keda_milli(integer=value.integer, double=value.double, keda=keda),
        target_milli=1000,
        status_replicas=status,
        tolerances=tolerances,
    )


def settled(desired: int, status: int, tolerances: Tolerances) -> Encoded:
    """Encoding for a target whose status has come up with its spec."""
    return encode(
        desired=desired, status_replicas=status, spec_replicas=status, tolerances=tolerances
    )


@CASES
def test_every_pair_lands_or_is_known_not_to(tolerances: Tolerances, swallowed: Swallowed) -> None:
    for status in range(1, LARGEST + 1):
        for desired in range(LARGEST + 1):
            encoded = settled(desired, status, tolerances)
            lands_on = status if swallowed(status, desired) else desired
            assert encoded.lands_on == lands_on, (status, desired)
            assert encoded.reachable == (lands_on == desired)
            assert (encoded.encoding is Encoding.SWALLOWED) == (lands_on != desired)
            assert (
                reachable(desired=desired, status_replicas=status, tolerances=tolerances)
                == encoded.reachable
            )


@pytest.mark.parametrize("keda", KEDAS, ids=str)
@pytest.mark.parametrize("tolerances", [NEW, OLD, NONE], ids=["band", "absolute", "zero"])
def test_every_keda_hands_on_a_value_that_lands(tolerances: Tolerances, keda: Version) -> None:
    for status in range(1, LARGEST + 1):
        for desired in range(LARGEST + 1):
            encoded = settled(desired, status, tolerances)
            assert heard(encoded, status, tolerances, keda) == encoded.lands_on, (status, desired)


@CASES
def test_a_status_one_sync_old(tolerances: Tolerances, swallowed: Swallowed) -> None:
    """The value was chosen for R, the HPA finds R': all triples up to 200.

    The value depends on R only by the side of the wanted count on which R lies, so all R on one
    side are checked by one of them against every R'.
    """
    for desired in range(1, LARGEST + 1):
        above = {settled(desired, r, tolerances).double for r in range(desired + 1, LARGEST + 1)}
        below = {settled(desired, r, tolerances).double for r in range(1, desired + 1)}
        assert len(above) <= 1
        assert below == {float(desired)}
        for known in {1, desired, LARGEST}:
            encoded = settled(desired, known, tolerances)
            for found in range(1, LARGEST + 1):
                proposal = heard(encoded, found, tolerances)
                assert proposal in {desired, found}, "never a third count"
                same_side = (known > desired) == (found > desired)
                if found == desired:
                    assert proposal == desired, "a fixed point"
                elif same_side:
                    assert (proposal == desired) == (not swallowed(found, desired))


def test_what_a_status_on_the_other_side_costs() -> None:
    """From the wrong side the value that was sent is heard iff it lies outside the band itself."""
    for desired in range(1, LARGEST + 1):
        whole, fraction = settled(desired, 1, NEW), settled(desired, LARGEST, NEW)
        for found in range(1, LARGEST + 1):
            if found > desired:
                missed = 10 * desired >= 9 * found
                assert (heard(whole, found, NEW) == desired) == (not missed)
            elif found < desired and fraction.encoding is Encoding.FRACTION:
                missed = 100 * desired - 99 <= 110 * found
                assert (heard(fraction, found, NEW) == desired) == (not missed)


def test_the_pair_after_a_previous_sync() -> None:
    """R -> R' by the last value, then a new count encoded for the old R: held once at worst."""
    for status in range(1, 61):
        for before in range(1, 61):
            found = heard(settled(before, status, NEW), status, NEW)
            for desired in range(1, 61):
                stale = heard(settled(desired, status, NEW), found, NEW)
                assert stale in {desired, found}
                fresh = heard(settled(desired, found, NEW), found, NEW)
                assert fresh == (found if swallowed_new(found, desired) else desired)


@pytest.mark.parametrize("tolerances", [NEW, OLD, NONE], ids=["band", "absolute", "zero"])
def test_spec_and_status_differ(tolerances: Tolerances) -> None:
    """Always heard from the status if any value is; from the spec as well where one value can."""
    for status in range(1, 41):
        for spec in range(1, 41):
            for desired in range(1, 41):
                value = encode(
                    desired=desired,
                    status_replicas=status,
                    spec_replicas=spec,
                    tolerances=tolerances,
                )
                can = reachable(desired=desired, status_replicas=status, tolerances=tolerances)
                assert heard(value, status, tolerances) == (desired if can else status)
                if not can:
                    continue
                low, high = min(status, spec), max(status, spec)
                least = max(desired - 0.99, (1 + tolerances.up) * low + 0.02)
                most = min(float(desired), (1 - tolerances.down) * high - 0.02)
                if not low < desired < high or most - least > 0.02:
                    other = reachable(desired=desired, status_replicas=spec, tolerances=tolerances)
                    assert heard(value, spec, tolerances) == (desired if other else spec)


def test_a_hold_during_a_surge_does_not_adopt_the_surge() -> None:
    # 10 replicas, one surge pod: 10/11 is inside the band and would write 11; 9.01/11 is not.
    surge = encode(desired=10, status_replicas=11, spec_replicas=10, tolerances=NEW)
    assert (surge.double, surge.lands_on, surge.encoding) == (9.01, 10, Encoding.FRACTION)
    # When the surge has gone, the same value keeps 10: 9.01/10 is inside the band.
    assert heard(surge, 10, NEW) == 10
    # From 20 one surge pod cannot be told apart: 19.01/21 = 0.905 is inside.
    assert encode(desired=20, status_replicas=21, spec_replicas=20, tolerances=NEW).lands_on == 21


@pytest.mark.parametrize(
    ("desired", "status", "spec", "double", "encoding"),
    [
        (9, 10, 10, 8.01, Encoding.FRACTION),  # 9/10 is inside, 8.01/10 is not
        (8, 10, 10, 8.0, Encoding.WHOLE),  # 8/9 is outside already
        (12, 10, 10, 12.0, Encoding.WHOLE),
        (11, 10, 10, 11.0, Encoding.SWALLOWED),
        (19, 20, 20, 18.01, Encoding.SWALLOWED),  # 18.01/20 = 0.9005
        (10, 10, 10, 10.0, Encoding.WHOLE),
        (12, 10, 13, 11.01, Encoding.FRACTION),  # 11.01/10 > 1.1 and 11.01/13 < 0.9
        (13, 11, 14, 12.35, Encoding.BETWEEN),  # between 1.1 * 11 = 12.1 and 0.9 * 14 = 12.6
        (40, 39, 41, 40.0, Encoding.SWALLOWED),
        (5, 0, 1, 5.0, Encoding.WHOLE),  # status 0 right after an activation
        (0, 3, 3, 0.0, Encoding.WHOLE),
    ],
)
def test_values_by_hand(
    desired: int, status: int, spec: int, double: float, encoding: Encoding
) -> None:
    value = encode(desired=desired, status_replicas=status, spec_replicas=spec, tolerances=NEW)
    assert (value.integer, value.double, value.encoding) == (desired, double, encoding)


@pytest.mark.parametrize(("status", "spec"), [(None, None), (None, 3), (3, None)])
def test_unknown_replicas_are_encoded_plainly(status: int | None, spec: int | None) -> None:
    value = encode(desired=7, status_replicas=status, spec_replicas=spec, tolerances=NEW)
    assert (value.integer, value.double) == (7, 7.0)
    assert (value.encoding, value.lands_on) == (Encoding.REPLICAS_UNKNOWN, 7)


@CASES
def test_next_reachable_up_is_the_next(tolerances: Tolerances, swallowed: Swallowed) -> None:
    for status in range(1, LARGEST + 1):
        for desired in range(LARGEST + 1):
            found = next_reachable_up(
                desired=desired, status_replicas=status, tolerances=tolerances
            )
            expected = next(
                count for count in range(desired, 2 * LARGEST) if not swallowed(status, count)
            )
            assert found == expected, (status, desired)


def resolve(desired: int, status: int, spec: int, **changes: float) -> tuple[int, float, str]:
    costs = {"cost_over": 1.0, "cost_under": 5.0} | changes
    found = resolve_unreachable(
        desired=desired,
        status_replicas=status,
        spec_replicas=spec,
        tolerances=NEW,
        **costs,  # type: ignore[arg-type]
    )
    return found.replicas, found.encoded.double, found.resolution.value


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (resolve(12, 10, 10), (12, 12.0, "as_asked")),
        # 10 -> 11: one over costs 1, one under 5.
        (resolve(11, 10, 10), (12, 12.0, "rounded_up")),
        (resolve(11, 10, 10, cost_over=5.0, cost_under=1.0), (10, 11.0, "held")),
        (resolve(11, 10, 10, cost_over=1.0, cost_under=1.0), (10, 11.0, "held")),
        # 20 -> 21: two over against one under; 20 -> 22: one over against two under.
        (resolve(21, 20, 20, cost_over=1.0, cost_under=1.5), (20, 21.0, "held")),
        (resolve(22, 20, 20, cost_over=1.0, cost_under=1.5), (23, 23.0, "rounded_up")),
        # A maximum of 11 cuts the 12 that is asked for: exactly what was wanted.
        (resolve(11, 10, 10, cost_over=9.0, replicas_max=11), (11, 12.0, "rounded_up")),
        # 20 -> 19 cannot be heard, and 18 would be fewer than wanted, however cheap.
        (resolve(19, 20, 20, cost_over=9.0, cost_under=0.0), (20, 18.01, "held")),
        # Hold at 20 while the status is still 19: 20/19 is inside and would write 19.
        (resolve(20, 19, 20, cost_over=9.0, cost_under=0.0), (21, 21.0, "rounded_up")),
        # Up to 21 while the status is still 19: 21/19 is outside, 20.9 = 1.1 * 19.
        (resolve(21, 19, 20, cost_over=9.0, cost_under=0.0), (21, 21.0, "as_asked")),
        # Up to 32 from 30, status still 29: 32/29 = 1.103 is outside.  With 31 at 29 a hold would
        # write 29 into the spec of 30, so it is rounded up: 31.9 = 1.1 * 29.
        (resolve(31, 29, 30, cost_over=9.0, cost_under=0.0), (32, 32.0, "rounded_up")),
        # Down from 30 while the status is still 24: 25/24 is inside and would write 24.  27 is
        # heard from 24 and from 30: half-way between 1.1 * 24 = 26.4 and 0.9 * 30 = 27.
        (resolve(25, 24, 30, cost_over=9.0, cost_under=0.0), (27, 26.7, "rounded_up")),
    ],
)
def test_what_costs_less(found: object, expected: object) -> None:
    assert found == expected


def test_unknown_replicas_are_never_rounded() -> None:
    found = resolve_unreachable(
        desired=11,
        status_replicas=None,
        spec_replicas=None,
        tolerances=NEW,
        cost_over=1.0,
        cost_under=9.0,
    )
    assert (found.replicas, found.resolution) == (11, Resolution.AS_ASKED)


COUNTS = st.integers(min_value=1, max_value=20_000)
TOLERANCES = st.builds(
    Tolerances,
    down=st.floats(min_value=0.0, max_value=1.5),
    up=st.floats(min_value=0.0, max_value=1.5),
)


@given(desired=st.integers(0, 20_000), status=COUNTS, spec=COUNTS, tolerances=TOLERANCES)
def test_values_any_keda_can_carry(
    desired: int, status: int, spec: int, tolerances: Tolerances
) -> None:
    value = encode(
        desired=desired, status_replicas=status, spec_replicas=spec, tolerances=tolerances
    )
    assert value.integer == desired == math.ceil(value.double)
    assert math.isfinite(value.double)
    assert (value.double > 0.0) == (desired > 0)
    assert value.lands_on in {desired, status}
    assert value.double == round(value.double, 2)
    for keda in KEDAS:
        assert heard(value, desired, tolerances, keda) == desired, "a fixed point"
        assert heard(value, status, tolerances, keda) in {desired, status}


@given(
    desired=st.integers(0, 20_000),
    status=COUNTS,
    spec=COUNTS,
    tolerances=TOLERANCES,
    costs=st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 100.0)),
)
def test_a_resolution_is_what_the_hpa_does(
    desired: int, status: int, spec: int, tolerances: Tolerances, costs: tuple[float, float]
) -> None:
    found = resolve_unreachable(
        desired=desired,
        status_replicas=status,
        spec_replicas=spec,
        tolerances=tolerances,
        cost_over=costs[0],
        cost_under=costs[1],
    )
    assert heard(found.encoded, status, tolerances) == found.replicas
    assert found.replicas >= min(desired, spec), "fewer than wanted only as a step up left undone"
    if found.resolution is Resolution.AS_ASKED:
        assert found.replicas == desired


def test_the_edge_of_the_old_formula_is_wider_by_exactly_the_ten_percent_steps() -> None:
    both = [
        (status, desired)
        for status in range(1, LARGEST + 1)
        for desired in range(1, LARGEST + 1)
        if reachable(desired=desired, status_replicas=status, tolerances=OLD)
        != reachable(desired=desired, status_replicas=status, tolerances=NEW)
    ]
    assert both == [(status, status * 11 // 10) for status in range(10, 181, 10)]


@pytest.mark.parametrize(
    ("integer", "double", "keda", "milli"),
    [
        (3, 0.0, Version(2, 20, 2), 3000),  # a double of 0 counts as unset
        (4, -1.0, Version(2, 20, 2), 4000),
        (4, math.nan, Version(2, 20, 2), 4000),
        (-3, 0.0, Version(2, 20, 1), -3000),
        (-3, 0.0, Version(2, 20, 2), 0),
        (1, math.inf, Version(2, 20, 2), 0),
        (9, 8.001, Version(2, 19), 8000),  # 8.001 * 1000 = 8000.999...: truncated
        (9, 8.001, Version(2, 20), 8001),
        (9, 8.01, Version(2, 16), 9000),  # the double is not known there
        (2, 2.0004, Version(2, 20, 2), 2000),
        (3, 2.0005, Version(2, 20, 2), 2001),
        (3, 2.9999999, Version(2, 20, 2), 3000),
        (1, 0.0001, Version(2, 20, 2), 0),
    ],
)
def test_what_keda_makes_of_the_two_fields(
    integer: int, double: float, keda: Version, milli: int
) -> None:
    assert keda_milli(integer=integer, double=double, keda=keda) == milli
