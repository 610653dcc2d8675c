"""DCGM pages: units, which field, whose GPU, and what is no utilisation at all."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.core.model import Cause, NoData
from scaler.signals import dcgm
from scaler.signals.dcgm import DcgmReader
from scaler.signals.readers import CompactRow, PodKey
from scaler.signals.samples import GpuSample
from tests.signals.pages import dcgm_page, with_value, without

READER = DcgmReader()
UTIL = "DCGM_FI_DEV_GPU_UTIL"
ENGINE = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
SM = "DCGM_FI_PROF_SM_ACTIVE"
DRAM = "DCGM_FI_PROF_DRAM_ACTIVE"
BUSY = ("llm", "vllm-llama-7c9f8d6b5-abcde")
DECODING = ("llm", "vllm-llama-7c9f8d6b5-fghij")


def read(page: str) -> Mapping[PodKey, GpuSample]:
    samples = READER.from_page(page, at_s=7.0)
    assert not isinstance(samples, NoData), samples
    return samples


def refuse(page: str) -> NoData:
    samples = READER.from_page(page, at_s=7.0)
    assert isinstance(samples, NoData), samples
    assert samples.detail
    return samples


def from_rows(*rows: CompactRow) -> GpuSample | NoData:
    return READER.from_rows(rows, pod="p", at_s=7.0)


@pytest.mark.parametrize("name", ["sample", "sample-default-counters"])
def test_percent_becomes_a_ratio_and_an_idle_gpu_of_nobody_is_left_out(name: str) -> None:
    samples = read(dcgm_page(name))
    assert samples == {
        BUSY: GpuSample(pod=BUSY[1], at_s=7.0, utilisation_ratio=0.99, field=UTIL),
        DECODING: GpuSample(pod=DECODING[1], at_s=7.0, utilisation_ratio=0.97, field=UTIL),
    }


def test_mig_slices_have_the_engine_field_each_for_its_pod() -> None:
    samples = read(dcgm_page("sample-mig"))
    assert {key[1]: (one.utilisation_ratio, one.field) for key, one in samples.items()} == {
        "vllm-small-66d7c8f9b-aaaaa": (0.98531, ENGINE),
        "vllm-small-66d7c8f9b-bbbbb": (0.962014, ENGINE),
    }


def test_slices_of_one_gpu_for_one_pod_are_told_apart() -> None:
    page = dcgm_page("sample-mig").replace("-bbbbb", "-aaaaa")
    page = page.replace("0.985310", "0.1")
    (sample,) = read(page).values()
    assert sample.utilisation_ratio == 0.962014  # the busier of 0.1 and 0.962014


def test_fields_in_the_order_in_which_they_are_believed() -> None:
    page = dcgm_page("sample")
    assert read(page)[DECODING].field == UTIL
    page = without(page, UTIL)
    assert read(page)[DECODING].field == ENGINE
    assert read(page)[DECODING].utilisation_ratio == 0.962014
    page = without(page, ENGINE)
    # SM 0.8742 and DRAM 0.633 of the busy GPU, SM 0.2913 and DRAM 0.342 of the decoding one.
    assert (read(page)[BUSY].field, read(page)[BUSY].utilisation_ratio) == (SM, 0.8742)
    assert (read(page)[DECODING].field, read(page)[DECODING].utilisation_ratio) == (DRAM, 0.342)
    assert refuse(without(page, SM, DRAM)).cause is Cause.ABSENT


@pytest.mark.parametrize(
    ("namespace_label", "pod_label"),
    [
        ("namespace", "pod"),
        ("exported_namespace", "exported_pod"),
        ("pod_namespace", "pod_name"),
        ("namespace", "pod_name"),
    ],
)
def test_any_label_that_names_the_pod(namespace_label: str, pod_label: str) -> None:
    page = dcgm_page("sample").replace(",namespace=", f",{namespace_label}=")
    assert set(read(page.replace(",pod=", f",{pod_label}="))) == {BUSY, DECODING}


def test_the_exporters_own_pod_is_not_the_gpus() -> None:
    page = dcgm_page("sample").replace(",namespace=", ",exported_namespace=")
    page = page.replace(",pod=", ',namespace="gpu-operator",pod="dcgm-1",exported_pod=')
    assert set(read(page)) == {BUSY, DECODING}


def test_the_busiest_gpu_of_a_pod_counts() -> None:
    page = dcgm_page("sample").replace(DECODING[1], BUSY[1])
    assert {key: one.utilisation_ratio for key, one in read(page).items()} == {BUSY: 0.99}


def test_zero_is_zero_and_absent_is_absent() -> None:
    samples = read(with_value(dcgm_page("sample"), UTIL, "0"))
    assert samples[BUSY].utilisation_ratio == 0.0
    assert samples[BUSY].field == UTIL  # a coarse zero is believed, whatever finer fields say
    missing = from_rows(("DCGM_FI_DEV_FB_USED", (("UUID", "a"),), 75887.0))
    assert isinstance(missing, NoData)
    assert missing.cause is Cause.ABSENT


def test_rows_of_a_query_that_has_kept_no_device() -> None:
    sample = from_rows((UTIL, (), 40.0), (DRAM, (), 0.7))
    assert sample == GpuSample(pod="p", at_s=7.0, utilisation_ratio=0.4, field=UTIL)


def test_devices_choose_their_field_each_for_itself() -> None:
    one, other = (("UUID", "a"),), (("UUID", "b"),)
    sample = from_rows((UTIL, one, 40.0), (ENGINE, one, 0.9), (ENGINE, other, 0.6))
    assert sample == GpuSample(pod="p", at_s=7.0, utilisation_ratio=0.6, field=ENGINE)


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        (UTIL, math.nan, Cause.NOT_A_NUMBER),
        (ENGINE, math.inf, Cause.NOT_A_NUMBER),
        (UTIL, 9223372036854775794.0, Cause.MALFORMED),  # DCGM_INT64_BLANK + 2: not supported
        (UTIL, -1.0, Cause.MALFORMED),
        (ENGINE, 97.0, Cause.MALFORMED),  # a percentage where a ratio belongs
    ],
)
def test_what_is_no_utilisation_is_named(name: str, value: float, cause: Cause) -> None:
    missing = from_rows((name, (), value))
    assert isinstance(missing, NoData)
    assert missing.cause is cause
    assert name in missing.detail
    assert isinstance(from_rows((name, (), value), (DRAM, (), 0.5)), GpuSample)


def test_a_rounding_above_one_is_one() -> None:
    sample = from_rows((ENGINE, (), 1.004))
    assert isinstance(sample, GpuSample)
    assert sample.utilisation_ratio == 1.0


@pytest.mark.parametrize(
    ("page", "cause"),
    [
        ("", Cause.ABSENT),
        ("vllm:num_requests_running 3\n", Cause.ABSENT),
        (f"{UTIL}_OTHER 3\n", Cause.ABSENT),
        (f'{UTIL}{{gpu="0"', Cause.MALFORMED),
        (f'{UTIL}{{gpu="0" 3\n', Cause.MALFORMED),
        (f"{UTIL} three\n", Cause.MALFORMED),
    ],
)
def test_a_page_that_is_not_dcgms(page: str, cause: Cause) -> None:
    assert refuse(page).cause is cause


def test_a_huge_page_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    page = dcgm_page("sample")
    monkeypatch.setattr(dcgm, "PAGE_CHARS_MAX", len(page))
    read(page)
    assert refuse(page + "\n").cause is Cause.MALFORMED


MIG = "".join(
    line for line in dcgm_page("sample-mig").splitlines(keepends=True) if "PROF" in line[:20]
)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(MIG)), st.integers(0, 30), st.sampled_from('{}",= \n\\e-+.9Nx\t#é')
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, len(MIG)),
)
def test_a_mutated_or_cut_page_is_read_or_refused(
    edits: list[tuple[int, int, str]], cut: int
) -> None:
    page = MIG
    for place, gone, put in edits:
        page = page[:place] + put + page[place + gone :]
    for text in (page, page[:cut], page[:cut].rpartition("\n")[0] + "\n"):
        samples = READER.from_page(text, at_s=0.0)
        if isinstance(samples, NoData):
            assert samples.detail
        else:
            assert all(0.0 <= one.utilisation_ratio <= 1.0 for one in samples.values())


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    READER.from_page(text, at_s=0.0)
    READER.from_page(f"{UTIL}{text}\n", at_s=0.0)
    READER.from_page(f"{UTIL}{{{text}}} 1\n", at_s=0.0)
