"""What went wrong elsewhere, and each signal alone, right and wrong: at the shipped defaults.

Only the tolerance is not the default: the shipped ScaledObject sets it to 0.  Nothing is learned in
a script, so a request of the prior mix (1000 prompt and 200 output tokens) costs 0.127 s of a
replica, give or take a factor that the prior calls its uncertainty.
"""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from scaler.core.config import BoundsConfig, HpaConfig, PolicyConfig, SloConfig
from scaler.core.model import Decision, Role, Signal, Stage, Verdict, Work
from scaler.core.policy import PolicyState, decide
from tests.core.play import Played, observation, play

DEFAULT = PolicyConfig(hpa=HpaConfig(tolerance_up_ratio=0.0, tolerance_down_ratio=0.0))
TPOT = replace(DEFAULT, slo=SloConfig(tpot_s=0.04))


def at_defaults(script: str, *, follow_s: float = 0) -> Played:
    return play(script, DEFAULT, follow_s=follow_s)


# -- the thirteen scenarios from real threads ------------------------------------------------------


def test_no_flap_between_two_and_one() -> None:
    """ai-dynamo/dynamo#9294: a flat threshold between one replica and two was crossed each tick.

    Twelve hours of a rate that swings by a fifth around what one replica carries.
    """
    swing = (0.9, 1.1, 0.8, 1.2, 1.0)
    script = "at_s ready rate | want\n" + "\n".join(
        f"{15 * tick} 1 {5.0 * swing[tick * tick % 5]:.2f} | ." for tick in range(2880)
    )
    counts = [item.replicas_desired for item in at_defaults(script, follow_s=120.0).decisions]
    changes = [(a, b) for a, b in pairwise(counts[240:]) if a != b]
    assert len(changes) <= 1, changes  # at most one, as the capacity's doubt settles
    assert set(counts) <= {1, 2}


def test_an_unschedulable_pod_does_not_block_the_way_down() -> None:
    """ai-dynamo/dynamo#14251: a pod that nobody could place counted as a scale-out under way."""
    at_defaults("""
       at_s  ready  unschedulable  rate | want  decided_by
          0      4              2     6 |    6  hold_down
        ...
        600      4              2     6 |    6  hold_down
        615      4              2     6 |    2  work   # 0.76 and its doubts
    """)


def test_a_queue_that_ttft_does_not_show_is_seen() -> None:
    """ai-dynamo/dynamo#10528: TTFT knew nothing of the queue, and those who waited had none yet."""
    at_defaults("""
       at_s  ready  rate  running  waiting         ttft | want  decided_by  ttft
          0      1     3       40        0  100:0:0:0:0 |    1        work     0
         15      1     3       40     1500  100:0:0:0:0 |    2       queue     0
    """)


def test_a_wrong_model_label_is_said_and_moves_nothing() -> None:
    """llm-d/llm-d#2310: every status was green while no series had the label that was asked for."""
    at_defaults("""
       at_s  ready  rate    engines | want  decided_by  verdict
          0      4    12          . |    4        keep    fresh
         15      4     .  -no_match |    4       blind     held
        300      4     .  -no_match |    4       floor  floored
    """)


def test_an_empty_vector_is_not_zero() -> None:
    """kedacore/keda#3065: no series read as no load.  Nor do gauges without counters lower it."""
    at_defaults("""
       at_s  ready  rate  running  waiting | want  decided_by
          0      4     6       40        0 |    4  hold_down
        ...
        600      4     6       40        0 |    4  hold_down
        615      4     -        -        - |    4  blind
        ...
        720      4     -        -        - |    4  blind
        900      4     -        -        - |    4  floor
       3600      4     -        -        - |    4  floor
    """)


def test_a_current_count_of_zero_multiplies_nothing() -> None:
    """ray-project/ray#61731: a ratio to a current count of 0 asked for the maximum."""
    at_defaults("""
       at_s  ready  wanted  current  rate  waiting | want
          0      0       1        0     0        0 |    1
         15      0       1        0     6       20 |    1
         30      0       1        0     6       90 |    1
    """)


def test_the_window_keeps_the_highest_and_never_the_lowest() -> None:
    """volcano-sh/kthena#946: maximum and minimum of the two windows were exchanged.

    One low sample in the window lowers nothing; one high sample is answered at once.
    """
    at_defaults("""
       at_s  ready  rate  running  waiting | want  decided_by
          0      5    12       40        0 |    5  hold_down
         15      5     0        0        0 |    5  .
         30      5    12       40        0 |    5  .
         45      5   150       40        0 |   16  forecast   # the rise is answered whole
         60     18     0        0        0 |   18  hold_down
    """)


