"""The command line: one module per command; arguments -> call -> print.

Exit status: 0 done, 1 the world failed, 2 the user's input is wrong.
"""

import importlib
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

import click

from scaler import __version__
from scaler.errors import ConfigError, ScalerError, ScenarioError

# Modules are imported when their command is used: the daemon stays quick to start.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "calibrate": "a replica model from history, profiles or benchmarks",
        "compare": "many policies, many traces, one scoreboard",
        "demo": "a simulated fleet, the real daemon, and a stand-in for KEDA and the HPA",
        "doctor": "mistakes in manifests: flags, metrics, probes, scaling",
        "explain": "why a target has the replicas it has, and what would change it",
        "manifest": "the ScaledObject for a workload",
        "record": "a trace and a decision log from Prometheus history",
        "replay": "recorded decisions decided again, and where they part",
        "report": "what would have been, against the live scaler",
        "serve": "the daemon: a KEDA external scaler",
        "simulate": "one policy on one trace",
        "trace": "sum up, convert, generate and slice request traces",
        "tune": "search of the tunable settings on recorded traffic",
    }
)


class _Lazy(click.Group):
    """Finds a command in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command ``cmd_name``, None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"scaler.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command), f"{module.__name__} defines no command"
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scaler")
def cli() -> None:
    """A KEDA external scaler for vLLM that looks one start-up time ahead.

    Example: scaler serve --config scaler.yaml
    """


def main() -> None:
    """Entry point of the console script: errors are single lines, never tracebacks."""
    sys.exit(_status())


def _status() -> int:
    """Run the command that the arguments ask for, and say how it ended."""
    try:
        status = cli(standalone_mode=False)  # what ``ctx.exit`` was given, or nothing
    except click.exceptions.NoArgsIsHelpError as help_:
        help_.show()
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        click.echo(f"error: {' '.join(error.format_message().split())}{hint}", err=True)
        return 2
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # the reader has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ConfigError, ScenarioError) as error:
        for fault in getattr(error, "faults", (str(error),)):
            click.echo(f"error: {_in_one_line(fault)}", err=True)
        return 2
    except ScalerError as error:
        click.echo(f"error: {_in_one_line(str(error))}", err=True)
        return 1
    return status if isinstance(status, int) else 0


def _in_one_line(text: str) -> str:
    """A message may quote a file or a library: nothing of it breaks the line."""
    words = "".join(mark if mark.isprintable() else " " for mark in text).split()
    return " ".join(words)
