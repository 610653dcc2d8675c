"""What the tests against a real vLLM share: its environment and its model, made where missing."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm import environment

MAKE_MODEL = Path(__file__).with_name("make_tiny_model.py")


@pytest.fixture(scope="session")
def vllm_programs() -> Path:
    """The folder with the program ``vllm``; installs it the first time."""
    try:
        return environment.prepare(environment.folder())
    except environment.InstallationError as error:
        pytest.fail(f"vLLM cannot be installed: {error}", pytrace=False)


@pytest.fixture(scope="session")
def tiny_model(vllm_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of random weights."""
    folder = tmp_path_factory.mktemp("model")
    command = [str(vllm_programs / "python"), str(MAKE_MODEL), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session", autouse=True)
def _named(request: pytest.FixtureRequest) -> Iterator[None]:
    """``VLLM`` and ``VLLM_TEST_MODEL`` name both for programs, unless they are set already.

    Without a size of the KV cache vLLM takes nearly all memory of a CPU, and starts only if so much
    is free.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "VLLM_TEST_MODEL" not in os.environ:
            programs = request.getfixturevalue("vllm_programs")
            patch.setenv("VLLM_TEST_MODEL", str(request.getfixturevalue("tiny_model")))
            patch.setenv("VLLM_CPU_KVCACHE_SPACE", os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"))
            patch.setenv("VLLM", os.environ.get("VLLM", str(programs / "vllm")))
        yield
