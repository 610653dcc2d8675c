"""Leader election over a real HTTP server, clocks that disagree, a server that goes away."""

import asyncio
import itertools
import json
import random
from dataclasses import dataclass
from http import HTTPStatus

import pytest

from scaler.demo.kube_api import Fault, FaultKind
from scaler.demo.kube_store import RESOURCE_TYPES, Store
from scaler.service.lease import MARGIN_RATIO, LeaseElector, LeaseTimes
from tests.signals.kube_fixture import NOW_S, Cluster, TestClock, cluster, until

LEASE = next(type_ for type_ in RESOURCE_TYPES if type_.kind == "Lease")
TIMES = LeaseTimes(duration_s=15.0, renew_s=5.0, retry_s=2.0)
HELD_S = 12.0  # 15 less a fifth
PATH = "/apis/coordination.k8s.io/v1/namespaces/keda/leases/vllm-scaler"


@dataclass
class SkewedClock:
    """A machine whose clock is off by a fixed amount."""

    base: TestClock
    skew_s: float = 0.0

    def now_s(self) -> float:
        return self.base.at_s + self.skew_s


def candidate(world: Cluster, identity: str, *, skew_s: float = 0.0) -> LeaseElector:
    return LeaseElector(
        world.client,
        SkewedClock(world.clock, skew_s),
        namespace="keda",
        name="vllm-scaler",
        identity=identity,
        times=TIMES,
        sleep=world.sleeps,
    )


def stored(store: Store) -> dict[str, object]:
    spec: dict[str, object] = store.get(LEASE, "keda", "vllm-scaler")["spec"]
    return spec


async def test_the_first_takes_the_lease_and_the_second_waits() -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b")
        assert await first.step()
        assert not await second.step()
        assert (first.is_leader, second.is_leader) == (True, False)
        assert (first.holder, second.holder) == ("a", "a")
        assert stored(world.store) == {
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "acquireTime": "2027-01-15T08:00:00.000000Z",  # 1,800,000,000 s
            "renewTime": "2027-01-15T08:00:00.000000Z",
            "leaseTransitions": 0,
        }


async def test_a_renewed_lease_is_never_taken() -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b")
        for _ in range(10):
            assert await first.step()
            assert not await second.step()
            world.clock.at_s += 5.0
        assert stored(world.store)["leaseTransitions"] == 0
        assert stored(world.store)["acquireTime"] == "2027-01-15T08:00:00.000000Z"
        assert stored(world.store)["renewTime"] == "2027-01-15T08:00:45.000000Z"  # 9 * 5 s later


async def test_the_lease_of_a_silent_leader_is_taken_after_its_duration_and_not_before() -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b")
        await first.step()
        await second.step()  # from here it counts
        world.clock.at_s = NOW_S + HELD_S - 0.01
        assert first.is_leader
        world.clock.at_s = NOW_S + HELD_S
        assert not first.is_leader
        world.clock.at_s = NOW_S + 14.99
        assert not await second.step()
        world.clock.at_s = NOW_S + 15.0
        assert await second.step()
        assert stored(world.store)["leaseTransitions"] == 1
        assert (second.transitions, second.holder) == (1, "b")
        assert not await first.step()  # it comes back and finds another
        assert first.holder == "b"


async def test_a_candidate_that_has_just_come_waits_the_whole_duration() -> None:
    async with cluster() as world:
        await candidate(world, "a").step()
        world.clock.at_s += 1000.0  # the renewal is old by the clock, which proves nothing
        late = candidate(world, "b")
        assert not await late.step()
        world.clock.at_s += 14.0
        assert not await late.step()
        world.clock.at_s += 1.0
        assert await late.step()


async def test_release_lets_another_take_over_at_once() -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b")
        await first.step()
        await second.step()
        await first.release()
        assert not first.is_leader
        assert stored(world.store)["holderIdentity"] == ""
        assert await second.step()
        assert first.losses == 0  # it was its own wish


async def test_release_by_a_follower_touches_nothing() -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b")
        await first.step()
        await second.step()
        await second.release()
        assert stored(world.store)["holderIdentity"] == "a"
        assert await first.step()


async def test_of_two_that_take_an_expired_lease_at_once_one_wins() -> None:
    async with cluster() as world:
        dead, second, third = (candidate(world, name) for name in "abc")
        await dead.step()
        await second.step()
        await third.step()
        world.clock.at_s += 15.0
        won = await asyncio.gather(second.step(), third.step())
        assert sorted(won) == [False, True]
        assert second.is_leader is not third.is_leader


