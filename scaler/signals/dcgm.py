"""DCGM pages and rows -> utilisation of each pod's GPUs; percent becomes a ratio here.

``utilisation_ratio`` is what the policy corroborates idleness and vetoes with: the highest of the
busy-time fields a GPU has.  DCGM_FI_DEV_GPU_UTIL is the share of time in which any kernel ran; on
MIG
slices, where it does not exist, DCGM_FI_PROF_GR_ENGINE_ACTIVE says the same.  SM and DRAM activity
are finer:
where a GPU has them their maximum is used instead, because a decode loop keeps the coarse field
near 1
from the first request on.
"""

import math
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from scaler.core.model import Cause, NoData
from scaler.signals.faults import brief
from scaler.signals.readers import CompactRow, PodKey
from scaler.signals.samples import GpuSample

PAGE_CHARS_MAX = 16 << 20
_PERCENT = 0.01
_FINE = ("DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE")
_COARSE: Mapping[str, float] = {
    "DCGM_FI_DEV_GPU_UTIL": _PERCENT,
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 1.0,
}
_NAMES = (*_COARSE, *_FINE)
_POD_LABELS = (
    ("exported_namespace", "exported_pod"),
    ("pod_namespace", "pod_name"),
    ("namespace", "pod"),
)
_DEVICE_LABELS = ("UUID", "uuid", "GPU_I_ID", "gpu")


class DcgmReader:
    """Reads the metrics of dcgm-exporter."""

    @property
    def names(self) -> tuple[str, ...]:
        """What to ask Prometheus for, best known first."""
        return _NAMES

    def from_page(self, text: str, *, at_s: float) -> Mapping[PodKey, GpuSample] | NoData:
        """Samples of all pods on an exporter's page; GPUs without a pod are left out."""
        if len(text) > PAGE_CHARS_MAX:
            return NoData(cause=Cause.MALFORMED, detail=f"the page has {len(text)} characters")
        if text and not text.endswith("\n"):
            return NoData(cause=Cause.MALFORMED, detail="the page is cut off")
        lines = [line for line in text.split("\n") if line.startswith(_NAMES)]
        try:
            rows = list(_rows("\n".join(lines) + "\n"))
        except (ValueError, IndexError, KeyError, TypeError) as error:
            detail = f"{type(error).__name__}: {brief(str(error))}"
            return NoData(cause=Cause.MALFORMED, detail=detail)
        if not rows:
            return NoData(
                cause=Cause.ABSENT,
                detail="no utilisation field of DCGM on the page; is it dcgm-exporter's port?",
            )
        by_pod: dict[PodKey, list[CompactRow]] = {}
        for row in rows:
            key = _pod_of(dict(row[1]))
            if key is not None:
                by_pod.setdefault(key, []).append(row)
        made = {key: self.from_rows(found, pod=key[1], at_s=at_s) for key, found in by_pod.items()}
        return {key: sample for key, sample in made.items() if isinstance(sample, GpuSample)}

    def from_rows(self, rows: Iterable[CompactRow], *, pod: str, at_s: float) -> GpuSample | NoData:
        """One pod's sample: the busiest of its GPUs or slices."""
        devices: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
        for name, labels, value in rows:
            device = tuple(pair for pair in labels if pair[0] in _DEVICE_LABELS)
            if math.isfinite(value):
                fields = devices.setdefault(device, {})
                fields[name] = max(value, fields.get(name, 0.0))
        uses = [use for fields in devices.values() if (use := _use(fields)) is not None]
        if not uses:
            return NoData(cause=Cause.ABSENT, detail=f"{pod}: no utilisation field of DCGM")
        field, ratio = max(uses, key=lambda use: use[1])
        return GpuSample(
            pod=pod, at_s=at_s, utilisation_ratio=min(max(ratio, 0.0), 1.0), field=field
        )


def _use(fields: Mapping[str, float]) -> tuple[str, float] | None:
    """Field and ratio of one device: the finer fields where it has them."""
    fine = [(name, fields[name]) for name in _FINE if name in fields]
    if fine:
        return max(fine, key=lambda use: use[1])
    for name, factor in _COARSE.items():
        if name in fields:
            return name, fields[name] * factor
    return None


def _rows(text: str) -> Iterable[CompactRow]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in _NAMES:
                yield sample.name, tuple(sorted(sample.labels.items())), float(sample.value)


def _pod_of(labels: Mapping[str, str]) -> PodKey | None:
    """Namespace and pod by the first pair of labels that names a pod."""
    for namespace_label, pod_label in _POD_LABELS:
        if labels.get(pod_label):
            return labels.get(namespace_label, ""), labels[pod_label]
    return None
