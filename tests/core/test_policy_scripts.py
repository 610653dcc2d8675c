"""What the policy does over time, as scripts.  ``play`` explains the columns.

One request costs 0.5 s and a replica carries a load of 0.8: rate r needs ceil(r * 0.5 / 0.8)
replicas.  The smoothed rate keeps exp(-15 / 5) = 5 % of the tick before, so the rates below stay
clear of the edges.
"""

from dataclasses import replace
from itertools import pairwise

import pytest

from scaler.core.config import (
    BoundsConfig,
    ForecastConfig,
    ForecasterName,
    FreshnessConfig,
    HoldDownConfig,
    HpaConfig,
    PolicyConfig,
    SignalConfig,
    SloConfig,
    StartUpConfig,
    ZeroConfig,
)
from scaler.core.model import Cause, Mode, NoData, Replicas, Role, Signal, Stage, Verdict
from scaler.core.policy import PolicyState, decide
from tests.core.play import CONFIG, observation, play, rows

ZERO = replace(CONFIG, bounds=BoundsConfig(replicas_min=0))


# -- sizing ----------------------------------------------------------------------------------------


def test_goes_up_at_once_and_down_after_the_window() -> None:
    play("""
       at_s  ready  rate  running | want  decided_by
          0      2   2.6        3 |    2  work        # 2.6 * 0.625 = 1.6
         15      2     7        7 |    5  work        # 6.8 smoothed: 4.2
         30      5   2.6        3 |    5  hold_down   # a lull
        ...
        315      5   2.6        3 |    5  hold_down   # 300 s after the rise at 15 s
        330      5   2.6        3 |    2  work
    """)


def test_only_a_rise_starts_the_wait_anew() -> None:
    """A spike that the present replicas carry is no reason to keep them: the level decides."""
    play("""
       at_s  ready  rate | want  decided_by
          0      5   2.6 |    5  hold_down   # first sight: nothing is known of what was needed
        ...
        285      5     7 |    5  work        # no rise
        300      5   2.6 |    5  hold_down
        315      5   2.6 |    3  keep        # the level is still 2.07 with the margin of 10 %
        330      5    12 |    8  work        # 11.5 smoothed: a rise
        345      8   2.6 |    8  hold_down
        ...
        630      8   2.6 |    8  hold_down
        645      8   2.6 |    2  work
    """)


def test_the_window_is_as_long_as_the_start_ups_need() -> None:
    slow = replace(CONFIG, start_up=StartUpConfig(prior_s=600.0))  # 1.5 start-ups are 900 s
    play(
        """
       at_s  ready  rate | want  decided_by
          0      2     7 |    5  work
         15      5   2.6 |    5  hold_down
        ...
        900      5   2.6 |    5  hold_down
        915      5   2.6 |    2  work
    """,
        slow,
    )


def test_a_replica_goes_only_if_the_others_carry_the_load_with_a_margin() -> None:
    """Load 2.94 fits 3 replicas, but 2.94 * 1.1 = 3.23 does not: N/(N-1) keeps the fourth."""
    play("""
       at_s  ready  rate  running | want  decided_by  work
          0      4   4.7        5 |    4  keep           3
        ...
        495      4   4.3        5 |    4  keep           3   # the level is still 2.79: 3.07
        510      4   4.3        5 |    3  work           3   # 2.70 * 1.1 = 2.97
    """)


def test_two_and_one_do_not_flap_on_a_flat_threshold() -> None:
    """A load of 0.94 to 1.06 straddles what one replica carries: it goes to two once, and stays."""
    steady = replace(CONFIG, hold_down=HoldDownConfig())
    played = play(
        "at_s ready rate | want\n"
        + "\n".join(f"{15 * i} 1 {1.5 if i % 7 else 1.7} | ." for i in range(160)),
        steady,
        follow_s=60.0,
    )
    counts = [decision.replicas_desired for decision in played.decisions]
    changes = [(a, b) for a, b in pairwise(counts) if a != b]
    assert changes in ([], [(1, 2)])
    assert counts[-1] == 2


def test_bounds_of_the_object_win_over_the_configured_ones() -> None:
    play("""
       at_s  ready  rate  min  max | want  decided_by
          0      2    20    1    6 |    6  bounds      # 20 * 0.625 = 12.5
         15      6     0    4    6 |    6  .           # held since the rise at 0 s
        ...
        300      6     0    4    6 |    6  .
        315      6     0    4    6 |    4  bounds
        330      4     0    5    3 |    5  bounds      # the minimum wins where they cross
    """)


# -- queue -----------------------------------------------------------------------------------------


def test_a_queue_is_drained_with_credit_for_starting_replicas() -> None:
    """Load 5 on 2 replicas is behind by 3; 40 waiting are 25 s of replica time.

    A new replica helps 195 s from now, when 25 + 3 * 195 = 610 s are behind.  A miss costs one
    request and a replica is kept 195 + 300 s, so sqrt(5 * 610 / 495) = 2.5 more than the load clear
    it at least cost: 8.  Once nine are on their way the backlog is theirs, however long it grows
    meanwhile: no overshoot.
    """
    play("""
       at_s  ready  starting  rate  waiting | want  decided_by  queue
          0      2         0     8       40 |    8  queue           8
         15      2         6     8       80 |    8  .               8
         30      2         6     8      120 |    8  .               8
        180      2         6     8      600 |    8  .               8   # 375 s / spare 3 = 125 s
        195      8         0     8      300 |    8  .               8
        255      8         0     8        2 |    8  hold_down       5   # not pressed: ceil(load)
    """)


