"""Pages of simulated replicas: in the captured page's shape, with the fleet's own numbers."""

import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from scaler.core.model import NoData
from scaler.demo.dcgm_page import GpuMeter, GpuUse, Placed, dcgm_page
from scaler.demo.vllm_page import PageWriter, ReplicaNumbers
from scaler.signals.dcgm import DcgmReader
from scaler.signals.samples import GpuSample, PodSample
from scaler.signals.vllm import VllmReader
from simulations.cluster import Fleet
from simulations.fleet_counters import FleetCounters
from simulations.presets import PRESETS

MODEL = PRESETS["llama-3.1-70b-h100-tp4"].model
DATA = Path(__file__).parents[1] / "data"
CAPTURED = (DATA / "vllm" / "0.32.0-ramp.prom").read_text()
STARTED_AT_S = 1_800_000_100.0


@cache
def counters() -> FleetCounters:
    """Two replicas in the middle of too much work: requests run, wait and have finished."""
    fleet = Fleet(model=MODEL, seed=3)
    fleet.start_warm(2)
    fleet.load(
        arrival_at_s=np.arange(0.0, 60.0, 0.02),
        prompt_tokens=np.full(3000, 1000),
        output_tokens=np.full(3000, 100),
    )
    fleet.advance(50.0)
    return fleet.counters()


def page(row: int) -> str:
    uid = int(counters().uids[row])
    numbers = ReplicaNumbers.of(counters(), uid, started_at_s=STARTED_AT_S)
    return PageWriter(MODEL, "chat").page(numbers)


def read(row: int) -> PodSample:
    sample = VllmReader().from_page(page(row), pod="p", at_s=5.0)
    assert isinstance(sample, PodSample), sample
    return sample


@pytest.mark.parametrize("row", [0, 1])
def test_the_reader_finds_the_fleets_counters(row: int) -> None:
    sample, values = read(row), counters().values[row]
    assert sample.model_names == ("chat",)
    assert values["requests_waiting"] > 0, "a page of an idle replica would show nothing"
    assert values["finished_stop"] > 0
    assert sample.running == values["requests_running"]
    assert sample.waiting == values["requests_waiting"]
    assert sample.finished == values["finished_stop"] + values["finished_abort"]
    assert sample.rejected == values["admission_rejections"]
    assert sample.prompt_tokens == values["prompt_tokens"]
    assert sample.cached_tokens == values["prompt_tokens_cached"]
    assert sample.output_tokens == values["generation_tokens"]
    assert sample.preemptions == values["preemptions"]
    assert sample.engine_steps == values["iterations"]
    assert sample.finished_prompt_tokens == values["finished_prompt_tokens"]
    assert sample.finished_output_tokens == values["finished_output_tokens"]
    assert sample.kv_mean_ratio == values["blocks_used"] / (MODEL.kv_blocks - 1)
    assert sample.kv_capacity_tokens == MODEL.kv_capacity_tokens
    assert sample.started_at_s == STARTED_AT_S
    assert not sample.asleep


@pytest.mark.parametrize("row", [0, 1])
def test_histograms_are_cumulative_and_complete(row: int) -> None:
    sample = read(row)
    for histogram, buckets in (
        (sample.ttft, counters().ttft_buckets[row]),
        (sample.itl, counters().itl_buckets[row]),
    ):
        assert histogram is not None
        assert histogram.bounds_s[-1] == math.inf
        assert np.diff([0.0, *histogram.counts]).tolist() == buckets.tolist()
        assert histogram.counts[-1] > 0


def names_and_labels(text: str) -> list[str]:
    """What is before the value, of every sample line, without the model's own labels."""
    found = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    found = [re.sub(r'model_name="[^"]*"', "model_name", line) for line in found]
    return [re.sub(r"(cache_config_info){.*", r"\1", line) for line in found]


def test_every_series_is_one_of_the_captured_page_in_its_order() -> None:
    captured = names_and_labels(CAPTURED)
    places = {line: place for place, line in enumerate(captured)}
    own = [places[line] for line in names_and_labels(page(0))]  # a KeyError names a strange one
    assert own == sorted(own)
    assert len(own) == len(set(own))


def test_headings_are_the_captured_ones() -> None:
    headings = {line for line in CAPTURED.splitlines() if line.startswith("#")}
    own = [line for line in page(0).splitlines() if line.startswith("#")]
    assert set(own) <= headings
    assert len(own) == len(set(own))


