"""Arrivals add up: over any run of restarts, gaps, new and vanished pods, nothing is made up."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.core.model import Gpu, KvCache, NoData, Observation, Queue, Work
from scaler.core.sound import sound
from scaler.signals.samples import PodSample
from scaler.signals.tracker import TargetTracker, TrackerSettings
from tests.signals.fleet import ANYWHERE, Engine, collected, gpu, observe, pod, target

TICK_S = 15.0
# Any share of the pods may answer, and no sample is too old: what is counted is looked at alone.
LENIENT = TrackerSettings(stale_after_s=1e9, coverage_min_ratio=0.0, remembered_s=1e9)
counts = st.integers(0, 9)
steps = st.tuples(counts, counts, st.integers(0, 2))  # arrivals, ends, rejections of a pod


class Ledger:
    """What should have been counted: each process from its first known count to its last."""

    def __init__(self) -> None:
        self.begun: dict[tuple[str, float], int] = {}
        self.last: dict[tuple[str, float], int] = {}

    def note(self, engine: Engine, begin: int) -> None:
        process = (engine.name, engine.started_at_s)
        self.begun.setdefault(process, begin)
        self.last[process] = engine.arrived

    @property
    def arrived(self) -> int:
        return sum(last - self.begun[process] for process, last in self.last.items())


def checked_work(observation: Observation) -> Work | None:
    """The work, if any; every number of the observation finite and not negative."""
    assert sound(observation) is observation
    work = observation.work
    if not isinstance(work, Work):
        return None
    for name in Work.__dataclass_fields__:
        value = getattr(work, name)
        assert math.isfinite(value), name
        assert value >= 0.0, name
    assert work.seen_at_s <= observation.seen_at_s
    return work


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_arrivals_are_conserved_through_restarts_gaps_new_and_vanished_pods(
    data: st.DataObject,
) -> None:
    """Pods restart, vanish, come young or old, and miss up to two collections in a row.

    Lost are only requests that came to a process after its last sample, and those that an old
    pod had before it was first seen, where no list of pods says that it has just become ready.
    """
    listed = data.draw(st.booleans())
    tracker, ledger = TargetTracker(LENIENT), Ledger()
    engines = [Engine(name=f"v-{number}", started_at_s=-1e3) for number in range(3)]
    missed: dict[str, int] = {}
    total, last = 0.0, None
    made = len(engines)
    for tick in range(data.draw(st.integers(2, 10))):
        now_s = TICK_S * tick
        for engine in engines:
            if tick and data.draw(st.integers(0, 9)) == 0:
                engine.restart(now_s - TICK_S / 2)
            engine.work(*data.draw(steps))
        if tick and data.draw(st.integers(0, 4)) == 0 and len(engines) > 1:
            engines.pop(0)
        if tick and data.draw(st.integers(0, 4)) == 0:
            young = data.draw(st.booleans())
            began_s = now_s - TICK_S / 2 if young else 0.0  # not older than our watch
            newcomer = Engine(name=f"v-{made}", started_at_s=began_s)
            newcomer.work(*data.draw(steps))
            engines.append(newcomer)
            made += 1
        samples: list[PodSample] = []
        for engine in engines:
            gap = missed.get(engine.name, 0)
            if tick and engine is not engines[0] and gap < 2 and data.draw(st.integers(0, 5)) == 0:
                missed[engine.name] = gap + 1
                continue
            process = (engine.name, engine.started_at_s)
            known = any(name == engine.name for name, _ in ledger.begun)
            since_last = tick > 0 and engine.started_at_s >= now_s - TICK_S
            from_zero = known or since_last or (listed and tick > 0)
            if process not in ledger.begun:
                ledger.note(engine, 0 if from_zero else engine.arrived)
            ledger.note(engine, 0)
            missed[engine.name] = 0
            samples.append(engine.sample(now_s))
        where = target(*(engine.name for engine in engines)) if listed else ANYWHERE
        work = checked_work(observe(tracker, collected(where, now_s, *samples)))
        if work is not None and work is not last:  # else no round has ended
            total += work.requests_arrived
            last = work
    assert math.isclose(total, ledger.arrived, abs_tol=1e-6)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(1.0, 60.0),
            st.lists(st.tuples(steps, st.booleans()), min_size=3, max_size=3),
        ),
        min_size=2,
        max_size=15,
    )
)
def test_arrivals_are_conserved_at_any_pace_of_scrapes(
    script: list[tuple[float, list[tuple[tuple[int, int, int], bool]]]],
) -> None:
    """Irregular collections; each pod is scraped at some of them only."""
    tracker = TargetTracker(LENIENT)
    engines = [Engine(name=f"v-{number}", started_at_s=-1e3) for number in range(3)]
    where = target(*(engine.name for engine in engines))
    seen = [engine.sample(0.0) for engine in engines]
    now_s, total, last = 0.0, 0.0, None
    checked_work(observe(tracker, collected(where, now_s, *seen)))
    came = 0
    for pause_s, pods in script:
        now_s += pause_s
        for place, (engine, (step, scraped)) in enumerate(zip(engines, pods, strict=True)):
            before = engine.arrived
            engine.work(*step)
            came += engine.arrived - before
            if scraped:
                seen[place] = engine.sample(now_s)
        work = checked_work(observe(tracker, collected(where, now_s, *seen)))
        if work is not None and work is not last:
            assert last is None or work.seen_at_s > last.seen_at_s
            total += work.requests_arrived
            last = work
    now_s += 1.0
    final = [engine.sample(now_s) for engine in engines]
    work = checked_work(observe(tracker, collected(where, now_s, *final)))
    assert work is not None
    total += work.requests_arrived
    assert math.isclose(total, came, abs_tol=1e-6)


amounts = st.one_of(st.none(), st.floats(0.0, 1e15))
anything = st.builds(
    lambda name, age_s, fields: pod(name, -age_s, **fields),
    st.sampled_from(["a", "b", "c"]),
    st.floats(-5.0, 300.0),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            (
                "running", "waiting", "deferred", "finished", "rejected", "prompt_tokens",
                "cached_tokens", "output_tokens", "preemptions", "engine_steps", "started_at_s",
            ),
            amounts,
        )
        | {"kv_mean_ratio": st.one_of(st.none(), st.floats(0.0, 1.0)), "asleep": st.booleans()},
    ),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(anything, max_size=4), min_size=1, max_size=8), st.booleans())
def test_no_sequence_of_samples_makes_a_number_that_is_none(
    script: list[list[PodSample]], lenient: bool
) -> None:
    tracker = TargetTracker(LENIENT if lenient else TrackerSettings())
    where = target("a", "b", loading=("c",))
    for tick, samples in enumerate(script):
        gpus = {sample.pod: gpu(sample.pod, sample.at_s, 0.5) for sample in samples}
        seen = observe(tracker, collected(where, TICK_S * tick, *samples, gpus=gpus))
        for signal in (seen.queue, seen.kv_cache, seen.work, seen.gpu):
            if not isinstance(signal, NoData):
                _finite(signal)


def _finite(signal: Queue | KvCache | Work | Gpu) -> None:
    for name in type(signal).__dataclass_fields__:
        value = getattr(signal, name)
        assert math.isfinite(value), name
        assert name == "seen_at_s" or value >= 0.0, name
        if name == "coverage_ratio":
            assert value <= 1.0
