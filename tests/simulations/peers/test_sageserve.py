"""SageServe's reactive arbiter and its Chiron, in time scripts: thresholds, holds and starts.

A line is one time that the arbiter is asked: what spec.replicas is, how many of them are ready,
what each page shows (a ``d`` for one that drains), and the count that is set: ``-`` if it stays.
"""

import dataclasses

import pytest

from simulations.controller import Controller, View
from simulations.peers import CORRECTED, PEERS, SHIPPED, Setting
from simulations.peers.sageserve import TICK_S
from simulations.scaled_object import ScaledObjectSpec
from tests.simulations.peers.test_hpa_controller import context
from tests.simulations.scrapes import replicas, scrape, view


def _controller(name: str, *, variant: str = SHIPPED, knob: float | None = None) -> Controller:
    """As it ships unless told otherwise, between 1 and 6 replicas."""
    peer = PEERS[name]
    setting = Setting(knob=peer.knob_default if knob is None else knob, variant=variant)
    bounds = ScaledObjectSpec(replicas_min=1, replicas_max=6)
    return peer.build(setting, context(scaled_object=bounds))


def _pages(text: str) -> dict[int, dict[str, float]]:
    """``51`` is percent of 100 blocks; ``2+1`` is two requests that run and one that waits."""
    pages: dict[int, dict[str, float]] = {}
    for uid, one in enumerate([] if text == "none" else text.replace("d", "").split(",")):
        running, _, waiting = one.partition("+")
        pages[uid] = {
            "blocks_used": float(running),
            "requests_running": float(running),
            "requests_waiting": float(waiting or 0.0),
        }
    return pages


def _view(at_s: float, spec: int, ready: int, text: str) -> View:
    draining = [uid for uid, one in enumerate(text.split(",")) if one.endswith("d")]
    counters = scrape(at_s, _pages(text), draining=draining)
    seen = view(at_s, replicas(spec, ready=ready))
    return dataclasses.replace(seen, live=lambda: counters)


def _play(controller: Controller, script: str) -> None:
    lines = [line.split("#")[0].split() for line in script.strip().splitlines()[1:]]
    spec = int(lines[0][1])
    for at_s, shown, ready, pages, _, want in lines:
        assert int(shown) == spec, f"{at_s} s: the script does not follow from the line before"
        set_to = controller.act(_view(float(at_s), spec, int(ready), pages))
        assert set_to == (None if want == "-" else int(want)), f"at {at_s} s"
        spec = spec if set_to is None else set_to


def test_both_are_asked_every_five_seconds() -> None:
    for name in ("sageserve-reactive", "chiron-lite"):
        controller = _controller(name)
        first_s = controller.next_at_s
        assert 0.0 <= first_s < TICK_S == 5.0
        controller.act(_view(first_s, 2, 2, "0,0"))
        assert controller.next_at_s == first_s + 5.0


# SageServe


def test_sageserve_steps_outside_its_band_and_holds_155_s() -> None:
    _play(
        _controller("sageserve-reactive"),
        """
        at_s spec ready  kv_percent       | want
           0    2     2  50,50            | 2    # 0.5 is not above
           5    2     2  62,40            | 3    # the mean is 0.51
          10    3     2  99,99            | -
         155    3     3  99,99,99         | -    # 150 s after the step
         160    3     3  60,60,33         | 4    # 155 s after it; 0.51
         315    4     3  60,60,60         | 5    # the fourth starts still: it is not awaited
         470    5     5  25,25,25,25,25   | 5    # 0.25 is not below
         475    5     5  25,25,25,25,24   | 4    # 0.248
         480    4     4  0,0,0,0          | -
         625    4     4  99,99,99,99      | -    # a step down holds for as long
         630    4     4  0,0,0,0          | 3
        """,
    )


def test_sageserves_mean_is_over_what_serves() -> None:
    """Neither a replica that starts (2 of 3 are ready) nor one that drains belongs to it."""
    _play(
        _controller("sageserve-reactive"),
        """
        at_s spec ready  kv_percent | want
           0    3     2  52,52      | 4
         155    4     2  40,44,90d  | 4    # 0.42; with the third it were 0.58
         160    4     2  20,20,90d  | 3    # 0.2; with the third 0.43
        """,
    )


def test_at_a_bound_there_is_no_step_and_so_no_hold() -> None:
    _play(
        _controller("sageserve-reactive"),
        """
        at_s spec ready  kv_percent        | want
           0    6     6  90,90,90,90,90,90 | 6
           5    6     6  0,0,0,0,0,0       | 5
         160    5     1  0                 | 4
         315    4     1  0                 | 3
         470    3     1  0                 | 2
         625    2     1  0                 | 1
         780    1     1  0                 | 1
         785    1     1  90                | 2
        """,
    )


@pytest.mark.parametrize("name", ["sageserve-reactive", "chiron-lite"])
def test_where_nobody_answers_the_count_stays(name: str) -> None:
    _play(
        _controller(name),
        """
        at_s spec ready  page    | want
           0    3     0  none    | -
           5    3     0  0d      | -    # the last one drains
          10    3     3  90,90,90 | 4   # and nothing was held
        """,
    )


def test_sageserves_lower_threshold_stays_at_half_its_knob() -> None:
    _play(
        _controller("sageserve-reactive", knob=0.2),
        """
        at_s spec ready  kv_percent | want
           0    2     2  20,20      | 2
           5    2     2  21,21      | 3
         160    3     3  10,10,10   | 3
         165    3     3  9,10,10    | 2
        """,
    )


# Chiron


def test_chiron_as_shipped_steps_whenever_it_is_asked() -> None:
    _play(
        _controller("chiron-lite"),
        """
        at_s spec ready  requests  | want
           0    5     5  1,7,1,0,0 | 4    # 3 of 5 are busy: 0.6 is not above
           5    4     4  1,1,1,0   | 5    # 0.75
          10    5     4  1,1,1,0   | 6    # the fifth starts still, and so on to the maximum
          15    6     4  1,1,1,0   | 6
          20    6     4  1,1,0,0   | 5    # there is no band between up and down
          25    5     4  1,1,0,0   | 4
        """,
    )


def test_chiron_corrected_holds_155_s_and_until_what_starts_is_ready() -> None:
    _play(
        _controller("chiron-lite", variant=CORRECTED),
        """
        at_s spec ready  requests      | want
           0    4     4  1,1,1,0       | 5
           5    5     4  1,1,1,1       | -
         150    5     5  1,1,1,1,1     | -    # ready, but 150 s after the step
         155    5     4  1,1,1,1       | -    # not ready, though 155 s after it
         300    5     4  0,0,0,0       | -    # not down either
         305    5     5  1,1,1,1,1     | 6
         460    6     6  1,1,1,0,0,0   | 5    # 0.5
         465    5     5  0,0,0,0,0     | -
         610    5     5  0,0,0,0,0     | -
         615    5     5  0,0,0,0,0     | 4
        """,
    )


def test_chirons_busy_replica_has_as_many_requests_as_its_knob_waiting_ones_too() -> None:
    _play(
        _controller("chiron-lite", knob=24.0),
        """
        at_s spec ready  running+waiting      | want
           0    3     3  24,23,23             | 2    # one of three
           5    2     2  20+4,24+0            | 3
          10    3     3  20+3,24,99d          | 2    # one of two; the third drains
        """,
    )


def test_chirons_replica_with_one_waiting_request_is_busy_as_shipped() -> None:
    _play(
        _controller("chiron-lite"),
        """
        at_s spec ready  running+waiting | want
           0    1     1  0+1             | 2
           5    2     2  0,0             | 1
        """,
    )
