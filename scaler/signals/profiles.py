"""Metric names of inference engines as data: what is called what, in which version.

Alternatives are ordered: the first one that a page has is used and the others are left alone, so a
release that exports an old and a new name of the same thing is never counted twice.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scaler.signals.readers import EngineNames

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """The names of one engine.  ``tested`` profiles were read from captured pages.

    An empty tuple means that the engine has no such metric.  Gauges and counters are summed over
    engines, except ``kv_cache``; ``kv_factor`` converts that one to a ratio.  An entry may be
    ``name{label="value"}`` where one metric holds several things.
    """

    name: str
    tested: bool
    model_label: str
    running: Names
    waiting: Names
    waiting_more: Names = ()  # a further queue that the gauge above leaves out
    waiting_by_reason: Names = ()
    kv_cache: Names = ()
    kv_factor: float = 1.0
    finished: Names = ()
    rejected: Names = ()
    prompt_tokens: Names = ()
    cached_tokens: Names = ()
    output_tokens: Names = ()
    preemptions: Names = ()
    engine_steps: Names = ()
    finished_prompt_tokens: Names = ()
    finished_output_tokens: Names = ()
    ttft: Names = ()
    itl: Names = ()
    cache_info: Names = ()
    sleep_state: Names = ()
    started: Names = ()
    only_labels: tuple[tuple[str, str], ...] = ()  # e.g. one rank of several that agree

    def scalars(self) -> Names:
        """Every entry that is a plain number."""
        return tuple(dict.fromkeys((*self._queue(), *self.kv_cache, *self._work(), *self._info())))

    def engine_names(self) -> EngineNames:
        """The same names by how Prometheus is asked for them."""
        labels = [selector.label for name in self._queue() if (selector := Selector.of(name))]
        return EngineNames(
            queue=_plain(self._queue()),
            queue_labels=tuple(dict.fromkeys(("reason", *labels))),
            work=_plain(self._work()),
            work_labels=("finished_reason", "reason"),
            kv_cache=_plain(self.kv_cache),
            info=_plain(self._info()),
            info_labels=INFO_LABELS,
            times=_plain((*self.running, *self.output_tokens, *self.finished)),
            ttft=self.ttft,
            itl=self.itl,
        )

    def _queue(self) -> Names:
        return (*self.running, *self.waiting, *self.waiting_more, *self.waiting_by_reason)

    def _work(self) -> Names:
        return (
            *self.finished, *self.rejected, *self.prompt_tokens, *self.cached_tokens,
            *self.output_tokens, *self.preemptions, *self.engine_steps,
            *self.finished_prompt_tokens, *self.finished_output_tokens,
        )  # fmt: skip

    def _info(self) -> Names:
        return (*self.cache_info, *self.sleep_state, *self.started)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One label value of a metric that holds several things."""

    name: str
    label: str
    value: str

    @classmethod
    def of(cls, entry: str) -> "Selector | None":
        """The selector of ``name{label="value"}``; None of a plain name."""
        found = _SELECTOR.fullmatch(entry)
        return cls(name=found[1], label=found[2], value=found[3]) if found else None


def _plain(entries: Names) -> Names:
    """Names of metrics without selectors, each once."""
    selectors = [(entry, Selector.of(entry)) for entry in entries]
    return tuple(dict.fromkeys(found.name if found else entry for entry, found in selectors))


_SELECTOR = re.compile(r'([^{}]+)\{([^=]+)="([^"]*)"\}')
INFO_LABELS = ("block_size", "num_gpu_blocks", "kv_cache_size_tokens", "sleep_state")


