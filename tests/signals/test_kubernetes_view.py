"""The view over a real HTTP server: what it finds, and what it says when the server is ailing."""

import asyncio
from dataclasses import replace
from http import HTTPStatus

import pytest

from scaler.core.model import Cause, NoData
from scaler.demo.kube_api import Fault, FaultKind
from scaler.demo.kube_objects import (
    LWS,
    PodState,
    PodTimes,
    deployment,
    leader_worker_set,
    node,
    pod,
    scaled_object,
)
from scaler.demo.kube_store import RESOURCE_TYPES, ResourceType, timestamp
from scaler.signals.kube.feeds import Resource
from scaler.signals.kube.informer import Health, Pace
from scaler.signals.kube.records import (
    Fallback,
    FallbackBehavior,
    Paused,
    TargetState,
    TriggerId,
    TriggerType,
    place_of,
)
from scaler.signals.kube.scale import ExtraKind
from scaler.signals.kube.view import POD_PLACES_MAX, Changes, KubernetesView, Scope
from scaler.signals.samples import PodRef, TargetRef
from tests.signals.kube_fixture import NOW_S, Cluster, cluster, started, until

LLAMA = TargetRef(namespace="ml", kind="deployment", name="llama")
POD = next(type_ for type_ in RESOURCE_TYPES if type_.kind == "Pod")
DEPLOYMENT = next(type_ for type_ in RESOURCE_TYPES if type_.kind == "Deployment")
SCALED_OBJECT = next(type_ for type_ in RESOURCE_TYPES if type_.kind == "ScaledObject")


def fill(world: Cluster, *, replicas: int = 2) -> None:
    """A Deployment of ready pods with its ScaledObject."""
    world.store.apply(node("gpu-1"))
    world.store.apply(deployment("ml", "llama", replicas=replicas))
    world.store.apply(scaled_object("ml", "llama", target="llama", spec={"maxReplicaCount": 8}))
    for number in range(replicas):
        times = PodTimes(created_at_s=NOW_S - 600.0, ready_at_s=NOW_S - 500.0)
        world.store.apply(pod("ml", f"llama-{number}", app="llama", times=times))


def known(view: KubernetesView, ref: TargetRef = LLAMA, since_s: float = 0.0) -> TargetState:
    state = view.target(ref, since_s=since_s)
    assert isinstance(state, TargetState), state
    return state


def unknown(view: KubernetesView, ref: TargetRef = LLAMA) -> NoData:
    state = view.target(ref)
    assert isinstance(state, NoData), state
    return state


def health(view: KubernetesView, resource: Resource) -> Health:
    return next(one.health for one in view.health() if one.resource == resource.value[1])


async def live(view: KubernetesView) -> None:
    """Wait for every watch to be open."""
    await until(lambda: all(one.health is Health.LIVE for one in view.health()))


async def test_a_trigger_says_all_that_its_scaled_object_says() -> None:
    async with cluster() as world:
        behavior = {"scaleUp": {"tolerance": "50m"}, "scaleDown": {"tolerance": 0}}
        world.store.apply(
            scaled_object(
                "ml",
                "chat",
                target="llama",
                triggers=[
                    {"type": "cpu", "metadata": {"value": "50"}},
                    {
                        "type": "external-push",
                        "metadata": {
                            "scalerAddress": "vllm-scaler:9090",
                            "target": "StatefulSet/qwen",
                            "modelName": "qwen-7b",
                        },
                    },
                ],
                annotations={"autoscaling.keda.sh/paused-scale-in": "true"},
                spec={
                    "minReplicaCount": 1,
                    "maxReplicaCount": 9,
                    "idleReplicaCount": 0,
                    "pollingInterval": 15,
                    "cooldownPeriod": 120,
                    "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
                    "fallback": {
                        "failureThreshold": 3,
                        "replicas": 4,
                        "behavior": "currentReplicasIfHigher",
                    },
                },
            )
        )
        async with started(world.view()) as view:
            (trigger,) = view.scaled_objects().values()
    assert trigger.id == TriggerId(namespace="ml", name="chat", index=1)
    assert trigger.type is TriggerType.PUSH
    assert dict(trigger.metadata)["modelName"] == "qwen-7b"
    assert place_of(trigger.target) == "ml/statefulset/qwen"
    assert trigger.target.model_name == "qwen-7b"
    assert place_of(trigger.scale_target) == "ml/deployment/llama"
    assert trigger.scale_target_api_version == "apps/v1"
    assert (trigger.replicas_min, trigger.replicas_max, trigger.replicas_idle) == (1, 9, 0)
    assert (trigger.polling_interval_s, trigger.cooldown_s) == (15.0, 120.0)
    assert trigger.has_behavior
    assert (trigger.tolerance_up_ratio, trigger.tolerance_down_ratio) == (0.05, 0.0)  # 50m = 0.05
    assert trigger.fallback == Fallback(
        failure_threshold=3, replicas=4, behavior=FallbackBehavior.CURRENT_IF_HIGHER
    )
    assert trigger.paused == Paused(scale_in=True)
    assert trigger.hpa_name == "keda-hpa-chat"
    assert trigger.other_triggers == 1
    assert trigger.generation == 1


