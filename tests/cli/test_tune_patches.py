"""The patches of a search, applied by the program that people apply them with."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaler.cli.tune_patches import CONFIG, SCALED_OBJECT, config_patch, scaled_object_patch
from scaler.config import load
from scaler.config_tree import ScalerConfig
from scaler.core.config import PolicyConfig
from scaler.core.settings import declared, tunable
from scaler.ops.manifest import ManifestRequest, scaled_object
from scaler.trigger import overlaid, parse
from tests.manifests.built import OUTSIDE_DATA, required
from tests.manifests.schemas import validators

CHANGES = {
    item.path: 0.75 * float(item.default) + 0.25 * float(item.setting.high or 0.0)
    for item in tunable(PolicyConfig())
}
ONE = {"hold_down.window_s": 0.00003}  # 3e-05 as Python writes it


def _expected(changes: dict[str, float]) -> dict[str, Any]:
    return {**_values(PolicyConfig()), **changes}


def _values(policy: PolicyConfig) -> dict[str, Any]:
    return {item.path: item.default for item in declared(policy)}


def _written(folder: Path, changes: dict[str, float], *, push: bool = False) -> Path:
    """A ScaledObject as the manifests have it, and the patch beside it."""
    request = ManifestRequest(target="deployment/x", namespace="x", push=push)
    (folder / "scaledobject.yaml").write_text(yaml.safe_dump(scaled_object(request)))
    (folder / SCALED_OBJECT).write_text(scaled_object_patch(changes))
    return folder


def _kubectl(folder: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [required("kubectl"), *arguments],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def _patched(folder: Path) -> Any:
    """What the command in the patch's first line makes, without a cluster."""
    command = (folder / SCALED_OBJECT).read_text().splitlines()[0]
    assert command == f"# kubectl patch scaledobject NAME --type json --patch-file {SCALED_OBJECT}"
    arguments = ("patch", "--type", "json", "--patch-file", SCALED_OBJECT)
    return _kubectl(folder, *arguments, "--local", "-f", "scaledobject.yaml", "-o", "yaml")


@pytest.mark.external
@pytest.mark.parametrize("changes", [CHANGES, ONE, {}])
@pytest.mark.parametrize("push", [False, True])
def test_kubectl_patches_a_scaled_object(
    tmp_path: Path, changes: dict[str, float], *, push: bool
) -> None:
    patched = _patched(_written(tmp_path, changes, push=push))
    metadata = patched["spec"]["triggers"][0]["metadata"]
    assert all(isinstance(value, str) for value in metadata.values()), "KEDA takes strings alone"
    assert _values(parse(metadata, ScalerConfig()).policy) == _expected(changes)


@pytest.mark.external
def test_a_patched_scaled_object_is_what_keda_accepts(tmp_path: Path) -> None:
    crds = OUTSIDE_DATA / "crds"
    if not crds.is_dir():
        required("the folder of custom resource definitions")
    patched = _patched(_written(tmp_path, CHANGES))
    validator = validators(crds)[patched["apiVersion"], patched["kind"]]
    assert [error.message for error in validator.iter_errors(patched)] == []
    patched["spec"]["triggers"][0]["metadata"]["holdDownWindowSeconds"] = 120
    assert list(validator.iter_errors(patched)), "a number is refused: the schema is looked at"


@pytest.mark.external
def test_kustomize_applies_it_as_it_is(tmp_path: Path) -> None:
    _written(tmp_path, CHANGES)
    kustomization = {
        "resources": ["scaledobject.yaml"],
        "patches": [{"path": SCALED_OBJECT, "target": {"kind": "ScaledObject"}}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    built = _kubectl(tmp_path, "kustomize", ".")
    metadata = built["spec"]["triggers"][0]["metadata"]
    assert _values(parse(metadata, ScalerConfig()).policy) == _expected(CHANGES)


@pytest.mark.parametrize("changes", [CHANGES, ONE, {}])
def test_the_daemon_loads_the_patch_alone(tmp_path: Path, changes: dict[str, float]) -> None:
    (tmp_path / CONFIG).write_text(config_patch(changes, profile=None))
    config = load(tmp_path / CONFIG, environ={})
    assert _values(overlaid(config, "", {})) == _expected(changes)


def test_the_patch_merges_into_a_configuration_that_has_settings_of_its_own(
    tmp_path: Path,
) -> None:
    """A merge patch (RFC 7386) of the daemon's file, as ``yq`` and Helm values merge."""
    own = {"policy": {"slo": {"ttft_s": 1.5}, "hold_down": {"window_s": 900.0}}}
    changes = {"hold_down.margin_ratio": 0.2, "forecast.quantile_ratio": 0.8}
    patch = yaml.safe_load(config_patch(changes, profile=None))
    (tmp_path / "scaler.yaml").write_text(yaml.safe_dump(_merged(own, patch)))
    values = _values(overlaid(load(tmp_path / "scaler.yaml", environ={}), "", {}))
    kept = {"slo.ttft_s": 1.5, "hold_down.window_s": 900.0}
    assert values == {**_expected(changes), **kept}


def _merged(document: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(document, dict):
        return patch
    return {**document, **{key: _merged(document.get(key), value) for key, value in patch.items()}}
