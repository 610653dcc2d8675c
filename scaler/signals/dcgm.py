"""DCGM pages and rows -> utilisation of each pod's GPUs; percent becomes a ratio here.

``utilisation_ratio`` is the share of time in which any kernel ran: DCGM_FI_DEV_GPU_UTIL, or
DCGM_FI_PROF_GR_ENGINE_ACTIVE where that does not exist (MIG slices).  The policy proves idleness
with it and looks for GPUs that are busy without a request, and both need a number that is near 1
whenever anything runs.  SM_ACTIVE and DRAM_ACTIVE say how much of the GPU works; DRAM_ACTIVE stays
below 0.9 at best, so that their maximum would hide a busy GPU.  It is used only where neither of
the first two is exported.
"""

import math
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from scaler.core.model import Cause, NoData
from scaler.signals.faults import brief
from scaler.signals.readers import CompactRow, Labels, PodKey
from scaler.signals.samples import GpuSample
from scaler.signals.vllm import PARSER_FAULTS

PAGE_CHARS_MAX = 16 << 20  # a node of 8 GPUs in 7 slices each has 200 kB
_RATIO_MAX = 1.01  # DCGM rounds; what is far above is in another unit
_FIELDS = (  # best known first; the last two are taken together
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_SM_ACTIVE",
    "DCGM_FI_PROF_DRAM_ACTIVE",
)
_PERCENT_FIELD = _FIELDS[0]
_FINE_FIELDS = _FIELDS[2:]
_POD_LABELS = (  # in the order in which they are believed, as in promql.gpu
    ("exported_namespace", "exported_pod"),
    ("pod_namespace", "pod_name"),
    ("namespace", "pod_name"),
    ("namespace", "pod"),
)
_DEVICE_LABELS = frozenset(("UUID", "uuid", "GPU_I_ID", "gpu", "vgpu", "hostname", "Hostname"))


class DcgmReader:
    """Reads the metrics of dcgm-exporter."""

    @property
    def names(self) -> tuple[str, ...]:
        """What to ask Prometheus for, best known first."""
        return _FIELDS

    def from_page(self, text: str, *, at_s: float) -> Mapping[PodKey, GpuSample] | NoData:
        """Samples of all pods on an exporter's page; GPUs without a pod are left out.

        NoData causes: MALFORMED for a page that cannot be read or is cut off, ABSENT for one
        without a field of utilisation.
        """
        if len(text) > PAGE_CHARS_MAX:
            return _malformed(f"the page has {len(text)} characters, more than any exporter's")
        if text and not text.endswith("\n"):
            return _malformed("the page is cut off: its last line has no end")
        lines = [line for line in text.split("\n") if line.startswith(_FIELDS)]
        try:
            rows = list(_rows("\n".join(lines) + "\n"))
        except PARSER_FAULTS as error:
            return _malformed(f"{type(error).__name__}: {brief(str(error))}")
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
        """One pod's sample: the busiest of its GPUs or slices.

        NoData causes: ABSENT without a field of utilisation, NOT_A_NUMBER where all are NaN,
        MALFORMED for a number that cannot be a utilisation.
        """
        devices: dict[Labels, dict[str, float]] = {}
        odd: NoData | None = None
        for name, labels, value in rows:
            if name not in _FIELDS:
                continue
            ratio = value / 100.0 if name == _PERCENT_FIELD else value
            if 0.0 <= ratio <= _RATIO_MAX:
                device = tuple(pair for pair in labels if pair[0] in _DEVICE_LABELS)
                fields = devices.setdefault(device, {})
                fields[name] = max(ratio, fields.get(name, 0.0))
            else:
                odd = _not_a_ratio(pod, name, value)
        if not devices:
            return odd or NoData(cause=Cause.ABSENT, detail=f"{pod}: no utilisation field of DCGM")
        uses = [_use(fields) for fields in devices.values()]
        field, ratio = max(uses, key=lambda use: use[1])
        return GpuSample(pod=pod, at_s=at_s, utilisation_ratio=min(ratio, 1.0), field=field)


def _use(fields: Mapping[str, float]) -> tuple[str, float]:
    """Field and ratio of one device, which has at least one of the fields."""
    for name in _FIELDS:
        if name in fields and name not in _FINE_FIELDS:
            return name, fields[name]
    return max(fields.items(), key=lambda use: use[1])


def _rows(text: str) -> Iterable[CompactRow]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name not in _FIELDS:
                continue  # only begins like a field
            yield sample.name, tuple(sorted(sample.labels.items())), float(sample.value)


def _pod_of(labels: Mapping[str, str]) -> PodKey | None:
    """Namespace and pod by the first pair of labels that names a pod."""
    for namespace_label, pod_label in _POD_LABELS:
        if labels.get(namespace_label) and labels.get(pod_label):
            return labels[namespace_label], labels[pod_label]
    return None


def _not_a_ratio(pod: str, name: str, value: float) -> NoData:
    detail = f"{pod}: {name} = {value:g}"
    if not math.isfinite(value):
        return NoData(cause=Cause.NOT_A_NUMBER, detail=f"{detail}, must be a number")
    high = 100 if name == _PERCENT_FIELD else 1
    return _malformed(f"{detail}, must be in [0, {high}]")


def _malformed(detail: str) -> NoData:
    return NoData(cause=Cause.MALFORMED, detail=detail)
