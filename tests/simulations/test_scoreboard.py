"""The scoreboard: complete entries, nothing run twice, what was killed goes on where it was."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from scaler.core.config import PolicyConfig
from scaler.errors import ScalerError, ScenarioError
from simulations import run_cache
from simulations.executor import SerialExecutor, executor
from simulations.frontier import REACHED_FROM
from simulations.peers import PEERS, Behaviour
from simulations.report_scoreboard import hours_at_target
from simulations.scoreboard import Kind, Plan, Scoreboard, scoreboard
from simulations.scoreboard_policies import (
    DIAL,
    ORACLE,
    contenders,
    known_policies,
    policy_names,
    scenario_of,
)
from simulations.sweep_run import Run, run_one
from tests.simulations.scoreboard_jobs import Counter, scenario, sweep

MACHINE = ("wall_s", "decide_wall_s", "simulated_requests_per_s")  # not of the scenario
ORACLE_REPLAYS = 40  # enough for a trace of ten minutes to be near the best
NAMES = ("predictive", "keda-queue", "fixed:3")


def _plan(folder: Path, **changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "policies": NAMES,
        "traces": (scenario(folder),),
        "with_oracle": False,
    }
    return Plan(**{**settings, **changes})


def _board(plan: Plan, folder: Path | None, watcher: Counter | None = None) -> Scoreboard:
    return scoreboard(plan, sweep(SerialExecutor(), folder, watcher))


def _without_machine(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k not in MACHINE} for entry in entries]


@pytest.fixture(name="full", scope="module")
def _full(tmp_path_factory: pytest.TempPathFactory) -> Scoreboard:
    """Shipped and frontier entries with the oracle."""
    folder = tmp_path_factory.mktemp("full")
    kinds = frozenset({Kind.SHIPPED, Kind.FRONTIER})
    policies = (*NAMES, ORACLE)
    plan = _plan(
        folder, policies=policies, kinds=kinds, with_oracle=True, oracle_replays_max=ORACLE_REPLAYS
    )
    return _board(plan, None)


def test_an_entry_is_a_summary_with_what_bounds_it(full: Scoreboard) -> None:
    assert not full.faults
    for entry in full.entries:
        assert entry["trace"] == "step.csv"
        assert entry["requests"] == entry["completed"] > 1000
        assert entry["attainment_target"] == pytest.approx(0.99 * entry["slo_attainable_ratio"])
        reached = entry["slo_attainment_ratio"] >= entry["attainment_target"] - REACHED_FROM
        assert entry["target_reached"] == reached
        assert 0.0 < entry["oracle_bound_gpu_hours"] <= entry["oracle_gpu_hours"]
        assert {"ttft_s", "replicas", "reversals", "config_hash", "rows_skipped"} <= set(entry)
    kinds = {(entry["policy"], entry["variant"], entry["group"]) for entry in full.entries}
    assert kinds == {
        ("predictive", "shipped", "ours"),
        ("predictive", "frontier", "ours"),
        ("keda-queue", "shipped", "metric"),
        ("keda-queue", "frontier", "metric"),
        ("fixed:3", "shipped", "bound"),
        ("oracle", "shipped", "bound"),
    }
    behaviours = [e["behaviour"] for e in full.entries if e["policy"] == "keda-queue"]
    assert behaviours[:2] == ["own", "ours"], "an HPA-driven peer has a row with our behaviour too"


def test_a_frontier_entry_shows_how_its_number_came_about(full: Scoreboard) -> None:
    found = [entry for entry in full.entries if entry["variant"] == "frontier"]
    for entry in found:
        peer = PEERS.get(entry["policy"])
        assert entry["knob"] == (peer.knob if peer else DIAL.name)
        assert entry["knob_values"] == [value for value, _, _ in entry["points"]]
        assert entry["knob_values"] == sorted(set(entry["knob_values"]))
        best = [entry["knob_value"], entry["slo_attainment_ratio"], entry["gpu_hours"]]
        assert best in entry["points"], "the summary is that of one of its runs"
        hours = entry["gpu_hours_at_target"]
        reaching = [
            point
            for point in entry["points"]
            if point[1] >= entry["attainment_target"] - REACHED_FROM
        ]
        assert (hours is not None) == bool(reaching)
        if hours is not None:
            assert hours <= max(point[2] for point in reaching)
            assert entry["gpu_hours_over_oracle"] == pytest.approx(
                hours / entry["oracle_gpu_hours"]
            )


def test_who_reaches_the_target_needs_no_less_than_the_oracle(full: Scoreboard) -> None:
    oracle = next(entry for entry in full.entries if entry["policy"] == ORACLE)
    assert oracle["target_reached"]
    for entry in full.entries:
        if (hours := hours_at_target(entry)) is not None:
            assert hours >= 0.99 * oracle["oracle_gpu_hours"]


def test_hindsight_is_never_worse_than_the_shipped_default(full: Scoreboard) -> None:
    """What ships is the first that a search tries."""
    for policy in ("predictive", "keda-queue"):
        of_policy = [entry for entry in full.entries if entry["policy"] == policy]
        shipped = [e["gpu_hours"] for e in of_policy if e["variant"] == "shipped"
                   and e["slo_attainment_ratio"] >= e["attainment_target"]]  # fmt: skip
        (frontier,) = (e for e in of_policy if e["variant"] == "frontier")
        if shipped:
            assert frontier["gpu_hours_at_target"] <= min(shipped)


def test_a_search_that_begins_on_a_part_of_the_trace_ends_in_the_same_place(
    full: Scoreboard, tmp_path: Path
) -> None:
    """The last half minute before the step and six minutes after it show what the rest shows."""
    counter = Counter()
    plan = _plan(tmp_path, kinds=frozenset({Kind.FRONTIER}), screen_until_s=450.0)
    board = _board(plan, tmp_path / "cache", counter)
    screened = {entry["policy"]: entry for entry in board.entries}
    assert set(screened) == {"predictive", "keda-queue"}
    whole = {e["policy"]: e for e in full.entries if e["variant"] == "frontier"}
    for policy, entry in screened.items():
        assert entry["requests"] == whole[policy]["requests"], "judged on all of it"
        one, other = entry["gpu_hours_at_target"], whole[policy]["gpu_hours_at_target"]
        assert (one is None) == (other is None)
        if one is not None:
            assert one == pytest.approx(other, rel=0.05)


def test_nothing_is_run_twice(tmp_path: Path) -> None:
    plan = _plan(tmp_path, kinds=frozenset({Kind.SHIPPED, Kind.FRONTIER}))
    first, second = Counter(), Counter()
    one = _board(plan, tmp_path / "cache", first)
    other = _board(plan, tmp_path / "cache", second)
    assert second.ran == []
    assert len(second.kept) == second.count == first.count
    assert one == other, "wall times too: they are those of the run that was kept"
    assert len(first.ran) == len(set(first.ran))


def test_a_changed_setting_runs_only_what_depends_on_it(tmp_path: Path) -> None:
    _board(_plan(tmp_path), tmp_path / "cache")
    base = scenario(tmp_path)
    config = dataclasses.replace(base.policy.config, tick_s=10.0)
    policy = dataclasses.replace(base.policy, config=config)
    counter = Counter()
    changed = _plan(tmp_path, traces=(dataclasses.replace(base, policy=policy),))
    _board(changed, tmp_path / "cache", counter)
    assert "attainable on step.csv" in counter.kept, "no policy decides what is attainable"
    assert "predictive on step.csv" in counter.ran


class _Killed(SerialExecutor):
    """Stops after some runs, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self._left = after

    def map(self, function, jobs, *, ended: Callable[[int, Any], None] | None = None):  # type: ignore[no-untyped-def, override]
        def counted(place: int, result: Any) -> None:
            assert ended is not None
            ended(place, result)
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt

        return super().map(function, jobs, ended=counted)