async def test_what_a_scaled_object_leaves_out_has_kedas_defaults() -> None:
    async with cluster() as world:
        world.store.apply(scaled_object("ml", "llama", target="llama"))
        async with started(world.view()) as view:
            (trigger,) = view.scaled_objects().values()
    assert (trigger.replicas_min, trigger.replicas_max, trigger.replicas_idle) == (0, 100, None)
    assert (trigger.polling_interval_s, trigger.cooldown_s) == (30.0, 300.0)
    assert (trigger.tolerance_up_ratio, trigger.fallback) == (None, None)
    assert not trigger.has_behavior
    assert trigger.target == LLAMA


async def test_triggers_of_other_scalers_are_not_ours() -> None:
    async with cluster() as world:
        for name, address in {
            "ours": "vllm-scaler.team-a.svc:9090",
            "other": "http-addon:9090",
        }.items():
            world.store.apply(scaled_object("ml", name, target="llama", address=address))
        async with started(world.view()) as view:
            assert [one.name for one in view.scaled_objects()] == ["ours"]


async def test_the_state_of_a_deployment() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view()) as view:
            await until(lambda: view.kubernetes_minor is not None)
            state = known(view)
            assert view.kubernetes_minor == 35
    replicas = state.replicas
    assert (replicas.wanted, replicas.current, replicas.ready) == (2, 2, 2)
    assert (replicas.replicas_min, replicas.replicas_max) == (0, 8)
    assert replicas.seen_at_s == NOW_S
    assert (replicas.gpus_per_replica, replicas.gpus_allocatable) == (1, 8)
    assert state.capacity_key == "5d8f7c9b6/NVIDIA-H100-80GB-HBM3"
    assert state.pods[0] == PodRef(name="llama-0", address="10.0.0.1", port=8000)


async def test_pods_in_trouble_are_told_apart() -> None:
    async with cluster() as world:
        fill(world, replicas=1)
        states = {
            "llama-u": PodState.UNSCHEDULABLE,
            "llama-l": PodState.LOADING,
            "llama-c": PodState.CRASH_LOOP,
            "llama-t": PodState.TERMINATING,
        }
        for name, state in states.items():
            times = PodTimes(created_at_s=NOW_S - 90.0)
            world.store.apply(pod("ml", name, app="llama", times=times, state=state))
        world.store.apply(
            pod(
                "ml",
                "llama-young",
                app="llama",
                times=PodTimes(created_at_s=NOW_S - 20.0),
                state=PodState.UNSCHEDULABLE,
            )
        )
        async with started(world.view()) as view:
            found = known(view)
            assert view.health()  # all of it
    replicas = found.replicas
    assert replicas.ready == 1
    # Loading for 90 s; the young one has waited 20 s for a GPU, which is not yet worth a word.
    assert sorted(replicas.starting_age_s) == [20.0, 90.0]
    assert (replicas.unschedulable, replicas.crash_looping, replicas.terminating) == (1, 1, 1)
    assert found.unschedulable_age_s == (90.0,)
    assert found.unschedulable_messages == (
        "0/4 nodes are available: 4 Insufficient nvidia.com/gpu.",
    )
    ready = {ref.name: ref.ready for ref in found.pods}
    assert ready["llama-0"]
    assert not ready["llama-t"]
    assert len(ready) == 6


