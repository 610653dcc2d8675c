"""The tree of settings: where it comes from, and every fault of it at once."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaler.config import (
    FILE_BYTES_MAX,
    KindConfig,
    ProfileConfig,
    ScalerConfig,
    SourceConfig,
    StaticPod,
    TargetConfig,
    as_tree,
    config_hash,
    from_tree,
    load,
)
from scaler.core.settings import Declared, declared
from scaler.errors import ConfigError

TREES = (ScalerConfig(), SourceConfig(), TargetConfig(), StaticPod(), ProfileConfig(), KindConfig())
SETTINGS = [item for tree in TREES for item in declared(tree)]


def faults(tree: dict[Any, Any]) -> tuple[str, ...]:
    """Every fault of a tree that must not be taken."""
    with pytest.raises(ConfigError) as caught:
        from_tree(tree)
    return caught.value.faults


def the_fault(tree: dict[Any, Any]) -> str:
    (fault,) = faults(tree)
    return fault


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "scaler.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def unreadable(path: Path) -> str:
    """The only fault of a file that must not be taken."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    (fault,) = caught.value.faults
    assert fault.startswith(str(path))
    assert "\n" not in fault
    return fault


# What is declared.


@pytest.mark.parametrize("item", SETTINGS, ids=lambda item: item.path)
def test_every_setting_has_a_reason_and_a_default_in_its_range(item: Declared) -> None:
    assert len(item.setting.why) > 3, f"{item.path} says no reason"
    assert item.fault(item.default) is None
    if isinstance(item.default, int | float) and not isinstance(item.default, bool):
        assert item.setting.low is not None, f"{item.path} has no lower limit"
        assert item.setting.high is not None, f"{item.path} has no upper limit"
        assert item.setting.low < item.setting.high


def test_nothing_at_all_is_the_defaults() -> None:
    assert from_tree({}) == load(None, environ={}) == ScalerConfig()


# Where it comes from.


def test_a_file_and_over_it_the_environment(tmp_path: Path) -> None:
    path = written(tmp_path, "policy:\n  slo: {ttft_s: 3, tpot_s: 0.1}\nhttp: {address: 'h:1'}\n")
    made = load(
        path,
        environ={
            "VLLM_SCALER_POLICY__SLO__TTFT_S": "4.5",
            "VLLM_SCALER_KUBERNETES__NAMESPACES": "[a, b]",
            "VLLM_SCALER_SOURCES": "[{type: scrape, name: direct}]",
            "PATH": "/bin",
        },
    )
    assert (made.policy.slo.ttft_s, made.policy.slo.tpot_s) == (4.5, 0.1)
    assert made.http.address == "h:1"
    assert made.kubernetes.namespaces == ("a", "b")
    assert made.sources[0].name == "direct"


def test_text_of_the_environment_stays_text_where_text_is_due() -> None:
    # As YAML these would be true, None, 5400 (sexagesimal) and 7.
    made = load(
        None,
        environ={
            "VLLM_SCALER_STATE__LEASE_NAME": "yes",
            "VLLM_SCALER_RECORDS__DIRECTORY": "",
            "VLLM_SCALER_GRPC__ADDRESS": "1:30",
            "VLLM_SCALER_STATE__LEASE_NAMESPACE": "7",
        },
    )
    assert made.state.lease_name == "yes"
    assert made.records.directory == ""
    assert made.grpc.address == "1:30"
    assert made.state.lease_namespace == "7"


def test_the_services_of_a_namespace_are_no_settings() -> None:
    """What Kubernetes sets in every pod beside Services vllm-scaler and vllm-scaler-metrics."""
    links = {
        "VLLM_SCALER_SERVICE_HOST": "10.0.0.7",
        "VLLM_SCALER_SERVICE_PORT": "9090",
        "VLLM_SCALER_SERVICE_PORT_GRPC": "9090",
        "VLLM_SCALER_PORT": "tcp://10.0.0.7:9090",
        "VLLM_SCALER_PORT_9090_TCP": "tcp://10.0.0.7:9090",
        "VLLM_SCALER_PORT_9090_TCP_PROTO": "tcp",
        "VLLM_SCALER_PORT_9090_TCP_ADDR": "10.0.0.7",
        "VLLM_SCALER_METRICS_SERVICE_HOST": "10.0.0.8",
        "VLLM_SCALER_METRICS_PORT_8080_TCP_PORT": "8080",
    }
    assert load(None, environ=links) == ScalerConfig()
    made = load(None, environ={"VLLM_SCALER_KUBERNETES__METRICS_PORT": "8001"})
    assert made.kubernetes.metrics_port == 8001


