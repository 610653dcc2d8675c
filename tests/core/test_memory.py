"""What a decision remembers of the load: its level, and what is left of a higher one."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.core.budget import Budget
from scaler.core.config import HoldDownConfig, PolicyConfig
from scaler.core.memory import PolicyState, ease_of, peak_of
from tests.core.play import CONFIG, EASED, play

RELEASED = PolicyConfig(hold_down=HoldDownConfig(release_s=3600.0))


def test_what_is_left_of_a_load_fades_with_the_release() -> None:
    state = PolicyState(level_at_s=100.0, work_peak=8.0)
    assert peak_of(1.0, state, RELEASED, 100.0) == 8.0
    assert peak_of(1.0, state, RELEASED, 1900.0) == pytest.approx(8.0 * math.exp(-0.5))
    assert peak_of(1.0, state, RELEASED, 1e6) == 1.0


def test_a_release_of_nothing_follows_the_level() -> None:
    config = PolicyConfig(hold_down=HoldDownConfig(release_s=0.0))
    assert peak_of(1.0, PolicyState(work_peak=8.0), config, 0.0) == 1.0


@given(
    level=st.floats(0.0, 1e6),
    peak=st.floats(0.0, 1e6),
    elapsed_s=st.floats(0.0, 1e6),
)
def test_it_is_never_below_the_level_nor_above_both(
    level: float, peak: float, elapsed_s: float
) -> None:
    found = peak_of(level, PolicyState(work_peak=peak), RELEASED, elapsed_s)
    assert level <= found <= max(level, peak)


def test_a_load_that_is_gone_within_minutes_is_let_go_in_steps() -> None:
    """5 * 0.625 = 3.125, with 10 % 3.44: four replicas; exp(-t / 3600) of it is left.

    Three carry it 3600 * ln(3.44 / 3) = 490 s after the last of it, two 1950 s after.
    """
    hold = replace(CONFIG.hold_down, release_s=3600.0)
    seen = play(
        """
       at_s  ready  rate | want  decided_by
          0      4     5 |    4  .
        ...
        600      4     5 |    4  .
        615      4     0 |    4  keep
        ...
       1080      4     0 |    4  keep
       1110      4     0 |    3  keep
        ...
       2520      3     0 |    3  keep
       2565      3     0 |    2  keep
        """,
        replace(CONFIG, hold_down=hold),
    )
    last = dict(seen.decisions[-1].steps[-1].terms)
    assert last["level"] < 0.01
    assert last["load"] == pytest.approx(3.125 * math.exp(-1965.0 / 3600.0), rel=0.01)


def test_a_load_that_drifts_away_is_followed_at_once() -> None:
    """A tenth less each ten minutes, and a release of 5400 s: the level is all there is."""
    rows = "".join(
        f" {15 * tick} 9 {10.0 * 0.9 ** (tick / 40):.4f} | .\n" for tick in range(4 * 60 * 2)
    )
    config = replace(CONFIG, hold_down=replace(CONFIG.hold_down, release_s=5400.0))
    free = replace(CONFIG, hold_down=replace(CONFIG.hold_down, release_s=0.0))
    slow, fast = (play(f"at_s ready rate | want\n{rows}", one).decisions for one in (config, free))
    assert [one.would_be for one in slow] == [one.would_be for one in fast]
    assert slow[-1].would_be < slow[0].would_be


@pytest.mark.parametrize(
    ("spent", "part"), [(0.0, 0.25), (0.4, 0.25), (1.0, 0.5), (2.0, 1.0), (9.0, 1.0)]
)
def test_margins_of_the_way_down_are_what_is_spent_of_the_budget(spent: float, part: float) -> None:
    config = HoldDownConfig(ease_spent_ratio=2.0, ease_min_ratio=0.25)
    budget = Budget(allowed_ratio=0.01, unavoidable_ratio=0.0, spent_ratio=spent, price_factor=1.0)
    assert ease_of(budget, config) == part
    assert ease_of(budget, replace(config, ease_spent_ratio=0.0)) == 1.0


def test_an_eased_release_fades_sooner() -> None:
    state = PolicyState(work_peak=8.0)
    assert peak_of(1.0, state, RELEASED, 1800.0, ease=0.5) == pytest.approx(8.0 / math.e)
    assert peak_of(1.0, state, RELEASED, 1800.0, ease=0.0) == 1.0


FALL = """
   at_s  ready  rate  ttft   | want  decided_by
      0      8    12  {ttft} |    8  .
    ...
   7200      8   9.6  {ttft} |    .  .
    ...
  14400      8   9.6  {ttft} |    {want}  {by}
"""


@pytest.mark.parametrize(
    ("ttft", "want", "by"), [("100:0:0:0:0", 7, "keep"), ("98:0:0:2:0", 8, "keep")]
)
def test_a_fall_keeps_less_to_spare_while_misses_are_cheap(ttft: str, want: int, by: str) -> None:
    """9.6 * 0.625 = 6.0 replicas: with 30 % to spare 7.8, with 6 % 6.4.

    No miss: the prior's half of a budget in 2 h is a sixth of one after 4 h more.  Two in a hundred
    late where one may be: twice the budget, so all of the margin.
    """
    play(FALL.format(ttft=ttft, want=want, by=by), EASED)


def test_cheap_misses_alone_move_no_count() -> None:
    """Eight were set for this load; that seven would do by now is no reason to move."""
    play(
        """
       at_s  ready  rate  ttft        | want
          0      8   9.6  100:0:0:0:0 |    8
        ...
      28800      8   9.6  100:0:0:0:0 |    8
        """,
        EASED,
    )


DRIFTS = """
       at_s  ready  rate   | want
          0      8  10.4   |    .
        ...
     {falls}      8  10.4   |    8
     {after}      8  {rate} |    .
        ...
     {asked}      8  {rate} | {want}
        """


@pytest.mark.parametrize(
    ("drift_ratio", "falls_s", "rate", "want"),
    [
        (0.0, 3600, 10, 7),
        (0.05, 3600, 10, 8),
        (0.05, 3600, 9, 7),
        (0.05, 600, 10, 7),
    ],
)
def test_what_is_believed_of_a_load_moves_no_count_within_its_drift(
    drift_ratio: float, falls_s: int, rate: int, want: int
) -> None:
    """6.25 replicas with 10 % to spare are 6.9, with the drift of 5 % as well 7.2; 5.6 are 6.5.

    Not so in the first hour after a start or a rise: at 15 minutes a quarter of it makes 6.95.
    """
    hold = replace(CONFIG.hold_down, drift_ratio=drift_ratio)
    script = DRIFTS.format(
        falls=falls_s, after=falls_s + 15, asked=falls_s + 300, rate=rate, want=want
    )
    play(script, replace(CONFIG, hold_down=hold))
