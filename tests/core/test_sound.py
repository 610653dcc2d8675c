"""The door: what a fleet can produce passes untouched, the rest becomes NoData with a cause."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings

from scaler.core.config import PolicyConfig
from scaler.core.model import Cause, Latency, NoData, Observation, Replicas, Work
from scaler.core.policy import PolicyState, decide
from scaler.core.sound import AMOUNT_MAX, RATIO_MAX, sound
from tests.core.play import observation
from tests.core.test_invariants import finite, wild_observation

GOOD = observation({"at_s": "15", "ready": "3", "rate": "4", "gpu": "0.5", "gateway": "2"})


@settings(max_examples=300, deadline=None)
@given(wild_observation(0.0))
def test_what_passes_the_door_is_finite_and_plausible(seen: Observation) -> None:
    checked = sound(seen)
    for item in fields(checked):
        signal = getattr(checked, item.name)
        if isinstance(signal, NoData | Replicas) or not hasattr(signal, "__dataclass_fields__"):
            continue
        for name in signal.__dataclass_fields__:
            value = getattr(signal, name)
            if name == "interval_s" and item.name == "gateway":
                continue  # no rate is formed from it
            if name.endswith("_ratio"):
                assert 0.0 <= value <= RATIO_MAX
            elif isinstance(value, float):
                assert abs(value) <= AMOUNT_MAX
                assert value >= 0.0 or name == "requests_arrived"


def test_a_sound_observation_is_not_copied() -> None:
    assert sound(GOOD) is GOOD


@pytest.mark.parametrize(
    ("name", "field", "value", "cause"),
    [
        ("queue", "requests_waiting", math.nan, Cause.NOT_A_NUMBER),
        ("queue", "requests_running", -1.0, Cause.MALFORMED),
        ("kv_cache", "usage_mean_ratio", 35.0, Cause.MALFORMED),  # a percentage
        ("gpu", "utilisation_max_ratio", math.inf, Cause.NOT_A_NUMBER),
        ("work", "interval_s", 0.0, Cause.MALFORMED),
        ("work", "output_tokens", 2e12, Cause.MALFORMED),
        ("gateway", "requests_arrived", -3.0, Cause.MALFORMED),
        ("ttft", "counts", (1.0, 2.0), Cause.MALFORMED),
        ("ttft", "bounds_s", (0.5, 1.0, math.nan, 5.0), Cause.NOT_A_NUMBER),
        ("ttft", "counts", (math.nan, 0.0, 0.0, 0.0, 0.0), Cause.NOT_A_NUMBER),
        ("replicas", "wanted", -1, Cause.MALFORMED),
        ("replicas", "unschedulable", -1, Cause.MALFORMED),
    ],
)
def test_an_impossible_value_is_named(name: str, field: str, value: object, cause: Cause) -> None:
    signal: Any = getattr(GOOD, name)
    changed: dict[str, Any] = {name: replace(signal, **{field: value})}
    found = getattr(sound(replace(GOOD, **changed)), name)
    assert isinstance(found, NoData)
    assert found.cause is cause
    assert found.detail


def test_a_ratio_a_hair_above_one_and_a_negative_balance_pass() -> None:
    assert isinstance(GOOD.work, Work)
    seen = replace(GOOD, work=replace(GOOD.work, requests_arrived=-2.0, coverage_ratio=1.0005))
    assert sound(seen) is seen


def test_a_histogram_of_nothing_is_a_histogram() -> None:
    empty = Latency(seen_at_s=0.0, coverage_ratio=1.0, window_s=60.0, bounds_s=(), counts=(0.0,))
    assert sound(replace(GOOD, ttft=empty)).ttft is empty


@pytest.mark.parametrize("name", ["queue", "kv_cache", "ttft", "work", "gpu", "gateway"])
def test_the_largest_amount_passes_and_a_larger_one_does_not(name: str) -> None:
    """Beyond half of it each signal is looked at more closely, with the same result."""
    for factor, sound_ in ((0.4, True), (0.9, True), (1.1, False)):
        signal = replace(getattr(GOOD, name), seen_at_s=factor * AMOUNT_MAX)
        found = getattr(sound(replace(GOOD, **{name: signal})), name)
        assert (found is signal) is sound_, factor
        if not sound_:
            assert found.cause is Cause.MALFORMED


@pytest.mark.parametrize("name", ["queue", "kv_cache", "ttft", "work", "gpu", "gateway"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9])
def test_no_field_of_any_signal_hides_what_is_no_amount(name: str, value: float) -> None:
    signal = getattr(GOOD, name)
    for item in fields(signal):
        given: Any = getattr(signal, item.name)
        if name == "gateway" and item.name == "interval_s":
            continue  # no rate is formed from it
        if item.name == "requests_arrived" and name == "work" and value == -1e-9:
            continue  # a balance may be
        if item.name == "bounds_s" and value == -1e-9:
            continue
        changed: Any = (*given[:-1], value) if isinstance(given, tuple) else value
        seen = replace(GOOD, **{name: replace(signal, **{item.name: changed})})
        assert isinstance(getattr(sound(seen), name), NoData), item.name


NO_AMOUNTS = ("seen_at_s", "interval_s", "coverage_ratio")


def at(seen: Observation, at_s: float) -> Observation:
    """The same a little later."""
    changed: dict[str, Any] = {
        name: replace(getattr(seen, name), seen_at_s=at_s)
        for name in ("replicas", "queue", "kv_cache", "ttft", "itl", "work")
    }
    return replace(seen, seen_at_s=at_s, **changed)


@pytest.mark.parametrize("tiny", [1e-307, 5e-324, 1e-12])
@pytest.mark.parametrize("name", ["queue", "kv_cache", "ttft", "itl", "work"])
def test_next_to_nothing_is_divided_by_nowhere(name: str, tiny: float) -> None:
    """Rounding of a rate over seconds can leave it: what is infinite once is never forgotten."""
    busy = observation({"at_s": "0", "ready": "3", "running": "60", "ttft": "90:5:0:0:0",
                        "itl": "900:5:0:0", "kv": "0.3"})  # fmt: skip
    assert isinstance(busy.work, Work)
    amounts = {item.name: 6e9 for item in fields(Work) if item.name not in NO_AMOUNTS}
    busy = replace(busy, work=replace(busy.work, **amounts))
    for item in fields(getattr(busy, name)):
        if item.name in NO_AMOUNTS or item.name == "bounds_s":
            continue
        state = PolicyState()
        for tick in range(4):
            signal: Any = getattr(busy, name)
            given: Any = getattr(signal, item.name)
            value: Any = (tiny,) * len(given) if isinstance(given, tuple) else tiny
            signal = replace(signal, **{item.name: value})
            changed: dict[str, Any] = {name: signal} if tick % 2 == 0 else {}
            at_s = 15.0 * tick
            seen = replace(at(busy, at_s), **changed)
            decision, state = decide(at(seen, at_s), state, PolicyConfig(), at_s)
            assert finite(decision), item.name
            assert finite(state), item.name


@pytest.mark.parametrize("wrong", [math.nan, -7.0, -math.inf])
@pytest.mark.parametrize(
    ("tiny", "other"),
    [("requests_finished", "engine_steps"), ("engine_steps", "requests_finished")],
)
def test_a_rounding_of_none_hides_no_broken_count(tiny: str, other: str, wrong: float) -> None:
    seen = observation({"at_s": "15", "ready": "2", "rate": "4"})
    assert isinstance(seen.work, Work)
    broken = replace(seen, work=replace(seen.work, **{tiny: 1e-12, other: wrong}))
    assert isinstance(sound(broken).work, NoData)