async def test_of_two_that_create_the_lease_at_once_one_wins() -> None:
    async with cluster() as world:
        won = await asyncio.gather(*(candidate(world, name).step() for name in "abc"))
        assert sorted(won) == [False, False, True]


@pytest.mark.parametrize("skew_s", [-86400.0, -7.0, 7.0, 86400.0])
async def test_clocks_that_disagree_change_nothing(skew_s: float) -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b", skew_s=skew_s)
        await first.step()
        await second.step()
        world.clock.at_s += 14.99
        assert not await second.step()
        world.clock.at_s += 0.01
        assert await second.step()
        assert not first.is_leader


async def test_an_outage_of_the_server_makes_nobody_leader_and_the_old_one_step_down() -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b")
        await first.step()
        await second.step()
        await world.api.stop()
        world.clock.at_s = NOW_S + 5.0
        assert not await first.step()
        assert first.is_leader  # until its time is over
        world.clock.at_s = NOW_S + HELD_S
        assert not first.is_leader
        world.clock.at_s = NOW_S + 60.0
        assert not await second.step()
        assert not second.is_leader
        await world.api.start()
        assert await first.step()  # the Lease still has its name
        assert not await second.step()
        assert first.failures == 1
        assert (first.acquisitions, first.losses) == (2, 1)


async def test_a_hanging_server_cannot_hold_a_leader_in_office() -> None:
    async with cluster(request_timeout_s=0.25) as world:
        first = candidate(world, "a")
        await first.step()
        world.api.faults.append(Fault(kind=FaultKind.HANG))
        world.clock.at_s = NOW_S + HELD_S - 0.01
        assert not await first.step()
        assert first.is_leader
        world.clock.at_s = NOW_S + HELD_S
        assert not first.is_leader


async def test_the_term_counts_from_before_the_request_was_sent() -> None:
    async with cluster() as world:
        first = candidate(world, "a")
        delay = Fault(kind=FaultKind.SLOW, delay_s=0.02)
        world.api.faults.append(delay)
        step = asyncio.create_task(first.step())
        await until(lambda: any("POST" in line for line in world.api.requests))
        world.clock.at_s = NOW_S + 4.0  # the answer is four seconds under way
        assert await step
        world.clock.at_s = NOW_S + HELD_S
        assert not first.is_leader  # and not four seconds later


async def test_an_edit_of_the_lease_by_somebody_else_is_survived() -> None:
    async with cluster() as world:
        first = candidate(world, "a")
        await first.step()
        world.store.merge(LEASE, "keda", "vllm-scaler", {"metadata": {"labels": {"x": "y"}}})
        world.clock.at_s += 5.0
        assert await first.step()  # 409, a look, and a second write
        assert world.store.get(LEASE, "keda", "vllm-scaler")["metadata"]["labels"] == {"x": "y"}
        assert stored(world.store)["leaseTransitions"] == 0


async def test_a_leader_that_finds_another_in_the_lease_steps_down_at_once() -> None:
    async with cluster() as world:
        first = candidate(world, "a")
        await first.step()
        usurped = {"spec": {"holderIdentity": "z"}}
        world.store.merge(LEASE, "keda", "vllm-scaler", usurped)
        world.clock.at_s += 1.0
        assert not await first.step()
        assert not first.is_leader
        assert first.losses == 1


async def test_a_deleted_lease_is_not_taken_from_under_a_leader() -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b")
        await first.step()
        await second.step()
        world.store.delete(LEASE, "keda", "vllm-scaler")
        world.clock.at_s += 5.0
        assert not await second.step()
        assert await first.step()  # makes it again
        assert stored(world.store)["holderIdentity"] == "a"


async def test_a_deleted_lease_of_a_dead_leader_is_taken_in_the_end() -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b")
        await first.step()
        await second.step()
        world.store.delete(LEASE, "keda", "vllm-scaler")
        world.clock.at_s += 60.0
        for _ in range(5):  # it does not know who led in the meantime, and looks on
            assert not await second.step()
            world.clock.at_s += 2.9
        world.clock.at_s += 0.4
        assert not await second.step()  # absent for 5 * 2.9 + 0.4 = 14.9 s
        world.clock.at_s += 0.1
        assert await second.step()
        assert second.transitions == 1


