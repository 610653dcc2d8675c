"""The simulated observation against the daemon's own signals, fed with the same numbers."""

import dataclasses
import math

import numpy as np
import pytest

from scaler.core.config import FreshnessConfig
from scaler.core.model import Cause, Gpu, Latency, NoData, Observation
from scaler.signals.samples import GpuSample, Histogram, PodRef, PodSample, TargetRef, TargetSamples
from scaler.signals.tracker import TargetTracker, TrackerSettings
from simulations.cluster import Fleet
from simulations.engine_layout import ITL_BOUNDS_S, TTFT_BOUNDS_S
from simulations.fleet_counters import FleetCounters
from simulations.gpu_exporter import GpuExporter
from simulations.lifecycle import Phase
from simulations.observe import Observer
from simulations.presets import PRESETS
from simulations.replica import PrefixCache, StartUp, constant
from tests.simulations.small_fleet import model

MODEL = dataclasses.replace(
    PRESETS["llama-3.1-8b-h100-tp1"].model,
    start_up=StartUp(weights=constant(20.0), compile=constant(20.0)),  # and 2 s of scheduling
    prefix_cache=PrefixCache(hit_ratio=0.3),
    max_num_queued_reqs=40,  # so that some are rejected
)
TICK_S, SCRAPE_LATE_S = 15.0, 6.0


def _fleet(per_s: float, seconds: float, seed: int) -> Fleet:
    made = Fleet(model=MODEL, seed=seed)
    made.start_warm(2)
    random = np.random.default_rng(seed)
    count = int(per_s * seconds)
    made.load(
        arrival_at_s=np.sort(random.uniform(0.0, seconds, count)),
        prompt_tokens=random.integers(10, 3000, count),
        output_tokens=random.integers(1, 400, count),
    )
    return made


def _histogram(bounds_s: tuple[float, ...], buckets: np.ndarray) -> Histogram:
    return Histogram(
        bounds_s=(*bounds_s, math.inf), counts=tuple(np.cumsum(buckets).astype(float).tolist())
    )


def _sample(counters: FleetCounters, row: int) -> PodSample:
    """What the daemon reads from the replica's page."""
    values = counters.values[row]
    usage = float(values["blocks_used"]) / counters.kv_blocks_usable
    return PodSample(
        pod=f"pod-{counters.uids[row]}",
        at_s=counters.at_s,
        model_names=("m",),
        running=float(values["requests_running"]),
        waiting=float(values["requests_waiting"]),
        deferred=0.0,
        kv_mean_ratio=usage,
        kv_max_ratio=usage,
        kv_capacity_tokens=float(MODEL.kv_capacity_tokens),
        finished=float(values["finished_stop"] + values["finished_abort"]),
        rejected=float(values["admission_rejections"]),
        prompt_tokens=float(values["prompt_tokens"]),
        cached_tokens=float(values["prompt_tokens_cached"]),
        output_tokens=float(values["generation_tokens"]),
        preemptions=float(values["preemptions"]),
        engine_steps=float(values["iterations"]),
        finished_prompt_tokens=float(values["finished_prompt_tokens"]),
        finished_output_tokens=float(values["finished_output_tokens"]),
        ttft=_histogram(TTFT_BOUNDS_S, counters.ttft_buckets[row]),
        itl=_histogram(ITL_BOUNDS_S, counters.itl_buckets[row]),
    )


class _Daemon:
    """The daemon's tracker behind the fleet's counters as last scraped."""

    def __init__(self) -> None:
        self._tracker = TargetTracker(TrackerSettings())

    def observe(
        self, scraped: FleetCounters | None, fleet: Fleet, gpus: dict[int, float], now_s: float
    ) -> Observation:
        pods = tuple(
            PodRef(name=f"pod-{view.uid}", ready=view.phase is Phase.READY)
            for view in fleet.replicas()
            if view.phase is not Phase.DRAINING
        )
        rows = range(len(scraped.uids)) if scraped is not None else ()
        samples = [_sample(scraped, row) for row in rows]
        collected = TargetSamples(
            target=TargetRef(namespace="n", kind="deployment", name="d", pods=pods),
            at_s=now_s,
            pods={sample.pod: sample for sample in samples},
            gpus={
                f"pod-{uid}": GpuSample(
                    pod=f"pod-{uid}", at_s=scraped.at_s, utilisation_ratio=ratio, field="f"
                )
                for uid, ratio in gpus.items()
            },
        )
        status = fleet.replica_status(now_s, since_s=now_s)
        return self._tracker.observe(collected, status, now_s)


def _without_words(seen: Observation) -> dict[str, object]:
    """The observation with causes in place of their prose, counts rounded of float dust."""

    def plain(value: object) -> object:
        if isinstance(value, NoData):
            return value.cause
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return round(value, 6) if isinstance(value, float) else value

    return {
        name: plain(getattr(seen, name)) for name in ("queue", "kv_cache", "ttft", "itl", "work")
    }


