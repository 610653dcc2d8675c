"""The time to ready is a high quantile of the starts that were seen."""

from dataclasses import replace

import pytest

from scaler.core.config import StartUpConfig
from scaler.core.model import Cause, NoData, Observation, Replicas
from scaler.core.start_up import StartUpState, start_up_s, update_start_up
from tests.core.play import observation

CONFIG = StartUpConfig()  # prior 180 s, quantile 0.9


def started(*samples_s: float) -> Observation:
    seen = observation({"at_s": "0"})
    assert isinstance(seen.replicas, Replicas)
    return replace(seen, replicas=replace(seen.replicas, start_up_s=samples_s))


def test_the_prior_stands_in_for_the_first_three_starts() -> None:
    state = StartUpState()
    assert start_up_s(state, CONFIG) == 180.0
    state = update_start_up(started(60.0), state, CONFIG)
    # 60, 180, 180: position 0.9 * 2 = 1.8
    assert start_up_s(state, CONFIG) == pytest.approx(180.0)
    state = update_start_up(started(70.0, 50.0), state, CONFIG)
    # 50, 60, 70: 60 + 0.8 * 10
    assert start_up_s(state, CONFIG) == pytest.approx(68.0)


def test_only_the_latest_starts_are_kept() -> None:
    config = replace(CONFIG, samples_max=4)
    state = update_start_up(started(*(float(i) for i in range(10))), StartUpState(), config)
    assert state.samples_s == (6.0, 7.0, 8.0, 9.0)


def test_impossible_and_endless_starts_teach_nothing() -> None:
    state = update_start_up(started(-1.0, float("nan"), 1801.0, 90.0), StartUpState(), CONFIG)
    assert state.samples_s == (90.0,)


def test_no_news_leaves_the_state() -> None:
    state = StartUpState(samples_s=(60.0,))
    assert update_start_up(started(), state, CONFIG) is state
    unseen = replace(started(5.0), replicas=NoData(cause=Cause.UNREACHABLE))
    assert update_start_up(unseen, state, CONFIG) is state