def test_what_the_simulator_cannot_know_is_left_out() -> None:
    text = page(0)
    for name in ("request_params_n", "request_decode_time_seconds", "request_num_preemptions"):
        assert f"vllm:{name}" in CAPTURED
        assert f"vllm:{name}" not in text
    assert "http_requests_total" not in text


def test_the_cache_is_described_in_the_label_set_of_the_captured_page() -> None:
    def labels(text: str) -> dict[str, str]:
        (line,) = re.findall(r"^vllm:cache_config_info(.*) 1.0$", text, re.MULTILINE)
        return dict(re.findall(r'(\w+)="([^"]*)"', line))

    own, captured = labels(page(0)), labels(CAPTURED)
    assert own.keys() == captured.keys()
    assert own["num_gpu_blocks"] == str(MODEL.kv_blocks)
    assert own["block_size"] == str(MODEL.block_size)


def test_the_packaged_page_is_the_captured_one() -> None:
    packaged = Path(__file__).parents[2] / "scaler" / "demo" / "vllm-0.32.prom"
    assert packaged.read_text() == CAPTURED


# DCGM

PLACED = (
    Placed(uid=0, namespace="llm", pod="chat-a", node="gpu-1", gpus=(0, 1, 2, 3)),
    Placed(uid=1, namespace="llm", pod="chat-b", node="gpu-1", gpus=(4, 5, 6, 7)),
)


def test_the_reader_finds_each_pods_use() -> None:
    uses = {0: GpuUse(busy_ratio=0.9, prefill_ratio=0.4), 1: GpuUse()}
    found = DcgmReader().from_page(dcgm_page(PLACED, uses, nodes={"gpu-1": 8}), at_s=7.0)
    assert not isinstance(found, NoData)
    assert found == {
        ("llm", "chat-a"): GpuSample(
            pod="chat-a", at_s=7.0, utilisation_ratio=0.9, field="DCGM_FI_DEV_GPU_UTIL"
        ),
        ("llm", "chat-b"): GpuSample(
            pod="chat-b", at_s=7.0, utilisation_ratio=0.0, field="DCGM_FI_DEV_GPU_UTIL"
        ),
    }


def test_fields_follow_from_busy_time_and_prefill() -> None:
    # 0.4 of prefill and 0.5 of decode: tensor cores 0.62 * 0.4 + 0.06 * 0.5 = 0.278,
    # memory 0.35 * 0.4 + 0.72 * 0.5 = 0.5.
    use = GpuUse(busy_ratio=0.9, prefill_ratio=0.4)
    assert use.fields() == ("90", "0.900000", "0.278000", "0.500000")


def test_labels_are_those_of_a_captured_page() -> None:
    def label_names(text: str, *, of_pods: bool) -> set[tuple[str, ...]]:
        lines = [line for line in text.splitlines() if line.startswith("DCGM_FI_DEV_GPU_UTIL")]
        chosen = [line for line in lines if ("pod=" in line) is of_pods]
        return {tuple(re.findall(r"(\w+)=", line)) for line in chosen}

    captured = (DATA / "dcgm" / "sample-default-counters.prom").read_text()
    own = dcgm_page(PLACED[:1], {}, nodes={"gpu-1": 8})
    for of_pods in (True, False):
        assert label_names(own, of_pods=of_pods) == label_names(captured, of_pods=of_pods) != set()


def test_values_stand_still_for_the_exporters_interval() -> None:
    meter = GpuMeter(MODEL)
    first = meter.uses(counters(), 0.0)
    assert meter.uses(counters(), 29.0) is first
    later = meter.uses(counters(), 30.0)
    assert later is not first
    assert all(use.busy_ratio == 0.0 for use in later.values()), "the same counters: nothing done"


def test_a_busy_replica_is_measured_busy() -> None:
    """A replica first seen in this interval counts from zero: 50 s of work, capped at the whole."""
    meter = GpuMeter(MODEL)
    empty = Fleet(model=MODEL, seed=1)
    meter.uses(empty.counters(), 0.0)
    uses = meter.uses(counters(), 50.0)
    for row, uid in enumerate(counters().uids):
        busy_s = float(counters().values["busy_s"][row])
        tokens = float(counters().values["prefill_tokens_computed"][row])
        assert uses[int(uid)].busy_ratio == pytest.approx(busy_s / 50.0)
        prefill = tokens * MODEL.step.prefill_per_token_s / 50.0
        assert uses[int(uid)].prefill_ratio == pytest.approx(min(prefill, busy_s / 50.0))
        assert uses[int(uid)].busy_ratio > 0.9
