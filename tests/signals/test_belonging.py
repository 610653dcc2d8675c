"""Pods find their targets by name, and models are compared on our side."""

import pytest

from scaler.core.model import Cause, NoData
from scaler.signals.belonging import Membership, expected, of_model, workload_of
from scaler.signals.samples import PodRef, PodSample, TargetRef


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        ("vllm-llama-7c9f8d6b5-bcdfg", "vllm-llama"),
        ("vllm-llama-0", "vllm-llama"),
        ("a-b-c-5d5d5d5d5d-x2x4x", "a-b-c"),
        ("vllm-llama-7c9f8d6b5-abcde", ""),  # a and e are not in the alphabet of generated names
        ("vllm-llama-70b-12", "vllm-llama-70b"),
        ("llama-70b-24567", "llama-70b"),  # 70b has a 0: no template hash, so an ordinal
        ("bare", ""),
        ("", ""),
        ("-0", ""),
    ],
)
def test_workload_of_a_pod(pod: str, workload: str) -> None:
    assert workload_of(pod) == workload


def target(name: str, pods: tuple[PodRef, ...] | None, model: str = "") -> TargetRef:
    return TargetRef(namespace="llm", kind="deployment", name=name, pods=pods, model_name=model)


def test_known_pods_are_found_by_name_and_others_by_their_workload() -> None:
    listed = target("listed", (PodRef(name="x-0"),))
    named = target("named", None)
    members = Membership([listed, named])
    assert members.keys_of("llm", "x-0") == [listed.key]
    assert members.keys_of("llm", "named-7c9f8d6b5-bcdfg") == [named.key]
    assert members.keys_of("llm", "listed-0") == []  # Kubernetes has said which pods it has
    assert members.keys_of("elsewhere", "x-0") == []


def test_one_pod_may_serve_two_triggers() -> None:
    first, second = (target("t", (PodRef(name="t-0"),), model) for model in ("a", "b"))
    assert Membership([first, second]).keys_of("llm", "t-0") == [first.key, second.key]


def test_workers_of_a_group_are_not_expected_to_have_metrics() -> None:
    pods = (PodRef(name="g-0"), PodRef(name="g-0-1", leader=False))
    assert [pod.name for pod in expected(target("g", pods))] == ["g-0"]


@pytest.mark.parametrize("model", ["llama", 'x"} or vector(1)', ".*", "{a|b}"])
def test_a_model_name_is_compared_as_it_is(model: str) -> None:
    sample = PodSample(pod="t-0", at_s=1.0, model_names=(model,))
    assert of_model(sample, target("t", None, model)) is sample
    missed = of_model(sample, target("t", None, f"{model}2"))
    assert isinstance(missed, NoData)
    assert missed.cause is Cause.NO_MATCH
    assert repr(model) in missed.detail


def test_without_a_model_name_on_either_side_the_pod_is_taken() -> None:
    unnamed = PodSample(pod="t-0", at_s=1.0, model_names=())
    assert of_model(unnamed, target("t", None, "llama")) is unnamed
    named = PodSample(pod="t-0", at_s=1.0, model_names=("llama",))
    assert of_model(named, target("t", None)) is named
