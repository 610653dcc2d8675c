"""The whole demonstration, as fast as the machine can: real HTTP and gRPC, the real daemon."""

import asyncio
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from scaler.demo.keda import FIRST_POLL_S, FIRST_SYNC_S, ScaleChange
from scaler.demo.rows import Row
from scaler.demo.run import Demo, Summary, running
from scaler.demo.scenario import FLASH_AT_S, Scenario, story
from scaler.errors import ScalerError
from scaler.signals.samples import PodSample
from scaler.signals.vllm import VllmReader
from simulations.fleet_counters import FleetCounters

START_AT_S = 1_800_000_000.0
TICK_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Played:
    scenario: Scenario
    rows: list[Row]
    shown: list[Row]
    summary: Summary
    calls: list[str]
    changes: list[ScaleChange]
    samples: dict[int, PodSample]  # at the end, read over HTTP, by replica
    counters: FleetCounters  # of the same instant
    targets: list[dict[str, Any]]  # of the daemon's HTTP API

    def row(self, t_s: float) -> Row:
        return next(row for row in self.rows if row.t_s >= t_s)


@pytest.fixture(scope="module")
def played() -> Played:
    """The embedded story, once for all tests of this module."""
    return asyncio.run(_play(story()))


async def _play(scenario: Scenario) -> Played:
    shown: list[Row] = []
    async with running(scenario, start_at_s=START_AT_S, speed=math.inf, show=shown.append) as demo:
        await demo.play()
        async with aiohttp.ClientSession() as session:
            samples = {
                uid: await _sample(session, number)
                for uid, number in demo.cluster.endpoints.serving().items()
            }
            async with session.get(f"{demo.page_url}api/targets") as response:
                targets = (await response.json())["targets"]
        return Played(
            scenario=scenario,
            rows=demo.rows.all,
            shown=shown,
            summary=demo.summary(),
            calls=demo.keda.calls,
            changes=demo.keda.changes,
            samples=samples,
            counters=demo.fleet.counters(demo.clock.now_s()),
            targets=targets,
        )


async def _sample(session: aiohttp.ClientSession, port: int) -> PodSample:
    async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
        sample = VllmReader().from_page(await response.text(), pod="p", at_s=0.0)
    assert isinstance(sample, PodSample), sample
    return sample


def test_there_is_a_decision_every_tick_and_none_is_blind(played: Played) -> None:
    assert [row.t_s for row in played.rows] == [
        tick * TICK_S for tick in range(round(played.scenario.duration_s / TICK_S) + 1)
    ]
    assert played.shown == played.rows
    for row in played.rows:
        assert None not in (row.ready, row.starting, row.waiting, row.wanted), row
        assert "blind" not in row.headline or row.t_s == 0.0, row.headline


def test_load_rises_and_replicas_are_wanted_before_they_are_ready(played: Played) -> None:
    rising = [row for row in played.rows if row.t_s <= 900.0]
    assert rising[-1].load_per_s > 2.0 * rising[2].load_per_s
    assert rising[-1].desired > rising[0].desired
    for before, after in pairwise(rising):
        assert after.desired >= before.desired, "nothing is given back while the load rises"
    ahead = next(row for row in rising if row.desired > (row.ready or 0))
    follows = next(row for row in played.rows if (row.ready or 0) >= ahead.desired)
    # Scheduling, weights and compilation of a 70B model take minutes.
    assert follows.t_s > ahead.t_s + 60.0
    between = [row for row in rising if ahead.t_s + 30.0 <= row.t_s < follows.t_s]
    assert all(row.starting for row in between), "what is wanted and not ready is starting"


def test_the_flash_is_answered_within_two_ticks_of_being_felt(played: Played) -> None:
    before, peak = played.row(FLASH_AT_S - TICK_S), played.row(FLASH_AT_S + 2 * TICK_S)
    assert peak.load_per_s > 1.5 * before.load_per_s
    after = [row for row in played.rows if FLASH_AT_S <= row.t_s <= FLASH_AT_S + 150.0]
    assert max(row.desired for row in after) > before.desired


def test_the_count_is_held_and_then_given_back_in_steps(played: Played) -> None:
    peak = max(row.desired for row in played.rows)
    last_at_peak_s = max(row.t_s for row in played.rows if row.desired == peak)
    assert last_at_peak_s >= FLASH_AT_S + 300.0, "the hold is at least 300 s"
    down = [change for change in played.changes if change.after < change.before]
    assert len(down) >= 2
    for change in down:
        # 25 % or one pod a minute, whichever is more.
        assert change.before - change.after <= max(1, math.ceil(change.before * 0.25)), change
    assert played.rows[-1].desired < peak
    assert played.rows[-1].ready == played.changes[-1].after