async def test_a_start_up_is_counted_once_from_creation_to_ready() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view()) as view:
            await live(view)
            times = PodTimes(created_at_s=NOW_S + 10.0)
            world.clock.at_s = NOW_S + 100.0
            world.store.apply(
                pod("ml", "llama-2", app="llama", times=times, state=PodState.LOADING)
            )
            await until(lambda: len(known(view).pods) == 3)
            assert known(view).replicas.starting_age_s == (90.0,)
            assert known(view).replicas.start_up_s == ()  # the two old ones were ready before us
            seen_at_s = world.clock.at_s
            world.clock.at_s = NOW_S + 150.0
            ready = replace(times, ready_at_s=NOW_S + 145.0)
            world.store.apply(pod("ml", "llama-2", app="llama", times=ready))
            await until(lambda: known(view).replicas.ready == 3)
            state = known(view, since_s=seen_at_s)
            assert state.replicas.start_up_s == (135.0,)  # 145 - 10
            assert known(view, since_s=state.replicas.seen_at_s).replicas.start_up_s == ()


async def test_a_pod_that_loses_and_regains_readiness_is_no_start_up() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view()) as view:
            old = PodTimes(created_at_s=NOW_S - 600.0)
            world.store.apply(pod("ml", "llama-0", app="llama", times=old, state=PodState.LOADING))
            await until(lambda: known(view).replicas.ready == 1)
            again = replace(old, ready_at_s=NOW_S + 30.0)
            world.store.apply(pod("ml", "llama-0", app="llama", times=again))
            await until(lambda: known(view).replicas.ready == 2)
            assert known(view).replicas.start_up_s == ()


async def test_a_pod_first_seen_without_the_readiness_it_had_is_no_start_up() -> None:
    async with cluster() as world:
        fill(world)
        times = PodTimes(created_at_s=NOW_S - 600.0)
        flapping = pod("ml", "llama-0", app="llama", times=times, state=PodState.LOADING)
        # It was ready: the condition turned false a minute ago, long after the container's start.
        flapping["status"]["conditions"][1]["lastTransitionTime"] = timestamp(NOW_S - 60.0)
        world.store.apply(flapping)
        async with started(world.view()) as view:
            await live(view)
            assert known(view).replicas.ready == 1
            again = replace(times, ready_at_s=NOW_S + 30.0)
            world.store.apply(pod("ml", "llama-0", app="llama", times=again))
            await until(lambda: known(view).replicas.ready == 2)
            assert known(view).replicas.start_up_s == ()


async def test_groups_of_a_leader_worker_set_are_replicas() -> None:
    ref = TargetRef(namespace="ml", kind="leaderworkerset", name="big")
    async with cluster() as world:
        world.store.apply(leader_worker_set("ml", "big", replicas=2, size=2, gpus=8))
        world.store.apply(
            scaled_object(
                "ml",
                "big",
                target="big",
                target_kind="LeaderWorkerSet",
                target_api_version="leaderworkerset.x-k8s.io/v1",
            )
        )

        def put(group: int, worker: int, state: PodState) -> None:
            name = f"big-{group}" if worker == 0 else f"big-{group}-{worker}"
            labels = {
                f"{LWS}/name": "big",
                f"{LWS}/group-index": str(group),
                f"{LWS}/worker-index": str(worker),
                f"{LWS}/template-revision-hash": "66bb",
            }
            times = PodTimes(created_at_s=NOW_S - 50.0, ready_at_s=NOW_S + 60.0)
            world.store.apply(
                pod("ml", name, app="", times=times, state=state, gpus=8, labels=labels)
            )

        put(0, 0, PodState.READY)
        put(0, 1, PodState.READY)
        put(1, 0, PodState.READY)  # a leader alone is not a replica
        async with started(world.view()) as view:
            state = known(view, ref)
            assert (state.replicas.ready, state.replicas.starting_age_s) == (1, (50.0,))
            assert state.replicas.gpus_per_replica == 16  # 2 pods of 8
            assert state.capacity_key.startswith("66bb/")
            assert [one.name for one in state.pods if one.leader] == ["big-0", "big-1"]
            put(1, 1, PodState.UNSCHEDULABLE)
            await until(lambda: len(known(view, ref).pods) == 4)
            assert known(view, ref).replicas.unschedulable == 1
            assert known(view, ref).replicas.starting == 0
            put(1, 1, PodState.READY)
            await until(lambda: known(view, ref).replicas.ready == 2)
            assert 110.0 in known(view, ref).replicas.start_up_s  # 60 + 50: the last pod's


