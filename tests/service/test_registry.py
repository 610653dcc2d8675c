"""Which triggers there are, where from, for how long, and under which settings."""

from typing import Any

import pytest

from scaler.config import ScalerConfig, from_tree
from scaler.core.model import Mode
from scaler.core.policy import PolicyState
from scaler.service import registry as module
from scaler.service.board import TriggerKey
from scaler.service.registry import NO_TARGET, Origin, Registry, entry_id, state_name
from tests.service.fakes import NAMESPACE, START_S, MemoryCluster, key, scaled

FORGET_S = ScalerConfig().state.forget_after_s  # 600


def registry_of(*facts: Any, **settings: Any) -> Registry:
    return Registry(from_tree(settings), MemoryCluster(facts=list(facts)))


def memory(registry: Registry) -> MemoryCluster:
    assert isinstance(registry.cluster, MemoryCluster)
    return registry.cluster


def state(count: int) -> PolicyState:
    return PolicyState(last_count=count, good_at_s=START_S)


# Origins.


def test_triggers_come_from_the_watch_the_configuration_and_calls() -> None:
    registry = registry_of(scaled("chat"), targets=[{"namespace": "b", "target": "deployment/a"}])
    registry.admit(key("called", target="deployment/x"))
    assert registry.refresh(START_S) == ()
    found = {known.name: entry.origin for known, entry in registry.entries.items()}
    assert found == {"chat": "watch", "deployment.a": "config", "called": "call"}
    assert {target.key for target in memory(registry).followed} == {
        "llm/deployment/chat", "b/deployment/a", "llm/deployment/x",
    }  # fmt: skip


def test_a_call_and_the_watch_of_one_trigger_are_one_entry() -> None:
    registry = registry_of()
    registry.admit(key("chat", ttftSloSeconds="3"))
    registry.refresh(START_S)
    entry = registry.entries[key("chat", ttftSloSeconds="3")]
    assert list(entry.faults) == [NO_TARGET]
    metadata = {"scalerAddress": "x:9090", "ttftSloSeconds": "3"}
    memory(registry).facts.append(scaled("chat", metadata=metadata))
    registry.refresh(START_S + 1.0)
    assert registry.entries == {key("chat", ttftSloSeconds="3"): entry}
    assert entry.origin is Origin.WATCH
    assert not entry.faults
    assert entry.target is not None
    assert entry.target.key == "llm/deployment/chat"
    assert entry.policy.slo.ttft_s == 3.0


def test_a_target_of_the_configuration_known_from_a_call_takes_the_configured_mode() -> None:
    registry = registry_of()
    registry.admit(key("deployment.a", target="deployment/a"))
    registry.refresh(START_S)
    (entry,) = registry.entries.values()
    assert entry.policy.mode.value == "active"
    target = {"namespace": NAMESPACE, "target": "deployment/a", "mode": "advisory"}
    registry.reconfigure(from_tree({"targets": [target]}))
    registry.refresh(START_S + FORGET_S + 1.0)  # the configuration keeps it, no call does
    assert registry.entries[entry.key] is entry
    assert (entry.origin, entry.policy.mode) == (Origin.CONFIG, Mode.ADVISORY)
    registry.reconfigure(ScalerConfig())
    assert entry.policy.mode is Mode.ADVISORY  # till it is forgotten: it does not begin to act
    assert registry.refresh(START_S + 3 * FORGET_S) == (entry.key,)


def test_two_triggers_of_one_object_do_not_mix() -> None:
    registry = registry_of(
        scaled("chat", metadata={"role": "prefill"}), scaled("chat", metadata={"role": "decode"})
    )
    registry.refresh(START_S)
    prefill, decode = (registry.entries[key("chat", role=role)] for role in ("prefill", "decode"))
    assert prefill.policy.role.value == "prefill"
    assert decode.policy.role.value == "decode"
    assert prefill.tracker is not decode.tracker
    assert prefill.hash != decode.hash
    assert prefill.id != decode.id
    prefill.state = state(7)
    assert registry.states()[state_name(decode.key)] == PolicyState()


