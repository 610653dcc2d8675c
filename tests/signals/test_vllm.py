"""Pages of vLLM 0.4 to 0.33 and of others: what is read, and why something is not."""

import math
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scaler.core.model import Cause, NoData
from scaler.signals.profiles import VLLM
from scaler.signals.readers import CompactRow
from scaler.signals.samples import PodSample
from tests.signals.pages import (
    READER,
    SATURATED,
    VLLM_PAGES,
    read,
    refuse,
    vllm_page,
    with_value,
    without,
)

MODEL = "tiny-llama"


@pytest.mark.parametrize(
    ("name", "queue", "kv_ratio", "counted"),
    [
        # The table of the captures: (running, waiting), KV in usable blocks of 15,
        # (preemptions, rejections).
        ("idle", (0.0, 0.0), 0.0, (0.0, 0.0)),
        ("light", (2.0, 0.0), 4 / 15, (0.0, 0.0)),
        ("ramp", (4.0, 36.0), 13 / 15, (0.0, 0.0)),
        ("saturated", (3.0, 6.0), 1.0, (33.0, 0.0)),
        ("draining", (1.0, 0.0), 6 / 15, (38.0, 0.0)),
        ("idle-after", (0.0, 0.0), 0.0, (38.0, 0.0)),
        ("rejecting", (7.0, 37.0), 14 / 15, (38.0, 16.0)),
    ],
)
def test_captured_pages(
    name: str, queue: tuple[float, float], kv_ratio: float, counted: tuple[float, float]
) -> None:
    sample = read(vllm_page(f"0.32.0-{name}"))
    assert (sample.running, sample.waiting) == queue
    assert sample.deferred == 0.0
    assert sample.kv_mean_ratio == pytest.approx(kv_ratio)
    assert sample.kv_max_ratio == sample.kv_mean_ratio
    assert (sample.preemptions, sample.rejected) == counted
    assert sample.kv_capacity_tokens == 2048.0
    assert sample.model_names == (MODEL,)
    assert (sample.pod, sample.at_s, sample.asleep) == ("vllm-0", 7.0, False)


def test_every_counter_of_a_captured_page() -> None:
    sample = read(SATURATED)
    assert sample.finished == 39.0  # stop 0 + length 39 + abort 0 + error 0 + repetition 0
    assert (sample.prompt_tokens, sample.cached_tokens) == (10503.0, 0.0)
    assert sample.output_tokens == 15294.0
    assert sample.engine_steps == 5405.0  # iteration_tokens_total_count; its _sum is 25797
    assert (sample.finished_prompt_tokens, sample.finished_output_tokens) == (9132.0, 14740.0)
    assert sample.started_at_s == 1795217213.58


def test_histograms_have_the_bounds_and_counts_of_the_page() -> None:
    sample = read(SATURATED)
    assert sample.ttft is not None
    assert sample.ttft.bounds_s[:2] == (0.001, 0.005)
    assert sample.ttft.bounds_s[-2:] == (2560.0, math.inf)
    assert sample.ttft.counts[-1] == 43.0  # time_to_first_token_seconds_count
    assert sample.itl is not None
    assert (len(sample.itl.bounds_s), sample.itl.counts[-1]) == (20, 15251.0)


def test_bounds_that_an_operator_chose_are_read_from_the_page() -> None:
    page = SATURATED.replace('le="2560.0"', 'le="3600.0"')
    ttft = read(page).ttft
    assert ttft is not None
    assert ttft.bounds_s[-2] == 3600.0


def test_counters_grow_through_the_captures_of_one_process() -> None:
    order = ("idle", "light", "ramp", "saturated", "draining", "idle-after", "rejecting")
    samples = [read(vllm_page(f"0.32.0-{name}")) for name in order]
    assert len({sample.started_at_s for sample in samples}) == 1
    for name in ("finished", "prompt_tokens", "output_tokens", "preemptions", "engine_steps"):
        values = [getattr(sample, name) for sample in samples]
        assert values == sorted(values), name


