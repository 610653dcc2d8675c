"""The metrics page of a simulated replica: a captured page of vLLM 0.32 with its own numbers in it.

Names, labels, bucket bounds, order and number format are the captured page's.  Families of which
the simulator has no numbers (latencies of single phases, request parameters, HTTP sizes) are left
out, and so are finite buckets that it does not count; what is of no interest here (the Python
process, features that are off) is as captured.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeAlias

import numpy as np
from prometheus_client.utils import floatToGoString

from simulations.engine_layout import (
    COUNTERS,
    ITERATION_BOUNDS_TOKENS,
    ITL_BOUNDS_S,
    REQUEST_BOUNDS_S,
    TTFT_BOUNDS_S,
    Ints,
)
from simulations.fleet_counters import FleetCounters
from simulations.replica import ReplicaModel

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
CAPTURED_MODEL = "tiny-llama"

Slot: TypeAlias = tuple[str, str | float]  # a name, and the label that tells its series apart
Values: TypeAlias = Mapping[Slot, float]

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? (\S+)")
_TELLING = re.compile(r'[{,](le|reason|finished_reason|source)="([^"]*)"')
_AS_CAPTURED = (
    "python_", "process_", "vllm:estimated_", "vllm:engine_sleep_state",
    "vllm:external_prefix_cache", "vllm:mm_cache",
)  # fmt: skip
_STARTED = "process_start_time_seconds"
_INFO = "vllm:cache_config_info"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaNumbers:
    """One replica's row of the fleet's counters, and when its process started."""

    counters: FleetCounters
    row: int
    started_at_s: float

    @classmethod
    def of(cls, counters: FleetCounters, uid: int, *, started_at_s: float) -> "ReplicaNumbers":
        """The numbers of the replica ``uid``, which must be serving."""
        (row,) = np.flatnonzero(counters.uids == uid)
        return cls(counters=counters, row=int(row), started_at_s=started_at_s)

    def get(self, name: str) -> float:
        """A field of ``engine_layout.COUNTERS``."""
        return float(self.counters.values[name][self.row])


class PageWriter:
    """Writes pages of the replicas of one model."""

    def __init__(self, model: ReplicaModel, model_name: str) -> None:
        self._parts = tuple(_parts(_template(model, model_name)))

    def page(self, numbers: ReplicaNumbers) -> str:
        """The page as it is now."""
        values = _values(numbers)
        return "".join(
            part if isinstance(part, str) else _written(values[part]) for part in self._parts
        )


def _written(value: float) -> str:
    """A number as prometheus_client, which vLLM uses, writes it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]  # it has no hints


def _template(model: ReplicaModel, model_name: str) -> str:
    """The captured page, of another model and cache."""
    text = resources.files("scaler.demo").joinpath("vllm-0.32.prom").read_text("utf-8")
    concurrency = model.kv_capacity_tokens / model.max_model_len
    labels = {
        "block_size": model.block_size,
        "effective_attention_block_size": model.block_size,
        "num_gpu_blocks": model.kv_blocks,
        "num_gpu_blocks_override": "None",
        "kv_cache_size_tokens": model.kv_capacity_tokens,
        "kv_cache_max_concurrency": f"{concurrency:.2f}",
        "kv_cache_memory_bytes": "None",
    }
    info = next(line for line in text.split("\n") if line.startswith(_INFO + "{"))
    changed = info
    for name, value in labels.items():
        changed = re.sub(rf'(?<=[{{,]){name}="[^"]*"', f'{name}="{value}"', changed)
    text = text.replace(info, changed)
    return text.replace(f'model_name="{CAPTURED_MODEL}"', f'model_name="{model_name}"')


def _parts(text: str) -> Iterator[str | Slot]:
    """Text to copy and slots to fill, family by family; families without a number are left out."""
    known = _known()
    heading: list[str] = []
    open_family = False
    for line in text.splitlines():
        if line.startswith("# HELP"):
            heading, open_family = [line], False
            continue
        if line.startswith("#"):
            heading.append(line)
            continue
        slot = _slot(line)
        copied = slot[0].startswith((*_AS_CAPTURED, _INFO)) and slot not in known
        if not copied and slot not in known:
            continue
        if not open_family:
            yield "\n".join(heading) + "\n"
            open_family = True
        if copied:
            yield line + "\n"
        else:
            yield line.rpartition(" ")[0] + " "
            yield slot
            yield "\n"


def _slot(line: str) -> Slot:
    """Which number a sample line shows."""
    found = _SAMPLE.fullmatch(line)
    assert found is not None, f"not a sample: {line}"
    telling = _TELLING.search(found[2] or "")
    if telling is None:
        return found[1], ""
    return found[1], float(telling[2]) if telling[1] == "le" else telling[2]


@cache
def _known() -> frozenset[Slot]:
    """Every slot there is a number for."""
    return frozenset(_values(_idle()))


def _values(numbers: ReplicaNumbers) -> Values:
    """All numbers of one replica by slot."""
    values = dict(_scalars(numbers))
    values.update(_by_label(numbers))
    for name, buckets, sum_ in _histograms(numbers):
        values.update(buckets)
        values[f"{name}_count", ""] = buckets[f"{name}_bucket", math.inf]
        values[f"{name}_sum", ""] = sum_
    names = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name, _ in values}
    names |= {"vllm:iteration_tokens_total"}  # a histogram, despite its suffix
    created = {
        (f"{name}_created", label): numbers.started_at_s
        for name in names
        for label in ("", *_LABELS.get(name, ()))
    }
    return values | created | {(_STARTED, ""): numbers.started_at_s}