def test_a_backlog_that_those_coming_do_not_clear_in_time_asks_for_more() -> None:
    """2500 s of backlog over a spare of 2 takes 1250 s, a start 195 s: 5 + sqrt(5 * 2500 / 495)."""
    play("""
       at_s  ready  starting  rate  waiting | want  queue
          0      2         5     8     4000 |   11     11
    """)


def test_a_longer_queue_never_asks_for_fewer_even_where_a_start_is_faster_than_the_drain() -> None:
    """Lead 16 s: 188 s over a spare of 9 take 21 s, yet 5 + sqrt(5 * 188 / 316) is below 14."""
    quick = replace(CONFIG, start_up=StartUpConfig(prior_s=1.0))
    play(
        """
       at_s  ready  rate  waiting | queue
          0     14     8      200 |    14   # 125 s over a spare of 9: in time
         15     14     8      300 |    14   # 188 s: late, and still not fewer
         30     14     8    40000 |    25   # 25000 s: 5 + sqrt(5 * 25000 / 316) = 24.9
    """,
        quick,
    )


def test_a_loop_closed_over_starting_replicas_does_not_overshoot() -> None:
    """A step to load 4 needs 5 replicas; the queue asks once and every later tick agrees."""
    script = "at_s ready rate waiting | want\n0 2 3 0 | 2\n"
    script += "\n".join(f"{15 * i} . 8 {30 * i} | ." for i in range(1, 12))
    played = play(script, follow_s=180.0)
    counts = [decision.replicas_desired for decision in played.decisions]
    assert counts[1] == max(counts), f"asked for more while replicas start: {counts}"


# -- replicas that do not come ---------------------------------------------------------------------


def test_unschedulable_crash_looping_and_expired_replicas_are_no_capacity_to_come() -> None:
    """Load 5 on 2 ready.  With 9 starting a backlog of 25 s is theirs; with none it is behind."""
    play("""
       at_s  ready  starting  starting_s  unschedulable  crash_looping  rate  waiting | queue
          0      2         9          30              0              0     8       40 |    11
         15      2         0          30              9              0     8       40 |     8
         30      2         0          30              0              9     8       40 |     8
         45      2         9        1801              0              0     8       40 |     8
         60      2         9          30              0              0     8      400 |    11
         75      2         0          30              9              0     8     4000 |    11
         90      2         0          30              0              9     8     4000 |    11
        105      2         9        1801              0              0     8     4000 |    11
        120      2         9        1800              0              0     8      400 |    11
    """)  # 4000 waiting are 2500 s: 5 + sqrt(5 * (2500 + 585) / 495) = 10.6


def test_a_missed_objective_does_not_pile_up_replicas_that_cannot_be_scheduled() -> None:
    """4 ready, a tenth is one step.  Three that cannot be scheduled were asked for already."""
    play("""
       at_s  ready  unschedulable  crash_looping  rate         ttft | want  ttft
          0      4              0              0     6  50:0:0:50:0 |    5     5
        300      4              1              0     6  50:0:0:50:0 |    5     5
        600      4              3              0     6  50:0:0:50:0 |    7     7
        900      4              0              3     6  50:0:0:50:0 |    7     7
    """)


# -- latency ---------------------------------------------------------------------------------------


def test_a_missed_objective_adds_one_step_per_lead_time() -> None:
    """Half of the requests are above 2.5 s.  8 replicas, a quarter: 2 more, then time to show.

    The next step comes lead (180 + 15) plus the histogram's window (60) after the first, and two
    windows and ticks after replicas became ready: 210 + 150 = 360 s.
    """
    large = replace(CONFIG, signals=SignalConfig(latency_step_ratio=0.25))
    play(
        """
       at_s  ready  starting  rate         ttft | want  decided_by  ttft
          0      8         0    12  50:0:0:50:0 |   10  ttft          10
         15      8         0    12  50:0:0:50:0 |   10  hold_down      8   # not yet obeyed
         30      8         2    12  50:0:0:50:0 |   10  .             10   # on their way
        210     10         0    12  50:0:0:50:0 |   10  .             10   # ready, not yet seen
        255     10         0    12  50:0:0:50:0 |   10  .             10   # a router floods them
        345     10         0    12  50:0:0:50:0 |   10  .             10
        360     10         0    12  50:0:0:50:0 |   13  ttft          13   # ceil(2.5) more
    """,
        large,
    )


def test_the_step_waits_also_where_another_signal_asked_for_as_much() -> None:
    """The queue asks for 8 at once, the objective for 3: both were served by the same replicas."""
    play("""
       at_s  ready  rate  waiting         ttft | want  decided_by  ttft
          0      2     8       40  50:0:0:50:0 |    8  queue          3
         15      8     8        0  50:0:0:50:0 |    8  .               8   # no step: not settled
    """)


