"""The command line of a vLLM server, from a container's ``command`` and ``args``.

They come as lists or as a shell script, flags with ``=`` or with the value behind, with hyphens or
underscores, over several lines.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from scaler.ops.lint import known_flags
from scaler.ops.lint.model import Node
from scaler.ops.lint.nodes import items, text

_MODULE = "vllm.entrypoints.openai.api_server"
_SHELLS = frozenset({"sh", "bash", "ash", "dash"})
_START = re.compile(r"\bvllm\s+serve\b|\bvllm\.entrypoints\.(?:openai\.)?api_server\b")
_IMAGE = re.compile(r"(?:^|/)vllm(?:-openai|-server|-cpu|-rocm|-tpu|-cuda|-serve)?$")
_TAG_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-.+_].*)?")
_CUT_COMMENT = re.compile(r"\\[ \t]+#|\s#[^\n]*\s--[a-z]")
_SAID = re.compile(r"(?i)true|false|yes|no|on|off|1|0")
NEWEST = (999, 0, 0)
"""Stands for ``latest``: whatever is newest when the image is pulled."""


class Entry(StrEnum):
    """What starts the server."""

    SERVE = "vllm serve"
    MODULE = "python -m vllm.entrypoints.openai.api_server"
    IMAGE = "the image's own entrypoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A flag under its full name with hyphens; ``value`` is None where none is given."""

    name: str
    value: str | None
    glued: bool = False  # value written into the same list item, behind a space


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A server's command line.  ``script`` is empty where no shell reads it."""

    entry: Entry
    flags: tuple[Flag, ...]
    positional: tuple[str, ...]
    script: str = ""

    def has(self, name: str) -> bool:
        """Whether a flag is given."""
        return any(flag.name == name for flag in self.flags)

    def value(self, *names: str) -> str | None:
        """The value of a flag under any of its names: the last one given wins."""
        values = [flag.value for flag in self.flags if flag.name in names]
        return values[-1] if values else None

    def whole(self, *names: str) -> int | None:
        """The value as a whole number, None where it is not written as one."""
        value = self.value(*names) or ""
        return int(value) if value.isascii() and value.isdecimal() else None

    def number(self, *names: str) -> float | None:
        """The value as a number, None where it is not written as one."""
        value = self.value(*names) or ""
        return float(value) if re.fullmatch(r"\d+(\.\d*)?|\.\d+", value) else None

    @property
    def model(self) -> str:
        """The model as it is given, empty where it is not."""
        return self.value("--model") or (self.positional[0] if self.positional else "")

    @property
    def comment_cuts(self) -> bool:
        """Whether a comment in the script ends the command before flags that follow."""
        return bool(_CUT_COMMENT.search(self.script))

    @property
    def replaces_shell(self) -> bool:
        """Whether no shell is left between the kubelet's signal and the server."""
        return not self.script or bool(re.search(r"\bexec\s+[^;&|\n]*vllm", self.script))


def command_line(container: Node) -> CommandLine | None:
    """The command line of a container that runs a vLLM server, None for any other."""
    command = [str(word) for word in items(container, "command")]
    args = [str(word) for word in items(container, "args")]
    words = [*command, *args]
    script = _script(words)
    if script:
        return _from_script(script)
    if not command:
        return _from_words(Entry.IMAGE, args) if _is_vllm(text(container, "image")) else None
    for place, word in enumerate(words):
        if word == "serve" and place and words[place - 1].rpartition("/")[2] == "vllm":
            return _from_words(Entry.SERVE, words[place + 1 :])
        if word in (_MODULE, "vllm.entrypoints.api_server"):
            return _from_words(Entry.MODULE, words[place + 1 :])
    return None


def image_version(image: str) -> tuple[int, int, int] | None:
    """The version that an image of the vLLM project names, None for images of others."""
    name, tag = _parted(image)
    if not re.search(r"(?:^|/)vllm/vllm-[a-z-]+$|(?:^|/)vllm-openai$", name):
        return None
    found = _TAG_VERSION.fullmatch(tag)
    if found:
        return int(found[1]), int(found[2]), int(found[3] or 0)
    return NEWEST if tag in ("", "latest", "nightly") else None


def floats(image: str) -> bool:
    """Whether the tag of an image names another build from day to day."""
    tag = _parted(image)[1]
    return "@" not in image and (not tag or tag in ("latest", "nightly", "main") or "latest" in tag)


def _parted(image: str) -> tuple[str, str]:
    """Name and tag; the part behind the last colon may be a registry's port instead."""
    name, _, tag = image.partition("@")[0].rpartition(":")
    return (name, tag) if name and "/" not in tag else (image.partition("@")[0], "")


def _is_vllm(image: str) -> bool:
    return bool(_IMAGE.search(_parted(image)[0]))


def _script(words: Sequence[str]) -> str:
    """The script that a shell is given, empty where there is no shell."""
    if not words or words[0].rpartition("/")[2] not in _SHELLS:
        return ""
    for place, word in enumerate(words):
        if re.fullmatch(r"-[a-z]*c", word) and place + 1 < len(words):
            return words[place + 1]
    return ""


def _from_script(script: str) -> CommandLine | None:
    bare = re.sub(r"\\[ \t]*(?:#[^\n]*)?\n", " ", script)
    started = _START.search(bare)
    if started is None:
        return None
    # A comment is left out as its author meant it: up to the next flag or the end of the line.
    rest = re.sub(r"(?:^|\s)#[^\n]*?(?=\s--[a-z]|\n|$)", " ", bare[started.end() :])
    entry = Entry.SERVE if "serve" in started[0].split()[-1:] else Entry.MODULE
    made = _from_words(entry, _shell_words(re.sub(r"\\\s", " ", rest)))
    return CommandLine(
        entry=entry, flags=made.flags, positional=made.positional, script=script.strip()
    )


def _shell_words(source: str) -> list[str]:
    """The words of the first simple command of a script."""
    reader = shlex.shlex(source.split("\n", 1)[0], posix=True, punctuation_chars=";&|<>")
    reader.whitespace_split = True
    reader.commenters = ""
    found = []
    try:
        for word in reader:
            if set(word) <= set(";&|<>"):
                break
            found.append(word)
    except ValueError:  # a quote that is never closed: the shell refuses it as well
        return source.split()
    return found


def _from_words(entry: Entry, words: Sequence[str]) -> CommandLine:
    flags: list[Flag] = []
    positional: list[str] = []
    waiting: list[str] = list(words)
    while waiting:
        word = waiting.pop(0).strip()
        if not re.match(r"--?[A-Za-z]", word):
            positional.append(word)
            continue
        glued = re.fullmatch(r"(--?[\w.-]+)\s+(.+)", word, re.DOTALL)
        name, equals, value = word.partition("=")
        if glued:
            flags.append(Flag(name=known_flags.full_name(glued[1]), value=glued[2], glued=True))
        elif equals:
            flags.append(Flag(name=known_flags.full_name(name), value=value))
        else:
            full = known_flags.full_name(name)
            flags.append(Flag(name=full, value=_value(full, waiting)))
    return CommandLine(entry=entry, flags=tuple(flags), positional=tuple(positional))


def _value(name: str, waiting: list[str]) -> str | None:
    """Take the value behind a flag; one that takes none is followed by another flag or the end."""
    if not waiting or re.match(r"--?[A-Za-z]", waiting[0].strip()):
        return None
    if known_flags.takes_value(name) is False and not _SAID.fullmatch(waiting[0].strip()):
        return None
    return waiting.pop(0).strip()
