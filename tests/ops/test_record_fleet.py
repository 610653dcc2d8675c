"""A simulated fleet is recorded from a real Prometheus, and simulated again."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from scaler.cli import cli
from scaler.core.model import Work
from scaler.ops.replay import read_log, replay
from scaler.service.codec import DecisionRecord
from simulations.run import Result, simulate
from simulations.traces import read_trace
from tests.ops.recorded_fleet import (
    EPOCH_S,
    NAMESPACE,
    PROGRAMS,
    WORKLOAD,
    History,
    open_metrics,
    requests_of_day,
    run,
    scenario,
)

HOURS = 4.0

pytestmark = pytest.mark.skipif(not PROGRAMS, reason="prometheus and promtool are not installed")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Result, str, int]]:
    played = requests_of_day(HOURS, peak_per_s=22.0)
    made = scenario([played])
    result, kept = run(made)
    folder = tmp_path_factory.mktemp("prometheus")
    with History(folder, open_metrics(kept, made, played)) as history:
        yield result, history.url, len(played)


@pytest.fixture(scope="module")
def recorded(fleet: tuple[Result, str, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("record")
    ran = _record(fleet[1], out)
    assert ran.exit_code == 0, ran.output
    return out


def _record(url: str, out: Path, *more: str, target: str = f"{NAMESPACE}/{WORKLOAD}"):  # type: ignore[no-untyped-def]  # click's own
    window = ("--from", f"{EPOCH_S:.0f}", "--to", f"{EPOCH_S + HOURS * 3600.0:.0f}")
    asked = ("--prometheus-url", url, "--target", target, *window, "--out", str(out))
    return CliRunner().invoke(cli, ["record", *asked, *more], standalone_mode=False)


def test_the_recorded_trace_scales_the_fleet_as_the_real_one(
    fleet: tuple[Result, str, int], recorded: Path
) -> None:
    """Six replicas on average.

    Which long prompts come together is in no counter, and the fewer the replicas, the more it
    matters: with the lengths of its own requests shuffled, the same day at 9 requests/s (two
    replicas) takes 4 % fewer GPU-hours.
    """
    first = fleet[0].score
    again = simulate(scenario(list(read_trace(recorded / "trace.csv.gz")))).score
    assert again.gpu_hours == pytest.approx(first.gpu_hours, rel=0.03)
    assert again.slo_attainment_ratio == pytest.approx(first.slo_attainment_ratio, abs=0.01)


def test_what_was_counted_is_in_the_trace(fleet: tuple[Result, str, int], recorded: Path) -> None:
    summary = json.loads((recorded / "record.json").read_text())
    assert summary["requests"] == pytest.approx(fleet[2], rel=0.005)
    assert summary["prompt_tokens"] == pytest.approx(summary["prompt_tokens_counted"], rel=0.01)
    assert summary["output_tokens"] == pytest.approx(summary["output_tokens_counted"], rel=0.02)
    assert not (recorded / ".parts").exists()


def test_the_log_replays_bit_for_bit(recorded: Path) -> None:
    again = list(replay(read_log(recorded / "decisions.jsonl.gz")))
    assert len(again) == HOURS * 240  # a tick of 15 s
    assert all(one.same for one in again)
    seen = [one.record for one in again if isinstance(one.record, DecisionRecord)]
    works = [record.decision.observation.work for record in seen]
    assert sum(isinstance(work, Work) for work in works) > 0.97 * len(works)