def test_a_few_misses_are_the_business_of_the_budget_and_many_of_a_step() -> None:
    """Five times the 1 % allowed are many.

    2 s lies two thirds into (1, 2.5]: with a tail of 6 of 100 above 1 s and none above 2.5 s, 6 *
    (0.5 / 6) ** (2 / 3) = 1.1 are late; with 20 and 10 it is 20 * 0.5 ** (2 / 3) = 12.6.
    """
    play("""
       at_s  ready  rate          ttft | want  ttft  decided_by
          0      2     3    94:0:6:0:0 |   2     0  work
         15      2     3  80:0:10:10:0 |   3     3  ttft
    """)


def test_latency_near_its_objective_stops_the_way_down() -> None:
    """1.8 s is near: of 10 above 1 s, 10 * (2 / 10) ** (0.8 / 1.5) = 4.2 are above it, not 1."""
    play("""
       at_s  ready  rate       ttft | want  decided_by
          0      4   2.6  95:0:0:0:0 |    4  hold_down
        ...
        315      4   2.6  90:0:8:2:0 |    4  veto
        330      4   2.6   0:0:9:0:0 |    2  work       # 9 requests say nothing of a percentile
    """)


def test_long_prompts_on_idle_replicas_do_not_hold_a_fleet_at_its_peak() -> None:
    """TTFT is 1 to 2.5 s at any load: no count of replicas shortens a prompt.

    Load 0.625; the prior is right within a factor of 3, half busy twice that: 0.625 * 3 * 2 = 3.75,
    so latency may hold 4 replicas and not 20.
    """
    unsure = replace(CONFIG, capacity=replace(CONFIG.capacity, prior_uncertainty_factor=3.0))
    play(
        """
       at_s  ready  rate        ttft  waiting | want  decided_by  ttft
          0     20     1    0:0:0:100:0       0 |   20  hold_down      4
        ...
        315     20     1    0:0:0:100:0       0 |    4  ttft           4
        330     20     1    0:0:0:100:0       5 |   22  ttft          22   # they wait: 20 + 2
    """,
        unsure,
    )


def test_inter_token_latency_counts_where_it_has_an_objective() -> None:
    config = replace(CONFIG, slo=SloConfig(tpot_s=0.08))  # room 0.0175 s of 0.0625 s: 100 sequences
    play(
        """
       at_s  ready  rate         itl | want  itl   decided_by
          0      2     3  100:0:0:0  |    2     0  work
         15      2     3   50:0:0:50 |    3     3  itl
    """,
        config,
    )
    play("""
       at_s  ready  rate         itl | want  itl   decided_by
          0      2     3   50:0:0:50 |    2  none  work
    """)


def test_inter_token_latency_near_its_objective_stops_the_way_down() -> None:
    config = replace(CONFIG, slo=SloConfig(tpot_s=0.08))
    play(
        """
       at_s  ready  rate         itl | want  decided_by
          0      4   2.6   90:0:10:0 |    4  hold_down
        ...
        315      4   2.6   80:0:19:1 |    4  veto       # 20 * (1 / 20) ** 0.8 = 1.8 above 0.072 s
        330      4   2.6   100:0:0:0 |    2  work
    """,
        config,
    )


def test_decode_replicas_do_not_answer_for_time_to_first_token() -> None:
    """Decode: 200 steps of 0.0625 s shared by 100 are 0.125 s.  Prefill: 0.5 s and its step.

    Rate 20: decode 20 * 0.125 = 2.5, mixed 20 * 0.625 = 12.5.  A prefill step of 2048 tokens has
    an overhead of 0.0625 s: 0.5 + 0.0625 * 1001 / 2048 = 0.53, times 20 is 10.6.
    """
    script = """
       at_s  ready  rate         ttft | work  ttft
          0      1    20  50:0:0:50:0 |  {work}  {ttft}
    """
    for role, work, ttft in ((Role.MIXED, 13, 2), (Role.PREFILL, 11, 2), (Role.DECODE, 3, "none")):
        play(script.format(work=work, ttft=ttft), replace(CONFIG, role=role))


# -- KV cache --------------------------------------------------------------------------------------


def test_a_full_kv_cache_without_a_queue_is_a_healthy_batch() -> None:
    play("""
       at_s  ready  rate    kv  waiting | want  decided_by  kv_cache
          0      4     5  0.99        0 |    4  .                  4
         15      4     5  0.99        3 |    5  kv_cache           5   # 4 * 0.99 / 0.9 = 4.4
         30      4     5  0.20        0 |    5  hold_down          1
    """)


def test_a_full_kv_cache_waits_for_the_replicas_on_their_way() -> None:
    play("""
       at_s  ready  starting  rate    kv  waiting | kv_cache
          0      4         1     5  0.99        3 |        5   # ceil(4.4), and wanted is 5
         15     10         2     5  0.99        3 |       11   # ceil(11.0)
         30     20         1     5  1.00        3 |       21   # ceil(22.2) capped at wanted
         45      0         2     5  0.99        3 |     none   # nobody ready to measure
    """)