def test_pods_that_are_not_replicas_freeze_nothing() -> None:
    """llm-d/llm-d-autoscaling#1302: pods != replicas was "in transition", so nothing moved again.

    A replica that has been starting for two hours is neither capacity to come nor a reason to wait.
    """
    at_defaults("""
       at_s  ready  starting  starting_s  rate  waiting | want  decided_by
          0      3         1        7200    12        0 |    4  keep
         15      3         1        7215    30        0 |    5  forecast
         30      6         1        7230     2        0 |    .  .
        ...
       1200      6         1        8400     2        0 |    4  keep
    """)


def test_a_closed_loop_does_not_pin_the_fleet_at_its_maximum() -> None:
    """The warning of llm-d's token-aware guide: closed-loop users keep as many tokens in flight
    however many replicas there are, so a count from what is in flight rises without end.

    64 users without a pause: 64 run whatever the count; each takes 10 s, so 6.4 requests/s.
    """
    decisions = at_defaults(
        "at_s ready rate running ttft gpu | want\n"
        + "\n".join(f"{15 * tick} 2 6.4 64 95:5:0:0:0 1 | ." for tick in range(480)),
        follow_s=120.0,
    ).decisions
    assert max(item.would_be for item in decisions) == 2
    assert decisions[-1].would_be == 2


def test_a_gauge_that_no_count_brings_to_its_target_pins_nothing() -> None:
    """defilantech/LLMKube#482: KV use of a fixed share cannot reach its target, so each sync adds.

    A use of 99 % with nobody waiting holds the count; it never adds.
    """
    decisions = at_defaults(
        "at_s ready rate running kv | want\n"
        + "\n".join(f"{15 * tick} 3 2 20 0.99 | ." for tick in range(480)),
        follow_s=120.0,
    ).decisions
    assert {item.would_be for item in decisions} == {3}
    assert decisions[-1].decided_by is Stage.KV_CACHE


def test_a_restarted_scaler_holds_what_it_finds() -> None:
    """Knative starts in panic mode where it finds more than one pod: it knows nothing of before."""
    at_defaults("""
       at_s  ready  rate | want  decided_by
          0      6     1 |    6  hold_down
        ...
        600      6     1 |    6  hold_down
        615      6     1 |    1  work
    """)


# -- each signal alone reveals the need ------------------------------------------------------------


def test_arriving_work_alone_asks() -> None:
    at_defaults("""
       at_s  ready  rate | want  decided_by
          0      2    30 |    7  work
    """)


def test_the_queue_alone_asks() -> None:
    """1500 requests wait, 190 s of a replica that has 0.62 to spare: 306 s, longer than a start.

    A miss is dear in the first hour, some 15 requests: 0.38 + sqrt(15 * 1 * 190 / 795) = 2.3.
    """
    at_defaults("""
       at_s  ready  rate  running  waiting | want  decided_by  work  kv_cache
          0      1     3       40        0 |    1       work     1         0
         15      1     3       40     1500 |    2      queue     1         0
    """)


def test_the_kv_cache_alone_asks_where_requests_feel_it() -> None:
    """ceil(4 * 0.99 / 0.9) = 5."""
    at_defaults("""
       at_s  ready  rate  waiting    kv | want  decided_by  work  queue  kv_cache
          0      4     1        1  0.99 |    5    kv_cache     1      .         5
    """)


def test_ttft_alone_asks_one_step_for_far_too_many_misses() -> None:
    """40 % beyond 2.5 s, one request waits: a step of ceil(0.1 * 4) = 1, and one per lead time."""
    at_defaults("""
       at_s  ready  rate  waiting          ttft | want  decided_by  work  ttft
          0      4     1        1   60:0:0:40:0 |    5        ttft     1     5
         15      5     1        1   60:0:0:40:0 |    5        ttft     1     5
    """)


def test_inter_token_latency_alone_asks_one_step() -> None:
    play(
        """
       at_s  ready  rate  waiting         itl | want  decided_by  work  itl
          0      4     1        1  50:0:0:50 |    5         itl     1    5
    """,
        TPOT,
    )


def test_gpus_alone_ask_where_the_engines_are_blind() -> None:
    """ceil(4 * 1.0 / 0.8) = 5; and busy GPUs that no engine explains keep what there is."""
    at_defaults("""
       at_s  ready  rate  running  gpu       engines | want  decided_by
          0      4    12       40    1             . |    4        keep
         15      4     .        .    1  -unreachable |    5         gpu
         30      5     .        .    1  -unreachable |    5         .
    """)
    at_defaults("""
       at_s  ready  rate  running  gpu | want  decided_by
          0      4     0        0    1 |    4  hold_down
        ...
        600      4     0        0    1 |    4  hold_down
        615      4     0        0    1 |    4  veto
    """)


# -- each signal alone misleads --------------------------------------------------------------------


def test_a_few_waiting_requests_are_no_backlog() -> None:
    """Twenty wait, 2.5 s of four replicas' time: admission within the objective."""
    at_defaults("""
       at_s  ready  rate  running  waiting | want  decided_by  queue
          0      4    12      400       20 |    4  keep            2
    """)


