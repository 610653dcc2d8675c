"""What a source must know of an engine: which metrics to ask for, and how to read them.

Sources fetch; readers know names, labels and units.  The same rows come from a page and from a
grouped query, so that one reader serves both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from scaler.core.model import NoData
from scaler.signals.samples import GpuSample, PodSample

Labels: TypeAlias = tuple[tuple[str, str], ...]
CompactRow: TypeAlias = tuple[str, Labels, float]  # name of the metric, labels, value
PodKey: TypeAlias = tuple[str, str]  # namespace and pod


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineNames:
    """Names of metrics by what they are asked for together.

    Alternatives (names of older versions) are in one tuple; of ``times``, ``ttft`` and ``itl`` the
    first that a pod has is used.
    """

    queue: tuple[str, ...]  # gauges that are summed over engines
    queue_labels: tuple[str, ...]  # labels of them whose values are told apart
    work: tuple[str, ...]  # counters, and what else is summed over engines and reasons
    work_labels: tuple[str, ...]  # labels of them that are summed over
    kv_cache: tuple[str, ...]  # gauges, one for each engine
    info: tuple[str, ...]  # series whose labels hold what is of interest
    info_labels: tuple[str, ...]
    times: tuple[str, ...]  # any series of a live engine, best known first
    ttft: tuple[str, ...]  # histograms, without a suffix
    itl: tuple[str, ...]


class EngineReader(Protocol):
    """Reads one engine's metrics."""

    @property
    def names(self) -> EngineNames:
        """What to ask Prometheus for."""
        ...

    def from_page(self, text: str, *, pod: str, at_s: float) -> PodSample | NoData:
        """One pod's sample from its page; MALFORMED where the page cannot be read."""
        ...

    def from_rows(self, rows: Iterable[CompactRow], *, pod: str, at_s: float) -> PodSample | NoData:
        """One pod's sample from rows of grouped queries (without histograms)."""
        ...


class GpuReader(Protocol):
    """Reads DCGM's metrics."""

    @property
    def names(self) -> tuple[str, ...]:
        """What to ask Prometheus for, best known first."""
        ...

    def from_page(self, text: str, *, at_s: float) -> Mapping[PodKey, GpuSample] | NoData:
        """Samples of all pods on an exporter's page."""
        ...

    def from_rows(self, rows: Iterable[CompactRow], *, pod: str, at_s: float) -> GpuSample | NoData:
        """One pod's sample from rows of a grouped query."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """The readers of one source."""

    engine: EngineReader
    gpu: GpuReader
