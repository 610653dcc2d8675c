"""What ``scaler manifest`` prints: the shipped defaults, and nothing the daemon would refuse."""

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaler.config import from_tree
from scaler.core.hpa_spec import Version
from scaler.errors import ConfigError
from scaler.ops.manifest import ManifestRequest, comments, scaled_object, text
from scaler.trigger import parse
from simulations.actuation import Answer, Failure, KedaActuator, Scale
from simulations.scaled_object import ClusterSpec, parse_scaled_object
from tests.manifests.built import of_kind, overlay, overlays_with, required

BASIC = ManifestRequest(
    target="deployment/vllm-llama-70b", namespace="llm", metadata={"ttftSloSeconds": "2"}
)
BEHAVIOR = ("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior")
OURS = ("external", "external-push")
SHIPPED = sorted(overlays_with("scaled-object") + overlays_with("scaled-object-lws"))


def at(document: dict[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def faults(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        text(dataclasses.replace(BASIC, **changes), None, with_alerts=False)
    return list(refused.value.faults)


def test_the_shipped_defaults() -> None:
    spec = scaled_object(BASIC)["spec"]
    assert (spec["minReplicaCount"], spec["pollingInterval"], spec["cooldownPeriod"]) == (
        1,
        15,
        300,
    )
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    behavior = at(scaled_object(BASIC), BEHAVIOR)
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    policies = behavior["scaleUp"]["policies"]
    assert {tuple(one.values()) for one in policies} == {("Percent", 100, 15), ("Pods", 4, 15)}
    assert 0 <= behavior["scaleDown"]["stabilizationWindowSeconds"] <= 60
    assert behavior["scaleDown"]["policies"], "a rate limit downwards"
    assert [behavior[way]["tolerance"] for way in ("scaleUp", "scaleDown")] == [0, 0]


@pytest.mark.parametrize(
    ("version", "kept"),
    [(None, True), (Version(1, 30), False), (Version(1, 34), False), (Version(1, 35), True)],
)
def test_tolerance_is_printed_where_the_cluster_keeps_it(
    version: Version | None, *, kept: bool
) -> None:
    request = dataclasses.replace(BASIC, kubernetes=version)
    behavior = at(scaled_object(request), BEHAVIOR)
    assert ("tolerance" in behavior["scaleUp"]) is kept
    assert ("tolerance" in behavior["scaleDown"]) is kept
    said = [one for one in comments(request, None).values() if "1.3" in one]
    assert bool(said) is (version != Version(1, 35)), "said where it is, or may be, dropped"


def test_comments_change_nothing() -> None:
    for request in (BASIC, dataclasses.replace(BASIC, kubernetes=Version(1, 30), push=True)):
        made = text(request, None, with_alerts=False)
        assert yaml.safe_load(made) == scaled_object(request)
        assert made.count(" # ") == len(comments(request, None))


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("deployment", {"apiVersion": "apps/v1", "kind": "Deployment"}),
        ("statefulset", {"apiVersion": "apps/v1", "kind": "StatefulSet"}),
        (
            "leaderworkerset",
            {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"},
        ),
    ],
)
def test_every_kind_the_daemon_knows(kind: str, reference: dict[str, str]) -> None:
    made = scaled_object(dataclasses.replace(BASIC, target=f"{kind}/a"))
    assert made["spec"]["scaleTargetRef"] == {**reference, "name": "a"}


def test_a_further_kind_comes_from_the_configuration() -> None:
    config = from_tree(
        {
            "kubernetes": {
                "kinds": [{"kind": "Servers", "api_version": "x.io/v1", "plural": "servers"}]
            }
        }
    )
    request = dataclasses.replace(BASIC, target="servers/a")
    made = yaml.safe_load(text(request, config, with_alerts=False))
    assert made["spec"]["scaleTargetRef"] == {
        "apiVersion": "x.io/v1", "kind": "Servers", "name": "a",
    }  # fmt: skip
    assert "target = 'servers/a'" in faults(target="servers/a")[0]


def test_a_name_alone_is_a_deployment() -> None:
    assert scaled_object(dataclasses.replace(BASIC, target="a")) == scaled_object(
        dataclasses.replace(BASIC, target="deployment/a")
    )


def test_push_and_authentication() -> None:
    request = dataclasses.replace(BASIC, push=True, authentication="ClusterTriggerAuthentication/a")
    (trigger,) = scaled_object(request)["spec"]["triggers"]
    assert trigger["type"] == "external-push"
    assert trigger["authenticationRef"] == {"kind": "ClusterTriggerAuthentication", "name": "a"}
    (trigger,) = scaled_object(dataclasses.replace(BASIC, authentication="a"))["spec"]["triggers"]
    assert trigger["authenticationRef"] == {"kind": "TriggerAuthentication", "name": "a"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {"ttftSloSeconds": "soon"}}, "ttftSloSeconds = 'soon', must be a number in"),
        ({"metadata": {"ttftSloSeconds": "0"}}, "ttftSloSeconds = '0', must be"),
        ({"metadata": {"sloAttainmentTarget": "99"}}, "[0.5, 0.9999]"),
        ({"metadata": {"role": "both"}}, "role = 'both'"),
        ({"metadata": {"hpaKubernetesMinor": "35"}}, "must be set by the operator"),
        ({"metadata": {"ttftSlo": "2"}}, "unknown key 'ttftSlo'"),
        ({"metadata": {"target": "deployment/b"}}, "target = 'deployment/b', must not be"),
        ({"metadata": {"caCert": "x"}}, "caCert = 'x', must not be"),
        ({"target": "pod/a"}, "target = 'pod/a', must be KIND/NAME"),
        ({"target": "deployment/A_b"}, "target = 'deployment/A_b', must be KIND/NAME"),
        ({"namespace": "a.b"}, "namespace = 'a.b', must be 1 to 63"),
        ({"scaler_address": "http://a:9090"}, "scalerAddress = 'http://a:9090', must be host:port"),
        ({"scaler_address": "a:99999"}, "port in [1, 65535]"),
        ({"authentication": "Secret/a"}, "authenticationRef = 'Secret/a', must be"),
        ({"replicas_min": 0}, "minReplicaCount = 0, must be at least 1 unless --scale-to-zero"),
        ({"replicas_min": 9}, "minReplicaCount = 9, must be in [1, 8]"),
        ({"replicas_max": 0, "replicas_min": 0}, "maxReplicaCount = 0, must be in [1, 10000]"),
        ({"scale_to_zero": True, "replicas_min": 2}, "minReplicaCount = 2, must not be given"),
    ],
)
def test_refusals_name_key_value_and_range(changes: dict[str, Any], said: str) -> None:
    assert any(said in fault for fault in faults(**changes)), faults(**changes)