def test_ids_are_the_same_in_every_process() -> None:
    assert entry_id(key("chat")) == entry_id(key("other"))  # of the metadata alone
    assert entry_id(TriggerKey(namespace="a", name="b", metadata=())) == "2e38e77b"  # sha256(b"()")


def test_a_trigger_without_target_and_without_object_says_what_to_set() -> None:
    registry = Registry(ScalerConfig(), None)
    registry.admit(key("chat"))
    registry.refresh(START_S)
    assert registry.entries[key("chat")].faults == (NO_TARGET,)
    assert registry.entries[key("chat")].label == "unknown"


def test_faulty_metadata_of_the_watch_are_faults_of_that_entry_alone() -> None:
    registry = registry_of(scaled("bad", metadata={"ttftSloSeconds": "x"}), scaled("good"))
    registry.refresh(START_S)
    bad = registry.entries[key("bad", ttftSloSeconds="x")]
    assert bad.faults == ("ttftSloSeconds = 'x', must be a number in [0.01, 600]",)
    assert bad.target is None
    assert registry.entries[key("good")].faults == ()


# Ends.


def test_state_is_forgotten_ten_minutes_after_the_object_is_deleted() -> None:
    registry = registry_of(scaled("chat"))
    registry.refresh(START_S)
    memory(registry).facts.clear()
    assert registry.refresh(START_S + FORGET_S) == ()
    assert registry.refresh(START_S + FORGET_S + 0.1) == (key("chat"),)
    assert registry.entries == {}
    assert registry.states() == {}


def test_an_object_that_comes_back_in_time_finds_its_state() -> None:
    registry = registry_of(scaled("chat"))
    registry.refresh(START_S)
    registry.entries[key("chat")].state = state(7)
    memory(registry).facts.clear()
    registry.refresh(START_S + FORGET_S / 2)
    memory(registry).facts.append(scaled("chat"))
    registry.refresh(START_S + FORGET_S)
    registry.refresh(START_S + 2 * FORGET_S)
    assert registry.entries[key("chat")].state == state(7)


def test_calls_keep_alive_what_only_calls_know() -> None:
    registry = Registry(ScalerConfig(), None)
    keys = [key("a", target="deployment/a"), key("b", target="deployment/b")]
    for one in keys:
        registry.admit(one)
    registry.refresh(START_S)
    registry.asked([keys[0]], START_S + 400.0)
    assert registry.refresh(START_S + 700.0) == (keys[1],)  # 300 s ago against 700 s ago
    assert set(registry.entries) == {keys[0]}


def test_a_key_answered_from_another_daemons_snapshot_is_admitted_when_asked() -> None:
    """After a failover the board knows keys that this registry has never seen."""
    registry = Registry(ScalerConfig(), None)
    registry.asked([key("a", target="deployment/a")], START_S)
    registry.refresh(START_S)
    assert set(registry.entries) == {key("a", target="deployment/a")}


def test_a_change_of_metadata_takes_effect_as_a_new_trigger() -> None:
    registry = registry_of(scaled("chat", metadata={"ttftSloSeconds": "2"}))
    registry.refresh(START_S)
    memory(registry).facts[:] = [scaled("chat", metadata={"ttftSloSeconds": "4"})]
    registry.refresh(START_S + 15.0)
    assert registry.entries[key("chat", ttftSloSeconds="4")].policy.slo.ttft_s == 4.0
    assert registry.refresh(START_S + FORGET_S + 1.0) == (key("chat", ttftSloSeconds="2"),)


# Bounds.


def test_a_flood_of_calls_is_bounded_and_leaves_room_for_the_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CALL_ENTRIES_MAX", 20)
    monkeypatch.setattr(module, "ENTRIES_MAX", 22)
    registry = registry_of(scaled("one"))
    for tick in range(5):
        for number in range(50):
            registry.admit(key(f"flood-{tick}-{number}", target="deployment/x"))
        registry.refresh(START_S + tick)
    assert len(registry.entries) == 21  # 20 from calls, and the watched one
    memory(registry).facts += [scaled("two"), scaled("three")]
    registry.refresh(START_S + 5.0)  # one too many: no error, and the others stay
    assert len(registry.entries) == 22
    assert key("two") in registry.entries
    assert key("three") not in registry.entries
    registry.refresh(START_S + FORGET_S + 60.0)  # the flood is over: there is room from now on
    registry.refresh(START_S + FORGET_S + 61.0)
    assert set(registry.entries) == {key("one"), key("two"), key("three")}


