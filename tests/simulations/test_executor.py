"""Executors: order, names in errors, and no process left behind."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaler.errors import ConfigError, ScalerError, ScenarioError
from simulations.executor import Executor, executor
from tests.simulations.executor_jobs import Job, process_id, refuse, square

ROOT = Path(__file__).parents[2]
LIMIT_S = 30.0
# Ctrl-C ends it, also where the tests run in the background of a shell that ignores it there.
HEARS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
START = f"{HEARS}from tests.simulations.executor_jobs import main; main()"


@pytest.fixture(name="run_on", params=["serial", "processes", "ray"], scope="module")
def _run_on(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Each executor; Ray where it is installed, as a cluster of this machine."""
    if request.param == "ray":
        if importlib.util.find_spec("ray") is None and not os.environ.get("REQUIRE_EXTERNALS"):
            pytest.skip("Ray is not installed: pip install 'vllm-scaler[ray]'")
        with executor(workers=2, ray_address="local") as made:
            yield made
    else:
        with executor(workers=1 if request.param == "serial" else 2) as made:
            yield made


def test_results_come_in_the_order_of_the_jobs(run_on: Executor) -> None:
    jobs = [Job(name=f"run {value}", value=value) for value in range(9)]
    heard: dict[int, int] = {}
    results = run_on.map(square, jobs, ended=heard.__setitem__)
    assert results == [0, 1, 4, 9, 16, 25, 36, 49, 64]
    assert heard == dict(enumerate(results)), "each result is heard of once, with its place"


def test_nothing_to_do_is_no_error(run_on: Executor) -> None:
    assert run_on.map(square, []) == []


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (1, ScenarioError, "bad run: trace = empty, must hold requests"),
        (2, ConfigError, "bad run: tick_s = -1, must be above 0"),
        (3, ScalerError, "bad run: disk full"),
    ],
)
def test_a_failure_names_its_run_and_keeps_its_family(
    run_on: Executor, value: int, kind: type[ScalerError], message: str
) -> None:
    jobs = [Job(name="good run"), Job(name="bad run", value=value), Job(name="later")]
    with pytest.raises(kind) as failed:
        run_on.map(refuse, jobs)
    assert type(failed.value) is kind
    assert str(failed.value).startswith(message)


def test_every_fault_of_a_setting_is_kept(run_on: Executor) -> None:
    with pytest.raises(ConfigError) as failed:
        run_on.map(refuse, [Job(name="bad run", value=2)])
    assert [fault.split(" = ")[0] for fault in failed.value.faults] == [
        "bad run: tick_s",
        "bad run: slo.ttft_s",
    ]


def test_a_programmers_mistake_stays_what_it_is_and_names_its_run(run_on: Executor) -> None:
    with pytest.raises(ZeroDivisionError) as failed:
        run_on.map(refuse, [Job(name="bad run", value=4)])
    assert "bad run" in "".join(failed.value.__notes__)


def test_a_pool_runs_beside_this_process_and_a_serial_one_in_it() -> None:
    jobs = [Job(name="a"), Job(name="b")]
    with executor(workers=2) as pool, executor(workers=1) as serial:
        assert os.getpid() not in pool.map(process_id, jobs)
        assert serial.map(process_id, jobs) == [os.getpid(), os.getpid()]


def test_a_process_that_dies_is_an_error_that_names_what_it_may_have_run() -> None:
    jobs = [Job(name="deadly run", value=5)]
    with executor(workers=2) as pool, pytest.raises(ScalerError, match="deadly run: a process"):
        pool.map(refuse, jobs)


@pytest.mark.parametrize("workers", [0, -1, 5000])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers: int) -> None:
    with (
        pytest.raises(ScenarioError, match=f"jobs = {workers}, must be in"),
        executor(workers=workers),
    ):
        pass


def test_ray_without_a_cluster_is_said_in_one_line() -> None:
    if importlib.util.find_spec("ray") is None:
        wanted = "--ray needs ray: pip install"
    else:
        wanted = "--ray 127.0.0.1:1: no Ray cluster there"
    with (
        pytest.raises(ScalerError, match=wanted) as failed,
        executor(workers=1, ray_address="127.0.0.1:1"),
    ):
        pass
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_parent(tmp_path: Path, ending: signal.Signals) -> None:
    """Ctrl-C reaches the parent alone here, and a killed parent can clear nothing up."""
    parent = subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path)],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    workers: list[int] = []
    try:
        _until(lambda: len(list(tmp_path.iterdir())) == 2)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        assert all(_runs(worker) for worker in workers)
        parent.send_signal(ending)
        assert parent.wait(LIMIT_S) != 0
        _until(lambda: not any(_runs(worker) for worker in workers))
    finally:  # a test that fails leaves nothing behind either
        for process in (parent.pid, *workers):
            if _runs(process):
                os.kill(process, signal.SIGKILL)


def _until(true) -> None:  # type: ignore[no-untyped-def]  # a function of the test
    end_s = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < end_s, "it never came true"
        time.sleep(0.005)


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie that nobody has waited for."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