def test_a_fresh_server_of_several_api_servers_has_no_gauges_and_runs_nothing() -> None:
    page = vllm_page("0.32.0-multiapi-idle")
    assert "vllm:num_requests_running{" not in page
    sample = read(page)
    assert (sample.running, sample.waiting, sample.deferred) == (0.0, 0.0, None)
    assert (sample.kv_mean_ratio, sample.kv_max_ratio) == (0.0, 0.0)
    assert (sample.finished, sample.started_at_s) == (0.0, None)
    busy = read(vllm_page("0.32.0-multiapi-rejecting"))
    assert (busy.running, busy.waiting, busy.rejected) == (4.0, 16.0, 10.0)


@pytest.mark.parametrize(
    ("gone", "unknown"),
    [
        (("vllm:num_requests_running",), ("running",)),
        (("vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason"), ("waiting",)),
        (("vllm:kv_cache_usage_perc",), ("kv_mean_ratio", "kv_max_ratio")),
        (("vllm:request_success_total", "vllm:e2e_request_latency_seconds_count"), ("finished",)),
        (("vllm:generation_tokens_total",), ("output_tokens",)),
        (("vllm:cache_config_info",), ("kv_capacity_tokens",)),
        (("vllm:admission_rejections_total",), ("rejected",)),
        (("process_start_time_seconds",), ("started_at_s",)),
        (("vllm:time_to_first_token_seconds_bucket",), ("ttft",)),
    ],
)
def test_what_a_busy_server_does_not_export_is_unknown_and_not_zero(
    gone: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    whole, sample = read(SATURATED), read(without(SATURATED, *gone))
    for name in PodSample.__dataclass_fields__:
        if name in unknown:
            assert getattr(sample, name) is None, name
        elif name != "deferred":
            assert getattr(sample, name) == getattr(whole, name), name


def test_all_gauges_gone_from_a_server_that_has_worked_is_no_idle_server() -> None:
    gauges = [name for name in VLLM.scalars() if "num_requests" in name or "usage_perc" in name]
    sample = read(without(SATURATED, *gauges))
    assert (sample.running, sample.waiting, sample.kv_mean_ratio) == (None, None, None)


def test_a_labelled_counter_that_appears_with_its_first_count_is_zero_before() -> None:
    gone = ("vllm:request_success_total", "vllm:e2e_request_latency_seconds_count")
    assert read(without(vllm_page("0.32.0-idle"), *gone)).finished == 0.0


def test_v0_names_and_labels() -> None:
    page = vllm_page("composed-v0-0.6.6-saturated")
    sample = read(page)
    assert (sample.running, sample.waiting, sample.deferred) == (3.0, 6.0, None)
    assert (sample.kv_mean_ratio, sample.kv_max_ratio) == (1.0, 1.0)  # gpu_cache_usage_perc
    assert (sample.finished, sample.preemptions, sample.rejected) == (39.0, 33.0, None)
    assert sample.ttft is not None
    assert sample.ttft.bounds_s[-2] == 10.0
    # Swapped-out requests of V0 wait for KV blocks: 6 + 2.
    assert read(with_value(page, "vllm:num_requests_swapped", "2")).waiting == 8.0


def test_before_0_4_3_finished_requests_are_those_with_a_latency() -> None:
    page = without(vllm_page("composed-v0-0.6.6-saturated"), "vllm:request_success_total")
    assert read(page).finished == 39.0  # e2e_request_latency_seconds_count


def test_two_names_of_the_kv_gauge_are_never_added() -> None:
    page = vllm_page("composed-v1-0.9.2-saturated")
    assert "vllm:gpu_cache_usage_perc{" in page
    assert "vllm:kv_cache_usage_perc{" in page
    assert read(with_value(page, "vllm:gpu_cache_usage_perc", "0.5")).kv_mean_ratio == 1.0
    only_old = without(page, "vllm:kv_cache_usage_perc")
    assert read(with_value(only_old, "vllm:gpu_cache_usage_perc", "0.5")).kv_mean_ratio == 0.5


def test_itl_by_its_newest_name() -> None:
    old = read(vllm_page("composed-v1-0.9.2-saturated"))
    assert old.itl is not None
    assert old.itl.counts[-1] == 15251.0  # time_per_output_token_seconds
    both = SATURATED + re.sub(
        r"inter_token_latency_seconds(_\w+\{[^}]*\}) \S+",
        r"time_per_output_token_seconds\1 9",
        "".join(line for line in SATURATED.splitlines(keepends=True) if "inter_token" in line[:40]),
    )
    assert read(both).itl == read(SATURATED).itl


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("prompt_tokens_cached_total", "prefix_cache_hits_total"), 5.0),
        (("prefix_cache_hits_total", "gpu_prefix_cache_hits_total"), 5.0),
        (("gpu_prefix_cache_hits_total",), 5.0),
        ((), None),
    ],
)
def test_cached_tokens_by_the_first_name_that_is_there(
    names: tuple[str, ...], expected: float | None
) -> None:
    known = ("prompt_tokens_cached_total", "prefix_cache_hits_total", "gpu_prefix_cache_hits_total")
    page = without(SATURATED, *(f"vllm:{name}" for name in known))
    for value, name in zip((5, 80), names, strict=False):
        page += f'vllm:{name}{{engine="0",model_name="{MODEL}"}} {value}\n'
    assert read(page).cached_tokens == expected