async def test_the_absence_of_a_lease_counts_only_while_it_is_watched() -> None:
    async with cluster() as world:
        first, second = candidate(world, "a"), candidate(world, "b")
        await first.step()
        await second.step()
        world.store.delete(LEASE, "keda", "vllm-scaler")
        world.clock.at_s += 1.0
        assert not await second.step()
        world.clock.at_s += 20.0  # meanwhile it may have been made, held and deleted again
        assert not await second.step()


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": None}, {"holderIdentity": ""}])
async def test_an_empty_lease_is_free(spec: dict[str, object] | None) -> None:
    async with cluster() as world:
        meta = {"namespace": "keda", "name": "vllm-scaler"}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
        world.store.apply(lease if spec is None else {**lease, "spec": spec})
        assert await candidate(world, "a").step()


async def test_a_lease_that_cannot_be_read_makes_nobody_leader() -> None:
    async with cluster() as world:
        first = candidate(world, "a")
        for kind in (FaultKind.GARBAGE, FaultKind.STATUS):
            world.api.faults[:] = [Fault(kind=kind, status=HTTPStatus.FORBIDDEN)]
            assert not await first.step()
        world.api.faults.clear()
        meta = {"namespace": "keda", "name": "vllm-scaler"}
        wrong = {"holderIdentity": ["a"]}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
        world.store.apply({**lease, "spec": wrong})
        assert not await first.step()
        assert first.failures == 3


async def test_run_takes_renews_and_tells_of_changes() -> None:
    async with cluster() as world:
        told: list[bool] = []
        first = LeaseElector(
            world.client,
            world.clock,
            namespace="keda",
            name="vllm-scaler",
            identity="a",
            times=TIMES,
            on_change=told.append,
            sleep=world.sleeps,
        )
        task = asyncio.create_task(first.run())
        await until(lambda: sum("PUT" in line for line in world.api.requests) >= 3)
        assert told == [True]
        assert set(world.sleeps.asked_s) == {5.0}
        world.api.faults.append(Fault(kind=FaultKind.STATUS))
        await until(lambda: 2.0 in world.sleeps.asked_s)  # a failed renewal is retried sooner
        world.clock.at_s += HELD_S
        await until(lambda: told == [True, False])
        world.api.faults.clear()
        await until(lambda: told == [True, False, True])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_there_are_never_two_leaders_whatever_happens() -> None:
    """A seeded walk of outages, deletions, releases, lazy candidates; checked after every step."""
    chance = random.Random(20261121)  # noqa: S311 - a walk, not a secret
    async with cluster() as world:
        names = ("a", "b", "c")
        skews_s = (0.0, 3600.0, -3600.0)
        electors = [
            candidate(world, name, skew_s=skew) for name, skew in zip(names, skews_s, strict=True)
        ]
        for one in electors:
            await one.step()  # who has never seen the Lease would make a deleted one anew
        terms: list[str] = []
        deleted_at_s = NOW_S
        for _ in range(1200):
            world.clock.at_s += 13.0 if chance.random() < 0.03 else chance.choice([0.1, 0.5, 1.0])
            roll = chance.random()
            if roll < 0.03:
                world.api.faults[:] = [Fault(kind=FaultKind.STATUS)]
            elif roll < 0.20:
                world.api.faults.clear()
            elif roll < 0.22 and world.clock.at_s - deleted_at_s > 30.0 and world.store.list(LEASE):
                deleted_at_s = world.clock.at_s
                world.store.delete(LEASE, "keda", "vllm-scaler")
            elif roll < 0.28:
                await chance.choice(electors).release()
            await chance.choice(electors).step()
            leaders = [one.identity for one in electors if one.is_leader]
            assert len(leaders) <= 1
            terms.extend(leaders)
        changes = sum(before != after for before, after in itertools.pairwise(terms))
        assert changes > 10  # the walk did something
        assert set(terms) == set(names)


def test_times_leave_room_for_a_second_renewal() -> None:
    assert HELD_S == 15.0 * (1.0 - MARGIN_RATIO)
    with pytest.raises(AssertionError, match="second renewal"):
        LeaseTimes(duration_s=10.0, renew_s=7.0, retry_s=2.0)  # 7 + 2 > 8
    with pytest.raises(AssertionError, match="before"):
        LeaseTimes(duration_s=15.0, renew_s=2.0, retry_s=5.0)


async def test_requests_carry_the_version_they_were_made_from() -> None:
    async with cluster() as world:
        first = candidate(world, "a")
        await first.step()
        before = world.store.get(LEASE, "keda", "vllm-scaler")["metadata"]["resourceVersion"]
        stale = json.loads(await world.client.get(PATH))
        assert stale["metadata"]["resourceVersion"] == before
        assert await first.step()
        after = world.store.get(LEASE, "keda", "vllm-scaler")["metadata"]["resourceVersion"]
        assert int(after) > int(before)
