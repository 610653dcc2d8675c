"""From JSON to records and from pods to replicas: the cases that need no server."""

import copy
import json
import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from scaler.demo.kube_objects import (
    LWS,
    PodState,
    PodTimes,
    deployment,
    leader_worker_set,
    pod,
    scaled_object,
)
from scaler.signals.kube.membership import Membership
from scaler.signals.kube.parse import (
    PodConventions,
    node_record,
    pod_record,
    quantity,
    seconds,
    workload_record,
)
from scaler.signals.kube.records import (
    FallbackBehavior,
    Paused,
    PodRecord,
    Requirement,
    Selector,
)
from scaler.signals.kube.replicas import Phase, groups_of, phase_of, start_up_s
from scaler.signals.kube.scaledobjects import host_of, is_ours, scaled_object_record
from scaler.signals.kube.selectors import matches, parse_selector, selector_of
from scaler.signals.kube.wire import LabelSelector

NOW_S = 1_800_000_000.0
TIMES = PodTimes(created_at_s=NOW_S, ready_at_s=NOW_S + 100.0)
PLAIN = PodConventions()


def record(made: dict[str, Any]) -> PodRecord:
    found = pod_record(json.dumps(made).encode(), PLAIN)
    assert found is not None
    return found


def a_pod(state: PodState = PodState.READY, **changes: Any) -> dict[str, Any]:
    return pod("ml", "llama-0", app="llama", times=TIMES, state=state, **changes)


def test_a_pod_is_read() -> None:
    found = record(a_pod(address="10.1.2.3", gpus=4, port=9000))
    assert (found.namespace, found.name, found.node) == ("ml", "llama-0", "gpu-1")
    assert (found.address, found.port, found.gpus) == ("10.1.2.3", 9000, 4)
    assert (found.created_at_s, found.scheduled_at_s, found.ready_at_s) == (
        NOW_S,
        NOW_S + 1.0,
        NOW_S + 100.0,
    )
    assert dict(found.labels)["app"] == "llama"
    assert not (found.stuck)
    assert not (found.deleting)
    assert not (found.lost_ready)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_ended_pods_are_no_replicas(phase: str) -> None:
    made = a_pod()
    made["status"]["phase"] = phase
    assert pod_record(json.dumps(made).encode(), PLAIN) is None


@pytest.mark.parametrize("owner", ["DaemonSet", "Job", "Node"])
def test_pods_of_other_controllers_are_no_replicas(owner: str) -> None:
    made = a_pod()
    made["metadata"]["ownerReferences"][0]["kind"] = owner
    assert pod_record(json.dumps(made).encode(), PLAIN) is None


@pytest.mark.parametrize(
    ("containers", "port"),
    [
        ([{"ports": [{"name": "http", "containerPort": 8080}]}], 8080),
        ([{"ports": [{"name": "metrics", "containerPort": 9090}]}], 9090),
        (
            [
                {
                    "ports": [
                        {"name": "metrics", "containerPort": 1},
                        {"name": "http", "containerPort": 2},
                    ]
                }
            ],
            2,
        ),
        ([{"ports": [{"containerPort": 8000}]}], 8000),
        ([{}], 8000),
        (  # a sidecar does not win against the container that has the GPU
            [
                {"ports": [{"name": "http", "containerPort": 80}]},
                {
                    "ports": [{"containerPort": 8000}],
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                },
            ],
            8000,
        ),
        ([{"ports": None, "resources": {"limits": None}}], 8000),
    ],
)
def test_the_port_of_vllm(containers: list[dict[str, Any]], port: int) -> None:
    made = a_pod()
    made["spec"]["containers"] = containers
    assert record(made).port == port


@pytest.mark.parametrize(
    ("limits", "gpus"),
    [
        ({"nvidia.com/gpu": "8"}, 8),
        ({"nvidia.com/gpu": 8}, 8),
        ({"nvidia.com/mig-3g.40gb": "1", "nvidia.com/mig-1g.10gb": "2"}, 3),
        ({"nvidia.com/gpu.shared": "1"}, 1),
        ({"amd.com/gpu": "8", "cpu": "500m", "memory": "64Gi"}, 0),
        (None, 0),
    ],
)
def test_gpus_are_counted_by_resource(limits: dict[str, Any] | None, gpus: int) -> None:
    made = a_pod()
    made["spec"]["containers"] = [{"resources": {"limits": limits}}]
    assert record(made).gpus == gpus