async def test_an_annotated_workload_is_an_advisory_target() -> None:
    async with cluster() as world:
        yes = {"vllm-scaler.io/advisory": "true"}
        world.store.apply(deployment("ml", "llama", annotations=yes))
        world.store.apply(deployment("ml", "other", annotations={"vllm-scaler.io/advisory": "no"}))
        async with started(world.view()) as view:
            assert view.advisory_targets() == (LLAMA,)
            assert known(view).replicas.replicas_max is None  # no ScaledObject says
            world.store.apply(deployment("ml", "llama"))
            await until(lambda: not view.advisory_targets())
            await until(lambda: isinstance(view.target(LLAMA), NoData))  # swept a moment later
            assert unknown(view).cause is Cause.NEVER


async def test_wanted_targets_are_followed_until_they_are_not() -> None:
    async with cluster() as world:
        fill(world)
        world.store.apply(deployment("ml", "extra"))
        extra = replace(LLAMA, name="extra")
        async with started(world.view()) as view:
            assert unknown(view, extra).cause is Cause.NEVER
            view.want([extra])
            await until(lambda: isinstance(view.target(extra), TargetState))
            view.want([])
            await until(lambda: isinstance(view.target(extra), NoData))
            assert known(view).replicas.ready == 2  # the others were not disturbed


async def test_a_target_asked_about_with_its_model_is_the_same_workload() -> None:
    async with cluster() as world:
        fill(world)
        metadata = {"target": "deployment/llama", "modelName": "llama-70b"}
        world.store.apply(scaled_object("ml", "llama", target="llama", metadata=metadata))
        async with started(world.view()) as view:
            (trigger,) = view.scaled_objects().values()
            assert known(view, trigger.target).replicas.replicas_max == 100
            assert known(view, trigger.target).target.model_name == "llama-70b"
            assert known(view).replicas.ready == 2


async def test_other_kinds_are_read_through_scale_when_listed() -> None:
    rollout = ResourceType(
        api_version="argoproj.io/v1alpha1", kind="Rollout", plural="rollouts", has_scale=True
    )
    ref = TargetRef(namespace="ml", kind="rollout", name="llama")
    listed = ExtraKind(api_version="argoproj.io/v1alpha1", kind="Rollout", plural="rollouts")
    async with cluster() as world:
        world.store.types = (*RESOURCE_TYPES, rollout)
        await world.api.stop()
        await world.api.start()
        made = deployment("ml", "llama", replicas=3, current=2, kind="Rollout")
        world.store.apply(made | {"apiVersion": "argoproj.io/v1alpha1"})
        times = PodTimes(created_at_s=NOW_S - 50.0, ready_at_s=NOW_S - 5.0)
        world.store.apply(pod("ml", "llama-0", app="llama", times=times, gpus=4))
        async with started(world.view(Scope(extra_kinds=(listed,)))) as view:
            view.want([ref])
            await until(lambda: isinstance(view.target(ref), TargetState))
            await until(lambda: known(view, ref).replicas.ready == 1)
            replicas = known(view, ref).replicas
            assert (replicas.wanted, replicas.current) == (3, 2)
            assert replicas.gpus_per_replica == 4  # of its pod: the template is not read
            world.store.delete(rollout, "ml", "llama")
            await until(lambda: unknown_cause(view, ref) is Cause.ABSENT)
        async with started(world.view()) as view:
            view.want([ref])
            assert unknown(view, ref).cause in {Cause.NEVER, Cause.UNSUPPORTED}
            await until(lambda: unknown_cause(view, ref) is Cause.UNSUPPORTED)


def unknown_cause(view: KubernetesView, ref: TargetRef) -> Cause | None:
    state = view.target(ref)
    return state.cause if isinstance(state, NoData) else None


