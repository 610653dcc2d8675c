"""Pages that are broken, foreign, huge or random: refused with a cause, never an exception."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.core.model import Cause, NoData
from scaler.signals import vllm
from scaler.signals.samples import PodSample
from tests.signals.pages import READER, SATURATED, read, refuse, vllm_page, with_value


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
@pytest.mark.parametrize(
    "name",
    ["vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:generation_tokens_total"],
)
def test_a_number_that_is_none_is_named(name: str, value: str) -> None:
    missing = refuse(with_value(SATURATED, name, value))
    assert missing.cause is Cause.NOT_A_NUMBER
    assert name in missing.detail


@pytest.mark.parametrize("value", ["-1", "1e300"])
def test_a_number_that_counts_nothing_is_refused(value: str) -> None:
    missing = refuse(with_value(SATURATED, "vllm:num_requests_waiting", value))
    assert missing.cause is Cause.MALFORMED
    assert "vllm:num_requests_waiting" in missing.detail


@pytest.mark.parametrize(
    ("page", "cause", "says"),
    [
        ("", Cause.ABSENT, "nothing"),
        ("# HELP a b\n# TYPE a gauge\n", Cause.ABSENT, "nothing"),
        ("process_start_time_seconds 1\nup 1\n", Cause.ABSENT, "process_start_time_seconds"),
        ("<html><body>404</body></html>\n", Cause.ABSENT, "port"),
        ("\x00\x01\xff\x02\n", Cause.ABSENT, "port"),
        ("vllm_num_requests_waiting 3\n", Cause.NO_MATCH, "vllm:"),
        ('ray_vllm_num_requests_running{a="b"} 3\n', Cause.NO_MATCH, "vllm-on-ray-serve"),
        ("sglang:num_running_reqs 3\n", Cause.NO_MATCH, "sglang"),
        ("vllm:num_requests_running", Cause.MALFORMED, "cut off"),
        ("vllm:num_requests_running three\n", Cause.MALFORMED, ""),
        ("vllm:num_requests_running{ 3\n", Cause.MALFORMED, ""),
        ('vllm:num_requests_running{engine="0} 3\n', Cause.MALFORMED, ""),
        ("vllm:num_requests_running\n", Cause.ABSENT, ""),
    ],
)
def test_a_page_that_is_not_vllms_says_what_it_is(page: str, cause: Cause, says: str) -> None:
    missing = refuse(page)
    assert missing.cause is cause
    assert says in missing.detail
    assert missing.detail.startswith("vllm-0: ")


def test_a_huge_page_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "PAGE_CHARS_MAX", len(SATURATED))
    read(SATURATED)
    assert refuse(SATURATED + "\n").cause is Cause.MALFORMED


def sound(sample: PodSample | NoData) -> None:
    """Every number of a sample is finite and not negative."""
    if isinstance(sample, NoData):
        assert sample.detail
        return
    for name in PodSample.__dataclass_fields__:
        value = getattr(sample, name)
        if isinstance(value, float):
            assert math.isfinite(value), name
            assert value >= 0.0, name
    for histogram in (sample.ttft, sample.itl):
        if histogram is not None:
            assert list(histogram.counts) == sorted(histogram.counts)
            assert all(0.0 <= count < math.inf for count in histogram.counts)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    sound(READER.from_page(text, pod="p", at_s=0.0))
    sound(READER.from_page(f"vllm:num_requests_running{text}\n", pod="p", at_s=0.0))
    sound(READER.from_page(f"vllm:num_requests_running{{{text}}} 1\n", pod="p", at_s=0.0))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    sound(READER.from_page(raw.decode("latin-1"), pod="p", at_s=0.0))


SMALL = "".join(
    line
    for line in vllm_page("composed-v1-0.9.2-saturated").splitlines(keepends=True)
    if not line.startswith("#")
)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SMALL)), st.integers(0, 30), st.sampled_from('{}",= \n\\e-+.9Nx\t#é')
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, len(SMALL)),
)
def test_a_mutated_or_cut_page_is_read_or_refused(
    edits: list[tuple[int, int, str]], cut: int
) -> None:
    page = SMALL
    for place, gone, put in edits:
        page = page[:place] + put + page[place + gone :]
    sound(READER.from_page(page, pod="p", at_s=0.0))
    sound(READER.from_page(page[:cut], pod="p", at_s=0.0))
    sound(READER.from_page(page[:cut].rpartition("\n")[0] + "\n", pod="p", at_s=0.0))


@pytest.mark.parametrize("cut", range(1000, len(SATURATED), 6007))
def test_a_page_that_is_cut_off_inside_a_line_is_refused(cut: int) -> None:
    missing = refuse(SATURATED[:cut].rstrip("\n"))
    assert missing.cause is Cause.MALFORMED
