"""The README's round, as it is written, on a recorded day of a simulated fleet.

Commands are taken from the README; what differs is the address, the window, and how much is tried.
What asks a cluster or a running daemon is only parsed here, and tried in the tests of its command.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from scaler.cli import cli
from tests.ops.recorded_fleet import (
    EPOCH_S,
    PROGRAMS,
    History,
    open_metrics,
    requests_of_day,
    run,
    scenario,
)

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
HOURS = 5.0
LESS = {
    "compare": ("--policies", "predictive,fixed:2", "--no-oracle", "--jobs", "1", "--until-s",
                "1800"),
    "tune": ("--until-s", "7200", "--jobs", "1"),
}  # fmt: skip
# A verdict that is none yet is 0, a replay that differs 1: neither is here.
LIVE = ("http://localhost", "/var/lib/vllm-scaler", "/etc/vllm-scaler")


def commands(text: str) -> list[list[str]]:
    """Every command of the code blocks in order, comments left out."""
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S))
    lines = blocks.replace("\\\n", " ").splitlines()
    ours = [line for line in lines if re.match(r"(scaler|kubectl|mkdir) ", line)]
    return [shlex.split(line, comments=True) for line in ours]


def scalers(text: str) -> list[list[str]]:
    """Those of ours, also inside of a kubectl exec; without redirections."""
    found = []
    for one in commands(text):
        if "scaler" in one:
            words = one[one.index("scaler") + 1 :]
            found.append(words[: words.index(">")] if ">" in words else words)
    return found


OPERATE = README.split("\n## Operate\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("words", scalers(README), ids=" ".join)
def test_every_command_of_the_readme_has_options_that_there_are(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in words[1:]:
        if re.search(r"\.(ya?ml|csv\.gz|jsonl?(\.gz)?)$", name) and not name.startswith("/"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text("{}")
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    arguments = [word for word in words[1:] if not word.startswith("/etc/")]
    if len(arguments) < len(words) - 1:
        arguments.remove("--config")  # a file of the image
    if isinstance(command, click.Group):
        command, arguments = (
            command.get_command(click.Context(command), arguments[0]),
            arguments[1:],
        )
        assert command is not None
    # As below the group: a command remembers which options for help its first context has.
    group = cli.make_context("scaler", [], resilient_parsing=True)
    command.make_context(words[0], arguments, parent=group)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not PROGRAMS, reason="prometheus and promtool are not installed")
def test_the_round_runs_as_it_is_written(tmp_path: Path) -> None:
    played = requests_of_day(HOURS, peak_per_s=9.0)
    made = scenario([played])
    _, kept = run(made)
    (tmp_path / "prometheus").mkdir()
    with History(tmp_path / "prometheus", open_metrics(kept, made, played)) as history:
        for words in commands(OPERATE):
            if any(live in word for word in words for live in LIVE) or words[:2] in (
                ["kubectl", "apply"], ["kubectl", "annotate"], ["kubectl", "port-forward"],
            ):  # fmt: skip
                continue
            if "kubectl" in words and not shutil.which("kubectl"):
                (tmp_path / "active").mkdir()
                shutil.copy(tmp_path / "scaledobject.yaml", tmp_path / "active")
                continue
            ended = _shell(_here(words, history.url), tmp_path)
            assert ended.returncode == 0, (words, ended.stderr[-2000:])
    for name in (
        "week/trace.csv.gz", "week.html", "model.yaml", "board/scoreboard.html",
        "tuned/report.html", "active/scaledobject.yaml",
    ):  # fmt: skip
        assert (tmp_path / name).stat().st_size > 0, name


def _here(words: list[str], url: str) -> str:
    """The same command for this Prometheus and its few hours."""
    known = {
        "http://prometheus:9090": url,
        "2026-03-02T00:00:00Z": f"{EPOCH_S:.0f}",
        "2026-03-09T00:00:00Z": f"{EPOCH_S + HOURS * 3600.0:.0f}",
        "100": "3",
        "03:12": "10:12",  # 0 s of the recording is 08:53:20
        "02:00": "09:00",
        "06:00": "13:00",
    }
    more = LESS.get(words[1], ()) if words[0] == "scaler" else ()
    kept = [known.get(word, word) for word in (*words, *more)]
    return " ".join(word if word in (">", "&&", "&") else shlex.quote(word) for word in kept)


def _shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    ours = folder / "bin"
    if not ours.exists():
        ours.mkdir()
        scaler = ours / "scaler"
        scaler.write_text(f"#!{sys.executable}\nfrom scaler.cli import main\nmain()\n")
        scaler.chmod(0o755)
    root = str(Path(__file__).parents[2])
    environ = {**os.environ, "PATH": f"{ours}:{os.environ['PATH']}", "PYTHONPATH": root}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