async def test_deletions_are_followed() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view()) as view:
            world.store.delete(POD, "ml", "llama-1")
            await until(lambda: known(view).replicas.ready == 1)
            world.store.delete(DEPLOYMENT, "ml", "llama")
            await until(lambda: unknown_cause(view, LLAMA) is Cause.ABSENT)
            world.store.delete(SCALED_OBJECT, "ml", "llama")
            await until(lambda: not view.scaled_objects())
            assert unknown(view).cause is Cause.NEVER


async def test_subscribers_hear_which_triggers_and_targets_changed() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view()) as view:
            heard: list[Changes] = []
            end = view.subscribe(heard.append)
            world.store.apply(deployment("ml", "llama", replicas=5, current=2))
            await until(lambda: bool(heard))
            assert heard[0] == Changes(triggers=frozenset(), targets=frozenset({LLAMA.key}))
            world.store.apply(deployment("ml", "unrelated"))
            world.store.delete(SCALED_OBJECT, "ml", "llama")
            await until(lambda: any(one.triggers for one in heard))
            assert heard[-1].triggers == {TriggerId(namespace="ml", name="llama", index=0)}
            assert all("unrelated" not in key for one in heard for key in one.targets)
            end()
            before = len(heard)
            fill(world)
            await until(lambda: isinstance(view.target(LLAMA), TargetState))
            assert len(heard) == before


async def test_watching_starts_over_after_410_gone() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view()) as view:
            world.store.compact()
            world.api.drop_watches()
            world.store.apply(deployment("ml", "llama", replicas=7))
            await until(lambda: known(view).replicas.wanted == 7)
            relisted = {one.resource: one.lists for one in view.health()}
            assert relisted["deployments"] >= 2


async def test_a_watch_cut_in_the_middle_goes_on_without_a_new_list() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view()) as view:
            await live(view)
            world.sleeps.open.clear()  # hold the retries, so that the change falls into the gap
            world.api.drop_watches()
            await until(lambda: health(view, Resource.DEPLOYMENTS) is Health.BROKEN)
            world.store.apply(deployment("ml", "llama", replicas=4))
            world.sleeps.open.set()
            await until(lambda: known(view).replicas.wanted == 4)
            assert {one.lists for one in view.health()} == {1}


async def test_an_orderly_end_of_a_watch_loses_nothing() -> None:
    async with cluster(bookmark_s=0.01) as world:
        fill(world)
        async with started(world.view(pace=Pace(watch_s=1.0, silence_slack_s=5.0))) as view:
            await until(lambda: all(one.watches >= 2 for one in view.health()))
            world.store.apply(deployment("ml", "llama", replicas=6))
            await until(lambda: known(view).replicas.wanted == 6)
            assert {one.lists for one in view.health()} == {1}


async def test_between_two_watches_the_state_does_not_count_as_of_now() -> None:
    async with cluster(bookmark_s=0.01) as world:
        fill(world)
        async with started(world.view(pace=Pace(watch_s=1.0, silence_slack_s=5.0))) as view:
            await live(view)
            world.sleeps.open.clear()
            await until(lambda: all(one.health is Health.BROKEN for one in view.health()))
            world.clock.at_s = NOW_S + 40.0
            assert known(view).replicas.seen_at_s == NOW_S
            world.sleeps.open.set()
            await until(lambda: known(view).replicas.seen_at_s == NOW_S + 40.0)


async def test_a_watch_refused_as_gone_starts_over() -> None:
    async with cluster() as world:
        fill(world)
        gone = Fault(kind=FaultKind.STATUS, pattern="deployments.*watch", status=HTTPStatus.GONE)
        world.api.faults.append(gone)
        async with started(world.view()) as view:
            await until(lambda: lists(view, Resource.DEPLOYMENTS) >= 2)
            assert lists(view, Resource.PODS) == 1


async def test_a_watch_that_talks_nonsense_starts_over() -> None:
    async with cluster() as world:
        fill(world)
        nonsense = Fault(kind=FaultKind.GARBAGE, pattern="deployments.*watch", text="<html>\n")
        world.api.faults.append(nonsense)
        async with started(world.view()) as view:
            await until(lambda: lists(view, Resource.DEPLOYMENTS) >= 2)
            assert lists(view, Resource.PODS) == 1
            world.api.faults.clear()
            await live(view)