# -- GPU -------------------------------------------------------------------------------------------


def test_busy_gpus_that_the_engines_explain_do_not_stop_the_way_down() -> None:
    play("""
       at_s  ready  rate  running   gpu | want  decided_by
          0      4   2.6        8  1.00 |    4  hold_down
        ...
        315      4   2.6        8  1.00 |    2  work
    """)


def test_busy_gpus_that_nothing_explains_stop_the_way_down() -> None:
    """Fewer than half a request running per replica, and the GPUs at 95 %: somebody is unseen."""
    play("""
       at_s  ready  rate  running   gpu | want  decided_by
          0      4   2.6        1  1.00 |    4  hold_down
        ...
        315      4   2.6        1  1.00 |    4  veto
        330      4   2.6        1  0.94 |    2  work
        345      4   2.6        1  0.96 |    4  veto
        360      4   2.6        2  0.96 |    2  work        # 2 running on 4 replicas: explained
    """)


def test_gpu_utilisation_proposes_only_when_asked_to() -> None:
    play("""
       at_s  ready  rate  running   gpu | want  gpu
          0      4     5        8  1.00 |    4  none
    """)
    asked = replace(CONFIG, signals=SignalConfig(gpu_util_target_ratio=0.8))
    play(
        """
       at_s  ready  rate  running   gpu | want  gpu   decided_by
          0      4     5        8  1.00 |    5  5     gpu          # 4 * 1 / 0.8
         15      0     5        0  1.00 |    .  none  .            # nobody ready to measure
         30      4     5        8     - |    .  none  .
    """,
        asked,
    )


# -- blind -----------------------------------------------------------------------------------------


def test_blind_holds_within_the_grace_then_keeps_the_current_count() -> None:
    """The grace is 120 s.  An unexpected shrink of the fleet is not made up for, nor followed."""
    play("""
       at_s  ready  rate       engines | want  decided_by  verdict  active
          0      3    10             . |    7  work        fresh    yes   # 5 / 0.8 = 6.25
         15      3     0        -stale |    7  blind       held     yes
        120      5     0        -stale |    7  blind       held     yes
        135      5     0  -unreachable |    5  floor       floored  yes   # the HPA got so far
        150      7     0        -empty |    7  floor       floored  yes
        900      7     0        -empty |    7  floor       floored  yes
        915      7     0             . |    7  hold_down   fresh    yes   # begins anew
       1000      7     0             . |    7  hold_down   fresh    yes
       1100      7     0             . |    7  hold_down   fresh    yes
       1200      7     0             . |    7  hold_down   fresh    yes
       1230      7     0             . |    1  .           fresh    yes
    """)


def test_a_wrong_model_label_is_blind_and_says_so() -> None:
    played = play("""
       at_s  ready  rate    engines | want  decided_by  verdict
          0      6     5          . |    6  hold_down   fresh
         15      6     0  -no_match |    6  blind       held
        300      6     0  -no_match |    6  floor       floored
    """)
    causes = {item.cause for item in played.decisions[-1].blind if item.signal is not Signal.GPU}
    assert causes == {Cause.NO_MATCH}


def test_the_floor_applies_when_blind_for_long() -> None:
    floor = replace(CONFIG, freshness=FreshnessConfig(floor_replicas=4))
    play(
        """
       at_s  ready  rate  engines | want  verdict
          0      2     3        . |    2  fresh
        100      2     0   -stale |    2  held
        200      2     0   -stale |    4  floored
        215      6     0   -stale |    6  floored
    """,
        floor,
    )


def test_without_any_good_observation_nothing_is_said() -> None:
    play("""
       at_s  ready       engines | verdict  active
          0      3  -unreachable |  unknown  yes
        300      3  -unreachable |  unknown  yes
        315      3             . |  fresh    yes
    """)


def test_gpus_may_ask_for_more_while_the_engines_are_blind_but_only_once() -> None:
    """3 ready at 100 % of 80 %: ceil(3.75) = 4.  The gauge stays at 100 %: no fifth, no sixth."""
    play("""
       at_s  ready  rate   gpu  engines | want  decided_by  gpu
          0      3     4  1.00        . |    3  work        none
         15      3     0  1.00   -stale |    4  gpu         4
        300      4     0  1.00   -stale |    4  floor       4
        600      5     0  1.00   -stale |    5  floor       4
        615      5     0     -   -stale |    5  floor       none
    """)


def test_one_lost_signal_stops_the_way_down_and_not_the_way_up() -> None:
    play("""
       at_s  ready  rate  running  gpu | want  decided_by
          0      4   2.6        4  0.5 |    4  hold_down
        ...
        315      4   2.6        4    - |    4  blind       # the GPUs were there lately
        330      4    10        4    - |    7  work
        345      7    10        4  0.5 |    7  work
    """)
    play("""
       at_s  ready  rate  running | want  decided_by
          0      4     -        4 |    4  hold_down
        ...
        315      4     -        4 |    4  blind       # never counted an arrival
        330      4   2.6        - |    4  blind       # the gauges are gone
    """)


