"""Several sources as one: routing, merging, one limit, and no source that takes others down."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from scaler.core.model import Cause, Latency, NoData, Signal
from scaler.signals.samples import GpuSample, Histogram, PodSample, TargetRef, TargetSamples
from scaler.signals.settings import serves
from scaler.signals.sources import SourceSet

NOW_S = 1000.0
LLM = TargetRef(namespace="llm", kind="deployment", name="a")
OTHER = TargetRef(namespace="other", kind="deployment", name="b")
GONE = NoData(cause=Cause.UNREACHABLE, detail="gone")
PARTIAL = NoData(cause=Cause.PARTIAL, detail="a store is down")


class Given:
    """A source that brings what a test gives it."""

    def __init__(
        self,
        name: str,
        bring: Callable[[TargetRef], TargetSamples],
        namespaces: tuple[str, ...] = ("*",),
    ) -> None:
        self.name = name
        self.attempts = 0
        self.asked: list[TargetRef] = []
        self.closed = False
        self._bring = bring
        self._namespaces = namespaces

    def serves(self, target: TargetRef) -> bool:
        return serves(self._namespaces, target.namespace)

    async def collect(
        self, targets: Sequence[TargetRef], now_s: float
    ) -> Mapping[str, TargetSamples]:
        self.attempts += 1
        self.asked.extend(targets)
        return {target.key: self._bring(target) for target in targets}

    async def close(self) -> None:
        self.closed = True


class Hung(Given):
    """Never brings anything."""

    async def collect(
        self, targets: Sequence[TargetRef], now_s: float
    ) -> Mapping[str, TargetSamples]:
        await asyncio.Event().wait()
        raise AssertionError("waited for ever")


def brought(**parts: Any) -> Callable[[TargetRef], TargetSamples]:
    return lambda target: TargetSamples(target=target, at_s=NOW_S, **parts)


def pod(name: str = "a-0", *, at_s: float = NOW_S, running: float = 1.0, **more: Any) -> PodSample:
    return PodSample(pod=name, at_s=at_s, model_names=("m",), running=running, **more)


def latency() -> Latency:
    return Latency(
        seen_at_s=NOW_S, coverage_ratio=1.0, window_s=60.0, bounds_s=(1.0,), counts=(1.0, 0.0)
    )


async def merged(*sources: Given, target: TargetRef = LLM) -> TargetSamples:
    return (await SourceSet(sources).collect([target], NOW_S))[target.key]


async def test_a_target_is_asked_of_the_sources_of_its_namespace() -> None:
    llm = Given("llm", brought(pods={"a-0": pod()}), ("llm*",))
    rest = Given("rest", brought(pods={"b-0": pod("b-0")}), ("o*", "x"))
    result = await SourceSet([llm, rest]).collect([LLM, OTHER], NOW_S)
    assert (llm.asked, rest.asked) == ([LLM], [OTHER])
    assert list(result[LLM.key].pods) == ["a-0"]
    assert list(result[OTHER.key].pods) == ["b-0"]


async def test_a_target_nobody_serves_is_said() -> None:
    only = Given("only", brought(), ("x",))
    found = await merged(only)
    assert found.failure is not None
    assert found.failure.cause is Cause.UNSUPPORTED
    assert "'llm'" in found.failure.detail
    assert only.asked == []


async def test_the_first_good_sample_of_a_pod_wins() -> None:
    first = Given("first", brought(pods={"a-0": GONE, "a-1": pod("a-1", running=1.0)}))
    second = Given("second", brought(pods={"a-0": pod(), "a-1": pod("a-1", running=9.0)}))
    found = await merged(first, second)
    assert found.pods == {"a-0": pod(), "a-1": pod("a-1", running=1.0)}


async def test_a_stale_sample_gives_way_to_a_fresh_one_but_not_to_none() -> None:
    old = Given("old", brought(pods={"a-0": pod(at_s=NOW_S - 61.0), "a-1": pod("a-1", at_s=0.0)}))
    new = Given("new", brought(pods={"a-0": pod(running=9.0), "a-1": GONE}))
    found = await merged(old, new)
    assert found.pods == {"a-0": pod(running=9.0), "a-1": pod("a-1", at_s=0.0)}


async def test_engines_from_one_source_and_gpus_from_another() -> None:
    gpu = GpuSample(pod="a-0", at_s=NOW_S, utilisation_ratio=0.5, field="DCGM_FI_PROF_SM_ACTIVE")
    engines = Given("engines", brought(pods={"a-0": pod()}, ttft=latency(), gateway_requests=5.0))
    gpus = Given("gpus", brought(gpus={"a-0": gpu}, warnings=("slow",)))
    found = await merged(gpus, engines)
    assert found.pods == {"a-0": pod()}
    assert found.gpus == {"a-0": gpu}
    assert found.gateway_requests == 5.0
    assert found.warnings == ("slow",)


async def test_a_histogram_beats_a_cause_and_pods_histograms_beat_both() -> None:
    good, bad = Given("good", brought(ttft=latency())), Given("bad", brought(ttft=GONE))
    assert (await merged(bad, good)).ttft == latency()
    own = Given("own", brought(pods={"a-0": pod()}))
    assert (await merged(bad, own)).ttft is None
    assert (await merged(bad, Given("worse", brought(ttft=PARTIAL)))).ttft == GONE


async def test_one_failed_source_is_made_good_by_another() -> None:
    down = Given("down", brought(failure=GONE, warnings=("w",)))
    found = await merged(down, Given("up", brought(pods={"a-0": pod()})))
    assert found.failure is None
    assert found.pods == {"a-0": pod()}
    assert found.warnings == ("w",)


async def test_when_all_fail_every_reason_is_given() -> None:
    refused = NoData(cause=Cause.MALFORMED, detail="html")
    found = await merged(Given("a", brought(failure=GONE)), Given("b", brought(failure=refused)))
    assert found.failure == NoData(cause=Cause.UNREACHABLE, detail="gone; html")


@pytest.mark.parametrize(
    ("second", "left"),
    [
        (brought(pods={"a-0": pod()}), {Signal.GPU: GONE, Signal.TTFT: GONE}),
        (
            brought(
                pods={"a-0": pod(ttft=Histogram(bounds_s=(1.0,), counts=(0.0,)))},
                gpus={"a-0": GpuSample(pod="a-0", at_s=NOW_S, utilisation_ratio=0.5, field="F")},
            ),
            {},
        ),
        (brought(faults={Signal.QUEUE: GONE}), dict.fromkeys((Signal.GPU, Signal.TTFT), GONE)),
    ],
)
async def test_a_fault_of_a_signal_stays_until_another_source_brings_it(
    second: Callable[[TargetRef], TargetSamples], left: Mapping[Signal, NoData]
) -> None:
    faults = {Signal.GPU: GONE, Signal.TTFT: GONE, Signal.QUEUE: PARTIAL}
    first = Given("first", brought(pods={"a-0": pod()}, faults=faults))
    found = await merged(first, Given("second", second))
    queue = {Signal.QUEUE: PARTIAL} if second(LLM).faults else {}
    assert found.faults == {**left, **queue}


async def test_a_hung_source_costs_the_limit_and_only_its_own_targets() -> None:
    hung = Hung("hung", brought(), ("llm",))
    good = Given("good", brought(pods={"b-0": pod("b-0")}), ("other",))
    sources = SourceSet([hung, good], timeout_s=0.05)
    async with asyncio.timeout(5.0):
        result = await sources.collect([LLM, OTHER], NOW_S)
    assert result[LLM.key].failure == NoData(
        cause=Cause.UNREACHABLE, detail="hung: no result within 0.05 s"
    )
    assert result[OTHER.key].pods == {"b-0": pod("b-0")}
    assert sources.outcomes["hung"].failures == 1


async def test_a_defective_source_is_loud_and_blinds_only_its_own_targets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: TargetRef) -> TargetSamples:
        raise KeyError("a mistake in a program")

    bad = Given("bad", broken, ("llm",))
    good = Given("good", brought(pods={"b-0": pod("b-0")}), ("other",))
    with caplog.at_level(logging.ERROR):
        result = await SourceSet([bad, good]).collect([LLM, OTHER], NOW_S)
    failure = result[LLM.key].failure
    assert failure is not None
    assert "defect in this program: KeyError" in failure.detail
    assert "a mistake in a program" in caplog.text
    assert result[OTHER.key].failure is None


async def test_cancelling_the_collection_cancels_the_sources() -> None:
    begun = asyncio.Event()
    ended = asyncio.Event()

    class Waiting(Given):
        async def collect(
            self, targets: Sequence[TargetRef], now_s: float
        ) -> Mapping[str, TargetSamples]:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError("waited for ever")

    task = asyncio.create_task(SourceSet([Waiting("w", brought())]).collect([LLM], NOW_S))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5.0):
        await ended.wait()


async def test_outcomes_are_counted_by_source() -> None:
    up = Given("up", brought(pods={"a-0": pod(), "a-1": GONE, "a-2": PARTIAL}))
    down = Given("down", brought(failure=GONE))
    sources = SourceSet([up, down])
    await sources.collect([LLM], NOW_S)
    await sources.collect([LLM], NOW_S)
    outcome = sources.outcomes["up"]
    assert (outcome.collections, outcome.failures, outcome.attempts, outcome.samples) == (
        2,
        0,
        2,
        2,
    )
    assert outcome.missing == {Cause.UNREACHABLE: 2, Cause.PARTIAL: 2}
    assert sources.outcomes["down"].failures == 2


async def test_no_targets_ask_nobody_and_closing_closes_all() -> None:
    source = Given("s", brought())
    sources = SourceSet([source])
    assert await sources.collect([], NOW_S) == {}
    assert source.attempts == 0
    await sources.close()
    assert source.closed
