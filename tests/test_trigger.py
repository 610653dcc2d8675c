"""Trigger metadata: what is ours, what wins over what, and what is refused."""

import dataclasses

import pytest

from scaler.config import ScalerConfig, from_tree
from scaler.core.config import PolicyConfig
from scaler.core.model import Role
from scaler.core.settings import declared, tunable
from scaler.errors import ConfigError
from scaler.trigger import (
    DAEMON_WIDE,
    KEDA_KEYS,
    VALUE_CHARS_MAX,
    metadata_settings,
    operators_settings,
    parse,
    relevant,
)

CONFIG = from_tree(
    {
        "policy": {"slo": {"ttft_s": 5, "tpot_s": 0.5, "attainment_target_ratio": 0.9}},
        "profiles": {
            "chat": {
                "policy": {"slo.ttft_s": 1, "slo": {"tpot_s": 0.1}, "bounds.replicas_max": 7},
                "gateway_query": "sum(rate(requests_total[1m]))",
            }
        },
        "kubernetes": {"kinds": [{"kind": "RayCluster", "api_version": "v1", "plural": "r"}]},
    }
)


def faults(**metadata: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(metadata, CONFIG)
    return caught.value.faults


def the_fault(**metadata: str) -> str:
    (fault,) = faults(**metadata)
    return fault


def test_metadata_wins_over_the_profile_and_the_profile_over_the_policy() -> None:
    plain = parse({}, CONFIG).policy
    assert plain == CONFIG.policy
    named = parse({"profile": "chat"}, CONFIG).policy
    assert (named.slo.ttft_s, named.slo.tpot_s, named.bounds.replicas_max) == (1.0, 0.1, 7)
    assert named.slo.attainment_target_ratio == 0.9  # the profile says nothing of it
    given = parse({"profile": "chat", "ttftSloSeconds": "0.25"}, CONFIG).policy
    assert (given.slo.ttft_s, given.slo.tpot_s, given.bounds.replicas_max) == (0.25, 0.1, 7)


def test_a_setting_given_as_its_default_still_wins() -> None:
    default = ScalerConfig().policy.slo.ttft_s
    assert parse({"profile": "chat", "ttftSloSeconds": str(default)}, CONFIG).policy.slo.ttft_s == 2


def test_the_keys_that_users_write() -> None:
    """The keys of the example trigger keep their names whatever becomes of the tree."""
    made = parse(
        {
            "scalerAddress": "vllm-scaler.vllm-scaler.svc:9090",
            "target": "deployment/vllm-llama-70b",
            "modelName": "llama-3.1-70b-instruct",
            "ttftSloSeconds": "2",
            "tpotSloSeconds": "0.08",
            "sloAttainmentTarget": "0.99",
            "role": "prefill",
            "profile": "chat",
            "wakeWhenBlind": "true",
            "gpuUtilTargetRatio": "0.8",
        },
        CONFIG,
    )
    assert (made.kind, made.name) == ("deployment", "vllm-llama-70b")
    assert (made.model_name, made.profile) == ("llama-3.1-70b-instruct", "chat")
    assert dataclasses.astuple(made.policy.slo) == (2.0, 0.08, 0.99)
    assert made.policy.role is Role.PREFILL
    assert made.policy.freshness.wake_when_blind is True
    assert made.policy.signals.gpu_util_target_ratio == 0.8


def test_every_tunable_setting_may_be_given_as_metadata() -> None:
    given = {item.path for item in metadata_settings().values()}
    assert {item.path for item in tunable(PolicyConfig())} <= given


@pytest.mark.parametrize("key", sorted(metadata_settings()))
def test_each_key_takes_its_default_as_text_and_changes_nothing_else(key: str) -> None:
    item = metadata_settings()[key]
    value = item.default
    text = str(value).lower() if isinstance(value, bool) else str(value)
    assert parse({key: f" {text} "}, ScalerConfig()).policy == PolicyConfig()


def test_operators_settings_and_those_of_triggers_are_all_there_are() -> None:
    given = {item.path for item in metadata_settings().values()}
    kept = set(operators_settings().values())
    assert given | kept == {item.path for item in declared(PolicyConfig())}
    assert not given & kept
    assert set(DAEMON_WIDE) <= kept
    assert {"mode", "bounds.replicas_min", "bounds.replicas_max"} <= kept


@pytest.mark.parametrize("key", sorted(operators_settings()))
def test_the_operators_settings_are_refused_and_said_to_be_his(key: str) -> None:
    path = operators_settings()[key]
    assert the_fault(**{key: "1"}) == f"{key} = '1', must be set by the operator: policy.{path}"


def test_every_fault_at_once_each_with_key_value_and_range() -> None:
    found = faults(
        ttftSloSeconds="0",
        sloAttainmentTarget="ninety",
        role="both",
        wakeWhenBlind="perhaps",
        freshnessFloorReplicas="1.5",
        ttftSlo="1",
        target="pod/a",
        profile="chat-70b",
        modelName="m" * (VALUE_CHARS_MAX + 1),
    )
    kinds = "deployment, statefulset, leaderworkerset, raycluster"
    assert set(found) == {
        "ttftSloSeconds = '0', must be a number in [0.01, 600]",
        "sloAttainmentTarget = 'ninety', must be a number in [0.5, 0.9999]",
        "role = 'both', must be one of mixed, prefill, decode",
        "wakeWhenBlind = 'perhaps', must be true or false",
        "freshnessFloorReplicas = '1.5', must be a whole number in [0, 10000]",
        "unknown key 'ttftSlo'; did you mean 'ttftSloSeconds'?",
        f"target = 'pod/a', must be KIND/NAME with KIND one of {kinds}",
        "profile = 'chat-70b', must be one of: chat",
        f"modelName is longer than {VALUE_CHARS_MAX} characters",
    }


@pytest.mark.parametrize("value", ["", " ", "nan", "inf", "-inf", "1e999", "0x1", "2s", "1,5", "²"])
def test_what_is_no_number_in_range_is_refused(value: str) -> None:
    assert the_fault(ttftSloSeconds=value).startswith(f"ttftSloSeconds = {value!r}, must be a")


@pytest.mark.parametrize(
    "target",
    [
        "deployment",
        "deployment/",
        "/a",
        "deployment/a/b",
        "deployment/..",
        "deployment/a?watch=1",
        "deployment/a b",
        "deployment/A",
        'deployment/a"} or up{x="',
        "deployment/a\n",
        "deployment/" + "a" * 254,
        "replicaset/a",
    ],
)
def test_a_target_that_is_no_name_of_kubernetes_is_refused(target: str) -> None:
    assert the_fault(target=target).startswith(f"target = {target!r}, must be KIND/NAME")


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("Deployment/a.b-1", "deployment"),
        ("StatefulSet/a", "statefulset"),
        ("leaderworkerset/a", "leaderworkerset"),
        ("RayCluster/a", "raycluster"),
    ],
)
def test_kinds_are_known_in_any_case(target: str, kind: str) -> None:
    assert parse({"target": target}, CONFIG).kind == kind


