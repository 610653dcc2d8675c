"""A simulated fleet's history gives back its own replica model."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from scaler.cli import cli
from simulations.replica import StepTime
from simulations.replica_files import load_replica_model
from simulations.run import simulate
from tests.ops.recorded_fleet import (
    EPOCH_S,
    NAMESPACE,
    PROGRAMS,
    WORKLOAD,
    History,
    chat_model,
    open_metrics,
    requests_of_day,
    run,
    scenario,
)

HOURS = 6.0
PROMPT = np.array([float(n) for n in requests_of_day(0.5, peak_per_s=9.0).prompt_tokens])

pytestmark = pytest.mark.skipif(not PROGRAMS, reason="prometheus and promtool are not installed")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    played = requests_of_day(HOURS, peak_per_s=9.0)
    made = scenario([played])
    _, kept = run(made)
    folder = tmp_path_factory.mktemp("prometheus")
    with History(folder, open_metrics(kept, made, played)) as history:
        yield history.url


@pytest.fixture(scope="module")
def fitted(url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    out = tmp_path_factory.mktemp("calibrate") / "own.yaml"
    ran = CliRunner().invoke(
        cli,
        [
            *("calibrate", "--prometheus-url", url, "--target", f"{NAMESPACE}/{WORKLOAD}"),
            *("--from", f"{EPOCH_S:.0f}", "--to", f"{EPOCH_S + HOURS * 3600.0:.0f}"),
            *("--start-up-s", "120", "--gpus-per-replica", "4", "--json", "--out", str(out)),
        ],
        standalone_mode=False,
    )
    assert ran.exit_code == 0, ran.exception
    return out, json.loads(ran.stdout)


def _steps(step: StepTime) -> np.ndarray:
    """Step times over the use of the fleet: sequences, context of each, prompt tokens computed."""
    attention = float(np.mean(PROMPT**2) / 2.0 / np.mean(PROMPT))  # per token, at the lengths
    return np.array(
        [
            step.overhead_s
            + step.mixed_base_s
            + step.mixed_per_seq_s * seqs
            + step.mixed_per_kv_token_s * seqs * context
            + (step.prefill_per_token_s + step.prefill_attention_s * attention) * tokens
            for seqs in (2, 10, 40, 100)
            for context in (500, 1500)
            for tokens in (0, 200, 1000)
        ]
    )


def test_step_times_and_limits_are_given_back(fitted: tuple[Path, dict[str, object]]) -> None:
    own, found = chat_model(), load_replica_model(str(fitted[0]))
    ratio = _steps(found.step) / _steps(own.step)
    assert np.all(np.abs(ratio - 1.0) < 0.10)
    assert (found.kv_blocks, found.block_size) == (own.kv_blocks, own.block_size)


def test_the_intervals_hold_the_truth(fitted: tuple[Path, dict[str, object]]) -> None:
    """All five; how often they do over seeds is tried in tests/simulations/test_calibration.py."""
    own = dataclasses.asdict(chat_model().step)
    found = {item["name"]: item for item in fitted[1]["coefficients"]}  # type: ignore[attr-defined]  # of JSON
    assert set(found) == {
        "decode_base_s", "decode_per_seq_s", "decode_per_kv_token_s", "prefill_per_token_s",
        "prefill_attention_s",
    }  # fmt: skip
    for name, item in found.items():
        assert item["low"] <= own[name] <= item["high"], item
        assert item["loose"] == any(name in text for text in fitted[1]["advice"])  # type: ignore[attr-defined]


def test_what_was_assumed_is_said(fitted: tuple[Path, dict[str, object]]) -> None:
    """Start-up and GPUs were given; the rest is in the model, though nothing tells it."""
    notes = " ".join(fitted[1]["notes"])  # type: ignore[arg-type]  # of JSON
    assert "max_num_batched_tokens: 2048 is assumed" in notes
    assert "start-up" not in notes
    assert "gpus_per_replica" not in notes


def test_too_short_a_window_is_named_and_leaves_nothing_in_the_way(
    url: str, tmp_path: Path
) -> None:
    asked = (
        "calibrate", "--prometheus-url", url, "--target", f"{NAMESPACE}/{WORKLOAD}",
        "--from", f"{EPOCH_S:.0f}", "--out", str(tmp_path / "own.yaml"),
    )  # fmt: skip
    ran = CliRunner().invoke(cli, [*asked, "--to", f"{EPOCH_S + 3600.0:.0f}"])
    assert "stretches of ten minutes" in str(ran.exception)
    assert not list(tmp_path.iterdir())
    again = CliRunner().invoke(
        cli, [*asked, "--to", f"{EPOCH_S + HOURS * 3600.0:.0f}"], standalone_mode=False
    )
    assert again.exit_code == 0
    assert "note: gpus_per_replica: 1 is assumed" in again.output
    assert "note: start-up: 122 s is assumed" in again.output


def test_a_fleet_of_the_fitted_model_does_as_the_real_one(
    fitted: tuple[Path, dict[str, object]],
) -> None:
    played = requests_of_day(1.0, peak_per_s=9.0, seed=8)
    own = simulate(scenario([played])).score
    found = load_replica_model(str(fitted[0]))
    again = simulate(scenario([played], model=found)).score
    for one, other in (
        (own.ttft_s.p50, again.ttft_s.p50),
        (own.tpot_s.p50, again.tpot_s.p50),
    ):
        assert other == pytest.approx(one, rel=0.10)
