"""Command lines that a vLLM of the stated version refuses, or misreads (mistakes 16, 17)."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

from scaler.ops.lint import known_flags
from scaler.ops.lint.bundle import Bundle, Server
from scaler.ops.lint.command_line import NEWEST, CommandLine, Entry, Flag, floats
from scaler.ops.lint.known_flags import Release
from scaler.ops.lint.model import Finding, Place, Rule, Severity, found
from scaler.ops.lint.nodes import text

UNKNOWN = Rule(
    id="flag-unknown",
    mistake=16,
    severity=Severity.ERROR,
    says="an unknown flag ends the server with status 2: a crash loop",
    fix="leave it out, or find its name in vllm serve --help=all",
)
BAD_VALUE = Rule(
    id="flag-value",
    mistake=16,
    severity=Severity.ERROR,
    says="the flag does not take this value, and the server ends with status 2",
    fix="see vllm serve --help=all",
)
GLUED = Rule(
    id="flag-and-value-in-one-word",
    mistake=16,
    severity=Severity.ERROR,
    says="no shell parts the words of a list: flag and value are one unknown argument",
    fix="--flag=value, or two items",
)
COMMENT = Rule(
    id="comment-cuts-command",
    mistake=16,
    severity=Severity.ERROR,
    says="a comment behind a continued line ends the command: the flags below it are lost",
    fix="comments above the command, or arguments as a list",
)
FLOATING = Rule(
    id="image-floats",
    mistake=16,
    severity=Severity.WARNING,
    says="the tag names another vLLM from day to day, and flags come and go",
    fix="a version, such as v0.33.0",
)
ENTRYPOINT = Rule(
    id="entrypoint-unsaid",
    mistake=16,
    severity=Severity.WARNING,
    says="the image's entrypoint has changed from the module to vllm serve",
    fix="command: [vllm, serve], and the model as the first argument",
)
WRONG_ENTRY = Rule(
    id="arguments-of-other-entrypoint",
    mistake=16,
    severity=Severity.ERROR,
    says="the module takes its model from --model alone",
    fix="command: [vllm, serve]",
)
OLD_MODULE = Rule(
    id="entrypoint-module",
    mistake=16,
    severity=Severity.INFO,
    says="the module is deprecated since vLLM 0.33",
    fix="command: [vllm, serve], and the model as the first argument",
)
BATCH = Rule(
    id="batched-tokens-too-few",
    mistake=17,
    severity=Severity.ERROR,
    says="the server ends at start: a batch must hold a whole prompt, or a token of each sequence",
    fix="raise --max-num-batched-tokens, or leave chunked prefill on",
)
TENSOR_GPUS = Rule(
    id="parallel-size-not-gpus",
    mistake=17,
    severity=Severity.ERROR,
    says="the server ends at start: it wants more GPUs than its pod has",
    fix="tensor x pipeline x data parallel size = GPUs of the pod",
)
IDLE_GPUS = Rule(
    id="gpus-unused",
    mistake=17,
    severity=Severity.WARNING,
    says="the pod holds GPUs that the server does not use",
    fix="tensor x pipeline x data parallel size = GPUs of the pod",
)
HEADS = Rule(
    id="tensor-parallel-heads",
    mistake=17,
    severity=Severity.ERROR,
    says="the tensor parallel size must divide the attention heads",
    fix="another size, or pipeline parallelism",
)
RULES = (
    UNKNOWN, BAD_VALUE, GLUED, COMMENT, FLOATING, ENTRYPOINT, WRONG_ENTRY, OLD_MODULE, BATCH,
    TENSOR_GPUS, IDLE_GPUS, HEADS,
)  # fmt: skip
CHUNKED_SINCE: Release = (0, 8, 0)  # on by default with the V1 engine


def check(bundle: Bundle) -> Iterator[Finding]:
    """Findings on every server's command line, and on flags that patches add."""
    for server in bundle.servers:
        args = server.place.below("args")
        for flag in server.line.flags:
            yield from _flag(args, flag, server.release, official=server.release is not None)
        if server.line.comment_cuts:
            yield found(COMMENT, args, server.line.script[:160])
        if server.whole:
            yield from _image(server)
            yield from _entry(server)
            yield from _batch(args, server)
            yield from _parallel(args, server)
    for place, flag in _patched(bundle):
        yield from _flag(place, flag, None, official=False)


def _flag(
    place: Place, flag: Flag, version: Release | None, *, official: bool
) -> Iterator[Finding]:
    """Faults of one flag; without a version known, the newest is meant and said to be so."""
    if flag.glued:
        yield found(GLUED, place, f"{flag.name} {flag.value}")
    release = version or NEWEST
    named = "the newest vLLM" if release == NEWEST else "vLLM " + ".".join(map(str, release))
    past = known_flags.histories().get(flag.name)
    if past is not None and not past.exists_in(release):
        if past.never:
            yield found(UNKNOWN, place, f"{flag.name}: no version has it", fix=past.instead)
        else:
            unsure = None if official else Severity.WARNING
            evidence = f"{flag.name}: {named} has it not"
            yield found(UNKNOWN, place, evidence, fix=past.instead, severity=unsure)
        return
    if past is not None and past.gone_by:
        gone_by = ".".join(map(str, past.gone_by)).removesuffix(".0")
        evidence = f"{flag.name}: {named} has it, and from {gone_by} on it is gone"
        if past.back_in:
            back_in = ".".join(map(str, past.back_in)).removesuffix(".0")
            evidence = f"{flag.name}: {named} has it, those from {gone_by} to before {back_in} not"
        yield found(UNKNOWN, place, evidence, fix=past.instead, severity=Severity.INFO)
    yield from _recorded(place, flag, release, official=official)


