"""AIBrix's APA and its two stabilisers, reckoned by hand."""

import pytest

from simulations.peers.aibrix import ApaLaw, ApaSettings, apa_count, guarded

HALF = ApaSettings(target_ratio=0.5)


@pytest.mark.parametrize(
    ("usage", "current", "count"),
    [
        (0.55, 10, 10),  # 1.1 is not above the tolerance
        (0.56, 10, 12),  # ceil(11.2)
        (0.45, 10, 10),
        (0.44, 10, 9),  # ceil(8.8)
        (0.95, 2, 4),  # ceil(3.8)
        (1.0, 1, 2),
        (0.05, 9, 4),  # ceil(0.9) = 1, held to floor(9 / 2)
    ],
)
def test_the_count_is_in_proportion_outside_the_tolerance(
    usage: float, current: int, count: int
) -> None:
    assert apa_count(HALF, usage_ratio=usage, current=current) == count


def test_a_step_up_is_at_most_a_doubling() -> None:
    # with a target of 0.2: ceil(3 * 0.9 / 0.2) = 14, held to 6
    assert apa_count(ApaSettings(target_ratio=0.2), usage_ratio=0.9, current=3) == 6


def test_the_mean_is_over_three_minutes() -> None:
    law = ApaLaw(HALF)
    assert law.answer(0.9, current=2, ready=2, now_s=0.0) == 4  # ceil(2 * 1.8)
    # mean of 0.9 and 0.1 is 0.5: at the target
    assert law.answer(0.1, current=2, ready=2, now_s=10.0) == 2
    # at 185 s both have left, 0.6 is alone: ceil(2 * 1.2) = 3
    assert law.answer(0.6, current=2, ready=2, now_s=190.0) == 3


def _answers(corrected: bool) -> list[int]:
    """An answer of 2 at 0 s; 20 s later the fleet is of 8 and its mean use asks for 7."""
    law = ApaLaw(ApaSettings(target_ratio=0.5, window_s=1.0, corrected=corrected))
    return [
        law.answer(0.5, current=2, ready=2, now_s=0.0),
        law.answer(1.0, current=4, ready=4, now_s=10.0),
        law.answer(0.4, current=8, ready=8, now_s=20.0),  # ceil(8 * 0.8) = 7
        law.answer(0.4, current=8, ready=8, now_s=310.0),
        law.answer(0.4, current=8, ready=8, now_s=311.0),
        law.answer(0.4, current=8, ready=8, now_s=611.0),
    ]


def test_as_shipped_one_low_answer_drives_the_step_down() -> None:
    # At 20 s the lowest of 2, 8, 7; at 310 s the answer of 0 s has left, of 8, 7, 7 the lowest is 7
    assert _answers(corrected=False) == [2, 8, 2, 7, 7, 7]


def test_corrected_the_highest_answer_of_the_window_holds_the_count() -> None:
    # the 8 of 10 s is in the window until 310 s
    assert _answers(corrected=True) == [2, 8, 8, 8, 7, 7]


@pytest.mark.parametrize(
    ("usage", "ready", "wanted", "count"),
    [
        (0.9, 2, 8, 4),  # busy 1.8 / 0.5 = 3.6: no more than are on their way
        (0.9, 4, 8, 8),  # nothing pending
        (2.0, 3, 16, 12),  # 6 / 0.5
        (0.1, 2, 2, 3),  # (0.2 + 2 * 0.5) / 0.5 = 2.4
        (0.4, 2, 4, 4),
    ],
)
def test_the_guard_counts_replicas_that_start(
    usage: float, ready: int, wanted: int, count: int
) -> None:
    assert guarded(HALF, usage_ratio=usage, current=4, ready=ready, wanted=wanted) == count