def test_the_environment_may_be_wrong_in_every_way_at_once() -> None:
    environ = {
        "VLLM_SCALER_HTTP__ADDRESS__PORT": "1",
        "VLLM_SCALER_POLICY__SLO__TTFT_S": "soon",
        "VLLM_SCALER_POLICY__TICK": "[unclosed",
        "VLLM_SCALER_GRPCS__ADDRESS": "h:1",
    }
    with pytest.raises(ConfigError) as caught:
        load(None, environ=environ)
    text = "\n".join(caught.value.faults)
    assert "http.address = {'port': 1}, must be a string" in text
    assert "policy.slo.ttft_s = 'soon', must be a number in [0.01, 600]" in text
    assert "unknown key 'policy.tick'; did you mean 'tick_s'?" in text
    assert "unknown key 'grpcs'; did you mean 'grpc'?" in text


def test_the_environment_cannot_reach_into_a_list(tmp_path: Path) -> None:
    path = written(tmp_path, "sources: [{type: scrape}]")
    with pytest.raises(ConfigError, match=r"sources\.0 is not a group of settings"):
        load(path, environ={"VLLM_SCALER_SOURCES__0__URL": "http://x"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"policy: [1,\n", "is not YAML"),
        (b"policy: {a: 1\n  b: 2", "is not YAML"),
        (b"\x80\x81\xff", "is not UTF-8 text: byte 0"),
        (b"a\x00b", "is not YAML"),
        (b"- a\n- b\n", "must hold a mapping of settings, holds list"),
        (b"just words\n", "must hold a mapping of settings, holds str"),
        (b"!!python/object/apply:os.system [true]\n", "is not YAML"),
        (b"[" * 5000, "nested too deeply"),
        (b"#" * (FILE_BYTES_MAX + 1), "is larger than"),
    ],
    ids=["open", "mixed", "binary", "null", "list", "words", "python", "deep", "large"],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: bytes, said: str) -> None:
    assert said in unreadable(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("policy: {1: 2}", "policy.1"),
        ("policy: {slo: {null: 1}}", "policy.slo.None"),
        ("sources: [{1: 2}]", "sources.0.1"),
    ],
)
def test_a_key_that_is_no_text_is_unknown(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"^unknown key '{re.escape(key)}'; "):
        load(written(tmp_path, text), environ={})


def test_a_variable_nested_too_deeply_is_text() -> None:
    with pytest.raises(ConfigError, match=r"policy\.tick_s = '\[\[\[.*must be a number"):
        load(None, environ={"VLLM_SCALER_POLICY__TICK_S": "[" * 5000})


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in unreadable(tmp_path / "absent.yaml")
    assert "Is a directory" in unreadable(tmp_path)


@pytest.mark.parametrize("text", ["", "\n# nothing but a comment\n", "---\n"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text), environ={}) == ScalerConfig()


# Faults.


def test_every_fault_is_told_at_once_with_key_value_and_range() -> None:
    found = faults(
        {
            "policy": {"slo": {"ttft_s": -1, "tpot": 1}, "mode": "off", "tick_s": True},
            "grpc": {"adress": "x", "tls": {"cert_file": "c"}},
            "kubernetes": {"metrics_port": 70000, "namespaces": ["a", 5], "kinds": [3]},
            "sources": [{"type": "prom"}, {"url": "ftp://x"}, "scrape"],
            "records": None,
            "log": {"level": "loud"},
            1: 2,
        }
    )
    assert set(found) >= {
        "policy.slo.ttft_s = -1, must be a number in [0.01, 600]",
        "unknown key 'policy.slo.tpot'; did you mean 'tpot_s'?",
        "policy.mode = 'off', must be one of active, advisory, frozen",
        "policy.tick_s = True, must be a number in [1, 300]",
        "unknown key 'grpc.adress'; did you mean 'address'?",
        "kubernetes.metrics_port = 70000, must be a whole number in [1, 65535]",
        "kubernetes.namespaces.1 = 5, must be a string",
        "kubernetes.kinds.0 = 3, must be a group of settings",
        "sources.0.type = 'prom', must be one of prometheus, scrape",
        "sources.2 = 'scrape', must be a group of settings",
        "records = None, must be a group of settings",
    }
    assert any(fault.startswith("unknown key '1'; known are grpc, http,") for fault in found)


