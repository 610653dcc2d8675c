"""The same queries on the real program, over captured pages: names, labels, escapes, times."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaler.config import RecordingRules
from scaler.core.model import Cause, Latency, NoData
from scaler.signals import promql
from scaler.signals.dcgm import DcgmReader
from scaler.signals.prometheus import PrometheusSource
from scaler.signals.readers import Readers
from scaler.signals.samples import GpuSample, PodRef, PodSample, TargetRef, TargetSamples
from scaler.signals.settings import PrometheusSettings
from scaler.signals.vllm import VllmReader
from tests.signals.plain_readers import SM_ACTIVE
from tests.signals.real_prometheus import PROMETHEUS, PageServer, RealPrometheus, Scraped

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        PROMETHEUS is None and not os.environ.get("REQUIRE_EXTERNALS"),
        reason="the program prometheus is not installed",
    ),
]

DATA = Path(__file__).parent.parent / "data"
POD = "vllm-llama-7c9f8d6b5-bcdfg"
GPU_POD = "vllm-llama-7c9f8d6b5-abcde"  # as the DCGM pages name it
MODEL = "tiny-llama"
HOSTILE = 'x"} or {__name__=~".+'


def page(name: str) -> str:
    return (DATA / "vllm" / name).read_text()


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    texts = {
        "/saturated": page("0.32.0-saturated.prom"),
        "/two-engines": page("composed-dp2-saturated.prom"),
        "/0.9.2": page("composed-v1-0.9.2-saturated.prom"),
        "/dcgm": (DATA / "dcgm" / "sample.prom").read_text(),
    }
    with PageServer(texts) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(
    pages: PageServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealPrometheus]:
    one = {"namespace": "llm", "pod": POD}
    scraped = [
        Scraped("/saturated", one),
        Scraped("/saturated", one, job="the-same-pod-again"),
        Scraped("/two-engines", {"namespace": "llm", "pod": "group-0"}),
        Scraped("/0.9.2", {"namespace": "old", "pod": "old-0"}),
        Scraped("/saturated", {"namespace": HOSTILE, "pod": "odd-0"}),
        Scraped("/dcgm", {"namespace": "gpu-operator", "pod": "dcgm-1"}),
    ]
    folder = tmp_path_factory.mktemp("prometheus")
    with RealPrometheus(folder, pages.address, scraped) as server:
        # Two scrapes of everything: a histogram's growth needs two.
        server.wait_for("sum by (pod) (increase(vllm:num_requests_running[10s]))", 4)
        server.wait_for(f"{SM_ACTIVE}{{exported_pod='{GPU_POD}'}}", 1)
        yield server


def target(
    name: str, *pods: str, namespace: str = "llm", model: str = "", kind: str = "deployment"
) -> TargetRef:
    refs = tuple(PodRef(name=pod) for pod in pods) or None
    return TargetRef(namespace=namespace, kind=kind, name=name, pods=refs, model_name=model)


def collect(server: RealPrometheus, *targets: TargetRef) -> list[TargetSamples]:
    async def ask() -> list[TargetSamples]:
        settings = PrometheusSettings(
            url=server.url, recording_rules=RecordingRules.NEVER, settle_s=0.0
        )
        source = PrometheusSource(settings, Readers(engine=VllmReader(), gpu=DcgmReader()))
        try:
            found = await source.collect(targets, 1000.0)
        finally:
            await source.close()
        return [found[one.key] for one in targets]

    return asyncio.run(ask())


def sample(samples: TargetSamples, pod: str) -> PodSample:
    found = samples.pods[pod]
    assert isinstance(found, PodSample), found
    return found


def test_a_captured_page_comes_back_whole_and_once(prometheus: RealPrometheus) -> None:
    (found,) = collect(prometheus, target("vllm-llama", POD, model=MODEL))
    got = sample(found, POD)
    # 0.32.0-saturated.prom: two scrape jobs have it, and no number is doubled.
    assert (got.running, got.waiting, got.deferred) == (3.0, 6.0, 0.0)
    assert (got.kv_mean_ratio, got.kv_max_ratio, got.kv_capacity_tokens) == (1.0, 1.0, 2048.0)
    assert (got.finished, got.rejected, got.preemptions) == (39.0, 0.0, 33.0)
    assert (got.prompt_tokens, got.output_tokens) == (10503.0, 15294.0)
    assert (got.finished_prompt_tokens, got.finished_output_tokens) == (9132.0, 14740.0)
    assert got.engine_steps == 5405.0
    assert got.started_at_s == 1795217213.58
    assert got.model_names == (MODEL,)
    assert not got.asleep
    # Scraped every second; our clock says 1000 s and the server's something else altogether.
    assert 990.0 < got.at_s <= 1000.0
    assert found.failure is None
    assert found.faults == {}


def test_page_and_queries_give_the_same_sample(prometheus: RealPrometheus) -> None:
    for name, pod, namespace in (
        ("0.32.0-saturated.prom", POD, "llm"),
        ("composed-dp2-saturated.prom", "group-0", "llm"),
        ("composed-v1-0.9.2-saturated.prom", "old-0", "old"),
    ):
        (found,) = collect(prometheus, target("t", pod, namespace=namespace))
        read = VllmReader().from_page(page(name), pod=pod, at_s=0.0)
        assert isinstance(read, PodSample)
        for field in PodSample.__dataclass_fields__.keys() - {"at_s", "ttft", "itl"}:
            assert getattr(sample(found, pod), field) == getattr(read, field), (name, field)


def test_histograms_are_found_by_workload_with_the_bounds_of_the_page(
    prometheus: RealPrometheus,
) -> None:
    deployment, ordinal, old = collect(
        prometheus,
        target("vllm-llama", POD),
        target("group", "group-0"),
        target("old", "old-0", namespace="old"),
    )
    for found in (deployment, ordinal):
        assert isinstance(found.ttft, Latency)
        assert found.ttft.bounds_s[:3] == (0.001, 0.005, 0.01)
        assert found.ttft.bounds_s[-1] == 2560.0
        assert found.ttft.total == 0.0  # the page stands still
    assert isinstance(deployment.itl, Latency)
    assert deployment.itl.bounds_s[0] == 0.01
    assert isinstance(ordinal.itl, NoData)  # that page has no such histogram
    assert ordinal.itl.cause is Cause.EMPTY
    assert isinstance(old.itl, Latency)  # time_per_output_token_seconds, the older name


def test_gpus_by_the_exporters_own_labels(prometheus: RealPrometheus) -> None:
    (found,) = collect(prometheus, target("vllm-llama", POD, GPU_POD))
    gpu = found.gpus[GPU_POD]
    assert isinstance(gpu, GpuSample)
    assert (gpu.field, gpu.utilisation_ratio) == ("DCGM_FI_DEV_GPU_UTIL", 0.99)
    assert 990.0 < gpu.at_s <= 1000.0
    missing = found.pods[GPU_POD]
    assert isinstance(missing, NoData)
    assert missing.cause is Cause.NO_MATCH


def test_a_hostile_namespace_finds_itself_and_nothing_else(prometheus: RealPrometheus) -> None:
    (found,) = collect(prometheus, target("odd", namespace=HOSTILE))
    assert list(found.pods) == ["odd-0"]


@pytest.mark.parametrize(
    "namespace", [".*", "l.m", "llm|old", 'llm"} or {', "l", "\\", "{}", "llm\x00", "\n", "ü", "$1"]
)
def test_no_namespace_widens_a_query(prometheus: RealPrometheus, namespace: str) -> None:
    (found,) = collect(prometheus, target("vllm-llama", POD, namespace=namespace))
    missed = found.pods[POD]
    assert isinstance(missed, NoData)
    assert missed.cause is Cause.EMPTY


@pytest.mark.parametrize("model", [HOSTILE, ".*", "tiny.llama", f"{MODEL}|x", ""])
def test_a_model_name_is_compared_letter_by_letter(prometheus: RealPrometheus, model: str) -> None:
    (found,) = collect(prometheus, target("vllm-llama", POD, model=model))
    if model:
        missed = found.pods[POD]
        assert isinstance(missed, NoData)
        assert missed.cause is Cause.NO_MATCH
        assert MODEL in missed.detail
    else:
        assert isinstance(found.pods[POD], PodSample)


def test_pods_by_name_alone(prometheus: RealPrometheus) -> None:
    (found,) = collect(prometheus, target("vllm-llama"))
    assert list(found.pods) == [POD]
    (other,) = collect(prometheus, target("llama"))
    assert other.failure is not None
    assert other.failure.cause is Cause.NO_MATCH


def test_the_recorded_form_of_a_query_is_valid_promql(prometheus: RealPrometheus) -> None:
    scope = promql.Scope(namespaces=("llm", "old"))
    assert prometheus.query(promql.recorded(promql.TTFT_RECORDED, scope)) == []
    assert prometheus.query(promql.recorded_namespaces(scope)) == []


def test_a_dead_exporter_is_seen_by_the_age_of_its_sample(
    pages: PageServer, tmp_path: Path
) -> None:
    """A pod that vanishes from service discovery keeps its last values for minutes."""
    with RealPrometheus(
        tmp_path, pages.address, [Scraped("/saturated", {"namespace": "llm", "pod": POD})]
    ) as server:
        server.wait_for("vllm:num_requests_running", 1)
        (before,) = collect(server, target("vllm-llama", POD))
        # Evaluated as of four minutes later: no scrape has been since, the value still answers.
        later = server.query_at("vllm:num_requests_running", ahead_s=240.0)
        age = server.query_at(
            f"time() - ({promql.sample_times(('vllm:num_requests_running',), SCOPE)})",
            ahead_s=240.0,
        )
    assert isinstance(before.pods[POD], PodSample)
    assert len(later) == 1
    assert float(age[0]["value"][1]) > 230.0


SCOPE = promql.Scope(namespaces=("llm",))
