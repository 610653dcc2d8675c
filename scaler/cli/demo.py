"""``scaler demo``: the embedded demonstration."""

import asyncio
import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
import structlog

from scaler.errors import ScalerError

if TYPE_CHECKING:
    from scaler.demo.rows import Row
    from scaler.demo.run import Demo, Summary
    from scaler.demo.scenario import Scenario

COMPILING = "compiling the replica model (the first time takes up to half a minute) ..."


def _a_number(_context: click.Context, parameter: click.Parameter, value: float) -> float:
    """Refuse what passes every range: not a number."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("must be a number", param=parameter)
    return value


@click.command("demo")
@click.option(
    "--duration-s",
    type=click.FloatRange(15.0, 604800.0),
    callback=_a_number,
    help="How much traffic to play, in its own seconds; 2700 of the embedded story.",
)
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Play the beginning of this trace instead of the embedded story.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0.0, min_open=True),
    callback=_a_number,
    default=20.0,
    show_default=True,
    help="How many times faster than life; inf is as fast as the machine can.",
)
@click.option("--plain", is_flag=True, help="One line a tick, as when not on a terminal.")
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Where the daemon's log lines go; they are left out otherwise.",
)
def command(
    *,
    duration_s: float | None,
    trace: Path | None,
    speed: float,
    plain: bool,
    log_file: Path | None,
) -> None:
    """A simulated vLLM fleet, the real daemon, and a stand-in for KEDA and the HPA.

    The fleet serves metrics pages over HTTP, the daemon scrapes them and answers over gRPC, the
    stand-in asks as KEDA does and resizes the fleet; time is accelerated.

    Example: scaler demo --duration-s 600 --plain
    """
    try:
        from scaler.demo.table import summary_lines  # noqa: PLC0415 - not to load rich for others

        scenario = _scenario(trace, duration_s)
    except ImportError as missing:
        extra = "sim" if missing.name == "pyarrow" else "demo"
        raise ScalerError(
            f"scaler demo needs {missing.name}: pip install 'vllm-scaler[{extra}]'"
        ) from missing
    with _logging(log_file):
        shown = _plain if plain or not sys.stdout.isatty() else _on_terminal
        summary = shown(scenario, speed)
    for line in summary_lines(
        summary, replicas_max=scenario.replicas_max, slo_s=scenario.ttft_slo_s
    ):
        click.echo(line)


def _scenario(trace: Path | None, duration_s: float | None) -> "Scenario":
    """The trace's beginning, or the embedded story."""
    from scaler.demo import scenario as scenarios  # noqa: PLC0415 - the simulator, lazily

    if trace is not None:
        return scenarios.from_trace(trace, duration_s)
    return scenarios.story(duration_s or scenarios.DURATION_S)


def _plain(scenario: "Scenario", speed: float) -> "Summary":
    from simulations.engine import load_kernel  # noqa: PLC0415

    click.echo(COMPILING, err=True)
    began_s = time.monotonic()
    load_kernel()
    click.echo(f"ready after {time.monotonic() - began_s:.1f} s", err=True)
    try:
        return asyncio.run(
            _play(
                scenario,
                speed,
                show=lambda row: click.echo(row.line()),
                begun=lambda demo: click.echo(f"live page: {demo.page_url}", err=True),
            )
        )
    except BrokenPipeError:  # the reader has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(0) from None


def _on_terminal(scenario: "Scenario", speed: float) -> "Summary":
    from rich.console import Console  # noqa: PLC0415

    from scaler.demo.table import live_table  # noqa: PLC0415
    from simulations.engine import load_kernel  # noqa: PLC0415

    console = Console()
    with console.status(COMPILING):
        load_kernel()
    urls: list[str] = []
    with live_table(
        console,
        title=f"{scenario.namespace}/{scenario.target}, {speed:g} times as fast as life",
        subtitle=lambda: f"live page: {urls[0]}" if urls else "",
        slo_s=scenario.ttft_slo_s,
    ) as show:
        return asyncio.run(
            _play(scenario, speed, show=show, begun=lambda demo: urls.append(demo.page_url))
        )


async def _play(
    scenario: "Scenario",
    speed: float,
    *,
    show: "Callable[[Row], None]",
    begun: "Callable[[Demo], None]",
) -> "Summary":
    """Play to the end; traffic begins so long ago that it ends about now."""
    from scaler.demo.run import running  # noqa: PLC0415

    start_at_s = float(round(time.time() - scenario.duration_s))
    async with running(scenario, start_at_s=start_at_s, speed=speed, show=show) as demo:
        begun(demo)
        await demo.play()
        return demo.summary()


@contextlib.contextmanager
def _logging(path: Path | None) -> Iterator[None]:
    """Log lines into a file, or nowhere: they would tear the table apart."""
    with contextlib.ExitStack() as stack:
        stream: TextIO = sys.stderr
        level = logging.CRITICAL
        if path is not None:
            try:
                stream = stack.enter_context(path.open("a", encoding="utf-8"))
            except OSError as error:
                raise ScalerError(f"--log-file {path}: {error.strerror}") from error
            level = logging.INFO
        structlog.configure(
            processors=[
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.PrintLoggerFactory(stream),
        )
        logging.basicConfig(level=max(level, logging.WARNING), stream=stream, force=True)
        yield
