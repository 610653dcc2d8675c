"""Results of runs, kept by the hash of all they depend on.

A key is made of the job's values (a trace counts by the hash of its content), of the source of
every module that its function can reach by imports, and of the versions of what compiles and draws
for them.  A file is written whole or not at all, so that a run that was killed is simply not there.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol, runtime_checkable

from scaler.errors import ScalerError

PACKAGES = ("simulations", "scaler")
VERSIONS_OF = ("numpy", "numba", "llvmlite")  # draw the random numbers, compile the kernel
KEY_DIGITS = 40

Json = dict[str, Any]


@runtime_checkable
class Fingerprinted(Protocol):
    """A value that says itself what it counts as in a key."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal contents, wherever they are kept."""


class RunCache:
    """Results as JSON files in a folder, ``None`` for a folder that keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> Json | None:
        """What is kept under ``key``; a file that cannot be read counts as not there."""
        if self._folder is None:
            return None
        try:
            kept = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        whole = isinstance(kept, dict) and kept.get("key") == key
        return kept["result"] if whole and isinstance(kept.get("result"), dict) else None

    def put(self, key: str, name: str, result: Json) -> None:
        """Keep ``result``; ``name`` is for people who look into the folder.

        Raises:
            ScalerError: the folder cannot be written.
        """
        if self._folder is None:
            return
        text = json.dumps({"key": key, "name": name, "result": result}, indent=1)
        write_whole(self._path(key), text.encode())

    def _path(self, key: str) -> Path:
        assert self._folder is not None, "a cache without a folder keeps nothing"
        return self._folder / "runs" / key[:2] / f"{key}.json"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that others see either as it was or whole.

    Raises:
        ScalerError: it cannot be written.
    """
    with being_written(path) as draft:
        draft.write_bytes(content)


@contextlib.contextmanager
def being_written(path: Path) -> Iterator[Path]:
    """A draft beside ``path`` that takes its place when the block ends without an error.

    Raises:
        ScalerError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ScalerError(f"{error.filename or path}: {error.strerror}") from error


def key_of(function: Callable[[Any], Any], job: object) -> str:
    """The key under which the result of ``function(job)`` is kept."""
    text = json.dumps(
        [function.__module__, function.__qualname__, source_hash(function.__module__), plain(job)],
        separators=(",", ":"),
    )
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def plain(value: object) -> Any:
    """A value as JSON that is equal for equal values, in any process and on any machine.

    Dataclasses stand with their type and those fields that take part in comparisons, functions of a
    module with its source; what has a fingerprint stands for it.
    """
    match value:
        case Fingerprinted():
            return [type(value).__name__, value.fingerprint]
        case Enum():
            return f"{type(value).__name__}.{value.name}"
        case None | bool() | int() | str():
            return value
        case float():
            return f"float {value!r}"  # NaN and infinity are no JSON
        case Mapping():
            rows = [[plain(name), plain(item)] for name, item in value.items()]
            return {"mapping": sorted(rows, key=json.dumps)}
        case Sequence():
            return [plain(item) for item in value]
        case FunctionType():
            name = f"{value.__module__}.{value.__qualname__}"
            assert "<" not in name, f"{name} has no place in a key: it has no name of its own"
            return ["function", name, source_hash(value.__module__)]
    assert dataclasses.is_dataclass(value), f"a {type(value).__name__} has no place in a key"
    return {
        "type": type(value).__qualname__,
        **{
            item.name: plain(getattr(value, item.name))
            for item in dataclasses.fields(value)
            if item.compare
        },
    }


@functools.cache
def source_hash(module: str) -> str:
    """Of the source that ``module`` reaches by imports, the Python and the libraries it runs on."""
    digest = hashlib.sha256()
    for name, path in sorted(_reached(module).items()):
        digest.update(f"{name}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    versions = [f"{name} {_version(name)}" for name in VERSIONS_OF]
    digest.update(repr((sys.version_info[:2], versions)).encode())
    return digest.hexdigest()


def _reached(module: str) -> dict[str, Path]:
    """Modules of our own packages that ``module`` imports, itself and their packages included."""
    found: dict[str, Path] = {}
    open_ = [module]
    while open_:
        name = open_.pop()
        if name in found or name.partition(".")[0] not in PACKAGES:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin)
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        open_ += [package, *_imported(found[name])]
    return found


def _imported(path: Path) -> Iterable[str]:
    """Names of modules in the import statements of a file, those inside functions too.

    What is imported for type checkers alone never runs.
    """
    for node in _running(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            for alias in node.names:  # a module of a package, or a name in it
                if node.module.partition(".")[0] in PACKAGES and _is_module(node.module, alias):
                    yield f"{node.module}.{alias.name}"


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under ``if TYPE_CHECKING``."""
    typing = isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING"
    for child in tree.orelse if isinstance(tree, ast.If) and typing else ast.iter_child_nodes(tree):
        yield child
        yield from _running(child)


def _is_module(package: str, alias: ast.alias) -> bool:
    found = importlib.util.find_spec(package)
    return any(
        (Path(folder) / f"{alias.name}.py").exists() or (Path(folder) / alias.name).is_dir()
        for folder in (found.submodule_search_locations or () if found else ())
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
