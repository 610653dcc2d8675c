"""The Kubernetes version: what the HPA does to a number depends on it."""

import re

import msgspec

from scaler.signals.kube.client import KubeClient, KubeError
from scaler.signals.kube.informer import Pacing
from scaler.signals.kube.wire import Wire

RETRY_S = 15.0
AGAIN_S = 3600.0  # clusters are upgraded under a running daemon


class Version(Wire, frozen=True):
    """The answer of /version; minor may be ``33+``."""

    minor: str = ""


class VersionPoller:
    """Asks until there is an answer, then once an hour."""

    def __init__(self, client: KubeClient, *, pacing: Pacing) -> None:
        self.minor: int | None = None  # 33 of 1.33
        self._client = client
        self._pacing = pacing

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            answered = await self._ask()
            await self._pacing.sleep(AGAIN_S if answered else RETRY_S)

    async def _ask(self) -> bool:
        try:
            version = msgspec.json.decode(await self._client.get("/version"), type=Version)
        except (KubeError, msgspec.DecodeError):  # the watches tell of the same fault
            return False
        digits = re.match(r"\d+", version.minor)
        self.minor = int(digits[0]) if digits else None
        return digits is not None