_LABELS: Mapping[str, tuple[str, ...]] = {
    "vllm:request_success": ("stop", "length", "abort", "error", "repetition"),
    "vllm:admission_rejections": ("max_num_queued_reqs", "max_num_queued_tokens"),
    "vllm:prompt_tokens_by_source": ("local_compute", "local_cache_hit", "external_kv_transfer"),
    "vllm:prompt_tokens_cached_by_source": (
        "device", "host", "p2p", "disk", "external_unspecified",
    ),
}  # fmt: skip


def _scalars(numbers: ReplicaNumbers) -> Iterator[tuple[Slot, float]]:
    get = numbers.get
    usage_ratio = get("blocks_used") / numbers.counters.kv_blocks_usable
    for name, value in (
        ("num_requests_running", get("requests_running")),
        ("num_requests_waiting", get("requests_waiting")),
        ("kv_cache_usage_perc", usage_ratio),
        ("prefix_cache_queries_total", get("prefix_cache_queries")),
        ("prefix_cache_hits_total", get("prefix_cache_hits")),
        ("num_preemptions_total", get("preemptions")),
        ("prompt_tokens_total", get("prompt_tokens")),
        ("prompt_tokens_cached_total", get("prompt_tokens_cached")),
        ("generation_tokens_total", get("generation_tokens")),
    ):
        yield (f"vllm:{name}", ""), value


def _by_label(numbers: ReplicaNumbers) -> Iterator[tuple[Slot, float]]:
    """Families with one series for each reason or source; what never happens here is zero."""
    get = numbers.get
    cached = get("prompt_tokens_cached")
    yield ("vllm:num_requests_waiting_by_reason", "capacity"), get("requests_waiting")
    yield ("vllm:num_requests_waiting_by_reason", "deferred"), 0.0
    happening = {
        ("vllm:request_success", "stop"): get("finished_stop"),
        ("vllm:request_success", "abort"): get("finished_abort"),
        ("vllm:admission_rejections", "max_num_queued_reqs"): get("admission_rejections"),
        ("vllm:prompt_tokens_by_source", "local_compute"): get("prompt_tokens") - cached,
        ("vllm:prompt_tokens_by_source", "local_cache_hit"): cached,
        ("vllm:prompt_tokens_cached_by_source", "device"): cached,
    }
    for name, labels in _LABELS.items():
        for label in labels:
            yield (f"{name}_total", label), happening.get((name, label), 0.0)


def _histograms(numbers: ReplicaNumbers) -> Iterator[tuple[str, dict[Slot, float], float]]:
    """Name, cumulative buckets and sum of each histogram."""
    get, counters = numbers.get, numbers.counters
    for name, bounds, buckets, sum_ in (
        ("time_to_first_token_seconds", TTFT_BOUNDS_S, counters.ttft_buckets, get("ttft_sum_s")),
        ("inter_token_latency_seconds", ITL_BOUNDS_S, counters.itl_buckets, get("itl_sum_s")),
        ("e2e_request_latency_seconds", REQUEST_BOUNDS_S, counters.e2e_buckets, get("e2e_sum_s")),
        ("request_queue_time_seconds", REQUEST_BOUNDS_S, counters.queue_buckets,
         get("queue_sum_s")),
        ("iteration_tokens_total", ITERATION_BOUNDS_TOKENS, counters.iteration_buckets,
         get("iteration_tokens_sum")),
    ):  # fmt: skip
        yield f"vllm:{name}", _cumulative(f"vllm:{name}", bounds, buckets[numbers.row]), sum_
    finished = get("finished_stop") + get("finished_abort")
    for name, tokens in (
        ("request_prompt_tokens", get("finished_prompt_tokens")),
        ("request_generation_tokens", get("finished_output_tokens")),
    ):
        yield f"vllm:{name}", {(f"vllm:{name}_bucket", math.inf): finished}, tokens


def _cumulative(name: str, bounds: tuple[float, ...], buckets: Ints) -> dict[Slot, float]:
    counts = np.cumsum(buckets)
    return {
        (f"{name}_bucket", bound): float(count)
        for bound, count in zip((*bounds, math.inf), counts, strict=True)
    }


def _idle() -> ReplicaNumbers:
    """A replica that has done nothing."""

    def none(bounds: tuple[float, ...]) -> Ints:
        return np.zeros((1, len(bounds) + 1), dtype=np.int64)

    return ReplicaNumbers(
        row=0,
        started_at_s=0.0,
        counters=FleetCounters(
            at_s=0.0,
            uids=np.zeros(1, dtype=np.int64),
            draining=np.zeros(1, dtype=np.bool_),
            values=np.zeros(1, dtype=COUNTERS),
            ttft_buckets=none(TTFT_BOUNDS_S),
            itl_buckets=none(ITL_BOUNDS_S),
            e2e_buckets=none(REQUEST_BOUNDS_S),
            queue_buckets=none(REQUEST_BOUNDS_S),
            iteration_buckets=none(ITERATION_BOUNDS_TOKENS),
            kv_blocks_usable=1,
            gateway_waiting=0,
            gateway_rejections=0,
        ),
    )
