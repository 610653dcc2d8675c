"""``scaler tune`` as people start it."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaler import cli
from scaler.cli.tune_patches import config_patch, scaled_object_patch
from scaler.config import load
from scaler.config_tree import ScalerConfig
from scaler.core.config import PolicyConfig
from scaler.core.settings import declared, tunable
from scaler.ops.manifest import ManifestRequest, scaled_object
from scaler.trigger import overlaid, parse
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate
from simulations.traces import write_trace

pytestmark = pytest.mark.usefixtures("no_progress")

Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr("sys.argv", ["scaler", "tune", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err.splitlines()

    return run


@pytest.fixture(name="trace", scope="module")
def _trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("traces") / "one.csv.gz"
    spec = TraceSpec(
        shape=Shape.CONSTANT,
        duration_s=1200.0,
        rate_per_s=2.0,
        prompt=Lengths(median_tokens=500.0, p95_tokens=1500.0, longest_tokens=3000),
    )
    write_trace(path, generate(spec, seed=5))
    return str(path)


def _policy(patch: str, folder: Path, *, profile: str = "") -> PolicyConfig:
    """The policy of a daemon that was given a patch as its configuration."""
    (folder / "scaler.yaml").write_text(patch)
    return overlaid(load(folder / "scaler.yaml", environ={}), profile, {})


def _patched(document: Any, patch: str) -> Any:
    """``document`` after a JSON patch of ``add`` operations (RFC 6902, 4.1)."""
    for operation in yaml.safe_load(patch):
        assert operation["op"] == "add"
        *parents, last = operation["path"].split("/")[1:]
        node = document
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node[last] = operation["value"]
    return document


def _values(policy: PolicyConfig) -> Mapping[str, Any]:
    return {item.path: item.default for item in declared(policy)}


def test_it_writes_what_it_found_and_patches_that_apply(
    run: Run, trace: str, tmp_path: Path
) -> None:
    pytest.importorskip("optuna", reason="the search needs the extra tune")
    out = tmp_path / "out"
    arguments = (trace, "--trials", "8", "--jobs", "1", "--out", str(out), "--attainment", "0.9")
    status, printed, errors = run(*arguments)
    assert (status, errors) == (0, [])
    front = json.loads((out / "front.json").read_text())
    assert printed.splitlines()[-3:] == [f"written to {out}", "", front["advice"]]
    assert set(front["findings"]) <= set(printed.splitlines()), "overfitting is not hidden"
    assert front["findings"][0].startswith("Very weak evidence"), "of twenty minutes"
    chosen = front["recommended"]["trial"]
    assert f"{chosen:>6} " in printed
    assert len(front["trials"]) + front["given_up"] == 8
    assert front["patches"]["patch.yaml"] == (out / "patch.yaml").read_text()
    settings = next(t["settings"] for t in front["trials"] if t["number"] == chosen)
    for policy in (
        _policy((out / "patch.yaml").read_text(), tmp_path),
        parse(_metadata((out / "patch-scaledobject.yaml").read_text()), ScalerConfig()).policy,
    ):
        values = _values(policy)
        assert {path: values[path] for path in settings} == settings
    page = (out / "report.html").read_text()
    assert "one.csv.gz" in page
    status, printed, _ = run(*arguments, "--json")
    assert json.loads(printed) == front, "kept, not run again"


def _metadata(patch: str) -> dict[str, str]:
    """The metadata of the shipped ScaledObject's trigger after a patch."""
    made = scaled_object(ManifestRequest(target="deployment/x", namespace="x"))
    metadata: dict[str, str] = _patched(made, patch)["spec"]["triggers"][0]["metadata"]
    return metadata


def test_patches_of_every_tunable_setting_load(tmp_path: Path) -> None:
    changes = {
        item.path: 0.5 * (float(item.default) + float(item.setting.high or 0.0))
        for item in tunable(PolicyConfig())
    }
    shipped = _values(PolicyConfig())
    expected = {**shipped, **changes}
    assert _values(_policy(config_patch(changes, profile=None), tmp_path)) == expected
    as_profile = config_patch(changes, profile="tuned.v2")
    assert _values(_policy(as_profile, tmp_path, profile="tuned.v2")) == expected
    assert _values(_policy(as_profile, tmp_path)) == shipped, "only for those who ask for it"
    metadata = _metadata(scaled_object_patch(changes))
    assert _values(parse(metadata, ScalerConfig()).policy) == expected


def test_patches_without_a_change_change_nothing(tmp_path: Path) -> None:
    assert _policy(config_patch({}, profile=None), tmp_path) == PolicyConfig()
    assert parse(_metadata(scaled_object_patch({})), ScalerConfig()).policy == PolicyConfig()


def test_patches_say_what_was_shipped() -> None:
    patch = config_patch({"hold_down.window_s": 120.0}, profile="chat")
    assert "profiles:\n  chat:\n    policy:\n      hold_down:\n" in patch
    assert "window_s: 120 # shipped: 600" in patch
    assert "holdDownWindowSeconds\n  value: '120'" in scaled_object_patch(
        {"hold_down.window_s": 120.0}
    )


@pytest.mark.parametrize(
    ("option", "status", "error"),
    [
        ("--trials=0", 2, "error: --trials = 0, must be in [1, 100000]"),
        ("--jobs=0", 2, "error: jobs = 0, must be in [1, 1024]"),
        ("--profile=a b", 2, "error: --profile = 'a b', must be"),
        ("--attainment=2", 2, "error: sloAttainmentTarget = '2', must be"),
        ("--out=/dev/null/x", 1, "error: /dev/null/x: "),
        ("--until-s=0.001", 2, "error: a trace has no request in the time that is played"),
    ],
)
def test_errors_are_one_line(
    run: Run, trace: str, option: str, *, status: int, error: str, tmp_path: Path
) -> None:
    found, _, errors = run(trace, "--out", str(tmp_path), "--jobs", "1", option)
    assert found == status
    assert len(errors) == 1
    assert errors[0].startswith(error)


def test_a_missing_optuna_is_named_with_its_extra(
    run: Run, trace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, _, errors = run(trace, "--out", str(tmp_path), "--jobs", "1")
    assert status == 1
    assert errors == ["error: scaler tune needs optuna: pip install 'vllm-scaler[tune]'"]


def test_help_has_an_example(run: Run) -> None:
    status, printed, _ = run("--help")
    assert status == 0
    assert "Example: scaler tune last-week.csv.gz" in " ".join(printed.split())
