"""Conversations drawn for a trace that names none."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.core.config import PolicyConfig
from scaler.errors import ScenarioError
from simulations import Scenario, simulate
from simulations.replica import PrefixCache, Routing
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import policy_named
from simulations.sessions import Sessions, SessionStream
from simulations.trace_chunks import Requests
from tests.simulations.small_fleet import model


def drawn(count: int, *, open_count: int, turns: float, seed: int = 1) -> list[int]:
    stream = SessionStream(Sessions(open_count=open_count, turns_mean=turns), seed=seed)
    return list(stream.draw(count))


def test_conversations_are_as_long_as_asked_for_and_as_many() -> None:
    numbers = np.array(drawn(100_000, open_count=50, turns=8.0), dtype=np.int64)
    # 100,000 / 8 = 12,500 begin: binomial with a deviation of sqrt(12500 * 7/8) = 105, five: 523.
    assert abs(len(set(numbers.tolist())) - 12_500) < 523 + 50
    assert len(set((numbers % 50).tolist())) == 50
    # Between two turns of one conversation there are 50 requests on average.
    last: dict[int, int] = {}
    gaps = []
    for place, number in enumerate(numbers.tolist()):
        if number in last:
            gaps.append(place - last[number])
        last[number] = place
    assert np.mean(gaps) == pytest.approx(50.0, rel=0.05)


def test_a_conversation_that_ended_does_not_come_back() -> None:
    numbers = drawn(2_000, open_count=3, turns=4.0)
    for slot in range(3):
        mine = [number for number in numbers if number % 3 == slot]
        assert all(a <= b for a, b in pairwise(mine))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_chunks_make_no_difference(sizes: list[int], seed: int) -> None:
    stream = SessionStream(Sessions(open_count=5, turns_mean=3.0), seed=seed)
    chunked = np.concatenate([stream.draw(size) for size in sizes]).tolist()
    assert chunked == drawn(sum(sizes), open_count=5, turns=3.0, seed=seed)


def test_a_cache_kept_by_conversation_pays_only_where_they_stick() -> None:
    """Ten replicas, ten conversations: routed at random each replica computes each prefix anew."""
    count = 2_000
    requests = Requests(
        arrival_s=np.arange(count, dtype=np.float64) * 0.5,
        prompt_tokens=np.full(count, 64, dtype=np.int32),
        output_tokens=np.full(count, 2, dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )
    cache = PrefixCache(hit_ratio=0.75, per_session=True)
    steps = dataclasses.replace(model().step, prefill_per_token_s=0.001)

    def ttft_s(routing: Routing) -> float:
        scenario = Scenario(
            requests=[requests],
            model=dataclasses.replace(model(), prefix_cache=cache, step=steps),
            scaled_object=ScaledObjectSpec(replicas_min=1, replicas_max=20),
            policy=policy_named("fixed:10", PolicyConfig()),
            routing=routing,
            sessions=Sessions(open_count=10, turns_mean=4.0),
        )
        return simulate(scenario).score.ttft_s.p50

    # Three quarters of the 64 tokens, in whole blocks, need no computing: 48 ms less.
    assert ttft_s(Routing.RANDOM) - ttft_s(Routing.SESSION) == pytest.approx(0.048, abs=1e-4)


@pytest.mark.parametrize(
    ("open_count", "turns", "fault"),
    [(0, 2.0, "sessions open = 0, must be in"), (5, 0.5, "session turns = 0.5, must be in")],
)
def test_what_cannot_be_is_refused(open_count: int, turns: float, fault: str) -> None:
    with pytest.raises(ScenarioError, match=fault):
        Sessions(open_count=open_count, turns_mean=turns)
