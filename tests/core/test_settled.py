"""The highest peak since the count was set: whether a load has fallen is asked of it."""

import pytest

from tests.core.play import EASED, play

LOADED = """
   at_s  ready    rate     ttft        | want
      0  {ready}  {before} 100:0:0:0:0 | {ready}
    ...
   7185  {ready}  {before} 100:0:0:0:0 | {ready}
"""
FALLEN = """
   7200  {ready}  {after}  100:0:0:0:0 | .
    ...
  14400  {ready}  {after}  100:0:0:0:0 | {want}
"""


def test_a_count_that_was_let_go_begins_a_new_peak() -> None:
    """12 requests/s are a load of 7.5, 9.6 one of 6.0: seven replicas were set for the latter."""
    state = play(LOADED.format(ready=8, before=12), EASED).state
    assert state.work_settled == pytest.approx(7.5)
    script = (LOADED + FALLEN).format(ready=8, before=12, after=9.6, want=7)
    assert 6.0 <= play(script, EASED).state.work_settled < 7.0  # on its way down when they were


@pytest.mark.parametrize(
    ("ready", "before", "after", "want"),
    [
        (8, 12.0, 10.48, 8),  # 7.5 to 6.55: within eight sigmas of 0.13, though not within 10 %
        (8, 12.0, 9.6, 7),  # to 6.0: neither
        (40, 62.4, 57.6, 40),  # 39 to 36: within 10 %, though not within eight sigmas of 0.31
        (40, 62.4, 56.0, 37),  # to 35: neither
    ],
)
def test_a_load_has_fallen_when_it_is_clear_of_its_noise_and_of_a_tenth(
    ready: int, before: float, after: float, want: int
) -> None:
    """Only then is what misses cost taken from the margin; fewer would carry each with 6 %."""
    script = LOADED + FALLEN
    play(script.format(ready=ready, before=before, after=after, want=want), EASED)