def lists(view: KubernetesView, resource: Resource) -> int:
    return next(one.lists for one in view.health() if one.resource == resource.value[1])


async def test_bookmarks_carry_a_quiet_watch_over_a_compaction() -> None:
    async with cluster(bookmark_s=0.01) as world:
        fill(world)
        async with started(world.view()) as view:
            await live(view)
            for number in range(3):  # nodes change, deployments do not
                world.store.apply(node(f"gpu-{number + 10}"))
            version = world.store.version
            deployments = next(one for _, one in view._feeds.of(Resource.DEPLOYMENTS))
            await until(lambda: deployments._version == str(version))


async def test_a_dead_server_leaves_the_last_state_with_its_age_then_no_data() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view()) as view:
            await live(view)
            await world.api.stop()
            await until(lambda: all(one.health is Health.BROKEN for one in view.health()))
            world.clock.at_s = NOW_S + 89.0
            state = known(view)
            assert state.replicas.seen_at_s == NOW_S  # 89 s old, and said so
            assert state.replicas.ready == 2
            world.clock.at_s = NOW_S + 91.0
            assert unknown(view).cause is Cause.UNREACHABLE
            assert "last seen 91 s ago" in unknown(view).detail
            assert view.scaled_objects()  # triggers are not forgotten
            assert view.scaled_objects_seen_at_s() == NOW_S
            world.store.apply(deployment("ml", "llama", replicas=9))
            await world.api.start()
            await until(lambda: isinstance(view.target(LLAMA), TargetState))
            await until(lambda: known(view).replicas.wanted == 9)
            await until(lambda: known(view).replicas.seen_at_s == NOW_S + 91.0)


async def test_a_server_that_was_never_there() -> None:
    async with cluster() as world:
        fill(world)
        await world.api.stop()
        async with started(world.view()) as view:
            view.want([LLAMA])
            await until(lambda: unknown_cause(view, LLAMA) is Cause.UNREACHABLE)
            assert view.scaled_objects() == {}
            assert view.scaled_objects_seen_at_s() is None
            await world.api.start()
            await until(lambda: isinstance(view.target(LLAMA), TargetState))
            await until(lambda: view.scaled_objects_seen_at_s() == NOW_S)


async def test_a_server_that_hangs_holds_up_nobody() -> None:
    async with cluster(request_timeout_s=0.05) as world:
        fill(world)
        world.api.faults.append(Fault(kind=FaultKind.HANG))
        async with started(world.view()) as view:
            view.want([LLAMA])
            await until(lambda: unknown_cause(view, LLAMA) is Cause.UNREACHABLE)
            assert "no answer in time" in unknown(view).detail
            world.api.faults.clear()
            await until(lambda: isinstance(view.target(LLAMA), TargetState))


async def test_a_watch_that_falls_silent_is_ended_and_opened_again() -> None:
    async with cluster() as world:
        fill(world)
        # The server would keep it open for a second; we give it 0.02 s of silence.
        async with started(world.view(pace=Pace(watch_s=0.01, silence_slack_s=0.01))) as view:
            await until(lambda: all(one.watches >= 3 for one in view.health()))
            world.store.apply(deployment("ml", "llama", replicas=3))
            await until(lambda: known(view).replicas.wanted == 3)


async def test_a_silent_watch_was_right_only_up_to_its_last_word() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view(pace=Pace(watch_s=0.4, silence_slack_s=0.2))) as view:
            await live(view)
            world.sleeps.open.clear()  # no second watch
            world.clock.at_s = NOW_S + 50.0
            assert known(view).replicas.seen_at_s == NOW_S + 50.0  # nothing speaks against it yet
            await until(lambda: all(one.health is Health.BROKEN for one in view.health()))
            assert known(view).replicas.seen_at_s == NOW_S
            world.sleeps.open.set()