def test_keys_that_wait_are_bounded_between_two_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_ENTRIES_MAX", 20)
    registry = Registry(ScalerConfig(), None)
    for number in range(100):
        registry.admit(key(f"flood-{number}"))
    assert len(registry._waiting) == 20


# Saved states.


def test_saved_states_are_adopted_by_present_and_by_later_entries() -> None:
    registry = registry_of(scaled("now"))
    registry.refresh(START_S)
    names = {name: state_name(key(name)) for name in ("now", "later")}
    registry.adopt({names["now"]: state(3), names["later"]: state(5)})
    assert registry.entries[key("now")].state == state(3)
    memory(registry).facts.append(scaled("later"))
    registry.refresh(START_S + 15.0)
    assert registry.entries[key("later")].state == state(5)
    assert registry.states() == {names["now"]: state(3), names["later"]: state(5)}


def test_states_not_claimed_yet_are_saved_again_and_forgotten_in_time() -> None:
    """A daemon that restarts while the API is away must not write an empty checkpoint."""
    registry = registry_of()
    name = state_name(key("chat"))
    registry.adopt({name: state(5)})
    registry.refresh(START_S)
    assert registry.states() == {name: state(5)}
    registry.refresh(START_S + FORGET_S)
    assert registry.states() == {name: state(5)}
    registry.refresh(START_S + FORGET_S + 1.0)
    assert registry.states() == {}


def test_what_was_adopted_once_does_not_come_back_after_the_object_was_forgotten() -> None:
    registry = registry_of(scaled("chat"))
    registry.adopt({state_name(key("chat")): state(5)})
    registry.refresh(START_S)
    memory(registry).facts.clear()
    registry.refresh(START_S + FORGET_S + 1.0)
    memory(registry).facts.append(scaled("chat"))
    registry.refresh(START_S + FORGET_S + 2.0)
    assert registry.entries[key("chat")].state == PolicyState()


# Settings.


def test_new_settings_keep_what_was_learned_and_the_samples() -> None:
    registry = registry_of(scaled("chat"))
    registry.refresh(START_S)
    entry = registry.entries[key("chat")]
    entry.state, tracker, before = state(7), entry.tracker, entry.hash
    changed = {"slo": {"ttft_s": 9}, "freshness": {"stale_after_s": 99}}
    registry.reconfigure(from_tree({"policy": changed}))
    assert entry.policy.slo.ttft_s == 9.0
    assert entry.hash != before
    assert entry.state == state(7)
    assert entry.tracker is tracker
    assert tracker.settings.stale_after_s == 99.0


def test_a_profile_that_is_taken_away_leaves_a_fault_and_its_return_mends_it() -> None:
    profiles = {"p": {"policy": {"slo.ttft_s": 1}, "gateway_query": "sum(requests)"}}
    registry = registry_of(scaled("chat", metadata={"profile": "p"}), profiles=profiles)
    registry.refresh(START_S)
    entry = registry.entries[key("chat", profile="p")]
    entry.state = state(7)
    assert entry.target is not None
    assert entry.target.gateway_query == "sum(requests)"
    registry.reconfigure(ScalerConfig())
    assert list(entry.faults) == ["profile = 'p', must be one of: none are configured"]
    assert not any((entry.target, entry.decision, entry.basis))
    registry.reconfigure(from_tree({"profiles": profiles}))
    assert not entry.faults
    assert entry.policy.slo.ttft_s == 1.0
    assert entry.state == state(7)


def test_a_gateways_query_comes_from_the_profile_alone() -> None:
    profiles = {"p": {"gateway_query": "sum(requests)"}}
    registry = registry_of(scaled("with", metadata={"profile": "p"}), scaled("without"),
                           profiles=profiles)  # fmt: skip
    registry.refresh(START_S)
    queries = {one.key.name: one.target.gateway_query
               for one in registry.entries.values() if one.target}  # fmt: skip
    assert queries == {"with": "sum(requests)", "without": ""}


