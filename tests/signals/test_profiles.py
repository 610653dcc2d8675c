"""Names of engines: on a page at least once, asked for once, read by the same path."""

import re

from scaler.signals.profiles import PROFILES, VLLM, Selector
from scaler.signals.vllm import VllmReader
from tests.signals.pages import VLLM_PAGES, read


def test_names_are_asked_for_once_and_without_selectors() -> None:
    for profile in PROFILES.values():
        names = profile.engine_names()
        asked = (*names.queue, *names.work, *names.kv_cache, *names.info)
        assert len(asked) == len(set(asked)), profile.name
        assert all(re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", name) for name in asked)
        assert set(names.times) <= set(asked)
        assert profile.tested == (profile.name == "vllm")


def test_vllm_names_were_all_seen_on_a_page() -> None:
    """Except those of versions of which there is no page."""
    unseen = {"vllm:gpu_prefix_cache_hits_total"}
    seen = {
        re.split(r"[{ ]", line, maxsplit=1)[0]
        for path in VLLM_PAGES
        for line in path.read_text().splitlines()
    }
    for name in (*VLLM.scalars(), *(f"{name}_bucket" for name in (*VLLM.ttft, *VLLM.itl))):
        assert (name in seen) != (name in unseen), name


def test_every_profile_reads_its_own_names() -> None:
    for profile in PROFILES.values():
        lines = []
        for value, entry in enumerate((*profile.running, *profile.waiting), start=3):
            selector = Selector.of(entry)
            labels = f'{selector.label}="{selector.value}"' if selector else 'tp_rank="0"'
            lines.append(f"{selector.name if selector else entry}{{{labels}}} {value}\n")
        sample = read("".join(lines), reader=VllmReader(profile))
        assert (sample.running, sample.waiting) == (3.0, 4.0), profile.name


def test_ranks_of_one_engine_are_not_added() -> None:
    page = "".join(
        f'sglang:num_running_reqs{{model_name="m",tp_rank="{rank}"}} 5\n'
        f'sglang:num_queue_reqs{{model_name="m",tp_rank="{rank}"}} 2\n'
        f'sglang:num_grammar_queue_reqs{{model_name="m",tp_rank="{rank}"}} 1\n'
        for rank in range(4)
    )
    sample = read(page, reader=VllmReader(PROFILES["sglang"]))
    assert (sample.running, sample.waiting) == (5.0, 3.0)


def test_one_metric_that_holds_several_things() -> None:
    page = "".join(
        f'nv_trt_llm_request_metrics{{model="m",request_type="{kind}"}} {value}\n'
        for kind, value in (("waiting", 4), ("scheduled", 3), ("active", 7), ("max", 64))
    )
    page += 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m"} 0.25\n'
    page += 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m"} 1000\n'
    sample = read(page, reader=VllmReader(PROFILES["triton"]))
    assert (sample.running, sample.waiting, sample.kv_max_ratio) == (3.0, 4.0, 0.25)
