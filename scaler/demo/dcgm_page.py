"""The page of dcgm-exporter for the GPUs of the simulated fleet.

Names and labels are those of dcgm-exporter 4.8 with its default file; as there, values are taken
every 30 s and stand in between.  The fleet knows how long its replicas were busy and how much of
that was prefill; what a profiler would measure of it is a plain assumption: decoding reads the
weights at ``DECODE_DRAM`` of the memory's bandwidth, prefill keeps the tensor cores at
``PREFILL_TENSOR``.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from simulations.fleet_counters import FleetCounters
from simulations.replica import ReplicaModel

COLLECT_EVERY_S = 30.0  # the exporter's default
PRODUCT = "NVIDIA H100 80GB HBM3"
DRIVER = "580.95.05"
DECODE_DRAM, DECODE_TENSOR = 0.72, 0.06
PREFILL_DRAM, PREFILL_TENSOR = 0.35, 0.62

_FIELDS = (
    ("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %)."),
    ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "Ratio of time the graphics engine is active."),
    ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "Ratio of cycles the tensor (HMMA) pipe is active."),
    (
        "DCGM_FI_PROF_DRAM_ACTIVE",
        "Ratio of cycles the device memory interface is active sending or receiving data.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """Shares of the last interval in which a replica's GPUs computed anything, and prefill."""

    busy_ratio: float = 0.0
    prefill_ratio: float = 0.0

    def fields(self) -> tuple[str, ...]:
        """Values of ``_FIELDS``, written as the exporter writes them."""
        decode_ratio = self.busy_ratio - self.prefill_ratio
        tensor = PREFILL_TENSOR * self.prefill_ratio + DECODE_TENSOR * decode_ratio
        dram = PREFILL_DRAM * self.prefill_ratio + DECODE_DRAM * decode_ratio
        return (
            f"{round(100.0 * self.busy_ratio)}",
            *(f"{ratio:.6f}" for ratio in (self.busy_ratio, tensor, dram)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A replica's pod and the GPUs it holds."""

    uid: int
    namespace: str
    pod: str
    node: str
    gpus: tuple[int, ...]  # indices on the node


class GpuMeter:
    """Use of each replica's GPUs in the last full interval."""

    def __init__(self, model: ReplicaModel) -> None:
        self._per_prefill_token_s = model.step.prefill_per_token_s
        self._before: dict[int, tuple[float, float]] = {}
        self._at_s = -np.inf
        self._uses: Mapping[int, GpuUse] = {}

    def uses(self, counters: FleetCounters, now_s: float) -> Mapping[int, GpuUse]:
        """Use by replica, measured anew if the interval is over."""
        if now_s - self._at_s >= COLLECT_EVERY_S:
            self._measure(counters, now_s)
        return self._uses

    def _measure(self, counters: FleetCounters, now_s: float) -> None:
        span_s = now_s - self._at_s
        seen: dict[int, tuple[float, float]] = {}
        uses: dict[int, GpuUse] = {}
        for uid, values in zip(counters.uids, counters.values, strict=True):
            tokens = float(values["prefill_tokens_computed"])
            now = float(values["busy_s"]), tokens * self._per_prefill_token_s
            before = self._before.get(int(uid), (0.0, 0.0))
            busy_ratio = min((now[0] - before[0]) / span_s, 1.0)
            prefill_ratio = min((now[1] - before[1]) / span_s, busy_ratio)
            uses[int(uid)] = GpuUse(busy_ratio=busy_ratio, prefill_ratio=prefill_ratio)
            seen[int(uid)] = now
        self._before, self._uses, self._at_s = seen, uses, now_s


def dcgm_page(
    placed: Iterable[Placed], uses: Mapping[int, GpuUse], *, nodes: Mapping[str, int]
) -> str:
    """The page of all nodes together; ``nodes`` has the GPUs of each.  Free GPUs name no pod."""
    idle = GpuUse().fields()
    rows: dict[tuple[str, int], tuple[str, tuple[str, ...]]] = {
        (node, gpu): ("", idle) for node, gpus in nodes.items() for gpu in range(gpus)
    }
    for one in placed:
        labels = f',container="vllm",namespace="{one.namespace}",pod="{one.pod}"'
        values = uses[one.uid].fields() if one.uid in uses else idle
        rows.update({(one.node, gpu): (labels, values) for gpu in one.gpus})
    return "".join(_lines(rows))


def _lines(rows: Mapping[tuple[str, int], tuple[str, tuple[str, ...]]]) -> Iterator[str]:
    for place, (name, help_text) in enumerate(_FIELDS):
        yield f"# HELP {name} {help_text}\n# TYPE {name} gauge\n"
        for (node, gpu), (labels, values) in rows.items():
            yield (
                f'{name}{{gpu="{gpu}",UUID="GPU-{node}-{gpu:04d}",'
                f'pci_bus_id="00000000:{24 + 18 * gpu:02X}:00.0",device="nvidia{gpu}",'
                f'modelName="{PRODUCT}",hostname="{node}",DCGM_FI_DRIVER_VERSION="{DRIVER}"'
                f"{labels}}} {values[place]}\n"
            )
