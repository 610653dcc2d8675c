"""Names that vLLM's profile reads: on a captured page, or of a stated other version."""

import re

from scaler.signals.profiles import VLLM
from tests.signals.pages import VLLM_PAGES

# Name, the versions of vLLM that export it, the name that took its place.
OTHER_VERSIONS = {
    "vllm:num_requests_swapped": ("0.4.0 to 0.8.5, V0 engine", ""),
    "vllm:gpu_cache_usage_perc": ("0.4.0 to 0.11", "vllm:kv_cache_usage_perc"),
    "vllm:gpu_prefix_cache_hits_total": ("0.7.3 to 0.11", "vllm:prefix_cache_hits_total"),
    "vllm:time_per_output_token_seconds_bucket": (
        "0.4.0 to 0.14",
        "vllm:inter_token_latency_seconds_bucket",
    ),
}


def names_of_the_profile() -> list[str]:
    return [*VLLM.scalars(), *(f"{name}_bucket" for name in (*VLLM.ttft, *VLLM.itl))]


def captured_names() -> set[str]:
    return {
        re.split(r"[{ ]", line, maxsplit=1)[0]
        for path in VLLM_PAGES
        if not path.name.startswith("composed-")
        for line in path.read_text().splitlines()
        if not line.startswith("#")
    }


def test_every_name_is_on_a_captured_page_or_of_a_stated_version() -> None:
    captured = captured_names()
    assert len(captured) > 100
    for name in names_of_the_profile():
        assert (name in captured) != (name in OTHER_VERSIONS), name
    assert set(OTHER_VERSIONS) <= set(names_of_the_profile())


def test_a_name_of_the_past_comes_after_the_one_that_took_its_place() -> None:
    """The first name that is there is read, and some versions export both."""
    names = names_of_the_profile()
    for old, (_, new) in OTHER_VERSIONS.items():
        if new:
            assert new in captured_names()
            assert names.index(new) < names.index(old)


def test_no_name_that_never_existed_is_read() -> None:
    """Names that dashboards and autoscalers copy from each other; no version has them."""
    never = ("gpu_memory_usage", "gpu_utilization", "queue_size", "num_requests_success_total")
    assert not {f"vllm:{name}" for name in never} & set(names_of_the_profile())
    assert not [name for name in names_of_the_profile() if name.endswith("_created")]