def test_fixed_pods_come_from_the_configuration() -> None:
    pods = [{"name": "a-0", "host": "10.0.0.1", "port": 8001}, {"name": "a-1", "host": "b"}]
    target = {"namespace": "x", "target": "deployment/a", "pods": pods}
    registry = Registry(from_tree({"targets": [target, {"target": "deployment/b"}]}), None)
    registry.refresh(START_S)
    first, second = registry.entries.values()
    assert first.target is not None
    assert second.target is not None
    assert [(pod.name, pod.address, pod.port) for pod in first.target.pods or ()] == [
        ("a-0", "10.0.0.1", 8001),
        ("a-1", "b", 8000),
    ]
    assert second.target.pods is None


@pytest.mark.parametrize(
    ("minor", "own", "applied"),
    [
        (34, 0.0, 0.1),  # the field is dropped: the feature gate is off before 1.35
        (35, 0.0, 0.0),
        (35, 0.25, 0.25),
        (35, None, 0.1),  # the ScaledObject leaves it to the cluster
        (None, 0.0, 0.1),  # version unknown: the oldest supported one is assumed
    ],
)
def test_the_hpas_tolerance_is_what_the_cluster_applies(
    minor: int | None, own: float | None, applied: float
) -> None:
    facts = scaled(
        "chat", kubernetes_minor=minor, tolerance_up_ratio=own, tolerance_down_ratio=None
    )
    registry = registry_of(facts)
    registry.refresh(START_S)
    hpa = registry.entries[key("chat")].policy.hpa
    assert (hpa.tolerance_up_ratio, hpa.tolerance_down_ratio) == (applied, 0.1)
    assert hpa.kubernetes_minor == (minor or ScalerConfig().policy.hpa.kubernetes_minor)


def test_an_annotated_target_is_advisory() -> None:
    facts = scaled(
        "deployment.a", uid="", advisory=True, metadata={"target": "deployment/a"}, target_name="a",
        replicas_min=None, replicas_max=None,
    )  # fmt: skip
    registry = registry_of(facts)
    registry.refresh(START_S)
    assert registry.entries[key("deployment.a", target="deployment/a")].policy.mode is Mode.ADVISORY


def test_a_freeze_holds_every_trigger_of_its_target_and_ends_by_itself() -> None:
    freeze = {"namespace": NAMESPACE, "target": "Deployment/chat", "mode": "frozen",
              "frozen_until": "2027-01-15T09:00:00+01:00"}  # fmt: skip
    until_s = 1_800_000_000.0  # 2027-01-15T08:00:00Z
    registry = registry_of(scaled("chat"), scaled("other"), targets=[freeze])

    def modes(now_s: float) -> list[Mode]:
        registry.refresh(now_s)
        registry.thaw(now_s)
        return [registry.entries[key(name)].policy.mode for name in ("chat", "other")]

    assert modes(until_s - 60.0) == [Mode.FROZEN, Mode.ACTIVE]
    frozen_hash = registry.entries[key("chat")].hash
    memory(registry).facts[0] = scaled("chat", replicas_max=30)  # a change does not thaw it
    assert modes(until_s - 1.0) == [Mode.FROZEN, Mode.ACTIVE]
    assert modes(until_s) == [Mode.ACTIVE, Mode.ACTIVE]
    assert registry.entries[key("chat")].hash != frozen_hash
    memory(registry).facts[0] = scaled("chat", replicas_max=40)  # nor freezes it again
    assert modes(until_s + 1.0) == [Mode.ACTIVE, Mode.ACTIVE]


def test_a_freeze_without_an_end_lasts_until_it_is_taken_out() -> None:
    freeze = {"namespace": NAMESPACE, "target": "deployment/chat", "mode": "frozen"}
    registry = registry_of(scaled("chat"), targets=[freeze])
    registry.refresh(START_S)
    registry.thaw(START_S + 1e9)
    assert registry.entries[key("chat")].policy.mode is Mode.FROZEN
    registry.reconfigure(ScalerConfig())
    assert registry.entries[key("chat")].policy.mode is Mode.ACTIVE