def test_what_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    plan = _plan(tmp_path, kinds=frozenset({Kind.SHIPPED, Kind.FRONTIER}))
    cache, killed, resumed = tmp_path / "cache", Counter(), Counter()
    with pytest.raises(KeyboardInterrupt):
        scoreboard(plan, sweep(_Killed(after=4), cache, killed))
    assert len(killed.ran) == 4
    board = _board(plan, cache, resumed)
    assert not set(resumed.ran) & set(killed.ran)
    assert set(killed.ran) <= set(resumed.kept)
    whole = _board(plan, None)
    assert _without_machine(board.entries) == _without_machine(whole.entries)


def test_processes_come_to_the_same(tmp_path: Path) -> None:
    plan = _plan(tmp_path, clock=time.perf_counter)
    with executor(workers=2) as pool:
        parallel = scoreboard(plan, sweep(pool, None))
    serial = _board(plan, None)
    assert _without_machine(parallel.entries) == _without_machine(serial.entries)
    assert all(entry["wall_s"] > 0.0 for entry in parallel.entries)


def test_a_worker_with_another_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key was made of the source of the beginning; what runs later must be the same."""
    hashes = iter(["of the beginning", "of later"])
    board = sweep(SerialExecutor(), tmp_path / "cache")
    monkeypatch.setattr("simulations.sweep.source_hash", lambda _: next(hashes))
    run = Run(name="a run", scenario=scenario(tmp_path))
    with pytest.raises(ScalerError, match="a run: the worker runs another version"):
        board.results(run_one, [run])
    assert not list((tmp_path / "cache").rglob("runs/*/*.json")), "and nothing of it is kept"
    assert run_cache.source_hash(run_one.__module__)


def test_a_knob_is_tuned_on_other_traces_than_it_is_judged_on(tmp_path: Path) -> None:
    training = (
        scenario(tmp_path, "train.csv", seed=3, peak=6.0),
        scenario(tmp_path, "train2.csv", seed=4, peak=10.0),
    )
    counter = Counter()
    plan = _plan(tmp_path, training=training, kinds=frozenset({Kind.TUNED}))
    board = _board(plan, tmp_path / "cache", counter)
    (entry,) = board.entries
    assert (entry["policy"], entry["variant"], entry["trace"]) == (
        "keda-queue", "tuned", "step.csv",
    )  # fmt: skip
    assert entry["tuned_on"] == ["train.csv", "train2.csv"]
    searched = [name for name in counter.ran if " at " in name and "train" in name]
    tried = {name.split(" at ")[1].split(" on ")[0] for name in searched}
    assert f"{entry['knob_value']:g}" in tried
    on_trace = [name for name in counter.ran if name.endswith(" on step.csv")]
    assert sorted(on_trace) == ["attainable on step.csv", next(n for n in on_trace if "tuned" in n)]


def test_what_never_ends_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 requests a second on one replica that serves 4: the queue outlives half a minute."""
    monkeypatch.setattr("simulations.run.OVERTIME_MAX_S", 30.0)
    plan = _plan(
        tmp_path,
        policies=("fixed:1", "fixed:8"),
        traces=(scenario(tmp_path, peak=16.0),),
    )
    board = _board(plan, None)
    assert [entry["policy"] for entry in board.entries] == ["fixed:8"]
    (fault,) = board.faults
    assert fault.startswith("fixed:1 on step.csv: ")
    assert "never carry this load" in fault