def test_a_signal_not_seen_for_a_day_is_no_longer_missed() -> None:
    brief = replace(CONFIG, freshness=FreshnessConfig(expect_s=300.0))
    play(
        """
       at_s  ready  rate  gpu | want  decided_by
          0      4   2.6  0.5 |    4  hold_down
         15      4   2.6    - |    4  hold_down
        ...
        300      4   2.6    - |    4  hold_down
        315      4   2.6    - |    2  work        # seen last 315 s ago
    """,
        brief,
    )


def test_a_sum_that_misses_replicas_lowers_nothing() -> None:
    """Work covers 3 of 4 ready replicas: its sum is too small to go down on, not to go up on."""
    state = play("""
       at_s  ready  rate | want
          0      4   2.6 |    4
        120      4   2.6 |    4
        240      4   2.6 |    4
    """).state
    row = rows("at_s ready rate | want\n 315 4 2.6 | 2")[0]
    whole = observation(row.left)
    assert not isinstance(whole.work, NoData)
    assert decide(whole, state, CONFIG, 315.0)[0].replicas_desired == 2
    partial = replace(whole, work=replace(whole.work, coverage_ratio=0.75))
    decision, _ = decide(partial, state, CONFIG, 315.0)
    assert (decision.replicas_desired, decision.decided_by) == (4, Stage.BLIND)
    assert [(item.signal, item.cause) for item in decision.blind if item.signal is Signal.WORK] == [
        (Signal.WORK, Cause.PARTIAL)
    ]


# -- Kubernetes API down ---------------------------------------------------------------------------


def test_without_the_kubernetes_api_the_count_comes_from_load_and_never_falls() -> None:
    play("""
       at_s  wanted  ready  rate | want  decided_by  verdict    active
          0       3      3     4 |    3  work        fresh      yes
         15       -      .    10 |    7  work        load_only  yes
         30       -      .     1 |    7  hold_down   load_only  yes
        120       -      .     1 |    7  hold_down   load_only  yes
        240       -      .     1 |    7  hold_down   load_only  yes
        360       -      .     1 |    7  no_api      load_only  yes   # the window is over
        375       7      7     1 |    1  .           fresh      yes
    """)


def test_a_fleet_never_counted_is_not_sized_from_load_alone() -> None:
    """A restart while the Kubernetes API is down: 8 replicas may run, load asks for 3."""
    play("""
       at_s  wanted  rate | verdict
          0       -     4 | unknown
         15       -     4 | unknown
         30       8     4 | fresh
         45       -     4 | load_only
    """)


def test_without_the_api_and_blind_the_last_count_is_held() -> None:
    play("""
       at_s  wanted  ready  rate  engines | want  verdict
          0       5      5     4        . |    5  fresh
         15       -      .     0   -stale |    5  held
        300       -      .     0   -stale |    5  floored
    """)


def test_replicas_counted_by_those_that_answer_do_not_shrink_with_them() -> None:
    """No Kubernetes API, 8 endpoints, 3 answer with TTFT missed: not fewer than the 8 wanted."""
    first, second = rows("""
       at_s  ready  rate         ttft | want
          0      8     4  50:0:0:50:0 |    8
        400      3     4  50:0:0:50:0 |    8
    """)
    unsure = replace(CONFIG, capacity=replace(CONFIG.capacity, prior_uncertainty_factor=3.0))
    state = PolicyState()
    counts = []
    for row in (first, second):
        seen = observation(row.left)
        assert not isinstance(seen.replicas, NoData)
        seen = replace(seen, replicas=replace(seen.replicas, inferred=True))
        decision, state = decide(seen, state, unsure, seen.seen_at_s)
        counts.append(decision.would_be)
    assert counts == [9, 9]  # 8 + ceil(0.1 * 8); then the silent ones count as on their way
    assert isinstance(seen.replicas, Replicas)
    nobody = replace(seen, replicas=replace(seen.replicas, wanted=0, current=0, ready=0))
    decision, _ = decide(nobody, PolicyState(), CONFIG, 500.0)
    assert decision.verdict is Verdict.UNKNOWN
    assert isinstance(decision.observation.replicas, NoData)


# -- start of the daemon ---------------------------------------------------------------------------


def test_a_restarted_daemon_does_not_shrink_a_fleet_it_has_not_watched() -> None:
    play("""
       at_s  ready  rate | want  decided_by
          0      9     1 |    9  hold_down
        ...
        315      9     1 |    1  .
    """)


def test_a_restart_from_an_old_checkpoint_holds_what_it_finds() -> None:
    before = play("at_s ready rate | want\n 0 2 3 | 2\n 15 2 3 | 2").state
    play(
        """
       at_s  ready  rate | want  decided_by
       5000      9     1 |    9  hold_down
       5100      9     1 |    9  hold_down
       5200      9     1 |    9  hold_down
       5300      9     1 |    9  hold_down
       5315      9     1 |    1  .
    """,
        state=before,
    )


