"""The command line: help with an example, statuses 0, 1 and 2, errors in one line."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from scaler import cli as module
from scaler.cli import COMMANDS, cli, main
from scaler.config import ScalerConfig, config_hash, load
from scaler.errors import ConfigError, ScalerError, ScenarioError, SignalError


def run(
    *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The console script as a process of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VLLM_SCALER")}
    return subprocess.run(
        [sys.executable, "-c", "from scaler.cli import main; main()", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**kept, **(environ or {})},
    )  # fmt: skip


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of the console script, in this process."""
    monkeypatch.setattr(sys, "argv", ["scaler", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"Example: scaler {name}" in " ".join(result.output.split())
    assert CliRunner().invoke(cli, [name, "-h"]).output == result.output


def test_the_group_lists_every_command_and_its_version() -> None:
    listed = CliRunner().invoke(cli, ["--help"]).output
    assert all(f"  {name}" in listed for name in COMMANDS)
    assert "Example:" in listed
    assert CliRunner().invoke(cli, ["--version"]).output.startswith("scaler, version ")


def test_every_command_of_the_table_is_a_module_of_its_name() -> None:
    folder = Path(str(module.__file__)).parent
    assert {name.replace("-", "_") for name in COMMANDS} <= {
        one.stem for one in folder.glob("*.py")
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serv",), "No such command 'serv'"),
        (("serve", "--confg", "x"), "No such option"),
        (("serve", "--config"), "requires an argument"),
        (("serve", "--config", "/dev"), "is a directory"),
        (("serve", "--config", "/absent.yaml"), "/absent.yaml cannot be read: No such file"),
        (("demo", "--duration-s", "soon"), "is not a valid float"),
        (("demo", "--duration-s", "1"), "is not in the range"),
    ],
)
def test_wrong_input_is_two_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    assert ended(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert said in one_line(captured.err)
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (ConfigError("a = 1, must be 2", "b = 3, must be 4"), 2, 2),
        (ScenarioError("a trace is empty"), 2, 1),
        (SignalError("Prometheus is away"), 1, 1),
        (ScalerError("the world failed"), 1, 1),
        (click.ClickException("of a kind of its own\nin two lines"), 2, 1),
        (click.exceptions.Exit(1), 1, 0),
        (KeyboardInterrupt(), 130, 0),
        (click.Abort(), 130, 0),
        (BrokenPipeError(), 0, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_statuses_and_lines_by_who_must_act(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    error: BaseException, status: int, lines: int,
) -> None:  # fmt: skip
    @click.command("serve")
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli, "get_command", lambda _context, _name: failing)
    if isinstance(error, BrokenPipeError):
        monkeypatch.setattr(os, "dup2", lambda _from, _to: _to)  # standard output is pytest's here
    assert ended(monkeypatch, "serve") == status
    said = [line for line in capfd.readouterr().err.splitlines() if line]
    assert len(said) == lines
    assert all(line.startswith("error: ") for line in said)


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_status_that_a_command_asks_for_is_the_processs(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    @click.command("serve")
    @click.pass_context
    def ending(context: click.Context) -> None:
        context.exit(status)

    monkeypatch.setattr(cli, "get_command", lambda _context, _name: ending)
    assert ended(monkeypatch, "serve") == status


def test_every_fault_of_a_configuration_is_a_line_without_traceback(tmp_path: Path) -> None:
    path = tmp_path / "scaler.yaml"
    path.write_text("policy: {slo: {ttft_s: -1}}\ngrcp: {}\n")
    done = run("serve", "--config", str(path))
    assert done.returncode == 2
    assert sorted(done.stderr.splitlines()) == [
        "error: policy.slo.ttft_s = -1, must be a number in [0.01, 600]",
        "error: unknown key 'grcp'; did you mean 'grpc'?",
    ]
    assert done.stdout == ""


def test_what_print_config_prints_is_a_configuration(tmp_path: Path) -> None:
    done = run(
        "serve", "--print-config",
        environ={"VLLM_SCALER_POLICY__SLO__TTFT_S": "7", "VLLM_SCALER_SERVICE_HOST": "10.0.0.1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / "printed.yaml"
    path.write_text(done.stdout)
    again = load(path, environ={})
    assert again.policy.slo.ttft_s == 7.0
    expected = load(None, environ={"VLLM_SCALER_POLICY__SLO__TTFT_S": "7"})
    assert config_hash(again) == config_hash(expected) != config_hash(ScalerConfig())
    assert set(yaml.safe_load(done.stdout)) == set(ScalerConfig.__slots__)


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "", "TERM": "xterm"}])
def test_no_colours_where_nobody_sees_them(environ: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "scaler.yaml"
    path.write_text("http: {address: '127.0.0.1:0'}\ngrpc: {address: '300.0.0.1:0'}\n"
                    "kubernetes: {use: never}\nlog: {format: text}\n")  # fmt: skip
    done = run("serve", "--config", str(path), environ=environ)
    assert done.returncode == 2
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert one_line(done.stderr).startswith("error: grpc.address = '300.0.0.1:0'")