@pytest.mark.parametrize(
    "key", ["query", "gatewayQuery", "promql", "serverAddress", "gateway_query"]
)
def test_no_key_gives_a_query(key: str) -> None:
    assert the_fault(**{key: "up"}).startswith(f"unknown key {key!r}")


def test_hostile_values_stay_values() -> None:
    name = 'm"} or vector(1) #\x00\u202e'
    assert parse({"modelName": name}, CONFIG).model_name == name  # escaped where a query is made


def test_kedas_keys_and_those_from_the_environment() -> None:
    metadata = {
        **dict.fromkeys(KEDA_KEYS, "x"),
        "scalerAddressFromEnv": "ADDRESS",
        "modelNameFromEnv": "from the environment",
        "ttftSloSeconds": "3",
        "ttftSloSecondsFromEnv": "9",
    }
    assert relevant(metadata) == (
        ("modelName", "from the environment"),
        ("ttftSloSeconds", "3"),
    )
    assert parse(metadata, CONFIG).policy.slo.ttft_s == 3.0


def test_the_relevant_part_does_not_depend_on_order() -> None:
    pairs = [("role", "decode"), ("modelName", "m"), ("scalerAddress", "x")]
    assert relevant(dict(pairs)) == relevant(dict(reversed(pairs)))
    assert relevant({}) == ()
