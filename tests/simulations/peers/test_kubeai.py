"""KubeAI's moving average, reckoned by hand."""

from simulations.peers.kubeai import KubeAiLaw


def _law(target: float) -> KubeAiLaw:
    return KubeAiLaw(target, replicas_min=1, replicas_max=20)


def test_the_mean_is_over_sixty_samples_that_begin_as_zeros() -> None:
    law = _law(10.0)
    # 600 in flight: 600 / 60 = 10 after one sample, so 1; 20 after two, so 2; 30 after three
    assert [law.answer(600.0, current=1) for _ in range(3)] == [1, 2, 3]


def test_the_oldest_sample_leaves() -> None:
    law = _law(10.0)
    for _ in range(60):
        law.answer(600.0, current=20)
    # 59 samples of 600 and one of 0: 590 / 10 = 59, held to 20
    assert law.answer(0.0, current=20) == 20
    for _ in range(59):
        last = law.answer(60.0, current=6)
    assert last == 6  # (59 * 60 + 0) / 60 / 10 = 5.9


def test_a_step_down_is_confirmed_by_three_lower_answers_before_it() -> None:
    law = _law(10.0)
    answers = [law.answer(0.0, current=5) for _ in range(4)]
    assert answers == [5, 5, 5, 1]
    assert law.answer(0.0, current=2) == 1, "confirmed until an answer is not lower"
    assert law.answer(600.0, current=1) == 1, "as high as the count: the confirmation is gone"
    assert law.answer(0.0, current=5) == 5


def test_bounds_come_before_the_comparison() -> None:
    law = KubeAiLaw(10.0, replicas_min=3, replicas_max=20)
    for _ in range(5):  # a wish for 0 is one for 3, which is not lower
        assert law.answer(0.0, current=3) == 3
    assert law.answer(0.0, current=4) == 4, "so nothing was confirmed"
