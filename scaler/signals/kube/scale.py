"""Targets of other kinds, read through /scale: the kinds an operator lists.

A scale subresource cannot be watched, so it is asked for at a fixed pace, one target after another.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
import structlog

from scaler.core.model import Cause, NoData
from scaler.signals.kube.client import KubeClient, KubeError
from scaler.signals.kube.informer import Pacing
from scaler.signals.kube.parse import scale_record
from scaler.signals.kube.records import Workload, place_of
from scaler.signals.samples import TargetRef

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraKind:
    """A kind with a scale subresource, e.g. argoproj.io/v1alpha1, Rollout, rollouts."""

    api_version: str
    kind: str
    plural: str

    def path(self, target: TargetRef) -> str:
        """The path of the target's scale subresource."""
        place = f"namespaces/{target.namespace}/{self.plural}/{target.name}/scale"
        root = "/apis" if "/" in self.api_version else "/api"
        return f"{root}/{self.api_version}/{place}"


class ScalePoller:
    """The latest answer for each target; ``changed`` is told key, old and new workload."""

    def __init__(
        self,
        client: KubeClient,
        *,
        kinds: Iterable[ExtraKind],
        changed: Callable[[str, Workload | None, Workload | None], None],
        pacing: Pacing,
        every_s: float,
        stale_after_s: float,
    ) -> None:
        self._client = client
        self._kinds = {kind.kind.lower(): kind for kind in kinds}
        self._changed = changed
        self._pacing = pacing
        self._every_s = every_s
        self._stale_after_s = stale_after_s
        self._targets: dict[str, TargetRef] = {}
        self._found: dict[str, tuple[Workload, float]] = {}  # with the time it was right
        self._faults: dict[str, NoData] = {}
        self._more = asyncio.Event()

    def follow(self, targets: Iterable[TargetRef]) -> None:
        """Ask for these targets from now on, and forget the others."""
        wanted = {place_of(target): target for target in targets if target.kind in self._kinds}
        if wanted.keys() - self._targets.keys():
            self._more.set()
        self._targets = wanted
        self._found = {key: value for key, value in self._found.items() if key in wanted}
        self._faults = {key: value for key, value in self._faults.items() if key in wanted}

    def look_up(self, target: TargetRef, now_s: float) -> tuple[Workload, float] | NoData:
        """The workload and when it was right, or why nothing is known."""
        if target.kind not in self._kinds:
            return NoData(cause=Cause.UNSUPPORTED, detail=f"kind {target.kind} is not listed")
        fault = self._faults.get(place_of(target))
        found = self._found.get(place_of(target))
        if found is not None and now_s - found[1] <= self._stale_after_s:
            return found
        return fault or NoData(
            cause=Cause.NEVER, detail=f"{place_of(target)} was not asked for yet"
        )

    async def run(self) -> None:
        """Ask until cancelled; a new target is asked for at once."""
        while True:
            self._more.clear()
            for target in tuple(self._targets.values()):
                await self._ask(target)
            waits = asyncio.ensure_future(self._pacing.sleep(self._every_s))
            news = asyncio.ensure_future(self._more.wait())
            try:
                await asyncio.wait({waits, news}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waits.cancel()
                news.cancel()

    async def _ask(self, target: TargetRef) -> None:
        path = self._kinds[target.kind].path(target)
        try:
            body = await self._client.get(path)
            workload = scale_record(body, target)
        except (KubeError, msgspec.DecodeError, ValueError) as error:
            self._failed(target, error)
            return
        self._faults.pop(place_of(target), None)
        before = self._found[place_of(target)][0] if place_of(target) in self._found else None
        self._found[place_of(target)] = workload, self._pacing.now_s()
        if before != workload:
            self._changed(place_of(target), before, workload)

    def _failed(self, target: TargetRef, error: Exception) -> None:
        """Keep what is known, except of a target that is gone."""
        gone = isinstance(error, KubeError) and error.status == HTTPStatus.NOT_FOUND
        if gone and place_of(target) in self._found:
            self._changed(place_of(target), self._found.pop(place_of(target))[0], None)
        if place_of(target) not in self._faults:  # once, not at every attempt
            _log.warning("kubernetes_scale_unreadable", target=place_of(target), error=str(error))
        cause = Cause.ABSENT if gone else Cause.UNREACHABLE
        self._faults[place_of(target)] = NoData(cause=cause, detail=str(error))