def test_status_zero_amplifies_nothing() -> None:
    """Ray 61731: status.replicas is 0 for a moment after a change; the count is no ratio."""
    play("""
       at_s  wanted  current  ready  rate  waiting | want  decided_by
          0       5        5      5     6        0 |    5  keep   # 3 * 1.1 / 0.8 = 4.1
         15       5        0      0     6       20 |    5  queue  # 5 are wanted, so 5 will serve
         30       5        5      5     6        0 |    5  keep
    """)


# -- zero ------------------------------------------------------------------------------------------


def test_zero_needs_a_whole_proof_of_idleness() -> None:
    play(
        """
       at_s  ready  rate  running  gateway | want  decided_by  active
          0      2     0        0        0 |    2  hold_down   yes
        100      2     0        0        0 |    2  hold_down   yes
        200      2     0        0        0 |    2  hold_down   yes
        300      2     0        0        0 |    2  hold_down   yes
        400      2     0        1        0 |    1  .           yes   # one request: begins anew
        500      2     0        0        0 |    1  .           yes
        600      2     0        0        1 |    1  .           yes   # at the gateway: again
        700      2     0        0        0 |    1  .           yes
        800      2     0        0        0 |    1  .           yes
        900      2     0        0        0 |    1  .           yes
       1000      2     0        0        0 |    1  .           yes
       1100      2     0        0        0 |    1  .           yes
       1200      2     0        0        0 |    1  .           yes
       1290      2     0        0        0 |    1  .           yes
       1300      2     0        0        0 |    0  idle        no    # 600 s since 700
       1315      2     0        0        0 |    0  idle        no
       1330      2     3        1        0 |    2  .           yes
    """,
        ZERO,
    )


def test_idleness_is_not_proven_over_a_blindness_or_without_a_signal() -> None:
    play(
        """
       at_s  ready  rate  gpu  engines | want  active
          0      1     0  0.1        . |    1  yes
        100      1     0  0.1        . |    1  yes
        200      1     0  0.1   -stale |    1  yes
        210      1     0  0.1        . |    1  yes     # the proof begins here
        310      1     0  0.1        . |    1  yes
        410      1     0  0.1        . |    1  yes
        510      1     0  0.1        . |    1  yes
        610      1     0    -        . |    1  yes     # the GPUs are not seen: begins anew
        630      1     0  0.1        . |    1  yes
        730      1     0  0.1        . |    1  yes
        830      1     0  0.1        . |    1  yes     # 620 s since 210, 200 s since 630
       1229      1     0  0.1        . |    1  yes     # nobody watched for 399 s: begins anew
       1300      1     0  0.1        . |    1  yes
       1400      1     0  0.1        . |    1  yes
       1500      1     0  0.1        . |    1  yes
       1600      1     0  0.1        . |    1  yes
       1700      1     0  1.0        . |    1  yes     # somebody uses the GPUs
       1710      1     0  0.1        . |    1  yes
       1810      1     0  0.1        . |    1  yes
       1910      1     0  0.1        . |    1  yes
       2010      1     0  0.1        . |    1  yes
       2110      1     0  0.1        . |    1  yes
       2210      1     0  0.1        . |    1  yes
       2310      1     0  0.1        . |    0  no
       2325      1     0  0.1   -stale |    0  no      # as before
       2500      1     0  0.1   -stale |    1  yes     # blind is not idle
    """,
        ZERO,
    )


def test_a_minimum_above_zero_forbids_zero() -> None:
    script = "at_s ready rate | want active\n"
    script += "\n".join(f"{100 * i} 1 0 | 1 yes" for i in range(12))
    play(script)


def test_a_gateway_wakes_a_target_and_the_wake_lasts_until_keda_has_polled() -> None:
    """Kept for max(600 s of idleness, grace): KEDA may poll every 30 s, a tick is 15 s."""
    play(
        """
       at_s  ready  gateway     engines | want  decided_by  verdict  active
          0      0        0  -refused   |    0  idle        fresh    no
         15      0        1  -refused   |    1  wake        fresh    yes
         30      0        0  -refused   |    1  wake        fresh    yes
        600      0        0  -refused   |    1  wake        fresh    yes
        615      0        0  -refused   |    1  wake        fresh    yes
        630      0        0  -refused   |    0  idle        fresh    no
    """,
        ZERO,
    )


def test_a_woken_target_stays_while_its_first_replica_loads() -> None:
    play(
        """
       at_s  ready  starting  gateway   engines | want  verdict  active
          0      0         0        1  -refused |    1  fresh    yes
         15      0         1        0  -refused |    1  held     yes
        200      0         1        0  -refused |    1  floored  yes
        215      1         0        0         . |    1  fresh    yes
    """,
        ZERO,
    )


def test_blind_at_zero_stays_silent_unless_told_to_wake() -> None:
    script = """
       at_s  ready   engines | want  verdict  active
          0      0  -refused | {want}  {verdict}  {active}
    """
    play(script.format(want=0, verdict="unknown", active="no"), ZERO)
    woken = replace(ZERO, freshness=FreshnessConfig(wake_when_blind=True))
    play(script.format(want=1, verdict="floored", active="yes"), woken)