def test_faults_between_settings_are_told_beside_those_of_one() -> None:
    found = faults(
        {
            "policy": {"slo": {"ttft_s": -1}, "bounds": {"replicas_min": 5, "replicas_max": 2}},
            "sources": [{"type": "scrape", "timeout_s": 0}, {"url": "ftp://x"}],
            "log": {"level": "loud"},
            "grpc": {"tls": {"cert_file": "c"}, "address": "9090"},
            "http": {"address": "h:99999"},
        }
    )
    assert set(found) == {
        "policy.slo.ttft_s = -1, must be a number in [0.01, 600]",
        "policy.bounds.replicas_min = 5, must be at most policy.bounds.replicas_max = 2",
        "sources.0.timeout_s = 0, must be a number in [0.1, 60]",
        "sources.1.url = 'ftp://x', must be an http or https URL",
        "log.level = 'loud', must be one of debug, info, warning, error",
        "grpc.tls.cert_file and grpc.tls.key_file must be given together",
        "grpc.address = '9090', must be host:port, port in [0, 65535]",
        "http.address = 'h:99999', must be host:port, port in [0, 65535]",
    }


def test_no_fault_is_told_that_comes_from_a_default_in_place_of_a_wrong_value() -> None:
    # The maximum would be 100 by default, and the type prometheus, which needs a URL.
    assert len(faults({"policy": {"bounds": {"replicas_min": 200, "replicas_max": "many"}}})) == 1
    assert len(faults({"sources": [{"type": "scrap"}]})) == 1


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"grpc": {"tls": {"client_ca_file": "ca"}}}, "client_ca_file needs grpc.tls.cert_file"),
        ({"profiles": {"p": {"policy": {"slo.ttft": 1}}}}, "profiles.p.unknown key 'policy.slo.tt"),
        ({"profiles": {"p": {"policy": {"slo.ttft_s": 0}}}}, "profiles.p.policy.slo.ttft_s = 0"),
        ({"profiles": {"p": {"policy": {"slo": 3, "slo.ttft_s": 1}}}}, "slo is no group of sett"),
        ({"profiles": {"p": {"policy": {"slo.ttft_s": 1, "slo": 3}}}}, "must be a group of sett"),
        ({"profiles": {"p": {"policy": {"tick_s": 5}}}}, "policy.tick_s is the same for all"),
        (
            {"profiles": {"p": {"policy": {"freshness": {"decision_expiry_ticks": 5}}}}},
            "policy.freshness.decision_expiry_ticks is the same for all targets",
        ),
        (
            {"profiles": {"p": {"policy": {"bounds.replicas_min": 101}}}},
            "profiles.p.policy.bounds.replicas_min = 101, must be at most",
        ),
        ({"targets": [{"namespace": "a"}]}, "targets.0.target = '', must be KIND/NAME"),
        ({"targets": [{"target": "chat"}]}, "targets.0.target = 'chat', must be KIND/NAME"),
        (
            {"targets": [{"target": "deployment/a", "metadata": {"ttftSlo": "1"}}]},
            "targets.0.unknown key 'ttftSlo'; did you mean 'ttftSloSeconds'?",
        ),
        (
            {"targets": [{"target": "deployment/a", "metadata": {"profile": "p"}}]},
            "targets.0.profile = 'p', must be one of: none are configured",
        ),
        (
            {"targets": [{"target": "deployment/a", "frozen_until": "tomorrow"}]},
            "targets.0.frozen_until = 'tomorrow', must be a time with its zone",
        ),
        (
            {"targets": [{"target": "deployment/a", "frozen_until": "2027-01-15T08:00:00"}]},
            "must be a time with its zone",
        ),
        ({"targets": [{"pods": [{"port": 0}], "target": "deployment/a"}]}, "targets.0.pods.0.port"),
    ],
)
def test_faults_that_a_type_and_a_range_cannot_say(tree: dict[str, Any], said: str) -> None:
    assert said in the_fault(tree)