# Names and forms


def test_every_policy_has_its_forms() -> None:
    made = contenders(known_policies(), attainment_share=0.99)
    names = {contender.policy for contender in made}
    assert names == set(known_policies()) - {ORACLE}
    for name, peer in PEERS.items():
        forms = [(c.variant, c.behaviour) for c in made if c.policy == name]
        assert forms == list(itertools.product(peer.variants, peer.behaviours))


def test_a_knob_of_ours_is_the_attainment_that_is_asked_for(tmp_path: Path) -> None:
    base = scenario(tmp_path)
    ours, peer, fixed = contenders(("predictive", "knative-kpa", "fixed:3"), attainment_share=0.99)
    asked = scenario_of(base, ours, 0.95).policy.config
    assert asked.slo.attainment_target_ratio == 0.95
    assert dataclasses.replace(asked, slo=PolicyConfig().slo) == PolicyConfig()
    assert scenario_of(base, peer, 12.0).policy.knob == 12.0
    assert scenario_of(base, peer, 12.0).policy.config == base.policy.config
    assert scenario_of(base, peer).policy.knob == PEERS["knative-kpa"].knob_default
    assert scenario_of(base, peer).policy.behaviour == Behaviour.OWN
    assert scenario_of(base, fixed).policy.replicas_fixed == 3


def test_all_is_every_policy_and_a_list_keeps_its_order() -> None:
    assert policy_names("all") == known_policies()
    assert policy_names(" fixed:3, predictive,fixed:3") == ("fixed:3", "predictive")


@pytest.mark.parametrize("asked", ["fixed:0", "fixed:", "predictive,fixed:x", "fixed:1.5"])
def test_a_fixed_count_must_be_one(asked: str) -> None:
    with pytest.raises(ScenarioError, match=r"N in fixed:N must be a whole number in \[1, 10000\]"):
        policy_names(asked)


@pytest.mark.parametrize("asked", ["keda", "predictive,nonsense", "fixed", "", ","])
def test_an_unknown_policy_lists_the_known_ones(asked: str) -> None:
    with pytest.raises(ScenarioError, match=r"predictive, reactive, keda-queue, .*oracle, fixed:N"):
        policy_names(asked)


@pytest.mark.parametrize("share", [0.0, 0.49, 1.0, float("nan")])
def test_an_attainment_out_of_range_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(ScenarioError, match="attainment = "):
        _plan(tmp_path, attainment_share=share)


def test_tuning_needs_training_traces(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="needs training traces"):
        _plan(tmp_path, kinds=frozenset({Kind.TUNED}))


def test_a_time_without_requests_is_refused(tmp_path: Path) -> None:
    base = dataclasses.replace(scenario(tmp_path), until_s=1e-6)
    with pytest.raises(ScenarioError, match="no request in the time that is played"):
        _board(_plan(tmp_path, traces=(base,)), None)