def test_queues_of_several_engines_add_up_and_kv_is_mean_and_maximum() -> None:
    sample = read(vllm_page("composed-dp2-saturated"))
    assert (sample.running, sample.waiting) == (6.0, 6.0)  # 3 + 3, 6 + 0
    assert sample.kv_mean_ratio == pytest.approx(0.6)  # (1.0 + 0.2) / 2
    assert sample.kv_max_ratio == 1.0
    assert (sample.finished, sample.output_tokens) == (78.0, 30588.0)
    assert sample.ttft is not None
    assert sample.ttft.counts[-1] == 86.0  # 43 + 43


def test_only_the_part_of_the_queue_that_replicas_can_help_is_waiting() -> None:
    page = SATURATED.replace('reason="capacity"} 6.0', 'reason="capacity"} 4.0').replace(
        'reason="deferred"} 0.0', 'reason="deferred"} 2.0'
    )
    sample = read(page)
    assert (sample.waiting, sample.deferred) == (4.0, 2.0)  # 6 - 2
    alone = read(without(page, "vllm:num_requests_waiting"))
    assert (alone.waiting, alone.deferred) == (4.0, 2.0)


def test_a_reason_of_a_later_version_counts_as_waiting() -> None:
    page = SATURATED.replace('reason="capacity"', 'reason="quota"')
    assert read(page).waiting == 6.0


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        ('block_size="16",num_gpu_blocks="100",kv_cache_size_tokens="1500"', 1500.0),
        ('block_size="16",num_gpu_blocks="100",kv_cache_size_tokens="None"', 1600.0),
        ('block_size="16",num_gpu_blocks="100"', 1600.0),
        ('block_size="16",num_gpu_blocks="None"', None),
        ('block_size="None",num_gpu_blocks="100"', None),
        ('block_size="nan",num_gpu_blocks="100"', None),
        ('block_size="-16",num_gpu_blocks="100"', None),
        ('block_size="1e300",num_gpu_blocks="1e300"', None),
    ],
)
def test_kv_capacity_from_labels_that_are_strings(labels: str, tokens: float | None) -> None:
    page = without(SATURATED, "vllm:cache_config_info")
    page += f'vllm:cache_config_info{{engine="0",{labels}}} 1.0\n'
    assert read(page).kv_capacity_tokens == tokens


def test_kv_capacity_of_each_engine_counts_once() -> None:
    page = without(SATURATED, "vllm:cache_config_info")
    for engine, extra in (("0", "a"), ("0", "b"), ("1", "a")):
        page += (
            f'vllm:cache_config_info{{engine="{engine}",cache_dtype="{extra}",block_size="16",'
            'num_gpu_blocks="100"} 1.0\n'
        )
    assert read(page).kv_capacity_tokens == 3200.0  # 2 engines of 16 * 100


@pytest.mark.parametrize(("awake", "asleep"), [("1.0", False), ("0.0", True)])
def test_a_sleeping_engine_is_named(awake: str, asleep: bool) -> None:
    page = SATURATED.replace('sleep_state="awake"} 1.0', f'sleep_state="awake"}} {awake}')
    assert read(page).asleep is asleep