def test_spec_zero_is_zero_while_the_last_pods_still_end() -> None:
    """KEDA counts spec.replicas.  A pod that hangs in terminating must not wake the target."""
    play(
        """
       at_s  wanted  current  ready  engines   | want  verdict  active
          0       0        1      0  -refused  |    0  unknown  no
        500       0        1      0  -refused  |    0  unknown  no
    """,
        ZERO,
    )


def test_zero_below_the_minimum_wants_the_minimum_whatever_is_seen() -> None:
    play("""
       at_s  ready  min  max   engines | want  decided_by  verdict  active
          0      0    2    9  -refused |    2  bounds      fresh    yes
    """)


def test_wake_replicas_are_asked_for_within_the_bounds() -> None:
    play(
        """
       at_s  ready  max  gateway | want  decided_by
          0      0    9        1 |    3  wake
         15      0    2        1 |    2  bounds
    """,
        replace(ZERO, zero=ZeroConfig(wake_replicas=3)),
    )


# -- modes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.ADVISORY, Mode.FROZEN])
def test_a_mode_that_looks_on_publishes_current_and_records_what_would_be(mode: Mode) -> None:
    play(
        """
       at_s  ready  rate  engines | want  would_be  decided_by  verdict
          0      3    10        . |    3         7  frozen      fresh
         15      7    10        . |    7         7  work        fresh
         30      9     0   -stale |    9         7  frozen      held
    """,
        replace(CONFIG, mode=mode),
    )


@pytest.mark.parametrize("mode", [Mode.ADVISORY, Mode.FROZEN])
def test_a_mode_that_looks_on_neither_wakes_nor_stops_a_target(mode: Mode) -> None:
    config = replace(ZERO, mode=mode, zero=ZeroConfig(idle_proof_s=100.0))
    play(
        """
       at_s  ready  rate  gateway | want  would_be  active
          0      2     0        0 |    2         2  yes
        100      2     0        0 |    2         0  yes
        200      0     0        1 |    0         1  no
    """,
        config,
    )


@pytest.mark.parametrize("mode", [Mode.ADVISORY, Mode.FROZEN])
def test_the_current_count_cannot_be_published_when_nobody_has_counted(mode: Mode) -> None:
    play(
        """
       at_s  wanted  ready  rate  engines | would_be  verdict
          0       3      3    10        . |        7  fresh
         15       -      .    10        . |        7  unknown
         30       -      .    10   -stale |        7  unknown
    """,
        replace(CONFIG, mode=mode),
    )


# -- forecast --------------------------------------------------------------------------------------

TREND = replace(
    CONFIG,
    forecaster=ForecasterName.TREND,
    forecast=ForecastConfig(quantile_ratio=0.5, level_time_constant_s=10.0),
)


def _ramp(count: int) -> str:
    return "".join(f"{15 * i} 40 {2 + 0.1 * i:.2f} | .\n" for i in range(count))


def test_a_forecast_that_has_proven_itself_adds_before_the_load_arrives() -> None:
    """A steady ramp beats persistence at a lead of 13 ticks, so after one lead it is used."""
    played = play("at_s ready rate | want\n" + _ramp(60), TREND)
    early, last = played.decisions[5], played.decisions[-1]
    assert early.forecast is not None
    assert not early.forecast.used  # nothing has come due
    assert last.forecast is not None
    assert last.forecast.used
    assert last.forecast.skill > 0.2
    alone = {item.signal: item.replicas for item in last.proposals}
    assert alone[Signal.FORECAST] > alone[Signal.WORK]


def test_a_forecast_worse_than_persistence_is_dropped() -> None:
    """Load alternates every lead time: a trend is wrong each time, the last value less so."""
    script = "at_s ready rate | want\n"
    script += "".join(f"{15 * i} 40 {12 if (i // 13) % 2 else 2} | .\n" for i in range(120))
    last = play(script, TREND).decisions[-1].forecast
    assert last is not None
    assert last.skill < 0.0
    assert not last.used
    # Persistence: the mean of the last minute, 12 * 0.625 or 2 * 0.625.
    assert last.load_mean == pytest.approx(7.5, rel=1e-3) or (
        last.load_mean == pytest.approx(1.25, rel=1e-3)
    )


def test_a_forecast_never_causes_a_scale_down() -> None:
    """A falling trend forecasts less than the present load: the present load still stands."""
    script = "at_s ready rate | want\n"
    script += "".join(f"{15 * i} 40 {max(20 - 0.15 * i, 6):.2f} | .\n" for i in range(90))
    played = play(script, TREND)
    assert any(item.forecast is not None and item.forecast.used for item in played.decisions)
    lower = [
        decision
        for decision in played.decisions
        if decision.forecast and decision.demand and decision.capacity
        if decision.forecast.load_upper
        < decision.demand.requests_per_s * decision.capacity.request_cost_s - 0.5
    ]
    assert lower, "the script shows nothing: the forecast never was below the load"
    for decision in lower:
        work = next(item for item in decision.proposals if item.signal is Signal.WORK)
        assert decision.would_be >= work.replicas
        assert decision.steps[0].stage is not Stage.FORECAST


