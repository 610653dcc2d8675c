"""The Prometheus source against a server that answers as Prometheus would, or fails."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from scaler.config import RecordingRules
from scaler.core.model import Cause, Latency, NoData, Signal
from scaler.signals import promql
from scaler.signals.prometheus import PrometheusSource
from scaler.signals.samples import GpuSample, PodRef, PodSample, TargetRef, TargetSamples
from scaler.signals.settings import PrometheusSettings
from tests.signals.fake_prometheus import (
    Canned,
    FakePrometheus,
    Fault,
    Seen,
    error,
    success,
    vector,
)
from tests.signals.plain_readers import (
    FINISHED,
    INFO,
    KV,
    RUNNING,
    SM_ACTIVE,
    TOKENS,
    WAITING,
    plain,
)

NOW_S = 1000.0
SERVER_NOW_S = 5000.0  # the server's clock is 4000 s ahead of ours
POD = "a-7c9f8d6b5-bcdfg"
TARGET = TargetRef(namespace="llm", kind="deployment", name="a", pods=(PodRef(name=POD),))
UNKNOWN_PODS = TargetRef(namespace="llm", kind="deployment", name="a")

Rows = list[tuple[dict[str, str], Any]]


class World:
    """Answers each grouped query from a few pods; a test changes what it needs."""

    def __init__(self, pods: Sequence[tuple[str, str]] = (("llm", POD),)) -> None:
        self.pods = list(pods)
        self.age_s = 7.0
        self.instead: dict[str, Canned] = {}  # by a part of the query
        self.more: dict[str, dict[str, Any]] = {}
        self.model = "m"
        self.recorded = False

    def __call__(self, seen: Seen) -> Canned:
        query = seen.query
        for part, canned in self.instead.items():
            if part in query:
                return canned
        for part, more in self.more.items():
            if part in query:
                return vector(self.rows(query), **more)
        if query == "time()":
            return success("scalar", [SERVER_NOW_S, str(SERVER_NOW_S)])
        return vector(self.rows(query))

    def rows(self, query: str) -> Rows:
        if query.startswith("group by"):
            return self.recorded_names()
        if "exported_pod" in query:
            return self.gpu_rows(query)
        if "timestamp(" in query:
            scraped_s = SERVER_NOW_S - self.age_s
            return [({"namespace": space, "pod": pod}, scraped_s) for space, pod in self.pods]
        if "_bucket" in query:
            return self.buckets(query)
        if "gateway" in query:
            return [({"namespace": "llm", "workload": "a"}, 12), ({"workload": "a"}, 999)]
        return [row for name, value in self.values(query) for row in self.each(name, value)]

    def values(self, query: str) -> list[tuple[str, Any]]:
        all_values = ((RUNNING, 3), (WAITING, 4), (FINISHED, 100), (TOKENS, 5000), (KV, 0.5))
        found: list[tuple[str, Any]] = [
            (name, value) for name, value in all_values if name in query
        ]
        return [*found, (INFO, 1)] if INFO in query else found

    def each(self, name: str, value: Any) -> Rows:
        more = {"num_gpu_blocks": "16", "block_size": "128"} if name == INFO else {}
        model = {} if name == INFO else {"model_name": self.model}
        return [
            ({"__name__": name, "namespace": space, "pod": pod, **model, **more}, value)
            for space, pod in self.pods
        ]

    def buckets(self, query: str) -> Rows:
        total = 10 if "ttft" in query or "first_token" in query else 400
        labels = {"namespace": "llm", "workload": "a", "model_name": self.model}
        return [
            ({**labels, "le": le, "family": "0"}, count)
            for le, count in (("0.5", total / 2), ("+Inf", total))
        ]

    def gpu_rows(self, query: str) -> Rows:
        labels = {"exported_namespace": "llm", "exported_pod": POD, "namespace": "gpu", "pod": "d"}
        if "timestamp(" in query:
            return [(labels, SERVER_NOW_S - 20.0)]
        return [({"__name__": SM_ACTIVE, **labels}, 0.75)]

    def recorded_names(self) -> Rows:
        names = (promql.TTFT_RECORDED, promql.ITL_RECORDED) if self.recorded else ()
        return [({"__name__": name, "namespace": "llm"}, 1) for name in names]


def settings(url: str, **changes: Any) -> PrometheusSettings:
    quick = {"retry_backoff_s": 0.0, "recording_rules": RecordingRules.NEVER}
    return PrometheusSettings(url=url, **{**quick, **changes})


async def collect(
    answering: Callable[[Seen], Canned], *targets: TargetRef, times: int = 1, **changes: Any
) -> tuple[dict[str, TargetSamples], list[str]]:
    with FakePrometheus(answering) as server:
        source = PrometheusSource(settings(server.url, **changes), plain())
        try:
            for _ in range(times):
                server.seen.clear()
                found = await source.collect(targets or (TARGET,), NOW_S)
        finally:
            await source.close()
        return dict(found), server.queries


async def one(answering: Callable[[Seen], Canned], target: TargetRef = TARGET) -> TargetSamples:
    found, _ = await collect(answering, target)
    return found[target.key]


def sample(**changes: Any) -> PodSample:
    numbers: dict[str, Any] = {
        "running": 3.0,
        "waiting": 4.0,
        "finished": 100.0,
        "prompt_tokens": 5000.0,
        "kv_mean_ratio": 0.5,
        "kv_max_ratio": 0.5,
        "kv_capacity_tokens": 2048.0,  # 16 blocks of 128 tokens
    }
    return PodSample(pod=POD, at_s=993.0, model_names=("m",), **{**numbers, **changes})


async def test_samples_of_a_target() -> None:
    found = await one(World())
    # Scraped 7 s before the server's now, so 7 s before ours: 1000 - 7, whatever its clock says.
    assert found.pods == {POD: sample()}
    assert found.gpus == {
        POD: GpuSample(pod=POD, at_s=980.0, utilisation_ratio=0.75, field=SM_ACTIVE)
    }
    assert found.ttft == Latency(
        seen_at_s=993.0, coverage_ratio=1.0, window_s=60.0, bounds_s=(0.5,), counts=(5.0, 5.0)
    )
    assert isinstance(found.itl, Latency)
    assert found.itl.total == 400.0
    assert (found.failure, found.faults, found.warnings) == (None, {}, ())


async def test_pods_are_found_by_name_where_kubernetes_does_not_say() -> None:
    world = World([("llm", POD), ("llm", "b-7c9f8d6b5-bcdfg"), ("else", POD)])
    assert list((await one(world, UNKNOWN_PODS)).pods) == [POD]


def targets_of(count: int) -> list[TargetRef]:
    return [
        TargetRef(
            namespace=f"team-{index % 10}",
            kind="deployment",
            name=f"m{index}",
            pods=(PodRef(name=f"m{index}-7c9f8d6b5-bcdfg"),),
        )
        for index in range(count)
    ]


async def test_the_number_of_queries_does_not_grow_with_the_targets() -> None:
    for count in (1, 200):
        targets = targets_of(count)
        pods = [(target.namespace, pod.name) for target in targets for pod in target.pods or ()]
        found, queries = await collect(World(pods), *targets)
        # time, queue, work, KV, info, times, TTFT, ITL, GPU, GPU times
        assert len(queries) == 10
        assert sum(len(samples.pods) for samples in found.values()) == count


async def test_all_queries_are_evaluated_at_one_settled_instant() -> None:
    with FakePrometheus(World()) as server:
        source = PrometheusSource(settings(server.url, settle_s=1.5), plain())
        await source.collect([TARGET], NOW_S)
        await source.close()
    times = [seen.form.get("time") for seen in server.seen if seen.query != "time()"]
    assert set(times) == {"4998.500"}  # 5000 - 1.5


async def test_a_target_the_source_does_not_serve_is_not_asked_for() -> None:
    found, queries = await collect(World(), TARGET, namespaces=("other",))
    assert queries == []
    failure = found[TARGET.key].failure
    assert failure is not None
    assert failure.cause is Cause.UNSUPPORTED


async def test_an_empty_namespace_never_reaches_a_query() -> None:
    bare = TargetRef(namespace="", kind="deployment", name="a")
    found, queries = await collect(World(), bare, TARGET)
    failure = found[bare.key].failure
    assert failure is not None
    assert "pinned" in failure.detail
    assert found[TARGET.key].failure is None
    assert all('namespace="llm"' in query for query in queries if query != "time()")


async def test_model_names_and_other_metadata_never_reach_a_query() -> None:
    hostile = 'x"} or {__name__=~".+'
    target = TargetRef(
        namespace="llm", kind="deployment", name=hostile, model_name=hostile, pods=TARGET.pods
    )
    found, queries = await collect(World(), target)
    assert not [query for query in queries if '__name__=~".+' in query or 'x"' in query]
    missed = found[target.key].pods[POD]
    assert isinstance(missed, NoData)
    assert missed.cause is Cause.NO_MATCH


class TestMissing:
    async def test_another_model(self) -> None:
        world = World()
        world.model = "other-model"
        target = TargetRef(
            namespace="llm", kind="deployment", name="a", model_name="m", pods=TARGET.pods
        )
        found = await one(world, target)
        missed = found.pods[POD]
        assert isinstance(missed, NoData)
        assert missed.cause is Cause.NO_MATCH
        assert "'other-model'" in missed.detail
        assert isinstance(found.ttft, NoData)
        assert found.ttft.cause is Cause.NO_MATCH

    @pytest.mark.parametrize(
        ("pods", "ready", "cause"),
        [
            ([], True, Cause.EMPTY),
            ([], False, Cause.REFUSED),
            ([("llm", "other-0")], True, Cause.NO_MATCH),
            ([("llm", "other-0")], False, Cause.REFUSED),
        ],
    )
    async def test_a_pod_without_series(
        self, pods: list[tuple[str, str]], ready: bool, cause: Cause
    ) -> None:
        target = TargetRef(
            namespace="llm", kind="deployment", name="a", pods=(PodRef(name=POD, ready=ready),)
        )
        missed = (await one(World(pods), target)).pods[POD]
        assert isinstance(missed, NoData)
        assert missed.cause is cause

    @pytest.mark.parametrize(
        ("pods", "cause", "part"),
        [
            ([], Cause.EMPTY, "namespace='llm'"),
            ([("llm", "b-0"), ("llm", "c-0")], Cause.NO_MATCH, "series come from b, c"),
        ],
    )
    async def test_a_target_without_any(
        self, pods: list[tuple[str, str]], cause: Cause, part: str
    ) -> None:
        failure = (await one(World(pods), UNKNOWN_PODS)).failure
        assert failure is not None
        assert failure.cause is cause
        assert part in failure.detail

    async def test_a_target_scaled_to_zero_has_no_failure(self) -> None:
        target = TargetRef(namespace="llm", kind="deployment", name="a", pods=())
        found = await one(World([]), target)
        assert found.failure is None
        assert found.pods == {}

    async def test_a_dead_exporter_keeps_its_old_time(self) -> None:
        world = World()
        world.age_s = 290.0  # the last value is still answered: Prometheus looks back five minutes
        found = (await one(world)).pods[POD]
        assert isinstance(found, PodSample)
        assert found.at_s == 710.0  # 1000 - 290

    async def test_a_sample_from_the_future_is_of_now(self) -> None:
        world = World()
        world.age_s = -3.0
        found = (await one(world)).pods[POD]
        assert isinstance(found, PodSample)
        assert found.at_s == NOW_S


class TestFaults:
    async def test_a_dead_server_fails_every_target_and_is_asked_twice(self) -> None:
        world = World()
        world.instead["time()"] = Canned(status=503)
        other = TargetRef(namespace="llm", kind="deployment", name="b")
        found, queries = await collect(world, TARGET, other)
        assert queries == ["time()", "time()"]
        for samples in found.values():
            assert samples.failure is not None
            assert samples.failure.cause is Cause.UNREACHABLE

    async def test_a_server_dead_for_long_is_asked_once_a_collection(self) -> None:
        world = World()
        world.instead["time()"] = Canned(fault=Fault.RESET)
        _, queries = await collect(world, times=3, failures_to_open=2)
        assert queries == ["time()"]

    async def test_a_server_that_is_back_is_used_at_once(self) -> None:
        world = World()
        world.instead["time()"] = Canned(fault=Fault.RESET)
        with FakePrometheus(world) as server:
            source = PrometheusSource(settings(server.url, failures_to_open=1), plain())
            for _ in range(3):
                await source.collect([TARGET], NOW_S)
            world.instead.clear()
            found = await source.collect([TARGET], NOW_S)
            await source.close()
        assert found[TARGET.key].pods == {POD: sample()}

    @pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP_HEADERS, Fault.DRIP_BODY])
    async def test_a_server_that_hangs_holds_up_one_collection_for_its_limit(
        self, fault: Fault
    ) -> None:
        world = World()
        world.instead[""] = Canned(fault=fault)
        async with asyncio.timeout(10.0):
            found, _ = await collect(world, timeout_s=0.2, attempt_timeout_s=0.1)
        failure = found[TARGET.key].failure
        assert failure is not None
        assert failure.cause is Cause.UNREACHABLE

    async def test_one_hung_query_does_not_lose_the_others(self) -> None:
        world = World()
        world.instead[KV] = Canned(fault=Fault.HANG)
        found, _ = await collect(world, timeout_s=0.6, attempt_timeout_s=0.2)
        samples = found[TARGET.key]
        assert samples.pods == {POD: sample(kv_mean_ratio=None, kv_max_ratio=None)}
        assert samples.faults.keys() == {Signal.KV_CACHE}
        assert samples.faults[Signal.KV_CACHE].cause is Cause.UNREACHABLE

    @pytest.mark.parametrize(
        ("part", "signals"),
        [
            (FINISHED, {Signal.WORK}),
            (f"{RUNNING}|{WAITING}", {Signal.QUEUE, Signal.WORK}),
            (KV, {Signal.KV_CACHE}),
            ("first_token", {Signal.TTFT}),
            ("inter_token", {Signal.ITL}),
            ("exported_pod", {Signal.GPU}),
        ],
    )
    async def test_a_refused_query_is_a_fault_of_its_signals(
        self, part: str, signals: set[Signal]
    ) -> None:
        world = World()
        world.instead[part] = error(422, "execution", "too many samples")
        found = await one(world)
        assert found.failure is None
        assert found.faults.keys() == signals
        assert {fault.cause for fault in found.faults.values()} == {Cause.MALFORMED}

    async def test_without_times_nothing_is_known_to_be_alive(self) -> None:
        world = World()
        world.instead[f"timestamp({RUNNING}"] = error(422, "execution", "no")
        failure = (await one(world)).failure
        assert failure is not None
        assert failure.cause is Cause.MALFORMED

    async def test_a_broken_answer_to_everything_about_engines_is_a_failure(self) -> None:
        world = World()
        world.instead["vllm:"] = Canned(body=b"<html>", content_type="text/html")
        assert (await one(world)).failure is not None

    async def test_a_warning_makes_its_signal_partial_and_is_kept(self) -> None:
        world = World()
        world.more["first_token"] = {"warnings": ["store b is down"]}
        world.more[KV] = {"infos": ["PromQL info: not a gauge"]}
        found = await one(world)
        assert isinstance(found.ttft, NoData)
        assert found.ttft.cause is Cause.PARTIAL
        assert "store b is down" in found.ttft.detail
        assert found.faults == {Signal.TTFT: found.ttft}
        assert set(found.warnings) == {"store b is down", "PromQL info: not a gauge"}

    async def test_a_pod_missing_from_a_partial_answer_is_partial(self) -> None:
        world = World([])
        world.more["timestamp(vllm"] = {"warnings": ["store b is down"]}
        missed = (await one(world)).pods[POD]
        assert isinstance(missed, NoData)
        assert missed.cause is Cause.PARTIAL

    async def test_cancelling_leaves_nothing_behind(self) -> None:
        hung = threading.Event()

        def hang(seen: Seen) -> Canned:
            if KV not in seen.query:
                return World()(seen)
            hung.set()
            return Canned(fault=Fault.HANG)

        with FakePrometheus(hang) as server:
            source = PrometheusSource(settings(server.url), plain())
            task = asyncio.create_task(source.collect([TARGET], NOW_S))
            assert await asyncio.to_thread(hung.wait, 5.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await source.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}


class TestRecordingRules:
    @staticmethod
    def recorded(queries: list[str]) -> int:
        return sum(query.startswith("sum by") and "increase1m" in query for query in queries)

    async def test_always_and_never(self) -> None:
        always, never = RecordingRules.ALWAYS, RecordingRules.NEVER
        found, queries = await collect(World(), recording_rules=always)
        assert (self.recorded(queries), len(queries)) == (2, 10)
        assert isinstance(found[TARGET.key].ttft, Latency)
        _, queries = await collect(World(), recording_rules=never)
        assert (self.recorded(queries), len(queries)) == (0, 10)

    async def test_auto_uses_them_once_it_knows_that_they_cover_all_engines(self) -> None:
        world = World()
        world.recorded = True
        auto = RecordingRules.AUTO
        _, queries = await collect(world, recording_rules=auto)
        assert (self.recorded(queries), len(queries)) == (0, 11)  # with the probe
        _, queries = await collect(world, recording_rules=auto, times=2)
        assert (self.recorded(queries), len(queries)) == (2, 10)

    async def test_auto_leaves_them_where_they_are_missing_or_miss_a_namespace(self) -> None:
        auto = RecordingRules.AUTO
        _, queries = await collect(World(), recording_rules=auto, times=2)
        assert self.recorded(queries) == 0
        world = World([("llm", POD), ("more", "b-0")])
        world.recorded = True
        more = TargetRef(namespace="more", kind="statefulset", name="b")
        _, queries = await collect(world, TARGET, more, recording_rules=auto, times=2)
        assert self.recorded(queries) == 0

    async def test_another_window_is_not_what_the_rules_record(self) -> None:
        world = World()
        world.recorded = True
        _, queries = await collect(
            world, recording_rules=RecordingRules.AUTO, times=2, window_s=120.0
        )
        assert self.recorded(queries) == 0
        assert any("[120s]" in query for query in queries)


class TestGateway:
    ASKED = "sum by (namespace, workload) (gateway_requests_total)"

    async def test_the_operators_query_is_asked_once_and_matched_by_namespace(self) -> None:
        targets = [
            TargetRef(namespace=space, kind="deployment", name=name, gateway_query=self.ASKED)
            for space, name in (("llm", "a"), ("llm", "b"), ("other", "a"))
        ]
        found, queries = await collect(World(), *targets)
        assert queries.count(self.ASKED) == 1
        # 12 for llm/a; the row without a namespace (999) is nobody's; a missing series is zero
        assert [found[target.key].gateway_requests for target in targets] == [12.0, 0.0, 0.0]

    async def test_a_failed_query_is_not_zero(self) -> None:
        world = World()
        world.instead["gateway"] = error(400, "bad_data", "parse error")
        target = TargetRef(namespace="llm", kind="deployment", name="a", gateway_query=self.ASKED)
        assert (await one(world, target)).gateway_requests is None
        assert (await one(World())).gateway_requests is None


class TestHistory:
    async def test_a_long_range_is_fetched_in_chunks_and_joined(self) -> None:
        def answer(seen: Seen) -> Canned:
            start_s, end_s, step_s = (float(seen.form[key]) for key in ("start", "end", "step"))
            count = int((end_s - start_s) / step_s) + 1
            points = [[start_s + index * step_s, "1.5"] for index in range(count)]
            return success("matrix", [{"metric": {"target": "a"}, "values": points}])

        with FakePrometheus(answer) as server:
            source = PrometheusSource(settings(server.url), plain())
            (track,) = await source.query_range("x", start_s=0.0, end_s=180_000.0, step_s=15.0)
            await source.close()
        # 180000 / 15 + 1 points in chunks of 5000: 5000 + 5000 + 2001
        assert [seen.path for seen in server.seen] == ["/api/v1/query_range"] * 3
        assert track.labels == {"target": "a"}
        assert [at_s for at_s, _ in track.points] == [15.0 * index for index in range(12_001)]

    async def test_half_a_history_is_none(self) -> None:
        answers = [success("matrix", []), error(422, "execution", "too long")]
        with FakePrometheus(lambda _: answers.pop(0)) as server:
            source = PrometheusSource(settings(server.url), plain())
            with pytest.raises(Exception, match="too long"):
                await source.query_range("x", start_s=0.0, end_s=100_000.0, step_s=15.0)
            await source.close()