@pytest.mark.parametrize("scrape_every_s", [15.0, 30.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_sees_what_the_daemon_would_see(scrape_every_s: float, seed: int) -> None:
    """Replicas are added and removed on the way, so that some are new and some are gone."""
    fleet = _fleet(12.0, 600.0, seed)
    observer, daemon = Observer(MODEL, FreshnessConfig()), _Daemon()
    counts = {45.0: 4, 150.0: 1, 240.0: 5, 360.0: 3, 375.0: 6}
    scraped, next_scrape_s = None, 0.0
    compared = rejected = entered = 0
    for tick in range(1, 41):
        now_s = tick * TICK_S
        while next_scrape_s + SCRAPE_LATE_S <= now_s:
            fleet.advance(next_scrape_s + SCRAPE_LATE_S)
            scraped = fleet.counters()
            observer.scrape(scraped)
            next_scrape_s += scrape_every_s
        fleet.advance(now_s)
        status = fleet.replica_status(now_s, since_s=now_s)
        ready = [view.uid for view in fleet.replicas() if view.phase is Phase.READY]
        ours = observer.observe(status, ready, now_s)
        theirs = daemon.observe(scraped, fleet, {}, now_s)
        assert _without_words(ours) == _without_words(theirs), f"at {now_s} s"
        if not isinstance(ours.work, NoData):
            compared += 1
            rejected += ours.work.requests_rejected > 0.0
            entered += ours.work.interval_s * len(ready) != pytest.approx(ours.work.replica_s)
        if now_s in counts:
            fleet.set_replicas(counts[now_s], now_s=now_s)
    assert compared > 30
    assert rejected > 0
    assert entered > 0, "new replicas were compared over intervals of their own"


def test_no_ready_replica_is_blind_and_not_idle() -> None:
    fleet = Fleet(model=MODEL, seed=1)
    fleet.set_replicas(1, now_s=0.0)
    fleet.advance(10.0)
    observer = Observer(MODEL, FreshnessConfig())
    observer.scrape(fleet.counters())
    seen = observer.observe(fleet.replica_status(10.0, since_s=0.0), [], 10.0)
    assert isinstance(seen.queue, NoData)
    assert seen.queue.cause is Cause.REFUSED
    assert isinstance(seen.work, NoData)


def test_samples_that_are_too_old_are_stale() -> None:
    fleet = _fleet(5.0, 100.0, 1)
    observer = Observer(MODEL, FreshnessConfig(stale_after_s=45.0))
    fleet.advance(20.0)
    observer.scrape(fleet.counters())
    for now_s, stale in ((65.0, False), (65.5, True)):  # 45 s and 45.5 s after the scrape
        fleet.advance(now_s)
        seen = observer.observe(fleet.replica_status(now_s, since_s=0.0), [0, 1], now_s)
        assert isinstance(seen.queue, NoData) is stale
    assert seen.queue.cause is Cause.STALE


def test_gpu_use_is_the_share_of_the_last_interval_with_a_step_running() -> None:
    """One request of 100 steps of 0.1 s: busy for 10 s of the 30 s between two collections."""
    steady = model()
    fleet = Fleet(model=steady, seed=1)
    fleet.start_warm(2)
    fleet.load(arrival_at_s=[5.0], prompt_tokens=[10], output_tokens=[100])
    observer, exporter = Observer(steady, FreshnessConfig()), GpuExporter()
    for at_s in (0.0, 30.0):
        fleet.advance(at_s)
        exporter.collect(fleet.counters())
    fleet.advance(31.0)
    observer.scrape(fleet.counters(), exporter.ratio)
    fleet.advance(40.0)
    seen = observer.observe(fleet.replica_status(40.0, since_s=0.0), [0, 1], 40.0)
    assert seen.gpu == Gpu(
        seen_at_s=31.0,
        coverage_ratio=1.0,
        utilisation_mean_ratio=pytest.approx(10.0 / 30.0 / 2),
        utilisation_max_ratio=pytest.approx(10.0 / 30.0),
    )


def test_latencies_leave_the_window_after_a_minute() -> None:
    fleet = _fleet(5.0, 20.0, 1)
    observer = Observer(MODEL, FreshnessConfig())
    totals = {}
    for tick in range(1, 9):
        now_s = tick * TICK_S
        fleet.advance(now_s)
        observer.scrape(fleet.counters())
        seen = observer.observe(fleet.replica_status(now_s, since_s=0.0), [0, 1], now_s)
        totals[now_s] = seen.ttft.total if isinstance(seen.ttft, Latency) else None
    assert totals[15.0] is None  # the past of replicas that were there already is not known
    assert totals[30.0] > 0.0  # what came between 15 and 20 s, seen at 30 s
    assert totals[75.0] == totals[30.0]
    assert totals[90.0] == 0.0  # 60 s later
