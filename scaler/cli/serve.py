"""``scaler serve``: the daemon."""

import asyncio
import os
import signal
from pathlib import Path

import click
import yaml

from scaler.cli import logs
from scaler.config import ScalerConfig, as_tree, load


@click.command("serve")
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML file; without it defaults and VLLM_SCALER_* variables apply.",
)
@click.option("--print-config", is_flag=True, help="Print the settings in force and exit.")
def command(*, config_path: Path | None, print_config: bool) -> None:
    """Run the daemon that KEDA calls.

    Example: scaler serve --config /etc/vllm-scaler/config.yaml
    """
    config = load(config_path)
    if print_config:
        click.echo(yaml.safe_dump(as_tree(config), sort_keys=False), nl=False)
        return
    logs.configure(config.log)
    asyncio.run(_run(config, config_path))


async def _run(config: ScalerConfig, config_path: Path | None) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    # gRPC reads this when it is imported: what it would write beside our own lines is in them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from scaler.service.daemon import Daemon  # noqa: PLC0415 - after the line above

    daemon = Daemon(config, config_path=config_path)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if config_path is not None:
        loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    try:
        await daemon.start()
        await stopped.wait()
    finally:
        await daemon.stop()
