"""Command lines of vLLM servers, as guides and people write them."""

from typing import Any

import pytest

from scaler.ops.lint.command_line import (
    NEWEST,
    Entry,
    command_line,
    floats,
    image_version,
)

IMAGE = "vllm/vllm-openai:v0.32.0"
FLAGS = [("--tensor-parallel-size", "4"), ("--enable-prefix-caching", None), ("--dtype", "auto")]


ONE_LINE = "set -e; exec vllm serve /m -tp 4 --enable-prefix-caching --dtype 'auto' && echo --no"
LINES = """vllm serve /m \\
  -tp 4 \\
  --enable-prefix-caching \\
  --dtype auto
echo --no
"""


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (["vllm", "serve"], ["/m", "-tp=4", "--enable-prefix-caching", "--dtype", "auto"]),
        (
            ["vllm", "serve", "--tensor-parallel-size", "4"],
            ["--enable_prefix_caching", "/m", "--dtype=auto"],
        ),
        (["/bin/vllm", "serve"], ["/m", "-tp", "4", "--enable-prefix-caching", "--dtype", "auto"]),
        (["bash", "-lc", ONE_LINE], []),
        (["sh", "-c"], [LINES]),
    ],
)
def test_every_way_of_writing_is_the_same_command(command: list[str], args: list[str]) -> None:
    line = command_line({"image": IMAGE, "command": command, "args": args})
    assert line is not None
    assert line.entry is Entry.SERVE
    assert [(flag.name, flag.value) for flag in line.flags] == FLAGS
    assert line.model == "/m"


def test_the_module_and_the_image_are_told_apart() -> None:
    module = ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    line = command_line({"image": "x", "command": module, "args": ["--model", "/m"]})
    assert line is not None
    assert (line.entry, line.model) == (Entry.MODULE, "/m")
    line = command_line({"image": "reg.io:5000/a/vllm-openai@sha256:0", "args": ["--model=/m"]})
    assert line is not None
    assert (line.entry, line.model) == (Entry.IMAGE, "/m")


@pytest.mark.parametrize(
    "container",
    [
        {},
        {"image": "ghcr.io/a/vllm-scaler:0.1"},
        {"image": "nginx"},
        {"image": IMAGE, "command": ["sleep", "1"]},
        {"image": IMAGE, "command": ["sh", "-c", "until test -e /models/a; do sleep 5; done"]},
        {"image": IMAGE, "command": ["sh", "-c"]},
    ],
)
def test_other_containers_run_no_server(container: dict[str, Any]) -> None:
    assert command_line(container) is None


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.6.6", (0, 6, 6)),
        ("docker.io/vllm/vllm-openai:v0.6.6.post1", (0, 6, 6)),
        ("mirror.example.com:5000/vllm-openai:v0.33.0-cu129", (0, 33, 0)),
        ("vllm/vllm-openai:latest", NEWEST),
        ("vllm/vllm-openai", NEWEST),
        ("vllm/vllm-openai:my-build", None),
        ("registry.example.com/vllm-server:v2.1.0", None),
        ("", None),
    ],
)
def test_versions_of_images(image: str, version: tuple[int, int, int] | None) -> None:
    assert image_version(image) == version


@pytest.mark.parametrize(
    ("image", "moves"),
    [
        ("a/b:v1", False), ("a/b", True), ("a/b:latest", True), ("reg:5000/a/b", True),
        ("a/b@sha256:0", False), ("a/b:main-latest", True),
    ],
)  # fmt: skip
def test_tags_that_move(image: str, *, moves: bool) -> None:
    assert floats(image) is moves
