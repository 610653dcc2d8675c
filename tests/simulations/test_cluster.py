"""The life of replicas around the kernel: start-up, GPUs, crash loops, drains."""

from collections.abc import Sequence

import pytest

from simulations.lifecycle import GpuPool, Phase, ReplicaView, ordinal_choice
from simulations.replica import (
    StartUp,
    StepTime,
    constant,
    lognormal,
)
from simulations.request_ring import RequestStatus
from tests.simulations.small_fleet import fleet, load, phases, statuses


def test_a_replica_is_ready_after_its_phases_and_counts_gpu_time_from_its_scheduling() -> None:
    made = fleet()
    made.set_replicas(1, now_s=0.0)
    made.advance(99.0)
    seen = made.replica_status(99.0, since_s=0.0)
    assert (seen.wanted, seen.current, seen.ready, seen.starting_age_s) == (1, 1, 0, (99.0,))
    made.advance(115.0)
    seen = made.replica_status(115.0, since_s=99.0)
    assert (seen.ready, seen.starting_age_s, seen.start_up_s) == (1, (), (100.0,))  # 5+20+30+45
    assert made.replica_status(115.0, since_s=101.0).start_up_s == ()
    made.advance(900.0)
    assert made.usage().gpu_hours == pytest.approx(4 * 900 / 3600)
    assert made.usage().replica_hours == pytest.approx(900 / 3600)


def test_without_a_gpu_a_replica_is_pending_and_its_hours_are_their_own() -> None:
    made = fleet(warm=2, gpus=GpuPool(total=11))
    made.set_replicas(4, now_s=0.0)
    made.advance(3600.0)
    seen = made.replica_status(3600.0, since_s=0.0)
    assert (seen.ready, seen.unschedulable, seen.gpus_allocatable) == (2, 2, 11)
    assert made.usage().pending_gpu_hours == pytest.approx(2 * 4)
    assert made.usage().gpu_hours == pytest.approx(2 * 4)


def test_a_pending_replica_takes_the_gpus_of_one_that_is_gone() -> None:
    made = fleet(warm=1, gpus=GpuPool(total=4))
    made.set_replicas(2, now_s=0.0)
    load(made, [50.0], output=20)
    made.advance(50.0)

    def oldest(replicas: Sequence[ReplicaView], count: int, _now_s: float) -> list[int]:
        return [r.uid for r in replicas[:count]]

    made.set_replicas(1, now_s=50.0, victims=oldest)
    assert phases(made) == [Phase.DRAINING, Phase.PENDING]  # the drain still holds its GPUs
    made.advance(52.5)  # 20 steps end at 52.0
    assert phases(made) == [Phase.STARTING]
    made.advance(151.9)
    assert phases(made) == [Phase.STARTING]
    made.advance(152.1)  # 52 + 100
    assert phases(made) == [Phase.READY]
    # 52 s of one replica, then the other from 52 s on; 52 s pending.
    assert made.usage().replica_hours == pytest.approx(152.1 / 3600)
    assert made.usage().pending_gpu_hours == pytest.approx(4 * 52.0 / 3600)


def test_a_new_node_lets_pending_replicas_start() -> None:
    pool = GpuPool(total=4, provisioned_max=12, gpus_per_node=8, node_provisioning=constant(400.0))
    made = fleet(warm=1, gpus=pool)
    made.set_replicas(4, now_s=0.0)
    made.set_replicas(4, now_s=0.0)  # asks again, the node is on its way
    made.advance(399.0)
    made.set_replicas(4, now_s=399.0)
    assert made.replica_status(399.0, since_s=0.0).unschedulable == 3
    made.advance(401.0)
    seen = made.replica_status(401.0, since_s=0.0)
    # One node of 8 GPUs carries two; a second node would pass the maximum of 12.
    assert (len(seen.starting_age_s), seen.unschedulable, seen.gpus_allocatable) == (2, 1, 12)


def test_a_node_on_its_way_is_not_asked_for_again() -> None:
    pool = GpuPool(total=0, provisioned_max=800, gpus_per_node=8, node_provisioning=constant(400.0))
    made = fleet(gpus=pool)
    for tick in range(20):
        made.set_replicas(3, now_s=float(tick))  # 12 GPUs: two nodes
        made.advance(float(tick + 1))
    made.advance(1000.0)
    seen = made.replica_status(1000.0, since_s=0.0)
    assert (seen.ready, seen.gpus_allocatable) == (3, 16)


