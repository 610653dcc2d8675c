"""What ends a replica's capacity: saturation, sequences, prefill; each against its own formula."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.capacity_seen import CALM_SAMPLES, Flow, Stretch, see_stretch
from scaler.core.capacity_share import Batch, Objective, carried_per_s, seen_stretch
from scaler.core.model import Latency
from tests.core.play import observation

CHAT = Batch(
    prompt=1000.0,
    output=200.0,
    overhead_s=0.03,
    sequence_s=4e-4,
    prefill_s=1e-4,
    busy_s=0.18,
    sequences_max=256.0,
    step_tokens_max=2048.0,
)
# Nothing but prompts of 1000 tokens on average; a full step has 1000 of them and takes 0.1 s.
PROMPTS = Batch(
    prompt=1000.0,
    output=1e-6,
    overhead_s=1e-9,
    sequence_s=0.0,
    prefill_s=1e-4,
    busy_s=0.1,
    sequences_max=256.0,
    step_tokens_max=1000.0,
)
# Nothing but answers of 100 tokens, at 10 ms a step whatever it holds: 100 sequences at most.
ANSWERS = Batch(
    prompt=0.0,
    output=100.0,
    overhead_s=0.01,
    sequence_s=0.0,
    prefill_s=0.0,
    busy_s=0.0,
    sequences_max=100.0,
    step_tokens_max=2048.0,
)


def objective(ttft_s: float, attained_ratio: float = 0.99) -> Objective:
    return Objective(ttft_s=ttft_s, attained_ratio=attained_ratio)


def test_a_saturated_replica_pays_for_its_share_of_full_steps() -> None:
    """0.18 s, and the dearer of 200 / 256 and 1200 / 2048 steps of 30 ms."""
    assert CHAT.saturated_cost_s == pytest.approx(0.18 + 0.03 * 200 / 256)
    few = replace(CHAT, step_tokens_max=1000.0)
    assert few.saturated_cost_s == pytest.approx(0.18 + 0.03 * 1.2)


def test_a_loose_objective_lets_very_many_replicas_be_saturated() -> None:
    rates = carried_per_s(CHAT, objective(30.0))
    assert rates.pooled_per_s == pytest.approx(1.0 / CHAT.saturated_cost_s)
    assert rates.alone_per_s == pytest.approx(rates.pooled_per_s, rel=0.03)


def test_prompts_alone_are_an_mm1_queue() -> None:
    """10 a second at most; of 2.1 s a step takes 0.1: exp(-(10 - r) * 2) = 0.01 at r = 7.70."""
    rates = carried_per_s(PROMPTS, objective(2.1))
    assert rates.alone_per_s == pytest.approx(10.0 - math.log(100.0) / 2.0, rel=0.005)
    assert rates.pooled_per_s == pytest.approx(10.0, rel=0.005)


def test_with_a_stretch_of_two_the_tail_is_twice_as_long() -> None:
    """exp(-(10 - r) * 2 / 2) = 0.01 at r = 5.39; an idle replica misses exp(-10) as well."""
    rates = carried_per_s(replace(PROMPTS, stretch=2.0), objective(2.1))
    assert rates.alone_per_s == pytest.approx(10.0 - math.log(100.0), rel=0.005)


def test_sequences_need_room_for_their_spread_less_what_may_wait() -> None:
    """r sequences on average, Poisson: r + 2.326 * sqrt(r) = 100 + 0.1 * r at r = 85.6."""
    rate = carried_per_s(ANSWERS, objective(0.1)).alone_per_s
    assert rate + 2.3263 * math.sqrt(rate) == pytest.approx(100.0 + 0.1 * rate, rel=0.005)
    clumsy = carried_per_s(replace(ANSWERS, clumsiness=4.0), objective(0.1)).alone_per_s
    assert clumsy + 2.0 * 2.3263 * math.sqrt(clumsy) == pytest.approx(
        100.0 + 0.1 * clumsy, rel=0.005
    )
    assert carried_per_s(ANSWERS, objective(0.1)).pooled_per_s == pytest.approx(100.0)


@pytest.mark.parametrize("ttft_s", [0.001, 0.05])
def test_an_objective_out_of_reach_is_not_chased(ttft_s: float) -> None:
    """A tenth of the saturation, alone as among many: ten replicas for one."""
    rates = carried_per_s(CHAT, objective(ttft_s))
    assert rates.alone_per_s == pytest.approx(0.1 / CHAT.saturated_cost_s)
    assert rates.pooled_per_s == pytest.approx(0.1 / CHAT.saturated_cost_s)


BATCHES = st.builds(
    lambda times, **changes: Batch(
        overhead_s=times[0],
        sequence_s=times[1],
        prefill_s=times[2],
        busy_s=changes["prompt"] * times[2] + changes["output"] * times[1],
        step_tokens_max=2048.0,
        **changes,
    ),
    st.tuples(st.floats(1e-4, 1.0), st.floats(0.0, 0.01), st.floats(1e-7, 1e-3)),
    prompt=st.floats(1.0, 1e5),
    output=st.floats(1.0, 1e4),
    sequences_max=st.floats(1.0, 1000.0),
    stretch=st.floats(1.0, 5.0),
)


@given(BATCHES, st.floats(0.01, 100.0), st.floats(0.5, 0.9999))
def test_alone_is_below_pooled_below_saturation_and_a_longer_objective_carries_more(
    batch: Batch, ttft_s: float, attained_ratio: float
) -> None:
    rates = carried_per_s(batch, objective(ttft_s, attained_ratio))
    saturation = 1.0 / batch.saturated_cost_s
    assert 0.0999 * saturation <= rates.alone_per_s <= rates.pooled_per_s * 1.001
    assert rates.pooled_per_s <= saturation * 1.001
    loose = carried_per_s(batch, objective(10.0 * (ttft_s + batch.overhead_s), attained_ratio))
    # An objective that a prompt's own prefill takes is not chased, so there it may look easier.
    # With a third of them late on an idle replica log(3) is left of a tail that needs log(10000) at
    # most, and the longer objective leaves it at least ten times as long.
    own_s = batch.prompt * (batch.prefill_s + batch.overhead_s / batch.step_tokens_max)
    first_s = batch.overhead_s + min(batch.prompt, batch.step_tokens_max) * batch.prefill_s
    if math.exp(min(first_s - ttft_s, 0.0) / (own_s * batch.stretch)) < 1.0 / 3.0:
        assert loose.pooled_per_s >= rates.pooled_per_s * 0.9


# -- the stretch ---------------------------------------------------------------------------------

BOUNDS_S = (0.1, 0.3, 0.6, 1.1, 1.6, 2.6)


def histogram(decay_per_s: float, total: float) -> Latency:
    """The histogram of 0.1 s and an exponential with this decay."""
    above = [1.0, *(math.exp(-decay_per_s * (bound_s - 0.1)) for bound_s in BOUNDS_S), 0.0]
    counts = tuple(total * (more - less) for more, less in pairwise(above))
    return Latency(
        seen_at_s=0.0, coverage_ratio=1.0, window_s=60.0, bounds_s=BOUNDS_S, counts=counts
    )


def test_the_stretch_of_a_tail_is_found_again() -> None:
    """At 5 a second the law's decay is 10 - 5; among many, nearly 10."""
    found = seen_stretch(PROMPTS, 5.0, histogram(2.5, 600.0), waiting_replicas=1.0)
    assert found is not None
    assert found.stretch == pytest.approx(2.0, rel=1e-3)
    assert found.late >= 0.005 * 600.0
    many = seen_stretch(PROMPTS, 5.0, histogram(2.5, 600.0), waiting_replicas=50.0)
    assert many is not None
    assert many.stretch == pytest.approx(4.0, rel=1e-3)


