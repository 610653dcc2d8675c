"""Encoder and HPA in a loop: a wanted count is reached, also through a status one sync old."""

import pytest

from scaler.core.hpa import (
    Behavior,
    ExternalMetric,
    HpaInput,
    HpaSpec,
    HpaState,
    Tolerances,
    Version,
    parse_behavior,
    sync,
    tolerances_for,
)
from scaler.core.hpa_encoding import keda_milli, resolve_unreachable

KEDA = Version(2, 19)
ONE_BY_ONE = [{"type": "Pods", "value": 1, "periodSeconds": 15}]
LARGEST = 45
SYNCS = 60


def behavior(*, slow: bool) -> Behavior | None:
    """Windows of 0; the slow one moves one pod a sync either way."""
    side: dict[str, object] = {"stabilizationWindowSeconds": 0}
    if slow:
        side["policies"] = ONE_BY_ONE
    return parse_behavior({"scaleUp": side, "scaleDown": side})  # type: ignore[dict-item]


def loop(
    spec: HpaSpec, *, start: int, desired: int, syncs_late: int, cost_over: float
) -> list[int]:
    """Counts sync by sync, until three in a row are equal."""
    counts, state = [start], HpaState(recommendations=())
    for index in range(SYNCS):
        known = counts[max(0, len(counts) - 1 - syncs_late)]
        value = resolve_unreachable(
            desired=desired,
            status_replicas=known,
            spec_replicas=known,
            tolerances=spec.tolerances,
            cost_over=cost_over,
            cost_under=1.0,
        ).encoded
        milli = keda_milli(integer=value.integer, double=value.double, keda=KEDA)
        seen = HpaInput(
            spec_replicas=counts[-1],
            status_replicas=counts[-1],
            ready_pods=counts[-1],
            metrics=(ExternalMetric(target_milli=1000, values_milli=(milli,)),),
        )
        result, state = sync(spec, state, seen, now_s=15.0 * index)
        counts.append(result.replicas)
        if len(set(counts[-4:])) == 1 and len(counts) > 4:
            return counts
    raise AssertionError(f"no rest after {SYNCS} syncs: {counts}")


def swallowed_down(status: int, desired: int, tolerances: Tolerances) -> bool:
    # Exact in integers for tolerance 0.1: (desired - 0.99) / status >= 0.9.
    return tolerances.down > 0.0 and status > desired and 100 * desired - 99 >= 90 * status


@pytest.mark.parametrize("syncs_late", [0, 1])
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    "tolerances",
    [tolerances_for(Version(1, 32)), tolerances_for(Version(1, 36)), Tolerances(down=0.0, up=0.0)],
    ids=["absolute", "band", "zero"],
)
def test_a_count_that_matters_is_never_missed(
    tolerances: Tolerances, slow: bool, syncs_late: int
) -> None:
    """Where one replica too few costs more, the loop rests at the count or just above it.

    Above it only where the last step down is swallowed; on the way up never: what is rounded up
    comes back by the fraction, if that is heard.
    """
    spec = HpaSpec(tolerances=tolerances, behavior=behavior(slow=slow))
    for start in range(1, LARGEST + 1):
        for desired in range(1, LARGEST + 1, 2):
            counts = loop(spec, start=start, desired=desired, syncs_late=syncs_late, cost_over=0.1)
            rest = counts[-1]
            assert rest == desired or swallowed_down(rest, desired, tolerances), counts
            assert min(counts) >= min(start, desired)


def test_a_step_up_that_is_not_worth_it_is_left_undone() -> None:
    spec = HpaSpec(tolerances=tolerances_for(Version(1, 36)), behavior=behavior(slow=False))
    # 20 -> 21 would need 23: two too many at 9 each, against one too few at 1.
    assert loop(spec, start=20, desired=21, syncs_late=0, cost_over=9.0)[-1] == 20
    assert loop(spec, start=20, desired=21, syncs_late=0, cost_over=0.1)[-3:] == [21, 21, 21]