def test_every_fault_is_told_at_once() -> None:
    assert len(faults(namespace="_", replicas_max=0, metadata={"a": "b", "role": "x"})) == 5


ZERO = dataclasses.replace(
    BASIC, scale_to_zero=True, replicas_min=0, metadata={"modelName": "m", "profile": "gateway"}
)
WITH_QUERY = from_tree({"profiles": {"gateway": {"gateway_query": "sum(requests_total)"}}})
WITHOUT_QUERY = from_tree({"profiles": {"gateway": {"policy": {"slo.ttft_s": 1}}}})


def test_zero_needs_a_name_and_a_counter_in_front() -> None:
    made = yaml.safe_load(text(ZERO, WITH_QUERY, with_alerts=False))
    assert made["spec"]["minReplicaCount"] == 0
    assert made["spec"]["initialCooldownPeriod"] == 300, "a target never yet active is not dropped"
    assert "fallback" not in made["spec"], "from KEDA 2.19 on it would lift an idle target"
    with pytest.raises(ConfigError, match="must have a gateway_query"):
        text(ZERO, WITHOUT_QUERY, with_alerts=False)
    assert [fault.split(" is ")[0] for fault in faults(scale_to_zero=True, replicas_min=0)] == [
        "modelName", "profile",
    ]  # fmt: skip


def test_a_profile_that_was_not_checked_is_said_to_be_so() -> None:
    assert "gateway # not checked" in text(ZERO, None, with_alerts=False)
    assert "not checked" not in text(ZERO, WITH_QUERY, with_alerts=False)
    with pytest.raises(ConfigError, match="profile = 'gateway', must be one of"):
        text(ZERO, from_tree({}), with_alerts=False)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("kubernetes", [Version(1, 30), Version(1, 35)])
