"""Leader election on a Lease of coordination.k8s.io: of two or three daemons one decides.

The safety argument.  Everyone measures on its own clock how long the Lease has not changed, and
never compares its clock with a time written by another (as client-go does).  A candidate takes a
Lease only after watching it unchanged for the whole duration it was given.  The leader counts from
*before* it sent its last successful renewal, and gives up ``MARGIN_RATIO`` of the duration earlier.
The server changed the Lease after the leader's count began and before the candidate's, so the
leader has stepped down before the Lease can be taken, whatever their clocks show, as long as they
run at about the same rate.  ``is_leader`` is computed when asked: a process that was stopped for a
while does not believe in its past.  Writes carry the resource version, so of two candidates one
gets 409.

Permissions: leases of coordination.k8s.io, ``create`` in the daemon's namespace, ``get`` and
``update`` on the one name.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
import structlog

from scaler.service.clock import Clock
from scaler.signals.kube.client import KubeClient, KubeError

MARGIN_RATIO = 0.2  # of the duration; 3 s of 15, for a decision that is on its way out

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long a leader lasts and how often it says that it lives."""

    duration_s: float = 15.0
    renew_s: float = 5.0
    retry_s: float = 2.0  # candidates, and a leader whose renewal failed

    def __post_init__(self) -> None:
        """A leader must have time for two renewals before it gives up."""
        held_s = self.duration_s * (1.0 - MARGIN_RATIO)
        assert 0.0 < self.retry_s <= self.renew_s, "retries come before renewals"
        assert self.renew_s + self.retry_s < held_s, "no time for a second renewal"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    """The Lease as it was read, and since when (on our clock) it has not changed."""

    lease: dict[str, Any]
    spec: "_Spec"
    since_s: float


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    """spec of a Lease; all of it may be null."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class LeaseElector:
    """One candidate.  Its identity must be its own: two processes of one name would both lead."""

    def __init__(
        self,
        client: KubeClient,
        clock: Clock,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        on_change: Callable[[bool], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.identity = identity
        self.acquisitions = 0  # how often this candidate became leader
        self.losses = 0  # and how often it ceased to be without wanting to
        self.failures = 0  # requests that failed, conflicts apart
        self._client = client
        self._clock = clock
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._name = name
        self._times = times or LeaseTimes()
        self._on_change = on_change
        self._sleep = sleep
        self._sight: _Sight | None = None
        self._absent_since_s = float("inf")  # the Lease was first found to be absent
        self._absent_at_s = float("-inf")  # and last
        self._until_s = float("-inf")  # leading up to here
        self._leads = False  # what was told last

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads at this very moment."""
        return self._clock.now_s() < self._until_s

    @property
    def holder(self) -> str:
        """Who holds the Lease as far as is known; empty when nobody does."""
        return (self._sight.spec.holder_identity or "") if self._sight else ""

    @property
    def transitions(self) -> int:
        """How often the Lease has changed hands: rises with each new leader."""
        return (self._sight.spec.lease_transitions or 0) if self._sight else 0

    async def run(self) -> None:
        """Stand for election until cancelled; then call ``release``."""
        while True:
            renewed = await self.step()
            await self._sleep(self._times.renew_s if renewed else self._times.retry_s)
            self._tell()

    async def step(self) -> bool:
        """One attempt to take or renew; True if this candidate leads by it.  Never raises."""
        self._tell()  # a term that has run out is over, even if the next begins now
        try:
            async with asyncio.timeout(self._times.renew_s):
                renewed = await self._take_or_renew()
        except (KubeError, TimeoutError, msgspec.DecodeError) as error:
            self.failures += 1
            _log.warning("lease_unreachable", lease=self._path, error=str(error) or "no answer")
            renewed = False
        self._tell()
        return renewed

    async def release(self) -> None:
        """Step down and let another take over at once.  Never raises."""
        was_leader, self._until_s = self.is_leader, float("-inf")
        self._leads = False
        if not was_leader or self._sight is None:
            return
        spec = msgspec.structs.replace(
            self._sight.spec, holder_identity="", lease_duration_seconds=1, renew_time=self._now()
        )
        try:
            async with asyncio.timeout(self._times.renew_s):
                await self._write(self._sight.lease, spec)
        except (KubeError, TimeoutError, msgspec.DecodeError) as error:
            _log.warning("lease_not_released", lease=self._path, error=str(error) or "no answer")

    async def _take_or_renew(self) -> bool:
        """The leader renews what it knows; all others, and a leader in conflict, look first."""
        if self.is_leader and self._sight is not None:
            try:
                return await self._hold(self._sight)
            except KubeError as error:
                if error.status not in {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}:
                    raise
        sight = await self._look()
        free = self._may_create() if sight is None else self._may_take(sight)
        if not free:
            self._step_down()
            return False
        if sight is None:
            return await self._create()
        try:
            return await self._hold(sight)
        except KubeError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            return False  # another was faster

    async def _look(self) -> _Sight | None:
        """Read the Lease; None when there is none."""
        try:
            body = await self._client.get(self._path)
        except KubeError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            self._missed()
            return None
        return self._saw(body)

    def _missed(self) -> None:
        """Count the absence of the Lease, anew if it may have been there since the last look."""
        now_s = self._clock.now_s()
        if now_s - self._absent_at_s > self._times.renew_s:
            self._absent_since_s = now_s
        self._absent_at_s = now_s

    def _may_create(self) -> bool:
        """Whether a Lease that is not there may be made.

        Somebody may lead under a Lease that was deleted, so all but the leader wait for as long as
        they would under one that is not renewed.  Only who has never seen it creates it at once:
        that is a new installation.  (So deletions are safe unless the Lease is made and deleted
        again between two looks, or a daemon starts just then; nobody deletes it in operation.)
        """
        waited_s = self._absent_at_s - self._absent_since_s
        return self._sight is None or self.is_leader or waited_s >= self._times.duration_s

    def _saw(self, body: bytes) -> _Sight:
        lease: dict[str, Any] = msgspec.json.decode(body, type=dict)
        spec = msgspec.convert(lease.get("spec") or {}, _Spec)
        before = self._sight
        same = before is not None and before.spec == spec
        since_s = before.since_s if before is not None and same else self._clock.now_s()
        self._absent_at_s = float("-inf")
        self._sight = _Sight(lease=lease, spec=spec, since_s=since_s)
        return self._sight

    def _may_take(self, sight: _Sight) -> bool:
        if sight.spec.holder_identity in {None, "", self.identity}:
            return True
        duration_s = float(sight.spec.lease_duration_seconds or self._times.duration_s)
        return self._clock.now_s() - sight.since_s >= duration_s

    async def _hold(self, sight: _Sight) -> bool:
        """Write ourselves as the holder of the Lease as it was seen.  Raises KubeError."""
        ours = sight.spec.holder_identity == self.identity
        now = self._now()
        spec = _Spec(
            holder_identity=self.identity,
            lease_duration_seconds=round(self._times.duration_s),
            acquire_time=sight.spec.acquire_time if ours else now,
            renew_time=now,
            lease_transitions=(sight.spec.lease_transitions or 0) + (0 if ours else 1),
        )
        sent_at_s = self._clock.now_s()
        await self._write(sight.lease, spec)
        self._lead_from(sent_at_s)
        return True

    async def _create(self) -> bool:
        now = self._now()
        spec = _Spec(
            holder_identity=self.identity,
            lease_duration_seconds=round(self._times.duration_s),
            acquire_time=now,
            renew_time=now,
            lease_transitions=self.transitions + 1 if self._sight else 0,
        )
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": msgspec.to_builtins(spec),
        }
        sent_at_s = self._clock.now_s()
        try:
            self._saw(await self._client.create(self._collection, lease))
        except KubeError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            self._step_down()  # another has created it; it may have been ours before
            return False
        self._lead_from(sent_at_s)
        return True

    async def _write(self, lease: dict[str, Any], spec: _Spec) -> None:
        self._saw(
            await self._client.replace(self._path, {**lease, "spec": msgspec.to_builtins(spec)})
        )

    def _lead_from(self, sent_at_s: float) -> None:
        self._until_s = sent_at_s + self._times.duration_s * (1.0 - MARGIN_RATIO)

    def _step_down(self) -> None:
        self._until_s = float("-inf")

    def _now(self) -> str:
        at = datetime.fromtimestamp(self._clock.now_s(), UTC)
        return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _tell(self) -> None:
        """Count and report a change since the last time."""
        leads = self.is_leader
        if leads is self._leads:
            return
        self._leads = leads
        self.acquisitions += leads
        self.losses += not leads
        _log.info("leading" if leads else "no_longer_leading", holder=self.holder)
        if self._on_change is not None:
            self._on_change(leads)