def test_chance_in_the_last_bucket_does_not_choose_the_stretch() -> None:
    """A tail that is no exponential: 1.1 % are beyond 1.6 s, where a decay of 3 says (10 - 5) / 3.

    Up to 1.5 % of 8000 are beyond 2.6 s as well, which alone says twice as much.  Two of them more
    or less move the stretch by a few percent, wherever they are.
    """
    close = histogram(3.0, 8000.0)

    def seen(late: float) -> float:
        counts = (*close.counts[:-2], close.counts[-2] - late, close.counts[-1] + late)
        found = seen_stretch(PROMPTS, 5.0, replace(close, counts=counts), waiting_replicas=1.0)
        assert found is not None
        return found.stretch

    found = [seen(float(late)) for late in range(0, 120, 2)]
    assert max(abs(math.log(b / a)) for a, b in pairwise(found)) < 0.05
    assert found[-1] > 1.15 * found[0]


def test_many_late_requests_of_one_window_are_one_event() -> None:
    """From 300 late requests at a stretch of 1, a window of 600 more at 2 moves it by 15 of 325."""
    seen = observation({"at_s": "15", "ready": "1", "rate": "5"})
    after = see_stretch(
        replace(seen, ttft=histogram(2.5, 120_000.0)),
        PROMPTS,
        Flow(requests_per_s=5.0, calm_samples=CALM_SAMPLES),
        Stretch(log=0.0, weight=300.0),
        gain=0.6,
    )
    assert after.log == pytest.approx(math.log(2.0) * 15.0 / (300.0 + 15.0 + 10.0), rel=1e-3)
    assert after.weight == 300.0


def test_a_histogram_that_says_nothing_has_no_stretch() -> None:
    few = histogram(2.5, 4.0)  # all within the first bounds but a part of a request
    assert seen_stretch(ANSWERS, 5.0, histogram(2.5, 600.0), waiting_replicas=1.0) is None
    assert seen_stretch(PROMPTS, 5.0, replace(few, counts=(1.0,) + (0.0,) * 6),
                        waiting_replicas=1.0) is None  # fmt: skip
    slow = replace(few, counts=(0.0,) * 5 + (300.0, 300.0))  # half of them beyond the last bound
    assert seen_stretch(PROMPTS, 5.0, slow, waiting_replicas=1.0) is None
    assert seen_stretch(PROMPTS, 11.0, histogram(2.5, 600.0), waiting_replicas=1.0) is None
    below = replace(few, bounds_s=(0.01, 0.02), counts=(500.0, 90.0, 10.0))  # within one step
    assert seen_stretch(PROMPTS, 5.0, below, waiting_replicas=1.0) is None