def _recorded(place: Place, flag: Flag, release: Release, *, official: bool) -> Iterator[Finding]:
    """Against the parser of the version itself, or of the newest one that was recorded."""
    exact = release in known_flags.RECORDED
    if not exact and release < max(known_flags.RECORDED):
        unknown, known = False, known_flags.recorded(max(known_flags.RECORDED))
    else:
        unknown = True
        known = known_flags.recorded(release if exact else max(known_flags.RECORDED))
    entry = known.get(flag.name)
    if entry is None:
        if unknown and flag.name.startswith("--"):
            newest = ".".join(map(str, known_flags.newest()))
            evidence = flag.name if exact else f"{flag.name}: vLLM {newest} has it not"
            unsure = None if exact and official else Severity.WARNING
            yield found(UNKNOWN, place, evidence, severity=unsure)
        return
    value = flag.value
    if entry["takes_value"] is False and value is not None:
        yield found(
            BAD_VALUE,
            place,
            f"{flag.name} {value}: it takes no value",
            fix=f"{flag.name} or --no-{flag.name[2:]}, alone",
        )
    elif entry["takes_value"] and value is None and exact:
        yield found(BAD_VALUE, place, f"{flag.name} without a value")
    elif exact and value and "$" not in value and value not in entry.get("choices", [value]):
        choices = ", ".join(entry["choices"])
        yield found(BAD_VALUE, place, f"{flag.name} {value}", fix=f"one of {choices}")


def _image(server: Server) -> Iterator[Finding]:
    if floats(server.image):
        yield found(FLOATING, server.place.below("image"), server.image)


def _entry(server: Server) -> Iterator[Finding]:
    line = server.line
    if line.entry is Entry.IMAGE and (line.flags or line.positional):
        yield found(ENTRYPOINT, server.place.below("command"), f"no command, {server.image}")
    if line.entry is Entry.MODULE:
        command = server.place.below("command")
        if line.positional and not line.has("--model"):
            yield found(WRONG_ENTRY, command, f"{line.positional[0]} behind the module")
        else:
            yield found(OLD_MODULE, command, Entry.MODULE.value)


def _batch(place: Place, server: Server) -> Iterator[Finding]:
    line, release = server.line, server.release or NEWEST
    batched = line.whole("--max-num-batched-tokens")
    longest, sequences = line.whole("--max-model-len"), line.whole("--max-num-seqs")
    off = line.has("--no-enable-chunked-prefill") or (
        release < CHUNKED_SINCE and not line.has("--enable-chunked-prefill")
    )
    if batched is not None and longest is not None and off and batched < longest:
        evidence = f"--max-num-batched-tokens {batched} below --max-model-len {longest}"
        yield found(BATCH, place, f"{evidence}, chunked prefill off")
    elif batched is not None and sequences is not None and batched < sequences:
        yield found(
            BATCH, place, f"--max-num-batched-tokens {batched} below --max-num-seqs {sequences}"
        )


def _parallel(place: Place, server: Server) -> Iterator[Finding]:
    line = server.line
    tensor = line.whole("--tensor-parallel-size") if line.has("--tensor-parallel-size") else 1
    if tensor is None:
        return
    heads = _heads(line)
    if heads and heads[1] % tensor:
        yield found(HEADS, place, f"{tensor} does not divide the {heads[1]} heads of {heads[0]}")
    spread = line.has("--nnodes") or line.value("--distributed-executor-backend") == "ray"
    sizes = [tensor]
    for name in ("--pipeline-parallel-size", "--data-parallel-size"):
        size = line.whole(name) if line.has(name) else 1
        if size is None:
            return
        sizes.append(size)
    wanted = sizes[0] * sizes[1] * sizes[2]
    said = f"{sizes[0]} x {sizes[1]} x {sizes[2]} wanted, {server.gpus} in limits"
    if server.gpus and not spread and wanted > server.gpus:
        yield found(TENSOR_GPUS, place, said)
    elif server.gpus and not spread and wanted < server.gpus and line.flags:
        yield found(IDLE_GPUS, place, said)
    elif spread and server.gpus and tensor > server.gpus and not line.has("--nnodes"):
        yield found(
            TENSOR_GPUS, place, f"{said}; tensor parallelism over nodes", severity=Severity.WARNING
        )


@cache
def _attention_heads() -> Mapping[str, int]:
    """Heads by the model's name: num_attention_heads of config.json in each repository."""
    source = files("scaler.ops.lint") / "data" / "attention-heads.json"
    read: dict[str, int] = json.loads(source.read_text(encoding="utf-8"))
    return read


def _heads(line: CommandLine) -> tuple[str, int] | None:
    """Name and heads of a model that is known, by the last part of its path."""
    name = re.sub(r"[^a-z0-9.]+", "-", line.model.rstrip("/").rpartition("/")[2].lower())
    if "distill" in name:  # another model under the name of its teacher
        return None
    for known, heads in _attention_heads().items():
        if re.match(rf"(?:meta-)?{re.escape(known)}(?:-|$)", name):
            return line.model, heads
    return None


def _patched(bundle: Bundle) -> Iterator[tuple[Place, Flag]]:
    """Flags that JSON patches add to the arguments of servers."""
    for document in bundle.documents:
        operations = document.body if isinstance(document.body, list) else []
        for place, operation in enumerate(operations):
            value = text(operation, "value")
            if "/args/" in text(operation, "path") and value.startswith("--"):
                name, equals, rest = value.partition("=")
                flag = Flag(name=known_flags.full_name(name), value=rest if equals else None)
                if equals:  # without it the value may be the next operation's
                    yield document.place.below(f"{place}.value"), flag