def with_status(restarts: int, state: dict[str, Any], unready_after_start_s: float) -> PodRecord:
    """A pod that is not ready; its container started at NOW_S + 50."""
    made = a_pod(PodState.LOADING)
    started = "2027-01-15T08:00:50Z"
    status = {"name": "vllm", "restartCount": restarts, "state": state}
    made["status"]["containerStatuses"] = [status]
    unready_at_s = 50 + unready_after_start_s
    made["status"]["conditions"][1]["lastTransitionTime"] = (
        f"2027-01-15T08:00:{unready_at_s:02.0f}Z"
    )
    if state == {"running": {}}:
        status["state"] = {"running": {"startedAt": started}}
    return record(made)


@pytest.mark.parametrize(
    ("restarts", "state", "unready_after_start_s", "stuck"),
    [
        (0, {"waiting": {"reason": "CrashLoopBackOff"}}, 0, True),
        (0, {"waiting": {"reason": "ImagePullBackOff"}}, 0, True),
        (0, {"waiting": {"reason": "ContainerCreating"}}, 0, False),
        (1, {"running": {}}, -30, False),  # one restart may be an accident
        (2, {"running": {}}, -30, True),  # loading for the third time
        (2, {"running": {}}, 9, False),  # it was ready after its last start: a failed probe
        (2, {"terminated": {"reason": "Error"}}, -30, True),  # between two starts
        (0, {"running": {}}, -30, False),  # loading
    ],
)
def test_what_is_stuck(
    restarts: int, state: dict[str, Any], unready_after_start_s: float, stuck: bool
) -> None:
    assert with_status(restarts, state, unready_after_start_s).stuck is stuck


def test_losing_readiness_is_told_from_never_having_had_it() -> None:
    assert with_status(0, {"running": {}}, 9).lost_ready
    assert not with_status(0, {"running": {}}, -30).lost_ready


def test_an_init_container_in_a_crash_loop_holds_its_pod() -> None:
    made = a_pod(PodState.LOADING)
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    made["status"]["initContainerStatuses"] = [{"name": "download", "state": state}]
    assert record(made).stuck


def test_workloads_are_read_with_the_apis_defaults() -> None:
    made = deployment("ml", "llama", gpus=2, node_selector={"nvidia.com/gpu.product": "L4"})
    del made["spec"]["replicas"], made["status"]
    found = workload_record(json.dumps(made).encode(), "deployment", PLAIN)
    assert found is not None
    assert (found.wanted, found.current) == (1, 0)  # replicas defaults to 1
    assert (found.gpus_per_replica, found.group_size) == (2, 1)
    assert found.node_gpu_product == "L4"
    made["spec"]["replicas"] = 0
    zero = workload_record(json.dumps(made).encode(), "deployment", PLAIN)
    assert zero is not None
    assert zero.wanted == 0


def test_a_group_counts_the_gpus_of_its_leader_and_its_workers() -> None:
    made = leader_worker_set("ml", "big", size=4, gpus=8)
    found = workload_record(json.dumps(made).encode(), "leaderworkerset", PLAIN)
    assert found is not None
    assert (found.group_size, found.gpus_per_replica) == (4, 32)  # 4 * 8
    leader = copy.deepcopy(made["spec"]["leaderWorkerTemplate"]["workerTemplate"])
    leader["spec"]["containers"][0]["resources"] = {}
    made["spec"]["leaderWorkerTemplate"]["leaderTemplate"] = leader
    apart = workload_record(json.dumps(made).encode(), "leaderworkerset", PLAIN)
    assert apart is not None
    assert apart.gpus_per_replica == 24  # 0 + 3 * 8


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"[]",
        b'{"metadata": []}',
        b'{"metadata": {"name": 3}}',
        b'{"status": {"phase": {}}}',
        b'{"metadata": {"creationTimestamp": "yesterday"}}',
        b'{"metadata": {}}',  # without a creation time there is no age
        b"\xff\xfe",
    ],
)
def test_what_is_no_pod_is_refused(broken: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError)):
        pod_record(broken, PLAIN)


def test_a_node_without_its_device_plugin_has_no_gpus() -> None:
    found = node_record(
        b'{"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "4"}}}', PLAIN
    )
    assert (found.gpus_allocatable, found.gpu_product, found.schedulable) == (0, "", False)


def test_quantities_and_times() -> None:
    assert [quantity(one) for one in ("50m", "0.05", 3, "8", "0")] == [0.05, 0.05, 3.0, 8.0, 0.0]
    with pytest.raises(ValueError, match="could not convert"):
        quantity("many")
    assert seconds("2027-01-15T08:00:00Z") == NOW_S
    assert seconds("2027-01-15T09:00:00.5+01:00") == NOW_S + 0.5


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("vllm-scaler.ns.svc:9090", "vllm-scaler.ns.svc"),
        ("vllm-scaler", "vllm-scaler"),
        ("dns:///vllm-scaler.ns:9090", "vllm-scaler.ns"),
        ("passthrough:///vllm-scaler:9090", "vllm-scaler"),
        ("[fd00::1]:9090", "fd00::1"),
        ("", ""),
    ],
)
def test_the_host_of_an_address(address: str, host: str) -> None:
    assert host_of(address) == host


