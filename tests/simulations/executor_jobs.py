"""Jobs for the executor's tests, in a module of their own so that fresh processes find them."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from scaler.errors import ConfigError, ScalerError, ScenarioError
from simulations.executor import executor


@dataclass(frozen=True)
class Job:
    """``value`` is squared; ``folder`` is where a run leaves its process id."""

    name: str
    value: int = 0
    folder: str = ""


def square(job: Job) -> int:
    return job.value * job.value


def process_id(job: Job) -> int:
    del job
    return os.getpid()


def refuse(job: Job) -> int:
    """Fails in the way that the value says."""
    match job.value:
        case 1:
            raise ScenarioError("trace = empty, must hold requests")
        case 2:
            raise ConfigError("tick_s = -1, must be above 0", "slo.ttft_s = 0, must be above 0")
        case 3:
            raise ScalerError("disk full")
        case 4:
            raise ZeroDivisionError("division by zero")
        case 5:
            os._exit(9)
    return job.value


def forever(job: Job) -> int:
    """Says that it runs, and never ends."""
    Path(job.folder, str(os.getpid())).touch()
    while True:
        time.sleep(0.005)


def main() -> None:
    """Two runs that never end, in two processes: for tests that end the parent."""
    jobs = [Job(name=f"run {place}", folder=sys.argv[1]) for place in range(4)]
    with executor(workers=2) as run_on:
        run_on.map(forever, jobs)