def _vllm(prefix: str, *, name: str, tested: bool, started: Names = ()) -> EngineProfile:
    """VLLM 0.4 to 0.33; ``prefix`` differs where its metrics are exported by somebody else."""

    def named(*names: str) -> Names:
        return tuple(prefix + item for item in names)

    return EngineProfile(
        name=name,
        tested=tested,
        model_label="model_name",
        running=named("num_requests_running"),
        waiting=named("num_requests_waiting"),
        waiting_more=named("num_requests_swapped"),  # to 0.8.5: preempted, wait for KV blocks
        waiting_by_reason=named("num_requests_waiting_by_reason"),  # from 0.20
        kv_cache=named("kv_cache_usage_perc", "gpu_cache_usage_perc"),  # both in 0.9.2 to 0.10
        finished=named(
            "request_success_total",  # from 0.4.3
            "e2e_request_latency_seconds_count",  # the same number before
        ),
        rejected=named("admission_rejections_total"),  # from 0.32
        prompt_tokens=named("prompt_tokens_total"),
        cached_tokens=named(
            "prompt_tokens_cached_total",  # from 0.16
            "prefix_cache_hits_total",  # from 0.9.2
            "gpu_prefix_cache_hits_total",  # 0.7.3 to 0.11
        ),
        output_tokens=named("generation_tokens_total"),
        preemptions=named("num_preemptions_total"),
        engine_steps=named("iteration_tokens_total_count"),  # a histogram despite its name
        finished_prompt_tokens=named("request_prompt_tokens_sum"),
        finished_output_tokens=named("request_generation_tokens_sum"),
        ttft=named("time_to_first_token_seconds"),
        itl=named("inter_token_latency_seconds", "time_per_output_token_seconds"),
        cache_info=named("cache_config_info"),
        sleep_state=named("engine_sleep_state"),
        started=started,
    )


_PROCESS_START: Names = ("process_start_time_seconds",)
VLLM = _vllm("vllm:", name="vllm", tested=True, started=_PROCESS_START)
PROFILES: Mapping[str, EngineProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            VLLM,
            # Ray's own agent exports these: a process start on that page is the agent's.
            _vllm("ray_vllm_", name="vllm-on-ray-serve", tested=False),
            EngineProfile(
                name="sglang",
                tested=False,
                model_label="model_name",
                running=("sglang:num_running_reqs",),
                waiting=("sglang:num_queue_reqs",),
                waiting_more=("sglang:num_grammar_queue_reqs",),
                kv_cache=("sglang:token_usage",),
                finished=("sglang:num_requests_total",),
                prompt_tokens=("sglang:prompt_tokens_total",),
                cached_tokens=("sglang:cached_tokens_total",),
                output_tokens=("sglang:generation_tokens_total",),
                preemptions=("sglang:num_retracted_requests_total",),
                ttft=("sglang:time_to_first_token_seconds",),
                itl=("sglang:inter_token_latency_seconds",),
                started=_PROCESS_START,
                only_labels=(("tp_rank", "0"),),
            ),
            EngineProfile(
                name="tgi",
                tested=False,
                model_label="",
                running=("tgi_batch_current_size",),
                waiting=("tgi_queue_size",),
                finished=("tgi_request_success",),
                itl=("tgi_request_mean_time_per_token_duration",),
            ),
            EngineProfile(
                name="trtllm",
                tested=False,
                model_label="model_name",
                running=("trtllm_num_requests_running",),
                waiting=("trtllm_num_requests_waiting",),
                kv_cache=("trtllm_kv_cache_utilization",),
                finished=("trtllm_request_success_total",),
                ttft=("trtllm_time_to_first_token_seconds",),
                itl=("trtllm_time_per_output_token_seconds",),
            ),
            EngineProfile(
                name="triton",
                tested=False,
                model_label="model",
                running=('nv_trt_llm_request_metrics{request_type="scheduled"}',),
                waiting=('nv_trt_llm_request_metrics{request_type="waiting"}',),
                kv_cache=('nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"}',),
                finished=("nv_inference_request_success",),
            ),
            EngineProfile(
                name="dynamo",
                tested=False,
                model_label="model",
                running=("dynamo_frontend_inflight_requests",),
                waiting=("dynamo_frontend_queued_requests",),
                finished=("dynamo_frontend_requests_total",),
                ttft=("dynamo_frontend_time_to_first_token_seconds",),
                itl=("dynamo_frontend_inter_token_latency_seconds",),
            ),
        )
    }
)
