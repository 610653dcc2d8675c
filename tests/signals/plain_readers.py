"""Small readers for tests of the sources: a few names of vLLM and DCGM, read from page or rows."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from scaler.core.model import Cause, NoData
from scaler.signals.readers import CompactRow, EngineNames, PodKey, Readers
from scaler.signals.samples import GpuSample, PodSample

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
FINISHED = "vllm:request_success_total"
TOKENS = "vllm:prompt_tokens_total"
KV = "vllm:kv_cache_usage_perc"
INFO = "vllm:cache_config_info"
SM_ACTIVE = "DCGM_FI_PROF_SM_ACTIVE"
GPU_UTIL = "DCGM_FI_DEV_GPU_UTIL"


class PlainEngine:
    names = EngineNames(
        queue=(RUNNING, WAITING),
        queue_labels=(),
        work=(FINISHED, TOKENS),
        work_labels=("finished_reason",),
        kv_cache=(KV,),
        info=(INFO,),
        info_labels=("num_gpu_blocks", "block_size"),
        times=(RUNNING, TOKENS),
        ttft=("vllm:time_to_first_token_seconds",),
        itl=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    )

    def from_page(self, text: str, *, pod: str, at_s: float) -> PodSample | NoData:
        try:
            rows = [
                (sample.name, tuple(sample.labels.items()), sample.value)
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            ]
        except ValueError as fault:
            return NoData(cause=Cause.MALFORMED, detail=str(fault))
        return self.from_rows(rows, pod=pod, at_s=at_s)

    def from_rows(self, rows: Iterable[CompactRow], *, pod: str, at_s: float) -> PodSample | NoData:
        sums: dict[str, float] = {}
        usage: list[float] = []
        models: dict[str, None] = {}
        capacity: float | None = None
        for name, labels, value in rows:
            found = dict(labels)
            if "model_name" in found:
                models[found["model_name"]] = None
            if name == KV:
                usage.append(value)
            elif name == INFO:
                capacity = float(found["num_gpu_blocks"]) * float(found["block_size"])
            else:
                sums[name] = sums.get(name, 0.0) + value
        numbers: dict[str, Any] = {
            "running": sums.get(RUNNING),
            "waiting": sums.get(WAITING),
            "finished": sums.get(FINISHED),
            "prompt_tokens": sums.get(TOKENS),
            "kv_mean_ratio": sum(usage) / len(usage) if usage else None,
            "kv_max_ratio": max(usage, default=None),
            "kv_capacity_tokens": capacity,
        }
        return PodSample(pod=pod, at_s=at_s, model_names=tuple(models), **numbers)


class PlainGpu:
    names = (SM_ACTIVE, GPU_UTIL)

    def from_page(self, text: str, *, at_s: float) -> Mapping[PodKey, GpuSample] | NoData:
        found: dict[PodKey, list[CompactRow]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if "pod" in sample.labels:
                    key = (sample.labels["namespace"], sample.labels["pod"])
                    found.setdefault(key, []).append((sample.name, (), sample.value))
        read = {key: self.from_rows(rows, pod=key[1], at_s=at_s) for key, rows in found.items()}
        return {key: one for key, one in read.items() if isinstance(one, GpuSample)}

    def from_rows(self, rows: Iterable[CompactRow], *, pod: str, at_s: float) -> GpuSample | NoData:
        values: dict[str, float] = {}
        for name, _, value in rows:
            values[name] = max(value, values.get(name, 0.0))
        for name, percent in ((SM_ACTIVE, 1.0), (GPU_UTIL, 100.0)):
            if name in values:
                ratio = values[name] / percent
                return GpuSample(pod=pod, at_s=at_s, utilisation_ratio=ratio, field=name)
        return NoData(cause=Cause.ABSENT, detail="no field of interest")


def plain() -> Readers:
    return Readers(engine=PlainEngine(), gpu=PlainGpu())