@pytest.mark.parametrize("status", [HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.TOO_MANY_REQUESTS])
async def test_errors_are_retried_with_growing_bounded_pauses(status: HTTPStatus) -> None:
    async with cluster() as world:
        fill(world)
        world.api.faults.append(
            Fault(kind=FaultKind.STATUS, pattern="GET .*deployments", status=status)
        )
        async with started(world.view()) as view:
            view.want([LLAMA])
            await until(lambda: world.sleeps.asked_s.count(30.0) >= 2)
            asked = [one for one in world.sleeps.asked_s if one not in {15.0, 3600.0}]
            # 0.5 doubled to the bound: the pauses of the one failing path, in order.
            assert asked[-7:] == sorted(asked[-7:])
            assert {0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0} <= set(asked)
            assert max(asked) == 30.0
            assert unknown(view).cause is Cause.UNREACHABLE
            world.api.faults.clear()
            await until(lambda: isinstance(view.target(LLAMA), TargetState))


async def test_garbage_and_half_json_are_errors_not_empty_lists() -> None:
    async with cluster() as world:
        fill(world)
        world.api.faults.append(Fault(kind=FaultKind.GARBAGE, pattern="GET .*pods"))
        async with started(world.view()) as view:
            await until(lambda: unknown_cause(view, LLAMA) is Cause.UNREACHABLE)
            assert "pods" in unknown(view).detail
            world.api.faults.clear()
            await until(lambda: isinstance(view.target(LLAMA), TargetState))
            assert known(view).replicas.ready == 2


async def test_an_empty_object_is_no_list_of_nothing() -> None:
    async with cluster() as world:
        fill(world)
        world.api.faults.append(Fault(kind=FaultKind.GARBAGE, pattern="GET .*pods", text="{}"))
        async with started(world.view()) as view:
            await until(lambda: unknown_cause(view, LLAMA) is Cause.UNREACHABLE)
            assert "no resourceVersion" in unknown(view).detail
            world.api.faults.clear()
            await until(lambda: isinstance(view.target(LLAMA), TargetState))
            assert known(view).replicas.ready == 2


async def test_without_permission_for_nodes_only_their_facts_are_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with cluster() as world:
        fill(world)
        world.api.faults.append(
            Fault(kind=FaultKind.STATUS, pattern="GET .*/nodes", status=HTTPStatus.FORBIDDEN)
        )
        async with started(world.view()) as view:
            await until(lambda: world.sleeps.asked_s.count(60.0) >= 3)
            state = known(view)
            assert health(view, Resource.NODES) is Health.FORBIDDEN
    assert state.replicas.gpus_allocatable is None
    assert state.replicas.ready == 2
    assert state.capacity_key == "5d8f7c9b6/"
    assert capsys.readouterr().out.count("kubernetes_unreadable") == 1  # said once


async def test_without_permission_for_pods_there_is_no_state() -> None:
    async with cluster() as world:
        fill(world)
        world.api.faults.append(
            Fault(kind=FaultKind.STATUS, pattern="GET .*/pods", status=HTTPStatus.FORBIDDEN)
        )
        async with started(world.view()) as view:
            await until(lambda: unknown_cause(view, LLAMA) is Cause.UNREACHABLE)
            assert "403" in unknown(view).detail


async def test_a_kind_that_is_not_installed_is_said_to_be_unsupported() -> None:
    async with cluster() as world:
        world.store.types = tuple(one for one in RESOURCE_TYPES if one.kind != "LeaderWorkerSet")
        await world.api.stop()
        await world.api.start()
        fill(world)
        big = TargetRef(namespace="ml", kind="leaderworkerset", name="big")
        async with started(world.view()) as view:
            view.want([big])
            await until(lambda: unknown_cause(view, big) is Cause.UNSUPPORTED)
            assert known(view).replicas.ready == 2
            assert health(view, Resource.LEADER_WORKER_SETS) is Health.NOT_INSTALLED


async def test_only_listed_namespaces_are_asked_about() -> None:
    async with cluster() as world:
        fill(world)
        world.store.apply(deployment("secret", "llama"))
        world.store.apply(scaled_object("secret", "llama", target="llama"))
        scope = Scope(namespaces=("ml", "empty"), watch_nodes=False)
        async with started(world.view(scope)) as view:
            assert [one.namespace for one in view.scaled_objects()] == ["ml"]
            assert known(view).replicas.ready == 2
            outside = replace(LLAMA, namespace="secret")
            view.want([outside])
            await until(lambda: unknown_cause(view, outside) is Cause.UNSUPPORTED)
        asked = [line for line in world.api.requests if "/version" not in line]
        assert asked
        assert all("/namespaces/ml/" in line or "/namespaces/empty/" in line for line in asked)


