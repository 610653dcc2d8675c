"""Every expression of rules and dashboards on a real Prometheus that holds the captured pages."""

import math
from collections.abc import Iterator

import pytest

from scaler.signals import promql
from scaler.signals.dcgm import DcgmReader
from scaler.signals.prometheus_queries import queries
from scaler.signals.readers import Readers
from scaler.signals.samples import TargetRef
from scaler.signals.settings import PrometheusSettings
from scaler.signals.vllm import VllmReader
from tests.manifests.built import of_kind, overlay
from tests.manifests.dashboards import expressions
from tests.manifests.fleet import FIXTURES, Fleet
from tests.manifests.rules import rules, selectors_in
from tests.manifests.test_scaling import configuration

pytestmark = [
    pytest.mark.external,
    pytest.mark.data,
    pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"captured pages are not in {FIXTURES}"),
]
# No data on a healthy fleet, by intent: a mistake that is not made, a state it is not in.
EMPTY_WHEN_WELL = {"vllm-serving: SM clock and last XID"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("prometheus")) as running:
        yield running


def numbers(fleet: Fleet, expression: str) -> list[float]:
    return [float(row["value"][1]) for row in fleet.query(expression)]


@pytest.mark.parametrize("rule", rules("record"), ids=lambda rule: str(rule["record"]))
def test_a_recording_rule_returns_data(fleet: Fleet, rule: dict[str, str]) -> None:
    found = numbers(fleet, rule["expr"])
    assert found
    assert any(math.isfinite(value) for value in found)
    assert numbers(fleet, rule["record"]), "recorded by Prometheus itself"


def test_dashboards_return_data(fleet: Fleet) -> None:
    empty = set()
    for panel, expression in expressions():
        if not any(math.isfinite(value) for value in numbers(fleet, expression)):
            empty.add(panel)
    assert empty <= EMPTY_WHEN_WELL


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: str(rule["alert"]))
def test_an_alert_reads_series_that_exist(fleet: Fleet, rule: dict[str, str]) -> None:
    fleet.query(rule["expr"])  # it is accepted
    found = selectors_in(rule["expr"])
    assert found, "an alert reads something"
    for selector in found - UNSEEN:
        assert fleet.query(selector), f"{selector} matches nothing in a fleet that has everything"


# Label values that a healthy fleet does not have.
UNSEEN = {
    'vllm_scaler_mode_info{mode="frozen"}',
    'vllm_scaler_grpc_requests_total{code!="OK"}',
}


def test_workloads_are_named_after_their_owners(fleet: Fleet) -> None:
    rows = fleet.query("vllm_workload:pods:count")
    assert {(row["metric"]["workload"], row["value"][1]) for row in rows} == {
        ("vllm-llama", "2"),
        ("vllm-405b", "1"),
    }


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        (promql.TTFT_RECORDED, "vllm:time_to_first_token_seconds"),
        (promql.ITL_RECORDED, "vllm:inter_token_latency_seconds"),
    ],
)
def test_the_daemon_reads_the_same_from_the_rules_as_without_them(
    fleet: Fleet, name: str, metric: str
) -> None:
    scope = promql.Scope(namespaces=("llm",))
    keys = ("namespace", "workload", "model_name", "le")
    with_rules = fleet.query(promql.recorded(name, scope))
    without = fleet.query(promql.histogram((metric,), scope, window_s=60.0))
    shaped = [
        {tuple(row["metric"][key] for key in keys) for row in rows}
        for rows in (with_rules, without)
    ]
    assert shaped[0] == shaped[1]
    assert len(shaped[0]) > 2 * 19, "two workloads with all bounds of vLLM"
    assert fleet.query(promql.recorded_namespaces(scope))


def test_a_pod_scraped_twice_counts_once(fleet: Fleet) -> None:
    # The rules take the maximum by pod first; a plain sum over a doubled series would be twice it.
    once = numbers(fleet, "sum(vllm_workload:requests_running:sum)")
    (rule,) = [
        one for one in rules("record") if one["record"] == "vllm_workload:requests_running:sum"
    ]
    doubled = rule["expr"].replace(
        "vllm:num_requests_running",
        "(vllm:num_requests_running or "
        'label_replace(vllm:num_requests_running, "job", "second", "", ""))',
    )
    assert doubled != rule["expr"]
    assert numbers(fleet, f"sum({doubled})") == once
    assert once[0] > 0


def test_the_gateways_query_gives_what_the_daemon_reads_of_it(fleet: Fleet) -> None:
    # Its name and label are from LiteLLM's documentation, not captured.
    (row,) = fleet.query(configuration().profiles["behind-litellm"].gateway_query)
    assert row["metric"] == {"namespace": "llm", "model_name": "tiny-llama"}


def test_queries_of_kedas_own_triggers_return_one_series(fleet: Fleet) -> None:
    # KEDA fails on more than one; the fleet has another namespace and model name than the overlay.
    (scaled,) = of_kind(overlay("compare-keda-prometheus"), "ScaledObject")
    for trigger in scaled["spec"]["triggers"]:
        query = trigger["metadata"]["query"]
        assert 'namespace="llm-serving"' in query
        here = query.replace("llm-serving", "llm").replace("llama-3.1-70b-keda", "tiny-llama")
        assert len(numbers(fleet, here)) == 1


@pytest.mark.parametrize("recorded", [True, False])
def test_every_query_of_the_daemon_returns_data(fleet: Fleet, recorded: bool) -> None:
    asked = queries(
        [TargetRef(namespace="llm", kind="deployment", name="vllm-llama")],
        promql.Scope(namespaces=("llm",)),
        PrometheusSettings(url="http://127.0.0.1:1"),
        Readers(engine=VllmReader(), gpu=DcgmReader()),
        recorded=recorded,
    )
    for name in ("queue", "work", "kv_cache", "info", "times", "ttft", "itl", "gpu", "gpu_times"):
        assert numbers(fleet, getattr(asked, name)), name