@pytest.mark.parametrize(
    ("names", "address", "ours"),
    [
        (("vllm-scaler",), "vllm-scaler.a.svc.cluster.local:9090", True),
        (("vllm-scaler",), "vllm-scaler-b.a:9090", False),
        (("vllm-scaler",), "", False),
        (("vllm-scaler.a",), "vllm-scaler.a.svc:9090", True),
        (("vllm-scaler.a",), "vllm-scaler.ab.svc:9090", False),
        (("one", "two"), "two:1", True),
        ((), "anything:1", True),
    ],
)
def test_which_triggers_are_ours(names: tuple[str, ...], address: str, ours: bool) -> None:
    metadata = {"scalerAddress": address}
    assert is_ours("external", metadata, names) is ours
    assert is_ours("external-push", metadata, names) is ours
    assert not is_ours("prometheus", metadata, names)


@pytest.mark.parametrize(
    ("annotations", "paused"),
    [
        ({}, Paused()),
        ({"paused": "true"}, Paused(fully=True)),
        ({"paused": "false"}, Paused()),
        ({"paused-replicas": "3"}, Paused(fully=True, at_replicas=3)),
        ({"paused-replicas": "0"}, Paused(fully=True, at_replicas=0)),
        ({"paused-scale-out": "true"}, Paused(scale_out=True)),
    ],
)
def test_paused_annotations(annotations: dict[str, str], paused: Paused) -> None:
    full = {f"autoscaling.keda.sh/{name}": value for name, value in annotations.items()}
    made = scaled_object("ml", "chat", target="llama", annotations=full)
    found = scaled_object_record(json.dumps(made).encode(), ("vllm-scaler",))
    assert found.triggers[0].paused == paused


def test_a_fallback_of_a_newer_keda_is_kept_as_other() -> None:
    spec = {"fallback": {"failureThreshold": 3, "replicas": 2, "behavior": "scalingModifiers"}}
    made = scaled_object("ml", "chat", target="llama", spec=spec)
    found = scaled_object_record(json.dumps(made).encode(), ())
    fallback = found.triggers[0].fallback
    assert fallback is not None
    assert fallback.behavior is FallbackBehavior.OTHER


