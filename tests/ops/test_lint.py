"""The lint: every rule finds its mistake, and leaves alone what is right."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from scaler.errors import ConfigError
from scaler.ops.lint import known_flags, metric_names
from scaler.ops.lint.model import Finding, Severity
from scaler.ops.lint.run import RULES, Report, as_line, as_row, lint
from tests.manifests.built import MANIFESTS, OUTSIDE_DATA, build, kustomizations
from tests.ops.lint_cases import (
    FILES,
    METRICS,
    MONITORS,
    SCALING,
    Case,
    deployment,
    keda,
    monitor,
    ours,
    service,
    text,
    trigger,
)
from tests.ops.lint_pod_cases import FLAGS, PODS, SECRETS, STORAGE

GUIDES = Path(__file__).resolve().parents[1] / "data" / "guides"
CASES = (*FILES, *METRICS, *MONITORS, *SCALING, *PODS, *STORAGE, *FLAGS, *SECRETS)


def linted(folder: Path, source: str, **options: int) -> Report:
    (folder / "a.yaml").write_text(source, encoding="utf-8")
    return lint(folder, **options)


def of_rule(report: Report, rule: str) -> list[Finding]:
    return [one for one in report.findings if one.rule.id == rule]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_finds_its_mistake(case: Case, tmp_path: Path) -> None:
    report = linted(tmp_path, text(case.bad))
    found = of_rule(report, case.rule)
    assert found, [as_line(one) for one in report.findings]
    assert any(case.evidence in one.evidence for one in found), [one.evidence for one in found]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_is_silent_where_it_is_put_right(case: Case, tmp_path: Path) -> None:
    found = of_rule(linted(tmp_path, text(case.good)), case.rule)
    assert [as_line(one) for one in found] == []


def test_every_rule_has_a_case_and_every_mistake_a_rule() -> None:
    assert {one.id for one in RULES} == {case.rule for case in CASES}
    assert len({one.id for one in RULES}) == len(RULES)
    assert {one.mistake for one in RULES} == set(range(23)), "22 kinds, and what is beside them"


def test_good_manifests_have_no_finding(tmp_path: Path) -> None:
    objects = [deployment(), service(), monitor(), keda(ours(ttftSloSeconds="2"))]
    assert [as_line(one) for one in linted(tmp_path, text(objects)).findings] == []
    objects = [deployment(), service(), monitor(), keda(trigger())]
    assert [as_line(one) for one in linted(tmp_path, text(objects)).findings] == []


# What the lint must find in each guide, by rule, with the number of findings.
EXPECTED = {
    "000": {
        "metric-never-existed": 1, "quantile-per-pod": 1, "label-model": 1, "gpu-index-filter": 1,
        "dcgm-pod-label": 1, "monitor-selects-no-service": 1, "scale-on-gpu-util": 1,
        "scale-on-running": 1, "null-becomes-zero": 2, "averaged-twice": 2, "keda-metric-name": 1,
        "replicas-beside-autoscaler": 1, "liveness-kills-loading": 1, "probe-timeout": 1,
        "no-shutdown-timeout": 1, "no-pre-stop": 1, "flag-unknown": 3, "entrypoint-module": 1,
    },
    "001": {
        "metric-never-existed": 4, "target-type-value": 1, "replicas-beside-autoscaler": 1,
        "liveness-kills-loading": 1, "post-start-request": 1, "no-shutdown-timeout": 1,
        "no-pre-stop": 1, "each-replica-downloads": 1, "memory-below-weights": 1,
        "no-shared-memory": 1, "flag-unknown": 2, "flag-value": 1, "image-floats": 1,
        "entrypoint-module": 1,
    },
    "002": {
        "metric-gone": 1, "quantile-without-rate": 1, "monitor-port-number": 1,
        "monitor-selects-no-service": 1, "monitor-without-release": 1,
        "replicas-beside-autoscaler": 1, "liveness-kills-loading": 1, "probe-timeout": 2,
        "no-shutdown-timeout": 1, "no-pre-stop": 1, "huggingface-cli-gone": 1, "image-floats": 1,
        "entrypoint-unsaid": 1, "token-in-plain-text": 1,
    },
    "003": {
        "claim-of-one-node": 1, "secret-in-repository": 1, "flag-unknown": 4,
        "comment-cuts-command": 1, "image-floats": 2, "liveness-kills-loading": 1,
        "no-startup-probe": 1, "no-shutdown-timeout": 2, "no-pre-stop": 2, "shell-takes-signal": 2,
        "memory-below-weights": 1,
    },
    "004": {
        "hpa-resource-unknown": 1, "claim-read-only": 1, "replicas-beside-autoscaler": 1,
        "no-startup-probe": 1, "no-shutdown-timeout": 1, "no-pre-stop": 1, "probe-timeout": 1,
        "image-floats": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("guide", sorted(EXPECTED))
def test_the_guides_own_mistakes_are_found(guide: str, tmp_path: Path) -> None:
    report = linted(tmp_path, (GUIDES / f"{guide}.yaml").read_text(encoding="utf-8"))
    assert Counter(one.rule.id for one in report.findings) == EXPECTED[guide]


def test_our_own_files_have_no_finding() -> None:
    report = lint(MANIFESTS)
    assert report.files > 200
    assert [as_line(one) for one in report.findings] == []


@pytest.mark.external
@pytest.mark.parametrize("folder", kustomizations())
def test_our_own_manifests_as_they_are_applied_have_no_finding(folder: str, tmp_path: Path) -> None:
    report = linted(tmp_path, yaml.safe_dump_all(list(build(folder))))
    assert [as_line(one) for one in report.findings] == []


def test_flags_are_judged_by_the_version_of_the_image(tmp_path: Path) -> None:
    seen = {}
    for tag in ("v0.6.6", "v0.17.0", "v0.32.0", "v0.33.0", "v0.90.0", "latest"):
        objects = [deployment()]
        pod = objects[0]["spec"]["template"]["spec"]["containers"][0]
        pod["image"] = f"vllm/vllm-openai:{tag}"
        pod["args"] = ["/models/a", "--swap-space=8", "--disable-log-requests"]
        found = of_rule(linted(tmp_path, text(objects)), "flag-unknown")
        seen[tag] = [f"{one.evidence.split(':')[0]} {one.severity}" for one in found]
    both = ["--disable-log-requests", "--swap-space"]
    assert sorted(seen["v0.6.6"]) == [f"{flag} info" for flag in both]
    # --swap-space went after --disable-log-requests, which came back in 0.33.
    assert sorted(seen["v0.17.0"]) == ["--disable-log-requests error", "--swap-space info"]
    assert sorted(seen["v0.32.0"]) == [f"{flag} error" for flag in both]
    for tag in ("v0.33.0", "v0.90.0", "latest"):
        assert sorted(seen[tag]) == ["--disable-log-requests info", "--swap-space error"]


def test_an_image_of_somebody_else_tells_no_version(tmp_path: Path) -> None:
    objects = [deployment()]
    pod = objects[0]["spec"]["template"]["spec"]["containers"][0]
    pod["image"] = "registry.example.com/serving:v3"
    pod["args"] = ["/models/a", "--shutdown-timeout=300", "--swap-space=8", "--scheduler-delay=1"]
    found = of_rule(linted(tmp_path, text(objects)), "flag-unknown")
    assert {one.evidence.split(":")[0]: one.severity for one in found} == {
        "--swap-space": Severity.WARNING,  # an older vLLM may be inside
        "--scheduler-delay": Severity.ERROR,  # no version has it
    }


def test_the_history_of_flags_agrees_with_the_recorded_parsers() -> None:
    for version in known_flags.RECORDED:
        known = known_flags.recorded(version)
        for name, past in known_flags.histories().items():
            assert past.exists_in(version) is (name in known), (name, version)
    assert known_flags.newest() == (0, 33, 0)


@pytest.mark.data
def test_known_metrics_are_those_of_captured_pages() -> None:
    pages = OUTSIDE_DATA / "fixtures" / "vllm"
    if not pages.is_dir():
        pytest.skip(f"captured pages are not in {pages}")
    exported = {
        line.split("{")[0].split(" ")[0]
        for path in pages.glob("0.32*.prom")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("vllm:")
    }
    assert len(exported) > 80
    assert {name for name in exported if not metric_names.exists(name)} == set()
    for name in exported:
        assert metric_names.never_existed(name) is None
        assert metric_names.gone(name) is None


def test_the_number_of_gpus_may_be_given(tmp_path: Path) -> None:
    source = text([deployment(), keda(trigger())])
    assert not of_rule(linted(tmp_path, source), "max-above-gpus")
    assert not of_rule(linted(tmp_path, source, gpus_total=4), "max-above-gpus")
    (one,) = of_rule(linted(tmp_path, source, gpus_total=3), "max-above-gpus")
    assert one.evidence == "4 x 1 GPUs, --gpus-total has 3"
    with pytest.raises(ConfigError, match="gpus-total = -1"):
        linted(tmp_path, source, gpus_total=-1)


def test_what_is_in_several_folders_of_kustomize_is_not_applied_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "scaled.yaml").write_text(text([{**keda(trigger()), "metadata": {"name": name}}]))
    assert of_rule(lint(tmp_path), "two-autoscalers")
    for name in ("a", "b"):
        (tmp_path / name / "kustomization.yaml").write_text(
            "kind: Kustomization\nresources: [scaled.yaml]\n"
        )
    assert not of_rule(lint(tmp_path), "two-autoscalers")


def test_one_bad_file_leaves_the_others_to_be_checked(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"a: \xff\n")
    (tmp_path / "deep.yaml").write_text("[" * 20000)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "tabs.yaml").write_text("a:\n\t- b\n")
    (tmp_path / "endless.yaml").write_text("a: &a [*a]\n")
    bombs = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join(["a0: &a0 [x]", *bombs]))
    report = linted(tmp_path, "groups: [{rules: [{alert: A, expr: 'vllm:queue_size > 1'}]}]")
    unread = {one.place.file for one in of_rule(report, "yaml-unreadable")}
    assert unread == {"bad.yaml", "deep.yaml", "bad.json", "tabs.yaml", "endless.yaml", "bomb.yaml"}
    assert of_rule(report, "metric-never-existed")


@pytest.mark.parametrize(
    "source",
    [
        "null\n", "- a\n- 1\n", "kind: [a]\nmetadata: 3\n", "spec: {containers: [null, 1, a]}\n",
        "kind: Deployment\nspec: {template: {spec: {containers: [{args: a, command: {b: c}}]}}}\n",
        "kind: ScaledObject\nspec: {scaleTargetRef: a, triggers: {a: b}}\n",
        "kind: ScaledObject\nspec: {scaleTargetRef: {name: [1]}, triggers: [3, {metadata: x}]}\n",
        "kind: HorizontalPodAutoscaler\nspec: {scaleTargetRef: {name: a}, metrics: [{pods: []}]}\n",
        "kind: ServiceMonitor\nspec: {endpoints: [null, 4], selector: x, namespaceSelector: 3}\n",
        "kind: Service\nmetadata: {name: vllm, labels: [a]}\nspec: {selector: [a], ports: x}\n",
        "kind: Secret\ndata: [a]\nstringData: 3\n", "kind: Secret\ndata: {a: 3, b: null}\n",
        "kind: ConfigMap\ndata: {a.yaml: '{', b.json: '[', c.yaml: 3}\n",
        "kind: List\nitems: {a: b}\n", "kind: PersistentVolumeClaim\nspec: {accessModes: {a: b}}\n",
        "groups: [{rules: [{alert: [], expr: 3, for: {}}]}]\n", "a: &a [*a]\n",
        "? [a, b]\n: c\n",
    ],
)  # fmt: skip
def test_odd_shapes_are_no_crash(source: str, tmp_path: Path) -> None:
    linted(tmp_path, source)


def test_places_and_rows_name_everything(tmp_path: Path) -> None:
    report = linted(tmp_path, text([keda(trigger("sum(vllm:queue_size)"))]))
    (one,) = of_rule(report, "metric-never-existed")
    row = as_row(one)
    assert row == {
        "rule": "metric-never-existed",
        "severity": "error",
        "mistake": 1,
        "heuristic": False,
        "file": "a.yaml",
        "object": "ScaledObject/vllm-a",
        "path": "spec.triggers.0.metadata.query",
        "evidence": "vllm:queue_size",
        "says": "no version of vLLM exports this metric",
        "fix": "read vllm:num_requests_waiting",
    }
    line = as_line(one)
    assert "\n" not in line
    for value in ("a.yaml", "ScaledObject/vllm-a", "vllm:queue_size", "fix: read vllm:num"):
        assert value in line


def test_dashboards_in_files_and_in_config_maps_are_read(tmp_path: Path) -> None:
    board = '{"panels": [{"targets": [{"expr": "vllm:queue_size{x=\\"$namespace\\"}"}]}]}'
    (tmp_path / "board.json").write_text(board)
    held = {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"board.json": board}}
    report = linted(tmp_path, text([held]))
    places = {one.place.object for one in of_rule(report, "metric-never-existed")}
    assert places == {"", "ConfigMap/c:board.json"}


def test_the_worst_comes_first(tmp_path: Path) -> None:
    report = linted(tmp_path, (GUIDES / "000.yaml").read_text(encoding="utf-8"))
    levels = [list(Severity).index(one.severity) for one in report.findings]
    assert levels == sorted(levels)
    assert len(set(levels)) == 3
    assert sum(report.count(level) for level in Severity) == len(report.findings)


def test_wrong_input_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a directory"):
        lint(tmp_path / "none")
    with pytest.raises(ConfigError, match="must hold a file"):
        lint(tmp_path)