@pytest.mark.parametrize("failure", list(Failure))
@pytest.mark.parametrize("replicas", [1, 3, 9, 12, 37])
def test_no_fault_lowers_the_count_through_the_fallback(
    *, replicas: int, failure: Failure, kubernetes: Version, zero: bool
) -> None:
    request = dataclasses.replace(ZERO if zero else BASIC, replicas_max=40, kubernetes=kubernetes)
    spec = parse_scaled_object(scaled_object(request))
    assert (spec.fallback is None) is zero
    keda = KedaActuator.of(spec, ClusterSpec(kubernetes=kubernetes))
    state = keda.start(now_s=0.0)
    busy = Answer(integer=replicas, double=float(replicas), active=True)
    count = replicas
    for at_s in range(0, 2 * 3600, 15):
        answer = busy if at_s < 300 else failure  # an outage of almost two hours
        scale = Scale(spec_replicas=count, status_replicas=count, ready_pods=count - count // 3)
        polled = keda.poll(state, now_s=float(at_s), answer=answer, scale=scale)
        synced = keda.hpa_sync(
            polled.state,
            now_s=float(at_s),
            answer=answer,
            scale=dataclasses.replace(scale, spec_replicas=polled.replicas),
        )
        state, count = synced.state, synced.replicas
        assert count == replicas, f"after {at_s} s"


@pytest.mark.parametrize("failure", list(Failure))
def test_no_fault_lifts_an_idle_target(failure: Failure) -> None:
    keda = KedaActuator.of(parse_scaled_object(scaled_object(ZERO)), ClusterSpec())
    state = keda.start(now_s=0.0)
    for at_s in range(0, 3600, 15):
        scale = Scale(spec_replicas=0, status_replicas=0, ready_pods=0)
        polled = keda.poll(state, now_s=float(at_s), answer=failure, scale=scale)
        state = polled.state
        assert polled.replicas == 0, f"after {at_s} s"


def test_a_static_fallback_would_lower_it() -> None:
    """The test above can fail: with KEDA's default behaviour an outage takes 12 to 1."""
    made = scaled_object(BASIC)
    del made["spec"]["fallback"]["behavior"]
    keda = KedaActuator.of(parse_scaled_object(made), ClusterSpec())
    state, count = keda.start(now_s=0.0), 12
    for at_s in range(0, 3600, 15):
        scale = Scale(spec_replicas=count, status_replicas=count, ready_pods=count)
        synced = keda.hpa_sync(state, now_s=float(at_s), answer=Failure.METRICS, scale=scale)
        state, count = synced.state, synced.replicas
    assert count < 12


@pytest.mark.external
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scaled_objects_are_what_is_printed(name: str) -> None:
    (shipped,) = of_kind(overlay(name), "ScaledObject")
    spec = shipped["spec"]
    (trigger,) = [one for one in spec["triggers"] if one["type"] in OURS]
    reference = trigger.get("authenticationRef")
    zero = spec["minReplicaCount"] == 0
    metadata = {key: one for key, one in trigger["metadata"].items() if key != "scalerAddress"}
    request = ManifestRequest(
        target=f"{spec['scaleTargetRef']['kind'].lower()}/{spec['scaleTargetRef']['name']}",
        namespace=shipped["metadata"]["namespace"],
        metadata=metadata,
        scaler_address=trigger["metadata"]["scalerAddress"],
        replicas_min=spec["minReplicaCount"],
        replicas_max=spec["maxReplicaCount"],
        push=trigger["type"] == "external-push",
        scale_to_zero=zero,
        authentication=f"{reference['kind']}/{reference['name']}" if reference else "",
    )
    (config,) = of_kind(overlay("scaler"), "ConfigMap")
    made = yaml.safe_load(
        text(request, from_tree(yaml.safe_load(config["data"]["config.yaml"])), with_alerts=False)
    )
    # A cron floor beside ours is the overlay's own, and kustomize adds the label of the instance.
    assert {**spec, "triggers": [trigger]} == made["spec"]
    assert made["metadata"]["labels"].items() <= shipped["metadata"]["labels"].items()
    for key in ("name", "namespace"):
        assert made["metadata"][key] == shipped["metadata"][key]
    assert (made["apiVersion"], made["kind"]) == (shipped["apiVersion"], shipped["kind"])


def test_the_trigger_is_accepted_by_the_daemon() -> None:
    request = dataclasses.replace(
        BASIC, metadata={"modelName": "m", "ttftSloSeconds": "2", "holdDownWindowSeconds": "60"}
    )
    made = yaml.safe_load(text(request, None, with_alerts=False))
    trigger = parse(made["spec"]["triggers"][0]["metadata"], from_tree({}))
    assert (trigger.policy.slo.ttft_s, trigger.policy.hold_down.window_s) == (2.0, 60.0)


def alerts(request: ManifestRequest) -> dict[str, Any]:
    _, rule = yaml.safe_load_all(text(request, None, with_alerts=True))
    return dict(rule)


def test_alerts_are_on_this_target_alone() -> None:
    rule = alerts(BASIC)
    assert rule["metadata"]["namespace"] == "llm"
    for one in rule["spec"]["groups"][0]["rules"]:
        assert 'namespace="llm"' in one["expr"]
        assert "vllm-llama-70b" in one["expr"]
        assert one["labels"]["severity"]
        assert one["annotations"]["summary"]


@pytest.mark.parametrize(
    ("objective", "bounds"),
    [
        ("2", "2[.]5"),
        ("2.5", "2[.]5"),
        ("1", "1|1[.]0"),
        ("0.01", "0[.]01"),
        ("600", "640|640[.]0"),
    ],
)
def test_the_objective_is_judged_at_the_next_bound(objective: str, bounds: str) -> None:
    rule = alerts(dataclasses.replace(BASIC, metadata={"ttftSloSeconds": objective}))
    missed = rule["spec"]["groups"][0]["rules"][0]
    assert f'le=~"{bounds}"' in missed["expr"]


PODS = 'namespace="llm", pod="vllm-llama-70b-6f7d5c4b32-9zqkp"'
OTHER = 'namespace="llm", pod="vllm-llama-70b-b-6f7d5c4b32-9zqkp"'
OWN = '{target_namespace="llm", target="deployment/vllm-llama-70b", trigger="0"}'


def counted(in_time: str) -> list[dict[str, str]]:
    """Two hours of series of a healthy daemon; ``in_time`` counts those within the objective."""
    name = "vllm:time_to_first_token_seconds"
    rows = {
        f'{name}_bucket{{{PODS}, le="2.5"}}': in_time,
        f"{name}_count{{{PODS}}}": "0+10x120",
        f'{name}_bucket{{{OTHER}, le="2.5"}}': "0+0x120",  # another target is not this one's
        f"{name}_count{{{OTHER}}}": "0+10x120",
        f"vllm_scaler_last_decision_timestamp_seconds{OWN}": "0+60x120",
        f"vllm_scaler_blind{OWN}": "0x120",
        f"vllm_scaler_at_max{OWN}": "0x120",
    }
    return [{"series": key, "values": value} for key, value in rows.items()]


def firing_case(rows: list[dict[str, str]], *firing: str) -> dict[str, Any]:
    """promtool's test: after 100 minutes of ``rows`` these alerts fire, and no other of ours."""
    every = [one["alert"] for one in alerts(BASIC)["spec"]["groups"][0]["rules"]]
    return {
        "interval": "1m",
        "input_series": rows,
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertstate="firing", alertname="{one}"}})',
                "eval_time": "100m",
                "exp_samples": [{"labels": "{}", "value": 1}] if one in firing else [],
            }
            for one in every
        ],
    }


@pytest.mark.external
def test_alerts_fire_and_stay_silent_on_a_real_prometheus(tmp_path: Path) -> None:
    good = counted("0+10x120")
    bad = counted("0+9x120")  # 90 % where 99 % are asked for
    stuck = [
        {**row, "values": row["values"].replace("0x120", "1x120")}
        if row["series"].startswith(("vllm_scaler_blind", "vllm_scaler_at_max"))
        else row
        for row in good
    ]
    silent = [row for row in good if "last_decision" not in row["series"]]
    hung = [{**row, "values": "0x120"} if "last_decision" in row["series"] else row for row in good]
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            firing_case(good),
            firing_case(bad, "VLLMTargetMissesObjective"),
            firing_case(stuck, "VLLMTargetBlind", "VLLMTargetAtMaximum"),
            firing_case(silent, "VLLMTargetUndecided"),
            firing_case(hung, "VLLMTargetUndecided"),
        ],
    }
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(alerts(BASIC)["spec"]))
    (tmp_path / "tests.yaml").write_text(json.dumps(tests))
    done = subprocess.run(
        [required("promtool"), "test", "rules", "tests.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