def test_a_long_value_is_cut_in_its_fault() -> None:
    assert len(the_fault({"policy": {"slo": {"ttft_s": "x" * 10_000}}})) < 300


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", ".inf", [], {}, None, True])
def test_what_is_no_number_is_refused(value: object) -> None:
    assert "must be a number in [0.01, 600]" in the_fault({"policy": {"slo": {"ttft_s": value}}})


def test_a_time_without_quotes_is_read_as_written(tmp_path: Path) -> None:
    text = "targets: [{target: deployment/a, mode: frozen, frozen_until: 2027-01-15T08:00:00Z}]"
    made = load(written(tmp_path, text), environ={})
    assert made.targets[0].frozen_until == "2027-01-15T08:00:00Z"


def test_a_faulty_profile_hides_no_fault_of_a_target_and_is_told_once() -> None:
    found = faults(
        {
            "profiles": {"p": {"policy": {"slo.ttft_s": 0}}},
            "targets": [
                {"target": "deployment/a", "metadata": {"profile": "p"}},
                {"target": "deployment/b", "metadata": {"ttftSloSeconds": "0"}},
            ],
        }
    )
    assert [fault.split(" = ")[0] for fault in found] == [
        "profiles.p.policy.slo.ttft_s",
        "targets.1.ttftSloSeconds",
    ]


# Printing and hashing.


FULL: dict[str, Any] = {
    "policy": {"slo": {"ttft_s": 3}, "capacity": {"per_kv_token_s": 2e-8}, "mode": "advisory"},
    "sources": [
        {"url": "https://p:9090", "headers": {"X-Scope-OrgID": "a"}, "namespaces": ["a-*"]},
        {"type": "scrape", "dcgm_urls": ["http://d:9400/metrics"]},
    ],
    "targets": [
        {
            "target": "deployment/a",
            "metadata": {"ttftSloSeconds": "2"},
            "mode": "frozen",
            "frozen_until": "2027-01-15T08:00:00Z",
            "pods": [{"name": "a-0", "host": "10.0.0.1", "port": 8001}],
        }
    ],
    "profiles": {"p": {"policy": {"slo": {"tpot_s": 0.1}, "slo.ttft_s": 1}, "gateway_query": "q"}},
    "kubernetes": {"kinds": [{"kind": "RayCluster", "api_version": "ray.io/v1", "plural": "r"}]},
}


def test_what_is_printed_loads_again_to_the_same(tmp_path: Path) -> None:
    made = from_tree(FULL)
    again = load(written(tmp_path, yaml.safe_dump(as_tree(made), sort_keys=False)), environ={})
    assert again == made
    assert config_hash(again) == config_hash(made)


def test_equal_settings_have_equal_hashes_whatever_their_order() -> None:
    turned = dict(reversed(FULL.items()))
    assert config_hash(from_tree(turned)) == config_hash(from_tree(FULL))
    assert config_hash(from_tree({})) == config_hash(ScalerConfig())
    assert len(config_hash(ScalerConfig())) == 12
    for config in (ScalerConfig(), from_tree(FULL)):  # records hold it: it must stay what it was
        text = json.dumps(as_tree(config), sort_keys=True)
        assert config_hash(config) == hashlib.sha256(text.encode()).hexdigest()[:12]


def _changed(item: Declared) -> object:
    """Another value for a setting of the policy."""
    if isinstance(item.default, bool):
        return not item.default
    if isinstance(item.default, str):
        others = [member for member in type(item.default) if member is not item.default]  # type: ignore[attr-defined]
        return others[0]
    high = item.setting.high
    return high if item.default != high else item.setting.low


@pytest.mark.parametrize("item", declared(ScalerConfig().policy), ids=lambda item: item.path)
def test_every_setting_of_the_policy_counts_in_its_hash(item: Declared) -> None:
    policy: Any = ScalerConfig().policy
    group, _, leaf = item.path.rpartition(".")
    holder = dataclasses.replace(
        getattr(policy, group) if group else policy, **{leaf: _changed(item)}
    )
    changed = dataclasses.replace(policy, **{group: holder}) if group else holder
    assert config_hash(changed) != config_hash(policy)