def test_a_server_sleeps_when_all_its_engines_do() -> None:
    page = SATURATED.replace('sleep_state="awake"} 1.0', 'sleep_state="awake"} 0.0')
    page += f'vllm:engine_sleep_state{{engine="1",model_name="{MODEL}",sleep_state="awake"}} 1.0\n'
    assert read(page).asleep is False


def test_creation_times_are_never_counted() -> None:
    page = re.sub(r"(_created\{[^}]*\}) \S+", r"\1 9e14", SATURATED)
    assert page != SATURATED
    assert read(page) == read(SATURATED)


def test_a_series_given_twice_counts_once() -> None:
    series = re.findall(r"^vllm:(?!cache_config)[^\n]*\n", SATURATED, re.MULTILINE)
    assert read(SATURATED + "".join(series)) == read(SATURATED)


def test_only_the_model_that_is_asked_for() -> None:
    other = re.sub(r'model_name="[^"]*"', 'model_name="other"', vllm_page("0.32.0-rejecting"))
    both = SATURATED + other
    whole = read(both)
    assert whole.model_names == ("other", MODEL)
    assert whole.running == 10.0  # 3 + 7
    mine = read(both, model_name=MODEL)
    assert mine.model_names == (MODEL,)
    assert (mine.running, mine.waiting, mine.rejected) == (3.0, 6.0, 0.0)
    assert read(both, model_name="other").rejected == 16.0


def test_another_model_is_no_match_and_says_which_there_is() -> None:
    missing = refuse(SATURATED, model_name="Tiny-Llama")
    assert missing.cause is Cause.NO_MATCH
    assert "'Tiny-Llama'" in missing.detail
    assert "'tiny-llama'" in missing.detail


@pytest.mark.parametrize("kept", ["bucket", "counts"])
def test_a_histogram_that_is_not_one_is_left_out(kept: str) -> None:
    if kept == "bucket":  # the last bound is cut off
        page = re.sub(r"vllm:time_to_first\S*le=\"\+Inf\"\S* \S+\n", "", SATURATED)
    else:  # cumulative counts fall
        page = re.sub(r'(vllm:time_to_first\S*le="\+Inf"\S*) \S+\n', r"\1 2.0\n", SATURATED)
    assert page != SATURATED
    sample = read(page)
    assert sample.ttft is None
    assert sample.itl is not None


@pytest.mark.parametrize(("bound", "other"), [("80.0", "81.0"), ("0.001", "0.002")])
def test_engines_with_different_bounds_are_not_merged(bound: str, other: str) -> None:
    page = vllm_page("composed-dp2-saturated")
    mixed = re.sub(rf'(time_to_first\S*engine="1",le=)"{bound}"', rf'\1"{other}"', page)
    assert mixed != page
    assert read(mixed).ttft is None


@pytest.mark.parametrize("path", VLLM_PAGES, ids=lambda path: path.stem)
def test_rows_say_the_same_as_the_page(path: Path) -> None:
    page = path.read_text()
    wanted = set(VLLM.scalars())
    rows: list[CompactRow] = [
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name in wanted
    ]
    sample, whole = READER.from_rows(rows, pod="vllm-0", at_s=7.0), read(page)
    for name in PodSample.__dataclass_fields__.keys() - {"ttft", "itl"}:
        assert getattr(sample, name) == getattr(whole, name), name


def test_rows_of_nothing_wanted_are_absent() -> None:
    rows: list[CompactRow] = [("process_start_time_seconds", (), 1.0)]
    sample = READER.from_rows(rows, pod="vllm-0", at_s=7.0)
    assert isinstance(sample, NoData)
    assert sample.cause is Cause.ABSENT


def test_rows_without_a_number_are_named() -> None:
    rows: list[CompactRow] = [("vllm:num_requests_running", (), math.nan)]
    sample = READER.from_rows(rows, pod="vllm-0", at_s=7.0)
    assert isinstance(sample, NoData)
    assert sample.cause is Cause.NOT_A_NUMBER
