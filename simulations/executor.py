"""Runs many jobs: in this process, in a pool of processes, or on a Ray cluster.

An executor maps a function over jobs.  The function and the jobs are pickled, so they are small:
a job names its trace, it does not hold it.  Results come in the order of the jobs; ``ended`` hears
of each one as it comes, which is when a cache keeps it.  The first job that fails ends the map, and
its name stands in front of the message.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Protocol, TypeVar

from scaler.errors import ConfigError, ScalerError, ScenarioError

WORKERS_MAX = 1024
STOPPED = 130  # exit status of a worker whose parent has gone, as after Ctrl-C
AHEAD_PER_WORKER = 2  # jobs handed over beyond those that run, so that no worker waits for one


class Named(Protocol):
    """What a job says of itself."""

    @property
    def name(self) -> str:
        """For progress and errors."""


J = TypeVar("J", bound=Named)
R = TypeVar("R")
Ended = Callable[[int, R], None]
"""Is given the place of a job and its result."""


class Executor(Protocol):
    """Maps a function over jobs."""

    def map(
        self,
        function: Callable[[J], R],
        jobs: Sequence[J],
        *,
        ended: Ended[R] | None = None,
    ) -> list[R]:
        """The results in the order of ``jobs``; ``ended`` is called with place and result.

        Raises:
            ScalerError: a job failed; the message begins with its name.
        """


class SerialExecutor:
    """One job after the other, in this process."""

    def map(
        self,
        function: Callable[[J], R],
        jobs: Sequence[J],
        *,
        ended: Ended[R] | None = None,
    ) -> list[R]:
        """The results in the order of ``jobs``."""
        results = []
        for place, job in enumerate(jobs):
            with _naming(job):
                results.append(function(job))
            if ended is not None:
                ended(place, results[-1])
        return results


class ProcessExecutor:
    """A pool of fresh processes on this machine; what starts it must be importable (``spawn``).

    The processes stay from one map to the next, with whatever they have compiled and measured.
    """

    def __init__(self, workers: int) -> None:
        """Raise ScenarioError for a number of workers that makes no sense."""
        _check_workers(workers)
        self._workers = workers
        self._pool: _Pool | None = None

    def map(
        self,
        function: Callable[[J], R],
        jobs: Sequence[J],
        *,
        ended: Ended[R] | None = None,
    ) -> list[R]:
        """The results in the order of ``jobs``."""
        running: dict[Future[R], int] = {}
        try:
            if self._pool is None:
                self._pool = _Pool(self._workers)
            return self._collect(self._pool.processes, function, jobs, running, ended)
        except BrokenProcessPool as error:
            self._end()
            names = ", ".join(jobs[place].name for place in sorted(running.values()))
            raise ScalerError(
                f"{names}: a process died, perhaps for want of memory; fewer --jobs need less"
            ) from error
        except BaseException:  # also Ctrl-C: the processes would go on with the jobs of this map
            self._end()
            raise

    def close(self) -> None:
        """End the processes, which have nothing left to do."""
        if self._pool is not None:
            self._pool.processes.shutdown()
        self._end()

    def _end(self) -> None:
        """End every worker, also in the middle of a run."""
        if self._pool is not None:
            self._pool.end()
            self._pool = None

    def _collect(
        self,
        pool: ProcessPoolExecutor,
        function: Callable[[J], R],
        jobs: Sequence[J],
        running: dict[Future[R], int],
        ended: Ended[R] | None,
    ) -> list[R]:
        waiting = iter(enumerate(jobs))
        results: dict[int, R] = {}
        while True:
            for place, job in _up_to(waiting, self._workers * AHEAD_PER_WORKER - len(running)):
                running[pool.submit(function, job)] = place
            if not running:
                return [results[place] for place in range(len(jobs))]
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=running.__getitem__):
                place = running[future]
                with _naming(jobs[place]):
                    results[place] = future.result()
                del running[future]
                if ended is not None:
                    ended(place, results[place])


class RayExecutor:
    """The workers of a Ray cluster; they need this package and the folder of the traces.

    ``address`` is what ``ray.init`` takes: ``local`` starts a cluster of one machine that ends with
    this executor, ``auto`` finds a running one, ``ray://HOST:PORT`` is a remote one.
    """

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            ScalerError: Ray is not installed, or there is nothing at ``address``.
        """
        self._ray: Any = _ray()
        try:
            self._ray.init(
                address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            message = " ".join(str(error).split())
            raise ScalerError(f"--ray {address}: no Ray cluster there: {message}") from error

    def map(
        self,
        function: Callable[[J], R],
        jobs: Sequence[J],
        *,
        ended: Ended[R] | None = None,
    ) -> list[R]:
        """The results in the order of ``jobs``."""
        remote = self._ray.remote(num_cpus=1, max_retries=1)(_unnamed(function))
        waiting = iter(enumerate(jobs))
        running: dict[Any, int] = {}
        results: dict[int, R] = {}
        try:
            while True:
                for place, job in _up_to(waiting, self._room() - len(running)):
                    running[remote.remote(job)] = place
                if not running:
                    return [results[place] for place in range(len(jobs))]
                done, _ = self._ray.wait(list(running), num_returns=1)
                place = running.pop(done[0])
                results[place] = self._take(done[0], jobs[place])
                if ended is not None:
                    ended(place, results[place])
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _room(self) -> int:
        """Jobs that may be on the cluster at once; it may grow meanwhile."""
        cpus = int(self._ray.cluster_resources().get("CPU", 1.0))
        return max(1, min(cpus, WORKERS_MAX)) * AHEAD_PER_WORKER

    def _take(self, reference: Any, job: Named) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            with _naming(job):
                raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise ScalerError(f"{job.name}: a Ray worker was lost: {error}") from error

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


@contextlib.contextmanager
def executor(*, workers: int, ray_address: str | None = None) -> Iterator[Executor]:
    """The executor for ``workers`` processes here, or for the Ray cluster at an address.

    Raises:
        ScenarioError: ``workers`` is out of its range.
        ScalerError: there is no Ray, or no cluster at the address.
    """
    _check_workers(workers)
    if ray_address is not None:
        cluster = RayExecutor(ray_address)
        try:
            yield cluster
        finally:
            cluster.close()
    elif workers == 1:
        yield SerialExecutor()
    else:
        pool = ProcessExecutor(workers)
        try:
            yield pool
        finally:
            pool.close()


def _check_workers(workers: int) -> None:
    if not 1 <= workers <= WORKERS_MAX:
        raise ScenarioError(f"jobs = {workers}, must be in [1, {WORKERS_MAX}]")


def _up_to(waiting: Iterator[tuple[int, J]], count: int) -> Iterator[tuple[int, J]]:
    for _, item in zip(range(count), waiting, strict=False):
        yield item


@contextlib.contextmanager
def _naming(job: Named) -> Iterator[None]:
    """Puts the job's name in front of what goes wrong in it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(*(f"{job.name}: {fault}" for fault in error.faults)) from error
    except ScalerError as error:
        raise type(error)(f"{job.name}: {error}") from error
    except BrokenProcessPool:  # it is not known whose process it was
        raise
    except Exception as error:  # nothing is swallowed: whatever it is, it says whose run it was
        error.add_note(f"in the run {job.name}")
        raise


class _Pool:
    """Processes that live as long as a pipe that only this process can close."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._alive, self._life = context.Pipe(duplex=False)
        self.processes = ProcessPoolExecutor(
            max_workers=workers,
            mp_context=context,
            initializer=_end_with_parent,
            initargs=(self._alive,),
        )

    def end(self) -> None:
        self._life.close()
        self.processes.shutdown(cancel_futures=True)
        self._alive.close()


def _end_with_parent(alive: Connection) -> None:
    """Ends this worker when the parent closes its end of the pipe, or dies in whatever way."""

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            alive.recv_bytes()
        os._exit(STOPPED)

    # Ctrl-C goes to the whole group of processes, and it is the parent's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _ray() -> ModuleType:
    try:
        return importlib.import_module("ray")  # an extra, and slow to load
    except ImportError as missing:
        raise ScalerError(
            f"--ray needs {missing.name}: pip install 'vllm-scaler[ray]'"
        ) from missing


def _unnamed(function: Callable[[J], R]) -> Callable[[J], R]:
    """``function`` as a plain function of a module, which is what Ray accepts."""

    def call(job: J) -> R:
        return function(job)

    return call