def test_a_crash_loop_backs_off_as_the_kubelet_does() -> None:
    start = StartUp(
        scheduling=constant(0.0),
        image=constant(50.0),
        weights=constant(30.0),
        compile=constant(0.0),
        crash_ratio=0.99,
    )
    made = fleet(start_up=start)
    made.set_replicas(1, now_s=0.0)
    made.advance(80.5)  # image 50 s, weights 30 s, then the first crash
    seen = made.replica_status(80.5, since_s=0.0)
    assert (seen.crash_looping, seen.starting_age_s, seen.ready) == (1, (), 0)
    made.advance(90.5)  # back-off 10 s
    assert phases(made) == [Phase.STARTING]
    made.advance(120.5)  # 30 s, the image is there; then 20 s of back-off
    assert phases(made) == [Phase.CRASH_LOOPING]
    made.advance(140.5)
    assert phases(made) == [Phase.STARTING]
    assert made.replicas()[0].restarts == 2


def test_a_drain_lets_requests_end_and_cuts_them_when_the_grace_is_over() -> None:
    made = fleet(warm=2)
    load(made, [1.0, 1.0], output=300)  # 30 s each, one on each replica
    made.advance(2.0)
    made.set_replicas(1, now_s=2.0, victims=ordinal_choice)
    assert phases(made) == [Phase.READY, Phase.DRAINING]
    load(made, [3.0])
    made.advance(3.5)
    assert made.counters().values["requests_running"].tolist() == [2, 1]  # not to the draining one
    made.advance(12.0)
    assert phases(made) == [Phase.READY]
    made.advance(40.0)
    rows = made.take_outcomes()
    assert sorted(statuses(rows)) == [
        RequestStatus.COMPLETED,
        RequestStatus.COMPLETED,
        RequestStatus.CUT,
    ]
    cut = rows[rows["status"] == RequestStatus.CUT][0]
    assert cut["finished_at_s"] == 12.0  # 2 + grace of 10
    # Its first token is there at 1.1 s, the others every 0.1 s: the 109th or, by rounding, 110th.
    assert cut["generated_tokens"] in (109, 110)
    assert made.usage().replica_hours == pytest.approx((40.0 + 12.0) / 3600)


def test_slots_grow_and_a_reused_slot_starts_from_zero() -> None:
    made = fleet(warm=5)  # more than the two slots it began with
    load(made, [0.5] * 5)
    made.advance(5.0)
    assert made.counters().values["finished_stop"].sum() == 5
    made.set_replicas(1, now_s=5.0, victims=ordinal_choice)
    made.start_warm(1)
    fresh = made.counters()
    assert fresh.uids.tolist() == [0, 5]
    assert fresh.values["finished_stop"].tolist() == [1, 0]


def test_start_ups_are_the_same_whatever_else_happened() -> None:
    start = StartUp(weights=lognormal(60.0, 120.0), compile=lognormal(30.0, 60.0))

    def start_ups(calm: int) -> dict[int, float]:
        made = fleet(start_up=start)
        made.advance(float(calm))
        made.set_replicas(3, now_s=float(calm))
        made.advance(2000.0)
        return {r.uid: (r.ready_at_s or 0.0) - r.created_at_s for r in made.replicas()}

    assert start_ups(0) == pytest.approx(start_ups(700))
    assert len(set(start_ups(0).values())) == 3


def test_ending_a_starting_replica_frees_its_gpus_at_once() -> None:
    made = fleet(gpus=GpuPool(total=4))
    made.set_replicas(2, now_s=0.0)
    made.advance(30.0)
    assert sorted(phases(made)) == [Phase.PENDING, Phase.STARTING]
    made.set_replicas(0, now_s=30.0)
    assert phases(made) == []
    assert made.usage().replica_hours == pytest.approx(30 / 3600)
    assert made.usage().pending_gpu_hours == pytest.approx(4 * 30 / 3600)
    made.advance(300.0)
    assert made.replica_status(300.0, since_s=0.0).current == 0


def test_a_replicaset_gives_up_pending_replicas_first_and_young_ones_before_old() -> None:
    made = fleet(warm=1, gpus=GpuPool(total=8))
    made.advance(2000.0)
    made.set_replicas(3, now_s=2000.0)  # one starts, one has no GPU
    made.set_replicas(2, now_s=2000.0)
    assert phases(made) == [Phase.READY, Phase.STARTING]
    made.set_replicas(1, now_s=2000.0)
    assert [r.uid for r in made.replicas()] == [0]


def test_a_drain_that_ends_at_the_very_end_of_a_tick_is_seen() -> None:
    step = StepTime(
        **dict.fromkeys(StepTime.__dataclass_fields__, 0.0)
        | {"decode_base_s": 0.125, "mixed_base_s": 0.125}
    )
    made = fleet(warm=3, step=step)
    load(made, [0.0, 0.0, 0.0], output=8)  # eight steps of 1/8 s: all end at 1.0 exactly
    made.advance(0.5)
    made.set_replicas(1, now_s=0.5, victims=ordinal_choice)
    assert phases(made) == [Phase.READY, Phase.DRAINING, Phase.DRAINING]
    made.advance(1.0)
    assert phases(made) == [Phase.READY]
    assert made.idle
    assert statuses(made.take_outcomes()) == [RequestStatus.COMPLETED] * 3