def test_the_stand_in_calls_as_keda_does(played: Played) -> None:
    reads = len(played.calls) // 3
    assert played.calls == ["GetMetricSpec", "GetMetrics", "IsActive"] * reads
    duration_s = played.scenario.duration_s
    polls = 1 + math.floor((duration_s - FIRST_POLL_S) / 15.0)
    syncs = 1 + math.floor((duration_s - FIRST_SYNC_S) / 15.0)
    assert reads == polls + syncs
    assert played.summary.failed_reads == 0
    assert played.summary.calls == 3 * reads


def test_the_hpa_sets_what_the_daemon_published(played: Played) -> None:
    for change in played.changes:
        told = max(
            (row for row in played.rows if START_AT_S + row.t_s <= change.at_s),
            key=lambda row: row.t_s,
        )
        if change.after > change.before:
            assert change.after <= told.desired
        else:
            assert change.after >= told.desired
    for before, after in pairwise(played.changes):
        assert after.before == before.after


def test_the_summary_agrees_with_what_was_shown(played: Played) -> None:
    summary, rows = played.summary, played.rows
    arrived = int((played.scenario.requests.arrival_s <= played.scenario.duration_s).sum())
    assert summary.score.arrived == arrived
    # At every tick those that arrived since the last one: together all, but for the first instant.
    assert sum(row.load_per_s * TICK_S for row in rows[1:]) == pytest.approx(arrived, abs=1)
    assert summary.score.within_slo <= summary.score.answered <= arrived
    assert summary.score.within_ratio > 0.95, "the story is one that can be served"
    assert summary.replica_changes == len(played.changes)
    assert summary.replicas_highest == max(change.after for change in played.changes)
    assert summary.played_s == played.scenario.duration_s
    # Every ready or starting replica holds four GPUs; drains come on top.
    held_h = sum((row.ready or 0) + (row.starting or 0) for row in rows[1:]) * TICK_S * 4 / 3600
    assert held_h * 0.98 <= summary.score.gpu_hours <= held_h * 1.1
    assert summary.gpu_hours_always_max == pytest.approx(12 * 4 * 2700 / 3600)
    assert summary.score.gpu_hours < summary.gpu_hours_always_max


def test_pages_over_http_are_the_fleets_counters(played: Played) -> None:
    assert set(played.samples) == {int(uid) for uid in played.counters.uids}
    for uid, values in zip(played.counters.uids, played.counters.values, strict=True):
        sample = played.samples[int(uid)]
        assert sample.running == values["requests_running"]
        assert sample.output_tokens == values["generation_tokens"] > 0
        assert sample.prompt_tokens == values["prompt_tokens"]
        assert sample.finished == values["finished_stop"] + values["finished_abort"]


def test_the_daemon_shows_the_same_over_http(played: Played) -> None:
    (target,) = played.targets
    last = played.rows[-1]
    assert target["desired"] == last.desired
    assert target["ready"] == last.ready
    assert target["origin"] == "watch"
    assert target["target"] == "deployment/vllm-llama-70b"


async def test_the_same_story_twice_decides_the_same() -> None:
    first = await _play(story(300.0))
    second = await _play(story(300.0))
    assert [row.line() for row in first.rows] == [row.line() for row in second.rows]
    assert first.changes == second.changes


async def test_a_row_that_cannot_be_shown_ends_the_play() -> None:
    def broken(_row: Row) -> None:
        raise BrokenPipeError

    async with running(story(300.0), start_at_s=START_AT_S, speed=math.inf, show=broken) as demo:
        with pytest.raises(BrokenPipeError):
            await demo.play()
        assert demo.clock.now_s() < START_AT_S + 300.0


async def test_a_stand_in_that_fails_ends_the_play() -> None:
    async with running(story(300.0), start_at_s=START_AT_S, speed=math.inf) as demo:
        await _forget_the_scaled_object(demo)
        with pytest.raises(ScalerError, match="answered 404"):
            await demo.play()


async def _forget_the_scaled_object(demo: Demo) -> None:
    url = f"{demo.daemon.config.kubernetes.server}/apis/keda.sh/v1alpha1/namespaces/llm"
    async with (
        aiohttp.ClientSession() as session,
        session.delete(f"{url}/scaledobjects/vllm-llama-70b") as response,
    ):
        assert response.status == 200