@pytest.mark.parametrize(
    ("tolerance", "ratio"),
    [
        ("50m", 0.05), ("0", 0.0), (0.2, 0.2),
        ("abc", None), ("", None), ("NaN", None), ("inf", None), ("1e999", None), ("-3", None),
    ],
)  # fmt: skip
def test_a_tolerance_no_hpa_takes_is_that_of_the_cluster(
    tolerance: str | float, ratio: float | None
) -> None:
    behavior = {"scaleUp": {"tolerance": tolerance}, "scaleDown": {"tolerance": "0"}}
    spec = {"advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}}}
    made = scaled_object("ml", "chat", target="llama", spec=spec)
    (trigger,) = scaled_object_record(json.dumps(made).encode(), ()).triggers
    assert (trigger.tolerance_up_ratio, trigger.tolerance_down_ratio) == (ratio, 0.0)


def test_a_malformed_target_falls_back_to_the_scale_target() -> None:
    made = scaled_object("ml", "chat", target="llama", metadata={"target": "deployment"})
    found = scaled_object_record(json.dumps(made).encode(), ())
    assert found.triggers[0].target == found.scale_target


@pytest.mark.parametrize(
    ("text", "labels", "selected"),
    [
        ("app=llama", {"app": "llama"}, True),
        ("app=llama,tier=gpu", {"app": "llama"}, False),
        ("app==llama", {"app": "llama"}, True),
        ("app!=llama", {"app": "qwen"}, True),
        ("app!=llama", {}, True),
        ("app!=llama", {"app": "llama"}, False),
        ("app in (llama, qwen),!canary", {"app": "qwen"}, True),
        ("app in (llama, qwen),!canary", {"app": "qwen", "canary": ""}, False),
        ("app notin (llama)", {"app": "qwen"}, True),
        ("app", {"app": ""}, True),
        ("app", {}, False),
        ("app=", {"app": ""}, True),
        ("", {"app": "llama"}, False),  # an empty selector claims nothing
    ],
)
def test_selectors(text: str, labels: dict[str, str], selected: bool) -> None:
    assert matches(parse_selector(text), labels) is selected


@pytest.mark.parametrize("text", ["app like x", "!(", "a=b=c d", "in (x)y"])
def test_selectors_that_are_not_understood_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not understood"):
        parse_selector(text)


def test_the_two_forms_of_a_selector_agree() -> None:
    form = {
        "matchLabels": {"app": "llama"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a"]},
            {"key": "canary", "operator": "DoesNotExist"},
        ],
    }
    decoded = msgspec.json.decode(json.dumps(form), type=LabelSelector)
    assert selector_of(decoded) == parse_selector("app=llama,tier in (a,b),!canary")


def test_an_operator_of_the_future_selects_nothing() -> None:
    unknown = Requirement(key="app", operator="resembles", values=("llama",))
    assert not matches(Selector(equal=(), requirements=(unknown,)), {"app": "llama"})


def test_membership_is_the_same_by_steps_and_at_once() -> None:
    """Random pods come, change labels and go; a rebuild from scratch must agree at the end."""
    chance = random.Random(5)  # noqa: S311 - test data
    base = record(a_pod())
    selectors = {
        "a": ("ml", parse_selector("app=a")),
        "ab": ("ml", parse_selector("app in (a,b)")),
        "a-x": ("ml", parse_selector("app=a,tier=x")),
        "elsewhere": ("other", parse_selector("app=a")),
    }
    by_steps, pods = Membership(), {}
    by_steps.select(selectors, ())
    for _ in range(500):
        name = f"p-{chance.randrange(20)}"
        labels = (("app", chance.choice("abc")), ("tier", chance.choice("xy")))
        new = replace(base, name=name, labels=labels) if chance.random() < 0.7 else None
        old = pods.pop(name, None)
        if new is not None:
            pods[name] = new
        touched = by_steps.replace(old, new)
        assert ("a" in touched) == any(
            one is not None and dict(one.labels)["app"] == "a" for one in (old, new)
        )
    at_once = Membership()
    at_once.select(selectors, pods.values())
    for key in selectors:
        assert by_steps.pods(key) == at_once.pods(key)
    expected = {name for name, one in pods.items() if dict(one.labels)["app"] in "ab"}
    assert set(by_steps.pods("ab")) == expected
    assert not by_steps.pods("elsewhere")
    assert not by_steps.pods("unknown")


def group_of(*members: PodRecord, size: int) -> Phase:
    made = leader_worker_set("ml", "big", size=size)
    workload = workload_record(json.dumps(made).encode(), "leaderworkerset", PLAIN)
    assert workload is not None
    (group,) = groups_of(workload, members)
    return phase_of(group, NOW_S + 200.0)


def member(index: int, state: PodState = PodState.READY, **changes: Any) -> PodRecord:
    labels = {f"{LWS}/group-index": "0", f"{LWS}/worker-index": str(index)}
    made = pod("ml", f"big-0-{index}", app="", times=TIMES, state=state, labels=labels, **changes)
    return record(made)


@pytest.mark.parametrize(
    ("states", "phase"),
    [
        ((PodState.READY, PodState.READY), Phase.READY),
        ((PodState.READY,), Phase.STARTING),  # the worker is not made yet
        ((PodState.READY, PodState.LOADING), Phase.STARTING),
        ((PodState.READY, PodState.UNSCHEDULABLE), Phase.UNSCHEDULABLE),
        ((PodState.READY, PodState.CRASH_LOOP), Phase.STUCK),
        ((PodState.CRASH_LOOP, PodState.UNSCHEDULABLE), Phase.STUCK),
        ((PodState.READY, PodState.TERMINATING), Phase.TERMINATING),
    ],
)
def test_the_phase_of_a_group(states: tuple[PodState, ...], phase: Phase) -> None:
    members = [member(index, state) for index, state in enumerate(states)]
    assert group_of(*members, size=2) is phase


def test_the_leader_is_the_worker_with_the_lowest_index_whatever_the_names() -> None:
    made = leader_worker_set("ml", "big", size=12)
    workload = workload_record(json.dumps(made).encode(), "leaderworkerset", PLAIN)
    assert workload is not None
    (group,) = groups_of(workload, [member(index) for index in (10, 2, 0, 11)])
    assert [one.name for one in group.pods] == ["big-0-0", "big-0-2", "big-0-10", "big-0-11"]


def test_a_start_up_is_measured_from_creation() -> None:
    workload = workload_record(json.dumps(deployment("ml", "llama")).encode(), "deployment", PLAIN)
    assert workload is not None

    def took_s(**changes: Any) -> float | None:
        (group,) = groups_of(workload, [replace(record(a_pod()), **changes)])
        return start_up_s(group)

    assert took_s() == 100.0
    assert took_s(scheduled_at_s=NOW_S + 60.0) == 100.0  # waiting for a new node is part of it
    late_s = NOW_S + 901.0
    assert took_s(scheduled_at_s=late_s, ready_at_s=late_s + 80.0) == 80.0  # a full cluster is not
    assert took_s(restarts=1) is None
    assert took_s(ready_at_s=None) is None