def test_a_full_kv_cache_without_a_queue_is_healthy() -> None:
    at_defaults("""
       at_s  ready  rate  running    kv | want  decided_by  kv_cache
          0      4    12      400  0.99 |    4        kv_cache         4
    """)


def test_ttft_is_silent_in_a_stall_and_the_queue_is_not() -> None:
    """Nobody gets a first token, so the histogram is empty; arrivals stop being counted as well."""
    at_defaults("""
       at_s  ready  rate  running  waiting         ttft | want  decided_by  ttft
          0      1     3      100        0  100:0:0:0:0 |    1        work     0
         15      1     0      256     1500    0:0:0:0:0 |    2       queue  none
    """)


def test_long_prompts_on_idle_replicas_are_no_load() -> None:
    """Half miss the objective, nobody waits, and the work is that of an eighth of a replica."""
    at_defaults("""
       at_s  ready  rate          ttft | want  decided_by  ttft
          0      3     1   50:0:0:50:0 |    3   hold_down     1
         15      3     1   50:0:0:50:0 |    3   hold_down     .
        ...
        600      3     1   50:0:0:50:0 |    3   hold_down     .
        615      3     1   50:0:0:50:0 |    1   work          .
    """)


def test_gpus_at_100_percent_that_the_engines_explain_hold_nothing() -> None:
    """vLLM's decode loop keeps a GPU busy with one request as with two hundred."""
    at_defaults("""
       at_s  ready  rate  running  gpu | want  decided_by  gpu
          0      4     1        4    1 |    4  hold_down   none
        ...
        600      4     1        4    1 |    4  hold_down   none
        615      4     1        4    1 |    1  work        none
    """)


def _cached(
    share: float, *, ticks: int, state: PolicyState, first: int
) -> tuple[Decision, PolicyState]:
    """4 requests/s on four replicas, ``share`` of whose prompt tokens are in the cache."""
    for tick in range(first, first + ticks):
        seen = observation({"at_s": str(15.0 * tick), "ready": "4", "rate": "4", "running": "40"})
        assert isinstance(seen.work, Work)
        tokens = 60.0 * 2000.0
        work = replace(
            seen.work,
            prompt_tokens=tokens * (1.0 - share),
            cached_tokens=tokens * share,
            finished_prompt_tokens=tokens,
            finished_output_tokens=60.0 * 20.0,
        )
        decision, state = decide(replace(seen, work=work), state, DEFAULT, seen.seen_at_s)
    return decision, state


def test_cached_prompts_cost_nothing_until_a_scale_out_loses_the_cache() -> None:
    """Prompts of 2000 tokens, nine tenths of them cached; then a new replica knows none of them.

    After a time constant of the mix the work of each prompt has risen towards ten times, and it is
    the work that asks, before a queue or a missed objective does.
    """
    warm, state = _cached(0.9, ticks=60, state=PolicyState(), first=0)
    cold, _ = _cached(0.0, ticks=40, state=state, first=60)
    counts = {}
    for name, decision in (("warm", warm), ("cold", cold)):
        assert decision.demand is not None
        counts[name] = next(i for i in decision.proposals if i.signal is Signal.WORK).replicas
    assert warm.demand is not None
    assert warm.demand.cached_ratio == pytest.approx(0.9)
    assert cold.decided_by in (Stage.WORK, Stage.FORECAST)
    assert counts["cold"] > 2 * counts["warm"]
    assert cold.would_be > 4


# -- roles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_a_role_is_sized_for_its_half_of_the_work(role: Role) -> None:
    """What a prefill and a decode replica take of a request is less than what one takes of both."""
    counts = {}
    for each in (role, Role.MIXED):
        config = replace(DEFAULT, role=each, bounds=BoundsConfig(replicas_max=1000))
        decision = play("at_s ready rate | want\n 0 1 100 | .", config).decisions[0]
        counts[each] = decision.would_be
        assert decision.decided_by in (Stage.WORK, Stage.FORECAST)
        assert decision.verdict is Verdict.FRESH
    assert 1 < counts[role] < counts[Role.MIXED]


def test_prefill_answers_for_ttft_and_decode_for_inter_token_latency() -> None:
    script = """
       at_s  ready  rate  waiting         ttft        itl | want  decided_by  ttft   itl
          0      4     1        1  60:0:0:40:0  100:0:0:0 |    {}
    """
    prefill = replace(TPOT, role=Role.PREFILL)
    decode = replace(TPOT, role=Role.DECODE)
    play(script.format("5        ttft     5     0"), prefill)
    play(script.format("4   hold_down  none     0"), decode)
    late = script.replace("60:0:0:40:0  100:0:0:0", "100:0:0:0:0  50:0:0:50")
    play(late.format("5         itl  none     5"), decode)


def test_the_mix_of_a_role_is_finite() -> None:
    for role in Role:
        decision = play("at_s rate | want\n 0 5 | .", replace(DEFAULT, role=role)).decisions[0]
        assert decision.capacity is not None
        assert math.isfinite(decision.capacity.request_cost_s)
