"""What a linter cannot hold: sizes, banned calls by folder, unit suffixes, dead modules, words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("scaler", "simulations")
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400
KERNELS = {"simulations/engine.py"}  # compiled: numba inlines nothing across modules for free
GENERATED = "scaler/_generated"
CLOCKS = {
    "time.time", "time.monotonic", "time.perf_counter", "time.sleep", "datetime.now",
    "datetime.utcnow", "datetime.datetime.now", "datetime.datetime.utcnow",
}  # fmt: skip
CLOCK_OWNERS = {"scaler/service/clock.py"}
RANDOM = re.compile(r"^(np|numpy)\.random\.(?!Generator|SeedSequence|PCG64|default_rng)\w+$")
ODD_UNITS = re.compile(r"_(ms|millis|msec|minutes|mins|hours|pct|percent|kb|mb|gb)$")


def modules(*folders: str) -> Iterator[tuple[str, ast.Module, str]]:
    """Path, syntax tree and text of every module of our own."""
    for folder in folders or PACKAGES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(GENERATED):
                text = path.read_text(encoding="utf-8")
                yield name, ast.parse(text), text


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    doc = ast.get_docstring(node, clean=False)
    return node.end_lineno - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)


def test_functions_and_modules_keep_to_their_size():
    long = [
        f"{name}:{node.lineno} {node.name} has {body_lines(node)} lines"
        for name, tree, _ in modules()
        if name not in KERNELS
        for node in functions(tree)
        if body_lines(node) > FUNCTION_LINES_MAX
    ]
    long += [
        f"{name} has {text.count(chr(10))} lines"
        for name, _, text in modules()
        if name not in KERNELS and text.count("\n") > MODULE_LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_nobody_reads_a_clock_but_its_owner():
    """Invariant 3: time is an argument in the core and the simulator, a Clock in the service."""
    reads = [
        f"{name}:{node.lineno} {ast.unparse(node.func)}"
        for name, tree, _ in modules("scaler/core", "simulations", "scaler/service")
        if name not in CLOCK_OWNERS
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CLOCKS
    ]
    assert not reads, "\n".join(reads)


def test_no_global_randomness_in_core_and_simulations():
    """Invariant 3: randomness is a named stream from the scenario's seed."""
    found = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, tree, _ in modules("scaler/core", "simulations")
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "random")
        or (
            name not in KERNELS  # numba's own generator is seeded from a named stream
            and isinstance(node, ast.Call)
            and RANDOM.match(ast.unparse(node.func))
        )
    ]
    assert not found, "\n".join(found)


def test_durations_and_shares_are_in_base_units():
    """Milliseconds and percent exist only in signals, on the line that converts them."""
    odd = [
        f"{name}:{node.lineno} {node.arg}"
        for name, tree, _ in modules("scaler/core", "scaler/service", "simulations")
        for node in ast.walk(tree)
        if isinstance(node, ast.arg) and ODD_UNITS.search(node.arg)
    ]
    assert not odd, "\n".join(odd)


def test_every_module_is_used():
    """A module nobody imports is dead; commands are imported by name, packages by their parts."""
    texts = {
        name: text for name, _, text in modules("scaler", "simulations", "benchmarks", "tests")
    }
    everything = "\n".join(texts.values())
    dead = []
    for name in texts:
        if not name.startswith(PACKAGES) or name.endswith(("__init__.py", "__main__.py")):
            continue
        if name.startswith(("scaler/cli/", "scaler/reference/")):
            continue
        dotted = name.removesuffix(".py").replace("/", ".")
        package, _, leaf = dotted.rpartition(".")
        direct = re.search(rf"\b{re.escape(dotted)}\b", everything)
        listed = re.search(rf"from {re.escape(package)} import [^\n]*\b{leaf}\b", everything)
        if not direct and not listed:
            dead.append(name)
    assert not dead, "\n".join(dead)


def test_no_unfinished_work():
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    found = [
        f"{name}:{number} {line.strip()}"
        for name, _, text in modules()
        for number, line in enumerate(text.splitlines(), 1)
        if marks.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")), ids=lambda path: path.name)
def test_a_document_has_one_title(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1
