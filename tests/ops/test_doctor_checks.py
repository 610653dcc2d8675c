"""Each check of the doctor on evidence made by hand: as it should be, and as it should not."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from scaler.core.config import PolicyConfig, SloConfig
from scaler.core.model import Cause, Mode, NoData
from scaler.ops.doctor.evidence import (
    Access,
    Answer,
    Asked,
    Behaviour,
    Called,
    Certificate,
    Cluster,
    Condition,
    Evidence,
    Hpa,
    Metric,
    Peer,
    Row,
    Rules,
    ScaledObject,
    ServicePorts,
    Source,
    Target,
    Trigger,
    Unseen,
)
from scaler.ops.doctor.run import Report, judge
from scaler.ops.lint.model import Severity
from scaler.signals.samples import GpuSample, Histogram, PodRef, PodSample, TargetRef, TargetSamples

NOW_S = 1000.0
E, W, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
PODS = ("chat-a", "chat-b")
ADDRESS = "vllm-scaler.vllm-scaler.svc:9090"
TTFT = Histogram(bounds_s=(1.0, 2.0, 5.0, math.inf), counts=(1.0, 2.0, 3.0, 3.0))


def sample(pod: str, **fields: Any) -> PodSample:
    numbers = dict.fromkeys(
        ("running", "waiting", "finished", "prompt_tokens", "output_tokens", "kv_max_ratio"), 1.0
    )
    made: dict[str, Any] = {"at_s": NOW_S - 5.0, "model_names": ("m",), "ttft": TTFT}
    return PodSample(pod=pod, **{**numbers, **made, **fields})


def gpu(pod: str, at_s: float = NOW_S - 20.0) -> GpuSample:
    return GpuSample(pod=pod, at_s=at_s, utilisation_ratio=0.5, field="DCGM_FI_DEV_GPU_UTIL")


REF = TargetRef(
    namespace="llm",
    kind="deployment",
    name="chat",
    pods=tuple(PodRef(name=name) for name in PODS),
)
SAMPLES = TargetSamples(
    target=REF,
    at_s=NOW_S,
    pods={name: sample(name) for name in PODS},
    gpus={name: gpu(name) for name in PODS},
)
TRIGGER = Trigger(
    index=0,
    type="external",
    metric_type="AverageValue",
    metadata={"scalerAddress": ADDRESS},
    ours=True,
)
WRITTEN = Behaviour(up=Rules(window_s=0.0, tolerance_ratio=0.0), down=Rules(window_s=60.0))
SCALED = ScaledObject(
    namespace="llm",
    name="chat",
    target="deployment/chat",
    replicas_min=1,
    replicas_max=8,
    triggers=(TRIGGER,),
    fallback={"replicas": 1, "behavior": "currentReplicasIfHigher"},
    behaviour=WRITTEN,
    hpa_name="keda-hpa-chat",
    conditions=(Condition(type="Ready", status="True"),),
)
METRIC = Metric(type="External", name="s0-vllm-desired-replicas", target_type="AverageValue")
HPA = Hpa(
    namespace="llm",
    name="keda-hpa-chat",
    target="deployment/chat",
    owner="chat",
    replicas_min=1,
    replicas_max=8,
    metrics=(METRIC,),
    conditions=(Condition(type="ScalingActive", status="True"),),
    behaviour=WRITTEN,
)
SOURCE = Source(
    name="main",
    url="http://prometheus",
    namespaces=("llm",),
    now_s=NOW_S,
    queries={"times": Asked(rows=2), "queue": Asked(rows=4)},
    sampled_at_s={("llm", name): NOW_S - 5.0 for name in PODS},
    scrapes_in_5m={("llm", name): 20.0 for name in PODS},
    elsewhere={"llm": 2.0},
    ruled=frozenset({"llm"}),
)
CLUSTER = Cluster(
    kubernetes_minor=35,
    ahead_s=0.3,
    access=(Access(verb="list", group="", resource="pods", allowed=True),),
    scaled_objects=(SCALED,),
    hpas=(HPA,),
    services=(ServicePorts(address=ADDRESS, ports=(8080, 9090)),),
)
ANSWER = Answer(
    peer="10.0.0.1:9090",
    metric_name="vllm-desired-replicas",
    target_size=1.0,
    value=3.0,
    active=True,
)
CALLED = Called(address=ADDRESS, answers=(ANSWER,))
ROW = Row(name="llm/chat", target="deployment/chat", status="fresh", ready=2, age_s=3.0)
PEER = Peer(
    url="http://a",
    ready=True,
    leads=True,
    rows=(ROW,),
    decided_at_s={"llm/deployment/chat": NOW_S},
    desired={"llm/deployment/chat": 3.0},
)
OTHER = replace(PEER, url="http://b", leads=False)
TARGET = Target(
    namespace="llm",
    label="deployment/chat",
    scaled_object=SCALED,
    trigger=TRIGGER,
    ref=REF,
    samples=SAMPLES,
    called=CALLED,
)
GOOD = Evidence(
    now_s=NOW_S, targets=(TARGET,), cluster=CLUSTER, sources=(SOURCE,), peers=(PEER, OTHER)
)


def policy(**slo: float) -> PolicyConfig:
    return replace(PolicyConfig(), slo=replace(SloConfig(), **slo))


def scaled(**changes: Any) -> Evidence:
    """The evidence with another ScaledObject, in the cluster and of the target."""
    made = replace(SCALED, **changes)
    target = replace(TARGET, scaled_object=made, trigger=made.triggers[0])
    cluster = replace(CLUSTER, scaled_objects=(made,))
    return replace(GOOD, targets=(target,), cluster=cluster)


def cluster(**changes: Any) -> Evidence:
    return replace(GOOD, cluster=replace(CLUSTER, **changes))


def hpa(**changes: Any) -> Evidence:
    return cluster(hpas=(replace(HPA, **changes),))


def source(**changes: Any) -> Evidence:
    return replace(GOOD, sources=(replace(SOURCE, **changes),))


def target(**changes: Any) -> Evidence:
    return replace(GOOD, targets=(replace(TARGET, **changes),))


def pods(found: Mapping[str, PodSample | NoData]) -> Evidence:
    return target(samples=replace(SAMPLES, pods=found))


def judged(within_2_s: float, within_5_s: float, total: float) -> Evidence:
    """An objective of 3 s, 99 % asked for, and so many requests of one pod."""
    ttft = replace(TTFT, counts=(0.0, within_2_s, within_5_s, total))
    seen = {PODS[0]: sample(PODS[0], ttft=ttft), PODS[1]: sample(PODS[1], ttft=None)}
    return target(policy=policy(ttft_s=3.0), samples=replace(SAMPLES, pods=seen))


def gpus(found: Mapping[str, GpuSample | NoData]) -> Evidence:
    return target(samples=replace(SAMPLES, gpus=found))


def answers(*given: Answer) -> Evidence:
    return target(called=replace(CALLED, answers=given))


def row(**changes: Any) -> Evidence:
    return replace(GOOD, peers=(replace(PEER, rows=(replace(ROW, **changes),)),))


def condition(type_: str, status: str, reason: str = "") -> tuple[Condition, ...]:
    return (Condition(type=type_, status=status, reason=reason, message="why"),)


NO_MATCH = NoData(cause=Cause.NO_MATCH, detail="modelName = 'x', but the pods report 'm'")
FAR = NoData(cause=Cause.UNREACHABLE, detail="timeout")
DARK = NoData(cause=Cause.EMPTY, detail="no series")
CPU = Trigger(index=1, type="cpu", metric_type="Utilization", metadata={}, ours=False)
CASES: tuple[tuple[str, Severity, str, Evidence], ...] = (
    # Sources
    ("source-unreachable", E, "refused", source(fault="refused")),
    ("query-failed", E, "too many", source(queries={"queue": Asked(fault="too many")})),
    ("query-failed", W, "too many", source(queries={"gpu": Asked(fault="too many")})),
    ("no-engine-series", E, "some in prod", source(queries={"times": Asked()},
                                                   elsewhere={"prod": 2.0})),
    ("no-namespace-label", W, "3 series", source(elsewhere={"": 3.0, "llm": 2.0})),
    ("no-pod-label", W, "4 series", source(without_pod=4.0)),
    # 300 s / 5 scrapes = 60 s, above the 45 s; 300 / 9 = 33 s, above two thirds of them
    ("scrape-too-rare", E, "every 60 s", source(scrapes_in_5m={("llm", "a"): 5.0})),
    ("scrape-too-rare", W, "every 33 s", source(scrapes_in_5m={("llm", "a"): 9.0})),
    ("window-too-short", W, "window_s = 20", source(window_s=20.0)),  # 2 * 15 s
    ("sample-from-the-future", E, "9.0 s", source(sampled_at_s={("llm", "a"): NOW_S + 9.0})),
    ("recording-rules-absent", INFO, "none in llm", source(ruled=frozenset())),
    ("recording-rules-absent", E, "always", source(ruled=frozenset(), rules_wanted="always")),
    ("clock-skew", W, "+5.0 s", source(ahead_s=5.0)),
    # Signals
    ("metadata-wrong", E, "ttft", target(faults=("ttftSloSeconds = 'x'",))),
    ("workload-absent", E, "404", target(missing="GET x: HTTP 404: not found")),
    ("not-checked", W, "no permission", target(missing="no permission (HTTP 403)")),
    ("target-is-not-scaled", E, "deployment/chap", target(label="deployment/chap")),
    ("wrong-model", E, "2 of 2", pods(dict.fromkeys(PODS, NO_MATCH))),
    ("wrong-model", W, "1 of 2", pods({PODS[0]: NO_MATCH, PODS[1]: sample(PODS[1])})),
    ("pods-without-samples", E, "1 of 2", pods({PODS[0]: DARK, PODS[1]: sample(PODS[1])})),
    ("samples-stale", E, "60 s old", pods({name: sample(name, at_s=NOW_S - 60.0)
                                           for name in PODS})),
    ("metric-absent", E, "num_requests_waiting", pods({n: sample(n, waiting=None) for n in PODS})),
    ("metric-absent", W, "gpu_cache_usage_perc", pods({n: sample(n, kv_max_ratio=None)
                                                       for n in PODS})),
    ("engine-asleep", W, "chat-a", pods({n: sample(n, asleep=True) for n in PODS})),
    ("blind", E, "unreachable: gone", target(samples=replace(
        SAMPLES, failure=NoData(cause=Cause.UNREACHABLE, detail="gone")))),
    ("no-ttft-histogram", W, "no buckets", pods({n: sample(n, ttft=None) for n in PODS})),
    ("slo-inside-bucket", INFO, "(2, 5]", judged(0.0, 0.0, 0.0)),
    ("slo-inside-bucket", INFO, "makes no difference", judged(995.0, 999.0, 1000.0)),
    ("slo-inside-bucket", INFO, "makes no difference", judged(900.0, 985.0, 1000.0)),
    ("slo-inside-bucket", W, "98.00% to 99.50%", judged(980.0, 995.0, 1000.0)),
    ("slo-above-buckets", E, "(5, inf]", target(policy=policy(ttft_s=7.0))),
    ("no-dcgm", W, "2 of 2", gpus({})),
    ("samples-stale", W, "GPU samples up to 120 s", gpus({n: gpu(n, NOW_S - 120.0) for n in PODS})),
    # KEDA and its HPA
    ("scaling-paused", W, "paused", scaled(paused=True)),
    ("metric-type", E, "Value", scaled(triggers=(replace(TRIGGER, metric_type="Value"),))),
    ("polling-slow", W, "60", scaled(replicas_min=0, polling_interval_s=60.0)),
    ("fallback-to-zero", E, "replicas 0", scaled(fallback={"replicas": 0})),
    ("fallback-static", W, "static", scaled(fallback={"replicas": 3})),
    ("other-triggers", W, "1: cpu", scaled(triggers=(TRIGGER, CPU))),
    ("scaledobject-not-ready", E, "why", scaled(conditions=condition("Ready", "False"))),
    ("in-fallback", E, "why", scaled(conditions=condition("Fallback", "True"))),
    ("advisory-beside-others", E, "cpu", target(
        scaled_object=replace(SCALED, triggers=(TRIGGER, CPU)),
        policy=replace(PolicyConfig(), mode=Mode.ADVISORY))),
    ("two-autoscalers", E, "HPA mine", cluster(hpas=(HPA, replace(HPA, name="mine", owner="")))),
    ("two-autoscalers", E, "ScaledObject twin", cluster(
        scaled_objects=(SCALED, replace(SCALED, name="twin", hpa_name="keda-hpa-twin")))),
    ("hpa-absent", E, "keda-hpa-chat", cluster(hpas=())),
    ("hpa-without-our-metric", E, "Resource cpu", hpa(
        metrics=(Metric(type="Resource", name="cpu", target_type="Utilization"),))),
    ("hpa-not-scaling", E, "FailedGet", hpa(
        conditions=condition("ScalingActive", "False", "FailedGetExternalMetric"))),
    ("hpa-not-scaling", INFO, "Disabled", hpa(
        conditions=condition("ScalingActive", "False", "ScalingDisabled"))),
    ("hpa-limited", W, "TooMany", hpa(
        conditions=condition("ScalingLimited", "True", "TooManyReplicas"))),
    ("behaviour-dropped", E, "scaleUp is written", hpa(behaviour=None)),
    ("behaviour-dropped", E, "window 60.0 s", hpa(
        behaviour=replace(WRITTEN, down=Rules(window_s=300.0)))),
    ("tolerance-dropped", W, "Kubernetes 1.35", hpa(
        behaviour=replace(WRITTEN, up=Rules(window_s=0.0)))),
    ("limits-differ", W, "HPA 1 to 5", hpa(replicas_max=5)),
    # The way to the daemons
    ("permission-missing", E, "may not list pods", cluster(
        access=(Access(verb="list", group="", resource="pods"),))),
    ("permission-missing", W, "may not create events", cluster(
        access=(Access(verb="create", group="", resource="events", needed=False),))),
    ("clock-skew", E, "-40.0 s", cluster(ahead_s=-40.0)),
    ("scaler-address-wrong", E, "port 9090; the Service has 80", cluster(
        services=(ServicePorts(address=ADDRESS, ports=(80,)),))),
    ("scaler-address-wrong", E, "no Service", cluster(
        services=(ServicePorts(address=ADDRESS, ports=Unseen(reason="404"), missing=True),))),
    ("certificate", E, "2.0 days", replace(
        GOOD, certificates=(Certificate(of="x", setting="y", expires_in_s=2 * 86400.0),))),
    ("certificate", W, "10.0 days", replace(
        GOOD, certificates=(Certificate(of="x", setting="y", expires_in_s=10 * 86400.0),))),
    ("certificate", E, "expired", replace(
        GOOD, certificates=(Certificate(of="x", setting="y", fault="expired"),))),
    ("scaler-does-not-answer", E, "UNAVAILABLE", answers(
        replace(ANSWER, faults={"GetMetrics": "UNAVAILABLE: no"}))),
    ("scaler-answers-wrongly", E, "'queue'", answers(replace(ANSWER, metric_name="queue"))),
    ("scaler-answers-wrongly", E, "not active", answers(replace(ANSWER, active=False))),
    ("scaler-slow", W, "1.5 s", answers(replace(ANSWER, took_s=1.5))),
    ("daemons-disagree", W, "b says 4", answers(ANSWER, replace(ANSWER, peer="b", value=4.0))),
    ("daemon-unreachable", E, "refused", replace(GOOD, peers=(PEER, Peer(url="b",
                                                                         fault="refused")))),
    ("daemon-not-ready", E, "readyz", replace(GOOD, peers=(replace(PEER, ready=False),))),
    ("leaders", E, "0 of 2", replace(GOOD, peers=(replace(PEER, leads=False), OTHER))),
    ("leaders", E, "2 of 2", replace(GOOD, peers=(PEER, replace(OTHER, leads=True)))),
    # a tick is 15 s: 15 s apart is one tick, 30 s are two
    ("daemons-disagree", E, "30 s apart", replace(GOOD, peers=(PEER, replace(
        OTHER, decided_at_s={"llm/deployment/chat": NOW_S - 30.0})))),
    ("daemons-disagree", E, "http://b wants 5", replace(GOOD, peers=(PEER, replace(
        OTHER, desired={"llm/deployment/chat": 5.0})))),
    ("target-unknown-to-daemon", E, "lists 0", replace(GOOD, peers=(replace(PEER, rows=()),))),
    ("daemon-sees-nothing", E, "queue: empty", row(status="unknown", blind=("queue: empty",))),
    ("daemon-sees-otherwise", E, "queue: empty", row(status="floored", blind=("queue: empty",))),
    ("daemon-partly-blind", W, "status fresh; kv_cache: absent", row(
        blind=("work: never", "kv_cache: absent"))),
    ("daemon-not-ready", E, "50 s old", row(age_s=50.0)),
    ("ready-differs", W, "daemon: 0 ready, API: 2", row(ready=0)),
    # What could not be looked at
    ("not-checked", W, "HPAs not checked: no permission", cluster(
        hpas=Unseen(reason="no permission"))),
    ("not-checked", W, "permission not checked", cluster(
        access=(Access(verb="list", group="", resource="pods", allowed=Unseen(reason="403")),))),
    ("not-checked", W, "no kubeconfig", replace(GOOD, cluster=Unseen(reason="no kubeconfig"))),
    ("not-checked", W, "recording rules", source(ruled=Unseen(reason="422"))),
    ("pods-without-samples", E, "timeout", pods(dict.fromkeys(PODS, FAR))),
    ("not-checked", W, "scraped directly", replace(
        pods(dict.fromkeys(PODS, FAR)), sources=(), outside=True)),
    ("not-checked", W, "no pod is ready", target(ref=replace(REF, pods=()))),
    ("not-checked", W, "gRPC", target(called=Called(address="x", answers=Unseen(reason="TLS")))),
)  # fmt: skip


def shown(report: Report) -> list[str]:
    return [f"{one.severity} {one.rule.id}: {one.evidence}" for one in report.findings]


def test_good_evidence_has_no_finding() -> None:
    assert shown(judge(GOOD)) == []


@pytest.mark.parametrize(("rule", "severity", "evidence", "bad"), CASES)
def test_bad_evidence_is_found_with_its_value(
    rule: str, severity: Severity, evidence: str, bad: Evidence
) -> None:
    report = judge(bad)
    found = [one for one in report.findings if one.rule.id == rule and one.severity is severity]
    assert any(evidence in one.evidence for one in found), shown(report)
    assert all(one.fix for one in found)


@pytest.mark.parametrize(
    "good",
    [
        replace(GOOD, peers=(PEER, replace(OTHER, decided_at_s={"llm/deployment/chat": 985.0}))),
        source(elsewhere={"prod": 1.0, "llm": 2.0}),
        source(ruled=frozenset(), rules_wanted="never"),
        cluster(ahead_s=1.5),
        target(policy=policy(ttft_s=5.0)),
        scaled(fallback=None),
        answers(ANSWER, replace(ANSWER, peer="b")),
    ],
)
def test_what_is_usual_is_not_a_finding(good: Evidence) -> None:
    assert shown(judge(good)) == []


def test_the_worst_comes_first_and_what_was_not_checked_is_counted_apart() -> None:
    report = judge(replace(hpa(replicas_max=5, behaviour=None), peers=Unseen(reason="no --url")))
    assert [one.rule.id for one in report.findings] == [
        "behaviour-dropped",
        "behaviour-dropped",
        "limits-differ",
        "not-checked",
    ]
    assert report.summary() == (
        "1 targets, 1 Prometheus, 0 daemons: 2 error, 1 warning, 0 info, 1 not checked"
    )