async def test_pods_are_watched_where_targets_are_until_there_are_many_places() -> None:
    async with cluster() as world:
        fill(world)
        world.store.apply(deployment("batch", "other"))
        async with started(world.view()) as view:
            places = {namespace for namespace, _ in view._feeds.of(Resource.PODS)}
            assert places == {"ml"}
            for number in range(POD_PLACES_MAX):
                world.store.apply(deployment(f"ns-{number}", "llama"))
                world.store.apply(scaled_object(f"ns-{number}", "llama", target="llama"))
            await until(lambda: {place for place, _ in view._feeds.of(Resource.PODS)} == {""})
            assert known(view).replicas.ready == 2
            last = TargetRef(namespace=f"ns-{POD_PLACES_MAX - 1}", kind="deployment", name="llama")
            times = PodTimes(created_at_s=NOW_S, ready_at_s=NOW_S + 5.0)
            world.store.apply(pod(last.namespace, "llama-0", app="llama", times=times))
            await until(lambda: known(view, last).replicas.ready == 1)


async def test_a_malformed_object_spoils_no_other() -> None:
    async with cluster() as world:
        fill(world)
        broken = deployment("ml", "broken")
        broken["spec"]["replicas"] = "many"
        world.store.apply(broken)
        async with started(world.view()) as view:
            assert known(view).replicas.ready == 2
            counts = {one.resource: one.malformed for one in view.health()}
            assert counts["deployments"] == 1
            broken["spec"]["replicas"] = 1
            world.store.apply(broken)
            view.want([replace(LLAMA, name="broken")])
            await until(lambda: isinstance(view.target(replace(LLAMA, name="broken")), TargetState))


async def test_lists_come_in_pages() -> None:
    async with cluster() as world:
        fill(world, replicas=7)
        async with started(world.view(pace=Pace(page_items=3))) as view:
            assert known(view).replicas.ready == 7
        pages = [line for line in world.api.requests if "/pods" in line and "watch" not in line]
        assert len(pages) == 3  # 3 + 3 + 1


async def test_a_full_list_heals_what_events_have_lost() -> None:
    async with cluster() as world:
        fill(world)
        async with started(world.view()) as view:
            await live(view)
            pods = next(one for _, one in view._feeds.of(Resource.PODS))
            lost = pods._items.pop("ml/llama-0")
            view._pod_changed("ml/llama-0", lost, None)  # as if a wrong event had come
            assert known(view).replicas.ready == 1
            world.clock.at_s = NOW_S + 601.0
            world.api.drop_watches()
            await until(lambda: known(view).replicas.ready == 2)


async def test_the_capacity_key_outlives_the_last_pod() -> None:
    async with cluster() as world:
        fill(world, replicas=1)
        async with started(world.view()) as view:
            key = known(view).capacity_key
            world.store.delete(POD, "ml", "llama-0")
            await until(lambda: not known(view).pods)
            assert known(view).capacity_key == key == "5d8f7c9b6/NVIDIA-H100-80GB-HBM3"


async def test_cordoned_and_lost_nodes_are_not_allocatable() -> None:
    async with cluster() as world:
        fill(world)
        world.store.apply(node("gpu-2", cordoned=True))
        world.store.apply(node("gpu-3", ready=False))
        world.store.apply(node("gpu-4", product="NVIDIA-L4", gpus=2))
        world.store.apply(node("gpu-5", gpus=4))
        async with started(world.view()) as view:
            assert known(view).replicas.gpus_allocatable == 12  # 8 + 4 H100
            world.store.apply(node("gpu-5", gpus=4, cordoned=True))
            await until(lambda: known(view).replicas.gpus_allocatable == 8)


async def test_stopping_ends_every_task() -> None:
    async with cluster() as world:
        fill(world)
        before = asyncio.all_tasks()
        view = world.view()
        await view.start()
        await view.wait_tried()
        await view.stop()
        ours = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not {name for name in ours if name.startswith(("watch", "scale", "kubernetes"))}
