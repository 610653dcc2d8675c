"""Names in rules and dashboards, ports and labels of monitors, the plain files."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from scaler.service.metrics_table import PREFIX, PROCESS_METRICS, TARGET_METRICS
from scaler.signals import promql
from tests.manifests.built import DATA, Document, build, of_kind, overlay, overlays, required
from tests.manifests.dashboards import NAMES, dashboard, expressions, panels
from tests.manifests.fleet import FIXTURES, RUN, dcgm_page, samples, vllm_page
from tests.manifests.rules import MONITORING, groups, names_in, rules, selectors_in

PLAIN_RULES = MONITORING / "plain" / "rules.yml"
PLAIN_HEAD = (
    "# Made from the PrometheusRules beside; tests/manifests/test_monitoring.py holds it equal.\n"
)
# Fallbacks for vLLM before 0.9.2 and 0.10.2, in the composed pages only.
OLDER_NAMES = {"vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds_bucket"}


def read_names() -> set[str]:
    """Every series that a rule or a dashboard reads."""
    found = set()
    for rule in rules("record") + rules("alert"):
        found |= names_in(rule["expr"])
    for _, expression in expressions():
        found |= names_in(expression)
    return found


def test_names_are_taken_out_of_expressions() -> None:
    expression = (
        'sum by (pod, le) (rate(a:b_total{x="y"}[5m])) / on (pod) c offset 5m > 0.1 or vector(0)'
    )
    assert names_in(expression) == {"a:b_total", "c"}
    assert selectors_in(expression) == {'a:b_total{x="y"}', "c"}


def test_the_daemons_own_names_exist() -> None:
    suffixes = ("", "_bucket", "_sum", "_count")
    known = {PREFIX + metric.name for metric in TARGET_METRICS}
    for metric in PROCESS_METRICS:
        known |= {PREFIX + metric.name + end for end in suffixes}
    read = {name for name in read_names() if name.startswith(PREFIX)}
    assert len(read) > 25
    assert read - known == set()


@pytest.mark.data
def test_names_of_vllm_and_dcgm_exist_in_pages() -> None:
    if not FIXTURES.is_dir():
        pytest.skip(f"captured pages are not in {FIXTURES}")
    captured = {name for state in RUN for name, _, _ in samples(vllm_page(state))}
    captured |= {name for name, _, _ in samples(dcgm_page())}
    read = {name for name in read_names() if name.startswith(("vllm:", "DCGM_", "process_"))}
    assert len(read) > 20
    assert read - captured - OLDER_NAMES == set()
    composed = {
        name
        for path in (FIXTURES / "vllm").glob("composed-v*.prom")
        for name, _, _ in samples(path.read_text(encoding="utf-8"))
    }
    assert composed >= OLDER_NAMES


def test_all_other_names_are_recorded_or_from_kube_state_metrics() -> None:
    recorded = {rule["record"] for rule in rules("record")}
    documented = {name for name, _, _ in samples((DATA / "kube-state-metrics.prom").read_text())}
    other = {
        name
        for name in read_names()
        if not name.startswith(("vllm:", "DCGM_", "process_", PREFIX)) and name != "up"
    }
    assert other - recorded - documented == set()
    assert {name for name in other if name.startswith("kube_")} == documented


def test_recording_rules_keep_the_daemons_contract() -> None:
    by_name = {rule["record"]: rule["expr"] for rule in rules("record")}
    for name in (promql.TTFT_RECORDED, promql.ITL_RECORDED):
        expression = by_name[name]
        assert expression.startswith("sum by (namespace, workload, model_name, le) (")
        assert "[1m]" in expression
        assert f'"{promql.DEPLOYMENT_POD}"' in expression
        assert f'"{promql.ORDINAL_POD}"' in expression


def test_every_workload_label_is_made_in_the_same_way() -> None:
    for rule in rules("record"):
        patterns = set(re.findall(r'"pod", "(\^[^"]+)"', rule["expr"]))
        assert patterns in (set(), {promql.DEPLOYMENT_POD, promql.ORDINAL_POD}), rule["record"]


def test_rules_for_a_plain_prometheus_are_the_same() -> None:
    text = PLAIN_HEAD + yaml.safe_dump({"groups": list(groups())}, sort_keys=False, width=1000)
    if os.environ.get("UPDATE_PLAIN_RULES"):
        PLAIN_RULES.write_text(text, encoding="utf-8")
    assert PLAIN_RULES.read_text(encoding="utf-8") == text


@pytest.mark.external
def test_promtool_accepts_the_plain_configuration(tmp_path: Path) -> None:
    # Debian builds Prometheus without the discovery of Kubernetes: a static target stands for it.
    text = (PLAIN_RULES.parent / "prometheus.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    for job in config["scrape_configs"]:
        assert job.pop("kubernetes_sd_configs")
        job["static_configs"] = [{"targets": ["127.0.0.1:1"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "rules.yml").write_text(PLAIN_RULES.read_text(encoding="utf-8"))
    done = subprocess.run(
        [required("promtool"), "check", "config", "prometheus.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def monitored() -> list[tuple[str, Document]]:
    return [
        (name, service)
        for name in overlays()
        for service in of_kind(overlay(name), "Service")
        if service["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "vllm"
    ]


@pytest.mark.external
def test_the_service_monitor_selects_every_vllm_service_once_by_named_port() -> None:
    (monitor,) = [
        one
        for one in of_kind(build("monitoring"), "ServiceMonitor")
        if one["metadata"]["name"] == "vllm"
    ]
    (endpoint,) = monitor["spec"]["endpoints"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert len(monitored()) >= 10
    for name, service in monitored():
        assert wanted <= service["metadata"]["labels"].items(), name
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]], name
    for name in overlays():
        count = sum(1 for one, _ in monitored() if one == name)
        pods = len(of_kind(overlay(name), "Deployment", "LeaderWorkerSet"))
        assert count <= max(pods, 1), f"{name}: two Services over the same pods double every sum"


@pytest.mark.external
def test_the_scalers_monitor_finds_its_service() -> None:
    documents = overlay("scaler")
    (monitor,) = of_kind(documents, "ServiceMonitor")
    (service,) = of_kind(documents, "Service")
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert monitor["spec"]["endpoints"][0]["port"] in [
        one["name"] for one in service["spec"]["ports"]
    ]


def test_exporter_fields_cover_what_is_read() -> None:
    lines = (MONITORING / "dcgm" / "dcgm-metrics.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split(",", 2) for line in lines if line and not line.startswith("#")]
    assert all(len(row) == 3 and row[1].strip() in ("gauge", "counter", "label") for row in rows)
    fields = {row[0].strip() for row in rows}
    assert {name for name in read_names() if name.startswith("DCGM_")} <= fields
    assert "DCGM_FI_PROF_SM_ACTIVE" in fields, (
        "off by default in the exporter, wanted by the scaler"
    )


@pytest.mark.parametrize("name", NAMES)
def test_dashboards_are_well_formed(name: str) -> None:
    board = dashboard(name)
    every = board["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
    variables = {one["name"] for one in board["templating"]["list"]}
    for panel in panels(name):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"] + target["legendFormat"]))
            assert used - {"__rate_interval"} <= variables, panel["title"]


def test_dashboards_answer_what_they_must() -> None:
    titles = {name: " ".join(panel["title"].lower() for panel in panels(name)) for name in NAMES}
    for word in (
        "finished requests by model", "time to first token", "whole requests", "utilisation",
        "memory in use", "temperature", "running and waiting", "preemptions", "tokens per second",
    ):  # fmt: skip
        assert word in titles["vllm-serving"], word
    for word in (
        "replicas", "proposal of each signal", "forecast against what came", "blind",
        "which stage decided", "gpus wanted against allocatable",
    ):  # fmt: skip
        assert word in titles["vllm-scaler"], word


def test_the_adapter_reads_series_that_exist() -> None:
    config = yaml.safe_load((MONITORING / "prometheus-adapter" / "config.yaml").read_text())
    recorded = {rule["record"] for rule in rules("record")}
    for rule in config["rules"]:
        (name,) = re.findall(r"^([\w:]+)\{", rule["seriesQuery"])
        assert name in recorded or name in read_names()
        assert ":" not in rule["name"]["as"], "Kubernetes does not take a colon in a metric's name"


def test_the_plain_configuration_finds_pods_as_the_monitors_do() -> None:
    text = (MONITORING / "plain" / "prometheus.yml").read_text(encoding="utf-8")
    jobs = {job["job_name"] for job in yaml.safe_load(text)["scrape_configs"]}
    assert jobs == {"vllm", "vllm-scaler", "dcgm-exporter", "kube-state-metrics"}
    assert Path(PLAIN_RULES).name in yaml.safe_load(text)["rule_files"]