def test_a_forecast_delays_a_scale_down() -> None:
    """Up a ramp to its top: while the forecast is above the load, its count is what is held."""
    state = play("at_s ready rate | want\n" + _ramp(60), TREND).state
    row = rows(f"at_s ready rate | want\n{15 * 60} 40 8 | .")[0]
    with_forecast, _ = decide(observation(row.left), state, TREND, 900.0)
    without, _ = decide(
        observation(row.left), state, replace(TREND, forecaster=ForecasterName.LAST), 900.0
    )
    assert with_forecast.steps[0].stage is Stage.FORECAST
    assert with_forecast.steps[0].replicas > without.steps[0].replicas


# -- faults in numbers -----------------------------------------------------------------------------


def test_numbers_no_fleet_can_produce_are_no_data_and_leave_no_trace() -> None:
    """One NaN and one 1e300 in the counters: held, said, and the next decision is as before."""
    before = play("at_s ready rate | want\n 0 3 4 | 3\n 15 3 4 | 3")
    row = rows("at_s ready rate | want\n 30 3 4 | 3")[0]
    good = observation(row.left)
    assert not isinstance(good.work, NoData)
    for poison, cause in ((float("nan"), Cause.NOT_A_NUMBER), (1e300, Cause.MALFORMED)):
        bad = replace(good, work=replace(good.work, requests_arrived=poison))
        decision, state = decide(bad, before.state, CONFIG, 30.0)
        assert decision.replicas_desired == 3
        assert cause in {item.cause for item in decision.blind}
        later = replace(good, seen_at_s=45.0, work=replace(good.work, seen_at_s=45.0))
        assert decide(later, state, CONFIG, 45.0)[0].replicas_desired == 3


def test_a_negative_balance_of_arrivals_is_no_demand_and_no_fault() -> None:
    play("""
       at_s  ready  rate | want  verdict
          0      2    -5 |    2  fresh
         15      2     3 |    2  fresh
    """)


def test_the_smallest_config_still_decides() -> None:
    """Attainment 0.5 asks for no slack at all: a load of 1.5 is two replicas."""
    config = PolicyConfig(
        slo=SloConfig(attainment_target_ratio=0.5),
        capacity=CONFIG.capacity,
        forecast=CONFIG.forecast,
        forecaster=ForecasterName.LAST,
    )
    play("at_s ready rate | want work\n 0 1 3 | 2 2", config)


# -- what the HPA can be made to do --------------------------------------------------------------


SWALLOWED = """
       at_s  ready  rate  min  max | want  decided_by
          0     20    33  {low:>3}  {high:>3} | {want:>4}  {decided_by}
"""  # 16.5 / 0.8 = 20.6: 21, which a tolerance of 10 % swallows from 20


def test_a_step_the_tolerance_swallows_is_rounded_up_or_cut_to_it_by_the_maximum() -> None:
    tolerant = replace(CONFIG, hpa=HpaConfig(tolerance_up_ratio=0.1, tolerance_down_ratio=0.1))
    up = SWALLOWED.format(low=1, high=99, want=22, decided_by="unreachable_step")
    cut = SWALLOWED.format(low=1, high=21, want=21, decided_by="work")
    assert play(up, tolerant).decisions[0].encoded == 22.0
    assert play(cut, tolerant).decisions[0].encoded == 22.0  # heard, and cut to 21 by the HPA


def test_what_was_rounded_up_is_held_like_any_other_count() -> None:
    tolerant = replace(
        CONFIG,
        hpa=HpaConfig(tolerance_up_ratio=0.1, tolerance_down_ratio=0.1),
        hold_down=HoldDownConfig(margin_ratio=0.0, scatter_factor=0.0, drift_ratio=0.0),
    )
    play(
        """
       at_s  ready  rate | want  decided_by
          0     20    33 |   22  unreachable_step
         15     22    33 |   22  hold_down
    """,
        tolerant,
    )


def test_holding_below_the_minimum_is_left_to_the_hpa() -> None:
    """A cheap shortage holds at 20; the HPA raises to a minimum of 21 without looking."""
    hpa = HpaConfig(tolerance_up_ratio=0.1, tolerance_down_ratio=0.1, shortage_price_ratio=0.1)
    cheap = replace(CONFIG, hpa=hpa)
    play(SWALLOWED.format(low=1, high=99, want=20, decided_by="unreachable_step"), cheap)
    play(SWALLOWED.format(low=21, high=99, want=21, decided_by="work"), cheap)


def test_from_kubernetes_1_33_each_direction_has_its_tolerance() -> None:
    exact_up = {"tolerance_up_ratio": 0.0, "tolerance_down_ratio": 0.1}
    exact = replace(CONFIG, hpa=HpaConfig(kubernetes_minor=35, **exact_up))
    play(SWALLOWED.format(low=1, high=99, want=21, decided_by="work"), exact)
    wide = replace(exact, hpa=replace(exact.hpa, tolerance_up_ratio=0.1))
    play(SWALLOWED.format(low=1, high=99, want=23, decided_by="unreachable_step"), wide)
